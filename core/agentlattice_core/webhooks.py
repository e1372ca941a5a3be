"""Webhook subscriptions: who is told of what, how far each was told, and what could not be delivered.

- A subscription is kept in the log, like people and registries, so every node that has the log open knows it, and
  everything that was done to it is an entry. Managing one takes an administrator.
- How far one was told is a cursor on the log (`next`, the first entry not yet looked at) and the few messages beyond it
  that failed and wait to be tried again. Both are recorded in batches, after the attempts: whoever dies in between
  leaves messages that are sent again, with the same id.
- One node delivers a subscription at a time: it records a lease first, and what it records later counts only while the
  lease is its own.
- Where it delivers to and with what secrets is sealed by the caller (`seal`) and lies in the erasable payload of an
  entry. Rotating and removing erase it. The entry names the origin only, because the rest of such an address is often
  a secret.
- A message that was given up is a dead letter; it stays until it is replayed or the subscription is removed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any, Protocol

import orjson

from agentlattice_core.audit.entry import ERASURE, erasure_data
from agentlattice_core.batch import Batch
from agentlattice_core.clock import format_time
from agentlattice_core.errors import IllegalTransitionError, InvalidRequestError, NotFoundError
from agentlattice_core.notifications import EVENT_TYPES
from agentlattice_core.operators import operator_identity, require_admin
from agentlattice_core.principals import Operator
from agentlattice_core.stores.base import Document, Row

__all__ = [
    "LEASE",
    "ROTATION_OVERLAP",
    "TEMPLATES",
    "Attempt",
    "Reseal",
    "Webhook",
    "add",
    "change",
    "dead_letters",
    "delivery_id",
    "disable",
    "find",
    "lease",
    "read_delivery_id",
    "record",
    "remove",
    "replay",
    "rotate",
    "sealed_target",
    "tried",
    "webhooks",
]

TEMPLATES = ("generic", "slack", "pagerduty", "email")
"""In what form a subscription is told."""

LEASE = timedelta(seconds=60)
"""How long a node that says nothing keeps a subscription from the others; longer than any attempt takes."""

ROTATION_OVERLAP = timedelta(hours=24)
"""How long the secret before signs beside a new one."""

Reseal = Callable[[str, "str | None"], str]
"""Gets a subscription's id and what is sealed of it (None: erased), and seals what is to be in its place."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_\-]{0,63}")
_DELIVERY = re.compile(r"dlv_([0-9a-f]{32})_([0-9a-f]{12})")
_RENEW = LEASE / 2
_LONGEST_ERROR = 200
_MOST_PEOPLE = 1000


class _State(Protocol):
    def get(self, kind: str, key: str) -> Document | None: ...

    def scan(self, kind: str, prefix: str = "") -> Iterator[tuple[str, Document]]: ...

    def row(self, index: int) -> Row | None: ...


@dataclass(frozen=True, slots=True)
class Webhook:
    """One subscription.

    `events` are the notifications it is told of (None: all; empty: only escalations that name it, `webhook:<name>`),
    `agent_id` the only agent it hears of. `target` is the origin it delivers to. `why` says why it is not active:
    `gone` (the receiver answered 410), `failing`, or `paused` by a person. `people` maps who answers in a chat to
    operators. `next` is the first entry it was not yet told of, `retries` the messages that wait to be tried again by
    entry, and `attempts` the latest ones, the newest last.
    """

    id: str
    name: str
    target: str
    template: str
    events: tuple[str, ...] | None
    agent_id: str | None
    people: Mapping[str, str]
    active: bool
    why: str | None
    created_at: str
    changed_at: str
    rotating_until: str | None
    next: int
    by: str | None
    until: str
    failed: int
    retries: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    attempts: Sequence[Mapping[str, Any]] = ()

    def shown(self) -> dict[str, Any]:
        """As people and programs are shown it: `waiting` is how many messages failed and wait."""
        return {
            "id": self.id,
            "name": self.name,
            "target": self.target,
            "template": self.template,
            "events": self.events,
            "agent_id": self.agent_id,
            "people": self.people,
            "active": self.active,
            "why": self.why,
            "created_at": self.created_at,
            "changed_at": self.changed_at,
            "rotating_until": self.rotating_until,
            "waiting": len(self.retries),
        }


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to deliver the message of entry `index`: the `number`-th. `status` is what was answered, None if nothing;
    `error` one line without secrets. `outcome` is delivered, retry (then `due` says when) or dead.
    """

    index: int
    number: int
    at: str
    outcome: str
    milliseconds: int
    status: int | None = None
    error: str | None = None
    due: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Without what is not set."""
        found: dict[str, Any] = {
            "i": self.index,
            "n": self.number,
            "at": self.at,
            "outcome": self.outcome,
            "ms": self.milliseconds,
        }
        if self.status is not None:
            found["status"] = self.status
        if self.error is not None:
            found["error"] = self.error[:_LONGEST_ERROR]
        if self.due is not None:
            found["due"] = self.due
        return found


# Looking


def webhooks(state: _State) -> list[Webhook]:
    """Every subscription, in the order in which they were added."""
    return [_webhook(state, key, document) for key, document in state.scan("webhook")]


def find(state: _State, name: str) -> Webhook:
    """A subscription by its id or name. Raises NotFoundError."""
    known = state.get("webhook", name)
    if known is not None:
        return _webhook(state, name, known)
    named = state.get("webhook_name", name) if isinstance(name, str) else None
    if named is None:
        raise NotFoundError(f"there is no webhook `{name!s:.80}`")
    return find(state, named["webhook"])


def dead_letters(
    state: _State, webhook_id: str, *, after: int = -1, limit: int | None = None
) -> list[tuple[int, Mapping[str, Any]]]:
    """What a subscription could not be told, of entries after `after`: index, and the last attempt; oldest first."""
    found = ((int(key[-12:], 16), document) for key, document in state.scan("webhook_dead", f"{webhook_id}/"))
    return list(islice((one for one in found if one[0] > after), limit))


def sealed_target(state: _State, webhook_id: str) -> str | None:
    """Where it delivers to and with what secrets, as its entry holds them, sealed; None if that was erased."""
    row = state.row(_known(state, webhook_id)["sealed"])
    if row is None or row[4] is None:
        return None
    sealed: str = orjson.loads(row[4])["sealed"]
    return sealed


def delivery_id(webhook_id: str, index: int) -> str:
    """How the message about entry `index` to one subscription is called."""
    return f"dlv_{webhook_id[4:]}_{index:012x}"


def read_delivery_id(text: str) -> tuple[str, int]:
    """The subscription and the entry that a delivery is about. Raises NotFoundError."""
    found = _DELIVERY.fullmatch(text)
    if found is None:
        raise NotFoundError(f"there is no delivery `{text:.80}`")
    return f"whk_{found[1]}", int(found[2], 16)


def _webhook(state: _State, webhook_id: str, document: Document) -> Webhook:
    cursor = state.get("webhook_cursor", webhook_id) or {}
    recent = state.get("webhook_recent", webhook_id) or {}
    return Webhook(
        id=webhook_id,
        name=document["name"],
        target=document["target"],
        template=document["template"],
        events=None if document["events"] is None else tuple(document["events"]),
        agent_id=document["agent_id"],
        people=document["people"],
        active=document["active"],
        why=document["why"],
        created_at=document["created_at"],
        changed_at=document["changed_at"],
        rotating_until=document["rotating_until"],
        next=cursor["next"],
        by=cursor["by"],
        until=cursor["until"],
        failed=cursor["failed"],
        retries={int(key, 16): value for key, value in cursor["retries"].items()},
        attempts=recent.get("attempts", ()),
    )


def _known(state: _State, webhook_id: str) -> Document:
    document = state.get("webhook", webhook_id)
    if document is None:
        raise NotFoundError(f"there is no webhook `{webhook_id:.80}`")
    return document


# Managing: for administrators. Each raises ForbiddenError, and NotFoundError for a subscription that is not there.


def add(
    batch: Batch,
    operator: Operator,
    name: str,
    target: str,
    seal: Callable[[str], str],
    *,
    template: str = "generic",
    events: Iterable[str] | None = None,
    agent: str | None = None,
    people: Mapping[str, str] | None = None,
) -> Webhook:
    """Subscribe. It hears of what is recorded from now on. `seal` gets the new id, and seals what is secret.

    Raises InvalidRequestError, and IllegalTransitionError for a name that is taken.
    """
    admin = require_admin(batch, operator, "managing webhooks")
    if template not in TEMPLATES:
        raise InvalidRequestError(f"template `{template!s:.80}` is not one of {', '.join(TEMPLATES)}")
    checked = _checked(batch, None, name=name, events=events, agent=agent, people=people or {})
    webhook_id = f"whk_{batch.next_index:012x}{os.urandom(10).hex()}"
    data = {"webhook": webhook_id, "event": "added", "target": target, "template": template, **checked}
    batch.record("webhook", operator_identity(admin), data, payload=_sealed(seal(webhook_id)))
    return find(batch, webhook_id)


def change(
    batch: Batch,
    operator: Operator,
    webhook_id: str,
    *,
    active: bool | None = None,
    target: tuple[str, Reseal] | None = None,
    **changes: Any,
) -> Webhook:
    """Change `name`, `events`, `agent` or `people`, the `target` (its origin, and what seals it), or pause and resume
    it with `active`. Resumed, it goes on where it stopped.
    """
    admin = require_admin(batch, operator, "managing webhooks")
    before = _known(batch, webhook_id)
    data: dict[str, Any] = {
        "webhook": webhook_id,
        "event": "changed",
        **_checked(batch, webhook_id, **changes),
    }
    if active is not None:
        data |= {"active": active, "why": None if active else "paused"}
    payload = None
    if target is not None:
        data["target"] = target[0]
        payload = _sealed(target[1](webhook_id, sealed_target(batch, webhook_id)))
    if len(data) > 2:
        batch.record("webhook", operator_identity(admin), data, payload=payload)
        if payload is not None:
            _forget(batch, admin, before["sealed"])
    return find(batch, webhook_id)


def rotate(
    batch: Batch,
    operator: Operator,
    webhook_id: str,
    reseal: Reseal,
    overlap: timedelta = ROTATION_OVERLAP,
) -> Webhook:
    """Give it a new secret; `reseal` seals both, and the one before signs too until `overlap` is over."""
    admin = require_admin(batch, operator, "managing webhooks")
    before = _known(batch, webhook_id)
    until = format_time(batch.now + overlap)
    data = {"webhook": webhook_id, "event": "rotated", "until": until}
    payload = _sealed(reseal(webhook_id, sealed_target(batch, webhook_id)))
    batch.record("webhook", operator_identity(admin), data, payload=payload)
    _forget(batch, admin, before["sealed"])
    return find(batch, webhook_id)


def remove(batch: Batch, operator: Operator, webhook_id: str) -> None:
    """End it, and erase its secrets. What it was not yet told, it is never told."""
    admin = require_admin(batch, operator, "managing webhooks")
    before = _known(batch, webhook_id)
    dead = [index for index, _ in dead_letters(batch, webhook_id)]
    batch.record(
        "webhook", operator_identity(admin), {"webhook": webhook_id, "event": "removed", "dead": dead}
    )
    _forget(batch, admin, before["sealed"])


def replay(batch: Batch, operator: Operator, webhook_id: str, indexes: Iterable[int]) -> int:
    """Have messages sent again, under the ids they had; how many. Raises NotFoundError for an entry that it was not yet
    told of.
    """
    admin = require_admin(batch, operator, "managing webhooks")
    told = find(batch, webhook_id)
    chosen = sorted(set(indexes))
    for index in chosen:
        if not 0 <= index < told.next:
            raise NotFoundError(f"webhook `{told.name}` was not yet told of entry `{index}`")
    if chosen:
        data = {"webhook": webhook_id, "event": "replayed", "entries": chosen}
        batch.record("webhook", operator_identity(admin), data)
    return len(chosen)


def tried(batch: Batch, operator: Operator, webhook_id: str, status: int | None) -> None:
    """Note that an administrator had a test message sent, and what was answered."""
    admin = require_admin(batch, operator, "managing webhooks")
    _known(batch, webhook_id)
    batch.record(
        "webhook",
        operator_identity(admin),
        {"webhook": webhook_id, "event": "tested", "status": status},
    )


def _checked(batch: Batch, webhook_id: str | None, **given: Any) -> dict[str, Any]:
    """What was given, as entries hold it."""
    checked: dict[str, Any] = {}
    if "name" in given:
        name = given["name"]
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise InvalidRequestError(
                f"webhook name `{name!s:.80}` must be 1 to 64 lower-case letters, digits, `_` and `-`"
            )
        taken = batch.get("webhook_name", name)
        if taken is not None and taken["webhook"] != webhook_id:
            raise IllegalTransitionError(f"there is a webhook `{name}` already; choose another name")
        checked["name"] = name
    if "events" in given:
        events = given["events"]
        chosen = None if events is None else sorted(set(events))
        for event in chosen or ():
            if event not in EVENT_TYPES:
                raise InvalidRequestError(
                    f"event type `{event!s:.80}` is not one of {', '.join(EVENT_TYPES)}"
                )
        checked["events"] = chosen
    if "agent" in given:
        agent = given["agent"]
        known = batch.get("agent", agent) if agent is not None else None
        if agent is not None and known is None:
            raise NotFoundError(f"there is no agent `{agent!s:.80}`")
        checked["agent_id"] = known["id"] if known is not None else None
    if "people" in given:
        people = given["people"]
        if (
            not isinstance(people, Mapping)
            or len(people) > _MOST_PEOPLE
            or not all(
                isinstance(one, str) and 0 < len(one) <= 200 and one.isprintable()
                for pair in people.items()
                for one in pair
            )
        ):
            raise InvalidRequestError(
                f"people: must be an object of at most {_MOST_PEOPLE} operators by chat name"
            )
        checked["people"] = dict(people)
    return checked


def _sealed(text: str) -> bytes:
    return orjson.dumps({"sealed": text})


def _forget(batch: Batch, operator: Operator, index: int) -> None:
    """Erase what an entry sealed."""
    batch.record(ERASURE, operator_identity(operator), erasure_data([index]))
    batch.erase(index)


# Delivering: for the nodes


def lease(batch: Batch, webhook_id: str, node: str) -> bool:
    """Take or keep a subscription for `node`; False if another one has it, or it is not there or not active."""
    document = batch.get("webhook", webhook_id)
    cursor = batch.get("webhook_cursor", webhook_id)
    if document is None or cursor is None or not document["active"]:
        return False
    held = cursor["until"] > batch.at
    if held and cursor["by"] != node:
        return False
    if not held or cursor["until"] < format_time(batch.now + _RENEW):
        data = {"webhook": webhook_id, "event": "leased", "by": node, "until": format_time(batch.now + LEASE)}
        batch.record("webhook", _delivering(node), data)
    return True


def record(
    batch: Batch, webhook_id: str, node: str, next_index: int, attempts: Sequence[Attempt], *, keep: bool
) -> bool:
    """Record what came of attempts, and that everything before `next_index` was looked at; False, and nothing, if the
    lease is not `node`'s any more. Without `keep` the lease ends.
    """
    cursor = batch.get("webhook_cursor", webhook_id)
    if cursor is None or cursor["by"] != node or cursor["until"] <= batch.at:
        return False
    data = {
        "webhook": webhook_id,
        "event": "delivered",
        "by": node,
        "until": format_time(batch.now + LEASE) if keep else batch.at,
        "next": max(next_index, cursor["next"]),
        "attempts": [attempt.to_dict() for attempt in attempts],
    }
    batch.record("webhook", _delivering(node), data)
    return True


def disable(batch: Batch, webhook_id: str, node: str, why: str) -> bool:
    """Stop telling it: `gone` or `failing`. An administrator may resume it; nothing is lost meanwhile."""
    document = batch.get("webhook", webhook_id)
    if document is None or not document["active"]:
        return False
    data = {"webhook": webhook_id, "event": "disabled", "name": document["name"], "why": why}
    batch.record("webhook", _delivering(node), data)
    return True


def _delivering(node: str) -> dict[str, Any]:
    return {"system": "webhooks", "node": node}
