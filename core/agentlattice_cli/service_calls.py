"""Calling a service from a command: where it is, with which key, and its errors as ours.

- The address is a setting (`base_url`, AL_BASE_URL). Keys are read from the environment and nowhere else: a file is
  kept, copied and committed.
- AL_API_KEY is an agent's or an operator's key, AL_SERVICE_KEY a service key.
- One HTTP client makes all calls of a command: making one reads certificates, and a connection is kept.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from agentlattice_cli.settings import Settings, key_of
from agentlattice_core.errors import AgentLatticeError
from agentlattice_core.results import ApprovalRequest, ConditionResult, RuleResult

if TYPE_CHECKING:
    import httpx

__all__ = ["ServiceCalls", "calling", "part"]

_PATIENCE = 60.0
_WITH_SERVICE_KEY = "set AL_SERVICE_KEY, or AL_API_KEY to an administrator's key"


def part(text: str) -> str:
    """`text` as one part of an address."""
    return quote(text, safe="")


class ServiceCalls:
    """A service, called with one key. Its connections end with it."""

    def __init__(self, base_url: str, key: str) -> None:
        import httpx  # no command that calls nobody waits for it

        self._base_url = base_url.rstrip("/")
        self._http = httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=_PATIENCE)
        weakref.finalize(self, self._http.close)

    def call(self, method: str, path: str, body: Any = None, *, slow: bool = False, **query: Any) -> Any:
        """The answer as JSON; None if it has no body. `slow` is what reads the whole log. Raises AgentLatticeError."""
        content = self.content(method, path, body, slow=slow, **query)
        return orjson.loads(content) if content else None

    def content(self, method: str, path: str, body: Any = None, *, slow: bool = False, **query: Any) -> bytes:
        """The answer as it came. Raises as `call` does."""
        with self._answer(method, path, body, slow=slow, **query) as answer:
            return answer.read()

    def lines(self, path: str) -> Iterator[bytes]:
        """The lines of a long answer, each with its end, as they come. Raises as `call` does."""
        with self._answer("GET", path, slow=True) as answer:
            rest = b""
            for chunk in answer.iter_bytes():
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (line + b"\n" for line in whole)
            if rest:
                yield rest

    @contextmanager
    def _answer(
        self, method: str, path: str, body: Any = None, *, slow: bool, **query: Any
    ) -> Iterator[httpx.Response]:
        import httpx

        try:
            with self._http.stream(
                method,
                f"{self._base_url}{path}",
                json=body,
                params={name: value for name, value in query.items() if value is not None} or None,
                timeout=httpx.Timeout(_PATIENCE, read=None if slow else _PATIENCE),
            ) as answer:
                if not answer.is_success:
                    answer.read()
                    raise self._refusal(answer)
                yield answer
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise AgentLatticeError(
                "NETWORK_ERROR",
                f"cannot reach `{self._base_url}` ({type(error).__name__}); see that the service runs and that "
                "AL_BASE_URL is right",
            ) from None

    def _refusal(self, answer: httpx.Response) -> AgentLatticeError:
        try:
            said = answer.json()
            code, message = str(said["error"]), str(said["message"])
        except (ValueError, LookupError, TypeError):
            code, message = (
                "BAD_ANSWER",
                f"`{self._base_url}` answers HTTP {answer.status_code}; is it a service of ours?",
            )
        return AgentLatticeError(code, message)

    def approval(self, approval_id: str) -> ApprovalRequest:
        """One request, as an approver is shown it. Raises as `call` does."""
        return _request(self.call("GET", f"/api/v1/approvals/{part(approval_id)}"))

    def pending_approvals(self) -> list[ApprovalRequest]:
        """What waits for a person, the nearest deadline first. Raises as `call` does."""
        return [_request(one) for one in self.pages("/api/v1/approvals", "approvals")]

    def approval_events(
        self, cursor: str | None, wait: int = 0
    ) -> tuple[list[tuple[str, str, ApprovalRequest]], str]:
        """What happened to requests since `cursor`, when, and each as it stands, held back until there is something, at
        most `wait` seconds; and where to go on. Without a cursor nothing but that. Raises as `call` does.
        """
        said = self.call("GET", "/api/v1/approvals/events", cursor=cursor, wait=wait)
        return [(one["event"], one["at"], _request(one["approval"])) for one in said["events"]], said[
            "cursor"
        ]

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


def _request(said: dict[str, Any]) -> ApprovalRequest:
    said["conditions_evaluated"] = [ConditionResult.from_dict(one) for one in said["conditions_evaluated"]]
    said["rules_fired"] = [RuleResult.from_dict(one) for one in said["rules_fired"]]
    known = {one.name for one in fields(ApprovalRequest)}
    return ApprovalRequest(**{name: value for name, value in said.items() if name in known})
