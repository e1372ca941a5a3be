"""What each condition operator means.

- A test takes the action's value and answers True, False, or None for "cannot be compared" (the wrong type).
  It never raises. A list that holds what cannot be compared is unknown, unless its other members decide.
- Numbers compare as exact decimals: integers and floats by their shortest decimal form, amounts as decimals.
  A boolean is not a number, and text is not a number either.
- `sensitivity` is ordered: low < medium < high < critical.
- Regular expressions are RE2: linear in the text, whatever the pattern.
- `NEGATED` names each operator's opposite, which is what a leaf under `not` reports.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal, TypeAlias

import re2

from agentlattice_core.actions import SENSITIVITIES

__all__ = [
    "NEGATED",
    "OPERATORS",
    "SYNONYMS",
    "Kind",
    "Test",
    "compile_regex",
    "compile_test",
    "is_anchored",
    "parse_networks",
]

Test: TypeAlias = Callable[[Any], "bool | None"]
Kind = Literal["plain", "amount", "sensitivity"]
"""How a field's values compare: as they are, as exact decimals, or in the order of sensitivities."""

NEGATED = {
    "eq": "neq",
    "neq": "eq",
    "lt": "gte",
    "lte": "gt",
    "gt": "lte",
    "gte": "lt",
    "in": "not_in",
    "not_in": "in",
    "contains": "not_contains",
    "not_contains": "contains",
    "starts_with": "not_starts_with",
    "ends_with": "not_ends_with",
    "matches": "not_matches",
    "exists": "exists",  # its expected value is negated instead
    "between": "not_between",
    "subset_of": "not_subset_of",
    "cidr": "not_cidr",
}
OPERATORS = tuple(NEGATED)
SYNONYMS = {
    "=": "eq",
    "==": "eq",
    "equals": "eq",
    "is": "eq",
    "!=": "neq",
    "ne": "neq",
    "not_equals": "neq",
    "<": "lt",
    "less_than": "lt",
    "<=": "lte",
    "le": "lte",
    ">": "gt",
    "greater_than": "gt",
    ">=": "gte",
    "ge": "gte",
    "one_of": "in",
    "nin": "not_in",
    "notin": "not_in",
    "includes": "contains",
    "regex": "matches",
    "match": "matches",
    "startswith": "starts_with",
    "prefix": "starts_with",
    "endswith": "ends_with",
    "suffix": "ends_with",
    "present": "exists",
    "range": "between",
    "subset": "subset_of",
    "ip_in": "cidr",
}

_RANK = {name: rank for rank, name in enumerate(SENSITIVITIES)}
_REGEX_BYTES = 1 << 20

IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def compile_regex(pattern: str) -> Any:
    """The compiled RE2 pattern. Raises ValueError saying what is wrong with it."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _REGEX_BYTES
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else "not a regular expression"
        raise ValueError(
            reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        ) from None


_REGEX_PIECE = re.compile(r"\\Q.*?(?:\\E|\Z)|\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]|.", re.DOTALL)
_REGEX_FLAGS = re.compile(r"\(\?[isU]+\)")


def is_anchored(pattern: str) -> bool:
    """Whether each of the pattern's alternatives begins at the beginning of the text and ends at its end."""
    alternatives: list[list[str]] = [[]]
    depth = 0
    flags = _REGEX_FLAGS.match(pattern)
    for piece in _REGEX_PIECE.findall(pattern, flags.end() if flags else 0):
        depth += (piece == "(") - (piece == ")")
        if piece == "|" and depth == 0:
            alternatives.append([])
        else:
            alternatives[-1].append(piece)
    return all(one and one[0] in ("^", "\\A") and one[-1] in ("$", "\\z") for one in alternatives)


def parse_networks(value: Any) -> tuple[IPNetwork, ...]:
    """The networks of a `cidr` condition. Raises ValueError naming the one that is not a network."""
    return tuple(ipaddress.ip_network(text) for text in ((value,) if isinstance(value, str) else value))


def compile_test(operator: str, expected: Any, kind: Kind) -> Test:
    """The test for `operator` against `expected`, which the schema has checked, on a field whose values are
    of `kind`.
    """
    if kind == "sensitivity":
        return _sensitivity_test(operator, expected)
    if kind == "amount":
        expected = _as_decimals(expected) if operator != "exists" else expected
    if operator in _NEGATIVE:
        return _not(compile_test(_NEGATIVE[operator], expected, "plain"))
    return _MAKERS[operator](expected)


_NEGATIVE = {"neq": "eq", "not_in": "in", "not_contains": "contains"}


def _not(test: Test) -> Test:
    def negated(actual: Any) -> bool | None:
        truth = test(actual)
        return None if truth is None else not truth

    return negated


def _as_decimals(expected: Any) -> Any:
    if isinstance(expected, tuple):
        return tuple(_as_decimals(item) for item in expected)
    return Decimal(repr(expected) if isinstance(expected, float) else expected)


def _sensitivity_test(operator: str, expected: Any) -> Test:
    if operator in ("eq", "neq", "in", "not_in", "exists"):
        return compile_test(operator, expected, "plain")
    ranks = tuple(_RANK[name] for name in expected) if isinstance(expected, tuple) else _RANK[expected]
    compare = _MAKERS[operator](ranks)
    return lambda actual: compare(_RANK.get(actual)) if type(actual) is str else None


def _is_number(value: Any) -> bool:
    kind = type(value)
    return kind is int or kind is float or kind is Decimal


def _same(expected: Any) -> Test:
    if _is_number(expected):
        return lambda actual: actual == expected if _is_number(actual) else None
    kind = type(expected)
    return lambda actual: actual == expected if type(actual) is kind else None


def _less(expected: Any) -> Test:
    return lambda actual: actual < expected if _is_number(actual) else None


def _less_or_equal(expected: Any) -> Test:
    return lambda actual: actual <= expected if _is_number(actual) else None


def _greater(expected: Any) -> Test:
    return lambda actual: actual > expected if _is_number(actual) else None


def _greater_or_equal(expected: Any) -> Test:
    return lambda actual: actual >= expected if _is_number(actual) else None


def _between(expected: Any) -> Test:
    low, high = expected
    return lambda actual: low <= actual <= high if _is_number(actual) else None


def _kind_of(value: Any) -> type | None:
    if _is_number(value):
        return int
    return type(value) if type(value) in (str, bool) else None


def _member_of(expected: Any) -> Test:
    # 1 and True are equal and hash alike in Python, so each kind has its own set.
    by_kind: dict[type | None, set[Any]] = {}
    for item in expected:
        by_kind.setdefault(_kind_of(item), set()).add(item)

    def test(actual: Any) -> bool | None:
        items = by_kind.get(_kind_of(actual))
        return None if items is None else actual in items

    return test


def _contains(expected: Any) -> Test:
    same = _same(expected)

    def test(actual: Any) -> bool | None:
        if type(actual) is str:
            return expected in actual if type(expected) is str else None
        if isinstance(actual, list | tuple | frozenset):
            found = {same(item) for item in actual}
            return True if True in found else None if None in found else False
        return None

    return test


def _subset_of(expected: Any) -> Test:
    member = _member_of(expected)

    def test(actual: Any) -> bool | None:
        if isinstance(actual, list | tuple | frozenset):
            found = {member(item) for item in actual}
            return False if False in found else None if None in found else True
        return None

    return test


def _starts_with(expected: Any) -> Test:
    return lambda actual: actual.startswith(expected) if type(actual) is str else None


def _ends_with(expected: Any) -> Test:
    return lambda actual: actual.endswith(expected) if type(actual) is str else None


def _matches(expected: Any) -> Test:
    search = compile_regex(expected).search
    return lambda actual: search(actual) is not None if type(actual) is str else None


def _in_networks(expected: Any) -> Test:
    networks = parse_networks(expected)

    def test(actual: Any) -> bool | None:
        if type(actual) is not str:
            return None
        try:
            address = ipaddress.ip_address(actual)
        except ValueError:
            return None
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in networks)

    return test


def _exists(expected: Any) -> Test:
    # Whether the field is there is asked before any test; one that is there exists.
    return lambda actual: bool(expected)


_MAKERS: dict[str, Callable[[Any], Test]] = {
    "eq": _same,
    "lt": _less,
    "lte": _less_or_equal,
    "gt": _greater,
    "gte": _greater_or_equal,
    "in": _member_of,
    "contains": _contains,
    "starts_with": _starts_with,
    "ends_with": _ends_with,
    "matches": _matches,
    "exists": _exists,
    "between": _between,
    "subset_of": _subset_of,
    "cidr": _in_networks,
}
