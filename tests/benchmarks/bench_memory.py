"""Memory: what stays resident for policies, an engine at rest, a long run of actions, and a verification.

Each figure is the growth of the resident set of a process of its own; the peak during verification is sampled.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

from bench_decision import policy_document
from load import Disk, act, fresh, opened
from long_logs import copied, log_of
from measurement import Bar, Measurement, Scale
from memory import in_a_process, peak, resident

from agentlattice_core.policy.document import PolicyDocument
from agentlattice_core.policy.evaluate import PolicySet

__all__ = ["measure"]


def measure(directory: Path, scale: Scale) -> Iterator[Measurement]:
    """Mebibytes of resident memory."""
    full = scale == "full"
    policies = 10_000 if full else 100
    grown = in_a_process(_policies, policies)
    yield Measurement("memory for 1,000 policies", grown / policies * 1_000, "MiB")
    yield Measurement("memory of an engine at rest", in_a_process(_at_rest, fresh(directory)), "MiB")
    actions = 100_000 if full else 100
    yield Measurement(
        f"memory grown by {actions:,} actions", in_a_process(_acting, fresh(directory), actions), "MiB"
    )
    few, many = (10_000, 1_000_000) if full else (200, 2_000)
    found = []
    for size in (few, many):
        with copied(log_of(directory, size), directory) as path:
            found.append(in_a_process(_verifying, path))
    small, large = found
    yield Measurement(f"memory peak of verifying {few:,} entries", small, "MiB")
    # The page cache of one connection is bounded at 16 MiB, and a short log does not fill it.
    bar = Bar("at most", 32, of="value")
    beside = f"{few:,} entries"
    yield Measurement(f"memory peak of verifying {many:,} entries", large, "MiB", large / small, beside, bar)


def _policies(count: int) -> float:
    PolicySet.from_document(PolicyDocument.parse(policy_document(5)))  # what is imported and cached once
    text = policy_document(count)
    document = PolicyDocument.parse(text)
    gc.collect()
    before = resident()
    kept = PolicySet.from_document(document)
    gc.collect()
    grown = resident() - before
    assert kept.summaries()
    return grown


def _at_rest(directory: Path) -> float:
    gc.collect()
    before = resident()
    with opened(directory, Disk(False)):
        return resident() - before


def _acting(directory: Path, actions: int) -> float:
    with opened(directory, Disk(False)) as al:
        al._engine.store._fsync = _without_sync  # what is measured is memory
        gc.collect()
        before = resident()
        for _ in range(actions):
            act(al)
        gc.collect()
        return resident() - before


def _without_sync(file: int) -> None:
    """Leave it to the kernel."""


def _verifying(directory: Path) -> float:
    with opened(directory, Disk(False)) as al:
        gc.collect()

        def verify() -> None:
            result = al.verify_sync()
            assert result.chain_valid, result.problem

        return peak(verify)
