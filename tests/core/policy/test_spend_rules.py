"""Spend rules in themselves: what they measure, what they charge, and to which key."""

from __future__ import annotations

from decimal import Decimal

import pytest

from agentlattice_core.policy import ApproverSet

EUR = {"currency": "EUR"}


def policy(*rules: str, effect: str = "allow", name: str = "P", more: str = "") -> str:
    listed = "".join(f"      - {{{rule}}}\n" for rule in rules)
    return f"  - name: {name}\n    action: pay\n    effect: {effect}\n    rules:\n{listed}{more}"


def cap(amount: str, priority: int = 1, effect: str = "REJECT", more: str = "") -> str:
    return f"priority: {priority}, type: DAILY_CAP, cap: '{amount}', currency: EUR, effect: {effect}{more}"


class TestDailyCaps:
    def test_the_key_names_counter_subject_day_zone_and_currency(self, policies):
        """And the scope says the same readably."""
        day = policies(
            "policies:\n" + policy(cap("10", more=", timezone: Asia/Tokyo, release_on_failure: true"))
        )
        (charge,) = day.at("2026-03-04 23:00").submit("pay", "ann", amount="4", **EUR).charges
        assert charge.key == "policy/p/1|agent:id-of-ann|2026-03-05@Asia/Tokyo|EUR"
        assert (charge.amount, charge.cap, charge.release_on_failure) == (Decimal(4), Decimal(10), True)
        assert charge.scope == {
            "counter": "policy/p/1",
            "per": "agent",
            "subject": "id-of-ann",
            "date": "2026-03-05",
            "timezone": "Asia/Tokyo",
            "currency": "EUR",
        }

    def test_a_subject_cannot_spell_anothers_key(self, policies):
        """The separator is escaped, and so is the escape."""
        day = policies("policies:\n" + policy(cap("10", more=", per: beneficiary")))
        keys = [
            day.submit("pay", "ann", amount="1", beneficiary=name, **EUR).charges[0].key
            for name in ("a|2026-01-01@UTC|EUR", "a%7C2026-01-01@UTC%7CEUR")
        ]
        assert len(set(keys)) == 2
        assert all(key.count("|") == 3 for key in keys)

    @pytest.mark.parametrize(("per", "own"), [("agent", True), ("organisation", False)])
    def test_per_agent_and_per_organisation(self, policies, per, own):
        """Two agents have a total each, or one between them."""
        day = policies("policies:\n" + policy(cap("10", more=f", per: {per}")))
        day.submit("pay", "ann", amount="10", **EUR)
        assert (day.submit("pay", "bob", amount="1", **EUR).outcome == "allow") is own

    @pytest.mark.parametrize("per", ["beneficiary", "category"])
    def test_per_beneficiary_and_per_category(self, policies, per):
        """One total each; an action that names none cannot be measured and is refused."""
        day = policies("policies:\n" + policy(cap("10", more=f", per: {per}")))
        day.submit("pay", "ann", amount="10", **{per: "one"}, **EUR)
        assert day.submit("pay", "ann", amount="1", **{per: "one"}, **EUR).denial_reason == "LIMIT_EXCEEDED"
        assert day.submit("pay", "ann", amount="10", **{per: "two"}, **EUR).outcome == "allow"
        missing = day.submit("pay", "ann", amount="1", **EUR)
        assert (missing.outcome, missing.missing) == ("deny", (per,))

    def test_policies_that_name_one_counter_share_it(self, policies):
        """Charged once per action, under the lowest of their caps, and released only if all of them release."""
        shared = ", counter: travel"
        day = policies(
            "policies:\n"
            + policy(cap("10", more=shared + ", release_on_failure: true"))
            + "guardrails:\n"
            + policy(cap("6", more=shared), name="G").replace("    effect: allow\n", "")
        )
        first = day.submit("pay", "ann", amount="4", **EUR)
        (charge,) = first.charges
        assert (charge.amount, charge.cap, charge.release_on_failure) == (Decimal(4), Decimal(6), False)
        assert day.submit("pay", "ann", amount="2.01", **EUR).denial_reason == "LIMIT_EXCEEDED"
        assert day.submit("pay", "ann", amount="2", **EUR).outcome == "allow"

    def test_a_cap_that_asks_a_person_is_counted_without_a_ceiling(self, policies):
        """What a person approves above it counts and may exceed it."""
        day = policies("policies:\n" + policy(cap("10", effect="REQUIRE_HUMAN")))
        decision = day.submit("pay", "ann", amount="11", **EUR)
        assert decision.outcome == "require_approval"
        assert [(charge.amount, charge.cap) for charge in decision.charges] == [(Decimal(11), None)]

    def test_sums_are_exact(self, policies):
        """A total of 38 digits still sees the last one."""
        day = policies("policies:\n" + policy(cap("10000000000000000000.000000000000000001")))
        assert day.submit("pay", "ann", amount="10000000000000000000", **EUR).outcome == "allow"
        assert day.submit("pay", "ann", amount="0.000000000000000001", **EUR).outcome == "allow"
        assert day.submit("pay", "ann", amount="0.000000000000000001", **EUR).outcome == "deny"

    def test_a_cap_from_the_beneficiarys_registry_entry(self, policies):
        """Each beneficiary has its own; one that has none, or nonsense, cannot be paid."""
        text = (
            "policies:\n"
            + policy(
                "priority: 1, type: DAILY_CAP, cap_from: caps.daily, registry: sellers, per: beneficiary,"
                " currency: EUR, effect: REJECT"
            )
            + "registries: {sellers: {a: {caps: {daily: 10.50}}, b: {caps: {daily: '1'}},"
            " c: {}, d: {caps: {daily: x}}}}\n"
        )
        day = policies(text)
        assert day.submit("pay", "ann", amount="10.50", beneficiary="a", **EUR).outcome == "allow"
        assert day.submit("pay", "ann", amount="0.01", beneficiary="a", **EUR).outcome == "deny"
        assert day.submit("pay", "ann", amount="1", beneficiary="b", **EUR).outcome == "allow"
        for unknown in ("c", "d", "e"):
            assert day.submit("pay", "ann", amount="0.01", beneficiary=unknown, **EUR).outcome == "deny"

    def test_a_bounded_cap_counts_what_is_within_its_bounds(self, policies):
        """Amounts outside are neither counted nor stopped."""
        day = policies("policies:\n" + policy(cap("10", more=", min: '5'")))
        assert day.submit("pay", "ann", amount="4", **EUR).charges == ()
        assert day.submit("pay", "ann", amount="6", **EUR).outcome == "allow"
        assert day.submit("pay", "ann", amount="5", **EUR).outcome == "deny"
        assert day.submit("pay", "ann", amount="4", **EUR).outcome == "allow"

    def test_a_cap_is_of_the_local_day_in_whatever_order_it_is_asked(self, policies):
        """The date that is charged is the one in the rule's zone at that time, a second before midnight and after."""
        day = policies("policies:\n" + policy(cap("10", more=", timezone: Europe/Paris")))
        times = ["03-28 23:59:59", "03-29 00:00:00", "03-28 23:59:00", "03-29 00:00:59", "03-28 23:59:59"]
        for local in (*times, "03-29 03:00:00", *reversed(times)):
            (charge,) = day.at(f"2026-{local}", "Europe/Paris").ask("pay", amount="1", **EUR).charges
            assert charge.scope["date"] == f"2026-{local[:5]}"


class TestTimeWindows:
    NIGHT = (
        "priority: 1, type: TIME_WINDOW, days: [fri], from: '22:00', to: '06:00',"
        " timezone: Europe/Paris, effect: REJECT"
    )

    @pytest.mark.parametrize(
        ("local", "fires"),
        [
            ("2026-03-06 21:59:59", False),
            ("2026-03-06 22:00:00", True),
            ("2026-03-07 05:59:59", True),
            ("2026-03-07 06:00:00", False),
            ("2026-03-06 03:00:00", False),  # Thursday's night is not in it
            ("2026-03-07 22:00:00", False),
        ],
    )
    def test_a_window_over_midnight_belongs_to_the_day_it_opens(self, policies, local, fires):
        """Friday night is Friday from 22 and Saturday until 6."""
        day = policies("policies:\n" + policy(self.NIGHT)).at(local, "Europe/Paris")
        assert (day.ask("pay").outcome == "deny") is fires

    def test_until_24_reaches_midnight(self, policies):
        """24:00 is the end of the day, and without days every day is meant."""
        rule = "priority: 1, type: TIME_WINDOW, from: '18:00', to: '24:00', timezone: UTC, effect: REJECT"
        day = policies("policies:\n" + policy(rule))
        assert day.at("2026-03-08 23:59:59").ask("pay").outcome == "deny"
        assert day.at("2026-03-09 00:00:00").ask("pay").outcome == "allow"


class TestSelectorsAndOrder:
    def test_a_selector_whose_subject_is_absent_does_not_match(self, policies):
        """A rule for a category is not about an action without one."""
        day = policies("policies:\n" + policy(cap("1", more=", categories: [ads]")))
        assert day.submit("pay", "ann", amount="5", category="ads", **EUR).outcome == "deny"
        assert day.submit("pay", "ann", amount="5", category="other", **EUR).outcome == "allow"
        assert day.submit("pay", "ann", amount="5", **EUR).charges == ()

    def test_every_rule_that_fires_is_reported_in_priority_order(self, policies):
        """Whatever order they stand in; the strictest wins."""
        day = policies(
            "policies:\n"
            + policy(
                "priority: 30, type: AMOUNT_THRESHOLD, min: 5, currency: EUR, effect: REJECT",
                "priority: 10, type: AMOUNT_THRESHOLD, min: 1, currency: EUR, effect: AUTO_APPROVE",
                "priority: 20, type: AMOUNT_THRESHOLD, min: 3, currency: EUR, effect: REQUIRE_HUMAN",
                effect="require_approval",
            )
        )
        outcomes = {}
        for amount in ("1", "3", "5"):
            decision = day.ask("pay", amount=amount, **EUR)
            outcomes[amount] = (decision.outcome, [rule.priority for rule in decision.rules])
        assert outcomes == {
            "1": ("allow", [10]),
            "3": ("require_approval", [10, 20]),
            "5": ("deny", [10, 20, 30]),
        }

    def test_conditions_come_before_rules(self, policies):
        """A failed condition denies without asking them, and no approving rule lifts it."""
        approve = "priority: 10, type: AMOUNT_THRESHOLD, max: 9, currency: EUR, effect: AUTO_APPROVE"
        more = "    conditions: [{field: ok, operator: eq, value: true}]\n"
        day = policies("policies:\n" + policy(approve, effect="require_approval", more=more))
        decision = day.ask("pay", amount="5", metadata={"ok": False}, **EUR)
        assert (decision.denial_reason, decision.rules) == ("CONDITIONS_DENIED", ())
        assert day.ask("pay", amount="5", metadata={"ok": True}, **EUR).outcome == "allow"

    def test_approvers_and_timeouts_combine(self, policies):
        """All sets that are named, the shortest timeout that is given, the policy's where a rule gives none."""
        threshold = "type: AMOUNT_THRESHOLD, currency: EUR, effect: REQUIRE_HUMAN"
        day = policies(
            "policies:\n"
            + policy(
                f"priority: 1, {threshold}, min: 1, approval: {{approvers: ['user:cfo']}}",
                f"priority: 2, {threshold}, min: 2, approval: {{approvers: ['group:ops'], quorum: 2, timeout: 10m}}",
                f"priority: 3, {threshold}, min: 3",
                more="    approval: {approvers: ['group:team'], timeout: 4h}\n",
            )
        )
        terms = {amount: day.ask("pay", amount=amount, **EUR).approval for amount in ("1", "2", "3")}
        cfo, ops, team = (
            ApproverSet(("user:cfo",)),
            ApproverSet(("group:ops",), 2),
            ApproverSet(("group:team",)),
        )
        assert (terms["1"].sets, terms["1"].timeout) == ((cfo,), 4 * 3600)
        assert (terms["2"].sets, terms["2"].timeout) == ((cfo, ops), 600)
        assert (terms["3"].sets, terms["3"].timeout) == ((cfo, ops, team), 600)
        assert day.ask("pay", amount="0.5", **EUR).approval is None

    @pytest.mark.parametrize(
        ("own", "asked", "timeout"),
        [
            ("{timeout: 1h}", ApproverSet(("user:cto", "user:cfo"), "all"), 3600),
            ("{quorum: 2}", ApproverSet(("user:cto", "user:cfo"), 2), 4 * 3600),
            ("{approvers: ['user:eve']}", ApproverSet(("user:eve",)), 4 * 3600),
        ],
    )
    def test_a_rule_that_names_no_approvers_asks_its_policys(self, policies, own, asked, timeout):
        """A rule that only shortens the time does not open the decision to everybody."""
        rule = f"priority: 1, type: AMOUNT_THRESHOLD, min: 1, currency: EUR, effect: REQUIRE_HUMAN, approval: {own}"
        more = "    approval: {approvers: ['user:cto', 'user:cfo'], quorum: all, timeout: 4h}\n"
        terms = policies("policies:\n" + policy(rule, more=more)).ask("pay", amount="1", **EUR).approval
        assert (terms.sets, terms.timeout) == ((asked,), timeout)

    def test_without_approvers_anyone_with_the_right_may_decide(self, policies):
        """For thirty minutes, which is the default."""
        terms = (
            policies("policies:\n  - {name: P, action: pay, effect: require_approval}\n").ask("pay").approval
        )
        assert (terms.sets, terms.timeout) == ((ApproverSet(),), 1800)

    def test_messages_are_for_the_agent(self, policies):
        """The author's where there is one, else what was measured."""
        written = policies("policies:\n" + policy(cap("1", more=", message: Come back tomorrow.")))
        assert written.ask("pay", amount="2", **EUR).message == "Come back tomorrow."
        plain = policies("policies:\n" + policy(cap("1"))).ask("pay", amount="2", **EUR)
        assert plain.message == "2 EUR on top of today's 0 would exceed the daily cap of 1"
        assert plain.rules[0].details["remaining"] == "1"


class TestRegistries:
    @pytest.mark.parametrize(
        ("effect", "outcome"), [("AUTO_APPROVE", "require_approval"), ("REJECT", "deny")]
    )
    def test_a_registry_that_is_not_there_lets_nothing_through(self, policies, effect, outcome):
        """Not even under a rule that would approve."""
        rule = f"priority: 1, type: BENEFICIARY_WHITELIST, registry: gone, effect: {effect}"
        day = policies("policies:\n" + policy(rule, effect="require_approval"))
        assert day.ask("pay", beneficiary="acme").outcome == outcome

    def test_a_list_in_the_rule_itself(self, policies):
        """`values` needs no registry; names are compared exactly."""
        rule = "priority: 1, type: BENEFICIARY_WHITELIST, values: [acme], effect: REJECT"
        day = policies("policies:\n" + policy(rule))
        found = {name: day.ask("pay", beneficiary=name).outcome for name in ("acme", "Acme", "acme ")}
        assert found == {"acme": "allow", "Acme": "deny", "acme ": "deny"}
