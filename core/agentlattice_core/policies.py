"""Published policy: which parts are in force, in which version, and publishing a document.

- A part (one policy, guardrail, action declaration or registry) is published by an entry that holds its digest; its
  text is the entry's payload, which may not be erased. Every version stays in the log.
- A policy set is compiled once per change and shared; which one is in force is asked inside each transaction.
- A part whose stored text no longer has the digest that was published, or whose state differs from its entry, is
  tampered: it denies whatever its published pattern matches. If parts are missing or were added behind the log's back,
  the set as a whole is not what was published, and everything is denied.
- Publishing a document adds and changes parts; it removes those that the same source published before and no longer
  holds, and leaves the parts of other sources alone.
- A part belongs to the source that published it. Another source that holds a different part of the same id is refused,
  unless it is applied explicitly: a file then takes the part over, and an edit in code changes it and leaves it to its
  file.
- What a person changed by approving forever stays as long as the file says of that part what it said before, and is
  reported. Applying the file explicitly undoes it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from agentlattice_core.batch import Batch
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.policy.document import PolicyDocument
from agentlattice_core.policy.evaluate import PolicySet
from agentlattice_core.policy.parts import StoredPart, part_pattern
from agentlattice_core.principals import Forever
from agentlattice_core.stores.base import Document, Row

__all__ = ["BY_APPROVAL", "IN_CODE", "Change", "Policies", "differing", "publish", "publish_part"]

IN_CODE = "code"
"""The source of documents that are not files."""

BY_APPROVAL = "approvals"
"""The source of what persons published by approving forever."""

_WHOLE_SET = "policy/published-set"


class _State(Protocol):
    def get(self, kind: str, key: str) -> Document | None: ...

    def row(self, index: int) -> Row | None: ...

    def scan(self, kind: str, prefix: str = "") -> Iterator[tuple[str, Document]]: ...


@dataclass(frozen=True, slots=True)
class Change:
    """What publishing changed: ids of parts, and the patterns of the actions that any of them governed or governs.

    `kept` are parts that a person changed by approving forever, which the source did not undo.
    """

    published: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)


class Policies:
    """The compiled policy set in force, kept until an entry changes it."""

    def __init__(self) -> None:
        self._generation: Document | None = None
        self._compiled = PolicySet.from_parts({})
        self.restart()

    def restart(self) -> None:
        """Begin anew in a forked child: a thread of the parent may have held the lock."""
        self._lock = threading.Lock()

    def at(self, state: _State) -> PolicySet:
        """The policy set in force in `state`."""
        generation = state.get("policies", "set")
        with self._lock:
            # The whole document is compared: a transaction that was rolled back may have had the same entry's index.
            if generation != self._generation:
                entry = -1 if generation is None else generation["entry"]
                self._compiled = PolicySet.from_parts(_stored_parts(state, entry))
                self._generation = generation
            return self._compiled

    def parts(self, state: _State) -> dict[str, StoredPart]:
        """The parts in force in `state` as they are stored, those that were tampered with marked."""
        generation = state.get("policies", "set")
        return _stored_parts(state, -1 if generation is None else generation["entry"])

    def registries(self, state: _State) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        """Registries that are kept in the store rather than in a document, read where policy asks for one."""
        return _StoredRegistries(state)


class _StoredRegistries(Mapping[str, Mapping[str, Mapping[str, Any]]]):
    """Every registry of the store; those that are not there are a document's to give."""

    __slots__ = ("_state",)

    def __init__(self, state: _State) -> None:
        self._state = state

    def __getitem__(self, name: str) -> Mapping[str, Mapping[str, Any]]:
        if self._state.get("registries", name) is None:
            raise KeyError(name)
        return _StoredEntries(self._state, name)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._state.scan("registries"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _StoredEntries(Mapping[str, Mapping[str, Any]]):
    """The entries of one registry, each read when it is asked for."""

    __slots__ = ("_name", "_state")

    def __init__(self, state: _State, name: str) -> None:
        self._state = state
        self._name = name

    def __getitem__(self, value: str) -> Mapping[str, Any]:
        entry = self._state.get("registry", f"{self._name}/{value}")
        if entry is None:
            raise KeyError(value)
        return entry

    def __iter__(self) -> Iterator[str]:
        return (key.split("/", 1)[1] for key, _ in self._state.scan("registry", f"{self._name}/"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _stored_parts(state: _State, generation: int) -> dict[str, StoredPart]:
    documents = dict(state.scan("policy"))
    parts = dict(_checked_parts(state, documents))
    row = state.row(generation) if generation >= 0 else None
    published = orjson.loads(row[1])["data"].get("set") if row is not None else _set_digest({})
    if published != _set_digest(documents):
        # Nothing can be said of the missing or added parts, so nothing may rely on the others being all.
        parts[_WHOLE_SET] = StoredPart(b"", 0, "", "", tampered=True, pattern="*")
    return parts


def _checked_parts(state: _State, documents: Mapping[str, Document]) -> Iterator[tuple[str, StoredPart]]:
    for part, document in documents.items():
        row = state.row(document["entry"])
        published = orjson.loads(row[1])["data"] if row is not None else {}
        content = row[4] if row is not None else None
        tampered = (
            published.get("part") != part
            or published.get("digest") != document["digest"]
            or published.get("version") != document["version"]
            or published.get("event") != ("removed" if document["removed"] else "published")
        )
        if document["removed"] and not tampered:
            continue
        if content is None or hashlib.sha256(content).hexdigest() != published.get("digest"):
            tampered = True
        # The pattern is the entry's, which the chain protects; where it says nothing, it may have been about anything.
        yield (
            part,
            StoredPart(
                content=content or b"",
                version=document["version"],
                digest=document["digest"],
                created_at=document["created_at"],
                tampered=tampered,
                pattern=published.get("pattern") or "*",
            ),
        )


def _set_digest(documents: Mapping[str, Document]) -> str:
    """One digest over which parts are in force, in which version."""
    present = [[part, d["version"], d["digest"]] for part, d in sorted(documents.items()) if not d["removed"]]
    return hashlib.sha256(orjson.dumps(present)).hexdigest()


def publish(
    batch: Batch,
    document: PolicyDocument,
    *,
    source: str,
    source_digest: str,
    by: dict[str, Any],
    prune: bool,
    force: bool,
) -> Change:
    """Bring the parts of `document` into force.

    Unless `force`, a source whose digest is the one applied last does nothing, so that an unchanged file never undoes
    a change made elsewhere. `prune` removes what the same source published before and no longer holds. Raises
    InvalidRequestError for a part of another source, unless `force`.
    """
    applied = batch.get("source", source)
    if not force and applied is not None and applied["digest"] == source_digest:
        return Change(kept=differing(batch, document, source))
    parts = document.parts()
    published: list[str] = []
    kept: list[str] = []
    patterns: set[str] = set()
    known = dict(batch.scan("policy"))
    for part, content in parts.items():
        digest = hashlib.sha256(content).hexdigest()
        before = known.get(part)
        if before is not None and not before["removed"] and before["digest"] == digest:
            continue
        if before is not None and not force and not before["removed"] and before.get("replaces") == digest:
            kept.append(part)
            continue
        owner, pattern = source, part_pattern(part, content)
        if before is not None and not before["removed"] and before["source"] != source:
            if not force:
                raise InvalidRequestError(
                    f"`{part}` of `{source}` is already published by `{before['source']}`; rename one of them, "
                    f"or apply `{source}` explicitly to take it over"
                )
            owner = before["source"] if source == IN_CODE else source
        data = {
            "event": "published",
            "part": part,
            "version": before["version"] + 1 if before is not None else 1,
            "digest": digest,
            "pattern": pattern,
            "source": owner,
        }
        batch.record("policy", by, data, payload=content)
        published.append(part)
        patterns.add(pattern)
        if before is not None and before["pattern"] is not None:
            patterns.add(before["pattern"])
    removed: list[str] = []
    for part, before in known.items():
        if prune and part not in parts and not before["removed"] and before["source"] == source:
            data = {
                "event": "removed",
                "part": part,
                "version": before["version"] + 1,
                "digest": before["digest"],
                "pattern": before["pattern"],
                "source": source,
            }
            batch.record("policy", by, data)
            removed.append(part)
            patterns.add(before["pattern"] or "*")
    _record_applied(batch, by, source, source_digest)
    return Change(published, removed, kept, sorted(patterns))


def publish_part(
    batch: Batch, part: str, content: bytes, *, by: dict[str, Any], approval_id: str, reach: Forever
) -> Change:
    """Bring one part into force, or change it and leave it to its source, because a person approved forever."""
    before = batch.get("policy", part)
    in_force = before is not None and not before["removed"]
    digest, pattern = hashlib.sha256(content).hexdigest(), part_pattern(part, content)
    data = {
        "event": "published",
        "part": part,
        "version": before["version"] + 1 if before is not None else 1,
        "digest": digest,
        "pattern": pattern,
        "source": before["source"] if before is not None and in_force else BY_APPROVAL,
        "approval": approval_id,
        "forever": reach,
    }
    patterns = {pattern}
    if before is not None and in_force:
        # What its source said last: as long as it says nothing else, it does not undo this.
        data["replaces"] = before.get("replaces") or before["digest"]
        patterns.add(before["pattern"] or "*")
    batch.record("policy", by, data, payload=content)
    _record_applied(batch, by, BY_APPROVAL, digest)
    return Change(published=[part], patterns=sorted(patterns))


def _record_applied(batch: Batch, by: dict[str, Any], source: str, digest: str) -> None:
    in_force = _set_digest(dict(batch.scan("policy")))
    batch.record("policy", by, {"event": "applied", "source": source, "digest": digest, "set": in_force})


def differing(state: _State, document: PolicyDocument, source: str) -> list[str]:
    """The parts of a source that are in force otherwise than its document says, because they were changed elsewhere."""
    found = []
    for part, content in document.parts().items():
        known = state.get("policy", part)
        if known is not None and known["source"] == source:
            digest = hashlib.sha256(content).hexdigest()
            if known["removed"] or known["digest"] != digest:
                found.append(part)
    return found
