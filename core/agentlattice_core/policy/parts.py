"""The parts a policy document is stored as, so that a store can keep and version what it does not understand.

- A part's id is `policy/<id>`, `guardrail/<id>`, `action/<type>` or `registry/<name>`.
- A part's content is canonical JSON: members sorted, no white space, UTF-8. Its digest is the SHA-256 of
  those bytes.
- A part whose content is not what its digest says, or cannot be read, is tampered with: it denies what it
  governs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

__all__ = ["PartId", "StoredPart", "canonical_json", "digest_of", "part_pattern"]

PartId = str
"""`policy/<id>`, `guardrail/<id>`, `action/<type>` or `registry/<name>`."""


@dataclass(frozen=True, slots=True)
class StoredPart:
    """One version of a part as a store holds it.

    `digest` is SHA-256 in hex of `content` as it was published, `created_at` RFC 3339. `pattern` names the
    actions that a `tampered` part denies; it is kept beside the content, because that can then not be trusted
    to say.
    """

    content: bytes
    version: int
    digest: str
    created_at: str
    active: bool = True
    tampered: bool = False
    pattern: str = "*"


def canonical_json(value: Any) -> bytes:
    """`value` as canonical JSON."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def digest_of(content: bytes) -> str:
    """The digest of a part's content, SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def part_pattern(part_id: str, content: bytes) -> str:
    """The actions a part governs: a policy's pattern, a declared action's type, `*` for a registry or the
    unreadable.
    """
    kind, _, name = part_id.partition("/")
    if kind == "action":
        return name
    if kind in ("policy", "guardrail"):
        try:
            pattern = orjson.loads(content)["action"]
        except (ValueError, TypeError, KeyError):
            return "*"
        return pattern if isinstance(pattern, str) else "*"
    return "*"
