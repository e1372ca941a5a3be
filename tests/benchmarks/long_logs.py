"""Logs of a given length, built once for a run and shared by its benchmarks.

- Every entry is made by the same code as in use: decided, limited, recorded, folded into state. Only the commits are
  fewer: a thousand actions in each transaction.
- Fifty agents take turns.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from load import ACTION, Disk, fresh, opened

from agentlattice_core import admission
from agentlattice_core.actions import Action
from agentlattice_core.admission import Caller
from agentlattice_core.batch import Batch
from agentlattice_core.results import ActionOptions

__all__ = ["copied", "log_of"]

_AGENTS = 50
_TRANSACTION = 1_000


def log_of(directory: Path, entries: int) -> Path:
    """The directory of a log with at least that many entries; copy it before writing to it."""
    path = directory / f"log-{entries}"
    if path.exists():
        return path
    building = fresh(directory)
    with opened(building, Disk(False)) as al:
        names = [f"agent-{number}" for number in range(_AGENTS)]
        siblings = [al.for_agent(name) for name in names]
        engine = al._engine
        size = 0
        while size < entries:
            actions = [_action(size + number) for number in range(_TRANSACTION)]

            def record(batch: Batch, actions: list[Action] = actions) -> int:
                for number, action in enumerate(actions):
                    caller = Caller(names[number % _AGENTS])
                    result = admission.execute(engine.policies, batch, caller, action)
                    assert result.status == "executed", result
                return batch.next_index

            size = engine.run(record)
        for sibling in siblings:
            sibling.close()
    building.rename(path)
    return path


def copied(log: Path, directory: Path) -> Path:
    """A copy of a log, to write to."""
    path = fresh(directory)
    shutil.copytree(log, path, dirs_exist_ok=True)
    return path


def _action(number: int) -> Action:
    metadata = {"order": f"A-{number}", "reason": "damaged on arrival"}
    return Action.build(ACTION, ActionOptions(amount="0.01", currency="EUR", metadata=metadata))
