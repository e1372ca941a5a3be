"""Registered persons: whose role and groups the log vouches for.

- Until somebody is registered, an operator is who the process says, with the role and groups it says (`asserted`).
- From the first registration on, role and groups are the log's, whatever a process says; who is not registered may
  neither see nor decide. The first one registered must be an administrator, and so must remain one.
- Managing people takes an administrator. Everything about them is an entry, with who did it.
- Their names are still what the process says, embedded: see docs/security-model.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

from agentlattice_core import keys
from agentlattice_core.batch import Batch
from agentlattice_core.errors import ForbiddenError, IllegalTransitionError, NotFoundError
from agentlattice_core.principals import Operator
from agentlattice_core.stores.base import Document

__all__ = [
    "begin",
    "operator_identity",
    "register",
    "registered",
    "remove",
    "require_admin",
    "require_publisher",
    "standing",
]


class _State(Protocol):
    def get(self, kind: str, key: str) -> Document | None: ...

    def scan(self, kind: str, prefix: str = "") -> Iterator[tuple[str, Document]]: ...


def operator_identity(operator: Operator) -> dict[str, Any]:
    """How entries name the person who acted."""
    return {"operator": operator.name, "role": operator.role, "established": operator.established}


def standing(state: _State, operator: Operator) -> Operator:
    """The operator with the role and groups that count. Raises ForbiddenError for one who is not registered,
    InvalidKeyError for one whose key is no longer in force.
    """
    if isinstance(state, Batch):  # whoever only reads has just been asked for the key
        keys.check(state, operator.key)
    known = state.get("operator", operator.name)
    if known is not None:
        return _operator(operator.name, known)
    if any(True for _ in islice(state.scan("operator"), 1)):
        raise ForbiddenError(
            f"`{operator.name}` is not a registered operator of this log; an administrator has to register them"
        )
    return operator


def require_admin(state: _State, operator: Operator, what: str) -> Operator:
    """As `standing`. Raises ForbiddenError for anybody but an administrator; `what` takes one."""
    person = standing(state, operator)
    if person.role != "admin":
        raise ForbiddenError(f"`{person.name}` is a {person.role}, and {what} takes an administrator")
    return person


def require_publisher(person: Operator) -> None:
    """Raise ForbiddenError for one who may not change policy. Where nobody is registered, a member's word is taken."""
    if person.role == "viewer" or (person.established == "registered" and person.role != "admin"):
        raise ForbiddenError(
            f"`{person.name}` is a {person.role}, and changing policy takes an administrator"
        )


def registered(state: _State) -> list[Operator]:
    """Everybody who is registered, by name."""
    return [_operator(name, document) for name, document in state.scan("operator")]


def begin(batch: Batch, person: Operator, by: dict[str, Any]) -> None:
    """Register an administrator by the word of whoever runs the service. Raises ForbiddenError for an agent's name."""
    if batch.get("agent", person.name) is not None:
        raise ForbiddenError(f"`{person.name}` is an agent, and no agent is a person who decides")
    data = {"event": "registered", "operator": person.name, "role": "admin", "groups": sorted(person.groups)}
    batch.record("operator", by, data)


def register(batch: Batch, by: Operator, person: Operator) -> None:
    """Register somebody, or change their role and groups. Raises ForbiddenError, IllegalTransitionError."""
    admin = require_admin(batch, by, "managing people")
    known = batch.get("operator", person.name)
    if batch.get("agent", person.name) is not None:
        raise ForbiddenError(f"`{person.name}` is an agent, and no agent is a person who decides")
    if person.role != "admin":
        _check_admin_left(batch, person.name)
    groups = sorted(person.groups)
    if known is not None and (known["role"], known["groups"]) == (person.role, groups):
        return
    event = "registered" if known is None else "changed"
    data = {"event": event, "operator": person.name, "role": person.role, "groups": groups}
    batch.record("operator", operator_identity(admin), data)


def remove(batch: Batch, by: Operator, name: str) -> None:
    """Remove somebody, who may then no longer decide. Raises ForbiddenError, NotFoundError, IllegalTransitionError."""
    admin = require_admin(batch, by, "managing people")
    if batch.get("operator", name) is None:
        raise NotFoundError(f"there is no operator `{name:.80}`")
    _check_admin_left(batch, name)
    by_admin = operator_identity(admin)
    for key in keys.keys(batch):  # which must not come back with somebody of that name
        if key.kind == "operator" and key.holder == name and key.in_force(batch.at):
            keys.revoke(batch, key.id, by_admin)
    batch.record("operator", by_admin, {"event": "removed", "operator": name})


def _check_admin_left(state: _State, name: str) -> None:
    """Raise IllegalTransitionError if nobody but `name` could manage people."""
    if not any(one.role == "admin" for one in registered(state) if one.name != name):
        raise IllegalTransitionError(
            f"without `{name:.80}` as an administrator nobody could manage people; register another one first"
        )


def _operator(name: str, document: Document) -> Operator:
    return Operator(name, document["role"], frozenset(document["groups"]), "registered")
