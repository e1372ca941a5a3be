"""What a service answers, as results and errors.

- A result is made from the members that its dataclass has; others are passed over, so that a service may be newer.
- What is missing or of the wrong kind makes an answer unreadable, and says nothing about what was asked.
- An error is what the same mistake raises embedded. A code that is not known stays as it is.
- Nothing of an answer is shown beyond a bounded line.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from agentlattice_core.errors import (
    AgentLatticeError,
    AuditError,
    DigestMismatchError,
    EventIdConflictError,
    ForbiddenError,
    IllegalTransitionError,
    InvalidKeyError,
    InvalidRequestError,
    NotFoundError,
    NotRecordedError,
    NotYourEventError,
    PolicyDocumentError,
    PolicyProblem,
    StoreError,
)

__all__ = ["UnreadableError", "error_of", "member", "result"]

T = TypeVar("T")

_LONGEST_MESSAGE = 2_000
_ENVELOPE = ("error", "message", "type", "title", "status", "detail", "instance", "details")


class UnreadableError(Exception):
    """An answer that is not what was asked for."""


def result(kind: type[T]) -> Callable[[Any], T]:
    """A reader of answers that are `kind`, a dataclass."""
    return lambda body: _read(kind, body, kind.__name__)


def member(name: str, kind: Any = Any) -> Callable[[Any], Any]:
    """A reader of answers of which only the member `name` counts."""

    def read(body: Any) -> Any:
        if not isinstance(body, Mapping) or name not in body:
            raise UnreadableError(f"`{name}` is missing")
        return _read(kind, body[name], name)

    return read


def _read(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _object(kind, value, where)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return None if value is None else _read(_not_none(kind), value, where)
    if origin in (list, tuple, frozenset) and isinstance(value, list):
        inner = get_args(kind)[0]
        return origin(_read(inner, item, f"{where}[{position}]") for position, item in enumerate(value))
    if origin is dict and isinstance(value, Mapping):
        inner = get_args(kind)[1]
        return {str(name): _read(inner, item, f"{where}.{name}") for name, item in value.items()}
    if origin is not None and origin not in (list, tuple, frozenset, dict) and value in get_args(kind):
        return value  # one of a few words
    if kind is float and type(value) is int:
        return value
    if isinstance(kind, type) and type(value) is kind:
        return value
    raise UnreadableError(f"`{where}` is not what it should be")


def _object(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise UnreadableError(f"`{where}` is not an object")
    found = {}
    for name, (hint, required) in _members(kind).items():
        if name in value:
            found[name] = _read(hint, value[name], f"{where}.{name}")
        elif required:
            raise UnreadableError(f"`{where}.{name}` is missing")
    return kind(**found)


@cache
def _members(kind: Any) -> dict[str, tuple[Any, bool]]:
    hints = get_type_hints(kind)
    return {
        each.name: (hints[each.name], each.default is MISSING and each.default_factory is MISSING)
        for each in fields(kind)
    }


def _not_none(kind: Any) -> Any:
    return next(each for each in get_args(kind) if each is not type(None))


# Errors


def error_of(status: int, body: Any, event_id: str | None = None) -> AgentLatticeError:
    """The error that an answer of this HTTP status is. `event_id` is the one that was sent."""
    if not isinstance(body, Mapping) or not isinstance(body.get("error"), str):
        return AgentLatticeError(
            "BAD_ANSWER", f"the service answered with HTTP {status} and says no more", {"status": status}
        )
    code = body["error"][:100]
    message = next(
        (body[name] for name in ("message", "detail", "title") if isinstance(body.get(name), str)), ""
    )
    message = " ".join(message[:_LONGEST_MESSAGE].split()) or f"the service answered {code} (HTTP {status})"
    details = body.get("details")
    if details is None:
        details = {name: value for name, value in body.items() if name not in _ENVELOPE} or None
    told = details if isinstance(details, Mapping) else {}
    if code == "EVENT_ID_CONFLICT":
        return EventIdConflictError(event_id or _text(told, "event_id"), _text(told, "audit_event_id"))
    if code == "NOT_YOUR_EVENT" and _text(told, "audit_event_id"):
        return NotYourEventError(_text(told, "audit_event_id"))
    if code == "DIGEST_MISMATCH" and _text(told, "approval_id"):
        return DigestMismatchError(_text(told, "approval_id"))
    if code == "INVALID_POLICY":
        problems = _problems(body)
        if problems:
            return PolicyDocumentError(problems)
    if code in ("FORBIDDEN", "CIRCUIT_BREAKER_OPEN"):
        return ForbiddenError(message, details, code=code)
    if code == "INVALID_API_KEY":
        return InvalidKeyError()
    if code == "ALREADY_REGISTERED":
        return IllegalTransitionError(message, details, code=code)
    if code in _KINDS:
        return _KINDS[code](message, details)
    return AgentLatticeError(code, message, details)


_KINDS: dict[str, Callable[[str, Any], AgentLatticeError]] = {
    "AUDIT_ERROR": AuditError,
    "ILLEGAL_TRANSITION": IllegalTransitionError,
    "INVALID_REQUEST": InvalidRequestError,
    "NOT_FOUND": NotFoundError,
    "NOT_RECORDED": NotRecordedError,
    "STORE_ERROR": StoreError,
}


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    return value if isinstance(value, str) else ""


_PROBLEM = re.compile(r"(.{1,1000}?):(\d{1,9}):(\d{1,9}): ([^:]{1,1000}): (.{1,2000})", re.DOTALL)


def _problems(body: Mapping[str, Any]) -> list[PolicyProblem]:
    """What is wrong with a document, each as `file:line:column: field: message`."""
    told = body.get("problems")
    found = []
    for each in told if isinstance(told, list) else []:
        parts = _PROBLEM.fullmatch(each) if isinstance(each, str) else None
        if parts is not None:
            file, line, column, name, message = parts.groups()
            found.append(PolicyProblem(file, int(line), int(column), name, message))
    return found
