"""The denial document: always valid, always the same for the same refusal, and useful to a small model."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlattice_core.results import ActionResult, ConditionResult, RuleResult
from agentlattice_core.toolcalls import denial_schema
from agentlattice_core.toolcalls.denial import denial_from_result, refusal

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.decimals()
    | st.binary(max_size=3)
    | st.just(object),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        | st.tuples(inner)
    ),
    max_leaves=6,
)
_OPERATORS = st.sampled_from(
    [
        "eq",
        "neq",
        "lt",
        "lte",
        "gt",
        "gte",
        "in",
        "not_in",
        "contains",
        "not_contains",
        "starts_with",
        "ends_with",
        "matches",
        "exists",
        "between",
        "subset_of",
        "cidr",
        "not_exists",
        "not_between",
        "strange",
    ]
)
_CONDITIONS = st.builds(
    ConditionResult,
    st.text(max_size=10) | st.sampled_from(["time.hour", "agent.name", "metadata.x"]),
    _OPERATORS,
    _VALUES,
    st.booleans(),
    _VALUES,
)
_RULES = st.builds(
    RuleResult,
    st.text(max_size=5),
    st.integers(0, 9),
    st.sampled_from(["AMOUNT_THRESHOLD", "DAILY_CAP", "TIME_WINDOW", "AGENT_SCOPE"]),
    st.sampled_from(["REJECT", "REQUIRE_HUMAN", "AUTO_APPROVE"]),
    st.none() | st.text(max_size=20),
)
_RESULTS = st.builds(
    ActionResult,
    status=st.sampled_from(["denied", "requested", "timed_out", "policy_not_found", "executed"]),
    audit_event_id=st.text(max_size=8),
    approval_id=st.none() | st.text(min_size=1, max_size=8),
    message=st.none() | st.text(max_size=20),
    timeout_at=st.none() | st.text(max_size=8),
    denial_reason=st.none()
    | st.text(min_size=1, max_size=8)
    | st.sampled_from(["CONDITIONS_DENIED", "RULE_REJECTED"]),
    policy_name=st.none() | st.text(max_size=8),
    conditions_evaluated=st.lists(_CONDITIONS, max_size=4),
    rules_fired=st.lists(_RULES, max_size=3),
    claim=st.none() | st.sampled_from(["started", "succeeded", "failed", "unknown"]),
)


@given(_RESULTS, st.text(max_size=8), st.booleans())
def test_every_result_makes_a_valid_and_stable_document(
    result: ActionResult, tool: str, executed: bool
) -> None:
    """Whatever the core answers and whatever is in it, the model gets a document of the published schema."""
    denial = denial_from_result(result, tool=tool, action_type="x.y", executed=executed)
    document = json.loads(denial.text)
    jsonschema.validate(document, denial_schema())
    assert document == denial.document
    assert (document["status"], document["reason"]) == (denial.status, denial.reason)
    again = replace(result, audit_event_id="another", timeout_at="another")
    assert denial_from_result(again, tool=tool, action_type="x.y", executed=executed).text == denial.text


@given(st.text(max_size=10), st.none() | st.text(max_size=20), st.text(max_size=8))
def test_every_refusal_makes_a_valid_document(reason: str, message: str | None, tool: str) -> None:
    """A refusal without a decision has the same shape."""
    denial = refusal(reason or "X", message, tool=tool, action_type="x.y")
    jsonschema.validate(json.loads(denial.text), denial_schema())


def test_the_schema_is_a_schema() -> None:
    """What is published is valid JSON Schema, and refuses a document with a member too many."""
    jsonschema.Draft202012Validator.check_schema(denial_schema())
    document = dict(refusal("NOT_RECORDED", None, tool="t", action_type="x.y").document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "extra": 1}, denial_schema())


def _denied(*conditions: ConditionResult, reason: str = "CONDITIONS_DENIED", **members: Any) -> ActionResult:
    return ActionResult(
        "denied",
        "evt_1",
        denial_reason=reason,
        policy_name="P",
        conditions_evaluated=list(conditions),
        **members,
    )


@pytest.mark.parametrize(
    ("condition", "change"),
    [
        (ConditionResult("pr_size", "lt", 50, False, 87), "set pr_size below 50 (it was 87)"),
        (
            ConditionResult("metadata.env", "in", ["dev", "test"], False, "prod"),
            'set env to one of "dev", "test" (it was "prod")',
        ),
        (
            ConditionResult("amount", "between", [1, Decimal("9.50")], False, 20),
            "set amount to a value between 1 and 9.50 (it was 20)",
        ),
        (ConditionResult("ticket", "exists", True, False, None), "include ticket"),
        (ConditionResult("force", "exists", False, False, None), "leave out force"),
        (ConditionResult("force", "not_exists", True, False, True), "leave out force"),
        (
            ConditionResult("branch", "starts_with", "feature/", False, None),
            'make branch start with "feature/"',
        ),
        (ConditionResult("pr_size", "lt", None, False, None), "change pr_size"),
    ],
)
def test_what_to_change_is_derived_from_what_failed(condition: ConditionResult, change: str) -> None:
    """Each failed condition becomes one instruction a small model can follow; a blank stays unmentioned."""
    denial = denial_from_result(_denied(condition), tool="t", action_type="x.y")
    assert denial.document["what_to_change"] == [change]
    assert denial.document["retry_can_succeed"] is True


@pytest.mark.parametrize("field", ["agent.name", "time.hour", "env"])
def test_the_model_is_not_told_to_change_what_it_cannot(field: str) -> None:
    """Who acts, the time, and what the tool's mapping fixes are not the model's to change."""
    failed = ConditionResult(field, "eq", 1, False, 2)
    denial = denial_from_result(_denied(failed), tool="t", action_type="x.y", constant=["env"])
    assert denial.document["what_to_change"] == []
    assert denial.document["retry_can_succeed"] is (field == "time.hour")


def test_a_hidden_condition_stays_hidden() -> None:
    """With `explain: none` the document says that something failed, and not what."""
    denial = denial_from_result(_denied(ConditionResult("", "", None, False)), tool="t", action_type="x.y")
    assert denial.document["what_to_change"] == []
    assert denial.document["failed_conditions"] == [
        {"field": "", "operator": "", "expected": None, "actual": None}
    ]


def test_conditions_that_passed_are_not_mentioned() -> None:
    """Only what blocked is shown."""
    denial = denial_from_result(
        _denied(ConditionResult("a", "eq", 1, True, 1), ConditionResult("b", "eq", 1, False, 2)),
        tool="t",
        action_type="x.y",
    )
    assert [failed["field"] for failed in denial.document["failed_conditions"]] == ["b"]


def test_a_pending_call_names_its_approval_and_no_time() -> None:
    """Pending is not a refusal to be corrected: the model is told to go on and to call again later."""
    result = ActionResult("requested", "evt_1", approval_id="apr_1", timeout_at="2026-01-01T00:00:00Z")
    denial = denial_from_result(result, tool="t", action_type="x.y")
    assert (denial.status, denial.reason, denial.document["approval_id"]) == (
        "pending",
        "APPROVAL_PENDING",
        "apr_1",
    )
    assert "2026" not in denial.text
    assert denial.document["retry_can_succeed"] is True


@pytest.mark.parametrize(
    ("claim", "reason", "executed"),
    [
        ("started", "OUTCOME_UNKNOWN", None),
        ("unknown", "OUTCOME_UNKNOWN", None),
        ("succeeded", "ALREADY_RAN", True),
        ("failed", "ALREADY_RAN", True),
    ],
)
def test_a_call_that_was_started_before_says_what_is_known_of_it(
    claim: str, reason: str, executed: bool | None
) -> None:
    """Unknown is not presented as failed, and nothing suggests to try again."""
    denial = denial_from_result(
        ActionResult("executed", "evt_1", claim=claim), tool="t", action_type="x.y", executed=True
    )
    assert (denial.status, denial.reason, denial.document["executed"]) == ("unknown", reason, executed)
    assert denial.document["retry_can_succeed"] is False


def test_rules_that_fired_are_shown_with_their_messages() -> None:
    """What the owner of a spend rule wrote for the agent reaches the agent."""
    rule = RuleResult(
        "Refunds", 40, "DAILY_CAP", "REJECT", "1,480 of 1,500 EUR are used today", {"used": "1480"}
    )
    denial = denial_from_result(
        _denied(reason="RULE_REJECTED", rules_fired=[rule]), tool="t", action_type="x.y"
    )
    assert denial.document["rules"] == [
        {
            "policy": "Refunds",
            "type": "DAILY_CAP",
            "effect": "REJECT",
            "message": "1,480 of 1,500 EUR are used today",
        }
    ]


def test_a_secret_in_a_reviewers_reason_is_not_passed_on() -> None:
    """Messages are redacted like arguments."""
    denial = denial_from_result(
        _denied(reason="DENIED_BY_REVIEWER", message="use AKIAIOSFODNN7EXAMPLE"), tool="t", action_type="x.y"
    )
    assert "AKIA" not in denial.text


@pytest.mark.parametrize("reason", ["DENIED_BY_REVIEWER", "APPROVAL_CANCELLED"])
def test_after_a_person_said_no_the_model_is_not_told_what_to_change(reason: str) -> None:
    """The conditions that made a person be asked are not why it was refused, and changing them is no way around."""
    asked = ConditionResult("environment", "neq", "production", False, "production")
    denial = denial_from_result(_denied(asked, reason=reason), tool="t", action_type="x.y")
    assert denial.document["failed_conditions"] == denial.document["what_to_change"] == []
    assert denial.document["retry_can_succeed"] is False


@pytest.mark.parametrize(
    ("remaining", "retry", "change"),
    [
        ("40.00", True, ["keep the amount to at most 40.00 EUR, which is what is left of today's cap"]),
        ("0.00", True, []),
        (None, True, []),
    ],
)
def test_an_exceeded_cap_says_what_is_left_of_it(
    remaining: str | None, retry: bool, change: list[str]
) -> None:
    """A model can choose a smaller amount; where nothing is left, or the policy hides it, it is not told to try one."""
    details = {} if remaining is None else {"remaining": remaining, "currency": "EUR"}
    rule = RuleResult("Refunds", 40, "DAILY_CAP", "REJECT", "over the cap", details)
    result = ActionResult(
        "denied", "evt_1", denial_reason="LIMIT_EXCEEDED", policy_name="Refunds", rules_fired=[rule]
    )
    document = denial_from_result(result, tool="refund", action_type="refund.issue").document
    assert (document["retry_can_succeed"], document["what_to_change"]) == (retry, change)
    if remaining == "0.00":
        assert "later" in document["next_step"]
