"""The computer tool: each action is decided on by the driver, and a denied one is not performed.

- The SDK returns a screenshot and nothing else from a computer call, so the model cannot be given the denial document:
  it sees that the screen did not change. The log holds the refusal.
- The screenshot that ends every computer call shows what is there and is not decided on by itself.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

from agents import AsyncComputer, Computer, ComputerProvider, ComputerTool

from agentlattice_core.toolcalls.call import Denial
from agentlattice_integrations.openai_agents.governor import Governor, HeldPermit, run_permitted

__all__ = ["SKIPPED_WHY", "govern_computer"]

SKIPPED_WHY = (
    "a denied action is not performed and the model is shown the screen; the SDK has no place for the reason"
)


def govern_computer(tool: ComputerTool[Any], governor: Governor) -> ComputerTool[Any]:
    """A governed copy of a computer tool, whether it holds a driver, a factory of drivers, or a provider."""
    source = tool.computer
    governed = copy.copy(tool)
    if isinstance(source, Computer | AsyncComputer):
        governed.computer = GovernedComputer(source, governor, tool.name)
    else:
        governed.computer = _provider(source, governor, tool.name)
    governed.__post_init__()
    return governed


def _provider(source: Any, governor: Governor, name: str) -> ComputerProvider[Any]:
    create_own = source.create if hasattr(source, "create") else source
    dispose_own = getattr(source, "dispose", None)

    async def create(*, run_context: Any) -> GovernedComputer:
        made = create_own(run_context=run_context)
        return GovernedComputer(await made if inspect.isawaitable(made) else made, governor, name)

    async def dispose(*, run_context: Any, computer: Any) -> None:
        if dispose_own is not None:
            done = dispose_own(run_context=run_context, computer=computer.driver)
            if inspect.isawaitable(done):
                await done

    return ComputerProvider(create=create, dispose=dispose)


class GovernedComputer(AsyncComputer):
    """A driver that performs an action only under a permit. `driver` is the application's own."""

    def __init__(self, driver: Any, governor: Governor, name: str) -> None:
        self.driver = driver
        self._governor = governor
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self.driver, name)

    @property
    def environment(self) -> Any:
        return self.driver.environment

    @property
    def dimensions(self) -> Any:
        return self.driver.dimensions

    async def screenshot(self) -> str:
        taken = self.driver.screenshot()
        return str(await taken if inspect.isawaitable(taken) else taken)

    async def click(self, x: int, y: int, button: Any, *, keys: Any = None) -> None:
        await self._perform("click", {"x": x, "y": y, "button": button}, keys)

    async def double_click(self, x: int, y: int, *, keys: Any = None) -> None:
        await self._perform("double_click", {"x": x, "y": y}, keys)

    async def scroll(self, x: int, y: int, scroll_x: int, scroll_y: int, *, keys: Any = None) -> None:
        await self._perform("scroll", {"x": x, "y": y, "scroll_x": scroll_x, "scroll_y": scroll_y}, keys)

    async def type(self, text: str) -> None:
        await self._perform("type", {"text": text}, None)

    async def wait(self) -> None:
        waited = self.driver.wait()
        if inspect.isawaitable(waited):
            await waited

    async def move(self, x: int, y: int, *, keys: Any = None) -> None:
        await self._perform("move", {"x": x, "y": y}, keys)

    async def keypress(self, keys: list[str]) -> None:
        await self._perform("keypress", {"keys": list(keys)}, None)

    async def drag(self, path: list[tuple[int, int]], *, keys: Any = None) -> None:
        await self._perform("drag", {"path": [list(point) for point in path]}, keys)

    async def _perform(self, action: str, values: Mapping[str, Any], keys: Any) -> None:
        arguments = {"action": action, **values} | ({"held_keys": list(keys)} if keys else {})
        call = self._governor.tool_call(self._name, arguments, None, kind="executor", target=self.driver)
        answer = await self._governor.decide(call)
        if isinstance(answer, Denial):
            return
        method = getattr(self.driver, action)
        given = list(values.values())
        if action == "drag":
            given = [[tuple(point) for point in values["path"]]]
        held = HeldPermit(answer, call)
        if keys and "keys" in inspect.signature(method).parameters:
            await run_permitted(held, lambda: method(*given, keys=keys), lambda _: None)
        else:
            await run_permitted(held, lambda: method(*given), lambda _: None)
