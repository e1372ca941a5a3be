"""The client of a service keeps what every client must, over real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("client_contract", "client_contract_delegation")

from client_contract import ClientContract  # noqa: E402
from client_contract_delegation import DelegationContract  # noqa: E402
from client_world import ClientWorld, RemoteWorld  # noqa: E402


class TestRemoteClient(ClientContract, DelegationContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[ClientWorld]:
        world = RemoteWorld(tmp_path)
        yield world
        world.close()
