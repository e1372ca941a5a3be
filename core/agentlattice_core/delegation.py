"""Delegation: agents that act for another one, with a part of what it holds, for a while.

| from | event | to | who |
|---|---|---|---|
| nothing | delegate | active | an agent, itself in force |
| active | delegate, same run and capabilities | active: the same child, nothing recorded | its parent |
| active | close | closed | its parent, leaving the block |
| active | revoke | revoked | an agent above the child, or an operator |
| active | expiry | expired | nobody: the clock |
| active | an ancestor is closed or revoked | the same as the ancestor | with it |
| closed, expired | delegate, same run | active: the same child under a new delegation | its parent |
| closed, revoked, expired | close | as it was | its parent |

Everything else is refused with IllegalTransitionError and changes nothing: revoking what has ended, delegating again
in a run whose child was revoked, or with other capabilities while it lives.

- A child holds a subset of its parent's capabilities. A root agent holds what policy allows it, whatever that is when
  the child acts.
- A grant of the parent's (`agent.grants`) is the child's only where it is passed on.
- A child never outlives its parent; a longer life is cut to the parent's, and the delegation says so (`clamped_by`).
- Who a child is follows from its parent, its name and its run, so that a run that was interrupted finds the same child.
  Without a run, each delegation makes a child of its own.
- Time decides, not bookkeeping: a delegation ends at `expires_at` whether or not that is recorded yet.
- Requests of a child that was closed or revoked are cancelled, because nobody could claim them. Those of a child that
  expired stay where its run may delegate to it again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any, Literal, Protocol

import orjson

from agentlattice_core import keys
from agentlattice_core.admission import Caller, acting
from agentlattice_core.agents import LONGEST_CHAIN, agent_facts, check_name, check_names
from agentlattice_core.batch import Batch
from agentlattice_core.clock import format_time
from agentlattice_core.deadlines import resolution
from agentlattice_core.errors import (
    ForbiddenError,
    IllegalTransitionError,
    InvalidRequestError,
    NotFoundError,
)
from agentlattice_core.operators import operator_identity, standing
from agentlattice_core.policy.scope import checked_capabilities, covers
from agentlattice_core.principals import AgentFacts, Operator
from agentlattice_core.results import DelegationEntry
from agentlattice_core.stores.base import Document
from agentlattice_core.stores.projections import delegated_key

__all__ = [
    "LONGEST_LIFE",
    "Asked",
    "Granted",
    "close",
    "delegations",
    "expire",
    "grant",
    "next_expiry",
    "revoke",
]

LONGEST_LIFE = timedelta(hours=24)
"""Longest time to live of a delegation."""

_LONGEST_NAME = 100
_SYSTEM = {"system": "deadline"}

Ending = Literal["closed", "revoked", "expired"]


class _State(Protocol):
    def get(self, kind: str, key: str) -> Document | None: ...

    def scan(self, kind: str, prefix: str = "") -> Iterator[tuple[str, Document]]: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What a parent asks for, checked. `ttl` is in seconds; `run` names the run that finds the same child again;
    `grants` are those of its own that the parent passes on.
    """

    name: str
    capabilities: tuple[str, ...]
    ttl: float
    run: str | None = None
    grants: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, capabilities: Any, ttl: Any, run: str | None, grants: Iterable[str]) -> Asked:
        """Raises InvalidRequestError naming what is wrong."""
        if len(check_name(name, "name")) > _LONGEST_NAME:
            raise InvalidRequestError(f"name `{name:.80}...` is longer than {_LONGEST_NAME} characters")
        longest = int(LONGEST_LIFE.total_seconds())
        if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl <= longest:
            said = repr(ttl) if not isinstance(ttl, int) or ttl.bit_length() < 64 else "that"
            raise InvalidRequestError(
                f"ttl `{said:.80}` must be a number of seconds above 0 and at most {longest} (24 hours)"
            )
        if run is not None:
            check_name(run, "run")
        return cls(
            name, checked_capabilities(capabilities), ttl, run, tuple(sorted(check_names(grants, "grants")))
        )


@dataclass(frozen=True, slots=True)
class Granted:
    """A delegation in force. `agent` is the name under which the child acts; `clamped` that its life was cut to its
    parent's.
    """

    id: str
    agent: str
    agent_id: str
    capabilities: tuple[str, ...]
    expires_at: str
    clamped: bool


# Beginning


def grant(batch: Batch, caller: Caller, asked: Asked) -> Granted:
    """Delegate. A child of the same run that is in force is the answer as it is, its life not prolonged.

    Raises ForbiddenError for capabilities that the parent does not hold or a parent that may delegate nothing more,
    IllegalTransitionError for a run whose child was revoked or holds other capabilities, NotFoundError.
    """
    parent = acting(batch, caller)
    last = _weakest(batch, parent)
    _check_holds(parent, asked)
    agent_id = _identity(parent.id, asked)
    agent = f"{asked.name}~{agent_id}"
    known = batch.get("agent", agent)
    if known is not None:
        if known.get("parent") != parent.name:
            raise ForbiddenError(f"an agent named `{agent}` is registered already and is not this child")
        before = _settled(batch, known["delegation"])
        if before["status"] == "revoked":
            raise IllegalTransitionError(
                f"`{asked.name}` of run `{asked.run}` was revoked, so it is not delegated to again in that run"
            )
        if before["status"] == "active":
            if (tuple(before["capabilities"]), tuple(known["grants"])) != (asked.capabilities, asked.grants):
                raise IllegalTransitionError(
                    f"`{asked.name}` of run `{asked.run}` is in force with other capabilities; revoke it, or name "
                    "another run"
                )
            return _granted(known["delegation"], before)
    expires_at = format_time(batch.now + timedelta(seconds=asked.ttl))
    data: dict[str, Any] = {
        "event": "granted",
        "delegation": f"del_{batch.next_index:012x}{os.urandom(10).hex()}",
        "agent": agent,
        "agent_id": agent_id,
        "name": asked.name,
        "parent": parent.name,
        "parent_id": parent.id,
        "capabilities": list(asked.capabilities),
        "grants": list(asked.grants),
        "expires_at": expires_at,
    }
    if last is not None and last[1]["expires_at"] < expires_at:
        data |= {"expires_at": last[1]["expires_at"], "clamped_by": last[0]}
    if asked.run is not None:
        data["run"] = asked.run
    batch.record("delegation", _who(caller, parent.id), data)
    document = batch.get("delegation", data["delegation"])
    assert document is not None
    return _granted(data["delegation"], document)


def _granted(delegation_id: str, document: Document) -> Granted:
    return Granted(
        delegation_id,
        document["agent"],
        document["agent_id"],
        tuple(document["capabilities"]),
        document["expires_at"],
        document["clamped_by"] is not None,
    )


def _identity(parent_id: str, asked: Asked) -> str:
    run = ["run", asked.run] if asked.run is not None else ["once", os.urandom(16).hex()]
    text = orjson.dumps(["delegation", parent_id, asked.name, *run])
    return f"agt_{hashlib.sha256(text).hexdigest()[:20]}"


def _weakest(batch: Batch, parent: AgentFacts) -> tuple[str, Document] | None:
    """The delegation of the parent's chain that ends first; None for a root. Raises ForbiddenError if one has ended."""
    if len(parent.ancestors) >= LONGEST_CHAIN:
        raise ForbiddenError(
            f"`{parent.given_name}` is {LONGEST_CHAIN} delegations below its root, and may delegate no further"
        )
    first: tuple[str, Document] | None = None
    for link in parent.lineage[1:]:
        held = batch.get("delegation", link.delegation.id) if link.delegation is not None else None
        status = "unknown" if held is None else _status(held, batch.at)
        if link.delegation is None or held is None or status != "active":
            raise ForbiddenError(
                f"the delegation of `{link.given_name}` is {status}, so nothing can be delegated below it"
            )
        if first is None or held["expires_at"] < first[1]["expires_at"]:
            first = (link.delegation.id, held)
    return first


def _check_holds(parent: AgentFacts, asked: Asked) -> None:
    held = set.intersection(*(set(agent.grants) for agent in parent.lineage))
    kept = [grant for grant in asked.grants if grant not in held]
    _refuse(parent, kept, sorted(held))
    if parent.delegation is not None:
        capabilities = parent.delegation.capabilities
        beyond = [capability for capability in asked.capabilities if not covers(capabilities, capability)]
        _refuse(parent, beyond, list(capabilities))


def _refuse(parent: AgentFacts, exceeding: list[str], held: list[str]) -> None:
    if exceeding:
        names, kept = (", ".join(f"`{one}`" for one in some) or "nothing" for some in (exceeding, held))
        raise ForbiddenError(
            f"`{parent.given_name}` does not hold {names}, so it cannot delegate it; it holds {kept}",
            {"exceeding": exceeding, "held": held},
        )


# Ending


def close(batch: Batch, caller: Caller, delegation_id: str) -> None:
    """The parent is done with its child. What has ended stays as it ended. Raises NotFoundError, ForbiddenError."""
    keys.check(batch, caller.key)
    document = _known(batch, delegation_id)
    if document["parent"] != caller.agent:
        raise ForbiddenError(f"delegation `{delegation_id}` is not one of `{caller.agent}`")
    if _settled(batch, delegation_id)["status"] == "active":
        _end(batch, _who(caller, document["parent_id"]), delegation_id, "closed")


def revoke(batch: Batch, by: Caller | Operator, delegation_id: str) -> None:
    """End a delegation and all below it. Raises NotFoundError, ForbiddenError for who is neither above the child nor an
    operator, IllegalTransitionError for one that has ended.
    """
    keys.check(batch, by.key)
    document = _known(batch, delegation_id)
    if isinstance(by, Operator):
        person = standing(batch, by)
        if person.role == "viewer":
            raise ForbiddenError(f"`{by.name}` is a viewer and may see delegations but not revoke them")
        who = operator_identity(person)
    else:
        chain = agent_facts(batch, document["agent"]).ancestors
        revoker = next((agent for agent in chain if agent.name == by.agent), None)
        if revoker is None:
            raise ForbiddenError(
                f"delegation `{delegation_id}` is not below `{by.agent}`, so it is not that agent's to revoke"
            )
        who = _who(by, revoker.id)
    status = _settled(batch, delegation_id)["status"]
    if status != "active":
        raise IllegalTransitionError(
            f"delegation `{delegation_id}` is {status} already, so it cannot be revoked", {"status": status}
        )
    _end(batch, who, delegation_id, "revoked")


def expire(batch: Batch, limit: int | None = None) -> int:
    """Record the end of delegations whose time is up, the earliest first, at most `limit`. Returns how many."""
    due: list[str] = []
    for key, _ in islice(batch.scan("expiring"), limit):
        expires_at, delegation_id = key.split("/", 1)
        if expires_at > batch.at:
            break
        due.append(delegation_id)
    for delegation_id in due:
        _end(batch, _SYSTEM, delegation_id, "expired")
    return len(due)


def next_expiry(state: _State) -> str | None:
    """The time of the log at which a delegation expires next, or None if none is in force."""
    return next((key.split("/", 1)[0] for key, _ in state.scan("expiring")), None)


def _settled(batch: Batch, delegation_id: str) -> Document:
    """A delegation, its end recorded if its time is up."""
    document = _known(batch, delegation_id)
    if document["status"] == "active" and document["expires_at"] <= batch.at:
        _end(batch, _SYSTEM, delegation_id, "expired")
        document = _known(batch, delegation_id)
    return document


def _end(batch: Batch, who: dict[str, Any], delegation_id: str, event: Ending) -> None:
    """End a delegation that is active, and with it those below; others stay as they are."""
    ending: list[tuple[str, str | None]] = [(delegation_id, None)]
    while ending:
        ended, cause = ending.pop()
        document = _known(batch, ended)
        if document["status"] != "active":
            continue
        data = {
            "event": event,
            "delegation": ended,
            "agent": document["agent"],
            "agent_id": document["agent_id"],
            "parent": document["parent"],
            "parent_id": document["parent_id"],
        }
        if cause is not None:
            data["cause"] = cause
        batch.record("delegation", who, data)
        if event != "expired" or document["run"] is None:
            _cancel_requests(batch, who, document["agent_id"])
        below = delegated_key(document["agent_id"], "", active=True)
        ending += [(key.rsplit("/", 1)[1], delegation_id) for key, _ in batch.scan("delegated", below)]


def _cancel_requests(batch: Batch, who: dict[str, Any], agent_id: str) -> None:
    """Take back what waits for a person: whoever asked is gone."""
    waiting = [
        action["approval"]
        for _, action in batch.scan("action", f"{agent_id}/")
        if action["status"] == "requested" and "approval" in action
    ]
    for approval_id in waiting:
        approval = batch.get("approval", approval_id)
        if approval is not None and approval["status"] == "pending":
            payload = orjson.dumps({"reason": "the delegation of the agent that asked has ended"})
            batch.record("approval", who, resolution(approval_id, approval, "cancelled"), payload=payload)


# Looking


def delegations(
    state: _State, agent: str | None, role: str | None, *, active_only: bool, at: str
) -> list[DelegationEntry]:
    """What `agent` delegated (`parent`), was given (`child`), or both, the oldest first; for None everybody's.

    Raises InvalidRequestError for another role, NotFoundError for an unknown agent.
    """
    if role not in (None, "parent", "child"):
        raise InvalidRequestError(f"role `{role!s:.80}` must be `parent` or `child`")
    found: list[str] = []
    if agent is None:
        found = [delegation_id for delegation_id, _ in state.scan("delegation")]
    else:
        agent_id = agent_facts(state, agent).id
        if role != "child":
            for active in (True,) if active_only else (True, False):
                below = delegated_key(agent_id, "", active=active)
                found += [key.rsplit("/", 1)[1] for key, _ in state.scan("delegated", below)]
        if role != "parent":
            found += [key.rsplit("/", 1)[1] for key, _ in state.scan("held", f"{agent_id}/")]
    entries = (_entry(state, delegation_id, at) for delegation_id in sorted(found))
    return [entry for entry in entries if entry.active or not active_only]


def _entry(state: _State, delegation_id: str, at: str) -> DelegationEntry:
    document = _known(state, delegation_id)
    status = _status(document, at)
    return DelegationEntry(
        id=delegation_id,
        scope={"action_types": document["capabilities"]},
        expires_at=document["expires_at"],
        active=status == "active",
        parent_config_id=document["parent_id"],
        child_config_id=document["agent_id"],
        name=document["name"],
        agent=document["agent"],
        status=status,
        clamped=document["clamped_by"] is not None,
        parent=document["parent"],
    )


def _status(document: Document, at: str) -> str:
    status: str = document["status"]
    return "expired" if status == "active" and document["expires_at"] <= at else status


def _known(state: _State, delegation_id: str) -> Document:
    document = state.get("delegation", delegation_id) if isinstance(delegation_id, str) else None
    if document is None:
        raise NotFoundError(f"there is no delegation `{delegation_id!s:.80}`")
    return document


def _who(caller: Caller, agent_id: str) -> dict[str, Any]:
    return {"agent": caller.agent, "agent_id": agent_id, "established": caller.established}
