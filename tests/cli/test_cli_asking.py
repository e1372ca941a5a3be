"""Asking for an action from a shell: the exit code is the answer."""

from __future__ import annotations

import signal
import subprocess
import threading
from pathlib import Path

import pytest
from cli_world import PATIENCE, PROGRAM, Al, AlProcess, document

from agentlattice_core import AgentLattice

CI = ("--agent", "ci")


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        (["pr.open", "--metadata", "pr_size=49"], 0, "executed"),
        (["pr.open", "--metadata", "pr_size=50"], 1, "denied"),
        (["pr.open"], 1, "denied"),
        (["secret.read"], 1, "denied"),
        (["deploy.production"], 2, "requested"),
        (["db.drop"], 1, "policy_not_found"),
    ],
)
def test_execute_answers_by_its_exit_code(
    governed: AgentLattice, al: Al, arguments: list[str], code: int, status: str
) -> None:
    """0 is the right to run it, and nothing else is."""
    result = al("execute", *arguments, *CI, "--json")
    assert result.exit_code == code
    assert document(result)["status"] == status
    assert al("execute", *arguments, *CI).exit_code == code


@pytest.mark.parametrize(
    ("arguments", "code", "answer"),
    [
        (["pr.open", "--metadata", "pr_size=49"], 0, (True, False, None)),
        (["pr.open", "--metadata", "pr_size=50"], 1, (False, False, "CONDITIONS_DENIED")),
        (["pr.open"], 1, (False, False, "NEEDS_DATA")),
        (["deploy.production"], 2, (False, True, None)),
        (["db.drop"], 1, (False, False, "POLICY_NOT_FOUND")),
    ],
)
def test_can_i_answers_and_records_nothing(
    governed: AgentLattice, al: Al, arguments: list[str], code: int, answer: tuple[bool, bool, str | None]
) -> None:
    """A dry run says what would happen, and the log does not grow by it."""
    before = governed.verify_sync().verified_through_row
    result = al("can-i", *arguments, *CI, "--json")
    found = document(result)
    assert result.exit_code == code
    assert (found["allowed"], found["needs_approval"], found["reason"]) == answer
    assert governed.verify_sync().verified_through_row == before


def test_metadata_is_json_where_it_is_json_and_text_elsewhere(governed: AgentLattice, al: Al) -> None:
    """A number is a number, a quoted one text; what JSON cannot carry stays the text that was typed."""
    typed = {
        "number": "42",
        "text": "plain words",
        "quoted": '"42"',
        "zip": "01234",
        "flag": "true",
        "list": '["a"]',
        "infinite": "1e999",
        "empty": "",
        "equals": "a=b",
    }
    arguments = [part for name, value in typed.items() for part in ("--metadata", f"{name}={value}")]
    assert al("execute", "pr.open", *arguments, "--metadata", "pr_size=1", *CI).exit_code == 0
    event = document(al("audit", "list", "--limit", "1", "--json"))["events"][0]
    assert event["metadata"] == {
        "number": 42,
        "text": "plain words",
        "quoted": "42",
        "zip": "01234",
        "flag": True,
        "list": ["a"],
        "infinite": "1e999",
        "empty": "",
        "equals": "a=b",
        "pr_size": 1,
    }


def test_an_actions_data_comes_from_a_file_and_flags_win(
    governed: AgentLattice, al: Al, project: Path
) -> None:
    """`--data` holds any member; what is typed replaces it, member by member."""
    (project / "data.json").write_text(
        '{"metadata": {"pr_size": 80, "repo": "a"}, "amount": "3.50", "currency": "EUR", "data_accessed": []}'
    )
    asked = ["execute", "pr.open", *CI, "--json", "--accessed", "code:7:low", "--amount", "4"]
    assert al(*asked, "--data", "data.json").exit_code == 1
    assert al(*asked, "--data", "-", input='{"metadata": {"pr_size": 80}}').exit_code == 1
    assert al(*asked, "--data", "data.json", "--metadata", "pr_size=3").exit_code == 0
    event = document(al("audit", "list", "--limit", "1", "--json"))["events"][0]
    assert event["metadata"] == {"pr_size": 3, "repo": "a"}
    assert event["data_accessed"] == [{"type": "code", "count": 7, "sensitivity": "low"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pr.open"], "no agent is named; pass `--agent NAME` or set AL_AGENT"),
        (["pr.open", *CI, "--metadata", "pr_size"], "--metadata `pr_size` is not `name=value`"),
        (["pr.open", *CI, "--accessed", "a:b"], "`b` is not a count"),
        (["pr.open", *CI, "--accessed", "a:1:huge"], "is not one of low, medium, high, critical"),
        (["pr.open", *CI, "--amount", "ten"], "`ten` is not an amount"),
        (["pr open", *CI], "is not dot-notation"),
        (["pr.open", *CI, "--data", "missing.json"], "`missing.json`: no such file or directory"),
        (["pr.open", *CI, "--data", "wrong.json"], "has a member `amout`"),
        (["pr.open", *CI, "--mode", "watch"], "must be one of enforce, observe"),
        (["pr.open", *CI, "--policies", "none.yaml"], "none.yaml"),
        (["pr.open", *CI, "--db", "no/such.db"], "there is no directory"),
    ],
)
@pytest.mark.parametrize("command", ["execute", "gate"])
def test_what_keeps_from_an_answer_ends_with_3(
    al: Al, project: Path, command: str, arguments: list[str], message: str
) -> None:
    """Not configured, not readable, not reachable: neither denied nor timed out, one line, and no database made."""
    (project / "wrong.json").write_text('{"amout": 3}')
    result = al(command, *arguments)
    assert result.exit_code == 3
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in project.iterdir()] == ["wrong.json"]


def test_an_event_id_makes_a_retry_safe(governed: AgentLattice, al: Al) -> None:
    """The second time the same action is not the right to run it again, and other content is a conflict."""
    asked = ["execute", "pr.open", *CI, "--event-id", "build-7", "--metadata"]
    first = al(*asked, "pr_size=3", "--json")
    again = al(*asked, "pr_size=3", "--json")
    other = al(*asked, "pr_size=4")
    assert (first.exit_code, again.exit_code, other.exit_code) == (0, 1, 3)
    assert document(first)["audit_event_id"] == document(again)["audit_event_id"]
    assert "event id `build-7` was used before with other content" in other.stderr


def test_observe_mode_lets_it_run_and_says_what_would_have_been(governed: AgentLattice, al: Al) -> None:
    """The exit code is that of what happens, the status that of what enforcement would say."""
    result = al("execute", "secret.read", *CI, "--mode", "observe")
    assert result.exit_code == 0
    assert "status\tdenied" in result.stdout
    assert "observe mode lets it run" in result.stderr


def test_gate_waits_and_runs_once_a_person_approved(governed: AgentLattice, al_process: AlProcess) -> None:
    """The waiting process is woken by a decision in another one, and exits 0 holding the claim."""
    decider = threading.Thread(target=_decide, args=(governed, True))
    decider.start()
    result = al_process("gate", "deploy.production", *CI, "--json")
    decider.join()
    assert result.returncode == 0, result.stderr
    assert "waiting for a person until" in result.stderr
    assert (document(result)["status"], document(result)["claim"]) == ("executed", "started")


def test_gate_ends_with_1_and_the_reason_when_a_person_denied(
    governed: AgentLattice, al_process: AlProcess
) -> None:
    """What the person said is passed on."""
    decider = threading.Thread(target=_decide, args=(governed, False))
    decider.start()
    result = al_process("gate", "deploy.production", *CI)
    decider.join()
    assert result.returncode == 1
    assert "DENIED_BY_REVIEWER" in result.stdout
    assert "not on a friday" in result.stdout


def _decide(client: AgentLattice, approve: bool) -> None:
    seen = threading.Event()
    client.subscribe_sync(client.org_id, lambda _: seen.set(), events=["approval.requested"])
    operator = client.for_operator("ana")
    if not operator.list_pending_approvals_sync():
        assert seen.wait(PATIENCE)
    (request,) = operator.list_pending_approvals_sync()
    if approve:
        operator.approve_action_sync(request.id)
    else:
        operator.deny_action_sync(request.id, "not on a friday")
    operator.close()


def test_gate_ends_with_2_when_nobody_decides_in_time(governed: AgentLattice, al: Al) -> None:
    """Its own patience or the approval's deadline, whichever ends first."""
    assert al("gate", "deploy.production", *CI, "--timeout", "0s").exit_code == 2
    assert al("gate", "deploy.production", *CI, "--timeout", "soon").exit_code == 3


@pytest.mark.parametrize("event_id", [[], ["--event-id", "build-7"]], ids=["once", "resumable"])
def test_an_interrupted_gate_ends_quietly_and_never_runs(
    governed: AgentLattice, al: Al, event_id: list[str]
) -> None:
    """Ctrl-C while waiting: 130, nothing on either stream but the note, and no claim is taken."""
    process = subprocess.Popen(
        [*PROGRAM, "gate", "deploy.production", *CI, *event_id],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    note = process.stderr.readline()
    assert note.startswith("waiting for a person until")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (130, "", "")
    (event,) = document(al("audit", "list", "--json"))["events"]
    assert (event["status"], event["claim"]) == ("requested", None)


def test_report_records_how_it_went(governed: AgentLattice, al: Al) -> None:
    """What ran can be reported, by its agent alone."""
    ran = document(al("execute", "pr.open", "--metadata", "pr_size=3", *CI, "--json"))["audit_event_id"]
    assert al("report", ran, "failure", "--message", "disk full", *CI).stdout == f"{ran} reported: failure\n"
    event = document(al("audit", "list", "--json"))["events"][0]
    assert (event["claim"], event["outcome"]["message"]) == ("failed", "disk full")
    governed.for_agent("other").close()
    assert "belongs to another agent" in al("report", ran, "success", "--agent", "other").stderr
    assert "is not one of success, failure, partial" in al("report", ran, "fine", *CI).stderr


def test_whoami_shows_what_governs_an_agent_and_registers_nobody(governed: AgentLattice, al: Al) -> None:
    """A mistyped name is said to be unknown; asking does not make it known."""
    result = al("whoami", *CI, "--json")
    assert result.exit_code == 0
    assert sorted(policy["name"] for policy in document(result)["policies"]) == [
        "Deploys",
        "No secrets",
        "PR Size",
    ]
    assert "PR Size\tpr.open\tno\tyes\t1" in al("whoami", *CI).stdout
    before = governed.verify_sync().verified_through_row
    for command, code in ((["whoami"], 3), (["can-i", "pr.open"], 3), (["report", "evt_0", "success"], 1)):
        unknown = al(*command, "--agent", "ci2")
        assert unknown.exit_code == code
        assert "agent `ci2` has never acted here" in unknown.stderr
        assert unknown.stderr.endswith("check the name; did you mean `ci`?\n")
    assert governed.verify_sync().verified_through_row == before


def test_whoever_acts_becomes_known_and_a_name_like_another_is_noted(governed: AgentLattice, al: Al) -> None:
    """The first action of a new agent is no error, but a typo should not stay unseen."""
    typo = al("execute", "pr.open", "--agent", "cii")
    assert "note: agent `cii` is new here and becomes known by this; did you mean `ci`?\n" in typo.stderr
    for known_or_unlike in ("cii", "reporting-agent"):
        assert "is new here" not in al("execute", "pr.open", "--agent", known_or_unlike).stderr


def test_a_changed_policy_file_is_applied_by_acting_and_noted_by_looking(
    governed: AgentLattice, al: Al, project: Path
) -> None:
    """A reading command goes by what is in force, and says so if the file says otherwise."""
    (project / "agentlattice.toml").write_text('policies = ["policies.yaml"]\n')
    assert al("can-i", "db.drop", *CI).stderr == ""
    (project / "policies.yaml").write_text(
        "version: 1\npolicies: [{name: Any, action: '*', effect: allow}]\n"
    )
    dry = al("can-i", "db.drop", *CI)
    assert dry.exit_code == 1
    assert "has changed since it was applied" in dry.stderr
    assert al("execute", "db.drop", *CI).exit_code == 0
    assert al("can-i", "db.drop", *CI).stderr == ""
