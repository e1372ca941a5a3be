"""A CrewAI model that follows a script, and reads what it was shown from the requests it gets.

- `native=True` answers with function calls, `native=False` with CrewAI's text protocol (Action /
  Observation).
- Each turn is the calls of one model message; after the last turn it answers with text. In the text protocol
  a message holds one call, so the calls of a turn follow one another.
- `hosted` are tools that a provider would run, as CrewAI's OpenAI client takes them.
- `called` translates a scripted tool name into the one that CrewAI gives the tool.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from crewai.llms.base_llm import BaseLLM
from crewai.utilities.i18n import I18N_DEFAULT
from pydantic import PrivateAttr

from agentlattice_integrations.contract import ScriptedCall, Seen, Turn

FINAL = "done"
_OBSERVATION = "\nObservation: "
# After every few results CrewAI repeats its instructions in the same message.
_REMINDER = "\n\n" + I18N_DEFAULT.slice("tools").partition("{")[0]


class ScriptedModel(BaseLLM):
    """See the module. `requests` holds the messages of every request, `shown` what came back for each call."""

    native: bool = True
    builtin_tools: list[str] | None = None
    _turns: list[list[ScriptedCall]] = PrivateAttr(default_factory=list)
    _made: list[ScriptedCall] = PrivateAttr(default_factory=list)
    _requests: list[list[dict[str, Any]]] = PrivateAttr(default_factory=list)
    _tools: list[list[str]] = PrivateAttr(default_factory=list)
    _before: Callable[[], None] | None = PrivateAttr(default=None)
    _called: Callable[[str], str] = PrivateAttr(default=str)

    def __init__(
        self,
        turns: Sequence[Turn] = (),
        *,
        native: bool = True,
        before: Callable[[], None] | None = None,
        called: Callable[[str], str] = str,
        hosted: Sequence[str] = (),
    ) -> None:
        super().__init__(model="scripted", native=native, builtin_tools=list(hosted) or None)
        listed = [list(turn) for turn in turns]
        self._turns = listed if native else [[call] for turn in listed for call in turn]
        self._before = before
        self._called = called

    @property
    def requests(self) -> list[list[dict[str, Any]]]:
        return self._requests

    @property
    def offered(self) -> list[list[str]]:
        """The names of the tools offered with each request."""
        return self._tools

    def supports_function_calling(self) -> bool:
        return self.native

    def supports_stop_words(self) -> bool:
        return True

    def get_context_window_size(self) -> int:
        return 100_000

    def call(
        self,
        messages: Any,
        tools: Any = None,
        callbacks: Any = None,
        available_functions: Any = None,
        from_task: Any = None,
        from_agent: Any = None,
        response_model: Any = None,
        **_: Any,
    ) -> Any:
        self._requests.append([dict(message) for message in messages] if isinstance(messages, list) else [])
        self._tools.append([tool["function"]["name"] for tool in tools or ()])
        if self._before is not None:
            self._before()
        if not self._turns:
            return FINAL if self.native else f"Thought: I know the answer\nFinal Answer: {FINAL}"
        turn = self._turns.pop(0)
        first = len(self._made)
        self._made.extend(turn)
        if not self.native:
            (call,) = turn
            return f"Thought: I need it\nAction: {self._called(call.tool)}\nAction Input: {_text(call.arguments)}"
        return [
            {
                "id": call.call_id or f"call_{first + position}",
                "type": "function",
                "function": {"name": self._called(call.tool), "arguments": _text(call.arguments)},
            }
            for position, call in enumerate(turn)
        ]

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)

    @property
    def shown(self) -> list[Seen]:
        """What the model was shown for each call it made, from the last request that holds it."""
        if self.native:
            results = {
                message["tool_call_id"]: str(message["content"])
                for request in self._requests
                for message in request
                if message.get("role") == "tool"
            }
            ids = [call.call_id or f"call_{position}" for position, call in enumerate(self._made)]
            return [
                Seen(call.tool, results[call_id], call_id)
                for call, call_id in zip(self._made, ids, strict=True)
                if call_id in results
            ]
        observed = [
            part.split(_OBSERVATION, 1)[1].split(_REMINDER, 1)[0]
            for message in (self._requests[-1] if self._requests else [])
            if message.get("role") == "assistant"
            for part in [str(message.get("content"))]
            if _OBSERVATION in part
        ]
        return [Seen(call.tool, content) for call, content in zip(self._made, observed, strict=False)]


def _text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(dict(arguments))
