"""Going on with an older copy of the log that was restored on purpose.

- Nothing is recorded in a log that does not extend what was signed. When the copy is all there is, an administrator may
  accept it: by name, with a reason, and by naming both sizes, so that nobody accepts what they have not looked at.
- What is left must verify by itself. That entries are missing is recorded for ever, with the checkpoint over them.
- Limits that were spent, approvals that were used and event ids that were seen in the lost entries are forgotten.
- A crash in between leaves the alarm standing; accepting it again goes on where the first attempt ended.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentlattice_core.audit.canonical import dumps_payload
from agentlattice_core.audit.cuts import Cut, cut_data, read_cut
from agentlattice_core.audit.entry import parse
from agentlattice_core.batch import Batch
from agentlattice_core.engine import Engine
from agentlattice_core.errors import AuditError, ForbiddenError, IllegalTransitionError, InvalidRequestError
from agentlattice_core.operators import operator_identity
from agentlattice_core.principals import Operator
from agentlattice_core.stores.base import Reader, Transaction
from agentlattice_core.verification import verify

__all__ = ["Restore", "accept_restore", "found_restore"]


@dataclass(frozen=True, slots=True)
class Restore:
    """A copy of `kept` entries, where `signed` had been signed; the first `vouched` of it were signed as they are."""

    kept: int
    signed: int
    vouched: int

    @property
    def confirmation(self) -> str:
        """What says that somebody has looked: both sizes."""
        return f"{self.kept}/{self.signed}"


def found_restore(engine: Engine) -> Restore:
    """What would be accepted. Reads the whole log.

    Raises IllegalTransitionError if the log is the one that was signed, and AuditError if it is anything but a shorter
    copy that verifies by itself.
    """
    if engine.notary.alarm is None:
        raise IllegalTransitionError("the log is the one that was signed, so there is nothing to accept")
    result = verify(engine, restored=True)
    if not result.chain_valid:
        raise AuditError(f"a copy that does not verify by itself is not accepted: {result.problem}")
    signed = engine.notary.last().size
    with engine.read() as reader:
        begun = _begun(reader, engine.notary.last_note())
        kept = begun.kept if begun is not None else reader.head.size
        vouched = max((size for size, _ in reader.checkpoints() if size <= kept), default=0)
    if not 0 < kept < signed:
        raise AuditError(
            f"the log has {kept} entries and {signed} were signed, so it is not an older copy; find out what it is"
        )
    return Restore(kept, signed, vouched)


def accept_restore(engine: Engine, operator: Operator, reason: str, confirmation: str) -> Cut:
    """Record that the copy was meant, and let the log go on. For administrators.

    `confirmation` is that of `found_restore`. Raises ForbiddenError, InvalidRequestError without a reason or if what is
    confirmed is not what is there, NotRecordedError, and what `found_restore` raises.
    """
    if operator.role != "admin":
        raise ForbiddenError(
            f"`{operator.name}` is a {operator.role}, and accepting a restore takes an administrator"
        )
    if not reason.strip():
        raise InvalidRequestError("accepting a restore is recorded with its reason; say why")
    found = found_restore(engine)
    if confirmation != found.confirmation:
        raise InvalidRequestError(
            f"{found.kept} entries are there and {found.signed} were signed; to accept that, confirm "
            f"`{found.confirmation}`"
        )
    lost = engine.notary.last_note()

    def work(transaction: Transaction) -> None:
        if _begun(transaction, lost) is not None:
            return
        if transaction.head.size != found.kept:
            raise AuditError("the log was changed in the meantime; look again")
        batch = Batch(transaction, engine.store.log_id, engine.clock.now())
        batch.record(
            "log",
            operator_identity(operator),
            cut_data(kept=found.kept, signed=found.signed, vouched=found.vouched, checkpoint=lost),
            payload=dumps_payload({"reason": reason}),
        )
        batch.finish()

    engine.store.transact(work)
    engine.store.sync()
    engine.notary.accept_cut(lost)
    with engine.read() as reader:
        row = reader.row(found.kept)
    cut = read_cut(parse(row[1])) if row is not None else None
    if cut is None:
        raise AuditError(f"entry {found.kept} does not say what it was written to say; verify the log")
    return cut


def _begun(reader: Reader, signed: str) -> Cut | None:
    """The cut that the last entry speaks of, if the signer, who signed `signed` last, has not gone on from it yet."""
    row = reader.row(reader.head.size - 1)
    cut = read_cut(parse(row[1])) if row is not None else None
    return cut if cut is not None and cut.checkpoint == signed else None
