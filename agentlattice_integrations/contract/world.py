"""What the contract's tests stand on: a real client over a real file, a policy, tools that leave traces, a reviewer.

- The policy governs each tool by its default action type, `tool.<name>`. Whatever is not in it is denied.
- A tool's body notes that it ran, with what; nothing else tells whether a tool ran.
- The reviewer is a second client on the same file with a person's identity.
"""

from __future__ import annotations

import asyncio
import functools
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jsonschema  # type: ignore[import-untyped,unused-ignore]

from agentlattice_core.client import AgentLattice
from agentlattice_core.results import ApprovalRequest, AuditEvent
from agentlattice_core.toolcalls import Denial, ToolCall, ToolGate, default_action_type, denial_schema
from agentlattice_integrations.contract.harness import FrameworkHarness, Governance, McpServer, Seen

__all__ = ["AGENT", "REVIEWER", "Effects", "World", "at_work", "parse_denial", "statuses"]

AGENT = "contract-agent"
REVIEWER = "reviewer"

_PATIENCE = 10.0  # seconds until something that must happen counts as not happening
_POLICIES = """
version: 1
policies:
  - {name: Free, action: tool.free, effect: allow}
  - {name: Forbidden, action: tool.forbidden, effect: deny}
  - name: PR Size
    action: tool.open_pr
    effect: allow
    conditions: [{field: pr_size, operator: lt, value: 50}]
  - name: Deploy Approval
    action: tool.deploy
    effect: require_approval
    approval: {timeout: 10m}
  - name: Hasty Deploy
    action: tool.deploy_hastily
    effect: require_approval
    approval: {timeout: 1s}
  - name: Daily Orders
    action: tool.order
    effect: allow
    rules:
      - {priority: 10, type: DAILY_CAP, cap: "100", currency: EUR, per: agent, effect: REJECT}
  - {name: Flaky, action: tool.flaky, effect: allow}
  - {name: Store, action: tool.store, effect: allow}
  - {name: Login, action: tool.login, effect: allow}
  - {name: Approve Everything, action: tool.approve_everything, effect: allow}
"""


class Effects:
    """What tool bodies did, in order: `(tool, arguments)`. Kept in a file, so that other processes can add to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def ran(self, tool: str, **arguments: Any) -> None:
        """Called by a tool's body."""
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([tool, arguments]) + "\n")

    def of(self, tool: str | None = None) -> list[dict[str, Any]]:
        """The arguments of each run of `tool`, or of all tools."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        entries = [json.loads(line) for line in lines]
        return [arguments for name, arguments in entries if tool is None or name == tool]


class World:
    """One test's client, policy, tools and reviewer. Close it when the test is over."""

    def __init__(
        self,
        harness: FrameworkHarness,
        directory: Path,
        *,
        mode: Literal["enforce", "observe"] = "enforce",
        handoffs: str = "allow",
    ) -> None:
        self.harness = harness
        self.directory = directory
        self.database = directory / "governance.db"
        self.effects = Effects(directory / "effects.jsonl")
        policies = directory / "policies.yaml"
        policies.write_text(_POLICIES + self._agent_policies(handoffs), encoding="utf-8")
        self.client, self.reviewer = self.open(policies, mode)

    def open(self, policies: Path, mode: Literal["enforce", "observe"]) -> tuple[AgentLattice, AgentLattice]:
        """The agent's client and the reviewer's, with `policies` in force. A subclass may open other ones."""
        return (
            AgentLattice.embedded(self.database, policies=policies, agent=AGENT, mode=mode),
            AgentLattice.embedded(self.database, operator=REVIEWER),
        )

    def _agent_policies(self, effect: str) -> str:
        names = {self.harness.handoff_tool: effect, self.harness.agent_tool: "allow"}
        return "".join(
            f"  - {{name: Agents {position}, action: {default_action_type(name)}, effect: {name_effect}}}\n"
            for position, (name, name_effect) in enumerate(names.items())
        )

    def close(self) -> None:
        """Close both clients."""
        self.reviewer.close()
        self.client.close()

    def governance(self, **options: Any) -> Governance:
        """What to pass to the harness."""
        return Governance(self.client, options)

    # --- tools ------------------------------------------------------------------------------------------------------

    def tools(self, *names: str, asynchronous: bool = False) -> list[Any]:
        """The framework's own tools of these names."""
        functions = self.functions()
        chosen = [functions[name] for name in names]
        if asynchronous:
            chosen = [_as_coroutine(function) for function in chosen]
        return [self.harness.make_tool(function, name=function.__name__) for function in chosen]

    def functions(self) -> dict[str, Callable[..., Any]]:
        """The bodies, by name: typed and documented, so that any framework can make a tool of them."""
        effects = self.effects

        def free(text: str) -> str:
            """Say a text."""
            effects.ran("free", text=text)
            return f"said {text}"

        def forbidden(text: str) -> str:
            """Do what nobody may do."""
            effects.ran("forbidden", text=text)
            return "the forbidden thing was done"

        def open_pr(title: str, pr_size: int) -> str:
            """Open a pull request of a number of files."""
            effects.ran("open_pr", title=title, pr_size=pr_size)
            return f"opened {title}"

        def deploy(version: str) -> str:
            """Deploy a version."""
            effects.ran("deploy", version=version)
            return f"deployed {version}"

        def deploy_hastily(version: str) -> str:
            """Deploy a version, if somebody agrees at once."""
            effects.ran("deploy_hastily", version=version)
            return f"deployed {version}"

        def order(amount: str, currency: str) -> str:
            """Order something for an amount."""
            effects.ran("order", amount=amount, currency=currency)
            return f"ordered for {amount} {currency}"

        def flaky(text: str) -> str:
            """Fail."""
            effects.ran("flaky", text=text)
            raise RuntimeError("the flaky tool failed")

        def store(payload: dict[str, Any]) -> str:
            """Store an object."""
            effects.ran("store", members=len(payload))
            return "stored"

        def login(user: str, password: str, note: str) -> str:
            """Log in."""
            effects.ran("login", user=user, password=password, note=note)
            return "logged in"

        def approve_everything() -> str:
            """Let the reviewer approve whatever is pending."""
            effects.ran("approve_everything")
            return f"approved {len(self.resolve_pending(approve=True))}"

        functions = (
            free, forbidden, open_pr, deploy, deploy_hastily, order, flaky, store, login, approve_everything
        )  # fmt: skip
        return {function.__name__: function for function in functions}

    def mcp_server(self) -> McpServer:
        """A real server with the tools `free`, `forbidden` and `open_pr`, which leave their traces in `effects`."""
        return McpServer(
            sys.executable, ("-m", "agentlattice_integrations.contract.mcp_server", str(self.effects.path))
        )

    # --- the reviewer -----------------------------------------------------------------------------------------------

    def pending(self) -> list[ApprovalRequest]:
        """What waits for a person."""
        return list(self.reviewer.list_pending_approvals_sync())

    def resolve_pending(self, *, approve: bool, reason: str | None = None) -> list[ApprovalRequest]:
        """Approve or deny all that is pending, and say what that was."""
        found = self.pending()
        for request in found:
            if approve:
                self.reviewer.approve_action_sync(request.id, reason=reason)
            else:
                self.reviewer.deny_action_sync(request.id, reason=reason)
        return found

    @contextmanager
    def deciding(self, *, approve: bool, count: int = 1, reason: str | None = None) -> Iterator[None]:
        """A reviewer at work beside the test, until `count` requests are decided."""
        with at_work(lambda: len(self.resolve_pending(approve=approve, reason=reason)), count):
            yield

    # --- the log ----------------------------------------------------------------------------------------------------

    def events(self, tool: str | None = None) -> list[AuditEvent]:
        """The recorded actions, oldest first, of one tool or of all; outcomes included."""
        self.client.flush()  # outcomes are recorded without anyone waiting for them
        wanted = default_action_type(tool) if tool is not None else None
        return list(reversed(self.client.audit_sync(limit=200, action_type=wanted).events))

    def database_bytes(self) -> bytes:
        """Everything that lies on the disk for the log."""
        return b"".join(path.read_bytes() for path in sorted(self.directory.glob(f"{self.database.name}*")))

    # --- what the model saw -----------------------------------------------------------------------------------------

    def reference_denial(self, tool: str, arguments: Mapping[str, Any] | str, **options: Any) -> Denial:
        """The denial of the same call made without any framework: what every adapter has to show, byte for byte."""
        answer = ToolGate(self.client, **options).authorize_sync(ToolCall("reference", tool, arguments))
        assert isinstance(answer, Denial), f"the reference call of `{tool}` was not denied"
        return answer


@contextmanager
def at_work(decide: Callable[[], int], count: int) -> Iterator[None]:
    """A reviewer at work beside the test, until `count` requests are decided; `decide` says how many it decided."""
    left = count
    stop = threading.Event()

    def work() -> None:
        nonlocal left
        while left > 0 and not stop.wait(0.01):
            left -= decide()

    thread = threading.Thread(target=work, name="reviewer")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_PATIENCE)
    assert left == 0, f"{left} of {count} requests never reached the reviewer"


def parse_denial(seen: Seen) -> dict[str, Any]:
    """The denial document the model saw: the whole text is one, and it follows the published schema."""
    document: dict[str, Any] = json.loads(seen.content)
    jsonschema.validate(document, denial_schema())
    return document


def statuses(seen: Sequence[Seen]) -> list[str]:
    """For each call: the status of the denial that the model saw, or `ran`."""
    found = []
    for each in seen:
        try:
            found.append(parse_denial(each)["status"])
        except (ValueError, TypeError, jsonschema.ValidationError):
            found.append("ran")
    return found


def _as_coroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same tool as a coroutine function, with the same signature and documentation."""

    @functools.wraps(function)
    async def tool(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        return function(*args, **kwargs)

    return tool
