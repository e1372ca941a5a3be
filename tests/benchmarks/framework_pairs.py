"""What the benchmarks of the frameworks share: a client that costs nothing, and measuring in pairs."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from typing import Any

from agentlattice_core.results import ActionOptions, ActionResult

__all__ = ["POLICY", "InstantClient", "paired", "summary"]

POLICY = "version: 1\npolicies:\n  - {name: Tools, action: 'tool.*', effect: allow}\n"


class InstantClient:
    """Allows everything at once and records nothing.

    It gives one answer to all: to make an answer is the work of a client, and part of `durable`.
    """

    mode = "enforce"
    _answer = ActionResult("executed", "a1", claim="started")

    def execute_sync(self, action_type: str, options: ActionOptions | None = None, **_: Any) -> ActionResult:
        return self._answer

    async def execute(self, action_type: str, options: ActionOptions | None = None, **_: Any) -> ActionResult:
        return self._answer

    def record_outcome(self, audit_event_id: str, claim: str, message: str | None = None) -> None:
        """Nothing is recorded."""


def paired(
    bare: Callable[[], Any],
    governed: Callable[[], Any],
    rounds: int,
    clock: Callable[[], float],
    *,
    calls: int = 1,
    warmed: int = 20,
) -> dict[str, float]:
    """Run both alternately, `rounds` times after `warmed` unmeasured ones, or as many as rounds where those are fewer;
    each run makes so many calls of a tool.
    """
    for _ in range(min(warmed, rounds)):
        bare()
        governed()
    gc.collect()
    gc.freeze()  # what the frameworks loaded is not looked through again in the middle of a measurement
    differences, plain = [], []
    for number in range(rounds):
        order = (bare, governed) if number % 2 else (governed, bare)
        took = {}
        for each in order:
            started = clock()
            each()
            took[each] = (clock() - started) * 1e6 / calls
        differences.append(took[governed] - took[bare])
        plain.append(took[bare])
    return summary(plain, differences)


def summary(plain: list[float], differences: list[float]) -> dict[str, float]:
    """The medians, in microseconds of one call."""
    return {
        "bare_us": round(statistics.median(plain), 1),
        "added_us": round(statistics.median(differences), 1),
    }
