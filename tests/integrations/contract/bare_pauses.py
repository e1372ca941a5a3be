"""A framework that pauses, in a page, and its adapter; `flaws` switch off one part of the adapter's care at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from agentlattice_core.toolcalls import Denial, ToolCall, ToolGate
from agentlattice_integrations.contract import PausedAgent, PauseHarness, Resumed, ScriptedCall

__all__ = ["BarePauses"]


class BarePauses(PauseHarness):
    """Keeps what it needs in one file: what was answered so far, by call id, and what was edited."""

    name = "bare"
    edits = True
    where_no_pause = "waits"
    flaws: ClassVar[frozenset[str]] = frozenset()

    def pause(self, agent: PausedAgent) -> object:
        gate = ToolGate(agent.client, on_approval="pause")
        state: dict[str, Any] = {"shown": {}, "edited": {}}
        for call in (agent.free_call, *agent.calls):
            self._make(agent, gate, call, state)
        self._save(agent, state)
        return None

    def resume(self, agent: PausedAgent, paused: object | None, edits: Mapping[str, str]) -> Resumed:
        gate = ToolGate(agent.client, on_approval="pause")
        state = json.loads((agent.folder / "state.json").read_text(encoding="utf-8"))
        if "starts over" in self.flaws:
            state["shown"].clear()
        waiting: set[str] = set()
        for call in (agent.free_call, *agent.calls):
            call_id = call.call_id or ""
            if call_id in state["shown"]:
                continue
            version = str(dict(call.arguments).get("version"))  # type: ignore[arg-type]
            if version in edits and "forgets edits" not in self.flaws:
                pending = gate.authorize_sync(self._question(agent, call))
                assert isinstance(pending, Denial)
                gate.withdraw_sync(pending.action_id or "", "edited")
                state["edited"][call_id] = edits[version]
            if not self._make(agent, gate, call, state):
                waiting.add(call_id)
        self._save(agent, state)
        shown = dict(state["shown"])
        if "misrouted" in self.flaws:
            shown = dict(zip(shown, reversed(shown.values()), strict=True))
        return Resumed(shown, frozenset(waiting))

    def run_without_pause(self, agent: PausedAgent, options: Mapping[str, Any]) -> Resumed:
        on_approval = "pause" if "pauses all the same" in self.flaws else "wait"
        gate = ToolGate(agent.client, **{**options, "on_approval": on_approval})
        shown: dict[str, str] = {}
        for call in (agent.free_call, *agent.calls):
            answer = gate.authorize_sync(self._question(agent, call))
            shown[call.call_id or ""] = (
                answer.text if isinstance(answer, Denial) else self._run(agent, call, answer)
            )
        return Resumed(shown)

    def _make(self, agent: PausedAgent, gate: ToolGate, call: ScriptedCall, state: dict[str, Any]) -> bool:
        """Make a call if it may be made; whether it was answered."""
        call_id = call.call_id or ""
        edited = state["edited"].get(call_id)
        if edited is not None:
            call = ScriptedCall(call.tool, {"version": edited}, call_id)
        answer = gate.authorize_sync(self._question(agent, call))
        if isinstance(answer, Denial):
            if answer.status == "pending":
                return False
            if "runs what was denied" in self.flaws:
                self._body(agent, call)
            if answer.status == "unknown" and "runs again" in self.flaws:
                self._body(agent, call)
            state["shown"][call_id] = answer.text
        else:
            state["shown"][call_id] = self._run(agent, call, answer)
        return True

    def _run(self, agent: PausedAgent, call: ScriptedCall, permit: Any) -> str:
        text = self._body(agent, call)
        if "no outcome" not in self.flaws:
            permit.succeeded()
        return text

    def _body(self, agent: PausedAgent, call: ScriptedCall) -> str:
        functions = {function.__name__: function for function in agent.functions()}
        return str(functions[call.tool](**dict(call.arguments)))  # type: ignore[arg-type]

    def _question(self, agent: PausedAgent, call: ScriptedCall) -> ToolCall:
        return ToolCall(
            "bare",
            call.tool,
            call.arguments,
            identity=f"{agent.name}/{call.call_id}",
            call_id=call.call_id,
            run=agent.name,
        )

    def _save(self, agent: PausedAgent, state: Mapping[str, Any]) -> None:
        (agent.folder / "state.json").write_text(json.dumps(state), encoding="utf-8")


class StartsOver(BarePauses):
    """Forgets what ran before the pause, and finds the calls by other names after it."""

    flaws = frozenset({"starts over"})


class Misrouted(BarePauses):
    """Gives each call the answer of another."""

    flaws = frozenset({"misrouted"})


class RunsWhatWasDenied(BarePauses):
    """Asks, and does not listen."""

    flaws = frozenset({"runs what was denied"})


class RunsAgain(BarePauses):
    """Takes what nobody knows for what did not happen."""

    flaws = frozenset({"runs again"})


class ForgetsEdits(BarePauses):
    """Leaves an edited call as the model made it."""

    flaws = frozenset({"forgets edits"})


class NoOutcome(BarePauses):
    """Never says how a call went."""

    flaws = frozenset({"no outcome"})


class PausesAllTheSame(BarePauses):
    """Tells the model to wait where nothing will wake it."""

    flaws = frozenset({"pauses all the same"})
