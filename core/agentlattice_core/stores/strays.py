"""What is stored in the SQLite file and has no place there.

- Entries before the first index or from the head's size on, checkpoints of no possible size, tiles that a tree of this
  size does not have or of another length, and anything in the schema that this release did not put there: a trigger
  would change state behind the log's back.
- It says what does not belong; whether what does belong is right is for verification.
- Statistics that an operator had SQLite gather (`ANALYZE`) change nothing and are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import apsw

from agentlattice_core.audit.merkle import HASH_BYTES
from agentlattice_core.audit.tiles import TILE_WIDTH
from agentlattice_core.stores.schema import expected_schema

__all__ = ["misplaced_tile", "strays"]

_TILE_LEVEL_BITS = 8
_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT GLOB 'sqlite_stat[0-9]'"


def strays(query: Callable[..., apsw.Cursor], size: int) -> Iterator[tuple[str, int | None]]:
    """A sentence for each thing that a log of `size` entries does not have, with the index if it is an entry.

    `query(sql, values)` runs a statement on the database.
    """
    for (index,) in query("SELECT i FROM entries WHERE i < 0 ORDER BY i"):
        yield f"row {index} lies before the first entry", index
    for (index,) in query("SELECT i FROM entries WHERE i >= ? ORDER BY i", (size,)):
        yield f"row {index} lies beyond the {size} entries that the head counts", index
    for (signed,) in query("SELECT size FROM checkpoints WHERE size <= 0 ORDER BY size"):
        yield f"a checkpoint is kept for {signed} entries, and none was signed for so many", None
    for level, number, length in query("SELECT level, n, length(hashes) FROM tiles ORDER BY level, n"):
        wrong = misplaced_tile(level, number, length, size)
        if wrong is not None:
            yield wrong, None
    found, expected = set(query(_SCHEMA)), expected_schema()
    for kind, name, table, _ in sorted(found - expected, key=str):
        if any(kind == other[0] and name == other[1] for other in expected):
            yield f"the {kind} `{name}` of the database was changed", None
        else:
            yield f"the {kind} `{name}` on `{table}` has no place in this database", None


def misplaced_tile(level: int, number: int, length: int, size: int) -> str | None:
    """A sentence if a log of `size` entries has no such tile of `length` bytes."""
    if length == _tile_length(level, number, size):
        return None
    return f"tile {level}/{number} of {length} bytes is not one that {size} entries have"


def _tile_length(level: int, number: int, size: int) -> int:
    """How many bytes a tile of a log of `size` entries has; 0 if there is no such tile."""
    if not 0 <= level < 8 or number < 0:
        return 0
    hashes = (size >> _TILE_LEVEL_BITS * level) - number * TILE_WIDTH
    if level == 0 and hashes < TILE_WIDTH:
        return 0  # leaves on the right edge are in their rows
    return max(0, min(hashes, TILE_WIDTH)) * HASH_BYTES
