"""Canonical JSON: one value, one sequence of bytes.

- Envelopes follow RFC 8785 (JCS). They are held to text, booleans, null, lists, objects with ASCII member
  names, and integers of at most 53 bits. Within that, JSON with sorted members and no spaces *is* RFC 8785,
  so the fast encoder can be used; the property test compares it with an independent implementation.
- Payloads may hold any JSON, fractions too. Their bytes are kept as they were written and never encoded
  again.
- What JSON cannot carry (NaN, infinities, lone surrogates, other types) is refused, never replaced.
- The bytes that were written are what is hashed; a reader never encodes again in order to compare hashes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from agentlattice_core.errors import AuditError, InvalidRequestError

__all__ = ["dumps", "dumps_payload", "loads"]

# Without these options the encoder would quietly turn dates, dataclasses and subclasses into JSON of its own
# choosing.
_PAYLOAD_OPTIONS: Final = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_ENVELOPE_OPTIONS: Final = _PAYLOAD_OPTIONS | orjson.OPT_STRICT_INTEGER
_INFINITE: Final = (float("inf"), float("-inf"))
# What the encoder has checked by itself: surrogates in text, the size of integers.
_PLAIN: Final = frozenset({str, int, bool, type(None)})
_orjson_dumps = orjson.dumps


def dumps(value: Any) -> bytes:
    """The RFC 8785 bytes of an envelope value.

    Raises InvalidRequestError for a fraction, an integer beyond 53 bits, a member name that is not ASCII
    text, a lone surrogate, nesting deeper than 250 levels, or a value that is not JSON.
    """
    try:
        body = _orjson_dumps(value, option=_ENVELOPE_OPTIONS)
    except (TypeError, RecursionError) as error:  # the encoder's own error is a TypeError
        raise InvalidRequestError(f"this cannot be written to the audit log: {_reason(error)}") from None
    # The encoder has already refused circular and bottomless values, so a recursive walk ends.
    kind = type(value)
    if kind is dict:
        _check_members(value)
    elif kind is list or kind is tuple:
        _check_items(value)
    else:
        _check_scalar(value, kind)
    if not body.isascii():
        _check_names(value)
    return body


def dumps_payload(value: Any) -> bytes:
    """JSON bytes with sorted members for an erasable payload; fractions are allowed.

    Raises InvalidRequestError for NaN and infinities, lone surrogates, integers beyond 64 bits and whatever
    is not JSON.
    """
    try:
        text = _orjson_dumps(value, option=_PAYLOAD_OPTIONS)
    except (TypeError, RecursionError) as error:
        raise InvalidRequestError(f"this cannot be written to the audit log: {_reason(error)}") from None
    if b"null" in text:  # the encoder writes NaN as null, so only then is there anything to look for
        _check_finite(value)
    return text


def loads(text: bytes | str, what: str = "the text") -> Any:
    """Parse JSON. Raises AuditError, naming `what`, if it is not JSON (NaN included) or not UTF-8."""
    try:
        return orjson.loads(text)
    except (orjson.JSONDecodeError, RecursionError) as error:
        raise AuditError(f"{what} is not JSON: {_reason(error)}") from None


def _check_members(value: dict[str, Any]) -> None:
    for member in value.values():
        kind = type(member)
        if kind in _PLAIN:
            continue
        if kind is dict:
            _check_members(member)
        elif kind is list or kind is tuple:
            _check_items(member)
        else:
            _check_scalar(member, kind)


def _check_items(value: list[Any] | tuple[Any, ...]) -> None:
    for member in value:
        kind = type(member)
        if kind in _PLAIN:
            continue
        if kind is dict:
            _check_members(member)
        elif kind is list or kind is tuple:
            _check_items(member)
        else:
            _check_scalar(member, kind)


def _check_scalar(value: Any, kind: type[Any]) -> None:
    if kind is float:
        raise InvalidRequestError(
            f"this cannot be written to the audit log: `{value}` is a fraction; write it as text"
        )
    if kind not in _PLAIN:
        raise InvalidRequestError(
            f"this cannot be written to the audit log: a value of type `{kind.__name__}` is not JSON"
        )


def _check_names(value: Any) -> None:
    """Beyond ASCII, sorting by bytes and by UTF-16 units (RFC 8785) may differ, so member names stay within
    it."""
    if isinstance(value, dict):
        for name, member in value.items():
            if not name.isascii():
                raise InvalidRequestError(
                    f"this cannot be written to the audit log: member name `{name}` is not ASCII"
                )
            _check_names(member)
    elif isinstance(value, list | tuple):
        for member in value:
            _check_names(member)


def _check_finite(value: Any) -> None:
    if isinstance(value, float):
        if value != value or value in _INFINITE:
            raise InvalidRequestError(
                f"this cannot be written to the audit log: `{value}` is not a number that JSON can carry"
            )
    elif isinstance(value, Mapping):
        for member in value.values():
            _check_finite(member)
    elif isinstance(value, list | tuple):
        for member in value:
            _check_finite(member)
    elif value is not None and not isinstance(value, str | int):
        raise InvalidRequestError(
            f"this cannot be written to the audit log: a value of type `{type(value).__name__}` is not JSON"
        )


def _reason(error: Exception) -> str:
    """The encoder's complaint as one lowercase line."""
    text = " ".join(str(error).split())
    return text[:1].lower() + text[1:200] if text else "it is nested too deeply"
