"""Verifying an engine's log, and its state against the log.

- `verify` reads every entry, payload and tile, and compares the tree with every checkpoint that was signed: those kept
  in the database, the signer's own record outside of it, and one that the caller kept elsewhere.
- A checkpoint that was signed and is no longer kept is missed: the one after it names it.
- Whatever else was put into the database has no place there, and is found too.
- From a checkpoint it reads only what came after: the cost does not depend on the size of the log.
- `verify_state` folds the whole log again, on disk, and compares every document of state with the fold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw
import orjson

from agentlattice_core.audit.checkpoint import Checkpoint
from agentlattice_core.audit.cuts import Cut, explained
from agentlattice_core.audit.entry import Head
from agentlattice_core.audit.keys import Keyring
from agentlattice_core.audit.tiles import TiledHashes
from agentlattice_core.audit.verify import resume, verify_rows
from agentlattice_core.clock import format_time
from agentlattice_core.engine import Engine
from agentlattice_core.errors import AuditError
from agentlattice_core.history import History, noted_history, searched_history
from agentlattice_core.notary import Notary
from agentlattice_core.results import VerifyResult
from agentlattice_core.stores.base import Document, Reader, StateKey, encode
from agentlattice_core.stores.projections import fold

__all__ = ["StateDifference", "state_differences", "verify", "verify_state"]

_BATCH = 2_000
_BEYOND = 2**62


def verify(
    engine: Engine,
    checkpoint: str | None = None,
    *,
    incremental: bool = False,
    restored: bool = False,
    last: Checkpoint | None = None,
) -> VerifyResult:
    """Verify the log. `checkpoint` is a signed note that was kept elsewhere.

    `incremental` starts from `checkpoint`, or from the last one signed, and trusts what it vouches for. `restored` asks
    of an older copy whether it fits by itself, leaving out what the signer signed last. `last` is what the signer
    signed last, for who must not wait for the signer: inside a transaction, which the signer may be waiting for.
    Raises AuditError if `checkpoint` is not this log's or not signed by its key.
    """
    notary = engine.notary
    last = last or notary.last()
    with engine.read() as reader:
        history = noted_history(reader)
        try:
            signed = _signed(reader, notary, history, last, checkpoint, incremental, restored)
        except AuditError:
            signed = None
        if signed is None or signed.problem is not None:
            history = searched_history(reader)  # perhaps state was edited, and points to too little
            signed = _signed(reader, notary, history, last, checkpoint, incremental, restored)
        known, problem, outside = signed.known, signed.problem, signed.outside
        lost = [cut for cut in history.cuts if outside is not None and cut.kept < outside.size <= cut.signed]
        if outside is not None:
            if lost:  # of the same size, both histories may have been signed
                known = {name: kept for name, kept in known.items() if name[0] != outside.size}
            known[outside.size, outside.root] = outside
        start = Head()
        if incremental:
            start = resume(outside or last, TiledHashes(reader.tile, reader.leaves))
        report = verify_rows(
            reader.rows(start.size, _BEYOND),  # what was put beyond the head is somebody's work too
            log=engine.store.log_id,
            start=start,
            head=reader.head,
            checkpoints=sorted((c for c in known.values() if c.size >= start.size), key=lambda c: c.size),
            read_tile=reader.tile,
        )
        # What lies before a checkpoint that is trusted is not looked at.
        stray, stray_row = next(reader.strays(), (None, None)) if not incremental else (None, None)
    broken: int | None = None
    if report.problem is not None:
        found = report.problem
        problem = found.message
        broken = (
            found.row
            if found.row is not None
            else found.interval[0]
            if found.interval is not None
            else report.size
        )
        problem = "; ".join([problem, *map(str, lost)])
    if stray is not None and (problem is None or (stray_row is not None and stray_row < (broken or 0))):
        problem, broken = stray, stray_row
    return VerifyResult(
        org_id=engine.store.log_id,
        chain_valid=report.ok and problem is None,
        verified_through_row=report.size - 1,
        chain_hash=report.head.leaf.hex() if report.head is not None else None,
        verified_from_checkpoint=report.start > 0,
        timestamp=format_time(engine.clock.now()),
        first_broken_at_row_id=str(broken) if broken is not None else None,
        problem=problem,
        cuts=[str(cut) for cut in history.cuts],
    )


@dataclass(frozen=True, slots=True)
class _Signed:
    """The checkpoints to compare by size and root, what is wrong with them, and the one that was kept elsewhere."""

    known: dict[tuple[int, bytes], Checkpoint]
    problem: str | None
    outside: Checkpoint | None


def _signed(
    reader: Reader,
    notary: Notary,
    history: History,
    last: Checkpoint,
    checkpoint: str | None,
    incremental: bool,
    restored: bool,
) -> _Signed:
    keys = notary.keyring(history)
    outside = keys.open_kept(checkpoint) if checkpoint is not None else None
    since = (outside or last).size if incremental else 0
    known, problem = _kept_checkpoints(reader, keys, None if restored else last, since, history.cuts)
    return _Signed(known, problem, outside)


def _kept_checkpoints(
    reader: Reader, keys: Keyring, last: Checkpoint | None, since: int, cuts: Sequence[Cut]
) -> tuple[dict[tuple[int, bytes], Checkpoint], str | None]:
    """The checkpoints from `since` entries on, `last` included, and what is wrong with how they are kept."""
    signed = [] if last is None else [last]
    problem: str | None = None
    for size, note in reader.checkpoints():
        if size < since:
            continue  # vouched for by the one it starts from
        try:
            kept = keys.open_kept(note)
            if kept.size != size:
                raise AuditError(f"it is of {kept.size} entries")
            signed.append(kept)
        except AuditError as error:
            problem = problem or f"the checkpoint kept at {size} entries is not what was signed: {error}"
    known = {(one.size, one.root): one for one in signed}
    for one in signed:  # of one size there may be two: the signer's own may name another before it
        before = one.previous
        if before is None or before.size == 0 or before.size < since:
            continue
        if (before.size, before.root) not in known and not explained(one, cuts, keys):
            problem = problem or (
                f"the checkpoint signed for {before.size} entries is no longer kept, "
                f"but the one for {one.size} names it"
            )
    return known, problem


@dataclass(frozen=True, slots=True)
class StateDifference:
    """A document of state that is not what the log makes of it. `expected` or `found` is None where there is none."""

    kind: str
    key: str
    expected: Document | None
    found: Document | None

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.kind} `{self.key}` is missing from the state"
        if self.expected is None:
            return f"{self.kind} `{self.key}` is in the state, but the log knows nothing of it"
        members = sorted(
            name
            for name in self.expected.keys() | self.found.keys()
            if self.expected.get(name) != self.found.get(name)
        )
        return f"{self.kind} `{self.key}` differs from the log in `{', '.join(members)}`"


def verify_state(engine: Engine) -> Iterator[StateDifference]:
    """Fold the log again and yield every difference from the stored state, as `state_differences` does."""
    with engine.read() as reader:
        yield from state_differences(reader)


def state_differences(reader: Reader) -> Iterator[StateDifference]:
    """Every document of state that is not what the log makes of it, in order; nothing if there is none.

    The fold lies on disk in a temporary directory, so memory does not grow with the log. Raises AuditError for an
    entry that cannot be folded, which `verify` would have found.
    """
    with tempfile.TemporaryDirectory(prefix="agentlattice-") as directory:
        expected = _Fold(Path(directory) / "fold.db")
        try:
            expected.replay(reader)
            yield from _differences(expected.states(), reader.states())
        finally:
            expected.close()


class _Fold:
    """State folded into a table of its own."""

    def __init__(self, path: Path) -> None:
        self._connection = apsw.Connection(str(path))
        self._connection.pragma("journal_mode", "off")
        self._connection.pragma("synchronous", 0)
        self._connection.execute(
            "CREATE TABLE state (kind TEXT, key TEXT, value BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID"
        )
        self._connection.execute("BEGIN")
        self._writes: dict[StateKey, Document | None] = {}

    def replay(self, reader: Reader) -> None:
        for index, body, *_ in reader.rows():
            entry = orjson.loads(body)
            self._writes |= fold(
                self._get, entry["kind"], index, entry["at"], entry["who"], entry["data"], entry.get("id")
            )
            if len(self._writes) >= _BATCH:
                self._flush()
        self._flush()

    def _get(self, kind: str, key: str) -> Document | None:
        name = (kind, key)
        if name in self._writes:
            return self._writes[name]
        row = self._connection.execute("SELECT value FROM state WHERE kind = ? AND key = ?", name).fetchone()
        return None if row is None else orjson.loads(row[0])

    def _flush(self) -> None:
        kept = [(*name, encode(document)) for name, document in self._writes.items() if document is not None]
        gone = [name for name, document in self._writes.items() if document is None]
        self._connection.executemany("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", kept)
        self._connection.executemany("DELETE FROM state WHERE kind = ? AND key = ?", gone)
        self._writes.clear()

    def states(self) -> Iterator[tuple[str, str, bytes]]:
        return self._connection.execute("SELECT kind, key, value FROM state ORDER BY kind, key")

    def close(self) -> None:
        self._connection.close()


def _differences(
    expected: Iterator[tuple[str, str, bytes]], found: Iterator[tuple[str, str, bytes]]
) -> Iterator[StateDifference]:
    """Merge two ordered streams of documents."""
    one, other = next(expected, None), next(found, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one[:2] < other[:2]):
            assert one is not None
            yield StateDifference(one[0], one[1], orjson.loads(one[2]), None)
            one = next(expected, None)
        elif one is None or other[:2] < one[:2]:
            yield StateDifference(other[0], other[1], None, _document(other[2]))
            other = next(found, None)
        else:
            if one[2] != other[2]:
                yield StateDifference(one[0], one[1], orjson.loads(one[2]), _document(other[2]))
            one, other = next(expected, None), next(found, None)


def _document(value: bytes) -> Document:
    """A stored document, which somebody may have overwritten with anything."""
    try:
        document = orjson.loads(value)
    except ValueError:
        document = None
    return document if isinstance(document, dict) else {"unreadable": value.decode("latin-1")}
