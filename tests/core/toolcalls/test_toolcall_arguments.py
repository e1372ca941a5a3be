"""Arguments: read strictly, changed never, refused clearly."""

from __future__ import annotations

import json
import math
from datetime import date
from decimal import Decimal
from enum import Enum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, Field, SecretStr

from agentlattice_core.actions import MAX_DEPTH, MAX_PAYLOAD_BYTES, check_json
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.toolcalls.arguments import Arguments, canonical_arguments

_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
_NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
_LEAVES = st.none() | st.booleans() | _NUMBERS | _TEXT
_JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)
_OBJECTS = st.dictionaries(_TEXT, _JSON, max_size=5)
_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary(max_size=4)
    | st.just(object()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.integers() | st.none(), inner, max_size=3)
        | st.tuples(inner)
    ),
    max_leaves=10,
)


def _same(left: Any, right: Any) -> bool:
    """Equal, and of the same types all the way down: 1, 1.0 and True are different arguments."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_same(left[name], right[name]) for name in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return bool(left == right)


def _read(value: Any) -> tuple[Arguments | None, str]:
    """What was read, or why not."""
    try:
        return canonical_arguments(value), ""
    except InvalidRequestError as error:
        return None, error.message


@given(_OBJECTS)
def test_plain_json_comes_through_unchanged_as_a_mapping_and_as_text(value: dict[str, Any]) -> None:
    """No value is lost, rounded or retyped, whichever form the framework hands over, and both have one digest."""
    as_mapping = canonical_arguments(value)
    as_text = canonical_arguments(json.dumps(value, indent=1))
    assert _same(as_mapping.decided, value)
    assert _same(as_text.given, value)
    assert as_mapping.digest == as_text.digest == canonical_arguments(json.dumps(value).encode()).digest


@given(_OBJECTS, _OBJECTS)
def test_the_digest_tells_different_arguments_apart(left: dict[str, Any], right: dict[str, Any]) -> None:
    """Two calls have the same digest exactly if they have the same arguments, in whatever order."""
    reordered = dict(reversed(left.items()))
    assert canonical_arguments(reordered).digest == canonical_arguments(left).digest
    if canonical_arguments(left).digest == canonical_arguments(right).digest:
        assert left == right


@given(st.dictionaries(st.text() | st.integers(), _ANYTHING, max_size=4))
def test_any_mapping_is_taken_whole_or_refused(value: dict[Any, Any]) -> None:
    """Whatever a framework passes, the result is recordable JSON, or one clear error; nothing else is ever raised."""
    read, refusal = _read(value)
    if read is None:
        assert refusal.startswith("arguments: ")
        assert "\n" not in refusal
    else:
        check_json(read.decided, "arguments")
        assert json.loads(read.encoded) == read.decided


@given(st.text() | st.binary() | _OBJECTS.map(json.dumps).map(lambda text: text[:-1]))
@example('{"a": 1, "a": 2}')
@example('{"a": 1e400}')
@example("[" * 100_000)
@example('{"a": ' + "1" * 5000 + "}")
@example('{"a": 0.1000000000000000055511151231257827}')
@example("\ufeff{}")
def test_any_text_is_read_whole_or_refused(text: str | bytes) -> None:
    """Whatever a model writes is read as every strict JSON reader reads it, or refused with one clear line."""
    read, refusal = _read(text)
    if read is None:
        assert refusal.startswith("arguments: ")
        assert "\n" not in refusal
    else:
        expected = json.loads(text) if text.strip() else {}
        assert read.given == expected


@given(_OBJECTS)
def test_reading_quickly_is_reading_carefully(value: dict[str, Any]) -> None:
    """A null, which makes the reader look at every value, changes nothing about how the other values are read."""
    quick = canonical_arguments({"value": value})
    careful = canonical_arguments({"value": value, "null": None})
    assert _same(quick.decided["value"], careful.decided["value"])


_REFUSED = {
    "not a number": ({"a": float("nan")}, "not a number"),
    "infinite": ({"a": [float("-inf")]}, "not a number"),
    "lone surrogate": ({"a": "\udfff"}, "surrogate"),
    "surrogate in a name": ({"\ud800": 1}, "surrogate"),
    "nul": ({"a": "x\0"}, "NUL"),
    "name that is not text": ({1: 1}, "not text"),
    "bytes": ({"a": b"x"}, "`bytes` is not JSON"),
    "set": ({"a": {1}}, "`set` is not JSON"),
    "object": ({"a": object()}, "`object` is not JSON"),
    "large integer": ({"a": 2**53}, "too large to be exact"),
    "huge": ({"a": "x" * MAX_PAYLOAD_BYTES}, "larger than"),
    "a list": ([1], "not an object"),
    "text: a list": ("[1]", "must be a JSON object"),
    "text: null": ("null", "not null"),
    "text: NaN": ('{"a": NaN}', "`NaN` is not a number"),
    "text: twice": ('{"a": {"b": 1, "b": 1}}', "`b` appears twice"),
    "text: rounding": ('{"a": 12345678901234567.5}', "cannot be held exactly"),
    "text: overflow": ('{"a": 1e999}', "cannot be held exactly"),
    "text: long integer": ('{"a": ' + "9" * 5000 + "}", "too large to be exact"),
    "text: surrogate": ('{"a": "\\ud800"}', "surrogate"),
    "text: nul": ('{"a": "\\u0000"}', "NUL"),
    "text: cut off": ('{"a": ', "not valid JSON at line 1"),
    "text: trailing": ('{"a": 1} and more', "not valid JSON"),
    "text: huge": ('{"a": "' + "x" * MAX_PAYLOAD_BYTES + '"}', "larger than"),
    "bytes: not UTF-8": (b'{"a": "\xff"}', "not UTF-8"),
}


@pytest.mark.parametrize("name", _REFUSED)
def test_what_cannot_be_recorded_is_refused_with_the_reason(name: str) -> None:
    """Each kind of unusable argument has its own clear message."""
    value, message = _REFUSED[name]
    with pytest.raises(InvalidRequestError, match=message):
        canonical_arguments(value)


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 200, 40_000])
def test_deep_nesting_is_refused_as_text_and_as_values(levels: int) -> None:
    """Nesting beyond the limit is refused and never exhausts the interpreter's stack."""
    with pytest.raises(InvalidRequestError, match="nested deeper"):
        canonical_arguments('{"a":' + "[" * levels + "]" * levels + "}")
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    with pytest.raises(InvalidRequestError, match="nested deeper"):
        canonical_arguments({"a": value})
    while value:
        value = value[0]  # taken apart by hand: freeing it in one go would exhaust the stack instead


def test_a_value_that_holds_itself_is_refused() -> None:
    """A cycle is an error, not an endless loop."""
    value: dict[str, Any] = {}
    value["self"] = [value]
    with pytest.raises(InvalidRequestError, match="nested deeper"):
        canonical_arguments(value)


def test_no_text_means_no_arguments() -> None:
    """Models call tools without parameters with empty text."""
    assert canonical_arguments("").decided == {}
    assert canonical_arguments(" \n").decided == {}


def test_the_frameworks_own_arguments_are_left_out() -> None:
    """What the framework injects is neither decided on nor recorded, even if it could not be recorded at all."""
    read = canonical_arguments({"a": 1, "runtime": object()}, None, frozenset({"runtime"}))
    assert read.given == read.decided == {"a": 1}


class _Colour(Enum):
    RED = "red"


def test_common_values_take_the_form_json_gives_them() -> None:
    """Dates, decimals, enums and models that a framework has already built are recorded in their text form."""

    class Inner(BaseModel):
        day: date

    read = canonical_arguments(
        {
            "day": date(2026, 3, 2),
            "colour": _Colour.RED,
            "price": Decimal("1.50"),
            "model": Inner(day=date(2026, 1, 1)),
        }
    )
    assert read.decided == {
        "day": "2026-03-02",
        "colour": "red",
        "price": "1.50",
        "model": {"day": "2026-01-01"},
    }


class _Model(BaseModel):
    size: int = Field(alias="prSize")
    force: bool = False
    ref: str = Field(default="main", validation_alias=AliasChoices("ref", "branch"))


def test_a_model_shows_policy_what_the_tool_will_see() -> None:
    """Aliases, coercion and defaults are applied; the framework still gets what it gave."""
    read = canonical_arguments({"prSize": "87", "branch": "dev"}, _Model)
    assert read.decided == {"size": 87, "force": False, "ref": "dev"}
    assert read.given == {"prSize": "87", "branch": "dev"}
    assert read.ignored == ()
    assert read.digest == canonical_arguments({"prSize": 87, "ref": "dev", "force": False}, _Model).digest


def test_members_the_model_does_not_know_are_named_and_not_decided_on() -> None:
    """A member that never reaches the tool cannot influence policy, and is not lost silently either."""
    read = canonical_arguments({"prSize": 1, "category": "harmless"}, _Model)
    assert "category" not in read.decided
    assert read.ignored == ("category",)


def test_arguments_the_model_refuses_are_refused_without_showing_them() -> None:
    """The message names the member and the problem, never the value, which may be a secret."""
    with pytest.raises(InvalidRequestError) as caught:
        canonical_arguments({"prSize": "hunter2"}, _Model)
    assert "`prSize`" in caught.value.message
    assert "hunter2" not in caught.value.message


def test_a_default_that_changes_from_call_to_call_is_left_out() -> None:
    """What is not known before the call is not claimed to be; a factory that always gives the same is known."""
    counter = iter(range(1000))

    class Model(BaseModel):
        fresh: int = Field(default_factory=lambda: next(counter))
        tags: list[str] = Field(default_factory=list)

    assert canonical_arguments({}, Model).decided == {"tags": []}
    assert canonical_arguments({}, Model).digest == canonical_arguments({}, Model).digest


def test_hidden_secrets_still_count_for_the_digest() -> None:
    """A schema that prints every secret as stars does not make two secrets the same arguments."""

    class Model(BaseModel):
        password: SecretStr

    one, other = (canonical_arguments({"password": secret}, Model) for secret in ("one", "other"))
    assert one.decided == other.decided == {"password": "**********"}
    assert one.digest != other.digest


_SHORT_VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["\0", "\ud800", 2**53, -(2**53), 2**53 - 1, 1e16, math.nan, math.inf, -0.0, "x" * 1025]
    )
)
_SHORT_OBJECTS = st.dictionaries(
    st.text(max_size=3), _SHORT_VALUES | st.lists(_SHORT_VALUES, max_size=2), max_size=4
)


def _outcome(raw: Any, schema: Any = None) -> tuple[str, Any]:
    """What the arguments are read as; for what is refused, that it was."""
    try:
        read = canonical_arguments(raw, schema)
    except InvalidRequestError:
        return "refused", None
    return read.digest, (repr(sorted(read.given.items())), read.encoded, read.ignored)


class _Closed(BaseModel):
    a: int | str | float | None = None


@given(_SHORT_OBJECTS, st.sampled_from([None, _Closed]))
def test_what_is_short_and_plain_is_read_as_anything_else_is(members: dict[str, Any], schema: Any) -> None:
    """The quick way for short plain objects gives and refuses what the thorough way does."""
    assert _outcome(members, schema) == _outcome(MappingProxyType(members), schema)


_STRUCTURE = [*list('{}[]:," '), '"a"', '"b"', '"a":', '"b": ', '{"a": 1', ', "a": ', '"\\u0061":', '"é"']
_NUMBERS = ["1", "-0", "1.5", "0.1", "1e400", "NaN", "9007199254740993", "1" * 30, "0.1000000000000000055"]
_TOKENS = st.sampled_from([*_STRUCTURE, *_NUMBERS, "null", "true"])


@given(
    st.lists(_TOKENS, max_size=8).map("".join)
    | st.lists(st.tuples(st.sampled_from(['"a"', '"b"', '"c"']), _TOKENS), max_size=3).map(
        lambda pairs: "{" + ", ".join(f"{name}: {value}" for name, value in pairs) + "}"
    )
)
@example('{"a": 1, "a": 1}')
@example('{"a": "x", "b": {"a": 1}}')
@example('{"a": [], "a": "1"}')
def test_a_short_text_is_read_as_a_long_one_is(text: str) -> None:
    """The quick way for short texts misses no name that stands twice, no number that is not exact, nothing nested."""
    assert _outcome(text) == _outcome(text + " " * 5000)
