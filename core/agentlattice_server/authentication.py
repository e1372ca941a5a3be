"""Who a request comes from.

- A key comes as `Authorization: Bearer <key>`. Its text names its organisation; it is looked up there and nowhere else.
- That a key is in force is read from the log each time, but for the one call that is made most, which remembers who
  holds a key and leaves the question to its transaction (`keys.check`). Who holds a key never changes.
- A wrong key, one that has ended and one of an organisation that is not here get the same answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from agentlattice_core import keys
from agentlattice_core.admission import Caller
from agentlattice_core.client import AgentLattice
from agentlattice_core.clock import time_of_log
from agentlattice_core.engine import Engine
from agentlattice_core.errors import AgentLatticeError, InvalidKeyError
from agentlattice_core.keys import KeyKind
from agentlattice_core.principals import Operator
from agentlattice_server.organisations import Organisations

__all__ = ["Authenticator", "Identity", "UnauthorizedError"]

_MOST_REMEMBERED = 10_000
_SCHEME = "bearer "


class UnauthorizedError(AgentLatticeError):
    """A request that says nothing of who it comes from."""

    def __init__(self) -> None:
        super().__init__("UNAUTHORIZED", "this takes a key, as `Authorization: Bearer KEY`")


@dataclass(frozen=True, slots=True)
class Identity:
    """Whoever sent a request. `name` is the agent's or the person's, or what a service key is called."""

    kind: KeyKind
    name: str
    owner: str | None
    key_id: str
    digest: str
    engine: Engine
    delegation: str | None = None

    @property
    def organisation(self) -> str:
        """The id of the organisation that it belongs to."""
        return self.engine.store.log_id

    def caller(self, mode: str = "enforce") -> Caller:
        """The agent, as commands know it."""
        return Caller(self.name, mode, "key", key=self.digest)

    def operator(self) -> Operator:
        """The person, as commands know them: role and groups are the log's to say."""
        return Operator(self.name, "viewer", frozenset(), "registered", self.digest)

    def client(self, mode: str = "enforce") -> AgentLattice:
        """A client that acts or decides for it."""
        who = self.operator() if self.kind == "operator" else self.caller(mode)
        return AgentLattice.over(self.engine, who)

    def named(self) -> dict[str, Any]:
        """How entries name whoever acted by a service key."""
        return {"service": self.name, "key": self.key_id, "established": "key"}


class Authenticator:
    """Finds out who a request comes from."""

    def __init__(self, organisations: Organisations) -> None:
        self._organisations = organisations
        self._remembered: dict[str, Identity] = {}

    async def identify(self, authorization: str | None) -> Identity:
        """Whoever holds the key in that header, which is in force. Raises UnauthorizedError, InvalidKeyError."""
        return await self.holder(_bearer(authorization))

    async def holder(self, text: str) -> Identity:
        """Whoever holds that key, which is in force. Raises InvalidKeyError."""
        said = keys.split(text)
        if said is None:
            raise InvalidKeyError
        return await asyncio.to_thread(self._find, text, said.organisation)

    async def remembered(self, authorization: str | None) -> Identity:
        """As `identify`, but that the key is in force is left for the transaction to ask."""
        known = self._remembered.get(keys.digest_of(_bearer(authorization)))
        return known if known is not None else await self.identify(authorization)

    def _find(self, text: str, organisation: str) -> Identity:
        engine = self._organisations.engine(organisation)
        if engine is None:
            raise InvalidKeyError
        digest = keys.digest_of(text)
        with engine.read() as reader:
            key = keys.find(reader, digest, time_of_log(engine.clock, reader.head.at))
        identity = Identity(key.kind, key.holder, key.owner, key.id, digest, engine, key.delegation)
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[digest] = identity
        return identity


def _bearer(authorization: str | None) -> str:
    if authorization is None or not authorization[: len(_SCHEME)].lower() == _SCHEME:
        raise UnauthorizedError
    return authorization[len(_SCHEME) :].strip()
