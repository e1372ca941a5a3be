"""What approvals, limits and delegation come to, said a second time and without an engine.

- It knows agents, what was delegated to them, requests, charges and time, and nothing of entries, indexes, projections
  or transactions. A total is found by adding up all actions there ever were, a quorum by trying every assignment.
- Every method that changes something says what the engine must answer; whoever holds both beside each other compares.
- What falls due is recorded at once, as in a process whose scheduler runs: `time_is` brings it about.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import product

PEOPLE = {"ann": ["dba"], "bob": ["dba"], "cid": [], "eve": ["oncall"], "vic": [], "olga": []}
"""Names and groups. `vic` is a viewer, `olga` owns the agent."""

TERMS: dict[str, tuple[list[str], int | str, list[str]]] = {
    "anyone": ([], 1, []),
    "two": (["user:ann", "user:bob", "user:cid"], 2, ["group:oncall"]),
    "all": (["user:ann", "group:dba"], "all", ["user:eve"]),
    "cid": (["user:cid"], 1, []),
}
"""Ways of asking: approvers, quorum, and whom an escalation adds."""

MODES = (*TERMS, "allow", "deny", "gone")
ORDER, REFUND = "order.place", "refund.issue"
"""What policy decides by its mode and caps, and what it allows and caps."""
TIMEOUT, ESCALATION, LIFE = timedelta(hours=2), timedelta(hours=1), timedelta(hours=24)


def means(approver: str, person: str) -> bool:
    kind, _, name = approver.partition(":")
    return name == person if kind == "user" else name in PEOPLE[person]


def counts(mode: str, person: str, escalated: bool) -> bool:
    approvers, _, added = TERMS[mode]
    return not approvers or any(means(one, person) for one in (*approvers, *(added if escalated else ())))


def filled(mode: str, votes: list[str], escalated: bool) -> bool:
    """Whether the votes suffice, found by trying every assignment of people to places."""
    approvers, quorum, escalate_to = TERMS[mode]
    added = escalate_to if escalated else []
    if not approvers:
        return len(votes) >= 1
    if quorum == "all":
        return any(
            len(set(chosen)) == len(chosen)
            and all(
                any(means(one, person) for one in (place, *added))
                for place, person in zip(approvers, chosen, strict=True)
            )
            for chosen in product(votes, repeat=len(approvers))
        )
    return sum(any(means(one, person) for one in (*approvers, *added)) for person in votes) >= int(quorum)


def held_by(capabilities: tuple[str, ...], asked: str) -> bool:
    return any(
        one in ("*", asked) or (one.endswith(".*") and asked.startswith(one[:-1])) for one in capabilities
    )


@dataclass(eq=False)
class Delegation:
    """`ended` is how it ended."""

    id: str
    capabilities: tuple[str, ...]
    expires: datetime
    ended: str | None = None

    @property
    def state(self) -> str:
        return self.ended or "active"


@dataclass(eq=False)
class Agent:
    """The root, which holds no delegation, or a child, whose last one is what it acts under."""

    name: str
    given: str = ""
    run: str | None = None
    parent: Agent | None = None
    delegations: list[Delegation] = field(default_factory=list)

    @property
    def held(self) -> Delegation:
        return self.delegations[-1]

    def lineage(self) -> Iterator[Agent]:
        """Itself and all above it."""
        agent: Agent | None = self
        while agent is not None:
            yield agent
            agent = agent.parent

    def chain(self) -> list[Agent]:
        """Itself and the children above it."""
        return [agent for agent in self.lineage() if agent.parent is not None]


@dataclass(eq=False)
class Action:
    """`day` is the day its amount is charged to, if it is; `mode` the terms it waits under, `digest` what was shown of
    it first, `reason` why policy denied it.
    """

    id: str
    agent: Agent
    type: str
    amount: Decimal
    answer: str
    asked: datetime
    state: str
    claim: str | None = None
    day: str | None = None
    approval: str | None = None
    mode: str = ""
    digest: str = ""
    deadline: datetime | None = None
    escalates: datetime | None = None
    votes: list[str] = field(default_factory=list)
    escalated: bool = False
    amended: bool = False
    granted: datetime | None = None
    reason: str = "POLICY_DENIED"

    @property
    def waits(self) -> bool:
        return self.state == "pending"

    @property
    def named(self) -> str:
        """The state as cells are counted by."""
        if not self.waits:
            return "unknown" if self.claim == "unknown" else self.state
        return "escalated" if self.escalated else "voted" if self.votes else "pending"

    @property
    def charge(self) -> str:
        """How its amount stands: `kept` cannot be given back."""
        if self.day is None:
            return "released"
        if self.claim is None:
            return "held"
        return "settled" if self.type == ORDER else "kept"

    @property
    def told(self) -> tuple[str, str | None]:
        """Status and claim as the audit trail says them."""
        status = {
            "pending": "requested",
            "timed out": "timed_out",
            "claimed": "executed",
            "reported": "executed",
            "lapsed": "lapsed",
            "approved": "approved",
            "approved by policy": "approved",
            "refused at once": self.answer,
        }
        return status.get(self.state, "denied"), self.claim

    def release(self, state: str) -> None:
        self.state, self.day = state, None


class Reference:
    """All there is. `mode` and `cap` are the policy in force."""

    def __init__(self) -> None:
        self.mode, self.cap = "two", 100
        self.root = Agent("ci")
        self.agents = [self.root]
        self.actions: list[Action] = []

    # What is decided

    def used(self, agent: Agent, action_type: str, day: str, but: Action | None = None) -> Decimal:
        """An agent's total: what it and all below it are charged."""
        return sum(
            (
                one.amount
                for one in self.actions
                if one.day == day
                and one.type == action_type
                and one is not but
                and agent in one.agent.lineage()
            ),
            Decimal(0),
        )

    def left(self, agent: Agent, action_type: str, at: datetime, but: Action | None = None) -> Decimal:
        """What the tightest of the agents above, and its own, leave of the cap."""
        day = at.date().isoformat()
        return min(self.cap - self.used(one, action_type, day, but) for one in agent.lineage())

    def decide(
        self, agent: Agent, action_type: str, amount: Decimal, at: datetime, but: Action | None = None
    ) -> tuple[str, str | None]:
        """The status and the reason."""
        for link in agent.chain():
            if link.held.ended or at >= link.held.expires or not held_by(link.held.capabilities, action_type):
                return "denied", "OUT_OF_SCOPE"
        if action_type == ORDER and self.mode == "gone":
            return "policy_not_found", None
        if action_type == ORDER and self.mode == "deny":
            return "denied", "POLICY_DENIED"
        if amount > self.left(agent, action_type, at, but):
            return "denied", "LIMIT_EXCEEDED"
        asks = action_type == ORDER and self.mode in TERMS
        return ("requested" if asks else "executed"), None

    # Actions

    def ask(
        self, id: str, approval: str | None, agent: Agent, action_type: str, amount: Decimal, at: datetime
    ) -> Action:
        """An action was asked for; its answer is what `decide` says."""
        answer, _ = self.decide(agent, action_type, amount, at)
        action = Action(id, agent, action_type, amount, answer, at, "refused at once", approval=approval)
        if answer in ("executed", "requested"):
            action.day = at.date().isoformat()
        if answer == "executed":
            action.state, action.claim = "claimed", "started"
        elif answer == "requested":
            action.state, action.mode, action.deadline = "pending", self.mode, at + TIMEOUT
            action.escalates = at + ESCALATION if TERMS[self.mode][2] else None
        self.actions.append(action)
        return action

    def vote(self, action: Action, person: str, otherwise: bool) -> str:
        """What a vote is refused with, or empty. `otherwise`: the voter was shown something else."""
        if not action.waits:
            return "illegal"
        if not counts(action.mode, person, action.escalated) or person in ("vic", "olga"):
            return "forbidden"
        if person in action.votes:
            return "illegal"
        if otherwise:
            return "mismatch"
        return ""

    def cast(self, action: Action, person: str, at: datetime) -> None:
        action.votes.append(person)
        if filled(action.mode, action.votes, action.escalated):
            action.state, action.granted = "approved", at

    def take(self, action: Action, at: datetime) -> tuple[str, str | None]:
        """The answer to a claim of an action that was not claimed before."""
        unapproved: dict[str, tuple[str, str | None]] = {
            "pending": ("requested", None),
            "denied": ("denied", "DENIED_BY_REVIEWER"),
            "denied by policy": ("denied", action.reason),
            "timed out": ("timed_out", "approval_timeout"),
            "cancelled": ("denied", "APPROVAL_CANCELLED"),
            "cancelled with its agent": ("denied", "APPROVAL_CANCELLED"),
            "refused": ("denied", "POLICY_DENIED"),
            "lapsed": ("denied", "approval_timeout"),
        }
        if action.state in unapproved:
            return unapproved[action.state]
        status, reason = self.decide(action.agent, action.type, action.amount, at, but=action)
        asks = status == "requested" and not filled(self.mode, action.votes, action.escalated)
        if status == "denied" or asks:
            action.release("refused")
            action.claim = "refused"
            return "denied", reason or "POLICY_DENIED"
        action.state, action.claim = "claimed", "started"
        action.day = None if self.mode == "gone" else at.date().isoformat()
        return "executed", None

    def note(self, action: Action, claim: str) -> None:
        """What an adapter says of a run: the first word counts, and on `unknown` the first that says otherwise."""
        if action.claim == "started" or (action.claim == "unknown" and claim != "unknown"):
            self.report(action, failed=claim == "failed")
            action.claim = claim

    def report(self, action: Action, failed: bool) -> None:
        """How a claimed run went. A failed order gives its amount back, whatever was said before."""
        if action.claim in ("started", "unknown"):
            action.claim = "failed" if failed else "succeeded"
        action.state = "reported"
        if failed and action.type == ORDER:
            action.day = None

    # Policy

    def policy_is(self, mode: str, cap: int, at: datetime) -> bool:
        """Whether anything changed. Pending requests are decided on again as of when they were asked for, in the order
        of their deadlines.
        """
        if (mode, cap) == (self.mode, self.cap):
            return False
        self.mode, self.cap = mode, cap
        waiting = [(one.deadline, one.approval, one) for one in self.actions if one.waits]
        for *_, action in sorted(waiting, key=lambda one: one[:2]):
            status, reason = self.decide(action.agent, action.type, action.amount, action.asked, but=action)
            if status == "denied":
                action.release("denied by policy")
                action.reason = reason or "POLICY_DENIED"
            elif status != "requested":
                action.state, action.granted = "approved by policy", at
            elif TERMS[mode] != TERMS[action.mode]:
                action.mode, action.amended = mode, True
                action.votes = [one for one in action.votes if counts(mode, one, action.escalated)]
                if action.votes and filled(mode, action.votes, action.escalated):
                    action.state, action.granted = "approved by policy", at
        return True

    # Delegation

    def children(self) -> list[Agent]:
        return self.agents[1:]

    def known(self, parent: Agent, given: str, run: str | None) -> Agent | None:
        """The child that the run had."""
        return next(
            (one for one in self.agents if run and (one.parent, one.given, one.run) == (parent, given, run)),
            None,
        )

    def may_delegate(self, parent: Agent, given: str, capabilities: tuple[str, ...], run: str | None) -> str:
        """What delegating is refused with; `same` for the child that is there, empty for a new delegation."""
        if any(link.held.ended for link in parent.chain()):
            return "forbidden"
        if parent.parent is not None and not all(
            held_by(parent.held.capabilities, one) for one in capabilities
        ):
            return "forbidden"
        known = self.known(parent, given, run)
        if known is None or known.held.state in ("closed", "expired"):
            return ""
        return (
            "same" if known.held.state == "active" and known.held.capabilities == capabilities else "illegal"
        )

    def expiry(self, parent: Agent, ttl: timedelta, at: datetime) -> datetime:
        return min([at + ttl, *(link.held.expires for link in parent.chain())])

    def below(self, agent: Agent) -> list[Agent]:
        return [one for one in self.agents if agent in one.lineage() and one is not agent]

    def end(self, agent: Agent, how: str) -> None:
        """Its delegation ends, and so does what is below it, and what they asked for where nobody can claim it."""
        for one in (agent, *self.below(agent)):
            if one.held.ended is None:
                one.held.ended = how
                if how != "expired" or one.run is None:
                    for action in self.actions:
                        if action.agent is one and action.waits:
                            action.release("cancelled with its agent")

    # Time

    def time_is(self, now: datetime) -> None:
        """Whatever time has run out for is over: requests and grants first, then delegations, the earliest first."""
        for action in self.actions:
            if action.waits and action.deadline is not None and now >= action.deadline:
                action.release("timed out")
            elif action.waits and action.escalates is not None and now >= action.escalates:
                action.escalated = True
            elif (
                action.state.startswith("approved")
                and action.granted is not None
                and now >= action.granted + LIFE
            ):
                action.release("lapsed")
                action.claim = "lapsed"
        for agent in sorted(self.children(), key=lambda one: one.held.expires):
            if agent.held.ended is None and now >= agent.held.expires:
                self.end(agent, "expired")
