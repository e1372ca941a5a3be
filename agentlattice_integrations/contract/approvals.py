"""A person decides: the tool waits, runs once when approved, and never otherwise."""

from __future__ import annotations

from agentlattice_integrations.contract.base import ContractPart, needs, needs_how
from agentlattice_integrations.contract.harness import Feature, How, ScriptedCall
from agentlattice_integrations.contract.world import World, parse_denial

__all__ = ["ApprovalContract"]

_DEPLOY = ScriptedCall("deploy", {"version": "1.4"})
_APPROVE = ScriptedCall("approve_everything", {})


class ApprovalContract(ContractPart):
    """`on_approval="wait"` and `"defer"`."""

    @needs_how
    def test_waiting_runs_the_tool_once_it_is_approved(self, world: World, how: How) -> None:
        """The call waits for the reviewer, then runs once; the model only sees the tool's result."""
        with world.deciding(approve=True):
            transcript = self.harness.run(
                world.governance(on_approval="wait"), world.tools("deploy"), [[_DEPLOY]], how=how
            )
        assert [seen.content for seen in transcript.seen] == ["deployed 1.4"]
        assert world.effects.of("deploy") == [{"version": "1.4"}]
        (event,) = world.events("deploy")
        assert event.claim == "succeeded"
        assert event.approved_by == "reviewer"

    @needs_how
    def test_waiting_denies_what_the_reviewer_denies(self, world: World, how: How) -> None:
        """The tool does not run, and the model reads the reviewer's reason."""
        with world.deciding(approve=False, reason="not on a friday"):
            transcript = self.harness.run(
                world.governance(on_approval="wait"), world.tools("deploy"), [[_DEPLOY]], how=how
            )
        document = self.assert_denied(transcript.seen[0], "DENIED_BY_REVIEWER")
        assert document["message"] == "not on a friday"
        assert document["retry_can_succeed"] is False
        assert world.effects.of() == []

    def test_waiting_ends_when_nobody_decides_in_time(self, world: World) -> None:
        """At the approval's deadline the model is told that nobody decided, and the tool has not run."""
        transcript = self.harness.run(
            world.governance(on_approval="wait"),
            world.tools("deploy_hastily"),
            [[ScriptedCall("deploy_hastily", {"version": "1.5"})]],
            how=self.any_how,
        )
        assert parse_denial(transcript.seen[0])["status"] == "timed_out"
        assert world.effects.of() == []

    @needs_how
    def test_deferring_tells_the_model_and_lets_it_go_on(self, world: World, how: How) -> None:
        """The first call is pending; the same call after the approval runs, once, without a second question."""
        transcript = self.harness.run(
            world.governance(on_approval="defer"),
            world.tools("deploy", "approve_everything"),
            [[_DEPLOY], [_DEPLOY], [_APPROVE], [_DEPLOY]],
            how=how,
        )
        first, again, approved, last = transcript.seen
        document = parse_denial(first)
        assert (document["status"], document["reason"]) == ("pending", "APPROVAL_PENDING")
        assert document["approval_id"]
        assert again.content == first.content
        assert approved.content == "approved 1"
        assert last.content == "deployed 1.4"
        assert world.effects.of("deploy") == [{"version": "1.4"}]
        assert [event.claim for event in world.events("deploy")] == ["succeeded"]

    def test_one_approval_lets_one_call_run(self, world: World) -> None:
        """After an approved call ran, the same call again needs an approval of its own."""
        transcript = self.harness.run(
            world.governance(on_approval="defer"),
            world.tools("deploy", "approve_everything"),
            [[_DEPLOY], [_APPROVE], [_DEPLOY], [_DEPLOY]],
            how=self.any_how,
        )
        assert transcript.seen[2].content == "deployed 1.4"
        assert parse_denial(transcript.seen[3])["status"] == "pending"
        assert len(world.effects.of("deploy")) == 1

    def test_an_approval_covers_its_own_arguments_only(self, world: World) -> None:
        """What was approved for one version does not let another version through."""
        transcript = self.harness.run(
            world.governance(on_approval="defer"),
            world.tools("deploy", "approve_everything"),
            [[_DEPLOY], [_APPROVE], [ScriptedCall("deploy", {"version": "6.6"})]],
            how=self.any_how,
        )
        assert parse_denial(transcript.seen[2])["status"] == "pending"
        assert world.effects.of("deploy") == []

    @needs_how
    @needs(Feature.PARALLEL)
    def test_parallel_approvals_reach_their_own_calls(self, world: World, how: How) -> None:
        """Two calls wait beside one that is free and one that is denied; each gets its own answer."""
        turn = [
            ScriptedCall("deploy", {"version": "a"}, call_id="call_a"),
            ScriptedCall("free", {"text": "b"}, call_id="call_b"),
            ScriptedCall("forbidden", {"text": "c"}, call_id="call_c"),
            ScriptedCall("deploy", {"version": "d"}, call_id="call_d"),
        ]
        with world.deciding(approve=True, count=2):
            transcript = self.harness.run(
                world.governance(on_approval="wait"),
                world.tools("deploy", "free", "forbidden"),
                [turn],
                how=how,
            )
        contents = [seen.content for seen in transcript.seen]
        assert (contents[0], contents[1], contents[3]) == ("deployed a", "said b", "deployed d")
        self.assert_denied(transcript.seen[2], "POLICY_DENIED")
        assert sorted(arguments["version"] for arguments in world.effects.of("deploy")) == ["a", "d"]
