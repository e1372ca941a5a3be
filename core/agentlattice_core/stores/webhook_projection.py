"""What entries of kind `webhook` do to state. Part of `projections.fold`.

| state | key | holds |
|---|---|---|
| `webhook` | id | name, origin, template, filters, whether it is active, which entry holds its sealed secrets |
| `webhook_name` | name | the id of the subscription of that name |
| `webhook_cursor` | id | the first entry not yet looked at, what waits to be tried again, who delivers until when |
| `webhook_dead` | id / index | a message that was given up, with its last attempt |
| `webhook_recent` | id | the latest attempts |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from agentlattice_core.stores.base import Document

__all__ = ["fold_webhook"]

_RECENT = 50
_CHANGEABLE = ("target", "events", "agent_id", "people", "active", "why")


class _Writes(Protocol):
    def get(self, kind: str, key: str) -> Document | None: ...

    def known(self, kind: str, key: str) -> Document: ...

    def put(self, kind: str, key: str, document: Document | None) -> None: ...

    def change(self, kind: str, key: str, **changes: Any) -> Document: ...


def fold_webhook(
    writes: _Writes, index: int, at: str, who: Mapping[str, Any], data: Mapping[str, Any], id: str | None
) -> None:
    """What the entry changes."""
    event, webhook = data["event"], data["webhook"]
    if event == "added":
        _added(writes, index, at, webhook, data)
    elif event == "changed":
        _changed(writes, index, at, webhook, data)
    elif event == "rotated":
        writes.change("webhook", webhook, sealed=index, rotating_until=data["until"], changed_at=at)
    elif event == "disabled":
        writes.change("webhook", webhook, active=False, why=data["why"], changed_at=at)
    elif event == "removed":
        writes.put("webhook_name", writes.known("webhook", webhook)["name"], None)
        for kind in ("webhook", "webhook_cursor", "webhook_recent"):
            writes.put(kind, webhook, None)
        for dead in data["dead"]:
            writes.put("webhook_dead", _key(webhook, dead), None)
    elif event == "leased":
        writes.change("webhook_cursor", webhook, by=data["by"], until=data["until"])
    elif event == "delivered":
        _delivered(writes, webhook, data)
    elif event == "replayed":
        retries = dict(writes.known("webhook_cursor", webhook)["retries"])
        for entry in data["entries"]:
            retries[f"{entry:012x}"] = {"n": 0, "due": at}
            writes.put("webhook_dead", _key(webhook, entry), None)
        writes.change("webhook_cursor", webhook, retries=retries)
    # A test (`tested`) is there to be read, and changes no state.


def _added(writes: _Writes, index: int, at: str, webhook: str, data: Mapping[str, Any]) -> None:
    document: Document = {
        "name": data["name"],
        "target": data["target"],
        "template": data["template"],
        "events": data["events"],
        "agent_id": data["agent_id"],
        "people": data["people"],
        "active": True,
        "why": None,
        "sealed": index,
        "rotating_until": None,
        "entry": index,
        "created_at": at,
        "changed_at": at,
    }
    writes.put("webhook", webhook, document)
    writes.put("webhook_name", data["name"], {"webhook": webhook})
    cursor: Document = {"next": index + 1, "by": None, "until": "", "failed": 0, "retries": {}}
    writes.put("webhook_cursor", webhook, cursor)


def _changed(writes: _Writes, index: int, at: str, webhook: str, data: Mapping[str, Any]) -> None:
    changes: dict[str, Any] = {name: data[name] for name in _CHANGEABLE if name in data}
    if "target" in data:
        changes["sealed"] = index
    if "name" in data:
        writes.put("webhook_name", writes.known("webhook", webhook)["name"], None)
        writes.put("webhook_name", data["name"], {"webhook": webhook})
        changes["name"] = data["name"]
    if data.get("active"):
        writes.change("webhook_cursor", webhook, failed=0)
    writes.change("webhook", webhook, changed_at=at, **changes)


def _delivered(writes: _Writes, webhook: str, data: Mapping[str, Any]) -> None:
    cursor = writes.known("webhook_cursor", webhook)
    retries, failed = dict(cursor["retries"]), cursor["failed"]
    for attempt in data["attempts"]:
        name = f"{attempt['i']:012x}"
        retries.pop(name, None)
        last = {member: value for member, value in attempt.items() if member not in ("i", "outcome")}
        if attempt["outcome"] == "delivered":
            failed = 0
        elif attempt["outcome"] == "retry":
            retries[name] = last
        else:
            failed += 1
            writes.put("webhook_dead", _key(webhook, attempt["i"]), last)
    writes.put(
        "webhook_cursor",
        webhook,
        {
            "next": data["next"],
            "by": data["by"],
            "until": data["until"],
            "failed": failed,
            "retries": retries,
        },
    )
    if data["attempts"]:
        recent = (writes.get("webhook_recent", webhook) or {"attempts": []})["attempts"]
        writes.put("webhook_recent", webhook, {"attempts": [*recent, *data["attempts"]][-_RECENT:]})


def _key(webhook: str, index: int) -> str:
    return f"{webhook}/{index:012x}"
