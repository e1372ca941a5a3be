"""A run pauses in a process that is killed, people decide, and another process carries on."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
from openai_pauses import COUNTS, DECISIONS, REASONS, Pauses, calls, process, script, version_of

TOOLS = ("deploy", "inside", "shell", "apply_patch", "note")
"""What is called: a function tool, by the agent or inside an agent that is a tool, or one of the executors."""

CELLS = [
    (count, decision, tool)
    for count, decision, tool in itertools.product(COUNTS, DECISIONS, TOOLS)
    if (count > 1 or len(decision) == 1) and (count == 2 or tool == "deploy")
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Path]:
    """Every cell: paused by a process that was then killed, decided, and resumed by another."""
    root = tmp_path_factory.mktemp("runs")
    found = {}
    for number, (count, decision, tool) in enumerate(CELLS):
        inside, called, hasty = tool == "inside", tool, decision == "t"
        if tool in ("deploy", "inside"):
            called = "deploy_hastily" if hasty else "deploy"
        found[count, decision, tool] = script(root / str(number), called, count, inside=inside, hasty=hasty)
    directories = list(found.values())
    assert process("pause", directories) == -9
    for (_, decision, _), directory in found.items():
        pauses = Pauses(directory, policies=None)
        assert pauses.ran() == []
        while decision == "t" and pauses.requests():
            time.sleep(0.05)
        pauses.decide(decision)
        pauses.close()
    assert process("resume", directories) == 0
    return found


def expected(decision: str, number: int) -> str:
    letter = decision[number % len(decision)]
    return REASONS.get(letter, f"deployed {number}")


@pytest.mark.parametrize(("count", "decision", "tool"), CELLS)
def test_each_tool_ran_as_often_as_it_was_approved(
    runs: dict[Any, Path], count: int, decision: str, tool: str
) -> None:
    """What was approved ran once, every answer reached its own call, what is undecided waits, the log says the same."""
    directory, inside = runs[count, decision, tool], tool == "inside"
    told = json.loads((directory / "resumed.json").read_text())
    answers = {f"call_{number}": expected(decision, number) for number in range(count)}
    left = [f"call_{number}" for number in range(count) if decision[number % len(decision)] == "l"]
    pauses = Pauses(directory, policies=None)
    approved = sorted(
        text for name, text in answers.items() if text.startswith("deployed") and name not in left
    )
    if inside and left:
        # The SDK goes on inside an agent that is a tool once everything asked there is decided.
        approved, left = [], list(answers)
    assert pauses.ran() == approved
    assert left or told["interruptions"] == []
    assert set(told["interruptions"]) <= set(left)
    if left:
        assert told["final"] is None
    else:
        assert told["shown"] == answers
        assert told["final"] == "done"
    log = [event for event in pauses.log() if event.action_type != "tool.ask"]
    assert len(log) == count
    for event in log:
        number = int(version_of(event.metadata))
        outcome = answers[f"call_{number}"]
        if f"call_{number}" in left:
            assert event.claim is None
        elif outcome.startswith("deployed"):
            assert (event.claim, event.approved_by) == ("succeeded", "rita")
        else:
            assert (event.claim, event.denial_reason) == (None, outcome)
    assert [event.claim for event in pauses.log("tool.ask")] == (
        [] if not inside else ["started" if left else "succeeded"]
    )
    assert pauses.al.verify_sync().chain_valid
    pauses.close()


def test_a_second_resume_in_a_third_process_runs_nothing_again(runs: dict[Any, Path]) -> None:
    """The same saved state, resumed elsewhere: what ran is not run again, what waited runs once it is approved."""
    chosen = {cell: runs[cell] for cell in CELLS if cell[1] in ("a", "ad", "al") and cell[0] == 2}
    for (_, decision, _), directory in chosen.items():
        pauses = Pauses(directory, policies=None)
        assert len(pauses.requests()) == (decision == "al")
        pauses.decide("a")
        pauses.close()
    assert process("resume", list(chosen.values())) == 0
    for (_, decision, _), directory in chosen.items():
        ran = ["deployed 0"] if decision == "ad" else ["deployed 0", "deployed 1"]
        assert sorted((directory / "effects").read_text().splitlines()) == ran
        told = json.loads((directory / "resumed.json").read_text())
        assert (told["interruptions"], told["final"]) == ([], "done")


def test_a_process_killed_while_the_approved_tool_runs_leaves_an_unknown(tmp_path: Path) -> None:
    """Nobody can say whether the tool finished: it is not run again; who resumes is told so, and so is the log."""
    script(tmp_path, "deploy", 1)
    pauses = Pauses(tmp_path)
    asyncio.run(pauses.pause(pauses.agent(calls("deploy", 1))))
    pauses.decide("a")
    (tmp_path / "die").touch()
    assert process("resume", [tmp_path]) == -9
    (tmp_path / "die").unlink()
    assert process("resume", [tmp_path]) == 0
    told = json.loads((tmp_path / "resumed.json").read_text())
    assert (told["shown"], told["final"]) == ({"call_0": "OUTCOME_UNKNOWN"}, "done")
    assert pauses.ran() == ["deployed 0"]
    assert [event.claim for event in pauses.log()] == ["unknown"]
    pauses.close()
