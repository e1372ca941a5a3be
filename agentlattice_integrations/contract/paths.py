"""What looks like a way around the gate: servers, hand-offs, caches, retries, edits, late tools, direct calls."""

from __future__ import annotations

from typing import Any

import pytest

from agentlattice_integrations.contract.base import ContractPart, ends_with, needs
from agentlattice_integrations.contract.harness import Feature, ScriptedCall
from agentlattice_integrations.contract.world import World, parse_denial, statuses

__all__ = ["PathContract"]

_FREE = ScriptedCall("free", {"text": "hello"})
_FORBIDDEN = ScriptedCall("forbidden", {"text": "now"})


class PathContract(ContractPart):
    """Nothing gets around the gate."""

    @needs(Feature.MCP)
    def test_tools_of_an_mcp_server_are_governed(self, world: World) -> None:
        """Tools that come from a real server over stdio are decided on like any other."""
        transcript = self.harness.run_mcp(
            world.governance(),
            world.mcp_server(),
            [
                [_FREE],
                [_FORBIDDEN],
                [ScriptedCall("open_pr", {"title": "large", "pr_size": 87})],
                [ScriptedCall("open_pr", {"title": "small", "pr_size": 40})],
            ],
        )
        assert "said hello" in transcript.seen[0].content
        self.assert_denied(transcript.seen[1], "POLICY_DENIED")
        self.assert_denied(transcript.seen[2], "CONDITIONS_DENIED")
        assert "opened small" in transcript.seen[3].content
        assert world.effects.of("forbidden") == []
        assert world.effects.of("open_pr") == [{"title": "small", "pr_size": 40}]

    @needs(Feature.HANDOFF)
    def test_the_tools_of_an_agent_reached_by_a_hand_off_are_governed(self, world: World) -> None:
        """Governing the first agent is enough: the one it hands over to cannot run what policy denies."""
        transcript = self.harness.run_handoff(
            world.governance(), world.tools("free", "forbidden"), [[_FORBIDDEN], [_FREE]]
        )
        self.assert_denied(transcript.seen[0], "POLICY_DENIED")
        assert transcript.seen[1].content == "said hello"
        assert world.effects.of("forbidden") == []

    @needs(Feature.HANDOFF)
    def test_a_hand_off_that_policy_denies_does_not_happen(self, world: World) -> None:
        """The hand-off is an action itself; denied, the first agent reads why and the second never starts."""
        with self.another_world(world, handoffs="deny") as strict:
            transcript = self.harness.run_handoff(
                strict.governance(), strict.tools("free"), [[_FREE]], denied=True
            )
            self.assert_denied(transcript.seen[0], "POLICY_DENIED")
            assert strict.effects.of() == []

    @needs(Feature.AGENT_AS_TOOL)
    def test_the_tools_of_an_agent_used_as_a_tool_are_governed(self, world: World) -> None:
        """An inner agent's tools are decided on, though only the outer agent was governed."""
        transcript = self.harness.run_agent_as_tool(
            world.governance(), world.tools("free", "forbidden"), [[_FORBIDDEN], [_FREE]]
        )
        self.assert_denied(transcript.seen[0], "POLICY_DENIED")
        assert transcript.seen[1].content == "said hello"
        assert world.effects.of("forbidden") == []

    @needs(Feature.LATE_TOOLS)
    def test_a_tool_added_later_is_governed(self, world: World) -> None:
        """A tool that joins after the agent was governed cannot run what policy denies."""
        (late,) = world.tools("forbidden")
        transcript = self.harness.run_with_late_tool(
            world.governance(), world.tools("free"), late, [[_FORBIDDEN], [_FREE]]
        )
        self.assert_denied(transcript.seen[0], "POLICY_DENIED")
        assert transcript.seen[1].content == "said hello"
        assert world.effects.of("forbidden") == []

    @needs(Feature.CACHE)
    def test_a_cached_result_does_not_answer_a_call_that_is_denied_now(self, world: World) -> None:
        """The same order twice against a daily cap that holds one: the second is denied, not served from the cache."""
        order = ScriptedCall("order", {"amount": "60", "currency": "EUR"})
        transcript = self.harness.run_with_cache(world.governance(), world.tools("order"), [[order], [order]])
        assert statuses(transcript.seen) == ["ran", "denied"]
        assert len(world.effects.of("order")) == 1

    @needs(Feature.CACHE)
    def test_a_denial_is_never_cached(self, world: World) -> None:
        """A call that was pending runs once it is approved: the cache did not keep the denial as the tool's result."""
        deploy = ScriptedCall("deploy", {"version": "1.4"})
        transcript = self.harness.run_with_cache(
            world.governance(on_approval="defer"),
            world.tools("deploy", "approve_everything"),
            [[deploy], [ScriptedCall("approve_everything", {})], [deploy]],
        )
        assert parse_denial(transcript.seen[0])["status"] == "pending"
        assert transcript.seen[2].content == "deployed 1.4"

    @needs(Feature.RETRY)
    def test_every_attempt_of_a_retried_tool_holds_a_claim_of_its_own(self, world: World) -> None:
        """However often the framework runs a raising tool, each run is an action of its own, recorded as failed."""
        with ends_with("the flaky tool failed"):
            self.harness.run_with_retries(
                world.governance(), world.tools("flaky"), [[ScriptedCall("flaky", {"text": "x"})]], attempts=3
            )
        runs = world.effects.of("flaky")
        assert 2 <= len(runs) <= 3
        events = world.events("flaky")
        assert len(events) == len(runs)
        assert {event.claim for event in events} == {"failed"}

    @needs(Feature.RETRY)
    def test_a_denial_is_not_retried(self, world: World) -> None:
        """A denied call is asked about once, and the tool never runs, though retries are on."""
        transcript = self.harness.run_with_retries(
            world.governance(), world.tools("forbidden"), [[_FORBIDDEN]], attempts=3
        )
        self.assert_denied(transcript.seen[0], "POLICY_DENIED")
        assert world.effects.of() == []
        assert len(world.events("forbidden")) == 1

    @needs(Feature.EDIT)
    def test_arguments_changed_after_the_decision_are_not_used(self, world: World) -> None:
        """A call that was allowed for 40 files cannot become one of 87 on its way to the tool."""
        transcript = self.harness.run_with_edit(
            world.governance(),
            world.tools("open_pr"),
            [[ScriptedCall("open_pr", {"title": "grows", "pr_size": 40})]],
            lambda arguments: {**arguments, "pr_size": 87},
        )
        assert world.effects.of("open_pr") == []
        assert parse_denial(transcript.seen[0])["status"] == "denied"

    @needs(Feature.EDIT)
    def test_what_ran_is_what_was_recorded(self, world: World) -> None:
        """If a change of the arguments is decided on again and allowed, the log holds the arguments that ran."""
        self.harness.run_with_edit(
            world.governance(),
            world.tools("open_pr"),
            [[ScriptedCall("open_pr", {"title": "shrinks", "pr_size": 40})]],
            lambda arguments: {**arguments, "pr_size": 30},
        )
        recorded = [event.metadata for event in world.events("open_pr") if event.claim == "succeeded"]
        assert all(arguments in recorded for arguments in world.effects.of("open_pr"))

    @pytest.mark.parametrize("how", ["sync", "async"])
    @needs(Feature.DIRECT)
    def test_a_tool_called_without_an_agent_is_governed(self, world: World, how: Any) -> None:
        """Calling the governed tool itself, as an application may, asks policy like any other call."""
        expected = world.reference_denial("forbidden", {"text": "now"}).text
        (free,), (forbidden,) = world.tools("free"), world.tools("forbidden")
        governance = world.governance()
        assert self.harness.call_directly(governance, free, {"text": "hello"}, how=how) == "said hello"
        assert self.harness.call_directly(governance, forbidden, {"text": "now"}, how=how) == expected
        assert world.effects.of("forbidden") == []
        assert [event.claim for event in world.events("free")] == ["succeeded"]

    @needs(Feature.HOSTED)
    def test_tools_that_the_provider_runs_are_refused(self, world: World) -> None:
        """What runs on the provider's side is taken away by default; the report names it and says why."""
        hosted = list(self.harness.hosted_tools())
        assert hosted
        transcript = self.harness.run(
            world.governance(), [*world.tools("free"), *hosted], [[_FREE]], how=self.any_how
        )
        assert transcript.seen[0].content == "said hello"
        assert transcript.coverage is not None
        assert len(transcript.coverage.refused) == len(hosted)
        assert all(tool.why for tool in transcript.coverage.refused)
        assert transcript.coverage.not_coverable == ()
