"""A LangGraph agent that is denied, reads why, and corrects itself.

Run it as it is, and a small local model plays the provider's part. Set OPENAI_API_KEY, and a real model does.

    python examples/langgraph_agent.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from langchain.agents import create_agent
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from agentlattice_core import AgentLattice
from agentlattice_core.policy import PolicyDocument
from agentlattice_integrations.demo.local_model import provider
from agentlattice_integrations.langgraph import GovernanceMiddleware, governed

POLICIES = PolicyDocument.parse("""
version: 1
policies:
  - name: Reading is free
    action: repo.*
    effect: allow
  - name: PR Size
    action: pr.open
    effect: allow
    conditions:
      - {field: pr_size, operator: lt, value: 50}
""")


@tool
@governed("repo.read")
def list_changed_files(branch: str) -> str:
    """List the files that a branch changes, one per line."""
    return "\n".join(f"src/billing/module_{number:02}.py" for number in range(1, 88))


@tool
@governed("pr.open", metadata={"pr_size": lambda arguments: len(arguments["files"])})
def open_pull_request(branch: str, files: list[str]) -> str:
    """Open a pull request with some of the files that a branch changes."""
    return f"opened a pull request with {len(files)} files"


def main() -> None:
    endpoint = provider()
    with (
        tempfile.TemporaryDirectory() as folder,
        AgentLattice.embedded(Path(folder) / "governance.db", policies=POLICIES, agent="code-agent") as al,
    ):
        agent = create_agent(
            ChatOpenAI(model=endpoint.model, base_url=endpoint.base_url, api_key=endpoint.api_key),
            [list_changed_files, open_pull_request],
            system_prompt="Do what the user asks. When a call is denied, read why, and change what it says.",
            middleware=[
                GovernanceMiddleware(al)
            ],  # from here on, every tool call is decided on before it runs
        )

        task = "Open a pull request with every file that branch `billing-v2` changes."
        state = agent.invoke({"messages": [("user", task)]})

        for message in state["messages"]:
            if isinstance(message, ToolMessage):
                print("the model saw:", str(message.content).splitlines()[0][:160])
        print("the model says:", state["messages"][-1].content)
        for event in reversed(al.audit_sync().events):
            print("the log says:", event.action_type, event.status, event.denial_reason or "")
        print("the log verifies:", al.verify_sync().chain_valid)


if __name__ == "__main__":
    main()
