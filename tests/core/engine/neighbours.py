"""Two who write one log as two processes would, each with a store and a sequencer of its own, and how to order them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from agentlattice_core import ActionOptions, AgentLattice
from agentlattice_core.actions import Action
from agentlattice_core.admission import Caller
from agentlattice_core.batch import Batch
from agentlattice_core.clock import Clock, SystemClock
from agentlattice_core.commands import Commands, Execution
from agentlattice_core.policies import Policies
from agentlattice_core.results import ActionResult
from agentlattice_core.sequencer import Sequencer
from agentlattice_core.stores.exchange import _OFFERED, _TAKEN
from agentlattice_core.stores.sqlite import SQLiteStore

PATIENCE = 60.0
"""Seconds until something that must happen counts as never happening."""

POLICIES = """
version: 1
policies:
  - {name: Notes, action: note.write, effect: allow}
  - {name: Secrets, action: secret.read, effect: deny}
  - name: Small
    action: small.pay
    effect: allow
    conditions:
      - {field: amount, operator: lt, value: 50}
      - {field: metadata.tier, operator: in, value: [a, b]}
  - name: Deploys
    action: deploy.*
    effect: require_approval
    approval: {timeout: 1h}
  - name: Refunds
    action: refund.issue
    effect: allow
    rules:
      - {priority: 40, type: DAILY_CAP, cap: "5", currency: EUR, timezone: Etc/GMT+12, effect: REJECT}
"""


def prepare(directory: Path) -> Path:
    """A log with policies in force and the agents `host` and `guest`; its path."""
    path, policies = directory / "log.db", directory / "policies.yaml"
    policies.write_text(POLICIES)
    for agent in ("host", "guest"):
        AgentLattice.embedded(path, policies=policies, agent=agent).close()
    return path


class Neighbour:
    """One who writes the log at `path`, in the name of `agent`."""

    def __init__(self, path: Path, agent: str, clock: Clock | None = None) -> None:
        self.agent = agent
        self.policies = Policies()
        self.store = SQLiteStore(path, new_log_id=lambda: "unused")
        self.commands = Commands(self.policies)
        self.sequencer = Sequencer(self.store, clock or SystemClock(), lambda: None, self.commands)
        self.abandoned: list[ActionResult] = []

    def execution(
        self, action_type: str, mode: str = "enforce", trusted: tuple[str, ...] = (), **options: Any
    ) -> Execution:
        context = options.pop("context", {})
        action = Action.build(action_type, ActionOptions(**options), trusted=trusted)
        return Execution(self.policies, Caller(self.agent, mode, "asserted", context), action)

    def act(self, action_type: str, **options: Any) -> ActionResult:
        return self.sequencer.run(self.execution(action_type, **options), self.abandoned.append)

    def has_posted(self) -> bool:
        """Whether a request of its own waits to be taken."""
        exchange = self.store._exchange
        if exchange is None or exchange._slot is None:
            return False
        words = exchange._words
        return bool(words[_OFFERED + exchange._slot] != words[_TAKEN + exchange._slot])

    def own_commits(self) -> int:
        return self.store._written

    def close(self) -> None:
        self.sequencer.close()
        self.store.close()


def until(condition: Callable[[], bool], what: str) -> None:
    """Return once `condition` holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.0002)


def note(batch: Batch) -> int:
    """A command that only this process can run."""
    return batch.record("log", {"system": "test"}, {"event": "began"}).i


class Hosting:
    """Has `host` open a transaction and hold it until every guest has posted its request; then it goes on.

    `before` is called inside of the host's transaction, once the requests are there.
    """

    def __init__(
        self, host: Neighbour, *guests: Neighbour, before: Callable[[], object] = lambda: None
    ) -> None:
        self._begun = threading.Event()
        self.over = threading.Event()
        """Set it to have the host go on without requests."""
        self.errors: list[BaseException] = []

        def hold(batch: Batch) -> int:
            self._begun.set()
            until(
                lambda: self.over.is_set() or all(guest.has_posted() for guest in guests),
                "the guests offer their commands",
            )
            before()
            return note(batch)

        def run() -> None:
            try:
                host.sequencer.run(hold)
            except BaseException as error:
                self.errors.append(error)

        self._thread = threading.Thread(target=run, daemon=True)

    def __enter__(self) -> Hosting:
        self._thread.start()
        assert self._begun.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the host never ended"


def actions(store: SQLiteStore) -> list[dict[str, Any]]:
    """The entries of all actions, oldest first."""
    with store.read() as reader:
        entries = [orjson.loads(row[1]) for row in reader.rows()]
    return [entry for entry in entries if entry["kind"] == "action"]


def state_is_what_the_log_makes_of_it(path: Path) -> bool:
    with AgentLattice.embedded(path, operator="auditor") as al:
        return al.verify_sync().chain_valid and al.verify_state_sync() == []
