"""Writing policy, trying it against what was recorded, and putting it into force."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli_world import POLICIES, Al, Terminal, document

from agentlattice_core import AgentLattice
from agentlattice_core.testing import ManualClock

WRONG = POLICIES.replace("effect: deny", "effect: dney").replace("operator: lt", "operator: less")


def test_a_typo_is_named_by_file_line_and_column(al: Al, project: Path) -> None:
    """Every problem is a line that an editor can jump to, whichever command reads the file."""
    (project / "wrong.yaml").write_text(WRONG)
    for command in (
        ["policy", "lint", "wrong.yaml"],
        ["policy", "apply", "wrong.yaml", "--as", "ana"],
        ["policy", "simulate", "wrong.yaml"],
        ["policy", "explain", "pr.open", "--file", "wrong.yaml"],
    ):
        result = al(*command)
        assert result.exit_code == 1
        assert result.stdout == ""
        first, second = result.stderr.splitlines()
        assert first.startswith("error: wrong.yaml:7:36: policies[0].conditions[0].operator: ")
        assert second.startswith("error: wrong.yaml:14:13: policies[2].effect: ")
    assert [path.name for path in project.iterdir()] == ["wrong.yaml"]


def test_a_typo_is_structured_for_programs(al: Al, project: Path) -> None:
    """`lint --json` says the same of an invalid file in the shape it uses for findings."""
    (project / "wrong.yaml").write_text(WRONG)
    result = al("policy", "lint", "wrong.yaml", "--json")
    found = document(result)
    assert (result.exit_code, found["valid"]) == (1, False)
    assert [(one["line"], one["severity"], one["code"]) for one in found["findings"]] == [
        (7, "error", "invalid"),
        (14, "error", "invalid"),
    ]


def test_lint_checks_the_projects_policies_by_default(al: Al, project: Path) -> None:
    """As `policy test` does; without a project it asks for a file."""
    assert "name a file" in al("policy", "lint").stderr
    assert al("init").exit_code == 0
    assert al("policy", "lint").exit_code == 0
    (project / "policies.yaml").write_text(WRONG)
    assert al("policy", "lint").stderr.startswith("error: policies.yaml:7:36: ")


def test_lint_finds_what_cannot_be_meant(al: Al, project: Path) -> None:
    """Errors end with 1, warnings only with `--strict`."""
    (project / "odd.yaml").write_text(
        "version: 1\npolicies:\n  - {name: A, action: a, effect: allow, approval: {timeout: 1h}}\n"
    )
    assert al("policy", "lint", "odd.yaml").exit_code == 0
    strict = al("policy", "lint", "odd.yaml", "--strict")
    assert strict.exit_code == 1
    assert strict.stdout.startswith("odd.yaml:3:")
    assert "warning unreachable" in strict.stdout
    (project / "never.yaml").write_text(
        "version: 1\npolicies:\n"
        "  - {name: A, action: a, effect: allow, conditions: [{field: n, operator: between, value: [1, 2]},"
        " {field: n, operator: gt, value: 5}]}\n"
    )
    found = document(al("policy", "lint", "never.yaml", "--json"))
    assert [(one["code"], one["severity"]) for one in found["findings"]] == [("never-matches", "error")]
    assert al("policy", "lint", "never.yaml").exit_code == 1
    assert al("policy", "lint", "missing.yaml").exit_code == 1


def test_several_files_are_one_document(al: Al, project: Path) -> None:
    """A name that is taken in another file is found."""
    for name in ("a.yaml", "b.yaml"):
        (project / name).write_text("version: 1\npolicies: [{name: Same, action: a, effect: allow}]\n")
    result = al("policy", "lint", "a.yaml", "b.yaml")
    assert result.exit_code == 1
    assert "b.yaml:2:" in result.stderr
    assert "is taken by a.yaml:2" in result.stderr


STRICTER = (
    POLICIES.replace("value: 50", "value: 20")
    .replace("effect: require_approval", "effect: allow")
    .replace('    approval: {timeout: 4h, approvers: ["user:ana", "group:ops"]}\n', "")
)


def test_simulate_shows_what_would_flip(governed: AgentLattice, al: Al, project: Path) -> None:
    """Counts by kind, an example, and an exit code for a pipeline."""
    for size in (10, 30, 40, 60):
        governed.execute_sync("pr.open", metadata={"pr_size": size})
    governed.execute_sync("deploy.production")
    governed.execute_sync("db.drop")
    (project / "stricter.yaml").write_text(STRICTER)
    result = al("policy", "simulate", "stricter.yaml", "--since", "1h", "--json")
    found = document(result)
    assert result.exit_code == 0
    assert (found["actions"], found["unchanged"], found["stricter"], found["new_denials"]) == (6, 3, 2, 2)
    assert [(one["action_type"], one["was"], one["now"], one["count"]) for one in found["flips"]] == [
        ("pr.open", "allow", "deny", 2),
        ("deploy.production", "require_approval", "allow", 1),
    ]
    assert found["flips"][0]["examples"][0]["agent"] == "ci"
    failing = al("policy", "simulate", "stricter.yaml", "--since", "1h", "--fail-on-new-denials")
    assert failing.exit_code == 1
    assert failing.stdout.startswith("pr.open\tallowed\tdenied\t2\tPR Size\t")
    assert "6 actions: 3 as before, 2 newly denied, 0 newly asked about" in failing.stderr
    same = al("policy", "simulate", "policies.yaml", "--fail-on-new-denials")
    assert (same.exit_code, same.stdout) == (0, "")
    assert "every action would be decided as it was" in same.stderr


def test_simulating_and_suggesting_record_nothing(governed: AgentLattice, al: Al) -> None:
    """Trying a policy out is no trace in the log."""
    governed.execute_sync("pr.open", metadata={"pr_size": 3})
    before = governed.verify_sync().chain_hash
    assert al("policy", "simulate", "policies.yaml").exit_code == 0
    assert al("policy", "suggest").exit_code == 0
    assert governed.verify_sync().chain_hash == before


@pytest.mark.parametrize(
    ("since", "seen"),
    [
        ("1h", 1),
        ("0s", 0),
        ("2020-01-01", 1),
        ("2020-01-01T12:00:00+02:00", 1),
        ("9999-01-01", 0),
        ("999999999w", 1),
    ],
)
def test_how_far_back_is_a_length_of_time_or_a_date(
    governed: AgentLattice, al: Al, since: str, seen: int
) -> None:
    """Only actions from then on count."""
    governed.execute_sync("pr.open", metadata={"pr_size": 3})
    assert document(al("policy", "simulate", "policies.yaml", "--since", since, "--json"))["actions"] == seen


@pytest.mark.parametrize("since", ["yesterday", "7", "-1d", "7 days"])
def test_a_time_that_cannot_be_read_is_an_error(governed: AgentLattice, al: Al, since: str) -> None:
    """It is not taken for all or for nothing."""
    result = al("policy", "suggest", "--since", since)
    assert result.exit_code == 1
    assert f"--since `{since}` is neither a length of time such as `7d` nor a date" in result.stderr


def test_suggest_writes_a_document_once(governed: AgentLattice, al: Al, project: Path) -> None:
    """To standard output, or to a file that was not there."""
    governed.execute_sync("pr.open", metadata={"pr_size": 3})
    printed = al("policy", "suggest").stdout
    assert al("policy", "suggest", "-o", "draft.yaml").stdout == ""
    assert (project / "draft.yaml").read_text() == printed
    assert "pr.open" in printed
    again = al("policy", "suggest", "-o", "draft.yaml")
    assert again.exit_code == 1
    assert "is there already and was left as it is" in again.stderr
    assert al("policy", "suggest", "-o", "draft.yaml", "--force").exit_code == 0


LAYERS = """\
version: 1
policies:
  - {name: Default, action: "*", effect: allow}
  - {name: Payments, action: pay.*, effect: require_approval}
  - name: Invoice for clerk
    action: pay.invoice
    agents: [clerk]
    effect: allow
    conditions: [{field: n, operator: lt, value: 3}]
  - {name: Invoice, action: pay.invoice, effect: deny, conditions: [{field: n, operator: gt, value: 9}]}
  - {name: Invoice too, action: pay.invoice, effect: allow}
  - {name: Off, action: pay.invoice, effect: deny, active: false}
  - {name: Elsewhere, action: pay.refund, effect: deny}
guardrails:
  - {name: Cap, action: pay.*, effect: require_approval}
  - {name: Cap elsewhere, action: deploy.*, effect: deny}
"""


def test_explain_shows_the_order_in_which_policies_decide(al: Al, project: Path) -> None:
    """Guardrails always, then exact before prefix before everything, agents first, the tied together, no others."""
    (project / "layers.yaml").write_text(LAYERS)
    steps = document(al("policy", "explain", "pay.invoice", "--file", "layers.yaml", "--json"))["policies"]
    assert [(step["order"], step["name"]) for step in steps] == [
        ("always", "Cap"),
        ("1", "Invoice for clerk"),
        ("2", "Invoice"),
        ("2", "Invoice too"),
        ("3", "Payments"),
        ("4", "Default"),
    ]
    assert steps[1]["why"] == "names this action type, for clerk only"
    assert steps[2]["then"] == "conditions fail: the next one decides; tied: the strictest decides"
    assert steps[4]["why"] == "prefix pay"
    other = document(
        al("policy", "explain", "pay.invoice", "--file", "layers.yaml", "--agent", "x", "--json")
    )
    assert [step["name"] for step in other["policies"]] == [
        "Cap",
        "Invoice",
        "Invoice too",
        "Payments",
        "Default",
    ]


def test_explain_says_when_nothing_matches_and_refuses_a_typo(al: Al, project: Path) -> None:
    """No policy means that it does not run; what is no action type is an error."""
    (project / "none.yaml").write_text("version: 1\npolicies: []\n")
    nothing = al("policy", "explain", "pay.invoice", "--file", "none.yaml")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "no policy matches `pay.invoice`, so it does not run" in nothing.stderr
    assert al("policy", "explain", "pay invoice", "--file", "none.yaml").exit_code == 1


def test_explain_asks_what_is_in_force(governed: AgentLattice, al: Al) -> None:
    """Without a file it is the database that answers, for agents that never acted too."""
    (step,) = document(al("policy", "explain", "deploy.production", "--json"))["policies"]
    assert (step["name"], step["pattern"]) == ("Deploys", "deploy.*")
    unknown = al("policy", "explain", "deploy.production", "--agent", "new")
    assert "has never acted here" in unknown.stderr
    assert "Deploys" in unknown.stdout


def test_apply_needs_an_operator_and_is_recorded_in_that_name(al: Al, project: Path) -> None:
    """The first application makes the database; the log says who."""
    (project / "policies.yaml").write_text(POLICIES)
    anonymous = al("policy", "apply", "policies.yaml")
    assert anonymous.exit_code == 1
    assert "AL_OPERATOR" in anonymous.stderr
    assert not (project / "governance.db").exists()
    assert "a viewer" in al("policy", "apply", "policies.yaml", "--as", "ana", "--role", "viewer").stderr
    applied = al("policy", "apply", "policies.yaml", "--as", "ana")
    assert sorted(applied.stdout.split()) == ["policy/deploys", "policy/no-secrets", "policy/pr-size"]
    again = al("policy", "apply", "policies.yaml", "--as", "ana", "--json")
    assert document(again) == {"changed": [], "approved": []}
    al("audit", "export", "log.jsonl")
    assert (
        '\\"who\\":{\\"established\\":\\"asserted\\",\\"operator\\":\\"ana\\"'
        in (project / "log.jsonl").read_text()
    )


def test_apply_deletes_only_with_prune(al: Al, project: Path) -> None:
    """What a file no longer holds stays in force until somebody says otherwise; `diff` shows it before."""
    (project / "policies.yaml").write_text(POLICIES)
    al("policy", "apply", "policies.yaml", "--as", "ana")
    assert al("policy", "diff", "policies.yaml").stderr == "nothing differs\n"
    (project / "policies.yaml").write_text(
        "version: 1\npolicies: [{name: PR Size, action: pr.open, effect: deny}]\n"
    )
    changes = al("policy", "diff", "policies.yaml").stdout
    assert "removed policy/deploys Deploys" in changes
    assert 'effect: "allow" -> "deny"' in changes
    assert document(al("policy", "apply", "policies.yaml", "--as", "ana", "--json")) == {
        "changed": ["policy/pr-size"],
        "approved": [],
    }
    pruned = document(al("policy", "apply", "policies.yaml", "--as", "ana", "--prune", "--json"))["changed"]
    assert sorted(pruned) == ["policy/deploys", "policy/no-secrets"]


def test_two_files_can_be_compared_without_a_database(al: Al, project: Path) -> None:
    """Layout does not differ, meaning does."""
    (project / "a.yaml").write_text(POLICIES)
    (project / "b.yaml").write_text(POLICIES.replace("value: 50", "value: 60"))
    found = document(al("policy", "diff", "a.yaml", "b.yaml", "--json"))["changes"]
    assert [(one["kind"], one["fields"][0]["before"], one["fields"][0]["after"]) for one in found] == [
        ("changed", 50, 60)
    ]


CAPPED = """\
version: 1
policies:
  - name: Refunds
    action: refund.issue
    effect: allow
    rules: [{priority: 1, type: DAILY_CAP, cap: "100", currency: EUR, effect: REJECT}]
"""


def test_caps_are_not_empty_where_the_replay_begins(project: Path, al: Al) -> None:
    """What was spent earlier on the first day counts, though it is not among the actions that are shown."""
    (project / "capped.yaml").write_text(CAPPED)
    clock = ManualClock(datetime(2026, 3, 2, 10, tzinfo=UTC))
    with AgentLattice.embedded("governance.db", policies="capped.yaml", agent="ci", clock=clock) as client:
        for amount in (90, 30):
            client.execute_sync("refund.issue", amount=amount, currency="EUR")
            clock.advance(hours=2)
    for since, actions in (("2026-03-02T11:00", 1), ("2026-03-02", 2), ("0001-01-01", 2)):
        found = document(al("policy", "simulate", "capped.yaml", "--since", since, "--json"))
        assert (found["actions"], found["unchanged"], found["flips"]) == (actions, actions, [])


def test_several_files_are_simulated_as_one_document(governed: AgentLattice, al: Al, project: Path) -> None:
    """A policy that lies in another file is not taken for gone."""
    governed.execute_sync("pr.open", metadata={"pr_size": 3})
    governed.execute_sync("deploy.production")
    (project / "a.yaml").write_text("version: 1\npolicies: [{name: P, action: pr.open, effect: allow}]\n")
    (project / "b.yaml").write_text(
        "version: 1\npolicies: [{name: D, action: deploy.*, effect: require_approval}]\n"
    )
    assert document(al("policy", "simulate", "a.yaml", "--json"))["new_denials"] == 1
    assert document(al("policy", "simulate", "a.yaml", "b.yaml", "--json"))["unchanged"] == 2


def test_diff_is_about_the_parts_of_the_file_and_can_fail_a_pipeline(al: Al, project: Path) -> None:
    """What another file published is not reported as removed; `--exit-code` says whether anything differs."""
    (project / "policies.yaml").write_text(POLICIES)
    (project / "other.yaml").write_text("version: 1\npolicies: [{name: O, action: o, effect: allow}]\n")
    al("policy", "apply", "policies.yaml", "other.yaml", "--as", "ana")
    same = al("policy", "diff", "other.yaml", "--exit-code")
    assert (same.exit_code, same.stdout, same.stderr) == (0, "", "nothing differs\n")
    (project / "other.yaml").write_text("version: 1\npolicies: [{name: N, action: n, effect: allow}]\n")
    differs = al("policy", "diff", "other.yaml", "--exit-code")
    assert differs.exit_code == 1
    assert [line.split()[:2] for line in differs.stdout.splitlines()] == [
        ["added", "policy/n"],
        ["removed", "policy/o"],
    ]
    assert "removes only with `--prune`" in differs.stderr
    assert al("policy", "diff", "other.yaml").exit_code == 0


def test_what_is_in_force_can_be_listed(governed: AgentLattice, al: Al) -> None:
    """All of it, or what may concern one agent that is known."""
    lines = al("policy", "list").stdout.splitlines()
    assert [line.split("\t")[:5] for line in lines] == [
        ["Deploys", "deploy.*", "require_approval", "no", "1"],
        ["No secrets", "secret.read", "deny", "no", "1"],
        ["PR Size", "pr.open", "allow", "yes", "1"],
    ]
    assert document(al("policy", "list", "--json"))["scope"] == "org"
    assert document(al("policy", "list", "--agent", "ci", "--json"))["scope"] == "own"
    unknown = al("policy", "list", "--agent", "cii")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert "did you mean `ci`?" in unknown.stderr


def test_lint_can_check_names_against_the_agents_there_are(
    governed: AgentLattice, al: Al, project: Path
) -> None:
    """A policy for an agent that nobody registered governs nobody; without a database nobody is known to be unknown."""
    (project / "named.yaml").write_text(
        "version: 1\npolicies:\n  - {name: A, action: a, effect: allow, agents: [ci, cii]}\n"
    )
    assert al("policy", "lint", "named.yaml").stdout == ""
    found = al("policy", "lint", "named.yaml", "--db", "governance.db").stdout
    assert found.startswith("named.yaml:3:")
    assert found.endswith("warning unknown-agent: no agent has `cii`; did you mean `ci`?\n")
    assert al("policy", "lint", "named.yaml", "--db", "nowhere.db").exit_code == 1


def test_apply_names_what_waits_before_it_approves_that(
    al: Al, governed: AgentLattice, project: Path
) -> None:
    """A script has to say that it is meant; nothing is applied until then, and then the agent may go on."""
    asked = governed.execute_sync("deploy.production", metadata={"version": "1"})
    (project / "policies.yaml").write_text(
        "version: 1\npolicies:\n  - {name: Idle, action: idle.do, effect: allow}\n"
    )
    prune = ("policy", "apply", "policies.yaml", "--as", "ana", "--prune")
    refused = al(*prune)
    assert refused.exit_code == 1
    assert f"approves {asked.approval_id}: deploy.production of ci" in refused.stderr
    assert "pass `--yes`" in refused.stderr
    assert governed.claim_sync(asked.audit_event_id).status == "requested"
    done = al(*prune, "--yes", "--json")
    assert document(done)["approved"] == [asked.approval_id]
    assert f"approves {asked.approval_id}" in done.stderr
    assert governed.claim_sync(asked.audit_event_id).claim == "started"


def test_on_a_terminal_a_person_says_whether_that_is_meant(governed: AgentLattice, project: Path) -> None:
    """No leaves everything as it was; yes applies the file."""
    asked = governed.execute_sync("deploy.production", metadata={"version": "1"})
    (project / "policies.yaml").write_text(
        "version: 1\npolicies:\n  - {name: Idle, action: idle.do, effect: allow}\n"
    )
    for answer, ends, status in (("n\n", 1, "requested"), ("y\n", 0, "executed")):
        terminal = Terminal("policy", "apply", "policies.yaml", "--as", "ana", "--prune")
        terminal.until("approve 1 pending without a person? [y/N] ")
        terminal.type(answer)
        assert terminal.end() == ends
        assert governed.claim_sync(asked.audit_event_id).status == status
