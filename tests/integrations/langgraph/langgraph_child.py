"""A graph whose sub-agent acts as a delegated child: paused by one process, gone on with by another.

As a program: `langgraph_child.py ask|resume <folder>`; `ask` is killed once the graph is paused.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_core.tools import BaseTool, tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph_pausing import FORMS, Thread, deploys, make_deploy
from langgraph_saver import FileSaver
from langgraph_scripted import ScriptedModel, asking, call

from agentlattice_core import AgentLattice
from agentlattice_integrations.langgraph import govern

__all__ = ["around", "make_read", "reads_and_deploys"]


def make_read(ran: Callable[[str], None]) -> BaseTool:
    """A tool that is allowed to the root agent."""

    @tool
    def read(path: str) -> str:
        """Read a path."""
        ran(path)
        return f"read {path}"

    return read


def reads_and_deploys() -> ScriptedModel:
    """A model that reads, and deploys when it has read."""
    return ScriptedModel(
        asking(call("read", "call-read", path="p")), asking(call("deploy", "call-web", service="web"))
    )


def around(al: AgentLattice, inner: Any, saver: Any) -> Any:
    """A graph that `al` governs as a whole, with `inner` as its sub-graph."""
    builder: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    builder.add_node("researcher", inner)
    builder.add_edge(START, "researcher")
    builder.add_edge("researcher", END)
    return govern(builder.compile(checkpointer=saver), al)


def _main(step: str, folder: Path) -> None:
    def ran(service: str) -> None:
        with (folder / "ran").open("a") as file:
            file.write(f"{service}\n")

    with AgentLattice.embedded(
        folder / "governance.db", policies=folder / "policies.yaml", agent="tester"
    ) as al:
        researcher = al.delegate("researcher", capabilities=["tool.deploy"], ttl=300)
        model = deploys("web") if step == "ask" else ScriptedModel()
        inner = FORMS["middleware"](researcher, model, [make_deploy(ran)], None, {})
        thread = Thread(around(al, inner, FileSaver(folder / "graph")))
        if step == "ask":
            thread.go()
            os.kill(os.getpid(), signal.SIGKILL)
        thread.answer("go on")
        (folder / "answers.json").write_text(json.dumps(thread.answers))


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))
