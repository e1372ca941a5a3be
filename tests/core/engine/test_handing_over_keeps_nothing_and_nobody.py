"""The file that processes hand actions over in: it keeps nothing, and whatever is wrong with it costs speed only."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from neighbours import (
    PATIENCE,
    Hosting,
    Neighbour,
    actions,
    note,
    until,
)

from agentlattice_core import NotRecordedError
from agentlattice_core.stores import exchange as exchange_module
from agentlattice_core.stores.exchange import Exchange

Join = Callable[..., Neighbour]


def test_nothing_that_was_handed_over_stays_in_the_file(
    path: Path, host: Neighbour, guest: Neighbour
) -> None:
    for answer in (Exchange.answer, lambda self, guests: None):
        with pytest.MonkeyPatch.context() as patched, Hosting(host, guest):
            patched.setattr(Exchange, "answer", answer)
            guest.act("small.pay", amount="1", metadata={"tier": "planted-secret"})
    shared = Path(f"{path}-exchange").read_bytes()
    assert b"planted-secret" not in shared
    assert b"guest" not in shared


def leave_behind(one: Neighbour, at: str, slot: int | None = None) -> None:
    """What a process that was killed, or was late, may leave in its slot."""
    exchange = one.store._exchange
    assert exchange is not None
    place = getattr(exchange, at)(exchange._slot if slot is None else slot) + 100
    exchange._map[place : place + len(b"planted-secret")] = b"planted-secret"


@pytest.mark.parametrize("at", ["_request_at", "_answer_at"])
def test_what_a_dead_process_left_is_wiped(path: Path, join: Join, at: str) -> None:
    """By who erases anything, by who gets its slot, and by who opens the file alone."""
    shared = Path(f"{path}-exchange")
    host, guest = join("host"), join()
    leave_behind(guest, at)
    row = host.sequencer.run(note)
    host.sequencer.run(lambda batch: batch.erase(row))
    assert b"planted-secret" not in shared.read_bytes()

    leave_behind(guest, at)
    assert guest.store._exchange is not None
    guest.store._exchange._slot = None  # a process that dies wipes nothing
    guest.close()
    assert b"planted-secret" in shared.read_bytes()
    join()
    assert b"planted-secret" not in shared.read_bytes()


@pytest.mark.parametrize("at", ["_request_at", "_answer_at"])
def test_who_opens_the_file_alone_starts_it_afresh(path: Path, at: str) -> None:
    """Also where nobody will have a slot again."""
    only = Neighbour(path, "guest")
    leave_behind(only, at, slot=40)
    only.close()
    assert b"planted-secret" in Path(f"{path}-exchange").read_bytes()
    Neighbour(path, "guest").close()
    assert b"planted-secret" not in Path(f"{path}-exchange").read_bytes()


def test_a_file_that_another_release_laid_out_is_left_to_it(join: Join, host: Neighbour) -> None:
    """Who does not know how it is laid out neither offers nor takes, and writes for itself."""
    exchange = host.store._exchange
    assert exchange is not None
    known, exchange._words[exchange_module._FORMAT] = exchange._words[exchange_module._FORMAT], 99
    stranger = join()
    before = bytes(exchange._map)
    assert stranger.store._exchange is None
    assert stranger.act("note.write").status == "executed"
    assert bytes(exchange._map) == before
    exchange._words[exchange_module._FORMAT] = known


def test_one_more_than_has_room_writes_for_itself(
    join: Join, host: Neighbour, guest: Neighbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_module, "_SLOTS", 2)
    third = join()
    assert third.store._exchange is not None
    assert third.store._exchange._slot is None
    assert third.act("note.write").status == "executed"
    with Hosting(third, guest):
        guest.act("note.write")
    assert guest.own_commits() == 0


def test_a_full_disk_or_a_foreign_file_system_only_costs_speed(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert join().act("note.write").status == "executed"


def test_who_has_a_file_open_that_was_replaced_is_refused_and_not_written_for(
    path: Path, join: Join, guest: Neighbour
) -> None:
    """What another process holds under that name now is another log."""
    aside = path.parent / "aside"
    aside.mkdir()
    for name in ("log.db", "log.db-wal", "log.db-shm"):
        (path.parent / name).rename(aside / name)
    host = join("host")
    refusals: list[BaseException] = []

    def act() -> None:
        try:
            guest.act("note.write")
        except NotRecordedError as error:
            refusals.append(error)

    with Hosting(host, guest):
        thread = threading.Thread(target=act)
        thread.start()
    thread.join(PATIENCE)
    assert "removed or replaced" in str(refusals[0])
    host.sequencer.run(note)
    assert actions(host.store) == []
    for name in ("log.db", "log.db-wal", "log.db-shm"):
        (path.parent / name).unlink(missing_ok=True)
        (aside / name).rename(path.parent / name)


def test_nobody_waits_for_the_end_of_a_round_of_its_own(host: Neighbour, guest: Neighbour) -> None:
    """While a host still syncs for its guest, another of its threads offers; the guest is answered all the same."""
    synced, go_on = threading.Event(), threading.Event()
    sync = host.store.sync

    def slow() -> None:
        if threading.current_thread().name == "host":
            synced.set()
            assert go_on.wait(PATIENCE)
        sync()

    host.store.sync = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor() as pool:
        hosting = Hosting(host, guest)
        hosting._thread.name = "host"
        with hosting:
            waiting = pool.submit(guest.act, "note.write")
            assert synced.wait(PATIENCE)
            gate = guest.store._gate
            assert gate is not None
            gate.queue()  # somebody else is about to write, and has not opened its round yet
            other = pool.submit(host.act, "note.write")
            until(host.has_posted, "the host offers")
            gate.admit()
            assert other.result(PATIENCE).status == "executed"
            go_on.set()
        assert waiting.result(PATIENCE).status == "executed"
    assert guest.own_commits() == 0


def test_a_store_that_is_closed_while_its_guests_wait_keeps_nobody_waiting(
    host: Neighbour, guest: Neighbour
) -> None:
    committed, closed = threading.Event(), threading.Event()
    sync = host.store.sync

    def slow() -> None:
        if threading.current_thread().name == "host":
            sync()
            committed.set()
            assert closed.wait(PATIENCE)
        else:
            sync()

    host.store.sync = slow  # type: ignore[method-assign]
    hosting = Hosting(host, guest)
    hosting._thread.name = "host"
    with ThreadPoolExecutor() as pool, hosting:
        waiting = pool.submit(guest.act, "note.write")
        assert committed.wait(PATIENCE)
        host.store.close()
        assert waiting.result(PATIENCE).status == "executed"
        closed.set()
    assert hosting.errors == []
    assert len(actions(guest.store)) == 1


def test_a_fork_waits_for_the_answer_and_both_go_on(host: Neighbour, guest: Neighbour) -> None:
    """One thread waits for another process's answer while a second one forks."""
    forked: list[int] = []

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                guest.sequencer.restart()
                status = 0 if guest.act("note.write").status == "executed" else 1
            finally:
                os._exit(status)
        forked.append(pid)

    forking = threading.Thread(target=fork)
    with ThreadPoolExecutor() as pool, Hosting(host, guest, before=forking.start):
        assert pool.submit(guest.act, "note.write").result(PATIENCE).status == "executed"
    forking.join(PATIENCE)
    assert os.waitpid(forked[0], 0)[1] == 0
    assert guest.act("note.write").status == "executed"
    assert len(actions(guest.store)) == 3
