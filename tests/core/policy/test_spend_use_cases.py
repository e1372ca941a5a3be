"""The six spend use cases: each example file does what its text says, at and around every boundary."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from policy_documents import EVERYTHING

from agentlattice_core.policy import ApproverSet
from agentlattice_core.principals import AgentFacts

KNOWN_PARTNER = "meta:act-100200300"


def euros(amount: str | None, **others: Any) -> dict[str, Any]:
    return {"amount": amount, "currency": "EUR", **others}


def dollars(amount: str | None, **others: Any) -> dict[str, Any]:
    return {"amount": amount, "currency": "USD", **others}


def fired(decision: Any) -> list[int]:
    return [rule.priority for rule in decision.rules]


class TestMarketingAutomation:
    """Growth agent: 5,000 a day, 1,500 per charge, known partners, office hours in Paris."""

    @pytest.fixture
    def day(self, example):
        return example("01-").at("2026-03-06 12:00", "Europe/Paris")  # a Friday

    def spend(self, day, amount, beneficiary=KNOWN_PARTNER, **others):
        return day.submit("ads.spend", "growth-agent", **euros(amount, beneficiary=beneficiary, **others))

    def test_a_small_charge_in_the_window_runs_by_itself(self, day):
        """Rule 40 lifts the approval under 1,500 euros from Monday to Friday, 8 to 22 in Paris."""
        decision = self.spend(day, "1499.99")
        assert (decision.outcome, fired(decision)) == ("allow", [40])

    def test_exactly_1500_needs_the_growth_lead(self, day):
        """Rule 20 begins at 1,500 and rule 40 ends below it."""
        decision = self.spend(day, "1500.00")
        assert (decision.outcome, fired(decision)) == ("require_approval", [20])
        assert decision.approval.sets == (ApproverSet(("user:growth-lead",)),)

    @pytest.mark.parametrize(
        ("local", "outcome"),
        [
            ("2026-03-06 21:59:59", "allow"),
            ("2026-03-06 22:00:00", "require_approval"),
            ("2026-03-06 07:59:59", "require_approval"),
            ("2026-03-06 08:00:00", "allow"),
            ("2026-03-07 12:00:00", "require_approval"),  # Saturday
            ("2026-03-08 12:00:00", "require_approval"),  # Sunday
            ("2026-03-09 08:00:00", "allow"),  # Monday
        ],
    )
    def test_the_window_is_half_open_in_paris(self, day, local, outcome):
        """22:00 on a Friday is already outside, 08:00 is inside, the weekend is outside."""
        assert self.spend(day.at(local, "Europe/Paris"), "100").outcome == outcome

    @pytest.mark.parametrize(
        ("utc", "outcome"),
        [
            ("2026-03-27 20:59", "allow"),  # 21:59 in winter time
            ("2026-03-27 21:00", "require_approval"),  # 22:00
            (
                "2026-03-30 05:59",
                "require_approval",
            ),  # 07:59 in summer time, the clocks went forward on the 29th
            ("2026-03-30 06:00", "allow"),  # 08:00
            ("2026-10-26 06:59", "require_approval"),  # 07:59, the clocks went back on the 25th
            ("2026-10-26 07:00", "allow"),
        ],
    )
    def test_the_window_follows_daylight_saving(self, day, utc, outcome):
        """The window is in local time on both sides of the clock changes."""
        assert self.spend(day.at(utc), "100").outcome == outcome

    def test_the_day_holds_exactly_5000(self, day):
        """The cap is reached by 5,000.00 and passed by a cent more, across platforms."""
        for _ in range(4):
            assert self.spend(day, "1200").outcome == "allow"
        assert self.spend(day, "200", beneficiary="google:123-456-7890").outcome == "allow"
        over = self.spend(day, "0.01")
        assert (over.outcome, over.denial_reason) == ("deny", "LIMIT_EXCEEDED")
        assert over.message == "The day's ad budget is spent; continue tomorrow."

    def test_an_approval_that_waits_counts_against_the_cap(self, day):
        """A charge that a person still has to approve holds its part of the cap."""
        assert self.spend(day, "4000").outcome == "require_approval"
        assert self.spend(day, "1400").denial_reason == "LIMIT_EXCEEDED"

    def test_the_day_ends_at_midnight_in_paris(self, day):
        """23:59:59 belongs to the spent day, 00:00:00 to a new one."""
        self.spend(day.at("2026-03-05 12:00", "Europe/Paris"), "5000")
        assert self.spend(day.at("2026-03-05 23:59:59", "Europe/Paris"), "1").outcome == "deny"
        assert self.spend(day.at("2026-03-06 00:00:00", "Europe/Paris"), "1").outcome == "require_approval"

    @pytest.mark.parametrize("date", ["2026-03-29", "2026-10-25"])
    def test_a_day_of_23_or_25_hours_is_one_day(self, day, date):
        """On the nights the clocks change, one local date has one total, the repeated hour included."""
        self.spend(day.at(f"{date} 00:30", "Europe/Paris"), "2500")
        self.spend(day.at(f"{date} 02:30", "Europe/Paris", fold=0), "1000")
        self.spend(day.at(f"{date} 02:30", "Europe/Paris", fold=1), "1000")
        self.spend(day.at(f"{date} 23:30", "Europe/Paris"), "500")
        assert self.spend(day, "0.01").denial_reason == "LIMIT_EXCEEDED"
        assert {key.rsplit("|", 2)[1] for key in day.totals} == {f"{date}@Europe/Paris"}

    def test_a_new_media_partner_needs_review(self, day):
        """Rule 30 asks a person for a beneficiary that is not in the registry, whatever the amount and hour."""
        decision = self.spend(day, "10", beneficiary="unknown:1")
        assert (decision.outcome, fired(decision)) == ("require_approval", [30, 40])
        assert "new and needs review" in decision.message

    def test_a_missing_beneficiary_needs_review(self, day):
        """Leaving the beneficiary out is not a way past the list."""
        assert self.spend(day, "10", beneficiary=None).outcome == "require_approval"

    @pytest.mark.parametrize(
        "money", [{"currency": "USD", "amount": "10"}, {"amount": "10"}, {"currency": "EUR"}, {}]
    )
    def test_another_currency_no_currency_and_no_amount_are_refused(self, day, money):
        """What the cap cannot measure it refuses, and nothing is charged."""
        decision = day.submit("ads.spend", "growth-agent", beneficiary=KNOWN_PARTNER, **money)
        assert (decision.outcome, decision.denial_reason) == ("deny", "LIMIT_EXCEEDED")
        assert 40 not in fired(decision)
        assert day.totals == {}

    def test_nine_in_ten_charges_need_nobody(self, day):
        """A week as the text has it: 90 percent run by themselves, five to ten go to the growth lead."""
        outcomes = []
        for date in ("2026-03-02", "2026-03-03", "2026-03-04", "2026-03-05", "2026-03-06"):
            day.at(f"{date} 11:00", "Europe/Paris")
            outcomes += [self.spend(day, "90").outcome for _ in range(15)]
            outcomes += [self.spend(day, "1800").outcome]
        assert outcomes.count("allow") / len(outcomes) >= 0.9
        assert 5 <= outcomes.count("require_approval") <= 10


class TestCloudPurchases:
    """Ops agent: 1,000 per top-up, 500 without review, 10,000 a day over all vendors, no reserved capacity."""

    @pytest.fixture
    def day(self, example):
        return example("02-")

    def buy(self, day, amount, category="api_credits", **others):
        return day.submit("cloud.purchase", "ops-agent", **dollars(amount, category=category, **others))

    @pytest.mark.parametrize(
        ("amount", "outcome", "rules"),
        [
            ("500.00", "allow", []),
            ("500.01", "require_approval", [30]),
            ("999.99", "require_approval", [30]),
            ("1000.00", "require_approval", [10, 30]),
        ],
    )
    def test_the_review_begins_above_500_and_the_cto_at_1000(self, day, amount, outcome, rules):
        """Exactly 500 is free, exactly 1,000 is the CTO's."""
        decision = self.buy(day, amount)
        assert (decision.outcome, fired(decision)) == (outcome, rules)

    def test_the_cto_and_the_team_are_both_asked_at_1000(self, day):
        """Rules that fire together require all their approvers, within the policy's timeout."""
        terms = self.buy(day, "1000").approval
        assert terms.sets == (ApproverSet(("user:cto",)), ApproverSet(("group:infrastructure",)))
        assert terms.timeout == 7200

    def test_a_retry_loop_is_stopped_by_the_day(self, day):
        """Twenty purchases of 500 reach 10,000 exactly; every further one is refused, whatever the vendor."""
        vendors = ["aws", "anthropic", "openai"]
        outcomes = [self.buy(day, "500", beneficiary=vendors[turn % 3]).outcome for turn in range(50)]
        assert outcomes == ["allow"] * 20 + ["deny"] * 30
        assert sum(day.totals.values()) == Decimal(10000)

    def test_reserved_capacity_is_never_bought(self, day):
        """Rule 40 refuses the category at any price, which waiting cannot change."""
        decision = self.buy(day, "1", category="gpu_reserved_capacity")
        assert (decision.outcome, decision.denial_reason) == ("deny", "RULE_REJECTED")

    @pytest.mark.parametrize("left_out", ["amount", "currency", "category"])
    def test_leaving_a_declared_field_out_is_refused_first(self, day, left_out):
        """An action that does not say what it buys is refused before the rules, naming the field."""
        given = {**dollars("10", category="api_credits"), left_out: None}
        decision = day.submit("cloud.purchase", "ops-agent", **given)
        assert (decision.outcome, decision.denial_reason) == ("deny", "CONDITIONS_DENIED")
        assert [(c.field, c.operator, c.result) for c in decision.conditions] == [(left_out, "exists", False)]
        assert decision.missing == (left_out,)

    def test_87_percent_run_by_themselves(self, day):
        """Top-ups as small as the text's leave 87 in a hundred to the agent."""
        outcomes = [self.buy(day, "60").outcome for _ in range(87)] + [
            self.buy(day, "600").outcome for _ in range(7)
        ]
        assert outcomes.count("allow") == 87
        assert outcomes.count("require_approval") == 7

    def test_another_agent_has_no_policy(self, day):
        """The policy names ops-agent; nobody else may buy."""
        assert (
            day.submit("cloud.purchase", "intern-agent", **dollars("1", category="x")).outcome == "not_found"
        )


class TestRefunds:
    """Refund agent: 100 by itself, up to 500 with a supervisor, never from 500 on, 1,500 a day."""

    @pytest.fixture
    def day(self, example):
        return example("03-")

    def refund(self, day, amount, **others):
        return day.submit("refund.issue", "cs-agent", **{**euros(amount), **others})

    @pytest.mark.parametrize(
        ("amount", "outcome", "rules"),
        [
            ("0.01", "allow", [10]),
            ("100.00", "allow", [10]),
            ("100.01", "require_approval", [20]),
            ("499.99", "require_approval", [20]),
            ("500.00", "deny", [30]),
            ("10000.00", "deny", [30, 40]),
        ],
    )
    def test_the_bounds_meet_without_gap_or_overlap(self, day, amount, outcome, rules):
        """Exactly 100 is issued, exactly 500 is refused, in between a supervisor decides."""
        decision = self.refund(day, amount)
        assert (decision.outcome, fired(decision)) == (outcome, rules)

    def test_a_jailbreak_for_10000_is_a_refusal_and_not_a_limit(self, day):
        """Another day would not help either, so the reason is the rule and not the cap."""
        assert self.refund(day, "10000").denial_reason == "RULE_REJECTED"

    def test_small_refunds_cannot_walk_past_the_cap(self, day):
        """Fifteen refunds of 100 fill the day; rule 10 would still approve the sixteenth, rule 40 refuses it."""
        assert [self.refund(day, "100").outcome for _ in range(15)] == ["allow"] * 15
        decision = self.refund(day, "0.01")
        assert (decision.denial_reason, fired(decision)) == ("LIMIT_EXCEEDED", [10, 40])
        assert sum(day.totals.values()) == Decimal(1500)

    def test_a_refused_refund_is_not_charged(self, day):
        """What was denied leaves the cap as it was."""
        self.refund(day, "700")
        assert day.totals == {}

    @pytest.mark.parametrize(
        "money", [{"amount": "50", "currency": "USD"}, {"amount": "50", "currency": None}, {"amount": None}]
    )
    def test_unmeasurable_refunds_are_refused(self, day, money):
        """Another currency, none, and no amount at all are never approved automatically."""
        decision = day.submit("refund.issue", "cs-agent", **{**euros("50"), **money})
        assert decision.outcome == "deny"
        assert fired(decision) == [20, 30, 40]

    def test_the_agent_is_told_no_threshold(self, day):
        """Neither the message nor what the agent may see of rules holds a number."""
        from agentlattice_core.policy.explain import hide

        decision = hide(self.refund(day, "600"))
        assert not any(character.isdigit() for character in decision.message)
        assert [rule.to_dict() for rule in decision.rules] == [
            {
                "policy": "Refunds",
                "priority": 0,
                "type": "",
                "effect": "REJECT",
                "message": None,
                "details": {},
            }
        ]

    def test_each_agent_has_its_own_cap_and_children_share_their_parents(self, day):
        """A child cannot start afresh: its refunds count for itself and for every ancestor."""
        root = AgentFacts("cs-agent", "a1")
        child = AgentFacts("helper", "a2", ancestors=(root,), delegation=EVERYTHING)
        grandchild = AgentFacts("helper-2", "a3", ancestors=(root, child), delegation=EVERYTHING)
        for _ in range(7):
            assert self.refund_as(day, grandchild).outcome == "allow"
        for _ in range(8):
            assert self.refund_as(day, child).outcome == "allow"
        assert self.refund_as(day, root).denial_reason == "LIMIT_EXCEEDED"
        assert (
            self.refund_as(
                day, AgentFacts("helper", "a4", ancestors=(root,), delegation=EVERYTHING)
            ).denial_reason
            == "LIMIT_EXCEEDED"
        )
        by_subject = {key.split("|")[1]: total for key, total in day.totals.items()}
        assert by_subject == {"agent:a1": 1500, "agent:a2": 1500, "agent:a3": 700}

    def refund_as(self, day, agent):
        return day.submit("refund.issue", agent, **euros("100"))

    def test_78_in_100_refunds_are_issued_at_once(self, day):
        """With 78 percent of claims at most 100 euros, 78 percent need nobody."""
        amounts = ["15"] * 78 + ["250"] * 1 + ["900"] * 21
        outcomes = [self.refund(day, amount).outcome for amount in amounts]
        assert outcomes.count("allow") == 78


class TestCryptoTreasury:
    """Treasury agent: strict wallets, everybody above 50k, office hours in UTC, 250k a day."""

    GOOD = "bc1q-cold-storage"

    @pytest.fixture
    def day(self, example):
        return example("04-").at("2026-03-04 12:00")

    def move(self, day, amount, beneficiary=GOOD, **others):
        return day.submit(
            "treasury.transfer", "treasury-agent", **dollars(amount, beneficiary=beneficiary, **others)
        )

    @pytest.mark.parametrize("wallet", ["bc1q-proposed", "bc1q-typo", None])
    def test_only_wallets_two_partners_approved(self, day, wallet):
        """Unknown, merely proposed and missing destinations are all refused."""
        decision = self.move(day, "1", beneficiary=wallet)
        assert (decision.outcome, decision.denial_reason, fired(decision)) == ("deny", "RULE_REJECTED", [10])

    def test_a_tag_the_action_gives_itself_is_worth_nothing(self, day):
        """Tags are read from the registry only."""
        claims = {
            "tags": ["approved-by-two-partners"],
            "wallets": {"bc1q-typo": {"tags": ["approved-by-two-partners"]}},
        }
        assert self.move(day, "1", beneficiary="bc1q-typo", metadata=claims).outcome == "deny"

    def test_exactly_50000_is_free_and_a_cent_more_needs_all_three(self, day):
        """Both partners and the CFO, every one of them."""
        assert self.move(day, "50000.00").outcome == "allow"
        terms = self.move(day, "50000.01").approval
        assert terms.sets == (ApproverSet(("user:partner-a", "user:partner-b", "user:cfo"), "all"),)

    @pytest.mark.parametrize(
        ("utc", "outcome"),
        [
            ("2026-03-04 08:59:59", "require_approval"),
            ("2026-03-04 09:00:00", "allow"),
            ("2026-03-04 17:59:59", "allow"),
            ("2026-03-04 18:00:00", "require_approval"),
            ("2026-03-07 12:00:00", "require_approval"),
        ],
    )
    def test_outside_hours_are_reviewed(self, day, utc, outcome):
        """The window is half-open: 9:00 is inside, 18:00 is not."""
        assert self.move(day.at(utc), "10").outcome == outcome

    def test_large_and_late_asks_both_sets(self, day):
        """Two rules that fire together require both of their approver sets."""
        terms = self.move(day.at("2026-03-04 20:00"), "60000").approval
        assert len(terms.sets) == 2

    def test_the_outflow_is_one_for_the_organisation(self, day):
        """250,000 a day exactly, counted over all agents under the shared counter."""
        for _ in range(5):
            assert self.move(day, "50000").outcome == "allow"
        assert self.move(day, "0.01").denial_reason == "LIMIT_EXCEEDED"
        assert list(day.totals) == ["treasury-outflow|organisation:all|2026-03-04@UTC|USD"]


class TestProcurement:
    """Procurement agent: 25k per order, 80k a day, audited suppliers, no capital expenditure."""

    @pytest.fixture
    def day(self, example):
        return example("05-")

    def order(self, day, amount, beneficiary="supplier-07", category="raw_material"):
        return day.submit(
            "procurement.order",
            "procurement-agent",
            **euros(amount, beneficiary=beneficiary, category=category),
        )

    def test_25000_is_where_the_lead_signs(self, day):
        """Exactly 25,000 is signed off, a cent less is not."""
        assert self.order(day, "24999.99").outcome == "allow"
        assert self.order(day, "25000.00").outcome == "require_approval"

    def test_80000_a_day_over_the_whole_agent(self, day):
        """Orders that wait count as well; the cap is exact."""
        for amount in ("24000", "24000", "24000", "8000"):
            assert self.order(day, amount).outcome == "allow"
        assert self.order(day, "0.01").denial_reason == "LIMIT_EXCEEDED"

    def test_the_twelve_audited_suppliers_and_nobody_else(self, day):
        """Each of the twelve is free, a thirteenth is reviewed."""
        outcomes = [self.order(day, "10", f"supplier-{number:02d}").outcome for number in range(1, 14)]
        assert outcomes == ["allow"] * 12 + ["require_approval"]

    def test_capital_expenditure_is_refused(self, day):
        """And an order without a category is refused too, since it must say what it is."""
        assert self.order(day, "10", category="capital_expenditure").denial_reason == "RULE_REJECTED"
        assert self.order(day, "10", category=None).denial_reason == "CONDITIONS_DENIED"


class TestPayouts:
    """Payout agent: verified sellers, 5,000 per payout, 200k a day; nobody else pays sellers."""

    @pytest.fixture
    def day(self, example):
        return example("06-")

    def pay(self, day, amount, beneficiary="seller-1001", agent="payout-agent", **others):
        given = euros(amount, beneficiary=beneficiary, category="seller_payout", **others)
        return day.submit("payout.submit", agent, **given)

    def test_verified_sellers_below_5000_are_paid(self, day):
        """Exactly 5,000 is reviewed."""
        assert self.pay(day, "4999.99").outcome == "allow"
        assert self.pay(day, "5000.00").outcome == "require_approval"

    @pytest.mark.parametrize("seller", ["seller-2001", "seller-unknown", None])
    def test_unverified_sellers_are_reviewed_every_time(self, day, seller):
        """Whatever the amount, and however often."""
        assert [self.pay(day, "1", seller).outcome for _ in range(3)] == ["require_approval"] * 3

    def test_verification_comes_from_the_registry(self, day):
        """A payout that claims the tag for its seller is reviewed all the same."""
        claim = {"tags": ["KYC verified"], "kyc": "KYC verified"}
        assert self.pay(day, "1", "seller-2001", metadata=claim).outcome == "require_approval"

    def test_a_registry_in_the_store_wins_over_the_file(self, example):
        """When the store's registry says a seller is not verified, the file's word is void, and the other way round."""
        day = example("06-", registries={"sellers": {"seller-2001": {"tags": ["KYC verified"]}}})
        assert self.pay(day, "1", "seller-2001").outcome == "allow"
        assert self.pay(day, "1", "seller-1001").outcome == "require_approval"

    def test_200000_a_day(self, day):
        """The cap is exact over payouts that run and that wait."""
        for _ in range(40):
            assert self.pay(day, "5000").outcome == "require_approval"
        assert self.pay(day, "0.01").denial_reason == "LIMIT_EXCEEDED"

    def test_no_other_agent_pays_sellers_whatever_its_own_policy_allows(self, policies):
        """The guardrail holds for every action of every other agent, and for children that take the name."""
        from pathlib import Path

        text = (Path(__file__).parents[3] / "examples/policies/06-marketplace-payouts.yaml").read_text()
        allow_all = "policies:\n  - {name: Everything, action: '*', effect: allow}\n"
        day = policies(text.split("version: 1", 1)[1].replace("policies:\n", allow_all, 1))
        stranger = self.pay(day, "1", agent="marketing-agent")
        assert (stranger.outcome, stranger.denial_reason) == ("deny", "RULE_REJECTED")
        assert stranger.policy.name == "Payouts only by payout-agent"
        named_alike = AgentFacts(
            "payout-agent", "x2", ancestors=(AgentFacts("marketing-agent", "x1"),), delegation=EVERYTHING
        )
        assert self.pay(day, "1", agent=named_alike).outcome == "deny"
        own_child = AgentFacts(
            "anything", "x4", ancestors=(AgentFacts("payout-agent", "x3"),), delegation=EVERYTHING
        )
        assert self.pay(day, "1", agent=own_child).outcome == "allow"
        other_category = euros("1", beneficiary="seller-1001", category="ads")
        assert day.submit("payout.submit", "marketing-agent", **other_category).outcome == "allow"


EACH = {
    "01-": ("ads.spend", "growth-agent", {"beneficiary": KNOWN_PARTNER}, "EUR", "Europe/Paris", ["5000"]),
    "02-": ("cloud.purchase", "ops-agent", {"category": "api_credits"}, "USD", "UTC", ["10000"]),
    "03-": ("refund.issue", "cs-agent", {}, "EUR", "Europe/Paris", ["100"] * 15),
    "04-": (
        "treasury.transfer",
        "treasury-agent",
        {"beneficiary": "bc1q-cold-storage"},
        "USD",
        "UTC",
        ["250000"],
    ),
    "05-": (
        "procurement.order",
        "procurement-agent",
        {"beneficiary": "supplier-07", "category": "raw_material"},
        "EUR",
        "Europe/Berlin",
        ["80000"],
    ),
    "06-": (
        "payout.submit",
        "payout-agent",
        {"beneficiary": "seller-1001", "category": "seller_payout"},
        "EUR",
        "Europe/Paris",
        ["200000"],
    ),
}
"""By file: action, agent, what else the action says, the currency, whose midnight ends the day, what fills a day."""


@pytest.mark.parametrize("name", EACH)
class TestEveryUseCase:
    def test_money_that_cannot_be_measured_never_runs(self, example, name):
        """Another currency, no currency, no amount, neither: nothing is let through, and nothing is charged."""
        action, agent, said, currency, *_ = EACH[name]
        other = "USD" if currency == "EUR" else "EUR"
        day = example(name).at("2026-03-04 12:00")
        assert day.ask(action, agent, amount="1", currency=currency, **said).outcome == "allow"
        for money in ({"amount": "1", "currency": other}, {"amount": "1"}, {"currency": currency}, {}):
            assert day.submit(action, agent, **money, **said).outcome == "deny", money
        assert day.totals == {}

    @pytest.mark.parametrize("date", ["2026-03-04", "2026-03-28", "2026-10-24"])
    def test_a_day_ends_at_midnight_in_its_rule_s_zone(self, example, name, date):
        """A second before, the day is full; at midnight there is a new one, before the clocks change too."""
        action, agent, said, currency, zone, full = EACH[name]
        day = example(name).at(f"{date} 23:59:59", zone)
        for amount in full:
            assert day.submit(action, agent, amount=amount, currency=currency, **said).outcome != "deny"
        cent = {"amount": "0.01", "currency": currency, **said}
        assert day.ask(action, agent, **cent).denial_reason == "LIMIT_EXCEEDED"
        tomorrow = f"{date[:8]}{int(date[8:]) + 1:02d}"
        assert day.at(f"{tomorrow} 00:00:00", zone).ask(action, agent, **cent).outcome != "deny"
