"""Metrics say what happened, and the dashboard asks for metrics that there are."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from starlette.testclient import TestClient

from agentlattice_core import AgentLattice
from agentlattice_core.webhooks import Attempt
from agentlattice_server.metrics import Metrics, MetricsApp
from agentlattice_server.telemetry import OpenTelemetryMeter
from agentlattice_server.webhooks.sealing import SealingKey
from agentlattice_server.webhooks.subscribing import Subscriptions

POLICIES = """\
version: 1
policies:
  - {name: Notes, action: note.write, effect: allow}
  - {name: Secrets, action: secret.read, effect: deny}
  - {name: Deploys, action: deploy, effect: require_approval}
"""
DASHBOARD = Path(__file__).parents[3] / "deploy" / "grafana" / "agentlattice.json"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AgentLattice]:
    (tmp_path / "policies.yaml").write_text(POLICIES)
    with AgentLattice.embedded(
        tmp_path / "governance.db", agent="worker", policies=tmp_path / "policies.yaml"
    ) as client:
        yield client


@pytest.fixture
def metrics(log: AgentLattice) -> Iterator[Metrics]:
    """Measuring a log that has one webhook, which was told of something."""
    made = Metrics(lambda: [log._engine])
    log._engine.measure(made)
    admin = log.for_operator("ana", role="admin")
    assert admin._operator is not None
    desk = Subscriptions(log._engine, SealingKey(Path(f"{log._engine.store.path}.hooks")), admin._operator)  # type: ignore[attr-defined]
    hook, _ = desk.add("pager", "https://hooks.example.com/x")
    made.attempted(hook, Attempt(1, 1, "2026-03-02T09:00:00.000000Z", "delivered", 20, 200))
    yield made
    admin.close()


def scraped(metrics: Metrics, token: str | None = None, **headers: str) -> str:
    answer = TestClient(MetricsApp(metrics, token)).get("/metrics", headers=headers)
    assert answer.status_code == 200
    return answer.text


def value(text: str, name: str) -> float:
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.rsplit(" ", 1)[1])


def test_actions_are_counted_by_outcome_once(log: AgentLattice, metrics: Metrics) -> None:
    """Each answer once; one that was given before is not another action."""
    for number in range(3):
        log.execute_sync("note.write", event_id=f"e{number}")
    log.execute_sync("note.write", event_id="e0")
    log.execute_sync("secret.read")
    log.execute_sync("deploy")
    text = scraped(metrics)
    assert value(text, 'al_actions_total{outcome="executed",reason=""}') == 3
    assert value(text, 'al_actions_total{outcome="denied",reason="POLICY_DENIED"}') == 1
    assert value(text, 'al_actions_total{outcome="requested",reason=""}') == 1
    assert value(text, "al_decision_seconds_count") == 6
    assert value(text, "al_approvals_pending") == 1
    assert value(text, "al_commit_batch_size_count") >= 6
    assert value(text, 'al_webhook_attempts_total{outcome="delivered",webhook="pager"}') == 1


async def test_a_batch_of_many_is_one_commit(log: AgentLattice, metrics: Metrics) -> None:
    """Sixty-four callers at once share commits, and the histogram says how many."""
    before = value(scraped(metrics), "al_commit_batch_size_count")
    await asyncio.gather(*(log.execute("note.write") for _ in range(64)))
    text = await asyncio.to_thread(scraped, metrics)
    assert value(text, "al_commit_batch_size_count") - before < 64
    assert value(text, 'al_actions_total{outcome="executed",reason=""}') == 64


def test_a_meter_that_fails_harms_nobody(log: AgentLattice, caplog: pytest.LogCaptureFixture) -> None:
    """The answer comes, and the failure is said."""

    class Broken:
        def batch(self, measured: object) -> None:
            raise RuntimeError("full")

    log._engine.measure(Broken())
    assert log.execute_sync("note.write").status == "executed"
    assert "could not be measured" in caplog.text


def test_metrics_may_take_a_token(metrics: Metrics) -> None:
    """Without it, 401 and no number; with it, everything; nothing but GET and HEAD."""
    client = TestClient(MetricsApp(metrics, "s3cret"))
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert "al_queue_length" in scraped(metrics, "s3cret", authorization="Bearer s3cret")
    assert client.post("/metrics", headers={"authorization": "Bearer s3cret"}).status_code == 405


def test_the_dashboard_asks_for_metrics_that_there_are(log: AgentLattice, metrics: Metrics) -> None:
    """Each name in a query is one that a scrape has, and each metric that a scrape has is on the dashboard."""
    log.execute_sync("secret.read")
    text = scraped(metrics)
    series = {re.split(r"[{ ]", line)[0] for line in text.splitlines() if line.startswith("al_")}
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = set(re.findall(r"\bal_[a-z_]+", " ".join(queries)))
    assert asked <= series
    families = {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in series}
    assert families == {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in asked}
    groups = re.findall(r"by \(([^)]*)\)", " ".join(queries))
    labels = {label for group in groups for label in group.split(", ")}
    known = set(re.findall(r'[{,]([a-z]+)="', text)) | {"instance"}
    assert labels <= known


def test_open_telemetry_gets_the_same(log: AgentLattice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted through the API, read back from a provider."""
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    reader = InMemoryMetricReader()
    log._engine.measure(OpenTelemetryMeter(MeterProvider([reader])))
    log.execute_sync("note.write")
    log.execute_sync("secret.read")
    data = reader.get_metrics_data()
    assert data is not None
    found = {
        metric.name: metric.data.data_points
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    counted = {point.attributes["al.decision"]: point.value for point in found["al.actions"]}  # type: ignore[index,union-attr]
    assert counted == {"executed": 1, "denied": 1}
    assert found["al.decision.duration"][0].count == 2  # type: ignore[union-attr]
