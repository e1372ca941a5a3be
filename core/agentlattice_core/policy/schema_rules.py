"""How spend rules and approvals are written.

- A rule may use the members that every rule has and those of its own type; any other is a problem, since a
  member that is ignored is a limit that is not there.
- Amount bounds and caps name their currency. A cap is given as an amount or as `cap_from` a registry.
- Approvers are `user:<name>` or `group:<name>`; a `webhook:<name>` or a `mailto:<address>` can be told of an
  escalation but cannot approve.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Literal, get_args

from agentlattice_core.policy.model import ApprovalSpec, Bounds, Rule, RuleEffect, RuleType
from agentlattice_core.policy.reader import Reader
from agentlattice_core.policy.source import Node, shown

__all__ = ["read_approval", "read_rule"]

_TYPES: tuple[str, ...] = get_args(RuleType)
_EFFECTS: tuple[str, ...] = get_args(RuleEffect)
_EFFECT_SYNONYMS = {
    "require human": "REQUIRE_HUMAN",
    "require_approval": "REQUIRE_HUMAN",
    "approve": "AUTO_APPROVE",
    "auto approve": "AUTO_APPROVE",
    "allow": "AUTO_APPROVE",
    "deny": "REJECT",
    "block": "REJECT",
}
_BOUNDS = ("min", "above", "max", "below")
_COMMON = (
    "priority",
    "type",
    "effect",
    "agents",
    "except_agents",
    "categories",
    *_BOUNDS,
    "currency",
    "approval",
    "message",
)
_OWN: dict[str, tuple[str, ...]] = {
    "AMOUNT_THRESHOLD": (),
    "DAILY_CAP": ("cap", "cap_from", "registry", "per", "counter", "timezone", "release_on_failure"),
    "BENEFICIARY_WHITELIST": ("values", "registry", "require_tag"),
    "TIME_WINDOW": ("when", "days", "from", "to", "timezone"),
    "AGENT_SCOPE": (),
    "CATEGORY_BLOCKLIST": ("registry",),
}
_PER = ("agent", "organisation", "beneficiary", "category")
_PER_SYNONYMS = {"organization": "organisation", "org": "organisation"}
_APPROVAL_MEMBERS = ("timeout", "approvers", "quorum", "escalate_after", "escalate_to")
_PARTY = re.compile(r"(user|group|webhook):[^\s:][^\s]*|mailto:[^\s@,;:<>\"()]+@[A-Za-z0-9.\-]+")
_COUNTER = re.compile(r"[A-Za-z0-9_.\-]{1,100}")
_CAP_FROM = re.compile(r"[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*")


def read_rule(reader: Reader, node: Node, path: str) -> Rule | None:
    """A spend rule, or None if not even its type can be told."""
    if not isinstance(node.value, dict):
        reader.wrong(node, path, "a rule with `priority`, `type` and `effect`")
        return None
    given_type = node.value.get("type")
    if given_type is None:
        reader.problem(node, f"{path}.type", "is missing")
        return None
    kind: Any = reader.choice(given_type, f"{path}.type", _TYPES, "")
    if not kind:
        return None
    known = (*_COMMON, *_OWN[kind])
    for name in node.value:
        owners = [owner for owner, own in _OWN.items() if name in own]
        if name not in known and owners:
            reader.problem(
                node.keys[name],
                f"{path}.{name}",
                f"a {kind} rule has no `{name}`; it belongs to {', '.join(owners)}",
            )
    every = (*known, *(name for own in _OWN.values() for name in own))
    members = reader.members(node, path, every, ("priority", "effect"))
    start = reader.time_of_day(members.get("from"), f"{path}.from", 0)
    end = reader.time_of_day(members.get("to"), f"{path}.to", 1440)
    rule = Rule(
        priority=reader.integer(members.get("priority"), f"{path}.priority", 0),
        type=kind,
        effect=reader.choice(members.get("effect"), f"{path}.effect", _EFFECTS, "REJECT", _EFFECT_SYNONYMS),
        agents=reader.texts(members.get("agents"), f"{path}.agents"),
        except_agents=reader.texts(members.get("except_agents"), f"{path}.except_agents"),
        categories=reader.texts(members.get("categories"), f"{path}.categories"),
        bounds=Bounds(**{name: reader.amount(members.get(name), f"{path}.{name}") for name in _BOUNDS}),
        currency=reader.currency(members.get("currency"), f"{path}.currency"),
        approval=read_approval(reader, members.get("approval"), f"{path}.approval"),
        message=reader.text(members.get("message"), f"{path}.message", longest=1000),
        cap=reader.amount(members.get("cap"), f"{path}.cap"),
        cap_from=_matching(
            reader, members.get("cap_from"), f"{path}.cap_from", _CAP_FROM, "a field such as `caps.daily`"
        ),
        per=reader.choice(members.get("per"), f"{path}.per", _PER, "agent", _PER_SYNONYMS),
        counter=_matching(
            reader,
            members.get("counter"),
            f"{path}.counter",
            _COUNTER,
            "a name of letters, digits, `.`, `_` and `-`",
        ),
        timezone=reader.timezone(members.get("timezone"), f"{path}.timezone"),
        release_on_failure=reader.boolean(
            members.get("release_on_failure"), f"{path}.release_on_failure", False
        ),
        values=reader.texts(members.get("values"), f"{path}.values"),
        registry=reader.text(members.get("registry"), f"{path}.registry"),
        require_tag=reader.text(members.get("require_tag"), f"{path}.require_tag"),
        when=reader.choice(members.get("when"), f"{path}.when", ("inside", "outside"), "inside"),
        days=reader.days(members.get("days"), f"{path}.days"),
        start=start,
        end=end,
    )
    _check_rule(reader, node, path, rule, members)
    return rule


def _check_rule(reader: Reader, node: Node, path: str, rule: Rule, members: dict[str, Node]) -> None:
    """What one member says about another."""
    bounded = [name for name in _BOUNDS if name in members]
    if bounded and "currency" not in members:
        reader.problem(
            node, f"{path}.currency", f"is missing; `{bounded[0]}` is an amount in which currency?"
        )
    for first, second in (("min", "above"), ("max", "below")):
        if first in members and second in members:
            reader.problem(
                members[second], f"{path}.{second}", f"stands beside `{first}`; give one of the two"
            )
    if "agents" in members and "except_agents" in members:
        reader.problem(
            members["except_agents"], f"{path}.except_agents", "stands beside `agents`; give one of the two"
        )
    if rule.approval is not None and rule.effect != "REQUIRE_HUMAN":
        reader.problem(
            members["approval"], f"{path}.approval", f"a rule that says `{rule.effect}` asks nobody"
        )
    if rule.type == "AMOUNT_THRESHOLD" and not bounded:
        reader.problem(node, path, "an AMOUNT_THRESHOLD needs at least one of min, above, max and below")
    elif rule.type == "DAILY_CAP":
        _check_cap(reader, node, path, rule, members)
    elif rule.type == "BENEFICIARY_WHITELIST":
        if ("values" in members) == ("registry" in members):
            reader.problem(node, path, "a BENEFICIARY_WHITELIST needs one of `values` and `registry`")
        if "require_tag" in members and "registry" not in members:
            reader.problem(
                members["require_tag"], f"{path}.require_tag", "needs a `registry`, where the tags are kept"
            )
    elif rule.type == "TIME_WINDOW":
        if rule.timezone is None and "timezone" not in members:
            reader.problem(node, f"{path}.timezone", "is missing; name one such as `Europe/Paris` or `UTC`")
        if rule.start == rule.end:
            reader.problem(node, path, "`from` and `to` are the same; leave both out for whole days")
    elif rule.type == "AGENT_SCOPE" and not (rule.agents or rule.except_agents):
        reader.problem(node, path, "an AGENT_SCOPE needs `agents` or `except_agents`")
    elif rule.type == "CATEGORY_BLOCKLIST":
        if "categories" not in members and "registry" not in members:
            reader.problem(node, f"{path}.categories", "is missing; name categories, or a `registry` of them")
        elif "categories" in members and "registry" in members:
            # It would select by one and measure by the other, and block only what is in both.
            reader.problem(
                members["registry"], f"{path}.registry", "stands beside `categories`; give one of the two"
            )


def _check_cap(reader: Reader, node: Node, path: str, rule: Rule, members: dict[str, Node]) -> None:
    if ("cap" in members) == ("cap_from" in members):
        reader.problem(node, path, "a DAILY_CAP needs one of `cap` and `cap_from`")
    if ("cap_from" in members) != ("registry" in members):
        reader.problem(
            node, path, "`cap_from` and `registry` go together: the entry there of whom it is for has the cap"
        )
    if "currency" not in members:
        reader.problem(node, f"{path}.currency", "is missing; a cap is an amount in which currency?")
    if rule.effect == "AUTO_APPROVE":
        reader.problem(
            members["effect"],
            f"{path}.effect",
            "a cap that is exceeded cannot approve; use REJECT or REQUIRE_HUMAN",
        )
    if rule.cap == Decimal(0):
        reader.problem(
            members["cap"], f"{path}.cap", "a cap of 0 stops everything; use effect `deny` to say so"
        )


def _matching(
    reader: Reader, node: Node | None, path: str, pattern: re.Pattern[str], expected: str
) -> str | None:
    text = reader.text(node, path)
    if node is not None and text is not None and not pattern.fullmatch(text):
        reader.wrong(node, path, expected)
        return None
    return text


def read_approval(reader: Reader, node: Node | None, path: str) -> ApprovalSpec | None:
    """What approving takes."""
    if node is None:
        return None
    members = reader.members(
        node, path, _APPROVAL_MEMBERS, what="an object such as `{timeout: 4h, approvers: [...]}`"
    )
    approvers = _parties(reader, members.get("approvers"), f"{path}.approvers", ("user", "group"))
    spec = ApprovalSpec(
        timeout=reader.duration(members.get("timeout"), f"{path}.timeout"),
        approvers=approvers,
        quorum=_quorum(reader, members.get("quorum"), f"{path}.quorum", approvers),
        escalate_after=reader.duration(members.get("escalate_after"), f"{path}.escalate_after"),
        escalate_to=_parties(
            reader, members.get("escalate_to"), f"{path}.escalate_to", ("user", "group", "webhook", "mailto")
        ),
    )
    if ("escalate_after" in members) != ("escalate_to" in members):
        reader.problem(node, path, "`escalate_after` and `escalate_to` go together")
    if spec.timeout is not None and spec.escalate_after is not None and spec.escalate_after >= spec.timeout:
        reader.problem(
            members["escalate_after"],
            f"{path}.escalate_after",
            "is not before `timeout`, so nobody would be told",
        )
    return spec


def _quorum(reader: Reader, node: Node | None, path: str, approvers: tuple[str, ...]) -> int | Literal["all"]:
    if node is None:
        return 1
    if node.value == "all":
        if not approvers:
            reader.problem(node, path, "`all` needs `approvers`: all of whom?")
        return "all"
    if isinstance(node.value, bool) or not isinstance(node.value, int) or not 1 <= node.value <= 100:
        reader.wrong(node, path, "a number of approvers from 1 to 100, or `all`")
        return 1
    if approvers and all(party.startswith("user:") for party in approvers) and node.value > len(approvers):
        reader.problem(
            node, path, f"asks for {node.value} of {len(approvers)} approvers, which nobody could meet"
        )
    return node.value


def _parties(reader: Reader, node: Node | None, path: str, kinds: tuple[str, ...]) -> tuple[str, ...]:
    parties = reader.texts(node, path)
    allowed = ", ".join(f"`{kind}:<name>`" for kind in kinds)
    for party in parties:
        assert node is not None
        kind = party.partition(":")[0]
        if not _PARTY.fullmatch(party):
            hint = (
                f"; did you mean `user:{shown(party)}` or `group:{shown(party)}`?" if ":" not in party else ""
            )
            reader.problem(node, path, f"`{shown(party)}` is not one of {allowed}{hint}")
        elif kind not in kinds:
            reader.problem(node, path, f"`{shown(party)}` cannot approve; write {allowed}")
    return parties
