"""How often a key may call, on one node.

- A key has two budgets: one for what it does, and a larger one for asking how a request stands, which must never run
  out at the pace of a client that waits: such a client takes a refusal for the end.
- Whoever is over it is told when to come back (`Retry-After`).
- Each node counts for itself, so behind a load balancer a key gets the budget once per node.
"""

from __future__ import annotations

import math
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from agentlattice_server.problems import RequestError

__all__ = ["RateLimits"]

_WAITING = 20
"""How many times as often a key may ask how a request stands."""


class RateLimits:
    """Counts calls. `per_minute` is how many a key may make; 0 is as many as it likes."""

    def __init__(self, per_minute: int) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._unlimited = per_minute == 0
        self._doing = RateLimitItemPerMinute(per_minute or 1, namespace="doing")
        self._asking = RateLimitItemPerMinute((per_minute or 1) * _WAITING, namespace="asking")

    def count(self, key: str, *, waiting: bool) -> None:
        """Count a call of `key`. Raises RequestError with code RATE_LIMITED."""
        if self._unlimited:
            return
        budget = self._asking if waiting else self._doing
        if not self._limiter.hit(budget, key):
            reset = self._limiter.get_window_stats(budget, key).reset_time
            seconds = max(1, math.ceil(reset - time.time()))
            raise RequestError(
                "RATE_LIMITED",
                f"this key made more than {budget.amount} calls in a minute; try again in {seconds} s",
                {"Retry-After": str(seconds)},
            )
