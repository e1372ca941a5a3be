"""The notebooks run from top to bottom, show what they have always shown, and are in step with their scripts.

`RECORD_EXAMPLES=1 pytest tests/examples` writes each notebook anew from its script, with what it shows.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "examples" / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.py"))
RECORD = bool(os.environ.get("RECORD_EXAMPLES"))


def _cells(notebook: Any) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def _printed(notebook: Any) -> list[str]:
    """What each cell of code wrote to standard output."""
    return [
        "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def _write(notebook: Any, path: Path) -> None:
    """Keep what was printed; leave out what differs from run to run."""
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.execution_count = None
            text = "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)] if text else []
    notebook.metadata.pop("language_info", None)
    nbformat.write(notebook, path)


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_runs_and_shows_what_is_kept_in_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every cell runs without a key and without a network, and prints what the stored notebook shows."""
    for variable in [variable for variable in os.environ if variable.startswith("OPENAI_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "offline"))
    monkeypatch.setenv("OFFLINE_LOG", str(tmp_path / "attempts"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("HOME", str(tmp_path))
    notebook = jupytext.read(NOTEBOOKS / f"{name}.py")
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert not (tmp_path / "attempts").exists(), (tmp_path / "attempts").read_text()
    if RECORD:
        _write(notebook, NOTEBOOKS / f"{name}.ipynb")
    printed = _printed(notebook)
    assert printed == _printed(nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4))
    if name.endswith("_agent"):
        assert "the model saw: opened a pull request with 49 files" in printed[-2]
    assert printed[-1].endswith("verifies: True\n")


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_and_its_script_are_in_step(name: str) -> None:
    """The `.ipynb` holds the same cells as the `.py` it is paired with, and says that it is paired."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    script = jupytext.read(NOTEBOOKS / f"{name}.py")
    assert _cells(notebook) == _cells(script)
    assert (
        notebook.metadata["jupytext"]["formats"]
        == script.metadata["jupytext"]["formats"]
        == "ipynb,py:percent"
    )


def test_no_notebook_is_without_its_script() -> None:
    """Each notebook is one of a pair."""
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == NAMES
    assert {"crewai_agent", "langgraph_agent", "openai_agents_agent", "policy_simulation"} <= set(NAMES)
