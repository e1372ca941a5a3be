"""A running service and those who call it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import agentlattice as hosted
import httpx
import orjson
from typer.testing import Result

from agentlattice_core.client import AgentLattice
from agentlattice_core.engine import Engine
from agentlattice_core.principals import Operator
from agentlattice_core.session import PolicyText
from agentlattice_server import (
    Organisations,
    OutwardSettings,
    Service,
    ServiceSettings,
    create_app,
    listen,
)
from agentlattice_server.bootstrap import BOOTSTRAP, FirstKeys, first_keys
from agentlattice_server.webhooks.addresses import Reach
from agentlattice_server.webhooks.sealing import SealingKey

__all__ = [
    "METRICS_TOKEN",
    "POLICIES",
    "PROGRAM",
    "Al",
    "ServiceWorld",
    "al_serve",
    "outward_settings",
    "running",
    "said",
]

METRICS_TOKEN = "scraper-token"
PROGRAM = "from agentlattice_cli.main import main; main()"
"""`al`, for `python -c`."""

Al = Callable[..., Result]
"""`al` with arguments, and with `input` on its standard input."""


def said(result: Result) -> Any:
    """The document that a command printed, which did what it was asked."""
    assert result.exit_code == 0, result.output
    return orjson.loads(result.stdout)


POLICIES = """
version: 1
policies:
  - {name: PR Size, action: pr.open, effect: allow, conditions: [{field: pr_size, operator: lt, value: 50}]}
  - {name: Merges, action: pr.merge, effect: require_approval}
  - {name: Reading, action: read_data, effect: allow}
  - {name: Writing, action: write_results, effect: allow}
  - {name: Secrets, action: secret.read, effect: deny}
  - name: Refunds
    action: refund.issue
    effect: allow
    rules:
      - {priority: 10, type: DAILY_CAP, cap: "100.00", currency: EUR, per: agent, timezone: UTC, effect: REJECT}
"""


@dataclass
class ServiceWorld:
    """A service at `url`, with the keys of whoever started it. `organisations` is what it serves."""

    url: str
    keys: FirstKeys
    organisations: Organisations
    service: Service
    _http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self._http = httpx.Client(base_url=self.url, timeout=60)  # one for all calls: each reads certificates

    @property
    def engine(self) -> Engine:
        """The engine of the first organisation."""
        return self.organisations.first

    @property
    def org_id(self) -> str:
        """The id of the first organisation."""
        return self.engine.store.log_id

    def call(self, key: str | None, method: str, path: str, json: Any = None, **more: Any) -> httpx.Response:
        """One call, with a key or none."""
        headers = {
            **({"Authorization": f"Bearer {key}"} if key is not None else {}),
            **more.pop("headers", {}),
        }
        return self._http.request(method, path, json=json, headers=headers, **more)

    def as_operator(self, method: str, path: str, json: Any = None, **more: Any) -> httpx.Response:
        """A call of the first administrator."""
        return self.call(self.keys.operator_key, method, path, json, **more)

    def as_service(self, method: str, path: str, json: Any = None, **more: Any) -> httpx.Response:
        """A call with the first service key."""
        return self.call(self.keys.service_key, method, path, json, **more)

    def new_agent(self, name: str = "bot", **said: Any) -> str:
        """Register an agent; its key."""
        answer = self.as_service("POST", "/api/agents/register", {"name": name, **said})
        assert answer.status_code == 201, answer.text
        key: str = answer.json()["api_key"]
        return key

    def new_operator(self, name: str, role: str = "member", **said: Any) -> str:
        """Register a person; their key."""
        answer = self.as_operator("POST", "/api/v1/operators", {"name": name, "role": role, **said})
        assert answer.status_code == 200, answer.text
        issued = self.as_operator("POST", "/api/v1/keys", {"kind": "operator", "holder": name})
        assert issued.status_code == 201, issued.text
        text: str = issued.json()["text"]
        return text

    def hosted(self, key: str | None = None, **more: Any) -> hosted.AgentLattice:
        """The hosted product's client, unmodified."""
        more.setdefault("gate_poll_interval_ms", 50)
        return hosted.AgentLattice(key or self.new_agent(), base_url=self.url, **more)

    def decide(self, approval_id: str, verdict: str, **said: Any) -> None:
        """Have the administrator decide."""
        answer = self.as_operator("POST", f"/api/v1/approvals/{approval_id}/{verdict}", said)
        assert answer.status_code == 200, answer.text

    def close(self) -> None:
        self._http.close()


def outward_settings(directory: Path) -> OutwardSettings:
    """Webhooks that reach this machine too, sealed with a key in `directory`, and metrics for `METRICS_TOKEN`."""
    return OutwardSettings(SealingKey(directory / "webhook-key"), Reach(loopback=True), METRICS_TOKEN)


@contextmanager
def running(
    database: str, settings: ServiceSettings | None = None, policies: str = POLICIES
) -> Iterator[ServiceWorld]:
    """A service on a free port, in a thread, until the block ends."""
    organisations = Organisations(database)
    keys = first_keys(organisations.first, even_if_there_are=True)
    assert keys is not None
    if policies:
        AgentLattice.over(organisations.first, Operator(BOOTSTRAP, "admin")).apply_policies_sync(
            PolicyText("policies.yaml", policies)
        )
    service = Service(create_app(organisations, settings or ServiceSettings(0)), listen("127.0.0.1", 0))
    started, failures = threading.Event(), []

    def run() -> None:
        try:
            service.run(started.set)
        except BaseException as error:
            failures.append(error)
            started.set()

    thread = threading.Thread(target=run, name="service")
    thread.start()
    try:
        assert started.wait(60)
        assert not failures, failures
        world = ServiceWorld(service.url, keys, organisations, service)
        yield world
        world.close()
    finally:
        service.stop()
        thread.join(60)
    assert not thread.is_alive()
    assert not failures, failures


@contextmanager
def al_serve(
    directory: Path, *arguments: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """`al serve` in a directory, and the lines that it printed until it served; its logs are in the file `err`."""
    with (directory / "err").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "serve", "--port", "0", *arguments],
            cwd=directory,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        assert lines[0].startswith("serving"), (directory / "err").read_text()
        yield process, lines
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()
