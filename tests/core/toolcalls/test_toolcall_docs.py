"""The guide to tool calls: its examples run, in order, as they stand, and its table of reasons is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agentlattice_core.toolcalls.denial import REASONS

_GUIDE = (Path(__file__).parents[3] / "docs" / "tool-calls.md").read_text(encoding="utf-8")
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_every_example_of_the_guide_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a reader copies works, and what it prints is what the guide shows."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    examples = _PYTHON.findall(_GUIDE)
    assert len(examples) >= 7
    for example in examples:
        exec(compile(example, "docs/tool-calls.md", "exec"), namespace)
    printed = capsys.readouterr().out
    assert printed
    assert "".join(f"    {line}\n" for line in printed.splitlines()) in _GUIDE


def test_the_guide_explains_every_reason() -> None:
    """A reason code that a model may be shown stands in the guide's table."""
    assert [reason for reason in REASONS if f"`{reason}`" not in _GUIDE] == []
