"""What an agent is shown of a decision: everything, the fields, or nothing but that it was so."""

from __future__ import annotations

import pytest

from agentlattice_core.policy.explain import hide

TEXT = """
policies:
  - name: P
    action: pay
    effect: allow
    explain: {explain}
    conditions:
      - {{field: secret_field, operator: lt, value: 777}}
    rules:
      - {{priority: 42, type: AMOUNT_THRESHOLD, min: "333", currency: EUR, effect: REJECT}}
"""


def told(decision) -> str:
    shown = hide(decision)
    return repr((shown.conditions, shown.rules, shown.message, shown.missing))


@pytest.mark.parametrize("explain", ["fields", "none"])
@pytest.mark.parametrize("options", [{"metadata": {"secret_field": 888}}, {"metadata": {"secret_field": 1}}])
def test_values_are_hidden(policies, explain, options):
    """Neither the threshold nor what was found is anywhere in what is shown, the message included."""
    decision = policies(TEXT.format(explain=explain)).ask("pay", amount="999", currency="EUR", **options)
    assert decision.outcome == "deny"
    for value in ("777", "888", "333", "999"):
        assert value not in told(decision)
    assert any(value in repr(decision) for value in ("777", "333"))


def test_fields_shows_which_field_and_none_does_not(policies):
    """Under `none` not even the field's name is shown, nor that it was missing."""
    for explain, visible in (("full", True), ("fields", True), ("none", False)):
        decision = policies(TEXT.format(explain=explain)).ask("pay", amount="1", currency="EUR")
        assert decision.missing == ("secret_field",)
        assert ("secret_field" in told(decision)) is visible


def test_hidden_members_are_present_but_blank(policies):
    """Readers that require the members still find them."""
    decision = policies(TEXT.format(explain="none")).ask("pay", metadata={"secret_field": 888})
    assert [one.to_dict() for one in hide(decision).conditions] == [
        {"field": "", "operator": "", "expected": None, "result": False, "actual": None}
    ]
    decision = policies(TEXT.format(explain="fields")).ask("pay", metadata={"secret_field": 888})
    assert [one.to_dict() for one in hide(decision).conditions] == [
        {"field": "secret_field", "operator": "lt", "expected": None, "result": False, "actual": None}
    ]


def test_full_hides_nothing(policies):
    """And is the default."""
    decision = policies(TEXT.format(explain="full")).ask("pay", metadata={"secret_field": 888})
    assert hide(decision) is decision
    assert decision.message == "`secret_field` must be less than `777`, and is `888`"


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("operator: exists, value: false", "must be left out, and is `x`"),
        ("operator: neq, value: x", "must not be `x`, and is `x`"),
        ("operator: starts_with, value: ab", "must start with `ab`, and is `x`"),
        ("operator: matches, value: ^a$", "must match `^a$`, and is `x`"),
        ("operator: not_contains, value: x", "must not contain `x`, and is `x`"),
        ("operator: cidr, value: 10.0.0.0/8", "cannot be compared by cidr: it is text"),
        ("operator: in, value: [a, b]", "must be one of `['a', 'b']`, and is `x`"),
    ],
)
def test_a_denial_says_in_words_what_must_hold(policies, condition, says):
    """The model corrects itself by this sentence."""
    text = (
        f"policies:\n  - {{name: P, action: pay, effect: allow, conditions: [{{field: f, {condition}}}]}}\n"
    )
    assert policies(text).ask("pay", metadata={"f": "x"}).message == f"`f` {says}"


@pytest.mark.parametrize(
    ("operator", "value", "held_by"),
    [
        ("eq", "a", "a"),
        ("in", "[a]", "a"),
        ("lt", "5", 4),
        ("lte", "5", 5),
        ("gt", "5", 6),
        ("gte", "5", 5),
        ("between", "[1, 5]", 3),
        ("contains", "a", "a"),
        ("starts_with", "a", "a"),
        ("ends_with", "a", "a"),
        ("matches", "^a$", "a"),
        ("subset_of", "[a]", ["a"]),
        ("cidr", "10.0.0.0/8", "10.0.0.1"),
        ("exists", "true", "a"),
    ],
)
def test_what_a_not_forbids_is_said_in_words_too(policies, operator, value, held_by):
    """Whatever the operator: what the model reads is a sentence and no name with an underscore."""
    condition = f"{{not: {{field: f, operator: {operator}, value: {value}}}}}"
    text = f"policies:\n  - {{name: P, action: pay, effect: allow, conditions: [{condition}]}}\n"
    message = policies(text).ask("pay", metadata={"f": held_by}).message
    assert message.startswith("`f` must ")
    assert "_" not in message


def test_a_guardrail_that_hides_hides_for_all(policies):
    """The strictest `explain` of whoever is reported holds for the whole answer."""
    text = TEXT.format(explain="full") + (
        "guardrails:\n  - name: G\n    action: pay\n    explain: none\n    rules:\n"
        "      - {priority: 1, type: AMOUNT_THRESHOLD, min: '555', currency: EUR, effect: REJECT}\n"
    )
    decision = policies(text).ask("pay", metadata={"secret_field": 1}, amount="999", currency="EUR")
    assert decision.explain == "none"
    assert "555" not in told(decision)


def test_what_a_hiding_policy_measured_stays_hidden_when_another_decides(policies):
    """A rule that fired is reported whoever decides, so its policy's `explain` counts too."""
    decision = policies(
        "policies:\n  - name: P\n    action: pay\n    effect: require_approval\n    explain: none\n    rules:\n"
        "      - {priority: 1, type: AMOUNT_THRESHOLD, max: '333', currency: EUR, effect: AUTO_APPROVE}\n"
        "guardrails:\n  - {name: G, action: pay, effect: deny}\n"
    ).ask("pay", amount="5", currency="EUR")
    assert (decision.policy.name, decision.explain) == ("G", "none")
    assert "333" in repr(decision)
    assert "333" not in told(decision)
