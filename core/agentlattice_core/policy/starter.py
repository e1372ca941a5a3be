"""The document that a new project begins with.

- "Allow All (Default)" is a policy like any other, written out so that one sees it and deletes it. Nothing is
  ever allowed by a built-in.
"""

from __future__ import annotations

__all__ = ["starter_document"]

_STARTER = """\
# What the agents of this project may do. Every action is decided by the most specific policy that matches it:
# an exact action type, then a prefix such as deploy.*, then *. Where nothing matches, nothing runs.
# Check this file with:  al policy lint
version: 1

policies:
  # Everything runs, and everything is recorded. Delete this policy once those below cover what your agents
  # do; `al policy suggest` drafts them from what was recorded.
  - name: Allow All (Default)
    action: "*"
    effect: allow

  # Small pull requests run; larger ones are denied with the reason, so that the agent can split them.
  - name: PR Size
    action: pr.open
    effect: allow
    conditions:
      - {field: pr_size, operator: lt, value: 50}

  # A person decides, within four hours.
  - name: Production Deploy
    action: deploy.production
    effect: require_approval
    approval: {timeout: 4h}

  # Credentials are off limits for every agent.
  - name: Credentials
    action: secret.read
    effect: allow
    conditions:
      - {field: sensitivity, operator: neq, value: critical}
"""


def starter_document() -> str:
    """The text of the document, YAML."""
    return _STARTER
