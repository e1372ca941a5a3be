"""Who acts.

- An agent proposes actions; an operator is a person who decides. One identity is never both.
- Each says how it was established. Embedded, a name is what the process says it is (`asserted`): segregation of duties
  is then worth what the process is worth, and the security model says so.
- A child agent acts for the chain of agents above it. A policy that names an agent applies to its descendants; a
  child's own name never satisfies `agents:`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

__all__ = ["AgentFacts", "Delegation", "Forever", "Operator", "Principal", "Role"]

Role = Literal["viewer", "member", "admin"]
"""A viewer sees. A member decides. An administrator also approves forever, erases, edits policy and manages people."""

Forever = Literal["policy", "agent"]
"""How far an approval forever reaches: everybody whom the policy is about, or the asking agent only."""


@dataclass(frozen=True, slots=True)
class Delegation:
    """What a child holds of its parent: action types or patterns of them, until `expires_at` (aware, UTC).

    `status` is active, or how it ended: closed, revoked or expired.
    """

    id: str
    capabilities: tuple[str, ...]
    expires_at: datetime
    status: str = "active"


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """What policy may know of the acting agent: its name and id, tags, grants, and its ancestors, root first.

    A child has the `delegation` that it acts under; whoever has ancestors and none may do nothing.
    """

    name: str
    id: str
    tags: frozenset[str] = frozenset()
    grants: frozenset[str] = frozenset()
    ancestors: tuple[AgentFacts, ...] = ()
    delegation: Delegation | None = None

    @property
    def given_name(self) -> str:
        """What to call it in a message: a child goes by its parent's word for it, before its id."""
        return self.name.rpartition("~")[0] if self.ancestors else self.name

    @property
    def root(self) -> AgentFacts:
        """The agent that policies naming an agent are about."""
        return self.ancestors[0] if self.ancestors else self

    @property
    def lineage(self) -> tuple[AgentFacts, ...]:
        """The whole chain, root first, this agent last."""
        return (*self.ancestors, self)


@dataclass(frozen=True, slots=True)
class Principal:
    """An acting agent within one run. `context` holds the framework's own ids (thread, task, trace), never secrets."""

    agent: str
    run: str | None = None
    on_behalf_of: str | None = None
    established: str = "asserted"
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operator:
    """A person. `groups` are the names that `group:` approvers refer to.

    `established` is `asserted` where role and groups are what the process says, `registered` where the log does. `key`
    is the SHA-256 of the key that they showed the service; None embedded, and for who logged in.
    """

    name: str
    role: Role = "member"
    groups: frozenset[str] = frozenset()
    established: str = "asserted"
    key: str | None = None
