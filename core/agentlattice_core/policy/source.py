"""From the text of a policy document to a tree that remembers where everything stood.

- Untrusted input: size, depth and number of values are bounded; anchors, aliases and tags are refused;
  nothing here recurses without a bound or builds objects. Whatever is wrong is a `PolicyDocumentError`.
- Plain values are read by YAML 1.2's core rules: `no`, `22:00` and `2026-01-01` are text. A number that would
  lose digits or whose meaning depends on the reader (`010`, `1_000`, `.inf`) is refused with a hint to quote
  it.
- Numbers keep their source text, so an amount never passes through binary floating point.
- Member names are text, each at most once per object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from json.decoder import scanstring  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from agentlattice_core.errors import PolicyDocumentError, PolicyProblem

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_VALUES", "Node", "read_file", "read_json", "read_yaml", "shown"]

MAX_BYTES = 8 * 1024 * 1024
"""Largest document, in bytes of UTF-8."""
MAX_DEPTH = 32
"""Deepest nesting of lists and objects."""
MAX_VALUES = 500_000
"""Most values in one document, names of members included."""
_SAFE_INTEGER = 2**53

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?")
_DOUBTFUL_NUMBER = re.compile(
    r"[-+]?(0[0-9][0-9_]*|[0-9][0-9_]*_[0-9_]*|0[xob][0-9a-fA-F_]+|\.(inf|Inf|INF))|\.(nan|NaN|NAN)"
    r"|[-+]?[0-9]+\.|[-+]?\.[0-9]+"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_JSON_SPACE = re.compile(r"[ \t\n\r]*")

# The C parser where PyYAML was built with it (its wheels are), else the same parser in Python.
_YAML_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Value: TypeAlias = "bool | int | float | str | list[Node] | dict[str, Node] | None"


@dataclass(slots=True)
class Node:
    """A value and where it stands. `text` is a number as written; `keys` says where each member's name
    stands.
    """

    value: Value
    line: int
    column: int
    text: str | None = None
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)


def read_file(path: str | Path) -> tuple[str, str]:
    """The name and text of the file at `path`. Raises PolicyDocumentError if it cannot be read or is not
    UTF-8 text.
    """
    name = str(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        hint = "; `PolicyDocument.parse` reads a text" if "\n" in name else ""
        said = name if name.isprintable() else shown(name)
        raise _failed(said, 1, 1, f"cannot be read: {reason.lower()}{hint}") from None
    if len(data) > MAX_BYTES:
        raise _failed(name, 1, 1, f"larger than {MAX_BYTES // 1024 // 1024} MiB")
    try:
        return name, data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", "replace")
        raise _failed(name, *_position(before, len(before)), "not UTF-8; save the file as UTF-8") from None


def read_yaml(text: str, file: str) -> tuple[Node, list[PolicyProblem]]:
    """The tree of a YAML text, with the problems that do not hinder reading on. Raises PolicyDocumentError
    otherwise.
    """
    _check_text(text, file)
    try:
        return _YamlTree(file).read(yaml.parse(text, Loader=_YAML_LOADER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = str(error.problem or error.context or "not YAML").lower()
        if "\\t" in problem or "\t" in _line(text, line)[:column]:
            problem = "a tab cannot indent or separate in YAML; use spaces"
        raise _failed(file, line, column, f"not YAML: {shown(problem)}") from None
    except (yaml.YAMLError, UnicodeError, ValueError, OverflowError) as error:
        raise _failed(file, 1, 1, f"not YAML: {shown(str(error))}") from None


def read_json(text: str, file: str) -> tuple[Node, list[PolicyProblem]]:
    """The tree of a JSON text, with the problems that do not hinder reading on. Raises PolicyDocumentError
    otherwise.
    """
    _check_text(text, file)
    return _JsonTree(text, file).read()


def shown(value: object) -> str:
    """User input for a message: one line, bounded, printable."""
    text = " ".join(str(value).split())
    if not text.isprintable():
        text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return text if len(text) <= 80 else text[:77] + "..."


def _failed(file: str, line: int, column: int, message: str, path: str = "document") -> PolicyDocumentError:
    return PolicyDocumentError([PolicyProblem(file, line, column, path, message)])


def _position(text: str, index: int) -> tuple[int, int]:
    start = text.rfind("\n", 0, index) + 1
    return text.count("\n", 0, index) + 1, index - start + 1


def _line(text: str, number: int) -> str:
    lines = text.split("\n", number)
    return lines[number - 1] if number <= len(lines) else ""


def _check_text(text: str, file: str) -> None:
    if len(text) > MAX_BYTES:
        raise _failed(file, 1, 1, f"larger than {MAX_BYTES // 1024 // 1024} MiB")
    found = _CONTROL.search(text)
    if found:
        name = f"U+{ord(found.group()):04X}"
        raise _failed(file, *_position(text, found.start()), f"holds the character {name}; remove it")
    if not text.strip():
        raise _failed(file, 1, 1, "empty; a document begins with `version: 1`")


def _number(text: str) -> int | float | str:
    """The number that `text` writes, or, as text, why it cannot be taken."""
    if _INTEGER.fullmatch(text):
        if len(text) > 17 or abs(int(text)) >= _SAFE_INTEGER:
            return f"number `{shown(text)}` is too large to be exact; write it as text, in quotes"
        return int(text)
    value = float(text)
    try:
        exact = Decimal(repr(value)) == Decimal(text)
    except InvalidOperation:  # an exponent that no decimal has either
        exact = False
    if not exact:
        return f"number `{shown(text)}` has more digits than can be exact; write it as text, in quotes"
    return value


class _YamlTree:
    """Builds the tree from parser events, so that a document is abandoned as soon as it is too deep."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._problems: list[PolicyProblem] = []
        self._open: list[Node] = []
        self._names: list[tuple[str, int, int] | None] = []
        self._root: Node | None = None
        self._values = 0

    def read(self, events: Iterator[Any]) -> tuple[Node, list[PolicyProblem]]:
        for event in events:
            line, column = event.start_mark.line + 1, event.start_mark.column + 1
            if isinstance(event, yaml.DocumentStartEvent):
                if self._root is not None:
                    raise _failed(self._file, line, column, "holds a second document; keep one per file")
            elif isinstance(event, yaml.AliasEvent):
                raise _failed(
                    self._file, line, column, f"alias `*{shown(event.anchor)}`: write it out instead"
                )
            elif isinstance(event, yaml.NodeEvent):
                self._node(event, line, column)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self._open.pop()
                self._names.pop()
        if self._root is None:
            raise _failed(self._file, 1, 1, "empty; a document begins with `version: 1`")
        return self._root, self._problems

    def _node(self, event: Any, line: int, column: int) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _failed(self._file, line, column, f"holds more than {MAX_VALUES} values")
        if event.anchor is not None:
            raise _failed(
                self._file, line, column, f"anchor `&{shown(event.anchor)}`: anchors are not used here"
            )
        if event.tag is not None:
            raise _failed(self._file, line, column, f"tag `{shown(event.tag)}`: tags are not used here")
        if isinstance(event, yaml.ScalarEvent):
            if self._expects_name():
                self._name(event.value, line, column)
            else:
                self._place(self._scalar(event, line, column))
            return
        if self._expects_name():
            raise _failed(self._file, line, column, "a member's name must be text")
        if len(self._open) >= MAX_DEPTH:
            raise _failed(self._file, line, column, f"nested deeper than {MAX_DEPTH} levels")
        node = Node({} if isinstance(event, yaml.MappingStartEvent) else [], line, column)
        self._place(node)
        self._open.append(node)
        self._names.append(None)

    def _expects_name(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].value, dict) and self._names[-1] is None

    def _name(self, name: str, line: int, column: int) -> None:
        if not name or _CONTROL.search(name):
            self._problems.append(
                PolicyProblem(
                    self._file, line, column, "document", f"`{shown(name)}` cannot be a member's name"
                )
            )
        self._names[-1] = (name, line, column)

    def _place(self, node: Node) -> None:
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        if isinstance(parent.value, list):
            parent.value.append(node)
            return
        assert isinstance(parent.value, dict)
        named = self._names[-1]
        assert named is not None
        self._names[-1] = None
        _add_member(parent, named, node, self._file, self._problems)

    def _scalar(self, event: Any, line: int, column: int) -> Node:
        text: str = event.value
        problem = None
        node = Node(text, line, column)
        if _CONTROL.search(text):
            problem = "text holds a control character or a lone surrogate"
        elif not event.style:  # plain: not quoted, not a block
            if text in _NULLS:
                node.value = None
            elif text in _BOOLEANS:
                node.value = _BOOLEANS[text]
            elif _NUMBER.fullmatch(text):
                node.text = text
                number = _number(text)
                problem = number if isinstance(number, str) else None
                node.value = number
            elif _DOUBTFUL_NUMBER.fullmatch(text):
                problem = (
                    f"`{shown(text)}` is read differently by different readers; write it as text, in quotes"
                )
        if problem:
            self._problems.append(PolicyProblem(self._file, line, column, "document", problem))
        return node


def _add_member(
    parent: Node, named: tuple[str, int, int], node: Node, file: str, problems: list[PolicyProblem]
) -> None:
    name, line, column = named
    assert isinstance(parent.value, dict)
    if name in parent.value:
        first = parent.keys[name][0]
        problems.append(
            PolicyProblem(
                file, line, column, shown(name), f"`{shown(name)}` stands here twice, first in line {first}"
            )
        )
        return
    parent.value[name] = node
    parent.keys[name] = (line, column)


class _JsonTree:
    """A strict JSON reader that keeps positions and number texts, which the standard one does not."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._problems: list[PolicyProblem] = []
        # Positions are asked for in rising order, so every character is looked at once.
        self._line, self._line_start, self._counted_to = 1, 0, 0
        self._values = 0

    def read(self) -> tuple[Node, list[PolicyProblem]]:
        node, index = self._value(self._skip(0), 0)
        index = self._skip(index)
        if index != len(self._text):
            raise self._failed(index, "text after the document's end")
        return node, self._problems

    def _at(self, index: int) -> tuple[int, int]:
        lines = self._text.count("\n", self._counted_to, index)
        if lines:
            self._line += lines
            self._line_start = self._text.rfind("\n", 0, index) + 1
        self._counted_to = index
        return self._line, index - self._line_start + 1

    def _failed(self, index: int, message: str) -> PolicyDocumentError:
        return _failed(self._file, *_position(self._text, index), f"not JSON: {message}")

    def _skip(self, index: int) -> int:
        space = _JSON_SPACE.match(self._text, index)
        assert space is not None
        return space.end()

    def _value(self, index: int, depth: int) -> tuple[Node, int]:
        line, column = self._at(index)
        self._values += 1
        if self._values > MAX_VALUES:
            raise _failed(self._file, line, column, f"holds more than {MAX_VALUES} values")
        start = self._text[index : index + 1]
        if start in ("{", "["):
            if depth >= MAX_DEPTH:
                raise _failed(self._file, line, column, f"nested deeper than {MAX_DEPTH} levels")
            return self._object(index, depth) if start == "{" else self._list(index, depth)
        if start == '"':
            text, end = self._string(index)
            return Node(text, line, column), end
        for word, value in (("true", True), ("false", False), ("null", None)):
            if self._text.startswith(word, index):
                return Node(value, line, column), index + len(word)
        found = _JSON_NUMBER.match(self._text, index)
        if not found:
            raise self._failed(index, "expected a value")
        number = _number(found.group())
        if isinstance(number, str):
            self._problems.append(PolicyProblem(self._file, line, column, "document", number))
        return Node(number, line, column, text=found.group()), found.end()

    def _string(self, index: int) -> tuple[str, int]:
        try:
            text, end = scanstring(self._text, index + 1, True)
        except ValueError:
            raise self._failed(
                index, "text is not closed, or holds a bad escape or a bare control character"
            ) from None
        if _CONTROL.search(text):
            line, column = _position(self._text, index)
            self._problems.append(
                PolicyProblem(
                    self._file, line, column, "document", "text holds a control character or a lone surrogate"
                )
            )
        return text, end

    def _list(self, index: int, depth: int) -> tuple[Node, int]:
        items: list[Node] = []
        node = Node(items, *self._at(index))
        index = self._skip(index + 1)
        if self._text.startswith("]", index):
            return node, index + 1
        while True:
            item, index = self._value(index, depth + 1)
            items.append(item)
            index = self._skip(index)
            if self._text.startswith("]", index):
                return node, index + 1
            if not self._text.startswith(",", index):
                raise self._failed(index, "expected `,` or `]`")
            index = self._skip(index + 1)

    def _object(self, index: int, depth: int) -> tuple[Node, int]:
        node = Node({}, *self._at(index))
        index = self._skip(index + 1)
        if self._text.startswith("}", index):
            return node, index + 1
        while True:
            if not self._text.startswith('"', index):
                raise self._failed(index, "expected a member's name in double quotes")
            line, column = self._at(index)
            name, index = self._string(index)
            index = self._skip(index)
            if not self._text.startswith(":", index):
                raise self._failed(index, "expected `:`")
            member, index = self._value(self._skip(index + 1), depth + 1)
            _add_member(node, (name, line, column), member, self._file, self._problems)
            index = self._skip(index)
            if self._text.startswith("}", index):
                return node, index + 1
            if not self._text.startswith(",", index):
                raise self._failed(index, "expected `,` or `}`")
            index = self._skip(index + 1)
