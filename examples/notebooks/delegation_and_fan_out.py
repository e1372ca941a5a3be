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
# # Delegation and fan-out
#
# An agent hands parts of its work to others. Each child holds a part of what its parent may, for a while, and together
# they stay under the parent's cap. When the block ends, so do they.

# %%
from pathlib import Path

from agentlattice_core import AgentLattice, ForbiddenError

Path("policies.yaml").write_text("""
version: 1
policies:
  - {name: Reading, action: orders.read, effect: allow, agents: [support]}
  - name: Refunds
    action: refund.issue
    agents: [support]
    effect: allow
    rules:
      - {priority: 10, type: DAILY_CAP, cap: "100.00", currency: EUR, timezone: UTC, effect: REJECT}
  - {name: Goodwill, action: voucher.send, agents: [support], effect: require_approval}
""")
al = AgentLattice.embedded("governance.db", policies="policies.yaml", agent="support")

# %% [markdown]
# ## A child holds a part
#
# Policies that name the parent apply to its children. What was not delegated is out of scope, and a child cannot pass
# on what it does not hold.

# %%
async with al.delegate("reader", capabilities=["orders.read"], ttl=300) as reader:
    print("reads:", (await reader.execute("orders.read")).status)
    print("refunds:", (await reader.execute("refund.issue", amount="1", currency="EUR")).denial_reason)
    try:
        async with reader.delegate("helper", capabilities=["refund.issue"], ttl=60):
            pass
    except ForbiddenError as error:
        print(error)
print("after its block:", (await reader.execute("orders.read")).denial_reason)

# %% [markdown]
# ## Fan-out under one cap
#
# Children charge their parent's limits. Of three refunds of 40, the third would pass 100.

# %%
workers = [al.delegate(f"worker-{n}", capabilities=["refund.issue"], ttl=60) for n in (1, 2, 3)]
async with AgentLattice.parallel(*workers) as children:
    for child in children:
        result = await child.execute("refund.issue", amount="40.00", currency="EUR")
        print(child.name, "->", result.denial_reason or result.status)

# %% [markdown]
# If one of them fails, all end.

# %%
try:
    async with AgentLattice.parallel(*workers) as children:
        raise LookupError("the second worker found no order")
except LookupError as error:
    print(error)
print("in force:", len((await al.delegations()).delegations))

# %% [markdown]
# ## Revoking one ends all below it
#
# A person takes a delegation back, on the command line with `al delegations revoke`. What waits for an approval on its
# behalf, or on that of a child of its own, is cancelled.

# %%
with AgentLattice.embedded("governance.db", operator="dana") as dana:
    async with (
        al.delegate("desk", capabilities=["voucher.*"], ttl=3600) as desk,
        desk.delegate("clerk", capabilities=["voucher.send"], ttl=3600) as clerk,
    ):
        asked = await clerk.execute("voucher.send")
        print("the clerk asks:", asked.status)
        await dana.revoke(desk.delegation_id)
        print("after the revocation:", await clerk.approval_status(asked.approval_id))
        print("and from now on:", (await clerk.execute("voucher.send")).denial_reason)

# %% [markdown]
# ## What the log says

# %%
for entry in (await al.delegations(active_only=False)).delegations:
    print(entry.name, entry.scope["action_types"], entry.status)
print("the log verifies:", (await al.verify()).chain_valid)
al.close()
