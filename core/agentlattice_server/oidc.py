"""What is to be known of an identity provider, and reading it from a file.

issuer = "https://accounts.example.com"
client_id = "agentlattice"
[roles]
platform-admins = "admin"
on-call = "member"
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.principals import Role

__all__ = ["OidcSettings", "provider_in"]

_FROM = "AL_OIDC_CLIENT_SECRET"
_TEXTS = ("issuer", "client_id", "groups_claim", "name_claim")


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """An identity provider. `roles` maps groups, as the claim `groups_claim` names them, to roles; `name_claim` is what
    a person is called here. The client's secret is left out of what this prints as.
    """

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    roles: Mapping[str, Role]
    groups_claim: str = "groups"
    name_claim: str = "email"


def provider_in(path: Path) -> OidcSettings:
    """The provider that a TOML file describes. Raises InvalidRequestError."""
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"`{path}` cannot be read as TOML: {str(error).lower()}") from None
    roles = said.pop("roles", None)
    if not isinstance(roles, dict) or not roles or not set(map(str, roles.values())) <= set(get_args(Role)):
        raise InvalidRequestError(
            f"`{path}`: roles must be a table of groups with one of {', '.join(get_args(Role))} each"
        )
    if not {"issuer", "client_id"} <= set(said) <= set(_TEXTS) or not all(
        isinstance(value, str) and value for value in said.values()
    ):
        raise InvalidRequestError(
            f"`{path}` must name issuer and client_id, may name groups_claim and name_claim, and nothing else"
        )
    secret = os.environ.get(_FROM, "")
    if not secret:
        raise InvalidRequestError(f"the provider's secret is missing; set {_FROM}")
    return OidcSettings(client_secret=secret, roles=roles, **said)
