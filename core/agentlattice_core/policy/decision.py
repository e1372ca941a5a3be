"""What a decision is asked and what it answers: plain values, no I/O.

`PolicySet.decide(facts)` takes everything that may influence it in `Facts` and returns a `Decision`. The
engine reads the facts inside its transaction and carries the decision out: reserves the charges, opens the
approval, writes the entry.

- Nobody changes a value that was handed over. Those made for every action are not frozen, which would cost as
  much as deciding does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from agentlattice_core.actions import Action
from agentlattice_core.principals import AgentFacts
from agentlattice_core.results import ConditionResult, RuleResult

__all__ = [
    "ApprovalTerms",
    "ApproverSet",
    "Charge",
    "Decision",
    "DenialReason",
    "Explain",
    "Facts",
    "Outcome",
    "PolicyReference",
    "Usage",
]

Outcome = Literal["allow", "require_approval", "deny", "not_found"]
Explain = Literal["full", "fields", "none"]
DenialReason = Literal[
    "CONDITIONS_DENIED",
    "POLICY_DENIED",
    "RULE_REJECTED",
    "LIMIT_EXCEEDED",
    "OUT_OF_SCOPE",
    "POLICY_TAMPERED",
    "DENIED_BY_REVIEWER",
    "approval_timeout",
    "APPROVAL_CANCELLED",
    "CIRCUIT_BREAKER_OPEN",
    "NOT_RECORDED",
]

Usage = Callable[[str], Decimal]
"""Reads what is charged to a limit key so far (held and settled together); 0 for a key never used."""


@dataclass(slots=True)
class Facts:
    """Everything a decision may depend on. `now` is aware UTC, the store's stamp.

    `registries` maps a registry's name to its entries: value -> `{"tags": [...], "caps": {...}, ...}`.
    Registries given inline in the policy documents are part of the policy set; these are the ones kept in the
    store, and win over them.
    """

    action: Action
    agent: AgentFacts
    now: datetime
    usage: Usage
    registries: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PolicyReference:
    """The policy that decided, exactly: `digest` is the SHA-256 (hex) of its canonical JSON."""

    id: str
    name: str
    version: int
    digest: str


@dataclass(slots=True)
class Charge:
    """An amount to reserve on a limit key if the action is admitted.

    `key` is opaque text, unique per counter, subject, local date, zone and currency. `cap` is what the total
    may not exceed (None: counted only). `scope` holds the same facts readably, for the entry.
    """

    key: str
    amount: Decimal
    cap: Decimal | None
    release_on_failure: bool = False
    scope: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ApproverSet:
    """Who may approve (`user:<name>`, `group:<name>`; empty: anyone with the right) and how many of them
    (`all`: each).
    """

    approvers: tuple[str, ...] = ()
    quorum: int | Literal["all"] = 1


@dataclass(frozen=True, slots=True)
class ApprovalTerms:
    """What approving takes. Every set must be satisfied. Times in seconds from the request."""

    timeout: float = 1800.0
    sets: tuple[ApproverSet, ...] = (ApproverSet(),)
    escalate_after: float | None = None
    escalate_to: tuple[str, ...] = ()


@dataclass(slots=True)
class Decision:
    """What policy says.

    `outcome` allow, require_approval, deny or not_found. `denial_reason` is set for deny. `policy` is the
    policy that decided (for a guardrail's veto: the guardrail). `conditions` are all that were evaluated for
    it, `rules` all spend rules that fired, `charges` what to reserve when the action is admitted or waits for
    a person. `message` is one line for the agent. `explain` says how much of conditions and rules the agent
    may be shown; hiding is the caller's part, so that the log holds everything. `missing` names the fields a
    condition needed and the action did not have.
    """

    outcome: Outcome
    policy: PolicyReference | None = None
    denial_reason: DenialReason | None = None
    conditions: tuple[ConditionResult, ...] = ()
    rules: tuple[RuleResult, ...] = ()
    charges: tuple[Charge, ...] = ()
    approval: ApprovalTerms | None = None
    explain: Explain = "full"
    message: str | None = None
    guardrails: tuple[PolicyReference, ...] = ()
    missing: tuple[str, ...] = ()
