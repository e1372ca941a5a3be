"""An action's data from what was typed: `--metadata`, `--accessed`, and a JSON object from a file.

- What is typed wins over the file, member by member.
- A value that is JSON is that JSON (`42`, `true`, `["a"]`, `"42"`); anything else is the text itself.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson

from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.results import ActionOptions

__all__ = ["action_fields"]


def action_fields(
    data: str | None, metadata: list[str] | None, accessed: list[str] | None, **typed: str | None
) -> dict[str, Any]:
    """The members of an action that were given. Raises InvalidRequestError for what cannot be read."""
    fields = _from_file(data) if data is not None else {}
    if metadata:
        before = fields.get("metadata") or {}
        if not isinstance(before, dict):
            raise InvalidRequestError("--data: `metadata` must be an object")
        fields["metadata"] = {**before, **dict(_member(one) for one in metadata)}
    if accessed:
        fields["data_accessed"] = [_accessed(one) for one in accessed]
    return {**fields, **{name: value for name, value in typed.items() if value is not None}}


def _member(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise InvalidRequestError(f"--metadata `{text:.80}` is not `name=value`")
    try:
        return name, orjson.loads(value)
    except orjson.JSONDecodeError:
        return name, value


def _accessed(text: str) -> dict[str, Any]:
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise InvalidRequestError(f"--accessed `{text:.80}` is not `type:count:sensitivity`")
    item: dict[str, Any] = {"type": parts[0]}
    if len(parts) > 1 and parts[1]:
        if not parts[1].isdecimal() or len(parts[1]) > 15:
            raise InvalidRequestError(f"--accessed `{text:.80}`: `{parts[1]:.20}` is not a count")
        item["count"] = int(parts[1])
    if len(parts) > 2 and parts[2]:
        item["sensitivity"] = parts[2]
    return item


def _from_file(name: str) -> dict[str, Any]:
    content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"--data `{name:.80}` is not JSON: {error}") from None
    known = vars(ActionOptions())
    if not isinstance(found, dict) or (wrong := sorted(found.keys() - known.keys())):
        what = "is not an object" if not isinstance(found, dict) else f"has a member `{wrong[0]:.80}`"
        raise InvalidRequestError(f"--data `{name:.80}` {what}; an action's data is {', '.join(known)}")
    return found
