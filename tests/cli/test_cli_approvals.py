"""Deciding from a shell: by a person, on what was shown, once."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli_world import POLICIES, Al, AlProcess, Terminal, document

from agentlattice_core import AgentLattice
from agentlattice_core.results import ApprovalRequest
from agentlattice_core.testing import ManualClock

ANA = ("--as", "ana")


@pytest.fixture
def request_id(governed: AgentLattice) -> str:
    """A deploy that waits for ana or somebody in ops."""
    result = governed.execute_sync("deploy.production", metadata={"version": "1.4"}, beneficiary="eu-west")
    assert result.approval_id is not None
    return result.approval_id


def shown(al: Al, request_id: str) -> ApprovalRequest:
    return ApprovalRequest(**document(al("approvals", "show", request_id, "--json")))


def test_what_waits_is_listed_with_what_a_decision_needs(al: Al, request_id: str) -> None:
    """Id, deadline, who may decide, and the beginning of the digest."""
    request = shown(al, request_id)
    columns = al("approvals", "list").stdout.rstrip("\n").split("\t")
    assert columns == [
        request_id,
        "ci",
        "deploy.production",
        "Deploys",
        request.timeout_at,
        "user:ana, group:ops",
        request.digest[:12],
    ]
    assert [one["id"] for one in document(al("approvals", "list", "--json"))["approvals"]] == [request_id]


def test_on_a_narrow_terminal_what_is_copied_stays_whole(al: Al, request_id: str) -> None:
    """The id and the digest are not broken over two lines."""
    terminal = Terminal("approvals", "list", COLUMNS="80")
    assert terminal.end() == 0
    assert request_id in terminal.text
    assert shown(al, request_id).digest[:12] in terminal.text


def test_a_request_is_shown_in_full(al: Al, request_id: str) -> None:
    """Everything that the digest covers and a person needs stands there."""
    text = al("approvals", "show", request_id).stdout
    for line in (
        "metadata version\t1.4",
        "beneficiary\teu-west",
        "approvers\tuser:ana, group:ops",
        "status\tpending",
    ):
        assert line in text
    assert f"digest\t{shown(al, request_id).digest}" in text


@pytest.mark.parametrize("length", [12, 64])
def test_an_approval_carries_the_digest_that_was_shown(al: Al, request_id: str, length: int) -> None:
    """Whole or its beginning; the log then says what the person saw."""
    digest = shown(al, request_id).digest[:length]
    result = al("approvals", "approve", request_id, "--digest", digest, *ANA)
    assert (result.exit_code, result.stdout) == (0, f"{request_id} approved by ana\n")
    event = document(al("audit", "list", "--json"))["events"][0]
    assert (event["status"], event["approved_by"]) == ("approved", "ana")


def test_without_a_terminal_or_a_digest_nothing_is_approved(
    al: Al, al_process: AlProcess, request_id: str
) -> None:
    """A script cannot approve what it was not shown, and is never asked anything."""
    result = al_process("approvals", "approve", request_id, *ANA)
    assert result.returncode == 1
    assert "nothing was shown, so nothing is approved" in result.stderr
    assert shown(al, request_id).status == "pending"


@pytest.mark.parametrize(
    ("digest", "message"),
    [("0" * 64, "is not what was shown when this decision was made"), ("abc", "`abc` is too short")],
)
def test_a_wrong_digest_decides_nothing(al: Al, request_id: str, digest: str, message: str) -> None:
    """What was shown was something else."""
    for decision in (["approve"], ["deny", "--reason", "no"]):
        result = al("approvals", decision[0], request_id, *decision[1:], "--digest", digest, *ANA)
        assert result.exit_code == 1
        assert message in result.stderr
    assert shown(al, request_id).status == "pending"


def test_on_a_terminal_the_request_is_shown_before_the_question(al: Al, request_id: str) -> None:
    """Yes approves what was just shown, with its digest."""
    terminal = Terminal("approvals", "approve", request_id, *ANA)
    before = terminal.until("approve as ana? [y/N] ")
    assert "metadata version" in before
    assert shown(al, request_id).digest in before
    terminal.type("y\n")
    assert terminal.end() == 0
    assert f"{request_id} approved by ana" in terminal.text
    assert shown(al, request_id).resolved_by == "ana"


@pytest.mark.parametrize("answer", ["n\n", "\n", "yess\n", "\x04"])
def test_anything_but_yes_decides_nothing(al: Al, request_id: str, answer: str) -> None:
    """Return, a slip and the end of input all leave the request waiting."""
    terminal = Terminal("approvals", "approve", request_id, *ANA)
    terminal.until("[y/N] ")
    terminal.type(answer)
    assert terminal.end() == 1
    assert "nothing was decided" in terminal.text
    assert shown(al, request_id).status == "pending"


def test_an_interrupt_at_the_question_decides_nothing(al: Al, request_id: str) -> None:
    """Ctrl-C ends with 130 and no traceback."""
    terminal = Terminal("approvals", "approve", request_id, *ANA)
    terminal.until("[y/N] ")
    terminal.process.send_signal(2)
    assert terminal.end() == 130
    assert "Traceback" not in terminal.text
    assert shown(al, request_id).status == "pending"


def test_a_denial_says_why(al: Al, al_process: AlProcess, request_id: str) -> None:
    """Without a reason nothing is denied by a script; on a terminal the person is asked for it."""
    refused = al_process("approvals", "deny", request_id, *ANA)
    assert refused.returncode == 1
    assert "say why with `--reason`" in refused.stderr
    terminal = Terminal("approvals", "deny", request_id, *ANA)
    terminal.until("why? the agent is told: ")
    terminal.type("wait for the release notes\n")
    assert terminal.end() == 0
    decided = shown(al, request_id)
    assert (decided.status, decided.resolved_by, decided.reason) == (
        "denied",
        "ana",
        "wait for the release notes",
    )


def test_deny_needs_no_digest(al: Al, request_id: str) -> None:
    """Saying no is safe whatever was seen."""
    result = al("approvals", "deny", request_id, "--reason", "no", *ANA)
    assert (result.exit_code, result.stdout) == (0, f"{request_id} denied by ana\n")


def test_when_it_is_too_late_the_error_says_who_decided(al: Al, request_id: str) -> None:
    """The second person learns who was first, whatever they would have said."""
    assert al("approvals", "deny", request_id, "--reason", "no", *ANA).exit_code == 0
    for decision in (["approve"], ["deny", "--reason", "no"]):
        late = al("approvals", decision[0], request_id, *decision[1:], "--as", "bob", "--group", "ops")
        assert late.exit_code == 1
        assert f"approval `{request_id}` is already denied by `ana`" in late.stderr


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ([], "pass `--as NAME` or set AL_OPERATOR"),
        (["--as", "bob"], "`bob` is not among the approvers"),
        (["--as", "bob", "--group", "dba"], "`bob` is not among the approvers"),
        (["--as", "ana", "--role", "viewer"], "is a viewer"),
        (["--as", "ana", "--role", "boss"], "must be one of viewer, member, admin"),
        (["--as", "ci"], "an agent"),
    ],
)
def test_only_a_person_who_may_decides(al: Al, request_id: str, identity: list[str], message: str) -> None:
    """Nobody by default, no viewer, nobody who is not listed, never an agent."""
    result = al("approvals", "approve", request_id, "--digest", shown(al, request_id).digest, *identity)
    assert result.exit_code == 1
    assert message in result.stderr
    assert shown(al, request_id).status == "pending"


def test_a_member_of_a_named_group_may_decide(
    al: Al, request_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The identity may come from the environment too."""
    monkeypatch.setenv("AL_OPERATOR", "bob")
    monkeypatch.setenv("AL_GROUPS", "ops")
    result = al("approvals", "approve", request_id, "--digest", shown(al, request_id).digest, "--json")
    assert result.exit_code == 0
    assert document(result)["resolved_by"] == "bob"


def test_the_configured_agent_is_never_the_operator(al: Al, request_id: str) -> None:
    """One environment that names both the same is refused before anything is read."""
    result = al("approvals", "approve", request_id, env={"AL_AGENT": "ana", "AL_OPERATOR": "ana"})
    assert result.exit_code == 1
    assert "nobody decides on their own requests" in result.stderr


def test_a_request_whose_time_has_passed_reads_so_and_cannot_be_decided(al: Al, project: Path) -> None:
    """Even if no process was there to record the timeout."""
    (project / "policies.yaml").write_text(POLICIES)
    past = ManualClock(datetime(2020, 1, 1, tzinfo=UTC))
    with AgentLattice.embedded("governance.db", policies="policies.yaml", agent="ci", clock=past) as client:
        late = client.execute_sync("deploy.production").approval_id
    assert late is not None
    assert shown(al, late).status == "timed_out"
    assert al("approvals", "list").stdout == ""
    result = al("approvals", "approve", late, "--digest", shown(al, late).digest, *ANA)
    assert result.exit_code == 1
    assert f"approval `{late}` timed out at 2020-01-01T04:00:00" in result.stderr


def test_an_unknown_request_is_not_found(al: Al, governed: AgentLattice) -> None:
    """Looking at it and deciding it say the same."""
    for command in (["show", "apr_1"], ["approve", "apr_1", *ANA], ["deny", "apr_1", "--reason", "x", *ANA]):
        result = al("approvals", *command)
        assert (result.exit_code, result.stderr) == (1, "error: there is no approval `apr_1`\n")


def test_nothing_waiting_is_said_beside_the_answer(al: Al, governed: AgentLattice) -> None:
    """A pipe gets no line, JSON an empty list."""
    result = al("approvals", "list")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "nothing waits for a person\n")
    assert document(al("approvals", "list", "--json")) == {"approvals": []}


def test_an_administrator_approves_forever(al: Al, governed: AgentLattice, request_id: str) -> None:
    """Said on the same line that decides; a member is refused and has decided nothing."""
    digest = shown(al, request_id).digest
    decide = ("approvals", "approve", request_id, *ANA, "--digest", digest, "--forever", "agent")
    assert "takes an administrator" in al(*decide).stderr
    done = al(*decide, "--role", "admin")
    assert done.exit_code == 0, done.stderr
    assert "the policy is lifted for ci" in done.stdout
    assert governed.execute_sync("deploy.production", metadata={"version": "2"}).status == "executed"
    assert governed.for_agent("other").execute_sync("deploy.production").status == "requested"
