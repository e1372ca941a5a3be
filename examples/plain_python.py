"""Governance without a framework: submit an action, wait for one, report how it went, and correct what is denied.

python examples/plain_python.py
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from agentlattice_core import (
    ActionOptions,
    AgentLattice,
    AgentLatticeDeniedError,
    GovernanceEvent,
    ReportOutcome,
)
from agentlattice_core.policy import PolicyDocument

POLICIES = PolicyDocument.parse("""
version: 1
policies:
  - name: PR Size
    action: pr.open
    effect: allow
    conditions:
      - {field: pr_size, operator: lt, value: 50}
  - name: PR Merge Policy
    action: pr.merge
    effect: require_approval
    approval: {timeout: 1h, approvers: ["group:reviewers"]}
""")


async def open_pr(files: list[str]) -> None:
    """The side effect. It is reached only by what was allowed."""
    print("opened a pull request with", len(files), "files")


async def commit_with_governance(al: AgentLattice, files: list[str]) -> None:
    """Open a pull request; where policy says that it is too large, open two of half the size."""
    try:
        permitted = await al.gate(
            "pr.open", ActionOptions(metadata={"pr_size": len(files), "repo": "acme/backend"})
        )
    except AgentLatticeDeniedError as error:
        failed = [condition.field for condition in error.conditions if not condition.result]
        if error.reason == "CONDITIONS_DENIED" and "pr_size" in failed and len(files) > 1:
            print("denied:", len(files), "files, by", error.policy)
            middle = len(files) // 2
            await commit_with_governance(al, files[:middle])
            await commit_with_governance(al, files[middle:])
            return
        raise  # nothing that a smaller pull request would help
    await open_pr(files)
    await al.report(permitted.audit_event_id, ReportOutcome(status="success", message="opened"))


async def merge_with_a_reviewer(al: AgentLattice) -> None:
    """A merge waits for a reviewer, who is somebody else than the agent."""
    with al.for_operator("s.patel@acme.com", groups=["reviewers"]) as reviewer:
        asked: asyncio.Queue[GovernanceEvent] = asyncio.Queue()
        await reviewer.subscribe(reviewer.org_id, asked.put_nowait, events=["approval.requested"])
        merge = asyncio.create_task(al.gate("pr.merge", metadata={"pr_number": 87}))
        request = (await asked.get()).data
        print("a reviewer is asked about", request["action_type"])
        await reviewer.approve_action(request["approval_id"], "looks good")
        print("merged, as", (await merge).status)


async def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        AgentLattice.embedded(Path(folder) / "governance.db", policies=POLICIES, agent="code-agent") as al,
    ):
        result = await al.execute("pr.open", metadata={"pr_size": 12, "repo": "acme/backend"})
        print("a small pull request is", result.status, "by", result.policy_name)
        await commit_with_governance(al, [f"src/module_{number:02}.py" for number in range(1, 88)])
        await merge_with_a_reviewer(al)
        print("the log verifies:", (await al.verify()).chain_valid)


if __name__ == "__main__":
    asyncio.run(main())
