"""An action: what an agent wants to do, checked once and never changed afterwards.

- Everything that can be evaluated, recorded or shown is JSON: text without lone surrogates or NUL, finite numbers,
  bounded size and depth. What is not is refused here with `InvalidRequestError`, before policy sees it.
- Amounts are exact decimals, at most 20 digits before and 18 after the point, never negative. A float is read by its
  shortest decimal form, so 0.1 is 0.1.
- `amount`, `currency`, `beneficiary` and `category` are first class; where an action lacks one, the metadata member of
  that name stands in.
- The time an action was asked for is not part of it: the store stamps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.results import ActionOptions

__all__ = [
    "MAX_DEPTH",
    "MAX_PAYLOAD_BYTES",
    "SENSITIVITIES",
    "Action",
    "check_json",
    "parse_amount",
]

MAX_PAYLOAD_BYTES = 256 * 1024
"""Most bytes the arguments of one action may take as JSON text."""
MAX_DEPTH = 32
"""Deepest nesting of lists and objects in metadata."""
SENSITIVITIES = ("low", "medium", "high", "critical")
"""Sensitivities in rising order."""

_ACTION_TYPE = re.compile(r"[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*")
_MAX_NAME = 200
_WHOLE_DIGITS = 20
_FRACTION_DIGITS = 18
_PLAIN_AMOUNT = re.compile(rf"[0-9]{{1,{_WHOLE_DIGITS}}}(\.[0-9]{{1,{_FRACTION_DIGITS}}})?")
_SAFE_INTEGER = 2**53
_TEXTS = ("currency", "beneficiary", "category", "on_behalf_of")


@dataclass(frozen=True, slots=True)
class Action:
    """What an agent wants to do. Build it with `Action.build`, which checks every member.

    `trusted` names the fields whose values come from the tool's own mapping and not from the model.
    """

    action_type: str
    data_accessed: tuple[Mapping[str, Any], ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    amount: Decimal | None = None
    currency: str | None = None
    beneficiary: str | None = None
    category: str | None = None
    on_behalf_of: str | None = None
    event_id: str | None = None
    trusted: frozenset[str] = frozenset()
    content: bytes = b"{}"
    """What was asked for as JSON text, taken when the action was built: what is recorded and shown to approvers."""

    @classmethod
    def build(
        cls,
        action_type: str,
        options: ActionOptions | None = None,
        *,
        trusted: Iterable[str] = (),
    ) -> Action:
        """Check `action_type` and `options` and make an action of them.

        Raises InvalidRequestError naming the member that is wrong and what it must be.
        """
        given = options if options is not None else ActionOptions()
        metadata = _checked_metadata(given.metadata)
        content: dict[str, Any] = {"action_type": _checked_action_type(action_type)}
        data_accessed = _checked_data_accessed(given.data_accessed)
        if data_accessed:
            content["data_accessed"] = data_accessed
        if metadata:
            content["metadata"] = metadata
        amount = None
        if given.amount is not None:
            amount = parse_amount(given.amount)
        elif "amount" in metadata:
            amount = _amount_or_none(metadata["amount"])
        if amount is not None:
            content["amount"] = format(amount, "f")
        for name in _TEXTS:
            value = _checked_text(name, getattr(given, name), metadata)
            if value is not None:
                content[name] = value
        # What is decided on must be what is recorded, whatever the caller does to its dictionaries meanwhile.
        text = orjson.dumps(
            content, option=orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_SUBCLASS, default=_plain
        )
        return cls._of(orjson.loads(text), amount, given.event_id, trusted, text)

    @classmethod
    def from_members(
        cls, members: dict[str, Any], event_id: str | None = None, trusted: Iterable[str] = ()
    ) -> Action:
        """The action whose content `members` is, parsed, for deciding on it again. Nobody may change them any more.
        Raises InvalidRequestError if they are not an action's.
        """
        try:
            amount = parse_amount(members["amount"]) if "amount" in members else None
            text = orjson.dumps(members, option=orjson.OPT_SORT_KEYS)
            return cls._of(members, amount, event_id, trusted, text)
        except (KeyError, TypeError) as error:
            raise InvalidRequestError(f"a recorded action cannot be read: {error}") from error

    @classmethod
    def _of(
        cls,
        members: dict[str, Any],
        amount: Decimal | None,
        event_id: Any,
        trusted: Iterable[str],
        text: bytes,
    ) -> Action:
        return cls(
            action_type=members["action_type"],
            data_accessed=tuple(members.get("data_accessed", ())),
            metadata=members.get("metadata", {}),
            amount=amount,
            currency=members.get("currency"),
            beneficiary=members.get("beneficiary"),
            category=members.get("category"),
            on_behalf_of=members.get("on_behalf_of"),
            event_id=_checked_text("event_id", event_id, {}),
            trusted=frozenset(trusted),
            content=text,
        )


def check_json(value: Any, where: str, *, max_bytes: int = MAX_PAYLOAD_BYTES) -> None:
    """Raise InvalidRequestError unless `value` is plain JSON that every reader reads the same way.

    Checks types, member names, depth, total size, finite numbers, and text without lone surrogates or NUL.
    """
    budget = max_bytes
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        kind = type(item)
        if kind is str:
            budget -= _checked_string(item, where) + 2
        elif item is None or kind is bool:
            budget -= 5
        elif kind is int:
            if not -_SAFE_INTEGER < item < _SAFE_INTEGER:
                raise InvalidRequestError(
                    f"{where}: number `{_short(item)}` is too large to be exact in JSON; send it as text"
                )
            budget -= 16
        elif kind is float:
            if item != item or item in (float("inf"), float("-inf")):
                raise InvalidRequestError(f"{where}: `{item}` is not a number")
            budget -= 24
        elif kind is dict or isinstance(item, Mapping):
            if depth >= MAX_DEPTH:
                raise InvalidRequestError(f"{where}: nested deeper than {MAX_DEPTH} levels")
            for name, member in item.items():
                if type(name) is not str:
                    raise InvalidRequestError(f"{where}: member name `{_short(name)}` is not text")
                budget -= _checked_string(name, where) + 4
                stack.append((member, depth + 1))
        elif kind is list or kind is tuple:
            if depth >= MAX_DEPTH:
                raise InvalidRequestError(f"{where}: nested deeper than {MAX_DEPTH} levels")
            budget -= 2 + len(item)
            stack.extend((member, depth + 1) for member in item)
        else:
            raise InvalidRequestError(f"{where}: a value of type `{kind.__name__}` is not JSON")
        if budget < 0:
            raise InvalidRequestError(f"{where}: larger than {max_bytes} bytes")


def parse_amount(value: Any, where: str = "amount") -> Decimal:
    """`value` (text, int, float or Decimal) as an exact decimal. Raises InvalidRequestError if it is not one."""
    if type(value) is str and _PLAIN_AMOUNT.fullmatch(value):
        return Decimal(value)  # the common form, of which the rest would say the same
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise InvalidRequestError(
            f'{where}: `{_short(value)}` is not an amount; send a decimal such as "12.50"'
        )
    try:
        # In digits of other scripts and in `1_0`, the tool may read another number than we do.
        if isinstance(value, str) and (not value.isascii() or "_" in value):
            raise ValueError(value)
        amount = Decimal(repr(value) if isinstance(value, float) else value)
    except (InvalidOperation, ValueError):
        raise InvalidRequestError(
            f'{where}: `{_short(value)}` is not an amount; send a decimal such as "12.50"'
        ) from None
    if not amount.is_finite():
        raise InvalidRequestError(f"{where}: `{_short(value)}` is not a finite number")
    if amount.is_signed() and amount != 0:
        raise InvalidRequestError(f"{where}: `{_short(value)}` is negative")
    exponent = amount.as_tuple().exponent
    assert isinstance(exponent, int)
    if amount.adjusted() >= _WHOLE_DIGITS or -exponent > _FRACTION_DIGITS:
        raise InvalidRequestError(
            f"{where}: `{_short(value)}` has more than {_WHOLE_DIGITS} digits before "
            f"or {_FRACTION_DIGITS} after the point"
        )
    # copy_abs, because abs() would round to the 28 digits of the default context.
    return amount.copy_abs() if exponent <= 0 else amount.quantize(Decimal(1))


def _amount_or_none(value: Any) -> Decimal | None:
    """A metadata member called `amount` need not be money; what the caller passed as `amount` must be."""
    try:
        return parse_amount(value)
    except InvalidRequestError:
        return None


def _plain(value: Any) -> Any:
    """Mappings and tuples that `check_json` let through, as what JSON has for them."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return list(value)
    raise TypeError(f"a value of type `{type(value).__name__}` is not JSON")


def _checked_action_type(action_type: Any) -> str:
    if (
        not isinstance(action_type, str)
        or len(action_type) > _MAX_NAME
        or not _ACTION_TYPE.fullmatch(action_type)
    ):
        raise InvalidRequestError(
            f"action type `{_short(action_type)}` is not dot-notation such as `db.migrate` "
            f"(letters, digits, `_`, `-`, at most {_MAX_NAME} characters)"
        )
    return str.__str__(action_type)  # of a subclass of text, the text


def _checked_metadata(metadata: Any) -> Mapping[str, Any]:
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise InvalidRequestError(f"metadata: a value of type `{type(metadata).__name__}` is not an object")
    check_json(metadata, "metadata")
    return metadata


def _checked_data_accessed(items: Any) -> tuple[Mapping[str, Any], ...]:
    if items is None:
        return ()
    if not isinstance(items, Sequence) or isinstance(items, str | bytes):
        raise InvalidRequestError("data_accessed: must be a list of objects")
    check_json(list(items), "data_accessed")
    for position, item in enumerate(items):
        where = f"data_accessed[{position}]"
        if not isinstance(item, Mapping):
            raise InvalidRequestError(f"{where}: must be an object with `type`, `count` and `sensitivity`")
        count = item.get("count", 0)
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise InvalidRequestError(f"{where}.count: `{_short(count)}` is not a whole number of at least 0")
        if item.get("sensitivity") is not None and item["sensitivity"] not in SENSITIVITIES:
            raise InvalidRequestError(
                f"{where}.sensitivity: `{_short(item['sensitivity'])}` is not one of {', '.join(SENSITIVITIES)}"
            )
        if not isinstance(item.get("type"), str):
            raise InvalidRequestError(f"{where}.type: must be text such as `source_code`")
    return tuple(items)


def _checked_text(name: str, value: Any, metadata: Mapping[str, Any]) -> str | None:
    if value is None:
        stand_in = metadata.get(name) if name != "on_behalf_of" else None
        return stand_in if isinstance(stand_in, str) and stand_in else None
    if not isinstance(value, str) or not value or len(value) > 1024:
        raise InvalidRequestError(f"{name}: `{_short(value)}` must be text of 1 to 1024 characters")
    _checked_string(value, name)
    return str.__str__(value)


def _checked_string(text: str, where: str) -> int:
    """The length of `text` in UTF-8 bytes."""
    if text.isascii():
        if "\0" in text:
            raise InvalidRequestError(f"{where}: text holds a NUL character")
        return len(text)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidRequestError(
            f"{where}: text holds a lone surrogate, which no encoding can carry"
        ) from None
    if "\0" in text:
        raise InvalidRequestError(f"{where}: text holds a NUL character")
    return size


def _short(value: Any) -> str:
    """User input for a message: one line, bounded, encodable."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**40:
        return (
            f"an integer of {value.bit_length()} bits"  # its decimal text may be refused by the interpreter
        )
    text = str(value).encode("ascii", "backslashreplace").decode()
    text = text.replace("\n", "\\n").replace("\0", "\\0")
    return text if len(text) <= 80 else text[:77] + "..."
