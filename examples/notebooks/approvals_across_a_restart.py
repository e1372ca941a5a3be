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
# # Approvals across a restart
#
# A person answers in an hour, from another machine, and the process that asked is gone. Here an agent asks to migrate
# two databases in one message. Its process is killed while it waits. One migration is approved and one denied, and
# another process goes on: each answer reaches its own call, and what was approved runs once.
#
# The agent is a program of its own, so that it can be killed.

# %%
import subprocess
import sys
from pathlib import Path

from agentlattice_core import AgentLattice

Path("policies.yaml").write_text("""
version: 1
policies:
  - name: Migrations
    action: db.migrate
    effect: require_approval
    approval: {timeout: 4h, approvers: ["group:dba"]}
""")

Path("agent.py").write_text('''
import os
import pickle
import signal
import sys
from pathlib import Path

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from agentlattice_core import AgentLattice
from agentlattice_integrations.langgraph import GovernanceMiddleware, governed, resume_when_decided


class Model(GenericFakeChatModel):
    """Stands in for a real model, so that this needs no key."""

    def bind_tools(self, tools, **options):
        return self


class FileSaver(InMemorySaver):
    """Stands in for SqliteSaver or PostgresSaver, so that this needs no further package."""

    def __init__(self, path):
        super().__init__()
        self.path = Path(path)
        if self.path.exists():
            threads, writes, blobs = pickle.loads(self.path.read_bytes())
            for thread, spaces in threads.items():
                self.storage[thread].update(spaces)
            self.writes.update(writes)
            self.blobs.update(blobs)

    def keep(self):
        threads = {thread: dict(spaces) for thread, spaces in self.storage.items()}
        self.path.write_bytes(pickle.dumps((threads, dict(self.writes), dict(self.blobs))))


@tool
@governed("db.migrate")
def migrate(database: str) -> str:
    """Migrate a database."""
    with Path("migrated.txt").open("a") as file:
        print(database, file=file)
    return f"migrated {database}"


calls = [
    {"name": "migrate", "args": {"database": name}, "id": f"call-{name}"} for name in ("orders", "billing")
]
turns = [AIMessage("", tool_calls=calls)] if sys.argv[1] == "ask" else []
turns.append(AIMessage("One is migrated; the other will have to wait."))
saver = FileSaver("graph")
al = AgentLattice.embedded("governance.db", policies="policies.yaml", agent="migrator")
agent = create_agent(
    Model(messages=iter(turns)), [migrate], middleware=[GovernanceMiddleware(al)], checkpointer=saver
)
config = {"configurable": {"thread_id": "tonight"}}

if sys.argv[1] == "ask":
    state = agent.invoke({"messages": ["Migrate orders and billing."]}, config)
    paused = [interrupt.value["action_requests"][0] for interrupt in state["__interrupt__"]]
    for request in sorted(paused, key=lambda request: request["args"]["database"]):
        print("paused for", request["name"], request["args"], flush=True)
    saver.keep()
    os.kill(os.getpid(), signal.SIGKILL)

state = resume_when_decided(agent, config, al)
for message in state["messages"]:
    if isinstance(message, ToolMessage):
        print("the model saw:", str(message.content)[:150])
print("the model says:", state["messages"][-1].content)
al.close()
''')


# %% [markdown]
# ## The process asks, and is killed

# %%
asked = subprocess.run([sys.executable, "agent.py", "ask"], capture_output=True, text=True, check=False)
print(asked.stdout, end="")
print("killed by signal", -asked.returncode)
print("migrated so far:", Path("migrated.txt").exists())

# %% [markdown]
# ## A person decides, elsewhere
#
# What waits is in the log, not in the process. On the command line this is `al approvals list`, `approve` and `deny`.

# %%
with AgentLattice.embedded("governance.db", operator="dana", groups=["dba"]) as dana:
    waiting = {request.metadata["database"]: request for request in dana.list_pending_approvals_sync()}
    for database, request in sorted(waiting.items()):
        if database == "orders":
            dana.approve_action_sync(request.id, digest=request.digest)
            print("approved:", request.action_type, database)
        else:
            dana.deny_action_sync(request.id, "billing closes its books tonight", digest=request.digest)
            print("denied:", request.action_type, database)

# %% [markdown]
# ## Another process goes on
#
# `resume_when_decided` would also have waited, had nobody decided yet. An interface such as agent-chat-ui resumes the
# graph by its own answer instead.

# %%
resumed = subprocess.run([sys.executable, "agent.py", "resume"], capture_output=True, text=True, check=True)
print(resumed.stdout, end="")
print("migrated:", Path("migrated.txt").read_text().split())

# %% [markdown]
# Resumed once more, nothing is left to do: an approval lets one call run once.

# %%
again = subprocess.run([sys.executable, "agent.py", "resume"], capture_output=True, text=True, check=True)
print("migrated:", Path("migrated.txt").read_text().split())

# %% [markdown]
# ## What the log says

# %%
with AgentLattice.embedded("governance.db", operator="dana") as dana:
    for event in sorted(dana.audit_sync().events, key=lambda event: event.metadata["database"]):
        print(
            event.action_type,
            event.metadata["database"],
            event.status,
            "by",
            event.approved_by or "-",
            event.claim or "-",
        )
    print("the log verifies:", dana.verify_sync().chain_valid)
