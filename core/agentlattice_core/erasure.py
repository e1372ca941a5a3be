"""Erasing what may be personal: the arguments, metadata and reasons of chosen entries.

- Only the payload goes; the entry, its place in the chain and every decision stay, and so does all state.
- The erasure is an entry itself: who, why, and which. Verification tells `erased` from `missing` by it.
- The text of policies may not be erased: what was in force must stay provable.
"""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from agentlattice_core.audit.entry import ERASURE, erasure_data
from agentlattice_core.batch import Batch
from agentlattice_core.errors import InvalidRequestError, NotFoundError
from agentlattice_core.operators import operator_identity, require_admin
from agentlattice_core.principals import Operator

__all__ = ["erase"]


def erase(batch: Batch, operator: Operator, indexes: Iterable[int], reason: str) -> int:
    """Erase the payloads of entries by index; how many there were. For administrators.

    Raises ForbiddenError, NotFoundError for an entry that is not there, InvalidRequestError for one that may not be.
    """
    operator = require_admin(batch, operator, "erasing")
    chosen = []
    for index in sorted(set(indexes)):
        row = batch.row(index) if 0 <= index < batch.next_index else None
        if row is None:
            raise NotFoundError(f"there is no entry `{index}`")
        if orjson.loads(row[1])["kind"] == "policy":
            raise InvalidRequestError(f"entry `{index}` holds a policy, which may not be erased")
        if row[4] is not None:
            chosen.append(index)
    if chosen:
        batch.record(
            ERASURE,
            operator_identity(operator),
            erasure_data(chosen),
            payload=orjson.dumps({"reason": reason}) if reason else None,
        )
        for index in chosen:
            batch.erase(index)
    return len(chosen)
