"""Caps: never exceeded, reserved while a person decides, given back once, on the day they belong to."""

from __future__ import annotations

import multiprocessing
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agentlattice_core import AgentLattice
from agentlattice_core.testing import ManualClock


def spend(al: AgentLattice, amount: str, action_type: str = "refund.issue", currency: str = "EUR") -> str:
    return al.execute_sync(action_type, amount=amount, currency=currency).status


def test_a_cap_is_met_exactly_and_never_passed(al: AgentLattice) -> None:
    assert [spend(al, amount) for amount in ("99.99", "0.02", "0.01", "0.01")] == [
        "executed",
        "denied",
        "executed",
        "denied",
    ]


def test_decimals_that_binary_fractions_cannot_hold_add_up(al: AgentLattice) -> None:
    assert [spend(al, "0.1") for _ in range(1000)] == ["executed"] * 1000
    assert spend(al, "0.000000000000000001") == "denied"


def test_an_action_without_amount_or_in_another_currency_does_not_slip_past_a_cap(al: AgentLattice) -> None:
    assert spend(al, "1", currency="USD") == "denied"
    assert al.execute_sync("refund.issue").status == "denied"


def test_the_day_is_the_rules_own(al: AgentLattice, clock: ManualClock) -> None:
    clock.set(datetime(2026, 3, 2, 22, 59, 59, tzinfo=UTC))  # 23:59:59 in Paris
    assert spend(al, "100") == "executed"
    assert spend(al, "1") == "denied"
    clock.set(datetime(2026, 3, 2, 23, 0, 0, tzinfo=UTC))  # 00:00:00 in Paris
    assert spend(al, "100") == "executed"


def test_a_pending_request_holds_its_amount_and_a_denial_gives_it_back_once(
    al: AgentLattice, operator: AgentLattice
) -> None:
    asked = al.execute_sync("order.place", amount="60", currency="EUR")
    assert asked.status == "requested"
    assert spend(al, "60", "order.place") == "denied"
    assert asked.approval_id is not None
    operator.deny_action_sync(asked.approval_id)
    al.claim_sync(asked.audit_event_id)
    assert spend(al, "100", "order.place") == "requested"
    assert spend(al, "0.01", "order.place") == "denied"


def test_a_timeout_gives_the_amount_back(al: AgentLattice, clock: ManualClock) -> None:
    asked = al.execute_sync("order.place", amount="100", currency="EUR")
    assert asked.approval_id is not None
    clock.advance(minutes=31)
    assert al.await_approval_sync(asked.approval_id).status == "timed_out"
    assert spend(al, "100", "order.place") == "requested"


def test_a_claim_on_a_later_day_is_charged_to_that_day(
    al: AgentLattice, operator: AgentLattice, clock: ManualClock
) -> None:
    clock.set(datetime(2026, 3, 2, 23, 50, tzinfo=UTC))
    asked = al.execute_sync("order.place", amount="60", currency="EUR")
    assert asked.approval_id is not None
    operator.approve_action_sync(asked.approval_id)
    clock.set(datetime(2026, 3, 3, 0, 10, tzinfo=UTC))
    assert al.claim_sync(asked.audit_event_id).status == "executed"
    assert spend(al, "41", "order.place") == "denied"
    assert spend(al, "40", "order.place") == "requested"


def test_a_claim_asks_the_limit_of_its_own_day(
    al: AgentLattice, operator: AgentLattice, clock: ManualClock
) -> None:
    clock.set(datetime(2026, 3, 2, 23, 50, tzinfo=UTC))
    asked = al.execute_sync("order.place", amount="60", currency="EUR")
    assert asked.approval_id is not None
    operator.approve_action_sync(asked.approval_id)
    clock.set(datetime(2026, 3, 3, 0, 10, tzinfo=UTC))
    assert spend(al, "50", "order.place") == "requested"
    result = al.claim_sync(asked.audit_event_id)
    assert (result.status, result.denial_reason) == ("denied", "LIMIT_EXCEEDED")


def test_a_failure_gives_back_only_where_the_rule_says_so_and_only_once(
    al: AgentLattice, operator: AgentLattice
) -> None:
    spent = al.execute_sync("refund.issue", amount="100", currency="EUR")
    al.record_outcome(spent.audit_event_id, "failed")
    al.flush()
    assert spend(al, "1") == "denied"

    asked = al.execute_sync("order.place", amount="60", currency="EUR")
    assert asked.approval_id is not None
    operator.approve_action_sync(asked.approval_id)
    al.claim_sync(asked.audit_event_id)
    from agentlattice_core import ReportOutcome

    for _ in range(3):
        al.report_sync(asked.audit_event_id, ReportOutcome("failure"))
    assert spend(al, "100", "order.place") == "requested"
    assert spend(al, "0.01", "order.place") == "denied"


def test_limits_survive_a_restart(opened) -> None:
    al = opened()
    assert spend(al, "70") == "executed"
    al.close()
    assert spend(opened(), "31") == "denied"


def _spend_from_a_process(
    path: str, policies: str, threads: int, results: multiprocessing.Queue[int]
) -> None:
    allowed = []
    with AgentLattice.embedded(path, policies=policies, agent="ci") as al:

        def work() -> None:
            for _ in range(10):
                if spend(al, "1") == "executed":
                    allowed.append(1)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    results.put(len(allowed))


def test_threads_and_processes_racing_for_a_cap_get_exactly_the_cap(tmp_path: Path, policies: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[int] = spawn.Queue()
    arguments = (str(tmp_path / "governance.db"), str(policies), 8, results)
    processes = [spawn.Process(target=_spend_from_a_process, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    allowed = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sum(allowed) == 100
    with AgentLattice.embedded(tmp_path / "governance.db", agent="ci") as al:
        assert al.verify_sync().chain_valid
        assert al.verify_state_sync() == []


@pytest.mark.parametrize("count", [1, 3, 64])
async def test_concurrent_tasks_get_exactly_the_cap(al: AgentLattice, count: int) -> None:
    import asyncio

    async def work() -> int:
        allowed = 0
        for _ in range(200 // count + 1):
            result = await al.execute("refund.issue", amount="1", currency="EUR")
            allowed += result.status == "executed"
        return allowed

    assert sum(await asyncio.gather(*(work() for _ in range(count)))) == min(100, count * (200 // count + 1))


def test_what_a_request_that_timed_out_holds_is_free_though_nobody_waited_for_it(
    al: AgentLattice, clock: ManualClock
) -> None:
    asked = al.execute_sync("order.place", amount="100", currency="EUR")
    assert asked.status == "requested"
    assert spend(al, "1", "order.place") == "denied"
    clock.advance(minutes=31)
    assert al.can_i_sync("order.place", amount="100", currency="EUR").needs_approval
    assert spend(al, "100", "order.place") == "requested"
    assert spend(al, "0.01", "order.place") == "denied"
    assert al.claim_sync(asked.audit_event_id).status == "timed_out"
    assert al.verify_state_sync() == []
