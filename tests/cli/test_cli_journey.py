"""From nothing to enforced, as a newcomer walks it."""

from __future__ import annotations

from pathlib import Path

from cli_world import Al, document

from agentlattice_core import AgentLattice


def test_from_nothing_to_enforced(al: Al, project: Path) -> None:
    """Begin, observe, draft, check, try, enforce: the agent goes on with what it did, and with nothing else."""
    assert al("init").exit_code == 0
    observed = [("report.write", {"pages": pages}) for pages in (3, 7, 12, 5)] + [
        ("deploy.production", {"version": "1"})
    ]
    with AgentLattice.embedded(
        "governance.db", policies="policies.yaml", agent="writer", mode="observe"
    ) as client:
        for action_type, metadata in observed:
            assert client.execute_sync(action_type, metadata=metadata).may_run

    assert al("policy", "suggest", "--since", "1d", "-o", "suggested.yaml").exit_code == 0
    assert al("policy", "lint", "suggested.yaml").exit_code == 0
    tried = document(
        al("policy", "simulate", "suggested.yaml", "--since", "1d", "--fail-on-new-denials", "--json")
    )
    assert (tried["actions"], tried["new_denials"]) == (5, 0)

    narrow = project / "narrow.yaml"
    narrow.write_text("version: 1\npolicies: [{name: Reports, action: report.write, effect: allow}]\n")
    stopped = al("policy", "simulate", "narrow.yaml", "--since", "1d", "--fail-on-new-denials")
    assert stopped.exit_code == 1
    assert "deploy.production" in stopped.stdout

    (project / "policies.yaml").write_text((project / "suggested.yaml").read_text())
    assert al("policy", "apply", "policies.yaml", "--prune", "--as", "ana").exit_code == 0
    writer = ("--agent", "writer")
    assert al("execute", "report.write", "--metadata", "pages=7", *writer).exit_code == 0
    assert al("execute", "report.write", "--metadata", "pages=900", *writer).exit_code == 1
    assert al("execute", "secret.read", *writer).exit_code == 1
    assert al("execute", "report.write", "--metadata", "pages=7", "--agent", "stranger").exit_code == 1

    denied = [
        event for event in document(al("audit", "list", "--json"))["events"] if event["status"] != "executed"
    ]
    assert [event["action_type"] for event in denied][:3] == ["report.write", "secret.read", "report.write"]
    assert al("audit", "verify", "--state").exit_code == 0


def test_an_observed_denial_is_gone_after_the_draft_is_enforced(al: Al, project: Path) -> None:
    """What was stopped before is allowed once the draft that covers it is in force: fewer denials."""
    (project / "strict.yaml").write_text(
        "version: 1\npolicies: [{name: Nothing, action: '*', effect: deny}]\n"
    )
    asked = ["report.write", "--agent", "writer", "--metadata", "pages=3"]
    assert al("execute", *asked, "--policies", "strict.yaml").exit_code == 1
    for _ in range(3):
        assert al("execute", *asked, "--policies", "strict.yaml", "--mode", "observe").exit_code == 0
    assert al("policy", "suggest", "-o", "draft.yaml").exit_code == 0
    tried = document(al("policy", "simulate", "draft.yaml", "--json"))
    assert [(one["was"], one["now"], one["count"]) for one in tried["flips"]] == [("deny", "allow", 4)]
    assert al("policy", "apply", "draft.yaml", "--as", "ana").exit_code == 0
    assert al("execute", *asked).exit_code == 0
