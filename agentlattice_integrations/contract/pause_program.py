"""The process that is killed, and the one that goes on, for the pause contract.

    python -m agentlattice_integrations.contract.pause_program MODULE:HARNESS pause|resume|again FOLDER NAME...

`pause` ends by SIGKILL once all agents are paused, `resume` when it comes to the agent that crashes. What became of
each agent is written into its folder as soon as it is known.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentlattice_integrations.contract.pause_cells import CRASH, CRASH_NAME, Stage, cells
from agentlattice_integrations.contract.pause_harness import PauseHarness

__all__ = ["main"]


def main(named: str, step: str, folder: str, names: Sequence[str]) -> None:
    """Play one step of these agents."""
    module, _, kind = named.partition(":")
    harness: PauseHarness = getattr(importlib.import_module(module), kind)()
    stage = Stage(Path(folder))
    known = {cell.name: cell for cell in cells(harness.edits)}
    for name in names:
        cell = known.get(name, CRASH)
        crashes = name == CRASH_NAME and step == "resume"
        agent = stage.agent(cell, name=name, crashes=crashes)
        told: dict[str, Any] = {}
        try:
            if step == "pause":
                harness.pause(agent)
            else:
                resumed = harness.resume(agent, None, cell.edited if step == "resume" else {})
                told = {"shown": dict(resumed.shown), "waiting": sorted(resumed.waiting)}
        except Exception:
            told = {"error": traceback.format_exc()}
        (agent.folder / f"{step}.json").write_text(json.dumps(told), encoding="utf-8")
    if step == "pause":
        os.kill(os.getpid(), signal.SIGKILL)
    stage.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
