"""What governance adds to a tool call in each framework: governed minus bare, measured in pairs.

Each framework has its own module (`bench_langgraph`, `bench_crewai`, `bench_openai_agents`), which says what it runs.
Each runs in a process of its own, because frameworks leave threads and hooks behind.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
from collections.abc import Iterator, Mapping
from pathlib import Path

from load import fresh
from measurement import Bar, Measurement, Scale

__all__ = ["measure"]

_FRAMEWORKS = {
    # name: module, package, rounds when measured in full, bar in microseconds of our own time
    "LangGraph": ("bench_langgraph", "langgraph", 1000, 100),
    "OpenAI Agents": ("bench_openai_agents", "agents", 300, 100),
    "CrewAI": ("bench_crewai", "crewai", 60, 150),
}


def measure(directory: Path, scale: Scale) -> Iterator[Measurement]:
    """Microseconds added to one allowed call, of our own and with the durable write."""
    for name, (module, package, rounds, limit) in _FRAMEWORKS.items():
        if importlib.util.find_spec(package) is None:
            continue
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            found = pool.apply(_measured, (module, fresh(directory), rounds if scale == "full" else 2))
        for what, figures in found.items():
            bar = Bar("at most", limit, of="value") if what.endswith(", own") else None
            bare = figures.get("bare_us")
            ratio = figures["added_us"] / bare if bare else None
            yield Measurement(
                f"{name}: {what}", figures["added_us"], "us", ratio, "the bare call" if bare else None, bar
            )


def _measured(module: str, directory: Path, rounds: int) -> dict[str, Mapping[str, float]]:
    found: dict[str, Mapping[str, float]] = importlib.import_module(module).measure(directory, rounds=rounds)
    return found
