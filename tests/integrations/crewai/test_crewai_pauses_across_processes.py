"""A flow pauses, its process is killed, and another process goes on by what was decided meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crew_pauses import Case
from test_crewai_pauses import DECISIONS, check

CALLS = (1, 2, 5)
PROGRAM = str(Path(__file__).with_name("crew_pauses.py"))


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Every case: paused in a process that was killed, decided here, resumed in a process of its own."""
    folder = tmp_path_factory.mktemp("pauses")
    named = {
        f"{calls} {decision}": {"calls": calls, "timeout": "1s" if decision == "time out" else "10m"}
        for calls in CALLS
        for decision in DECISIONS
    }
    (folder / "cases.json").write_text(json.dumps(named), encoding="utf-8")
    first = subprocess.Popen(
        [sys.executable, PROGRAM, "pause", str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    assert set(json.loads(first.stdout.readline())) == set(named)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    first.stdout.close()
    cases = {name: Case(folder / name, **fields) for name, fields in named.items()}
    for name, case in cases.items():
        assert case.effects() == ["read"]
        case.decide(name.split(" ", 1)[1])
        case.close()
    second = subprocess.run(
        [sys.executable, PROGRAM, "resume", str(folder)], stdout=subprocess.PIPE, text=True, check=True
    )
    told = json.loads(second.stdout)
    yield {name: (case, told[name]) for name, case in cases.items()}
    for case in cases.values():
        case.close()


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("calls", CALLS)
def test_each_call_runs_as_often_as_it_was_approved(
    resumed: dict[str, Any], calls: int, decision: str
) -> None:
    """Parallel calls, answered alike or mixed, after a `kill -9`."""
    case, told = resumed[f"{calls} {decision}"]
    check(case, decision, told)
