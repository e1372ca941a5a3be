"""The contract itself: a careful adapter keeps it, and each kind of carelessness breaks it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from agentlattice_integrations.contract import Alternative, EnforcementContract, Feature, World

from bare_framework import BareHarness  # isort: skip - the framework lies beside this file


class TestBareFramework(EnforcementContract):
    """An adapter that does everything right keeps the whole contract."""

    harness = BareHarness()


_FLAWS = {
    "ungoverned": "test_a_denied_call_never_runs_and_the_model_reads_exactly_the_denial",
    "runs anyway": "test_a_denied_call_never_runs_and_the_model_reads_exactly_the_denial",
    "wrapped denial": "test_the_same_refusal_reads_the_same_everywhere",
    "no outcome": "test_an_allowed_call_runs_once_and_its_outcome_is_recorded",
    "misrouted": "test_parallel_calls_each_get_their_own_answer",
    "cache first": "test_a_cached_result_does_not_answer_a_call_that_is_denied_now",
    "one claim for all attempts": "test_every_attempt_of_a_retried_tool_holds_a_claim_of_its_own",
    "ignores edits": "test_arguments_changed_after_the_decision_are_not_used",
    "inner agents ungoverned": "test_the_tools_of_an_agent_reached_by_a_hand_off_are_governed",
}
_PARAMETERS = {
    "test_a_denied_call_never_runs_and_the_model_reads_exactly_the_denial": {"how": "sync"},
    "test_an_allowed_call_runs_once_and_its_outcome_is_recorded": {"how": "sync", "asynchronous": False},
    "test_parallel_calls_each_get_their_own_answer": {"how": "sync", "count": 2},
}


@pytest.mark.parametrize("flaw", _FLAWS)
def test_the_contract_notices_a_careless_adapter(flaw: str, tmp_path: Path) -> None:
    """With one flaw in the adapter, the test that stands for that promise fails."""

    class Careless(EnforcementContract):
        harness = BareHarness(flaw)

    test = _FLAWS[flaw]
    world = World(Careless.harness, tmp_path)
    try:
        with pytest.raises((AssertionError, ValueError)):
            getattr(Careless(), test)(world=world, **_PARAMETERS.get(test, {}))
    finally:
        world.close()


def test_a_missing_feature_is_checked_and_not_skipped(tmp_path: Path) -> None:
    """Where a framework declares that it lacks a feature, the alternative's own check decides."""

    def check(world: World) -> None:
        raise AssertionError("the alternative does not hold")

    class Lacking(BareHarness):
        alternatives: ClassVar = {Feature.CACHE: Alternative("there is no cache", check)}

    class Contract(EnforcementContract):
        harness = Lacking()

    world = World(Contract.harness, tmp_path)
    try:
        with pytest.raises(AssertionError, match="the alternative does not hold"):
            Contract().test_a_denial_is_never_cached(world=world)
    finally:
        world.close()
