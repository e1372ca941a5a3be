"""Logging in: one-time links, and the sessions that they and an identity provider begin.

- A session is an operator's key that ends by itself (`keys.issue` with `lasts`): whatever holds for keys holds for it,
  and revoking it ends it on every node. A browser keeps its text in a cookie.
- A link is good for one login within minutes. Its text is shown once; the log holds the SHA-256.
- Who an identity provider vouches for is registered with the role and groups that it says, at each login anew.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from agentlattice_core import keys
from agentlattice_core.agents import check_name
from agentlattice_core.batch import Batch
from agentlattice_core.clock import format_time
from agentlattice_core.errors import ForbiddenError, InvalidKeyError, NotFoundError
from agentlattice_core.keys import IssuedKey
from agentlattice_core.principals import Operator

__all__ = ["LINK_LIFE", "SESSION_LIFE", "begin", "offer", "redeem"]

LINK_LIFE = timedelta(minutes=15)
"""How long a one-time link is good for."""
SESSION_LIFE = timedelta(hours=12)
"""How long a session lasts."""

_OFFERING = {"system": "login"}


def offer(batch: Batch, operator: str) -> str:
    """The text of a link by which that person logs in once. Raises NotFoundError.

    Whoever may call this may write the database, and could do as much without.
    """
    if batch.get("operator", operator) is None:
        raise NotFoundError(f"there is no operator `{operator:.80}`; register them first")
    text = secrets.token_urlsafe(32)
    data = {
        "event": "offered",
        "digest": _digest(text),
        "operator": operator,
        "expires_at": format_time(batch.now + LINK_LIFE),
    }
    batch.record("login", _OFFERING, data)
    return text


def redeem(batch: Batch, text: str) -> IssuedKey:
    """Begin a session by a link. Raises InvalidKeyError for one that is not known, was used, or is too old."""
    digest = _digest(text)
    link = batch.get("login", digest)
    if link is None or link["used_at"] is not None or batch.at >= link["expires_at"]:
        raise InvalidKeyError
    by = {"operator": link["operator"], "established": "link"}
    issued = keys.issue(batch, "operator", link["operator"], by, lasts=SESSION_LIFE)
    batch.record("login", by, {"event": "redeemed", "digest": digest, "key": issued.key.id})
    return issued


def begin(batch: Batch, person: Operator, issuer: str, subject: str) -> IssuedKey:
    """Begin a session of a person whom the identity provider `issuer` vouches for, with that role and those groups.

    Raises ForbiddenError for an agent's name, and for a name that another identity, or an administrator, registered.
    """
    check_name(person.name, "operator")
    if batch.get("agent", person.name) is not None:
        raise ForbiddenError(f"`{person.name}` is an agent, and no agent is a person who decides")
    identity = hashlib.sha256(f"{issuer}\n{subject}".encode()).hexdigest()
    known = batch.get("operator", person.name)
    if known is not None and known.get("identity") != identity:
        raise ForbiddenError(
            f"`{person.name}` is registered here as somebody else; an administrator has to remove them first"
        )
    by = {"operator": person.name, "established": "oidc"}
    said = {"role": person.role, "groups": sorted(person.groups)}
    if known is None or {name: known[name] for name in said} != said:
        event = "registered" if known is None else "changed"
        data = {"event": event, "operator": person.name, **said, "identity": identity}
        batch.record("operator", by, data)
    return keys.issue(batch, "operator", person.name, by, lasts=SESSION_LIFE)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
