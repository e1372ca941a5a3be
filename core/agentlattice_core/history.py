"""What the log says of itself: which keys followed each other, and where its history was cut.

- State points to the entries that say so, which makes it quick to ask; what they say is read from the entries.
- State may have been edited. Whoever does not get along with what it points to searches the whole log.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agentlattice_core.audit.cuts import Cut, read_cut
from agentlattice_core.audit.entry import parse
from agentlattice_core.audit.keys import KEY_ROTATED
from agentlattice_core.errors import AuditError
from agentlattice_core.stores.base import Reader, Row

__all__ = ["History", "noted_history", "searched_history"]

_KINDS = ("signing_key", "history_cut")
_LOG_KIND = b'"kind":"log"'


@dataclass(slots=True)
class History:
    """Statements of key rotation, as signed notes, and cuts, each in the order of the log."""

    statements: list[str] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Add what the entry says; an entry that cannot be read is found by verifying the log."""
        try:
            entry = parse(row[1])
            cut = read_cut(entry)
        except AuditError:
            return
        if cut is not None:
            self.cuts.append(cut)
        elif entry.kind == "log" and entry.data.get("event") == KEY_ROTATED:
            self.statements.append(str(entry.data.get("statement")))


def noted_history(reader: Reader) -> History:
    """The history that state points to."""
    found = History()
    for kind in _KINDS:
        for key in _keys(reader, kind):
            row = reader.row(key)
            if row is not None:
                found.add(row)
    return found


def searched_history(reader: Reader) -> History:
    """The history that the entries tell, whatever state says. Reads the whole log."""
    found = History()
    for row in reader.rows():
        if type(row[1]) is bytes and _LOG_KIND in row[1]:
            found.add(row)
    return found


def _keys(reader: Reader, kind: str) -> list[int]:
    """The indexes that state points to; none if somebody made it unreadable."""
    try:
        return [int(key, 16) for key, _ in reader.scan(kind)]
    except (AuditError, ValueError):
        return []
