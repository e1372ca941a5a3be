"""Reading how long and how long ago: `90s`, `30m`, `12h`, `7d`, `2w`, or a date."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from agentlattice_core.errors import InvalidRequestError

__all__ = ["moment", "period"]

_PERIOD = re.compile(r"([0-9]{1,9})\s*(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def period(text: str, flag: str) -> timedelta:
    """A length of time such as `7d`. Raises InvalidRequestError."""
    found = _PERIOD.fullmatch(text.strip())
    if found is None:
        raise InvalidRequestError(f"{flag} `{text:.40}` is not a length of time such as `30m`, `12h` or `7d`")
    return timedelta(seconds=int(found[1]) * _SECONDS[found[2]])


def moment(text: str, now: datetime, flag: str) -> datetime:
    """A point in time: so long before `now`, or a date (midnight UTC) or time in ISO form.

    Raises InvalidRequestError.
    """
    if _PERIOD.fullmatch(text.strip()):
        try:
            return now - period(text, flag)
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidRequestError(
            f"{flag} `{text:.40}` is neither a length of time such as `7d` nor a date such as `2026-03-01`"
        ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
