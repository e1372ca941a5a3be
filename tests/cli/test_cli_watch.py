"""`al approvals watch` tells a person, or a program, of every request and decision as it happens."""

from __future__ import annotations

import itertools
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from cli_world import PATIENCE, POLICIES, PROGRAM, Terminal

from agentlattice_cli import approval_watch
from agentlattice_cli.settings import resolve
from agentlattice_core import AgentLattice
from agentlattice_core.clock import SystemClock, format_time


class Watching:
    """`al approvals watch` as a program whose output is a pipe."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*PROGRAM, "approvals", "watch", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.endswith("\n"), self.process.communicate(timeout=PATIENCE)
        return line.rstrip("\n")

    def event(self) -> tuple[str, dict[str, Any]]:
        told = orjson.loads(self.line())
        assert told.keys() == {"event", "at", "approval"}
        return told["event"], told["approval"]

    def interrupt(self) -> tuple[int, str, str]:
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


@pytest.fixture
def watching() -> Iterator[Any]:
    """Begins to watch; ends what is left."""
    begun: list[Watching] = []

    def begin(*arguments: str) -> Watching:
        begun.append(Watching(*arguments))
        return begun[-1]

    yield begin
    for one in begun:
        one.process.kill()
        one.process.communicate()


def asked(client: AgentLattice, **metadata: Any) -> str:
    result = client.execute_sync("deploy.production", metadata=metadata)
    assert result.approval_id is not None
    return result.approval_id


def test_everything_is_told_once_in_order_and_an_interrupt_ends_it_quietly(
    governed: AgentLattice, watching: Any
) -> None:
    """What waits, what is asked for, what becomes of it, each one line; then 130 and not a word more."""
    first = asked(governed, version=1)
    watch = watching("--json")
    event, request = watch.event()
    assert (event, request["id"], request["metadata"]) == ("pending", first, {"version": 1})
    second = asked(governed, version=2)
    governed.execute_sync("pr.open", metadata={"pr_size": 1})
    with governed.for_operator("ana") as operator:
        operator.approve_action_sync(first, "go")
        operator.deny_action_sync(second, "no")
    third = governed.execute_sync("deploy.production")
    governed.cancel_sync(third.audit_event_id)
    told = [watch.event() for _ in range(5)]
    assert [(event, request["id"], request["resolved_by"]) for event, request in told[1:3]] == [
        ("approved", first, "ana"),
        ("denied", second, "ana"),
    ]
    assert [event for event, _ in told] == ["requested", "approved", "denied", "requested", "cancelled"]
    assert told[4][1]["id"] == third.approval_id
    assert watch.interrupt() == (130, "", "")


def test_a_deadline_is_told_when_it_passes_and_only_once(project: Path, watching: Any) -> None:
    """Nobody has to record a timeout for it to be one; when somebody does, it is not told again."""
    hasty = "  - {name: Hasty, action: hasty, effect: require_approval, approval: {timeout: 1s}}\n"
    (project / "policies.yaml").write_text(POLICIES + hasty)
    with AgentLattice.embedded("governance.db", policies="policies.yaml", agent="ci") as client:
        asked(client)
        watch = watching("--json")
        assert watch.event()[0] == "pending"  # it is at work, whatever it took to start
        late = client.execute_sync("hasty").approval_id
        assert late is not None
        event, request = watch.event()
        assert (event, request["id"]) == ("requested", late)
        event, request = watch.event()
        assert (event, request["id"], request["status"]) == ("timed_out", late, "timed_out")
        assert format_time(SystemClock().now()) >= request["timeout_at"]
        assert client.await_approval_sync(late).status == "timed_out"
        later = asked(client)
        event, request = watch.event()
        assert (event, request["id"]) == ("requested", later)


def test_what_was_over_when_it_was_first_seen_is_told_whole(project: Path) -> None:
    """A request and its timeout are both told, though they are read at once."""
    (project / "policies.yaml").write_text(POLICIES.replace("timeout: 4h", "timeout: 1s"))
    with AgentLattice.embedded("governance.db", policies="policies.yaml", agent="ci") as client:
        first = asked(client)
        with approval_watch._opened(resolve({"db": None})) as log:
            events = approval_watch._events(log)
            event, _, request = next(events)
            assert (event, request.id) == ("pending", first)
            assert client.await_approval_sync(first).status == "timed_out"
            late = asked(client)
            assert client.await_approval_sync(late).status == "timed_out"
            told = [(event, request.id) for event, _, request in itertools.islice(events, 3)]
            assert told == [("timed_out", first), ("requested", late), ("timed_out", late)]


def test_lines_of_a_pipe_have_the_same_columns(governed: AgentLattice, watching: Any) -> None:
    """Time, event, id, agent, action, until when or by whom, digest or reason."""
    watch = watching()
    request_id = asked(governed)
    waiting = watch.line().split("\t")
    assert waiting[2:5] == [request_id, "ci", "deploy.production"]
    assert waiting[1] in ("pending", "requested")
    with governed.for_operator("ana") as operator:
        operator.deny_action_sync(request_id, "not\ttoday\x1b[2J")
    assert watch.line().split("\t")[1:] == [
        "denied",
        request_id,
        "ci",
        "deploy.production",
        "ana",
        "not\\ttoday\\x1b[2J",
    ]


def test_a_database_that_goes_away_ends_it(project: Path, watching: Any) -> None:
    """Nothing can be told of a file that is not there any more."""
    (project / "policies.yaml").write_text(POLICIES)
    with AgentLattice.embedded("governance.db", policies="policies.yaml", agent="ci") as client:
        asked(client)
    watch = watching("--json")
    watch.event()
    (project / "governance.db").rename(project / "elsewhere")
    out, err = watch.process.communicate(timeout=PATIENCE)
    assert (watch.process.returncode, out) == (1, "")
    assert err == f"error: `{project / 'governance.db'}` was removed while it was watched\n"


def test_on_a_terminal_it_says_how_to_end_it(governed: AgentLattice) -> None:
    """And shows requests as lines that can be read and copied from."""
    request_id = asked(governed)
    terminal = Terminal("approvals", "watch")
    terminal.until(request_id)
    assert "watching; Ctrl-C ends it" in terminal.text
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert "Traceback" not in terminal.text


def test_no_database_is_an_error_and_none_is_made(project: Path, watching: Any) -> None:
    """Watching the wrong directory would otherwise look like a quiet day."""
    watch = watching()
    out, err = watch.process.communicate(timeout=PATIENCE)
    assert (watch.process.returncode, out) == (1, "")
    assert err.startswith("error: there is no database `governance.db`")
    assert list(project.iterdir()) == []
