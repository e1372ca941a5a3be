"""The program that docs/clients.md shows works in both forms of the client."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from client_world import RemoteWorld
from doc_pages import Block, blocks, check_output

POLICIES = "version: 1\npolicies: [{name: PRs, action: pr.open, effect: allow}]\n"


def test_the_same_program_runs_on_a_file_and_with_a_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key in the environment it opens a file; with one it speaks to the service that is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AL_API_KEY", raising=False)
    program, printed = blocks("docs/clients.md")
    Path("policies.yaml").write_text(POLICIES)
    check_output(printed, printed_by(program))
    world = RemoteWorld(tmp_path)
    try:
        al = world.agent("ci-deployer")
        assert al._service is not None
        monkeypatch.setenv("AL_API_KEY", al._service.key)
        monkeypatch.setenv("AL_BASE_URL", world.service.url)
        check_output(printed, printed_by(program))
        assert [event.action_type for event in al.audit_sync().events] == ["pr.open"]
    finally:
        world.close()


def printed_by(program: Block) -> str:
    """What the program prints, run in this process: where it says, there is a service of the test's own."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(program.text, program.page, "exec", dont_inherit=True), {"__name__": "docs"})
    return output.getvalue()
