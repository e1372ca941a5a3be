"""The tree's hashes as tiles of 256, so that a proof reads a handful of rows whatever the size of the log.

- Geometry of C2SP tlog-tiles: tile `(level, index)` holds the hashes at height `8 * level`, numbers `256 *
  index` onwards, 32 bytes each. A full tile of 256 is 8,192 bytes; once full it never changes.
- Level 0 holds leaf hashes and is stored only when full: the leaves on the right edge are in their rows.
  Higher levels are stored while they grow (a partial tile in the specification's words), one hash for each
  full tile below.
- Tiles are derived from the entries. A wrong tile makes proofs fail and verification name it; it never makes
  either pass.

Specification: https://c2sp.org/tlog-tiles
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agentlattice_core.audit.merkle import HASH_BYTES, RUN, perfect_root
from agentlattice_core.errors import AuditError

__all__ = [
    "TILE_BYTES",
    "TILE_WIDTH",
    "ReadLeaves",
    "ReadTile",
    "Tile",
    "TiledHashes",
    "tile_root",
    "tiles_completed_by",
]

TILE_WIDTH: Final = RUN
TILE_BYTES: Final = TILE_WIDTH * HASH_BYTES

ReadTile = Callable[[int, int], bytes | None]
"""`read_tile(level, index)`: a stored tile's bytes, or None."""
ReadLeaves = Callable[[int, int], bytes]
"""`read_leaves(start, count)`: the leaf column of `count` rows from `start` on, joined."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile to store under `(level, index)`, replacing the shorter one that may be there."""

    level: int
    index: int
    hashes: bytes


def tile_root(hashes: bytes) -> bytes:
    """The root over a tile, or an aligned part of one, of 2**n hashes."""
    return perfect_root([hashes[start : start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)])


def tiles_completed_by(
    old_size: int, new_size: int, read_leaves: ReadLeaves, read_tile: ReadTile
) -> list[Tile]:
    """The tiles to store because the log grew from `old_size` to `new_size` entries; mostly none.

    `read_leaves` is asked for leaves below `new_size`, `read_tile` for the growing tiles stored before.
    """
    changed: dict[tuple[int, int], bytes] = {}
    for index in range(old_size // TILE_WIDTH, new_size // TILE_WIDTH):
        hashes = read_leaves(index * TILE_WIDTH, TILE_WIDTH)
        level, at = 0, index
        changed[level, at] = hashes
        while len(hashes) == TILE_BYTES:
            root = tile_root(hashes)
            level, position = level + 1, at % TILE_WIDTH
            at //= TILE_WIDTH
            before = b"" if position == 0 else changed.get((level, at)) or read_tile(level, at) or b""
            if len(before) != position * HASH_BYTES:
                raise AuditError(
                    f"tile {level}/{at} holds {len(before) // HASH_BYTES} hashes instead of {position}; "
                    "rebuild the tiles from the entries"
                )
            hashes = before + root
            changed[level, at] = hashes
    return [Tile(level, at, hashes) for (level, at), hashes in changed.items()]


class TiledHashes:
    """Answers for any perfect subtree (`merkle.ReadHashes`) from stored tiles and, at the right edge, leaf
    rows.

    A tile that was read is kept for the life of this object, so use one for each proof or batch of proofs.
    """

    def __init__(self, read_tile: ReadTile, read_leaves: ReadLeaves) -> None:
        self._read_tile = read_tile
        self._read_leaves = read_leaves
        self._tiles: dict[tuple[int, int], bytes] = {}

    def __call__(self, level: int, index: int) -> bytes:
        """The hash of the subtree. Raises AuditError if what is stored does not reach that far."""
        tile_level, height = divmod(level, 8)
        first, count = index << height, 1 << height
        tile_index, position = divmod(first, TILE_WIDTH)
        hashes = self._tile(tile_level, tile_index)
        if hashes is None and tile_level == 0:
            found = self._read_leaves(first, count)
        else:
            found = (hashes or b"")[position * HASH_BYTES : (position + count) * HASH_BYTES]
        if len(found) != count * HASH_BYTES:
            raise AuditError(
                f"the hashes of entries {index << level} to {((index + 1) << level) - 1} are missing; "
                "verify the log, then rebuild the tiles from the entries"
            )
        return tile_root(found)

    def _tile(self, level: int, index: int) -> bytes | None:
        known = self._tiles.get((level, index))
        if known is None:
            known = self._read_tile(level, index)
            if known is not None:
                self._tiles[level, index] = known
        return known
