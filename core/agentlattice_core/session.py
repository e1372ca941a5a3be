"""A client's session: which log it opened or which service it speaks to, for whom it acts, and giving both back.

- A session acts for one agent or for one operator, never both.
- Embedded, both names are what the process says they are. See docs/security-model.md for what that is worth. A service
  knows both by the key.
- Policy files are read before anything is opened, so that a typo in one changes nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from agentlattice_core import operators, policies, reevaluation
from agentlattice_core.admission import Caller
from agentlattice_core.agents import check_name, operator_named, register
from agentlattice_core.batch import Batch
from agentlattice_core.clock import Clock
from agentlattice_core.engine import Engine, open_engine, release
from agentlattice_core.errors import ForbiddenError, IllegalTransitionError, InvalidRequestError, StoreError
from agentlattice_core.policy.document import PolicyDocument
from agentlattice_core.principals import Operator, Role
from agentlattice_core.remote import requests
from agentlattice_core.remote.connections import Connections, checked_address
from agentlattice_core.remote.service import Service

__all__ = ["EIGHT_HOURS_MS", "Mode", "PolicySource", "PolicyText", "Session", "connected", "read_sources"]

_log = logging.getLogger("agentlattice")

Mode = Literal["enforce", "observe"]


@dataclass(frozen=True, slots=True)
class PolicyText:
    """The text of a policy file that is not here, and what it is called."""

    name: str
    text: str


PolicySource = str | os.PathLike[str] | PolicyDocument | PolicyText
"""A policy file, its text, or a document already read."""

EIGHT_HOURS_MS = 8 * 60 * 60 * 1000


class Session:
    """An open log and the identity that works on it. Use `AgentLattice`, which adds what can be done."""

    @classmethod
    def embedded(
        cls,
        path: str | os.PathLike[str] = "governance.db",
        *,
        policies: PolicySource | Sequence[PolicySource] | None = None,
        agent: str | None = None,
        operator: str | None = None,
        role: Role = "member",
        groups: Iterable[str] = (),
        tags: Iterable[str] | None = None,
        grants: Iterable[str] | None = None,
        owner: str | None = None,
        mode: Mode = "enforce",
        clock: Clock | None = None,
        signing_key: str | os.PathLike[str] | None = None,
        gate_poll_timeout_ms: int = EIGHT_HOURS_MS,
        organisation: str | None = None,
    ) -> Self:
        """Open the log in the SQLite file at `path`, or in the database `postgresql://...`, creating it if it is not
        there.

        `policies` are files to apply if their content has changed since they were last applied. `agent` names who
        acts (default: the program's name is never guessed; without it, only an operator's methods work), with what the
        operator says of it: `tags`, `grants` and `owner`. `operator` names the person who decides, with `role` and
        `groups`, which count as long as nobody is registered in the log (`register_operator`). In `mode="observe"`
        everything is decided and recorded, and everything runs. `signing_key` is the file that holds the key which
        signs the log (default `<path>.key`, made at first use); kept apart from the database and its backups, it proves
        more. It may be a key in a key service, such as `vault://vault.example.com:8200/transit/agentlattice`.
        `organisation` names one of several in a database (`stores.databases`).

        Raises StoreError, PolicyDocumentError, InvalidRequestError.
        """
        if agent is not None and operator is not None:
            raise InvalidRequestError(
                "name an agent or an operator, not both: nobody decides on their own requests"
            )
        checked_mode(mode)
        documents = read_sources(policies)  # read before anything is opened: a typo must change nothing
        person = operator_named(operator, role, groups) if operator is not None else None
        engine = open_engine(path, clock, signing_key, organisation=organisation)
        try:
            client = cls._over(engine, mode, gate_poll_timeout_ms)
            client._operator = person
            if agent is not None:
                client._caller = Caller(check_name(agent, "agent"), mode)
                client._register(tags, grants, owner)
            for name, digest, document in documents:
                client._publish(document, name, digest, prune=True, force=False)
        except BaseException:
            release(engine)
            raise
        return client

    @classmethod
    def over(
        cls,
        engine: Engine,
        who: Caller | Operator,
        *,
        gate_poll_timeout_ms: int = EIGHT_HOURS_MS,
    ) -> Self:
        """A client on an engine that is open, for a registered agent or for a person whom somebody else has
        authenticated, as the service does.

        The engine is the caller's to keep open for as long as the client is used; closing the client does not close it.
        """
        observing = isinstance(who, Caller) and who.mode == "observe"
        client = cls._over(engine, "observe" if observing else "enforce", gate_poll_timeout_ms)
        client._borrowed = True
        if isinstance(who, Operator):
            client._operator = who
        else:
            client._caller = who
        return client

    @classmethod
    def _over(cls, engine: Engine, mode: Mode, gate_poll_timeout_ms: int) -> Self:
        client = object.__new__(cls)
        client._opened = engine
        client._service = None
        client._begin(mode, gate_poll_timeout_ms)
        return client

    @classmethod
    def _speaking(cls, service: Service, mode: Mode, gate_poll_timeout_ms: int) -> Self:
        client = object.__new__(cls)
        client._service = service
        client._begin(mode, gate_poll_timeout_ms)
        return client

    def _begin(self, mode: Mode, gate_poll_timeout_ms: int) -> None:
        self._mode = checked_mode(mode)
        if not gate_poll_timeout_ms >= 0:
            raise InvalidRequestError(f"gate_poll_timeout_ms `{gate_poll_timeout_ms}` must be 0 or more")
        self._gate_patience = gate_poll_timeout_ms / 1000
        self._caller = None
        self._operator = None
        self._ends = []
        self._closed = False
        self._borrowed = False

    _opened: Engine
    _service: Service | None
    _mode: Mode
    _gate_patience: float
    _caller: Caller | None
    _operator: Operator | None
    _ends: list[Callable[[], None]]
    _closed: bool
    _borrowed: bool

    def for_agent(
        self,
        agent: str,
        *,
        tags: Iterable[str] | None = None,
        grants: Iterable[str] | None = None,
        owner: str | None = None,
    ) -> Self:
        """A client on the same log, open as long as this one, that acts for `agent`.

        An operator who registers an agent may not decide for it. At a service, registering takes a service key, and the
        client that comes back holds the agent's own.
        """
        if self._service is not None:
            if agent == self.agent and (tags, grants, owner) == (None, None, None):
                key = self._service.key
            else:
                key = _registered(self._service, check_name(agent, "agent"), tags, grants, owner)
            client = self._speaking(self._service.holder(key), self._mode, int(self._gate_patience * 1000))
            client._borrowed = True
            return client
        client = self._sibling()
        try:
            client._caller = Caller(check_name(agent, "agent"), self._mode)
            client._register(tags, grants, owner, self._operator)
        except BaseException:
            client.close()
            raise
        return client

    def for_operator(self, operator: str, *, role: Role = "member", groups: Iterable[str] = ()) -> Self:
        """A client on the same log, open as long as this one, that decides for the person `operator`.

        `role` and `groups` count as long as nobody is registered in the log (`register_operator`). At a service, who
        decides is who holds an operator's key, and nobody can speak for them: raises ForbiddenError.
        """
        if self._service is not None:
            raise ForbiddenError(
                f"only who holds the key of `{operator!s:.80}` decides for them; open a client with that key"
            )
        person = operator_named(operator, role, groups)
        client = self._sibling()
        client._operator = person
        return client

    def _sibling(self) -> Self:
        client = self._over(self._engine, self._mode, int(self._gate_patience * 1000))
        client._borrowed = True
        return client

    def _register(
        self,
        tags: Iterable[str] | None,
        grants: Iterable[str] | None,
        owner: str | None,
        by_operator: Operator | None = None,
    ) -> None:
        caller = self._acting()
        by = operators.operator_identity(by_operator) if by_operator is not None else {"system": "open"}

        def command(batch: Batch) -> str:
            return register(batch, caller.agent, tags=tags, grants=grants, owner=owner, by=by)

        self._engine.run(command)

    @property
    def _engine(self) -> Engine:
        if self._closed:
            raise StoreError("this client was closed; open the database again to use it")
        if self._service is not None:
            raise ForbiddenError("this works on the file of the log, and this client speaks to a service")
        return self._opened

    @property
    def _remote(self) -> Service | None:
        """The service, if there is one in between."""
        if self._closed and self._service is not None:
            raise StoreError("this client was closed; open another one to use the service")
        return self._service

    @property
    def _identity(self) -> tuple[object, ...]:
        """The same for clients that act as the same on the same log."""
        service = self._remote
        return service.identity if service is not None else (id(self._engine), self._caller)

    # Who this is

    @property
    def mode(self) -> Mode:
        """`enforce` or `observe`."""
        return self._mode

    @property
    def agent(self) -> str | None:
        """The name of the agent this client acts for. A service is asked once who that is."""
        service = self._remote
        if service is not None:
            return service.agent()
        return self._caller.agent if self._caller is not None else None

    @property
    def org_id(self) -> str:
        """The id of the organisation, which is the id of its log."""
        service = self._remote
        if service is not None:
            return service.org_id()
        return self._engine.store.log_id

    def _acting(self) -> Caller:
        if self._caller is None:
            raise ForbiddenError("this client acts for no agent; open it with `agent=`")
        return self._caller

    def _deciding(self) -> Operator:
        if self._operator is None:
            raise ForbiddenError(
                "deciding takes an operator, and this client is not one; open it with `operator=`"
            )
        return self._operator

    def _publish(
        self, document: PolicyDocument, name: str, digest: str, *, prune: bool, force: bool
    ) -> list[str]:
        change = self._engine.run(self._publishing(document, name, digest, prune=prune, force=force))[0]
        if change.kept:
            _log.warning(
                "`%s` does not say what is in force of %s, which was changed elsewhere and stays; "
                "see what differs with `al policy diff`, and undo the change with `al policy apply`",
                name,
                ", ".join(f"`{part}`" for part in change.kept),
            )
        return change.published + change.removed

    def _publishing(
        self,
        document: PolicyDocument,
        name: str,
        digest: str,
        *,
        prune: bool,
        force: bool,
        limit: int | None = reevaluation.AT_ONCE,
    ) -> Callable[[Batch], tuple[policies.Change, list[reevaluation.Resolved]]]:
        """Publish, and ask again about what is pending, in one transaction; `limit` as in `reevaluation.begin`."""
        operator, in_force = self._operator, self._engine.policies

        def command(batch: Batch) -> tuple[policies.Change, list[reevaluation.Resolved]]:
            by: dict[str, Any] = {"system": "open"}
            person = operators.standing(batch, operator) if operator is not None else None
            if person is not None:
                by = operators.operator_identity(person)
            before = batch.next_index
            change = policies.publish(
                batch, document, source=name, source_digest=digest, by=by, prune=prune, force=force
            )
            # Whoever opens the log with the files that are in force changes nothing, and needs no right.
            if person is not None and batch.next_index > before:
                operators.require_publisher(person)
            return change, reevaluation.begin(in_force, batch, change.patterns, limit)

        return command

    # Ending

    def flush(self) -> None:
        """Return when every outcome recorded so far is durable, or has reached the service."""
        service = self._remote
        if service is not None:
            service.flush()
        else:
            self._engine.flush()

    def close(self) -> None:
        """End subscriptions, record what is outstanding, and close the file or the connections if nobody else opened
        them. What `for_agent` and `for_operator` gave ends with the client that gave it.
        """
        if not self._closed:
            self._closed = True
            while self._ends:
                self._ends.pop()()
            if self._borrowed:
                return
            if self._service is not None:
                self._service.close()
            else:
                release(self._opened)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)


def connected(api_key: str, base_url: str | None, gate_poll_interval_ms: int) -> Service:
    """The service at `base_url` as the holder of `api_key` sees it; nothing is sent yet. Raises InvalidRequestError."""
    if isinstance(gate_poll_interval_ms, bool) or not gate_poll_interval_ms > 0:
        raise InvalidRequestError(f"gate_poll_interval_ms `{gate_poll_interval_ms}` must be above 0")
    return Service(Connections(checked_address(base_url)), api_key, gate_poll_interval_ms / 1000)


def _registered(
    service: Service,
    agent: str,
    tags: Iterable[str] | None,
    grants: Iterable[str] | None,
    owner: str | None,
) -> str:
    """A key of the agent's own. One that is registered already gets another, unless something new is said of it."""
    try:
        return service.ask(requests.register_agent(agent, tags, grants, owner))
    except IllegalTransitionError as error:
        if error.code != "ALREADY_REGISTERED" or (tags, grants, owner) != (None, None, None):
            raise
        return service.ask(requests.issue_key(agent))


def checked_mode(mode: str) -> Mode:
    """`mode` if it is one. Raises InvalidRequestError."""
    if mode not in ("enforce", "observe"):
        raise InvalidRequestError(f"mode `{mode!s:.80}` must be `enforce` or `observe`")
    return mode  # type: ignore[return-value]


def read_sources(
    given: PolicySource | Sequence[PolicySource] | None,
) -> list[tuple[str, str, PolicyDocument]]:
    """Name, digest of the content, and document of each source."""
    if given is None:
        return []
    # Whoever calls may not check types, and what is given decides what agents may do.
    sources: list[Any] = (
        list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    )
    found: list[tuple[str, str, PolicyDocument]] = []
    for source in sources:
        if isinstance(source, PolicyDocument):
            found.append((policies.IN_CODE, source.digest(), source))
        elif isinstance(source, PolicyText):
            digest = hashlib.sha256(source.text.encode()).hexdigest()
            found.append((source.name, digest, PolicyDocument.parse(source.text, source.name)))
        elif not isinstance(source, str | os.PathLike):
            kind = type(source).__name__
            raise InvalidRequestError(
                f"policies: a value of type `{kind}` is neither the name of a file nor a PolicyDocument"
            )
        else:
            # The digest first: if the file is changed in between, the next opening finds that out and applies it.
            digest = _digest_of(Path(source))
            found.append((os.path.basename(os.fspath(source)), digest, PolicyDocument.load(Path(source))))
    names = [name for name, _, _ in found]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequestError(
                f"two policy sources are called `{name}`, and each would remove what the other publishes; "
                "rename one, or read both as one document"
            )
    return found


def _digest_of(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError):
        return ""  # reading the document says what is wrong
