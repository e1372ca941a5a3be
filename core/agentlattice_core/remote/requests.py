"""What each method of the client sends, and what it makes of the answer. Nothing here does I/O.

- The paths and bodies are those of the service's OpenAPI document; what a hosted product's service does not know is
  left out where nobody asked for it.
- A `Request` says what may be done when no answer came: one that may be `repeated` has the same effect however often it
  arrives, because something in it names what it is about.
- Whatever goes into a path is escaped, so that an id is always one segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import orjson

from agentlattice_core.actions import Action
from agentlattice_core.delegation import Asked, Granted
from agentlattice_core.policy.document import PolicyDocument
from agentlattice_core.principals import Operator
from agentlattice_core.remote.answers import UnreadableError, member, result
from agentlattice_core.results import (
    ActionResult,
    ApprovalRequest,
    AuditResult,
    CanIResult,
    DelegationsResult,
    PoliciesResult,
    PolicyRehearsal,
    PostureComponent,
    PostureResult,
    RegistryEntry,
    ReportOutcome,
    ReportResult,
    RevokeResult,
    VerifyResult,
    WhoamiResult,
)
from agentlattice_core.waiting import Standing

__all__ = [
    "Page",
    "Request",
    "abandon",
    "apply_policies",
    "approval_state",
    "approval_status",
    "audit",
    "can_i",
    "cancel",
    "checkpoint",
    "claim",
    "decide",
    "delegate",
    "delegations",
    "end_delegation",
    "erase",
    "execute",
    "issue_key",
    "laid_out",
    "operators",
    "outcome",
    "pending",
    "policies",
    "posture",
    "refusal",
    "register_agent",
    "register_operator",
    "registry",
    "rehearse_policies",
    "remove_operator",
    "report",
    "revoke",
    "verifier_key",
    "verify",
    "whoami",
]

T = TypeVar("T")

_MOST_ON_A_PAGE = "200"
_PLAIN = "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
"""What an event id may hold as it is in a header; a percent sign and everything else is escaped."""


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """One HTTP request, and the reader of its answer.

    `records`: it leaves something in the log. `repeated`: it may be sent again when it is not known whether it arrived.
    `resulting` are statuses beside 2xx whose body is an answer. `holds`: how many seconds the service may hold it.
    """

    method: str
    path: str
    read: Callable[[Any], T]
    body: Mapping[str, Any] | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    event_id: str | None = None
    records: bool = True
    repeated: bool = True
    resulting: tuple[int, ...] = ()
    holds: float = 0.0


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of what there is, and where to go on."""

    items: list[T]
    next_cursor: str | None


def _look(path: str, read: Callable[[Any], T], **query: str | None) -> Request[T]:
    given = {name: value for name, value in query.items() if value is not None}
    return Request("GET", path, read, query=given, records=False)


def _given(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _part(text: str) -> str:
    return quote(text, safe="")


def _nothing(_body: Any) -> None:
    return None


# Acting


def execute(
    action: Action,
    event_id: str,
    nonce: str,
    *,
    mode: str,
    context: Mapping[str, Any] | None,
    timestamp: str,
    delegation: str | None = None,
) -> Request[ActionResult]:
    """`nonce`, 20 hexadecimal digits, is what the service ends the action's id with: by it a caller whose answer was
    lost knows that a replay is its own admission.
    """
    body: dict[str, Any] = {
        "timestamp": timestamp,
        "data_accessed": [],
        "metadata": {},
        **orjson.loads(action.content),
    }
    if context:
        body["context"] = dict(context)
    if action.trusted:
        body["trusted"] = sorted(action.trusted)
    if mode != "enforce":
        body["mode"] = mode
    headers = {"X-AL-Event-ID": quote(event_id, safe=_PLAIN), "X-AL-Nonce": nonce}
    if delegation is not None:
        headers["X-AL-Delegation-ID"] = delegation
    return Request(
        "POST",
        "/api/v1/actions",
        result(ActionResult),
        body,
        headers=headers,
        event_id=action.event_id,
        resulting=(409,),
    )


def claim(audit_event_id: str) -> Request[ActionResult]:
    return Request(
        "POST", f"/api/v1/actions/{_part(audit_event_id)}/claim", result(ActionResult), {}, repeated=False
    )


def abandon(audit_event_id: str) -> Request[None]:
    return Request("POST", f"/api/v1/actions/{_part(audit_event_id)}/abandon", _nothing, {})


def cancel(audit_event_id: str, reason: str | None) -> Request[None]:
    return Request(
        "POST",
        f"/api/v1/actions/{_part(audit_event_id)}/cancel",
        _nothing,
        _given(reason=reason),
        repeated=False,
    )


def outcome(audit_event_id: str, claim: str, message: str | None) -> Request[None]:
    return Request(
        "POST",
        f"/api/v1/actions/{_part(audit_event_id)}/outcome",
        _nothing,
        _given(claim=claim, message=message),
    )


def refusal(
    action_type: str, reason: str, message: str, context: Mapping[str, Any], mode: str
) -> Request[ActionResult]:
    body: dict[str, Any] = {"action_type": action_type, "reason": reason, "message": message}
    if context:
        body["context"] = dict(context)
    if mode != "enforce":
        body["mode"] = mode
    return Request("POST", "/api/v1/refusals", result(ActionResult), body)


def report(audit_event_id: str, outcome: ReportOutcome) -> Request[ReportResult]:
    return Request(
        "POST",
        "/api/v1/report",
        result(ReportResult),
        {"audit_event_id": audit_event_id, "outcome": asdict(outcome)},
    )


def approval_status(approval_id: str, holds: float = 0.0) -> Request[Standing]:
    return _standing(approval_id, holds, result(Standing))


def approval_state(approval_id: str) -> Request[str]:
    """How it stands, in the words of the embedded client."""

    def read(body: Any) -> str:
        status = result(Standing)(body).status
        return "pending" if status == "escalated" else status

    return _standing(approval_id, 0.0, read)


def _standing(approval_id: str, holds: float, read: Callable[[Any], T]) -> Request[T]:
    return Request(
        "GET",
        f"/api/approvals/{_part(approval_id)}/status",
        read,
        # Said even where it is nothing: who does not say how long they wait cannot claim, and is claimed for.
        query={"wait": str(int(holds))},
        records=False,
        holds=holds,
    )


# Looking


def can_i(action: Action) -> Request[CanIResult]:
    given = orjson.loads(action.content)
    if len(given) == 1:
        return _look("/api/v1/policies/check", result(CanIResult), action_type=action.action_type)
    return Request("POST", "/api/v1/policies/check", result(CanIResult), given, records=False)


def policies(scope: str) -> Request[PoliciesResult]:
    return _look("/api/v1/policies", result(PoliciesResult), scope=scope)


def whoami() -> Request[WhoamiResult]:
    return _look("/api/v1/whoami", result(WhoamiResult))


def registry(name: str) -> Request[list[RegistryEntry]]:
    return _look(f"/api/v1/registries/{_part(name)}", member("entries", list[RegistryEntry]))


def audit(cursor: str | None, limit: int, action_type: str | None, agent: str | None) -> Request[AuditResult]:
    return _look(
        "/api/v1/audit",
        result(AuditResult),
        cursor=cursor,
        limit=str(limit),
        action_type=action_type,
        agent=agent,
    )


def verify(checkpoint: str | None, incremental: bool) -> Request[VerifyResult]:
    return _look(
        "/api/v1/audit/verify",
        result(VerifyResult),
        checkpoint=checkpoint,
        incremental="true" if incremental else None,
    )


def posture() -> Request[PostureResult]:
    return _look("/api/v1/posture", _posture)


def _posture(body: Any) -> PostureResult:
    """Its components hold their counts beside `score` and `max`."""
    try:
        components = {
            name: {
                "score": each["score"],
                "max": each["max"],
                "extra": {key: value for key, value in each.items() if key not in ("score", "max")},
            }
            for name, each in body["components"].items()
        }
        told = {**body, "components": components}
    except (AttributeError, LookupError, TypeError):
        raise UnreadableError("`components` are not what they should be") from None
    return PostureResult(
        member("score", float)(told),
        member("components", dict[str, PostureComponent])(told),
        dict(body.get("unmeasured") or {}),
    )


def checkpoint() -> Request[str]:
    return Request("POST", "/api/v1/audit/checkpoint", member("checkpoint", str), {})


def verifier_key() -> Request[str]:
    return _look("/api/v1/audit/key", member("verifier_key", str))


def erase(indexes: Iterable[int], reason: str) -> Request[int]:
    return Request(
        "POST", "/api/v1/audit/erase", member("erased", int), {"indexes": list(indexes), "reason": reason}
    )


# Deciding


def pending(cursor: str | None) -> Request[Page[ApprovalRequest]]:
    """What waits, the nearest deadline first."""
    return _page("/api/v1/approvals", "approvals", ApprovalRequest, cursor, status="pending")


def decide(
    approval_id: str, verdict: str, reason: str | None, digest: str | None, forever: str | None
) -> Request[ApprovalRequest]:
    return Request(
        "POST",
        f"/api/v1/approvals/{_part(approval_id)}/{verdict}",
        result(ApprovalRequest),
        _given(reason=reason, digest=digest, forever=forever),
        repeated=False,
    )


def operators(cursor: str | None) -> Request[Page[Operator]]:
    found = _page("/api/v1/operators", "operators", Operator, cursor)

    def read(body: Any) -> Page[Operator]:
        page = found.read(body)
        return Page([replace(person, established="registered") for person in page.items], page.next_cursor)

    return replace(found, read=read)


def _page(path: str, name: str, kind: type[T], cursor: str | None, **query: str) -> Request[Page[T]]:
    items, following = member(name, list[kind]), member("next_cursor", str | None)  # type: ignore[valid-type]
    return _look(
        path, lambda body: Page(items(body), following(body)), limit=_MOST_ON_A_PAGE, cursor=cursor, **query
    )


def register_operator(person: Operator) -> Request[None]:
    return Request(
        "POST",
        "/api/v1/operators",
        _nothing,
        {"name": person.name, "role": person.role, "groups": sorted(person.groups)},
    )


def remove_operator(name: str) -> Request[None]:
    return Request("DELETE", f"/api/v1/operators/{_part(name)}", _nothing, repeated=False)


def apply_policies(document: PolicyDocument, name: str, prune: bool) -> Request[list[str]]:
    return Request(
        "PUT",
        "/api/v1/policies/document",
        member("changed", list[str]),
        {"yaml": laid_out(document), "name": name, "prune": prune},
    )


def rehearse_policies(document: PolicyDocument, name: str, prune: bool) -> Request[PolicyRehearsal]:
    return Request(
        "POST",
        "/api/v1/policies/rehearse",
        result(PolicyRehearsal),
        {"yaml": laid_out(document), "name": name, "prune": prune},
        records=False,
    )


def laid_out(document: PolicyDocument) -> str:
    """What the document says, as the text of one file: JSON is YAML."""
    actions = [declared.as_json() for declared in document.actions]
    registries = [registry.as_json() for registry in document.registries]
    text = {
        "version": 1,
        "policies": [policy.as_json() for policy in document.policies],
        "guardrails": [policy.as_json() for policy in document.guardrails],
        "actions": {declared.pop("action"): declared for declared in actions},
        "registries": {kept["name"]: kept["entries"] for kept in registries},
    }
    return orjson.dumps(text).decode()


# Delegating


def register_agent(
    name: str, tags: Iterable[str] | None, grants: Iterable[str] | None, owner: str | None
) -> Request[str]:
    """Its answer is the key that the agent acts with."""
    body = _given(
        name=name,
        description="",
        tags=None if tags is None else sorted(tags),
        grants=None if grants is None else sorted(grants),
        owner=owner,
    )
    return Request("POST", "/api/agents/register", member("api_key", str), body, repeated=False)


def issue_key(agent: str) -> Request[str]:
    """Its answer is one more key for an agent that is registered."""
    return Request(
        "POST", "/api/v1/keys", member("text", str), {"kind": "agent", "holder": agent}, repeated=False
    )


def delegate(asked: Asked, made: Callable[[Granted, str], T]) -> Request[T]:
    """Its answer is what `made` makes of a delegation in force and the key that its child acts with.

    Without a run, one that arrives twice leaves a child that nobody has the key of, and that ends by its time to
    live.
    """

    def read(body: Any) -> T:
        granted = Granted(
            member("delegation_id", str)(body),
            _text(body, "agent") or asked.name,
            _text(body, "agent_id"),
            tuple(body.get("capabilities") or asked.capabilities),
            _text(body, "expires_at"),
            body.get("clamped") is True,
        )
        return made(granted, member("child_api_key", str)(body))

    return Request(
        "POST",
        "/api/v1/delegate",
        read,
        _given(
            name=asked.name,
            capabilities=list(asked.capabilities),
            ttl_seconds=asked.ttl,
            run=asked.run,
            grants=list(asked.grants) or None,
        ),
    )


def end_delegation(delegation_id: str) -> Request[None]:
    """What is not there has ended."""
    return Request("DELETE", f"/api/v1/delegate/{_part(delegation_id)}", _nothing, resulting=(404,))


def delegations(role: str | None, active_only: bool, agent: str | None) -> Request[DelegationsResult]:
    return _look(
        "/api/v1/delegations",
        result(DelegationsResult),
        role=role,
        agent=agent,
        active_only="true" if active_only else "false",
    )


def revoke(delegation_id: str) -> Request[RevokeResult]:
    return Request(
        "POST",
        "/api/v1/delegations/revoke",
        result(RevokeResult),
        {"delegation_id": delegation_id},
        repeated=False,
    )


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    return value if isinstance(value, str) else ""
