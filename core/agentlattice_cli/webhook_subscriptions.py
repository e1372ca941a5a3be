"""The webhooks of a database or of a service: what commands do with them, wherever they are.

- A service is asked by whoever holds the key, and says itself what may be reached and how secrets are sealed. A
  database is changed by the person who is named.
- Both answer in the same form, which is the service's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from agentlattice_cli.opening import installed_server, managing, means_service, operator_of
from agentlattice_cli.service_calls import ServiceCalls, calling, part
from agentlattice_cli.settings import Settings

if TYPE_CHECKING:
    from agentlattice_core.webhooks import Webhook
    from agentlattice_server.webhooks.subscribing import Subscriptions

__all__ = ["MOST_DEAD_LETTERS", "WebhookSubscriptions", "webhook_subscriptions"]

MOST_DEAD_LETTERS = 100
"""How many dead letters are listed at once."""

_PATH = "/api/v1/webhooks"


class WebhookSubscriptions(Protocol):
    """Subscriptions of one organisation, each by id or name, and its answers as the service gives them.

    Everything raises what the subscriptions raise; a service raises AgentLatticeError with the same code and message.
    """

    def all(self) -> list[dict[str, Any]]:
        """Every subscription, the oldest first."""
        ...

    def add(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Subscribe, by the members of a new one; the subscription, and `secret`, which it signs with where it does."""
        ...

    def rotate(self, name: str, secret: str | None) -> dict[str, Any]:
        """Give it a new secret; the subscription, and `secret`."""
        ...

    def remove(self, name: str) -> str:
        """End it; its id."""
        ...

    def set_active(self, name: str, active: bool) -> dict[str, Any]:
        """Pause it, or resume it."""
        ...

    def test(self, name: str) -> dict[str, Any]:
        """Send a test message now; how it went."""
        ...

    def dead_letters(self, name: str) -> tuple[str, list[dict[str, Any]]]:
        """Its id, and what could not be delivered, the oldest first, as far as `MOST_DEAD_LETTERS`."""
        ...

    def replay(self, name: str, entries: Sequence[int] | None) -> int:
        """Have entries told again, or every dead letter; how many."""
        ...


@contextmanager
def webhook_subscriptions(settings: Settings) -> Iterator[WebhookSubscriptions]:
    """The subscriptions of what `settings` name: a service, or a database. Raises StoreError if that is not there."""
    if means_service(settings):
        yield _AtService(calling(settings, service=False))
        return
    from agentlattice_core.agents import operator_named

    with installed_server():
        from agentlattice_server.webhooks.addresses import Reach
        from agentlattice_server.webhooks.sealing import SealingKey
        from agentlattice_server.webhooks.subscribing import Subscriptions

    reach = Reach.of(settings["webhook_reach"].value)
    person = operator_named(operator_of(settings), settings["role"].value, settings["groups"].value)
    with managing(settings) as engine:
        yield _InDatabase(Subscriptions(engine, SealingKey(settings.webhook_key), person, reach))


class _AtService:
    def __init__(self, service: ServiceCalls) -> None:
        self._service = service

    def all(self) -> list[dict[str, Any]]:
        return self._service.pages(_PATH, "webhooks")

    def add(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = self._service.call("POST", _PATH, dict(wanted))
        return made

    def rotate(self, name: str, secret: str | None) -> dict[str, Any]:
        made: dict[str, Any] = self._service.call("POST", f"{_PATH}/{part(name)}/rotate", {"secret": secret})
        return made

    def remove(self, name: str) -> str:
        webhook_id = self._id(name)
        self._service.call("DELETE", f"{_PATH}/{part(webhook_id)}")
        return webhook_id

    def set_active(self, name: str, active: bool) -> dict[str, Any]:
        changed: dict[str, Any] = self._service.call("PATCH", f"{_PATH}/{part(name)}", {"active": active})
        return changed

    def test(self, name: str) -> dict[str, Any]:
        made: dict[str, Any] = self._service.call("POST", f"{_PATH}/{part(name)}/test")
        return made

    def dead_letters(self, name: str) -> tuple[str, list[dict[str, Any]]]:
        webhook_id = self._id(name)
        path = f"{_PATH}/{part(webhook_id)}/dead-letters"
        return webhook_id, self._service.call("GET", path, limit=MOST_DEAD_LETTERS)["deliveries"]

    def replay(self, name: str, entries: Sequence[int] | None) -> int:
        said = self._service.call("POST", f"{_PATH}/{part(name)}/replay", {"entries": entries})
        count: int = said["replayed"]
        return count

    def _id(self, name: str) -> str:
        webhook_id: str = self._service.call("GET", f"{_PATH}/{part(name)}")["id"]
        return webhook_id


class _InDatabase:
    def __init__(self, desk: Subscriptions) -> None:
        self._desk = desk

    def all(self) -> list[dict[str, Any]]:
        return [self._shown(hook) for hook in self._desk.all()]

    def add(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        made, secret = self._desk.add(**wanted)
        return {**self._shown(made), "secret": secret}

    def rotate(self, name: str, secret: str | None) -> dict[str, Any]:
        made, new = self._desk.rotate(name, secret)
        return {**self._shown(made), "secret": new}

    def remove(self, name: str) -> str:
        hook = self._desk.get(name)
        self._desk.remove(hook.id)
        return hook.id

    def set_active(self, name: str, active: bool) -> dict[str, Any]:
        return self._shown(self._desk.change(name, active=active))

    def test(self, name: str) -> dict[str, Any]:
        from agentlattice_server.webhooks.showing import attempt_shown

        return attempt_shown(self._desk.test(name))

    def dead_letters(self, name: str) -> tuple[str, list[dict[str, Any]]]:
        from agentlattice_server.webhooks.showing import delivery_shown

        hook = self._desk.get(name)
        found = self._desk.dead_letters(hook.id, limit=MOST_DEAD_LETTERS)
        return hook.id, [delivery_shown(hook.id, index, "dead", last) for index, last in found]

    def replay(self, name: str, entries: Sequence[int] | None) -> int:
        return self._desk.replay(name, entries)

    def _shown(self, hook: Webhook) -> dict[str, Any]:
        from agentlattice_server.webhooks.showing import shown

        return shown(hook, self._desk.size())
