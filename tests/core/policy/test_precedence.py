"""Who decides: effects, specificity, ties, fall-through, guardrails, declared actions, tampered parts."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_documents import EVERYTHING, documents

from agentlattice_core.actions import Action
from agentlattice_core.policy import (
    ApproverSet,
    Decision,
    Facts,
    PolicyDocument,
    PolicySet,
    StoredPart,
    digest_of,
)
from agentlattice_core.policy.index import matches_pattern, patterns_of
from agentlattice_core.principals import AgentFacts
from agentlattice_core.results import ActionOptions

# How much an outcome lets through. What no policy covers runs as little as what one denies.
RANK = {"allow": 0, "require_approval": 1, "deny": 2, "not_found": 2}
HOLDS = "conditions: [{field: ok, operator: eq, value: true}]"


def facts(action_type: str = "a.b", agent: str = "ann", **options: Any) -> Facts:
    now = datetime(2026, 3, 6, 12, tzinfo=UTC)
    action = Action.build(action_type, ActionOptions(**options))
    return Facts(action, AgentFacts(agent, f"id-{agent}"), now, lambda key: Decimal(0))


class TestEffects:
    @pytest.mark.parametrize(
        ("effect", "ok", "outcome", "reason"),
        [
            ("allow", True, "allow", None),
            ("allow", False, "deny", "CONDITIONS_DENIED"),
            ("allow", "what?", "deny", "CONDITIONS_DENIED"),
            ("allow", None, "deny", "CONDITIONS_DENIED"),
            ("conditional", True, "allow", None),
            ("conditional", False, "require_approval", None),
            ("conditional", "what?", "require_approval", None),
            ("conditional", None, "require_approval", None),
            ("require_approval", True, "require_approval", None),
            ("require_approval", False, "deny", "CONDITIONS_DENIED"),
            ("require_approval", "what?", "deny", "CONDITIONS_DENIED"),
            ("require_approval", None, "deny", "CONDITIONS_DENIED"),
            ("deny", True, "deny", "POLICY_DENIED"),
            ("deny", False, "not_found", None),
            ("deny", "what?", "deny", "POLICY_DENIED"),
            ("deny", None, "deny", "POLICY_DENIED"),
        ],
    )
    def test_the_table(self, policies, effect, ok, outcome, reason):
        """Passing, failing, incomparable and missing, for each effect."""
        day = policies(f"policies:\n  - {{name: P, action: a.b, effect: {effect}, {HOLDS}}}\n")
        decision = day.ask("a.b", metadata={} if ok is None else {"ok": ok})
        assert (decision.outcome, decision.denial_reason) == (outcome, reason)
        assert decision.missing == (("ok",) if ok is None else ())
        if ok == "what?":
            assert all(not result.result for result in decision.conditions)

    @pytest.mark.parametrize(
        ("effect", "outcome"),
        [
            ("allow", "allow"),
            ("conditional", "allow"),
            ("require_approval", "require_approval"),
            ("deny", "deny"),
        ],
    )
    def test_without_conditions(self, policies, effect, outcome):
        """No conditions are conditions that pass."""
        assert (
            policies(f"policies:\n  - {{name: P, action: x, effect: {effect}}}\n").ask("x").outcome == outcome
        )

    def test_nothing_matches(self, policies):
        """An action that no policy is about is not found, and a guardrail does not make it found."""
        day = policies("guardrails:\n  - {name: G, action: '*', effect: conditional, " + HOLDS + "}\n")
        assert day.ask("x", metadata={"ok": True}) == Decision("not_found")

    def test_a_denial_says_what_would_have_passed(self, policies):
        """For a deny policy too, result False marks what blocked, with the operator that would have let it through."""
        condition = "{field: env, operator: eq, value: prod}"
        text = f"policies:\n  - {{name: P, action: x, effect: deny, conditions: [{condition}]}}\n"
        (result,) = policies(text).ask("x", metadata={"env": "prod"}).conditions
        assert (result.operator, result.expected, result.result, result.actual) == (
            "neq",
            "prod",
            False,
            "prod",
        )

    def test_an_inactive_policy_is_not_there(self, policies):
        """Neither inactive in the document nor inactive in the store."""
        assert (
            policies("policies:\n  - {name: P, action: x, effect: allow, active: false}\n").ask("x").outcome
            == "not_found"
        )
        parts = stored("policies:\n  - {name: P, action: x, effect: allow}\n")
        parts = {part_id: replace(part, active=False) for part_id, part in parts.items()}
        assert PolicySet.from_parts(parts).decide(facts("x")).outcome == "not_found"


def stored(text: str, pattern: str = "*") -> dict[str, StoredPart]:
    parts = PolicyDocument.parse(f"version: 1\n{text}").parts()
    return {
        i: StoredPart(c, 3, digest_of(c), "2026-01-01T00:00:00Z", pattern=pattern) for i, c in parts.items()
    }


class TestSpecificity:
    ORDER = ("a.b.c", "a.b.*", "a.*", "*")

    @pytest.mark.parametrize(("first", "second"), list(itertools.combinations(ORDER, 2)))
    def test_the_more_specific_pattern_decides(self, policies, first, second):
        """Even when it is the more lenient one, in whatever order they stand."""
        lenient, strict = (
            f"{{name: L, action: '{first}', effect: allow}}",
            f"{{name: S, action: '{second}', effect: deny}}",
        )
        for pair in ((lenient, strict), (strict, lenient)):
            day = policies("policies:\n" + "".join(f"  - {one}\n" for one in pair))
            assert day.ask("a.b.c").policy.name == "L"

    @pytest.mark.parametrize("scope", ["agents: [ann]", "agent_tags: [team]", "agents: [id-of-ann]"])
    @pytest.mark.parametrize("pattern", ORDER)
    def test_naming_the_agent_wins_within_a_pattern_only(self, policies, pattern, scope):
        """By name, id or tag; but a longer pattern that names nobody still beats a shorter one that does."""
        agent = AgentFacts("ann", "id-of-ann", tags=frozenset({"team"}))
        named = f"  - {{name: Named, action: '{pattern}', effect: allow, {scope}}}\n"
        same = f"policies:\n{named}  - {{name: Anybody, action: '{pattern}', effect: deny}}\n"
        assert policies(same).ask("a.b.c", agent).policy.name == "Named"
        assert policies(same).ask("a.b.c", "bob").policy.name == "Anybody"
        if pattern != "a.b.c":
            exact = f"policies:\n{named}  - {{name: Exact, action: a.b.c, effect: deny}}\n"
            assert policies(exact).ask("a.b.c", agent).policy.name == "Exact"

    def test_a_prefix_matches_below_and_not_beside(self, policies):
        """deploy.* is about deploy.x and deploy.x.y, not about deploy or deployment.x."""
        day = policies("policies:\n  - {name: P, action: deploy.*, effect: allow}\n")
        found = {t: day.ask(t).outcome for t in ("deploy.x", "deploy.x.y", "deploy", "deployment.x")}
        assert found == {
            "deploy.x": "allow",
            "deploy.x.y": "allow",
            "deploy": "not_found",
            "deployment.x": "not_found",
        }

    @given(
        st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=5).map(".".join),
        st.sampled_from(["*", "a.*", "a.b.*", "ab.*", "a", "a.b", "a.b.a", "b.*"]),
    )
    def test_the_index_finds_what_the_pattern_matches(self, action_type, pattern):
        """Looking up the patterns of an action type is the same as matching each pattern against it."""
        assert (pattern in list(patterns_of(action_type))) is matches_pattern(pattern, action_type)

    def test_descendants_fall_under_their_roots_policies(self, policies):
        """A policy that names an agent is about its children; a child's own name or tag never counts."""
        day = policies(
            "policies:\n"
            "  - {name: Root, action: x, effect: allow, agents: [root]}\n"
            "  - {name: Boss, action: x, effect: allow, agents: [boss]}\n"
            "  - {name: Tagged, action: x, effect: allow, agent_tags: [admin]}\n"
            "  - {name: Rest, action: x, effect: deny}\n"
        )
        child = AgentFacts(
            "boss", "c", frozenset({"admin"}), ancestors=(AgentFacts("root", "r"),), delegation=EVERYTHING
        )
        stranger = AgentFacts(
            "boss", "c", frozenset({"admin"}), ancestors=(AgentFacts("other", "o"),), delegation=EVERYTHING
        )
        assert day.ask("x", child).policy.name == "Root"
        assert day.ask("x", stranger).policy.name == "Rest"

    def test_a_deny_that_does_not_hold_lets_the_next_decide(self, policies):
        """Down the whole ladder, and only deny does that."""
        day = policies(
            "policies:\n"
            f"  - {{name: One, action: a.b.c, effect: deny, {HOLDS}}}\n"
            f"  - {{name: Two, action: a.b.*, effect: deny, {HOLDS}}}\n"
            f"  - {{name: Three, action: 'a.*', effect: allow, {HOLDS}}}\n"
            "  - {name: Four, action: '*', effect: allow}\n"
        )
        decision = day.ask("a.b.c", metadata={"ok": False})
        assert (decision.policy.name, decision.denial_reason) == ("Three", "CONDITIONS_DENIED")

    @pytest.mark.parametrize("order", list(itertools.permutations(["allow", "require_approval", "deny"])))
    def test_ties_take_the_strictest(self, policies, order):
        """Policies of one rank are combined, whatever their names and order."""
        for count in (2, 3):
            tied = order[:count]
            day = policies(
                "policies:\n"
                + "".join(f"  - {{name: P{n}, action: x, effect: {e}}}\n" for n, e in enumerate(tied))
            )
            decision = day.ask("x")
            assert decision.outcome == max(tied, key=RANK.__getitem__)
            assert decision.policy.name == f"P{tied.index(decision.outcome)}"


class TestGuardrails:
    def test_a_guardrail_holds_against_a_more_specific_allow(self, policies):
        """It is asked whatever decides, and is named as the one that vetoed."""
        day = policies(
            "policies:\n  - {name: P, action: a.b, effect: allow}\n"
            f"guardrails:\n  - {{name: G, action: '*', effect: deny, {HOLDS}}}\n"
        )
        vetoed = day.ask("a.b", metadata={"ok": True})
        assert (vetoed.outcome, vetoed.policy.name, vetoed.denial_reason) == ("deny", "G", "POLICY_DENIED")
        assert [one.name for one in vetoed.guardrails] == ["G"]
        assert day.ask("a.b", metadata={"ok": False}).policy.name == "P"
        assert day.ask("a.b").outcome == "deny"

    def test_a_guardrail_can_ask_a_person(self, policies):
        """Its approvers come on top of the policy's own."""
        day = policies(
            "policies:\n  - {name: P, action: a.b, effect: require_approval,"
            " approval: {approvers: ['user:ann'], timeout: 4h}}\n"
            "guardrails:\n  - {name: G, action: 'a.*', effect: require_approval,"
            " approval: {approvers: ['group:ops'], timeout: 1h}}\n"
        )
        decision = day.ask("a.b")
        assert decision.policy.name == "P"
        assert decision.approval.sets == (ApproverSet(("user:ann",)), ApproverSet(("group:ops",)))
        assert decision.approval.timeout == 3600

    def test_auto_approve_does_not_lift_a_guardrail_or_a_tied_policy(self, policies):
        """It lifts the approval of its own policy and nothing else."""
        rule = (
            "rules: [{priority: 1, type: AMOUNT_THRESHOLD, max: '10', currency: EUR, effect: AUTO_APPROVE}]"
        )
        lifting = f"  - {{name: L, action: x, effect: require_approval, {rule}}}\n"
        money = {"amount": "5", "currency": "EUR"}
        assert policies(f"policies:\n{lifting}").ask("x", **money).outcome == "allow"
        tied = f"policies:\n{lifting}  - {{name: T, action: x, effect: require_approval}}\n"
        assert policies(tied).ask("x", **money).outcome == "require_approval"
        guarded = f"policies:\n{lifting}guardrails:\n  - {{name: G, action: x, effect: require_approval}}\n"
        assert policies(guarded).ask("x", **money).outcome == "require_approval"
        failing = f"policies:\n  - {{name: L, action: x, effect: conditional, {HOLDS}, {rule}}}\n"
        assert policies(failing).ask("x", metadata={"ok": False}, **money).outcome == "require_approval"

    @settings(max_examples=80, deadline=None)
    @given(documents(), st.data())
    def test_guardrails_never_loosen(self, raw, data):
        """Whatever the policies and the action, adding guardrails never lets more through."""
        given_facts = data.draw(some_facts())
        bare = decide({**raw, "guardrails": []}, given_facts)
        guarded = decide(raw, given_facts)
        assert RANK[guarded.outcome] >= RANK[bare.outcome]
        assert (guarded.outcome == "not_found") is (bare.outcome == "not_found")

    @settings(max_examples=60, deadline=None)
    @given(documents(), st.data())
    def test_the_order_of_a_document_does_not_matter(self, raw, data):
        """Policies and guardrails may stand in any order."""
        given_facts = data.draw(some_facts())
        shuffled = {
            **raw,
            "policies": data.draw(st.permutations(raw["policies"])),
            "guardrails": data.draw(st.permutations(raw["guardrails"])),
        }
        assert decide(shuffled, given_facts) == decide(raw, given_facts)

    @settings(max_examples=60, deadline=None)
    @given(documents(), st.data())
    def test_irrelevant_policies_change_nothing(self, raw, data):
        """A policy about other actions or other agents is as if it were not there."""
        given_facts = data.draw(some_facts())
        elsewhere = [
            {"name": "elsewhere", "action": "z.*", "effect": "deny"},
            {
                "name": "others",
                "action": given_facts.action.action_type,
                "effect": "deny",
                "agents": ["nobody"],
            },
        ]
        assert decide({**raw, "policies": [*raw["policies"], *elsewhere]}, given_facts) == decide(
            raw, given_facts
        )


class TestWithoutFindings:
    @settings(max_examples=100, deadline=None)
    @given(documents(), st.data())
    def test_what_is_decided_is_the_same(self, raw, data):
        """Outcome, policy, reason and charges do not depend on whether anybody asks why."""
        given_facts = data.draw(some_facts())
        policies = PolicySet.from_document(PolicyDocument.parse(json.dumps(raw), "p.json"))
        told, bare = policies.decide(given_facts), policies.decide(given_facts, findings=False)
        assert (bare.outcome, bare.policy, bare.denial_reason, bare.charges) == (
            told.outcome,
            told.policy,
            told.denial_reason,
            told.charges,
        )


@st.composite
def some_facts(draw: st.DrawFn) -> Facts:
    options = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "metadata": st.dictionaries(
                    st.sampled_from(["pr_size", "environment", "ok"]),
                    st.integers(-5, 5) | st.booleans() | st.text("ab", max_size=2),
                ),
                "amount": st.decimals(0, 2000, places=2).map(str),
                "currency": st.sampled_from(["EUR", "USD"]),
                "beneficiary": st.sampled_from(["acme", "other"]),
                "category": st.sampled_from(["banned", "fine"]),
                "data_accessed": st.just([{"type": "a", "count": 2, "sensitivity": "high"}]),
            },
        )
    )
    return facts(
        draw(st.sampled_from(["a.b", "a.b.c", "x", "q"])),
        draw(st.sampled_from(["ann", "bob", "eve"])),
        **options,
    )


def decide(raw: dict[str, Any], given_facts: Facts) -> Decision:
    return PolicySet.from_document(PolicyDocument.parse(json.dumps(raw), "p.json")).decide(given_facts)


class TestKnowingLess:
    @settings(max_examples=150, deadline=None)
    @given(documents(exists=False), st.data())
    def test_leaving_something_out_never_lets_more_through(self, raw, data):
        """Removing any of metadata, amount, currency, beneficiary and data_accessed never loosens a decision.

        It holds for every document without `exists` (which asks for absence), and without rules that select by
        category, which is why the category is not among what is removed: a rule whose category is absent does not
        match, and an action declaration that requires it is what closes that door.
        """
        full = data.draw(some_facts())
        action = full.action
        less_metadata = {
            name: value
            for name, value in action.metadata.items()
            if data.draw(st.booleans(), label=f"keep {name}")
        }
        removed = data.draw(st.sets(st.sampled_from(["amount", "currency", "beneficiary", "data_accessed"])))
        blank = {name: () if name == "data_accessed" else None for name in removed}
        less = replace(full, action=replace(action, metadata=less_metadata, **blank))
        before, after = decide(raw, full), decide(raw, less)
        assert RANK[after.outcome] >= RANK[before.outcome], (before, after)

    def test_a_declared_field_closes_the_door_that_exists_and_category_leave_open(self, policies):
        """Where absence would help, declaring the field as required refuses the action first."""
        rule = "rules: [{priority: 1, type: CATEGORY_BLOCKLIST, categories: [bad], effect: REJECT}]"
        text = f"policies:\n  - {{name: P, action: x, effect: allow, {rule}}}\n"
        declared = text + "actions: {x: {fields: {category: {required: true}}}}\n"
        assert policies(text).ask("x", category="bad").outcome == "deny"
        assert policies(text).ask("x").outcome == "allow"
        assert policies(declared).ask("x").denial_reason == "CONDITIONS_DENIED"


class TestDeclaredActions:
    TEXT = (
        "policies:\n  - {name: P, action: '*', effect: allow}\n"
        "actions:\n  pr.open:\n    fields:\n"
        "      pr_size: {type: integer, required: true, trusted: true}\n"
        "      labels: {type: array}\n"
        "      target.branch: {type: string, required: true}\n"
        "      amount: {type: amount}\n"
    )
    GOOD = {"pr_size": 3, "target": {"branch": "main"}}  # noqa: RUF012

    def ask(self, policies, metadata, trusted=("pr_size",)):
        return policies(self.TEXT).ask("pr.open", metadata=metadata, trusted=trusted)

    def test_as_declared_it_goes_on_to_policy(self, policies):
        """And other action types are not concerned."""
        assert self.ask(policies, self.GOOD).outcome == "allow"
        assert policies(self.TEXT).ask("pr.close").outcome == "allow"

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"pr_size": None}, "pr_size"),
            ({"pr_size": "3"}, "pr_size"),
            ({"pr_size": 3.5}, "pr_size"),
            ({"pr_size": True}, "pr_size"),
            ({"target": {}}, "target.branch"),
            ({"target": "main"}, "target.branch"),
            ({"labels": "bug"}, "labels"),
        ],
    )
    def test_missing_and_mistyped_fields_are_refused_before_policy(self, policies, change, field):
        """With a condition that names the field and that no policy is responsible."""
        decision = self.ask(policies, {**self.GOOD, **change})
        assert (decision.outcome, decision.denial_reason, decision.policy) == (
            "deny",
            "CONDITIONS_DENIED",
            None,
        )
        assert [(c.field, c.operator, c.result) for c in decision.conditions] == [(field, "exists", False)]

    def test_a_trusted_field_may_not_come_from_the_model(self, policies):
        """However plausible its value."""
        decision = self.ask(policies, self.GOOD, trusted=())
        assert decision.denial_reason == "CONDITIONS_DENIED"
        assert "trusted source" in decision.message


class TestTampering:
    TEXT = (
        "policies:\n  - {name: P, action: db.*, effect: allow}\n  - {name: Q, action: '*', effect: allow}\n"
    )

    def test_a_tampered_part_denies_what_it_governed(self):
        """Said to be tampered, changed behind its digest, or unreadable: all deny, and only within the pattern."""
        parts = stored(self.TEXT)
        good = replace(parts["policy/p"], pattern="db.*")
        for bad in (
            replace(good, tampered=True),
            replace(good, content=good.content.replace(b"allow", b"deny")),
            replace(good, content=b"not json", digest=digest_of(b"not json")),
            replace(good, tampered=True, active=False),
        ):
            policy_set = PolicySet.from_parts({**parts, "policy/p": bad})
            denied = policy_set.decide(facts("db.migrate"))
            assert (denied.outcome, denied.denial_reason, denied.policy.id) == (
                "deny",
                "POLICY_TAMPERED",
                "p",
            )
            assert policy_set.decide(facts("other")).outcome == "allow"

    def test_a_part_under_anothers_id_is_tampered(self):
        """Content that says it is something else is not what was published."""
        parts = stored(self.TEXT)
        swapped = {**parts, "policy/p": replace(parts["policy/q"], pattern="db.*")}
        assert PolicySet.from_parts(swapped).decide(facts("db.x")).denial_reason == "POLICY_TAMPERED"

    def test_decisions_name_the_exact_version(self):
        """Id, name, version and digest of what decided."""
        parts = stored(self.TEXT)
        reference = PolicySet.from_parts(parts).decide(facts("db.x")).policy
        assert (reference.id, reference.name, reference.version) == ("p", "P", 3)
        assert reference.digest == digest_of(parts["policy/p"].content)


class TestIntrospection:
    TEXT = (
        "policies:\n"
        "  - {name: Any, action: '*', effect: allow}\n"
        f"  - {{name: Mine, action: a.b, effect: require_approval, agents: [ann], {HOLDS}}}\n"
        "guardrails:\n  - {name: Guard, action: a.*, effect: deny, " + HOLDS + "}\n"
    )

    def test_summaries_and_covering(self):
        """Whose policies there are, and what governs an action, most specific first."""
        policy_set = PolicySet.from_parts(stored(self.TEXT))
        ann, bob = AgentFacts("ann", "1"), AgentFacts("bob", "2")
        assert [one.name for one in policy_set.summaries()] == ["Any", "Mine", "Guard"]
        assert [one.name for one in policy_set.summaries(bob)] == ["Any", "Guard"]
        assert [one.name for one in policy_set.covering("a.b", ann)] == ["Guard", "Mine", "Any"]
        mine = policy_set.covering("a.b", ann)[1]
        assert (mine.id, mine.approval_required, mine.has_conditions, mine.version) == ("mine", True, True, 3)
