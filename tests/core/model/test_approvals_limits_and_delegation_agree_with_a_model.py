"""Whatever happens to requests, charges and delegations, together and in whatever order: the engine's answers are those
of a reference, each state has met each event, and what is illegal is refused with a typed error and changes nothing.
"""

from __future__ import annotations

import multiprocessing
import random
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from decimal import Decimal
from itertools import product, repeat

import pytest
from beside import CAPABILITIES, CAPS, CELLS, STEPS, Beside
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from reference import MODES, ORDER, REFUND, Action, Agent

REQUESTS = (
    *("pending", "voted", "escalated", "approved", "approved by policy", "denied", "denied by policy"),
    *(
        "timed out",
        "cancelled",
        "cancelled with its agent",
        "claimed",
        "reported",
        "unknown",
        "refused",
        "lapsed",
    ),
)
TO_REQUESTS = (
    *("vote", "vote otherwise shown", "deny", "stranger votes", "cancel", "claim", "outcome"),
    *("outcome is lost", "escalation", "deadline", "lapse", "asker expires", "asker is revoked"),
    *("policy allows", "policy denies", "policy is deleted", "policy asks others"),
)
CHARGES = ("held", "settled", "kept", "released")
TO_CHARGES = (
    *("cancel", "claim", "claim on another day", "outcome", "failure", "to the cent"),
    *("day turns", "cap is lowered", "asker is revoked"),
)
DELEGATIONS = ("active", "closed", "revoked", "expired")
TO_DELEGATIONS = (
    *("delegates", "delegated again", "acts", "claims", "close", "paused", "revoke", "expiry"),
    *("parent is closed", "parent is revoked", "parent expires"),
)
IMPOSSIBLE = {
    *(("escalated", "escalation"), ("timed out", "escalation"), ("timed out", "deadline")),
    *(("lapsed", "escalation"), ("lapsed", "deadline"), ("lapsed", "lapse")),
    ("expired", "expiry"),
}
"""Moments that lie in the past of whatever is in that state, so that they cannot come any more."""

TABLE = [
    cell
    for states, events in ((REQUESTS, TO_REQUESTS), (CHARGES, TO_CHARGES), (DELEGATIONS, TO_DELEGATIONS))
    for cell in product(states, events)
    if cell not in IMPOSSIBLE
]
SMALL = Decimal("0.05")


class Cells:
    """Meets one cell: brings its state about, then its event."""

    def __init__(self, beside: Beside, chance: random.Random) -> None:
        self.beside, self.chance, self.reference = beside, chance, beside.reference

    def meet(self, state: str, event: str) -> None:
        before = CELLS[state, event]
        self.begin()
        if state in DELEGATIONS:
            self.to_delegation(state, event)
        elif state in CHARGES:
            self.to_charge(state, event)
        else:
            self.to_request(state, event)
        assert CELLS[state, event] > before, f"`{state}` did not meet `{event}`"

    def begin(self) -> None:
        if (self.reference.mode, self.reference.cap) != ("two", 100):
            self.beside.policy_is("two", 100)
        now = self.beside.now()
        if now.hour == 0:
            self.beside.pass_time(60)  # so that 1439 minutes later is tomorrow
        if min(self.reference.left(self.reference.root, one, now) for one in (ORDER, REFUND)) < 1:
            self.beside.pass_time(1440)

    def child(self, parent: Agent | None = None, minutes: int = 1440, run: str | None = "") -> Agent:
        """A new one, that holds everything. Its run is one of its own unless it is given as None."""
        if run == "":
            run = f"cell {len(self.reference.agents)}"
        child = self.beside.delegate(parent or self.reference.root, "clerk", ("*",), minutes, run)
        assert child is not None
        return child

    def request(self, agent: Agent, state: str, amended: bool) -> Action:
        beside = self.beside
        asked = beside.ask(agent, ORDER, SMALL)
        assert asked is not None
        if amended:
            beside.policy_is("all", 100)
        if state in ("approved", "claimed", "reported", "unknown", "refused", "lapsed"):
            beside.vote(asked, "ann", False)
            beside.vote(asked, "bob", False)
        if state == "voted":
            beside.vote(asked, "ann", False)
        elif state in ("escalated", "timed out", "lapsed"):
            beside.pass_time({"escalated": 60, "timed out": 120, "lapsed": 1440}[state])
        elif state == "denied":
            beside.deny(asked, "ann")
        elif state == "cancelled":
            beside.cancel(asked)
        elif state == "cancelled with its agent":
            beside.leave(agent, pauses=False)
        elif state in ("approved by policy", "denied by policy"):
            beside.policy_is("allow" if state == "approved by policy" else "deny", 100)
        elif state == "refused":
            beside.policy_is("cid", 100)
        if state in ("claimed", "reported", "unknown", "refused"):
            beside.claim(asked)
        if state == "reported":
            beside.outcome(asked, failed=False)
        elif state == "unknown":
            beside.note_outcome(asked, "unknown")
        assert asked.named == state
        return asked

    def to_request(self, state: str, event: str) -> None:
        beside, chance = self.beside, self.chance
        below = event.startswith("asker") or state == "cancelled with its agent" or chance.random() < 0.3
        agent = self.child() if below else self.reference.root
        request = self.request(agent, state, event == "vote otherwise shown" or chance.random() < 0.2)
        if event in ("vote", "vote otherwise shown"):
            beside.vote(request, "bob", event != "vote")
        elif event == "deny":
            beside.deny(request, "bob")
        elif event == "stranger votes":
            beside.stranger_votes(request, chance.choice(["vic", "olga"]), chance.random() < 0.5)
        elif event == "cancel":
            beside.cancel(request)
        elif event == "claim":
            beside.claim(request)
        elif event == "outcome":
            beside.outcome(request, failed=False)
        elif event == "outcome is lost":
            beside.note_outcome(request, "unknown")
        elif event == "asker is revoked":
            beside.revoke(agent, chance.choice(["root", "parent", "operator"]))
        elif event in ("escalation", "deadline", "lapse", "asker expires"):
            if event == "asker expires" and agent.held.ended == "expired":
                self.again(agent)
            minutes = {"escalation": 60, "deadline": 120, "lapse": 1600, "asker expires": 1440}[event]
            beside.pass_time(minutes, unwatched=event == "deadline" or chance.random() < 0.3)
        else:
            modes = {"policy allows": "allow", "policy denies": "deny", "policy is deleted": "gone"}
            others = sorted({"anyone", "all", "cid"} - {self.reference.mode})
            mode = modes.get(event) or chance.choice(others)
            if mode == self.reference.mode:
                beside.policy_is("two" if state != "approved by policy" else "deny", 100)
            beside.policy_is(mode, 100)

    def again(self, agent: Agent, minutes: int = 1440) -> None:
        assert agent.parent is not None
        self.beside.delegate(agent.parent, agent.given, agent.held.capabilities, minutes, agent.run)

    def charge(self, agent: Agent, state: str) -> Action:
        if state == "kept":
            asked = self.beside.ask(agent, REFUND, SMALL)
        else:
            requests = {"held": "approved", "settled": "claimed", "released": "denied"}
            asked = self.request(agent, requests[state], False)
        assert asked is not None
        assert asked.charge == state
        return asked

    def to_charge(self, state: str, event: str) -> None:
        beside = self.beside
        agent = self.child(minutes=1440) if event == "asker is revoked" else self.reference.root
        action = self.charge(agent, state)
        if event == "cancel":
            beside.cancel(action)
        elif event == "claim":
            beside.claim(action)
        elif event == "claim on another day":
            beside.pass_time(1439)
            beside.claim(action)
        elif event in ("outcome", "failure"):
            for _ in range(2):  # what was given back is not given back again
                beside.outcome(action, failed=event == "failure")
        elif event == "to the cent":
            beside.to_the_cent(agent, action.type, state)
        elif event == "day turns":
            beside.pass_time(1439)
        elif event == "cap is lowered":
            beside.policy_is("two", 60)
        else:
            beside.revoke(agent, "operator")
        beside.to_the_cent(self.reference.root, action.type)

    def to_delegation(self, state: str, event: str) -> None:
        beside, chance = self.beside, self.chance
        parent = self.child() if event.startswith("parent") or chance.random() < 0.3 else self.reference.root
        agent = self.child(parent, minutes=600)
        if event in ("close", "paused"):
            self.again(agent)  # a block to leave, also where it was left once
        request = self.request(agent, "approved", False) if event == "claims" else None
        if state == "closed":
            beside.leave(agent, pauses=False)
        elif state == "revoked":
            beside.revoke(agent, chance.choice(["root", "parent", "operator"]))
        elif state == "expired":
            beside.pass_time(600)
        assert agent.held.state == state
        if event == "delegates":
            beside.delegate(agent, "clerk", (ORDER,), 60, None)
        elif event == "delegated again":
            self.again(agent)
        elif event == "acts":
            beside.ask(agent, chance.choice([ORDER, REFUND]), SMALL)
        elif request is not None:
            beside.claim(request)
        elif event in ("close", "paused"):
            beside.leave(agent, pauses=event == "paused")
        elif event == "revoke":
            beside.revoke(agent, chance.choice(["root", "parent", "operator"]))
        elif event == "parent is closed":
            beside.leave(parent, pauses=False)
        elif event == "parent is revoked":
            beside.revoke(parent, "operator")
        else:
            minutes = 600 if event == "expiry" else 1440
            beside.pass_time(minutes, unwatched=chance.random() < 0.3)


class Governance(RuleBasedStateMachine):
    """Steps of chance. What a step does follows from its number, so that a step costs one choice of the framework."""

    @initialize()
    def begin(self) -> None:
        self.beside = Beside()
        self.taken = 0

    @rule(number=st.integers(0, 2**32 - 1))
    def meet(self, number: int) -> None:
        """A cell drawn evenly, which a choice by the framework is not, so that rare ones are met as often as others."""
        chance = random.Random(number)
        Cells(self.beside, chance).meet(*chance.choice(TABLE))

    @rule(number=st.integers(0, 2**32 - 1))
    def act(self, number: int) -> None:
        chance, reference = random.Random(number), self.beside.reference
        agent = chance.choice([reference.root, self.beside.draw_child(chance) or reference.root])
        action_type = chance.choice([ORDER, ORDER, REFUND])
        cents = chance.choice([1, 2500, 6000, 10001, None])
        left = max(reference.left(agent, action_type, self.beside.now()), Decimal(0))
        amount = left if cents is None else Decimal(cents) / 100
        self.beside.ask(agent, action_type, amount, chance.choice([None, None, "e1", "e2"]))

    @rule(number=st.integers(0, 2**32 - 1))
    def answer(self, number: int) -> None:
        """A person, or the agent, does something about a request, whatever became of it."""
        chance, beside = random.Random(number), self.beside
        request = beside.draw_action(chance, of_request=True)
        if request is None:
            return
        voter = chance.choice(["ann", "bob", "cid", "eve"])
        what = chance.randrange(8)
        if what < 3:
            beside.vote(request, voter, chance.random() < 0.5)
        elif what == 3:
            beside.deny(request, voter)
        elif what == 4:
            beside.stranger_votes(request, chance.choice(["vic", "olga"]), chance.random() < 0.5)
        elif what == 5:
            beside.cancel(request)
        else:
            beside.claim(request)

    @rule(number=st.integers(0, 2**32 - 1))
    def run(self, number: int) -> None:
        """What was admitted is claimed, reported, or reached for by somebody else."""
        chance, beside = random.Random(number), self.beside
        action = beside.draw_action(chance, of_request=False)
        if action is None or action.state == "refused at once":
            return
        what = chance.randrange(5)
        if what == 0 and len(beside.clients) > 1:
            beside.claim_by_another(action)
        elif what == 1:
            beside.claim(action)
        elif what == 2:
            beside.note_outcome(action, chance.choice(["succeeded", "failed", "unknown"]))
        else:
            beside.outcome(action, failed=what == 3)

    @rule(number=st.integers(0, 2**32 - 1))
    def delegate(self, number: int) -> None:
        chance, beside = random.Random(number), self.beside
        child = beside.draw_child(chance)
        parent = child if child is not None and len(child.chain()) < 4 and chance.random() < 0.5 else None
        beside.delegate(
            parent or beside.reference.root,
            chance.choice(["clerk", "buyer"]),
            chance.choice(CAPABILITIES),
            chance.choice([10, 60, 600, 1440]),
            chance.choice([None, "r1", "r2"]),
        )

    @rule(number=st.integers(0, 2**32 - 1))
    def end_one(self, number: int) -> None:
        chance, beside = random.Random(number), self.beside
        child = beside.draw_child(chance)
        if child is None:
            return
        if beside.blocks.get(child) and chance.random() < 0.6:
            beside.leave(child, pauses=chance.random() < 0.4)
        else:
            beside.revoke(child, chance.choice(["root", "parent", "itself", "operator", "viewer"]))

    @rule(number=st.integers(0, 2**32 - 1))
    def the_world_changes(self, number: int) -> None:
        """The clock, policy, or the process."""
        chance, beside = random.Random(number), self.beside
        what = chance.random()
        if what < 0.5:
            beside.pass_time(chance.choice([1, 59, 60, 61, 119, 120, 600, 1439, 1440, 1600, -30, -3000]))
        elif what < 0.9:
            beside.policy_is(chance.choice(MODES), chance.choice(CAPS))
        else:
            beside.reopen()

    @invariant()
    def everybody_sees_the_same(self) -> None:
        self.taken = getattr(self, "taken", 0) + 1
        if not hasattr(self, "beside"):
            return
        agents = self.beside.reference.agents
        if self.taken % 3 == 0:
            self.beside.what_waits_is_what_waits()
        elif self.taken % 3 == 1:
            self.beside.to_the_cent(agents[self.taken % len(agents)], (ORDER, REFUND)[self.taken % 2])
        else:
            self.beside.what_is_delegated_is_what_is_delegated()

    def teardown(self) -> None:
        if hasattr(self, "beside"):
            self.beside.end()


_QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

TestGovernance = Governance.TestCase
TestGovernance.settings = settings(max_examples=10, stateful_step_count=30, suppress_health_check=_QUIET)


def meet_all(chance: random.Random, cells: list[tuple[str, str]]) -> None:
    """Meet cells in this order, and agree with the reference all the way."""
    beside = Beside()
    try:
        for state, event in cells:
            Cells(beside, chance).meet(state, event)
            beside.what_waits_is_what_waits()
    finally:
        beside.end()


def test_every_state_meets_every_event() -> None:
    """Each cell of the table once; what is illegal is refused with a typed error and changes nothing."""
    number = 20261129
    print(f"seed {number}")
    chance = random.Random(number)
    cells = chance.sample(TABLE, len(TABLE))
    for start in range(0, len(cells), 60):
        meet_all(chance, cells[start : start + 60])


def go_on(number: int, steps: int, times: int) -> tuple[Counter[tuple[str, str]], Counter[str]]:
    """Steps of chance, and then what chance has left short: how often each cell was met, and all steps by name."""
    CELLS.clear()
    STEPS.clear()

    @seed(number)
    class AtLength(Governance):
        pass

    AtLength.TestCase.settings = settings(
        max_examples=150,
        stateful_step_count=100,
        deadline=None,
        suppress_health_check=_QUIET,
        print_blob=True,
    )
    AtLength.TestCase("runTest").runTest()
    chance = random.Random(number)
    while (short := [cell for cell in TABLE if CELLS[cell] < times]) or STEPS.total() < steps:
        meet_all(chance, chance.choices(short or TABLE, k=60))
    return CELLS, STEPS


@pytest.mark.soak
@pytest.mark.timeout(1800)  # minutes of work, and more of them beside other work
def test_a_hundred_thousand_steps_are_clean_and_meet_every_cell_a_hundred_times() -> None:
    """One half on each of two cores; the seeds, and how often each cell was met, are printed."""
    numbers = [random.randrange(2**32) for _ in range(2)]
    print(f"seeds {numbers}")
    cells: Counter[tuple[str, str]] = Counter()
    steps: Counter[str] = Counter()
    with ProcessPoolExecutor(len(numbers), multiprocessing.get_context("spawn")) as cores:
        for met, taken in cores.map(go_on, numbers, repeat(50_000), repeat(50)):
            cells += met
            steps += taken
    print("\n".join(f"{state:>24} x {event:<20} {cells[state, event]:>7}" for state, event in TABLE))
    print(f"{steps.total()} steps: {dict(steps)}")
    assert [cell for cell in TABLE if cells[cell] < 100] == []
    assert steps.total() >= 100_000
