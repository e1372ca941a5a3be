"""Which setting is in force, and that it is said where it came from."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_world import Al, document

PLACES = ("flag", "environment", "project", "user")


@pytest.mark.parametrize(
    "given",
    [set(), *({*PLACES[position:]} for position in range(4))],
    ids=lambda given: "+".join(sorted(given)),
)
@pytest.mark.parametrize(
    ("name", "variable", "flag"),
    [("agent", "AL_AGENT", "--agent"), ("operator", "AL_OPERATOR", "--as"), ("db", "AL_DB", "--db")],
)
def test_flag_over_environment_over_project_over_user_over_default(
    al: Al,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: set[str],
    name: str,
    variable: str,
    flag: str,
) -> None:
    """Of the places that say something, the first in that order wins, and `al config` names it."""
    if "environment" in given:
        monkeypatch.setenv(variable, "by-environment")
    if "project" in given:
        (project / "agentlattice.toml").write_text(f'{name} = "by-project"\n')
    if "user" in given:
        (tmp_path / "home/.config/agentlattice").mkdir(parents=True)
        (tmp_path / "home/.config/agentlattice/config.toml").write_text(f'{name} = "by-user"\n')
    setting = document(al("config", "--json", *([flag, "by-flag"] if "flag" in given else [])))[name]
    winner = next((place for place in PLACES if place in given), None)
    if winner is None:
        assert setting["value"] == ("governance.db" if name == "db" else None)
        assert setting["source"] == "default"
    else:
        assert setting["value"].endswith(f"by-{winner}")
        assert setting["source"].startswith(winner)


def test_the_nearest_project_file_counts_and_paths_are_relative_to_it(
    al: Al, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command means the same database wherever in the project it is run."""
    (project / "agentlattice.toml").write_text('db = "data/log.db"\npolicies = ["a.yaml", "b.yaml"]\n')
    deep = project / "src" / "deep"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    found = document(al("config", "--json"))
    assert found["db"]["value"] == str(project / "data/log.db")
    assert found["policies"]["value"] == [str(project / "a.yaml"), str(project / "b.yaml")]
    assert found["db"]["source"] == f"project file `{project / 'agentlattice.toml'}`"


def test_pyproject_serves_where_it_has_the_table(al: Al, project: Path) -> None:
    """`[tool.agentlattice]` is read, a pyproject without it is none of ours, and our own file wins beside it."""
    (project / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert document(al("config", "--json"))["agent"]["value"] is None
    (project / "pyproject.toml").write_text('[tool.agentlattice]\nagent = "ci"\n')
    assert document(al("config", "--json"))["agent"]["value"] == "ci"
    (project / "agentlattice.toml").write_text('agent = "other"\n')
    assert document(al("config", "--json"))["agent"]["value"] == "other"


def test_lists_come_from_the_environment_and_an_empty_variable_says_nothing(
    al: Al, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are separated as in PATH, groups by commas."""
    monkeypatch.setenv("AL_POLICIES", "a.yaml:b.yaml")
    monkeypatch.setenv("AL_GROUPS", "dba, oncall")
    monkeypatch.setenv("AL_AGENT", "")
    found = document(al("config", "--json"))
    assert found["policies"]["value"] == ["a.yaml", "b.yaml"]
    assert found["groups"]["value"] == ["dba", "oncall"]
    assert found["agent"] == {"value": None, "source": "default"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agnet = 'ci'\n", "`agnet` is not a setting; there are db, organisation, signing_key, agent"),
        ("agent = 7\n", "setting `agent` (project file"),
        ("mode = 'watch'\n", "is `watch`, and must be one of enforce, observe"),
        ("role = 'boss'\n", "is `boss`, and must be one of viewer, member, admin"),
        ("policies = [1]\n", "must be a list of texts"),
        ("db = \n", "(at line 1, column 6)"),
    ],
)
def test_a_wrong_file_stops_the_command_and_says_what_is_wrong(
    al: Al, project: Path, text: str, message: str
) -> None:
    """A setting that was mistyped must not silently leave the default in force."""
    (project / "agentlattice.toml").write_text(text)
    result = al("config")
    assert result.exit_code == 1
    assert message in result.stderr
    assert "agentlattice.toml" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_file_that_is_not_text_is_an_error(al: Al, project: Path) -> None:
    """Bytes that are not UTF-8 are not guessed at."""
    (project / "agentlattice.toml").write_bytes(b"\xff\xfe")
    assert al("config").stderr.endswith("not UTF-8\n")


def test_init_writes_a_starter_once(al: Al, project: Path) -> None:
    """What is there already is left as it is, unless `--force` says otherwise."""
    first = al("init", "--dir", "new")
    assert first.exit_code == 0
    assert "al policy suggest" in first.stdout
    assert al("policy", "lint", "new/policies.yaml", "--strict").exit_code == 0
    (project / "new/policies.yaml").write_text("mine")
    again = al("init", "--dir", "new")
    assert again.exit_code == 1
    assert "`new/policies.yaml` is there already and was left as it is" in again.stderr
    assert (project / "new/policies.yaml").read_text() == "mine"
    (project / "new/policies.yaml").unlink()
    assert al("init", "--dir", "new").exit_code == 1, "the project file is there, so nothing is written"
    assert not (project / "new/policies.yaml").exists()
    assert al("init", "--dir", "new", "--force").exit_code == 0
    assert "Allow All (Default)" in (project / "new/policies.yaml").read_text()
    assert sorted(document(al("init", "--dir", "other", "--json"))["written"]) == [
        "other/agentlattice.toml",
        "other/policies.test.yaml",
        "other/policies.yaml",
    ]
