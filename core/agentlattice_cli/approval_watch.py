"""`al approvals watch`: what waits for a person, and everything that happens to it, as it happens.

- First what waits now, then each request, vote, decision, escalation and timeout, in the order of the log. Nothing is
  told twice and nothing is left out in between.
- A place in the log, of a database or of a service: woken by commits of any process, or by an answer that was held back
  until there was something to say. A service that is away for half a minute is waited for.
- It records nothing. Looking at a database needs no identity, at a service an operator's key.
- A deadline that passes is told when it passes, whether anything has recorded it yet or not.
- It ends with Ctrl-C, when whoever reads its output has gone, or when the database or the service has.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from agentlattice_cli import options

if TYPE_CHECKING:
    from agentlattice_cli.output import Output
    from agentlattice_cli.service_calls import ServiceCalls
    from agentlattice_cli.settings import Settings
    from agentlattice_core.results import ApprovalRequest
    from agentlattice_core.stores.base import Store

__all__ = ["watch"]

_LONGEST_NAP = (
    2.0  # seconds until the clock, which may be set, and the file, which may go, are looked at again
)
_LONGEST_HOLD = (
    25  # seconds that a service is asked to hold an answer, below what proxies let a connection idle
)
_AGAIN = 1.0  # seconds until a deadline is looked at again that has passed by this clock and not by the log's

_PASSING = ("NETWORK_ERROR", "RATE_LIMITED", "STORE_ERROR")
_PAUSES = (
    1.0,
    2.0,
    4.0,
    8.0,
    16.0,
)  # seconds between attempts to reach a service that is away, as when it restarts

_Happened = list[tuple[str, str, "ApprovalRequest"]]
"""What happened, when, and the request as it stands."""


class _Log(Protocol):
    """A log to go on reading. `pending` comes first, `happened` and `standing` as often as wanted."""

    def pending(self) -> list[ApprovalRequest]: ...

    def happened(self, patience: float) -> _Happened: ...

    def standing(self, approval_id: str) -> ApprovalRequest: ...


def watch(db: options.Db = None, json: options.Json = False) -> None:
    """Show what waits for a person, and every request and decision as it happens, until Ctrl-C.

    With `--json`, one line each.
    """
    from agentlattice_cli.interrupts import heeding_interrupts
    from agentlattice_cli.output import Output, note
    from agentlattice_cli.settings import resolve

    out = Output(json=json)
    with _opened(resolve({"db": db})) as log, heeding_interrupts():
        if out.terminal and not json:
            note("watching; Ctrl-C ends it")
        for event, at, request in _events(log):
            _tell(out, event, at, request)


@contextmanager
def _opened(settings: Settings) -> Iterator[_Log]:
    from agentlattice_cli.opening import following, means_service
    from agentlattice_cli.service_calls import calling

    if means_service(settings):
        yield _ServiceLog(calling(settings, service=False))
        return
    with following(settings) as store:
        log = _DatabaseLog(store)
        try:
            yield log
        finally:
            log.close()


def _events(log: _Log) -> Iterator[tuple[str, str, ApprovalRequest]]:
    """What happens, when, and the request as it then stands."""
    from agentlattice_core.clock import SystemClock, parse_time

    clock = SystemClock()
    waiting = log.pending()
    deadlines = {request.id: parse_time(request.timeout_at).timestamp() for request in waiting}
    for request in waiting:
        yield "pending", request.requested_at, request
    while True:
        now = clock.now().timestamp()
        for approval_id in [one for one, deadline in deadlines.items() if deadline <= now]:
            request = log.standing(approval_id)
            if request.waits:
                deadlines[approval_id] = now + _AGAIN  # not by the clock that counts
                continue
            del deadlines[approval_id]
            if request.status == "timed_out":
                yield "timed_out", request.timeout_at, request
        left = min(deadlines.values()) - clock.now().timestamp() if deadlines else math.inf
        for event, at, request in log.happened(max(0.0, left)):
            if event == "requested":
                if request.id in deadlines:
                    continue  # it is part of what waited at first
                # Also if it is over by now: how it ended is told next.
                deadlines[request.id] = parse_time(request.timeout_at).timestamp()
            elif event in ("approved", "denied", "timed_out", "cancelled"):
                known = deadlines.pop(request.id, None)
                if event == "timed_out" and known is None:
                    continue  # told when it passed
            yield event, at, request


class _DatabaseLog:
    """The log of a database, followed."""

    def __init__(self, store: Store) -> None:
        from agentlattice_core.approval_events import about_approvals
        from agentlattice_core.clock import SystemClock
        from agentlattice_core.follower import Follower

        self._store = store
        self._clock = SystemClock()
        self._bell = threading.Event()
        self._follower = Follower(store)
        self._follower.watch(about_approvals(self._bell.set))
        self._place = 0

    def pending(self) -> list[ApprovalRequest]:
        from agentlattice_core import approvals
        from agentlattice_core.clock import time_of_log

        with self._store.read() as reader:
            self._place = reader.head.size
            return approvals.pending(reader, time_of_log(self._clock, reader.head.at))

    def happened(self, patience: float) -> _Happened:
        from agentlattice_core.approval_events import happened

        if not self._bell.wait(min(patience, _LONGEST_NAP)):
            self._check_there()
            return []
        self._bell.clear()
        with self._store.read() as reader:
            found, self._place = happened(reader, self._place)
            if self._place < reader.head.size:
                self._bell.set()
        return [(one.event, one.at, one.approval) for one in found]

    def standing(self, approval_id: str) -> ApprovalRequest:
        from agentlattice_core import approvals
        from agentlattice_core.clock import time_of_log

        with self._store.read() as reader:
            request = approvals.approval_request(reader, approval_id)
            if request.waits and request.timeout_at <= time_of_log(self._clock, reader.head.at):
                request.status = "timed_out"
        return request

    def close(self) -> None:
        self._follower.close()

    def _check_there(self) -> None:
        from agentlattice_core.errors import StoreError
        from agentlattice_core.stores.sqlite import SQLiteStore

        if isinstance(self._store, SQLiteStore) and not os.path.exists(self._store.path):
            raise StoreError(f"`{self._store.path}` was removed while it was watched")


class _ServiceLog:
    """The log of a service, whose answers are held back until there is something to say."""

    def __init__(self, service: ServiceCalls) -> None:
        self._service = service
        self._cursor: str | None = None

    def pending(self) -> list[ApprovalRequest]:
        _, self._cursor = self._service.approval_events(None)
        return self._service.pending_approvals()

    def happened(self, patience: float) -> _Happened:
        from agentlattice_core.errors import AgentLatticeError

        wait = int(min(patience, _LONGEST_HOLD))
        for pause in _PAUSES:
            try:
                return self._since_then(wait, patience)
            except AgentLatticeError as error:
                if error.code not in _PASSING:
                    raise
                time.sleep(pause)
        return self._since_then(wait, patience)

    def _since_then(self, wait: int, patience: float) -> _Happened:
        found, self._cursor = self._service.approval_events(self._cursor, wait)
        if not found and not wait:
            time.sleep(patience % 1)  # what is left of a second is not worth an answer held back
        return found

    def standing(self, approval_id: str) -> ApprovalRequest:
        return self._service.approval(approval_id)


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
