"""The benchmark command works. What it measures is not asserted: that depends on the machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 540  # seconds
_COMMAND = Path(__file__).with_name("run.py")
_NAMES = {
    "decision",
    "durable",
    "busy-thread",
    "verify",
    "adapters",
    "log-size",
    "memory",
    "simulate",
    "waking",
    "postgres",
    "service",
}


def _run(directory: Path, *arguments: str) -> tuple[int, str, str, dict[str, Any]]:
    """The exit status, what was printed, the errors, and the figures of one run of the command."""
    figures = directory / "figures.json"
    printed, errors = directory / "printed", directory / "errors"
    with printed.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            [
                sys.executable,
                str(_COMMAND),
                "--json",
                str(figures),
                "--directory",
                str(directory),
                *arguments,
            ],
            stdout=out,
            stderr=err,
            start_new_session=True,  # it starts servers, which must not outlive it
            env=os.environ
            | {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "PYTHONFAULTHANDLER": "1"},
        )
        try:
            status = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGABRT)  # each of its processes says where its threads stand
            process.wait()
            time.sleep(1)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"it did not end; it printed: {printed.read_text()}{errors.read_text()}")
    found = json.loads(figures.read_text(encoding="utf-8")) if figures.exists() else {}
    return status, printed.read_text(encoding="utf-8"), errors.read_text(encoding="utf-8"), found


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    status, printed, errors, found = _run(tmp_path_factory.mktemp("benchmarks"), "--quick")
    assert status == 0, errors
    return printed, found


def test_one_command_runs_every_benchmark(figures: tuple[str, dict[str, Any]]) -> None:
    """One command measures everything, and says of every figure what it is, its unit, its bar and if it is met."""
    text, found = figures
    assert {one["benchmark"] for one in found["measurements"]} == _NAMES
    for one in found["measurements"]:
        assert one["what"] in text
        assert isinstance(one["value"], int | float)
        assert isinstance(one["unit"], str)
        assert (one["met"] is None) == (one["bar"] is None)
        assert one["ratio"] is None or one["beside"]


def test_the_figures_say_where_they_come_from(figures: tuple[str, dict[str, Any]]) -> None:
    """The JSON names machine, versions and what was absent, and that a quick run means nothing."""
    text, found = figures
    assert found["scale"] == "quick"
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["sync_ms"] > 0
    assert {"python", "sqlite", "apsw"} <= found["versions"].keys()
    assert isinstance(found["absent"], list)
    assert "too small" in text


def test_every_promise_has_its_bar(figures: tuple[str, dict[str, Any]]) -> None:
    """Each promise on speed is held to a bar by some measurement."""
    _, found = figures
    barred = " / ".join(one["what"] for one in found["measurements"] if one["bar"] is not None)
    for promise in (
        "1 caller, disk as it is",
        "1 caller, 1 ms syncs",
        "64 threads, disk as it is",
        "64 threads, 1 ms syncs",
        "8 processes, 1 ms syncs",
        "64 tasks, PostgreSQL",
        "64 threads, PostgreSQL",
        "64 callers on one limit, PostgreSQL",
        "service, 64 clients, SQLite",
        "service, 64 clients, PostgreSQL",
        "2 nodes of the service",
        "service, wait p99 at half load, SQLite",
        "service, wait p99 at half load, PostgreSQL",
        "slowest over busiest",
        "wait p99.9",
        "rows in memory",
        "stored log",
        "after a checkpoint",
        "entries in the log",
        "verifying 2,000 entries",
        "simulating 1,000 recorded actions",
        "memory peak of simulating 1,000 actions",
    ):
        assert promise in barred


def test_one_benchmark_can_be_run_alone_and_a_missed_bar_fails_on_request(tmp_path: Path) -> None:
    """`--only` runs what it names; only with `--check` does the exit status depend on the bars."""
    status, _, _, found = _run(tmp_path, "--quick", "--only", "waking", "--check")
    assert {one["benchmark"] for one in found["measurements"]} == {"waking"}
    missed = any(one["met"] is False for one in found["measurements"])
    assert status == int(missed)
