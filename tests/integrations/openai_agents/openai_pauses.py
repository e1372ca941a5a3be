"""A governed agent whose runs pause: its policy, its tools over a file of what ran, and the people who decide.

Run as a program it is the process that is gone: `pause <directory>...` runs each to its pause, saves the state and
is killed; `resume <directory>...` is another process that carries the decisions into each state and runs it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agents import Agent, ApplyPatchTool, CustomTool, Runner, RunState, ShellTool, function_tool
from agents.editor import ApplyPatchResult
from agents.tracing import set_trace_processors
from openai.types.responses import (
    ResponseApplyPatchToolCall,
    ResponseCustomToolCall,
    ResponseFunctionShellToolCall,
)
from openai_scripted import ScriptedModel, call

from agentlattice_core import AgentLattice
from agentlattice_core.results import AuditEvent
from agentlattice_integrations.contract.harness import Seen
from agentlattice_integrations.contract.world import parse_denial
from agentlattice_integrations.openai_agents import PendingCall, apply_decisions, govern

__all__ = [
    "COUNTS",
    "DECISIONS",
    "POLICIES",
    "REASONS",
    "Pauses",
    "called",
    "calls",
    "process",
    "reason_in",
    "script",
    "shown_by_call",
    "version_of",
]

HERE = Path(__file__).parent

POLICIES = """
version: 1
policies:
  - {name: Free, action: tool.free, effect: allow}
  - {name: Forbidden, action: tool.forbidden, effect: deny}
  - {name: Ask, action: tool.ask, effect: allow}
  - {name: Transfer, action: tool.transfer_to_second, effect: allow}
  - {name: Deploy, action: tool.deploy, effect: require_approval}
  - {name: Hasty, action: tool.deploy_hastily, effect: require_approval, approval: {timeout: 1s}}
  - {name: Own, action: tool.own, effect: allow}
  - {name: Shell, action: tool.shell, effect: require_approval}
  - {name: Patches, action: tool.apply_patch, effect: require_approval}
  - {name: Notes, action: tool.note, effect: require_approval}
"""


COUNTS = (1, 2, 5)
"""How many parallel calls a turn makes."""

DECISIONS = ("a", "d", "t", "ad", "al")
"""What becomes of a turn's calls, one letter after the other, over again: approved, denied, timed out, left."""

REASONS = {"d": "DENIED_BY_REVIEWER", "t": "approval_timeout"}
"""The reason that the model reads, and that the log has."""


def calls(tool: str, count: int) -> list[Any]:
    """Parallel calls of one turn, `call_0` and so on, each with a version of its own."""
    return [_call(tool, str(number), f"call_{number}") for number in range(count)]


def _call(tool: str, version: str, call_id: str) -> Any:
    made = {"call_id": call_id, "id": f"item_{call_id}", "status": "completed"}
    if tool == "shell":
        action = {"commands": [version], "timeout_ms": 1000, "max_output_length": 4000}
        return ResponseFunctionShellToolCall.model_validate({**made, "type": "shell_call", "action": action})
    if tool == "apply_patch":
        operation = {"type": "create_file", "path": version, "diff": "+x"}
        return ResponseApplyPatchToolCall.model_validate(
            {**made, "type": "apply_patch_call", "operation": operation}
        )
    if tool == "note":
        return ResponseCustomToolCall(type="custom_tool_call", call_id=call_id, name="note", input=version)
    return call(tool, {"version": version}, call_id=call_id)


def version_of(arguments: Mapping[str, Any]) -> str:
    """The version that a recorded call is about."""
    found = arguments.get("version") or arguments.get("path") or arguments.get("input")
    return str(found or arguments["commands"][0])


class Pauses:
    """One log, one agent and what its tools did, in a directory that another process can open as well."""

    def __init__(self, directory: Path, *, policies: str | None = POLICIES, **client: Any) -> None:
        self.directory = directory
        self.effects = directory / "effects"
        self.saved = directory / "state.json"
        if policies is not None:
            (directory / "policies.yaml").write_text(policies, encoding="utf-8")
        self.al = AgentLattice.embedded(
            directory / "governance.db",
            policies=directory / "policies.yaml" if policies is not None else None,
            agent="deployer",
            **client,
        )
        self.reviewer = self.al.for_operator("rita")

    def close(self) -> None:
        self.reviewer.close()
        self.al.close()

    # --- the agent --------------------------------------------------------------------------------------------------

    def tools(self) -> list[Any]:
        def ran(what: str) -> str:
            with self.effects.open("a", encoding="utf-8") as file:
                file.write(f"{what}\n")
            if (self.directory / "die").exists():
                os.kill(os.getpid(), signal.SIGKILL)
            return what

        @function_tool
        def deploy(version: str) -> str:
            """Deploy a version."""
            return ran(f"deployed {version}")

        @function_tool
        async def deploy_hastily(version: str) -> str:
            """Deploy a version, if somebody agrees at once."""
            return ran(f"deployed {version}")

        @function_tool
        def free(version: str) -> str:
            """Say a version."""
            return ran(f"said {version}")

        @function_tool
        def forbidden(version: str) -> str:
            """Do what nobody may do."""
            return ran(f"did {version}")

        @function_tool(needs_approval=True)
        def own(version: str) -> str:
            """Do what the application asks about itself."""
            return ran(f"owned {version}")

        class Editor:
            def create_file(self, operation: Any) -> ApplyPatchResult:
                return ApplyPatchResult(output=ran(f"deployed {operation.path}"))

            update_file = delete_file = create_file

        async def note(_context: Any, text: str) -> str:
            return ran(f"deployed {text}")

        return [
            deploy,
            deploy_hastily,
            free,
            forbidden,
            own,
            ShellTool(executor=lambda request: ran(f"deployed {request.data.action.commands[0]}")),
            ApplyPatchTool(editor=Editor()),
            CustomTool(name="note", description="Note a version.", on_invoke_tool=note),
        ]

    def agent(self, *turns: Any, **more: Any) -> Agent[Any]:
        settings = {"on_approval": "pause", **more}
        return govern(
            Agent(name="main", tools=self.tools(), model=ScriptedModel(*turns)), self.al, **settings
        )

    def with_agent_tool(self, *turns: Any) -> Agent[Any]:
        inner = Agent(name="inner", tools=self.tools(), model=ScriptedModel(*turns))
        # The SDK keeps what waits inside an agent by the id of its call, for the whole process.
        asked = call("ask", {"input": "go"}, call_id=f"call_outer_{self.directory.name}")
        asking = ScriptedModel([asked]) if turns else ScriptedModel()
        outer = Agent(name="outer", tools=[inner.as_tool("ask", "Ask.")], model=asking)
        return govern(outer, self.al, on_approval="pause")

    def delegating(self, *turns: Any, as_tool: bool = False) -> Agent[Any]:
        """An agent that hands over to one with a delegated identity, or has it as a tool."""
        second = govern(
            Agent(name="second", tools=self.tools(), model=ScriptedModel(*turns)),
            self.al.delegate("researcher", capabilities=["tool.deploy"], ttl=300),
            on_approval="pause",
        )
        if as_tool:
            asked = call("ask", {"input": "go"}, call_id=f"call_outer_{self.directory.name}")
            first = Agent(
                name="first",
                tools=[second.as_tool("ask", "Ask.")],
                model=ScriptedModel([asked]) if turns else ScriptedModel(),
            )
        else:
            first = Agent(
                name="first",
                handoffs=[second],
                model=ScriptedModel([call("transfer_to_second", call_id="handed_over")])
                if turns
                else ScriptedModel(),
            )
        return govern(first, self.al, on_approval="pause")

    # --- running ----------------------------------------------------------------------------------------------------

    async def pause(self, agent: Agent[Any]) -> RunState[Any]:
        """Run to the pause; the state is saved."""
        result = await Runner.run(agent, "go")
        state = result.to_state()
        self.saved.write_text(state.to_string(), encoding="utf-8")
        return state

    async def load(self, agent: Agent[Any]) -> RunState[Any]:
        return await RunState.from_string(agent, self.saved.read_text(encoding="utf-8"))

    async def resume(self, agent: Agent[Any], state: RunState[Any] | None = None, **more: Any) -> Resumed:
        """Carry the decisions into the state (the saved one, unless another is given), and run it."""
        state = state or await self.load(agent)
        waiting = await apply_decisions(state, **more)
        return Resumed(waiting, await Runner.run(agent, state))

    # --- people and the log -----------------------------------------------------------------------------------------

    def requests(self) -> dict[str, str]:
        """What waits for a person: the id of the request by the version it is about."""
        return {version_of(one.metadata): one.id for one in self.reviewer.list_pending_approvals_sync()}

    def decide(self, decision: str) -> None:
        """Have the reviewer decide on everything as the letters say: approve, deny, leave."""
        for number, (_, approval_id) in enumerate(sorted(self.requests().items())):
            letter = decision[number % len(decision)]
            if letter == "a":
                self.reviewer.approve_action_sync(approval_id)
            elif letter == "d":
                self.reviewer.deny_action_sync(approval_id, "not today")

    def ran(self) -> list[str]:
        """What the tools did, sorted."""
        return sorted(self.effects.read_text(encoding="utf-8").splitlines()) if self.effects.exists() else []

    def log(self, action_type: str | None = None) -> list[AuditEvent]:
        """The recorded actions, oldest first."""
        self.al.flush()
        return list(reversed(self.al.audit_sync(limit=200, action_type=action_type).events))


class Resumed:
    """How a resumed run went: what it still waited for, and what the model was shown by call."""

    def __init__(self, waiting: Sequence[PendingCall], result: Any) -> None:
        self.waiting = list(waiting)
        self.interruptions = [called(item) for item in result.interruptions]
        self.final = result.final_output
        self.shown = shown_by_call(result)

    def said(self, call_id: str) -> str:
        """What the model was shown for a call: its output, or the reason of its denial."""
        return reason_in(self.shown[call_id])


def called(item: Any) -> str:
    """The id of the call that an interruption is about: the SDK keeps some kinds of calls as mappings."""
    raw = item.raw_item
    return str(raw["call_id"] if isinstance(raw, dict) else raw.call_id)


def shown_by_call(result: Any) -> dict[str, Any]:
    """What the model was shown in a run, by the id of the call."""
    return {
        item.raw_item["call_id"]: text_of(item.raw_item["output"])
        for item in result.new_items
        if item.type == "tool_call_output_item"
    }


def text_of(output: Any) -> Any:
    """What a tool answered; a shell answers with a list of what each command wrote."""
    if isinstance(output, list) and output and isinstance(output[0], dict) and "stdout" in output[0]:
        return output[0]["stdout"] or output[0]["stderr"]
    return output


def reason_in(output: Any) -> str:
    """The reason, if it is a denial document that follows the schema; else the output itself."""
    if isinstance(output, str) and output.startswith("{"):
        return str(parse_denial(Seen("", output))["reason"])
    return str(output)


# --- other processes -------------------------------------------------------------------------------------------------


def script(
    directory: Path,
    tool: str,
    count: int,
    *,
    inside: bool = False,
    delegated: bool = False,
    hasty: bool = False,
) -> Path:
    """Write what the process in `directory` is to run: parallel calls of one tool, perhaps inside an agent that is a
    tool, perhaps by an agent with a delegated identity. `hasty`: its requests are timed out after a second. Gives the
    directory back.
    """
    directory.mkdir(exist_ok=True)
    told = {"tool": tool, "count": count, "inside": inside, "delegated": delegated, "hasty": hasty}
    (directory / "script.json").write_text(json.dumps(told), encoding="utf-8")
    return directory


def process(what: str, directories: Sequence[Path]) -> int:
    """Run this file as a program and wait for its end; the code it ended with, -9 if it was killed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["core", ".", str(HERE)])}
    environment.pop("OPENAI_AGENTS_DISABLE_TRACING", None)
    return subprocess.run(
        [sys.executable, str(HERE / "openai_pauses.py"), what, *map(str, directories)],
        cwd=HERE.parents[2],
        env=environment,
        timeout=120,
    ).returncode


@contextmanager
def opened(directory: str, policies: str | None) -> Iterator[Pauses]:
    pauses = Pauses(Path(directory), policies=policies)
    try:
        yield pauses
    finally:
        pauses.close()


def _policies(directory: Path) -> str:
    told = json.loads((directory / "script.json").read_text(encoding="utf-8"))
    asked = f"action: tool.{told['tool']}, effect: require_approval"
    return (
        POLICIES.replace(f"{asked}}}", f"{asked}, approval: {{timeout: 1s}}}}") if told["hasty"] else POLICIES
    )


def _scripted(pauses: Pauses, *, resumed: bool) -> Agent[Any]:
    told = json.loads((pauses.directory / "script.json").read_text(encoding="utf-8"))
    turns = [] if resumed else [calls(told["tool"], told["count"])]
    if told["delegated"]:
        return pauses.delegating(*turns, as_tool=told["inside"])
    return pauses.with_agent_tool(*turns) if told["inside"] else pauses.agent(*turns)


def _acting(agent: Agent[Any]) -> Agent[Any]:
    """The agent that makes the scripted calls."""
    inner = next(
        (tool._agent_instance for tool in agent.tools if getattr(tool, "_agent_instance", None)), None
    )
    return inner or agent


async def _pause(directories: Sequence[str]) -> None:
    for directory in directories:
        pauses = Pauses(Path(directory), policies=_policies(Path(directory)))
        await pauses.pause(_scripted(pauses, resumed=False))


async def _resume(directories: Sequence[str]) -> None:
    for directory in directories:
        with opened(directory, None) as pauses:
            agent = _scripted(pauses, resumed=True)
            resumed = await pauses.resume(agent)
            model: Any = _acting(agent).model
            shown = {
                item["call_id"]: reason_in(text_of(item["output"]))
                for item in (model.inputs[-1] if model.inputs else [])
                if isinstance(item, dict) and str(item.get("type")).endswith("call_output")
            }
            told = {"shown": shown, "interruptions": resumed.interruptions, "final": resumed.final}
            (Path(directory) / "resumed.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    set_trace_processors([])
    if sys.argv[1] == "pause":
        asyncio.run(_pause(sys.argv[2:]))
        os.kill(os.getpid(), signal.SIGKILL)
    asyncio.run(_resume(sys.argv[2:]))
