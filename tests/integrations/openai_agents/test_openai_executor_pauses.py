"""Shell, apply-patch and custom tools pause as function tools do; what the SDK cannot pause waits, and says so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import (
    Agent,
    ApplyPatchTool,
    AsyncComputer,
    ComputerTool,
    CustomTool,
    HostedMCPTool,
    LocalShellTool,
    Runner,
    RunState,
    ShellTool,
)
from agents.editor import ApplyPatchResult
from openai.types.responses import ResponseComputerToolCall
from openai.types.responses.response_output_item import LocalShellCall
from openai_pauses import POLICIES, Pauses, called, calls
from openai_scripted import ScriptedModel, call, say

from agentlattice_integrations.openai_agents import apply_decisions, coverage, govern
from agentlattice_integrations.openai_agents.pausing import WAITS_WHY

EXECUTORS = ("shell", "apply_patch", "note")


@pytest.fixture
def pauses(tmp_path: Path) -> Iterator[Pauses]:
    opened = Pauses(tmp_path)
    yield opened
    opened.close()


@pytest.mark.parametrize("tool", EXECUTORS)
async def test_what_was_approved_runs_once_also_where_no_decision_is_carried(
    pauses: Pauses, tool: str
) -> None:
    """A call that is resumed without a decision is asked about twice; newer SDKs pause a custom tool once more.

    It is answered once, and runs once.
    """
    agent = pauses.agent(calls(tool, 2))
    await pauses.pause(agent)
    pauses.decide("a")
    result = await Runner.run(agent, await pauses.load(agent))
    if result.interruptions:
        resumed = await pauses.resume(agent, result.to_state())
        assert (resumed.waiting, resumed.interruptions) == ([], [])
    assert pauses.ran() == ["deployed 0", "deployed 1"]
    assert [event.claim for event in pauses.log()] == ["succeeded"] * 2


@pytest.mark.parametrize("tool", EXECUTORS)
async def test_a_resume_done_twice_runs_an_executor_once(pauses: Pauses, tool: str) -> None:
    """Whoever comes second is told that it ran."""
    first, second = pauses.agent(calls(tool, 1)), pauses.agent()
    await pauses.pause(first)
    pauses.decide("a")
    said = [(await pauses.resume(agent)).said("call_0") for agent in (first, second)]
    assert (said, pauses.ran()) == (["deployed 0", "ALREADY_RAN"], ["deployed 0"])


@pytest.mark.parametrize("tool", EXECUTORS)
@pytest.mark.parametrize(("effect", "ran"), [("allow", ["deployed 0"]), ("deny", [])])
async def test_policy_may_change_while_an_executor_is_paused(
    pauses: Pauses, tool: str, effect: str, ran: list[str]
) -> None:
    """A call that nobody decided on is decided on by the policy that is in force when the run goes on."""
    agent = pauses.agent(calls(tool, 1))
    await pauses.pause(agent)
    changed = pauses.directory / "policies.yaml"
    changed.write_text(
        POLICIES.replace(f"tool.{tool}, effect: require_approval", f"tool.{tool}, effect: {effect}")
    )
    pauses.al.apply_policies_sync(changed)
    while pauses.requests():
        await asyncio.sleep(0.01)
    resumed = await pauses.resume(agent)
    assert (resumed.said("call_0"), pauses.ran()) == ("deployed 0" if ran else "POLICY_DENIED", ran)


@pytest.mark.parametrize("tool", EXECUTORS)
async def test_what_needs_nobody_does_not_pause(tmp_path: Path, tool: str) -> None:
    """Where policy allows it, the executor runs in the same turn, as one action."""
    pauses = Pauses(
        tmp_path,
        policies=POLICIES.replace(f"tool.{tool}, effect: require_approval", f"tool.{tool}, effect: allow"),
    )
    result = await Runner.run(pauses.agent(calls(tool, 2)), "go")
    assert (result.interruptions, pauses.ran()) == ([], ["deployed 0", "deployed 1"])
    assert [event.claim for event in pauses.log()] == ["succeeded"] * 2
    pauses.close()


async def test_equal_patches_have_requests_of_their_own(pauses: Pauses) -> None:
    """Two equal operations in one turn: the one that was approved is the one that runs."""
    first, second = calls("apply_patch", 2)
    second.operation.path = first.operation.path
    agent = pauses.agent([first, second])
    state = await pauses.pause(agent)
    requests = pauses.reviewer.list_pending_approvals_sync()
    assert len(requests) == 2
    pauses.reviewer.deny_action_sync(requests[0].id, "once is enough")
    pauses.reviewer.approve_action_sync(requests[1].id)
    resumed = await pauses.resume(agent, state)
    assert sorted(resumed.said(f"call_{number}") for number in (0, 1)) == ["DENIED_BY_REVIEWER", "deployed 0"]
    assert pauses.ran() == ["deployed 0"]


async def test_the_applications_handler_is_not_asked_in_the_persons_place(pauses: Pauses) -> None:
    """`on_approval` answers what the application itself asks; what policy asks is for a person to decide."""
    asked: list[str] = []

    def agree(_context: Any, item: Any) -> Any:
        asked.append(called(item))
        return {"approve": True}

    tool = ShellTool(executor=lambda request: "ran", on_approval=agree)
    agent = govern(
        Agent(name="main", tools=[tool], model=ScriptedModel(calls("shell", 1))),
        pauses.al,
        on_approval="pause",
    )
    state = await pauses.pause(agent)
    assert ([called(item) for item in state.get_interruptions()], asked) == (["call_0"], [])


@pytest.mark.parametrize("tool", EXECUTORS)
async def test_what_the_application_asks_about_an_executor_is_its_own(pauses: Pauses, tool: str) -> None:
    """The tool's own `needs_approval` comes first, and is left to the application."""

    class Editor:
        def create_file(self, operation: Any) -> ApplyPatchResult:
            return ApplyPatchResult(output="ran")

    async def note(_context: Any, text: str) -> str:
        return "ran"

    made: Any = {
        "shell": ShellTool(executor=lambda request: "ran", needs_approval=True),
        "apply_patch": ApplyPatchTool(editor=Editor(), needs_approval=True),  # type: ignore[arg-type]
        "note": CustomTool(name="note", description="Note.", on_invoke_tool=note, needs_approval=True),
    }[tool]
    model = ScriptedModel(calls(tool, 1))
    agent = govern(Agent(name="main", tools=[made], model=model), pauses.al, on_approval="pause")
    state = await pauses.pause(agent)
    (waiting,) = await apply_decisions(state)
    assert (waiting.call_id, waiting.approval_id, pauses.log()) == ("call_0", None, [])


# --- what the SDK cannot pause ---------------------------------------------------------------------------------------


class Screen(AsyncComputer):
    environment = "browser"
    dimensions = (10, 10)

    def __init__(self) -> None:
        self.did: list[str] = []

    async def screenshot(self) -> str:
        return "c2NyZWVu"

    async def _act(self, *given: Any, **more: Any) -> None:
        self.did.append("acted")

    click = double_click = scroll = type = wait = move = keypress = drag = _act  # type: ignore[assignment]


def local_shell_call(number: int) -> LocalShellCall:
    return LocalShellCall.model_validate(
        {"type": "local_shell_call", "id": f"ls_{number}", "call_id": f"call_{number}", "status": "completed",
         "action": {"type": "exec", "command": ["ls"], "env": {}}}
    )  # fmt: skip


def unpausable(kind: str, did: list[str]) -> tuple[Agent[Any], str]:
    """An agent whose one turn does what the SDK has no pause for, and the action that it is."""
    if kind == "handoff":
        second = Agent(name="second", model=ScriptedModel(lambda _: did.append("acted") or [say("done")]))
        model = ScriptedModel([call("transfer_to_second", call_id="call_0")])
        return Agent(name="main", handoffs=[second], model=model), "tool.transfer_to_second"
    if kind == "local shell":
        made: Any = local_shell_call(0)
        tool: Any = LocalShellTool(executor=lambda request: did.append("acted") or "out")
    else:
        made = ResponseComputerToolCall.model_validate(
            {"type": "computer_call", "id": "cu_0", "call_id": "call_0", "status": "completed",
             "pending_safety_checks": [], "actions": [{"type": "click", "x": 1, "y": 1, "button": "left"}]}
        )  # fmt: skip
        screen = Screen()
        screen.did = did
        tool = ComputerTool(computer=screen)
    return Agent(name="main", tools=[tool], model=ScriptedModel([made])), f"tool.{tool.name}"


@pytest.mark.parametrize("kind", ["handoff", "local shell", "computer"])
@pytest.mark.parametrize("letter", ["a", "d"])
async def test_what_the_sdk_cannot_pause_waits(tmp_path: Path, kind: str, letter: str) -> None:
    """The run does not end: it waits for the person, does nothing before, and what was approved after; the coverage
    report says so beforehand."""
    did: list[str] = []
    plain, action_type = unpausable(kind, did)
    policies = f"{POLICIES}  - {{name: This, action: {action_type}, effect: require_approval}}\n".replace(
        "action: tool.transfer_to_second, effect: allow", "action: tool.nothing, effect: allow"
    )
    pauses = Pauses(tmp_path, policies=policies)
    agent = govern(plain, pauses.al, on_approval="pause")
    assert [WAITS_WHY in str(tool.why) for tool in coverage(agent)] == [True]
    running = asyncio.ensure_future(Runner.run(agent, "go"))
    while not (waiting := await asyncio.to_thread(pauses.reviewer.list_pending_approvals_sync)):
        await asyncio.sleep(0.01)
    assert (running.done(), did) == (False, [])
    for request in waiting:
        if letter == "a":
            await pauses.reviewer.approve_action(request.id)
        else:
            await pauses.reviewer.deny_action(request.id, "no")
    result = await running
    assert (result.interruptions, result.final_output) == ([], "done")
    assert did == (["acted"] if letter == "a" else [])
    pauses.close()


async def test_equal_calls_that_wait_have_requests_of_their_own(tmp_path: Path) -> None:
    """Two equal calls in one turn: the second is not answered by what the first asked for and did not wait out."""
    did: list[str] = []
    tool = LocalShellTool(executor=lambda request: did.append("acted") or "out")
    plain = Agent(
        name="main",
        tools=[tool],
        model=ScriptedModel([local_shell_call(0), local_shell_call(1)], [say("done")]),
    )
    policies = f"{POLICIES}  - {{name: This, action: tool.{tool.name}, effect: require_approval}}\n"
    pauses = Pauses(tmp_path, policies=policies)
    agent = govern(plain, pauses.al, on_approval="pause", approval_timeout=0.1)
    result = await Runner.run(agent, "go")
    assert (result.final_output, did) == ("done", [])
    assert len(pauses.reviewer.list_pending_approvals_sync()) == 2
    pauses.close()


def test_the_report_tells_what_waits_from_what_pauses(pauses: Pauses) -> None:
    """Only what the SDK has no pause for is marked, and only where runs are to pause."""
    hosted = HostedMCPTool(
        tool_config={"type": "mcp", "server_label": "docs", "server_url": "https://example.org"}
    )
    for on_approval, waits in (("pause", {"docs", "transfer_to_second"}), ("wait", set())):
        agent = Agent(name="main", tools=[*pauses.tools(), hosted], handoffs=[Agent(name="second")])
        found = coverage(govern(agent, pauses.al, on_approval=on_approval))
        assert {tool.name for tool in found if WAITS_WHY in str(tool.why)} == waits


async def test_a_state_with_a_paused_executor_loads_more_than_once(pauses: Pauses) -> None:
    """What is saved is the SDK's own state, and nothing of ours is in it."""
    agent = pauses.agent(calls("shell", 1))
    await pauses.pause(agent)
    assert "agentlattice" not in pauses.saved.read_text()
    for _ in range(2):
        assert isinstance(await pauses.load(agent), RunState)
