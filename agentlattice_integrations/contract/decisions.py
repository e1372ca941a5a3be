"""Allowed runs once, denied never runs, and each of several parallel calls gets its own answer."""

from __future__ import annotations

import pytest

from agentlattice_integrations.contract.base import ContractPart, ends_with, needs, needs_how
from agentlattice_integrations.contract.harness import Feature, How, ScriptedCall
from agentlattice_integrations.contract.world import World, parse_denial, statuses

__all__ = ["DecisionContract"]

_SMALL = ScriptedCall("open_pr", {"title": "small", "pr_size": 40})
_LARGE = ScriptedCall("open_pr", {"title": "large", "pr_size": 87})


class DecisionContract(ContractPart):
    """Policy's answer reaches the tool and the model, however the agent is run."""

    @pytest.mark.parametrize("asynchronous", [False, True], ids=["plain tool", "coroutine tool"])
    @needs_how
    def test_an_allowed_call_runs_once_and_its_outcome_is_recorded(
        self, world: World, how: How, asynchronous: bool
    ) -> None:
        """The tool runs once with what the model wrote, the model sees its result, and the log says it succeeded."""
        tools = world.tools("free", asynchronous=asynchronous and how != "sync")
        transcript = self.harness.run(
            world.governance(), tools, [[ScriptedCall("free", {"text": "hello"})]], how=how
        )
        assert world.effects.of() == [{"text": "hello"}]
        assert [seen.content for seen in transcript.seen] == ["said hello"]
        assert [(event.status, event.claim) for event in world.events("free")] == [("executed", "succeeded")]

    @needs_how
    def test_a_denied_call_never_runs_and_the_model_reads_exactly_the_denial(
        self, world: World, how: How
    ) -> None:
        """No effect; the model sees the denial document and nothing around it; the run goes on to its end."""
        expected = world.reference_denial("forbidden", {"text": "now"}).text
        transcript = self.harness.run(
            world.governance(),
            world.tools("forbidden", "free"),
            [[ScriptedCall("forbidden", {"text": "now"})], [ScriptedCall("free", {"text": "instead"})]],
            how=how,
        )
        assert [seen.content for seen in transcript.seen] == [expected, "said instead"]
        assert world.effects.of("forbidden") == []
        assert world.effects.of("free") == [{"text": "instead"}]
        assert transcript.final
        assert [event.denial_reason for event in world.events("forbidden")] == ["POLICY_DENIED"] * 2

    @needs_how
    def test_a_model_can_correct_a_call_by_what_the_denial_says(self, world: World, how: How) -> None:
        """The denial names the failed condition, what it expected and what it got; the corrected call runs."""
        transcript = self.harness.run(
            world.governance(), world.tools("open_pr"), [[_LARGE], [_SMALL]], how=how
        )
        document = self.assert_denied(transcript.seen[0], "CONDITIONS_DENIED")
        assert document["policy"] == "PR Size"
        assert document["failed_conditions"] == [
            {"field": "pr_size", "operator": "lt", "expected": 50, "actual": 87}
        ]
        assert document["what_to_change"] == ["set pr_size below 50 (it was 87)"]
        assert document["retry_can_succeed"] is True
        assert transcript.seen[1].content == "opened small"
        assert world.effects.of("open_pr") == [{"title": "small", "pr_size": 40}]

    def test_a_tool_without_a_policy_does_not_run(self, world: World) -> None:
        """What no policy mentions is denied, and the model is told that no policy allows it."""

        def unheard_of(text: str) -> str:
            """Do something new."""
            world.effects.ran("unheard_of", text=text)
            return "done"

        tool = self.harness.make_tool(unheard_of, name="unheard_of")
        transcript = self.harness.run(
            world.governance(), [tool], [[ScriptedCall("unheard_of", {"text": "x"})]], how=self.any_how
        )
        self.assert_denied(transcript.seen[0], "POLICY_NOT_FOUND")
        assert world.effects.of() == []

    @pytest.mark.parametrize("count", [1, 2, 5])
    @needs_how
    @needs(Feature.PARALLEL)
    def test_parallel_calls_each_get_their_own_answer(self, world: World, how: How, count: int) -> None:
        """Of several calls in one turn each is decided by itself, and no answer reaches another call."""
        sizes = [10 + position if position % 2 == 0 else 80 + position for position in range(count)]
        turn = [
            ScriptedCall("open_pr", {"title": f"pr {size}", "pr_size": size}, call_id=f"call_{size}")
            for size in sizes
        ]
        transcript = self.harness.run(world.governance(), world.tools("open_pr"), [turn], how=how)
        assert len(transcript.seen) == count
        for size, seen in zip(sizes, transcript.seen, strict=True):
            if size < 50:
                assert seen.content == f"opened pr {size}"
            else:
                (failed,) = parse_denial(seen)["failed_conditions"]
                assert failed["actual"] == size
        ran = sorted(arguments["pr_size"] for arguments in world.effects.of("open_pr"))
        assert ran == sorted(size for size in sizes if size < 50)
        assert len(world.events("open_pr")) == count

    @needs_how
    @needs(Feature.PARALLEL)
    def test_parallel_calls_cannot_pass_a_limit_together(self, world: World, how: How) -> None:
        """Five orders of 40 against a daily cap of 100: exactly two run, whatever their timing."""
        turn = [
            ScriptedCall("order", {"amount": "40", "currency": "EUR"}, call_id=f"call_{n}") for n in range(5)
        ]
        transcript = self.harness.run(world.governance(), world.tools("order"), [turn], how=how)
        assert len(world.effects.of("order")) == 2
        assert sorted(statuses(transcript.seen)) == ["denied"] * 3 + ["ran"] * 2

    def test_a_failing_tool_is_recorded_as_failed(self, world: World) -> None:
        """The tool's own error goes where the framework sends it, and the log says that the run failed."""
        with ends_with("the flaky tool failed"):
            self.harness.run(
                world.governance(),
                world.tools("flaky"),
                [[ScriptedCall("flaky", {"text": "x"})]],
                how=self.any_how,
            )
        assert world.effects.of("flaky")
        assert {event.claim for event in world.events("flaky")} == {"failed"}

    def test_the_report_lists_every_tool_as_governed(self, world: World) -> None:
        """`govern(...)` accounts for each tool it was given, with the action type policy will be asked for."""
        transcript = self.harness.run(
            world.governance(), world.tools("free", "open_pr"), [[_SMALL]], how=self.any_how
        )
        assert transcript.coverage is not None
        found = {tool.name: (tool.status, tool.action_type) for tool in transcript.coverage}
        assert found["free"] == ("governed", "tool.free")
        assert found["open_pr"] == ("governed", "tool.open_pr")
        transcript.coverage.raise_if_uncovered()
