"""Every error this library raises.

    AgentLatticeError                code, message, details
    ├── AgentLatticeDeniedError      ACTION_DENIED       policy or a person said no
    ├── AgentLatticeTimeoutError     APPROVAL_TIMEOUT    nobody decided in time (also named ApprovalTimeoutError)
    ├── NotRecordedError             NOT_RECORDED        the log could not be written, so nothing took effect
    ├── InvalidRequestError          INVALID_REQUEST     what the caller sent cannot be an action, an outcome, ...
    ├── EventIdConflictError         EVENT_ID_CONFLICT   one event id, two different contents
    ├── NotFoundError                NOT_FOUND           no such action, approval, policy, ...
    ├── InvalidKeyError              INVALID_API_KEY     a key that is not known, has ended, or was revoked
    ├── ForbiddenError               FORBIDDEN           this identity may not do that
    │   └── NotYourEventError        NOT_YOUR_EVENT      an outcome for another agent's action
    ├── IllegalTransitionError       ILLEGAL_TRANSITION  e.g. deciding an approval that is already decided
    │   └── DigestMismatchError      DIGEST_MISMATCH     a decision on something else than what is pending
    ├── PolicyDocumentError          INVALID_POLICY      a policy file is wrong; says file, line and field
    ├── StoreError                   STORE_ERROR         the database cannot be used; says why and what to do
    │   └── KeyServiceError          STORE_ERROR         who holds the signing key cannot be asked, or does not sign
    └── AuditError                   AUDIT_ERROR         a proof, checkpoint or export that cannot be trusted

Rules:
- A message is one lowercase line: what happened, where, what to do; user input in backticks; no internal names.
- `code` is for programs, `message` for people, `details` holds the values the message mentions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentlattice_core.results import ConditionResult

__all__ = [
    "AgentLatticeDeniedError",
    "AgentLatticeError",
    "AgentLatticeTimeoutError",
    "ApprovalTimeoutError",
    "AuditError",
    "DigestMismatchError",
    "EventIdConflictError",
    "ForbiddenError",
    "IllegalTransitionError",
    "InvalidKeyError",
    "InvalidRequestError",
    "KeyServiceError",
    "NotFoundError",
    "NotRecordedError",
    "NotYourEventError",
    "PolicyDocumentError",
    "PolicyProblem",
    "StoreError",
]


class AgentLatticeError(Exception):
    """Base of every error raised here.

    `code` is a stable upper-case word for programs, `message` one line for people, `details` the values behind it.
    """

    def __init__(self, code: str, message: str, details: Any = None) -> None:
        # What it quotes may hold half a surrogate pair, which no log, terminal or socket could take.
        message = message.encode("utf-8", "backslashreplace").decode()
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses take other arguments than `args` holds; without this, an error could not cross a process.
        return (_rebuild, (type(self), self.args, self.__dict__.copy()))


def _rebuild(
    cls: type[AgentLatticeError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> AgentLatticeError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(attributes)
    return error


class AgentLatticeDeniedError(AgentLatticeError):
    """The action may not run.

    `reason` is a denial reason (`CONDITIONS_DENIED`, `DENIED_BY_REVIEWER`, ...), `policy` the name
    of the policy that decided, `conditions` every condition that was evaluated, `approval_id` is set when a person
    denied it.
    """

    def __init__(
        self,
        approval_id: str | None = None,
        reason: str | None = None,
        policy: str | None = None,
        conditions: Sequence[ConditionResult] | None = None,
        *,
        message: str | None = None,
        audit_event_id: str | None = None,
    ) -> None:
        if message is None:
            where = f" by policy `{policy}`" if policy else ""
            why = f" ({reason})" if reason else ""
            message = f"the action was denied{where}{why}"
        super().__init__(
            "ACTION_DENIED", message, {"reason": reason, "policy": policy, "approval_id": approval_id}
        )
        self.approval_id = approval_id
        self.reason = reason
        self.policy = policy
        self.conditions = list(conditions or ())
        self.audit_event_id = audit_event_id


class AgentLatticeTimeoutError(AgentLatticeError):
    """Nobody decided on the approval `approval_id` in time; the action did not run."""

    def __init__(self, approval_id: str, *, message: str | None = None) -> None:
        super().__init__(
            "APPROVAL_TIMEOUT",
            message or f"nobody decided on approval `{approval_id}` in time, so the action did not run",
            {"approval_id": approval_id},
        )
        self.approval_id = approval_id


ApprovalTimeoutError = AgentLatticeTimeoutError


class NotRecordedError(AgentLatticeError):
    """The audit log could not be written, so the action did not take effect."""

    def __init__(self, message: str, details: Any = None) -> None:
        super().__init__("NOT_RECORDED", message, details)


class InvalidRequestError(AgentLatticeError):
    """What the caller sent cannot be recorded or evaluated: a wrong type, too large, not JSON, not a number."""

    def __init__(self, message: str, details: Any = None) -> None:
        super().__init__("INVALID_REQUEST", message, details)


class EventIdConflictError(AgentLatticeError):
    """The event id was used before by the same agent for something else."""

    def __init__(self, event_id: str, audit_event_id: str) -> None:
        super().__init__(
            "EVENT_ID_CONFLICT",
            f"event id `{event_id}` was used before with other content, as `{audit_event_id}`; use a new one",
            {"event_id": event_id, "audit_event_id": audit_event_id},
        )
        self.event_id = event_id
        self.audit_event_id = audit_event_id


class NotFoundError(AgentLatticeError):
    """There is no such thing, or it belongs to somebody else."""

    def __init__(self, message: str, details: Any = None) -> None:
        super().__init__("NOT_FOUND", message, details)


class InvalidKeyError(AgentLatticeError):
    """The key that was shown says nothing about who shows it. Which of the reasons it is, is not said."""

    def __init__(self) -> None:
        super().__init__(
            "INVALID_API_KEY",
            "this key is not known, has ended, or was revoked; ask an administrator for another",
        )


class ForbiddenError(AgentLatticeError):
    """This identity may not do that."""

    def __init__(self, message: str, details: Any = None, *, code: str = "FORBIDDEN") -> None:
        super().__init__(code, message, details)


class NotYourEventError(ForbiddenError):
    """An outcome was reported for an action of another agent."""

    def __init__(self, audit_event_id: str) -> None:
        super().__init__(
            f"action `{audit_event_id}` belongs to another agent, so its outcome cannot be reported from here",
            {"audit_event_id": audit_event_id},
            code="NOT_YOUR_EVENT",
        )


class IllegalTransitionError(AgentLatticeError):
    """The thing is not in a state from which this is possible; nothing changed."""

    def __init__(self, message: str, details: Any = None, *, code: str = "ILLEGAL_TRANSITION") -> None:
        super().__init__(code, message, details)


class DigestMismatchError(IllegalTransitionError):
    """What is pending is not what was shown to the person who decided; nothing changed."""

    def __init__(self, approval_id: str) -> None:
        super().__init__(
            f"approval `{approval_id}` is not what was shown when this decision was made; look at it again",
            {"approval_id": approval_id},
            code="DIGEST_MISMATCH",
        )


@dataclass(frozen=True, slots=True)
class PolicyProblem:
    """One thing wrong in a policy document. `line` and `column` count from 1; `field` is a path such as
    `policies[2].effect`.
    """

    file: str
    line: int
    column: int
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.field}: {self.message}"


class PolicyDocumentError(AgentLatticeError):
    """A policy document cannot be used. `problems` holds all that is wrong with it, not only the first."""

    def __init__(self, problems: Sequence[PolicyProblem]) -> None:
        self.problems = tuple(problems)
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        super().__init__(
            "INVALID_POLICY", f"{self.problems[0]}{more}", [str(problem) for problem in self.problems]
        )


class StoreError(AgentLatticeError):
    """The database cannot be used as it is."""

    def __init__(self, message: str, details: Any = None) -> None:
        super().__init__("STORE_ERROR", message, details)


class KeyServiceError(StoreError):
    """The key service that holds the signing key cannot be asked, or does not sign. Nothing is wrong with the log."""


class AuditError(AgentLatticeError):
    """A proof, checkpoint, key or export is malformed or does not fit; nothing may be concluded from it."""

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__("AUDIT_ERROR", message, details)
