"""What a client reads: dry runs, identity, policies, the audit trail, and whether the log is what it was.

- Nothing here is recorded, but for a checkpoint that is signed and what an administrator erases.
- Embedded, the log is read in this process; a service is asked for the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentlattice_core import admission, erasure, introspection, posture, registries, verification
from agentlattice_core.actions import Action
from agentlattice_core.clock import time_of_log
from agentlattice_core.errors import AuditError, ForbiddenError, InvalidRequestError
from agentlattice_core.remote import requests
from agentlattice_core.results import (
    ActionOptions,
    AuditResult,
    CanIResult,
    PoliciesResult,
    PostureResult,
    RegistryEntry,
    VerifyResult,
    WhoamiResult,
)
from agentlattice_core.session import Session
from agentlattice_core.stores.base import Reader
from agentlattice_core.verification import StateDifference
from agentlattice_core.work import Command, Local, Reading, Work

__all__ = ["Looking", "options_given"]


class Looking(Session):
    """The part of a client that reads. Use `AgentLattice`."""

    async def can_i(
        self, action_type: str, options: ActionOptions | None = None, **fields: Any
    ) -> CanIResult:
        """What `execute` would answer; nothing is recorded and nobody is asked."""
        return await self._asking(action_type, options, fields).run_async()

    def can_i_sync(self, action_type: str, options: ActionOptions | None = None, **fields: Any) -> CanIResult:
        """As `can_i`."""
        return self._asking(action_type, options, fields).run()

    def _asking(
        self, action_type: str, options: ActionOptions | None, fields: dict[str, Any]
    ) -> Work[CanIResult]:
        action = Action.build(action_type, options_given(options, fields))
        service = self._remote
        if service is not None:
            return service.work(requests.can_i(action))
        agent, engine = self._acting().agent, self._engine

        def look(reader: Reader) -> CanIResult:
            now = time_of_log(engine.clock, reader.head.at)
            return introspection.can_i(engine.policies, reader, agent, action, now)

        return Reading(engine, look)

    async def policies(self, scope: str = "own") -> PoliciesResult:
        """The policies that may concern this agent, or with `scope="org"` all of them."""
        return await self._policies(scope).run_async()

    def policies_sync(self, scope: str = "own") -> PoliciesResult:
        """As `policies`."""
        return self._policies(scope).run()

    def _policies(self, scope: str) -> Work[PoliciesResult]:
        if scope not in ("own", "org"):
            raise InvalidRequestError(f"scope `{scope}` must be `own` or `org`")
        service = self._remote
        if service is not None:
            return service.work(requests.policies(scope))
        agent, in_force = self._acting().agent if scope == "own" else None, self._engine.policies
        return Reading(self._engine, lambda reader: introspection.policies_of(in_force, reader, agent))

    async def whoami(self) -> WhoamiResult:
        """This agent's identity, state, policies, and delegations in force."""
        return await self._whoami().run_async()

    def whoami_sync(self) -> WhoamiResult:
        """As `whoami`."""
        return self._whoami().run()

    def _whoami(self) -> Work[WhoamiResult]:
        service = self._remote
        if service is not None:
            return service.work(requests.whoami())
        agent, engine, org_id = self._acting().agent, self._engine, self.org_id

        def look(reader: Reader) -> WhoamiResult:
            now = time_of_log(engine.clock, reader.head.at)
            return introspection.whoami(engine.policies, reader, agent, org_id, now)

        return Reading(engine, look)

    async def registry(self, name: str) -> list[RegistryEntry]:
        """What a registry that is kept in the store holds, in the order of values. Raises NotFoundError."""
        return await self._registry(name).run_async()

    def registry_sync(self, name: str) -> list[RegistryEntry]:
        """As `registry`."""
        return self._registry(name).run()

    def _registry(self, name: str) -> Work[list[RegistryEntry]]:
        admission.check_id("registry", name)
        service = self._remote
        if service is not None:
            return service.work(requests.registry(name))
        return Reading(self._engine, lambda reader: registries.entries(reader, name))

    async def audit(
        self,
        cursor: str | None = None,
        limit: int = 50,
        action_type: str | None = None,
        agent: str | None = None,
    ) -> AuditResult:
        """A page of the audit trail, newest first: an agent's own actions, or for an operator everybody's, or those of
        the `agent` that they name.

        Raises InvalidRequestError, NotFoundError for an agent that nobody registered, ForbiddenError for an agent that
        names another one.
        """
        return await self._page(cursor, limit, action_type, agent).run_async()

    def audit_sync(
        self,
        cursor: str | None = None,
        limit: int = 50,
        action_type: str | None = None,
        agent: str | None = None,
    ) -> AuditResult:
        """As `audit`."""
        return self._page(cursor, limit, action_type, agent).run()

    def _page(
        self, cursor: str | None, limit: int, action_type: str | None, agent: str | None
    ) -> Work[AuditResult]:
        if not isinstance(limit, int):
            raise InvalidRequestError(f"limit `{limit!s:.80}` must be a whole number")
        if action_type is not None and not isinstance(action_type, str):
            raise InvalidRequestError(f"action type `{action_type!s:.80}` must be text")
        if agent is not None:
            admission.check_id("agent", agent)
        service = self._remote
        if service is not None:
            return service.work(requests.audit(cursor, limit, action_type, agent))
        own = self.agent
        if own is not None and agent not in (None, own):
            raise ForbiddenError(f"agent `{own}` is shown its own actions only")
        return Reading(
            self._engine,
            lambda reader: introspection.audit_page(
                reader,
                agent=own if own is not None else agent,
                cursor=cursor,
                limit=limit,
                action_type=action_type,
                for_operator=own is None,
            ),
        )

    async def verify(self, checkpoint: str | None = None, *, incremental: bool = False) -> VerifyResult:
        """Verify the log: every entry, payload, tile and signed checkpoint.

        `checkpoint` is a signed note that was kept elsewhere. `incremental` verifies only what came after it, or after
        the last one signed. Raises AuditError if `checkpoint` is not this log's.
        """
        return await self._verifying(checkpoint, incremental).run_async()

    def verify_sync(self, checkpoint: str | None = None, *, incremental: bool = False) -> VerifyResult:
        """As `verify`."""
        return self._verifying(checkpoint, incremental).run()

    def _verifying(self, checkpoint: str | None, incremental: bool) -> Work[VerifyResult]:
        if checkpoint is not None and not isinstance(checkpoint, str):
            raise InvalidRequestError(f"checkpoint `{checkpoint!s:.80}` must be the text of a signed note")
        service = self._remote
        if service is not None:
            return service.work(requests.verify(checkpoint, incremental))
        engine = self._engine
        return Local(lambda: verification.verify(engine, checkpoint, incremental=incremental))

    def verify_state_sync(self) -> list[StateDifference]:
        """Fold the log again and compare: every document of state that is not what the log makes of it.

        For who has the file of the log. Raises ForbiddenError for a client of a service.
        """
        return list(verification.verify_state(self._engine))

    async def posture(self) -> PostureResult:
        """How well the organisation is governed, 0 to 100, and what that is made of. Reads the whole log.

        An operator is also told which action types no policy covers. See `agentlattice_core.posture` for what earns how
        much.
        """
        return await self._posture().run_async()

    def posture_sync(self) -> PostureResult:
        """As `posture`."""
        return self._posture().run()

    def _posture(self) -> Work[PostureResult]:
        service = self._remote
        if service is not None:
            return service.work(requests.posture())
        engine, naming = self._engine, self._caller is None
        return Local(lambda: posture.posture_of(engine, naming=naming))

    async def checkpoint(self) -> str:
        """Sign the log as it is now: a note to keep where nobody who can write the log can change it.

        Raises AuditError if the log is not the one that was signed before.
        """
        return await self._signing().run_async()

    def checkpoint_sync(self) -> str:
        """As `checkpoint`."""
        return self._signing().run()

    def _signing(self) -> Work[str]:
        service = self._remote
        if service is not None:
            return service.work(requests.checkpoint())
        engine = self._engine

        def sign() -> str:
            engine.flush()
            note = engine.notary.sign()
            if note is None:
                raise AuditError(engine.notary.alarm or "the log could not be signed")
            return note

        return Local(sign)

    def verifier_key(self) -> str:
        """The public key of the checkpoints, as `name+id+key`: what a verifier elsewhere needs."""
        service = self._remote
        if service is not None:
            return service.ask(requests.verifier_key())
        return self._engine.notary.verifier_key().format()

    async def erase(self, indexes: Iterable[int], reason: str) -> int:
        """Erase what may be personal in entries of the log, by index; how many there were. For administrators."""
        return await self._erasing(indexes, reason).run_async()

    def erase_sync(self, indexes: Iterable[int], reason: str) -> int:
        """As `erase`."""
        return self._erasing(indexes, reason).run()

    def _erasing(self, indexes: Iterable[int], reason: str) -> Work[int]:
        chosen = list(indexes)
        for index in chosen:
            if not isinstance(index, int):
                raise InvalidRequestError(f"entry `{index!s:.80}` must be named by its index, a whole number")
        admission.checked_text("reason", reason)
        service = self._remote
        if service is not None:
            return service.work(requests.erase(chosen, reason))
        operator = self._deciding()
        return Command(self._engine, lambda batch: erasure.erase(batch, operator, chosen, reason))


def options_given(options: ActionOptions | None, fields: dict[str, Any]) -> ActionOptions:
    """An action's data, passed as options or by keyword. Raises InvalidRequestError."""
    if options is not None and not isinstance(options, ActionOptions):
        raise InvalidRequestError(
            f"options: a value of type `{type(options).__name__}` is no ActionOptions; "
            "pass one, or its members by keyword"
        )
    if not fields:
        return options if options is not None else ActionOptions()
    if options is not None:
        raise InvalidRequestError("pass the action's data as options or by keyword, not both")
    try:
        return ActionOptions(**fields)
    except TypeError:
        known = vars(ActionOptions()).keys()
        wrong = sorted(set(fields) - known)
        raise InvalidRequestError(
            f"an action has no `{wrong[0]}`; its data is {', '.join(known)}, and anything else goes into metadata"
        ) from None
