"""What governance adds to one tool call in the OpenAI Agents SDK, as governed minus bare, measured in pairs.

- `own`: with a client that answers at once, in processor time, so that what is left is our own work.
- `durable`: with a real client on a file, in elapsed time, the write to the disk included.
- One run makes ten calls in one message, or in ten; each pair runs the same agent with and without governance,
  alternating; the median difference, divided by the calls, counts. `traced` has tracing on, exporting nothing.
- `nothing`: two agents, neither governed, measured in the same way: how far the other figures may be off.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage, function_tool
from agents.exceptions import UserError
from agents.tracing import set_trace_processors
from framework_pairs import POLICY, InstantClient, paired
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from agentlattice_core import AgentLattice
from agentlattice_integrations.openai_agents import govern

__all__ = ["measure"]

_CALLS = 10


@function_tool
async def write(path: str, size: int, note: str) -> str:
    """Write a file."""
    return "written"


class _Model(Model):
    """Makes ten calls, `at_once` or one after the other, then is done."""

    def __init__(self, at_once: bool) -> None:
        self._at_once = at_once
        self._ids = itertools.count()

    def _calls(self, input: Any) -> list[Any]:
        made = len(input) // 2 if isinstance(input, list) else 0
        if made >= _CALLS:
            text = ResponseOutputText(type="output_text", text="done", annotations=[], logprobs=[])
            return [
                ResponseOutputMessage(
                    id="m", type="message", role="assistant", status="completed", content=[text]
                )
            ]
        return [
            ResponseFunctionToolCall(
                type="function_call",
                name="write",
                arguments='{"path": "notes/today.txt", "size": 12, "note": ""}',
                call_id=f"call_{next(self._ids)}",
            )
            for _ in range(_CALLS if self._at_once else 1)
        ]

    async def get_response(self, system_instructions: Any, input: Any, *_: Any, **__: Any) -> ModelResponse:
        return ModelResponse(output=self._calls(input), usage=Usage(requests=1), response_id="r")

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise UserError("the benchmark does not stream")


def _runner(agent: Agent[Any], traced: bool, loop: asyncio.AbstractEventLoop) -> Callable[[], Any]:
    # One loop for all runs, as in a service: `asyncio.run` around each of them writes out the whole result in passing.
    config = RunConfig(tracing_disabled=not traced)
    return lambda: loop.run_until_complete(Runner.run(agent, "go", max_turns=_CALLS + 2, run_config=config))


def measure(directory: Path, *, rounds: int = 300) -> dict[str, Mapping[str, float]]:
    """Microseconds that governance adds to one allowed call, of our own and with the durable write."""
    set_trace_processors([])
    directory.mkdir(parents=True, exist_ok=True)
    policies = directory / "policies.yaml"
    policies.write_text(POLICY, encoding="utf-8")
    found: dict[str, Mapping[str, float]] = {}
    with (
        closing(asyncio.new_event_loop()) as loop,
        AgentLattice.embedded(directory / "governance.db", policies=policies, agent="benchmark") as durable,
    ):
        clients: dict[str, tuple[Any, Callable[[], float]]] = {
            "own": (InstantClient(), time.process_time),
            "durable": (durable, time.perf_counter),
        }
        for at_once in (False, True):
            one, other = (Agent(name="bare", tools=[write], model=_Model(at_once)) for _ in range(2))
            found[f"nothing, {'ten calls at once' if at_once else 'one call after the other'}"] = paired(
                _runner(one, False, loop),
                _runner(other, False, loop),
                rounds,
                time.process_time,
                calls=_CALLS,
                warmed=5,
            )
        for kind, (client, clock) in clients.items():
            pairs = rounds if kind == "own" else max(1, rounds // 4)
            for at_once, traced in itertools.product((False, True), repeat=2):
                bare = Agent(name="bare", tools=[write], model=_Model(at_once))
                governed = govern(Agent(name="governed", tools=[write], model=_Model(at_once)), client)
                name = f"{'ten calls at once' if at_once else 'one call after the other'}"
                found[f"{name}{', traced' if traced else ''}, {kind}"] = paired(
                    _runner(bare, traced, loop),
                    _runner(governed, traced, loop),
                    pairs,
                    clock,
                    calls=_CALLS,
                    warmed=5,
                )
    return found


if __name__ == "__main__":
    import json
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(measure(Path(temporary)), indent=2))
