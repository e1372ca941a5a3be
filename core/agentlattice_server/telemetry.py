"""OpenTelemetry for the service: a span for each request, and the measures, by the API alone.

- Without a set-up provider the API does nothing, and nothing is sent anywhere. `set_up` makes one that exports by OTLP
  to where the standard variables say (`OTEL_EXPORTER_OTLP_ENDPOINT`); without that variable it does nothing.
- A request's span goes on from the caller's `traceparent`, and is current while it is served: entries that are made in
  it name its trace.
- The path in a span is the route's, not the address's: addresses hold ids, and a query may hold a key.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Awaitable, Callable, MutableMapping
from importlib.metadata import version
from typing import Any

from opentelemetry import metrics, propagate, trace

from agentlattice_core.errors import AgentLatticeError
from agentlattice_core.metering import Measured
from agentlattice_core.results import ActionResult
from agentlattice_core.webhooks import Attempt, Webhook

__all__ = ["OpenTelemetryMeter", "Tracing", "set_up"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SOURCE = "agentlattice"
_SILENT = (trace.ProxyTracerProvider, trace.NoOpTracerProvider)
_QUIET = ("/healthz", "/readyz", "/metrics")


class OpenTelemetryMeter:
    """The measures of `metrics.Metrics`, under OpenTelemetry's rules of naming."""

    def __init__(self, provider: metrics.MeterProvider | None = None) -> None:
        """`provider` stands in for the process's own."""
        meter = metrics.get_meter(_SOURCE, meter_provider=provider)
        self._actions = meter.create_counter("al.actions", "{action}", "Actions answered, by outcome")
        self._decision = meter.create_histogram(
            "al.decision.duration", "s", "From asking to the durable answer"
        )
        self._batch = meter.create_histogram(
            "al.commit.batch.size", "{command}", "Commands in one transaction"
        )
        self._lost = meter.create_counter(
            "al.not_recorded", "{command}", "Commands that could not be recorded"
        )
        self._attempts = meter.create_counter("al.webhook.attempts", "{attempt}", "Attempts to deliver")

    def batch(self, measured: Measured) -> None:
        """Count a batch."""
        self._batch.record(len(measured.answers) + measured.not_recorded)
        if measured.not_recorded:
            self._lost.add(measured.not_recorded)
        for result, seconds in measured.answers:
            if isinstance(result, ActionResult):
                self._decision.record(seconds)
                if not result.replayed:
                    said = {"al.decision": result.status}
                    if result.denial_reason is not None:
                        said["error.type"] = result.denial_reason
                    self._actions.add(1, said)

    def attempted(self, webhook: Webhook, attempt: Attempt) -> None:
        """Count an attempt to deliver."""
        self._attempts.add(1, {"al.webhook": webhook.name, "al.outcome": attempt.outcome})


class Tracing:
    """ASGI middleware: a span for each request."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._tracer = trace.get_tracer(_SOURCE)
        self._carrying = frozenset(name.encode() for name in propagate.get_global_textmap().fields)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _QUIET or not self._traced(scope):
            await self._app(scope, receive, send)
            return
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        context = propagate.extract(carrier)
        method = scope["method"]
        with self._tracer.start_as_current_span(
            method,
            context,
            trace.SpanKind.SERVER,
            {"http.request.method": method},
            record_exception=False,
        ) as span:

            async def told(message: MutableMapping[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    span.set_attribute("http.response.status_code", status)
                    if status >= 500:
                        span.set_attribute("error.type", str(status))
                        span.set_status(trace.StatusCode.ERROR)
                    route = _route(scope)
                    if route is not None:
                        span.update_name(f"{method} {route}")
                        span.set_attribute("http.route", route)
                await send(message)

            await self._app(scope, receive, told)

    def _traced(self, scope: Scope) -> bool:
        """Whether anybody would see the span: an exporter, or a caller whose trace the entries are to name."""
        return not isinstance(trace.get_tracer_provider(), _SILENT) or any(
            name in self._carrying for name, _ in scope["headers"]
        )


def _route(scope: Scope) -> str | None:
    """The pattern that the request's address matched."""
    known = scope.get("al.endpoint") or getattr(scope.get("route"), "path", None)
    return known if isinstance(known, str) else None


def set_up(service: str = "agentlattice") -> bool:
    """Export spans and measures to `OTEL_EXPORTER_OTLP_ENDPOINT`; False if that is not set.

    Raises AgentLatticeError if the exporter is not installed.
    """
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return False
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    try:
        spans = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        measures = importlib.import_module("opentelemetry.exporter.otlp.proto.http.metric_exporter")
    except ModuleNotFoundError:
        raise AgentLatticeError(
            "NOT_INSTALLED",
            "exporting telemetry needs `pip install opentelemetry-exporter-otlp-proto-http`; "
            "or unset OTEL_EXPORTER_OTLP_ENDPOINT",
        ) from None
    said = {"service.name": service, "service.version": version("agentlattice-integrations")}
    resource = Resource.create({**said, **_named()})
    tracing = TracerProvider(resource=resource)
    tracing.add_span_processor(BatchSpanProcessor(spans.OTLPSpanExporter()))
    trace.set_tracer_provider(tracing)
    reader = PeriodicExportingMetricReader(measures.OTLPMetricExporter())
    metrics.set_meter_provider(MeterProvider([reader], resource=resource))
    return True


def _named() -> dict[str, str]:
    """What whoever runs the service calls it."""
    name = os.environ.get("OTEL_SERVICE_NAME")
    return {"service.name": name} if name else {}
