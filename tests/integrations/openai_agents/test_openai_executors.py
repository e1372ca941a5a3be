"""Shell, apply-patch, custom and computer tools, and what the provider runs."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import pytest
from agents import (
    Agent,
    ApplyPatchTool,
    AsyncComputer,
    CodeInterpreterTool,
    Computer,
    ComputerTool,
    CustomTool,
    FileSearchTool,
    HostedMCPTool,
    ImageGenerationTool,
    LocalShellTool,
    Runner,
    ShellTool,
    WebSearchTool,
    function_tool,
)
from agents.editor import ApplyPatchOperation, ApplyPatchResult
from agents.tool import ComputerProvider, ToolSearchTool
from openai.types.responses import (
    ResponseApplyPatchToolCall,
    ResponseComputerToolCall,
    ResponseCustomToolCall,
    ResponseFunctionShellToolCall,
)
from openai.types.responses.response_output_item import LocalShellCall, McpApprovalRequest
from openai_scripted import ScriptedModel
from openai_world import World, is_denial

from agentlattice_core.errors import InvalidRequestError
from agentlattice_integrations.openai_agents import coverage, govern

_ids = itertools.count(1)


def shell_call(*commands: str) -> ResponseFunctionShellToolCall:
    number = next(_ids)
    return ResponseFunctionShellToolCall.model_validate(
        {"type": "shell_call", "id": f"sh_{number}", "call_id": f"shell_{number}", "status": "completed",
         "action": {"commands": list(commands), "timeout_ms": 1000, "max_output_length": 20}}
    )  # fmt: skip


def patch_call(**operation: str) -> ResponseApplyPatchToolCall:
    number = next(_ids)
    return ResponseApplyPatchToolCall.model_validate(
        {"type": "apply_patch_call", "id": f"ap_{number}", "call_id": f"patch_{number}", "status": "completed",
         "operation": operation}
    )  # fmt: skip


def custom_call(name: str, text: str) -> ResponseCustomToolCall:
    return ResponseCustomToolCall(
        type="custom_tool_call", call_id=f"custom_{next(_ids)}", name=name, input=text
    )


def local_shell_call(*command: str) -> LocalShellCall:
    number = next(_ids)
    return LocalShellCall.model_validate(
        {"type": "local_shell_call", "id": f"ls_{number}", "call_id": f"local_{number}", "status": "completed",
         "action": {"type": "exec", "command": list(command), "env": {}}}
    )  # fmt: skip


def computer_call(*actions: dict[str, Any]) -> ResponseComputerToolCall:
    number = next(_ids)
    return ResponseComputerToolCall.model_validate(
        {"type": "computer_call", "id": f"cu_{number}", "call_id": f"computer_{number}", "status": "completed",
         "pending_safety_checks": [], "actions": list(actions)}
    )  # fmt: skip


def mcp_request(name: str, arguments: str) -> McpApprovalRequest:
    return McpApprovalRequest(
        type="mcp_approval_request",
        id=f"mcpr_{next(_ids)}",
        name=name,
        arguments=arguments,
        server_label="docs",
    )


class Careful(World):
    """Denies whatever mentions `secret` in its arguments."""

    def execute_sync(self, action_type: str, options: Any = None, **more: Any) -> Any:
        self.deny = {action_type} if "secret" in json.dumps(options.metadata) else set()
        return super().execute_sync(action_type, options, **more)


async def run(world: World, tool: Any, *calls: Any, **more: Any) -> tuple[ScriptedModel, Any, Agent[Any]]:
    model = ScriptedModel(list(calls))
    agent = govern(Agent(name="main", tools=[tool], model=model), world, **more)
    return model, await Runner.run(agent, "go"), agent


# --- shell ----------------------------------------------------------------------------------------------------------


async def test_a_shell_command_is_decided_on_before_it_runs() -> None:
    """A denied command does not run, and the rejection that the SDK shows the model is the denial, untruncated."""
    ran: list[Any] = []
    world = Careful()
    tool = ShellTool(executor=lambda request: ran.append(request.data.action.commands) or "out")
    model, result, _ = await run(world, tool, shell_call("ls"), shell_call("cat secret"))
    assert ran == [["ls"]]
    assert model.shown[0][0]["stdout"] == "out"
    assert is_denial(model.shown[1][0]["stderr"])
    assert result.interruptions == []
    assert world.arguments == [
        {"commands": ["ls"], "timeout_ms": 1000, "max_output_length": 20},
        {"commands": ["cat secret"], "timeout_ms": 1000, "max_output_length": 20},
    ]
    assert world.outcomes == ["succeeded", None]


async def test_a_failing_shell_executor_is_reported_as_a_failure() -> None:
    """The model sees the SDK's error, the log a failure."""

    def executor(request: Any) -> str:
        raise OSError("no shell here")

    world = World()
    model, _, _ = await run(world, ShellTool(executor=executor), shell_call("ls"))
    assert "no shell here" in model.shown[0][0]["stdout"]
    assert world.outcomes == ["failed"]


async def test_the_applications_own_shell_approval_comes_first() -> None:
    """What the application's handler rejects is not decided on; what it approves is, and may still be refused."""
    ran: list[Any] = []
    asked: list[str] = []

    def on_approval(context: Any, item: Any) -> Any:
        asked.append(item.raw_item.action.commands[0])
        return {"approve": "rm" not in asked[-1], "reason": "no rm"}

    tool = ShellTool(
        executor=lambda request: ran.append(request.data.action.commands) or "out",
        needs_approval=True,
        on_approval=on_approval,
    )
    world = Careful()
    model, _, _ = await run(world, tool, shell_call("rm x"), shell_call("cat secret"), shell_call("ls"))
    assert asked == ["rm x", "cat secret", "ls"]
    assert ran == [["ls"]]
    assert model.shown[0][0]["stderr"] == "no rm"
    assert model.shown[1][0]["stdout"].startswith('{"type":"agentlattic')
    assert world.statuses == ["denied", "executed"]


async def test_a_shell_call_that_the_application_approved_on_its_own_is_decided_on() -> None:
    """`state.approve(...)` lets the SDK run the executor; the executor still asks."""
    ran: list[Any] = []
    tool = ShellTool(executor=lambda request: ran.append(1) or "out", needs_approval=True)
    world = Careful()
    _, result, agent = await run(world, tool, shell_call("cat secret"))
    assert world.entries == []
    state = result.to_state()
    state.approve(state.get_interruptions()[0], always_approve=True)
    await Runner.run(agent, state)
    assert (ran, world.statuses) == ([], ["denied"])


async def test_a_local_shell_is_decided_on_by_its_executor() -> None:
    """The older shell tool has no approvals: the denial is its output."""
    ran: list[Any] = []
    world = Careful()
    tool = LocalShellTool(executor=lambda request: ran.append(request.data.action.command) or "out")
    model, _, _ = await run(world, tool, local_shell_call("ls"), local_shell_call("cat", "secret"))
    assert ran == [["ls"]]
    assert model.shown[0] == "out"
    assert is_denial(model.shown[1])


async def test_an_executor_that_is_replaced_later_is_governed() -> None:
    """Whoever gives a governed tool another executor, in place or in a copy, gets that one governed, once."""
    ran: list[str] = []
    for replaced in (False, True):
        world = Careful()
        agent = govern(Agent(name="main", tools=[ShellTool(executor=lambda request: "old")]), world)
        tool = agent.tools[0]
        assert isinstance(tool, ShellTool)
        if replaced:
            agent.tools[0] = dataclasses.replace(tool, name="shell")
        else:
            tool.executor = lambda request: ran.append(request.data.action.commands[0]) or "new"
        agent.model = model = ScriptedModel([shell_call("ls"), shell_call("cat secret")])
        await Runner.run(agent, "go")
        assert model.shown[0][0]["stdout"] == ("old" if replaced else "new")
        assert is_denial(model.shown[1][0]["stderr"])
        assert world.statuses == ["executed", "denied"]
    assert ran == ["ls"]


async def test_a_driver_that_is_replaced_later_is_governed() -> None:
    """A computer tool that is given another driver asks before that one acts, too."""
    world, screen = Careful(), Screen()
    agent = govern(Agent(name="main", tools=[ComputerTool(computer=Screen())]), world)
    agent.tools[0].computer = screen  # type: ignore[union-attr]
    agent.model = ScriptedModel(
        [computer_call({"type": "type", "text": "secret"}, {"type": "type", "text": "hi"})]
    )
    await Runner.run(agent, "go")
    assert screen.done == [("type", "hi")]
    assert world.statuses == ["denied", "executed"]


# --- patches and custom tools ---------------------------------------------------------------------------------------


class Editor:
    def __init__(self) -> None:
        self.done: list[str] = []

    def create_file(self, operation: ApplyPatchOperation) -> ApplyPatchResult:
        self.done.append(f"create {operation.path}")
        return ApplyPatchResult(status="completed", output="created")

    async def update_file(self, operation: ApplyPatchOperation) -> str:
        self.done.append(f"update {operation.path}")
        return "updated"

    def delete_file(self, operation: ApplyPatchOperation) -> ApplyPatchResult:
        return ApplyPatchResult(status="failed", output="read only")


async def test_each_file_operation_is_decided_on() -> None:
    """A denied operation does not reach the editor; what the editor calls a failure is reported as one."""
    editor, world = Editor(), Careful()
    model, _, _ = await run(
        world,
        ApplyPatchTool(editor=editor),
        patch_call(type="create_file", path="a.txt", diff="+a"),
        patch_call(type="update_file", path="secret.txt", diff="+a"),
        patch_call(type="update_file", path="b.txt", diff="+a"),
        patch_call(type="delete_file", path="c.txt"),
    )
    assert editor.done == ["create a.txt", "update b.txt"]
    assert model.shown[0] == "created"
    assert is_denial(model.shown[1])
    assert (model.shown[2], model.shown[3]) == ("updated", "read only")
    assert world.outcomes == ["succeeded", None, "succeeded", "failed"]
    assert world.arguments[0] == {"operation": "create_file", "path": "a.txt", "diff": "+a"}


async def test_a_custom_tool_is_decided_on_by_its_text() -> None:
    """Free text is the argument `input`; a denial is the rejection, byte for byte."""
    ran: list[str] = []

    async def invoke(context: Any, text: str) -> str:
        ran.append(text)
        return "ok"

    world = Careful()
    tool = CustomTool(name="sql", description="Run SQL.", on_invoke_tool=invoke)
    model, _, _ = await run(world, tool, custom_call("sql", "select 1"), custom_call("sql", "select secret"))
    assert ran == ["select 1"]
    assert model.shown[0] == "ok"
    assert is_denial(model.shown[1])
    assert world.arguments == [{"input": "select 1"}, {"input": "select secret"}]
    assert world.outcomes == ["succeeded", None]


# --- computer -------------------------------------------------------------------------------------------------------


class Screen(Computer):
    def __init__(self) -> None:
        self.done: list[Any] = []

    def screenshot(self) -> str:
        return "aGk="

    def click(self, x: int, y: int, button: Any) -> None:
        self.done.append(("click", x, y))

    def double_click(self, x: int, y: int) -> None:
        self.done.append(("double_click", x, y))

    def scroll(self, x: int, y: int, scroll_x: int, scroll_y: int) -> None:
        self.done.append(("scroll", x, y))

    def type(self, text: str) -> None:
        self.done.append(("type", text))

    def wait(self) -> None:
        self.done.append(("wait",))

    def move(self, x: int, y: int) -> None:
        self.done.append(("move", x, y))

    def keypress(self, keys: list[str]) -> None:
        self.done.append(("keypress", keys))

    def drag(self, path: list[tuple[int, int]]) -> None:
        self.done.append(("drag", path))


@pytest.mark.parametrize("form", ["driver", "factory", "provider"])
async def test_a_computer_performs_only_what_was_allowed(form: str) -> None:
    """Each action is decided on; a denied one is not performed, and the model sees the screen as it is."""
    screen, world = Screen(), Careful()
    disposed: list[Any] = []
    source: Any = screen
    if form == "factory":
        source = lambda *, run_context: screen  # noqa: E731
    elif form == "provider":
        source = ComputerProvider(
            create=lambda *, run_context: screen,
            dispose=lambda *, run_context, computer: disposed.append(computer),
        )
    model, _, agent = await run(
        world,
        ComputerTool(computer=source),
        computer_call(
            {"type": "click", "x": 1, "y": 2, "button": "left"},
            {"type": "type", "text": "the secret"},
            {"type": "drag", "path": [{"x": 1, "y": 1}, {"x": 2, "y": 2}]},
            {"type": "wait"},
        ),
    )
    assert screen.done == [("click", 1, 2), ("drag", [(1, 1), (2, 2)]), ("wait",)]
    assert model.shown[0]["type"] == "computer_screenshot"
    assert world.statuses == ["executed", "denied", "executed"]
    assert world.outcomes == ["succeeded", None, "succeeded"]
    assert disposed == ([screen] if form == "provider" else [])
    assert isinstance(agent.tools[0], ComputerTool)
    assert "no place for the reason" in (coverage(agent).tools[0].why or "")


def test_a_governed_driver_is_still_a_computer_with_the_drivers_own_members() -> None:
    """What else the application put on its driver is still there."""
    screen = Screen()
    tool = govern(ComputerTool(computer=screen), World())
    assert isinstance(tool.computer, AsyncComputer)
    assert tool.computer.done is screen.done


# --- what the provider runs -----------------------------------------------------------------------------------------


def hosted() -> list[Any]:
    return [
        WebSearchTool(),
        FileSearchTool(vector_store_ids=["vs_1"]),
        CodeInterpreterTool(tool_config={"type": "code_interpreter", "container": "auto"}),
        ImageGenerationTool(tool_config={"type": "image_generation"}),
        ShellTool(environment={"type": "container_auto"}),
    ]


@pytest.mark.parametrize("tool", hosted(), ids=lambda tool: type(tool).__name__)
async def test_a_tool_that_the_provider_runs_is_taken_away(tool: Any) -> None:
    """The model is not offered it, the report says why, and by itself it is an error that says what to do."""
    model, _, agent = await run(World(), tool)
    assert model.offered == [[]]
    assert agent.tools == []
    (entry,) = coverage(agent)
    assert (entry.status, "hosted_tools=`allow`" in str(entry.why)) == ("refused", True)
    with pytest.raises(InvalidRequestError, match="runs at the provider"):
        govern(tool, World())


@pytest.mark.parametrize("tool", hosted(), ids=lambda tool: type(tool).__name__)
async def test_a_hosted_tool_is_kept_only_by_choice_and_says_so(tool: Any) -> None:
    """`hosted_tools="allow"` keeps it, and the report calls it not coverable."""
    model, _, agent = await run(World(), tool, hosted_tools="allow")
    assert len(model.offered[0]) == 1
    report = coverage(agent)
    assert [entry.status for entry in report] == ["not_coverable"]
    with pytest.raises(Exception, match="can run without being decided on"):
        report.raise_if_uncovered()


def test_tool_search_stays() -> None:
    """Searching for definitions runs nothing."""

    @function_tool(defer_loading=True)
    def later() -> str:
        """Be found."""
        return "x"

    agent = govern(Agent(name="main", tools=[ToolSearchTool(), later]), World())
    assert [type(tool).__name__ for tool in agent.tools] == ["ToolSearchTool", "FunctionTool"]


async def test_a_hosted_mcp_call_is_decided_on_when_the_provider_asks() -> None:
    """The provider is told to ask always; the answer is the gate's, and its reason the denial."""
    world = Careful()
    tool = HostedMCPTool(
        tool_config={
            "type": "mcp",
            "server_label": "docs",
            "server_url": "https://mcp.example.com",
            "require_approval": "never",
        }
    )
    _, result, agent = await run(
        world, tool, mcp_request("read", '{"page": "home"}'), mcp_request("read", '{"page": "secret"}')
    )
    assert agent.tools[0].tool_config["require_approval"] == "always"  # type: ignore[union-attr]
    answers = [item.raw_item for item in result.new_items if item.type == "mcp_approval_response_item"]
    assert [answer["approve"] for answer in answers] == [True, False]
    assert is_denial(answers[1]["reason"])
    assert world.types == ["tool.read", "tool.read"]
    assert world.outcomes == ["unknown", None]
    assert tool.tool_config["require_approval"] == "never"


async def test_the_applications_own_hosted_mcp_answer_comes_first() -> None:
    """What the application rejects is not decided on."""
    world = World()
    tool = HostedMCPTool(
        tool_config={"type": "mcp", "server_label": "docs", "server_url": "https://mcp.example.com"},
        on_approval_request=lambda request: {"approve": False, "reason": "no"},
    )
    _, result, _ = await run(world, tool, mcp_request("read", "{}"))
    answers = [item.raw_item for item in result.new_items if item.type == "mcp_approval_response_item"]
    assert [(answer["approve"], answer["reason"]) for answer in answers] == [(False, "no")]
    assert world.entries == []
