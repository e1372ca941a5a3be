"""Logs as a store would keep them, built in memory with the write path's own pieces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from agentlattice_core.audit.canonical import dumps, dumps_payload, loads
from agentlattice_core.audit.checkpoint import Checkpoint, log_origin
from agentlattice_core.audit.entry import NO_PREVIOUS, Head, Sealer, erasure_data
from agentlattice_core.audit.merkle import Frontier, leaf_hash
from agentlattice_core.audit.tiles import TiledHashes, tiles_completed_by
from agentlattice_core.clock import format_time

Row = tuple[int, bytes, bytes, bytes | None, bytes | None]
START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@dataclass
class MemoryLog:
    """Rows, tiles and head of one log."""

    name: str = "acme"
    rows: list[Row] = field(default_factory=list)
    tiles: dict[tuple[int, int], bytes] = field(default_factory=dict)
    sealer: Sealer = field(init=False)

    def __post_init__(self) -> None:
        self.sealer = Sealer(self.name)

    def append(
        self,
        kind: str = "action",
        data: dict[str, Any] | None = None,
        *,
        who: dict[str, Any] | None = None,
        payload: dict[str, Any] | None = None,
        at: str | None = None,
    ) -> Row:
        index = self.sealer.size
        sealed = self.sealer.seal(
            kind,
            who if who is not None else {"agent": "ci-deployer"},
            data if data is not None else {"action_type": "db.migrate", "outcome": "allow"},
            at=at or format_time(START + timedelta(milliseconds=300 * index)),
            id=f"act-{index}" if index % 3 else None,
            payload=None if payload is None else dumps_payload(payload),
        )
        self.rows.append(tuple(sealed))
        for tile in tiles_completed_by(index, index + 1, self.read_leaves, self.read_tile):
            self.tiles[tile.level, tile.index] = tile.hashes
        return self.rows[-1]

    def fill(self, count: int) -> MemoryLog:
        """Entries of several kinds and agents, most with a payload."""
        for _ in range(count):
            index = self.sealer.size
            self.append(
                ("action", "claim", "outcome")[index % 3],
                {"n": index, "note": 'text with "prev" and ünïcode \\ in it'},
                who={"agent": f"agent-{index % 2}", "chain": [{"agent": "root"}]},
                payload={"metadata": {"n": index, "share": index / 7}} if index % 4 != 3 else None,
            )
        return self

    def erase(self, *indexes: int) -> None:
        for index in indexes:
            self.rows[index] = (*self.rows[index][:3], None, None)
        self.append("erasure", erasure_data(indexes))

    def read_leaves(self, start: int, count: int) -> bytes:
        return b"".join(row[2] for row in self.rows[start : start + count])

    def read_tile(self, level: int, index: int) -> bytes | None:
        return self.tiles.get((level, index))

    def hashes(self) -> TiledHashes:
        return TiledHashes(self.read_tile, self.read_leaves)

    @property
    def head(self) -> Head:
        return self.sealer.head()

    def checkpoint(self, size: int | None = None) -> Checkpoint:
        size = len(self.rows) if size is None else size
        return Checkpoint(log_origin(self.name), size, Frontier.read(size, self.hashes()).root())

    def resealed(self, change: Callable[[int, dict[str, Any]], None]) -> MemoryLog:
        """The whole log written anew with every hash recomputed, as somebody with the database could."""
        forged = MemoryLog(self.name)
        frontier = Frontier()
        previous, at = NO_PREVIOUS, ""
        for index, body, _, salt, payload in self.rows:
            value = loads(body)
            change(index, value["data"])
            value["prev"] = previous.hex()
            body = dumps(value)
            previous, at = leaf_hash(body), value["at"]
            frontier.push(previous)
            forged.rows.append((index, body, previous, salt, payload))
            for tile in tiles_completed_by(index, index + 1, forged.read_leaves, forged.read_tile):
                forged.tiles[tile.level, tile.index] = tile.hashes
        forged.sealer.rewind(Head(previous, at, frontier))
        return forged
