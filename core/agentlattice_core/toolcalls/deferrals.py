"""Which calls a person is being asked about, so that the same call coming again is not asked about twice.

- The same call: same framework, run, end user, tool, action type, and digest of the full (unredacted) arguments.
- One approval lets one call run. Once it is claimed it is forgotten here; the call that claimed it is remembered by its
  own event id, so that a framework that executes that call again finds the claim and not a new question.
- Kept in memory and bounded. What is forgotten (a restart, the bound) is asked again, which is safe: the approval that
  nobody claims lapses. A call that comes again with its own identity needs none of this, the core knows its event id.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

__all__ = ["DeferralKey", "Deferrals"]

DeferralKey = tuple[str, str | None, str | None, str, str, str]

_MAX_REMEMBERED: Final = 10_000


class Deferrals:
    """The open questions of one gate. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[DeferralKey, tuple[str, ...]] = OrderedDict()
        self._claimed: OrderedDict[str, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open) + len(self._claimed)

    def add(self, key: DeferralKey, action_id: str) -> None:
        """A person is asked about `action_id`."""
        with self._lock:
            known = self._open.get(key, ())
            if action_id not in known:
                self._open[key] = (*known, action_id)
            _bound(self._open)

    def open(self, key: DeferralKey) -> tuple[str, ...]:
        """The actions that are being asked about for this call, oldest first."""
        return self._open.get(key, ())

    def drop(self, key: DeferralKey, action_id: str) -> None:
        """The question is answered."""
        with self._lock:
            left = tuple(known for known in self._open.get(key, ()) if known != action_id)
            if left:
                self._open[key] = left
            else:
                self._open.pop(key, None)

    def claimed_by(self, event_id: str | None, action_id: str) -> None:
        """The call `event_id` runs under the claim of `action_id`."""
        if event_id is not None:
            with self._lock:
                self._claimed[event_id] = action_id
                _bound(self._claimed)

    def claimed(self, event_id: str | None) -> str | None:
        """The action whose claim the call `event_id` was given, if it was given another call's."""
        return self._claimed.get(event_id) if event_id is not None and self._claimed else None


def _bound(entries: OrderedDict[DeferralKey, tuple[str, ...]] | OrderedDict[str, str]) -> None:
    while len(entries) > _MAX_REMEMBERED:
        entries.popitem(last=False)
