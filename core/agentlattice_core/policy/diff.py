"""What differs between two sets of parts: two documents, two versions, a file and what is published.

- Layout, comments and order do not differ; only what a part means does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

__all__ = ["FieldChange", "PartChange", "diff"]


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field of a part, such as `rules[2].cap`; None stands for a field that is not there."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.path}: set to {_text(self.after)}"
        if self.after is None:
            return f"{self.path}: was {_text(self.before)}, removed"
        return f"{self.path}: {_text(self.before)} -> {_text(self.after)}"


@dataclass(frozen=True, slots=True)
class PartChange:
    """A part that was added, removed or changed. `name` is its policy's name, else its id's second half."""

    kind: Literal["added", "removed", "changed"]
    part_id: str
    name: str
    fields: tuple[FieldChange, ...] = ()

    def __str__(self) -> str:
        head = f"{self.kind} {self.part_id} `{self.name}`"
        return "\n".join([head, *(f"  {field}" for field in self.fields)])


def diff(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> list[PartChange]:
    """The changes that lead from the parts `before` to the parts `after`, in the order of part ids."""
    changes: list[PartChange] = []
    for part_id in sorted(before.keys() | after.keys()):
        old, new = before.get(part_id), after.get(part_id)
        if old == new:
            continue
        old_value = None if old is None else orjson.loads(old)
        new_value = None if new is None else orjson.loads(new)
        name = (new_value or old_value or {}).get("name") or part_id.partition("/")[2]
        if old_value is None:
            changes.append(PartChange("added", part_id, name))
        elif new_value is None:
            changes.append(PartChange("removed", part_id, name))
        else:
            changes.append(PartChange("changed", part_id, name, tuple(_fields("", old_value, new_value))))
    return changes


def _fields(path: str, before: Any, after: Any) -> Iterator[FieldChange]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            yield from _fields(f"{path}.{name}" if path else name, before.get(name), after.get(name))
    elif isinstance(before, list) and isinstance(after, list) and _holds_objects(before + after):
        for position in range(max(len(before), len(after))):
            old = before[position] if position < len(before) else None
            new = after[position] if position < len(after) else None
            yield from _fields(f"{path}[{position}]", old, new)
    elif before != after or type(before) is not type(after):
        yield FieldChange(path, before, after)


def _holds_objects(items: list[Any]) -> bool:
    return all(isinstance(item, dict) for item in items)


def _text(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
