"""One attempt to tell a subscription something, and what follows from how it went.

- Delivered is an answer of 2xx. Everything else failed: redirects, errors, silence, an address that may not be reached.
- A failed message is tried again after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h and 10 h, a little spread; later if the
  receiver says so with `Retry-After`, by at most a day. Then it is a dead letter.
- 410 means that nobody listens there any more: the subscription is disabled at once, and the message kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from agentlattice_core.clock import format_time
from agentlattice_core.webhooks import Attempt
from agentlattice_server.webhooks.addresses import UnreachableError
from agentlattice_server.webhooks.posting import Answer

__all__ = ["SCHEDULE", "Message", "Spread", "attempt"]

_log = logging.getLogger("agentlattice")

SCHEDULE = tuple(timedelta(seconds=seconds) for seconds in (5, 300, 1800, 7200, 18_000, 36_000, 36_000))
"""How long after each failed attempt the next one comes; after the last, none does."""

_LONGEST_WISH = timedelta(days=1)

Spread = Callable[[timedelta], timedelta]
"""Makes a wait a little longer, so that a receiver that comes back is not met by everything at once."""


@dataclass(frozen=True, slots=True)
class Message:
    """What one subscription is to be told: of which entry, for which time (from 1), and how it is sent."""

    index: int
    number: int
    send: Callable[[datetime], Answer]


def attempt(message: Message, clock: Callable[[], datetime], spread: Spread) -> tuple[Attempt, bool]:
    """Send a message; how it went, and whether the receiver says that it is gone for good."""
    begun, started = clock(), time.perf_counter()
    answer: Answer | None = None
    error: str | None = None
    try:
        answer = message.send(begun)
    except UnreachableError as failed:
        error = failed.message
    except Exception as failed:  # a defect of ours must not hold up what comes after this message
        _log.exception("a message could not be sent")
        error = f"could not be sent: {type(failed).__name__}"
    took = int((time.perf_counter() - started) * 1000)
    now = clock()
    if answer is not None and not 200 <= answer.status < 300:
        where = " (redirects are not followed)" if 300 <= answer.status < 400 else ""
        error = f"answered {answer.status}{where}"
    made = Attempt(
        message.index,
        message.number,
        format_time(begun),
        "delivered",
        took,
        status=answer.status if answer is not None else None,
        error=error,
    )
    if error is None:
        return made, False
    gone = answer is not None and answer.status == 410
    if gone:
        return replace(made, outcome="retry", due=format_time(now)), True
    if message.number > len(SCHEDULE):
        return replace(made, outcome="dead"), False
    wait = spread(SCHEDULE[message.number - 1])
    if answer is not None:
        wait = max(wait, _wished(answer.headers.get("retry-after"), now))
    return replace(made, outcome="retry", due=format_time(now + wait)), False


def _wished(text: str | None, now: datetime) -> timedelta:
    """What a `Retry-After` asks for, in either of its forms; nothing if it says nothing that can be read."""
    if text is None:
        return timedelta(0)
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(timedelta(seconds=int(text[:9])), _LONGEST_WISH)
    try:
        at = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return timedelta(0)
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return min(max(at - now, timedelta(0)), _LONGEST_WISH)
