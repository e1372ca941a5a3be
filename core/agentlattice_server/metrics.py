"""What the service measures, for Prometheus.

- Counters and histograms are of this process: sum them over the nodes. What is asked of the log when it is scraped
  (`al_approvals_pending`, `al_log_entries`, `al_webhook_waiting`) is the same on every node: take the maximum.
- Labels are few and known: no agent, no action type, no id, and nothing that anybody wrote but a webhook's name.
- `/metrics` tells nothing secret, but how much happens; give it a token, or let only the scraper reach it.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from agentlattice_core import webhooks
from agentlattice_core.engine import Engine
from agentlattice_core.errors import AgentLatticeError
from agentlattice_core.metering import Measured
from agentlattice_core.results import ActionResult
from agentlattice_core.webhooks import Attempt, Webhook

__all__ = ["Metrics", "MetricsApp"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_FRESH = 2.0  # seconds that what was asked of the log is good for, however many scrape


class Metrics:
    """The measures of one process. It is a `Meter` of each of its engines, and observes its deliverers."""

    def __init__(self, engines: Callable[[], Iterable[Engine]] = tuple) -> None:
        """`engines` are those that are open when somebody asks."""
        self.registry = CollectorRegistry()
        self._actions = Counter(
            "al_actions", "Actions answered, by outcome", ["outcome", "reason"], registry=self.registry
        )
        self._decision = Histogram(
            "al_decision_seconds",
            "From asking to the durable answer",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch = Histogram(
            "al_commit_batch_size", "Commands in one transaction", buckets=_SIZES, registry=self.registry
        )
        self._lost = Counter(
            "al_not_recorded", "Commands refused because they could not be recorded", registry=self.registry
        )
        self._attempts = Counter(
            "al_webhook_attempts", "Attempts to deliver", ["webhook", "outcome"], registry=self.registry
        )
        self._took = Histogram(
            "al_webhook_attempt_seconds", "How long one took", buckets=_SECONDS, registry=self.registry
        )
        self.registry.register(_Asked(engines))

    def batch(self, measured: Measured) -> None:
        """Count a batch."""
        self._batch.observe(len(measured.answers) + measured.not_recorded)
        if measured.not_recorded:
            self._lost.inc(measured.not_recorded)
        for result, seconds in measured.answers:
            if isinstance(result, ActionResult):
                self._decision.observe(seconds)
                if not result.replayed:
                    self._actions.labels(result.status, result.denial_reason or "").inc()

    def attempted(self, webhook: Webhook, attempt: Attempt) -> None:
        """Count an attempt to deliver."""
        self._attempts.labels(webhook.name, attempt.outcome).inc()
        self._took.observe(attempt.milliseconds / 1000)


class _Asked(Collector):
    """What is asked of engines and their logs when somebody scrapes."""

    def __init__(self, engines: Callable[[], Iterable[Engine]]) -> None:
        self._engines = engines
        self._known: tuple[float, list[Metric]] | None = None

    def collect(self) -> Iterator[Metric]:
        """The gauges, at most two seconds old."""
        now = time.monotonic()
        if self._known is None or now - self._known[0] > _FRESH:
            self._known = (now, self._ask())
        yield from self._known[1]

    def _ask(self) -> list[Metric]:
        pending = entries = waiting = queued = alarms = disabled = unreadable = unsigned = 0
        for engine in self._engines():
            queued += engine.waiting
            alarms += engine.notary.alarm is not None
            unsigned += engine.unsigned
            try:
                with engine.read() as reader:
                    entries += reader.head.size
                    pending += sum(1 for _ in reader.scan("pending"))
                    for hook in webhooks.webhooks(reader):
                        waiting += len(hook.retries)
                        disabled += not hook.active
            except AgentLatticeError:
                unreadable += 1
        said = (
            ("al_queue_length", "Commands that wait to be recorded", queued),
            ("al_approvals_pending", "Requests that wait for a person", pending),
            ("al_log_entries", "Entries in the logs", entries),
            ("al_webhook_waiting", "Messages that failed and wait to be tried again", waiting),
            ("al_webhooks_inactive", "Webhooks that are paused or disabled", disabled),
            ("al_log_alarms", "Logs that are not what was signed, in which nothing is recorded", alarms),
            (
                "al_logs_unsigned",
                "Logs whose key service does not sign, so that entries wait for it",
                unsigned,
            ),
            ("al_logs_unreadable", "Logs that could not be read", unreadable),
        )
        return [GaugeMetricFamily(name, text, value=value) for name, text, value in said]


class MetricsApp:
    """An ASGI application that answers GET with what was measured, to whoever has the `token` if there is one."""

    def __init__(self, metrics: Metrics, token: str | None = None) -> None:
        self._metrics = metrics
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        status, kind, body = 200, CONTENT_TYPE_LATEST, b""
        if scope["method"] not in ("GET", "HEAD"):
            status, kind = 405, "text/plain"
        elif self._token is not None and not _has(self._token, scope):
            status, kind = 401, "text/plain"
        else:
            body = await asyncio.to_thread(generate_latest, self._metrics.registry)
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _has(token: str, scope: Scope) -> bool:
    given = dict(scope["headers"]).get(b"authorization", b"")
    return hmac.compare_digest(given, b"Bearer " + token.encode())
