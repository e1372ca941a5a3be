"""Addresses and secrets are nowhere in clear: not in the database, an export, a log line, or an answer."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from webhook_world import World, receiving, until

from agentlattice_core import webhooks
from agentlattice_core.engine import Engine
from agentlattice_core.errors import ForbiddenError, StoreError
from agentlattice_core.principals import Operator
from agentlattice_server.webhooks.sealing import SealingError, SealingKey
from agentlattice_server.webhooks.subscribing import Subscriptions

PLANTED = (
    "whsec_UExBTlRFRC1TRUNSRVQtT0YtQS1XRUJIT09LLTEyMw==",
    "planted-path-of-the-url",
    "planted-signing-secret",
    "planted-routing-key",
    "planted-password",
)


def everything_written(world: World) -> Iterator[tuple[str, bytes]]:
    for path in world.path.parent.iterdir():
        if path.is_file() and path != world.key.path:
            yield path.name, path.read_bytes()


def test_planted_secrets_are_found_nowhere(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Not in any file but the key's, and that holds none; not in logs, not in what an operator is shown."""
    caplog.set_level(logging.DEBUG)
    with receiving(500) as receiver, world.deliverer():
        url = f"{receiver.url}/{PLANTED[1]}"
        world.desk.add("generic", url, secret=PLANTED[0])
        world.desk.add("slack", url, template="slack", signing_secret=PLANTED[2])
        world.desk.add("pd", url, template="pagerduty", routing_key=PLANTED[3])
        relay = f"smtp://al:{PLANTED[4]}@127.0.0.1:9?from=al@acme.test"
        world.desk.add("mail", relay, template="email")
        world.act(1, "deploy.web")
        until(lambda: world.hook("generic").retries, "a failure")
        world.desk.rotate("generic")
    shown = repr(world.desk.all()) + caplog.text
    with world.engine.read() as reader:
        shown += "".join(row[1].decode() + (row[4] or b"").decode() for row in reader.rows())
    for secret in PLANTED:
        assert secret not in shown
        for name, content in everything_written(world):
            assert secret.encode() not in content, name


def test_the_key_is_the_owners_alone(tmp_path: Path) -> None:
    """Made with mode 0600; one that others can read is refused, and so is one that is not there."""
    path = tmp_path / "key"
    SealingKey(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.chmod(path, 0o644)
    with pytest.raises(StoreError, match="read by others"):
        SealingKey(path)
    with pytest.raises(StoreError, match="cannot be used"):
        SealingKey(tmp_path / "none", make=False)
    empty = tmp_path / "empty"
    empty.touch(0o600)
    with pytest.raises(StoreError, match="holds no key"):
        SealingKey(empty)


def test_a_key_may_be_changed(tmp_path: Path) -> None:
    """A new key put first seals from then on; what the old one sealed still opens."""
    old = SealingKey(tmp_path / "old")
    sealed = old.seal("whk_1", {"url": "x"})
    new = SealingKey(tmp_path / "new")
    with new.path.open("ab") as file:
        file.write(old.path.read_bytes())
    both = SealingKey(new.path)
    assert both.open("whk_1", sealed)["url"] == "x"
    with pytest.raises(SealingError):
        old.open("whk_1", both.seal("whk_1", {"url": "x"}))


def test_one_subscription_cannot_be_given_anothers_secrets(tmp_path: Path) -> None:
    """What was sealed says whose it is."""
    key = SealingKey(tmp_path / "key")
    with pytest.raises(SealingError):
        key.open("whk_2", key.seal("whk_1", {"url": "x"}))


def test_removing_and_rotating_erase_what_was_sealed(world: World) -> None:
    """The old secret is not only unused but gone, and the log says that it was erased."""
    hook, _ = world.desk.add("hook", "https://hooks.example.com/x")
    world.desk.rotate("hook")
    world.desk.remove("hook")
    with world.engine.read() as reader:
        sealed = [row for row in reader.rows() if row[4] is not None and "sealed" in orjson.loads(row[4])]
        assert sealed == []
    assert world.client.verify_sync().chain_valid
    assert hook.id.startswith("whk_")


class _Overtaken:
    """An engine at which somebody else is faster with whatever is run."""

    def __init__(self, engine: Engine, faster: Callable[[], object]) -> None:
        self._engine = engine
        self._faster = faster

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, command: Callable[[Any], Any]) -> Any:
        self._faster()
        return self._engine.run(command)


def test_two_administrators_undo_nothing_of_each_other(world: World) -> None:
    """A new secret stays when the address is changed at the same time, and the other way round."""
    world.desk.add("hook", "https://hooks.example.com/x")
    issued: list[str] = []
    rotated = _Overtaken(world.engine, lambda: issued.append(world.desk.rotate("hook")[1]))
    Subscriptions(rotated, world.key, world.desk.operator).change("hook", url="https://hooks.example.com/y")  # type: ignore[arg-type]
    moved = _Overtaken(world.engine, lambda: world.desk.change("hook", url="https://hooks.example.com/z"))
    _, new = Subscriptions(moved, world.key, world.desk.operator).rotate("hook")  # type: ignore[arg-type]
    secrets = world.desk.opened(world.desk.get("hook"))
    assert secrets["url"] == "https://hooks.example.com/z"
    assert secrets["secrets"] == [new, *issued]


def test_managing_webhooks_takes_an_administrator(world: World) -> None:
    """A member may look, and change nothing."""
    world.desk.add("hook", "https://hooks.example.com/x")
    member = Subscriptions(world.engine, world.key, Operator("bob", "member"))
    assert [hook.name for hook in member.all()] == ["hook"]
    for forbidden in (
        lambda: member.add("other", "https://hooks.example.com/y"),
        lambda: member.change("hook", active=False),
        lambda: member.rotate("hook"),
        lambda: member.remove("hook"),
        lambda: member.replay("hook"),
        lambda: member.test("hook"),
    ):
        with pytest.raises(ForbiddenError):
            forbidden()


def test_an_agent_is_told_nothing_of_webhooks(world: World) -> None:
    """What becomes of the operators' webhooks is not for agents to hear."""
    heard: list[str] = []
    hook, _ = world.desk.add("hook", "https://hooks.example.com/x")
    world.agent.subscribe_sync(world.client.org_id, lambda event: heard.append(event.event_type))
    world.engine.run(lambda batch: webhooks.disable(batch, hook.id, "node", "gone"))
    world.act(1)
    until(lambda: heard, "what it may hear")
    assert heard == ["action.executed"]
