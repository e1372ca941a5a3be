"""Under a policy that allows everything, an agent behaves as if nobody governed it: compared with a bare twin."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import openai_scripted
import pytest
from agents import (
    Agent,
    RunConfig,
    RunContextWrapper,
    RunHooks,
    Runner,
    function_tool,
    handoff,
    input_guardrail,
)
from agents.guardrail import GuardrailFunctionOutput
from agents.tool_context import ToolContext
from openai_scripted import ScriptedModel, call, say
from openai_world import World
from pydantic import BaseModel

from agentlattice_integrations.openai_agents import govern


class Invoice(BaseModel):
    number: int
    total: float


class Recording(RunHooks[Any]):
    """Every hook, in order, with what it was told."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def on_agent_start(self, context: Any, agent: Any) -> None:
        self.seen.append(("agent start", agent.name))

    async def on_agent_end(self, context: Any, agent: Any, output: Any) -> None:
        self.seen.append(("agent end", agent.name, output))

    async def on_handoff(self, context: Any, from_agent: Any, to_agent: Any) -> None:
        self.seen.append(("handoff", from_agent.name, to_agent.name))

    async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
        self.seen.append(("tool start", agent.name, tool.name, context.tool_call_id))

    async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:
        self.seen.append(("tool end", agent.name, tool.name, result))


def plain_calls() -> Agent[Any]:
    """Several calls at once, an error, defaults, a coroutine."""

    @function_tool
    def add(a: int, b: int = 2) -> int:
        """Add.

        Args:
            a: The first.
            b: The second.
        """
        return a + b

    @function_tool
    async def fail(why: str) -> str:
        """Fail."""
        raise ValueError(why)

    model = ScriptedModel(
        [call("add", {"a": 1, "b": 5}), call("fail", {"why": "x"}), call("add", {"a": 1})],
        [call("add", {"a": "y"})],
    )
    return Agent(name="plain", tools=[add, fail], model=model)


def structured() -> Agent[Any]:
    """A tool that returns a model, and an agent with an output type."""

    @function_tool
    def invoice(number: int) -> Invoice:
        """Find an invoice."""
        return Invoice(number=number, total=12.5)

    model = ScriptedModel([call("invoice", {"number": 7})], [say('{"number": 7, "total": 12.5}')])
    return Agent(name="structured", tools=[invoice], output_type=Invoice, model=model)


def contexts() -> Agent[Any]:
    """Tools that ask for the run's context in both ways."""

    @function_tool
    def who(context: RunContextWrapper[Any]) -> str:
        """Say who."""
        return str(context.context["user"])

    @function_tool
    def which(context: ToolContext[Any], what: str) -> str:
        """Say which."""
        return f"{context.tool_name} {context.tool_call_id} {context.tool_arguments} {what}"

    return Agent(
        name="contexts", tools=[who, which], model=ScriptedModel([call("who"), call("which", {"what": "x"})])
    )


def stopping() -> Agent[Any]:
    """The first tool's output is the run's."""

    @function_tool
    def answer() -> str:
        """Answer."""
        return "42"

    return Agent(
        name="stopping",
        tools=[answer],
        tool_use_behavior="stop_on_first_tool",
        model=ScriptedModel([call("answer")]),
    )


def handing_over() -> Agent[Any]:
    """Two hand-offs, one with a filter and a callback, and a tool at the end."""

    @function_tool
    def close() -> str:
        """Close."""
        return "closed"

    async def note(context: RunContextWrapper[Any]) -> None:
        context.context.setdefault("noted", []).append("handed over")

    last = Agent(name="last", tools=[close], model=ScriptedModel([call("close")]))
    middle = Agent(
        name="middle",
        handoffs=[
            handoff(last, on_handoff=note, input_filter=lambda data: data.clone(input_history="filtered"))
        ],
        model=ScriptedModel([call("transfer_to_last")]),
    )
    return Agent(name="first", handoffs=[middle], model=ScriptedModel([call("transfer_to_middle")]))


def nested() -> Agent[Any]:
    """An agent as a tool, with its own parameters."""
    inner = Agent(name="inner", model=ScriptedModel([say("inner says so")]))
    return Agent(
        name="outer",
        tools=[inner.as_tool("ask", "Ask."), inner.as_tool("ask_invoice", "Ask.", parameters=Invoice)],
        model=ScriptedModel(
            [call("ask", {"input": "x"})], [call("ask_invoice", {"number": 1, "total": 2.0})]
        ),
    )


def guarded() -> Agent[Any]:
    """An agent with an input guardrail of its own."""

    @input_guardrail
    async def calm(context: Any, agent: Any, input: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info="calm", tripwire_triggered=False)

    @function_tool
    def act() -> str:
        """Act."""
        return "acted"

    return Agent(name="guarded", tools=[act], input_guardrails=[calm], model=ScriptedModel([call("act")]))


SCENARIOS = [plain_calls, structured, contexts, stopping, handing_over, nested, guarded]


def models(agent: Agent[Any], found: dict[str, ScriptedModel] | None = None) -> dict[str, ScriptedModel]:
    """The models of everything an agent reaches."""
    found = {} if found is None else found
    if agent.name not in found:
        assert isinstance(agent.model, ScriptedModel)
        found[agent.name] = agent.model
        for item in agent.handoffs:
            target = item if isinstance(item, Agent) else item._agent_ref()  # type: ignore[misc]
            models(target, found)  # type: ignore[arg-type]
        for tool in agent.tools:
            inner = getattr(tool, "_agent_instance", None)
            if inner is not None:
                models(inner, found)
    return found


async def observed(build: Callable[[], Agent[Any]], streamed: bool, governed: bool) -> dict[str, Any]:
    """Everything an application and a model can see of a run."""
    openai_scripted._ids = itertools.count(1)
    agent = build()
    if governed:
        govern(agent, World())
    hooks, context = Recording(), {"user": "mia"}
    config = RunConfig(workflow_name="conformance")
    events: list[Any] = []
    if streamed:
        run: Any = Runner.run_streamed(agent, "go", hooks=hooks, context=context, run_config=config)
        async for event in run.stream_events():
            events.append((event.type, getattr(event, "name", None)))
    else:
        run = await Runner.run(agent, "go", hooks=hooks, context=context, run_config=config)
    return {
        "final": run.final_output,
        "last agent": run.last_agent.name,
        "items": [
            (item.type, _plain(item.raw_item), str(getattr(item, "output", ""))) for item in run.new_items
        ],
        "input list": [_plain(item) for item in run.to_input_list()],
        "hooks": hooks.seen,
        "context": context,
        "events": events,
        "requests": run.context_wrapper.usage.requests,
        "guardrails": [result.output.output_info for result in run.input_guardrail_results],
        "models": {name: (model.inputs, model.offered) for name, model in models(agent).items()},
        "schemas": [tool.params_json_schema for tool in agent.tools],
    }


def _plain(item: Any) -> Any:
    data = item if isinstance(item, dict) else item.model_dump(exclude_unset=True)
    return re.sub(r"0x[0-9a-f]+", "0x", repr(data))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("build", SCENARIOS, ids=lambda build: build.__name__)
async def test_an_allowed_run_looks_like_an_ungoverned_one(
    build: Callable[[], Agent[Any]], streamed: bool
) -> None:
    """Results, items, hooks, events, offers and what each model reads are the same."""
    assert await observed(build, streamed, governed=True) == await observed(build, streamed, governed=False)


async def test_the_comparison_sees_a_difference() -> None:
    """A denied run does not look like an ungoverned one: the comparison is not empty."""
    openai_scripted._ids = itertools.count(1)
    agent = govern(plain_calls(), World("tool.add"))
    result = await Runner.run(agent, "go")
    bare = await observed(plain_calls, False, governed=False)
    assert [_plain(item) for item in result.to_input_list()] != bare["input list"]
