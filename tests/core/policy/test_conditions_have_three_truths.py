"""Conditions: operators, exactness, three-valued groups, and what is reported of them."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_documents import condition_nodes

from agentlattice_core.actions import Action
from agentlattice_core.policy import Facts, PolicyDocument
from agentlattice_core.policy.conditions import Findings, compile_requirement
from agentlattice_core.policy.model import Condition, Group
from agentlattice_core.principals import AgentFacts
from agentlattice_core.results import ActionOptions, ConditionResult

NOW = datetime(2026, 3, 6, 21, 30, tzinfo=UTC)  # a Friday, 22:30 in Paris


def facts(agent: AgentFacts | None = None, **options: Any) -> Facts:
    action = Action.build("a.b", ActionOptions(**options))
    return Facts(action, agent or AgentFacts("ann", "id-1"), NOW, lambda key: Decimal(0))


def truth(node: Condition | Group, given_facts: Facts, *, negated: bool = False) -> bool | None:
    return compile_requirement([node], negated=negated)(given_facts, Findings())


def results(node: Condition | Group, given_facts: Facts, *, negated: bool = False) -> list[ConditionResult]:
    findings = Findings()
    compile_requirement([node], negated=negated)(given_facts, findings)
    return findings.results


class TestOperators:
    @pytest.mark.parametrize(
        ("operator", "expected", "actual", "holds"),
        [
            ("eq", 5, 5, True),
            ("eq", 5, 5.0, True),
            ("eq", 5, 6, False),
            ("eq", 5, "5", None),
            ("eq", 1, True, None),
            ("eq", True, 1, None),
            ("eq", True, True, True),
            ("eq", "a", "a", True),
            ("eq", "a", "A", False),
            ("eq", "a", ["a"], None),
            ("neq", "a", "b", True),
            ("neq", "a", 1, None),
            ("lt", 50, 49, True),
            ("lt", 50, 50, False),
            ("lt", 50, "49", None),
            ("lt", 50, True, None),
            ("lte", 0.3, 0.1 + 0.2, False),  # 0.30000000000000004 is not 0.3
            ("lte", 0.3, 0.3, True),
            ("gt", 50, 50.000001, True),
            ("gte", 50, 50, True),
            ("in", ("a", 1), "a", True),
            ("in", ("a", 1), 1.0, True),
            ("in", ("a", 1), True, None),
            ("in", ("a",), 1, None),
            ("in", ("a",), "b", False),
            ("not_in", ("a",), "b", True),
            ("not_in", ("a",), ["b"], None),
            ("contains", "min", "administrator", True),
            ("contains", "x", "administrator", False),
            ("contains", "a", ["a", 1], True),
            ("contains", 1, [True, "1"], None),
            ("contains", "a", [["a"]], None),
            ("contains", "a", [{"name": "a"}, "b"], None),
            ("contains", 1, "1", None),
            ("contains", "a", {"a": 1}, None),
            ("not_contains", "a", ["b"], True),
            ("not_contains", "a", ["b", ["a"]], None),
            ("not_contains", "a", ["a", 1], False),
            ("starts_with", "acme/", "acme/backend", True),
            ("starts_with", "acme/", 5, None),
            ("ends_with", ".env", "prod.env", True),
            ("matches", "^v[0-9]+$", "v12", True),
            ("matches", "^v[0-9]+$", "v12\n", False),
            ("matches", "rm -rf", "sudo rm -rf /", True),
            ("matches", "a", None, None),
            ("exists", True, 0, True),
            ("exists", True, None, False),
            ("exists", False, None, True),
            ("exists", False, "", False),
            ("between", (5, 10), 5, True),
            ("between", (5, 10), 10, True),
            ("between", (5, 10), 10.5, False),
            ("subset_of", ("a", "b"), ["a"], True),
            ("subset_of", ("a", "b"), [], True),
            ("subset_of", ("a", "b"), ["a", "c"], False),
            ("subset_of", ("a", "b"), ["a", 1], None),
            ("subset_of", ("a", "b"), ["c", 1], False),
            ("subset_of", ("a", "b"), "a", None),
            ("cidr", "10.0.0.0/8", "10.1.2.3", True),
            ("cidr", "10.0.0.0/8", "11.1.2.3", False),
            ("cidr", "10.0.0.0/8", "::ffff:10.1.2.3", True),
            ("cidr", ("10.0.0.0/8", "2001:db8::/32"), "2001:db8::1", True),
            ("cidr", "10.0.0.0/8", "010.1.2.3", None),
            ("cidr", "10.0.0.0/8", 167772161, None),
        ],
    )
    def test_each_operator_on_each_kind_of_value(self, operator, expected, actual, holds):
        """True, False, or unknown where the two cannot be compared; nothing is coerced."""
        found = truth(Condition("x", operator, expected), facts(metadata={"x": actual}))
        assert found is holds

    def test_a_regular_expression_cannot_take_forever(self):
        """The classic catastrophe is linear here, on a text as large as an action may hold."""
        node = Condition("x", "matches", "^(a+)+$")
        assert truth(node, facts(metadata={"x": "a" * 200_000 + "!"})) is False

    @given(
        st.decimals(min_value=0, max_value=10**19, places=18, allow_nan=False),
        st.decimals(min_value=0, max_value=10**19, places=18, allow_nan=False),
    )
    def test_amounts_compare_exactly(self, actual, expected):
        """To the last of 38 digits."""
        given_facts = facts(amount=format(actual, "f"), currency="EUR")
        assert truth(Condition("amount", "lt", format(expected, "f")), given_facts) is (actual < expected)
        assert truth(Condition("amount", "eq", format(expected, "f")), given_facts) is (actual == expected)

    @given(st.floats(0, 1e15), st.floats(0, 1e15))
    def test_floats_are_their_shortest_decimal(self, actual, expected):
        """0.1 is 0.1, in the metadata and as an amount."""
        exact = Decimal(repr(actual)) <= Decimal(repr(expected))
        assert truth(Condition("x", "lte", expected), facts(metadata={"x": actual})) is exact
        short = round(actual, 6)
        assert truth(Condition("amount", "eq", short), facts(amount=short, currency="EUR")) is True


class TestFields:
    def data(self, *items: tuple[str, Any, Any]) -> Facts:
        names = ("type", "count", "sensitivity")
        listed = [{n: v for n, v in zip(names, item, strict=True) if v is not None} for item in items]
        return facts(data_accessed=listed)

    @pytest.mark.parametrize(
        ("items", "highest"),
        [
            ([("a", 1, "low")], "low"),
            ([("a", 1, "low"), ("b", 1, "high")], "high"),
            ([("a", 1, "low"), ("b", 1, None)], None),
            ([("a", 1, "critical"), ("b", 1, None)], "critical"),
            ([], None),
        ],
    )
    def test_sensitivity_is_the_highest_or_unknown(self, items, highest):
        """An item that does not say how sensitive it is could be anything."""
        (result,) = results(Condition("sensitivity", "lt", "high"), self.data(*items))
        assert result.actual == highest

    def test_sensitivity_is_ordered(self):
        """low < medium < high < critical."""
        names = ["low", "medium", "high", "critical"]
        for (i, actual), (j, expected) in itertools.product(enumerate(names), repeat=2):
            given_facts = self.data(("a", 1, actual))
            assert truth(Condition("sensitivity", "lt", expected), given_facts) is (i < j)
            assert truth(Condition("sensitivity", "gte", expected), given_facts) is (i >= j)

    def test_count_is_the_sum_or_unknown(self):
        """Leaving one item's count out leaves the sum unknown."""
        assert (
            results(Condition("count", "lt", 10), self.data(("a", 2, "low"), ("b", 3, "low")))[0].actual == 5
        )
        assert truth(Condition("count", "lt", 10), self.data(("a", 2, "low"), ("b", None, "low"))) is None
        assert truth(Condition("count", "lt", 10), facts()) is None

    def test_several_types_are_not_one_of_them(self):
        """One type compares as text; several only as a list, so a second type cannot hide behind the first."""
        both = self.data(("source_code", 1, "low"), ("credentials", 1, "low"))
        assert truth(Condition("type", "eq", "source_code"), self.data(("source_code", 1, "low"))) is True
        assert truth(Condition("type", "eq", "source_code"), both) is None
        assert truth(Condition("type", "neq", "credentials"), both) is None
        assert truth(Condition("type", "contains", "credentials"), both) is True
        assert truth(Condition("type", "subset_of", ("source_code",)), both) is False

    def test_an_agents_identity_is_its_roots(self):
        """A child cannot name itself into a condition, nor hold a grant its parent lacks."""
        parent = AgentFacts("root", "r1", tags=frozenset({"ci"}), grants=frozenset({"a", "b"}))
        child = AgentFacts("boss", "c1", frozenset({"admin"}), frozenset({"b", "c"}), (parent,))
        given_facts = facts(child)
        actual = {
            name: results(Condition(f"agent.{name}", "exists", True), given_facts)[0].actual
            for name in ("name", "id", "tags", "grants", "parent")
        }
        assert actual == {"name": "root", "id": "r1", "tags": ["ci"], "grants": ["b"], "parent": "root"}
        assert truth(Condition("agent.parent", "exists", True), facts()) is False

    def test_time_is_local_to_the_named_zone(self):
        """21:30 UTC on a Friday is 22 o'clock in Paris, and Saturday in Tokyo."""
        assert truth(Condition("time.hour", "eq", 22, "Europe/Paris"), facts()) is True
        assert truth(Condition("time.hour", "eq", 21), facts()) is True
        assert truth(Condition("time.weekday", "eq", "sat", "Asia/Tokyo"), facts()) is True

    def test_metadata_by_name_and_by_dots(self):
        """A bare name is metadata; dots go deeper; a null counts as missing; no name is an attribute."""
        given_facts = facts(metadata={"a": {"b": {"c": 1}}, "n": None, "sensitivity": "low"})
        assert truth(Condition("a.b.c", "eq", 1), given_facts) is True
        assert truth(Condition("metadata.a.b.c", "eq", 1), given_facts) is True
        assert truth(Condition("a.b.c.d", "eq", 1), given_facts) is None
        assert truth(Condition("n", "exists", True), given_facts) is False
        assert truth(Condition("sensitivity", "eq", "low"), given_facts) is None
        assert truth(Condition("metadata.sensitivity", "eq", "low"), given_facts) is True
        assert truth(Condition("__class__", "exists", True), given_facts) is False

    def test_first_class_members_stand_in_from_metadata(self):
        """An amount in the metadata is the action's amount, as an exact decimal."""
        given_facts = facts(metadata={"amount": "12.50", "currency": "EUR", "category": "ads"})
        assert truth(Condition("amount", "eq", 12.5), given_facts) is True
        assert truth(Condition("category", "eq", "ads"), given_facts) is True
        assert truth(Condition("amount", "lt", 5), facts(metadata={"amount": "a lot"})) is None


LEAVES = {True: Condition("t", "eq", 1), False: Condition("t", "eq", 2), None: Condition("gone", "eq", 1)}
FACTS = facts(metadata={"t": 1})
truths = st.sampled_from([True, False, None])


class TestThreeValuedLogic:
    @pytest.mark.parametrize(("a", "b"), list(itertools.product([True, False, None], repeat=2)))
    def test_kleenes_tables(self, a, b):
        """`all` is the least and `any` the greatest of false < unknown < true."""
        order = [False, None, True]
        pair = (LEAVES[a], LEAVES[b])
        assert truth(Group("all", pair), FACTS) is order[min(order.index(a), order.index(b))]
        assert truth(Group("any", pair), FACTS) is order[max(order.index(a), order.index(b))]

    @given(st.lists(truths, min_size=1, max_size=4))
    def test_de_morgan(self, values):
        """not all = any not; not any = all not."""
        members = tuple(LEAVES[value] for value in values)
        negated = tuple(Group("not", (member,)) for member in members)
        assert truth(Group("not", (Group("all", members),)), FACTS) is truth(Group("any", negated), FACTS)
        assert truth(Group("not", (Group("any", members),)), FACTS) is truth(Group("all", negated), FACTS)

    @settings(deadline=None)
    @given(condition_nodes())
    def test_double_negation_and_a_negated_requirement(self, raw):
        """Not not is nothing, and a negated requirement is the opposite of its conditions."""
        (node,) = parse([raw])
        plain = truth(node, FULL)
        assert truth(Group("not", (Group("not", (node,)),)), FULL) is plain
        opposite = {True: False, False: True, None: None}
        assert truth(Group("not", (node,)), FULL) is opposite[plain]
        assert truth(node, FULL, negated=True) is opposite[plain]

    @settings(deadline=None)
    @given(condition_nodes(exists=False), st.sets(st.sampled_from(["pr_size", "environment", "metadata"])))
    def test_knowing_less_never_turns_false_into_true(self, raw, removed):
        """Without `exists`, removing metadata moves a truth to unknown or leaves it."""
        (node,) = parse([raw])
        metadata = {name: value for name, value in FULL.action.metadata.items() if name not in removed}
        less = facts(
            metadata=metadata, data_accessed=list(FULL.action.data_accessed), amount="50", currency="EUR"
        )
        assert truth(node, less) in (truth(node, FULL), None)


def parse(conditions: list[dict[str, Any]]) -> tuple[Any, ...]:
    document = {
        "version": 1,
        "policies": [{"name": "p", "action": "x", "effect": "allow", "conditions": conditions}],
    }
    return PolicyDocument.parse(json.dumps(document), "p.json").policies[0].conditions


FULL = facts(
    metadata={"pr_size": 5, "environment": "b", "table": {"name": "users"}},
    data_accessed=[{"type": "a", "count": 3, "sensitivity": "medium"}],
    amount="50",
    currency="EUR",
)


class TestReporting:
    @settings(deadline=None)
    @given(st.lists(condition_nodes(), min_size=1, max_size=3), st.booleans())
    def test_false_marks_exactly_what_blocked(self, raw, negated):
        """Where a requirement holds nothing is false; where it does not, something is."""
        requirement = compile_requirement(parse(raw), negated=negated)
        findings = Findings()
        held = requirement(FULL, findings)
        assert all(result.result for result in findings.results) is (held is True)

    def test_a_leaf_under_not_reports_the_opposite_operator(self):
        """`not lt` reads `gte`, and failing it is result False."""
        node = Group("not", (Group("any", (Condition("t", "lt", 5), Condition("u", "exists", True))),))
        assert [(r.field, r.operator, r.expected, r.result) for r in results(node, FACTS)] == [
            ("t", "gte", 5, False),
            ("u", "exists", False, True),
        ]

    def test_a_held_any_reports_what_made_it_hold(self):
        """The alternatives that did not hold blocked nothing and would mislead."""
        node = Group("any", (Condition("t", "eq", 2), Condition("t", "eq", 1)))
        assert [(r.expected, r.result) for r in results(node, FACTS)] == [(1, True)]

    @settings(deadline=None)
    @given(condition_nodes())
    def test_results_are_json_of_bounded_size(self, raw):
        """Expected and actual can be recorded and shown, whatever the action holds."""
        huge = facts(
            metadata={
                "pr_size": ["x" * 1000] * 120,
                "environment": "y" * 100_000,
                "table": {"name": {"z": 1}},
            },
            amount="1.10",
            currency="EUR",
        )
        findings = Findings()
        compile_requirement(parse([raw]))(huge, findings)
        for result in findings.results:
            assert len(json.dumps(result.to_dict())) < 150_000

    @settings(deadline=None)
    @given(
        st.lists(condition_nodes(), min_size=1, max_size=2),
        st.dictionaries(
            st.sampled_from(["pr_size", "environment", "table", "amount", "currency"]),
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers(-(2**52), 2**52)
                | st.floats(allow_nan=False, allow_infinity=False)
                | st.text("ab\U0001f600", max_size=4),
                lambda inner: (
                    st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
                ),
                max_leaves=4,
            ),
        ),
    )
    def test_evaluating_never_raises(self, raw, metadata):
        """Any action that can be built can be evaluated."""
        given_facts = facts(metadata=metadata)
        assert compile_requirement(parse(raw))(given_facts, Findings()) in (True, False, None)
