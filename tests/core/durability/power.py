"""A disk that forgets what was not synced: records every write and sync, and builds what a power cut would leave.

- `Disk` is an SQLite VFS. Each write, truncation and deletion is recorded once it has happened; each sync with the
  moment it began, because it promises nothing about what was written while it ran.
- `image(cut)` is a directory as it may look after the power went at that moment: everything synced is there, and of
  what was not, any part, down to single sectors of 512 bytes, in any combination.
- Marks put other facts (an answer given to a caller) into the same order.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

SECTOR = 512


@dataclass(frozen=True)
class Change:
    """Bytes written at an offset, or with `data` None the file cut to `offset`."""

    file: str
    offset: int
    data: bytes | None


@dataclass(frozen=True)
class Sync:
    """A sync of `file` that began when `began` events had been recorded."""

    file: str
    began: int


@dataclass(frozen=True)
class Mark:
    """Something else that happened, and the files beside the database at that time."""

    fact: Any
    beside: dict[str, bytes]


class Disk(apsw.VFS):
    """Record what happens to the files in `directory`. `lying`: syncs are answered and forgotten, as with
    synchronous=OFF.
    """

    def __init__(self, name: str, directory: Path, *, lying: bool = False) -> None:
        self.vfs_name = name
        self.directory = directory
        self.lying = lying
        self.events: list[Change | Sync | Mark] = []
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> RecordedFile:  # noqa: N802 - SQLite's name
        return RecordedFile(self, name, flags)

    def xDelete(self, name: str, sync_directory: bool) -> None:  # noqa: N802
        super().xDelete(name, sync_directory)
        file = os.path.basename(name)
        self.events.append(Change(file, 0, None))
        if sync_directory:
            self.synced(file, len(self.events))

    def fsync(self, descriptor: int) -> None:
        """What the store itself calls: for the write-ahead log, and for the directory, whose sync keeps deletions."""
        began = len(self.events)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path == self.directory:
            deleted = {
                e.file for e in self.events if isinstance(e, Change) and e.data is None and e.offset == 0
            }
            for file in deleted:
                self.synced(file, began)
        else:
            self.synced(path.name, began)

    def synced(self, file: str, began: int) -> None:
        if not self.lying:
            self.events.append(Sync(file, began))

    def mark(self, fact: Any) -> None:
        """Note a fact, and what lies beside the database by now: the signer syncs its own files."""
        while True:
            try:
                beside = {path.name: path.read_bytes() for path in self.directory.glob("signing.key*")}
                break
            except FileNotFoundError:
                pass  # the signer renamed it meanwhile
        self.events.append(Mark(fact, beside))

    def image(self, cut: int, chance: random.Random, into: Path) -> list[Any]:
        """Build the directory after a power cut at event `cut`; the facts marked before it."""
        promised: dict[str, int] = {}
        for event in self.events[:cut]:
            if isinstance(event, Sync):
                promised[event.file] = max(promised.get(event.file, 0), event.began)
        kept_share = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        files: dict[str, bytearray] = {}
        for position, event in enumerate(self.events[:cut]):
            if not isinstance(event, Change):
                continue
            content = files.setdefault(event.file, bytearray())
            safe = position < promised.get(event.file, 0)
            if event.data is None:
                if safe or chance.random() < kept_share:
                    del content[event.offset :]
                continue
            for start in range(0, len(event.data), SECTOR):
                if safe or chance.random() < kept_share:
                    piece = event.data[start : start + SECTOR]
                    end = event.offset + start
                    if len(content) < end + len(piece):
                        content.extend(bytes(end + len(piece) - len(content)))
                    content[end : end + len(piece)] = piece
        for name, content in files.items():
            (into / name).write_bytes(content)
        marks = [event for event in self.events[:cut] if isinstance(event, Mark)]
        for name, kept in (marks[-1].beside if marks else {}).items():
            (into / name).write_bytes(kept)
            (into / name).chmod(0o600)
        return [mark.fact for mark in marks]


class RecordedFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._name = os.path.basename(path) if path else ""
        super().__init__("", name, flags)

    def _record(self, change: Change) -> None:
        if self._name:
            self._disk.events.append(change)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        super().xWrite(data, offset)
        self._record(Change(self._name, offset, bytes(data)))

    def xTruncate(self, size: int) -> None:  # noqa: N802
        super().xTruncate(size)
        self._record(Change(self._name, size, None))

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.synced(self._name, len(self._disk.events))
