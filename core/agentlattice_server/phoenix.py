"""Phoenix channel messages, as text, in both of the versions that clients speak.

| vsn | a message |
|---|---|
| 1.0.0 | `{"topic", "event", "payload", "ref", "join_ref"}`; what is said without a version |
| 2.0.0 | `[join_ref, ref, topic, event, payload]` |

- What is not such a message is nothing: whoever reads it gets None and decides.
- Clients of 2.0.0 send their own broadcasts as binary frames; nobody may broadcast here, so those are never read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

__all__ = ["ARRAYS", "OBJECTS", "PhoenixMessage", "read_message", "reply_to", "written"]

OBJECTS = "1.0.0"
ARRAYS = "2.0.0"


@dataclass(frozen=True, slots=True)
class PhoenixMessage:
    """One message. `ref` names it, `join_ref` the join that it belongs to."""

    topic: str
    event: str
    payload: dict[str, Any] = field(default_factory=dict)
    ref: str | None = None
    join_ref: str | None = None


def read_message(text: str, version: str) -> PhoenixMessage | None:
    """The message that `text` is, or None."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if version == ARRAYS:
        if not isinstance(value, list) or len(value) != 5:
            return None
        join_ref, ref, topic, event, payload = value
    elif isinstance(value, dict):
        topic, event, payload = value.get("topic"), value.get("event"), value.get("payload", {})
        ref, join_ref = value.get("ref"), value.get("join_ref")
    else:
        return None
    if not isinstance(topic, str) or not isinstance(event, str) or not isinstance(payload, dict):
        return None
    refs = [None if one is None else str(one) for one in (ref, join_ref) if one is None or _is_ref(one)]
    if len(refs) != 2:
        return None
    return PhoenixMessage(topic, event, payload, refs[0], refs[1])


def _is_ref(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def reply_to(message: PhoenixMessage, status: str, response: dict[str, Any]) -> PhoenixMessage:
    """The answer to a message: `status` is `ok` or `error`."""
    payload = {"status": status, "response": response}
    return PhoenixMessage(message.topic, "phx_reply", payload, message.ref, message.join_ref)


def written(message: PhoenixMessage, version: str) -> str:
    """The message as text."""
    value: Any
    if version == ARRAYS:
        value = [message.join_ref, message.ref, message.topic, message.event, message.payload]
    else:
        value = {
            "topic": message.topic,
            "event": message.event,
            "payload": message.payload,
            "ref": message.ref,
            "join_ref": message.join_ref,
        }
    return orjson.dumps(value).decode()
