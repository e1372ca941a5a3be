"""The client of a child.

- It is a client like its parent's, on its parent's log or at its parent's service, and acts under its own name.
- It is no way to other identities: it makes no clients, and does not close the log.
"""

from __future__ import annotations

from typing import Self

from agentlattice_core.admission import Caller
from agentlattice_core.client import AgentLattice
from agentlattice_core.delegating import Delegate
from agentlattice_core.delegation import Granted
from agentlattice_core.errors import ForbiddenError
from agentlattice_core.session import Session

__all__ = ["DelegatedAgent"]


class DelegatedAgent(AgentLattice):
    """A child: a client that acts under a delegation, and can do what any agent can, delegating further included.

    `name` is what its parent called it, `agent` the name it acts under, `delegation_id` what can be revoked.
    `capabilities` is what it holds until `expires_at` (RFC 3339); `clamped` says that this is sooner than was asked
    for, because its parent ends then. Once the delegation has ended, whatever it asks for is denied, `OUT_OF_SCOPE`.
    """

    name: str
    run: str | None
    delegation_id: str
    capabilities: tuple[str, ...]
    expires_at: str
    clamped: bool

    @classmethod
    def _of(
        cls, parent: Session, delegate: Delegate, granted: Granted, key: str | None = None
    ) -> DelegatedAgent:
        patience = int(parent._gate_patience * 1000)
        service = parent._remote
        if service is None:
            child = cls._over(parent._engine, parent._mode, patience)
            child._caller = Caller(granted.agent, parent._mode, "delegated")
        else:
            assert key is not None
            child = cls._speaking(service.child(key, granted.id, granted.agent), parent._mode, patience)
        child.name, child.run = delegate.name, delegate.run
        child.delegation_id, child.capabilities = granted.id, granted.capabilities
        child.expires_at, child.clamped = granted.expires_at, granted.clamped
        return child

    def close(self) -> None:
        """End its subscriptions. The log is its parent's to close, and the delegation ends with its block."""
        self.unsubscribe_sync()

    def _sibling(self) -> Self:
        raise ForbiddenError(f"`{self.name}` acts for itself only; take a client for others from its parent")
