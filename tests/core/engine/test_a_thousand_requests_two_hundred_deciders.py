"""Two hundred people in four processes race for what waits: each request is decided once, and every waiter wakes."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from agentlattice_core import AgentLattice, IllegalTransitionError

POLICY = "version: 1\npolicies:\n  - {name: Deploys, action: deploy.run, effect: require_approval}\n"
PATIENCE = 240  # seconds until something that must happen counts as forgotten


def _wait(path: str, number: int, count: int, asked: Any, answers: Any) -> None:
    """A process whose agent asks for `count` actions and waits for all of them."""

    async def run() -> None:
        async with AgentLattice.embedded(path, agent=f"agent-{number}") as al:
            requests = await asyncio.gather(*(al.execute("deploy.run") for _ in range(count)))
            for request in requests:
                assert request.approval_id is not None
            asked.put([request.approval_id for request in requests])
            done = await asyncio.gather(*(al.await_approval(str(one.approval_id)) for one in requests))
            answers.put([(one.approval_id, one.status, one.claim) for one in done])

    asyncio.run(run())


def _decide(path: str, number: int, count: int, start: Any, wins: Any) -> None:
    """A process of `count` people, each of whom decides on all they find, in an order of their own."""
    with AgentLattice.embedded(path, operator=f"first-{number}") as al:
        people = [al.for_operator(f"person-{number}-{one}") for one in range(count)]
        won: list[tuple[str, str]] = []
        assert start.wait(PATIENCE)

        def decide(position: int, person: AgentLattice) -> None:
            order = random.Random(f"{number}/{position}")
            while waiting := person.list_pending_approvals_sync():
                order.shuffle(waiting)
                for request in waiting:
                    approve = order.random() < 0.7
                    act = person.approve_action_sync if approve else person.deny_action_sync
                    try:
                        won.append((request.id, act(request.id, digest=request.digest).status))
                    except IllegalTransitionError:
                        break  # somebody was faster, so what was seen is out of date; look again

        threads = [threading.Thread(target=decide, args=each) for each in enumerate(people)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for person in people:
            person.close()
        wins.put(won)


def race(path: Path, requests: int, deciders: int) -> None:
    (path / "policies.yaml").write_text(POLICY)
    database = str(path / "governance.db")
    AgentLattice.embedded(database, policies=path / "policies.yaml").close()
    spawn = multiprocessing.get_context("spawn")
    asked, answers, wins, start = spawn.Queue(), spawn.Queue(), spawn.Queue(), spawn.Event()
    waiting = [
        spawn.Process(target=_wait, args=(database, number, requests // 2, asked, answers))
        for number in range(2)
    ]
    deciding = [
        spawn.Process(target=_decide, args=(database, number, deciders // 4, start, wins))
        for number in range(4)
    ]
    for process in (*waiting, *deciding):
        process.start()
    wanted = [one for _ in waiting for one in asked.get(timeout=PATIENCE)]
    start.set()
    won = [one for _ in deciding for one in wins.get(timeout=PATIENCE)]
    woken = [one for _ in waiting for one in answers.get(timeout=PATIENCE)]
    for process in (*waiting, *deciding):
        process.join(PATIENCE)
        assert process.exitcode == 0
    assert Counter(approval for approval, _ in won) == Counter(wanted)
    said = dict(won)
    assert {approval: status for approval, status, _ in woken} == {
        approval: "executed" if said[approval] == "approved" else "denied" for approval in wanted
    }
    with AgentLattice.embedded(database, operator="auditor") as auditor:
        assert auditor.list_pending_approvals_sync() == []
        assert auditor.verify_sync().chain_valid
        assert auditor.verify_state_sync() == []
        with auditor._opened.read() as reader:
            entries = [orjson.loads(row[1]) for row in reader.rows()]
    ends = Counter(entry["data"]["approval"] for entry in entries if entry["kind"] == "approval")
    claims = Counter(entry["data"]["action"] for entry in entries if entry["kind"] == "claim")
    assert ends == Counter(wanted)
    assert set(claims.values()) == {1}
    assert len(claims) == sum(status == "approved" for status in said.values())


def test_each_request_is_decided_once_and_every_waiter_wakes(tmp_path: Path) -> None:
    race(tmp_path, requests=60, deciders=24)


@pytest.mark.soak
def test_a_thousand_requests_and_two_hundred_deciders(tmp_path: Path) -> None:
    race(tmp_path, requests=1000, deciders=200)
