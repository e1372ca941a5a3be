"""A framework in a hundred lines, and its adapter: what the contract is tried on before any real framework is.

`flaws` switches off one part of the adapter's care at a time, so that tests can show that the contract notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from agentlattice_core.toolcalls import Coverage, Denial, Permit, ToolCall, ToolGate
from agentlattice_integrations.contract import (
    FrameworkHarness,
    Governance,
    How,
    McpServer,
    ScriptedCall,
    Seen,
    Transcript,
    Turn,
)


@dataclass(frozen=True)
class Tool:
    """The framework's tool."""

    name: str
    function: Callable[..., Any]
    hosted: bool = False


@dataclass
class Run:
    """One run of an agent over a script."""

    tools: list[Tool]
    turns: Sequence[Turn]
    gate: ToolGate
    flaws: frozenset[str]
    thread: str = "thread-1"
    edit: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    attempts: int = 1
    cache: dict[str, str] | None = None
    coverage: Coverage = field(default_factory=Coverage)
    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        for tool in self.tools:
            if tool.hosted:
                self.coverage.add(tool.name, kind="hosted", status="refused", why="the provider runs it")
            else:
                self.coverage.add(
                    tool.name, action_type=self.gate.resolve(tool.name, tool.function).action_type
                )
        self.tools = [tool for tool in self.tools if not tool.hosted]

    async def go(self) -> Transcript:
        """Run the whole script."""
        for number, turn in enumerate(self.turns):
            answers = await asyncio.gather(
                *(self.call(number, place, call) for place, call in enumerate(turn))
            )
            if "misrouted" in self.flaws and len(answers) > 1:
                answers = [answers[-1], *answers[:-1]]
            self.seen += [Seen(call.tool, text) for call, text in zip(turn, answers, strict=True)]
        return Transcript(self.seen, "done", self.coverage)

    async def call(self, number: int, place: int, call: ScriptedCall) -> str:
        """One call, as often as the framework retries it."""
        tool = next(tool for tool in self.tools if tool.name == call.tool)
        key = f"{call.tool} {call.arguments}"
        if self.cache is not None and key in self.cache and "cache first" in self.flaws:
            return self.cache[key]
        permit: Permit | None = None
        for attempt in range(1, self.attempts + 1):
            if permit is None or "one claim for all attempts" not in self.flaws:
                if "ungoverned" in self.flaws:
                    return str(await self._invoke(tool, call.arguments))
                answer = await self.gate.authorize(self._question(tool, call, f"{number}/{place}", attempt))
                if isinstance(answer, Denial):
                    text = "Denied: " + answer.text if "wrapped denial" in self.flaws else answer.text
                    if "runs anyway" in self.flaws:
                        await self._invoke(tool, call.arguments)
                    return text
                permit = answer
            arguments = dict(permit.arguments)
            if self.edit is not None:
                arguments = self.edit(arguments)
                if not permit.covers(arguments) and "ignores edits" not in self.flaws:
                    permit.abandoned("its arguments were changed")
                    edited = replace(call, arguments=arguments)
                    answer = await self.gate.authorize(
                        self._question(tool, edited, f"{number}/{place}", attempt)
                    )
                    if isinstance(answer, Denial):
                        return answer.text
                    permit = answer
            try:
                text = str(await self._invoke(tool, arguments))
            except Exception as error:
                permit.failed(error)
                if attempt == self.attempts:
                    raise
                continue
            if "no outcome" not in self.flaws:
                permit.succeeded()
            if self.cache is not None:
                text = self.cache.setdefault(key, text)
            return text
        raise AssertionError("a call without an attempt")

    def _question(self, tool: Tool, call: ScriptedCall, identity: str, attempt: int) -> ToolCall:
        return ToolCall(
            "bare", tool.name, call.arguments, identity=f"{self.thread}/{identity}", attempt=attempt,
            target=tool.function, run=self.thread,
        )  # fmt: skip

    async def _invoke(self, tool: Tool, arguments: Mapping[str, Any] | str) -> Any:
        members = json.loads(arguments) if isinstance(arguments, str) else arguments
        if inspect.iscoroutinefunction(tool.function):
            return await tool.function(**members)
        return await asyncio.to_thread(functools.partial(tool.function, **members))


class BareHarness(FrameworkHarness):
    """The harness of the framework above."""

    name = "bare"

    def __init__(self, *flaws: str) -> None:
        self.flaws = frozenset(flaws)
        self.threads = 0

    def make_tool(self, function: Callable[..., Any], *, name: str | None = None) -> Tool:
        return Tool(name or function.__name__, function)

    def _run(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn], **options: Any
    ) -> Run:
        self.threads += 1
        gate = ToolGate(governance.client, **governance.options)
        return Run(list(tools), turns, gate, self.flaws, f"thread-{self.threads}", **options)

    def run(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn], *, how: How = "sync"
    ) -> Transcript:
        return asyncio.run(self._run(governance, tools, turns).go())

    def call_directly(
        self, governance: Governance, tool: Any, arguments: Mapping[str, Any], *, how: How = "sync"
    ) -> str:
        run = self._run(governance, [tool], [])
        return asyncio.run(run.call(0, 0, ScriptedCall(tool.name, arguments)))

    def run_mcp(self, governance: Governance, server: McpServer, turns: Sequence[Turn]) -> Transcript:
        return asyncio.run(self._run_mcp(governance, server, turns))

    async def _run_mcp(self, governance: Governance, server: McpServer, turns: Sequence[Turn]) -> Transcript:
        async with contextlib.AsyncExitStack() as stack:
            parameters = StdioServerParameters(command=server.command, args=list(server.args))
            streams = await stack.enter_async_context(stdio_client(parameters))
            session = await stack.enter_async_context(ClientSession(*streams))
            await session.initialize()

            def remote(name: str) -> Tool:
                async def call(**arguments: Any) -> str:
                    result = await session.call_tool(name, arguments)
                    return "".join(getattr(part, "text", "") for part in result.content)

                return Tool(name, call)

            tools = [remote(tool.name) for tool in (await session.list_tools()).tools]
            return await self._run(governance, tools, turns).go()

    def run_handoff(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn], *, denied: bool = False
    ) -> Transcript:
        return self._nested(self.handoff_tool, governance, tools, turns, denied=denied)

    def run_agent_as_tool(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn]
    ) -> Transcript:
        return self._nested(self.agent_tool, governance, tools, turns, denied=False)

    def _nested(
        self, name: str, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn], *, denied: bool
    ) -> Transcript:
        inner = self._run(governance, tools, turns)
        if "inner agents ungoverned" in self.flaws:
            inner.flaws = frozenset({"ungoverned"})

        async def reach() -> str:
            await inner.go()
            return "done"

        outer = self._run(governance, [Tool(name, reach)], [[ScriptedCall(name, {})]])
        transcript = asyncio.run(outer.go())
        return transcript if denied else Transcript(inner.seen, transcript.final, inner.coverage)

    def run_with_late_tool(
        self, governance: Governance, tools: Sequence[Any], late: Any, turns: Sequence[Turn]
    ) -> Transcript:
        run = self._run(governance, tools, turns)
        run.tools.append(late)
        return asyncio.run(run.go())

    def run_with_cache(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn]
    ) -> Transcript:
        return asyncio.run(self._run(governance, tools, turns, cache={}).go())

    def run_with_retries(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn], *, attempts: int
    ) -> Transcript:
        return asyncio.run(self._run(governance, tools, turns, attempts=attempts).go())

    def run_with_edit(
        self,
        governance: Governance,
        tools: Sequence[Any],
        turns: Sequence[Turn],
        edit: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> Transcript:
        return asyncio.run(self._run(governance, tools, turns, edit=edit).go())

    def hosted_tools(self) -> Sequence[Any]:
        return [Tool("web_search", print, hosted=True)]
