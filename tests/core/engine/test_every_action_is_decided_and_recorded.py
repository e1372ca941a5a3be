"""What `execute` and `gate` promise: an answer for every action, and an entry for every answer."""

from __future__ import annotations

import pytest

from agentlattice_core import (
    ActionOptions,
    AgentLattice,
    AgentLatticeDeniedError,
    AgentLatticeError,
    EventIdConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    NotYourEventError,
    ReportOutcome,
)
from agentlattice_core.testing import ManualClock


def statuses(al: AgentLattice) -> list[tuple[str, str]]:
    return [(event.action_type, event.status) for event in reversed(al.audit_sync().events)]


def test_an_allowed_action_is_executed_claimed_and_in_the_log(al: AgentLattice) -> None:
    result = al.execute_sync("pr.open", metadata={"pr_size": 49})
    assert (result.status, result.claim, result.policy_name) == ("executed", "started", "PR Size")
    (event,) = al.audit_sync().events
    assert (event.id, event.status, event.claim) == (result.audit_event_id, "executed", "started")
    assert event.metadata == {"pr_size": 49}


def test_a_denied_action_says_which_condition_failed_and_with_what(al: AgentLattice) -> None:
    result = al.execute_sync("pr.open", ActionOptions(metadata={"pr_size": 50}))
    (condition,) = result.conditions_evaluated
    assert (result.status, result.denial_reason, result.claim) == ("denied", "CONDITIONS_DENIED", None)
    assert (condition.field, condition.operator, condition.expected, condition.actual, condition.result) == (
        "pr_size",
        "lt",
        50,
        50,
        False,
    )


def test_an_action_that_no_policy_covers_does_not_run_and_is_recorded(al: AgentLattice) -> None:
    assert al.execute_sync("shell.run").status == "policy_not_found"
    assert statuses(al) == [("shell.run", "policy_not_found")]
    with pytest.raises(AgentLatticeError) as raised:
        al.gate_sync("shell.run")
    assert raised.value.code == "POLICY_NOT_FOUND"


def test_gate_raises_the_denial_with_its_reason_policy_and_conditions(al: AgentLattice) -> None:
    with pytest.raises(AgentLatticeDeniedError) as raised:
        al.gate_sync("pr.open", metadata={"pr_size": 87})
    error = raised.value
    assert (error.reason, error.policy, error.approval_id) == ("CONDITIONS_DENIED", "PR Size", None)
    assert [c.result for c in error.conditions] == [False]


async def test_async_and_sync_twins_answer_the_same(al: AgentLattice) -> None:
    one = await al.execute("pr.open", metadata={"pr_size": 1})
    other = al.execute_sync(
        "pr.open", metadata={"pr_size": 1}
    )  # on a running loop: neither deadlock nor error
    one.audit_event_id = other.audit_event_id
    assert one == other
    assert await al.whoami() == al.whoami_sync()
    assert await al.policies("org") == al.policies_sync("org")
    assert await al.can_i("pr.open", metadata={"pr_size": 1}) == al.can_i_sync(
        "pr.open", metadata={"pr_size": 1}
    )
    assert await al.audit() == al.audit_sync()


def test_the_same_event_id_answers_the_same_and_never_runs_again(al: AgentLattice) -> None:
    first = al.execute_sync("pr.open", metadata={"pr_size": 2}, event_id="commit-1")
    again = al.execute_sync("pr.open", metadata={"pr_size": 2}, event_id="commit-1")
    assert again.replayed
    assert not first.replayed
    assert again.audit_event_id == first.audit_event_id
    assert len(al.audit_sync().events) == 1
    with pytest.raises(AgentLatticeDeniedError, match="at most once"):
        al.gate_sync("pr.open", metadata={"pr_size": 2}, event_id="commit-1")


def test_the_same_event_id_with_other_content_is_a_conflict(al: AgentLattice) -> None:
    first = al.execute_sync("pr.open", metadata={"pr_size": 2}, event_id="commit-1")
    with pytest.raises(EventIdConflictError) as raised:
        al.execute_sync("pr.open", metadata={"pr_size": 3}, event_id="commit-1")
    assert raised.value.audit_event_id == first.audit_event_id
    with pytest.raises(EventIdConflictError):
        al.execute_sync("deploy.x", metadata={"pr_size": 2}, event_id="commit-1")
    assert len(al.audit_sync().events) == 1


def test_an_event_id_belongs_to_its_agent(al: AgentLattice) -> None:
    other = al.for_agent("other")
    one = al.execute_sync("pr.open", metadata={"pr_size": 2}, event_id="commit-1")
    two = other.execute_sync("pr.open", metadata={"pr_size": 3}, event_id="commit-1")
    other.close()
    assert not two.replayed
    assert one.audit_event_id != two.audit_event_id


def test_a_replay_keeps_its_answer_when_policy_has_changed(al: AgentLattice, policies) -> None:
    al.execute_sync("pr.open", metadata={"pr_size": 2}, event_id="commit-1")
    policies.write_text(policies.read_text().replace("value: 50", "value: 1"))
    al.apply_policies_sync(policies)
    assert al.execute_sync("pr.open", metadata={"pr_size": 2}).status == "denied"
    assert al.execute_sync("pr.open", metadata={"pr_size": 2}, event_id="commit-1").status == "executed"


def test_observe_mode_decides_and_records_but_lets_everything_run(opened) -> None:
    al = opened(mode="observe")
    denied = al.execute_sync("pr.open", metadata={"pr_size": 87})
    asked = al.execute_sync("deploy.production")
    assert [(r.status, r.observed, r.may_run, r.claim) for r in (denied, asked)] == [
        ("denied", True, True, "started"),
        ("requested", True, True, "started"),
    ]
    assert al.gate_sync("secret.read").may_run
    assert al.for_operator("k.chen").list_pending_approvals_sync() == []
    assert statuses(al)[0] == ("pr.open", "denied")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"metadata": {"x": float("nan")}}, "not a number"),
        ({"metadata": {"x": "\ud800"}}, "surrogate"),
        ({"metadata": {"x": "a\0b"}}, "NUL"),
        ({"metadata": {"x": object()}}, "not JSON"),
        ({"metadata": {1: 2}}, "not text"),
        ({"metadata": {"x": 2**60}}, "too large to be exact"),
        ({"metadata": {"x": "y" * 300_000}}, "larger than"),
        ({"metadata": ["x"]}, "not an object"),
        ({"amount": "twelve"}, "not an amount"),
        ({"amount": -1}, "negative"),
        ({"amount": float("inf")}, "not a finite number"),
        ({"amount": "1e400"}, "digits"),
        ({"data_accessed": [{"type": "x", "count": -1}]}, "whole number"),
        ({"data_accessed": [{"type": "x", "sensitivity": "secret"}]}, "is not one of"),
        ({"event_id": ""}, "text of 1 to 1024"),
        ({"colour": "red"}, "has no `colour`"),
    ],
)
def test_what_cannot_be_recorded_is_refused_and_leaves_nothing(al: AgentLattice, fields, says: str) -> None:
    size = al.verify_sync().verified_through_row
    with pytest.raises(InvalidRequestError, match=says):
        al.execute_sync("pr.open", **fields)
    assert al.verify_sync().verified_through_row == size


def test_deeply_nested_metadata_is_refused(al: AgentLattice) -> None:
    nested: dict[str, object] = {}
    for _ in range(10_000):
        nested = {"n": nested}
    with pytest.raises(InvalidRequestError, match="nested deeper"):
        al.execute_sync("pr.open", metadata=nested)


@pytest.mark.parametrize("action_type", ["", "a b", "a..b", "*", "deploy.*", "ä", "x" * 201, None, 7])
def test_an_action_type_is_dot_notation(al: AgentLattice, action_type) -> None:
    with pytest.raises(InvalidRequestError, match="dot-notation"):
        al.execute_sync(action_type)


def test_what_is_decided_on_is_what_is_recorded(al: AgentLattice) -> None:
    metadata = {"pr_size": 3, "files": ["a"]}
    result = al.execute_sync("pr.open", metadata=metadata)
    metadata["files"].append("b")  # type: ignore[attr-defined]
    assert al.audit_sync().events[0].metadata == {"pr_size": 3, "files": ["a"]}
    assert result.status == "executed"


def test_hidden_reasons_are_blank_wherever_the_agent_looks_and_whole_for_the_operator(
    al: AgentLattice,
) -> None:
    result = al.execute_sync("quiet.refund", amount="600", currency="EUR")
    (shown,) = result.conditions_evaluated
    assert (shown.field, shown.expected, shown.actual, shown.result) == ("", None, None, False)
    assert "500" not in str(result)
    assert "500" not in str(al.audit_sync().events[0].conditions_evaluated)
    assert al.can_i_sync("quiet.refund", amount="600").conditions_evaluated[0].expected is None
    again = al.execute_sync("quiet.refund", amount="600", currency="EUR", event_id="e")
    replay = al.execute_sync("quiet.refund", amount="600", currency="EUR", event_id="e")
    assert replay.conditions_evaluated == again.conditions_evaluated
    operator = al.for_operator("auditor")
    assert operator.audit_sync(limit=1).events[0].conditions_evaluated[0].expected == 500
    operator.close()


def test_reports_close_the_loop_and_the_last_one_counts(al: AgentLattice) -> None:
    result = al.execute_sync("pr.open", metadata={"pr_size": 2})
    al.report_sync(result.audit_event_id, ReportOutcome("failure", "merge conflict"))
    answer = al.report_sync(result.audit_event_id, ReportOutcome("success", "merged", {"sha": "a1b2"}))
    assert (answer.audit_event_id, answer.status) == (result.audit_event_id, "success")
    event = al.audit_sync().events[0]
    assert event.outcome == {"status": "success", "message": "merged", "metadata": {"sha": "a1b2"}}


def test_only_the_agent_that_acted_reports_and_only_on_what_ran(al: AgentLattice) -> None:
    result = al.execute_sync("pr.open", metadata={"pr_size": 2})
    denied = al.execute_sync("pr.open", metadata={"pr_size": 99})
    other = al.for_agent("other")
    with pytest.raises(NotYourEventError):
        other.report_sync(result.audit_event_id, ReportOutcome("success"))
    other.close()
    with pytest.raises(AgentLatticeError, match="never ran"):
        al.report_sync(denied.audit_event_id, ReportOutcome("success"))
    with pytest.raises(InvalidRequestError, match="outcome status `done`"):
        al.report_sync(result.audit_event_id, ReportOutcome("done"))
    for unknown in ("evt_000000000000" + "0" * 20, "evt_zz", "", "x"):
        with pytest.raises(NotFoundError):
            al.report_sync(unknown, ReportOutcome("success"))


def test_pages_of_the_audit_trail_meet_without_gap_or_overlap(al: AgentLattice) -> None:
    sent = [al.execute_sync("pr.open", metadata={"pr_size": n}).audit_event_id for n in range(7)]
    al.execute_sync("deploy.x")
    seen, cursor = [], None
    while True:
        page = al.audit_sync(cursor=cursor, limit=3, action_type="pr.open")
        seen += [event.id for event in page.events]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == sent[::-1]
    with pytest.raises(InvalidRequestError, match="cursor"):
        al.audit_sync(cursor="not ours")
    with pytest.raises(InvalidRequestError, match="limit"):
        al.audit_sync(limit=201)


def test_an_agent_sees_its_own_actions_and_an_operator_everybodys(
    al: AgentLattice, operator: AgentLattice
) -> None:
    other = al.for_agent("other")
    al.execute_sync("pr.open", metadata={"pr_size": 1})
    other.execute_sync("pr.open", metadata={"pr_size": 2})
    assert [event.agent for event in other.audit_sync().events] == ["other"]
    assert [event.agent for event in operator.audit_sync().events] == ["other", "ci"]
    other.close()


def test_an_operator_cannot_act_and_an_agent_cannot_decide(al: AgentLattice, operator: AgentLattice) -> None:
    with pytest.raises(ForbiddenError, match="acts for no agent"):
        operator.execute_sync("pr.open")
    with pytest.raises(ForbiddenError, match="takes an operator"):
        al.list_pending_approvals_sync()
    with pytest.raises(ForbiddenError, match="takes an operator"):
        al.approve_action_sync("apr_x")
    with pytest.raises(InvalidRequestError, match="not both"):
        AgentLattice.embedded("unused.db", agent="a", operator="b")


def test_can_i_records_nothing_and_names_the_data_it_needs(al: AgentLattice) -> None:
    size = al.verify_sync().verified_through_row
    answer = al.can_i_sync("pr.open")
    assert (answer.allowed, answer.reason, answer.missing) == (False, "NEEDS_DATA", ["pr_size"])
    assert al.can_i_sync("pr.open", metadata={"pr_size": 3}).allowed
    assert al.can_i_sync("deploy.production").needs_approval
    assert al.can_i_sync("shell.run").reason == "POLICY_NOT_FOUND"
    assert al.verify_sync().verified_through_row == size


def test_asking_first_tells_no_more_than_a_denial(al: AgentLattice) -> None:
    """Where a policy hides what it looks at, a dry run says that data is missing and not which."""
    answer = al.can_i_sync("quiet.refund")
    assert (answer.allowed, answer.reason, answer.missing) == (False, "NEEDS_DATA", [])
    assert "amount" not in str(answer)


def test_time_in_the_log_never_runs_backwards(al: AgentLattice, clock: ManualClock) -> None:
    al.execute_sync("pr.open", metadata={"pr_size": 1})
    clock.advance(hours=-3)
    al.execute_sync("pr.open", metadata={"pr_size": 1})
    newer, older = al.audit_sync().events
    assert newer.timestamp >= older.timestamp
    assert al.verify_sync().chain_valid


def test_an_operator_pages_through_everybodys_actions_of_one_type(
    al: AgentLattice, operator: AgentLattice
) -> None:
    """All of that type, whoever asked and whatever was answered, newest first, each once, and no others."""
    other = al.for_agent("other")
    asked = []
    for number in range(7):
        client = (al, other)[number % 2]
        client.execute_sync("secret.read", metadata={"action_type": "pr.open"})
        asked.append(client.execute_sync("pr.open", metadata={"pr_size": 10 * number}).audit_event_id)
    found, cursor = [], None
    while True:
        page = operator.audit_sync(cursor=cursor, limit=3, action_type="pr.open")
        found += [event.id for event in page.events]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == asked[::-1]
    assert operator.audit_sync(action_type='no "such\\type').events == []
    other.close()
