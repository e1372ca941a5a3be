"""Verification of a whole log, row by row, in constant memory.

- It trusts nothing but its arguments `start` and `checkpoints`: every hash is computed again from the bytes.
- Per row: the index follows on, the bytes have the hash in the leaf column, `prev` is the hash of the row
  before, `i`, `log` and `at` fit, the payload has the committed hash or was erased by an entry that says so.
- Across rows: the tree over the leaves has the root of each checkpoint, stored tiles hold these leaves, and
  the stored head is where the rows end.
- The first problem ends it, and names the first bad row.
- From a checkpoint (`resume`) only what came after it is read.

Why it is fast. Bytes that have the right hash are what somebody sealed, so rows are not parsed; it is enough to
find the few members that link them, and canonical form says where those are: `at` first; `i` after the last closing
brace before `id`, `kind`, `log`, `payload`, `prev`, `v` and `who`, which come last. Quotation marks inside text are
escaped, so `,"who":` is only ever a member name, and with a complete object and the end after it, it is the entry's
own; so each different `who` is parsed once and then known by its bytes. A row that does not fit the pattern is parsed
in full, which is also where a problem gets its name. Members that link nothing (`kind`, `id`, what is in `data`) are
for whoever reads the entry: `entry.parse` is strict about them, and `export.verify_export` parses every entry.
"""

from __future__ import annotations

import hashlib
from binascii import hexlify
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat
from typing import Any, Final

from agentlattice_core.audit import canonical
from agentlattice_core.audit.checkpoint import Checkpoint, log_origin
from agentlattice_core.audit.diagnosis import Row, unlinked_row, unmatched_hash, wrong_index
from agentlattice_core.audit.entry import ERASURE, SALT_BYTES, Entry, Head, commitment, erased_ranges, parse
from agentlattice_core.audit.merkle import (
    HASH_BYTES,
    Frontier,
    ReadHashes,
    inclusion_proof,
    leaf_hash,
    perfect_root,
    verify_inclusion,
)
from agentlattice_core.audit.report import Problem, ProblemKind, VerifyReport
from agentlattice_core.audit.tiles import TILE_BYTES, TILE_WIDTH, ReadTile, tile_root
from agentlattice_core.clock import parse_time
from agentlattice_core.errors import AuditError

__all__ = ["Row", "resume", "verify_rows"]

# How an entry begins, digits as zeros, and what maps digits to zeros.
_OPENING: Final = b'{"at":"0000-00-00T00:00:00.000000Z","data":{'
_OPENING_BYTES: Final = len(_OPENING)
_TO_MINUTE: Final = 23
_SECOND: Final = slice(7, 26)
_DIGITS: Final = bytes.maketrans(b"123456789", b"000000000")
# How it ends: `,"log":"acme","payload":"<hex>","prev":"<hex>","v":1,"who":{...}}`.
_PREV: Final = b'","prev":"'
_VERSION: Final = b'","v":1'
_WHO_NAME: Final = b',"who":'
# Between `data` and those, only `id` and `kind` follow the index.
_INDEX: Final = b'},"i":%d, '
_ERASURE_KIND: Final = b':"' + ERASURE.encode() + b'"'
_REMEMBERED: Final = 10_000
"""How many different `who` are remembered, which bounds the memory."""
_sha256 = hashlib.sha256

Interval = tuple[int, int] | None


def verify_rows(
    rows: Iterable[Row],
    *,
    log: str,
    start: Head | None = None,
    head: Head | None = None,
    checkpoints: Sequence[Checkpoint] = (),
    read_tile: ReadTile | None = None,
) -> VerifyReport:
    """Verify the rows of log `log`, in order of index, from `start` (default: the beginning) to the end.

    `start` must be trusted: the head of an earlier report, or `resume(...)` of a signed checkpoint. `head` is
    the stored head, `read_tile` reads stored tiles; both are checked, not trusted. `checkpoints` were signed
    before (open them with `note.open_checkpoint`); none may be older than `start`.

    Raises AuditError if the checkpoints are another log's, contradict each other or are older than `start`;
    whatever is wrong with the rows is in the report.
    """
    run = _Run(log, start if start is not None else Head(), head, checkpoints, read_tile)
    return run.all(iter(rows))


def resume(checkpoint: Checkpoint, read_hashes: ReadHashes) -> Head:
    """The head to go on from after `checkpoint` (its signature checked), read from a tree that may be
    tampered with.

    Costs O(log size). Raises AuditError if the stored hashes do not lead to the checkpoint's root.
    """
    size = checkpoint.size
    frontier = Frontier.read(size, read_hashes)
    if frontier.root() != checkpoint.root:
        raise AuditError(
            f"the stored hashes do not lead to the root of the checkpoint of {size} entries; "
            "verify from the beginning"
        )
    if size == 0:
        return Head()
    leaf = read_hashes(0, size - 1)
    verify_inclusion(leaf, size - 1, size, inclusion_proof(size - 1, size, read_hashes), checkpoint.root)
    return Head(leaf, "", frontier)


class _FoundError(Exception):
    """Carries the first problem out of the pass."""

    def __init__(self, kind: ProblemKind, message: str, row: int | None, interval: Interval = None) -> None:
        super().__init__(message)
        self.problem = Problem(kind, message, row, interval)


class _Run:
    """One pass over the rows; its attributes describe the log up to `next`."""

    def __init__(
        self,
        log: str,
        start: Head,
        head: Head | None,
        checkpoints: Sequence[Checkpoint],
        read_tile: ReadTile | None,
    ) -> None:
        self.log = log
        self.first = self.next = self.vouched = start.size
        self.previous = start.leaf
        self.opening = b'{"at":"%b","data":{' % start.at.encode() if start.at else b""
        self.frontier = start.frontier.copy()
        self.stored_head = head
        self.read_tile = read_tile
        self.checkpoints = _in_order(log, checkpoints, start.size)
        self.fitting = 0
        self.known: set[bytes] = set()
        self.erased = 0
        # Rows whose payload is gone, as ranges, until an erasure entry names them. Only changed in place.
        self.gone: list[tuple[int, int]] = []
        self.with_payload = f',"log":"{log}","payload":"'.encode()
        self.without_payload = f',"log":"{log}","prev":"'.encode()
        self.later: Iterator[Row] = iter(())

    def all(self, rows: Iterator[Row]) -> VerifyReport:
        self.later = rows
        try:
            self._compare_checkpoints()
            # Batches end where tiles do.
            while batch := list(islice(rows, TILE_WIDTH - self.next % TILE_WIDTH)):
                self._batch(batch)
            self._end()
        except _FoundError as found:
            problem = found.problem
            sound = self.vouched if problem.row is None else problem.row
            return VerifyReport(self.first, sound, self.erased, self.fitting, None, problem)
        head = Head(self.previous, self._at(self.opening), self.frontier)
        return VerifyReport(self.first, self.next, self.erased, self.fitting, head)

    def _batch(self, batch: list[Row]) -> None:
        """Check rows that should follow each other, then what hangs on their hashes."""
        count = len(batch)
        try:
            indexes, bodies, leaves, salts, payloads = zip(*batch, strict=True)
            digests = [_sha256(b"\x00" + body).digest() for body in bodies]
            previous = hexlify(b"".join((self.previous, *digests[:-1])), " ", HASH_BYTES).split(b" ")
            endings = self._endings(salts, payloads, previous)
            sound = count
            if indexes != tuple(range(self.next, self.next + count)) or leaves != tuple(digests):
                sound = next(
                    position
                    for position in range(count)
                    if indexes[position] != self.next + position or leaves[position] != digests[position]
                )
        except TypeError:
            # Some member is not even of the right type. Row by row, the first such row gets its name.
            for position in range(count):
                self._inspect(position, batch)
            raise
        self._check_links(bodies[:sound], endings, batch)
        if sound < count:
            self._inspect(sound, batch)
            raise AssertionError("a row that does not fit was found to fit")
        self.next += count
        self.previous = digests[-1]
        self._grow(digests)

    def _endings(self, salts: Sequence[Any], payloads: Sequence[Any], previous: list[bytes]) -> list[bytes]:
        """How each entry's bytes must end, up to `who`, given its payload and the entry
        before.

        Raises TypeError if a salt or payload is of no possible form.
        """
        if None not in payloads and {*map(len, salts)} == {SALT_BYTES}:
            sums = [_sha256(salt + payload).digest() for salt, payload in zip(salts, payloads, strict=True)]
            promised = hexlify(b"".join(sums), " ", HASH_BYTES).split(b" ")
            parts = zip(repeat(self.with_payload), promised, repeat(_PREV), previous, repeat(_VERSION))
            return list(map(b"".join, parts))
        found = []
        for salt, payload, link in zip(salts, payloads, previous, strict=True):
            if salt is None and payload is None:
                found.append(self.without_payload + link + _VERSION)
            elif len(salt) != SALT_BYTES:
                raise TypeError("a salt has another length")
            else:
                promise = _sha256(salt + payload).hexdigest().encode()
                found.append(self.with_payload + promise + _PREV + link + _VERSION)
        return found

    def _check_links(self, bodies: Sequence[bytes], endings: list[bytes], batch: list[Row]) -> None:
        """Check what ties rows with the right hashes to each other and to their payloads."""
        openings = [body[:_OPENING_BYTES] for body in bodies]
        # An empty set of known `who` sends every row to the full parse, which finds the one out of time.
        known = self.known if self._in_time(openings) else set()
        gone = self.gone
        marks = (_INDEX * len(endings) % (*range(self.next, self.next + len(endings)),)).split()
        for position, (body, ending, mark) in enumerate(zip(bodies, endings, marks, strict=False)):
            cut = body.rfind(_WHO_NAME)
            begin = cut - len(ending)
            if not (
                body.startswith(ending, begin)
                and body[cut:] in known
                and body.startswith(mark, body.rfind(b"}", 0, begin))
                and not (gone and body.endswith(_ERASURE_KIND, 0, begin))
            ):
                self._inspect(position, batch)
        if openings:
            self.opening = openings[-1]

    def _in_time(self, openings: list[bytes]) -> bool:
        """Whether all these entries begin with a well-formed time, none before the one before it."""
        if not openings or openings.count(self.opening) == len(openings):
            return True
        if b"".join(openings).translate(_DIGITS) != _OPENING * len(openings):
            return False
        if self.opening > openings[0] or openings != sorted(openings):
            return False
        # Within one minute, the latest bounds them all.
        same_minute = openings[0].startswith(openings[-1][:_TO_MINUTE])
        seconds = openings[-1:] if same_minute else openings
        return all(map(_is_second, {opening[_SECOND] for opening in seconds}))

    def _inspect(self, position: int, batch: Sequence[Row]) -> None:
        """Check one row in full. Raises _FoundError with the name of what is wrong, if anything is."""
        index, row = self.next + position, batch[position]
        if type(row[0]) is not int or row[0] != index:
            self._convict(wrong_index(index, row))
        _, body, leaf, salt, payload = row
        if type(body) is not bytes or type(leaf) is not bytes or leaf_hash(body) != leaf:
            self._convict(unmatched_hash(index, row, self._after(position, batch), self.stored_head))
        try:
            entry = parse(body)
        except AuditError as error:
            raise _FoundError("malformed", f"entry {index} is malformed: {error.message}", index) from None
        if entry.log != self.log:
            raise _FoundError("moved", f"entry {index} belongs to log `{entry.log}`", index)
        previous = batch[position - 1][2] if position else self.previous
        if entry.prev == previous and entry.i != index:
            raise _FoundError("malformed", f"entry {index} says it is entry {entry.i}", index)
        if entry.prev != previous:
            after = self._after(position, batch)

            def leaf_at(place: int) -> bytes | None:
                return batch[place - self.next][2] if place >= self.next else None

            trusted = index == self.first
            self._convict(unlinked_row(index, row, after, self.stored_head, leaf_at=leaf_at, trusted=trusted))
        last = self._at(batch[position - 1][1] if position else self.opening)
        if entry.at < last:
            raise _FoundError("time", f"entry {index} is from {entry.at}, before the entry before it", index)
        self._check_payload(index, entry, salt, payload)
        if entry.kind == ERASURE:
            self._note_erasure(entry)
        if len(self.known) >= _REMEMBERED:
            self.known.clear()
        self.known.add(_WHO_NAME + canonical.dumps(entry.who) + b"}")

    def _check_payload(self, index: int, entry: Entry, salt: Any, payload: Any) -> None:
        if payload is None and salt is None:
            if entry.payload is not None:
                if self.gone and self.gone[-1][1] == index - 1:
                    self.gone[-1] = (self.gone[-1][0], index)
                else:
                    self.gone.append((index, index))
            return
        if entry.payload is None:
            raise _FoundError(
                "payload_changed", f"entry {index} was sealed without the payload that is stored", index
            )
        if (
            type(payload) is not bytes
            or type(salt) is not bytes
            or len(salt) != SALT_BYTES
            or commitment(salt, payload) != entry.payload
        ):
            raise _FoundError(
                "payload_changed", f"the payload of entry {index} was changed after it was sealed", index
            )

    def _note_erasure(self, entry: Entry) -> None:
        try:
            ranges = erased_ranges(entry)
        except AuditError as error:
            raise _FoundError(
                "malformed", f"entry {entry.i} is malformed: {error.message}", entry.i
            ) from None
        for first, last in ranges:
            self.erased += _take_out(self.gone, first, last)

    def _after(self, position: int, batch: Sequence[Row]) -> Row | None:
        return batch[position + 1] if position + 1 < len(batch) else next(self.later, None)

    def _convict(self, problem: Problem) -> None:
        raise _FoundError(problem.kind, problem.message, problem.row, problem.interval)

    def _at(self, opening: bytes) -> str:
        return opening[7:34].decode("ascii", "replace")

    def _grow(self, leaves: list[bytes]) -> None:
        """Let the tree grow by these leaves, stopping at each checkpoint on the way."""
        begin = self.next - len(leaves)
        if len(leaves) == TILE_WIDTH and not (self.checkpoints and self.checkpoints[0].size < self.next):
            root = perfect_root(leaves)
            self.frontier.push_run(root)
        else:
            root, done = None, 0
            while self.checkpoints and self.checkpoints[0].size < self.next:
                upto = self.checkpoints[0].size - begin
                self.frontier.extend(leaves[done:upto])
                done = upto
                self._compare_checkpoints()
            self.frontier.extend(leaves[done:])
        self._compare_checkpoints()
        if self.read_tile is not None and self.next % TILE_WIDTH == 0:
            self._check_tiles(self.read_tile, begin, b"".join(leaves), root)

    def _compare_checkpoints(self) -> None:
        """Compare those of the size the tree has now."""
        while self.checkpoints and self.checkpoints[0].size == self.frontier.size:
            checkpoint = self.checkpoints[0]
            if self.frontier.root() != checkpoint.root:
                interval = (self.vouched, checkpoint.size - 1)
                raise _FoundError(
                    "rewritten",
                    f"entries {interval[0]} to {interval[1]} are not those of the checkpoint signed for "
                    f"{checkpoint.size} entries",
                    None,
                    interval,
                )
            self.vouched = checkpoint.size
            self.fitting += 1
            del self.checkpoints[0]

    def _check_tiles(self, read_tile: ReadTile, begin: int, leaves: bytes, root: bytes | None) -> None:
        """Compare the stored tiles that hold `leaves`, and each tile above that this completes, with the
        tree.

        `root` is the root over all leaves of the tile, if it is known.
        """
        level, index, offset, expected = 0, begin // TILE_WIDTH, begin % TILE_WIDTH * HASH_BYTES, leaves
        while True:
            stored = read_tile(level, index) or b""
            found = stored[offset : offset + len(expected)]
            if found != expected:
                wrong = 0
                while found[wrong : wrong + HASH_BYTES] == expected[wrong : wrong + HASH_BYTES]:
                    wrong += HASH_BYTES
                row = index * TILE_WIDTH + (offset + wrong) // HASH_BYTES << 8 * level
                raise _FoundError(
                    "tile_changed", f"tile {level}/{index} does not hold what entry {row} hashes to", row
                )
            if offset + len(expected) != TILE_BYTES:
                return
            expected = root if root is not None else tile_root(stored[:TILE_BYTES])
            root = None
            offset = index % TILE_WIDTH * HASH_BYTES
            level, index = level + 1, index // TILE_WIDTH

    def _end(self) -> None:
        size, head = self.next, self.stored_head
        if self.checkpoints:
            signed = self.checkpoints[0].size
            raise _FoundError(
                "truncated",
                f"the log ends after {size} entries, but a checkpoint was signed for {signed}",
                size,
                (size, signed - 1),
            )
        if head is not None:
            if head.size > size:
                raise _FoundError(
                    "truncated",
                    f"the log ends after {size} entries, but its head counts {head.size}",
                    size,
                    (size, head.size - 1),
                )
            if head.size < size:
                raise _FoundError(
                    "head_changed", f"the head counts {head.size} entries, but there are {size}", head.size
                )
            if head.leaf != self.previous:
                raise _FoundError(
                    "head_changed", f"entry {size - 1} and the head do not agree; one was replaced", size - 1
                )
            if head.frontier != self.frontier or (
                head.at and self.opening and head.at != self._at(self.opening)
            ):
                raise _FoundError(
                    "head_changed", "the stored head was changed; rebuild it from the entries", None
                )
        if self.gone:
            row = self.gone[0][0]
            raise _FoundError(
                "payload_missing", f"the payload of entry {row} is gone, and no entry says it was erased", row
            )


def _is_second(text: bytes) -> bool:
    """Whether a time, cut to the second, is on the calendar and the clock."""
    try:
        parse_time(text.decode() + "Z")
    except ValueError:
        return False
    return True


def _take_out(gone: list[tuple[int, int]], first: int, last: int) -> int:
    """Remove first..last from the ranges in `gone`; how many were in them."""
    begin = bisect_left(gone, first, key=lambda item: item[1])
    end, kept, count = begin, [], 0
    while end < len(gone) and gone[end][0] <= last:
        low, high = gone[end]
        count += min(high, last) - max(low, first) + 1
        if low < first:
            kept.append((low, first - 1))
        if high > last:
            kept.append((last + 1, high))
        end += 1
    gone[begin:end] = kept
    return count


def _in_order(log: str, checkpoints: Sequence[Checkpoint], start: int) -> list[Checkpoint]:
    origin = log_origin(log)
    found = sorted(checkpoints, key=lambda item: item.size)
    for position, checkpoint in enumerate(found):
        if checkpoint.origin != origin:
            raise AuditError(f"the checkpoint is for `{checkpoint.origin}`, not for `{origin}`")
        if checkpoint.size < start:
            raise AuditError(
                f"the checkpoint of {checkpoint.size} entries is older than where verification starts, "
                f"{start}"
            )
        before = found[position - 1] if position else checkpoint
        if before.size == checkpoint.size and before.root != checkpoint.root:
            raise AuditError(f"two different trees of {checkpoint.size} entries were signed for `{origin}`")
    return found
