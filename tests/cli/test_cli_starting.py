"""How `al` starts and ends, whatever the command."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_world import PATIENCE, PROGRAM, Al, AlProcess, Terminal, document

from agentlattice_core import AgentLattice
from agentlattice_core.stores import sqlite

READING = [
    ["whoami", "--agent", "ci"],
    ["can-i", "pr.open", "--agent", "ci"],
    ["report", "evt_0", "success", "--agent", "ci"],
    ["approvals", "list"],
    ["approvals", "watch"],
    ["approvals", "show", "apr_0"],
    ["approvals", "approve", "apr_0", "--as", "ana", "--digest", "0" * 64],
    ["approvals", "deny", "apr_0", "--as", "ana", "--reason", "no"],
    ["policy", "simulate", "policies.yaml"],
    ["policy", "suggest"],
    ["policy", "diff", "policies.yaml"],
    ["policy", "explain", "pr.open"],
    ["policy", "list"],
    ["audit", "list"],
    ["audit", "verify"],
    ["audit", "export", "log.jsonl"],
    ["audit", "checkpoint"],
    ["audit", "key"],
]


def test_help_is_shown_without_importing_the_core_a_framework_or_a_renderer() -> None:
    """`al --help` and completion are quick because they import nothing that a command would need."""
    heavy = [
        "agentlattice_core",
        "agentlattice_integrations",
        "agentlattice_server",
        "rich",
        "langgraph",
        "crewai",
        "agents",
    ]
    code = (
        "import sys; sys.argv = ['al', '--help']\n"
        "from agentlattice_cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert "approvals" in shown.stdout
    assert shown.stdout.rstrip().endswith("[]")


def test_the_version_is_that_of_the_distribution(al: Al) -> None:
    """`--version` names the installed release."""
    from importlib.metadata import version

    result = al("--version")
    assert (result.exit_code, result.stdout) == (0, f"al {version('agentlattice-integrations')}\n")


@pytest.mark.parametrize("group", [[], ["policy"], ["audit"], ["approvals"]])
def test_a_group_alone_shows_what_it_can_do(al: Al, group: list[str]) -> None:
    """Naming a group without a command is a question, not an error."""
    result = al(*group)
    assert result.exit_code == 0
    assert "Commands:" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["polcy"], 1),
        (["audit", "list", "--limit", "0"], 1),
        (["policy", "diff"], 1),
        (["gate"], 3),
        (["gate", "pr.open", "--agnet", "ci"], 3),
        (["execute"], 3),
        (["can-i", "pr.open", "--amount"], 3),
        (["whoami", "--what"], 3),
    ],
)
def test_a_mistyped_command_line_is_one_line_and_never_reads_as_a_decision(
    al: Al, arguments: list[str], code: int
) -> None:
    """2 means that nobody decided in time, so a wrong flag must end otherwise."""
    result = al(*arguments)
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "--help`" in result.stderr


@pytest.mark.parametrize("arguments", READING, ids=lambda arguments: " ".join(arguments[:2]))
def test_a_command_that_reads_creates_no_database(al: Al, project: Path, arguments: list[str]) -> None:
    """Looking into a directory without a database leaves it without one, and says what to do instead."""
    (project / "policies.yaml").write_text("version: 1\npolicies: []\n")
    result = al(*arguments)
    assert result.exit_code == (3 if arguments[0] in ("whoami", "can-i") else 1)
    assert result.stderr.startswith("error: there is no database `governance.db`; name one with `--db`")
    assert [path.name for path in project.iterdir()] == ["policies.yaml"]


@pytest.mark.parametrize(
    "content",
    [b"dear diary\n", b"SQLite format 3\x00" + bytes(4080)],
    ids=["text", "another program's database"],
)
@pytest.mark.parametrize(
    "arguments", [["audit", "list"], ["execute", "pr.open", "--agent", "ci"]], ids=["reading", "writing"]
)
def test_a_file_that_is_not_ours_is_left_as_it_is(
    al: Al, project: Path, content: bytes, arguments: list[str]
) -> None:
    """Naming the wrong file neither changes it nor litters its directory."""
    (project / "diary").write_bytes(content)
    result = al(*arguments, "--db", "diary")
    assert result.exit_code in (1, 3)
    assert "it is not a governance database" in result.stderr
    assert (project / "diary").read_bytes() == content
    assert [path.name for path in project.iterdir()] == ["diary"]


def test_an_empty_file_and_a_directory_are_no_databases(al: Al, project: Path) -> None:
    """Neither can be read from, and the error says which file was meant."""
    (project / "empty.db").touch()
    (project / "folder").mkdir()
    assert "`empty.db` is empty" in al("audit", "list", "--db", "empty.db").stderr
    assert al("audit", "list", "--db", "folder").stderr == "error: cannot open `folder`: is a directory\n"
    assert sorted(path.name for path in project.iterdir()) == ["empty.db", "folder"]


def test_a_database_that_was_not_yet_checkpointed_is_recognised(al_process: AlProcess, project: Path) -> None:
    """Killed right after it began, a process leaves everything in the write-ahead log; the file is still ours."""
    code = (
        "import os\nfrom agentlattice_core import AgentLattice\n"
        "AgentLattice.embedded('governance.db', agent='ci').execute_sync('pr.open')\nos._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)
    assert (project / "governance.db-wal").stat().st_size > 0
    result = al_process("audit", "list", "--json")
    assert result.returncode == 0, result.stderr
    assert [event["action_type"] for event in document(result)["events"]] == ["pr.open"]


_LOUD_LOCKS = """\
import fcntl, sys
silent = fcntl.flock
def flock(*arguments):
    print("locking", file=sys.stderr, flush=True)
    silent(*arguments)
fcntl.flock = flock
from agentlattice_cli.main import main
main()
"""


@pytest.mark.parametrize("arguments", [["execute", "pr.open", "--agent", "ci"], ["audit", "list"]])
def test_an_interrupt_ends_quietly_with_130(
    governed: AgentLattice, project: Path, arguments: list[str]
) -> None:
    """Ctrl-C while another process holds the file: no traceback, no half-written answer."""
    with open(project / "governance.db-turnstile", "rb") as turnstile:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [sys.executable, "-c", _LOUD_LOCKS, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        assert process.stderr.readline() == b"locking\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err.replace(b"locking\n", b"")) == (130, b"", b"")


def test_a_database_that_another_program_locks_can_be_read_and_not_written(
    governed: AgentLattice, al: Al, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some patience, here a short one, the error says so; nothing was decided."""
    governed.close()
    monkeypatch.setattr(sqlite, "_BUSY_TIMEOUT_MS", 50)
    code = (
        "import apsw; c = apsw.Connection('governance.db'); "
        "c.execute('BEGIN IMMEDIATE'); print('locked', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        assert al("audit", "list").exit_code == 0
        refused = al("execute", "pr.open", "--agent", "ci")
        assert refused.exit_code == 3
        assert refused.stderr.endswith("could not be written: database is locked\n")
        holder.communicate(b"\n")
    assert al("execute", "pr.open", "--agent", "ci").exit_code == 1


def test_a_reader_that_goes_away_is_not_an_error_worth_words(governed: AgentLattice) -> None:
    """`al ... | head` ends without a traceback."""
    for _ in range(300):
        governed.execute_sync("pr.open", metadata={"pr_size": 3})
    # Unbuffered, Python overlooks that a large write was cut short; whoever asks for that gets it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [*PROGRAM, "audit", "list", "--limit", "300", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(PATIENCE) == 1


def test_a_list_is_tabs_in_a_pipe_and_a_table_on_a_terminal(
    governed: AgentLattice, al_process: AlProcess
) -> None:
    """Programs get one line per item; people get a heading, and colour unless they said no."""
    governed.execute_sync("secret.read")
    piped = al_process("audit", "list").stdout
    assert piped.count("\n") == 1
    assert piped.split("\t")[1:4] == ["ci", "secret.read", "denied"]
    assert "\x1b" not in piped
    coloured = Terminal("audit", "list")
    assert coloured.end() == 0
    assert "\x1b[31mdenied" in coloured.text
    plain = Terminal("audit", "list", NO_COLOR="1")
    assert plain.end() == 0
    assert plain.text.split()[:4] == ["time", "agent", "action", "status"]
    assert "\x1b" not in plain.text


def test_completion_knows_the_commands(al_process: AlProcess) -> None:
    """The shell is offered what there is."""
    offered = al_process(_AL_COMPLETE="complete_bash", COMP_WORDS="al pol", COMP_CWORD="1")
    assert offered.stdout.split() == ["policy"]
    script = al_process("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_AL_COMPLETE" in script.stdout


def test_what_an_agent_wrote_cannot_paint_over_the_terminal(governed: AgentLattice, al: Al) -> None:
    """Escape sequences, line breaks and characters that reorder text are spelled out wherever they are shown."""
    evil = "ok\x1b[2K\x1b[1A\u202etxet\u2028approved"
    request = governed.execute_sync(
        "deploy.production", metadata={"note": evil, "na\x1bme": 1}, beneficiary="a\x1bb"
    )
    assert request.approval_id is not None
    shown = al("approvals", "show", request.approval_id).stdout
    assert "\\x1b[2K\\x1b[1A\\u202etxet\\u2028approved" in shown
    assert "na\\x1bme" in shown
    assert "a\\x1bb" in shown
    assert "\x1b" not in shown
    assert os.linesep + "approved" + os.linesep not in shown


def test_an_error_is_one_line_whatever_it_quotes(al: Al) -> None:
    """A name with a line break or an escape sequence in it is spelled out, and the error ends where its line does."""
    refused = al("execute", "pr.open", "--agent", "ci\nerror: all is well\x1b[1A")
    assert refused.stderr.startswith(
        "error: agent `ci\\nerror: all is well\\x1b[1A` must be 1 to 200 printable"
    )
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["serve"], ["organisations", "add", "acme"], ["webhooks", "list", "--as", "ana"]]
)
def test_what_takes_the_server_extra_says_so(
    governed: AgentLattice, al_process: AlProcess, project: Path, arguments: list[str]
) -> None:
    """Without the extra, the line that installs it is the error; there is no traceback, and nothing is made."""
    (project / "fastapi.py").write_text("raise ModuleNotFoundError('no fastapi', name='fastapi')\n")
    before = sorted(path.name for path in project.iterdir())
    run = al_process(*arguments)
    assert run.returncode == 1
    assert run.stderr == (
        "error: this needs `fastapi`, which comes with `pip install 'agentlattice-integrations[server]'`\n"
    )
    assert sorted(path.name for path in project.iterdir() if path.name != "__pycache__") == before
