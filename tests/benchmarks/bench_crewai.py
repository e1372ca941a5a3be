"""What governance adds to one tool call in CrewAI, as governed minus bare, measured in pairs.

- `own`: with a client that answers at once, the processor time that our code takes in the thread that makes the call:
  for a crew, the hook before the call and the gate on the tool, measured around each.
- `all threads`: processor time of the whole process, beside a crew without hooks. It holds what CrewAI spends on having
  a hook at all (it emits events around it), of which `empty hook` is the share.
- `durable`: with a real client on a file, in elapsed time, the write to the disk included.
- Each pair runs the same crew or tool with and without governance, alternating; the median difference counts.
"""

from __future__ import annotations

import os

os.environ.setdefault("CREWAI_DISABLE_TELEMETRY", "true")
os.environ.setdefault("CREWAI_TRACING_ENABLED", "false")
os.environ.setdefault("OTEL_SDK_DISABLED", "true")

import functools
import logging
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crewai import Agent, Crew, Task
from crewai.hooks import InterceptionPoint, clear_all_hooks, get_hooks, register_hook, unregister_hook
from crewai.llms.base_llm import BaseLLM
from crewai.tools import tool
from framework_pairs import POLICY, InstantClient, summary

from agentlattice_core import AgentLattice
from agentlattice_integrations.crewai import govern

__all__ = ["measure"]

_CALLS = 20
"""Tool calls in one run of a crew."""


class _Model(BaseLLM):
    """Makes the calls of one run, one after the other, then is done."""

    made: int = 0

    def supports_function_calling(self) -> bool:
        return True

    def get_context_window_size(self) -> int:
        return 1_000_000

    def call(self, messages: Any, *_: Any, **__: Any) -> Any:
        if self.made == _CALLS:
            return "done"
        self.made += 1
        arguments = f'{{"path": "notes/{self.made}.txt", "size": 12}}'
        return [
            {"id": f"c{self.made}", "type": "function", "function": {"name": "write", "arguments": arguments}}
        ]


def _tool() -> Any:
    @tool
    def write(path: str, size: int, note: str = "") -> str:
        """Write a file."""
        return "written"

    return write


def _crew() -> Crew:
    agent = Agent(
        role="writer", goal="write", backstory="writes", llm=_Model(model="benchmark"), tools=[_tool()]
    )
    return Crew(agents=[agent], tasks=[Task(description="write", expected_output="done", agent=agent)])


def _paired(
    make: Callable[[], Any],
    without: Callable[[Any], Any],
    prepare: Callable[[Any], Any],
    run: Callable[[Any], Any],
    rounds: int,
    clock: Callable[[], float],
    calls: int,
) -> dict[str, float]:
    differences, plain = [], []
    for number in range(rounds):
        took = {}
        for governed in (False, True) if number % 2 else (True, False):
            clear_all_hooks()
            subject = make()
            (prepare if governed else without)(subject)
            started = clock()
            run(subject)
            took[governed] = (clock() - started) * 1e6 / calls
        differences.append(took[True] - took[False])
        plain.append(took[False])
    clear_all_hooks()
    return summary(plain, differences)


def _nothing(_: Any) -> None:
    """Leave it as it is."""


def _empty_hook(_: Any) -> None:
    register_hook(InterceptionPoint.PRE_TOOL_CALL, lambda context: None)


def _call_tool(write: Any) -> None:
    for number in range(_CALLS):
        write.run(path=f"notes/{number}.txt", size=12)


def _own_time_in_a_crew(client: Any, rounds: int) -> dict[str, float]:
    hooks, gates = _Meter(), _Meter()
    for _ in range(rounds):
        clear_all_hooks()
        crew = _crew()
        govern(crew, client)
        for hook in get_hooks(InterceptionPoint.PRE_TOOL_CALL):
            unregister_hook(InterceptionPoint.PRE_TOOL_CALL, hook)
            register_hook(InterceptionPoint.PRE_TOOL_CALL, hooks.around(hook))
        (write,) = crew.agents[0].tools
        object.__setattr__(write, "func", gates.around(write.func))
        crew.kickoff()
    clear_all_hooks()
    assert len(hooks.took) == len(gates.took) == rounds * _CALLS
    return {
        "hook_us": round(statistics.median(hooks.took), 1),
        "gate_us": round(statistics.median(gates.took), 1),
        "added_us": round(statistics.median(map(sum, zip(hooks.took, gates.took, strict=True))), 1),
    }


class _Meter:
    """Adds up the processor time of a function in its thread, call by call, in microseconds."""

    def __init__(self) -> None:
        self.took: list[float] = []

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            started = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.took.append((time.thread_time() - started) * 1e6)

        return measured


def measure(directory: Path, *, rounds: int = 60) -> dict[str, Mapping[str, float]]:
    """Microseconds that governance adds to one allowed call, per entry point, of our own and with the durable write."""
    logging.getLogger("crewai").setLevel(logging.ERROR)
    directory.mkdir(parents=True, exist_ok=True)
    policies = directory / "policies.yaml"
    policies.write_text(POLICY, encoding="utf-8")
    found: dict[str, Mapping[str, float]] = {}
    with AgentLattice.embedded(directory / "governance.db", policies=policies, agent="benchmark") as durable:
        clients: dict[str, tuple[Any, Callable[[], float]]] = {
            "own": (InstantClient(), time.process_time),
            "durable": (durable, time.perf_counter),
        }
        found["crew, own"] = _own_time_in_a_crew(clients["own"][0], max(1, rounds // 4))
        _paired(_crew, _nothing, _empty_hook, Crew.kickoff, 3, time.process_time, _CALLS)
        found["empty hook"] = _paired(
            _crew, _nothing, _empty_hook, Crew.kickoff, rounds, time.process_time, _CALLS
        )
        for kind, (client, clock) in clients.items():

            def governing(subject: Any, al: Any = client) -> None:
                govern(subject, al)

            found[f"tool.run, {kind}"] = _paired(
                _tool, _nothing, governing, _call_tool, rounds * 4, clock, _CALLS
            )
            label = "all threads" if kind == "own" else kind
            found[f"crew, {label}"] = _paired(_crew, _nothing, governing, Crew.kickoff, rounds, clock, _CALLS)
    return found


if __name__ == "__main__":
    import json
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(measure(Path(temporary)), indent=2))
