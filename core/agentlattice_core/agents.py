"""Registered agents: who an acting agent is, as policy may know it.

- An agent is registered before it acts; its id never changes, whatever tags and grants it gets later.
- Tags and grants are what the operator says of an agent, never what the agent says of itself in an action.
- A child is an agent that another one delegated to. Its state names its `parent`, whose tags and owner are what policy
  and approvals go by: nothing can be said of a child that was not said of its parent.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Protocol, get_args

import orjson

from agentlattice_core.batch import Batch
from agentlattice_core.clock import parse_time
from agentlattice_core.errors import ForbiddenError, InvalidRequestError, NotFoundError
from agentlattice_core.principals import AgentFacts, Delegation, Operator, Role
from agentlattice_core.stores.base import Document

__all__ = ["LONGEST_CHAIN", "agent_facts", "check_name", "check_names", "operator_named", "register"]

LONGEST_CHAIN = 16
"""Most delegations one below the other."""


class _State(Protocol):
    def get(self, kind: str, key: str) -> Document | None: ...


def check_name(name: Any, what: str) -> str:
    """`name` if it can name an agent or a person: 1 to 200 printable characters, no space at either end. Raises
    InvalidRequestError.
    """
    if (
        not isinstance(name, str)
        or not 0 < len(name) <= 200
        or not name.isprintable()
        or name != name.strip()
    ):
        given = repr(str(name))[1:-1]  # one line, also where line breaks are what is wrong with it
        raise InvalidRequestError(
            f"{what} `{given:.80}` must be 1 to 200 printable characters, without a space at either end"
        )
    return name


def check_names(names: Iterable[str], what: str) -> frozenset[str]:
    """`names` if each can name something. Raises InvalidRequestError, also for a single text, whose letters they are
    not.
    """
    if isinstance(names, str):
        raise InvalidRequestError(f"{what} `{names:.80}` must be a list of names, not one text")
    return frozenset(check_name(name, what) for name in names)


def operator_named(name: str, role: Role, groups: Iterable[str]) -> Operator:
    """The operator of that name. Raises InvalidRequestError."""
    if role not in get_args(Role):
        raise InvalidRequestError(f"role `{role!s:.80}` must be one of {', '.join(get_args(Role))}")
    return Operator(check_name(name, "operator"), role, check_names(groups, "groups"))


def agent_facts(state: _State, name: str) -> AgentFacts:
    """What policy may know of the agent. Raises NotFoundError if nobody registered it."""
    document = state.get("agent", name)
    if document is None:
        raise NotFoundError(f"agent `{name}` is not registered")
    if "parent" in document:
        return _child_facts(state, name, document)
    return AgentFacts(name, document["id"], frozenset(document["tags"]), frozenset(document["grants"]))


def _child_facts(state: _State, name: str, document: Document) -> AgentFacts:
    below = [(name, document)]
    while "parent" in document:
        name = document["parent"]
        found = state.get("agent", name)
        if found is None or len(below) > LONGEST_CHAIN:
            raise ForbiddenError(f"the chain of agents above `{below[0][0]}` cannot be followed to its root")
        document = found
        below.append((name, document))
    name, root = below.pop()
    facts = AgentFacts(name, root["id"], frozenset(root["tags"]), frozenset(root["grants"]))
    for name, child in reversed(below):
        held = state.get("delegation", child["delegation"])
        facts = AgentFacts(
            name,
            child["id"],
            facts.tags,
            frozenset(child["grants"]),
            facts.lineage,
            None
            if held is None or held["agent_id"] != child["id"]
            else Delegation(
                child["delegation"],
                tuple(held["capabilities"]),
                parse_time(held["expires_at"]),
                held["status"],
            ),
        )
    return facts


def register(
    batch: Batch,
    name: str,
    *,
    tags: Iterable[str] | None,
    grants: Iterable[str] | None,
    owner: str | None,
    by: dict[str, Any],
    description: str | None = None,
) -> str:
    """Register an agent, or change what is said of it; what is None stays as it is. Returns its id.

    `description` is kept with the entry of a first registration. Raises ForbiddenError for saying something of a child,
    which holds what its parent passed on, and for an agent that would be called like a registered operator.
    """
    known = batch.get("agent", check_name(name, "agent"))
    if known is None and batch.get("operator", name) is not None:
        raise ForbiddenError(f"`{name}` is a registered operator, and no agent is a person who decides")
    if known is not None and "parent" in known:
        if tags is not None or grants is not None or owner is not None:
            raise ForbiddenError(
                f"agent `{name}` holds what `{known['parent']}` passed on to it; change what is said of that one"
            )
        child_id: str = known["id"]
        return child_id
    before = known or {"id": f"agt_{os.urandom(10).hex()}", "tags": [], "grants": [], "owner": None}
    after = {
        "id": before["id"],
        "tags": sorted(check_names(tags, "tags")) if tags is not None else before["tags"],
        "grants": sorted(check_names(grants, "grants")) if grants is not None else before["grants"],
        "owner": check_name(owner, "owner") if owner is not None else before["owner"],
    }
    if known is None or any(known[member] != value for member, value in after.items()):
        data = {"agent": name, "agent_id": after["id"], "tags": after["tags"], "grants": after["grants"]}
        if after["owner"] is not None:
            data["owner"] = after["owner"]
        said = orjson.dumps({"description": description}) if description and known is None else None
        batch.record(
            "agent", by, {"event": "registered" if known is None else "changed", **data}, payload=said
        )
    agent_id: str = after["id"]
    return agent_id
