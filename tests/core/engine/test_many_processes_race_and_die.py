"""Many processes of many threads on one file, some are killed: one record and one answer each, and limits exact."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from multiprocessing import connection
from pathlib import Path

import pytest
from neighbours import Neighbour, actions, prepare, state_is_what_the_log_makes_of_it

from agentlattice_core.stores.exchange import Exchange

CAP = 5
DONE = b"done\n"


@pytest.fixture(params=["exchange", "none"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the exchange between processes, and on a system that has no such locks."""
    if request.param == "none":
        monkeypatch.setattr(Exchange, "is_possible", staticmethod(lambda: False))
    return str(request.param)


class Worker:
    """A process of some threads, each of which acts so many times, and tells what it was answered."""

    def __init__(self, path: Path, number: int, threads: int, each: int, events: int) -> None:
        self.output, tell = os.pipe()
        self.said = b""
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(self.output)
                self._work(path, number, threads, each, events, tell)
                status = 0
            finally:
                os._exit(status)
        os.close(tell)

    def _work(self, path: Path, number: int, threads: int, each: int, events: int, tell: int) -> None:
        neighbour = Neighbour(path, "guest")

        def act(thread: int) -> None:
            chance = random.Random(number * 1000 + thread)
            for _ in range(each):
                event = chance.randrange(events)
                kind = ("note.write", "refund.issue", "secret.read")[event % 3]
                options = {"amount": "1", "currency": "EUR"} if kind == "refund.issue" else {}
                result = neighbour.act(kind, event_id=f"event-{event}", **options)
                os.write(
                    tell, f"{event} {result.audit_event_id} {result.status} {result.replayed}\n".encode()
                )

        workers = [threading.Thread(target=act, args=(thread,)) for thread in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        neighbour.close()
        os.write(tell, DONE)

    def read(self, seconds: float) -> bool:
        """Take what it says; whether it may say more."""
        readable = connection.wait([self.output], seconds)
        if not readable:
            return True
        said = os.read(self.output, 65_536)
        self.said += said
        return said != b""

    def end(self) -> int:
        """Take what it still says, and return how it ended."""
        end = time.monotonic() + 100
        while self.read(1.0):
            assert time.monotonic() < end, "a process hangs"
        os.close(self.output)
        return os.waitpid(self.pid, 0)[1]


def check(path: Path, said: list[bytes]) -> None:
    """What was answered is there, each event once, and the limit is exact."""
    answers: dict[str, tuple[str, str]] = {}
    first: Counter[str] = Counter()
    for line in b"".join(said).decode().splitlines():
        if line == DONE.decode().strip():
            continue
        event, audit_event_id, status, replayed = line.split()
        assert answers.setdefault(event, (audit_event_id, status)) == (audit_event_id, status)
        first[event] += replayed == "False"
    reader = Neighbour(path, "guest")
    recorded = actions(reader.store)
    reader.close()
    ids = {entry["id"] for entry in recorded}
    events = Counter(entry["data"]["event_id"] for entry in recorded)
    assert events
    assert set(events.values()) == {1}
    assert {audit_event_id for audit_event_id, _ in answers.values()} <= ids
    assert all(count <= 1 for count in first.values()), "somebody else was told to run it, too"
    refunds = [entry for entry in recorded if entry["data"]["action_type"] == "refund.issue"]
    allowed = [entry for entry in refunds if entry["data"]["decision"] == "executed"]
    assert len(allowed) == min(CAP, len(refunds))
    assert state_is_what_the_log_makes_of_it(path)


@pytest.mark.usefixtures("either_way")
def test_of_many_processes_each_is_answered_once(tmp_path: Path) -> None:
    path = prepare(tmp_path)
    workers = [Worker(path, number, threads=3, each=20, events=60) for number in range(4)]
    assert [worker.end() for worker in workers] == [0] * 4
    assert all(worker.said.endswith(DONE) for worker in workers)
    check(path, [worker.said for worker in workers])


def killed_at_random(path: Path, seed: int, waves: int) -> list[bytes]:
    """What six processes at a time said, of which some are killed and others take their place."""
    chance = random.Random(seed)
    said: list[bytes] = []
    for wave in range(waves):
        workers = [Worker(path, wave * 6 + n, threads=4, each=40, events=2000) for n in range(6)]
        victims = chance.sample(workers, 3)
        for victim in victims:
            wanted = chance.randrange(2000)
            while len(victim.said) < wanted and victim.read(1.0):
                pass
            os.kill(victim.pid, signal.SIGKILL)
        for worker in workers:
            status = worker.end()
            assert status in ((0, signal.SIGKILL) if worker in victims else (0,))
        said += [worker.said for worker in workers]
    return said


def test_whoever_is_killed_the_others_are_answered_once(tmp_path: Path) -> None:
    path = prepare(tmp_path)
    check(path, killed_at_random(path, seed=1, waves=1))


@pytest.mark.soak
@pytest.mark.parametrize("seed", [2, 3])
def test_whoever_is_killed_again_and_again_the_others_are_answered_once(tmp_path: Path, seed: int) -> None:
    path = prepare(tmp_path)
    check(path, killed_at_random(path, seed, waves=12))
