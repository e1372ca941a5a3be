"""Webhooks as they are answered and printed: the same by the service and by the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentlattice_core.webhooks import Attempt, Webhook, delivery_id

__all__ = ["attempt_shown", "delivery_shown", "shown"]


def shown(hook: Webhook, size: int) -> dict[str, Any]:
    """A subscription, in a log of `size` entries: `behind` is how many, at most, it has not looked at."""
    return {**hook.shown(), "behind": max(0, size - hook.next)}


def attempt_shown(made: Attempt) -> dict[str, Any]:
    """One try to deliver, by itself."""
    return {
        "outcome": made.outcome,
        "at": made.at,
        "status": made.status,
        "milliseconds": made.milliseconds,
        "error": made.error,
    }


def delivery_shown(webhook_id: str, index: int, outcome: str, last: Mapping[str, Any]) -> dict[str, Any]:
    """The message of entry `index` to a subscription, by the last attempt at it, as it was recorded."""
    return {
        "id": delivery_id(webhook_id, index),
        "entry": index,
        "number": last["n"],
        "outcome": outcome,
        "at": last["at"],
        "status": last.get("status"),
        "milliseconds": last["ms"],
        "error": last.get("error"),
        "due": last.get("due"),
    }
