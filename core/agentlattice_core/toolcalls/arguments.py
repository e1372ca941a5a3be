"""What a tool will receive, as plain JSON that everybody reads the same way.

- Arguments are one JSON object. Text must be strict JSON (RFC 8259, no NaN, no member twice); a mapping must hold plain
  values. Everything else raises `InvalidRequestError`, so that nothing is guessed, cut or overwritten.
- A number that this process cannot hold exactly is refused, not rounded.
- A pydantic model as `schema` is what the tool itself validates with: aliases, coercion and defaults are applied here
  exactly as there, so that policy sees what the tool will see. Members the model does not know never reach the tool;
  they are not decided on, and their names are kept in `ignored`. JSON Schema is left to the framework that enforces it.
- A default that differs from call to call (a new id, the time) is not known before the call and is left out.
- The digest is SHA-256 over the canonical arguments: members sorted, no white space.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import orjson

from agentlattice_core.actions import MAX_DEPTH, MAX_PAYLOAD_BYTES, check_json
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.toolcalls.redaction import HIDDEN

__all__ = ["Arguments", "canonical_arguments", "digest_of", "lenient_arguments", "plain_json"]

_WHERE = "arguments"
_EXACT = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
_PLAIN_ONLY = (
    _EXACT
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
# Never larger than a payload may be, also where JSON writes every character as six bytes.
_SIMPLE_MEMBERS = 16
_SIMPLE_LENGTH = 1024
_SIMPLE_INTEGER = 2**53
# Two different secrets would otherwise have one digest.
_HIDDEN = orjson.dumps(HIDDEN)


@dataclass(slots=True)
class Arguments:
    """The arguments of one call.

    `given` is what the framework passes on, parsed and copied. `decided` is the same as the tool will see it:
    validated, with aliases, coercion and defaults applied; it is what policy reads and the log records. `encoded` is
    the canonical text of `decided`, `digest` commits to it, `ignored` names the members the tool's schema does not
    know. `hidden` says that the schema itself hides values (SecretStr); the digest then commits to `given` as well.
    """

    given: dict[str, Any]
    decided: dict[str, Any]
    encoded: bytes
    digest: str
    ignored: tuple[str, ...] = ()
    hidden: bool = False

    def copy(self) -> dict[str, Any]:
        """A fresh copy of `decided`, for code that may change it."""
        copied: dict[str, Any] = orjson.loads(self.encoded)
        return copied


def canonical_arguments(
    raw: Mapping[str, Any] | str | bytes,
    schema: Any = None,
    injected: frozenset[str] = frozenset(),
) -> Arguments:
    """Read `raw`, the arguments as a mapping or as the text a model wrote.

    `schema` is the tool's pydantic model class, or anything else (then nothing is validated). `injected` names members
    the framework adds, which are left out. Empty text means no arguments. Raises InvalidRequestError saying what is
    wrong and where.
    """
    if type(raw) is dict:
        members: Mapping[str, Any] = raw
    elif isinstance(raw, str | bytes | bytearray):
        members = _parsed_simply(raw) or _parsed(raw)
    elif isinstance(raw, Mapping):
        members = raw
    else:
        raise InvalidRequestError(
            f"{_WHERE}: a value of type `{type(raw).__name__}` is not an object with members"
        )
    if injected and not injected.isdisjoint(members):
        members = {name: value for name, value in members.items() if name not in injected}
    fields = _fields_of(schema)
    if fields is None:
        given, encoded = _plain_copy(members, _WHERE)
        return Arguments(given, given, encoded, hashlib.sha256(encoded).hexdigest())
    # The text of `given` is asked for only where the digest commits to it.
    given = dict(members) if _is_simple(members) else _plain_copy(members, _WHERE)[0]
    decided, ignored = _validated(schema, fields, given)
    decided, encoded = _plain_copy(decided, _WHERE)
    if _HIDDEN in encoded:
        hashed = encoded + orjson.dumps(given, option=_EXACT)
        return Arguments(given, decided, encoded, hashlib.sha256(hashed).hexdigest(), ignored, hidden=True)
    return Arguments(given, decided, encoded, hashlib.sha256(encoded).hexdigest(), ignored)


def digest_of(value: Any) -> str:
    """The digest (64 hex digits) of a plain JSON value."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def lenient_arguments(raw: Mapping[str, Any] | str | bytes, injected: frozenset[str]) -> dict[str, Any]:
    """The arguments as a framework would read them, for observe mode, where nothing is refused. Never raises."""
    if isinstance(raw, Mapping):
        return {name: value for name, value in raw.items() if name not in injected}
    try:
        parsed = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def plain_json(value: Any, where: str) -> tuple[Any, bytes]:
    """A copy of `value` as plain JSON, dates and the like in their text form, and its canonical text.

    `where` begins the message. Raises InvalidRequestError for what is not JSON.
    """
    return _plain_copy(value, where)


# --- text -----------------------------------------------------------------------------------------------------------


def _parsed_simply(text: str | bytes | bytearray) -> dict[str, Any] | None:
    """The object in a short text without escapes and fractions; None where it takes a closer look.

    Each member has two quotes for its name, and two more if it is text. A name that stands twice leaves one member and
    more quotes than that; so does anything nested.
    """
    if type(text) is not str or len(text) > _SIMPLE_LENGTH or "\\" in text:
        return None
    try:
        value = orjson.loads(text)
    except ValueError:
        return None
    if not _is_simple(value):
        return None
    quotes = 0
    for member in value.values():
        kind = type(member)
        if kind is float:
            return None
        quotes += 4 if kind is str else 2
    return value if text.count('"') == quotes else None


def _parsed(text: str | bytes | bytearray) -> dict[str, Any]:
    if len(text) > MAX_PAYLOAD_BYTES:
        raise InvalidRequestError(f"{_WHERE}: larger than {MAX_PAYLOAD_BYTES} bytes")
    if not isinstance(text, str):
        try:
            text = bytes(text).decode()
        except UnicodeDecodeError as error:
            raise InvalidRequestError(f"{_WHERE}: not UTF-8 text at byte {error.start}") from None
    if not text.strip(" \t\r\n"):
        return {}
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise InvalidRequestError(f"{_WHERE}: nested deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise InvalidRequestError(
            f"{_WHERE}: not valid JSON at line {error.lineno} column {error.colno} ({error.msg.lower()})"
        ) from None
    except ValueError:
        # The interpreter refuses to read integers of thousands of digits.
        raise InvalidRequestError(
            f"{_WHERE}: a number is too large to be exact in JSON; send it as text"
        ) from None
    if not isinstance(value, dict):
        raise InvalidRequestError(
            f'{_WHERE}: must be a JSON object such as {{"name": "value"}}, not {_noun(value)}'
        )
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidRequestError(f"{_WHERE}: member `{_short(name)}` appears twice")
            seen.add(name)
    return members


def _exact_float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")) or Decimal(text) != Decimal(repr(number)):
        raise InvalidRequestError(
            f"{_WHERE}: number `{_short(text)}` cannot be held exactly; send it as text"
        )
    return number


def _not_a_number(text: str) -> Any:
    raise InvalidRequestError(f"{_WHERE}: `{text}` is not a number in JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_members, parse_float=_exact_float, parse_constant=_not_a_number, strict=True
)


def _noun(value: Any) -> str:
    if value is None:
        return "null"
    return {list: "a list", str: "text", bool: "true or false"}.get(type(value), "a number")


# --- values ---------------------------------------------------------------------------------------------------------


def _is_simple(members: Any) -> bool:
    """Whether this is a short object of short plain values, none of which can be changed or needs a closer look.

    What is simple is valid as it stands, and a shallow copy of it is a deep one.
    """
    if type(members) is not dict or len(members) > _SIMPLE_MEMBERS:
        return False
    for name, value in members.items():
        kind = type(value)
        if kind is str:
            if len(value) > _SIMPLE_LENGTH or not value.isascii() or "\0" in value:
                return False
        elif kind is int:
            if not -_SIMPLE_INTEGER < value < _SIMPLE_INTEGER:
                return False
        elif kind is float:
            if not -_SIMPLE_INTEGER < value < _SIMPLE_INTEGER:  # nor infinite, nor NaN
                return False
        elif value is not None and kind is not bool:
            return False
        if type(name) is not str or len(name) > _SIMPLE_LENGTH or not name.isascii() or "\0" in name:
            return False
    return True


def _plain_copy(members: Any, where: str) -> tuple[Any, bytes]:
    """A deep copy of plain JSON and its canonical text. The common case never walks far in Python."""
    if _is_simple(members):
        return dict(members), orjson.dumps(members, option=_EXACT)
    try:
        encoded = orjson.dumps(members, option=_PLAIN_ONLY)
    except (TypeError, ValueError, RecursionError):
        encoded = b""
    # `null` may stand for NaN, `\u0000` for NUL, and brackets count the depth; each is only a hint to look closer.
    if (
        encoded
        and b"null" not in encoded
        and b"\\u0000" not in encoded
        and encoded.count(b"{") + encoded.count(b"[") <= MAX_DEPTH
        and len(encoded) < MAX_PAYLOAD_BYTES // 8
    ):
        return orjson.loads(encoded), encoded
    copied = _plain(members, 0, where)
    check_json(copied, where)
    return copied, orjson.dumps(copied, option=_EXACT)


def _plain(value: Any, depth: int, where: str) -> Any:
    """`value` with common Python types as JSON has them. Raises InvalidRequestError for what has no such form."""
    if depth > MAX_DEPTH:
        raise InvalidRequestError(f"{where}: nested deeper than {MAX_DEPTH} levels")
    kind = type(value)
    if kind is str or value is None or kind is bool or kind is int or kind is float:
        return value
    if isinstance(value, Mapping):
        return {_name(name, where): _plain(member, depth + 1, where) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member, depth + 1, where) for member in value]
    if isinstance(value, Enum):
        return _plain(value.value, depth + 1, where)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    dump = getattr(kind, "model_dump", None)
    if callable(dump):
        return _plain(_called(lambda: dump(value, mode="json"), kind.__name__, where), depth + 1, where)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name), depth + 1, where)
            for field in dataclasses.fields(value)
        }
    raise InvalidRequestError(f"{where}: a value of type `{kind.__name__}` is not JSON")


def _name(name: Any, where: str) -> str:
    if type(name) is str:
        return name
    raise InvalidRequestError(f"{where}: member name `{_short(name)}` is not text")


# --- schema ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Fields:
    """What has to be known about the fields of `model`, as they were when `validator` was built.

    `known` are the top-level member names from which a field may be filled, `computed` the fields whose default is made
    anew for each call.
    """

    model: weakref.ref[type]
    validator: object
    known: frozenset[str]
    computed: tuple[tuple[str, Any], ...]


# Asking a model about its fields takes longer than validating with it. Rebuilding a model gives it another validator.
_FIELDS: dict[int, _Fields] = {}


def _fields_of(schema: Any) -> _Fields | None:
    """The fields of `schema`, or None if it is no model class."""
    if not isinstance(schema, type):
        return None
    validator = getattr(schema, "__pydantic_validator__", None)
    key = id(schema)
    remembered = _FIELDS.get(key)
    if remembered is not None and remembered.validator is validator and remembered.model() is schema:
        return remembered
    if not (hasattr(schema, "model_validate") and hasattr(schema, "model_fields")):
        return None
    model: Any = schema
    computed = [
        (name, field)
        for name, field in model.model_fields.items()
        if getattr(field, "default_factory", None) is not None
    ]
    fields = _Fields(
        weakref.ref(schema, lambda _: _FIELDS.pop(key, None)), validator, _known_names(model), tuple(computed)
    )
    if validator is not None:
        _FIELDS[key] = fields
    return fields


def _validated(model: Any, fields: _Fields, given: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    try:
        instance = model.model_validate(given)
        decided = instance.model_dump(mode="json")
        filled = instance.model_fields_set if fields.computed else ()
    except Exception as error:
        raise InvalidRequestError(f"{_WHERE}: {_problem(error)}") from None
    for name, field in fields.computed:
        if name not in filled and not _same_each_time(field.default_factory):
            decided.pop(name, None)
    if fields.known.issuperset(given):
        return decided, ()
    extra = getattr(instance, "model_extra", None) or {}
    return decided, tuple(sorted(name for name in given if name not in fields.known and name not in extra))


def _same_each_time(factory: Callable[[], Any]) -> bool:
    try:
        return bool(factory() == factory())
    except Exception:
        return False


def _known_names(model: Any) -> frozenset[str]:
    """Every top-level member name from which `model` may fill a field."""
    names = set(model.model_fields)
    for field in model.model_fields.values():
        for alias in (field.alias, field.validation_alias):
            for choice in getattr(alias, "choices", None) or [alias]:
                first = getattr(choice, "path", [choice])[0]
                if isinstance(first, str):
                    names.add(first)
    return frozenset(names)


def _problem(error: Exception) -> str:
    """A validator's complaint in one line, without the values it complains about: they may be secret."""
    details = getattr(error, "errors", None)
    if callable(details):
        try:
            problems = details(include_input=False, include_url=False, include_context=False)
            lines = [f"`{_place(problem['loc'])}`: {_short(problem['msg'], 160)}" for problem in problems[:5]]
        except Exception:
            lines = []
        if lines:
            more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
            return "; ".join(lines) + more
    return f"the tool's schema refuses them ({type(error).__name__})"


def _place(location: tuple[Any, ...]) -> str:
    return _short(".".join(str(part) for part in location) or "arguments")


def _called(function: Callable[[], Any], name: str, where: str) -> Any:
    try:
        return function()
    except Exception:
        raise InvalidRequestError(f"{where}: a value of type `{name}` cannot be written as JSON") from None


def _short(value: Any, length: int = 80) -> str:
    try:
        text = str(value)
    except Exception:
        text = f"a value of type {type(value).__name__}"
    text = " ".join(text.encode("ascii", "backslashreplace").decode().replace("\0", "\\0").split())
    return text if len(text) <= length else text[: length - 3] + "..."
