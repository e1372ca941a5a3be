"""Recorded actions come back from the log as they were decided."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlattice_core import AgentLattice
from agentlattice_core.clock import format_time
from agentlattice_core.engine import open_engine, release
from agentlattice_core.recorded import RecordedActions, first_since
from agentlattice_core.stores.base import Reader
from agentlattice_core.testing import ManualClock

BEGIN = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
POLICIES = """\
version: 1
policies:
  - {name: Small, action: pr.open, effect: allow, conditions: [{field: pr_size, operator: lt, value: 50}]}
  - {name: Deploys, action: deploy, effect: require_approval}
"""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(BEGIN)


@pytest.fixture
def path(tmp_path: Path, clock: ManualClock) -> Path:
    """A log of an hour: something of every kind that an action can come to."""
    (tmp_path / "policies.yaml").write_text(POLICIES)
    path = tmp_path / "governance.db"
    with AgentLattice.embedded(
        path, policies=tmp_path / "policies.yaml", agent="ci", tags=["fast"], clock=clock
    ) as client:
        client.execute_sync("pr.open", metadata={"pr_size": 3}, amount="1.50", currency="EUR", event_id="a")
        clock.advance(minutes=10)
        client.execute_sync("pr.open", metadata={"pr_size": 80}, trusted=["pr_size"])
        clock.advance(minutes=10)
        waiting = client.execute_sync("deploy")
        assert waiting.approval_id is not None
        operator = client.for_operator("ana", role="admin")
        operator.approve_action_sync(waiting.approval_id)
        client.claim_sync(waiting.audit_event_id)
        clock.advance(minutes=10)
        client.record_refusal_sync("pr.open", "NaN", "arguments that cannot be recorded")
        client.execute_sync("unheard.of")
        operator.close()
    with AgentLattice.embedded(path, agent="watcher", mode="observe", clock=clock) as client:
        clock.advance(minutes=10)
        client.execute_sync("pr.open", metadata={"pr_size": 900})
    return path


@pytest.fixture
def reader(path: Path, clock: ManualClock) -> Iterator[Reader]:
    engine = open_engine(path, clock)
    try:
        with engine.read() as reader:
            yield reader
    finally:
        release(engine)


def test_every_action_comes_back_with_what_policy_said_of_it(reader: Reader) -> None:
    """Executed, denied, asked about, uncovered, and observed: policy's own answer."""
    found = list(RecordedActions(reader))
    assert [(one.action.action_type, one.outcome, one.policy) for one in found] == [
        ("pr.open", "allow", "Small"),
        ("pr.open", "deny", "Small"),
        ("deploy", "require_approval", "Deploys"),
        ("unheard.of", "not_found", None),
        ("pr.open", "deny", "Small"),
    ]
    assert [one.agent.name for one in found] == ["ci", "ci", "ci", "ci", "watcher"]
    assert found[0].agent.tags == {"fast"}
    assert [one.at for one in found] == [
        BEGIN + timedelta(minutes=minutes) for minutes in (0, 10, 20, 30, 40)
    ]


def test_an_action_comes_back_whole(reader: Reader) -> None:
    """Everything that a decision may depend on: amounts exactly, which members were trusted, the event id."""
    first, second, *_ = RecordedActions(reader)
    assert (str(first.action.amount), first.action.currency, first.action.event_id) == ("1.50", "EUR", "a")
    assert first.action.metadata == {"pr_size": 3}
    assert second.action.trusted == {"pr_size"}


def test_what_never_became_an_action_is_counted_and_left_out(reader: Reader) -> None:
    """Replaying it without its arguments would say that it was allowed."""
    records = RecordedActions(reader)
    assert sum(1 for _ in records) == 5
    assert (records.refused, records.erased) == (1, 0)


def test_erased_arguments_are_counted_and_left_out(path: Path, clock: ManualClock) -> None:
    """Without its arguments an action cannot be decided on again."""
    with AgentLattice.embedded(path, operator="ana", role="admin", clock=clock) as client:
        event = next(event for event in client.audit_sync().events if event.action_type == "deploy")
        client.erase_sync([int(event.id[4:16], 16)], "asked for")
    engine = open_engine(path, clock)
    with engine.read() as reader:
        records = RecordedActions(reader)
        assert [one.action.action_type for one in records].count("deploy") == 0
        assert records.erased == 1
    release(engine)


@pytest.mark.parametrize(("minutes", "count"), [(-60, 5), (0, 5), (1, 4), (10, 4), (39, 1), (40, 1), (41, 0)])
def test_only_what_came_since_is_read(reader: Reader, minutes: int, count: int) -> None:
    """From that moment on, the moment itself included."""
    assert sum(1 for _ in RecordedActions(reader, BEGIN + timedelta(minutes=minutes))) == count


class _Times:
    """A log of which only the times are known."""

    def __init__(self, seconds: list[int]) -> None:
        self.times = [format_time(BEGIN + timedelta(seconds=second)) for second in seconds]
        self.head = type("Head", (), {"size": len(seconds)})()

    def row(self, index: int) -> tuple[int, bytes, bytes, None, None]:
        return (index, b'{"at":"%s"}' % self.times[index].encode(), b"", None, None)


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(-1, 31))
def test_the_start_is_found_by_halving(seconds: list[int], since: int) -> None:
    """The first entry that is not before, whichever entries share a time."""
    seconds.sort()
    expected = sum(second < since for second in seconds)
    assert first_since(_Times(seconds), BEGIN + timedelta(seconds=since)) == expected  # type: ignore[arg-type]
