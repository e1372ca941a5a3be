"""When things go wrong: a core that cannot write, arguments that are not JSON, secrets, and observe mode."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentlattice_core.actions import MAX_DEPTH, MAX_PAYLOAD_BYTES
from agentlattice_integrations.contract.base import ContractPart, needs, needs_how
from agentlattice_integrations.contract.harness import Feature, How, ScriptedCall
from agentlattice_integrations.contract.world import World, parse_denial

__all__ = ["SafetyContract"]

_SECRETS = {
    "password": "correct-horse-battery",
    "github": "ghp_" + "Ab3" * 12,
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "card": "4111 1111 1111 1111",
    "url": "hunter2hunter2",
    "custom": "blue-17-zebra",
}


def _deep() -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(MAX_DEPTH + 8):
        value = {"inner": value}
    return value


_UNUSABLE: dict[str, dict[str, Any]] = {
    "huge": {"text": "x" * (MAX_PAYLOAD_BYTES + 1)},
    "deep": _deep(),
    "not a number": {"value": float("nan")},
    "infinite": {"value": float("inf")},
    "surrogate": {"text": "\ud800"},
    "nul": {"text": "a\0b"},
    "too large a number": {"value": 10**40},
}

_NOT_JSON = {
    "cut off": '{"payload": {"a": 1',
    "a list": "[1, 2]",
    "text": '"payload"',
    "a member twice": '{"payload": {"a": 1}, "payload": {"a": 2}}',
    "prose": "store the thing",
}


class SafetyContract(ContractPart):
    """It fails closed, says so, and keeps secrets out of the log."""

    @needs_how
    def test_nothing_runs_that_cannot_be_recorded(self, world: World, how: How) -> None:
        """With a log that cannot be written the tool does not run, the model is told so, and the run goes on."""
        governance = world.governance()
        tools = world.tools("free")
        world.close()
        transcript = self.harness.run(governance, tools, [[ScriptedCall("free", {"text": "hello"})]], how=how)
        document = self.assert_denied(transcript.seen[0], "NOT_RECORDED")
        assert document["executed"] is False
        assert world.effects.of() == []
        assert transcript.final

    @pytest.mark.parametrize("kind", _UNUSABLE)
    def test_arguments_that_cannot_be_recorded_are_refused(self, world: World, kind: str) -> None:
        """Nothing runs, the run does not break, and what the model is told is not longer than it can use."""
        transcript = self.harness.run(
            world.governance(),
            world.tools("store", "free"),
            [
                [ScriptedCall("store", {"payload": _UNUSABLE[kind]})],
                [ScriptedCall("free", {"text": "after"})],
            ],
            how=self.any_how,
        )
        assert world.effects.of("store") == []
        assert world.effects.of("free") == [{"text": "after"}]
        document = self._if_denied(transcript.seen[0].content)
        if document is not None:  # a framework may refuse such arguments before the gate sees them
            assert document["reason"] == "INVALID_ARGUMENTS"
        assert len(transcript.seen[0].content) < 8192

    @pytest.mark.parametrize("kind", _NOT_JSON)
    @needs(Feature.RAW_TEXT)
    def test_arguments_that_are_not_a_json_object_are_refused(self, world: World, kind: str) -> None:
        """Text that is not one JSON object, or says a member twice, runs nothing and is explained to the model."""
        transcript = self.harness.run(
            world.governance(),
            world.tools("store"),
            [[ScriptedCall("store", _NOT_JSON[kind])]],
            how=self.any_how,
        )
        assert world.effects.of() == []
        self.assert_denied(transcript.seen[0], "INVALID_ARGUMENTS")

    def test_a_refused_attempt_is_in_the_log(self, world: World) -> None:
        """An attempt with arguments that cannot be recorded is recorded as denied, without those arguments."""
        denial = world.reference_denial("store", '{"payload": NaN}')
        assert denial.reason == "INVALID_ARGUMENTS"
        assert [event.status for event in world.events("store")] == ["denied"]

    def test_secrets_reach_the_tool_and_nothing_else(self, world: World) -> None:
        """The tool gets what the model wrote; no file of the log and nothing a reviewer sees holds a secret."""
        note = (
            f"use {_SECRETS['github']} or {_SECRETS['aws']}, pay with {_SECRETS['card']}, "
            f"db is postgres://app:{_SECRETS['url']}@db/main"
        )
        arguments = {"user": _SECRETS["custom"], "password": _SECRETS["password"], "note": note}
        self.harness.run(
            world.governance(redact=["user"]),
            world.tools("login"),
            [[ScriptedCall("login", arguments)]],
            how=self.any_how,
        )
        assert world.effects.of("login") == [arguments]
        (event,) = world.events("login")
        shown = json.dumps(event.metadata)
        assert "[redacted]" in shown
        world.close()
        stored = world.database_bytes()
        for name, secret in _SECRETS.items():
            assert secret not in shown, f"the audit page shows the secret `{name}`"
            assert secret.encode() not in stored, f"the database holds the secret `{name}`"

    @needs_how
    def test_observing_withholds_nothing_and_records_everything(self, world: World, how: How) -> None:
        """In observe mode a call that policy denies runs, the model notices nothing, and the log says what would be."""
        with self.another_world(world, mode="observe") as observed:
            transcript = self.harness.run(
                observed.governance(),
                observed.tools("forbidden", "deploy"),
                [[ScriptedCall("forbidden", {"text": "now"})], [ScriptedCall("deploy", {"version": "1.4"})]],
                how=how,
            )
            assert [seen.content for seen in transcript.seen] == [
                "the forbidden thing was done",
                "deployed 1.4",
            ]
            assert [event.status for event in observed.events()] == ["denied", "requested"]
            assert observed.pending() == []

    def test_the_same_refusal_reads_the_same_everywhere(self, world: World) -> None:
        """For several reasons, what this framework's model reads is byte for byte what the bare gate answers."""
        calls = [
            ScriptedCall("forbidden", {"text": "now"}),
            ScriptedCall("open_pr", {"title": "large", "pr_size": 87}),
            ScriptedCall("order", {"amount": "500", "currency": "EUR"}),
            ScriptedCall("order", {"amount": "5", "currency": "USD"}),
        ]
        expected = [world.reference_denial(call.tool, call.arguments).text for call in calls]
        transcript = self.harness.run(
            world.governance(),
            world.tools("forbidden", "open_pr", "order"),
            [[call] for call in calls],
            how=self.any_how,
        )
        assert [seen.content for seen in transcript.seen] == expected
        assert all(parse_denial(seen)["type"] == "agentlattice.denial/v1" for seen in transcript.seen)

    def _if_denied(self, content: str) -> dict[str, Any] | None:
        try:
            document = json.loads(content)
        except ValueError:
            return None
        return document if isinstance(document, dict) and "reason" in document else None
