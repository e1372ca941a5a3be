"""An agent's own actions of one type are found where they are, without looking at all the others."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from agentlattice_core import AgentLattice
from agentlattice_core.introspection import audit_page
from agentlattice_core.policy import PolicyDocument
from agentlattice_core.stores.base import Document, Reader
from agentlattice_core.stores.projections import PAGE

POLICIES = PolicyDocument.parse("version: 1\npolicies:\n  - {name: All, action: '*', effect: allow}\n")


class Counting:
    """A reader that counts the documents that are looked through."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.counted: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def scan(self, kind: str, prefix: str = "", **options: Any) -> Iterator[tuple[str, Document]]:
        for found in self._reader.scan(kind, prefix, **options):
            self.counted[kind] += 1
            yield found


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than two pages of the log: something rare at the beginning and near the end, and a neighbour's actions."""
    path = tmp_path_factory.mktemp("long") / "governance.db"
    with AgentLattice.embedded(path, policies=POLICIES, agent="ci") as al, al.for_agent("other") as other:

        async def act() -> None:
            await al.execute("rare")
            await asyncio.gather(
                *(al.execute(f"common.{n % 3}") for n in range(2 * PAGE)),
                *(other.execute("rare") for _ in range(9)),
            )
            await asyncio.gather(*(al.execute("rare") for _ in range(3)))
            await al.execute("rare.thing")

        asyncio.run(act())
    return path


@pytest.fixture
def al(path: Path) -> Iterator[AgentLattice]:
    with AgentLattice.embedded(path, agent="ci") as client:
        yield client


def all_of(al: AgentLattice, limit: int, action_type: str | None = None) -> list[str]:
    found, cursor = [], None
    while True:
        page = al.audit_sync(cursor=cursor, limit=limit, action_type=action_type)
        found += [f"{event.id} {event.action_type}" for event in page.events]
        cursor = page.next_cursor
        if cursor is None:
            return found


def test_pages_of_one_type_hold_all_of_it_and_nothing_else(al: AgentLattice) -> None:
    """Whatever the pages of the log they lie in, newest first, each once."""
    everything = all_of(al, 200)
    for action_type in ("rare", "rare.thing", "common.1", "rar", "common"):
        expected = [one for one in everything if one.endswith(f" {action_type}")]
        assert all_of(al, 200, action_type) == expected
    assert len(all_of(al, 1, "rare")) == 4


@pytest.mark.parametrize("odd", ["", "/", "rare/", "rare/000000000", "%", "\ud800", "\x00"])
def test_what_is_no_action_type_has_no_actions(al: AgentLattice, odd: str) -> None:
    assert al.audit_sync(action_type=odd).events == []


def test_a_rare_type_costs_the_pages_it_is_in(al: AgentLattice) -> None:
    """Two of them here, of at least three; and for a type that never was, nothing is looked through."""
    with al._opened.read() as reader:
        assert reader.head.size > 2 * PAGE
        counting: Any = Counting(reader)
        found = audit_page(counting, agent="ci", cursor=None, limit=50, action_type="rare.thing")
        assert len(found.events) == 1
        assert counting.counted["action"] <= PAGE
        assert counting.counted["acted"] == 1
        counting = Counting(reader)
        assert not audit_page(counting, agent="ci", cursor=None, limit=50, action_type="never").events
        assert not counting.counted


@pytest.fixture(params=[1, 2])
def older(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The same log in a file of each release before."""
    older = tmp_path / "governance.db"
    connection = apsw.Connection(str(path))
    connection.pragma("wal_checkpoint(TRUNCATE)")
    connection.close()
    for suffix in ("", ".key", ".key.signed"):
        shutil.copy(f"{path}{suffix}", f"{older}{suffix}")
    connection = apsw.Connection(str(older))
    connection.execute("DELETE FROM state WHERE kind = 'acted'")
    connection.pragma("user_version", request.param)
    connection.close()
    return older


def test_an_older_file_learns_it_when_it_is_opened(older: Path) -> None:
    """From then on it is as if it had always been recorded: the state is what the log makes of it."""
    with AgentLattice.embedded(older, agent="ci") as al:
        assert al.verify_state_sync() == []
        assert len(al.audit_sync(action_type="rare").events) == 4
        al.execute_sync("rare")
        assert len(al.audit_sync(action_type="rare").events) == 5
        assert al.verify_state_sync() == []


def test_state_that_somebody_damaged_keeps_no_file_from_being_opened(older: Path) -> None:
    """Verifying it then names what was damaged, and what could not be learned from that."""
    connection = apsw.Connection(str(older))
    connection.execute(
        "UPDATE state SET value = x'00' WHERE kind = 'action' AND key IN "
        "(SELECT key FROM state WHERE kind = 'action' AND CAST(value AS TEXT) LIKE '%rare.thing%')"
    )
    assert connection.changes() == 1
    connection.close()
    with AgentLattice.embedded(older, agent="ci") as al:
        assert [one.kind for one in al.verify_state_sync()] == ["acted", "action"]
