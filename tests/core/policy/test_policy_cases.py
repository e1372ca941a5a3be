"""Cases beside a policy: read strictly, run purely, and honest about what they exercised."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlattice_core.actions import Action
from agentlattice_core.errors import PolicyDocumentError
from agentlattice_core.policy import Facts, PolicyDocument, PolicySet
from agentlattice_core.policy.cases import DEFAULT_TIME, CaseDocument
from agentlattice_core.policy.combine import combine
from agentlattice_core.policy.starter import starter_cases, starter_document
from agentlattice_core.policy.trial import Trial, TrialRun
from agentlattice_core.principals import AgentFacts
from agentlattice_core.results import ActionOptions

REFUNDS = """\
version: 1
policies:
  - name: Refunds
    action: refund.issue
    agents: [cs-agent]
    effect: require_approval
    approval: {approvers: ["group:finance"]}
    rules:
      - {priority: 10, type: AMOUNT_THRESHOLD, max: "100.00", currency: EUR, effect: AUTO_APPROVE}
      - {priority: 30, type: AMOUNT_THRESHOLD, min: "500.00", currency: EUR, effect: REJECT}
      - {priority: 40, type: DAILY_CAP, cap: "150.00", currency: EUR, timezone: Europe/Paris, effect: REJECT}
  - name: Nights
    action: deploy.*
    effect: deny
    conditions: [{field: time.hour, operator: gte, value: 20}]
  - {name: Days, action: deploy.*, effect: allow}
  - name: Payees
    action: pay
    effect: allow
    rules:
      - {priority: 1, type: BENEFICIARY_WHITELIST, registry: payees, currency: EUR, effect: REJECT}
actions:
  db.migrate: {fields: {rows: {type: integer, required: true}}}
guardrails:
  - {name: No drops, action: db.drop, effect: deny}
"""
HEAD = "version: 1\ndefaults: {agent: cs-agent, currency: EUR}\ncases:\n"


def trials(cases: str, head: str = HEAD, policies: str = REFUNDS) -> list[Trial]:
    run = TrialRun(PolicyDocument.parse(policies), (document := CaseDocument.parse(head + cases)).registries)
    return [run.run(case) for case in document.cases]


def differences(case: str, head: str = HEAD) -> tuple[str, ...]:
    (trial,) = trials(f"  - {{name: a case, {case}}}\n", head)
    return trial.differences


@pytest.mark.parametrize(
    "case",
    [
        "action: refund.issue, amount: '40', expect: allow",
        "action: refund.issue, amount: 40.00, expect: {outcome: allow, rules: [10]}",
        "action: refund.issue, amount: '200', expect: {outcome: deny, reason: LIMIT_EXCEEDED, rules: [Refunds/40]}",
        "action: refund.issue, amount: '120', expect: {outcome: require_approval, approvers: ['group:finance']}",
        "action: refund.issue, agent: other, expect: not_found",
        "action: deploy.app, time: '2026-03-02T19:59:59Z', expect: {outcome: allow, policy: Days, rules: []}",
        "action: deploy.app, time: '2026-03-02T21:00:00+01:00', expect: {outcome: deny, policy: Nights}",
        "action: db.migrate, expect: {outcome: deny, reason: CONDITIONS_DENIED, missing: [rows]}",
    ],
)
def test_what_is_so_passes(case: str) -> None:
    """Outcome, reason, decider, rules, approvers and missing fields can each be expected."""
    assert differences(case) == ()


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (
            "action: refund.issue, amount: '900', expect: allow",
            "expected `allow`, and it is `deny` by `Refunds`, RULE_REJECTED: ",
        ),
        ("action: nothing, expect: deny", "expected `deny`, and it is `not_found`: no policy matches"),
        (
            "action: deploy.a, time: 2026-03-02T23:00Z, expect: {outcome: deny, reason: LIMIT_EXCEEDED}",
            "expected the reason `LIMIT_EXCEEDED`, and it is `POLICY_DENIED`",
        ),
        (
            "action: refund.issue, amount: 40, expect: {outcome: allow, rules: [10, 30]}",
            "expected the rules `10, 30` to fire, and it is `Refunds/10`",
        ),
        (
            "action: refund.issue, amount: 40, expect: {outcome: allow, rules: [Other/10]}",
            "expected the rules `Other/10` to fire, and it is `Refunds/10`",
        ),
        (
            "action: refund.issue, amount: 120, expect: {outcome: require_approval, approvers: ['user:ana']}",
            "expected approvers `user:ana`, and it is `group:finance`",
        ),
        (
            "action: deploy.a, expect: {outcome: allow, policy: Nights}",
            "expected `Nights` to decide, and it is `Days`",
        ),
        (
            "action: db.migrate, expect: {outcome: deny, message: columns}",
            "expected a message with: columns; it is: `db.migrate` needs `rows`",
        ),
        ("action: refund.issue, amount: 4, used: {Refund/40: 3}, expect: allow", "`used` names `Refund/40`"),
    ],
)
def test_what_is_not_so_fails_and_says_what_is(case: str, said: str) -> None:
    """A difference names what was expected and what was decided, by whom and why."""
    assert [one for one in differences(case) if one.startswith(said)], differences(case)


def test_what_was_spent_before_counts() -> None:
    """By an amount for every cap, by an amount for one, or by the actions that took place; on their own day only."""
    deny = "expect: {outcome: deny, reason: LIMIT_EXCEEDED}"
    assert differences(f"action: refund.issue, amount: 40, used: 111, {deny}") == ()
    assert differences("action: refund.issue, amount: 40, used: 110, expect: allow") == ()
    assert differences(f"action: refund.issue, amount: 40, used: {{Refunds/40: 111}}, {deny}") == ()
    assert differences(f"action: refund.issue, amount: 40, history: [{{times: 3}}], {deny}") == ()
    assert differences("action: refund.issue, amount: 40, history: [{times: 2}], expect: allow") == ()
    other = "history: [{amount: 40, times: 3, time: 2026-01-04T12:00Z}]"
    assert differences(f"action: refund.issue, amount: 40, {other}, expect: allow") == ()


def test_what_cannot_have_taken_place_is_no_history() -> None:
    """An earlier action that the policy denies charges nothing, so a case that builds on it must not pass."""
    (said,) = differences(
        "action: refund.issue, amount: 40, history: [{amount: 20}, {amount: 600}], expect: allow"
    )
    assert said.startswith(
        "history[1] cannot have taken place, because it is `deny` by `Refunds`, RULE_REJECTED"
    )


def test_registries_of_the_store_can_be_stood_in_for() -> None:
    """A case file may hold the registries that the policies refer to and do not hold."""
    case = "  - {name: a, action: pay, beneficiary: acme, amount: 1, expect: allow}\n"
    (without,) = trials(case)
    assert not without.passed
    head = HEAD.replace("cases:", "registries: {payees: [acme]}\ncases:")
    (with_it,) = trials(case, head)
    assert with_it.passed


def test_a_case_says_the_same_every_day() -> None:
    """Without a time it is always the same Monday noon."""
    (case,) = CaseDocument.parse(f"{HEAD}  - {{name: a, action: deploy.a, expect: allow}}\n").cases
    assert case.at == DEFAULT_TIME == datetime(2026, 1, 5, 12, tzinfo=UTC)
    assert case.at.weekday() == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("version: 2\ncases: [{name: a, action: b, expect: allow}]", "1:10: version: "),
        ("version: 1\ncases: []", "2:8: cases: there is no case"),
        ("version: 1\ncases: [{name: a, action: b}]", "2:9: cases[0].expect: is missing"),
        ("version: 1\ncases: [{name: a, expect: allow}]", "2:9: cases[0].action: is missing"),
        ("version: 1\ncases: [{name: a, action: b, expect: denied}]", "did you mean `deny`?"),
        (
            "version: 1\ncases: [{name: a, action: b c, expect: deny}]",
            "2:27: cases[0]: action type `b c` is not",
        ),
        ("version: 1\ncases: [{name: a, action: b, metdata: {}, expect: deny}]", "did you mean `metadata`?"),
        (
            "version: 1\ncases: [{name: a, action: b, amount: x, expect: deny}]",
            "cases[0].amount: `x` is not an amount",
        ),
        (
            "version: 1\ncases: [{name: a, action: b, time: noon, expect: deny}]",
            "cases[0].time: `noon` is not a time",
        ),
        (
            "version: 1\ncases: [{name: a, action: b, data_accessed: [{type: x, count: -1}], expect: deny}]",
            "data_accessed[0].count: `-1` is not",
        ),
        (
            "version: 1\ncases:\n  - {name: a, action: b, expect: deny}\n  - {name: a, action: c, expect: deny}",
            "4:5: cases[1].name: `a` is taken by line 3",
        ),
        (
            "version: 1\ncases: [{name: a, action: b, expect: {outcome: deny, reason: LIMIT}}]",
            "cases[0].expect.reason: `LIMIT` is not one of",
        ),
        (
            "version: 1\ncases: [{name: a, action: b, expect: {outcome: deny, rules: [x]}}]",
            "rules[0]: `x` is not",
        ),
        (
            "version: 1\ncases: [{name: a, action: b, history: [{times: 0}], expect: deny}]",
            "history[0].times",
        ),
    ],
)
def test_a_typo_in_a_case_is_an_error_with_its_place(text: str, problem: str) -> None:
    """Nothing that was written is passed over: a case that silently tests less is worse than none."""
    with pytest.raises(PolicyDocumentError) as caught:
        CaseDocument.parse(text)
    assert any(problem in str(one) for one in caught.value.problems), caught.value.problems


def test_what_was_never_exercised_is_named() -> None:
    """Each branch of conditions, each rule, each policy, each declaration; history exercises nothing."""
    run = TrialRun(PolicyDocument.parse(REFUNDS))
    cases = CaseDocument.parse(
        f"{HEAD}  - {{name: a, action: refund.issue, amount: 40, history: [{{action: deploy.a}}], expect: allow}}\n"
        "  - {name: b, action: deploy.a, expect: allow}\n"
        "  - {name: c, action: db.migrate, expect: deny}\n"
    )
    for case in cases.cases:
        assert run.run(case).passed
    assert {(one.name, one.what): times for one, times in run.exercised.items()} == {
        ("Refunds", "it is asked"): 1,
        ("Refunds", "rule 10 fires"): 1,
        ("Refunds", "rule 30 fires"): 0,
        ("Refunds", "rule 40 fires"): 0,
        ("Nights", "its conditions hold"): 0,
        ("Nights", "its conditions fail"): 1,
        ("Days", "it is asked"): 1,
        ("Payees", "it is asked"): 0,
        ("Payees", "rule 1 fires"): 0,
        ("No drops", "it is asked"): 0,
        ("db.migrate", "it refuses what is not as declared"): 1,
    }
    assert all(one.position is not None for one in run.exercised)


def test_the_starter_cases_pass_and_exercise_the_whole_starter_document() -> None:
    """A new project begins with cases that hold, and nothing left out."""
    run = TrialRun(PolicyDocument.parse(starter_document()))
    results = [run.run(case) for case in CaseDocument.parse(starter_cases()).cases]
    assert [trial.differences for trial in results] == [()] * len(results)
    assert all(run.exercised.values())


@given(
    st.sampled_from(["refund.issue", "deploy.a", "pay", "db.migrate", "db.drop", "other"]),
    st.sampled_from(["cs-agent", "x"]),
    st.one_of(st.none(), st.integers(0, 1000)),
    st.integers(0, 23),
)
def test_who_is_said_to_be_asked_is_who_decides(
    action: str, agent: str, amount: int | None, hour: int
) -> None:
    """What `examined` names, combined, is the decision: coverage cannot drift from what decides."""
    policies = PolicySet.from_document(PolicyDocument.parse(REFUNDS))
    options = ActionOptions(amount=amount, currency="EUR", metadata={"rows": 1})
    now = DEFAULT_TIME + timedelta(hours=hour - 12)
    facts = Facts(Action.build(action, options), AgentFacts(agent, agent), now, lambda key: Decimal(100))
    examined = list(policies.examined(facts))
    verdicts = [one for kind, _, one in examined if kind == "policy" and one is not None]
    guards = [one for kind, _, one in examined if kind == "guardrail" and one is not None]
    decision = policies.decide(facts)
    if decision.outcome == "not_found":
        assert verdicts == []
    else:
        assert combine(verdicts, guards) == decision
