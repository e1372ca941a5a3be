"""What happens although nobody waits for it: timeouts, escalations, lapses, delegations that expire, and what a change
of policy leaves to do.

- One timer to the next thing that falls due, in each process that has the file open. It is set anew a moment after this
  process has written, and now and then for what others wrote: one of them may die before its own timer rings.
- What is overdue when the file is opened is settled then.
- Work is done in transactions of bounded size, so that a thousand things due at once hold nobody up.
- Whoever records something finds it due in its own transaction, so several processes record it once.
- A clock that says when it is moved (a test's) has what falls due by that done before it goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from agentlattice_core import deadlines, delegation, reevaluation
from agentlattice_core.batch import Batch
from agentlattice_core.clock import Clock, MovableClock, parse_time, time_of_log
from agentlattice_core.keeper import Keeper
from agentlattice_core.policies import Policies
from agentlattice_core.stores.base import Reader, Store

__all__ = ["SOON", "Scheduler"]

_log = logging.getLogger("agentlattice")

SOON = 0.25
"""Seconds after a commit of this process until the timer is set anew."""

_LONGEST_NAP = 2.0  # seconds until what others wrote is looked at
_SHORTEST_NAP = 0.01
_AT_ONCE = 250  # things settled in one transaction


class Scheduler:
    """The timer of one open log. `run` carries a command through the sequencer, or answers 0 if it may not."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        keeper: Keeper,
        policies: Policies,
        run: Callable[[Callable[[Batch], int]], int],
    ) -> None:
        self._store = store
        self._clock = clock
        self._keeper = keeper
        self._policies = policies
        self._run = run
        self._ends: list[Callable[[], None]] = []
        self._told = ""

    def start(self) -> None:
        """Settle what is overdue, and go on by the timer."""
        if isinstance(self._clock, MovableClock):
            self._ends.append(self._clock.on_move(self._settle_quietly))
        self._settle_quietly(rounds=1)  # whoever opens the file is not held up by what is more than that
        self._keeper.later("deadlines", _SHORTEST_NAP, self.look)

    def stop(self) -> None:
        """Hear no more of the clock. The timer ends with the keeper."""
        while self._ends:
            self._ends.pop()()

    def look(self) -> None:
        """Settle what has fallen due, and set the timer anew."""
        nap = _LONGEST_NAP
        if self._settle_quietly():
            with self._store.read() as reader:
                due = _next_due(reader)
            if due is not None:
                nap = min(nap, max(0.0, (parse_time(due) - self._clock.now()).total_seconds()))
        # Never at once: a clock behind the log's time must not have it asked without pause.
        self._keeper.later("deadlines", max(nap, _SHORTEST_NAP), self.look)

    def _settle_quietly(self, rounds: int | None = None) -> bool:
        """Settle everything, or what `rounds` transactions hold; whether that went well. What could not be recorded is
        tried again later.
        """
        try:
            done = 0
            while done != rounds and self._something_to_do():
                if not self._run(self._work):
                    break
                done += 1
        except Exception as error:
            if str(error) != self._told:  # it is tried again every two seconds, and said once
                self._told = str(error)
                _log.warning("what has fallen due could not be recorded: %s", error)
            return False
        self._told = ""
        return True

    def _something_to_do(self) -> bool:
        with self._store.read() as reader:
            due = _next_due(reader)
            overdue = due is not None and due <= time_of_log(self._clock, reader.head.at)
            return overdue or reevaluation.outstanding(reader)

    def _work(self, batch: Batch) -> int:
        settled = deadlines.settle(batch, _AT_ONCE) + delegation.expire(batch, _AT_ONCE)
        return settled + reevaluation.proceed(self._policies, batch)


def _next_due(reader: Reader) -> str | None:
    """The time of the log at which something falls due next, or None if nothing waits."""
    found = (deadlines.next_due(reader), delegation.next_expiry(reader))
    return min((due for due in found if due is not None), default=None)
