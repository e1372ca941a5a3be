"""CrewAI behind the pause contract: a flow whose crew makes the calls, and a crew without a flow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

os.environ["CREWAI_DISABLE_TELEMETRY"] = "true"
os.environ["CREWAI_TRACING_ENABLED"] = "false"
os.environ["CREWAI_DISABLE_VERSION_CHECK"] = "true"
os.environ["OTEL_SDK_DISABLED"] = "true"

from crew_harness import agent_with, crew_of
from crewai.flow import Flow, listen, start
from crewai.flow.async_feedback import HumanFeedbackPending
from crewai.flow.persistence import SQLiteFlowPersistence
from crewai.tools import tool
from scripted_crewai import ScriptedModel

from agentlattice_integrations.contract import PausedAgent, PauseHarness, Resumed
from agentlattice_integrations.crewai import govern

__all__ = ["FlowPauses"]


class _Work(Flow[Any]):
    """One method that names the work, one whose crew does it, and one that reports."""

    agent: Any = None

    @start()
    def choose(self) -> str:
        return str(self.agent.name)

    @listen(choose)
    def work(self, name: str) -> str:
        crew, model = _crew_of(self.agent)
        result = str(crew.kickoff().raw)
        self.state["shown"] = _shown(model)
        return result

    @listen(work)
    def report(self, result: str) -> dict[str, str]:
        return dict(self.state["shown"])


class FlowPauses(PauseHarness):
    """A governed flow, which pauses at the method whose crew made the calls."""

    name = "crewai"
    where_no_pause = "waits"

    def pause(self, agent: PausedAgent) -> object:
        flow = _Work(persistence=_persistence(agent), suppress_flow_events=True, agent=agent)
        paused = govern(flow, agent.client, on_approval="pause").kickoff()
        assert isinstance(paused, HumanFeedbackPending), f"the flow did not pause: {paused}"
        assert len(paused.callback_info["approval_ids"]) == len(agent.calls)
        (agent.folder / "flow.txt").write_text(paused.context.flow_id, encoding="utf-8")
        return paused

    def resume(self, agent: PausedAgent, paused: object | None, edits: Mapping[str, str]) -> Resumed:
        assert not edits
        flow_id = (agent.folder / "flow.txt").read_text(encoding="utf-8")
        flow = _Work.from_pending(flow_id, _persistence(agent), suppress_flow_events=True, agent=agent)
        told = govern(flow, agent.client, on_approval="pause").resume("")
        if isinstance(told, HumanFeedbackPending):
            return Resumed({}, frozenset(made.call_id or "" for made in agent.calls))
        return Resumed(told)

    def run_without_pause(self, agent: PausedAgent, options: Mapping[str, Any]) -> Resumed:
        crew, model = _crew_of(agent)
        govern(crew, agent.client, **options).kickoff()
        return Resumed(_shown(model))


def _crew_of(agent: PausedAgent) -> tuple[Any, ScriptedModel]:
    model = ScriptedModel([[agent.free_call], agent.calls])
    return crew_of(agent_with(model, [tool(function) for function in agent.functions()])), model


def _shown(model: ScriptedModel) -> dict[str, str]:
    return {seen.call_id or "": seen.content for seen in model.shown}


def _persistence(agent: PausedAgent) -> SQLiteFlowPersistence:
    return SQLiteFlowPersistence(str(agent.folder / "flows.db"))
