"""Plays the story with one agent: the agent on a thread of its own, the person who approves on the caller's.

- The agent blocks in its gate while a person is asked; the answer comes from another thread, under an operator's name.
- Whatever interrupts the play also ends a question that is open, so that the agent's thread ends.
- Beside each step's own check, the calls that the model made are compared with the actions in the log.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from agentlattice_core import AgentLattice, ApprovalRequest, GovernanceEvent, IllegalTransitionError
from agentlattice_integrations.demo.brain import Answer, Brain, Call, Conversation, Exchange, read_denial
from agentlattice_integrations.demo.story import STORY, Happened, Step
from agentlattice_integrations.demo.workplace import Workplace

__all__ = ["BuildAgent", "Played", "Reply", "Shown", "Think", "play", "status_of"]

Think = Callable[[Conversation], Call | Answer]
BuildAgent = Callable[[AgentLattice, Sequence[Callable[..., str]], Think], Callable[[str], str]]
"""What each adapter's `demo` module provides: from a client, tools and a brain to something that does a task."""

_PATIENCE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a person answered, and whether it was really a person."""

    approved: bool
    automatic: bool


@dataclass(slots=True)
class Played:
    """How one step went. `problem` is None if it went as the story says."""

    step: Step
    exchanges: list[Exchange] = field(default_factory=list)
    asked: ApprovalRequest | None = None
    reply: Reply | None = None
    answer: str | None = None
    problem: str | None = None


Shown = Step | Call | Exchange | Reply | Answer | Played
"""What a watcher is shown, in this order: the step, then calls and what came back, a reply, the answer, how it went."""


def status_of(exchange: Exchange) -> str:
    """`ran`, or the denial's own status."""
    denial = read_denial(exchange.result)
    return "ran" if denial is None else str(denial["status"])


def play(
    build: BuildAgent,
    al: AgentLattice,
    operator: AgentLattice,
    ask: Callable[[ApprovalRequest], Reply],
    show: Callable[[Shown], object],
) -> Iterator[Played]:
    """Play the story, step by step. `ask` and `show` are called on this thread."""
    told: queue.Queue[object] = queue.Queue()
    workplace = Workplace()
    brain = _Watched(told.put)
    run = build(al, workplace.tools, brain.think)
    operator.subscribe_sync(operator.org_id, told.put, events=["approval.requested"])
    try:
        for step in STORY:
            show(step)
            played = _Playing(step, al, operator, told, ask, show).run(brain, run, workplace)
            show(played)
            yield played
    finally:
        operator.unsubscribe_sync()


class _Watched:
    """A brain, and somebody who is told what it is shown and what it does about it."""

    def __init__(self, tell: Callable[[object], None]) -> None:
        self._brain = Brain()
        self._tell = tell
        self._seen = 0

    def begin(self) -> None:
        self._seen = 0

    def think(self, conversation: Conversation) -> Call | Answer:
        for exchange in conversation.exchanges[self._seen :]:
            self._tell(exchange)
        self._seen = len(conversation.exchanges)
        move = self._brain.think(conversation)
        if isinstance(move, Call):
            self._tell(move)
        return move


@dataclass(frozen=True, slots=True)
class _Ended:
    """The agent's run is over."""

    answer: str | None
    error: BaseException | None


class _Playing:
    """One step while it runs."""

    def __init__(
        self,
        step: Step,
        al: AgentLattice,
        operator: AgentLattice,
        told: queue.Queue[object],
        ask: Callable[[ApprovalRequest], Reply],
        show: Callable[[Shown], object],
    ) -> None:
        self.played = Played(step)
        self.al = al
        self.operator = operator
        self.told = told
        self.ask = ask
        self.show = show

    def run(self, brain: _Watched, run: Callable[[str], str], workplace: Workplace) -> Played:
        played, step = self.played, self.played.step
        brain.begin()
        workplace.done.clear()
        before = self._logged()

        def act() -> None:
            try:
                self.told.put(_Ended(run(step.task), None))
            except (
                BaseException
            ) as error:  # also one that would end the thread in silence: somebody waits for it
                self.told.put(_Ended(None, error))

        agent = threading.Thread(target=act, name=f"demo-{step.name}", daemon=True)
        agent.start()
        try:
            ended = self._watch()
        except BaseException:
            self._withdraw()
            agent.join(_PATIENCE)
            raise
        agent.join()
        played.answer = ended.answer
        if ended.answer is not None:
            self.show(Answer(ended.answer))
        if ended.error is not None:
            played.problem = f"the agent ended with {type(ended.error).__name__}: {ended.error}"
        else:
            approved = played.reply.approved if played.reply is not None else None
            played.problem = step.check(Happened(played.exchanges, workplace, approved)) or self._compare(
                before
            )
        return played

    def _watch(self) -> _Ended:
        """Show what happens and answer what is asked, until the agent's run is over."""
        while True:
            item = self.told.get()
            if isinstance(item, _Ended):
                return item
            if isinstance(item, GovernanceEvent):
                self._answer(item.data["approval_id"])
            elif isinstance(item, Exchange):
                self.played.exchanges.append(item)
                self.show(item)
            elif isinstance(item, Call):
                self.show(item)

    def _answer(self, approval_id: str) -> None:
        for request in self.operator.list_pending_approvals_sync():
            if request.id == approval_id:
                self.played.asked = request
                self.played.reply = self._decide(request, self.ask(request))
                self.show(self.played.reply)

    def _decide(self, request: ApprovalRequest, reply: Reply) -> Reply:
        """Put the reply on record; one that comes after the deadline approves nothing."""
        decide = self.operator.approve_action_sync if reply.approved else self.operator.deny_action_sync
        said = "approved" if reply.approved else "denied"
        why = f"{said} by the demonstration itself" if reply.automatic else f"{said} at the terminal"
        try:
            decide(request.id, why)
        except IllegalTransitionError:
            return Reply(False, reply.automatic)
        return reply

    def _withdraw(self) -> None:
        """Deny what is still being asked, so that nobody waits for it."""
        for request in self.operator.list_pending_approvals_sync():
            try:
                self.operator.deny_action_sync(request.id, "the demonstration was interrupted")
            except IllegalTransitionError:  # it was decided, or timed out, in this very moment
                continue

    def _logged(self) -> int:
        return len(self._actions())

    def _actions(self) -> list[str]:
        """The status of each action of this agent in the log, the oldest first."""
        statuses: list[str] = []
        cursor: str | None = None
        while True:
            page = self.al.audit_sync(cursor=cursor)
            statuses += [event.status for event in page.events]
            cursor = page.next_cursor
            if cursor is None:
                return statuses[::-1]

    def _compare(self, before: int) -> str | None:
        """Whether the log holds exactly the calls that the model made, with what became of them."""
        made = [status_of(exchange) == "ran" for exchange in self.played.exchanges]
        logged = [status == "executed" for status in self._actions()[before:]]
        return (
            None if made == logged else f"the model made {len(made)} calls and the log tells of {len(logged)}"
        )
