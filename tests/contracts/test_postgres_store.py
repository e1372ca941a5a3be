"""The PostgreSQL store keeps what every store must."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from agentlattice_core.stores.base import Store
from agentlattice_core.stores.postgres import PostgresStore

pytest.register_assert_rewrite("agentlattice_core.testing.store_contract")

from agentlattice_core.testing.store_contract import OpenStore, StoreContract  # noqa: E402

if TYPE_CHECKING:
    from postgres_server import PostgresServer


class TestPostgresStore(StoreContract):
    @pytest.fixture
    def open_store(self, postgres_url: str) -> Iterator[OpenStore]:
        opened: list[PostgresStore] = []

        def open_one() -> Store:
            opened.append(PostgresStore(postgres_url, "org_contract"))
            return opened[-1]

        yield open_one
        for store in opened:
            store.close()

    @pytest.fixture
    def failing_store(
        self, postgres_server: PostgresServer, postgres_url: str
    ) -> Iterator[tuple[Store, Callable[[], None]]]:
        name = postgres_url.partition("?")[0].rpartition("/")[2]
        store = PostgresStore(postgres_url, "org_failing", patience=0.2)

        def fail() -> None:
            postgres_server.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            postgres_server.cut_connections(postgres_url)

        yield store, fail
        store.close()
