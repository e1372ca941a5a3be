"""Organisations of one SQLite database: made by opening them, each in a file of its own."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentlattice_core.engine import Engine, open_engine, organisations, release
from agentlattice_core.errors import InvalidRequestError

OpenEngine = Callable[..., Engine]


@pytest.fixture
def opened() -> Iterator[OpenEngine]:
    engines: list[Engine] = []

    def open_one(*arguments: object, **keywords: object) -> Engine:
        engines.append(open_engine(*arguments, **keywords))  # type: ignore[arg-type]
        return engines[-1]

    yield open_one
    for engine in engines:
        release(engine)


def test_an_organisation_is_made_by_opening_it_and_found_again(tmp_path: Path, opened: OpenEngine) -> None:
    """The first lies in the file that is named, others beside it; each keeps its own log and key."""
    database = f"sqlite:///{tmp_path}/governance.db"
    assert organisations(database) == []
    first = opened(database)
    acme = opened(database, organisation="acme")
    other = opened(database, organisation="org.two")
    assert acme.store.log_id == "acme"
    assert organisations(database) == sorted([first.store.log_id, "acme", "org.two"])
    assert {"governance.db", "governance.acme.db", "governance.org.two.db"} <= set(os.listdir(tmp_path))
    assert {"governance.db.key", "governance.acme.db.key"} <= set(os.listdir(tmp_path))
    assert opened(tmp_path / "governance.db", organisation="acme") is acme
    assert opened(database, organisation=first.store.log_id) is first
    assert len({id(first), id(acme), id(other)}) == 3


def test_a_new_database_is_the_organisation_that_is_named(tmp_path: Path, opened: OpenEngine) -> None:
    engine = opened(tmp_path / "governance.db", organisation="acme")
    assert engine.store.log_id == "acme"
    assert opened(tmp_path / "governance.db") is engine
    assert organisations(tmp_path / "governance.db") == ["acme"]


def test_two_that_make_the_first_organisation_at_once_get_one_each(tmp_path: Path) -> None:
    """Whoever comes second lies beside the first; nobody gets another's log."""
    for number in range(5):
        database = tmp_path / f"{number}.db"
        names, found = [f"org_{position}" for position in range(4)], dict[str, str]()
        barrier = threading.Barrier(len(names))

        def make(
            name: str, database: Path = database, barrier: threading.Barrier = barrier, found=found
        ) -> None:  # type: ignore[no-untyped-def]
            barrier.wait()
            engine = open_engine(database, organisation=name)
            found[name] = engine.store.log_id
            release(engine)

        threads = [threading.Thread(target=make, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {name: name for name in names}
        assert organisations(database) == names


def test_a_file_of_something_else_is_no_organisation(tmp_path: Path, opened: OpenEngine) -> None:
    """Another program's database, or another log's, that is called like an organisation's file is left out."""
    opened(tmp_path / "governance.db", organisation="acme")
    other = opened(tmp_path / "governance.db", organisation="two")
    sqlite3.connect(tmp_path / "governance.chinook.db").execute("CREATE TABLE albums (id)")
    (tmp_path / "governance.empty.db").touch()
    os.link(other.store.path, tmp_path / "governance.three.db")  # type: ignore[attr-defined]
    assert organisations(tmp_path / "governance.db") == ["acme", "two"]


@pytest.mark.parametrize("name", ["", "a/b", "../up", "a b", "-x", "x" * 200])
def test_an_id_that_cannot_name_a_log_is_refused(tmp_path: Path, name: str) -> None:
    """Before any file is made for it."""
    with pytest.raises(InvalidRequestError):
        open_engine(tmp_path / "governance.db", organisation=name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("database", ["mysql://host/db", "sqlite:///", "http://x"])
def test_what_names_no_database_is_refused(database: str) -> None:
    with pytest.raises(InvalidRequestError):
        open_engine(database)
