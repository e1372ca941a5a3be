"""The reference page: every snippet on it does what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agentlattice_core.policy import PolicyDocument
from agentlattice_core.policy.lint import lint
from agentlattice_core.policy.operators import OPERATORS

PAGE = (Path(__file__).parents[3] / "docs" / "policy-language.md").read_text()
YAML = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.S)


@pytest.mark.parametrize("snippet", YAML)
def test_every_document_on_the_page_is_valid(snippet):
    """And has no error that lint would find."""
    document = PolicyDocument.parse(snippet)
    assert [finding for finding in lint(document) if finding.severity == "error"] == []


def test_every_program_on_the_page_runs():
    """In the order of the page, in one namespace."""
    namespace: dict[str, object] = {}
    assert len(PYTHON) >= 4
    for snippet in PYTHON:
        exec(compile(snippet, "policy-language.md", "exec"), namespace)


def test_every_operator_and_lint_code_is_on_the_page():
    """Nothing is left out of the reference."""
    from agentlattice_core.policy import lint as lint_module

    codes = re.findall(r"^\| `([a-z-]+)` \|", lint_module.__doc__ or "", re.M)
    assert len(codes) == 12
    assert [name for name in (*OPERATORS, *codes) if f"`{name}`" not in PAGE] == []
