"""A gate that answers for an adapter which suspends its run: at once, and to the same call only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agentlattice_core import AgentLattice
from agentlattice_core.toolcalls import Denial, Permit, ToolCall, ToolGate

_POLICIES = """
version: 1
policies:
  - {name: Deploy, action: tool.deploy, effect: require_approval, approval: {timeout: 10m}}
"""
_DEPLOY = ToolCall("test", "deploy", {"version": "1.4", "password": "hunter2"}, identity="thread-1/call-1")

Ask = Callable[[ToolGate, ToolCall], Permit | Denial]


@pytest.fixture
def al(tmp_path: Path) -> Iterator[AgentLattice]:
    """An agent that has to ask before it deploys."""
    policies = tmp_path / "policies.yaml"
    policies.write_text(_POLICIES, encoding="utf-8")
    with AgentLattice.embedded(tmp_path / "governance.db", policies=policies, agent="tester") as client:
        yield client


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Ask a gate that waits, with the one question to be paused on."""

    def asking(gate: ToolGate, call: ToolCall) -> Permit | Denial:
        if request.param == "sync":
            return gate.authorize_sync(call, "pause")
        return asyncio.run(gate.authorize(call, "pause"))

    return asking


def _pending(answer: Permit | Denial) -> Denial:
    assert isinstance(answer, Denial)
    assert (answer.status, answer.approval_id is None, answer.action_id is None) == ("pending", False, False)
    return answer


def test_a_paused_question_is_answered_at_once_and_asked_once(al: AgentLattice, ask: Ask) -> None:
    """However often the call comes again, in whatever gate: one request, and one run of what was approved."""
    first = _pending(ask(ToolGate(al), _DEPLOY))
    again = _pending(ask(ToolGate(al), _DEPLOY))
    assert (first.approval_id, first.action_id) == (again.approval_id, again.action_id)
    assert first.approval_id is not None
    al.for_operator("ana").approve_action_sync(first.approval_id)
    permit = ask(ToolGate(al), _DEPLOY)
    assert isinstance(permit, Permit)
    assert permit.action_id == first.action_id
    last = ask(ToolGate(al), _DEPLOY)
    assert isinstance(last, Denial)
    assert last.reason == "OUTCOME_UNKNOWN"


def test_equal_calls_beside_each_other_are_asked_about_apart(al: AgentLattice, ask: Ask) -> None:
    """Two calls with the same arguments have two requests, and an answer reaches the one it was given to."""
    gate = ToolGate(al)
    other = replace(_DEPLOY, identity="thread-1/call-2")
    first, second = _pending(ask(gate, _DEPLOY)), _pending(ask(gate, other))
    assert first.approval_id != second.approval_id
    assert second.approval_id is not None
    al.for_operator("ana").approve_action_sync(second.approval_id)
    _pending(ask(gate, _DEPLOY))
    assert isinstance(ask(gate, other), Permit)


def test_a_request_that_was_withdrawn_does_not_run(al: AgentLattice, ask: Ask) -> None:
    """The model reads why; withdrawing again, or after a decision, does nothing."""
    gate = ToolGate(al)
    action_id = _pending(ask(gate, _DEPLOY)).action_id
    assert action_id is not None
    gate.withdraw_sync(action_id, "not now")
    asyncio.run(gate.withdraw(action_id, "not ever"))
    denial = ask(gate, _DEPLOY)
    assert isinstance(denial, Denial)
    assert (denial.reason, denial.document["message"]) == ("APPROVAL_CANCELLED", "not now")


def test_what_a_person_is_shown_holds_no_secrets(al: AgentLattice) -> None:
    """The arguments as they are decided on, redacted as they are recorded."""
    shown = ToolGate(al).shown(_DEPLOY)
    assert shown["version"] == "1.4"
    assert "hunter2" not in str(shown)
    assert _DEPLOY.arguments == {"version": "1.4", "password": "hunter2"}
