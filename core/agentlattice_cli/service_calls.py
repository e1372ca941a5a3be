"""Calling a service from a command: where it is, with which key, and its errors as ours.

- The address is a setting (`base_url`, AL_BASE_URL). Keys are read from the environment and nowhere else: a file is
  kept, copied and committed.
- AL_API_KEY is an agent's or an operator's key, AL_SERVICE_KEY a service key.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any
from urllib.parse import quote

import httpx

from agentlattice_cli.settings import Settings, key_of
from agentlattice_core.errors import AgentLatticeError
from agentlattice_core.results import ApprovalRequest, ConditionResult, RuleResult

__all__ = ["ServiceCalls", "calling", "part"]

_PATIENCE = 60.0
_WITH_SERVICE_KEY = "set AL_SERVICE_KEY, or AL_API_KEY to an administrator's key"


def part(text: str) -> str:
    """`text` as one part of an address."""
    return quote(text, safe="")


class ServiceCalls:
    """A service, called with one key."""

    def __init__(self, base_url: str, key: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._key = key

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The answer as JSON; None if it has no body. Raises AgentLatticeError."""
        try:
            answer = httpx.request(
                method,
                f"{self._base_url}{path}",
                json=body,
                params={name: value for name, value in query.items() if value is not None} or None,
                headers={"Authorization": f"Bearer {self._key}"},
                timeout=_PATIENCE,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise AgentLatticeError(
                "NETWORK_ERROR",
                f"cannot reach `{self._base_url}` ({type(error).__name__}); see that the service runs and that "
                "AL_BASE_URL is right",
            ) from None
        if answer.is_success:
            return answer.json() if answer.content else None
        try:
            said = answer.json()
            code, message = str(said["error"]), str(said["message"])
        except (ValueError, LookupError, TypeError):
            code, message = (
                "BAD_ANSWER",
                f"`{self._base_url}` answers HTTP {answer.status_code}; is it a service of ours?",
            )
        raise AgentLatticeError(code, message)

    def approval(self, approval_id: str) -> ApprovalRequest:
        """One request, as an approver is shown it. Raises as `call` does."""
        said = self.call("GET", f"/api/v1/approvals/{part(approval_id)}")
        said["conditions_evaluated"] = [
            ConditionResult.from_dict(one) for one in said["conditions_evaluated"]
        ]
        said["rules_fired"] = [RuleResult.from_dict(one) for one in said["rules_fired"]]
        known = {one.name for one in fields(ApprovalRequest)}
        return ApprovalRequest(**{name: value for name, value in said.items() if name in known})

    def pages(self, path: str, name: str) -> list[Any]:
        """Everything that a list holds, page by page."""
        found: list[Any] = []
        cursor = None
        while True:
            page = self.call("GET", path, cursor=cursor, limit=200)
            found += page[name]
            cursor = page["next_cursor"]
            if cursor is None:
                return found


def calling(settings: Settings, *, service: bool = True) -> ServiceCalls:
    """The service that is named, with a service key, or without `service` an administrator's. Raises AgentLatticeError
    with code NOT_CONFIGURED.
    """
    base_url = settings.needed("base_url", "set AL_BASE_URL to the address that `al serve` prints")
    if service:
        return ServiceCalls(base_url, key_of("AL_SERVICE_KEY", "AL_API_KEY", how=_WITH_SERVICE_KEY))
    return ServiceCalls(base_url, key_of("AL_API_KEY", how="set AL_API_KEY to an administrator's key"))
