"""The embedded client keeps what every client must."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("client_contract", "client_contract_delegation", "client_contract_following")

from client_contract import ClientContract  # noqa: E402
from client_contract_delegation import DelegationContract  # noqa: E402
from client_contract_following import FollowingContract  # noqa: E402
from client_world import ClientWorld, EmbeddedWorld  # noqa: E402


class TestEmbeddedClient(ClientContract, DelegationContract, FollowingContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[ClientWorld]:
        world = EmbeddedWorld(tmp_path)
        yield world
        world.close()
