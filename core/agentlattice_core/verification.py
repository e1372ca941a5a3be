"""Verifying the log of an engine, and its state against the log."""

from __future__ import annotations

from agentlattice_core.audit.verify import verify_rows
from agentlattice_core.clock import format_time
from agentlattice_core.engine import Engine
from agentlattice_core.results import VerifyResult

__all__ = ["verify"]


def verify(engine: Engine) -> VerifyResult:
    """Verify every entry, payload, tile and the head."""
    with engine.read() as reader:
        head = reader.head
        report = verify_rows(reader.rows(), log=engine.store.log_id, head=head, read_tile=reader.tile)
    problem = report.problem
    return VerifyResult(
        org_id=engine.store.log_id,
        chain_valid=report.ok,
        verified_through_row=report.size - 1,
        chain_hash=report.head.leaf.hex() if report.head is not None else None,
        verified_from_checkpoint=report.start > 0,
        timestamp=format_time(engine.clock.now()),
        first_broken_at_row_id=None if problem is None else str(problem.row if problem.row is not None else (problem.interval or ("?",))[0]),
        problem=problem.message if problem is not None else None,
    )
