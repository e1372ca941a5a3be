"""What a delegation covers: capabilities, whether they contain others, and whether a chain lets an action pass.

- A capability is a pattern as in a policy's `action`: an action type, a prefix such as `deploy.*`, or `*`.
- Containment is exact. Capabilities are few and the action types under a prefix are without number, so a prefix is
  contained in a list only where one member of it contains it alone. What is not certainly contained is not.
- An action passes when every delegation between the acting agent and its root is in force and covers it. A link of the
  chain that holds no delegation lets nothing pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentlattice_core.clock import format_time
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.policy.decision import Decision, Facts
from agentlattice_core.policy.index import matches_pattern
from agentlattice_core.policy.schema import pattern_problem
from agentlattice_core.principals import AgentFacts
from agentlattice_core.results import ConditionResult

__all__ = ["MOST_CAPABILITIES", "checked_capabilities", "covers", "out_of_scope"]

MOST_CAPABILITIES = 256
"""Most capabilities of one delegation. A prefix covers more action types than that, so no list of them contains it."""

_LONGEST_CAPABILITY = 150


def checked_capabilities(capabilities: Any) -> tuple[str, ...]:
    """`capabilities` in order, each once. Raises InvalidRequestError for what is not a list of patterns."""
    if isinstance(capabilities, str | bytes) or not isinstance(capabilities, Iterable):
        raise InvalidRequestError('capabilities: must be a list of action types, such as ["read_data"]')
    found: set[str] = set()
    for capability in capabilities:
        if not isinstance(capability, str):
            raise InvalidRequestError(
                f"capabilities: a value of type `{type(capability).__name__}` is not an action type"
            )
        problem = pattern_problem(capability)
        if problem is not None:
            raise InvalidRequestError(f"capabilities: {problem}")
        if len(capability) > _LONGEST_CAPABILITY:
            raise InvalidRequestError(
                f"capabilities: `{capability:.40}...` is longer than {_LONGEST_CAPABILITY} characters"
            )
        found.add(capability)
    if not 1 <= len(found) <= MOST_CAPABILITIES:
        raise InvalidRequestError(
            f"capabilities: name 1 to {MOST_CAPABILITIES} action types, not {len(found)}"
        )
    return tuple(sorted(found))


def covers(capabilities: Iterable[str], asked: str) -> bool:
    """Whether `asked`, an action type or a pattern, is contained in `capabilities`.

    An asked prefix begins with a held one exactly where all that it covers does; held action types and longer prefixes
    never add up to one.
    """
    return any(matches_pattern(held, asked) for held in capabilities)


def out_of_scope(facts: Facts) -> Decision | None:
    """The refusal of a child that acts beyond what it or anybody above it holds, or None."""
    for agent in reversed(facts.agent.lineage[1:]):
        found = _why_not(agent, facts)
        if found is not None:
            condition, message = found
            return Decision("deny", None, "OUT_OF_SCOPE", (condition,), message=message)
    return None


def _why_not(agent: AgentFacts, facts: Facts) -> tuple[ConditionResult, str] | None:
    delegation, action_type = agent.delegation, facts.action.action_type
    name = agent.given_name
    if delegation is None:
        return _not_active("unknown"), f"`{name}` holds no delegation, so it may do nothing"
    if delegation.status == "expired" or (
        delegation.status == "active" and facts.now >= delegation.expires_at
    ):
        at = format_time(delegation.expires_at)
        return _not_active("expired"), f"the delegation of `{name}` expired at {at}"
    if delegation.status != "active":
        return _not_active(delegation.status), f"the delegation of `{name}` was {delegation.status}"
    if not covers(delegation.capabilities, action_type):
        held = list(delegation.capabilities)
        condition = ConditionResult("delegation.capabilities", "contains", action_type, False, held)
        return condition, f"`{action_type}` is not among what was delegated to `{name}`: {_some(held)}"
    return None


def _not_active(status: str) -> ConditionResult:
    return ConditionResult("delegation.status", "eq", "active", False, status)


def _some(held: list[str]) -> str:
    shown = ", ".join(f"`{one}`" for one in held[:8])
    return shown if len(held) <= 8 else f"{shown} and {len(held) - 8} more"
