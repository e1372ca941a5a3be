"""The four enterprise workflows: each example file decides as its text tells."""

from __future__ import annotations

import pytest
from policy_documents import EVERYTHING

from agentlattice_core.policy import ApproverSet
from agentlattice_core.principals import AgentFacts


def test_a_migration_waits_four_hours_for_a_dba_or_a_lead(example):
    """The action is requested with its approvers, timeout and escalation carried to the approval."""
    decision = example("07-").ask(
        "db.migrate",
        "prod-optimizer",
        data_accessed=[{"type": "database", "count": 1, "sensitivity": "high"}],
        metadata={"migration": "add_index_users_email", "table": "users", "environment": "production"},
    )
    assert (decision.outcome, decision.policy.name) == ("require_approval", "Database Migration Policy")
    assert decision.approval.timeout == 4 * 3600
    assert decision.approval.sets == (ApproverSet(("group:dba", "group:engineering-leads"), 1),)
    assert decision.approval.escalate_after == 3600
    assert decision.approval.escalate_to == ("group:oncall", "webhook:pager")


@pytest.mark.parametrize(
    ("metadata", "outcome"),
    [
        ({"service": "payment-api", "environment": "production"}, "require_approval"),
        ({"service": "payment-api", "environment": "staging"}, "allow"),
        ({"service": "payment-api"}, "require_approval"),
        ({"service": "payment-api", "environment": ["staging"]}, "require_approval"),
    ],
)
def test_a_deployment_to_production_is_asked_for(example, metadata, outcome):
    """Production, and whatever does not say that it is not, waits for a person."""
    decision = example("08-").ask("deploy.trigger", "ci-deployer", metadata=metadata)
    assert decision.outcome == outcome
    assert decision.policy.name == "Production Deploy Policy"


def test_every_merge_is_asked_for(example):
    """Whoever asks and whatever it holds."""
    decision = example("09-").ask(
        "pr.merge",
        "code-agent",
        data_accessed=[{"type": "source_code", "count": 142, "sensitivity": "medium"}],
        metadata={"pr_number": 87, "repo": "acme/backend", "author": "code-agent"},
    )
    assert (decision.outcome, decision.policy.name) == ("require_approval", "PR Merge Policy")


class TestIncidentResponse:
    """Credentials are denied without a grant, with the reason; configuration is not."""

    CREDENTIALS = [{"type": "credentials", "count": 3, "sensitivity": "critical"}]  # noqa: RUF012

    def test_credentials_are_denied_with_the_condition_that_failed(self, example):
        """The agent learns that critical sensitivity is what blocked it."""
        decision = example("10-").ask("secret.read", "incident-responder", data_accessed=self.CREDENTIALS)
        assert (decision.outcome, decision.denial_reason) == ("deny", "CONDITIONS_DENIED")
        assert decision.policy.name == "Credential Access Policy"
        first = decision.conditions[0]
        assert (first.field, first.operator, first.expected, first.result) == (
            "sensitivity",
            "neq",
            "critical",
            False,
        )

    def test_the_fallback_to_configuration_is_executed(self, example):
        """Under the explicit default policy."""
        data = [{"type": "filesystem", "count": 1, "sensitivity": "low"}]
        decision = example("10-").ask("config.read", "incident-responder", data_accessed=data)
        assert (decision.outcome, decision.policy.name) == ("allow", "Allow All (Default)")

    def test_an_explicit_grant_opens_it(self, example):
        """For the agent that holds it, and not for a child to which it was not passed on."""
        granted = AgentFacts("incident-responder", "a1", grants=frozenset({"secret.read"}))
        ungranted_child = AgentFacts("reader", "a2", ancestors=(granted,), delegation=EVERYTHING)
        boasting_child = AgentFacts(
            "reader",
            "a2",
            grants=frozenset({"secret.read"}),
            ancestors=(AgentFacts("root", "a0"),),
            delegation=EVERYTHING,
        )
        day = example("10-")
        assert day.ask("secret.read", granted, data_accessed=self.CREDENTIALS).outcome == "allow"
        assert day.ask("secret.read", ungranted_child, data_accessed=self.CREDENTIALS).outcome == "deny"
        assert day.ask("secret.read", boasting_child, data_accessed=self.CREDENTIALS).outcome == "deny"

    def test_not_saying_how_sensitive_is_denied(self, example):
        """Leaving the data out is not a way around the condition."""
        decision = example("10-").ask("secret.read", "incident-responder")
        assert (decision.outcome, decision.missing) == ("deny", ("sensitivity",))
