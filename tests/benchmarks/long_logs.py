"""Logs of a given length, built once for a run and shared by its benchmarks.

- Every entry is made by the same code as in use: decided, limited, recorded, folded into state. Only the commits are
  fewer: a thousand actions in each transaction.
- Fifty agents take turns.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from load import ACTION, Disk, fresh, opened

from agentlattice_core import AgentLattice, admission
from agentlattice_core.actions import Action
from agentlattice_core.admission import Caller
from agentlattice_core.batch import Batch
from agentlattice_core.results import ActionOptions

__all__ = ["copied", "log_of", "record"]

_AGENTS = 50
_TRANSACTION = 1_000


def log_of(directory: Path, entries: int) -> Path:
    """The directory of a log with at least that many entries; copy it before writing to it."""
    path = directory / f"log-{entries}"
    if not path.exists():
        building = fresh(directory)
        with opened(building, Disk(False)) as al:
            names = [f"agent-{number}" for number in range(_AGENTS)]
            siblings = [al.for_agent(name) for name in names]
            for first in range(0, entries, _TRANSACTION):
                record(al, names, first, min(_TRANSACTION, entries - first))
            for sibling in siblings:
                sibling.close()
        building.rename(path)
    return path


def record(al: AgentLattice, agents: Sequence[str], first: int, count: int) -> None:
    """Record exactly that many actions in one transaction, the agents taking turns."""
    engine = al._engine
    actions = [_action(first + number) for number in range(count)]

    def command(batch: Batch) -> None:
        for number, action in enumerate(actions):
            result = admission.execute(engine.policies, batch, Caller(agents[number % len(agents)]), action)
            assert result.status == "executed", result

    engine.run(command)


@contextmanager
def copied(log: Path, directory: Path) -> Iterator[Path]:
    """A copy of a log, to write to; it goes with the context."""
    path = fresh(directory)
    shutil.copytree(log, path, dirs_exist_ok=True)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def _action(number: int) -> Action:
    metadata = {"order": f"A-{number}", "reason": "damaged on arrival"}
    return Action.build(ACTION, ActionOptions(amount="0.01", currency="EUR", metadata=metadata))
