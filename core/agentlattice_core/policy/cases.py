"""Case documents: what a policy is expected to say of given actions, kept in YAML or JSON beside it.

    version: 1
    policies: [policies.yaml]
    defaults: {agent: ci}
    cases:
      - name: a small pull request runs
        action: pr.open
        metadata: {pr_size: 12}
        expect: allow

- Reading either gives a whole, checked document or raises PolicyDocumentError with every problem found.
- A case says all that a decision depends on: the action with its data, the agent, the time, and what was spent before.
  What it leaves out comes from `defaults`; a time that nobody gives is always the same Monday noon, so that a case says
  the same every day.
- An entry of `history` is an action too; what it leaves out is as in its case.
- `registries` stand in for those that are kept in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

from agentlattice_core.actions import Action
from agentlattice_core.errors import InvalidRequestError, PolicyDocumentError
from agentlattice_core.policy.decision import Outcome
from agentlattice_core.policy.model import Registry
from agentlattice_core.policy.reader import Reader
from agentlattice_core.policy.schema import read_registries
from agentlattice_core.policy.source import Node, read_file, read_json, read_yaml, shown
from agentlattice_core.principals import AgentFacts
from agentlattice_core.results import ActionOptions

__all__ = ["DEFAULT_TIME", "Case", "CaseDocument", "Earlier", "Expectation"]

DEFAULT_TIME = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
"""When a case takes place that does not say: a Monday, noon in UTC."""

_MEMBERS = ("version", "policies", "registries", "defaults", "cases")
_TEXTS = ("currency", "beneficiary", "category", "on_behalf_of")
_DATA = ("data_accessed", "metadata", "amount", *_TEXTS)
_FACTS = ("action", "agent", "time", "trusted", *_DATA)
_CASE = ("name", *_FACTS, "used", "history", "expect")
_EXPECT = ("outcome", "reason", "policy", "rules", "approvers", "missing", "message")
_OUTCOMES: tuple[str, ...] = get_args(Outcome)
_OUTCOME_SYNONYMS = {
    "allowed": "allow",
    "executed": "allow",
    "denied": "deny",
    "requested": "require_approval",
    "approval": "require_approval",
    "policy_not_found": "not_found",
}
_REASONS = ("CONDITIONS_DENIED", "POLICY_DENIED", "RULE_REJECTED", "LIMIT_EXCEEDED", "OUT_OF_SCOPE")
_MOST_TIMES = 10_000


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a case expects. None: whatever it is.

    `rules` are all that fire, each a priority or `Policy name/priority`; `approvers` all who are named; `missing` all
    fields whose absence decided; `message` is part of the message.
    """

    outcome: Outcome
    reason: str | None = None
    policy: str | None = None
    rules: tuple[str, ...] | None = None
    approvers: tuple[str, ...] | None = None
    missing: tuple[str, ...] | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Earlier:
    """An action that took place before, so many `times`, and is charged to the caps that count it."""

    action: Action
    agent: AgentFacts
    at: datetime
    times: int = 1


@dataclass(frozen=True, slots=True)
class Case:
    """One action and what is expected of it. Lines and columns count from 1.

    `used` is what caps stand at before, by the cap's name (`Policy name/priority`, or its `counter`); the name `*`
    stands for every cap.
    """

    name: str
    file: str
    line: int
    column: int
    action: Action
    agent: AgentFacts
    at: datetime
    expect: Expectation
    history: tuple[Earlier, ...] = ()
    used: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CaseDocument:
    """All that one case file says. `policies` are the paths of policy files as written, empty if it names none."""

    file: str
    cases: tuple[Case, ...]
    policies: tuple[str, ...] = ()
    registries: tuple[Registry, ...] = ()

    @classmethod
    def load(cls, path: str | Path) -> CaseDocument:
        """Read the cases at `path`. Raises PolicyDocumentError."""
        name, text = read_file(path)
        return cls.parse(text, name)

    @classmethod
    def parse(cls, text: str, name: str = "policies.test.yaml") -> CaseDocument:
        """Read the text of a case document; one whose name ends in `.json` as JSON. Raises PolicyDocumentError."""
        root, problems = (read_json if name.lower().endswith(".json") else read_yaml)(text, name)
        reader = Reader(name)
        reader.problems.extend(problems)
        document = _read_document(reader, root)
        if reader.problems:
            raise PolicyDocumentError(sorted(reader.problems, key=lambda one: (one.line, one.column)))
        return document


def _read_document(reader: Reader, root: Node) -> CaseDocument:
    members = reader.members(
        root, "", _MEMBERS, ("version", "cases"), "a document beginning with `version: 1`"
    )
    version = members.get("version")
    if version is not None and (version.value != 1 or isinstance(version.value, bool)):
        reader.wrong(version, "version", "a version this library knows, which is `1`")
    registries = read_registries(reader, members.get("registries"), "registries")
    defaults: dict[str, Node] = {}
    if "defaults" in members:
        defaults = reader.members(members["defaults"], "defaults", _FACTS)
    cases: list[Case] = []
    lines: dict[str, int] = {}
    for node, path in reader.items(members.get("cases"), "cases"):
        case = _read_case(reader, node, path, defaults)
        if case is None:
            continue
        if case.name in lines:
            reader.problem(node, f"{path}.name", f"`{shown(case.name)}` is taken by line {lines[case.name]}")
        lines.setdefault(case.name, case.line)
        cases.append(case)
    if not cases and not reader.problems:
        reader.problem(members.get("cases", root), "cases", "there is no case")
    policies = reader.texts(members.get("policies"), "policies")
    return CaseDocument(
        reader.file, tuple(cases), policies, tuple(registry for registry, _ in registries.values())
    )


def _read_case(reader: Reader, node: Node, path: str, defaults: Mapping[str, Node]) -> Case | None:
    before = len(reader.problems)
    own = reader.members(node, path, _CASE, ("name", "expect"), "a case: `{name, action, expect, ...}`")
    facts = {**defaults, **{name: member for name, member in own.items() if name in _FACTS}}
    name = reader.text(own.get("name"), f"{path}.name") or ""
    happening = _read_happening(reader, node, path, facts)
    expect = _read_expectation(reader, own.get("expect"), f"{path}.expect")
    used = _read_used(reader, own.get("used"), f"{path}.used")
    history: list[Earlier] = []
    for item, where in reader.items(own.get("history"), f"{path}.history"):
        earlier = reader.members(
            item, where, (*_FACTS, "times"), what="an earlier action such as `{amount: 20}`"
        )
        times = reader.integer(earlier.pop("times", None), f"{where}.times", 1, least=1)
        if times > _MOST_TIMES:
            reader.problem(item, f"{where}.times", f"more than {_MOST_TIMES}; write what is `used` instead")
            continue
        found = _read_happening(reader, item, where, {**facts, **earlier})
        if found is not None:
            history.append(Earlier(*found, times))
    if happening is None or expect is None or len(reader.problems) > before:
        return None
    action, agent, at = happening
    return Case(name, reader.file, node.line, node.column, action, agent, at, expect, tuple(history), used)


def _read_happening(
    reader: Reader, node: Node, path: str, facts: Mapping[str, Node]
) -> tuple[Action, AgentFacts, datetime] | None:
    """What is done, by whom and when."""
    before = len(reader.problems)
    if "action" not in facts:
        reader.problem(node, f"{path}.action", "is missing")
    action_type = reader.text(facts.get("action"), f"{path}.action") or ""
    agent = _read_agent(reader, facts.get("agent"), f"{path}.agent")
    at = _read_time(reader, facts.get("time"), f"{path}.time")
    data: dict[str, Any] = {name: _plain(facts[name]) for name in _DATA if name in facts}
    if "amount" in data:
        data["amount"] = reader.amount(facts["amount"], f"{path}.amount")
    trusted = reader.texts(facts.get("trusted"), f"{path}.trusted")
    if len(reader.problems) > before:
        return None
    try:
        return Action.build(action_type, ActionOptions(**data), trusted=trusted), agent, at
    except InvalidRequestError as error:
        member = error.message.partition(":")[0].partition("[")[0]
        reader.problem(facts.get(member, facts.get("action", node)), path, error.message)
        return None


def _read_agent(reader: Reader, node: Node | None, path: str) -> AgentFacts:
    if node is None or not isinstance(node.value, dict):
        name = reader.text(node, path) or "agent"
        return AgentFacts(name, name)
    members = reader.members(node, path, ("name", "id", "tags", "grants"), ("name",))
    name = reader.text(members.get("name"), f"{path}.name") or "agent"
    return AgentFacts(
        name,
        reader.text(members.get("id"), f"{path}.id") or name,
        frozenset(reader.texts(members.get("tags"), f"{path}.tags")),
        frozenset(reader.texts(members.get("grants"), f"{path}.grants")),
    )


def _read_time(reader: Reader, node: Node | None, path: str) -> datetime:
    text = reader.text(node, path)
    if node is None or text is None:
        return DEFAULT_TIME
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        reader.wrong(node, path, "a time such as `2026-03-02T09:30:00+01:00`; without an offset it is UTC")
        return DEFAULT_TIME


def _read_used(reader: Reader, node: Node | None, path: str) -> dict[str, Decimal]:
    if node is None:
        return {}
    if not isinstance(node.value, dict):
        amount = reader.amount(node, path)
        return {} if amount is None else {"*": amount}
    found = {name: reader.amount(member, f"{path}.{shown(name)}") for name, member in node.value.items()}
    return {name: amount for name, amount in found.items() if amount is not None}


def _read_expectation(reader: Reader, node: Node | None, path: str) -> Expectation | None:
    if node is None:
        return None
    if not isinstance(node.value, dict):
        return Expectation(_read_outcome(reader, node, path))
    members = reader.members(node, path, _EXPECT, ("outcome",))
    reason = members.get("reason")
    return Expectation(
        outcome=_read_outcome(reader, members.get("outcome"), f"{path}.outcome"),
        reason=None if reason is None else reader.choice(reason, f"{path}.reason", _REASONS, ""),
        policy=reader.text(members.get("policy"), f"{path}.policy"),
        rules=_read_rules(reader, members.get("rules"), f"{path}.rules"),
        approvers=_read_names(reader, members.get("approvers"), f"{path}.approvers"),
        missing=_read_names(reader, members.get("missing"), f"{path}.missing"),
        message=reader.text(members.get("message"), f"{path}.message", longest=10_000),
    )


def _read_outcome(reader: Reader, node: Node | None, path: str) -> Outcome:
    outcome: Outcome = reader.choice(node, path, _OUTCOMES, "not_found", _OUTCOME_SYNONYMS)
    return outcome


def _read_rules(reader: Reader, node: Node | None, path: str) -> tuple[str, ...] | None:
    """Priorities, or policy names with one. An empty list means that none fires."""
    if node is None:
        return None
    found: list[str] = []
    for item, where in reader.items(node, path):
        if type(item.value) is int:
            found.append(str(item.value))
        elif isinstance(item.value, str) and item.value.rpartition("/")[2].isdecimal():
            found.append(item.value)
        else:
            reader.wrong(item, where, "a rule's priority such as `20`, or `Policy name/20`")
    return tuple(found)


def _read_names(reader: Reader, node: Node | None, path: str) -> tuple[str, ...] | None:
    """A list of texts; an empty one means that there is none."""
    if node is None:
        return None
    return tuple(text for item, where in reader.items(node, path) if (text := reader.text(item, where)))


def _plain(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {name: _plain(member) for name, member in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(item) for item in node.value]
    return node.value
