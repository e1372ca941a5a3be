"""How the contract talks to a framework that pauses: run an agent until it does, and go on, here or in another process.

- An adapter subclasses `PauseHarness` once, in a module that another process can import by its name, and subclasses
  `PauseContract` with it. Such a module sets up its framework (no network, no telemetry) before it imports it.
- The agent's model makes one free call, and then all calls of `PausedAgent.calls` in one message. After those it
  answers with text.
- Whatever a pause needs to outlive its process is kept in `PausedAgent.folder`.
"""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from agentlattice_core.client import AgentLattice
from agentlattice_integrations.contract.harness import ScriptedCall
from agentlattice_integrations.contract.world import Effects

__all__ = ["AGENT", "PauseHarness", "PausedAgent", "Resumed"]

AGENT = "pausing-agent"
"""The agent that all clients of the contract act for."""


@dataclass(frozen=True, slots=True)
class PausedAgent:
    """One agent of the contract.

    `name` tells it from the others (a thread, a conversation). `client` is to govern it, and `folder` is its own.
    `hasty` are the versions whose deployment must be approved within a second. With `crashes`, the process ends by
    SIGKILL inside the first deployment, after that has left its trace.
    """

    name: str
    folder: Path
    client: AgentLattice
    versions: Sequence[str]
    hasty: frozenset[str] = frozenset()
    crashes: bool = False

    @property
    def effects(self) -> Effects:
        """What its tools did, in any process."""
        return Effects(self.folder / "effects.jsonl")

    @property
    def free_call(self) -> ScriptedCall:
        """What the model calls first; nobody is asked about it."""
        return ScriptedCall("free", {"text": self.name}, f"call-free-{self.name}")

    @property
    def calls(self) -> list[ScriptedCall]:
        """What the model calls next, all in one message; a person is asked about each."""
        return [
            ScriptedCall(
                "deploy_hastily" if version in self.hasty else "deploy",
                {"version": version},
                f"call-{version}",
            )
            for version in self.versions
        ]

    def functions(self) -> list[Callable[..., Any]]:
        """The bodies of its tools, typed and documented, so that any framework can make tools of them."""
        effects, crashes = self.effects, self.crashes

        def free(text: str) -> str:
            """Say a text."""
            effects.ran("free", text=text)
            return f"said {text}"

        def deploy(version: str) -> str:
            """Deploy a version."""
            effects.ran("deploy", version=version)
            if crashes:
                os.kill(os.getpid(), signal.SIGKILL)
            return f"deployed {version}"

        def deploy_hastily(version: str) -> str:
            """Deploy a version, if somebody agrees at once."""
            effects.ran("deploy", version=version)
            return f"deployed {version}"

        return [free, deploy, deploy_hastily]


@dataclass(frozen=True, slots=True)
class Resumed:
    """How far an agent came: what its model was shown, and which calls wait for a person, each by its call id.

    `shown` counts once the run has come to its end; while calls are `waiting` it may be empty.
    """

    shown: Mapping[str, str]
    waiting: frozenset[str] = frozenset()


class PauseHarness(ABC):
    """One framework with its adapter, where a call that needs a person suspends the run."""

    name: ClassVar[str]
    """The framework's name."""
    edits: ClassVar[bool] = False
    """Whether who answers in the framework's interface can change the arguments of a call."""
    where_no_pause: ClassVar[Literal["waits", "refuses"]]
    """What `on_approval="pause"` is where the framework cannot pause; without `on_approval` every adapter waits."""

    @abstractmethod
    def pause(self, agent: PausedAgent) -> object:
        """Govern a new agent with `on_approval="pause"` and run it until it pauses.

        What comes back is what this process goes on with; another one has the folder alone.
        """

    @abstractmethod
    def resume(self, agent: PausedAgent, paused: object | None, edits: Mapping[str, str]) -> Resumed:
        """Go on with what was decided meanwhile, to the end of the run or to its next pause.

        `paused` is what `pause` gave in this process, or None in another one. `edits` are versions to be changed in
        the framework's own way before the call is decided on again, as old to new.
        """

    @abstractmethod
    def run_without_pause(self, agent: PausedAgent, options: Mapping[str, Any]) -> Resumed:
        """Run a new agent to its end where the framework cannot pause (no checkpointer, no flow, no identity).

        `options` are the gate's, `on_approval` among them or not.
        """
