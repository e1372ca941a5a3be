"""The SQLite store keeps what every store must."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentlattice_core.stores.base import Store
from agentlattice_core.stores.sqlite import SQLiteStore

pytest.register_assert_rewrite("agentlattice_core.testing.store_contract")

from agentlattice_core.testing.store_contract import OpenStore, StoreContract  # noqa: E402


class TestSQLiteStore(StoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Iterator[OpenStore]:
        opened: list[SQLiteStore] = []

        def open_one() -> Store:
            opened.append(SQLiteStore(tmp_path / "log.db", new_log_id=lambda: f"org_{len(opened)}"))
            return opened[-1]

        yield open_one
        for store in opened:
            store.close()

    @pytest.fixture
    def failing_store(self, tmp_path: Path) -> Iterator[tuple[Store, Callable[[], None]]]:
        failing: list[bool] = []

        def fsync(descriptor: int) -> None:
            if failing:
                raise OSError(errno.EIO, "Input/output error")
            os.fdatasync(descriptor)

        store = SQLiteStore(tmp_path / "log.db", new_log_id=lambda: "org_failing", fsync=fsync)
        yield store, lambda: failing.append(True)
        failing.clear()
        try:
            store.close()
        except Exception:
            assert store._broken
