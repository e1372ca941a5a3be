"""A registry in the store changes as its policy says: by whom it names, as it was shown, at once, and not otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest

from agentlattice_core import (
    AgentLattice,
    AgentLatticeDeniedError,
    ForbiddenError,
    IllegalTransitionError,
    InvalidRequestError,
    NotFoundError,
)
from agentlattice_core.policy import PolicyDocument

POLICIES = """
version: 1
policies:
  - name: Destination wallets
    action: agentlattice.registry.wallets.*
    effect: require_approval
    approval: {timeout: 12h, approvers: ["user:partner-a", "user:partner-b"], quorum: all}
  - {name: Sellers, action: agentlattice.registry.sellers.put, effect: allow, agents: [kyc-agent]}
  - {name: Blocked categories, action: agentlattice.registry.blocked.*, effect: allow, agents: [kyc-agent]}
  - {name: Budgets, action: agentlattice.registry.budgets.*, effect: allow, agents: [kyc-agent]}
  - name: Treasury Transfers
    action: treasury.transfer
    effect: allow
    rules:
      - {priority: 10, type: BENEFICIARY_WHITELIST, registry: wallets, effect: REJECT}
      - {priority: 20, type: AMOUNT_THRESHOLD, above: "50000.00", currency: USD, effect: REQUIRE_HUMAN,
         approval: {approvers: ["user:partner-a", "user:partner-b", "user:cfo"], quorum: all}}
  - name: Payouts
    action: payout.submit
    effect: allow
    rules:
      - {priority: 10, type: BENEFICIARY_WHITELIST, registry: sellers, require_tag: KYC verified, effect: REQUIRE_HUMAN}
      - {priority: 20, type: DAILY_CAP, cap_from: caps.daily, registry: sellers, per: beneficiary, currency: EUR,
         timezone: UTC, effect: REJECT}
  - name: Purchases
    action: purchase.place
    effect: allow
    rules:
      - {priority: 10, type: CATEGORY_BLOCKLIST, registry: blocked, effect: REJECT}
      - {priority: 20, type: DAILY_CAP, cap_from: caps.daily, registry: budgets, per: category, currency: EUR,
         timezone: UTC, effect: REJECT}
registries:
  wallets: [inline-wallet]
  blocked: [weapons]
"""
PUT_WALLET = "agentlattice.registry.wallets.put"
USD: dict[str, Any] = {"amount": "100.00", "currency": "USD"}
EUR: dict[str, Any] = {"amount": "100.00", "currency": "EUR"}


@pytest.fixture
def al(opened: Any) -> AgentLattice:
    client: AgentLattice = opened(
        policies=PolicyDocument.parse(POLICIES), agent="treasury-agent", owner="cfo"
    )
    return client


@pytest.fixture
def kyc(opened: Any, al: AgentLattice) -> AgentLattice:
    client: AgentLattice = opened(policies=None, agent="kyc-agent")
    return client


def pays(al: AgentLattice, wallet: str) -> str:
    return al.execute_sync("treasury.transfer", beneficiary=wallet, **USD).status


def test_a_wallet_counts_once_both_partners_have_approved_it(al: AgentLattice) -> None:
    """Not before, not with one of them, not with somebody else; and from then on in the same breath."""
    partner_a, partner_b, cfo = (al.for_operator(name) for name in ("partner-a", "partner-b", "cfo"))
    asked = al.execute_sync(PUT_WALLET, metadata={"value": "bc1q-new", "tags": ["cold"]})
    assert asked.status == "requested"
    assert asked.approval_id is not None
    [shown] = partner_a.list_pending_approvals_sync()
    assert (shown.action_type, shown.metadata) == (PUT_WALLET, {"value": "bc1q-new", "tags": ["cold"]})
    assert pays(al, "bc1q-new") == "denied"
    with pytest.raises(ForbiddenError):
        cfo.approve_action_sync(asked.approval_id)
    assert partner_a.approve_action_sync(asked.approval_id, digest=shown.digest).status == "pending"
    assert al.claim_sync(asked.audit_event_id).status == "requested"
    assert partner_b.approve_action_sync(asked.approval_id).status == "approved"
    assert pays(al, "bc1q-new") == "denied"  # approved is not yet made
    assert al.claim_sync(asked.audit_event_id).status == "executed"
    assert pays(al, "bc1q-new") == "executed"
    [entry] = al.registry_sync("wallets")
    assert (entry.value, entry.tags, entry.audit_event_id) == ("bc1q-new", ["cold"], asked.audit_event_id)
    with pytest.raises(IllegalTransitionError):
        al.claim_sync(asked.audit_event_id)
    assert al.verify_state_sync() == []
    for client in (partner_a, partner_b, cfo):
        client.close()


def test_gating_on_a_change_makes_it(al: AgentLattice) -> None:
    """Who waits for the answer waits for the change."""
    partner_a, partner_b = al.for_operator("partner-a"), al.for_operator("partner-b")

    def approve(event: Any) -> None:
        for partner in (partner_a, partner_b):
            partner.approve_action_sync(event.data["approval_id"])

    partner_a.subscribe_sync(al.org_id, approve, events=["approval.requested"])
    al.gate_sync(PUT_WALLET, metadata={"value": "bc1q-new"})
    assert pays(al, "bc1q-new") == "executed"
    assert al.audit_sync(action_type=PUT_WALLET).events[0].claim == "succeeded"
    partner_a.close()
    partner_b.close()


def test_one_denial_ends_a_change(al: AgentLattice) -> None:
    """And nothing is made of it, whoever approved before."""
    with al.for_operator("partner-a") as partner_a, al.for_operator("partner-b") as partner_b:
        asked = al.execute_sync(PUT_WALLET, metadata={"value": "bc1q-bad"})
        partner_a.approve_action_sync(asked.approval_id or "")
        partner_b.deny_action_sync(asked.approval_id or "", "not ours")
        assert al.claim_sync(asked.audit_event_id).denial_reason == "DENIED_BY_REVIEWER"
        assert pays(al, "bc1q-bad") == "denied"
        with pytest.raises(NotFoundError):
            al.registry_sync("wallets")


def test_a_move_above_the_threshold_needs_both_partners_and_the_cfo(al: AgentLattice) -> None:
    """All of the three, none of them twice; the wallet is asked about first. The owner decides for nobody of hers."""
    with al.for_agent("rebalancer") as rebalancer, al.for_operator("partner-a") as partner_a:
        people = [partner_a, al.for_operator("partner-b"), al.for_operator("cfo")]
        large = {"beneficiary": "inline-wallet", "amount": "50000.01", "currency": "USD"}
        asked = rebalancer.execute_sync("treasury.transfer", **large)
        assert asked.status == "requested"
        answers = [person.approve_action_sync(asked.approval_id or "").status for person in people]
        assert answers == ["pending", "pending", "approved"]
        assert rebalancer.claim_sync(asked.audit_event_id).status == "executed"
        mine = al.execute_sync("treasury.transfer", **large)
        with pytest.raises(ForbiddenError, match="owns"):
            people[2].approve_action_sync(mine.approval_id or "")
        assert (
            rebalancer.execute_sync("treasury.transfer", **{**large, "beneficiary": "x"}).status == "denied"
        )
        people[1].close()
        people[2].close()


def test_what_no_policy_covers_changes_nothing(al: AgentLattice, kyc: AgentLattice) -> None:
    """An agent that policy does not name, and a registry that policy does not speak of."""
    put = {"metadata": {"value": "seller-1"}}
    assert al.execute_sync("agentlattice.registry.sellers.put", **put).status == "policy_not_found"
    assert kyc.execute_sync("agentlattice.registry.sellers.remove", **put).status == "policy_not_found"
    assert kyc.execute_sync("agentlattice.registry.unheard-of.put", **put).status == "policy_not_found"
    for name in ("sellers", "unheard-of"):
        with pytest.raises(NotFoundError):
            al.registry_sync(name)


def test_tags_and_caps_are_the_entrys(al: AgentLattice, kyc: AgentLattice) -> None:
    """What a payout says of itself counts for nothing; a put replaces the entry, caps are exact."""

    def put(**entry: Any) -> None:
        change = kyc.execute_sync(
            "agentlattice.registry.sellers.put", metadata={"value": "seller-1", **entry}
        )
        assert change.status == "executed"

    payout = {"beneficiary": "seller-1", "metadata": {"tags": ["KYC verified"]}, **EUR}
    put(tags=["KYC pending"], caps={"daily": "250.00"})
    assert al.execute_sync("payout.submit", **payout).status == "requested"
    put(tags=["KYC verified"], caps={"daily": 250})
    assert al.execute_sync("payout.submit", **payout).status == "executed"
    assert al.can_i_sync("payout.submit", beneficiary="seller-1", amount="50.00", currency="EUR").allowed
    assert al.execute_sync("payout.submit", **payout).denial_reason == "LIMIT_EXCEEDED"
    put(tags=["KYC verified"], caps={"daily": "300.00"})
    assert al.execute_sync("payout.submit", **payout).status == "executed"
    put(tags=["KYC verified"])  # without a cap nothing can be measured, and nothing passes
    assert al.execute_sync("payout.submit", **payout).status == "denied"
    [entry] = al.registry_sync("sellers")
    assert (entry.tags, entry.caps) == (["KYC verified"], {})
    assert al.verify_state_sync() == []


def test_categories_are_blocked_and_capped_by_registries(al: AgentLattice, kyc: AgentLattice) -> None:
    """What is on the list is refused, what has a budget is held to it, and removing a category opens it again."""
    kyc.execute_sync(
        "agentlattice.registry.budgets.put", metadata={"value": "ads", "caps": {"daily": "150.00"}}
    )
    assert al.execute_sync("purchase.place", category="weapons", **EUR).denial_reason == "RULE_REJECTED"
    kyc.execute_sync("agentlattice.registry.blocked.put", metadata={"value": "ads"})
    assert al.execute_sync("purchase.place", category="ads", **EUR).denial_reason == "RULE_REJECTED"
    kyc.execute_sync("agentlattice.registry.blocked.remove", metadata={"value": "ads"})
    assert al.execute_sync("purchase.place", category="ads", **EUR).status == "executed"
    assert al.execute_sync("purchase.place", category="ads", **EUR).denial_reason == "LIMIT_EXCEEDED"
    assert al.execute_sync("purchase.place", category="travel", **EUR).status == "denied"  # no budget
    assert al.registry_sync("blocked") == []


def test_a_registry_of_the_store_stands_in_place_of_the_documents(
    al: AgentLattice, kyc: AgentLattice
) -> None:
    """From its first change on; until then the document's counts."""
    assert pays(al, "inline-wallet") == "executed"
    with al.for_operator("partner-a") as partner_a, al.for_operator("partner-b") as partner_b:
        asked = al.execute_sync(PUT_WALLET, metadata={"value": "stored-wallet"})
        for partner in (partner_a, partner_b):
            partner.approve_action_sync(asked.approval_id or "")
        al.claim_sync(asked.audit_event_id)
    assert [pays(al, wallet) for wallet in ("inline-wallet", "stored-wallet")] == ["denied", "executed"]


def test_observing_makes_no_change_that_would_not_be_allowed(opened: Any, al: AgentLattice) -> None:
    """In observe mode everything runs but this: what the core itself does, it does only when allowed."""
    watcher = opened(policies=None, agent="treasury-agent", mode="observe")
    assert watcher.execute_sync(PUT_WALLET, metadata={"value": "bc1q-new"}).observed
    with pytest.raises(NotFoundError):
        al.registry_sync("wallets")


def test_a_retry_changes_nothing_twice(al: AgentLattice, kyc: AgentLattice) -> None:
    """The same event id is the same change."""
    one = {"metadata": {"value": "seller-1", "tags": ["KYC verified"]}, "event_id": "import-1"}
    first = kyc.execute_sync("agentlattice.registry.sellers.put", **one)
    kyc.execute_sync("agentlattice.registry.sellers.put", metadata={"value": "seller-1"})
    again = kyc.execute_sync("agentlattice.registry.sellers.put", **one)
    assert (again.replayed, again.audit_event_id) == (True, first.audit_event_id)
    assert al.registry_sync("sellers")[0].tags == []


@pytest.mark.parametrize(
    ("action_type", "metadata"),
    [
        ("agentlattice.registry.wallets", {"value": "x"}),
        ("agentlattice.registry.wallets.change", {"value": "x"}),
        ("agentlattice.registry.Wallets.put", {"value": "x"}),
        ("agentlattice.registry.a.b.put", {"value": "x"}),
        (PUT_WALLET, {}),
        (PUT_WALLET, {"value": ""}),
        (PUT_WALLET, {"value": ["x"]}),
        (PUT_WALLET, {"value": "a\nb"}),
        (PUT_WALLET, {"value": "x", "tag": ["y"]}),
        (PUT_WALLET, {"value": "x", "tags": "y"}),
        (PUT_WALLET, {"value": "x", "tags": [1]}),
        (PUT_WALLET, {"value": "x", "caps": {"daily": "-1"}}),
        (PUT_WALLET, {"value": "x", "caps": {"daily": "much"}}),
        (PUT_WALLET, {"value": "x", "caps": {"": "1"}}),
        (PUT_WALLET, {"value": "x", "caps": ["1"]}),
        ("agentlattice.registry.wallets.remove", {"value": "x", "tags": []}),
    ],
)
def test_a_change_says_exactly_what_changes(
    al: AgentLattice, action_type: str, metadata: dict[str, Any]
) -> None:
    """What could not be carried out is not asked of a person."""
    with pytest.raises(InvalidRequestError):
        al.execute_sync(action_type, metadata=metadata)
    assert al.audit_sync().events == []


def test_a_child_changes_what_it_was_given_to_change(al: AgentLattice, kyc: AgentLattice) -> None:
    """By its parent's policies, as far as they were delegated."""
    with kyc.delegate_sync("importer", capabilities=["agentlattice.registry.sellers.*"], ttl=60) as importer:
        importer.gate_sync("agentlattice.registry.sellers.put", metadata={"value": "seller-9"})
        with pytest.raises(AgentLatticeDeniedError):
            importer.gate_sync("agentlattice.registry.blocked.put", metadata={"value": "ads"})
    assert [entry.value for entry in al.registry_sync("sellers")] == ["seller-9"]
    assert al.verify_state_sync() == []


def test_a_change_survives_and_is_the_logs(al: AgentLattice, kyc: AgentLattice, tmp_path: Path) -> None:
    """Folding the log gives the registry; an entry that was edited in the database is found."""
    kyc.execute_sync("agentlattice.registry.sellers.put", metadata={"value": "seller-1"})
    assert al.verify_state_sync() == []
    connection = apsw.Connection(str(tmp_path / "governance.db"))
    connection.set_busy_timeout(5000)
    connection.execute(
        "UPDATE state SET value = CAST(replace(CAST(value AS TEXT), '[]', '[\"KYC verified\"]') AS BLOB) "
        "WHERE kind = 'registry'"
    )
    connection.close()
    [difference] = al.verify_state_sync()
    assert str(difference) == "registry `sellers/seller-1` differs from the log in `tags`"
