"""Rotating the key that signs the log.

- The log records who had it done, why, and the statement by which the old key names the new one, before that one signs.
- A crash at any moment leaves one key in use, and a log that says which; opening it again finishes what was recorded.
"""

from __future__ import annotations

from collections.abc import Callable

from agentlattice_core.audit.canonical import dumps_payload
from agentlattice_core.audit.keys import KEY_ROTATED
from agentlattice_core.audit.note import VerifierKey
from agentlattice_core.batch import Batch
from agentlattice_core.engine import Engine
from agentlattice_core.errors import ForbiddenError, InvalidRequestError
from agentlattice_core.operators import operator_identity
from agentlattice_core.principals import Operator

__all__ = ["rotate_key"]


def rotate_key(engine: Engine, operator: Operator, reason: str, to: str | None = None) -> VerifierKey:
    """Let a new key sign the log from now on; its public side. For administrators.

    `to` is the address of a key in a key service, of which the newest version is taken, or `file`; by default where the
    key is that signs now.

    Raises ForbiddenError, InvalidRequestError without a reason, AuditError if the log is not the one that was signed or
    somebody else rotates at the same time, NotRecordedError, StoreError if the key's files cannot be written, and
    KeyServiceError if a key service does not sign; what the log names by then is finished when it is opened next.
    """
    if operator.role != "admin":
        raise ForbiddenError(
            f"`{operator.name}` is a {operator.role}, and rotating the key takes an administrator"
        )
    if not reason.strip():
        raise InvalidRequestError("rotating the key is recorded with its reason; say why")

    def record(new: VerifierKey, statement: str, check: Callable[[], None]) -> None:
        def command(batch: Batch) -> None:
            check()
            batch.record(
                "log",
                operator_identity(operator),
                {"event": KEY_ROTATED, "key": new.format(), "statement": statement},
                payload=dumps_payload({"reason": reason}),
            )

        engine.run(command)

    return engine.notary.rotate(record, to)
