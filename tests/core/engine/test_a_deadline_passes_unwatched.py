"""A request whose deadline passes while nobody waits for it is over all the same."""

from __future__ import annotations

from agentlattice_core import AgentLattice
from agentlattice_core.testing import ManualClock
from agentlattice_core.toolcalls import Denial, Permit, ToolCall, ToolGate, arg, governed


@governed("order.place", amount=arg("amount"), currency="EUR")
def order(amount: str, item: str) -> str:
    return f"ordered {item} for {amount}"


def _ask(gate: ToolGate, item: str, identity: str | None = None) -> Denial | Permit:
    call = {"amount": "80.00", "item": item}
    return gate.authorize_sync(ToolCall("test", "order", call, identity=identity, target=order))


def test_a_claim_after_the_deadline_reads_timed_out(al: AgentLattice, clock: ManualClock) -> None:
    """Not pending for ever: the claim finds that time is over, and the log says so."""
    asked = al.execute_sync("order.place", amount="80.00", currency="EUR")
    clock.advance(minutes=31)
    claimed = al.claim_sync(asked.audit_event_id)
    assert (claimed.status, claimed.denial_reason) == ("timed_out", "approval_timeout")
    assert al.verify_state_sync() == []


def test_a_deferred_call_is_told_that_nobody_decided_and_then_asks_anew(
    al: AgentLattice, clock: ManualClock
) -> None:
    """With and without an identity of the call; what the request had reserved is free again."""
    gate = ToolGate(al, on_approval="defer")
    for identity in (None, "call-1"):
        first = _ask(gate, "lamp", identity)
        assert isinstance(first, Denial)
        assert first.reason == "APPROVAL_PENDING"
        clock.advance(minutes=31)
        second = _ask(gate, "lamp", identity)
        assert isinstance(second, Denial)
        assert (second.status, second.reason) == ("timed_out", "approval_timeout")
    third = _ask(gate, "desk")
    assert isinstance(third, Denial)
    assert third.reason == "APPROVAL_PENDING"
