"""`govern(...)`: what the user already has, governed in place, and the report of what that covers.

- The very object comes back. Tools get a gate on them; crews and agents are entered where the hooks look them
  up, so that tools which appear later are governed as well.
- What cannot be governed is refused: a provider's own tools are taken away from the model, and an agent that
  works outside CrewAI's hooks (an adapter, A2A) is an error, until the caller explicitly leaves them
  ungoverned.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Self, TypeVar

from crewai import Crew, Flow

from agentlattice_core import Delegate
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.toolcalls.call import OnApproval
from agentlattice_core.toolcalls.coverage import Coverage, CoverageStatus
from agentlattice_core.toolcalls.governance import GovernanceClient
from agentlattice_integrations.crewai.flows import govern_flow
from agentlattice_integrations.crewai.governor import (
    ActionsLike,
    Governor,
    HostedTools,
    OnBehalfOf,
    Operator,
    Settings,
)
from agentlattice_integrations.crewai.hooks import CallHooks
from agentlattice_integrations.crewai.hosted import take_hosted_tools_away
from agentlattice_integrations.crewai.registry import (
    governor_of_holder,
    register_agent,
    register_crew,
    register_hooks,
)
from agentlattice_integrations.crewai.tool_gate import gate_of, gate_tool, original_tool
from agentlattice_integrations.crewai.walk import Held, crews_and_agents, walk

__all__ = ["GovernanceHooks", "coverage", "govern"]

_T = TypeVar("_T")


def govern(
    target: _T,
    al: GovernanceClient | Delegate,
    *,
    report: Callable[[Coverage], object] | None = None,
    actions: ActionsLike = None,
    redact: tuple[str, ...] | list[str] = (),
    on_approval: OnApproval = "pause",
    approval_timeout: float | None = None,
    hosted_tools: HostedTools = "refuse",
    on_behalf_of: OnBehalfOf | None = None,
    task_action: str | None = None,
    run: OnBehalfOf | None = None,
    operator: Operator | None = None,
) -> _T:
    """Govern `target` in place and give it back.

    `target` is a tool, a list of tools, an `Agent`, a `LiteAgent`, a `Task`, a `Crew`, an instance of a `@CrewBase`
    class, or a `Flow`. `al` is the client whose agent acts, or a delegation
    (`al.delegate(...)`): the child begins now, and ends with `target`, or, where a run was named, with its time.
    `report` is called with the coverage report (`report=print` prints it), to which tools that appear later are added.
    The other settings are those of `Settings`: `actions` maps
    tools one does not own, `on_approval` is `pause` (pause the flow that the call is made in; where there is none that
    can pause, wait), `wait` (block until a person has decided, at most `approval_timeout` seconds) or `defer` (tell the
    model that the call is pending), `task_action` makes the start of each task an action of that type, `run` names the
    piece of work, so that calls made again after a restart are the same actions, `operator` is a client of the person
    whose feedback a paused flow is resumed with.

    Raises InvalidRequestError for something that is none of these, and for an agent that cannot be governed
    unless `hosted_tools="allow"`.
    """
    governor = Governor(
        al.__enter__() if isinstance(al, Delegate) else al,
        Settings(
            actions=actions,
            redact=tuple(redact),
            on_approval=on_approval,
            approval_timeout=approval_timeout,
            hosted_tools=hosted_tools,
            on_behalf_of=on_behalf_of,
            task_action=task_action,
            run=run,
            operator=operator,
        ),
    )
    if isinstance(al, Delegate) and al.run is None:
        weakref.finalize(governor, al.end_later)  # the child of a run stays, so that the run finds it again
    _govern(target, governor, report)
    return target


def coverage(target: Any) -> Coverage:
    """What `target` holds and whether a gate stands before each of it, as things are now. Governs nothing.

    Raises InvalidRequestError for something that `govern` would not take.
    """
    found = Coverage()
    for held in walk(target.crew() if _is_crew_class(target) else target):
        _enter(found, held)
    return found


class GovernanceHooks:
    """CrewAI's hooks with a gate behind them, for code that makes its crews later or elsewhere.

        with GovernanceHooks(al):
            crew.kickoff()

    Inside, every tool call of every agent is governed, whatever crew, agent or flow makes it. `install()`
    does the same for the whole process, or for the crews it is given, until `uninstall()`. The settings are
    those of `govern`. `coverage` lists the tools as they are met.
    """

    def __init__(
        self,
        al: GovernanceClient,
        *,
        actions: ActionsLike = None,
        redact: tuple[str, ...] | list[str] = (),
        on_approval: OnApproval = "pause",
        approval_timeout: float | None = None,
        hosted_tools: HostedTools = "refuse",
        on_behalf_of: OnBehalfOf | None = None,
        task_action: str | None = None,
        run: OnBehalfOf | None = None,
    ) -> None:
        self._governor = Governor(
            al,
            Settings(
                actions=actions,
                redact=tuple(redact),
                on_approval=on_approval,
                approval_timeout=approval_timeout,
                hosted_tools=hosted_tools,
                on_behalf_of=on_behalf_of,
                task_action=task_action,
                run=run,
            ),
        )
        self._hooks = CallHooks(self._governor_for)
        self._crews: frozenset[str] | None = None
        self._open = ExitStack()

    @property
    def coverage(self) -> Coverage:
        """The tools met so far."""
        return self._governor.coverage

    def install(self, *crews: Crew) -> None:
        """Govern the process from now on; with `crews`, those and their copies alone (crews are told by their
        key).
        """
        self._crews = frozenset(crew.key for crew in crews) if crews else None
        self._hooks.register(deadlines=True)

    def uninstall(self) -> None:
        """Undo `install`. Tools that were given a gate meanwhile keep it."""
        self._hooks.unregister()

    def __enter__(self) -> Self:
        self._open.enter_context(self._hooks.scoped())
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def _governor_for(self, context: Any) -> Governor | None:
        if self._crews is None:
            return self._governor
        crew = context.crew or getattr(context.agent, "crew", None)
        return self._governor if crew is not None and crew.key in self._crews else None


def _govern(target: Any, governor: Governor, report: Callable[[Coverage], object] | None) -> None:
    if _is_crew_class(target):
        _govern_crew_class(target, governor, report)
        register_hooks()
        return
    held = list(walk(target))
    _refuse_what_cannot_be_governed(held, governor)
    for item in held:
        if item.tool is not None:
            gate_tool(item.tool, governor)
    for owner in crews_and_agents(target):
        register_crew(owner, governor) if isinstance(owner, Crew) else register_agent(owner, governor)
    if isinstance(target, Flow):
        govern_flow(target, governor)
    register_hooks(deadlines=any(getattr(agent, "max_execution_time", None) for agent in _agents_in(target)))
    for item in held:
        _enter(governor.coverage, item, refused=governor.settings.hosted_tools == "refuse")
    if report is not None:
        report(governor.coverage)


def _agents_in(target: Any) -> Iterator[Any]:
    for owner in crews_and_agents(target):
        if isinstance(owner, Crew):
            yield from (*owner.agents, owner.manager_agent, *(task.agent for task in owner.tasks))
        else:
            yield owner


def _refuse_what_cannot_be_governed(held: list[Held], governor: Governor) -> None:
    if governor.settings.hosted_tools == "allow":
        return
    for item in held:
        if item.uncoverable is not None and item.kind != "hosted":
            raise InvalidRequestError(
                f"`{item.name}` of agent `{item.owner}` cannot be governed: {item.uncoverable}; remove it "
                'or pass hosted_tools="allow" to leave it ungoverned'
            )
    for item in held:
        if item.kind == "hosted":
            take_hosted_tools_away(item.holder.llm)


def _enter(found: Coverage, held: Held, *, refused: bool = False) -> None:
    """Enter one thing into a report, as it is now; `refused`: what cannot be governed has been taken away."""
    if held.uncoverable is not None:
        status: CoverageStatus = "refused" if refused else "not_coverable"
        found.add(held.name, kind=held.kind, status=status, why=held.uncoverable, owner=held.owner)
        return
    if held.tool is not None:
        placed = gate_of(original_tool(held.tool))
        governor = None if placed is None else placed.governor
    else:
        governor = governor_of_holder(held.holder)
    if governor is None:
        why = "nothing stands before it; pass what holds it to govern(...)"
        found.add(held.name, kind=held.kind, status="not_coverable", why=why, owner=held.owner)
        return
    action_type = None
    if held.kind != "mcp" or held.tool is not None:
        target = original_tool(held.tool) if held.tool is not None else None
        action_type = governor.gate.resolve(held.name, target).action_type
    found.add(held.name, kind=held.kind, action_type=action_type, why=held.note, owner=held.owner)


def _is_crew_class(target: Any) -> bool:
    return not isinstance(target, type) and bool(getattr(type(target), "is_crew_class", False))


def _govern_crew_class(target: Any, governor: Governor, report: Callable[[Coverage], object] | None) -> None:
    """An instance of a @CrewBase class makes its crew when asked: govern each crew it makes."""
    make = target.crew

    @functools.wraps(make)
    def crew(*args: Any, **kwargs: Any) -> Any:
        made = make(*args, **kwargs)
        _govern(made, governor, report)
        return made

    target.crew = crew
