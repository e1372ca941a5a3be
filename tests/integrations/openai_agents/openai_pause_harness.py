"""The OpenAI Agents SDK behind the pause contract: a run that ends with interruptions, and its saved state."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

os.environ.pop("OPENAI_AGENTS_DISABLE_TRACING", None)

from agents import Agent, RunConfig, Runner, RunState, function_tool
from agents.tracing import set_trace_processors
from openai_scripted import ScriptedModel, call

from agentlattice_integrations.contract import PausedAgent, PauseHarness, Resumed, ScriptedCall
from agentlattice_integrations.openai_agents import apply_decisions, govern

__all__ = ["RunPauses"]

set_trace_processors([])  # tracing names the run and must be on; nothing leaves this machine


class RunPauses(PauseHarness):
    """A governed agent, run by `Runner.run`."""

    name = "openai-agents"
    where_no_pause = "waits"

    def pause(self, agent: PausedAgent) -> object:
        governed = _agent(agent, _model_of(agent), {"on_approval": "pause"})
        result = asyncio.run(Runner.run(governed, "go"))
        asked = {item.raw_item.call_id for item in result.interruptions}
        assert asked == {made.call_id for made in agent.calls}
        state = result.to_state()
        (agent.folder / "state.json").write_text(state.to_string(), encoding="utf-8")
        return governed, state

    def resume(self, agent: PausedAgent, paused: Any, edits: Mapping[str, str]) -> Resumed:
        assert not edits
        return asyncio.run(self._resume(agent, paused))

    async def _resume(self, agent: PausedAgent, paused: tuple[Agent[Any], RunState[Any]] | None) -> Resumed:
        if paused is None:
            governed = _agent(agent, ScriptedModel(), {"on_approval": "pause"})
            saved = (agent.folder / "state.json").read_text(encoding="utf-8")
            state: RunState[Any] = await RunState.from_string(governed, saved)
        else:
            governed, state = paused
        await apply_decisions(state)
        result = await Runner.run(governed, state)
        (agent.folder / "state.json").write_text(result.to_state().to_string(), encoding="utf-8")
        waiting = frozenset(str(item.raw_item.call_id) for item in result.interruptions)
        return Resumed({} if waiting else _shown(governed.model), waiting)

    def run_without_pause(self, agent: PausedAgent, options: Mapping[str, Any]) -> Resumed:
        """Without a trace a call has no name that another process could find it by."""
        governed = _agent(agent, _model_of(agent), options)
        asyncio.run(Runner.run(governed, "go", run_config=RunConfig(tracing_disabled=True)))
        return Resumed(_shown(governed.model))


def _agent(agent: PausedAgent, model: ScriptedModel, options: Mapping[str, Any]) -> Agent[Any]:
    tools = [function_tool(function) for function in agent.functions()]
    return govern(Agent(name="main", tools=list(tools), model=model), agent.client, **options)


def _model_of(agent: PausedAgent) -> ScriptedModel:
    return ScriptedModel([_call(agent.free_call)], [_call(made) for made in agent.calls])


def _call(made: ScriptedCall) -> Any:
    return call(made.tool, dict(made.arguments), call_id=made.call_id)  # type: ignore[arg-type]


def _shown(model: Any) -> dict[str, str]:
    return {
        item["call_id"]: str(item["output"])
        for item in model.inputs[-1]
        if isinstance(item, dict) and item.get("type") == "function_call_output"
    }
