"""A capability is contained where everything it covers is, and nowhere else."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlattice_core import InvalidRequestError
from agentlattice_core.actions import Action
from agentlattice_core.policy import Decision, Facts, PolicyDocument, PolicySet
from agentlattice_core.policy.scope import MOST_CAPABILITIES, checked_capabilities, covers
from agentlattice_core.principals import AgentFacts, Delegation

SEGMENTS = ("a", "b", "c")
NEW = "x"  # stands for every segment that no pattern names
UNIVERSE = [
    ".".join(parts) for depth in (1, 2, 3, 4) for parts in itertools.product((*SEGMENTS, NEW), repeat=depth)
]
TYPES = [".".join(parts) for depth in (1, 2, 3) for parts in itertools.product(SEGMENTS, repeat=depth)]
PATTERNS = st.sampled_from([*TYPES, *(f"{one}.*" for one in TYPES if one.count(".") < 2), "*"])


def covered(pattern: str) -> frozenset[str]:
    """What a pattern covers, by looking at each action type segment by segment."""
    if pattern == "*":
        return frozenset(UNIVERSE)
    parts = pattern.split(".")
    if parts[-1] != "*":
        return frozenset({pattern})
    stem = parts[:-1]
    return frozenset(
        one for one in UNIVERSE if one.split(".")[: len(stem)] == stem and len(one.split(".")) > len(stem)
    )


@settings(max_examples=500, deadline=None)
@given(held=st.lists(PATTERNS, max_size=6), asked=PATTERNS)
def test_containment_is_what_looking_at_everything_finds(held: list[str], asked: str) -> None:
    """Neither more nor less: prefixes of prefixes, types under them, and lists that never add up to a prefix."""
    together = frozenset().union(*map(covered, held))
    assert covers(held, asked) == (covered(asked) <= together)


def test_a_list_of_all_that_is_known_under_a_prefix_is_not_the_prefix() -> None:
    """Whatever is thought of tomorrow is under the prefix too."""
    assert not covers(["a.a", "a.b", "a.c", "a.a.*", "a.b.*", "a.c.*"], "a.*")
    assert not covers(["a.*"], "a")
    assert not covers(["a"], "a.*")
    assert not covers(["ab.*"], "a.*")
    assert covers(["a.*"], "a.b.*")


@pytest.mark.parametrize(
    "wrong",
    ["", "a*", "*.a", "a.*.b", "a..b", ".a", "a.", "a b", "a\n", "**", "a.**", "a" * 151, 7, None, b"a"],
)
def test_what_is_no_pattern_is_refused(wrong: object) -> None:
    """A capability that could be read in two ways is not read at all."""
    with pytest.raises(InvalidRequestError, match=r"^capabilities: "):
        checked_capabilities(["read_data", wrong])


@pytest.mark.parametrize(
    "wrong", ["read_data", b"read_data", None, 7, [], (str(n) for n in range(MOST_CAPABILITIES + 1))]
)
def test_capabilities_are_a_list_of_a_few(wrong: object) -> None:
    """One text is not the list of its letters; none is a mistake, and so are too many."""
    with pytest.raises(InvalidRequestError, match=r"^capabilities: "):
        checked_capabilities(wrong)


def test_order_and_repetition_do_not_matter() -> None:
    """The same capabilities are the same delegation."""
    assert checked_capabilities(["b", "a.*", "b"]) == checked_capabilities(("a.*", "b")) == ("a.*", "b")


def chain(*held: Delegation | None) -> AgentFacts:
    """A root with one child below the other, each holding what is given."""
    agent = AgentFacts("root", "agt_0")
    for number, delegation in enumerate(held, 1):
        agent = AgentFacts(
            f"child~agt_{number}", f"agt_{number}", ancestors=agent.lineage, delegation=delegation
        )
    return agent


NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
WIDE = Delegation("del_0", ("*",), NOW + timedelta(seconds=1))


@pytest.mark.parametrize(
    "broken",
    [
        None,
        replace(WIDE, capabilities=("a.c", "a.b.*", "b")),
        replace(WIDE, capabilities=()),
        replace(WIDE, status="revoked"),
        replace(WIDE, status="closed"),
        replace(WIDE, status="expired"),
        replace(WIDE, status="whatever"),
        replace(WIDE, expires_at=NOW),
    ],
)
@pytest.mark.parametrize("where", [0, 1, 2])
def test_one_link_that_does_not_hold_stops_the_chain(broken: Delegation | None, where: int) -> None:
    """Wherever it is, whatever the links below it claim, and also where state says what no grant could have."""
    allow = PolicySet.from_document(
        PolicyDocument.parse("version: 1\npolicies: [{name: All, action: '*', effect: allow}]")
    )

    def ask(*held: Delegation | None) -> Decision:
        return allow.decide(Facts(Action.build("a.b"), chain(*held), NOW, lambda key: Decimal(0)))

    links: list[Delegation | None] = [WIDE, WIDE, WIDE]
    assert ask(*links).outcome == "allow"
    links[where] = broken
    refused = ask(*links)
    assert (refused.outcome, refused.denial_reason) == ("deny", "OUT_OF_SCOPE")
    [condition] = refused.conditions
    assert condition.result is False
