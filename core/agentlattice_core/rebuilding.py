"""Making state anew from the log, after somebody edited it or put back an older copy of it.

- Only from a log that verifies: state made from a forged log would be forged. The whole log is verified and folded
  while nobody else can write.
- What was signed last is read first: whoever signs at this moment may hold the signer's lock and wait for the log.
- Only documents that differ are written, in one transaction with an entry that says who had it done, why, and how many
  there were. State that is what the log makes of it is left alone, and nothing is recorded.
"""

from __future__ import annotations

from agentlattice_core.audit.canonical import dumps_payload
from agentlattice_core.audit.entry import Sealer
from agentlattice_core.clock import time_of_log
from agentlattice_core.engine import Engine
from agentlattice_core.errors import AuditError, ForbiddenError, InvalidRequestError
from agentlattice_core.operators import operator_identity
from agentlattice_core.principals import Operator
from agentlattice_core.stores.base import Transaction
from agentlattice_core.verification import StateDifference, state_differences, verify

__all__ = ["rebuild_state"]


def rebuild_state(engine: Engine, operator: Operator, reason: str) -> list[StateDifference]:
    """Make the state what the log says it is; what was mended. For administrators.

    Reads the whole log twice; writers wait meanwhile. Memory grows with what differs. Raises ForbiddenError,
    InvalidRequestError without a reason, AuditError if the log does not verify, NotRecordedError if it cannot be
    written; the state is then as it was.
    """
    if operator.role != "admin":
        raise ForbiddenError(
            f"`{operator.name}` is a {operator.role}, and rebuilding state takes an administrator"
        )
    if not reason.strip():
        raise InvalidRequestError("rebuilding state is recorded with its reason; say why")
    if engine.notary.alarm is not None:
        raise AuditError(engine.notary.alarm)

    last = engine.notary.last()

    def work(transaction: Transaction) -> list[StateDifference]:
        found = verify(engine, last=last)
        if not found.chain_valid:
            raise AuditError(f"no state is made from a log that does not verify: {found.problem}")
        different = list(state_differences(transaction))
        if not different:
            return different
        sealer = Sealer(engine.store.log_id, transaction.head)
        entry = sealer.seal(
            "log",
            operator_identity(operator),
            {
                "event": "state_rebuilt",
                "missing": sum(one.found is None for one in different),
                "unknown": sum(one.expected is None for one in different),
                "changed": sum(one.found is not None and one.expected is not None for one in different),
            },
            at=time_of_log(engine.clock, transaction.head.at),
            payload=dumps_payload({"reason": reason}),
        )
        writes = {(one.kind, one.key): one.expected for one in different}
        transaction.append([entry], sealer.head(), writes)
        return different

    mended = engine.store.transact(work)
    assert mended is not None, "without an offer the work is done here"
    if mended:
        engine.store.sync()
        engine.notary.sign()
    return mended
