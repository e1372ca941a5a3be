"""An entry: one line of the audit log, what is hashed of it, and the sealing of new ones.

- An entry is one JSON object in RFC 8785 form; its bytes are stored as they were sealed and never encoded
  again.
- Members: `v` 1, `log` the log's id, `i` the index from 0, `at` RFC 3339 UTC with microseconds, `prev` the
  leaf hash (hex) of the entry before (64 zeros for the first), `kind`, `who`, `data`, and where they apply
  `id` and `payload`.
- The chain is carried inside: `prev` binds every entry before it. The RFC 6962 tree over the leaf hashes is
  the truth.
- What may be personal goes into the payload, beside the entry; the entry holds `payload` = SHA-256(salt ||
  payload bytes). The salt is random, so nothing can be guessed from the commitment once both are erased.
- An entry of kind `erasure` names what was erased: `data.ranges`, a list of `[first, last]` indexes before
  its own.
- Time never goes backwards within a log.

The format for other implementations: docs/audit-format.md.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from agentlattice_core.audit import canonical
from agentlattice_core.audit.merkle import HASH_BYTES, Frontier
from agentlattice_core.clock import parse_time
from agentlattice_core.errors import AuditError, InvalidRequestError

__all__ = [
    "ERASURE",
    "FORMAT_VERSION",
    "NO_PREVIOUS",
    "SALT_BYTES",
    "Entry",
    "Head",
    "SealedEntry",
    "Sealer",
    "check_log_id",
    "commitment",
    "erased_ranges",
    "erasure_data",
    "parse",
]

FORMAT_VERSION: Final = 1
SALT_BYTES: Final = 16
NO_PREVIOUS: Final = bytes(HASH_BYTES)
"""What the first entry names as the leaf hash before it."""
ERASURE: Final = "erasure"
"""The kind of an entry that says which payloads were erased."""

_LOG_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_KIND: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z", re.ASCII)
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_REQUIRED: Final = frozenset({"v", "log", "i", "at", "prev", "kind", "who", "data"})
_MEMBERS: Final = _REQUIRED | {"id", "payload"}
_MAX_INDEX: Final = 2**53
_sha256 = hashlib.sha256
_urandom = os.urandom
_dumps = canonical.dumps


@dataclass(frozen=True, slots=True)
class Entry:
    """A parsed entry. `prev` and `payload` are 32 bytes; `payload` is None where the entry has no erasable
    part."""

    log: str
    i: int
    at: str
    prev: bytes
    kind: str
    who: Mapping[str, Any]
    data: Mapping[str, Any]
    id: str | None = None
    payload: bytes | None = None


class SealedEntry(NamedTuple):
    """A new entry's row: what the store writes. `salt` and `payload` are both set or both None."""

    i: int
    body: bytes
    leaf: bytes
    salt: bytes | None
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class Head:
    """Where a log ends: the last entry's leaf hash and time (zeros and empty before the first), and the
    frontier."""

    leaf: bytes = NO_PREVIOUS
    at: str = ""
    frontier: Frontier = field(default_factory=Frontier)

    @property
    def size(self) -> int:
        """How many entries there are, which is the index of the next one."""
        return self.frontier.size

    def root(self) -> bytes:
        """The root of the tree."""
        return self.frontier.root()


class Sealer:
    """Makes the entries of one log, one after the other, from a head.

    It holds no lock and does no I/O: use one inside the transaction that reads the head and writes it back.
    `rewind` takes back what was sealed after a head, when the transaction or a part of it fails.
    """

    __slots__ = ("_at", "_frontier", "_index", "_kinds", "_log", "_previous")

    def __init__(self, log: str, head: Head | None = None) -> None:
        """Raises InvalidRequestError if `log` is no log id."""
        check_log_id(log)
        self._log = log
        self._kinds: set[str] = set()  # kinds found well formed; there are a dozen
        self.rewind(head if head is not None else Head())

    @property
    def log(self) -> str:
        return self._log

    @property
    def size(self) -> int:
        """The index the next entry will have."""
        return self._index

    @property
    def at(self) -> str:
        """The time of the last entry, or the empty text."""
        return self._at

    def head(self) -> Head:
        """The head after everything sealed so far; later sealing does not change it."""
        return Head(bytes.fromhex(self._previous), self._at, self._frontier.copy())

    def rewind(self, head: Head) -> None:
        """Go on from `head`, forgetting what was sealed after it."""
        self._frontier = head.frontier.copy()
        self._index = head.frontier.size
        self._previous = head.leaf.hex()
        self._at = head.at

    def seal(
        self,
        kind: str,
        who: Mapping[str, Any],
        data: Mapping[str, Any],
        *,
        at: str,
        id: str | None = None,
        payload: bytes | None = None,
    ) -> SealedEntry:
        """The next entry. `at` is `clock.format_time` text, not before the last entry's.

        Raises InvalidRequestError if `who` or `data` cannot be written or `kind`, `at` or `id` is malformed,
        and AuditError if time goes backwards; the sealer is then as it was before.
        """
        if at != self._at:
            self._check_time(at)
        if kind not in self._kinds:
            if type(kind) is not str or _KIND.fullmatch(kind) is None:
                raise InvalidRequestError(f"entry kind `{kind}` is not a lowercase word")
            self._kinds.add(kind)
        index = self._index
        envelope: dict[str, Any] = {
            "at": at,
            "data": data,
            "i": index,
            "kind": kind,
            "log": self._log,
            "prev": self._previous,
            "v": FORMAT_VERSION,
            "who": who,
        }
        if id is not None:
            if type(id) is not str or not id:
                raise InvalidRequestError(f"entry id `{id}` is not text")
            envelope["id"] = id
        salt: bytes | None = None
        if payload is not None:
            salt = _urandom(SALT_BYTES)
            envelope["payload"] = _sha256(salt + payload).hexdigest()
        if type(who) is not dict or type(data) is not dict:
            raise InvalidRequestError("`who` and `data` of an entry must be JSON objects")
        body = _dumps(envelope)
        leaf = _sha256(b"\x00" + body).digest()
        self._frontier.push(leaf)
        self._index = index + 1
        self._previous = leaf.hex()
        self._at = at
        return SealedEntry(index, body, leaf, salt, payload)

    def _check_time(self, at: str) -> None:
        if not _is_time(at):
            raise InvalidRequestError(f"entry time `{at}` is not like `2026-03-02T09:00:00.000000Z`")
        if at < self._at:
            raise AuditError(
                f"entry time `{at}` is before the last entry's, `{self._at}`; stamp with the later one"
            )


def check_log_id(log: str) -> None:
    """Raise InvalidRequestError unless `log` can name a log: letters, digits, `.`, `_`, `-`, at most 128
    characters."""
    if not isinstance(log, str) or _LOG_ID.fullmatch(log) is None:
        raise InvalidRequestError(
            f"log id `{log}` must be 1 to 128 letters, digits, `.`, `_` or `-`, "
            "and begin with a letter or digit"
        )


def commitment(salt: bytes, payload: bytes) -> bytes:
    """What an entry says of its payload: SHA-256(salt || payload)."""
    return _sha256(salt + payload).digest()


def parse(body: bytes) -> Entry:
    """Read an entry strictly: exactly the canonical bytes of exactly the known members.

    Raises AuditError if it is anything else; never another exception.
    """
    value = canonical.loads(body, "the entry")
    if type(value) is not dict:
        raise AuditError("the entry is not a JSON object")
    names = value.keys()
    if not _REQUIRED <= names <= _MEMBERS:
        wrong = sorted((_REQUIRED - names) | (names - _MEMBERS))
        raise AuditError(f"the entry lacks a member or has one too many: `{_short(', '.join(wrong))}`")
    try:
        again = canonical.dumps(value)
    except InvalidRequestError as error:
        raise AuditError(f"the entry is not canonical JSON: {error.message}") from None
    if again != body:
        raise AuditError(
            "the entry is not canonical JSON: members out of order or repeated, spaces, or needless escapes"
        )
    if value["v"] is True or value["v"] != FORMAT_VERSION:
        raise AuditError(
            f"the entry has format version `{_short(value['v'])}`, and only {FORMAT_VERSION} is known"
        )
    _expect(type(value["log"]) is str and _LOG_ID.fullmatch(value["log"]) is not None, "log", value)
    _expect(type(value["i"]) is int and 0 <= value["i"] < _MAX_INDEX, "i", value)
    _expect(type(value["at"]) is str and _is_time(value["at"]), "at", value)
    _expect(type(value["prev"]) is str and _HEX.fullmatch(value["prev"]) is not None, "prev", value)
    _expect(type(value["kind"]) is str and _KIND.fullmatch(value["kind"]) is not None, "kind", value)
    _expect(type(value["who"]) is dict, "who", value)
    _expect(type(value["data"]) is dict, "data", value)
    if "id" in value:
        _expect(type(value["id"]) is str and value["id"] != "", "id", value)
    if "payload" in value:
        _expect(
            type(value["payload"]) is str and _HEX.fullmatch(value["payload"]) is not None, "payload", value
        )
    return Entry(
        log=value["log"],
        i=value["i"],
        at=value["at"],
        prev=bytes.fromhex(value["prev"]),
        kind=value["kind"],
        who=value["who"],
        data=value["data"],
        id=value.get("id"),
        payload=bytes.fromhex(value["payload"]) if "payload" in value else None,
    )


def erasure_data(indexes: Iterable[int]) -> dict[str, Any]:
    """The `data` of an erasure entry for these indexes, neighbours joined into ranges."""
    ranges: list[list[int]] = []
    for index in sorted(set(indexes)):
        if ranges and ranges[-1][1] == index - 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return {"ranges": ranges}


def erased_ranges(entry: Entry) -> list[tuple[int, int]]:
    """The (first, last) indexes an erasure entry names. Raises AuditError unless they are in order and before
    the entry."""
    ranges = entry.data.get("ranges")
    found: list[tuple[int, int]] = []
    if type(ranges) is list:
        for item in ranges:
            if not (type(item) is list and len(item) == 2 and type(item[0]) is int and type(item[1]) is int):
                break
            if not (found[-1][1] if found else -1) < item[0] <= item[1] < entry.i:
                break
            found.append((item[0], item[1]))
        else:
            if found:
                return found
    raise AuditError("the erasure entry does not name ranges of entries before it, in order")


def _is_time(text: str) -> bool:
    if type(text) is not str or _TIME.fullmatch(text) is None:
        return False
    try:
        parse_time(text)
    except ValueError:
        return False
    return True


def _expect(holds: bool, member: str, value: Mapping[str, Any]) -> None:
    if not holds:
        raise AuditError(f"the entry's `{member}` is malformed: `{_short(value[member])}`")


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
