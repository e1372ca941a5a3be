"""What `al demo` promises: the whole story, on every framework, without a network, whoever or whatever watches."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cli_world import PROGRAM, Al, AlProcess, Terminal
from rich.console import Console

from agentlattice_cli.demo_screen import Screen
from agentlattice_core import AgentLattice
from agentlattice_core.toolcalls import denial_schema
from agentlattice_integrations.demo import Answer, Call

FRAMEWORKS = ["langgraph", "crewai", "openai-agents"]
LIGHT = ("--framework", "openai-agents")
OFFLINE = Path(__file__).resolve().parents[1] / "offline"
SHIPPED = (
    Path(__file__).resolve().parents[2] / "agentlattice_integrations" / "demo" / "policies.yaml"
).read_text()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The story on all frameworks as JSON, with what was left behind and what tried to reach the network."""
    place = tmp_path_factory.mktemp("demo")
    (place / "project").mkdir()
    (place / "home").mkdir()
    (place / "temporary").mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "LANG"))},
        "PYTHONPATH": str(OFFLINE),
        "OFFLINE_LOG": str(place / "attempts"),
        "HOME": str(place / "home"),
        "TMPDIR": str(place / "temporary"),
        # A user who traces their own work must not find the demonstration among it.
        "LANGSMITH_TRACING": "true",
        "LANGSMITH_API_KEY": "unused",
        "CREWAI_TRACING_ENABLED": "true",
    }
    run = subprocess.run(
        [*PROGRAM, "demo", "--json"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=place / "project",
        env=environment,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return {
        "document": json.loads(run.stdout),
        "attempts": (place / "attempts").read_text() if (place / "attempts").exists() else "",
        "left": [path.name for path in (place / "project").iterdir()],
        "temporary": [path.name for path in (place / "temporary").iterdir() if path.name.startswith("al-")],
    }


def _step(act: dict[str, Any], name: str) -> dict[str, Any]:
    return next(step for step in act["steps"] if step["step"] == name)


def test_the_story_goes_as_told_on_every_framework(played: dict[str, Any]) -> None:
    """All three frameworks are played, every step of each went as the story says, and each log verifies."""
    document = played["document"]
    assert document["ok"] is True
    assert [act["framework"] for act in document["frameworks"]] == FRAMEWORKS
    for act in document["frameworks"]:
        assert [step["problem"] for step in act["steps"]] == [None] * 5
        assert act["verify"]["chain_valid"] is True
        assert act["verify"]["entries"] > 0
    assert document["missing"] == []


def test_nothing_reaches_for_the_network_and_nothing_is_left_behind(played: dict[str, Any]) -> None:
    """No framework looks up a name or opens a connection, not even for a user who traces their own work."""
    assert played["attempts"] == ""
    assert played["left"] == []
    assert played["temporary"] == []


def test_models_behind_different_frameworks_see_and_do_the_same(played: dict[str, Any]) -> None:
    """The calls, and the texts that the model was shown for them, do not depend on the framework."""
    first, *others = (act["steps"] for act in played["document"]["frameworks"])
    for other in others:
        assert other == first


def test_what_the_model_sees_of_a_denial_is_the_published_document(played: dict[str, Any]) -> None:
    """Every denial in the story is valid by the schema that is published for it."""
    seen = [
        call["saw"]
        for act in played["document"]["frameworks"]
        for step in act["steps"]
        for call in step["calls"]
        if call["status"] == "denied"
    ]
    assert len(seen) == 4 * len(FRAMEWORKS)
    for document in seen:
        jsonschema.validate(document, denial_schema())


def test_the_pull_request_is_split_by_what_the_denial_says(played: dict[str, Any]) -> None:
    """87 files are refused at a limit of 50, and then opened in two pull requests that hold each file once."""
    for act in played["document"]["frameworks"]:
        calls = [call for call in _step(act, "pull-request")["calls"] if call["tool"] == "open_pull_request"]
        assert [(len(call["arguments"]["files"]), call["status"]) for call in calls] == [
            (87, "denied"),
            (49, "ran"),
            (38, "ran"),
        ]
        assert (
            calls[1]["arguments"]["files"] + calls[2]["arguments"]["files"] == calls[0]["arguments"]["files"]
        )


def test_a_limit_of_20_makes_smaller_pull_requests(al: Al, project: Path) -> None:
    """The agent follows the policy and not a script: another limit, and it splits otherwise."""
    (project / "mine.yaml").write_text(SHIPPED.replace("value: 50", "value: 20"))
    run = al("demo", *LIGHT, "--json", "--policies", "mine.yaml")
    assert run.exit_code == 0, run.output
    calls = _step(json.loads(run.stdout)["frameworks"][0], "pull-request")["calls"][1:]
    assert [len(call["arguments"]["files"]) for call in calls] == [87, 19, 19, 19, 19, 11]


def test_a_step_that_goes_otherwise_fails_the_command(al: Al, project: Path) -> None:
    """A policy that lets 87 files through is not the story, which is said, and the exit code is 1."""
    (project / "mine.yaml").write_text(SHIPPED.replace("value: 50", "value: 100"))
    run = al("demo", *LIGHT, "--policies", "mine.yaml")
    assert run.exit_code == 1
    assert "the pull request with all files should have been denied" in " ".join(run.stdout.split())
    assert "A step went wrong." in run.stdout


def test_in_a_pipe_it_is_plain_text_of_80_columns(al_process: AlProcess) -> None:
    """Without a terminal there are no control sequences, no line is wider than 80, and nobody is asked."""
    run = al_process("demo", *LIGHT)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    assert "\x1b" not in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 80
    assert [line for line in run.stdout.splitlines() if line != line.rstrip()] == []
    assert "approved (by the demonstration itself)" in run.stdout
    assert re.search(r"verify  \d+ entries, unbroken", run.stdout)


def test_on_a_narrow_terminal_every_line_keeps_its_column() -> None:
    """What does not fit goes on below where it began: no line is wider than the terminal, and none is broken twice."""
    console = Console(file=io.StringIO(), width=30)
    screen = Screen(console)
    screen.show(Call("open_pull_request", {"branch": "billing-v2", "files": ["a"] * 87}))
    screen.show(Answer("refused: `pr_size` must be less than `50`, and is `87`"))
    assert isinstance(console.file, io.StringIO)
    first, *more = console.file.getvalue().splitlines()
    assert first.startswith("  model calls  open_pull")
    assert {line[:15].strip() for line in more} == {"", "model says"}
    assert max(map(len, [first, *more])) <= 30


def test_a_kept_database_holds_the_story_and_verifies(al: Al) -> None:
    """`--keep` leaves a log that verifies when it is opened again, with the denied calls in it and who approved."""
    assert al("demo", *LIGHT, "--keep", "story.db").exit_code == 0
    with AgentLattice.embedded("story.db", operator="auditor") as auditor:
        assert auditor.verify_sync().chain_valid
        events = auditor.audit_sync().events
    told = [(event.action_type, event.status) for event in reversed(events)]
    assert ("secret.read", "denied") in told
    assert told.index(("secret.read", "denied")) + 1 == told.index(("config.read", "executed"))
    (deployed,) = [event for event in events if event.action_type == "deploy.trigger"]
    assert "oncall@example.com" in str(deployed.approved_by)
    again = al("demo", *LIGHT, "--keep", "story.db")
    assert again.exit_code == 1
    assert again.stderr == "error: file `story.db` exists; name a new one to keep the database in\n"


def test_a_framework_that_is_not_installed_is_named_with_its_install_line(
    al: Al, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing is said with the line that brings it; asked for alone, or with all missing, that is the error."""
    found = importlib.metadata.version
    missing = {"crewai", "langgraph"}

    def version(name: str) -> str:
        if name in missing:
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    run = al("demo")
    assert run.exit_code == 0, run.output
    assert 'LangGraph is not installed: pip install "agentlattice-integrations[langgraph]"\n' in run.stdout
    assert 'CrewAI is not installed: pip install "agentlattice-integrations[crewai]"\n' in run.stdout
    run = al("demo", "--framework", "crewai")
    assert (run.exit_code, run.stdout) == (1, "")
    assert (
        run.stderr
        == 'error: CrewAI is not installed; run `pip install "agentlattice-integrations[crewai]"`\n'
    )
    missing.add("openai-agents")
    run = al("demo")
    assert (run.exit_code, run.stdout) == (1, "")
    assert (
        run.stderr == 'error: no framework is installed; run `pip install "agentlattice-integrations[all]"`\n'
    )


def test_a_framework_that_cannot_be_imported_is_one_line(al_process: AlProcess, project: Path) -> None:
    """A file of the user's own that hides the framework is named in the error; there is no traceback."""
    (project / "agents.py").touch()
    run = al_process("demo", *LIGHT)
    assert run.returncode == 1
    assert re.fullmatch(r"error: OpenAI Agents SDK \S+ cannot be used: .*agents\.py.*\n", run.stderr), (
        run.stderr
    )


def test_an_unknown_framework_is_one_line(al: Al) -> None:
    """The names that can be used are in the error."""
    run = al("demo", "--framework", "autogen")
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr == "error: framework `autogen` is not one of langgraph, crewai, openai-agents, all\n"


def test_at_a_terminal_a_person_is_asked_and_obeyed(project: Path) -> None:
    """The agent waits for the answer; after a yes it deploys, and what it is asked about is on the screen."""
    terminal = Terminal("demo", *LIGHT, COLUMNS="80")
    shown = terminal.until("Approve? [y/N] ")
    assert "deploy.trigger" in shown
    assert "deployed payment-api" not in shown
    terminal.type("y\n")
    assert terminal.end() == 0, terminal.text
    assert "deployed payment-api to production" in terminal.text
    assert "by the demonstration itself" not in terminal.text


def test_a_no_at_the_terminal_is_obeyed_too(project: Path) -> None:
    """After a no the agent does not deploy, the model sees who decided, and the story goes on to its end."""
    terminal = Terminal("demo", *LIGHT, COLUMNS="80")
    terminal.until("Approve? [y/N] ")
    terminal.type("n\n")
    assert terminal.end() == 0, terminal.text
    assert "DENIED_BY_REVIEWER" in terminal.text
    assert "deployed payment-api" not in terminal.text
    assert "Every step went as the story says." in terminal.text


def test_yes_asks_nobody_even_at_a_terminal(project: Path) -> None:
    """`--yes` answers by itself and says so; with NO_COLOR no text is coloured."""
    terminal = Terminal("demo", *LIGHT, "--yes", COLUMNS="80", NO_COLOR="1")
    assert terminal.end() == 0, terminal.text
    assert "Approve?" not in terminal.text
    assert "approved (by the demonstration itself)" in terminal.text
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", terminal.text)


def test_an_interrupt_in_the_middle_of_the_question_ends_it_cleanly(project: Path) -> None:
    """Ctrl-C at the question: exit code 130, one line, the request is denied in the log, nothing is left running."""
    terminal = Terminal("demo", *LIGHT, "--keep", "kept.db", COLUMNS="80", TMPDIR=str(project))
    terminal.until("Approve? [y/N] ")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130, terminal.text
    assert terminal.text.endswith("\ninterrupted: whatever the agent was still asking for was denied\n")
    assert [path.name for path in project.iterdir() if path.name.startswith("al-demo-")] == []
    with AgentLattice.embedded("kept.db", operator="auditor") as al:
        assert al.verify_sync().chain_valid
        assert al.list_pending_approvals_sync() == []
        (asked,) = [event for event in al.audit_sync().events if event.action_type == "deploy.trigger"]
    assert (asked.status, asked.denial_reason) == ("denied", "DENIED_BY_REVIEWER")
