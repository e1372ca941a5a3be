"""Of all processes that want to write, one does, for all: answers, identities, limits and errors survive it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import orjson
import pytest
from neighbours import (
    PATIENCE,
    Hosting,
    Neighbour,
    actions,
    note,
    state_is_what_the_log_makes_of_it,
    until,
)

from agentlattice_core import EventIdConflictError, NotFoundError
from agentlattice_core.actions import MAX_PAYLOAD_BYTES
from agentlattice_core.admission import Caller
from agentlattice_core.batch import Batch
from agentlattice_core.commands import Execution, Outcome
from agentlattice_core.results import ActionResult, ConditionResult, RuleResult
from agentlattice_core.stores import exchange as exchange_module
from agentlattice_core.stores.exchange import Exchange
from agentlattice_core.testing import ManualClock

Join = Callable[..., Neighbour]


def test_an_action_is_run_in_the_transaction_of_whoever_writes(host: Neighbour, guest: Neighbour) -> None:
    """It is recorded once, in its own agent's name, and its process commits nothing."""
    before = guest.own_commits()
    with Hosting(host, guest):
        result = guest.act("note.write", context={"run": "r1"}, trusted=("amount",), amount="7.10")
    assert guest.own_commits() == before
    assert result.status == "executed"
    entry = actions(host.store)[-1]
    assert entry["id"] == result.audit_event_id
    assert entry["who"]["agent"] == "guest"
    assert entry["data"]["trusted"] == ["amount"]
    with guest.store.read() as reader:
        payload = reader.row(entry["i"])[4]
    assert b'"run":"r1"' in payload
    assert b'"amount":"7.10"' in payload
    assert len(actions(host.store)) == 1


@pytest.mark.parametrize(
    ("action_type", "options"),
    [
        ("note.write", {}),
        ("secret.read", {}),
        ("unknown.thing", {}),
        ("small.pay", {"amount": "60", "currency": "EUR", "metadata": {"tier": "a"}}),
        ("refund.issue", {"amount": "6", "currency": "EUR"}),
        ("refund.issue", {"amount": "1.50", "currency": "EUR", "event_id": "é-1"}),
        ("secret.read", {"mode": "observe"}),
        ("note.write", {"metadata": {"deep": [{"a": None, "b": [1, 2.5, True, "ü"]}]}}),
    ],
)
def test_an_answer_reads_the_same_whoever_ran_the_action(
    host: Neighbour, guest: Neighbour, action_type: str, options: dict[str, Any]
) -> None:
    """Decided at home, decided abroad, and found in the log after the answer was lost."""
    options = {**options}
    event = options.pop("event_id", None)

    def act(name: str) -> dict[str, Any]:
        return asdict(guest.act(action_type, **options, event_id=event and event + name))

    at_home = act("home")
    before = guest.own_commits()
    with Hosting(host, guest):
        abroad = act("abroad")
    assert guest.own_commits() == before
    lost = Hosting(host, guest)
    with pytest.MonkeyPatch.context() as patched, lost:
        patched.setattr(Exchange, "answer", lambda self, guests: None)
        found = act("found")
    assert guest.own_commits() > before
    ids = [answer.pop("audit_event_id") for answer in (at_home, abroad, found)]
    assert abroad == at_home
    assert found == at_home
    assert ids == [entry["id"] for entry in actions(host.store)]


def test_a_request_for_approval_is_the_same_when_its_answer_was_lost(
    host: Neighbour, guest: Neighbour
) -> None:
    with pytest.MonkeyPatch.context() as patched, Hosting(host, guest):
        patched.setattr(Exchange, "answer", lambda self, guests: None)
        result = guest.act("deploy.web", event_id="once")
    assert result.status == "requested"
    assert not result.replayed
    again = guest.act("deploy.web", event_id="once")
    assert again.replayed
    assert (again.approval_id, again.timeout_at) == (result.approval_id, result.timeout_at)
    assert len(actions(host.store)) == 1


def test_a_limit_is_shared_exactly(path: Path, join: Join, guest: Neighbour) -> None:
    """A cap of five, of which one agent spends some in one process and some in another."""
    statuses, host = [], join()
    for _ in range(4):
        with Hosting(host, guest):
            statuses.append(guest.act("refund.issue", amount="1", currency="EUR").status)
        statuses.append(host.act("refund.issue", amount="1", currency="EUR").status)
    assert statuses == ["executed"] * 5 + ["denied"] * 3
    assert state_is_what_the_log_makes_of_it(path)


def test_outcomes_ride_along_to_the_other_process(host: Neighbour, guest: Neighbour) -> None:
    ran = guest.act("note.write")
    caller = Caller("guest")
    guest.sequencer.post(Outcome(caller, ran.audit_event_id, "succeeded", "well"))
    guest.sequencer.post(
        Outcome(caller, "evt_there-is-none", "failed", None)
    )  # the other process leaves it here
    with Hosting(host, guest):
        guest.act("note.write")
    assert not guest.sequencer.has_riders
    with host.store.read() as reader:
        claims = [document.get("claim") for _, document in reader.scan("action")]
    assert claims == ["succeeded", "started"]


@pytest.mark.parametrize("event_id", ["evt_\ud800", object()])
def test_an_outcome_that_is_no_data_stops_nobody(host: Neighbour, guest: Neighbour, event_id: Any) -> None:
    """It cannot be sent, and what it is about cannot be found; actions go on."""
    guest.sequencer.post(Outcome(Caller("guest"), event_id, "succeeded", None))
    hosting = Hosting(host)
    with hosting:
        hosting.over.set()
        assert guest.act("note.write").status == "executed"
    assert not guest.sequencer.has_riders


def test_an_error_is_raised_in_its_own_process_only(join: Join, host: Neighbour, guest: Neighbour) -> None:
    """An event id that means something else, and an agent nobody registered, beside two that are fine."""
    stranger, other = join("stranger"), join("host")
    guest.act("note.write", event_id="taken")
    neighbours = [guest, stranger, other]
    with Hosting(host, *neighbours) as hosting, ThreadPoolExecutor() as pool:
        conflict = pool.submit(guest.act, "secret.read", event_id="taken")
        unknown = pool.submit(stranger.act, "note.write")
        fine = pool.submit(other.act, "note.write")
    assert hosting.errors == []
    with pytest.raises(EventIdConflictError):
        conflict.result()
    with pytest.raises(NotFoundError):
        unknown.result()
    assert fine.result().status == "executed"
    assert other.own_commits() == 0
    assert len(actions(host.store)) == 2


def test_of_one_batch_each_caller_gets_its_own_answer(host: Neighbour, guest: Neighbour) -> None:
    """One fails and is run again at home; the others were answered and are not run again."""
    guest.act("note.write", event_id="taken")
    company: list[Any] = []
    enqueue, waiting, main = guest.sequencer._enqueue, ThreadPoolExecutor(), threading.current_thread()

    def with_company(ticket: Any) -> bool:
        leads = enqueue(ticket)
        if threading.current_thread() is main:
            company.append(waiting.submit(guest.act, "secret.read", event_id="taken"))
            until(lambda: len(guest.sequencer._queue) == 2, "the second is in the queue")
            company.append(waiting.submit(guest.act, "refund.issue", amount="1", currency="EUR"))
            until(lambda: len(guest.sequencer._queue) == 3, "the third is in the queue")
        return leads

    guest.sequencer._enqueue = with_company  # type: ignore[method-assign]
    with Hosting(host, guest):
        assert guest.act("note.write").status == "executed"
    with pytest.raises(EventIdConflictError):
        company[0].result(PATIENCE)
    assert company[1].result(PATIENCE).status == "executed"
    waiting.shutdown()
    assert [entry["data"]["action_type"] for entry in actions(host.store)] == [
        "note.write",
        "note.write",
        "refund.issue",
    ]


def test_a_guest_that_makes_no_sense_does_not_disturb_its_host(host: Neighbour, guest: Neighbour) -> None:
    broken = b'[["execute",[["guest","enforce","asserted",{}],{"action_type":1,"amount":"x"},null,[],"n"]]]'
    for request in (b"", b"{}", b"[1]", b'[["execute",[]]]', b'[["nothing",[]]]', broken):
        with pytest.MonkeyPatch.context() as patched, Hosting(host, guest) as hosting:
            patched.setattr(
                guest.commands, "request", lambda commands, request=request: request, raising=True
            )
            assert guest.act("note.write").status == "executed"
        assert hosting.errors == []
    assert len(actions(host.store)) == 6


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{}", b"[1]", b'[{"status":"executed"}]', b"[null]", b"x" * 40_000]
)
def test_an_answer_that_makes_no_sense_or_has_no_room_is_looked_up(
    host: Neighbour, guest: Neighbour, answer: bytes
) -> None:
    run = host.commands.run

    def runs(batch: Batch, request: bytes) -> bytes:
        assert run(batch, request) is not None
        return answer

    host.commands.run = runs  # type: ignore[method-assign]
    with Hosting(host, guest):
        result = guest.act("refund.issue", amount="1", currency="EUR")
    assert [entry["id"] for entry in actions(host.store)] == [result.audit_event_id]


def test_what_is_too_large_to_be_handed_over_is_written_at_home(host: Neighbour, guest: Neighbour) -> None:
    hosting = Hosting(host)
    with hosting, ThreadPoolExecutor() as pool:
        large = pool.submit(guest.act, "note.write", metadata={"text": "x" * (MAX_PAYLOAD_BYTES - 1000)})
        hosting.over.set()
        assert large.result(PATIENCE).status == "executed"
    assert guest.own_commits() > 0
    assert len(actions(host.store)) == 1


def test_a_batch_of_which_a_part_can_only_run_at_home_is_written_at_home(
    host: Neighbour, guest: Neighbour
) -> None:
    ran = guest.act("note.write")
    guest.sequencer.post(Outcome(Caller("guest"), ran.audit_event_id, "succeeded", None))
    before = guest.own_commits()
    hosting = Hosting(host)
    with hosting:
        hosting.over.set()
        guest.sequencer.run(note)
    assert guest.own_commits() > before
    with host.store.read() as reader:
        assert [document.get("claim") for _, document in reader.scan("action")] == ["succeeded"]


def test_a_request_is_not_run_once_its_owner_is_gone(join: Join, host: Neighbour, guest: Neighbour) -> None:
    """Its slot is given up with the request in it, and somebody else may have the slot."""
    exchange = guest.store._exchange
    assert exchange is not None
    slot = exchange._slot
    request = guest.commands.request([guest.execution("note.write")])
    assert slot is not None
    assert request is not None
    exchange._number += 1
    exchange._write(exchange._request_at(slot), exchange._number, request)
    exchange._words[exchange_module._OFFERED + slot] = exchange._number
    assert guest.has_posted()
    exchange._slot = None  # a process that dies wipes nothing
    guest.close()
    assert host.act("note.write").status == "executed"
    assert len(actions(host.store)) == 1
    heir = join()
    assert heir.store._exchange is not None
    assert heir.store._exchange._slot == slot
    assert not heir.has_posted()
    with Hosting(host, heir):
        heir.act("note.write")
    assert len(actions(host.store)) == 2


def test_an_answer_to_an_earlier_request_is_not_taken(host: Neighbour, guest: Neighbour) -> None:
    with Hosting(host, guest):
        first = guest.act("note.write")
    answer = exchange_module.Exchange.answer

    def late(exchange: Exchange, guests: Any) -> None:
        for one in guests:
            one.number -= 1
        answer(exchange, guests)

    with pytest.MonkeyPatch.context() as patched, Hosting(host, guest):
        patched.setattr(Exchange, "answer", late)
        second = guest.act("secret.read")
    assert (first.status, second.status) == ("executed", "denied")
    assert [entry["id"] for entry in actions(host.store)] == [first.audit_event_id, second.audit_event_id]


def test_who_observes_goes_on_observing_and_who_enforces_enforcing(host: Neighbour, guest: Neighbour) -> None:
    with Hosting(host, guest):
        observed = guest.act("secret.read", mode="observe")
    with Hosting(host, guest):
        enforced = guest.act("secret.read")
    assert (observed.status, observed.observed, observed.may_run) == ("denied", True, True)
    assert (enforced.status, enforced.observed, enforced.may_run) == ("denied", False, False)


def test_an_event_id_is_one_action_whoever_ran_it(host: Neighbour, guest: Neighbour) -> None:
    with Hosting(host, guest):
        first = guest.act("note.write", event_id="e1")
    at_home = guest.act("note.write", event_id="e1")
    with Hosting(host, guest):
        abroad = guest.act("note.write", event_id="e1")
    assert {first.audit_event_id, at_home.audit_event_id, abroad.audit_event_id} == {first.audit_event_id}
    assert [result.replayed for result in (first, at_home, abroad)] == [False, True, True]
    assert len(actions(host.store)) == 1


def test_who_gave_up_while_it_was_offered_is_given_back_what_was_recorded(
    host: Neighbour, guest: Neighbour
) -> None:
    """With an answer, and with one that was lost."""
    for lost in (False, True):
        guest.abandoned.clear()

        offered: list[Any] = []
        enqueue = guest.sequencer._enqueue

        def kept(ticket: Any, enqueue: Any = enqueue, offered: list[Any] = offered) -> bool:
            offered.append(ticket)
            return bool(enqueue(ticket))

        def give_up(offered: list[Any] = offered) -> None:
            for ticket in offered:
                guest.sequencer._give_up(ticket)

        with pytest.MonkeyPatch.context() as patched, Hosting(host, guest, before=give_up):
            patched.setattr(guest.sequencer, "_enqueue", kept)
            if lost:
                patched.setattr(Exchange, "answer", lambda self, guests: None)
            guest.act("note.write")
        assert [one.audit_event_id for one in guest.abandoned] == [actions(host.store)[-1]["id"]]
    assert len(actions(host.store)) == 2


def test_with_a_clock_of_its_own_nobody_offers_and_nobody_serves(join: Join, host: Neighbour) -> None:
    """Times would be mixed."""
    timed = join("guest", ManualClock())
    hosting = Hosting(host)
    with hosting, ThreadPoolExecutor() as pool:
        waiting = pool.submit(timed.act, "note.write")
        hosting.over.set()
        assert waiting.result(PATIENCE).status == "executed"
    assert timed.own_commits() > 0
    before = host.own_commits()
    with Hosting(timed, host):
        assert host.act("note.write").status == "executed"
    assert host.own_commits() > before
    assert len(actions(host.store)) == 2


def test_nothing_of_a_command_or_its_answer_is_left_out_on_the_way(guest: Neighbour) -> None:
    """Whatever member either of them is given one day."""
    everything: dict[str, Any] = {
        "replayed": True,
        "observed": True,
        "conditions_evaluated": [ConditionResult("amount", "lt", 50, False, 60)],
        "rules_fired": [RuleResult("Refunds", 40, "DAILY_CAP", "REJECT", "no", {"used": "5"})],
    }
    result = ActionResult(**{f.name: everything.get(f.name, f"a {f.name}") for f in fields(ActionResult)})
    assert Execution.answer(orjson.loads(orjson.dumps(result))) == result
    caller = Caller(
        **{f.name: {"run": "r"} if f.name == "context" else f"a {f.name}" for f in fields(Caller)}
    )
    action = guest.execution(
        "note.write", trusted=("amount",), amount="1.10", event_id="e", metadata={"a": [1]}
    )
    sent = Execution(guest.policies, caller, action._action)
    arrived = Execution.of(guest.policies, orjson.loads(orjson.dumps(sent.data())))
    assert arrived._caller == caller
    assert arrived._action == action._action
    assert arrived._nonce == sent._nonce
