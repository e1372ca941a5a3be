"""Whose yes counts, and when there are enough of them: sets of approvers and the votes cast.

- `user:` names a person, `group:` anyone in it. Where approvers are listed only they count, administrators included.
- Every set must have its quorum: N different people of a set, or, for `all`, a person of its own for each entry.
- Whom an escalation added counts in every set that lists approvers: beside the others, or in the place of one of them.
- Escalation targets that are neither a user nor a group (`webhook:`) are told but do not decide.
- Pure: documents in, an answer out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from agentlattice_core.policy.decision import ApprovalTerms
from agentlattice_core.stores.base import Document

__all__ = ["added_by_escalation", "as_sets", "listed", "satisfied"]


def as_sets(terms: ApprovalTerms) -> list[Document]:
    """The sets of approvers as entries and state hold them."""
    return [{"approvers": list(one.approvers), "quorum": one.quorum} for one in terms.sets]


def added_by_escalation(approval: Document) -> list[str]:
    """The approvers that an escalation added to a request, if it was escalated."""
    added: list[str] = approval["escalate_to"] if "escalated_at" in approval else []
    return added


def _matches(approver: str, name: str, groups: Collection[str]) -> bool:
    """Whether the entry `approver` of a set means that person."""
    kind, _, rest = approver.partition(":")
    return (kind == "user" and rest == name) or (kind == "group" and rest in groups)


def listed(
    sets: Iterable[Mapping[str, Any]], added: Sequence[str], name: str, groups: Collection[str]
) -> bool:
    """Whether the person's vote counts in any set; anybody's does where no set lists approvers."""
    named = [one["approvers"] for one in sets if one["approvers"]]
    return not named or any(_matches(a, name, groups) for names in (*named, added) for a in names)


def satisfied(
    sets: Iterable[Mapping[str, Any]], added: Sequence[str], votes: Sequence[Mapping[str, Any]]
) -> bool:
    """Whether the votes fill every set. `added` are the approvers that an escalation added."""
    for one in sets:
        approvers, quorum = one["approvers"], one["quorum"]
        if quorum == "all" and approvers:
            if not _each_met(list(dict.fromkeys(approvers)), added, votes):
                return False
            continue
        counting = {
            vote["by"]
            for vote in votes
            if not approvers or any(_matches(a, vote["by"], vote["groups"]) for a in (*approvers, *added))
        }
        if len(counting) < (1 if quorum == "all" else quorum):
            return False
    return True


def _each_met(approvers: list[str], added: Sequence[str], votes: Sequence[Mapping[str, Any]]) -> bool:
    """Whether each entry of a set can be met by a person of its own: nobody meets a group for a colleague named beside
    it, and nobody meets two groups.
    """
    meets: dict[str, str] = {}

    def find(approver: str, tried: set[str]) -> bool:
        for vote in votes:
            person = vote["by"]
            if person in tried or not any(
                _matches(one, person, vote["groups"]) for one in (approver, *added)
            ):
                continue
            tried.add(person)
            if person not in meets or find(meets[person], tried):
                meets[person] = approver
                return True
        return False

    return all(find(approver, set()) for approver in approvers)
