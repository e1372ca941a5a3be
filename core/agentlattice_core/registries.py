"""Registries kept in the store: known beneficiaries and categories, with their tags and caps.

- A change is an action, `agentlattice.registry.<name>.put` or `.remove`, with `value`, and for a put `tags` and `caps`,
  as metadata. Policy decides on it like on any other; where nothing covers it, nothing changes.
- It is made in the transaction in which its action is admitted or its approval is claimed, once, and exactly as it was
  shown to whoever approved it. Observe mode decides on others; a change is made only if it was allowed.
- An entry is `{"tags": [...], "caps": {name: amount}}`. A put replaces the whole entry.
- A registry that was ever changed here is the store's, and stands in place of one of that name in a policy document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from agentlattice_core import admission
from agentlattice_core.actions import Action, parse_amount
from agentlattice_core.admission import Caller
from agentlattice_core.agents import agent_facts
from agentlattice_core.batch import Batch
from agentlattice_core.errors import InvalidRequestError, NotFoundError
from agentlattice_core.policies import Policies
from agentlattice_core.results import ActionResult, RegistryEntry
from agentlattice_core.stores.base import Document

__all__ = ["Change", "RegistryChange", "entries", "is_change", "made", "names"]

_PREFIX = "agentlattice.registry."
_KIND = re.compile(r"agentlattice\.registry\.([a-z0-9_\-]{1,100})\.(put|remove)")
_CAP = re.compile(r"[A-Za-z0-9_\-]{1,100}")
_MOST_TAGS = 100
_MOST_CAPS = 20


class _State(Protocol):
    def get(self, kind: str, key: str) -> Document | None: ...

    def scan(self, kind: str, prefix: str = "") -> Iterator[tuple[str, Document]]: ...


def is_change(action_type: str) -> bool:
    """Whether actions of that type are changes of registries."""
    return action_type.startswith(_PREFIX)


@dataclass(frozen=True, slots=True)
class RegistryChange:
    """What an action changes: one entry of one registry. `entry` is None where it is removed."""

    registry: str
    value: str
    entry: Mapping[str, Any] | None

    @classmethod
    def of(cls, action: Action) -> RegistryChange:
        """Raises InvalidRequestError for an action that does not say exactly what changes."""
        named = _KIND.fullmatch(action.action_type)
        if named is None:
            raise InvalidRequestError(
                f"action type `{action.action_type}` changes no registry; it is `{_PREFIX}<name>.put` or "
                f"`{_PREFIX}<name>.remove`, the name in lower-case letters, digits, `_` and `-`"
            )
        members = ("value",) if named[2] == "remove" else ("value", "tags", "caps")
        unknown = sorted(set(action.metadata) - set(members))
        if unknown:
            raise InvalidRequestError(
                f"metadata: a change of a registry has no `{unknown[0]:.80}`; it has {', '.join(members)}"
            )
        value = action.metadata.get("value")
        if not isinstance(value, str) or not value or len(value) > 1024 or not value.isprintable():
            raise InvalidRequestError("metadata.value: must be text of 1 to 1024 printable characters")
        if named[2] == "remove":
            return cls(named[1], value, None)
        return cls(named[1], value, {"tags": _tags(action.metadata), "caps": _caps(action.metadata)})


def _tags(metadata: Mapping[str, Any]) -> list[str]:
    tags = metadata.get("tags", [])
    if not isinstance(tags, list) or len(tags) > _MOST_TAGS or not all(_is_name(tag) for tag in tags):
        raise InvalidRequestError(f"metadata.tags: must be a list of at most {_MOST_TAGS} texts")
    return sorted(set(tags))


def _is_name(text: Any) -> bool:
    return isinstance(text, str) and 0 < len(text) <= 200 and text.isprintable() and text == text.strip()


def _caps(metadata: Mapping[str, Any]) -> dict[str, str]:
    caps = metadata.get("caps", {})
    if not isinstance(caps, Mapping) or len(caps) > _MOST_CAPS or not all(map(_CAP.fullmatch, caps)):
        raise InvalidRequestError(
            f'metadata.caps: must be an object of at most {_MOST_CAPS} amounts by name, such as {{"daily": "2500.00"}}'
        )
    return {
        name: format(parse_amount(cap, f"metadata.caps.{name}"), "f") for name, cap in sorted(caps.items())
    }


# Changing


def made(batch: Batch, caller: Caller, result: ActionResult) -> ActionResult:
    """Make the change whose action was admitted or claimed just now; the result as it was, whatever it says.

    Called in the transaction that recorded it.
    """
    if result.status != "executed" or result.claim != "started" or result.replayed:
        return result
    index = int(result.audit_event_id[4:16], 16)
    row = batch.row(index)
    assert row is not None
    assert row[4] is not None
    action = Action.from_members(orjson.loads(row[4])["action"])
    if not is_change(action.action_type):
        return result
    change = RegistryChange.of(action)
    data: dict[str, Any] = {
        "event": "removed" if change.entry is None else "put",
        "registry": change.registry,
        "value": change.value,
        "action": result.audit_event_id,
    }
    if change.entry is not None:
        data["entry"] = change.entry
    agent_id = agent_facts(batch, caller.agent).id
    batch.record(
        "registry", {"agent": caller.agent, "agent_id": agent_id, "established": caller.established}, data
    )
    admission.record_claim_outcome(batch, caller, result.audit_event_id, "succeeded", None)
    return result


class Change:
    """The command of an action that changes a registry. Raises as `admission.execute` does."""

    def __init__(self, policies: Policies, caller: Caller, action: Action, nonce: str | None = None) -> None:
        RegistryChange.of(action)  # what cannot be carried out is not asked for
        self._policies = policies
        self._caller = caller
        self._action = action
        self._nonce = nonce

    def __call__(self, batch: Batch) -> ActionResult:
        result = admission.execute(self._policies, batch, self._caller, self._action, self._nonce)
        return made(batch, self._caller, result)


# Looking


def names(state: _State) -> list[str]:
    """The registries that are kept in the store."""
    return [name for name, _ in state.scan("registries")]


def entries(state: _State, registry: str) -> list[RegistryEntry]:
    """What a registry holds, in the order of values. Raises NotFoundError for one that was never changed here."""
    if not isinstance(registry, str) or state.get("registries", registry) is None:
        raise NotFoundError(f"there is no registry `{registry!s:.80}` in the store")
    return [
        RegistryEntry(
            registry=registry,
            value=key.split("/", 1)[1],
            tags=document["tags"],
            caps=document["caps"],
            changed_at=document["changed_at"],
            audit_event_id=document["action"],
        )
        for key, document in state.scan("registry", f"{registry}/")
    ]
