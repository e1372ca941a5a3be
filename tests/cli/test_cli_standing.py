"""What stands: delegations in force, registries in the store, and how well all of it is governed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from cli_world import Al, Terminal, document

from agentlattice_core import AgentLattice
from agentlattice_core.delegating import Delegate

GOVERNED = """\
version: 1
policies:
  - {name: Reading, action: read.*, effect: allow}
  - {name: Wallets, action: agentlattice.registry.wallets.*, effect: allow}
  - name: Spending
    action: spend
    effect: allow
    rules:
      - {priority: 1, type: BENEFICIARY_WHITELIST, registry: wallets, effect: REJECT}
      - {priority: 2, type: DAILY_CAP, cap: "10.00", currency: EUR, effect: REJECT}
"""


@pytest.fixture
def ci(project: Path) -> Iterator[AgentLattice]:
    """A client for the agent `ci`, with one wallet in the store."""
    (project / "governed.yaml").write_text(GOVERNED)
    with AgentLattice.embedded("governance.db", policies="governed.yaml", agent="ci") as client:
        client.gate_sync(
            "agentlattice.registry.wallets.put",
            metadata={"value": "bc1q", "tags": ["cold", "eu"], "caps": {"daily": "5.00"}},
        )
        yield client


def reader(client: AgentLattice) -> Delegate:
    return client.delegate_sync("reader", capabilities=["read.*", "spend"], ttl=600)


def test_delegations_in_force_are_listed_with_both_sides(ci: AgentLattice, al: Al) -> None:
    """Those that have ended only when asked for; of one agent, either side."""
    with reader(ci) as child:
        (entry,) = document(al("delegations", "list", "--json"))["delegations"]
        assert al("delegations", "list").stdout == (
            f"{entry['id']}\tci\t{child.agent}\tread.*, spend\t{entry['expires_at']}\tactive\n"
        )
        for arguments, count in (
            (("--agent", "ci"), 1),
            (("--agent", "ci", "--role", "child"), 0),
            (("--agent", child.agent or "", "--role", "child"), 1),
        ):
            assert len(document(al("delegations", "list", *arguments, "--json"))["delegations"]) == count
    ended = al("delegations", "list")
    assert (ended.stdout, ended.stderr) == ("", "no delegation is in force\n")
    assert al("delegations", "list", "--all").stdout.endswith("\tclosed\n")


def test_a_side_is_one_of_an_agent_that_is_known(ci: AgentLattice, al: Al) -> None:
    for arguments, said in (
        (("--role", "parent"), "--agent"),
        (("--agent", "ci", "--role", "uncle"), "`uncle`"),
        (("--agent", "cii"), "did you mean `ci`?"),
    ):
        result = al("delegations", "list", *arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert said in result.stderr


def test_an_operator_revokes_a_delegation_once(ci: AgentLattice, al: Al) -> None:
    """In their name, with all below it; nobody else does, and not twice."""
    with reader(ci) as child, child.delegate_sync("below", capabilities=["read.a"], ttl=60) as below:
        first = document(al("delegations", "list", "--json"))["delegations"][0]["id"]
        assert al("delegations", "revoke", first).exit_code == 1
        assert al("delegations", "revoke", first, "--as", "eve", "--role", "viewer").exit_code == 1
        assert below.execute_sync("read.a").status == "executed"
        assert al("delegations", "revoke", first, "--as", "ana").stdout == f"{first} revoked\n"
        assert below.execute_sync("read.a").denial_reason == "OUT_OF_SCOPE"
        again = al("delegations", "revoke", first, "--as", "ana")
        assert (again.exit_code, again.stdout) == (1, "")
        assert "is revoked already" in again.stderr
    unknown = al("delegations", "revoke", "del_x", "--as", "ana", "--json")
    assert (unknown.exit_code, unknown.stdout) == (1, "")


def test_a_registry_of_the_store_is_listed(ci: AgentLattice, al: Al) -> None:
    """With what put each value there; a name that is not one of them is an error that helps."""
    (entry,) = document(al("registry", "list", "wallets", "--json"))["entries"]
    assert al("registry", "list", "wallets").stdout == (
        f"bc1q\tcold, eu\tdaily 5.00\t{entry['changed_at']}\t{entry['audit_event_id']}\n"
    )
    wrong = al("registry", "list", "walets")
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert "did you mean `wallets`?" in wrong.stderr
    ci.gate_sync("agentlattice.registry.wallets.remove", metadata={"value": "bc1q"})
    assert al("registry", "list", "wallets").stderr == "`wallets` is empty\n"


def test_lint_knows_the_registries_of_the_store(ci: AgentLattice, al: Al) -> None:
    """Without a database nothing is known of them; what is not there either is still an error."""
    alone = al("policy", "lint", "governed.yaml")
    assert alone.exit_code == 1
    assert "unknown-registry" in alone.stdout
    assert al("policy", "lint", "governed.yaml", "--db", "governance.db").stdout == ""
    Path("other.yaml").write_text(GOVERNED.replace("registry: wallets", "registry: purses"))
    assert "`purses`" in al("policy", "lint", "other.yaml", "--db", "governance.db").stdout


def test_replaying_children_under_the_policy_in_force_flips_nothing(ci: AgentLattice, al: Al) -> None:
    """Their limits are their ancestors', their policies their root's, and the store's registries those of all."""
    ci.execute_sync("spend", amount="6.00", currency="EUR", beneficiary="bc1q")
    with reader(ci) as child, child.delegate_sync("below", capabilities=["spend"], ttl=60) as below:
        assert (
            child.execute_sync("spend", amount="3.00", currency="EUR", beneficiary="bc1q").status
            == "executed"
        )
        over = below.execute_sync("spend", amount="2.00", currency="EUR", beneficiary="bc1q")
        assert over.denial_reason == "LIMIT_EXCEEDED"
        assert (
            below.execute_sync("spend", amount="1.00", currency="EUR", beneficiary="other").status == "denied"
        )
        assert below.execute_sync("read.a").denial_reason == "OUT_OF_SCOPE"
        assert child.execute_sync("read.a").status == "executed"
    ci.flush()
    found = document(al("policy", "simulate", "governed.yaml", "--json"))
    assert (found["actions"], found["flips"]) == (6, [])
    assert found["left_out"] == {"erased": 0, "refused": 1}


def test_posture_says_what_it_is_made_of(ci: AgentLattice, al: Al) -> None:
    """A score, each component with its counts, and what there was nothing to count of."""
    ci.execute_sync("read.a")
    ci.execute_sync("made.up")
    ci.checkpoint_sync()
    found = document(al("posture", "--json"))
    assert found["score"] == 83.4
    coverage = found["components"]["policy_coverage"]
    assert (coverage["score"], coverage["max"], coverage["uncovered"]) == (16.7, 25.0, ["made.up"])
    assert set(found["unmeasured"]) == {"approval_response", "anomaly_rate"}
    lines = al("posture").stdout.splitlines()
    assert lines[0] == "score\t83.4 of 100"
    assert (
        lines[1] == "policy_coverage\t16.7\t25\t"
        "2 of 3 action types, 3 of 3 actions enforced; no policy is about made.up"
    )
    assert lines[2].startswith("audit_integrity\t25\t25\t")
    assert lines[4] == "anomaly_rate\t-\t-\tnot measured: this release detects no anomalies"


def test_posture_of_a_broken_log_says_what_is_broken(ci: AgentLattice, al: Al) -> None:
    ci.checkpoint_sync()
    ci.close()
    connection = apsw.Connection("governance.db")
    connection.execute("UPDATE entries SET leaf = zeroblob(32) WHERE i = 2")
    connection.close()
    broken = al("posture")
    assert broken.stdout.startswith("score\t0 of 100\naudit_integrity\t0\t25\tBROKEN: ")


def test_posture_is_a_table_on_a_terminal(ci: AgentLattice) -> None:
    terminal = Terminal("posture")
    assert terminal.end() == 0
    assert "component" in terminal.text
    assert "not measured: this release detects no anomalies" in terminal.text
