"""What the documentation tells its reader to do works as it stands, and prints what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from doc_pages import ROOT, blocks, follow, pages, run_console, run_program

from agentlattice_core import AgentLattice

RUN_ELSEWHERE = {
    "README.md": "tests/docs/test_docs_readme.py",
    "docs/audit-format.md": "tests/core/audit/test_audit_export.py",
    "docs/clients.md": "tests/docs/test_docs_clients.py",
    "docs/delegation.md": "tests/core/delegation/test_delegation_page.py",
    "docs/python.md": "tests/docs/test_docs_python.py",
    "docs/policy-language.md": "tests/core/policy/test_policy_language_page.py",
    "docs/tool-calls.md": "tests/core/toolcalls/test_toolcall_docs.py",
    "docs/adapters/openai-agents.md": "tests/integrations/openai_agents/test_openai_docs.py",
}
"""Pages with programs that another file runs, and which."""

ALONE = ["docs/adapters/crewai.md", "docs/adapters/langgraph.md"]
"""Pages whose programs are run by themselves, here."""


def test_getting_started_from_the_first_line_to_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Observe, suggest, lint, simulate, enforce, ask, prove: each command and program of the walk, in order."""
    monkeypatch.chdir(tmp_path)
    follow("docs/getting-started.md")


def test_what_approvals_says_of_deciding_is_what_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step of the page is taken, in order, in one directory, and what it shows is what comes."""
    monkeypatch.chdir(tmp_path)
    follow("docs/approvals.md")


def test_the_security_model_shows_commands_that_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeping a checkpoint elsewhere and verifying against it are typed as the page says."""
    monkeypatch.chdir(tmp_path)
    with AgentLattice.embedded("governance.db", agent="a") as al:
        al.execute_sync("db.migrate")
    shown = list(blocks("docs/security-model.md"))
    assert [block.language for block in shown] == ["console"]
    run_console(shown[0])


@pytest.mark.parametrize("page", ALONE)
def test_an_adapters_programs_run_and_show_what_the_page_speaks_of(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each program on the page runs by itself: it prints the text below it, or its model is shown the denial."""
    monkeypatch.chdir(tmp_path)
    shown = [block for block in blocks(page) if block.language in ("python", "text")]
    assert shown[0].language == "python"
    for program, below in zip(shown, [*shown[1:], None], strict=True):
        if program.language != "python":
            continue
        printed = run_program(program)
        if below is not None and below.language == "text":
            assert below.text in printed
        else:
            assert '"field":"pr_size","operator":"lt","expected":50,"actual":87' in "".join(printed.split())


def test_every_page_with_programs_is_run_by_a_test() -> None:
    """A new page with a program on it needs a test that runs it."""
    here = {"docs/approvals.md", "docs/getting-started.md", *ALONE}
    for path in pages():
        page = path.relative_to(ROOT).as_posix()
        if page in here or not any(block.language == "python" for block in blocks(page)):
            continue
        assert path.name in (ROOT / RUN_ELSEWHERE[page]).read_text(encoding="utf-8"), page
