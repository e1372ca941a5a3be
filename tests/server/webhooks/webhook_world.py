"""What the tests of webhooks share: receivers on real sockets, and a log with something to tell."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from certificates import certificate
from receivers import PATIENCE, Answering, Receiver, receiving, until

from agentlattice_core import AgentLattice
from agentlattice_core.principals import Operator
from agentlattice_core.webhooks import Webhook
from agentlattice_server.webhooks.addresses import Reach
from agentlattice_server.webhooks.deliverer import Deliverer
from agentlattice_server.webhooks.sealing import SealingKey
from agentlattice_server.webhooks.subscribing import Subscriptions

__all__ = [
    "ADMIN",
    "LOOPBACK",
    "PATIENCE",
    "POLICIES",
    "Answering",
    "Receiver",
    "World",
    "certificate",
    "dripping",
    "names",
    "receiving",
    "until",
]

ADMIN = Operator("ana", "admin")
LOOPBACK = Reach(loopback=True)
POLICIES = """\
version: 1
policies:
  - {name: Notes, action: note.write, effect: allow}
  - {name: Secrets, action: secret.read, effect: deny}
  - name: Deploys
    action: deploy.*
    effect: require_approval
    approval:
      timeout: 4h
      escalate_after: 1h
      escalate_to: ["group:oncall", "webhook:pager", "mailto:oncall@acme.test"]
"""


@contextmanager
def dripping(start: bytes, drop: bytes) -> Iterator[str]:
    """The URL of a server that answers with `start` and then `drop`, again and again, without end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            try:
                connection, _ = listening.accept()
                with connection:
                    connection.sendall(start)
                    while True:
                        connection.sendall(drop)
                        time.sleep(0.02)
            except OSError:
                pass  # whoever asked has hung up

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        thread.join(PATIENCE)
        assert not thread.is_alive()


class World:
    """A log with its administrator, its agent and its webhooks."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.path = directory / "governance.db"
        policies = directory / "policies.yaml"
        policies.write_text(POLICIES)
        self.client = AgentLattice.embedded(
            self.path, operator="ana", role="admin", groups=["oncall"], **options
        )
        self.client.apply_policies_sync(policies)
        # Not by the administrator's client, who may not decide on what an agent of theirs asks.
        self.agent = AgentLattice.embedded(self.path, agent="worker", owner="zoe", **options)
        self.engine = self.client._engine
        self.key = SealingKey(f"{self.path}.webhooks")
        self.desk = Subscriptions(self.engine, self.key, ADMIN, LOOPBACK)

    def deliverer(self, **options: Any) -> Deliverer:
        options.setdefault("reach", LOOPBACK)
        options.setdefault("spread", lambda wait: wait)
        return Deliverer(self.engine, self.key, **options)

    def act(self, count: int = 1, action: str = "note.write", **metadata: Any) -> list[str]:
        """Have the agent act; the ids of its actions."""
        return [
            self.agent.execute_sync(action, metadata={"n": number, **metadata}).audit_event_id
            for number in range(count)
        ]

    def hook(self, name: str = "hook") -> Webhook:
        return self.desk.get(name)

    def told(self, name: str = "hook") -> bool:
        """Whether a subscription looked at everything that says something, and waits for nothing."""
        hook = self.hook(name)
        return not hook.retries and not self._missing(hook)

    def _missing(self, hook: Webhook) -> bool:
        with self.engine.read() as reader:
            return any(b'"kind":"action"' in row[1] for row in reader.rows(hook.next))

    def close(self) -> None:
        """Close it, with state that is what the log makes of it."""
        assert self.client.verify_state_sync() == []
        self.agent.close()
        self.client.close()


def names(table: dict[str, Sequence[str]]) -> Callable[[str, int], Sequence[str]]:
    """A resolver that knows the names in `table` and no others."""

    def resolve(host: str, port: int) -> Sequence[str]:
        if host not in table:
            raise OSError("no such host")
        return table[host]

    return resolve
