"""An organisation's configuration as one document: its policies and its agents, exported here and imported there.

- Importing adds and modifies, and removes nothing. It says of each part which of the three it is: added, modified or
  unchanged.
- Keys, people and what happened are no part of it: they belong to where they are.
- Children are not exported: a delegation is not configuration.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from agentlattice_core import agents, policies, reevaluation
from agentlattice_core.agents import check_name, check_names
from agentlattice_core.batch import Batch
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.policies import Policies
from agentlattice_core.policy.document import PolicyDocument
from agentlattice_core.policy.parts import StoredPart, canonical_json
from agentlattice_core.stores.base import Document, Reader

__all__ = [
    "Comparison",
    "Configuration",
    "bring_in",
    "compared",
    "exported",
    "policy_parts",
    "read",
    "stored_parts",
]

_FORMAT = "agentlattice-configuration"
_VERSION = 1
_SOURCE = "import"
_SAID = ("tags", "grants", "owner")


class _State(Protocol):
    def get(self, kind: str, key: str) -> Document | None: ...

    def scan(self, kind: str, prefix: str = "") -> Iterator[tuple[str, Document]]: ...


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration that was read and checked: the policy document, and what is said of agents by name."""

    document: PolicyDocument
    agents: Mapping[str, Mapping[str, Any]]
    digest: str


@dataclass(slots=True)
class Comparison:
    """Ids of parts (`policy/...`, `agent/...`) by what importing does to them."""

    added: list[str] = field(default_factory=list)
    modified: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)

    def _place(self, part: str, known: bool, same: bool) -> None:
        (self.unchanged if same else self.modified if known else self.added).append(part)


def policy_parts(in_force: Policies, reader: Reader) -> list[dict[str, Any]]:
    """What is in force, part by part. A part that is not what was published says so (`tampered`), has no content, and
    denies what its `pattern` matches.
    """
    found = []
    for part, stored in sorted(in_force.parts(reader).items()):
        known = reader.get("policy", part) or {}
        found.append(
            {
                "part": part,
                "version": stored.version,
                "digest": stored.digest,
                "pattern": stored.pattern,
                "source": known.get("source"),
                "created_at": stored.created_at,
                "changed_at": known.get("changed_at"),
                "tampered": stored.tampered,
                "content": None if stored.tampered else orjson.loads(stored.content),
            }
        )
    return found


def stored_parts(listed: Iterable[Mapping[str, Any]]) -> dict[str, StoredPart]:
    """The parts that `policy_parts` listed. Raises KeyError, TypeError for what it did not."""
    return {
        one["part"]: StoredPart(
            content=b"" if one["tampered"] else canonical_json(one["content"]),
            version=one["version"],
            digest=one["digest"],
            created_at=one["created_at"],
            tampered=one["tampered"],
            pattern=one["pattern"],
        )
        for one in listed
    }


def exported(in_force: Policies, reader: Reader) -> dict[str, Any]:
    """The configuration in force, as JSON."""
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "policies": {
            one["part"]: one["content"] for one in policy_parts(in_force, reader) if not one["tampered"]
        },
        "agents": {
            name: {member: document[member] for member in _SAID}
            for name, document in reader.scan("agent")
            if "parent" not in document
        },
    }


def read(document: Any) -> Configuration:
    """What `exported` made. Raises InvalidRequestError, PolicyDocumentError."""
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise InvalidRequestError("this is not an exported configuration")
    if document.get("version") != _VERSION:
        raise InvalidRequestError(
            f"the configuration has version `{document.get('version')!s:.20}`; only {_VERSION} is known"
        )
    parts, people = document.get("policies", {}), document.get("agents", {})
    if not isinstance(parts, dict) or not isinstance(people, dict):
        raise InvalidRequestError("policies and agents: must be objects")
    for name, said in people.items():
        check_name(name, "agent")
        if not isinstance(said, dict) or not set(said) <= set(_SAID):
            raise InvalidRequestError(f"agent `{name:.80}`: must be an object with {', '.join(_SAID)}")
        for member in ("tags", "grants"):
            if not isinstance(said.get(member, []), list):
                raise InvalidRequestError(f"agent `{name:.80}`: {member} must be a list of names")
            check_names(said.get(member, []), member)
        if said.get("owner") is not None:
            check_name(said["owner"], "owner")
    contents = {part: orjson.dumps(content) for part, content in parts.items()}
    digest = hashlib.sha256(orjson.dumps([parts, people], option=orjson.OPT_SORT_KEYS)).hexdigest()
    return Configuration(PolicyDocument.from_parts(contents), people, digest)


def compared(state: _State, wanted: Configuration) -> Comparison:
    """What importing would do."""
    found = Comparison()
    for part, content in wanted.document.parts().items():
        known = state.get("policy", part)
        there = known is not None and not known["removed"]
        same = known is not None and there and known["digest"] == hashlib.sha256(content).hexdigest()
        found._place(part, there, same)
    for name, said in wanted.agents.items():
        known = state.get("agent", name)
        same = known is not None and all(known[member] == _told(said, member, known) for member in _SAID)
        found._place(f"agent/{name}", known is not None, same)
    return found


def _told(said: Mapping[str, Any], member: str, known: Document) -> Any:
    value = said.get(member)
    if value is None:
        return known[member]
    return value if member == "owner" else sorted(set(value))


def bring_in(in_force: Policies, batch: Batch, wanted: Configuration, by: dict[str, Any]) -> Comparison:
    """Import. Pending requests are asked about again, as after any change of policy. Raises ForbiddenError."""
    found = compared(batch, wanted)
    for name, said in wanted.agents.items():
        if f"agent/{name}" not in found.unchanged:
            agents.register(
                batch,
                name,
                tags=said.get("tags"),
                grants=said.get("grants"),
                owner=said.get("owner"),
                by=by,
            )
    if any(not part.startswith("agent/") for part in (*found.added, *found.modified)):
        change = policies.publish(
            batch,
            wanted.document,
            source=_SOURCE,
            source_digest=wanted.digest,
            by=by,
            prune=False,
            force=True,
        )
        reevaluation.begin(in_force, batch, change.patterns, reevaluation.AT_ONCE)
    return found
