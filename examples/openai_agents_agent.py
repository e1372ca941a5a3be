"""An agent of the OpenAI Agents SDK that is denied, reads why, and corrects itself.

Run it as it is, and a small local model plays the provider's part. Set OPENAI_API_KEY, and a real model does.

    python examples/openai_agents_agent.py
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from agents import Agent, OpenAIChatCompletionsModel, RunConfig, Runner, function_tool
from openai import AsyncOpenAI

from agentlattice_core import AgentLattice
from agentlattice_core.policy import PolicyDocument
from agentlattice_core.toolcalls import governed
from agentlattice_integrations.demo.local_model import provider
from agentlattice_integrations.openai_agents import govern

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


@function_tool
@governed("repo.read")
def list_changed_files(branch: str) -> str:
    """List the files that a branch changes, one per line."""
    return "\n".join(f"src/billing/module_{number:02}.py" for number in range(1, 88))


@function_tool
@governed("pr.open", metadata={"pr_size": lambda arguments: len(arguments["files"])})
def open_pull_request(branch: str, files: list[str]) -> str:
    """Open a pull request with some of the files that a branch changes."""
    return f"opened a pull request with {len(files)} files"


async def main() -> None:
    endpoint = provider()
    client = AsyncOpenAI(base_url=endpoint.base_url, api_key=endpoint.api_key)
    with (
        tempfile.TemporaryDirectory() as folder,
        AgentLattice.embedded(Path(folder) / "governance.db", policies=POLICIES, agent="code-agent") as al,
    ):
        agent = Agent(
            name="code-agent",
            instructions="Do what the user asks. When a call is denied, read why, and change what it says.",
            model=OpenAIChatCompletionsModel(endpoint.model, client),
            tools=[list_changed_files, open_pull_request],
        )
        agent = govern(agent, al)  # from here on, every tool call is decided on before it runs

        task = "Open a pull request with every file that branch `billing-v2` changes."
        result = await Runner.run(agent, task, run_config=RunConfig(tracing_disabled=True), max_turns=30)

        for item in result.new_items:
            if item.type == "tool_call_output_item":
                print("the model saw:", str(item.output).splitlines()[0][:160])
        print("the model says:", result.final_output)
        for event in reversed((await al.audit()).events):
            print("the log says:", event.action_type, event.status, event.denial_reason or "")
        print("the log verifies:", (await al.verify()).chain_valid)


if __name__ == "__main__":
    asyncio.run(main())
