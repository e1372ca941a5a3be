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
# # A policy that was tried before it was enforced
#
# An agent has been refunding customers for a week, and nothing stopped it: it ran in observe mode, which decides and
# records and lets everything run. Now somebody writes a policy. What would it have stopped? What must it go on saying
# when it is changed? Nothing here needs a model, a key or a network.

# %%
import os
import shlex
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from agentlattice_core import AgentLattice
from agentlattice_core.testing import ManualClock

os.chdir(tempfile.mkdtemp())


def al(command: str) -> int:
    """Run the command line, show what it prints, and return its exit code."""
    program = [sys.executable, "-c", "from agentlattice_cli.main import main; main()"]
    done = subprocess.run(
        [*program, *shlex.split(command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout, end="")
    return done.returncode


# %% [markdown]
# ## A week of what agents do
#
# Monday to Sunday, ten refunds a day. Most are small. On Thursday somebody talked the agent into a large one.

# %%
Path("observe.yaml").write_text("version: 1\npolicies: [{name: Anything, action: '*', effect: allow}]\n")
clock = ManualClock(datetime(2026, 3, 2, 8, 0, tzinfo=UTC))
with AgentLattice.embedded(
    "governance.db", policies="observe.yaml", agent="cs-agent", mode="observe", clock=clock
) as client:
    for day in range(7):
        for number in range(10):
            amount = 900 if (day, number) == (3, 5) else 12 + 9 * number
            client.execute_sync(
                "refund.issue", amount=amount, currency="EUR", metadata={"order": f"A-{day}{number}"}
            )
            clock.advance(minutes=45)
        clock.advance(hours=16.5)
    print(len(client.audit_sync(limit=200).events), "actions recorded")

# %% [markdown]
# ## A first draft
#
# `al policy suggest` writes the narrowest policy that would have allowed all of it. It is a place to start from, and it
# shows what stands out: the largest amount is not like the others.

# %%
assert al("policy suggest --since 2026-03-02") == 0

# %% [markdown]
# ## A policy of one's own
#
# Small refunds run, middling ones wait for a person, large ones are out, and a day has its cap.

# %%
Path("policies.yaml").write_text("""\
version: 1
policies:
  - name: Refunds
    action: refund.issue
    agents: [cs-agent]
    effect: require_approval
    approval: {timeout: 4h, approvers: ["group:finance"]}
    rules:
      - {priority: 10, type: AMOUNT_THRESHOLD, max: "75.00", currency: EUR, effect: AUTO_APPROVE}
      - {priority: 20, type: AMOUNT_THRESHOLD, min: "500.00", currency: EUR, effect: REJECT}
      - {priority: 30, type: DAILY_CAP, cap: "600.00", currency: EUR, timezone: Europe/Paris, effect: REJECT}
""")
assert al("policy lint policies.yaml") == 0

# %% [markdown]
# What would it have said of last week? Each line is a kind of action that would be decided otherwise, how many of them
# there were, and an example. In a pipeline, `--fail-on-new-denials` makes it an exit code.

# %%
print("exit code", al("policy simulate policies.yaml --since 2026-03-02 --fail-on-new-denials"))

# %% [markdown]
# The large refund would have been denied and nothing else; fourteen would have waited for a person. A cap of 500 looks
# as good, and is not: an ordinary day comes to 525, so its last refund would have been denied every day.

# %%
Path("tight.yaml").write_text(Path("policies.yaml").read_text().replace('"600.00"', '"500.00"'))
print("exit code", al("policy simulate tight.yaml --since 2026-03-02 --fail-on-new-denials"))

# %% [markdown]
# ## What it must go on saying
#
# The past is not all that can happen. Cases beside the policy say what is expected of it, the day's total and the hour
# included, and `al policy test` holds it to that. `--coverage` names what no case has tried.

# %%
Path("policies.test.yaml").write_text("""\
version: 1
defaults: {action: refund.issue, agent: cs-agent, currency: EUR}
cases:
  - name: a small refund runs
    amount: "40.00"
    expect: {outcome: allow, rules: [10]}
  - name: finance decides about a middling one
    amount: "120.00"
    expect: {outcome: require_approval, approvers: ["group:finance"]}
  - name: the cap stops a small one late in the day
    amount: "40.00"
    used: "580.00"
    expect: {outcome: deny, reason: LIMIT_EXCEEDED}
  - name: nobody else refunds
    agent: sales-agent
    amount: "1.00"
    expect: not_found
""")
print("exit code", al("policy test --verbose --coverage policies.yaml"))

# %% [markdown]
# No case tried a large refund. One more, and all of the policy is exercised, so `--threshold` can hold it there.

# %%
with open("policies.test.yaml", "a") as cases:
    cases.write("""\
  - name: a large refund is out
    amount: "900.00"
    expect: {outcome: deny, reason: RULE_REJECTED}
""")
print("exit code", al("policy test --threshold 100 policies.yaml"))

# %% [markdown]
# ## Into force
#
# A person applies it, which the log keeps with their name. From here on the agent runs with `mode="enforce"`.

# %%
assert al("policy apply policies.yaml --as ana") == 0
assert al("policy explain refund.issue --agent cs-agent") == 0
with AgentLattice.embedded("governance.db", agent="cs-agent") as client:
    print(client.execute_sync("refund.issue", amount=900, currency="EUR").message)
    print("the log verifies:", client.verify_sync().chain_valid)
