"""What verification answers: sound, or the first thing that is wrong and where.

- A problem names the first row that is not what was written, or, where only a checkpoint tells, the interval
  of entries between the last checkpoint that fits and the first that does not.
- An erased payload is not a problem: it is gone and an erasure entry says so. `payload_changed` is tampering;
  `payload_missing` is a payload that is gone although no entry says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agentlattice_core.audit.cuts import Cut
from agentlattice_core.audit.entry import Head

__all__ = ["Problem", "ProblemKind", "VerifyReport"]

ProblemKind = Literal[
    "body_changed",
    "leaf_changed",
    "entry_changed",
    "malformed",
    "missing",
    "moved",
    "repeated",
    "inserted",
    "time",
    "payload_changed",
    "payload_missing",
    "tile_changed",
    "head_changed",
    "truncated",
    "rewritten",
]
"""`entry_changed`: an entry and its hash were both replaced, and a neighbour gives it away. `moved`: a row
holds another row's entry. `rewritten`: everything fits together, but not with a checkpoint that was signed
before."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The first thing wrong. `row` is the index of the first bad row, None where only `interval` is known.

    `interval` is `(first, last)`: the indexes of the entries among which the change lies, both included.
    """

    kind: ProblemKind
    message: str
    row: int | None = None
    interval: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The outcome of a verification.

    `size` is how many entries from the beginning of the log are vouched for, `start` how many of them were
    trusted to begin with. `head` is where to go on from next time, None if there is a problem. `erased`
    counts payloads that were properly erased, `checkpoints` those that were compared and fit. `cuts` are what the
    entries say of older copies that were accepted, where every entry was read for it.
    """

    start: int
    size: int
    erased: int
    checkpoints: int
    head: Head | None
    problem: Problem | None = None
    cuts: tuple[Cut, ...] = ()

    @property
    def ok(self) -> bool:
        return self.problem is None
