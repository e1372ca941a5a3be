"""Every example runs as it stands: as a program, without a key and without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))
AGENTS = ["crewai_agent.py", "langgraph_agent.py", "openai_agents_agent.py"]


def _run(script: str, place: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    environment |= {
        "PYTHONPATH": str(ROOT / "tests" / "offline"),
        "OFFLINE_LOG": str(place / "attempts"),
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
        "LANGSMITH_TRACING": "false",
        "HOME": str(place),
    }
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / script)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=place,
        env=environment,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert not (place / "attempts").exists(), (place / "attempts").read_text()
    return run.stdout


@pytest.mark.parametrize("script", AGENTS)
def test_an_agent_is_denied_and_corrects_itself(script: str, tmp_path: Path) -> None:
    """On each framework the 87 files are refused, then opened in two parts, and the log tells it and verifies."""
    lines = _run(script, tmp_path).splitlines()
    seen = [line.removeprefix("the model saw: ") for line in lines if line.startswith("the model saw: ")]
    assert seen[1].startswith('{"type":"agentlattice.denial/v1","status":"denied"')
    assert seen[2:] == ["opened a pull request with 49 files", "opened a pull request with 38 files"]
    assert [line.strip() for line in lines if line.startswith("the log")] == [
        "the log says: repo.read executed",
        "the log says: pr.open denied CONDITIONS_DENIED",
        "the log says: pr.open executed",
        "the log says: pr.open executed",
        "the log verifies: True",
    ]


def test_governance_without_a_framework(tmp_path: Path) -> None:
    """The plain client decides, corrects, asks a person and reports."""
    assert _run("plain_python.py", tmp_path).splitlines() == [
        "a small pull request is executed by PR Size",
        "denied: 87 files, by PR Size",
        "opened a pull request with 43 files",
        "opened a pull request with 44 files",
        "a reviewer is asked about pr.merge",
        "merged, as executed",
        "the log verifies: True",
    ]


def test_delegation_and_fan_out(tmp_path: Path) -> None:
    """Children do their part and no more, share their parent's cap, and are gone afterwards."""
    assert _run("delegation.py", tmp_path).splitlines() == [
        "the reader reads: executed",
        "the reader refunds: OUT_OF_SCOPE",
        "`reader` does not hold `refund.issue`, so it cannot delegate it; it holds `orders.read`",
        "worker-1 refunds 40.00 -> executed",
        "worker-2 refunds 40.00 -> executed",
        "worker-3 refunds 40.00 -> LIMIT_EXCEEDED",
        "in force: 0 of 4",
        "the log verifies: True",
    ]


def test_every_example_is_run_here_and_listed_in_the_index() -> None:
    """No script or notebook is in the directory that no test runs or the index does not name."""
    assert sorted([*AGENTS, "delegation.py", "plain_python.py"]) == SCRIPTS
    index = (EXAMPLES / "README.md").read_text()
    notebooks = [f"notebooks/{path.name}" for path in (EXAMPLES / "notebooks").glob("*.ipynb")]
    policies = [f"policies/{path.name}" for path in (EXAMPLES / "policies").glob("*.yaml")]
    assert [name for name in [*SCRIPTS, *notebooks, *policies] if f"({name})" not in index] == []
