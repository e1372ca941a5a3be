"""The RFC 6962 Merkle tree over a log's entries: roots, proofs, and the frontier that lets it grow.

- leaf = SHA-256(0x00 || entry bytes); node = SHA-256(0x01 || left || right); the root of no entries is
  SHA-256("").
- Nothing here reads anything: proofs take a function that answers for the hash of a perfect subtree, `(level,
  index)`, level 0 being the leaves, so a proof over n entries asks O(log n) times.
- Verification takes only hashes and never a stored tree; a proof that does not fit raises AuditError, and
  there is no way to get `False` and overlook it.
- The frontier is the roots of the perfect subtrees that make up the tree, biggest first: one for each set bit
  of the size.

Specification: RFC 6962 section 2.1 (the same tree as RFC 9162 section 2.1 with SHA-256).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from agentlattice_core.errors import AuditError

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "RUN",
    "Frontier",
    "ReadHashes",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "perfect_root",
    "root_from_leaves",
    "verify_consistency",
    "verify_inclusion",
]

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""The root of a tree without entries."""
RUN: Final = 256
"""How many leaves `Frontier.push_run` takes; the width of a tile."""

ReadHashes = Callable[[int, int], bytes]
"""`read(level, index)`: the root of the perfect subtree over leaves `index * 2**level` to `(index + 1) *
2**level - 1`."""

_SIZE_BYTES: Final = 8
_MAX_SIZE: Final = 1 << 63
_sha256 = hashlib.sha256


def leaf_hash(body: bytes) -> bytes:
    """The leaf hash of an entry's bytes."""
    return _sha256(b"\x00" + body).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return _sha256(b"\x01" + left + right).digest()


def perfect_root(row: Sequence[bytes]) -> bytes:
    """The root over 2**n hashes that lie side by side."""
    while len(row) > 1:
        ahead = iter(row)
        row = [_sha256(b"\x01" + left + right).digest() for left, right in zip(ahead, ahead, strict=True)]
    return row[0]


class Frontier:
    """The right edge of a growing tree. `push` costs one node hash on average; `root` at most one for each
    set bit of the size."""

    __slots__ = ("_hashes", "_size")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        """The frontier of a tree of `size` entries. Raises AuditError unless there is one 32-byte hash for
        each set bit."""
        self._hashes = list(hashes)
        self._size = size
        if not 0 <= size < _MAX_SIZE:
            raise AuditError(f"a tree cannot have `{size}` entries")
        if len(self._hashes) != size.bit_count() or any(len(item) != HASH_BYTES for item in self._hashes):
            raise AuditError(
                f"the frontier of a tree of {size} entries must have {size.bit_count()} hashes of 32 bytes"
            )

    @property
    def size(self) -> int:
        return self._size

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """Roots of the perfect subtrees, biggest (leftmost) first."""
        return tuple(self._hashes)

    def push(self, leaf: bytes) -> None:
        """Append one leaf hash."""
        size = self._size
        hashes = self._hashes
        self._size = size + 1
        while size & 1:
            leaf = _sha256(b"\x01" + hashes.pop() + leaf).digest()
            size >>= 1
        hashes.append(leaf)

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Append many leaf hashes; the same as pushing each, and faster for whole runs of 256."""
        start, end = 0, len(leaves)
        while start < end:
            if self._size % RUN or end - start < RUN:
                self.push(leaves[start])
                start += 1
            else:
                self.push_run(perfect_root(leaves[start : start + RUN]))
                start += RUN

    def push_run(self, root: bytes) -> None:
        """Append 256 leaves at once, by the root over them; the size must be a multiple of 256."""
        assert self._size % RUN == 0
        runs, hashes = self._size // RUN, self._hashes
        self._size += RUN
        while runs & 1:
            root = _sha256(b"\x01" + hashes.pop() + root).digest()
            runs >>= 1
        hashes.append(root)

    def root(self) -> bytes:
        """The root of the tree as it stands."""
        return _fold(self._hashes)

    def copy(self) -> Frontier:
        twin = Frontier.__new__(Frontier)
        twin._hashes = self._hashes.copy()
        twin._size = self._size
        return twin

    def to_bytes(self) -> bytes:
        """The size as eight bytes, big-endian, then the hashes."""
        return self._size.to_bytes(_SIZE_BYTES, "big") + b"".join(self._hashes)

    @classmethod
    def from_bytes(cls, text: bytes) -> Frontier:
        """The inverse of `to_bytes`. Raises AuditError if `text` is not the frontier of any tree."""
        if len(text) < _SIZE_BYTES or (len(text) - _SIZE_BYTES) % HASH_BYTES:
            raise AuditError(f"a frontier of {len(text)} bytes is cut short or too long")
        hashes = [text[start : start + HASH_BYTES] for start in range(_SIZE_BYTES, len(text), HASH_BYTES)]
        return cls(int.from_bytes(text[:_SIZE_BYTES], "big"), hashes)

    @classmethod
    def read(cls, size: int, read_hashes: ReadHashes) -> Frontier:
        """The frontier of the first `size` entries, from a tree that has at least as many."""
        return cls(size, [read_hashes(level, index) for level, index in _perfect_subtrees(0, size)])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frontier):
            return NotImplemented
        return self._size == other._size and self._hashes == other._hashes

    __hash__ = None  # type: ignore[assignment]  # it changes with every push

    def __repr__(self) -> str:
        return f"Frontier(size={self._size}, root={self.root().hex()})"


def root_from_leaves(leaves: Iterable[bytes]) -> bytes:
    """The root over leaf hashes."""
    frontier = Frontier()
    frontier.extend(list(leaves))
    return frontier.root()


def inclusion_proof(index: int, size: int, read_hashes: ReadHashes) -> list[bytes]:
    """The audit path of entry `index` in the tree of the first `size` entries (RFC 6962 section 2.1.1), leaf
    end first.

    Raises AuditError unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise AuditError(f"entry `{index}` is not in a tree of {size} entries")
    start, end = 0, size
    path: list[bytes] = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_subtree(middle, end, read_hashes))
            end = middle
        else:
            path.append(_subtree(start, middle, read_hashes))
            start = middle
    path.reverse()
    return path


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that `leaf` is entry `index` of the tree of `size` entries with `root`. Raises AuditError if it
    is not."""
    if not 0 <= index < size:
        raise AuditError(f"entry `{index}` is not in a tree of {size} entries")
    _check_hashes(proof, leaf, root)
    steps = iter(proof)
    node, last = index, size - 1
    found = leaf
    # RFC 9162 section 2.1.3.2
    for sibling in steps:
        if last == 0:
            raise AuditError(f"the inclusion proof of entry `{index}` is too long")
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            found = node_hash(found, sibling)
        node >>= 1
        last >>= 1
    if last:
        raise AuditError(f"the inclusion proof of entry `{index}` is too short")
    if found != root:
        raise AuditError(
            f"the inclusion proof of entry `{index}` does not lead to the root of the tree of {size} entries"
        )


def consistency_proof(old: int, new: int, read_hashes: ReadHashes) -> list[bytes]:
    """The proof that the tree of `new` entries extends that of `old` (RFC 6962 section 2.1.2). Empty if `old`
    is 0 or `new`.

    Raises AuditError unless 0 <= old <= new.
    """
    if not 0 <= old <= new:
        raise AuditError(f"a tree of {new} entries cannot extend one of `{old}`")
    if old in (0, new):
        return []
    start, end = 0, new
    proof: list[bytes] = []
    whole = True  # whether the old tree begins exactly at `start` and so its root is known to the verifier
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(_subtree(middle, end, read_hashes))
            end = middle
        else:
            proof.append(_subtree(start, middle, read_hashes))
            start = middle
            whole = False
    if not whole:
        proof.append(_subtree(start, end, read_hashes))
    proof.reverse()
    return proof


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of `new` entries extends the tree of `old` ones. Raises AuditError if it does not,
    or nothing shows it."""
    if not 0 <= old <= new:
        raise AuditError(f"a tree of {new} entries cannot extend one of `{old}`")
    _check_hashes(proof, old_root, new_root)
    if old == 0 or old == new:
        if proof:
            raise AuditError(f"the consistency proof from {old} to {new} entries must be empty")
        if old_root != (EMPTY_ROOT if old == 0 else new_root):
            raise AuditError(f"two different roots for one tree of {old} entries")
        return
    # RFC 9162 section 2.1.4.2
    steps = list(proof)
    if old & (old - 1) == 0:
        steps.insert(0, old_root)
    if not steps:
        raise AuditError(f"the consistency proof from {old} to {new} entries is empty")
    node, last = old - 1, new - 1
    while node & 1:
        node >>= 1
        last >>= 1
    found_old = found_new = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise AuditError(f"the consistency proof from {old} to {new} entries is too long")
        if node & 1 or node == last:
            found_old = node_hash(step, found_old)
            found_new = node_hash(step, found_new)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            found_new = node_hash(found_new, step)
        node >>= 1
        last >>= 1
    if last:
        raise AuditError(f"the consistency proof from {old} to {new} entries is too short")
    if found_old != old_root:
        raise AuditError(
            f"the tree of {new} entries does not extend the tree of {old} entries that was seen before"
        )
    if found_new != new_root:
        raise AuditError(f"the consistency proof from {old} to {new} entries does not lead to the newer root")


def _split(width: int) -> int:
    """The largest power of two below `width`."""
    return 1 << (width - 1).bit_length() - 1


def _perfect_subtrees(start: int, end: int) -> list[tuple[int, int]]:
    """(level, index) of the perfect subtrees that cover [start, end), biggest first; `start` is where such a
    range may begin."""
    found: list[tuple[int, int]] = []
    while start < end:
        level = (end - start).bit_length() - 1
        found.append((level, start >> level))
        start += 1 << level
    return found


def _subtree(start: int, end: int, read_hashes: ReadHashes) -> bytes:
    return _fold([read_hashes(level, index) for level, index in _perfect_subtrees(start, end)])


def _fold(hashes: Sequence[bytes]) -> bytes:
    """The root over perfect subtrees, biggest first."""
    if not hashes:
        return EMPTY_ROOT
    found = hashes[-1]
    for position in range(len(hashes) - 2, -1, -1):
        found = _sha256(b"\x01" + hashes[position] + found).digest()
    return found


def _check_hashes(proof: Sequence[bytes], *others: bytes) -> None:
    for item in (*proof, *others):
        if type(item) is not bytes or len(item) != HASH_BYTES:
            raise AuditError("a proof holds something that is not a SHA-256 hash of 32 bytes")
