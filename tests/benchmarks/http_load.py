"""Calls of an HTTP endpoint over connections that stay open: as many as it answers, or at a given pace.

- A caller writes the same bytes each time and looks for one mark in the answer, so that a call costs the generator
  little, and the same whoever is called.
- At a pace, each caller has a timetable of its own. What is sent late because the answer before it was late counts from
  when it should have been sent.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["Answers", "Target", "calls"]


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint. Every answer is a 200 with `mark` in it; each caller has one of `headers`, in turn."""

    url: str
    body: bytes
    mark: bytes
    headers: Sequence[str] = ("",)

    def request(self, caller: int) -> bytes:
        """The request of a caller."""
        parts = urlsplit(self.url)
        head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        return (
            f"{head}{self.headers[caller % len(self.headers)]}Content-Length: {len(self.body)}\r\n\r\n".encode()
            + (self.body)
        )


@dataclass(frozen=True, slots=True)
class Answers:
    """What the callers together got: `rate` in answers a second, waits in seconds in order, and the generator's own
    processor time for one call in microseconds."""

    rate: float
    waits: Sequence[float]
    own: float

    def wait(self, portion: float) -> float:
        """The milliseconds that so large a portion of the answers came within."""
        return self.waits[min(len(self.waits) - 1, int(len(self.waits) * portion))] * 1000


def calls(targets: Sequence[Target], callers: int, seconds: float, pace: float | None = None) -> Answers:
    """Call for so many seconds, or longer until somebody is answered, after a tenth of them to warm up.

    `pace` is how many calls a second all make together. The callers are spread evenly over the targets.
    """
    return asyncio.run(_calls(targets, callers, seconds, pace))


async def _calls(targets: Sequence[Target], callers: int, seconds: float, pace: float | None) -> Answers:
    loop = asyncio.get_running_loop()
    made: list[_Caller] = []
    for number, target in zip(range(callers), itertools.cycle(targets), strict=False):
        parts = urlsplit(target.url)
        request, mark = target.request(number), target.mark
        _, caller = await loop.create_connection(
            lambda request=request, mark=mark: _Caller(loop, request, mark),  # type: ignore[misc]
            parts.hostname,
            parts.port,
        )
        made.append(caller)
    chance = random.Random(0)
    between = None if pace is None else callers / pace
    for caller in made:
        caller.begin(between, 0.0 if between is None else chance.uniform(0, between))
    await _answered(made, seconds / 10)
    for caller in made:
        caller.waits.clear()
    processor, started = time.process_time(), time.perf_counter()
    await _answered(made, seconds)
    elapsed, processor = time.perf_counter() - started, time.process_time() - processor
    waits = sorted(wait for caller in made for wait in caller.waits)
    for caller in made:
        caller.end()
    return Answers(len(waits) / elapsed, waits, processor / max(1, len(waits)) * 1e6)


async def _answered(callers: Sequence[_Caller], seconds: float) -> None:
    """Let them call until somebody was answered; raises what went wrong for one of them."""
    while True:
        done, _ = await asyncio.wait(
            [caller.failure for caller in callers], timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        for failure in done:
            failure.result()
        if any(caller.waits for caller in callers):
            return


class _Caller(asyncio.Protocol):
    """One connection, with one call under way at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, request: bytes, mark: bytes) -> None:
        self._loop = loop
        self._request = request
        self._mark = mark
        self._read = b""
        self._ended = False
        self._between: float | None = None
        self._due = 0.0
        self.failure: asyncio.Future[None] = loop.create_future()
        self.waits: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def begin(self, between: float | None, after: float) -> None:
        """Call again and again, or every `between` seconds, from `after` seconds on."""
        self._between, self._due = between, self._loop.time() + after
        self._loop.call_at(self._due, self._send)

    def end(self) -> None:
        """Hang up."""
        self._ended = True
        self._transport.close()

    def _send(self) -> None:
        if not self._ended:
            self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, found, body = self._read.partition(b"\r\n\r\n")
        if not found:
            return
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if len(body) < int(length):
            return
        if not head.startswith(b"HTTP/1.1 200") or self._mark not in body:
            self._fail(RuntimeError(f"the endpoint answered {self._read[:300]!r}"))
            return
        self._read = b""
        now = self._loop.time()
        self.waits.append(now - self._due)
        if self._between is None:
            self._due = now
            self._send()
            return
        self._due += self._between
        if self._due <= now:
            self._send()
        else:
            self._loop.call_at(self._due, self._send)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._ended:
            self._fail(error or ConnectionError("the endpoint hung up"))

    def _fail(self, error: Exception) -> None:
        if not self.failure.done():
            self.failure.set_exception(error)
