"""What the tests of this adapter may do: `tool.*`, but not delete, write much, migrate, or deploy unasked."""

from __future__ import annotations

import pytest


@pytest.fixture
def policies() -> str:
    """Allows `tool.*`, denies `tool.delete` and large writes, and asks about `tool.deploy`."""
    return """
version: 1
policies:
  - {name: Tools, action: "tool.*", effect: allow}
  - {name: No Deletion, action: tool.delete, effect: deny}
  - name: Size
    action: tool.write
    effect: allow
    conditions: [{field: size, operator: lt, value: 50}]
  - {name: Deployments, action: tool.deploy, effect: require_approval, approval: {timeout: 10m}}
  - {name: Hurried, action: tool.deploy, agents: [hurried], effect: require_approval, approval: {timeout: 1s}}
  - {name: Hand-offs, action: tool.hand_over, effect: require_approval}
  - name: No Vault
    action: tool.deploy
    effect: deny
    conditions: [{field: service, operator: eq, value: vault}]
  - {name: Migrations, action: db.migrate, effect: deny}
"""
