"""What a policy document says, as values: policies, conditions, spend rules, approvals, declared actions,
registries.

- Values are frozen and already checked: whoever holds one need not validate it again.
- Amounts are exact decimals, durations seconds, zones IANA names, lists tuples.
- `as_json()` is the canonical form: members at their default are left out, amounts are text. `schema` reads
  it back to an equal value, so a stored policy means what its document said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from agentlattice_core.policy.decision import Explain

__all__ = [
    "ActionDeclaration",
    "ApprovalSpec",
    "Bounds",
    "Condition",
    "ConditionNode",
    "Effect",
    "FieldDeclaration",
    "FieldType",
    "Group",
    "Policy",
    "Registry",
    "Rule",
    "RuleEffect",
    "RuleType",
]

Effect = Literal["allow", "conditional", "require_approval", "deny"]
RuleEffect = Literal["AUTO_APPROVE", "REQUIRE_HUMAN", "REJECT"]
RuleType = Literal[
    "AMOUNT_THRESHOLD",
    "DAILY_CAP",
    "BENEFICIARY_WHITELIST",
    "TIME_WINDOW",
    "AGENT_SCOPE",
    "CATEGORY_BLOCKLIST",
]
FieldType = Literal["string", "number", "integer", "boolean", "array", "object", "amount"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison. `value` is text, a number, a boolean, or a tuple of those; `timezone` is for `time.*`
    fields.
    """

    field: str
    operator: str
    value: Any
    timezone: str | None = None

    def as_json(self) -> dict[str, Any]:
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        return _without_none(
            {"field": self.field, "operator": self.operator, "value": value, "timezone": self.timezone}
        )


@dataclass(frozen=True, slots=True)
class Group:
    """Conditions combined: `all` of them, `any` of them, or `not` (not all of them)."""

    kind: Literal["all", "any", "not"]
    members: tuple[ConditionNode, ...]

    def as_json(self) -> dict[str, Any]:
        return {self.kind: [member.as_json() for member in self.members]}


ConditionNode: TypeAlias = Condition | Group


@dataclass(frozen=True, slots=True)
class ApprovalSpec:
    """What approving takes. Times in seconds; without a `timeout`, the policy's or the default holds."""

    timeout: float | None = None
    approvers: tuple[str, ...] = ()
    quorum: int | Literal["all"] = 1
    escalate_after: float | None = None
    escalate_to: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return _without_none(
            {
                "timeout": _seconds(self.timeout),
                "approvers": list(self.approvers) or None,
                "quorum": None if self.quorum == 1 else self.quorum,
                "escalate_after": _seconds(self.escalate_after),
                "escalate_to": list(self.escalate_to) or None,
            }
        )


@dataclass(frozen=True, slots=True)
class Bounds:
    """An amount's bounds: `min` and `max` belong to the range, `above` and `below` do not."""

    min: Decimal | None = None
    above: Decimal | None = None
    max: Decimal | None = None
    below: Decimal | None = None

    def __bool__(self) -> bool:
        return not (self.min is None and self.above is None and self.max is None and self.below is None)

    def hold(self, amount: Decimal) -> bool:
        """Whether `amount` is within the bounds."""
        return (
            (self.min is None or amount >= self.min)
            and (self.above is None or amount > self.above)
            and (self.max is None or amount <= self.max)
            and (self.below is None or amount < self.below)
        )

    def as_json(self) -> dict[str, str]:
        given = {"min": self.min, "above": self.above, "max": self.max, "below": self.below}
        return {name: format(value, "f") for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Rule:
    """A spend rule. Members that its `type` does not use are at their default.

    `start` and `end` are minutes of the local day (`from` and `to` in a document), `end` up to 1440.
    """

    priority: int
    type: RuleType
    effect: RuleEffect
    agents: tuple[str, ...] = ()
    except_agents: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    bounds: Bounds = Bounds()
    currency: str | None = None
    approval: ApprovalSpec | None = None
    message: str | None = None
    cap: Decimal | None = None
    cap_from: str | None = None
    per: Literal["agent", "organisation", "beneficiary", "category"] = "agent"
    counter: str | None = None
    timezone: str | None = None
    release_on_failure: bool = False
    values: tuple[str, ...] = ()
    registry: str | None = None
    require_tag: str | None = None
    when: Literal["inside", "outside"] = "inside"
    days: tuple[str, ...] = ()
    start: int = 0
    end: int = 1440

    def as_json(self) -> dict[str, Any]:
        return _without_none(
            {
                "priority": self.priority,
                "type": self.type,
                "effect": self.effect,
                "agents": list(self.agents) or None,
                "except_agents": list(self.except_agents) or None,
                "categories": list(self.categories) or None,
                **self.bounds.as_json(),
                "currency": self.currency,
                "approval": None if self.approval is None else self.approval.as_json(),
                "message": self.message,
                "cap": None if self.cap is None else format(self.cap, "f"),
                "cap_from": self.cap_from,
                "per": None if self.per == "agent" else self.per,
                "counter": self.counter,
                "timezone": self.timezone,
                "release_on_failure": self.release_on_failure or None,
                "values": list(self.values) or None,
                "registry": self.registry,
                "require_tag": self.require_tag,
                "when": None if self.when == "inside" else self.when,
                "days": list(self.days) or None,
                "from": None if self.start == 0 else _time_of_day(self.start),
                "to": None if self.end == 1440 else _time_of_day(self.end),
            }
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy or, with the same members, a guardrail. `action` is a pattern: exact, `prefix.*` or `*`."""

    id: str
    name: str
    action: str
    effect: Effect
    agents: tuple[str, ...] = ()
    agent_tags: tuple[str, ...] = ()
    conditions: tuple[ConditionNode, ...] = ()
    rules: tuple[Rule, ...] = ()
    approval: ApprovalSpec | None = None
    explain: Explain = "full"
    message: str | None = None
    description: str | None = None
    active: bool = True

    @property
    def names_agents(self) -> bool:
        """Whether it is about some agents only."""
        return bool(self.agents or self.agent_tags)

    def as_json(self) -> dict[str, Any]:
        return _without_none(
            {
                "id": self.id,
                "name": self.name,
                "action": self.action,
                "effect": self.effect,
                "agents": list(self.agents) or None,
                "agent_tags": list(self.agent_tags) or None,
                "conditions": [node.as_json() for node in self.conditions] or None,
                "rules": [rule.as_json() for rule in self.rules] or None,
                "approval": None if self.approval is None else self.approval.as_json(),
                "explain": None if self.explain == "full" else self.explain,
                "message": self.message,
                "description": self.description,
                "active": None if self.active else False,
            }
        )


@dataclass(frozen=True, slots=True)
class FieldDeclaration:
    """What a declared action's field must be. `trusted`: its value must not come from the model."""

    type: FieldType | None = None
    required: bool = False
    trusted: bool = False

    def as_json(self) -> dict[str, Any]:
        return _without_none(
            {"type": self.type, "required": self.required or None, "trusted": self.trusted or None}
        )


@dataclass(frozen=True, slots=True)
class ActionDeclaration:
    """An action type and what its actions must carry."""

    action: str
    fields: Mapping[str, FieldDeclaration] = field(default_factory=dict)
    description: str | None = None

    def as_json(self) -> dict[str, Any]:
        return _without_none(
            {
                "action": self.action,
                "fields": {name: declared.as_json() for name, declared in self.fields.items()},
                "description": self.description,
            }
        )


@dataclass(frozen=True, slots=True)
class Registry:
    """Known beneficiaries or the like: value to entry, an entry being `{"tags": [...], ...}`. Amounts in it
    are text.
    """

    name: str
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "entries": {value: dict(entry) for value, entry in self.entries.items()}}


def _without_none(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}s"


def _time_of_day(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
