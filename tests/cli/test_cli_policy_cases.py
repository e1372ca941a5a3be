"""`al policy test`: a pipeline can rely on its exit code, and a person on what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_reference import PAGE
from cli_world import POLICIES, Al, AlProcess, document

from agentlattice_core.policy import cases as cases_module

CASES = """\
version: 1
cases:
  - name: small runs
    action: pr.open
    metadata: {pr_size: 12}
    expect: allow
  - name: large is denied
    action: pr.open
    metadata: {pr_size: 120}
    expect: {outcome: deny, reason: CONDITIONS_DENIED}
"""


@pytest.fixture
def cases(project: Path) -> Path:
    """Policies, and cases for a part of them."""
    (project / "policies.yaml").write_text(POLICIES)
    path = project / "policies.test.yaml"
    path.write_text(CASES)
    return path


def test_a_new_project_has_cases_that_pass(al: Al) -> None:
    """`al init`, then `al policy test` without an argument."""
    assert "wrote policies.test.yaml" in al("init").stdout
    result = al("policy", "test", "--threshold", "100")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("7 cases: 7 passed, 0 failed; 100% of the policies exercised")


def test_a_case_that_fails_is_named_with_its_line_and_ends_with_1(cases: Path, al: Al) -> None:
    """What was expected, what it is, who decided and why; those that pass are listed on request."""
    cases.write_text(CASES.replace("pr_size: 12}", "pr_size: 60}"))
    result = al("policy", "test", "policies.test.yaml")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "FAIL policies.test.yaml:3: small runs",
        "  expected `allow`, and it is `deny` by `PR Size`, CONDITIONS_DENIED: "
        "`pr_size` must be less than `50`, and is `60`",
    ]
    assert "2 cases: 1 passed, 1 failed" in result.stderr
    verbose = al("policy", "test", "policies.test.yaml", "-v")
    assert "pass policies.test.yaml:7: large is denied" in verbose.stdout


@pytest.mark.parametrize("named", ["policies.yaml", "policies.test.yaml", "."])
def test_cases_are_found_beside_the_policy_by_name_or_in_a_directory(cases: Path, al: Al, named: str) -> None:
    """Whichever of them is named, the same cases run."""
    assert document(al("policy", "test", named, "--json"))["passed"] == 2


def test_cases_may_be_about_other_files(cases: Path, al: Al, project: Path) -> None:
    """Named relative to the case file, several read as one document."""
    (project / "cases").mkdir()
    (project / "more.yaml").write_text("version: 1\npolicies: [{name: M, action: m, effect: allow}]\n")
    cases.rename(project / "cases" / "all.test.yaml")
    (project / "cases" / "all.test.yaml").write_text(
        CASES.replace("cases:", "policies: [../policies.yaml, ../more.yaml]\ncases:", 1)
        + "  - {name: more, action: m, expect: allow}\n"
    )
    assert document(al("policy", "test", "cases", "--json"))["passed"] == 3


def test_cases_are_chosen_by_name_and_a_run_without_a_case_is_an_error(cases: Path, al: Al) -> None:
    """A filter that matches nothing must not read as success."""
    found = document(al("policy", "test", "policies.yaml", "--run", "^large", "--json"))
    assert [one["name"] for one in found["cases"]] == ["large is denied"]
    nothing = al("policy", "test", "policies.yaml", "--run", "lrage")
    assert (nothing.exit_code, nothing.stderr) == (1, "error: no case's name matches `lrage`\n")
    assert "is not a regular expression" in al("policy", "test", "policies.yaml", "--run", "(").stderr


def test_what_no_case_exercised_is_listed_and_can_fail_the_run(cases: Path, al: Al) -> None:
    """Each policy, branch and rule with its line; `--threshold` makes too little an error."""
    result = al("policy", "test", "policies.yaml", "--coverage")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "never policies.yaml:8: `Deploys`: it is asked",
        "never policies.yaml:12: `No secrets`: it is asked",
    ]
    assert "50% of the policies exercised" in result.stderr
    assert al("policy", "test", "policies.yaml", "--threshold", "50").exit_code == 0
    short = al("policy", "test", "policies.yaml", "--threshold", "51")
    assert short.exit_code == 1
    assert "50% of the policies exercised, at least 51% wanted" in short.stderr


def test_programs_read_one_document(cases: Path, al: Al) -> None:
    """Case by case what was decided, and what was never exercised."""
    found = document(al("policy", "test", "policies.yaml", "--json"))
    assert found["cases"][1] == {
        "file": "policies.test.yaml",
        "line": 7,
        "name": "large is denied",
        "passed": True,
        "differences": [],
        "outcome": "deny",
        "reason": "CONDITIONS_DENIED",
        "policy": "PR Size",
        "rules": [],
        "message": "`pr_size` must be less than `50`, and is `120`",
    }
    assert [one["part"] for one in found["coverage"]["never"]] == ["policy/deploys", "policy/no-secrets"]


def test_what_keeps_cases_from_running_is_one_line_each(cases: Path, al: Al, project: Path) -> None:
    """A typo in cases or policies, no cases, no policies, no file."""
    (project / "typo.test.yaml").write_text(CASES.replace("expect: allow", "expcet: allow"))
    typo = al("policy", "test", "typo.test.yaml")
    assert typo.exit_code == 1
    assert "error: typo.test.yaml:6:5: cases[0].expcet: unknown field; did you mean `expect`?" in typo.stderr
    (project / "alone.test.yaml").write_text(CASES)
    assert "names no policies, and there is no `alone.yaml`" in al("policy", "test", "alone.test.yaml").stderr
    assert "no `gone.test.yaml` either" in al("policy", "test", "gone.yaml").stderr
    (project / "empty").mkdir()
    assert "there is no case file in `empty`" in al("policy", "test", "empty").stderr
    cases.unlink()
    assert "write them into `policies.test.yaml`" in al("policy", "test", "policies.yaml").stderr
    assert "no file is named and the project names no policies" in al("policy", "test").stderr


def test_no_database_is_opened_or_made(cases: Path, al_process: AlProcess, project: Path) -> None:
    """Cases say all that a decision depends on."""
    assert al_process("policy", "test", "policies.yaml").returncode == 0
    assert sorted(path.name for path in project.iterdir()) == ["policies.test.yaml", "policies.yaml"]


REFUNDS = """\
version: 1
policies:
  - name: Refunds
    action: refund.issue
    agents: [cs-agent]
    effect: require_approval
    rules:
      - {priority: 10, type: AMOUNT_THRESHOLD, max: "100.00", currency: EUR, effect: AUTO_APPROVE}
      - {priority: 40, type: DAILY_CAP, cap: "1500.00", currency: EUR, timezone: Europe/Paris, effect: REJECT}
"""


def test_the_cases_that_the_page_shows_pass(al: Al, project: Path) -> None:
    """docs/cli.md shows a case file for the refunds that all the documentation speaks of."""
    page = PAGE.read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(.*?)```", page.partition("## Testing policy")[2], flags=re.DOTALL)
    (project / "policies.yaml").write_text(REFUNDS)
    (project / "policies.test.yaml").write_text(shown)
    found = document(al("policy", "test", "policies.yaml", "--json"))
    assert (found["passed"], found["failed"]) == (3, 0), found
    members = re.findall(r"^\| (`[^|]*`) \|", page.partition("| member of a case |")[2], flags=re.MULTILINE)
    named = {name for row in members for name in re.findall(r"`(\w+)`", row)}
    assert {*cases_module._CASE, *cases_module._EXPECT} <= named
