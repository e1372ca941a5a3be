"""Amounts are exact decimals within bounds, however they are written."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlattice_core.actions import parse_amount
from agentlattice_core.errors import InvalidRequestError

_DIGITS = st.text("0123456789", max_size=22)


def _read(value: str | Decimal) -> Decimal | None:
    try:
        return parse_amount(value)
    except InvalidRequestError:
        return None


@given(st.builds("{}{}{}".format, _DIGITS, st.sampled_from(["", ".", "e1", "-", "\n"]), _DIGITS))
def test_text_is_read_as_the_decimal_that_it_spells(text: str) -> None:
    """To the last digit, and refused where that decimal is. An amount written plainly is held to the same bounds."""
    try:
        spelled = Decimal(text)
    except InvalidOperation:
        assert _read(text) is None
        return
    assert repr(_read(text)) == repr(_read(spelled))


@pytest.mark.parametrize(
    "text", ["1_0", "1_000.00", "\uff15", "\u0665", "5\u00a0", "1,0", "1 0", "0x10", "five", ""]
)
def test_text_that_a_tool_may_read_as_another_number_is_refused(text: str) -> None:
    """What is decided on is what is paid: only ASCII digits, and nothing among them but a point and an exponent."""
    assert _read(text) is None
