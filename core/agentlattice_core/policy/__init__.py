"""What is allowed: policy documents, and decisions made from them. Pure: no I/O but reading a document, no
clock.
"""

from __future__ import annotations

from agentlattice_core.policy.decision import (
    ApprovalTerms,
    ApproverSet,
    Charge,
    Decision,
    Facts,
    PolicyReference,
)
from agentlattice_core.policy.document import PolicyDocument
from agentlattice_core.policy.evaluate import PolicySet
from agentlattice_core.policy.parts import StoredPart, digest_of, part_pattern

__all__ = [
    "ApprovalTerms",
    "ApproverSet",
    "Charge",
    "Decision",
    "Facts",
    "PolicyDocument",
    "PolicyReference",
    "PolicySet",
    "StoredPart",
    "digest_of",
    "part_pattern",
]
