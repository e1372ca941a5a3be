"""`al approvals watch`: what waits for a person, and everything that happens to it, as it happens.

- First what waits now, then each request, vote, decision, escalation and timeout, in the order of the log. Nothing is
  told twice and nothing is left out in between.
- A cursor on the log, woken by commits of any process. It records nothing and needs no identity.
- A deadline that passes is told when it passes, whether anything has recorded it yet or not.
- It ends with Ctrl-C, when whoever reads its output has gone, or when the database has.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from agentlattice_cli import options

if TYPE_CHECKING:
    from agentlattice_cli.output import Output
    from agentlattice_core.results import ApprovalRequest
    from agentlattice_core.stores.base import Row, Store

__all__ = ["watch"]

_LONGEST_NAP = (
    2.0  # seconds until the clock, which may be set, and the file, which may go, are looked at again
)


def watch(db: options.Db = None, json: options.Json = False) -> None:
    """Show what waits for a person, and every request and decision as it happens, until Ctrl-C.

    With `--json`, one line each.
    """
    from agentlattice_cli.opening import following
    from agentlattice_cli.output import Output, note
    from agentlattice_cli.settings import resolve

    out = Output(json=json)
    with following(resolve({"db": db})) as store:
        if out.terminal and not json:
            note("watching; Ctrl-C ends it")
        for event, at, request in _events(store):
            _tell(out, event, at, request)


def _events(store: Store) -> Iterator[tuple[str, str, ApprovalRequest]]:
    """What happens, when, and the request as it then stands."""
    from agentlattice_core import approvals
    from agentlattice_core.clock import SystemClock, parse_time, time_of_log
    from agentlattice_core.errors import StoreError
    from agentlattice_core.follower import Follower
    from agentlattice_core.stores.sqlite import SQLiteStore

    clock, follower = SystemClock(), Follower(store)
    happened: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def watcher(entry: dict[str, Any], _row: Row) -> None:
        if _approval_of(entry) is not None:
            happened.put(entry)

    try:
        follower.watch(watcher)
        with store.read() as reader:
            known = reader.head.size
            waiting = approvals.pending(reader, time_of_log(clock, reader.head.at))
        deadlines = {request.id: request.timeout_at for request in waiting}
        for request in waiting:
            yield "pending", request.requested_at, request
        while True:
            now = clock.now()
            left = (parse_time(min(deadlines.values())) - now).total_seconds() if deadlines else _LONGEST_NAP
            try:
                entry = happened.get(timeout=max(0.0, min(left, _LONGEST_NAP)))
            except queue.Empty:
                if isinstance(store, SQLiteStore) and not os.path.exists(store.path):
                    raise StoreError(f"`{store.path}` was removed while it was watched") from None
                with store.read() as reader:
                    at = time_of_log(clock, reader.head.at)
                    passed = [one for one, deadline in deadlines.items() if deadline <= at]
                    requests = [approvals.approval_request(reader, one) for one in passed]
                for request in requests:
                    del deadlines[request.id]
                    if request.waits:
                        request.status = "timed_out"
                        yield "timed_out", request.timeout_at, request
                continue
            approval_id = _approval_of(entry)
            if entry["i"] < known or approval_id is None:
                continue  # it is part of what waited at first
            event = "requested" if entry["kind"] == "action" else entry["data"]["event"]
            if event == "timed_out" and approval_id not in deadlines:
                continue  # told when it passed
            with store.read() as reader:
                request = approvals.approval_request(reader, approval_id)
            if event == "requested":
                deadlines[approval_id] = request.timeout_at
            elif event in ("approved", "denied", "timed_out", "cancelled"):
                deadlines.pop(approval_id, None)
            yield event, entry["at"], request
    finally:
        follower.close()


def _approval_of(entry: dict[str, Any]) -> str | None:
    """The approval that an entry is about."""
    data = entry["data"]
    if entry["kind"] == "action" and "approval" in data:
        found: str = data["approval"]["id"]
        return found
    return data["approval"] if entry["kind"] == "approval" else None


def _tell(out: Output, event: str, at: str, request: ApprovalRequest) -> None:
    waits = event in ("pending", "requested", "escalated", "amended", "vote")
    out.event(
        {"event": event, "at": at, "approval": request},
        [
            at,
            event,
            request.id,
            request.agent,
            request.action_type,
            request.timeout_at if waits else request.resolved_by,
            request.digest[:12] if waits else request.reason,
        ],
    )
