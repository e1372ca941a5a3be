"""Reads checked values out of a document's tree and notes every problem on the way.

- A problem never stops the reading: a neutral value stands in, and the document is refused at the end with
  all of them.
- Each problem says what was found, what is expected, and where: file, line, column and the path of the field.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from agentlattice_core.actions import parse_amount
from agentlattice_core.errors import InvalidRequestError, PolicyProblem
from agentlattice_core.policy.source import Node, shown

__all__ = ["DAYS", "Reader", "did_you_mean", "load_zone"]

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_DURATION = re.compile(r"([1-9][0-9]{0,8})(s|m|h|d)")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_SECONDS = 366 * 86400
_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])")
_CURRENCY = re.compile(r"[A-Z0-9]{3,10}")
_PLAIN_AMOUNT = re.compile(r"[0-9]+(\.[0-9]+)?")
_ZONE = re.compile(r"[A-Za-z0-9_+\-]+(/[A-Za-z0-9_+\-]+)*")


def did_you_mean(given: str, known: Iterable[str], synonyms: Mapping[str, str] | None = None) -> str:
    """`; did you mean ...?`, or nothing when nothing is near."""
    near = (synonyms or {}).get(given.lower())
    if near is None:
        close = difflib.get_close_matches(given.lower(), list(known), n=1, cutoff=0.6)
        close = close or difflib.get_close_matches(given, list(known), n=1, cutoff=0.6)
        near = close[0] if close else None
    return f"; did you mean `{near}`?" if near else ""


def load_zone(name: str) -> ZoneInfo:
    """The zone of that IANA name. Raises ValueError if there is none."""
    if not _ZONE.fullmatch(name) or len(name) > 64:
        raise ValueError(name)
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise ValueError(name) from None


class Reader:
    """Typed access to the nodes of one document."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[PolicyProblem] = []

    def problem(self, node: Node | tuple[int, int], path: str, message: str) -> None:
        """Note one."""
        line, column = (node.line, node.column) if isinstance(node, Node) else node
        self.problems.append(PolicyProblem(self.file, line, column, path or "document", message))

    def wrong(self, node: Node, path: str, expected: str) -> None:
        """Note that `node` is not what is expected."""
        if isinstance(node.value, dict):
            found = "an object"
        elif isinstance(node.value, list):
            found = "a list"
        elif node.value is None:
            found = "nothing"
        else:
            found = f"`{shown(node.text if node.text is not None else node.value)}`"
        self.problem(node, path, f"{found} is not {expected}")

    def members(
        self,
        node: Node,
        path: str,
        known: Sequence[str],
        required: Sequence[str] = (),
        what: str = "an object",
        *,
        may_be_empty: bool = False,
    ) -> dict[str, Node]:
        """The members of an object; unknown and missing ones are problems. So are members without a value, which
        would say the opposite of what they are there for: `agents:` with nothing after it would be everybody. Where
        they `may_be_empty`, they count as left out.
        """
        if not isinstance(node.value, dict):
            self.wrong(node, path, what)
            return {}
        found: dict[str, Node] = {}
        for name, member in node.value.items():
            if name not in known:
                hint = did_you_mean(name, known)
                self.problem(
                    node.keys[name], f"{path}.{shown(name)}" if path else shown(name), f"unknown field{hint}"
                )
            elif member.value is not None:
                found[name] = member
            elif not may_be_empty:
                where = f"{path}.{name}" if path else name
                self.problem(member, where, "is empty; give it a value, or leave it out")
        for name in required:
            if name not in found and (may_be_empty or name not in node.value):
                self.problem(node, f"{path}.{name}" if path else name, "is missing")
        return found

    def items(self, node: Node | None, path: str) -> list[tuple[Node, str]]:
        """The items of a list, each with its path."""
        if node is None:
            return []
        if not isinstance(node.value, list):
            self.wrong(node, path, "a list")
            return []
        return [(item, f"{path}[{position}]") for position, item in enumerate(node.value)]

    def text(self, node: Node | None, path: str, *, longest: int = 200) -> str | None:
        """Non-empty text."""
        if node is None:
            return None
        if not isinstance(node.value, str):
            self.wrong(node, path, "text; put it in quotes" if node.text is not None else "text")
            return None
        if not node.value.strip():
            self.problem(node, path, "is empty")
            return None
        if len(node.value) > longest:
            self.problem(node, path, f"longer than {longest} characters")
            return None
        return node.value

    def texts(self, node: Node | None, path: str) -> tuple[str, ...]:
        """A non-empty list of different texts."""
        if node is None:
            return ()
        found: dict[str, None] = {}
        items = self.items(node, path)
        if not items and isinstance(node.value, list):
            self.problem(node, path, "is an empty list; leave it out or name something")
        for item, where in items:
            text = self.text(item, where, longest=1024)
            if text is not None and text in found:
                self.problem(item, where, f"`{shown(text)}` stands here twice")
            elif text is not None:
                found[text] = None
        return tuple(found)

    def choice(
        self,
        node: Node | None,
        path: str,
        options: Sequence[str],
        default: str,
        synonyms: Mapping[str, str] | None = None,
    ) -> Any:
        """One of `options`, else `default` and a problem."""
        if node is None:
            return default
        if isinstance(node.value, str) and node.value in options:
            return node.value
        hint = did_you_mean(node.value, options, synonyms) if isinstance(node.value, str) else ""
        self.wrong(node, path, f"one of {', '.join(options)}{hint}")
        return default

    def boolean(self, node: Node | None, path: str, default: bool) -> bool:
        """true or false."""
        if node is None:
            return default
        if not isinstance(node.value, bool):
            self.wrong(node, path, "`true` or `false`")
            return default
        return node.value

    def integer(self, node: Node | None, path: str, default: int, *, least: int = 0) -> int:
        """A whole number."""
        if node is None:
            return default
        if isinstance(node.value, bool) or not isinstance(node.value, int) or node.value < least:
            self.wrong(node, path, f"a whole number of at least {least}")
            return default
        return node.value

    def amount(self, node: Node | None, path: str) -> Decimal | None:
        """An exact amount of money, from text or from a number exactly as it is written."""
        if node is None:
            return None
        written = node.text if node.text is not None else node.value
        if not isinstance(written, str) or not _PLAIN_AMOUNT.fullmatch(written):
            self.wrong(node, path, 'an amount such as "1500.00"')
            return None
        try:
            return parse_amount(written)
        except InvalidRequestError:
            self.wrong(node, path, "an amount of at most 20 digits before and 18 after the point")
            return None

    def duration(self, node: Node | None, path: str) -> float | None:
        """Seconds, from text such as `90s`, `30m`, `4h` or `1d`."""
        if node is None:
            return None
        found = _DURATION.fullmatch(node.value) if isinstance(node.value, str) else None
        seconds = int(found[1]) * _UNIT_SECONDS[found[2]] if found else 0
        if not 0 < seconds <= _LONGEST_SECONDS:
            self.wrong(node, path, "a duration such as `90s`, `30m`, `4h` or `1d`, at most 366 days")
            return None
        return float(seconds)

    def timezone(self, node: Node | None, path: str) -> str | None:
        """The name of a zone that exists."""
        name = self.text(node, path)
        if node is None or name is None:
            return None
        try:
            load_zone(name)
        except ValueError:
            self.problem(
                node, path, f"`{shown(name)}` is not a known timezone such as `Europe/Paris` or `UTC`"
            )
            return None
        return name

    def time_of_day(self, node: Node | None, path: str, default: int) -> int:
        """Minutes since midnight, from text such as `08:00`, up to `24:00`."""
        if node is None:
            return default
        found = _TIME_OF_DAY.fullmatch(node.value) if isinstance(node.value, str) else None
        minutes = int(found[1]) * 60 + int(found[2]) if found else 1441
        if minutes > 1440:
            self.wrong(node, path, "a time of day such as `08:00`, up to `24:00`")
            return default
        return minutes

    def currency(self, node: Node | None, path: str) -> str | None:
        """A currency's code."""
        if node is None:
            return None
        if not isinstance(node.value, str) or not _CURRENCY.fullmatch(node.value):
            self.wrong(node, path, "a currency code such as `EUR`, in capitals")
            return None
        return node.value

    def days(self, node: Node | None, path: str) -> tuple[str, ...]:
        """Weekdays in the order of the week."""
        names = self.texts(node, path)
        for name in names:
            if node is not None and name not in DAYS:
                hint = did_you_mean(name[:3], DAYS)
                self.problem(node, path, f"`{shown(name)}` is not one of {', '.join(DAYS)}{hint}")
        return tuple(day for day in DAYS if day in names)
