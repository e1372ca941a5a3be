"""What happens to requests for a person, read from the log as it grows: for whoever watches over approvals.

| event | an entry says that |
|---|---|
| `requested` | somebody asked, and waits |
| `vote` | one of several who are needed approved |
| `approved`, `denied`, `timed_out`, `cancelled` | it is over |
| `escalated`, `amended` | others may decide, or must |

- A reader is a place in the log and goes on from there: nothing is told twice, and nothing is left out.
- Each event comes with the request as it stands when it is told, not as it stood then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from agentlattice_core.approvals import approval_request
from agentlattice_core.engine import Engine
from agentlattice_core.follower import Watch
from agentlattice_core.results import ApprovalRequest
from agentlattice_core.stores.base import Reader, Row

__all__ = ["MOST_AT_ONCE", "ApprovalEvent", "about_approvals", "happened", "until_happened"]

MOST_AT_ONCE = 100
"""Most events that are told at once."""

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class ApprovalEvent:
    """One thing that happened, when (RFC 3339), and the request as it stands now."""

    event: str
    at: str
    approval: ApprovalRequest


def _approval_of(entry: dict[str, Any]) -> str | None:
    """The id of the request that an entry is about, or None."""
    data = entry["data"]
    if entry["kind"] == "action" and "approval" in data:
        found: str = data["approval"]["id"]
        return found
    return data["approval"] if entry["kind"] == "approval" else None


def happened(reader: Reader, start: int) -> tuple[list[ApprovalEvent], int]:
    """What the entries from index `start` on tell, in order, and the index to go on from: the end of the log, or sooner
    if there is much to tell.
    """
    found: list[ApprovalEvent] = []
    size = reader.head.size
    while start < size:
        for row in reader.rows(start, min(size, start + _ROWS_AT_ONCE)):
            start = row[0] + 1
            # Most entries can be told by a look at their bytes, which is much cheaper than parsing them.
            entry = _read(row) if b'"approval":' in row[1] else None
            approval_id = _approval_of(entry) if entry is not None else None
            if entry is None or approval_id is None:
                continue
            event = "requested" if entry["kind"] == "action" else entry["data"]["event"]
            found.append(ApprovalEvent(event, entry["at"], approval_request(reader, approval_id)))
            if len(found) == MOST_AT_ONCE:
                return found, start
    return found, max(start, size)


def _read(row: Row) -> dict[str, Any] | None:
    try:
        entry: dict[str, Any] = orjson.loads(row[1])
    except orjson.JSONDecodeError:
        return None  # somebody changed it; verification names it
    return entry


async def until_happened(engine: Engine, start: int, patience: float) -> tuple[list[ApprovalEvent], int]:
    """As `happened`, as soon as there is something to tell, or after `patience` seconds."""
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(woken.set)
        except RuntimeError:
            pass  # the loop has ended, and whoever waited with it

    def look() -> tuple[list[ApprovalEvent], int]:
        with engine.read() as reader:
            return happened(reader, start)

    watch = Watch(lambda: engine.follower.watch(about_approvals(wake), wake))
    try:
        await asyncio.to_thread(watch.begin)
        until = loop.time() + patience
        while True:
            found = await asyncio.to_thread(look)
            left = until - loop.time()
            if found[0] or left <= 0:
                return found
            start = found[1]
            try:
                await asyncio.wait_for(woken.wait(), left)
            except TimeoutError:
                pass
            woken.clear()
    finally:
        watch.end()


def about_approvals(wake: Callable[[], None]) -> Callable[[dict[str, Any], Row], None]:
    """A watcher of the log that calls `wake` for every entry about a request."""

    def watcher(entry: dict[str, Any], _row: Row) -> None:
        if _approval_of(entry) is not None:
            wake()

    return watcher
