"""What an engine does, told to whoever measures it.

- Told after the callers were answered, on the thread that served them: a meter must return at once, and one that raises
  harms nobody.
- Counted where the caller waits, so each answer is counted once, by one process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Measured", "Meter"]


@dataclass(frozen=True, slots=True)
class Measured:
    """One batch: each answer with the seconds its caller waited, how many were refused because nothing could be
    recorded, and how many wait for the next batch.
    """

    answers: Sequence[tuple[Any, float]]
    not_recorded: int
    waiting: int


class Meter(Protocol):
    """Whoever measures."""

    def batch(self, measured: Measured) -> None:
        """Count a batch."""
        ...
