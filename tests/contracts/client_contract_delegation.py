"""What delegating promises, embedded and remote, whichever way a block is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from client_world import ClientWorld

from agentlattice_core import (
    AgentLattice,
    DelegatedAgent,
    ForbiddenError,
    IllegalTransitionError,
    InvalidRequestError,
    NotFoundError,
)
from agentlattice_core.pauses import register_pause

__all__ = ["DelegationContract"]


class PauseError(Exception):
    """How some framework suspends a run."""


register_pause(PauseError)


class DelegationContract:
    """Subclasses give a `world`."""

    @pytest.fixture(params=["sync", "async"])
    def inside(self, request: pytest.FixtureRequest) -> Any:
        """Enters a delegation by `with` or by `async with` and runs `work` with what it gives."""

        def run(block: Any, work: Any) -> Any:
            if request.param == "sync":
                with block as given:
                    return work(given)

            async def run_async() -> Any:
                async with block as given:
                    return work(given)

            return asyncio.run(run_async())

        return run

    def test_a_child_does_what_it_was_given_and_nothing_else(self, world: ClientWorld, inside: Any) -> None:
        """It acts under a name of its own, on its parent's log; after its block it may do nothing."""
        al = world.agent()

        def work(child: DelegatedAgent) -> DelegatedAgent:
            assert child.execute_sync("data.read").status == "executed"
            assert child.execute_sync("free").denial_reason == "OUT_OF_SCOPE"
            assert (child.name, child.capabilities, child.clamped) == ("reader", ("data.read",), False)
            assert child.whoami_sync().config_id != al.whoami_sync().config_id
            (entry,) = al.delegations_sync(role="parent").delegations
            assert (entry.id, entry.active, entry.agent) == (child.delegation_id, True, child.agent)
            assert entry.expires_at == child.expires_at
            return child

        child = inside(al.delegate("reader", capabilities=["data.read"], ttl=60), work)
        assert child.execute_sync("data.read").denial_reason == "OUT_OF_SCOPE"
        assert al.delegations_sync().delegations == []
        assert [entry.status for entry in al.delegations_sync(active_only=False).delegations] == ["closed"]

    def test_an_error_in_the_block_ends_the_child_and_is_raised(
        self, world: ClientWorld, inside: Any
    ) -> None:
        """However a block is left."""
        al = world.agent()

        def work(_: DelegatedAgent) -> None:
            raise KeyError("the work failed")

        with pytest.raises(KeyError, match="the work failed"):
            inside(al.delegate("reader", capabilities=["data.read"], ttl=60), work)
        assert al.delegations_sync().delegations == []

    def test_a_pause_suspends_the_child_and_its_run_finds_it_again(
        self, world: ClientWorld, inside: Any
    ) -> None:
        """The same child, whose claims and event ids are its own; the end comes with the block that is left."""
        al = world.agent()
        seen: list[str | None] = []

        def pause(child: DelegatedAgent) -> None:
            seen.append(child.agent)
            raise PauseError

        block = al.delegate("reader", capabilities=["data.read"], ttl=600, run="run-1")
        with pytest.raises(PauseError):
            inside(block, pause)
        assert len(al.delegations_sync().delegations) == 1

        def resume(child: DelegatedAgent) -> None:
            seen.append(child.agent)
            assert child.execute_sync("data.read").status == "executed"

        inside(al.delegate("reader", capabilities=["data.read"], ttl=600, run="run-1"), resume)
        assert seen[0] == seen[1]
        assert al.delegations_sync().delegations == []

    def test_a_child_delegates_further_and_never_more_than_it_holds(
        self, world: ClientWorld, inside: Any
    ) -> None:
        """A chain narrows, and its life is cut to what is above it."""
        al = world.agent()

        def work(child: DelegatedAgent) -> None:
            with child.delegate_sync("helper", capabilities=["data.read"], ttl=3600) as helper:
                assert helper.execute_sync("data.read").status == "executed"
                assert helper.execute_sync("data.write").denial_reason == "OUT_OF_SCOPE"
                assert helper.clamped
                assert helper.expires_at == child.expires_at
            with (
                pytest.raises(ForbiddenError),
                child.delegate_sync("thief", capabilities=["free"], ttl=60),
            ):
                pass

        inside(al.delegate("reader", capabilities=["data.read", "data.write"], ttl=60), work)

    def test_many_begin_together_and_all_end(self, world: ClientWorld, inside: Any) -> None:
        """In the order asked for; if one cannot begin, none stays."""
        al = world.agent()

        def work(children: list[DelegatedAgent]) -> None:
            assert [child.name for child in children] == ["one", "two"]
            for child in children:
                assert child.execute_sync("data.read").status == "executed"
            assert len(al.delegations_sync().delegations) == 2

        inside(
            AgentLattice.parallel(
                al.delegate("one", capabilities=["data.read"], ttl=60),
                al.delegate("two", capabilities=["data.read"], ttl=60),
            ),
            work,
        )
        assert al.delegations_sync().delegations == []

        def split(child: DelegatedAgent) -> None:
            with (
                pytest.raises(ForbiddenError),
                AgentLattice.parallel_sync(
                    child.delegate("able", capabilities=["data.read"], ttl=60),
                    child.delegate("unable", capabilities=["free"], ttl=60),
                ),
            ):
                pass
            assert child.delegations_sync(role="parent").delegations == []

        inside(al.delegate("reader", capabilities=["data.read"], ttl=60), split)

    def test_one_child_is_not_asked_for_twice(self, world: ClientWorld) -> None:
        """In one run a name is one child."""
        al = world.agent()
        asked = [al.delegate("one", capabilities=["data.read"], ttl=60, run="r") for _ in range(2)]
        with pytest.raises(InvalidRequestError):
            AgentLattice.parallel(*asked)

    async def test_a_cancelled_beginning_leaves_no_child(self, world: ClientWorld) -> None:
        """Whether the cancellation came before or after the child was recorded."""
        al = world.agent()
        for moment in range(6):

            @asynccontextmanager
            async def entered() -> AsyncIterator[None]:
                async with al.delegate("reader", capabilities=["data.read"], ttl=60):
                    yield

            async def enter() -> None:
                async with entered():
                    await asyncio.sleep(60)

            task = asyncio.create_task(enter())
            await asyncio.sleep(0.004 * moment)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        while (await al.delegations()).delegations:
            await asyncio.sleep(0.01)

    def test_a_delegation_is_revoked_once_by_who_may(self, world: ClientWorld, inside: Any) -> None:
        """By whoever is above it; it stays ended, and leaving its block says nothing more."""
        al, other = world.agent(), world.agent("mallory")

        def work(child: DelegatedAgent) -> None:
            with pytest.raises(ForbiddenError):
                other.revoke_sync(child.delegation_id)
            said = al.revoke_sync(child.delegation_id)
            assert (said.revoked, said.delegation_id) == (True, child.delegation_id)
            with pytest.raises(IllegalTransitionError):
                al.revoke_sync(child.delegation_id)
            assert child.execute_sync("data.read").denial_reason == "OUT_OF_SCOPE"

        inside(al.delegate("reader", capabilities=["data.read"], ttl=60), work)
        with pytest.raises(NotFoundError):
            al.revoke_sync("del_nothing")

    def test_an_operator_looks_at_one_agent_and_an_agent_at_itself(
        self, world: ClientWorld, inside: Any
    ) -> None:
        """Actions and delegations by the agent's name, which an agent may say of nobody but itself."""
        al, other, ana = world.agent(), world.agent("eve"), world.operator()
        other.execute_sync("data.read")

        def work(child: DelegatedAgent) -> None:
            al.execute_sync("data.read")
            assert {event.agent for event in ana.audit_sync(agent="bob").events} == {"bob"}
            (held,) = ana.delegations_sync("parent", agent="bob").delegations
            assert (held.id, held.parent) == (child.delegation_id, "bob")
            assert ana.delegations_sync(agent="eve").delegations == []
            for look in (other.audit_sync, other.delegations_sync):
                with pytest.raises(ForbiddenError):
                    look(agent="bob")
            for look in (ana.audit_sync, ana.delegations_sync):
                with pytest.raises(NotFoundError):
                    look(agent="nobody")

        inside(al.delegate("reader", capabilities=["data.read"], ttl=60), work)

    @pytest.mark.parametrize("wrong", [{"ttl": 0}, {"ttl": 86401}, {"capabilities": []}, {"name": ""}])
    def test_what_cannot_be_delegated_is_refused_at_once(
        self, world: ClientWorld, wrong: dict[str, Any]
    ) -> None:
        """InvalidRequestError, before anything is recorded."""
        asked = {"name": "reader", "capabilities": ["data.read"], "ttl": 60, **wrong}
        with pytest.raises(InvalidRequestError):
            world.agent().delegate(asked.pop("name"), **asked)

    def test_a_child_waits_for_a_person_like_anyone(self, world: ClientWorld, inside: Any) -> None:
        """It is woken by the decision and holds the claim."""
        al, ana = world.agent(), world.operator()

        def work(child: DelegatedAgent) -> None:
            with deciding(ana):
                assert child.gate_sync("ask").claim == "started"

        inside(al.delegate("reader", capabilities=["ask"], ttl=600), work)

    def test_a_child_makes_no_other_identities(self, world: ClientWorld, inside: Any) -> None:
        """It is no way to act as somebody else."""

        def work(child: DelegatedAgent) -> None:
            with pytest.raises(ForbiddenError):
                child.for_agent("mallory")
            with pytest.raises(ForbiddenError):
                child.for_operator("root")

        inside(world.agent().delegate("reader", capabilities=["data.read"], ttl=60), work)


@contextmanager
def deciding(operator: AgentLattice) -> Iterator[None]:
    """Approve one request beside the block."""
    from client_contract import beside, first_pending

    with beside(lambda: operator.approve_action_sync(first_pending(operator))):
        yield
