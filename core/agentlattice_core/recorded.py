"""Reading recorded actions back from the log, for replaying them against other policies.

- Streamed in the order of the log, in memory that does not grow with it: a few entries are decoded ahead of whoever
  decides on them, because turning from one to the other for every entry costs a sixth of the time in cold caches. The
  start is found by halving, because entries are in the order of their times.
- What policy said is taken from the entry as it was recorded, in observe mode too; what a person decided later is not
  policy's part.
- Attempts that never came before policy have nothing to replay and are left out: those that could not even become an
  action (arguments that are not JSON, say), and those beyond a delegation. So are actions whose arguments were erased.
  Both are counted.
- An agent's tags and grants are those it has now: a candidate is for the agents there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice

import orjson

from agentlattice_core.actions import Action
from agentlattice_core.agents import agent_facts
from agentlattice_core.clock import format_time, parse_time
from agentlattice_core.policy.simulate import RecordedAction, outcome_of_status
from agentlattice_core.principals import AgentFacts, Delegation
from agentlattice_core.stores.base import Reader, Row

__all__ = ["RecordedActions", "first_since"]

_DAWN = datetime(1970, 1, 1, tzinfo=UTC)
_AHEAD = 32
_REFUSED = [["arguments", "matches", False]]
"""The conditions of an entry that records an attempt which never became an action."""


class RecordedActions:
    """The actions that `reader` holds from `since` on (aware; None: all), to be iterated once; with a `lead`, also
    those that long before.

    Once iterated, `erased` and `refused` say how many were left out from `since` on.
    """

    def __init__(self, reader: Reader, since: datetime | None = None, lead: timedelta = timedelta(0)) -> None:
        self._reader = reader
        self._counted = 0 if since is None else first_since(reader, since)
        # Nothing is recorded so early that a day before it could not be named.
        self._start = first_since(reader, since - lead) if since is not None and since > _DAWN else 0
        self._agents: dict[str, AgentFacts] = {}
        self.erased = 0
        self.refused = 0

    def __iter__(self) -> Iterator[RecordedAction]:
        decoded = self._decoded()
        while ahead := list(islice(decoded, _AHEAD)):
            yield from ahead

    def _decoded(self) -> Iterator[RecordedAction]:
        for row in self._reader.rows(self._start):
            # Most entries can be told by a look at their bytes, which is much cheaper than parsing them.
            if b'"kind":"action"' in row[1]:
                recorded = self._recorded(row)
                if recorded is not None:
                    yield recorded

    def _recorded(self, row: Row) -> RecordedAction | None:
        entry = orjson.loads(row[1])
        if entry["kind"] != "action":
            return None
        data = entry["data"]
        if data.get("conditions") == _REFUSED or data.get("reason") == "OUT_OF_SCOPE":
            self.refused += row[0] >= self._counted
            return None
        if row[4] is None:
            self.erased += row[0] >= self._counted
            return None
        members = orjson.loads(row[4])["action"]
        policy = data.get("policy")
        return RecordedAction(
            action=Action.from_members(members, data.get("event_id"), data.get("trusted", ())),
            agent=self._agent(entry["who"]["agent"], entry["who"]["agent_id"]),
            at=parse_time(entry["at"]),
            outcome=outcome_of_status(data["decision"]),
            policy=policy["name"] if policy is not None else None,
            observed=data.get("mode") == "observe",
        )

    def _agent(self, name: str, agent_id: str) -> AgentFacts:
        facts = self._agents.get(agent_id)
        if facts is None:
            document = self._reader.get("agent", name) or {"tags": (), "grants": ()}
            if "parent" in document:
                facts = _in_force(agent_facts(self._reader, name))
            else:
                facts = AgentFacts(name, agent_id, frozenset(document["tags"]), frozenset(document["grants"]))
            self._agents[agent_id] = facts
        return facts


def _in_force(agent: AgentFacts) -> AgentFacts:
    """A chain whose delegations cover what was done and last: what was recorded was within them when it was."""
    if agent.delegation is None:
        return agent
    lasting = Delegation(agent.delegation.id, ("*",), datetime.max.replace(tzinfo=UTC))
    return replace(agent, ancestors=tuple(map(_in_force, agent.ancestors)), delegation=lasting)


def first_since(reader: Reader, since: datetime) -> int:
    """The index of the first entry at or after `since`, or how many entries there are."""
    wanted = format_time(since)
    low, high = 0, reader.head.size
    while low < high:
        middle = (low + high) // 2
        row = reader.row(middle)
        # A missing entry is verification's to report; here it only must not stop the search.
        if row is None or orjson.loads(row[1])["at"] < wanted:
            low = middle + 1
        else:
            high = middle
    return low
