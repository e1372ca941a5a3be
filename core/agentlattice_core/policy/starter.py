"""The document that a new project begins with, and the cases that test it.

- "Allow All (Default)" is a policy like any other, written out so that one sees it and deletes it. Nothing is
  ever allowed by a built-in.
"""

from __future__ import annotations

__all__ = ["starter_cases", "starter_document"]

_STARTER = """\
# What the agents of this project may do. Every action is decided by the most specific policy that matches it:
# an exact action type, then a prefix such as deploy.*, then *. Where nothing matches, nothing runs.
# Check this file with:  al policy lint policies.yaml && al policy test policies.yaml
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

_CASES = """\
# What policies.yaml is expected to say. Run it with:  al policy test
# A case says all that a decision depends on; what it leaves out comes from `defaults`.
version: 1
policies: [policies.yaml]
defaults: {agent: my-agent}

cases:
  - name: what nobody wrote a policy for runs, as long as the default is there
    action: report.read
    expect: {outcome: allow, policy: Allow All (Default)}

  - name: a small pull request runs
    action: pr.open
    metadata: {pr_size: 12}
    expect: allow

  - name: a large pull request is denied, with the reason
    action: pr.open
    metadata: {pr_size: 120}
    expect: {outcome: deny, reason: CONDITIONS_DENIED, message: must be less than `50`}

  - name: leaving the size out does not help
    action: pr.open
    expect: {outcome: deny, missing: [pr_size]}

  - name: a person decides about production
    action: deploy.production
    expect: {outcome: require_approval, policy: Production Deploy}

  - name: credentials are off limits
    action: secret.read
    data_accessed: [{type: credentials, count: 1, sensitivity: critical}]
    expect: deny

  - name: a secret that is not critical may be read
    action: secret.read
    data_accessed: [{type: configuration, count: 1, sensitivity: low}]
    expect: allow
"""


def starter_document() -> str:
    """The text of the document, YAML."""
    return _STARTER


def starter_cases() -> str:
    """The text of its cases, YAML: what the starter document is expected to say."""
    return _CASES
