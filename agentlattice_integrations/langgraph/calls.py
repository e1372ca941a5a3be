"""From LangChain's objects to a `ToolCall`: which tool it is, what the model may fill in, which call this is.

- The tool's own name counts, not the name in the request: overriding only the name still runs the old tool.
- Injected arguments (state, store, runtime, tool call id) are the application's, not the model's. They are no
  part of the action, and what a model forges under their names is left out.
- Identity is what LangGraph keeps across a resume and a restart: thread, checkpoint namespace (which holds
  the task's id), which run of a call that suspends itself this is, and the tool call's id. Without a graph there is
  no identity. Without a checkpointer the namespace is new in each run, so the identity lasts as long as the run.
- The same identity coming again in one process is the next attempt of a retry, and needs a permit of its own. A call
  that was paused before it ran is no attempt yet.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import BaseModel, Field, create_model

from agentlattice_core.toolcalls.call import CallKind, ToolCall

__all__ = ["FRAMEWORK", "Attempts", "ToolFacts", "facts_of", "make_call"]

FRAMEWORK = "langgraph"
_MCP_MODULE = "langchain_mcp_adapters"
_HANDOFF_MARK = "__handoff_destination"
_REMEMBERED_CALLS = 8192
# Where LangGraph's configuration holds an id, and what the log calls it.
_IDS = (("thread_id", "thread_id"), ("checkpoint_ns", "checkpoint_ns"), ("__pregel_task_id", "task_id"))


@dataclass(frozen=True, slots=True)
class ToolFacts:
    """What does not change from call to call: the tool's name, its kind, and what the model fills in.

    `schema` is a pydantic model or JSON Schema of the model's arguments (None if the tool has neither),
    `injected` the names that only the application fills in, `single` the argument's name when the tool takes
    one bare text.
    """

    name: str
    kind: CallKind
    schema: Any
    injected: frozenset[str]
    single: str

    @classmethod
    def unknown(cls, name: str, kind: CallKind = "function") -> ToolFacts:
        """The facts of a tool of which only the name is known."""
        return cls(name, kind, None, frozenset(), "input")

    def model_arguments(self, tool_input: str | Mapping[str, Any]) -> Mapping[str, Any]:
        """The part of what the tool is about to receive that the model, or another caller, chose; only to be read."""
        if isinstance(tool_input, str):
            return {self.single: tool_input}
        if not self.injected:
            return tool_input
        return {name: value for name, value in tool_input.items() if name not in self.injected}


def facts_of(tool: BaseTool) -> ToolFacts:
    """The facts of `tool`, remembered while the tool lives and its name and schema stay what they are."""
    known = _KNOWN.get(id(tool))
    if known is not None and known[0]() is tool and known[1] == tool.name and known[2] is tool.args_schema:
        return known[3]
    facts = _read_facts(tool)
    key = id(tool)
    _KNOWN[key] = (weakref.ref(tool, lambda _: _KNOWN.pop(key, None)), tool.name, tool.args_schema, facts)
    return facts


_KNOWN: dict[int, tuple[weakref.ref[BaseTool], str, Any, ToolFacts]] = {}


def _read_facts(tool: BaseTool) -> ToolFacts:
    injected = _injected_names(tool)
    return ToolFacts(
        name=tool.name,
        kind=_kind(tool),
        schema=_model_schema(tool.args_schema, injected),
        injected=injected,
        single=_single_name(tool, injected),
    )


def _injected_names(tool: BaseTool) -> frozenset[str]:
    """The names that LangChain itself keeps from the model, asked of the tool in its own words."""
    names = set(tool._injected_args_keys)
    schema = tool.args_schema
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        candidates = dict.fromkeys(schema.model_fields)
        names |= set(candidates) - set(tool._filter_injected_args(candidates))
    return frozenset(names)


def _model_schema(schema: Any, injected: frozenset[str]) -> Any:
    """The schema of what the model fills in: validators and aliases kept, injected fields not asked for."""
    if isinstance(schema, dict):
        return schema
    if not (isinstance(schema, type) and issubclass(schema, BaseModel)):
        return None
    hidden = injected & set(schema.model_fields)
    if not hidden:
        return schema
    overrides: dict[str, Any] = dict.fromkeys(hidden, (Any, Field(default=None, exclude=True)))
    return create_model(schema.__name__, __base__=schema, **overrides)


def _single_name(tool: BaseTool, injected: frozenset[str]) -> str:
    """What LangChain calls the argument of a tool that is given one bare text."""
    schema = tool.args_schema
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return next((name for name in schema.model_fields if name not in injected), "input")
    return "tool_input"


def _kind(tool: BaseTool) -> CallKind:
    if tool.metadata and _HANDOFF_MARK in tool.metadata:
        return "handoff"
    function = getattr(tool, "coroutine", None) or getattr(tool, "func", None)
    module = getattr(function, "__module__", None) or ""
    return "mcp" if module.split(".", 1)[0] == _MCP_MODULE else "function"


class Attempts:
    """Counts how often a call with one identity was made in this process; remembers the latest few thousand.

    A forgotten call starts at 1 again, where the log already knows it: it is then answered from the log and
    does not run twice.
    """

    def __init__(self, capacity: int = _REMEMBERED_CALLS) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._made: OrderedDict[str, int] = OrderedDict()

    def next(self, identity: str | None) -> int:
        """Which attempt this is, counting from 1; always 1 for a call without identity."""
        if identity is None:
            return 1
        with self._lock:
            made = self._made.pop(identity, 0) + 1
            self._made[identity] = made
            if len(self._made) > self._capacity:
                self._made.popitem(last=False)
        return made

    def take_back(self, identity: str | None) -> None:
        """The attempt just counted did not come to a decision; the call will be made again."""
        if identity is not None:
            with self._lock:
                made = self._made.pop(identity, 0) - 1
                if made > 0:
                    self._made[identity] = made


def make_call(
    facts: ToolFacts,
    target: object | None,
    arguments: Mapping[str, Any],
    call_id: str | None,
    config: RunnableConfig | None,
    attempts: Attempts,
    run: str = "0",
    on_behalf_of: str | None = None,
) -> ToolCall:
    """The call as the gate sees it. `target` is what a mapping may hang on, `run` which of the call's runs this is."""
    configurable: Mapping[str, Any] = (config and config.get("configurable")) or {}
    identity = _identity(configurable, call_id, facts.name, run)
    thread = configurable.get("thread_id")
    return ToolCall(
        framework=FRAMEWORK,
        tool=facts.name,
        arguments=arguments,
        call_id=call_id,
        identity=identity,
        attempt=attempts.next(identity),
        kind=facts.kind,
        target=target,
        schema=facts.schema,
        run=None if thread is None else str(thread),
        on_behalf_of=on_behalf_of,
        context=_context(configurable, call_id),
    )


def _identity(configurable: Mapping[str, Any], call_id: str | None, name: str, run: str) -> str | None:
    namespace = configurable.get("checkpoint_ns")
    if not namespace or not call_id:
        return None
    thread = configurable.get("thread_id", "")
    return f"{thread}/{namespace}/{run}/{call_id}/{name}"


def _context(configurable: Mapping[str, Any], call_id: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, name in _IDS:
        value = configurable.get(key)
        if value:
            found[name] = str(value)
    if call_id:
        found["tool_call_id"] = call_id
    return found
