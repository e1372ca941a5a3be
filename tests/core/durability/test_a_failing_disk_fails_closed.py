"""A full or broken disk: nothing that was not recorded is answered, and the log stays whole."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from typing import Any

import apsw
import pytest

from agentlattice_core import AgentLattice, NotRecordedError
from agentlattice_core.clock import SystemClock
from agentlattice_core.engine import Engine
from agentlattice_core.stores.board import Board
from agentlattice_core.stores.sqlite import SQLiteStore

POLICIES = "version: 1\npolicies:\n  - {name: All, action: '*', effect: allow}\n"


class FailingDisk(apsw.VFS):
    """Writes succeed until `failing` is set to an SQLite error code; then each write of a page fails with it."""

    def __init__(self, name: str) -> None:
        self.vfs_name = name
        self.failing: type[apsw.Error] | None = None
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> FailingFile:  # noqa: N802 - SQLite's name
        return FailingFile(self, name, flags)


class FailingFile(apsw.VFSFile):
    def __init__(self, disk: FailingDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self._disk.failing is not None:
            # Half of it reaches the disk, as when the disk fills up in the middle of a page.
            super().xWrite(data[: len(data) // 2], offset)
            raise self._disk.failing
        super().xWrite(data, offset)


def governed(directory: Path, **seams: Any) -> tuple[AgentLattice, Engine]:
    (directory / "policies.yaml").write_text(POLICIES)
    store = SQLiteStore(directory / "governance.db", new_log_id=lambda: "org_disk", **seams)
    engine = Engine(store, SystemClock(), directory / "signing.key")
    engine.users = 1
    al = AgentLattice._over(engine, "enforce", 1000).for_agent("ci")
    al.apply_policies_sync(directory / "policies.yaml")
    return al, engine


@pytest.mark.parametrize("failure", [apsw.FullError, apsw.IOError])
def test_a_write_that_fails_is_never_an_answer(tmp_path: Path, failure: type[apsw.Error]) -> None:
    disk = FailingDisk(f"failing-{failure.__name__}")
    al, engine = governed(tmp_path, vfs=disk.vfs_name)
    before = al.execute_sync("file.write")
    disk.failing = failure
    for _ in range(3):
        with pytest.raises(NotRecordedError, match="could not be written"):
            al.execute_sync("file.write")
    disk.failing = None
    after = al.execute_sync("file.write")
    assert [event.id for event in al.audit_sync().events] == [after.audit_event_id, before.audit_event_id]
    assert al.verify_sync().chain_valid
    assert al.verify_state_sync() == []
    engine.close()


def test_a_failed_sync_is_final_until_the_store_is_reopened(tmp_path: Path) -> None:
    broken: list[int] = []

    def fsync(descriptor: int) -> None:
        if broken:
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(descriptor)

    al, engine = governed(tmp_path, fsync=fsync)
    al.execute_sync("file.write")
    broken.append(1)
    # Whoever signs in the background may have met the failure first.
    with pytest.raises(NotRecordedError, match=r"could not be synced|since a sync failed"):
        al.execute_sync("file.write")
    broken.clear()  # the next sync would succeed, and prove nothing about the pages that the kernel dropped
    with pytest.raises(NotRecordedError, match="cannot be trusted"):
        al.execute_sync("file.write")
    with pytest.raises(NotRecordedError):
        engine.close()
    with AgentLattice.embedded(
        tmp_path / "governance.db", agent="ci", signing_key=tmp_path / "signing.key"
    ) as al:
        assert al.verify_sync().chain_valid
        assert al.execute_sync("file.write").status == "executed"


def test_a_failed_sync_stops_every_process_on_the_file(tmp_path: Path) -> None:
    def fails(descriptor: int) -> None:
        if armed:
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(descriptor)

    armed: list[int] = []
    one, first = governed(tmp_path, fsync=fails)
    other, second = governed(tmp_path)
    armed.append(1)
    with pytest.raises(NotRecordedError, match=r"could not be synced|since a sync failed"):
        one.execute_sync("file.write")
    with pytest.raises(NotRecordedError, match="cannot be trusted"):
        other.execute_sync("file.write")
    for engine in (first, second):
        with pytest.raises(NotRecordedError):
            engine.close()


def test_a_database_that_became_read_only_denies(tmp_path: Path) -> None:
    al, engine = governed(tmp_path)
    al.execute_sync("file.write")
    connection = engine.store._writer  # type: ignore[attr-defined]
    connection.pragma("query_only", 1)
    with pytest.raises(NotRecordedError):
        al.execute_sync("file.write")
    connection.pragma("query_only", 0)
    assert al.execute_sync("file.write").status == "executed"
    engine.close()


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system kills whoever writes into a mapped hole that it has no room for. So what the processes share has its
    place on the disk before it is mapped.
    """
    mapped: list[int] = []
    real = mmap.mmap

    def mapping(file: int, length: int) -> mmap.mmap:
        mapped.append(os.fstat(file).st_blocks * 512 - length)
        return real(file, length)

    monkeypatch.setattr(mmap, "mmap", mapping)
    Board(str(tmp_path / "governance.db")).close()
    assert len(mapped) == 1
    assert mapped[0] >= 0
