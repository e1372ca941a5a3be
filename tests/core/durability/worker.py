"""A process that acts until it is killed, and tells its parent, by a pipe, what it was answered and what it ran.

python worker.py DATABASE POLICIES PIPE FIRST THREADS
"""

from __future__ import annotations

import itertools
import os
import sys
import threading

from agentlattice_core import AgentLattice


def main() -> None:
    database, policies, pipe, first, threads = sys.argv[1:]
    descriptor = int(pipe)
    numbers = itertools.count(int(first))

    def tell(*words: object) -> None:
        os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())

    al = AgentLattice.embedded(database, policies=policies, agent="ci")
    operator = al.for_operator("k.chen")

    def act(number: int) -> None:
        result = al.execute_sync("refund.issue", amount="1", currency="EUR", event_id=f"event-{number}")
        tell("answered", number, result.audit_event_id, result.status)
        if result.status == "executed" and not result.replayed:
            tell("ran", number)
            al.record_outcome(result.audit_event_id, "succeeded")
        if number % 4:
            return
        asked = al.execute_sync("deploy.production", event_id=f"deploy-{number}")
        if not asked.replayed:
            assert asked.approval_id is not None
            operator.approve_action_sync(asked.approval_id)
            tell("approved", number, asked.audit_event_id)
        elif asked.claim is not None:
            return
        claimed = al.claim_sync(asked.audit_event_id)
        if claimed.claim == "started":
            tell("deployed", number)

    def work() -> None:
        while True:
            act(next(numbers))

    tell("ready", os.getpid())
    workers = [threading.Thread(target=work, daemon=True) for _ in range(int(threads))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
