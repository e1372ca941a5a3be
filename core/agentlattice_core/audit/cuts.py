"""A history that was cut: an older copy of the log was restored, and somebody said that this was meant.

- An entry of kind `log` says so: who, when, how many entries were left, how many had been signed, and the checkpoint of
  those, which stays as evidence of what was lost.
- The next checkpoint names that one as the one before it, though it is of as many entries or more. So a cut shows in
  what is signed, and without its entry nothing verifies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from agentlattice_core.audit.checkpoint import Checkpoint
from agentlattice_core.audit.entry import Entry
from agentlattice_core.audit.keys import Keyring
from agentlattice_core.errors import AuditError

__all__ = ["HISTORY_CUT", "Cut", "cut_data", "explained", "read_cut"]

HISTORY_CUT: Final = "history_cut"
"""The `event` of the log's entry that says so."""


@dataclass(frozen=True, slots=True)
class Cut:
    """That `kept` entries were left where `signed` had been, of which `checkpoint`, a signed note, is the evidence.

    `entry` is the index of the entry that says so. Of those that were left, the first `vouched` had been signed as they
    are.
    """

    entry: int
    at: str
    by: str
    kept: int
    signed: int
    vouched: int
    checkpoint: str

    def __str__(self) -> str:
        unsigned = self.kept - self.vouched
        return (
            f"the history was cut: {self.signed} entries had been signed, and a copy of {self.kept} was restored"
            f"{f', the last {unsigned} of them never signed' if unsigned else ''}; "
            f"entry {self.entry} says that `{self.by}` accepted it at {self.at}"
        )


def cut_data(*, kept: int, signed: int, vouched: int, checkpoint: str) -> dict[str, Any]:
    """The `data` of the entry."""
    return {
        "event": HISTORY_CUT,
        "kept": kept,
        "signed": signed,
        "vouched": vouched,
        "checkpoint": checkpoint,
    }


def read_cut(entry: Entry) -> Cut | None:
    """What the entry says of a cut; None if it speaks of something else. Raises AuditError if it is malformed."""
    data = entry.data
    if entry.kind != "log" or data.get("event") != HISTORY_CUT:
        return None
    numbers = [data.get(name) for name in ("vouched", "kept", "signed")]
    if any(type(number) is not int for number in numbers) or type(data.get("checkpoint")) is not str:
        raise AuditError(f"entry {entry.i} speaks of a cut and does not say which")
    vouched, kept, signed = (int(number) for number in numbers if number is not None)
    if not 0 <= vouched <= kept == entry.i < signed:
        raise AuditError(f"entry {entry.i} speaks of a cut that cannot be")
    by = str(entry.who.get("operator"))
    return Cut(entry.i, entry.at, by, kept, signed, vouched, data["checkpoint"])


def explained(signed: Checkpoint, cuts: Iterable[Cut], keys: Keyring) -> bool:
    """Whether one of `cuts` explains that `signed` names another history's checkpoint as the one before it."""
    before = signed.previous
    if before is None or before.size < signed.size:
        return False
    for cut in cuts:
        try:
            lost = keys.open_kept(cut.checkpoint)
        except AuditError:
            continue
        if (lost.size, lost.root) == (before.size, before.root) and cut.entry < signed.size:
            return True
    return False
