"""The adapter's documentation does what it says: each snippet runs as it stands, with a scripted model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from agents.models.multi_provider import MultiProvider
from openai_scripted import ScriptedModel, call, outputs, say

DOCUMENT = Path(__file__).parents[3] / "docs" / "adapters" / "openai-agents.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    return tmp_path


def correct_itself(input: Any) -> list[Any]:
    """Ask for as much as the denial says one may."""
    denial = json.loads(outputs(input)[-1])
    (failed,) = denial["failed_conditions"]
    return [call("refund", {"order": "17", "amount": str(failed["expected"])})]


def test_the_twenty_lines_run_and_the_model_corrects_itself(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Denied for 240, the model reads the limit in the denial, refunds 100, and the log verifies."""
    model = ScriptedModel(
        [call("find_order", {"order": "17"})],
        [call("refund", {"order": "17", "amount": "240.00"})],
        correct_itself,
        [say("I refunded 100 EUR.")],
    )
    monkeypatch.setattr(MultiProvider, "get_model", lambda self, name: model)
    code = blocks("python")[0]
    exec(compile(code, "twenty lines", "exec"), {"__name__": "docs"})
    printed = capsys.readouterr().out
    assert model.shown[-1] == "refunded 100 EUR"
    assert "2 tools: 2 governed" in printed
    assert printed.endswith("I refunded 100 EUR.\nTrue\n")
    assert len([line for line in code.splitlines() if line.strip()]) <= 20


@pytest.mark.parametrize("number", range(1, len(blocks("python"))))
def test_the_other_snippets_run(project: Path, number: int) -> None:
    """Every other snippet runs as it stands."""
    exec(compile(blocks("python")[number], f"snippet {number}", "exec"), {"__name__": "docs"})
