"""Canonical JSON: the bytes that are hashed are the ones RFC 8785 prescribes, or nothing is written."""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from enum import Enum
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from agentlattice_core.audit.canonical import dumps, dumps_payload, loads
from agentlattice_core.errors import AuditError, InvalidRequestError

_TEXT = st.text(st.characters(exclude_categories=("Cs",)))
_NAMES = st.text(st.characters(max_codepoint=127))
_INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)
ENVELOPES = st.recursive(
    st.none() | st.booleans() | _INTEGERS | _TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(_NAMES, inner),
    max_leaves=30,
)


@given(ENVELOPES)
def test_envelope_bytes_are_those_of_an_independent_rfc_8785_implementation(value: Any) -> None:
    """Whatever an envelope may hold is encoded byte for byte as RFC 8785 says."""
    assert dumps(value) == rfc8785.dumps(value)


@given(ENVELOPES)
def test_encoding_what_was_read_gives_the_same_bytes(value: Any) -> None:
    """Reading loses nothing, so a canonical text can be told from any other."""
    text = dumps(value)
    assert dumps(loads(text)) == text


class _Colour(Enum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        0.0,
        float("nan"),
        {"a": [1, {"b": 2.0}]},
        2**53,
        -(2**53),
        {"n": 2**70},
        "\ud800",
        {"\udfff": 1},
        {"é": 1},
        {"a": {"\U0001f600": 1}},
        [{"ü": "x"}],
        {1: "x"},
        {None: "x"},
        b"bytes",
        {"a": b"bytes"},
        {1, 2},
        datetime(2026, 3, 2),  # noqa: DTZ001
        uuid.UUID(int=1),
        {"a": uuid.UUID(int=1)},
        _Colour.RED,
        [_Colour.RED],
        object(),
    ],
)
def test_an_envelope_that_two_readers_could_read_differently_is_refused(value: Any) -> None:
    """Fractions, large integers, names beyond ASCII and everything that is not JSON are refused, never replaced."""
    with pytest.raises(InvalidRequestError) as refusal:
        dumps(value)
    assert refusal.value.message[0].islower()
    assert "\n" not in refusal.value.message


def test_a_bottomless_or_circular_value_is_refused() -> None:
    """Nesting ends in a refusal and not in a crash."""
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    circle: dict[str, Any] = {}
    circle["self"] = circle
    for value in (deep, circle):
        with pytest.raises(InvalidRequestError):
            dumps(value)
        with pytest.raises(InvalidRequestError):
            dumps_payload(value)


@given(
    st.recursive(
        st.none() | st.booleans() | _INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
        lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner),
        max_leaves=20,
    )
)
def test_a_payload_keeps_every_json_value(value: Any) -> None:
    """Payloads may hold fractions and any names, and read back as they were."""
    assert json.loads(dumps_payload(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        {"a": float("inf")},
        [None, [-float("inf")]],
        ("x", float("nan")),
        "\udc80",
        {"x": "\ud800"},
        {1: 2},
        b"bytes",
        2**70,
        object(),
        datetime(2026, 3, 2),  # noqa: DTZ001
    ],
)
def test_a_payload_that_json_cannot_carry_is_refused(value: Any) -> None:
    """NaN does not silently become null, and no other type becomes text."""
    with pytest.raises(InvalidRequestError):
        dumps_payload(value)


@pytest.mark.parametrize("text", [b"", b"NaN", b"{", b'{"a":NaN}', b"\xff", b"[1,]", b"'a'", b"[" * 100_000])
def test_reading_what_is_not_json_raises_the_audit_error_alone(text: bytes) -> None:
    """A reader of untrusted text has one error to handle."""
    with pytest.raises(AuditError, match="it is not JSON"):
        loads(text, "it")
