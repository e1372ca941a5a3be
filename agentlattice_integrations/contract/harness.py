"""How the contract talks to a framework: make tools, run an agent by a script, and say what the model saw.

- An adapter subclasses `FrameworkHarness` once, in its tests, and subclasses `EnforcementContract` with it.
- The model is scripted: turn by turn it issues the calls it is told to, and after the last turn it answers with
  text. No network, no key. How the framework's model is faked is the harness's part.
- What the model saw is read where the model reads it: from the messages of the request that follows the call, not from
  the adapter's return value.
- A framework that lacks a feature says so in `alternatives`, with the reason and a check of what happens instead.
  The contract runs that check in place of its own test; there is no way to skip.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from agentlattice_core.toolcalls import Coverage

if TYPE_CHECKING:
    from agentlattice_integrations.contract.world import World

__all__ = [
    "Alternative",
    "Feature",
    "FrameworkHarness",
    "Governance",
    "How",
    "McpServer",
    "ScriptedCall",
    "Seen",
    "Transcript",
    "Turn",
]

How = Literal["sync", "async", "stream"]
"""How the agent is run: the framework's blocking call, its coroutine, or its streaming form."""


class Feature(Enum):
    """What a framework may lack."""

    SYNC = "agents can be run by a blocking call"
    ASYNC = "agents can be run by a coroutine"
    STREAMING = "a run can be streamed"
    PARALLEL = "one model turn can hold several calls"
    RAW_TEXT = "the arguments reach the gate as the text the model wrote"
    MCP = "tools can come from an MCP server"
    HANDOFF = "an agent can hand over to another agent"
    AGENT_AS_TOOL = "an agent can be another agent's tool"
    CACHE = "the framework caches tool results"
    RETRY = "the framework runs a raising tool again by itself"
    EDIT = "something of the framework's can change the arguments after the gate decided"
    LATE_TOOLS = "tools can be added after the agent was governed"
    DIRECT = "a tool can be called without an agent"
    HOSTED = "the provider can run tools on its own side"


@dataclass(frozen=True, slots=True)
class Alternative:
    """Why a feature is missing, and a check that fails unless what is promised instead holds."""

    reason: str
    check: Callable[[World], None]


@dataclass(frozen=True, slots=True)
class ScriptedCall:
    """One tool call the model makes. `arguments` as text is passed on verbatim where the framework allows it."""

    tool: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)
    call_id: str | None = None


Turn = Sequence[ScriptedCall]
"""The calls of one model message, in order. More than one are parallel calls."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the model was shown as the result of one call: exactly the text, and the id it was shown under."""

    tool: str
    content: str
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """One run: what the model saw per call in the order in which it made them, its final text, and the report.

    `coverage` is what the adapter's `govern(...)` reported for this run.
    """

    seen: Sequence[Seen]
    final: str | None
    coverage: Coverage | None = None


@dataclass(frozen=True, slots=True)
class Governance:
    """What `govern(...)` is given; `options` are the gate's: actions, redact, on_approval, approval_timeout."""

    client: Any
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class McpServer:
    """A real MCP server over stdio, to be started by the framework's own client: `command` and its `args`."""

    command: str
    args: tuple[str, ...]


class FrameworkHarness(ABC):
    """One framework with its adapter. Every method governs what it is given with `governance`."""

    name: ClassVar[str]
    """The framework's name, as its adapter puts it into `ToolCall.framework`."""
    handoff_tool: ClassVar[str] = "transfer_to_specialist"
    """What the tool is called by which the first agent of `run_handoff` hands over."""
    agent_tool: ClassVar[str] = "specialist"
    """What the tool is called that the inner agent of `run_agent_as_tool` is."""
    alternatives: ClassVar[Mapping[Feature, Alternative]] = {}

    @abstractmethod
    def make_tool(self, function: Callable[..., Any], *, name: str | None = None) -> Any:
        """The framework's own tool over a typed, documented function (plain or `async def`), not governed yet."""

    @abstractmethod
    def run(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn], *, how: How = "sync"
    ) -> Transcript:
        """Govern an agent with `tools` and run it by the script. `async` and `stream` may start an event loop.

        An exception of the run is raised to the contract: a denial never ends a run.
        """

    @abstractmethod
    def call_directly(
        self, governance: Governance, tool: Any, arguments: Mapping[str, Any], *, how: How = "sync"
    ) -> str:
        """Govern one tool and call it as an application would, without an agent. The text of what came back."""

    @abstractmethod
    def run_mcp(self, governance: Governance, server: McpServer, turns: Sequence[Turn]) -> Transcript:
        """Govern an agent whose tools come from `server` and run it by the script."""

    @abstractmethod
    def run_handoff(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn], *, denied: bool = False
    ) -> Transcript:
        """A first agent without tools hands over to `specialist`, which holds `tools` and runs `turns`.

        Only the first agent is passed to `govern(...)`, where the framework finds the second one through it. The
        transcript holds what the second agent saw; `denied` says that the policy refuses the hand-off itself, and the
        transcript then holds what the first agent saw of it, and `turns` are never run.
        """

    @abstractmethod
    def run_agent_as_tool(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn]
    ) -> Transcript:
        """An outer agent calls an inner agent, `specialist`, as its tool; the inner one holds `tools` and runs `turns`.

        The transcript holds what the inner agent saw.
        """

    @abstractmethod
    def run_with_late_tool(
        self, governance: Governance, tools: Sequence[Any], late: Any, turns: Sequence[Turn]
    ) -> Transcript:
        """As `run`, but `late` is added to the agent in the framework's own way after it was governed."""

    @abstractmethod
    def run_with_cache(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn]
    ) -> Transcript:
        """As `run`, with the framework's cache of tool results switched on."""

    @abstractmethod
    def run_with_retries(
        self, governance: Governance, tools: Sequence[Any], turns: Sequence[Turn], *, attempts: int
    ) -> Transcript:
        """As `run`, with the framework set to run a raising tool again, at most `attempts` times in all."""

    @abstractmethod
    def run_with_edit(
        self,
        governance: Governance,
        tools: Sequence[Any],
        turns: Sequence[Turn],
        edit: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> Transcript:
        """As `run`, but whatever can change arguments after a decision applies `edit` to every call's."""

    @abstractmethod
    def hosted_tools(self) -> Sequence[Any]:
        """At least one of each kind of tool that the provider runs on its own side."""
