"""`kill -9` under load, again and again: what was answered is there, nothing runs twice, limits hold, the chain
verifies.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from agentlattice_core import AgentLattice

POLICIES = """
version: 1
policies:
  - name: Refunds
    action: refund.issue
    effect: allow
    rules:
      - {priority: 40, type: DAILY_CAP, cap: "100000000.00", currency: EUR, timezone: UTC, effect: REJECT}
  - {name: Deploys, action: deploy.*, effect: require_approval}
"""
WORKER = Path(__file__).parent / "worker.py"


class Killed:
    """Runs workers on one database, kills them at random moments, and keeps what they said."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.database = directory / "governance.db"
        (directory / "policies.yaml").write_text(POLICIES)
        self.chance = random.Random(seed)
        self.said: list[list[str]] = []
        self.next = 0

    def round(self, processes: int) -> None:
        started = []
        for number in range(processes):
            read, write = os.pipe()
            # Each round begins a little before where the last one was killed: retries of what may be half done.
            first = max(0, self.next - 30) + number * 1_000_000
            arguments = [
                str(self.database),
                str(self.directory / "policies.yaml"),
                str(write),
                str(first),
                "3",
            ]
            process = subprocess.Popen(
                [sys.executable, str(WORKER), *arguments], pass_fds=[write], stderr=subprocess.PIPE
            )
            os.close(write)
            started.append((process, os.fdopen(read, "rb")))
        for process, pipe in started:
            line = pipe.readline()
            assert line.startswith(b"ready"), process.stderr.read() if process.stderr else line
        time.sleep(self.chance.uniform(0.0, 0.25))
        for process, _ in started:
            process.send_signal(signal.SIGKILL)
        for process, pipe in started:
            words = [line.split() for line in pipe.read().decode().splitlines() if line]
            pipe.close()
            process.wait()
            assert process.stderr is not None
            assert b"Traceback" not in process.stderr.read()
            process.stderr.close()
            self.said += words
            self.next = max([self.next, *(int(w[1]) % 1_000_000 for w in words if w[0] == "answered")])

    def check(self) -> None:
        with AgentLattice.embedded(self.database, operator="auditor") as al:
            verified = al.verify_sync()
            assert verified.chain_valid, verified.problem
            assert al.verify_state_sync() == []
            found, cursor = {}, None
            while True:
                page = al.audit_sync(cursor=cursor, limit=200)
                found |= {event.id: event for event in page.events}
                cursor = page.next_cursor
                if cursor is None:
                    break
            with al._engine.read() as reader:
                used = sum(Decimal(document["used"]) for _, document in reader.scan("limit"))
        refunds = [event for event in found.values() if event.action_type == "refund.issue"]
        assert used == len(refunds)
        answers: dict[str, str] = {}
        for words in self.said:
            if words[0] == "answered":
                assert words[2] in found, f"action {words[1]} was answered and is lost"
                assert answers.setdefault(words[1], words[2]) == words[2]
                assert words[3] == "executed"
            elif words[0] == "approved":
                assert found[words[2]].approved_by == "k.chen"
        for kind in ("ran", "deployed"):
            runs = Counter(words[1] for words in self.said if words[0] == kind)
            assert all(count == 1 for count in runs.values()), runs.most_common(1)
        assert len(answers) > 0


def test_ten_kills(tmp_path: Path) -> None:
    killed = Killed(tmp_path, seed=1)
    for number in range(10):
        killed.round(processes=1 + number % 2)
    killed.check()


@pytest.mark.soak
def test_two_hundred_kills(tmp_path: Path) -> None:
    killed = Killed(tmp_path, seed=2)
    for number in range(200):
        killed.round(processes=1 + number % 3)
        if number % 20 == 19:
            killed.check()
