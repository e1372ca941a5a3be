"""Which call is which: what stays the same across a resume and a restart, and what makes a call a new one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import RetryPolicy
from langgraph_scripted import ScriptedModel, asking, call, run, tool_graph, tool_messages

from agentlattice_core import AgentLattice
from agentlattice_core.results import AuditEvent
from agentlattice_integrations.langgraph import GovernanceMiddleware, govern_tool, governed_tool_node

Recorded = Callable[[], list[AuditEvent]]


@tool
def write(size: int) -> str:
    """Write."""
    return f"written {size}"


@pytest.mark.parametrize("entry", ["middleware", "tool", "node"])
@pytest.mark.parametrize("saved", [True, False])
def test_the_same_call_in_another_turn_or_run_is_a_new_action(
    al: AgentLattice, recorded: Recorded, entry: str, saved: bool
) -> None:
    """Models use the same call ids again; with the same arguments they are new actions, and run."""
    turns = [asking(call("write", "c1", size=1)), asking(call("write", "c1", size=1))]
    options: dict[str, Any] = {"checkpointer": InMemorySaver()} if saved else {}
    model = ScriptedModel(*turns, *turns)
    if entry == "middleware":
        graph: Any = create_agent(model, [write], middleware=[GovernanceMiddleware(al)], **options)
    elif entry == "tool":
        graph = create_agent(model, [govern_tool(write, al)], **options)
    else:
        graph = tool_graph(model, governed_tool_node([write], al), **options)
    for thread in ("one", "one", "two"):
        state = run(graph, config={"configurable": {"thread_id": thread}})
        assert all(message.status == "success" for message in tool_messages(state))
    assert [event.claim for event in recorded()] == ["succeeded"] * 4


def test_a_node_that_is_retried_claims_each_attempt(al: AgentLattice, recorded: Recorded) -> None:
    """LangGraph runs a raising node again: the same call, another attempt, an action of its own."""
    attempts: list[int] = []

    @tool
    def flaky(number: int) -> str:
        """Fail once."""
        attempts.append(number)
        if len(attempts) == 1:
            raise ConnectionError("gone")
        return "reached"

    node = governed_tool_node([flaky], al)
    policy = RetryPolicy(initial_interval=0.0, jitter=False)
    model = ScriptedModel(asking(call("flaky", number=1)))
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_node("tools", node, retry_policy=policy)
    builder.add_edge(START, "model")
    builder.add_edge("model", "tools")
    builder.add_edge("tools", END)
    assert tool_messages(run(builder.compile()))[0].content == "reached"
    assert [event.claim for event in recorded()] == ["failed", "succeeded"]


_CRASHING = r'''
import os, pickle, sys, threading
from pathlib import Path
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from langgraph_scripted import ScriptedModel, asking, call
from agentlattice_core import AgentLattice
from agentlattice_integrations.langgraph import GovernanceMiddleware

directory, how = sys.argv[1:]

class FileSaver(InMemorySaver):
    """Keeps what it is given in a file, at once."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.lock = threading.RLock()  # LangGraph puts from several threads; the file must never go back in time
        if path.exists():
            storage, writes, blobs = pickle.loads(path.read_bytes())
            for thread, spaces in storage.items():
                for space, checkpoints in spaces.items():
                    self.storage[thread][space].update(checkpoints)
            self.writes.update(writes)
            self.blobs.update(blobs)

    def put(self, *args):
        with self.lock:
            config = super().put(*args)
            self.keep()
        return config

    def put_writes(self, *args):
        with self.lock:
            super().put_writes(*args)
            self.keep()

    def keep(self):
        plain = {thread: {name: dict(kept) for name, kept in each.items()} for thread, each in self.storage.items()}
        self.path.write_bytes(pickle.dumps((plain, dict(self.writes), dict(self.blobs))))

@tool
def write(size: int) -> str:
    """Write."""
    with open(f"{directory}/effects", "a") as file:
        file.write("ran ")
    if how == "crash":
        os._exit(9)
    if how in ("pause", "answer"):
        return f"written {interrupt('sure?')}"
    return "written"

first = how in ("crash", "pause")
model = ScriptedModel(*([asking(call("write", "c1", size=1))] if first else []))
with AgentLattice.embedded(f"{directory}/governance.db", policies=f"{directory}/policies.yaml", agent="tester") as al:
    saver = FileSaver(Path(directory) / "graph")
    agent = create_agent(model, [write], middleware=[GovernanceMiddleware(al)], checkpointer=saver)
    config = {"configurable": {"thread_id": "t"}}
    given = {"messages": ["go"]} if first else Command(resume="yes") if how == "answer" else None
    state = agent.invoke(given, config, durability="sync")
    print(state["messages"][-2].content)
'''


@pytest.fixture
def process(al: AgentLattice, tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs the agent in a process of its own, which crashes in the tool, resumes, pauses in the tool, or answers it."""
    al.close()
    script = tmp_path / "agent.py"
    script.write_text(_CRASHING, encoding="utf-8")

    def start(how: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(script), str(tmp_path), how],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(Path(__file__).parent)},
            check=False,
        )

    return start


def test_a_call_that_was_interrupted_by_a_crash_is_not_run_again(
    process: Callable[[str], subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """The process dies inside the tool; another one resumes the graph: the model is told that nobody knows."""
    assert process("crash").returncode == 9
    resumed = process("resume")
    assert resumed.returncode == 0, resumed.stderr
    assert '"reason":"OUTCOME_UNKNOWN"' in resumed.stdout
    assert (tmp_path / "effects").read_text() == "ran "


def test_a_tool_that_paused_inside_goes_on_in_another_process(
    process: Callable[[str], subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """The answer to a tool's own interrupt makes its next run an action of its own, in whatever process it comes."""
    paused = process("pause")
    assert paused.returncode == 0, paused.stderr
    answered = process("answer")
    assert answered.stdout == "written yes\n", answered.stderr
    assert (tmp_path / "effects").read_text() == "ran ran "
