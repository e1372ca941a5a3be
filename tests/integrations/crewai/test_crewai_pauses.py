"""What can happen to a flow that is paused for a person, beside what the pause contract asks of every adapter."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crew_pauses import Case, policies, versions
from crewai.flow.async_feedback import HumanFeedbackPending
from crewai.flow.persistence import SQLiteFlowPersistence

from agentlattice_core.errors import ForbiddenError, InvalidRequestError


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Case]]:
    made: list[Case] = []

    def case(calls: int = 1, **fields: Any) -> Case:
        made.append(Case(tmp_path / str(len(made)), calls, **fields))
        return made[-1]

    yield case
    for one in made:
        one.close()


def approved_of(calls: int, decision: str) -> list[str]:
    """The versions that a person approved."""
    everything = versions(calls)
    return {"approve": everything, "mixed": everything[::2]}.get(decision, [])


def check(case: Case, decision: str, told: Any) -> None:
    """The flow went on by `decision`: effects, what the model read, and the log agree."""
    approved = approved_of(case.calls, decision)
    assert case.effects() == sorted(["read", *approved])
    assert told["result"] == "done"
    assert told["shown"]["read"] == "read a"
    log = case.log()
    for version in versions(case.calls):
        read = told["shown"][version]
        ((status, reason, claim),) = log[version]
        if version in approved:
            assert read == f"deployed {version}"
            assert (status, claim) == ("approved", "succeeded") or (status, claim) == (
                "executed",
                "succeeded",
            )
            continue
        document = json.loads(read)
        assert document["executed"] is False
        if decision == "time out":
            assert (document["reason"], reason) == ("approval_timeout", "approval_timeout")
        else:
            assert (document["reason"], reason, document["message"]) == (
                "DENIED_BY_REVIEWER",
                "DENIED_BY_REVIEWER",
                "because",
            )


def test_the_text_protocol_pauses_once_for_each_call(make: Callable[..., Case]) -> None:
    """A model that makes one call after the other has a person asked for one after the other."""
    case = make(2, native=False)
    case.pause()
    case.decide("approve")
    again = case.resume()
    assert isinstance(again, HumanFeedbackPending)
    assert case.effects() == ["read", "v0"]
    case.decide("approve")
    assert case.resume()["shown"] == {"read": "read a", "v0": "deployed v0", "v1": "deployed v1"}
    assert case.effects() == ["read", "v0", "v1"]


def test_what_is_undecided_pauses_again_and_asks_nobody_twice(make: Callable[..., Case]) -> None:
    """Resuming before anybody decided leaves the same requests."""
    case = make(2)
    first = case.pause()
    again = case.resume()
    assert isinstance(again, HumanFeedbackPending)
    assert sorted(again.callback_info["approval_ids"]) == sorted(first.callback_info["approval_ids"])
    case.decide("approve")
    check(case, "approve", case.resume())


def test_an_answer_to_one_of_two_calls_runs_that_one(make: Callable[..., Case]) -> None:
    """The other one is still asked about, and what ran does not run again when it is answered."""
    case = make(2)
    case.pause()
    operator = case.client(operator="reviewer")
    (one,) = (r for r in operator.list_pending_approvals_sync() if r.metadata["version"] == "v1")
    operator.approve_action_sync(one.id)
    assert isinstance(case.resume(), HumanFeedbackPending)
    assert case.effects() == ["read", "v1"]
    case.decide("approve")
    check(case, "approve", case.resume())


def test_a_resume_done_twice_runs_nothing_twice(make: Callable[..., Case]) -> None:
    """Two flows loaded from one pause: the second one reads that the calls were made already."""
    case = make(2)
    case.pause()
    case.decide("approve")
    one, other = case.left(), case.left()
    check(case, "approve", one.resume())
    told = other.resume()
    assert {json.loads(told["shown"][version])["status"] for version in ("v0", "v1")} == {"unknown"}
    assert case.effects() == ["read", "v0", "v1"]
    with pytest.raises(ValueError, match="No pending feedback"):
        case.left()


def test_a_decision_before_the_pause_is_saved_counts(make: Callable[..., Case]) -> None:
    """Somebody answers while the flow is still on its way to its persistence."""
    case = make(2)

    class Slow(SQLiteFlowPersistence):
        def save_pending_feedback(self, *args: Any, **kwargs: Any) -> None:
            case.decide("mixed")
            super().save_pending_feedback(*args, **kwargs)

    case.pause(Slow(str(case.folder / "flows.db")))
    check(case, "mixed", case.resume())


def test_a_policy_that_denies_meanwhile_overrules_an_approval(make: Callable[..., Case]) -> None:
    """An approved call is decided on again when it is claimed."""
    case = make(1)
    case.pause()
    case.decide("approve")
    (case.folder / "policies.yaml").write_text(policies(deployments="deny"), encoding="utf-8")
    told = case.resume()
    assert json.loads(told["shown"]["v0"])["status"] == "denied"
    assert case.effects() == ["read"]


def test_an_approval_that_expires_while_paused_is_a_timeout(make: Callable[..., Case]) -> None:
    """A decision that comes too late does not count, whoever resumes."""
    case = make(1, timeout="1s")
    case.pause()
    case.decide("time out")
    check(case, "time out", case.resume())


def test_a_crash_after_the_tool_and_before_the_flows_end_does_not_run_it_again(
    make: Callable[..., Case],
) -> None:
    """The pause is still there, and the call reads that it was made."""
    case = make(1)
    case.pause()
    case.decide("approve")
    case.crashes = True
    with pytest.raises(RuntimeError, match="crashed"):
        case.resume()
    assert case.effects() == ["read", "v0"]
    case.crashes = False
    told = case.resume()
    assert json.loads(told["shown"]["v0"])["status"] == "unknown"
    assert case.effects() == ["read", "v0"]


def test_an_approval_said_to_the_flow_counts_only_from_an_operator(make: Callable[..., Case]) -> None:
    """The process of an agent cannot approve what the agent asked for."""
    case = make(2)
    case.pause()
    with pytest.raises(ForbiddenError, match="as an operator"):
        case.resume("approve")
    with pytest.raises(InvalidRequestError, match="no decision"):
        case.resume("looks good to me")
    assert case.effects() == ["read"]
    told = case.resume("approve: because", operator=case.client(operator="reviewer"))
    check(case, "approve", told)


def test_a_denial_said_to_the_flow_is_the_operators(make: Callable[..., Case]) -> None:
    """With an operator it is a denial with its reason."""
    case = make(2)
    case.pause()
    check(case, "deny", case.resume("deny: because", operator=case.client(operator="reviewer")))


def test_a_denial_said_to_the_flow_without_an_operator_cancels(make: Callable[..., Case]) -> None:
    """Nobody knows who said it, so it is no person's decision; nothing runs, and the reason is kept."""
    case = make(1)
    case.pause()
    document = json.loads(case.resume("no: too risky")["shown"]["v0"])
    assert (document["reason"], document["message"]) == ("APPROVAL_CANCELLED", "too risky")
    assert case.effects() == ["read"]
