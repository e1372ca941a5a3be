"""A tool node that gives each call of a message a task of its own.

- A ToolNode runs all calls of a message in one task. When one of them is paused, LangGraph runs all of them again, and
  it cannot tell their answers apart.
- So each call becomes a task inside the node's, in the order of the calls: LangGraph keeps its result and its interrupt
  by itself, and runs only what has not finished.
- All that are paused are shown together, each with its own id.
- Only where a graph can be paused: elsewhere the node works as it did. `create_agent` has one task per call anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config
from langgraph.errors import GraphInterrupt
from langgraph.prebuilt import ToolNode
from langgraph.prebuilt.tool_node import ToolRuntime
from langgraph.pregel._call import call as as_task
from langgraph.runtime import Runtime

__all__ = ["fan_out"]

_CHECKPOINTER = "__pregel_checkpointer"
_CALL = "__pregel_call"
_PULL = "__pregel_pull"


def fan_out(node: ToolNode) -> None:
    """Have `node` run each call of a message in a task of its own, where it can."""
    if not isinstance(getattr(node.func, "__self__", None), _Fan):
        fan = _Fan(node, node.func, node.afunc)
        node.func, node.afunc = fan.run, fan.arun


class _Fan:
    """The node's two functions. Bound methods: LangGraph looks for graphs in what a function closes over."""

    def __init__(self, node: ToolNode, run: Any, arun: Any) -> None:
        self._node = node
        self._run = run
        self._arun = arun

    def run(self, input: Any, config: RunnableConfig, runtime: Runtime[Any]) -> Any:
        """Run the calls of the last message."""
        if not _can_pause(config):
            return self._run(input, config, runtime)
        calls, kind = self._node._parse_input(input)
        runtimes = self._runtimes(input, calls, config, runtime)

        def task(call: Any, runtime_of: Callable[[], Any]) -> Callable[[], Any]:
            def tool_call() -> Any:
                return self._node._run_one(call, kind, runtime_of())

            return tool_call

        waiting = [as_task(task(*each)) for each in zip(calls, runtimes, strict=True)]
        outputs: list[Any] = []
        for future in waiting:
            try:
                outputs.append(future.result())
            except Exception as error:
                outputs.append(error)
        return self._node._combine_tool_outputs(_finished(outputs), kind)

    async def arun(self, input: Any, config: RunnableConfig, runtime: Runtime[Any]) -> Any:
        """As `run`."""
        if not _can_pause(config):
            return await self._arun(input, config, runtime)
        calls, kind = self._node._parse_input(input)
        runtimes = self._runtimes(input, calls, config, runtime)

        def task(call: Any, runtime_of: Callable[[], Any]) -> Callable[[], Any]:
            async def tool_call() -> Any:
                return await self._node._arun_one(call, kind, runtime_of())

            return tool_call

        waiting = [as_task(task(*each)) for each in zip(calls, runtimes, strict=True)]
        outputs = await asyncio.gather(*waiting, return_exceptions=True)
        return self._node._combine_tool_outputs(_finished(outputs), kind)

    def _runtimes(
        self, input: Any, calls: list[Any], config: RunnableConfig, runtime: Runtime[Any]
    ) -> list[Callable[[], Any]]:
        """For each call what its tool is given, made inside its task, whose configuration it holds."""
        node = self._node
        state = node._extract_state(input, config)

        def runtime_of(call: Any) -> Callable[[], Any]:
            return lambda: ToolRuntime(
                state=state,
                tool_call_id=call["id"],
                config=get_config(),
                context=runtime.context,
                store=runtime.store,
                stream_writer=runtime.stream_writer,
                tools=list(node.tools_by_name.values()),
                execution_info=runtime.execution_info,
                server_info=runtime.server_info,
            )

        return [runtime_of(call) for call in calls]


def _can_pause(config: RunnableConfig) -> bool:
    configurable = config.get("configurable") or {}
    path = (config.get("metadata") or {}).get("langgraph_path") or ()
    return bool(configurable.get(_CHECKPOINTER) and configurable.get(_CALL) and path and path[0] == _PULL)


def _finished(outputs: Any) -> list[Any]:
    """The outputs if every task has one. Raises what a task raised, or all their interrupts as one."""
    interrupts: list[Any] = []
    for output in outputs:
        if isinstance(output, GraphInterrupt):
            interrupts += output.args[0]
        elif isinstance(output, BaseException):
            raise output
    if interrupts:
        raise GraphInterrupt(tuple(interrupts))
    return list(outputs)
