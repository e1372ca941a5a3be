"""State is a fold of the log: what each kind of entry does to it.

- `fold` is the only code that makes state, both when an entry is written and when the log is replayed, so state that
  differs from the fold was edited.
- It reads the entry's own members and earlier state, never a payload: erasing one changes no state.
- Amounts are exact decimals in text.

| state | key | holds |
|---|---|---|
| `log` | `log` | when the log began |
| `history_cut` | index | nothing; it points to an entry that says that an older copy was accepted |
| `signing_key` | index | nothing; it points to an entry by which one signing key names the next |
| `agent` | name | id, tags, grants, owner, who registered it; of a child its parent's name and its latest delegation |
| `agent_id` | id | the agent's name |
| `delegation` | id | who delegated what to whom, until when, and how it ended |
| `delegated` | parent's id / active or ended / delegation id | nothing; it finds what an agent delegated |
| `held` | child's id / delegation id | nothing; it finds what a child was ever given |
| `expiring` | expiry / delegation id | nothing; it orders active delegations by expiry |
| `policy` | part id | version, digest, pattern, who published it and in which entry; `removed` once it is gone |
| `policies` | `set` | the entry of the last change to any part and the digest over all, to tell compiled sets apart |
| `registry` | registry / value | tags, caps, and the action that put them there |
| `registries` | name | the entry of the last change; that the registry is kept here |
| `source` | name of a policy file | the digest of what was applied from it last |
| `reevaluation` | `set` | how far pending requests have been asked about after a change of policy, and its patterns |
| `operator` | name | role and groups of a registered person |
| `key` | SHA-256 of its text | what kind of key it is, whose, since when and until when |
| `key_id` | id | the SHA-256 of the key's text |
| `login` | SHA-256 of a one-time link | whom it logs in, until when, and when it was used |
| `action` | agent id / index | type, status, claim, charges and whether they are held, settled or released, outcome |
| `acted` | agent id / action type / page | nothing; it finds an agent's actions of a type: a page of the log has some |
| `event` | agent id / event id | the index of the action it names |
| `limit` | limit key | the total charged |
| `approval` | id | the request, its terms, votes, resolution and grant |
| `pending` | deadline / approval id | nothing; it orders what waits by deadline |
| `due` | time / what / approval id | nothing; it orders escalations (`escalate`) and unused grants (`lapse`) by time |
| `webhook` ... | | see `webhook_projection` |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any

from agentlattice_core.errors import AuditError
from agentlattice_core.stores.base import Document, StateKey
from agentlattice_core.stores.webhook_projection import fold_webhook

__all__ = [
    "EXACT",
    "PAGE",
    "Get",
    "acted_key",
    "action_key",
    "delegated_key",
    "due_key",
    "event_key",
    "fold",
    "pages_of",
    "pending_key",
]

Get = Callable[[str, str], Document | None]

PAGE = 4096
"""How many entries of the log make a page, in which an agent's actions of one type are found."""

EXACT = Context(prec=64, traps=[Inexact, InvalidOperation])
"""Decimal arithmetic that raises rather than round."""


def action_key(agent_id: str, index: int) -> str:
    """Where an action's state lies: an agent's actions side by side, in the order of the log."""
    return f"{agent_id}/{index:012x}"


def acted_key(agent_id: str, action_type: str, index: int) -> str:
    """Where it is kept that an agent asked for such an action in the page of the log that holds `index`. Indexes of one
    page begin with the same nine digits.
    """
    return f"{agent_id}/{action_type}/{index // PAGE:09x}"


def pages_of(agent_id: str, action_type: str) -> str:
    """The prefix of all `acted_key` of an agent and an action type. A key adds nine digits to it."""
    return f"{agent_id}/{action_type}/"


def event_key(agent_id: str, event_id: str) -> str:
    """Where an event id's action is found."""
    return f"{agent_id}/{event_id}"


def pending_key(timeout_at: str, approval_id: str) -> str:
    """Where a pending approval waits for its deadline."""
    return f"{timeout_at}/{approval_id}"


def due_key(at: str, what: str, approval_id: str) -> str:
    """Where something that falls due at a time is found: `escalate` a request, `lapse` a grant."""
    return f"{at}/{what}/{approval_id}"


def delegated_key(parent_id: str, delegation_id: str, *, active: bool) -> str:
    """Where an agent's delegations lie side by side, those in force apart. An empty id gives the prefix of all."""
    return f"{parent_id}/{'active' if active else 'ended'}/{delegation_id}"


def fold(
    get: Get, kind: str, index: int, at: str, who: Mapping[str, Any], data: Mapping[str, Any], id: str | None
) -> dict[StateKey, Document | None]:
    """What the entry changes in state, given the state before it. Raises AuditError for an entry it does not know."""
    writes = _Writes(get)
    try:
        _FOLDS[kind](writes, index, at, who, data, id)
    except KeyError as error:
        raise AuditError(
            f"entry `{index}` of kind `{kind}` cannot be folded: `{error.args[0]}` is missing"
        ) from error
    return writes.documents


class _Writes:
    """State before the entry, overlaid with what the entry has changed so far."""

    def __init__(self, get: Get) -> None:
        self._get = get
        self.documents: dict[StateKey, Document | None] = {}

    def get(self, kind: str, key: str) -> Document | None:
        name = (kind, key)
        return self.documents[name] if name in self.documents else self._get(kind, key)

    def known(self, kind: str, key: str) -> Document:
        """A document that earlier entries must have made."""
        document = self.get(kind, key)
        if document is None:
            raise AuditError(f"the log speaks of {kind} `{key}` before it exists")
        return document

    def put(self, kind: str, key: str, document: Document | None) -> None:
        self.documents[kind, key] = document

    def change(self, kind: str, key: str, **changes: Any) -> Document:
        document = {**self.known(kind, key), **changes}
        self.put(kind, key, document)
        return document

    def charge(self, charges: list[list[Any]], sign: int) -> None:
        """Add (+1) or take back (-1) charges: lists of key, amount, whether a failure releases it."""
        for key, amount, *_ in charges:
            used = Decimal((self.get("limit", key) or {"used": "0"})["used"])
            change = Decimal(amount)
            total = EXACT.add(used, change) if sign > 0 else EXACT.subtract(used, change)
            self.put("limit", key, {"used": format(total, "f")})


def _log(
    writes: _Writes, index: int, at: str, who: Mapping[str, Any], data: Mapping[str, Any], id: str | None
) -> None:
    if data["event"] == "began":
        writes.put("log", "log", {"began": at, "entry": index})
    elif data["event"] == "key_rotated":
        writes.put("signing_key", f"{index:012x}", {})
    elif data["event"] == "history_cut":
        writes.put("history_cut", f"{index:012x}", {})
    # What else happens to the log itself (`state_rebuilt`) is there to be read, and changes no state.


def _agent(
    writes: _Writes, index: int, at: str, who: Mapping[str, Any], data: Mapping[str, Any], id: str | None
) -> None:
    before = writes.get("agent", data["agent"])
    document: Document = {
        "id": data["agent_id"],
        "tags": data["tags"],
        "grants": data["grants"],
        "owner": data.get("owner"),
        "entry": index,
        "registered_at": before["registered_at"] if before else at,
    }
    registered_by = before.get("registered_by") if before else who.get("operator")
    if registered_by is not None:
        document["registered_by"] = registered_by
    writes.put("agent", data["agent"], document)
    writes.put("agent_id", data["agent_id"], {"agent": data["agent"]})


def _delegation(
    writes: _Writes, index: int, at: str, who: Mapping[str, Any], data: Mapping[str, Any], id: str | None
) -> None:
    delegation_id, parent_id = data["delegation"], data["parent_id"]
    if data["event"] != "granted":
        before = writes.change("delegation", delegation_id, status=data["event"], ended_at=at)
        writes.put("expiring", f"{before['expires_at']}/{delegation_id}", None)
        writes.put("delegated", delegated_key(parent_id, delegation_id, active=True), None)
        writes.put("delegated", delegated_key(parent_id, delegation_id, active=False), {})
        return
    name, agent_id = data["agent"], data["agent_id"]
    known = writes.get("agent", name)
    writes.put(
        "agent",
        name,
        {
            "id": agent_id,
            "tags": [],
            "grants": data["grants"],
            "owner": None,
            "parent": data["parent"],
            "name": data["name"],
            "delegation": delegation_id,
            "entry": index,
            "registered_at": known["registered_at"] if known else at,
        },
    )
    writes.put("agent_id", agent_id, {"agent": name})
    writes.put(
        "delegation",
        delegation_id,
        {
            "agent": name,
            "agent_id": agent_id,
            "name": data["name"],
            "run": data.get("run"),
            "parent": data["parent"],
            "parent_id": parent_id,
            "capabilities": data["capabilities"],
            "expires_at": data["expires_at"],
            "clamped_by": data.get("clamped_by"),
            "status": "active",
            "granted_at": at,
            "ended_at": None,
            "entry": index,
        },
    )
    writes.put("held", f"{agent_id}/{delegation_id}", {})
    writes.put("delegated", delegated_key(parent_id, delegation_id, active=True), {})
    writes.put("expiring", f"{data['expires_at']}/{delegation_id}", {})


def _policy(
    writes: _Writes, index: int, at: str, who: Mapping[str, Any], data: Mapping[str, Any], id: str | None
) -> None:
    event = data["event"]
    if event == "applied":
        writes.put("source", data["source"], {"digest": data["digest"], "at": at})
        writes.put("policies", "set", {"entry": index, "digest": data["set"]})
        return
    if event == "reevaluating":
        writes.put("reevaluation", "set", {"patterns": data["patterns"], "after": data["after"]})
        return
    if event == "reevaluated":
        writes.put("reevaluation", "set", None)
        return
    before = writes.get("policy", data["part"])
    document: Document = {
        "version": data["version"],
        "digest": data["digest"],
        "pattern": data.get("pattern"),
        "source": data.get("source"),
        "entry": index,
        "removed": event == "removed",
        "created_at": before["created_at"] if before else at,
        "changed_at": at,
    }
    if "replaces" in data:
        document["replaces"] = data["replaces"]
    if "approval" in data:
        writes.change("approval", data["approval"], forever=data["forever"])
    writes.put("policy", data["part"], document)
    writes.put("policies", "set", {"entry": index})


def _registry(
    writes: _Writes, index: int, at: str, who: Mapping[str, Any], data: Mapping[str, Any], id: str | None
) -> None:
    entry = {**data["entry"], "action": data["action"], "changed_at": at} if data["event"] == "put" else None
    writes.put("registry", f"{data['registry']}/{data['value']}", entry)
    writes.put("registries", data["registry"], {"entry": index})


def _action(
    writes: _Writes, index: int, at: str, who: Mapping[str, Any], data: Mapping[str, Any], id: str | None
) -> None:
    decision, charges = data["decision"], data.get("charges") or []
    approval = data.get("approval")
    admitted = "claim" in data or approval is not None
    document: Document = {
        "id": id,
        "type": data["action_type"],
        "status": decision,
    }
    if "claim" in data:
        document["claim"] = data["claim"]
    if charges and admitted:
        document["charges"] = charges
        document["charged"] = "settled" if "claim" in data else "held"
        writes.charge(charges, +1)
    if approval is not None:
        document["approval"] = approval["id"]
        _request(writes, index, at, who, data, id)
    writes.put("action", action_key(who["agent_id"], index), document)
    # Once for many actions, so that finding a rare one later costs those who record nothing.
    acted = acted_key(who["agent_id"], data["action_type"], index)
    if writes.get("acted", acted) is None:
        writes.put("acted", acted, {})
    if "event_id" in data:
        writes.put("event", event_key(who["agent_id"], data["event_id"]), {"entry": index})


def _request(
    writes: _Writes, index: int, at: str, who: Mapping[str, Any], data: Mapping[str, Any], id: str | None
) -> None:
    """A person is asked."""
    approval = data["approval"]
    document: Document = {
        "status": "pending",
        "action": id,
        "entry": index,
        "agent": who["agent"],
        "agent_id": who["agent_id"],
        "action_type": data["action_type"],
        "policy": data.get("policy"),
        "sets": approval["sets"],
        "escalate_after": approval.get("escalate_after"),  # of the first release, which did not escalate
        "escalate_to": approval.get("escalate_to") or [],
        "requested_at": at,
        "timeout_at": approval["timeout_at"],
        "votes": [],
        "resolved_by": None,
        "resolved_at": None,
    }
    if "escalates_at" in approval:
        document["escalates_at"] = approval["escalates_at"]
        writes.put("due", due_key(approval["escalates_at"], "escalate", approval["id"]), {})
    writes.put("approval", approval["id"], document)
    writes.put("pending", pending_key(approval["timeout_at"], approval["id"]), {})


def _approval(
    writes: _Writes, index: int, at: str, who: Mapping[str, Any], data: Mapping[str, Any], id: str | None
) -> None:
    event, approval_id = data["event"], data["approval"]
    before = writes.known("approval", approval_id)
    if event == "vote":
        writes.change("approval", approval_id, votes=[*before["votes"], _vote(index, at, data)])
        return
    if event == "amended":
        writes.change(
            "approval",
            approval_id,
            policy=data["policy"],
            sets=data["sets"],
            escalate_to=data["escalate_to"],
            votes=[vote for vote in before["votes"] if vote["by"] not in data["void"]],
            amended=index,
        )
        return
    if "escalates_at" in before and "escalated_at" not in before:
        writes.put("due", due_key(before["escalates_at"], "escalate", approval_id), None)
    if event == "escalated":
        writes.change("approval", approval_id, escalated_at=at)
        return
    changes: dict[str, Any] = {
        "status": event,
        "resolved_by": data.get("by"),
        "resolved_at": at,
        "resolution": index,
    }
    if event == "approved" and "lapses_at" in data:  # entries of the first release do not say it
        changes["lapses_at"] = data["lapses_at"]
        if data["by"] is not None:
            changes["votes"] = [*before["votes"], _vote(index, at, data)]
        writes.put("due", due_key(data["lapses_at"], "lapse", approval_id), {})
    writes.change("approval", approval_id, **changes)
    writes.put("pending", pending_key(before["timeout_at"], approval_id), None)
    key = action_key(before["agent_id"], before["entry"])
    if event == "approved":
        writes.change("action", key, status="approved")
        return
    action = writes.known("action", key)
    if action.get("charged") == "held":
        writes.charge(action["charges"], -1)
        writes.change(
            "action", key, status="timed_out" if event == "timed_out" else "denied", charged="released"
        )
    else:
        writes.change("action", key, status="timed_out" if event == "timed_out" else "denied")


def _vote(index: int, at: str, data: Mapping[str, Any]) -> Document:
    vote = {"by": data["by"], "groups": data["groups"], "at": at, "entry": index}
    if "forever" in data:
        vote["forever"] = data["forever"]
    return vote


def _claim(
    writes: _Writes, index: int, at: str, who: Mapping[str, Any], data: Mapping[str, Any], id: str | None
) -> None:
    key = action_key(data["agent_id"], data["entry"])
    action = writes.known("action", key)
    if "approval" in action:
        approval = writes.known("approval", action["approval"])
        if "lapses_at" in approval:
            writes.put("due", due_key(approval["lapses_at"], "lapse", action["approval"]), None)
    if action.get("charged") in ("held", "settled"):
        # Whatever the claim comes to, what was reserved before is replaced by what the claim itself charges.
        writes.charge(action["charges"], -1)
    charges = data.get("charges") or []
    if data["event"] == "started":
        writes.charge(charges, +1)
        changes: dict[str, Any] = {"status": "executed", "claim": "started"}
        if charges or "charges" in action:
            changes |= {"charges": charges, "charged": "settled"}
    else:
        changes = {"status": "denied" if data["event"] == "refused" else "lapsed", "claim": data["event"]}
        if "charges" in action:
            changes["charged"] = "released"
    writes.change("action", key, **changes)


def _outcome(
    writes: _Writes, index: int, at: str, who: Mapping[str, Any], data: Mapping[str, Any], id: str | None
) -> None:
    key = action_key(data["agent_id"], data["entry"])
    action = writes.known("action", key)
    changes: dict[str, Any] = {"outcome": index}
    if "claim" in data:
        changes["claim"] = data["claim"]
    failed = data.get("claim") == "failed" or data.get("status") == "failure"
    if failed and action.get("charged") == "settled":
        released = [charge for charge in action["charges"] if charge[2]]
        if released:
            writes.charge(released, -1)
            changes["charges"] = [charge for charge in action["charges"] if not charge[2]]
    writes.change("action", key, **changes)


def _operator(
    writes: _Writes, index: int, at: str, who: Mapping[str, Any], data: Mapping[str, Any], id: str | None
) -> None:
    removed = data["event"] == "removed"
    document: Document | None = None
    if not removed:
        document = {"role": data["role"], "groups": data["groups"], "entry": index}
        if "identity" in data:
            document["identity"] = data["identity"]
    writes.put("operator", data["operator"], document)


def _key(
    writes: _Writes, index: int, at: str, who: Mapping[str, Any], data: Mapping[str, Any], id: str | None
) -> None:
    event, key_id = data["event"], data["key"]
    if event == "issued":
        document: Document = {
            "id": key_id,
            "digest": data["digest"],
            "kind": data["kind"],
            "holder": data["holder"],
            "owner": data.get("owner"),
            "issued_at": at,
            "expires_at": data.get("expires_at"),
            "revoked_at": None,
            "entry": index,
        }
        if "delegation" in data:
            document["delegation"] = data["delegation"]
        if "expires_at" in data:
            document["session"] = True
        writes.put("key", data["digest"], document)
        writes.put("key_id", key_id, {"digest": data["digest"]})
        return
    digest = writes.known("key_id", key_id)["digest"]
    if event == "revoked":
        writes.change("key", digest, revoked_at=at)
    else:
        writes.change("key", digest, expires_at=data["expires_at"])


def _login(
    writes: _Writes, index: int, at: str, who: Mapping[str, Any], data: Mapping[str, Any], id: str | None
) -> None:
    if data["event"] == "offered":
        document = {"operator": data["operator"], "expires_at": data["expires_at"], "used_at": None}
        writes.put("login", data["digest"], document)
    else:
        writes.change("login", data["digest"], used_at=at)


def _erasure(
    writes: _Writes, index: int, at: str, who: Mapping[str, Any], data: Mapping[str, Any], id: str | None
) -> None:
    """An erasure takes payloads, and state holds none."""


_FOLDS = {
    "log": _log,
    "agent": _agent,
    "operator": _operator,
    "key": _key,
    "login": _login,
    "delegation": _delegation,
    "policy": _policy,
    "registry": _registry,
    "action": _action,
    "approval": _approval,
    "claim": _claim,
    "outcome": _outcome,
    "erasure": _erasure,
    "webhook": fold_webhook,
}
