"""A CrewAI agent that is denied, reads why, and corrects itself.

Run it as it is, and a small local model plays the provider's part. Set OPENAI_API_KEY, and a real model does.

    python examples/crewai_agent.py
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ.setdefault("CREWAI_DISABLE_TELEMETRY", "true")
os.environ.setdefault("CREWAI_TRACING_ENABLED", "false")

from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool

from agentlattice_core import AgentLattice
from agentlattice_core.policy import PolicyDocument
from agentlattice_core.toolcalls import governed
from agentlattice_integrations.crewai import govern
from agentlattice_integrations.demo.local_model import provider

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
        engineer = Agent(
            role="engineer",
            goal="Do what the user asks. When a call is denied, read why, and change what it says.",
            backstory="You work with the tools you are given.",
            llm=LLM(model=f"openai/{endpoint.model}", base_url=endpoint.base_url, api_key=endpoint.api_key),
            tools=[list_changed_files, open_pull_request],
        )
        task = Task(
            description="Open a pull request with every file that branch `billing-v2` changes.",
            expected_output="What was done.",
            agent=engineer,
        )
        crew = govern(
            Crew(agents=[engineer], tasks=[task]), al
        )  # every tool call is decided on before it runs

        result = crew.kickoff()

        for message in result.tasks_output[0].messages:
            if message.get("role") == "tool":
                print("the model saw:", str(message["content"]).splitlines()[0][:160])
        print("the model says:", result.raw)
        for event in reversed(al.audit_sync().events):
            print("the log says:", event.action_type, event.status, event.denial_reason or "")
        print("the log verifies:", al.verify_sync().chain_valid)


if __name__ == "__main__":
    main()
