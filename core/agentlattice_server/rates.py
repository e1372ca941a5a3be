"""How often a key may call, on one node.

- A key has two budgets: one for what it does, and a larger one for asking how a request stands, which must never run
  out at the pace of a client that waits: such a client takes a refusal for the end.
- What counts is a minute that slides: the calls of this minute by the clock, and of the minute before it the portion
  that is less than a minute ago, as if its calls had been spread evenly.
- Whoever is over it is told when to come back (`Retry-After`).
- Each node counts for itself, so behind a load balancer a key gets the budget once per node.
- Only the keys of two minutes are held. Counting takes no lock, because only the event loop counts, and no thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from agentlattice_server.problems import RequestError

__all__ = ["RateLimits"]

_MINUTE = 60.0
_WAITING = 20
"""How many times as often a key may ask how a request stands."""

_Calls = dict[tuple[str, bool], int]


class RateLimits:
    """Counts calls, on one event loop. `per_minute` is how many a key may make; 0 is as many as it likes. `clock` gives
    seconds.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._minute = 0
        self._calls: _Calls = {}
        self._before: _Calls = {}

    def count(self, key: str, *, waiting: bool) -> None:
        """Count a call of `key`; one that is refused does not count. Raises RequestError with code RATE_LIMITED."""
        if self._per_minute == 0:
            return
        minute, gone = divmod(self._clock(), _MINUTE)
        self._turn(int(minute))
        budget = self._per_minute * (_WAITING if waiting else 1)
        name = (key, waiting)
        calls, before = self._calls.get(name, 0), self._before.get(name, 0)
        if calls + before * (1 - gone / _MINUTE) + 1 <= budget:
            self._calls[name] = calls + 1
            return
        seconds = max(1, math.ceil(_until_one_more(calls, before, budget) - gone))
        raise RequestError(
            "RATE_LIMITED",
            f"this key made more than {budget} calls in a minute; try again in {seconds} s",
            {"Retry-After": str(seconds)},
        )

    def _turn(self, minute: int) -> None:
        """Begin the minute, if it is a new one."""
        if minute != self._minute:
            self._before = self._calls if minute == self._minute + 1 else {}
            self._calls, self._minute = {}, minute


def _until_one_more(calls: int, before: int, budget: int) -> float:
    """How many seconds after this minute began one more call is within the budget, if nobody calls until then."""
    if calls < budget:
        return _MINUTE * (1 - (budget - 1 - calls) / before)
    return _MINUTE + _MINUTE * (1 - (budget - 1) / calls)
