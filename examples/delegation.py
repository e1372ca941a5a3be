"""Delegation and fan-out: children with a part of what their parent may, together under its cap, gone with the block.

python examples/delegation.py
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from agentlattice_core import AgentLattice, DelegatedAgent, ForbiddenError
from agentlattice_core.policy import PolicyDocument

POLICIES = PolicyDocument.parse("""
version: 1
policies:
  - {name: Reading, action: orders.read, effect: allow, agents: [support]}
  - name: Refunds
    action: refund.issue
    agents: [support]
    effect: allow
    rules:
      - {priority: 10, type: DAILY_CAP, cap: "100.00", currency: EUR, timezone: UTC, effect: REJECT}
""")


async def refund(child: DelegatedAgent, amount: str) -> None:
    """One child's part of the work; the cap it runs into is its parent's."""
    result = await child.execute("refund.issue", amount=amount, currency="EUR")
    print(child.name, "refunds", amount, "->", result.denial_reason or result.status)


async def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        AgentLattice.embedded(Path(folder) / "governance.db", policies=POLICIES, agent="support") as al,
    ):
        async with al.delegate("reader", capabilities=["orders.read"], ttl=300) as reader:
            print("the reader reads:", (await reader.execute("orders.read")).status)
            print("the reader refunds:", (await reader.execute("refund.issue")).denial_reason)
            try:
                async with reader.delegate("helper", capabilities=["refund.issue"], ttl=60):
                    pass
            except ForbiddenError as error:
                print(error)

        workers = [al.delegate(f"worker-{n}", capabilities=["refund.issue"], ttl=60) for n in (1, 2, 3)]
        async with AgentLattice.parallel(*workers) as children:
            for child in children:
                await refund(child, "40.00")

        ended = (await al.delegations(active_only=False)).delegations
        print("in force:", sum(entry.active for entry in ended), "of", len(ended))
        print("the log verifies:", (await al.verify()).chain_valid)


if __name__ == "__main__":
    asyncio.run(main())
