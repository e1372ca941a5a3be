"""Tools for authors: lint, diff, simulate, suggest, and the starter document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_documents import EXAMPLES

from agentlattice_core.actions import Action
from agentlattice_core.policy import PolicyDocument, PolicySet
from agentlattice_core.policy.diff import diff
from agentlattice_core.policy.lint import lint
from agentlattice_core.policy.simulate import Flip, RecordedAction, outcome_of_status, replay, simulate
from agentlattice_core.policy.starter import starter_document
from agentlattice_core.policy.suggest import suggest
from agentlattice_core.principals import AgentFacts
from agentlattice_core.results import ActionOptions

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def found(text: str, **known: Any) -> list[tuple[str, int]]:
    return [(one.code, one.line) for one in lint(PolicyDocument.parse(f"version: 1\n{text}"), **known)]


def one_policy(*lines: str, effect: str = "allow") -> str:
    return f"policies:\n  - name: P\n    action: x\n    effect: {effect}\n" + "".join(
        f"    {line}\n" for line in lines
    )


class TestLint:
    @pytest.mark.parametrize(
        "conditions",
        [
            "[{field: a, operator: between, value: [10, 5]}]",
            "[{field: a, operator: lt, value: 5}, {field: a, operator: gte, value: 5}]",
            "[{field: a, operator: eq, value: x}, {field: a, operator: neq, value: x}]",
            "[{field: a, operator: eq, value: x}, {field: a, operator: in, value: [y, z]}]",
            "[{field: a, operator: exists, value: false}, {field: a, operator: eq, value: 1}]",
            "[{not: {any: [{field: a, operator: lt, value: 5}, {field: a, operator: gte, value: 5}]}}]",
            "[{any: [{field: a, operator: gt, value: 9}, {field: a, operator: lt, value: 1}]},"
            " {field: a, operator: eq, value: 5}]",
            "[{field: sensitivity, operator: gt, value: critical}]",
            "[{field: time.hour, operator: gt, value: 23}]",
            "[{field: count, operator: lt, value: 0}]",
            "[{field: amount, operator: eq, value: '1'}, {field: amount, operator: gt, value: '2'}]",
        ],
    )
    def test_conditions_that_can_never_hold(self, conditions):
        """Contradictions within a field are found, through groups and negations."""
        assert ("never-matches", 6) in found(one_policy(f"conditions: {conditions}"))

    @pytest.mark.parametrize(
        "conditions",
        [
            "[{field: a, operator: between, value: [5, 5]}]",
            "[{field: a, operator: lte, value: 5}, {field: a, operator: gte, value: 5}]",
            "[{any: [{field: a, operator: gt, value: 9}, {field: a, operator: lt, value: 1}]},"
            " {field: a, operator: eq, value: 10}]",
            "[{field: a, operator: eq, value: 1}, {field: b, operator: eq, value: 2}]",
            "[{not: [{field: a, operator: eq, value: 1}, {field: a, operator: eq, value: 2}]}]",
            "[{field: sensitivity, operator: gte, value: critical}]",
        ],
    )
    def test_conditions_that_can_hold_are_left_alone(self, conditions):
        """No finding without certainty."""
        assert found(one_policy(f"conditions: {conditions}")) == []

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (one_policy() + "  - {name: Q, action: x, effect: deny}\n", [("contradictory", 5)]),
            (
                one_policy("conditions: [{field: a, operator: eq, value: 1}]")
                + "  - {name: Q, action: x, effect: deny}\n",
                [("shadowed", 3)],
            ),
            (one_policy() + "  - {name: Q, action: x, effect: require_approval}\n", [("shadowed", 3)]),
            (one_policy("approval: {timeout: 1h}"), [("unreachable", 6)]),
            (one_policy(effect="conditional"), [("no-effect", 5)]),
            (one_policy("conditions: [{field: a, operator: matches, value: acme}]"), [("unanchored", 6)]),
            (
                one_policy("conditions: [{field: senstivity, operator: eq, value: low}]"),
                [("unknown-field", 6)],
            ),
            (
                one_policy("conditions: [{field: data_accessed.sensitivity, operator: eq, value: low}]"),
                [("unknown-field", 6)],
            ),
            (
                one_policy("conditions: [{field: b, operator: eq, value: 1}]")
                + "actions: {x: {fields: {a: {}}}}\n",
                [("unknown-field", 6)],
            ),
            (
                "guardrails:\n  - {name: G, action: x, effect: require_approval,"
                " conditions: [{field: a, operator: exists}]}\n",
                [("denies-the-rest", 3)],
            ),
        ],
    )
    def test_each_code_is_found_on_its_line(self, text, expected):
        """Codes and lines are what an editor shows."""
        assert [(code, line) for code, line in found(text)] == expected

    @pytest.mark.parametrize(
        ("rule", "code", "effect"),
        [
            (
                "type: AMOUNT_THRESHOLD, above: 5, max: 5, currency: EUR, effect: REJECT",
                "never-matches",
                "allow",
            ),
            ("type: AMOUNT_THRESHOLD, max: 5, currency: EUR, effect: AUTO_APPROVE", "no-effect", "allow"),
            (
                "type: CATEGORY_BLOCKLIST, categories: [a], effect: AUTO_APPROVE",
                "contradictory",
                "require_approval",
            ),
            ("type: BENEFICIARY_WHITELIST, registry: none, effect: REJECT", "unknown-registry", "allow"),
            ("type: AGENT_SCOPE, agents: [other], effect: REJECT", "never-matches", "allow"),
            ("type: AGENT_SCOPE, except_agents: [ann], effect: REJECT", "never-matches", "allow"),
            ("type: CATEGORY_BLOCKLIST, categories: [a], effect: REJECT", "unreachable", "deny"),
        ],
    )
    def test_rules_that_do_nothing(self, rule, code, effect):
        """Or the opposite of what they read like."""
        text = one_policy("agents: [ann]", "rules:", f"  - {{priority: 1, {rule}}}", effect=effect)
        assert code in [one for one, _ in found(text)]

    @pytest.mark.parametrize(
        ("pattern", "anchored"),
        [
            ("^a$", True),
            (r"\Aa\z", True),
            ("(?i)^a$", True),
            ("^(a|b)$", True),
            ("^a$|^b$", True),
            ("^[|]$", True),
            (r"^a\|b$", True),
            ("^a|b$", False),
            ("^a$|b", False),
            (r"^a\$", False),
            ("(?m)^a$", False),
            ("a", False),
            ("", False),
        ],
    )
    def test_a_pattern_that_allows_is_anchored_on_each_side_of_a_bar(self, pattern, anchored):
        """`^prod|staging$` begins and ends well, and matches `production-x`."""
        text = one_policy(f"conditions: [{{field: a, operator: matches, value: '{pattern}'}}]")
        assert found(text) == ([] if anchored else [("unanchored", 6)])

    @pytest.mark.parametrize(("effect", "codes"), [("allow", []), ("deny", ["unanchored"])])
    def test_a_pattern_under_not_is_the_other_way_round(self, effect, codes):
        """Anchoring what must not be found would let more through."""
        text = one_policy("conditions: [{not: {field: a, operator: matches, value: rm}}]", effect=effect)
        assert [code for code, _ in found(text)] == codes

    @pytest.mark.parametrize(
        "lines",
        [
            ["agents: ['*']"],
            ["agent_tags: [team-*]"],
            ["rules:", "  - {priority: 1, type: AGENT_SCOPE, except_agents: [bot-*], effect: REJECT}"],
            ["rules:", "  - {priority: 1, type: CATEGORY_BLOCKLIST, categories: [gpu_*], effect: REJECT}"],
            ["rules:", "  - {priority: 1, type: BENEFICIARY_WHITELIST, values: ['acme*'], effect: REJECT}"],
        ],
    )
    def test_a_star_in_a_name_is_no_pattern(self, lines):
        """A blocklist of `gpu_*` blocks nothing, and a denial for the agent `*` denies nobody."""
        assert found(one_policy(*lines)) == [("not-a-pattern", 5 + len(lines))]

    def test_a_pattern_is_also_about_actions_that_are_not_declared(self):
        """Which may carry any field; only a name that is nearly a declared one is a slip."""
        text = (
            one_policy("conditions: [{{field: {field}, operator: eq, value: 1}}]")
            + "actions: {{x.y: {{fields: {{size: {{}}}}}}}}\n"
        )
        text = text.replace("action: x\n", "action: '*'\n")
        assert found(text.format(field="environment")) == []
        assert found(text.format(field="sizee")) == [("unknown-field", 6)]

    def test_an_amount_is_compared_in_a_currency(self):
        """A hundred of one currency is not a hundred of another."""
        amount, currency = (
            "{field: amount, operator: lt, value: 100}",
            "{field: currency, operator: eq, value: EUR}",
        )
        assert found(one_policy(f"conditions: [{amount}]")) == [("any-currency", 6)]
        assert found(one_policy(f"conditions: [{amount}, {currency}]")) == []
        assert found(one_policy("conditions: [{field: amount, operator: exists}]")) == []

    def test_caps_of_one_counter_that_count_other_days_are_found(self):
        """They look as if they shared a total; per agent and for all agents are two totals that one may mean."""
        cap = "type: DAILY_CAP, cap: 5, currency: EUR, counter: travel, effect: REJECT"
        text = one_policy(
            "rules:", f"  - {{priority: 1, {cap}, timezone: Europe/Paris}}", f"  - {{priority: 2, {cap}}}"
        )
        assert found(text) == [("no-effect", 8)]
        same = text.replace(", timezone: Europe/Paris", ", timezone: UTC")
        assert found(same) == []
        assert found(text.replace(", timezone: Europe/Paris", ", per: organisation")) == []

    def test_a_rule_behind_a_stricter_one_is_shadowed(self):
        """And the finding is on its own line, whatever the priorities."""
        text = one_policy(
            "rules:",
            "  - {priority: 20, type: AMOUNT_THRESHOLD, max: 100, currency: EUR, effect: AUTO_APPROVE}",
            "  - {priority: 10, type: AMOUNT_THRESHOLD, max: 500, currency: EUR, effect: REJECT}",
            effect="require_approval",
        )
        assert found(text) == [("shadowed", 7)]

    def test_agents_that_nobody_registered(self):
        """Only where the caller says which agents there are."""
        text = one_policy("agents: [an, ann]")
        assert found(text) == []
        assert found(text, agents=["ann", "bob"]) == [("unknown-agent", 6)]

    @pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
    def test_the_examples_have_no_findings(self, path):
        """What ships is clean."""
        assert lint(PolicyDocument.load(path)) == []


class TestDiff:
    def test_what_changed_and_how(self):
        """Added, removed and changed parts, with the fields that differ."""
        before = PolicyDocument.parse(
            "version: 1\npolicies:\n  - {name: A, action: x, effect: allow, agents: [ann]}\n"
            "  - {name: B, action: y, effect: deny}\n"
        )
        after = PolicyDocument.parse(
            "version: 1\npolicies:\n  - {name: C, action: z, effect: deny}\n"
            "  - name: A\n    action: x\n    effect: allow\n    rules:\n"
            "      - {priority: 1, type: DAILY_CAP, cap: 5, currency: EUR, effect: REJECT}\n"
        )
        assert [str(change) for change in diff(before.parts(), after.parts())] == [
            'changed policy/a `A`\n  agents: was ["ann"], removed\n  rules: set to '
            '[{"cap":"5","currency":"EUR","effect":"REJECT","priority":1,"type":"DAILY_CAP"}]',
            "removed policy/b `B`",
            "added policy/c `C`",
        ]

    def test_layout_is_no_difference(self):
        """Comments, order and spelling out a default change nothing."""
        one = PolicyDocument.parse("version: 1\npolicies:\n  - {name: A, action: x, effect: allow}\n")
        two = PolicyDocument.parse(
            "# hello\npolicies:\n- effect: allow\n  action: x\n  explain: full\n  name: A\nversion: 1\n"
        )
        assert diff(one.parts(), two.parts()) == []


def record(
    at: datetime,
    outcome: str = "executed",
    kind: str = "pay",
    agent: str = "ann",
    observed: bool = False,
    **options: Any,
) -> RecordedAction:
    action = Action.build(kind, ActionOptions(**options))
    facts = AgentFacts(agent, agent)
    return RecordedAction(action, facts, at, outcome_of_status(outcome), observed=observed)


def policy_set(text: str) -> PolicySet:
    return PolicySet.from_document(PolicyDocument.parse(text))


HEADED = "policies:\n  - {name: A, action: a, effect: allow}\n"


class TestLintAcrossPolicies:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                "policies:\n"
                "  - {name: P, action: x, effect: allow, agents: [a, b]}\n"
                "  - {name: Q, action: x, effect: deny, agents: [b, c]}\n",
                [("contradictory", 3)],
            ),
            (
                "policies:\n"
                "  - {name: P, action: x, effect: require_approval, agent_tags: [t, u]}\n"
                "  - {name: Q, action: x, effect: deny, agent_tags: [u]}\n",
                [("shadowed", 3)],
            ),
            (
                "policies:\n"
                "  - {name: P, action: x, effect: allow, agents: [a]}\n"
                "  - {name: Q, action: x, effect: deny, agents: [c]}\n"
                "  - {name: R, action: y, effect: deny, agents: [a]}\n",
                [],
            ),
            (f"{HEADED}guardrails: [{{name: G, action: '*', effect: deny}}]\n", [("shadowed", 3)]),
            (f"{HEADED}guardrails: [{{name: G, action: a, effect: deny}}]\n", [("shadowed", 3)]),
            (f"{HEADED}guardrails: [{{name: G, action: a.*, effect: deny}}]\n", []),
            (f"{HEADED}guardrails: [{{name: G, action: a, effect: deny, agents: [x]}}]\n", []),
            (
                "policies: [{name: P, action: a.b.*, effect: conditional,\n"
                "  conditions: [{field: n, operator: lt, value: 1}]}]\n"
                "guardrails: [{name: G, action: a.*, effect: deny}]\n",
                [("shadowed", 2)],
            ),
            (
                "policies: [{name: P, action: a.*, effect: allow}]\n"
                "guardrails: [{name: G, action: a.b, effect: deny}]\n",
                [],
            ),
            (f"{HEADED}actions:\n  b: {{fields: {{n: {{}}}}}}\n", [("unreachable", 5)]),
            (f"{HEADED}actions:\n  a: {{fields: {{n: {{}}}}}}\n", []),
            (f"{HEADED}registries:\n  payees: [x]\n", [("no-effect", 5)]),
        ],
    )
    def test_what_one_policy_takes_from_another(self, text, expected):
        """Overlapping agents, guardrails over all that a policy governs, and what nothing refers to."""
        assert found(text) == expected


class TestSimulate:
    CAP = one_policy(
        "rules: [{priority: 1, type: DAILY_CAP, cap: 100, currency: EUR, effect: REJECT}]"
    ).replace("action: x", "action: pay")

    def test_flips_are_counted_by_kind(self):
        """With the policy that would say it, and a few examples."""
        records = [record(START + timedelta(minutes=n), amount="30", currency="EUR") for n in range(5)]
        records.append(record(START, "denied", kind="other"))
        report = simulate(records, policy_set(f"version: 1\n{self.CAP}"), examples=1)
        kinds = {
            (kind.action_type, kind.was, kind.now, kind.policy): count for kind, count in report.flips.items()
        }
        assert kinds == {("pay", "allow", "deny", "P"): 2, ("other", "deny", "not_found", None): 1}
        assert (report.total, report.unchanged, report.stricter) == (6, 3, 2)
        assert all(len(examples) == 1 for examples in report.examples.values())

    def test_what_is_counted_is_what_is_decided(self):
        """Each flip that is decided on with all its reasons is counted, in its kind, and an example tells them."""
        records = [
            record(START + timedelta(hours=n), amount=str(1 + n * 7 % 60), currency="EUR") for n in range(200)
        ]
        candidate = policy_set(f"version: 1\n{self.CAP}")
        flips = [
            Flip(one, decision)
            for one, decision in replay(records, candidate)
            if decision.outcome != one.outcome
        ]
        report = simulate(records, candidate)
        assert report.flips == Counter(flip.kind for flip in flips)
        assert report.flips.total() > 20
        assert next(iter(report.examples.values())) == flips[:3]
        assert all(flip.decision.message for flip in flips)

    def test_each_day_starts_afresh(self):
        """Totals are the candidate's own, by its days."""
        records = [record(START + timedelta(hours=8 * n), amount="50", currency="EUR") for n in range(30)]
        decisions = [
            decision.outcome for _, decision in replay(records, policy_set(f"version: 1\n{self.CAP}"))
        ]
        by_day: dict[Any, list[str]] = {}
        for one, outcome in zip(records, decisions, strict=True):
            by_day.setdefault(one.at.date(), []).append(outcome)
        assert all(outcomes[:2] == ["allow", "allow"] for outcomes in by_day.values() if len(outcomes) > 1)
        assert all(outcomes[2:] in ([], ["deny"]) for outcomes in by_day.values())

    def test_memory_does_not_grow_with_the_log(self):
        """Ten years of actions leave the totals of two or three days."""
        import gc

        from agentlattice_core.policy.simulate import DayTotals

        candidate = policy_set(f"version: 1\n{self.CAP}")
        records = (record(START + timedelta(hours=12 * n), amount="1", currency="EUR") for n in range(7300))
        replayed: Iterator[Any] = replay(records, candidate)
        for _ in range(7299):
            next(replayed)
        (totals,) = (one for one in gc.get_objects() if isinstance(one, DayTotals))
        assert len(totals._totals) <= 3


INJECTED = 'X\n  - {name: Evil, action: "*", effect: allow}\n  #'
"""A currency that would be a policy if a draft held it as it is."""


class TestSuggest:
    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["pay", "pr.open", "Pr.Open"]),
                st.integers(0, 60 * 24 * 20),
                st.fixed_dictionaries(
                    {},
                    optional={
                        "metadata": st.dictionaries(
                            st.sampled_from(
                                [
                                    "size",
                                    "env",
                                    "count",
                                    "weird name",
                                    "dotted.name",
                                    "é\n",
                                    "amount",
                                    "Null",
                                    "true",
                                ]
                            ),
                            st.integers(-5, 2**52)
                            | st.floats(-1e20, 1e20)
                            | st.sampled_from(["a", "b: c", '"', "#"])
                            | st.booleans()
                            | st.lists(st.integers(), max_size=0)
                            | st.none(),
                        ),
                        "amount": st.decimals(0, 10**6, places=2).map(str),
                        "currency": st.sampled_from(["EUR", "USD", "points!", INJECTED]),
                        "beneficiary": st.sampled_from(["acme", "é: 1"]),
                        "data_accessed": st.lists(
                            st.sampled_from(
                                [
                                    {"type": "a", "count": 2, "sensitivity": "high"},
                                    {"type": "b"},
                                    {"type": "c", "count": 1, "sensitivity": None},
                                ]
                            ),
                            max_size=2,
                        ),
                    },
                ),
                st.sampled_from(["ann", "bob: {", "é"]),
            ),
            max_size=30,
        )
    )
    def test_a_draft_is_valid_and_allows_all_that_was_observed(self, observed):
        """Whatever was recorded: the draft parses, and replaying the record under it flips nothing."""
        records = [
            record(START + timedelta(minutes=minutes), kind=kind, agent=agent, **options)
            for kind, minutes, options, agent in sorted(observed, key=lambda one: one[1])
        ]
        draft = suggest(records)
        report = simulate(records, policy_set(draft))
        assert report.flips == {}, draft
        assert {policy.action for policy in PolicyDocument.parse(draft).policies} == {
            one.action.action_type for one in records
        }

    def test_what_policy_kept_from_running_is_left_out(self):
        """An attempt that was denied is no reason to allow it; the draft says that there was one."""
        attempts = [
            record(START, "denied", "secret.read"),
            record(START, "policy_not_found", "shell.exec"),
            record(START, "denied", "pr.open", metadata={"size": 900}),
            record(START, "executed", "pr.open", metadata={"size": 3}),
        ]
        draft = suggest(attempts)
        (allowed,) = PolicyDocument.parse(draft).policies
        assert (allowed.action, allowed.conditions[0].value) == ("pr.open", (3, 3))
        assert "# secret.read: asked for once and never allowed, so it is left out" in draft
        assert "# asked for once more and never allowed, which is left out" in draft
        only = suggest(attempts[:2])
        assert PolicyDocument.parse(only).policies == ()
        assert "# shell.exec: asked for once" in only

    def test_what_ran_because_policy_was_only_observed_is_drafted_and_said(self):
        """Observing lets everything run, so it is what the agent does; what policy said of it stands in the draft."""
        draft = suggest([record(START, "denied", "secret.read", observed=True)])
        assert [policy.action for policy in PolicyDocument.parse(draft).policies] == ["secret.read"]
        assert "# policy denied it once and was only observed; this draft allows that" in draft

    @pytest.mark.parametrize(
        ("outcomes", "effect"),
        [
            (["requested", "timed_out"], "require_approval"),
            (["requested", "executed"], "allow"),
        ],
    )
    def test_a_draft_goes_on_asking_a_person_where_policy_always_did(self, outcomes, effect):
        """Drafting never takes the person away without saying so."""
        draft = suggest([record(START, outcome, "db.migrate") for outcome in outcomes])
        assert [policy.effect for policy in PolicyDocument.parse(draft).policies] == [effect]
        assert "policy always asked a person" in draft or "# policy asked a person once, which this" in draft

    @pytest.mark.parametrize(
        "spent",
        [
            [{"amount": "5", "currency": "EUR"}, {"amount": "5", "currency": "USD"}],
            [{"amount": "5", "currency": "EUR"}, {"amount": "5"}],
            [{"amount": "5", "currency": "EUR"}, {}],
            [{"amount": "5"}],
            [{"amount": "5", "currency": "eur"}],
            [{"amount": "5", "currency": "EUR"}, {"amount": "5", "currency": INJECTED}],
            [{"amount": "5", "currency": f"C{n:02d}"} for n in range(30)],
        ],
    )
    def test_spending_that_cannot_be_capped_is_said(self, spent):
        """And what an agent wrote as its currency never becomes a line of the draft."""
        draft = suggest([record(START, **one) for one in spent])
        (policy,) = PolicyDocument.parse(draft).policies
        assert policy.rules == ()
        assert "so it is not capped" in draft

    def test_the_first_day_counts_from_its_morning(self):
        """A draft of the last day, which began in the middle of one, stops nothing that took place since."""
        noon = START.replace(hour=12)
        records = [
            record(noon - timedelta(hours=hours), amount=amount, currency="EUR")
            for hours, amount in ((20, "700"), (3, "90"), (-3, "10"))
        ]
        draft = suggest(records, noon)
        (policy,) = PolicyDocument.parse(draft).policies
        assert {rule.cap for rule in policy.rules} == {None, Decimal(100)}
        assert "an amount" not in draft
        assert simulate(records, policy_set(draft), since=noon).flips == {}

    def test_a_draft_allows_little_else(self):
        """Bounds are as tight as what was seen, and say what that was."""
        records = [
            record(
                START + timedelta(hours=26 * n),
                kind="refund.issue",
                amount=str(10 + n),
                currency="EUR",
                category=("damaged", "late")[n % 2],
                metadata={"items": 1 + n % 3, "note": f"free text {n}"},
                data_accessed=[{"type": "order", "count": 1, "sensitivity": "medium"}],
            )
            for n in range(20)
        ]
        draft = suggest(records)
        candidate = policy_set(draft)
        assert "free text" not in draft
        assert "note: seen 20 times, too varied to bound" in draft
        good = {
            "kind": "refund.issue",
            "amount": "29",
            "currency": "EUR",
            "category": "late",
            "metadata": {"items": 3},
            "data_accessed": [{"type": "order", "count": 1, "sensitivity": "medium"}],
        }
        changes: list[tuple[dict[str, Any], str]] = [
            ({}, "allow"),
            ({"amount": "29.01"}, "deny"),
            ({"category": "goodwill"}, "deny"),
            ({"metadata": {"items": 4}}, "deny"),
            ({"metadata": {}}, "deny"),
            ({"data_accessed": [{"type": "order", "count": 2, "sensitivity": "medium"}]}, "deny"),
            ({"data_accessed": [{"type": "order", "count": 1, "sensitivity": "high"}]}, "deny"),
            ({"agent": "eve"}, "not_found"),
            ({"kind": "refund.cancel"}, "not_found"),
        ]
        for change, outcome in changes:
            ((_, decision),) = replay([record(START + timedelta(days=30), **{**good, **change})], candidate)
            assert decision.outcome == outcome, change
        daily = [record(START + timedelta(days=40), **{**good, "amount": "29"}) for _ in range(2)]
        assert [decision.outcome for _, decision in replay(daily, candidate)][-1] == "deny"
        assert Decimal("29") in {
            rule.cap for policy in PolicyDocument.parse(draft).policies for rule in policy.rules
        }


class TestStarter:
    def test_it_allows_everything_until_one_deletes_that(self):
        """ "Allow All (Default)" is a policy in the file, and without it nothing unnamed runs."""
        text = starter_document()
        document = PolicyDocument.parse(text)
        assert lint(document) == []
        whole = PolicySet.from_document(document)
        kept = PolicyDocument(tuple(one for one in document.policies if one.name != "Allow All (Default)"))
        ((_, decision),) = replay([record(START, kind="anything.at.all")], whole)
        assert (decision.outcome, decision.policy.name) == ("allow", "Allow All (Default)")
        ((_, decision),) = replay([record(START, kind="anything.at.all")], PolicySet.from_document(kept))
        assert decision.outcome == "not_found"
