"""A process of eight threads that spends one unit at a time until told no, and prints how much it was allowed.

python spender.py DATABASE POLICIES MUTANT TRIES
"""

from __future__ import annotations

import sys
import threading
import time
from decimal import Decimal
from typing import Any

from agentlattice_core import AgentLattice, admission


def read_before_the_transaction(al: AgentLattice) -> None:
    """The mutant: a limit that is read outside of the transaction that charges it, as without a lock."""
    remembered: dict[str, tuple[float, Decimal]] = {}

    def usage(batch: Any) -> Any:
        def used(key: str) -> Decimal:
            at, value = remembered.get(key, (0.0, Decimal(0)))
            if time.monotonic() - at > 0.002:
                with al._engine.store.read() as reader:
                    document = reader.get("limit", key)
                value = Decimal(document["used"]) if document else Decimal(0)
                remembered[key] = (time.monotonic(), value)
            return value

        return used

    admission._usage = usage  # type: ignore[assignment]


def main() -> None:
    database, policies, mutant, tries = sys.argv[1:]
    sys.setswitchinterval(1e-6)
    al = AgentLattice.embedded(database, policies=policies, agent="ci")
    if mutant == "mutant":
        read_before_the_transaction(al)
    allowed: list[int] = []

    def work() -> None:
        for _ in range(int(tries)):
            if al.execute_sync("refund.issue", amount="1", currency="EUR").status == "executed":
                allowed.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    al.close()
    print(len(allowed))


if __name__ == "__main__":
    main()
