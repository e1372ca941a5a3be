"""The example documents, and Hypothesis strategies for others, as the plain values that YAML or JSON would hold."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from agentlattice_core.principals import Delegation

EVERYTHING = Delegation("del-0", ("*",), datetime(9999, 1, 1, tzinfo=UTC))
"""A delegation that takes nothing away, for what is about something else."""
EXAMPLES = Path(__file__).parents[3] / "examples" / "policies"
FIELDS = [
    "pr_size",
    "environment",
    "metadata.table.name",
    "count",
    "sensitivity",
    "amount",
    "agent.tags",
    "time.hour",
]
SENSITIVITIES = ["low", "medium", "high", "critical"]
names = st.text(alphabet="abcdefgh-XYZ é", min_size=1, max_size=12).filter(lambda text: text.strip(" -é"))
patterns = st.sampled_from(["*", "a.*", "a.b.*", "a.b", "a.b.c", "x"])
amounts = st.decimals(min_value="0.01", max_value="99999", places=2).map(str)
texts = st.text(
    alphabet=st.characters(blacklist_categories=("Cc", "Cs"), blacklist_characters="\ufffe\uffff\x7f"),
    min_size=1,
    max_size=8,
).filter(lambda text: text.strip())
integers = st.integers(min_value=-1000, max_value=1000)
parties = st.lists(st.sampled_from(["user:ann", "user:bob", "group:ops"]), unique=True, min_size=1)


@st.composite
def conditions(draw: st.DrawFn, *, exists: bool = True) -> dict[str, Any]:
    field = draw(st.sampled_from(FIELDS))
    if field == "sensitivity":
        return {
            "field": field,
            "operator": draw(st.sampled_from(["eq", "neq", "lt", "gte"])),
            "value": draw(st.sampled_from(SENSITIVITIES)),
        }
    if field == "amount":
        return {
            "field": field,
            "operator": draw(st.sampled_from(["lt", "lte", "gt", "gte", "eq"])),
            "value": draw(amounts),
        }
    if field == "time.hour":
        return {
            "field": field,
            "operator": "gte",
            "value": draw(st.integers(0, 23)),
            "timezone": "Europe/Paris",
        }
    kind = draw(st.sampled_from(["number", "text", "list", "float"] + (["exists"] if exists else [])))
    if kind == "number":
        return {
            "field": field,
            "operator": draw(st.sampled_from(["lt", "lte", "gt", "gte", "eq", "neq"])),
            "value": draw(integers),
        }
    if kind == "float":
        return {"field": field, "operator": "lt", "value": draw(st.floats(-1e6, 1e6, allow_nan=False))}
    if kind == "text":
        return {
            "field": field,
            "operator": draw(st.sampled_from(["eq", "neq", "contains", "starts_with"])),
            "value": draw(texts),
        }
    if kind == "exists":
        return {"field": field, "operator": "exists", "value": draw(st.booleans())}
    values = draw(st.lists(texts | integers | st.booleans(), min_size=1, max_size=4))
    return {"field": field, "operator": draw(st.sampled_from(["in", "not_in", "subset_of"])), "value": values}


@functools.cache  # making a recursive strategy takes longer than drawing from it
def condition_nodes(*, exists: bool = True) -> st.SearchStrategy[dict[str, Any]]:
    """Conditions and groups of them; those that ask for absence only if `exists`."""
    return st.recursive(
        conditions(exists=exists),
        lambda inner: st.builds(
            lambda kind, members: {kind: members},
            st.sampled_from(["all", "any", "not"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        max_leaves=5,
    )


@st.composite
def rules(draw: st.DrawFn, priority: int, lenient: bool) -> dict[str, Any]:
    kind = draw(
        st.sampled_from(
            ["AMOUNT_THRESHOLD", "DAILY_CAP", "BENEFICIARY_WHITELIST", "TIME_WINDOW", "CATEGORY_BLOCKLIST"]
        )
    )
    effects = ["REQUIRE_HUMAN", "REJECT"] + (["AUTO_APPROVE"] if lenient and kind != "DAILY_CAP" else [])
    rule: dict[str, Any] = {"priority": priority, "type": kind, "effect": draw(st.sampled_from(effects))}
    if kind == "AMOUNT_THRESHOLD":
        rule |= {draw(st.sampled_from(["min", "above", "max", "below"])): draw(amounts), "currency": "EUR"}
    elif kind == "DAILY_CAP":
        rule |= {
            "cap": draw(amounts),
            "currency": "EUR",
            "per": draw(st.sampled_from(["agent", "organisation", "beneficiary"])),
        }
    elif kind == "BENEFICIARY_WHITELIST":
        rule |= {"registry": "known"} if draw(st.booleans()) else {"values": ["acme"]}
    elif kind == "TIME_WINDOW":
        rule |= {"timezone": "Europe/Paris", "from": "08:00", "to": "18:30", "days": ["mon", "fri"]}
    else:
        rule |= {"categories": ["banned"]}
    if rule["effect"] == "REQUIRE_HUMAN" and draw(st.booleans()):
        rule["approval"] = {"approvers": draw(parties)}
    if draw(st.booleans()):
        rule["message"] = draw(texts)
    return rule


@st.composite
def policies(draw: st.DrawFn, name: str, *, guardrail: bool = False, exists: bool = True) -> dict[str, Any]:
    policy: dict[str, Any] = {
        "name": name,
        "action": draw(patterns),
        "effect": draw(
            st.sampled_from(["conditional", "require_approval", "deny"] + ([] if guardrail else ["allow"]))
        ),
    }
    if draw(st.booleans()):
        policy["conditions"] = draw(st.lists(condition_nodes(exists=exists), min_size=1, max_size=3))
    if draw(st.booleans()):
        count = draw(st.integers(1, 3))
        policy["rules"] = [draw(rules(10 * (number + 1), lenient=not guardrail)) for number in range(count)]
    if draw(st.booleans()):
        policy["agents"] = draw(st.lists(st.sampled_from(["ann", "bob"]), unique=True, min_size=1))
    if draw(st.booleans()):
        policy["approval"] = {
            "timeout": draw(st.sampled_from(["90s", "30m", "4h", "1d"])),
            "approvers": draw(parties),
        }
    if draw(st.booleans()):
        policy["explain"] = draw(st.sampled_from(["full", "fields", "none"]))
    return policy


@st.composite
def documents(draw: st.DrawFn, *, most: int = 4, guardrails: int = 2, exists: bool = True) -> dict[str, Any]:
    count = draw(st.integers(0, most))
    guards = draw(st.integers(0, guardrails))
    return {
        "version": 1,
        "policies": [draw(policies(f"policy {number}", exists=exists)) for number in range(count)],
        "guardrails": [
            draw(policies(f"guardrail {number}", guardrail=True, exists=exists)) for number in range(guards)
        ],
        "registries": {"known": {"acme": {"tags": ["ok"]}, "0012": None}},
        "actions": {"declared.one": {"fields": {"size": {"type": "integer", "required": True}}}},
    }
