"""Which row is the odd one out, once two rows do not fit together.

Three sources say what entry k was: the hash of its bytes, the leaf column beside it, and `prev` inside entry
k + 1 (for the last entry, the head). Two of them agreeing convict the third. Used on the slow path alone:
when something is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentlattice_core.audit.entry import Entry, Head, parse
from agentlattice_core.audit.merkle import leaf_hash
from agentlattice_core.audit.report import Problem
from agentlattice_core.errors import AuditError

__all__ = ["Row", "unlinked_row", "unmatched_hash", "wrong_index"]

Row = tuple[int, bytes, bytes, bytes | None, bytes | None]
"""Index, body, leaf, salt, payload, as a store keeps them."""


def wrong_index(expected: int, row: Row) -> Problem:
    """Row `row` stands where index `expected` should be."""
    index: Any = row[0]
    if type(index) is not int:
        return Problem("moved", f"row {expected} has no index", expected)
    if index < expected:
        return Problem("repeated", f"row {index} comes twice or out of order", index)
    entry = _read(row[1])
    if entry is not None and entry.i == expected:
        return Problem("moved", f"entry {expected} is filed under row {index}", expected)
    count = index - expected
    what = f"entry {expected} is" if count == 1 else f"entries {expected} to {index - 1} are"
    return Problem("missing", f"{what} missing", expected, (expected, index - 1))


def unmatched_hash(expected: int, row: Row, after: Row | None, head: Head | None) -> Problem:
    """The bytes of row `expected` do not have the hash in its leaf column, or are no bytes at all."""
    body, leaf = row[1], row[2]
    if type(body) is not bytes:
        return Problem("body_changed", f"entry {expected} was changed: it is not stored as bytes", expected)
    if type(leaf) is not bytes or len(leaf) != 32:
        return Problem(
            "leaf_changed", f"the stored hash of entry {expected} was changed: it is no hash", expected
        )
    digest = leaf_hash(body)
    witness = _witness(expected, row[2], after, head)
    if witness == digest:
        return Problem(
            "leaf_changed",
            f"the stored hash of entry {expected} was changed; the entry itself is as it was sealed",
            expected,
        )
    entry = _read(body)
    if entry is not None and entry.i != expected:
        return Problem("moved", f"row {expected} holds entry {entry.i}", expected)
    if witness == leaf:
        return Problem("body_changed", f"entry {expected} was changed after it was sealed", expected)
    return Problem(
        "body_changed", f"entry {expected} was changed after it was sealed, or its stored hash was", expected
    )


def unlinked_row(
    expected: int,
    row: Row,
    after: Row | None,
    head: Head | None,
    *,
    leaf_at: Callable[[int], bytes | None],
    trusted: bool,
) -> Problem:
    """Row `expected` has the right hash, but names another entry before it.

    `leaf_at` answers with the leaf of a row before it, None if that is long past. `trusted`: the entry before
    is beyond doubt.
    """
    entry = parse(row[1])
    witness = _witness(expected, row[2], after, head)
    if entry.i < expected:
        there = leaf_at(entry.i)
        if there is not None and there != row[2] and witness == row[2]:
            count = expected - entry.i
            what = f"row {entry.i} was" if count == 1 else f"rows {entry.i} to {expected - 1} were"
            return Problem("inserted", f"{what} put in: entry {entry.i} comes only then", entry.i)
        return Problem("repeated", f"row {expected} holds entry {entry.i} again", expected)
    if entry.i > expected:
        follower = _read(after[1]) if after is not None else None
        if follower is None or follower.i == entry.i + 1:
            last = entry.i - 1
            what = f"entry {expected} is" if last == expected else f"entries {expected} to {last} are"
            return Problem("missing", f"{what} missing: row {expected} holds entry {entry.i}", expected)
        return Problem("moved", f"row {expected} holds entry {entry.i}", expected)
    if expected == 0 or trusted:
        return Problem("entry_changed", f"entry {expected} does not continue the log before it", expected)
    if witness is None or witness == row[2]:
        return Problem(
            "entry_changed",
            f"entry {expected - 1} was replaced, hash and all: entry {expected} continues another one",
            expected - 1,
        )
    return Problem(
        "entry_changed", f"entry {expected} was replaced, hash and all: neither neighbour knows it", expected
    )


def _witness(expected: int, leaf: bytes, after: Row | None, head: Head | None) -> bytes | None:
    """What the entry after row `expected`, or the head, says its leaf hash is."""
    if after is not None:
        entry = _read(after[1])
        return None if entry is None else entry.prev
    if head is not None and (head.size == expected + 1 or head.leaf == leaf):
        return head.leaf
    return None


def _read(body: Any) -> Entry | None:
    try:
        return parse(body)
    except AuditError:
        return None
