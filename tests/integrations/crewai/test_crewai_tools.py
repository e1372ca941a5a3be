"""Which tool is decided on, and that its gate goes with it: to copies, twins and direct callers."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from crew_harness import agent_with, crew_of
from crew_tools import BOTH, Recorded, Traces, denial
from crewai.tools import BaseTool, tool
from pydantic import BaseModel, Field, HttpUrl, SecretStr
from scripted_crewai import ScriptedModel

from agentlattice_core import AgentLattice
from agentlattice_core.toolcalls import governed
from agentlattice_integrations.contract import ScriptedCall
from agentlattice_integrations.crewai import govern


@BOTH
def test_two_tools_with_one_name_are_told_apart_by_object(al: AgentLattice, native: bool) -> None:
    """CrewAI renames the second of two tools that read the same; neither takes the other's permit."""
    ran = []

    def payment(name: str, size: str) -> Any:
        @tool(name)
        def pay(amount: int) -> str:
            """Pay."""
            ran.append(size)
            return size

        return pay

    small, large = payment("pay", "small"), governed("pay.large")(payment("Pay!", "large"))
    calls = [[ScriptedCall("pay", {"amount": 1})], [ScriptedCall("pay_2", {"amount": 2})]]
    model = ScriptedModel(calls, native=native)
    crew = crew_of(agent_with(model, [small, large]))
    govern(crew, al).kickoff()
    assert "large" not in ran
    assert "small" in ran or not native


def test_governing_changes_neither_the_tool_nor_the_lists_that_hold_it(
    al: AgentLattice, traces: Traces
) -> None:
    """The same object comes back, of the same class, with the same fields, schema and signature, in the same lists."""
    read = traces.read()
    agent = agent_with(ScriptedModel(), [read])
    crew = crew_of(agent)
    fields, schema, lists = (
        read.model_dump(exclude={"func"}),
        read.args_schema,
        (agent.tools, crew.tasks[0].tools),
    )
    assert govern(crew, al) is crew
    assert type(read) is type(traces.read())
    assert read.model_dump(exclude={"func"}) == fields
    assert read.args_schema is schema
    assert (agent.tools, crew.tasks[0].tools) == lists
    assert agent.tools is lists[0]
    assert agent.tools[0] is read


def test_governing_twice_asks_once(al: AgentLattice, traces: Traces, recorded: Recorded) -> None:
    """A tool has one gate, however often it is governed."""
    read = traces.read()
    govern(crew_of(agent_with(ScriptedModel(), [govern(read, al)])), al)
    assert read.run(path="a") == "read a"
    assert len(recorded("tool.read")) == 1


def test_a_copy_of_a_governed_tool_is_governed_and_runs_as_itself(al: AgentLattice) -> None:
    """`model_copy` takes the gate along; in a governed crew the copy gets one of its own."""

    class Remove(BaseTool):
        name: str = "delete"
        description: str = "Deletes."
        place: str = "here"

        def _run(self, path: str) -> str:
            return f"{path} in {self.place}"

    original = govern(Remove(), al)
    copy = original.model_copy(update={"place": "there"})
    assert denial(str(copy.run(path="a")))["reason"] == "POLICY_DENIED"
    govern(copy, al, actions={"delete": "tool.allowed"})
    assert copy.run(path="a") == "a in there"


def test_positional_arguments_are_decided_on_by_name(
    al: AgentLattice, traces: Traces, recorded: Recorded
) -> None:
    """`tool.run("a")` is recorded as what the tool receives."""
    assert govern(traces.read(), al).run("a") == "read a"
    assert [event.metadata for event in recorded("tool.read")] == [{"path": "a"}]


class _Fetching(BaseModel):
    url: HttpUrl
    into: Path
    tags: set[str]
    body: bytes
    wait: timedelta


class _Fetch(BaseTool):
    name: str = "fetch"
    description: str = "Fetch."
    args_schema: type[BaseModel] = _Fetching
    given: list[Any] = Field(default_factory=list)

    def _run(self, **given: Any) -> str:
        self.given.append(given)
        return "fetched"


@BOTH
def test_arguments_that_a_schema_makes_objects_of_are_decided_on_as_json(
    al: AgentLattice, recorded: Recorded, native: bool
) -> None:
    """The log and policy read them as the schema writes them, sets in one order; the tool is given the objects."""
    written = {
        "url": "https://example.com/a",
        "into": "/srv/a",
        "tags": ["b", "a", "c"],
        "body": "text",
        "wait": "PT5S",
    }
    fetch = _Fetch()
    crew = crew_of(agent_with(ScriptedModel([[ScriptedCall("fetch", written)]], native=native), [fetch]))
    govern(crew, al).kickoff()
    assert fetch.given == [_Fetching.model_validate(written).model_dump()]
    (event,) = recorded("tool.fetch")
    assert (event.metadata, event.claim) == ({**written, "tags": ["a", "b", "c"]}, "succeeded")


def _nested(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    "odd",
    [object(), b"\xff", SecretStr("x"), {b"\xff"}, _nested(100), _nested(2000)],
    ids=["object", "bytes", "secret", "set", "deep", "deeper"],
)
def test_arguments_that_have_no_json_form_do_not_run(al: AgentLattice, traces: Traces, odd: Any) -> None:
    """What cannot be decided on is refused in words."""
    assert denial(str(govern(traces.read(), al).func(path=[odd])))["reason"] == "INVALID_ARGUMENTS"
    assert traces.ran == []


def test_a_governed_tool_handed_to_a_model_client_is_governed(al: AgentLattice, traces: Traces) -> None:
    """`LLM.call(available_functions=...)` calls no hook; the gate on the tool stands all the same."""
    functions = {"delete": govern(traces.delete(), al).run}
    assert denial(str(functions["delete"](path="a")))["reason"] == "POLICY_DENIED"
    assert traces.ran == []
