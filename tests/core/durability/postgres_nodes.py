"""Nodes on one PostgreSQL: processes of many agents that act until everything is answered, while others are killed, the
connections cut and the database restarted.
"""

from __future__ import annotations

import os
import random
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import orjson

from agentlattice_core import AgentLattice, NotRecordedError, StoreError

if TYPE_CHECKING:
    from postgres_server import PostgresServer

__all__ = ["CAP", "Run", "check", "prepare"]

T = TypeVar("T")

CAP = 40
_DONE = "done"
_LONGEST = 120.0  # seconds until a run counts as stuck
_POLICIES = f"""
version: 1
policies:
  - {{name: Notes, action: note.write, effect: allow}}
  - {{name: Secrets, action: secret.read, effect: deny}}
  - name: Refunds
    action: refund.issue
    effect: allow
    rules:
      - {{priority: 40, type: DAILY_CAP, cap: "{CAP}", per: organisation, currency: EUR, timezone: Etc/GMT+12,
          effect: REJECT}}
"""


def prepare(url: str, organisation: str, directory: Path) -> Path:
    """Make the log of an organisation with its policies; the file of its key."""
    policies, key = directory / "policies.yaml", directory / f"{organisation}.key"
    policies.write_text(_POLICIES)
    _insist(
        lambda: AgentLattice.embedded(
            url, organisation=organisation, policies=policies, agent="first", signing_key=key
        )
    ).close()
    return key


def _insist(call: Callable[[], T]) -> T:
    """What a call returns once the database is there."""
    end = time.monotonic() + _LONGEST
    while True:
        try:
            return call()
        except (NotRecordedError, StoreError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


@dataclass(frozen=True)
class Answer:
    agent: str
    event: str
    audit_event_id: str
    status: str
    replayed: bool


@dataclass
class _Node:
    """A process whose agents have so many events left to act on."""

    url: str
    organisation: str
    key: Path
    left: dict[str, list[int]]
    said: bytes = b""
    pid: int = 0
    output: int = 0

    def start(self) -> None:
        self.said = b""
        self.output, tell = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(self.output)
                self._work(tell)
                status = 0
            finally:
                os._exit(status)
        os.close(tell)

    def _work(self, tell: int) -> None:
        first = _insist(
            lambda: AgentLattice.embedded(
                self.url, organisation=self.organisation, agent="first", signing_key=self.key
            )
        )

        def act(agent: str, events: list[int]) -> None:
            client = _insist(lambda: first.for_agent(agent))
            for event in events:
                kind = ("refund.issue", "note.write", "refund.issue", "secret.read")[event % 4]
                options = {"amount": "1", "currency": "EUR"} if kind == "refund.issue" else {}
                result = _insist(
                    lambda kind=kind, event=event, options=options: client.execute_sync(  # type: ignore[misc]
                        kind, event_id=f"event-{event}", **options
                    )
                )
                if result.claim == "started":
                    client.record_outcome(result.audit_event_id, "succeeded")
                said = [agent, event, result.audit_event_id, result.status, int(bool(result.replayed))]
                os.write(tell, (" ".join(map(str, said)) + "\n").encode())

        threads = [threading.Thread(target=act, args=one) for one in self.left.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _insist(first.flush)
        os.write(tell, f"{_DONE}\n".encode())

    def answers(self) -> list[Answer]:
        found = []
        for line in self.said.decode().splitlines(keepends=True):
            if line.endswith("\n") and line.strip() != _DONE:
                agent, event, audit_event_id, status, replayed = line.split()
                found.append(Answer(agent, event, audit_event_id, status, replayed == "1"))
        return found

    def read(self) -> bool:
        """Take what it says; whether it may say more."""
        said = os.read(self.output, 65_536)
        self.said += said
        return said != b""

    def end(self) -> int:
        while self.read():
            pass
        os.close(self.output)
        return os.waitpid(self.pid, 0)[1]


@dataclass
class Run:
    """Nodes with agents of their own, which act while other things happen to them."""

    url: str
    organisation: str
    key: Path
    nodes: int = 4
    agents: int = 16
    events: int = 4
    answers: list[Answer] = field(default_factory=list)

    def go(self, server: PostgresServer, disturbances: Iterable[str], chance: random.Random) -> None:
        """Run until every event of every agent was answered. Each disturbance comes after so many answers."""
        running = [
            _Node(
                self.url,
                self.organisation,
                self.key,
                {f"agent-{number}-{agent}": list(range(self.events)) for agent in range(self.agents)},
            )
            for number in range(self.nodes)
        ]
        for node in running:
            node.start()
        end = time.monotonic() + _LONGEST
        pending, answered = list(disturbances), 0
        wanted = self.nodes * self.agents * self.events
        moments = sorted(chance.uniform(0.05, 0.8) * wanted for _ in pending)
        while running:
            assert time.monotonic() < end, "the nodes hang"
            if pending and answered >= moments[-len(pending)]:
                self._disturb(pending.pop(0), server, running, chance)
            readable, _, _ = select.select([node.output for node in running], [], [], 0.5)
            for node in [node for node in running if node.output in readable]:
                before = len(node.said)
                more = node.read()
                answered += node.said.count(b"\n", before)
                if not more:
                    assert node.end() == 0
                    assert node.said.endswith(f"{_DONE}\n".encode())
                    self.answers += node.answers()
                    running.remove(node)
        assert not pending, "the nodes were done before they were disturbed"

    def _disturb(
        self, what: str, server: PostgresServer, running: list[_Node], chance: random.Random
    ) -> None:
        if what == "cut":
            server.cut_connections(self.url, portion=0.5)
        elif what == "kill":
            node = chance.choice(running)
            os.kill(node.pid, signal.SIGKILL)
            node.end()
            self.answers += node.answers()
            done = {(answer.agent, answer.event) for answer in node.answers()}
            for agent, events in node.left.items():
                node.left[agent] = [event for event in events if (agent, str(event)) not in done]
            node.start()
        else:
            server.restart(what)


def check(run: Run) -> None:
    """Everything answered is in the log as it was answered, each event once, and the cap is exact."""
    wanted = run.nodes * run.agents * run.events
    told: dict[tuple[str, str], tuple[str, str]] = {}
    first: Counter[tuple[str, str]] = Counter()
    for answer in run.answers:
        name, what = (answer.agent, f"event-{answer.event}"), (answer.audit_event_id, answer.status)
        assert told.setdefault(name, what) == what
        first[name] += not answer.replayed
    assert len(told) == wanted
    assert max(first.values()) == 1, "somebody else was told to run it, too"
    with AgentLattice.embedded(
        run.url, organisation=run.organisation, operator="auditor", signing_key=run.key
    ) as al:
        verified = al.verify_sync()
        assert verified.chain_valid, verified.problem
        assert al.verify_state_sync() == []
        with al._engine.read() as reader:
            entries = [orjson.loads(row[1]) for row in reader.rows()]
    recorded = {
        (entry["who"]["agent"], entry["data"]["event_id"]): (entry["id"], entry["data"]["decision"])
        for entry in entries
        if entry["kind"] == "action"
    }
    assert sum(entry["kind"] == "action" for entry in entries) == len(recorded) == wanted
    assert recorded == told
    allowed = [
        entry
        for entry in entries
        if entry["kind"] == "action"
        and entry["data"]["action_type"] == "refund.issue"
        and entry["data"]["decision"] == "executed"
    ]
    assert len(allowed) == CAP
    outcomes = Counter(entry["data"]["action"] for entry in entries if entry["kind"] == "outcome")
    assert max(outcomes.values()) == 1
