"""How a client delegates: blocks that give a child and take it back, one at a time or many at once.

    async with al.delegate("reader", capabilities=["read_data"], ttl=300) as reader:
        await reader.execute("read_data")

- A block ends its child however it is left: by an exception, by cancellation, by Ctrl-C. If the end cannot be recorded
  at that moment it rides with the next batch; what a killed process leaves behind ends by its time to live.
- A framework's pause (`pauses`) is no end: the child is left as it is, for the same run to find again.
- Many at once begin together or not at all, and end together.
- Every block works with `with` and with `async with`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, cast

from agentlattice_core import admission, delegation
from agentlattice_core.admission import Caller
from agentlattice_core.agents import check_name
from agentlattice_core.batch import Batch
from agentlattice_core.clock import time_of_log
from agentlattice_core.delegation import Asked, Granted
from agentlattice_core.errors import (
    AgentLatticeError,
    ForbiddenError,
    IllegalTransitionError,
    InvalidRequestError,
    NotFoundError,
)
from agentlattice_core.pauses import is_pause
from agentlattice_core.principals import Operator
from agentlattice_core.remote import requests
from agentlattice_core.results import DelegationsResult, RevokeResult
from agentlattice_core.session import Session
from agentlattice_core.stores.base import Reader
from agentlattice_core.work import Command, Reading, Recording, Work

if TYPE_CHECKING:
    from agentlattice_core.client import AgentLattice
    from agentlattice_core.delegated import DelegatedAgent

__all__ = ["Delegate", "Delegating", "Parallel"]

_log = logging.getLogger("agentlattice")


class Delegate:
    """A child to be: nothing is recorded until its block is entered. Made by `delegate`; one block at a time."""

    def __init__(self, client: Delegating, asked: Asked) -> None:
        self._client = client
        self._asked = asked
        self._child: DelegatedAgent | None = None
        self._ending: Recording[None] | None = None

    @property
    def parent(self) -> AgentLattice:
        """The client whose agent delegates."""
        return cast("AgentLattice", self._client)

    @property
    def name(self) -> str:
        """What the parent calls the child."""
        return self._asked.name

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What the child is to hold."""
        return self._asked.capabilities

    @property
    def run(self) -> str | None:
        """The run that finds the same child again."""
        return self._asked.run

    def of_run(self, run: str) -> Delegate:
        """The same delegation in a run of its own: for who learns only later which run it is, as adapters do."""
        return Delegate(self._client, replace(self._asked, run=check_name(run, "run")))

    def __enter__(self) -> DelegatedAgent:
        beginning = self._begin()
        try:
            return self._entered(beginning, beginning.work().run())
        except BaseException:
            self._never_entered(beginning)
            raise

    async def __aenter__(self) -> DelegatedAgent:
        beginning = self._begin()
        try:
            return self._entered(beginning, await beginning.work().run_async())
        except BaseException:
            self._never_entered(beginning)
            raise

    def _begin(self) -> _Beginning:
        if self._child is not None:
            raise IllegalTransitionError(f"the block of `{self.name}` is entered already; delegate once more")
        return _Beginning(self._client, self._asked)

    def _entered(self, beginning: _Beginning, begun: _Begun) -> DelegatedAgent:
        granted = begun.granted
        self._ending = beginning.ending(begun)
        from agentlattice_core.delegated import (
            DelegatedAgent,  # a client itself, and so not there before this module
        )

        child = DelegatedAgent._of(self._client, self, granted, begun.key)
        self._child = child
        if granted.clamped:
            _log.info("`%s` ends with its parent at %s, sooner than asked for", self.name, granted.expires_at)
        return child

    def _never_entered(self, beginning: _Beginning) -> None:
        self._child = self._ending = None
        beginning.give_all_back()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            ending = self._leave(error)
            if ending is not None:
                ending.run()
                self._ending = None
        except BaseException as failure:
            self._leave_behind(failure, error)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            ending = self._leave(error)
            if ending is not None:
                await ending.run_async()
                self._ending = None
        except BaseException as failure:
            self._leave_behind(failure, error)

    def _leave(self, error: BaseException | None) -> Recording[None] | None:
        """How the child ends, or None if there is none or it is only suspended."""
        if is_pause(error):
            self._ending = None
        if self._child is not None:
            self._child.close()
            self._child = None
        return self._ending

    def _leave_behind(self, failure: BaseException, error: BaseException | None) -> None:
        """The end was not recorded, or nobody waited to hear that it was. Raises `failure`, unless the block itself
        failed and says more.
        """
        self.end_later()
        if error is None or not isinstance(failure, Exception):
            raise failure
        _log.warning("the end of a delegation could not be recorded at once: %s", failure)

    def end_later(self) -> None:
        """Have the child's end ride with the next batch, if it has not ended."""
        ending, self._ending = self._ending, None
        if ending is not None:
            try:
                ending.post()
            except AgentLatticeError as refused:
                _log.warning(
                    "the end of a delegation cannot be recorded; it ends with its time to live: %s", refused
                )


@dataclass(frozen=True, slots=True)
class _Begun:
    """A child that is in force, and the key it acts with at a service."""

    granted: Granted
    key: str | None = None


class _Beginning:
    """A child on its way, and taking it back if the block is not entered after all: by a cancellation or an interrupt
    before, or right after, it was recorded.
    """

    def __init__(self, client: Delegating, asked: Asked) -> None:
        self._client = client
        self._asked = asked
        self._begun: list[_Begun] = []

    def work(self) -> Work[_Begun]:
        """What begins it."""
        asked, service = self._asked, self._client._remote
        if service is not None:
            return service.work(
                requests.delegate(asked, lambda granted, key: self._noted(_Begun(granted, key))),
                abandoned=self.give_back,
            )
        caller = self._client._acting()
        return Command(
            self._client._engine,
            lambda batch: self._noted(_Begun(delegation.grant(batch, caller, asked))),
            self.give_back,
        )

    def _noted(self, begun: _Begun) -> _Begun:
        self._begun.append(begun)
        return begun

    def ending(self, begun: _Begun) -> Recording[None]:
        """What ends it."""
        granted, service = begun.granted, self._client._remote
        if service is not None:
            return service.work(requests.end_delegation(granted.id))
        caller = self._client._acting()

        def command(batch: Batch) -> None:
            try:
                delegation.close(batch, caller, granted.id)
            except NotFoundError:
                pass  # its beginning was not recorded either

        return Command(self._client._engine, command)

    def give_back(self, begun: _Begun) -> None:
        """End it, whenever that can be recorded."""
        self.ending(begun).post()

    def give_all_back(self) -> None:
        """End what began."""
        for begun in self._begun:
            self.give_back(begun)


class Parallel:
    """Many children at once, in the order in which they were asked for. Made by `parallel`."""

    def __init__(self, delegates: Sequence[Delegate]) -> None:
        if len({id(one) for one in delegates}) < len(delegates):
            raise InvalidRequestError("one delegation was passed twice; delegate once for each child")
        named = [(one._client._identity, one.name, one.run) for one in delegates if one.run]
        for found in named:
            if named.count(found) > 1:
                raise InvalidRequestError(
                    f"`{found[1]}` of run `{found[2]}` would be one child twice; give each a name of its own"
                )
        self._delegates = tuple(delegates)

    def __enter__(self) -> list[DelegatedAgent]:
        children: list[DelegatedAgent] = []
        try:
            for one in self._delegates:
                children.append(one.__enter__())
        except BaseException as error:
            self._exit_all(error)
            raise
        return children

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit_all(error)

    def _exit_all(self, error: BaseException | None) -> None:
        failures: list[BaseException] = []
        for one in self._delegates:
            try:
                one.__exit__(None if error is None else type(error), error, None)
            except BaseException as failure:  # the others have to end too
                failures.append(failure)
                one.end_later()
        _raise_worst(failures)

    async def __aenter__(self) -> list[DelegatedAgent]:
        try:
            # At once, so that they share a commit.
            entered = await asyncio.gather(
                *(one.__aenter__() for one in self._delegates), return_exceptions=True
            )
            _raise_worst([one for one in entered if isinstance(one, BaseException)])
        except BaseException as error:
            await self._aexit_all(error)
            raise
        return [one for one in entered if not isinstance(one, BaseException)]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._aexit_all(error)

    async def _aexit_all(self, error: BaseException | None) -> None:
        kind = None if error is None else type(error)
        ended = await asyncio.gather(
            *(one.__aexit__(kind, error, None) for one in self._delegates), return_exceptions=True
        )
        _raise_worst([failure for failure in ended if failure is not None])


def _raise_worst(failures: Sequence[BaseException]) -> None:
    """Raise an interrupt before an error, and the first of either."""
    for failure in sorted(failures, key=lambda one: isinstance(one, Exception)):
        raise failure


class Delegating(Session):
    """What a session adds to delegate, to see what is delegated, and to take it back."""

    def delegate(
        self,
        name: str,
        *,
        capabilities: Iterable[str],
        ttl: float,
        run: str | None = None,
        grants: Iterable[str] = (),
    ) -> Delegate:
        """A child that may do some of what this agent may, in a block: `async with al.delegate(...) as child:`.

        `capabilities` are action types or patterns as in policy (`deploy.*`), a subset of this agent's own; `ttl` is in
        seconds, at most 86400, cut to what this agent itself has left. With `run`, the id of a run that may be
        interrupted and go on elsewhere, the same name finds the same child again. `grants` are those of this agent's
        own that the child is to have too.

        Raises InvalidRequestError here; ForbiddenError, IllegalTransitionError and NotRecordedError when entered.
        """
        if self._remote is None:
            self._acting()
        return Delegate(self, Asked.of(name, capabilities, ttl, run, grants))

    def delegate_sync(
        self,
        name: str,
        *,
        capabilities: Iterable[str],
        ttl: float,
        run: str | None = None,
        grants: Iterable[str] = (),
    ) -> Delegate:
        """As `delegate`, for `with`."""
        return self.delegate(name, capabilities=capabilities, ttl=ttl, run=run, grants=grants)

    @staticmethod
    def parallel(*delegates: Delegate) -> Parallel:
        """Several children at once: `async with AgentLattice.parallel(al.delegate(...), ...) as [one, other]:`.

        If one cannot begin, none does; however the block is left, all end. Raises InvalidRequestError for one child
        asked for twice.
        """
        return Parallel(delegates)

    @staticmethod
    def parallel_sync(*delegates: Delegate) -> Parallel:
        """As `parallel`, for `with`."""
        return Parallel(delegates)

    async def delegations(
        self, role: str | None = None, active_only: bool = True, agent: str | None = None
    ) -> DelegationsResult:
        """What this agent delegated (`role="parent"`), was given (`"child"`), or both, the oldest first.

        An operator is shown everybody's, or those of the `agent` that they name. Raises InvalidRequestError,
        NotFoundError for an agent that nobody registered, ForbiddenError for an agent that names another one.
        """
        return await self._delegations(role, active_only, agent).run_async()

    def delegations_sync(
        self, role: str | None = None, active_only: bool = True, agent: str | None = None
    ) -> DelegationsResult:
        """As `delegations`."""
        return self._delegations(role, active_only, agent).run()

    def _delegations(self, role: str | None, active_only: bool, agent: str | None) -> Work[DelegationsResult]:
        service = self._remote
        if service is not None:
            return service.work(requests.delegations(role, active_only, agent))
        if self._operator is None:
            own = self._acting().agent
            if agent not in (None, own):
                raise ForbiddenError(f"agent `{own}` is shown its own delegations only")
            agent = own
        if agent is None and role is not None:
            raise InvalidRequestError(
                "an operator has no role in a delegation; leave `role` out, or name whose in `agent`"
            )
        clock = self._engine.clock

        def look(reader: Reader) -> DelegationsResult:
            now = time_of_log(clock, reader.head.at)
            return DelegationsResult(
                delegation.delegations(reader, agent, role, active_only=active_only, at=now)
            )

        return Reading(self._engine, look)

    async def revoke(self, delegation_id: str) -> RevokeResult:
        """End a delegation and every one below it. For agents above the child, and for operators.

        Raises NotFoundError, ForbiddenError, and IllegalTransitionError for one that has ended.
        """
        return await self._revoking(delegation_id).run_async()

    def revoke_sync(self, delegation_id: str) -> RevokeResult:
        """As `revoke`."""
        return self._revoking(delegation_id).run()

    def _revoking(self, delegation_id: str) -> Work[RevokeResult]:
        admission.check_id("delegation", delegation_id)
        service = self._remote
        if service is not None:
            return service.work(requests.revoke(delegation_id))
        by: Caller | Operator | None = self._operator or self._caller
        if by is None:
            raise ForbiddenError("this client acts for nobody; open it with `agent=` or `operator=`")
        actor = by

        def command(batch: Batch) -> RevokeResult:
            delegation.revoke(batch, actor, delegation_id)
            return RevokeResult(True, delegation_id)

        return Command(self._engine, command)
