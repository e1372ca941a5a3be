"""What the policy tests share: an organisation's day, driven action by action through a policy set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from policy_documents import EXAMPLES

from agentlattice_core.actions import Action
from agentlattice_core.policy import Decision, Facts, PolicyDocument, PolicySet
from agentlattice_core.policy.rules import exact_sum
from agentlattice_core.principals import AgentFacts
from agentlattice_core.results import ActionOptions


class Day:
    """A policy set, a clock and the totals charged so far. What is admitted or waits for a person is charged."""

    def __init__(self, policies: PolicySet, registries: dict[str, Any] | None = None) -> None:
        self.policies = policies
        self.registries = registries or {}
        self.totals: dict[str, Decimal] = {}
        self.now = datetime(2026, 3, 4, 10, 0, tzinfo=ZoneInfo("UTC"))  # a Wednesday

    def at(self, local: str, zone: str = "UTC", fold: int = 0) -> Day:
        """Set the clock to a local time such as `2026-03-06 22:00`; `fold` picks the second of two equal ones."""
        self.now = datetime.fromisoformat(local).replace(tzinfo=ZoneInfo(zone), fold=fold)
        return self

    def facts(
        self, action_type: str, agent: str | AgentFacts, *, trusted: Iterable[str] = (), **options: Any
    ) -> Facts:
        acting = agent if isinstance(agent, AgentFacts) else AgentFacts(agent, f"id-of-{agent}")
        action = Action.build(action_type, ActionOptions(**options), trusted=trusted)
        now = self.now.astimezone(ZoneInfo("UTC"))
        return Facts(action, acting, now, lambda key: self.totals.get(key, Decimal(0)), self.registries)

    def ask(self, action_type: str, agent: str | AgentFacts = "agent", **options: Any) -> Decision:
        """Decide without charging."""
        return self.policies.decide(self.facts(action_type, agent, **options))

    def submit(self, action_type: str, agent: str | AgentFacts = "agent", **options: Any) -> Decision:
        """Decide, and charge what the decision says."""
        decision = self.ask(action_type, agent, **options)
        for charge in decision.charges:
            self.totals[charge.key] = exact_sum(self.totals.get(charge.key, Decimal(0)), charge.amount)
        return decision


@pytest.fixture
def example() -> Callable[[str], Day]:
    """A day under one of the example files, by the beginning of its name."""

    def load(name: str, **options: Any) -> Day:
        (path,) = EXAMPLES.glob(f"{name}*.yaml")
        return Day(PolicySet.from_document(PolicyDocument.load(path)), **options)

    return load


@pytest.fixture
def policies() -> Callable[[str], Day]:
    """A day under the policies of a text; `version: 1` is put in front."""

    def parse(text: str, **options: Any) -> Day:
        return Day(PolicySet.from_document(PolicyDocument.parse(f"version: 1\n{text}")), **options)

    return parse
