"""A node of its own process: delivers for a log until it is ended. Prints `ready` once it does."""

from __future__ import annotations

import sys
import time

from agentlattice_core import AgentLattice
from agentlattice_server.webhooks.addresses import Reach
from agentlattice_server.webhooks.deliverer import Deliverer
from agentlattice_server.webhooks.sealing import SealingKey

if __name__ == "__main__":
    path, node = sys.argv[1:]
    with AgentLattice.embedded(path, operator="ana", role="admin") as client:
        deliverer = Deliverer(client._engine, SealingKey(f"{path}.webhooks"), Reach(loopback=True), node=node)
        deliverer.start()
        print("ready", flush=True)
        time.sleep(600)
