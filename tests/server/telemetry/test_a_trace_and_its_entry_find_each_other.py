"""Spans name actions, entries name traces; where nobody traces, nothing of it is there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from agentlattice_core import AgentLattice
from agentlattice_core.toolcalls import Denial, Permit, ToolCall, ToolGate
from agentlattice_server.telemetry import Tracing

POLICIES = """\
version: 1
policies:
  - {name: Notes, action: tool.note, effect: allow}
  - {name: Secrets, action: tool.secret, effect: deny}
"""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AgentLattice]:
    (tmp_path / "policies.yaml").write_text(POLICIES)
    with AgentLattice.embedded(
        tmp_path / "governance.db", agent="worker", policies=tmp_path / "policies.yaml"
    ) as client:
        yield client


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Whatever is traced while a test runs."""
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # The API lets a process set its provider once; a test puts it back.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


def context_of(log: AgentLattice, audit_event_id: str) -> dict[str, Any]:
    with log._engine.read() as reader:
        row = reader.row(int(audit_event_id[4:16], 16))
    assert row is not None
    assert row[4] is not None
    found: dict[str, Any] = orjson.loads(row[4]).get("context", {})
    return found


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def check_both_ways(log: AgentLattice, span: ReadableSpan) -> None:
    context = context_of(log, said(span)["al.audit_event_id"])
    assert span.context is not None
    assert context["trace_id"] == format(span.context.trace_id, "032x")
    assert context["span_id"] == format(span.context.span_id, "016x")


def test_a_permitted_call_is_a_span_until_its_outcome(log: AgentLattice, spans: InMemorySpanExporter) -> None:
    """The span names tool, call, agent, conversation, action and outcome, and no argument."""
    call = ToolCall("test", "note", {"text": "pl4nted"}, call_id="c1", run="r1")
    permit = ToolGate(log).authorize_sync(call)
    assert isinstance(permit, Permit)
    assert spans.get_finished_spans() == ()
    permit.succeeded()
    (span,) = spans.get_finished_spans()
    assert span.name == "execute_tool note"
    assert said(span) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "note",
        "gen_ai.tool.call.id": "c1",
        "gen_ai.agent.name": "worker",
        "gen_ai.conversation.id": "r1",
        "al.framework": "test",
        "al.decision": "executed",
        "al.policy": "Notes",
        "al.audit_event_id": permit.action_id,
        "al.outcome": "succeeded",
    }
    check_both_ways(log, span)


async def test_a_denied_call_is_a_span_with_its_reason(
    log: AgentLattice, spans: InMemorySpanExporter
) -> None:
    """It ends with the denial, from a coroutine too."""
    denial = await ToolGate(log).authorize(ToolCall("test", "secret", {}))
    assert isinstance(denial, Denial)
    (span,) = spans.get_finished_spans()
    assert said(span)["error.type"] == "POLICY_DENIED"
    assert said(span)["al.decision"] == "denied"
    check_both_ways(log, span)


def test_a_tool_that_fails_names_its_error_and_not_its_text(
    log: AgentLattice, spans: InMemorySpanExporter
) -> None:
    """What an error says may hold anything."""
    permit = ToolGate(log).authorize_sync(ToolCall("test", "note", {}))
    assert isinstance(permit, Permit)
    permit.failed(ValueError("pl4nted"))
    (span,) = spans.get_finished_spans()
    assert said(span)["error.type"] == "ValueError"
    assert "pl4nted" not in repr(said(span))


def test_an_action_in_a_span_names_it(log: AgentLattice, spans: InMemorySpanExporter) -> None:
    """Whoever calls `execute` in a span of their own finds the entry from it, and nothing without one."""
    with trace.get_tracer("app").start_as_current_span("work") as span:
        traced = log.execute_sync("tool.note")
    context = context_of(log, traced.audit_event_id)
    assert context["trace_id"] == format(span.get_span_context().trace_id, "032x")
    assert context_of(log, log.execute_sync("tool.note").audit_event_id) == {}


def test_a_request_goes_on_with_its_callers_trace(log: AgentLattice, spans: InMemorySpanExporter) -> None:
    """The entry that a request makes names the trace of whoever sent it; addresses and keys stay out of the span."""

    async def act(request: Request) -> Response:
        result = await log.execute("tool.note")
        return JSONResponse({"id": result.audit_event_id}, 503 if "fail" in request.url.query else 200)

    app = Starlette(routes=[Route("/things/{thing}", act)])
    http = TestClient(Tracing(app))
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01", "authorization": "Bearer pl4nted"}
    acted = http.get("/things/th1ng?apikey=pl4nted&fail", headers=headers).json()["id"]
    (span,) = spans.get_finished_spans()
    assert context_of(log, acted)["trace_id"] == trace_id
    assert said(span)["http.response.status_code"] == 503
    assert "pl4nted" not in repr((span.name, said(span)))
    assert "th1ng" not in repr((span.name, said(span)))


def test_nothing_is_imported_where_nobody_traces() -> None:
    """The core runs without OpenTelemetry, and does not bring it."""
    program = (
        "import sys, agentlattice_core, agentlattice_core.toolcalls\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
        "from agentlattice_core.tracing import current_trace, with_trace\n"
        "assert current_trace() == {} and with_trace(None) is None\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
