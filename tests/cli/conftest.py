"""A project directory of its own for every test, and two ways to run `al` in it.

- `al` runs it in this process through typer's runner, which is fast.
- `al_process` runs it as a program, its output in a pipe.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_world import PATIENCE, POLICIES, PROGRAM, Al, AlProcess
from typer.testing import CliRunner, Result

from agentlattice_cli.main import app
from agentlattice_core import AgentLattice


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: empty, and nothing of this machine's user shows through."""
    for name in [name for name in os.environ if name.startswith("AL_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    directory = tmp_path / "project"
    home.mkdir()
    directory.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def al() -> Al:
    """Run `al` in this process."""

    def run(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(app, list(arguments), **options)

    return run


@pytest.fixture
def al_process() -> AlProcess:
    """Run `al` as a program whose output is a pipe."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
            timeout=PATIENCE,
            check=False,
        )

    return run


@pytest.fixture
def governed(project: Path) -> Iterator[AgentLattice]:
    """A client for the agent `ci` on `governance.db`, which POLICIES govern."""
    (project / "policies.yaml").write_text(POLICIES)
    with AgentLattice.embedded("governance.db", policies="policies.yaml", agent="ci") as client:
        yield client
