"""How commands show what they found: one JSON document, a table for a person, or plain lines for a pipe.

- `--json` prints one JSON document and nothing else on standard output.
- On a terminal a list is a table; in a pipe it is one line per item, its values separated by tabs, without a heading.
- Notes and errors go to standard error, so that they never mix with what was asked for.
- What agents wrote is shown as text: control characters, escape sequences and characters that reorder text are spelled
  out, or an agent could paint over what an approver reads.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, TextIO

import orjson

from agentlattice_core.results import ConditionResult, RuleResult

__all__ = ["Output", "note", "shown", "spelled_out"]


def shown(value: Any) -> str:
    """A value as text for people: text as it is, nothing for None, anything else as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return spelled_out(value)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return ", ".join(spelled_out(item) for item in value)
    return spelled_out(orjson.dumps(value, default=str).decode())


def spelled_out(text: str) -> str:
    """`text` with every character that does not print as itself, line breaks included, written as an escape."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def note(text: str) -> None:
    """Say something beside the answer, on standard error, after what was answered so far."""
    sys.stdout.flush()  # or the two would change places where both go into one file
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class Output:
    """What one command prints, on standard output if not on `stream`. `json` says that a program reads it."""

    def __init__(self, *, json: bool = False, stream: TextIO | None = None) -> None:
        self.json = json
        self._stream = stream if stream is not None else sys.stdout
        self.terminal = self._stream.isatty()

    def document(self, value: Any) -> None:
        """Print a value as JSON. Dataclasses become objects."""
        text = orjson.dumps(
            asdict(value) if is_dataclass(value) and not isinstance(value, type) else value,
            option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE,
            default=_plain,
        )
        self._stream.write(text.decode())

    def event(self, value: Any, columns: Sequence[Any]) -> None:
        """Print one line at once, of a list that goes on: `value` as JSON for programs, else `columns`."""
        if self.json:
            line = orjson.dumps(value, default=_plain).decode()
        elif self.terminal:
            line = "  ".join(_FRACTION.sub("Z", shown(one)) for one in columns if one is not None)
        else:
            line = "\t".join(shown(one) for one in columns)
        self.line(line)
        self._stream.flush()

    def line(self, text: str = "") -> None:
        """Print one line that is made of our own words and values already `shown`."""
        self._stream.write(f"{text}\n")

    def text(self, text: str) -> None:
        """Print text of several lines as it is."""
        self._stream.write(text)

    def fields(self, pairs: Iterable[tuple[str, Any]]) -> None:
        """Print names and values, one a line, leaving out what is not set."""
        present = [(name, shown(value)) for name, value in pairs if value not in (None, [], {}, ())]
        if not self.terminal:
            for name, text in present:
                self.line(f"{name}\t{text}")
            return
        width = max((len(name) for name, _ in present), default=0)
        for name, text in present:
            self.line(f"{name:<{width}}  {text}")

    def why(self, conditions: Iterable[ConditionResult], rules: Iterable[RuleResult]) -> None:
        """Print the conditions that were evaluated and the spend rules that fired, one a line."""
        for one in conditions:
            self.line(
                f"condition {'held' if one.result else 'FAILED'}: {shown(one.field)} {one.operator} "
                f"{shown(one.expected)} (is {shown(one.actual) or 'missing'})"
            )
        for rule in rules:
            message = f": {shown(rule.message)}" if rule.message else ""
            self.line(f"rule {rule.effect}: {shown(rule.policy)}, {rule.type} at {rule.priority}{message}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], empty: str) -> None:
        """Print a list; `empty` is said, on standard error, where there is nothing to list."""
        if not rows:
            note(empty)
        elif self.terminal:
            self._rich_table(columns, rows)
        else:
            for row in rows:
                self.line("\t".join(shown(value) for value in row))

    def _rich_table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for column in columns:
            # What is broken over two lines cannot be copied.
            table.add_column(column, overflow="fold", no_wrap=column in _WHOLE)
        for row in rows:
            texts = [_FRACTION.sub("Z", shown(value)) for value in row]
            table.add_row(*(Text(text, style=_STYLES.get(text, "")) for text in texts))
        # NO_COLOR asks for no colour; bold without it would be half an answer.
        plain = bool(os.environ.get("NO_COLOR"))
        Console(file=self._stream, color_system=None if plain else "auto").print(table)


_WHOLE = ("id", "digest", "time", "decide by")
_FRACTION = re.compile(r"(?<=T\d\d:\d\d:\d\d)\.\d{6}Z\Z")
_STYLES = {
    "executed": "green",
    "approved": "green",
    "denied": "red",
    "timed_out": "red",
    "policy_not_found": "red",
    "requested": "yellow",
    "pending": "yellow",
}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, frozenset | set):
        return sorted(value)
    return str(value)
