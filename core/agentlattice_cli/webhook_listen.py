"""`al webhooks listen`: what happens, as webhooks would tell it, to a program on this machine.

- For writing a receiver: no subscription is made, nothing is recorded, and nothing is tried again.
- Of a database, or of a service with the key in AL_API_KEY: what an operator's hears, or an agent's.
- Messages are signed like a webhook's, with a secret that is printed. Of a database they have the ids that a webhook's
  would have; a service tells no leaf hash, so that its have others, the same each time.
"""

from __future__ import annotations

import hashlib
import queue
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentlattice_cli import options

if TYPE_CHECKING:
    from agentlattice_cli.settings import Settings
    from agentlattice_core.results import GovernanceEvent

__all__ = ["listen"]


def listen(
    forward_to: Annotated[
        str | None,
        typer.Option(
            "--forward-to",
            metavar="URL",
            help="Where to send each message, such as http://localhost:3000/hooks.",
        ),
    ] = None,
    event: Annotated[
        list[str] | None,
        typer.Option(
            "--event", metavar="TYPE", help="A notification to hear of; all without it. May be repeated."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="End after so many messages.")
    ] = None,
    db: options.Db = None,
    json: options.Json = False,
) -> None:
    """Print every notification from now on, and forward it, signed, until Ctrl-C."""
    from agentlattice_cli.interrupts import heeding_interrupts
    from agentlattice_cli.opening import installed_server
    from agentlattice_cli.output import Output, note
    from agentlattice_cli.settings import resolve
    from agentlattice_core.errors import InvalidRequestError
    from agentlattice_core.notifications import EVENT_TYPES

    with installed_server():
        from agentlattice_server.webhooks.addresses import Reach
        from agentlattice_server.webhooks.bodies import body_of
        from agentlattice_server.webhooks.signing import new_secret

    for one in event or ():
        if one not in EVENT_TYPES:
            raise InvalidRequestError(f"event type `{one:.80}` is not one of {', '.join(EVENT_TYPES)}")
    reach, secret = Reach(loopback=True), new_secret()
    parts = reach.checked_url(forward_to) if forward_to is not None else None
    out = Output(json=json)
    happened: queue.SimpleQueue[tuple[str, GovernanceEvent]] = queue.SimpleQueue()
    hearing = _hearing(resolve({"db": db}), event, lambda name, told: happened.put((name, told)))
    with hearing, heeding_interrupts():
        if parts is not None:
            note(f"forwarding to {forward_to}; secret: {secret}")
        note("listening; Ctrl-C ends it")
        told = 0
        while limit is None or told < limit:
            name, notified = happened.get()
            body = body_of("generic", notified, None, {}) or b""
            answer = _forwarded(parts, name, body, secret, reach) if parts is not None else None
            out.event(
                {"id": name, "answer": answer, "event": notified},
                [
                    notified.timestamp,
                    notified.event_type,
                    name,
                    notified.data.get("audit_event_id"),
                    answer,
                ],
            )
            told += 1


@contextmanager
def _hearing(
    settings: Settings, events: Sequence[str] | None, tell: Callable[[str, GovernanceEvent], None]
) -> Iterator[None]:
    """Have `tell` called with the id and the notification of each message, on another thread."""
    from agentlattice_cli.opening import following, served
    from agentlattice_core.follower import Follower
    from agentlattice_core.notifications import notification
    from agentlattice_core.stores.base import Row
    from agentlattice_server.webhooks.composing import message_id

    service = served(settings)
    if service is not None:
        with service:
            service.subscribe_sync(
                service.org_id, lambda told: tell(_id_of(told), told), events=events or None
            )
            yield
        return

    def watcher(entry: dict[str, Any], row: Row) -> None:
        told = notification(entry, row, "operator")
        if told is not None and (not events or told.event_type in events):
            tell(message_id(row), told)

    with following(settings) as store:
        follower = Follower(store)
        try:
            follower.watch(watcher)
            yield
        finally:
            follower.close()


def _id_of(told: GovernanceEvent) -> str:
    """The id of a message about a notification of a service: of its log, and of the entry that it is about."""
    entry = f"{told.org_id}/{told.data.get('id')}"
    return f"msg_{hashlib.sha256(entry.encode()).hexdigest()[:32]}"


def _forwarded(parts: Any, name: str, body: bytes, secret: str, reach: Any) -> str:
    """Send one message; what was answered."""
    from agentlattice_core.clock import SystemClock
    from agentlattice_server.webhooks.addresses import UnreachableError
    from agentlattice_server.webhooks.posting import post
    from agentlattice_server.webhooks.signing import signed_headers

    headers = {
        "Content-Type": "application/json",
        **signed_headers(name, SystemClock().now(), body, [secret]),
    }
    try:
        return str(post(parts, body, headers, reach).status)
    except UnreachableError as error:
        return error.message
