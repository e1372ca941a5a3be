"""Standard Webhooks signatures (https://www.standardwebhooks.com), by that project's own library.

- `webhook-id` is the same for every attempt at one message, and the receiver's idempotency key.
- `webhook-signature` holds one signature for each secret that is valid: while a secret rotates, two.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from datetime import datetime

from standardwebhooks import Webhook as Signer

from agentlattice_core.errors import InvalidRequestError

__all__ = ["checked_secret", "new_secret", "signed_headers"]

_PREFIX = "whsec_"


def new_secret() -> str:
    """A random secret of 256 bits."""
    return _PREFIX + base64.b64encode(os.urandom(32)).decode()


def checked_secret(secret: str) -> str:
    """A secret that somebody brings along. Raises InvalidRequestError, which does not repeat it."""
    try:
        size = len(base64.b64decode(secret.removeprefix(_PREFIX), validate=True))
    except (ValueError, AttributeError):
        size = 0
    if not secret.startswith(_PREFIX) or not 24 <= size <= 64:
        raise InvalidRequestError(f"a webhook's secret must be `{_PREFIX}` and base64 of 24 to 64 bytes")
    return secret


def signed_headers(message_id: str, at: datetime, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """The three headers of the specification."""
    text = body.decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Signer(secret).sign(message_id, at, text) for secret in secrets),
    }
