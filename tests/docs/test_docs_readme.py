"""The README keeps what it promises to somebody who has just found it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from doc_pages import AL, ROOT, blocks, check_output, run_console, run_program, write_file

from agentlattice_core import AgentLattice
from agentlattice_core.toolcalls import Denial, ToolCall, ToolGate, denial_schema, governed

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = [block for block in blocks("README.md") if block.language == "python"]
OUTPUTS = [block for block in blocks("README.md") if block.language == "text"]
(POLICIES,) = (block for block in blocks("README.md") if block.language == "yaml")
COMMANDS = re.findall(r"^    (python3\.11 -m venv .*)$", README, re.MULTILINE)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that holds the README's policy file and nothing else."""
    monkeypatch.chdir(tmp_path)
    write_file(POLICIES)
    return tmp_path


@pytest.mark.parametrize("number", [0, 1, 2], ids=["langgraph", "crewai", "openai-agents"])
def test_twenty_lines_show_an_agent_that_corrects_itself(project: Path, number: int) -> None:
    """Each framework's program runs as it stands, says what the README says, and leaves a log that verifies."""
    program = PROGRAMS[number]
    assert len([line for line in program.text.splitlines() if line.strip()]) <= 22
    # A framework that reports from another thread may write between the last line and its end.
    assert OUTPUTS[0].text.strip() in run_program(program)
    with AgentLattice.embedded("governance.db", operator="reader") as al:
        told = [(event.action_type, event.denial_reason) for event in reversed(al.audit_sync().events)]
    assert told == [
        ("tool.list_changed_files", None),
        ("pr.open", "CONDITIONS_DENIED"),
        ("pr.open", None),
        ("pr.open", None),
    ]
    (afterwards,) = (block for block in blocks("README.md") if block.language == "console")
    run_console(afterwards)


def test_the_plain_client_says_what_the_readme_says(project: Path) -> None:
    """The program without a framework runs, and is told why."""
    assert len(PROGRAMS) == 5
    check_output(OUTPUTS[1], run_program(PROGRAMS[3]))


def test_the_service_is_started_and_an_agent_acts_with_the_key_it_prints(project: Path) -> None:
    """The lines about the service, as they stand but for the port and the key, which are those that it printed."""
    (install, start), (*point, run) = (
        block.text.splitlines() for block in blocks("README.md") if block.language == "sh"
    )
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert install == 'pip install ".[server]"'
    assert "server" in extras
    assert start.startswith("al serve ")
    assert run == "python agent.py"
    Path("agent.py").write_text(PROGRAMS[4].text)
    al = f'al() {{ {shlex.join(AL)} "$@"; }}\n'
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AL_")}
    environment |= {"HOME": os.getcwd(), "NO_COLOR": "1"}
    arguments = shlex.split(start)[1:]
    with subprocess.Popen(
        [*AL, *arguments, "--port", "0"], stdout=subprocess.PIPE, text=True, env=environment
    ) as service:
        try:
            assert service.stdout is not None
            printed = "".join(iter(service.stdout.readline, "Next:\n"))
            url = re.search(r"serving .* at (http://\S+) ", printed)
            key = re.search(r"service key .*(al_svc_\S+)", printed)
            assert url is not None, printed
            assert key is not None, printed
            lines = "\n".join(point).replace("http://127.0.0.1:8700", url[1]).replace("al_svc_...", key[1])
            script = f"{al}{lines}\n{run.replace('python', shlex.quote(sys.executable))}\n"
            done = subprocess.run(
                ["sh", "-ec", script], capture_output=True, text=True, env=environment, check=False
            )
        finally:
            service.terminate()
    assert done.returncode == 0, done.stderr
    assert key[1] not in start + done.stdout
    check_output(OUTPUTS[2], done.stdout)


def test_the_denial_in_the_readme_is_the_one_a_model_reads(project: Path) -> None:
    """The document shown is what the gate answers for this policy and 87 files, member for member, in order."""
    (shown,) = (block for block in blocks("README.md") if block.language == "json")

    @governed("pr.open", metadata={"pr_size": lambda arguments: len(arguments["files"])})
    def open_pull_request(branch: str, files: list[str]) -> str:
        return f"opened {branch} with {len(files)} files"

    with AgentLattice.embedded("governance.db", policies="policies.yaml", agent="coder") as al:
        call = ToolCall(
            "readme",
            "open_pull_request",
            {"branch": "billing-v2", "files": ["src/module.py"] * 87},
            target=open_pull_request,
        )
        answer = ToolGate(al).authorize_sync(call)
    assert isinstance(answer, Denial)
    assert list(json.loads(shown.text).items()) == list(json.loads(answer.text).items())
    assert list(json.loads(shown.text)) == list(denial_schema()["required"])


def test_the_two_commands_need_nothing_but_python_and_pip() -> None:
    """One line plays the demonstration, one runs the tests; what they install is declared, and pinned."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    begin = "python3.11 -m venv .venv && .venv/bin/pip install -c constraints.txt -e "
    demo, tests = COMMANDS
    assert demo == f'{begin}".[all]" && .venv/bin/al demo --yes'
    assert tests == f'{begin}".[dev]" && .venv/bin/pytest'
    assert any(re.match(r"agentlattice-integrations\[all\b", needed) for needed in extras["dev"])
    assert {"langgraph", "crewai", "openai-agents", "all", "dev"} <= extras.keys()
    assert (ROOT / "constraints.txt").exists()
