"""A flow whose crew asks for several deployments at once, and what became of it."""

from __future__ import annotations

import os
import time
from pathlib import Path
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

from agentlattice_core import AgentLattice
from agentlattice_integrations.contract import ScriptedCall
from agentlattice_integrations.crewai import govern

__all__ = ["Case", "versions"]


def policies(timeout: str = "10m", deployments: str = "require_approval") -> str:
    """`tool.deploy` needs approval within `timeout`, everything else is allowed."""
    return f"""
version: 1
policies:
  - {{name: Tools, action: "tool.*", effect: allow}}
  - {{name: Deployments, action: tool.deploy, effect: {deployments}, approval: {{timeout: {timeout}}}}}
"""


def versions(calls: int) -> list[str]:
    """What a crew that makes this many calls deploys."""
    return [f"v{number}" for number in range(calls)]


class Release(Flow[Any]):
    """Reads, deploys several versions with one message of the model, and reports."""

    case: Any = None

    @start()
    def choose(self) -> int:
        return self.case.calls

    @listen(choose)
    def release(self, calls: int) -> str:
        self.state["begun"] = self.state.get("begun", 0) + 1
        model = self.case.model(calls)
        result = crew_of(agent_with(model, self.case.tools())).kickoff().raw
        self.state["shown"] = {
            str(call): seen.content
            for call, seen in zip(["read", *versions(calls)], model.shown, strict=False)
        }
        if self.case.crashes:
            raise RuntimeError("crashed")
        return str(result)

    @listen(release)
    def announce(self, result: str) -> dict[str, Any]:
        return {"result": result, "shown": self.state["shown"], "begun": self.state["begun"]}


class Case:
    """One flow with a log and a persistence of its own in `folder`."""

    def __init__(self, folder: Path, calls: int, *, timeout: str = "10m", native: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.calls, self.timeout, self.native = folder, calls, timeout, native
        self.crashes = False
        self._clients: list[AgentLattice] = []

    # --- what it works with

    def client(self, **who: str) -> AgentLattice:
        document = self.folder / "policies.yaml"
        if not document.exists():
            document.write_text(policies(self.timeout), encoding="utf-8")
        client = AgentLattice.embedded(self.folder / "governance.db", policies=document, **who)  # type: ignore[arg-type]
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def persistence(self) -> SQLiteFlowPersistence:
        return SQLiteFlowPersistence(str(self.folder / "flows.db"))

    def model(self, calls: int) -> ScriptedModel:
        deployments = [ScriptedCall("deploy", {"version": version}) for version in versions(calls)]
        return ScriptedModel([[ScriptedCall("read", {"path": "a"})], deployments], native=self.native)

    def tools(self) -> list[Any]:
        @tool("deploy")
        def deploy(version: str) -> str:
            """Deploy a version."""
            self._note(version)
            return f"deployed {version}"

        @tool("read")
        def read(path: str) -> str:
            """Read a path."""
            self._note("read")
            return f"read {path}"

        return [read, deploy]

    def _note(self, what: str) -> None:
        with (self.folder / "effects.txt").open("a", encoding="utf-8") as file:
            file.write(f"{what}\n")

    def effects(self) -> list[str]:
        """What ran so far, in any process, sorted."""
        file = self.folder / "effects.txt"
        return sorted(file.read_text(encoding="utf-8").split()) if file.exists() else []

    # --- what happens to it

    def pause(
        self, persistence: SQLiteFlowPersistence | None = None, **settings: Any
    ) -> HumanFeedbackPending:
        """Run the flow until it pauses."""
        flow = Release(persistence=persistence or self.persistence(), suppress_flow_events=True, case=self)
        paused = govern(flow, self.client(agent="releaser"), **settings).kickoff()
        assert isinstance(paused, HumanFeedbackPending)
        (self.folder / "flow.txt").write_text(paused.context.flow_id, encoding="utf-8")
        return paused

    def left(self, **settings: Any) -> Release:
        """The flow as it was left, governed."""
        flow_id = (self.folder / "flow.txt").read_text(encoding="utf-8")
        flow = Release.from_pending(flow_id, self.persistence(), suppress_flow_events=True, case=self)
        return govern(flow, self.client(agent="releaser"), **settings)  # type: ignore[return-value]

    def resume(self, feedback: str = "", **settings: Any) -> Any:
        """Go on from the pause: a dictionary of what the flow reports, or the next pause."""
        return self.left(**settings).resume(feedback)

    def decide(self, decision: str) -> None:
        """What people do meanwhile: `approve`, `deny`, `mixed` (every second one), or nothing until it `times out`."""
        operator = self.client(operator="reviewer")
        if decision == "time out":
            while operator.list_pending_approvals_sync():
                time.sleep(0.02)
            return
        for request in operator.list_pending_approvals_sync():
            approves = decision == "approve" or (
                decision == "mixed" and int(request.metadata["version"][1:]) % 2 == 0
            )
            decided = operator.approve_action_sync if approves else operator.deny_action_sync
            decided(request.id, "because")

    # --- what the log says

    def log(self) -> dict[str, list[tuple[str, str | None, str | None]]]:
        """Per version: status, reason and claim of each action, oldest first, once all outcomes are recorded."""
        client = self.client(agent="releaser")
        deadline = time.monotonic() + 10
        while True:
            events = list(reversed(client.audit_sync(limit=200, action_type="tool.deploy").events))
            if all(event.claim != "started" for event in events) or time.monotonic() > deadline:
                break
            time.sleep(0.005)
        told: dict[str, list[tuple[str, str | None, str | None]]] = {}
        for event in events:
            told.setdefault(event.metadata["version"], []).append(
                (event.status, event.denial_reason, event.claim)
            )
        return told
