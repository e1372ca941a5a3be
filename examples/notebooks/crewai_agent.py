# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A CrewAI agent that corrects itself
#
# The agent is asked for a pull request of 87 files. Policy allows fewer than 50. The call is denied, the model reads
# why, and opens smaller ones.
#
# Run it as it is, and a small local model plays the provider's part. Set `OPENAI_API_KEY`, and a real model does.

# %%
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

# %% [markdown]
# ## What is allowed
#
# A policy names an action and says when it may run. Whatever no policy covers does not run.

# %%
policies = PolicyDocument.parse("""
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
al = AgentLattice.embedded(Path(tempfile.mkdtemp()) / "governance.db", policies=policies, agent="code-agent")


# %% [markdown]
# ## The tools
#
# `@governed` names the action that a call is, and what policy is to know about it.


# %%
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


# %% [markdown]
# ## The agent
#
# `govern` takes the crew and gives it back, with a gate before every tool call of every agent.

# %%
endpoint = provider()
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
crew = govern(Crew(agents=[engineer], tasks=[task]), al)

# %% [markdown]
# ## What happens
#
# The second result is the denial. It is data, and the model acts on it.

# %%
result = await crew.kickoff_async()
for message in result.tasks_output[0].messages:
    if message.get("role") == "tool":
        print("the model saw:", str(message["content"]).splitlines()[0])
print("the model says:", result.raw)

# %% [markdown]
# ## What can be proved
#
# Every call is in the log, the denied one too, and the log verifies.

# %%
for event in reversed(al.audit_sync().events):
    print(event.action_type, event.status, event.denial_reason or "")
print("verifies:", al.verify_sync().chain_valid)
al.close()
