"""The shape of a policy document: which members there are, what each may be, and what they are read into.

- A document has `version: 1` and any of `policies`, `guardrails`, `actions` and `registries`.
- The same readers read a whole document and a stored part, so both mean the same.
- Everything that would make a policy silently not what its author meant is a problem here: unknown members,
  members its rule type does not use, bounds without a currency, approvers that are not `user:` or `group:`.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any, get_args

from agentlattice_core.policy import schema_rules
from agentlattice_core.policy.decision import Explain
from agentlattice_core.policy.fields import AGENT_FIELDS, TIME_FIELDS, field_problem
from agentlattice_core.policy.model import (
    ActionDeclaration,
    ConditionNode,
    Effect,
    FieldDeclaration,
    FieldType,
    Policy,
    Registry,
    Rule,
)
from agentlattice_core.policy.reader import Reader
from agentlattice_core.policy.schema_conditions import read_conditions
from agentlattice_core.policy.source import Node, shown

__all__ = [
    "SECTIONS",
    "pattern_problem",
    "read_action",
    "read_policy",
    "read_registries",
    "read_registry",
    "slug",
]

SECTIONS = ("version", "policies", "guardrails", "actions", "registries")

_POLICY_MEMBERS = (
    "id",
    "name",
    "action",
    "effect",
    "agents",
    "agent_tags",
    "conditions",
    "rules",
    "approval",
    "explain",
    "message",
    "description",
    "active",
)
_EFFECTS: tuple[str, ...] = get_args(Effect)
_EFFECT_SYNONYMS = {
    "approve": "require_approval",
    "approval": "require_approval",
    "require_human": "require_approval",
    "ask": "require_approval",
    "permit": "allow",
    "block": "deny",
    "reject": "deny",
    "forbid": "deny",
}
_TYPE_SYNONYMS = {
    "str": "string",
    "text": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
    "decimal": "amount",
    "money": "amount",
}
_PATTERN = re.compile(r"[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*(\.\*)?|\*")
_ACTION_TYPE = re.compile(r"[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*")
_ID = re.compile(r"[a-z0-9]+(?:[._\-]+[a-z0-9]+)*")
_NOT_IN_ID = re.compile(r"[^a-z0-9]+")


def slug(name: str) -> str:
    """The id that a policy of that name gets when it gives none; empty when the name has no Latin letter or
    digit.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return _NOT_IN_ID.sub("-", plain).strip("-")[:100].strip("-")


def pattern_problem(pattern: str) -> str | None:
    """Why `pattern` does not name actions, or None if it does."""
    if _PATTERN.fullmatch(pattern) and len(pattern) <= 200:
        return None
    hint = ""
    if pattern.endswith("*") and _PATTERN.fullmatch(pattern[:-1].rstrip(".") + ".*"):
        hint = f"; did you mean `{pattern[:-1].rstrip('.')}.*`?"
    return (
        f"`{shown(pattern)}` is not an action such as `db.migrate`, a prefix such as `deploy.*`, or `*`"
        f" (letters, digits, `_`, `-`){hint}"
    )


def read_policy(reader: Reader, node: Node, path: str, *, guardrail: bool) -> Policy | None:
    """A policy or a guardrail, or None if it is so wrong that nothing can be made of it."""
    required = ("name", "action") if guardrail else ("name", "action", "effect")
    members = reader.members(
        node, path, _POLICY_MEMBERS, required, "an object with `name`, `action` and `effect`"
    )
    if not members:
        return None
    name = reader.text(members.get("name"), f"{path}.name") or ""
    action = reader.text(members.get("action"), f"{path}.action") or ""
    problem = pattern_problem(action) if action else None
    if problem:
        reader.problem(members["action"], f"{path}.action", problem)
    effect: Effect = reader.choice(
        members.get("effect"), f"{path}.effect", _EFFECTS, "allow", _EFFECT_SYNONYMS
    )
    policy = Policy(
        id=_read_id(reader, members, name, path),
        name=name,
        action=action,
        effect=effect,
        agents=reader.texts(members.get("agents"), f"{path}.agents"),
        agent_tags=reader.texts(members.get("agent_tags"), f"{path}.agent_tags"),
        conditions=_read_conditions(reader, members.get("conditions"), f"{path}.conditions"),
        rules=_read_rules(reader, members.get("rules"), f"{path}.rules", guardrail=guardrail),
        approval=schema_rules.read_approval(reader, members.get("approval"), f"{path}.approval"),
        explain=reader.choice(members.get("explain"), f"{path}.explain", get_args(Explain), "full"),
        message=reader.text(members.get("message"), f"{path}.message", longest=1000),
        description=reader.text(members.get("description"), f"{path}.description", longest=10_000),
        active=reader.boolean(members.get("active"), f"{path}.active", True),
    )
    if guardrail and effect == "allow" and not policy.conditions and not policy.rules:
        reader.problem(
            node,
            path,
            "a guardrail that allows everything does nothing; give it an effect, conditions or rules",
        )
    return policy


def _read_id(reader: Reader, members: dict[str, Node], name: str, path: str) -> str:
    if "id" not in members:
        derived = slug(name)
        if name and not derived:
            reader.problem(
                members["name"], f"{path}.name", f"no id can be made of `{shown(name)}`; give an `id` too"
            )
        return derived
    given = reader.text(members["id"], f"{path}.id", longest=100) or ""
    if given and not _ID.fullmatch(given):
        hint = f"; did you mean `{slug(given)}`?" if slug(given) else ""
        reader.problem(
            members["id"],
            f"{path}.id",
            f"`{shown(given)}` is not lower-case letters, digits, `.`, `_` and `-`{hint}",
        )
    return given


def _read_conditions(reader: Reader, node: Node | None, path: str) -> tuple[ConditionNode, ...]:
    if node is None:
        return ()
    if isinstance(node.value, dict):
        # One condition or group, written without a list around it.
        return read_conditions(reader, [(node, path)])
    items = reader.items(node, path)
    if not items and isinstance(node.value, list):
        reader.problem(node, path, "is an empty list; leave it out where there are no conditions")
    return read_conditions(reader, items)


def _read_rules(reader: Reader, node: Node | None, path: str, *, guardrail: bool) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    priorities: set[int] = set()
    items = reader.items(node, path)
    if node is not None and not items and isinstance(node.value, list):
        reader.problem(node, path, "is an empty list; leave it out where there are no rules")
    for item, where in items:
        rule = schema_rules.read_rule(reader, item, where)
        if rule is None:
            continue
        if rule.priority in priorities:
            reader.problem(
                item,
                f"{where}.priority",
                f"priority `{rule.priority}` stands here twice; each rule needs its own",
            )
        if guardrail and rule.effect == "AUTO_APPROVE":
            reader.problem(
                item, f"{where}.effect", "`AUTO_APPROVE` cannot stand in a guardrail, which only tightens"
            )
        rules.append(rule)
        priorities.add(rule.priority)
    return tuple(rules)


def read_action(
    reader: Reader, action: str, at: Node | tuple[int, int], node: Node, path: str
) -> ActionDeclaration:
    """The declaration of the action type `action`, whose name stands at `at`."""
    if not _ACTION_TYPE.fullmatch(action) or len(action) > 200:
        reader.problem(
            at,
            path,
            f"`{shown(action)}` is not an action type such as `db.migrate`; patterns are not declared",
        )
    members = reader.members(
        node, path, ("fields", "description", "action"), ("fields",), "an object with `fields`"
    )
    fields: dict[str, FieldDeclaration] = {}
    listed = members.get("fields")
    if listed is not None and not isinstance(listed.value, dict):
        reader.wrong(listed, f"{path}.fields", "an object of field names")
    elif listed is not None:
        assert isinstance(listed.value, dict)
        for name, declared in listed.value.items():
            where = f"{path}.fields.{shown(name)}"
            problem = field_problem(name)
            if problem is None and name in (*AGENT_FIELDS, *TIME_FIELDS):
                problem = f"`{name}` is not what an action carries; leave it out"
            if problem:
                reader.problem(listed.keys[name], where, problem)
            given = reader.members(
                declared, where, ("type", "required", "trusted"), what="an object such as `{required: true}`"
            )
            kind = (
                reader.choice(given.get("type"), f"{where}.type", get_args(FieldType), "", _TYPE_SYNONYMS)
                or None
            )
            fields[name] = FieldDeclaration(
                type=kind,
                required=reader.boolean(given.get("required"), f"{where}.required", False),
                trusted=reader.boolean(given.get("trusted"), f"{where}.trusted", False),
            )
    return ActionDeclaration(
        action, fields, reader.text(members.get("description"), f"{path}.description", longest=10_000)
    )


def read_registries(reader: Reader, node: Node | None, path: str) -> dict[str, tuple[Registry, Node]]:
    """The inline registries of a document, by name."""
    if node is None:
        return {}
    if not isinstance(node.value, dict):
        reader.wrong(node, path, "an object of registries by name")
        return {}
    found: dict[str, tuple[Registry, Node]] = {}
    for name, entries in node.value.items():
        where = f"{path}.{shown(name)}"
        if not _ID.fullmatch(name):
            reader.problem(
                node.keys[name],
                where,
                f"`{shown(name)}` is not a name of lower-case letters, digits, `.`, `_` and `-`",
            )
        found[name] = (read_registry(reader, name, entries, where), entries)
    return found


def read_registry(reader: Reader, name: str, node: Node, path: str) -> Registry:
    """A registry's entries: a list of values, or an object of value to entry."""
    if isinstance(node.value, list):
        return Registry(name, {value: {} for value in reader.texts(node, path)})
    if not isinstance(node.value, dict):
        reader.wrong(node, path, "a list of values, or an object of value to entry")
        return Registry(name)
    entries: dict[str, dict[str, Any]] = {}
    for value, entry in node.value.items():
        where = f"{path}.{shown(value)}"
        if entry.value is None:
            entries[value] = {}
        elif not isinstance(entry.value, dict):
            reader.wrong(entry, where, "an object such as `{tags: [audited]}`")
        else:
            plain = {member: _plain(held) for member, held in entry.value.items() if member != "tags"}
            tags = reader.texts(entry.value.get("tags"), f"{where}.tags") if "tags" in entry.value else ()
            entries[value] = plain | ({"tags": list(tags)} if tags else {})
    return Registry(name, entries)


def _plain(node: Node) -> Any:
    # Numbers become the text they were written as: what a registry holds are amounts and identifiers, never
    # measurements.
    if isinstance(node.value, dict):
        return {name: _plain(member) for name, member in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(item) for item in node.value]
    return node.text if node.text is not None else node.value
