"""LangGraph behind the pause contract: agents of `create_agent`, and a graph of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from langchain_core.tools import tool
from langgraph_pausing import FORMS, Thread
from langgraph_saver import FileSaver
from langgraph_scripted import ScriptedModel, asking, call

from agentlattice_integrations.contract import PausedAgent, PauseHarness, Resumed, ScriptedCall

__all__ = ["MiddlewarePauses", "NodePauses", "ToolsPauses"]


class _Pauses(PauseHarness):
    """One form of governing, run by `invoke` or by `ainvoke`."""

    name = "langgraph"
    edits = True
    where_no_pause = "refuses"
    form: ClassVar[str]
    how: ClassVar[str]

    def _thread(
        self, agent: PausedAgent, model: ScriptedModel, saver: Any, options: Mapping[str, Any]
    ) -> Thread:
        tools = [tool(function) for function in agent.functions()]
        graph = FORMS[self.form](agent.client, model, tools, saver, dict(options))
        return Thread(graph, agent.name, self.how)

    def _saved(self, agent: PausedAgent, model: ScriptedModel) -> Thread:
        return self._thread(agent, model, FileSaver(agent.folder / "graph"), {"on_approval": "pause"})

    def pause(self, agent: PausedAgent) -> object:
        thread = self._saved(agent, _model_of(agent)).go()
        assert set(thread.paused) == {made.call_id for made in agent.calls}
        return thread

    def resume(self, agent: PausedAgent, paused: object | None, edits: Mapping[str, str]) -> Resumed:
        thread = paused if isinstance(paused, Thread) else self._saved(agent, ScriptedModel())
        answers: dict[str, Any] = dict.fromkeys(thread.paused, "go on")
        for version, edited in edits.items():
            action = {"name": "deploy", "args": {"version": edited}}
            answers[f"call-{version}"] = {"decisions": [{"type": "edit", "edited_action": action}]}
        thread.answer_each(answers)
        return Resumed(thread.answers, frozenset(thread.paused))

    def run_without_pause(self, agent: PausedAgent, options: Mapping[str, Any]) -> Resumed:
        return Resumed(self._thread(agent, _model_of(agent), None, options).go().answers)


class MiddlewarePauses(_Pauses):
    """`create_agent(..., middleware=[GovernanceMiddleware(al)])`."""

    form = "middleware"
    how = "sync"


class ToolsPauses(_Pauses):
    """`create_agent(model, govern(tools, al))`."""

    form = "tools"
    how = "sync"


class NodePauses(_Pauses):
    """`governed_tool_node(tools, al)` in a graph of one's own, on an event loop."""

    form = "node"
    how = "async"


def _model_of(agent: PausedAgent) -> ScriptedModel:
    return ScriptedModel(asking(_call(agent.free_call)), asking(*map(_call, agent.calls)))


def _call(made: ScriptedCall) -> dict[str, Any]:
    assert isinstance(made.arguments, Mapping)
    return call(made.tool, made.call_id, **made.arguments)
