"""The cells of the pause contract, and how they are played: paused, decided by a reviewer, gone on with.

- All cells of one place are played together on one log: the deadline of what nobody decides is waited for once, and a
  process that is killed ends the pauses of all of them.
- A cell that fails while it is played fails its own tests, and no others.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agentlattice_core.client import AgentLattice
from agentlattice_core.results import AuditEvent
from agentlattice_integrations.contract.pause_harness import AGENT, PausedAgent, PauseHarness, Resumed

__all__ = [
    "COUNTS",
    "CRASH",
    "CRASH_NAME",
    "DECISIONS",
    "PLACES",
    "REVIEWER",
    "Answer",
    "Cell",
    "Place",
    "Played",
    "Stage",
    "cells",
    "play",
]

Answer = Literal["approve", "deny", "edit", "time out"]
Decision = Literal["approve", "deny", "edit", "time out", "mixed"]
Place = Literal["same process", "restarted"]

COUNTS = (1, 2, 5)
DECISIONS: tuple[Decision, ...] = ("approve", "deny", "edit", "time out", "mixed")
PLACES: tuple[Place, ...] = ("same process", "restarted")
REVIEWER = "reviewer"

_MIXED: tuple[Answer, ...] = ("approve", "deny", "time out", "edit", "approve")
_PATIENCE = 30.0  # seconds until a deadline of one second counts as never kept
_POLICIES = """
version: 1
policies:
  - {name: Free, action: tool.free, effect: allow}
  - {name: Deploy Approval, action: tool.deploy, effect: require_approval, approval: {timeout: 10m}}
  - {name: Hasty Deploy, action: tool.deploy_hastily, effect: require_approval, approval: {timeout: 1s}}
"""


@dataclass(frozen=True, slots=True)
class Cell:
    """Several parallel calls, and how they are answered."""

    count: int
    decision: Decision
    edits: bool = False

    @property
    def name(self) -> str:
        """In every version, so that no two cells deploy the same one."""
        return f"{self.count}{self.decision.replace(' ', '')}"

    @property
    def answers(self) -> dict[str, Answer]:
        """What becomes of each version."""
        answers = _MIXED[: self.count] if self.decision == "mixed" else (self.decision,) * self.count
        return {
            f"{self.name}-v{number}": answer if self.edits or answer != "edit" else "deny"
            for number, answer in enumerate(answers)
        }

    @property
    def edited(self) -> dict[str, str]:
        """The versions that are changed, as old to new."""
        return {version: f"edited-{version}" for version, answer in self.answers.items() if answer == "edit"}

    @property
    def approved(self) -> list[str]:
        """The versions that a person approved in the end."""
        return [
            self.edited.get(version, version)
            for version, answer in self.answers.items()
            if answer in ("approve", "edit")
        ]


CRASH = Cell(1, "approve")
"""Deployed in a process that is killed in the middle of it."""
CRASH_NAME = "crash"
"""What its agent is called."""


def cells(edits: bool) -> list[Cell]:
    """All cells of a framework."""
    return [
        Cell(count, decision, edits)
        for count in COUNTS
        for decision in DECISIONS
        if edits or decision != "edit"
    ]


@dataclass(slots=True)
class Played:
    """What became of one cell: each time that it was gone on with, and what went wrong."""

    agent: PausedAgent
    steps: list[Resumed] = field(default_factory=list)
    error: str | None = None

    @property
    def last(self) -> Resumed:
        """How far it came in the end. Fails if it could not be played."""
        assert self.error is None, self.error
        assert self.steps, "the agent was not gone on with"
        return self.steps[-1]


class Stage:
    """One log with a reviewer, and the agents of the cells on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        policies = directory / "policies.yaml"
        if not policies.exists():
            policies.write_text(_POLICIES, encoding="utf-8")
        self.client = AgentLattice.embedded(directory / "governance.db", policies=policies, agent=AGENT)
        self.reviewer = self.client.for_operator(REVIEWER)

    def close(self) -> None:
        """Close both clients."""
        self.reviewer.close()
        self.client.close()

    def agent(self, cell: Cell, *, name: str | None = None, crashes: bool = False) -> PausedAgent:
        """The agent of a cell; the same in every process."""
        name = name or cell.name
        folder = self.directory / name
        folder.mkdir(exist_ok=True)
        versions = [version.replace(cell.name, name) for version in cell.answers]
        hasty = frozenset(version for version, answer in cell.answers.items() if answer == "time out")
        return PausedAgent(name, folder, self.client, versions, hasty, crashes)

    def decide(self, answers: Mapping[str, Answer]) -> None:
        """Have the reviewer decide on what is pending, and wait until what is left to its deadline has timed out."""
        for request in self.reviewer.list_pending_approvals_sync():
            version = str(request.metadata["version"])
            if answers.get(version) == "approve":
                self.reviewer.approve_action_sync(request.id)
            elif answers.get(version) == "deny":
                self.reviewer.deny_action_sync(request.id, f"not {version}")
        give_up = time.monotonic() + _PATIENCE
        while any(answers.get(version) == "time out" for version in self.pending()):
            assert time.monotonic() < give_up, "what nobody decided did not time out"
            time.sleep(0.02)

    def decide_all(self, *, approve: bool) -> int:
        """Approve or deny whatever is pending now; how many that was."""
        found = self.reviewer.list_pending_approvals_sync()
        for request in found:
            if approve:
                self.reviewer.approve_action_sync(request.id)
            else:
                self.reviewer.deny_action_sync(request.id, "no")
        return len(found)

    def pending(self) -> list[str]:
        """The versions that wait for a person."""
        return [str(request.metadata["version"]) for request in self.reviewer.list_pending_approvals_sync()]

    def events(self) -> Iterator[AuditEvent]:
        """The recorded actions, the latest first, outcomes included."""
        self.client.flush()
        cursor: str | None = None
        while True:
            page = self.client.audit_sync(cursor, limit=200)
            yield from page.events
            cursor = page.next_cursor
            if cursor is None:
                return


def play(harness: PauseHarness, place: Place, stage: Stage) -> dict[str, Played]:
    """Play every cell; what became of each, by the name of the cell, and of the crash under `crash` if restarted."""
    todo = cells(harness.edits)
    played = {cell.name: Played(stage.agent(cell)) for cell in todo}
    if place == "same process":
        for one in played.values():
            assert one.agent.effects.of("deploy") == []
        held = {name: _tried(one, lambda one=one: harness.pause(one.agent)) for name, one in played.items()}
        _decide_first(stage, todo)
        _go_on_here(harness, todo, played, held, edits=True)
        stage.decide(dict.fromkeys(stage.pending(), "approve"))
        _go_on_here(harness, todo, played, held, edits=False)
        return played
    crash = stage.agent(CRASH, name=CRASH_NAME)
    played[CRASH_NAME] = Played(crash)
    names = list(played)
    process = _Processes(harness, stage.directory)
    assert process.run("pause", names) == -signal.SIGKILL, process.said
    for name, one in played.items():
        one.error = process.error(name, "pause")
        assert one.agent.effects.of("deploy") == [], f"`{name}` ran before anybody decided"
    stage.decide(dict.fromkeys(crash.versions, "approve"))
    _decide_first(stage, todo)
    # The one that crashes goes last: it ends the process for all.
    assert process.run("resume", names) == -signal.SIGKILL, process.said
    process.collect("resume", played, [name for name in names if name != CRASH_NAME])
    stage.decide(dict.fromkeys(stage.pending(), "approve"))
    left = [name for name, one in played.items() if one.steps and one.steps[-1].waiting]
    assert process.run("again", [*left, CRASH_NAME]) == 0, process.said
    process.collect("again", played, [*left, CRASH_NAME])
    return played


def _decide_first(stage: Stage, todo: Sequence[Cell]) -> None:
    """What can be decided of the calls as the model made them; edits come with going on."""
    stage.decide({version: answer for cell in todo for version, answer in cell.answers.items()})


def _go_on_here(
    harness: PauseHarness,
    todo: Sequence[Cell],
    played: Mapping[str, Played],
    held: Mapping[str, object | None],
    *,
    edits: bool,
) -> None:
    for cell in todo:
        one = played[cell.name]
        if one.error is None and (edits or (one.steps and one.steps[-1].waiting)):
            changes = cell.edited if edits else {}
            paused = held[cell.name]
            step = _tried(one, lambda a=one.agent, p=paused, c=changes: harness.resume(a, p, c))
            if step is not None:
                one.steps.append(step)


def _tried(one: Played, action: Any) -> Any:
    try:
        return action()
    except Exception:
        one.error = traceback.format_exc()
        return None


class _Processes:
    """Runs `pause_program` over agents of one stage."""

    def __init__(self, harness: PauseHarness, directory: Path) -> None:
        self._harness = harness
        self._directory = directory
        self.said = ""

    def run(self, step: str, names: Sequence[str]) -> int:
        """One process; how it ended. What it said last is kept in `said`."""
        kind = type(self._harness)
        module = sys.modules[kind.__module__]
        folder = str(Path(module.__file__ or "").parent)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, *filter(None, sys.path)])}
        done = subprocess.run(  # noqa: S603 - this interpreter, over a program of ours
            [
                sys.executable, "-m", "agentlattice_integrations.contract.pause_program",
                f"{kind.__module__}:{kind.__qualname__}", step, str(self._directory), *names,
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        self.said = done.stderr[-4000:]
        return done.returncode

    def error(self, name: str, step: str) -> str | None:
        """What went wrong with an agent in a step, or None."""
        file = self._directory / name / f"{step}.json"
        if not file.exists():
            return f"nothing is known of `{name}` in step `{step}`: {self.said}"
        error: str | None = json.loads(file.read_text(encoding="utf-8")).get("error")
        return error

    def collect(self, step: str, played: Mapping[str, Played], names: Sequence[str]) -> None:
        """Enter what became of agents in a step."""
        for name in names:
            one = played[name]
            one.error = one.error or self.error(name, step)
            if one.error is None:
                told = json.loads((self._directory / name / f"{step}.json").read_text(encoding="utf-8"))
                one.steps.append(Resumed(told["shown"], frozenset(told["waiting"])))
