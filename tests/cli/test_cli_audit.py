"""Reading the log from a shell, proving it, and taking it elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cli_world import PATIENCE, Al, AlProcess, document

from agentlattice_core import AgentLattice


@pytest.fixture
def recorded(governed: AgentLattice) -> AgentLattice:
    """Three agents' actions, closed so that the file holds everything."""
    for agent in ("ci", "bot"):
        client = governed.for_agent(agent)
        for size in (1, 2, 80):
            client.execute_sync("pr.open", metadata={"pr_size": size})
        client.execute_sync("secret.read")
        client.close()
    return governed


def change(sql: str) -> None:
    """Edit the database behind the log's back, in a process of its own."""
    code = f"import apsw; apsw.Connection('governance.db').execute({sql!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)


def test_a_page_leads_to_the_next(recorded: AgentLattice, al: Al) -> None:
    """Following the cursor shows every action once, the newest first."""
    seen: list[str] = []
    cursor: list[str] = []
    while True:
        page = document(al("audit", "list", "--limit", "3", "--json", *cursor))
        seen += [event["id"] for event in page["events"]]
        if page["next_cursor"] is None:
            break
        cursor = ["--cursor", page["next_cursor"]]
    assert len(seen) == len(set(seen)) == 8
    assert seen == sorted(seen, reverse=True)
    text = al("audit", "list", "--limit", "3")
    assert text.stdout.count("\n") == 3
    assert text.stderr.startswith("more: --cursor ")


def test_actions_are_found_by_type_and_agent(recorded: AgentLattice, al: Al) -> None:
    """Filters combine, and a limit above a page's size still holds."""
    found = document(
        al("audit", "list", "--action-type", "pr.open", "--agent", "bot", "--limit", "500", "--json")
    )
    assert [(event["agent"], event["action_type"]) for event in found["events"]] == [("bot", "pr.open")] * 3
    assert "is not registered" in al("audit", "list", "--agent", "nobody").stderr
    assert al("audit", "list", "--cursor", "what").exit_code == 1


def test_an_operator_sees_conditions_that_are_hidden_from_the_agent(al: Al, project: Path) -> None:
    """`explain: none` hides a threshold from the agent; the log shows it, with a filter by agent too."""
    (project / "p.yaml").write_text(
        "version: 1\npolicies: [{name: P, action: refund, effect: allow, explain: none,"
        " conditions: [{field: n, operator: lt, value: 417}]}]\n"
    )
    asked = al("execute", "refund", "--metadata", "n=900", "--agent", "cs", "--policies", "p.yaml", "--json")
    assert "417" not in asked.stdout
    for by_agent in ([], ["--agent", "cs"]):
        (event,) = document(al("audit", "list", "--json", *by_agent))["events"]
        assert event["conditions_evaluated"][0]["expected"] == 417


def test_a_sound_log_verifies(recorded: AgentLattice, al: Al) -> None:
    """Text and JSON say how far, and with `--state` that the state is what the log makes of it."""
    text = al("audit", "verify", "--state")
    assert text.exit_code == 0
    assert text.stdout.startswith("sound: ")
    assert "state: limits, approvals and policies are what the log makes of them" in text.stdout
    found = document(al("audit", "verify", "--state", "--json"))
    assert (found["sound"], found["chain_valid"], found["state_valid"], found["state_differences"]) == (
        True,
        True,
        True,
        [],
    )
    assert document(al("audit", "verify", "--json"))["first_broken_at_row_id"] is None


@pytest.mark.parametrize(
    ("sql", "row"),
    [
        (
            "UPDATE entries SET body = CAST(replace(CAST(body AS TEXT), 'pr.open', 'pr.shut') AS BLOB) WHERE i = 6",
            "6",
        ),
        ("DELETE FROM entries WHERE i = 8", "8"),
        ("UPDATE entries SET payload = CAST('{}' AS BLOB) WHERE i = 7", "7"),
    ],
)
def test_a_changed_entry_is_named(recorded: AgentLattice, al: Al, sql: str, row: str) -> None:
    """The exit code is 1 and the first bad row is said, to people and to programs."""
    recorded.close()
    change(sql)
    text = al("audit", "verify")
    assert text.exit_code == 1
    assert text.stdout.startswith(f"BROKEN at row {row}: ")
    found = document(al("audit", "verify", "--json"))
    assert (found["sound"], found["first_broken_at_row_id"]) == (False, row)


def test_edited_state_is_seen_only_by_who_asks_for_state(recorded: AgentLattice, al: Al) -> None:
    """The log itself is sound; `--state` shows which document is not what it says."""
    recorded.close()
    edited = "CAST(replace(CAST(value AS TEXT), 'denied', 'executed') AS BLOB)"
    change(f"UPDATE state SET value = {edited} WHERE kind = 'action'")
    assert al("audit", "verify").exit_code == 0
    result = al("audit", "verify", "--state")
    assert result.exit_code == 1
    assert result.stdout.count("STATE: action `") == 4
    assert "in `status`" in result.stdout
    assert len(document(al("audit", "verify", "--state", "--json"))["state_differences"]) == 4


def test_edited_state_is_made_anew_by_a_named_administrator(recorded: AgentLattice, al: Al) -> None:
    """After it `--state` is content again; without a person, a role or a reason nothing happens."""
    recorded.close()
    change("DELETE FROM state WHERE kind = 'action'")
    rebuild = ("audit", "rebuild-state", "--reason", "deleted by mistake")
    for refused, why in (
        (rebuild, "deciding takes a person"),
        ((*rebuild, "--as", "ada"), "takes an administrator"),
        ((*rebuild[:2], "--as", "ada", "--role", "admin"), "--reason"),
    ):
        result = al(*refused)
        assert result.exit_code == 1
        assert why in result.stderr
    assert al("audit", "verify", "--state").exit_code == 1
    admin = (*rebuild, "--as", "ada", "--role", "admin")
    done = al(*admin)
    assert done.exit_code == 0
    assert done.stdout.count("mended: action `") == 8
    assert al("audit", "verify", "--state").exit_code == 0
    assert "nothing was changed" in al(*admin).stdout
    assert document(al(*admin, "--json")) == {"mended": []}


def test_whoever_has_the_first_key_needs_no_other(recorded: AgentLattice, al: Al, project: Path) -> None:
    """After two rotations the first public key and a checkpoint from before still verify all that is written."""
    recorded.close()
    first = al("audit", "key").stdout.strip()
    (project / "kept.txt").write_text(al("audit", "checkpoint").stdout)
    keys = [first]
    for number in (1, 2):
        done = al(
            "audit", "rotate-key", "--as", "ada", "--role", "admin", "--reason", f"yearly {number}", "--json"
        )
        assert document(done)["previous"] == keys[-1]
        keys.append(document(done)["key"])
    assert len(set(keys)) == 3
    assert al("audit", "key").stdout.strip() == keys[-1]
    assert al("audit", "verify", "--state", "--checkpoint", "kept.txt").exit_code == 0
    assert al("audit", "export", "log.jsonl").exit_code == 0
    assert al("audit", "prove", "1", "-o", "proof.json").exit_code == 0
    (project / "recent.txt").write_text(al("audit", "checkpoint").stdout)
    for key in keys:
        for kept in ("kept.txt", "recent.txt"):
            checked = al("audit", "verify", "--export", "log.jsonl", "--key", key, "--checkpoint", kept)
            assert checked.exit_code == 0, checked.stderr
        assert al("audit", "verify", "--proof", "proof.json", "--key", key).exit_code == 0
    refused = al("audit", "rotate-key", "--as", "bob", "--reason", "x")
    assert "takes an administrator" in refused.stderr


def test_a_kept_checkpoint_finds_an_old_copy(recorded: AgentLattice, al: Al, project: Path) -> None:
    """A database that was put back to an earlier state, signer's files and all, fits itself but not the checkpoint."""
    recorded.close()
    files = [path for path in project.iterdir() if path.name.startswith("governance.db")]
    copies = {path: path.read_bytes() for path in files}
    with AgentLattice.embedded("governance.db", agent="ci") as client:
        client.execute_sync("pr.open", metadata={"pr_size": 3})
    (project / "kept.txt").write_text(al("audit", "checkpoint").stdout)
    assert al("audit", "verify", "--checkpoint", "kept.txt").exit_code == 0
    assert al("audit", "verify", "--checkpoint", "kept.txt", "--since-checkpoint").exit_code == 0
    for path in project.iterdir():
        if path.name.startswith("governance.db"):
            path.unlink()
    for path, content in copies.items():
        path.write_bytes(content)
        path.chmod(0o600)
    assert al("audit", "verify").exit_code == 0
    result = al("audit", "verify", "--checkpoint", "kept.txt")
    assert result.exit_code == 1
    assert "but a checkpoint was signed for" in result.stdout


def test_an_older_copy_is_accepted_by_somebody_who_has_looked(
    recorded: AgentLattice, al: Al, project: Path
) -> None:
    """The command says what it would accept; after it the log goes on, and each verification says what happened."""
    recorded.close()
    whole = (
        "import apsw; apsw.Connection('governance.db').wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)"
    )
    subprocess.run([sys.executable, "-c", whole], check=True, timeout=PATIENCE)
    old = (project / "governance.db").read_bytes()
    with AgentLattice.embedded("governance.db", agent="ci") as client:
        client.execute_sync("pr.open", metadata={"pr_size": 3})
    for path in project.glob("governance.db-*"):
        path.unlink()
    (project / "governance.db").write_bytes(old)
    assert al("execute", "pr.open", "--agent", "ci", "--metadata", "pr_size=1").exit_code == 3
    accept = ("audit", "accept-restore", "--as", "ada", "--role", "admin", "--reason", "disk died")
    asked = al(*accept)
    assert (asked.exit_code, asked.stdout) == (1, "")
    confirmation = asked.stderr.rpartition("pass `--confirm ")[2].rstrip("`\n")
    kept, signed = map(int, confirmation.split("/"))
    assert kept == signed - 1
    assert al(*accept, "--confirm", f"{kept}/{kept}").exit_code == 1
    assert al("audit", "verify").exit_code == 1
    done = al(*accept, "--confirm", confirmation)
    assert done.exit_code == 0
    assert done.stdout.startswith("CUT: ")
    assert al("execute", "pr.open", "--agent", "ci", "--metadata", "pr_size=1").exit_code == 0
    verified = al("audit", "verify", "--state")
    assert verified.exit_code == 0
    assert done.stdout in verified.stdout
    assert document(al("audit", "verify", "--json"))["cuts"] == [done.stdout.removeprefix("CUT: ").strip()]
    key = al("audit", "key").stdout.strip()
    assert al("audit", "export", "log.jsonl").exit_code == 0
    assert done.stdout in al("audit", "verify", "--export", "log.jsonl", "--key", key).stdout
    assert "nothing to accept" in al(*accept).stderr


def test_an_export_verifies_with_the_public_key_alone(
    recorded: AgentLattice, al: Al, al_process: AlProcess, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another machine, from a file or a pipe; a changed line is named, another key refused."""
    key = al("audit", "key").stdout.strip()
    written = al("audit", "export", "log.jsonl")
    assert written.exit_code == 0
    assert key in written.stderr
    assert (project / "log.jsonl").stat().st_mode & 0o777 == 0o600
    assert al_process("audit", "export", "-").stdout == (project / "log.jsonl").read_text()
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    exported = (project / "log.jsonl").read_bytes()
    (elsewhere / "log.jsonl").write_bytes(exported)
    (elsewhere / "key.txt").write_text(key + "\n")
    monkeypatch.chdir(elsewhere)
    assert al("audit", "verify", "--export", "log.jsonl", "--key", key).exit_code == 0
    assert (
        document(al("audit", "verify", "--export", "log.jsonl", "--key", "key.txt", "--json"))["sound"]
        is True
    )
    (elsewhere / "log.jsonl").write_bytes(exported.replace(b"executed", b"exekuted", 1))
    broken = al("audit", "verify", "--export", "log.jsonl", "--key", key)
    assert broken.exit_code == 1
    assert broken.stdout.startswith("BROKEN at row ")
    other = key[:-8] + ("AAAAAAA=" if not key.endswith("AAAAAAA=") else "BBBBBBB=")
    assert al("audit", "verify", "--export", "log.jsonl", "--key", other).exit_code == 1
    assert sorted(path.name for path in elsewhere.iterdir()) == ["key.txt", "log.jsonl"]


def test_one_entry_is_proved_with_the_public_key_alone(
    recorded: AgentLattice, al: Al, al_process: AlProcess, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the database, from a file or a pipe; what may be personal is in it only if it was disclosed."""
    key = al("audit", "key").stdout.strip()
    event = document(al("audit", "list", "--action-type", "pr.open", "--json"))["events"][0]
    written = al("audit", "prove", event["id"], "-o", "proof.json")
    assert written.exit_code == 0
    assert f"al audit verify --proof proof.json --key {key}" in written.stderr
    assert (project / "proof.json").stat().st_mode & 0o777 == 0o600
    disclosed = al_process("audit", "prove", event["id"], "--disclose").stdout
    index = str(int(event["id"][4:16], 16))
    by_index = al("audit", "prove", index).stdout
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "proof.json").write_bytes((project / "proof.json").read_bytes())
    monkeypatch.chdir(elsewhere)
    plain = document(al("audit", "verify", "--proof", "proof.json", "--key", key, "--json"))
    assert (plain["sound"], plain["id"], plain["data"]["action_type"]) == (True, event["id"], "pr.open")
    assert plain["payload"] is None
    assert plain["entries"] > plain["entry"] == int(index)
    shown = al("audit", "verify", "--proof", "-", "--key", key, "--json", input=disclosed)
    assert "pr_size" in document(shown)["payload"]
    assert document(shown) | {"payload": None} == plain
    text = al("audit", "verify", "--proof", "-", "--key", key, input=by_index)
    assert text.stdout.startswith(f"sound: entry {index} is one of the ")
    assert sorted(path.name for path in elsewhere.iterdir()) == ["proof.json"]


def test_a_proof_that_was_changed_proves_nothing(recorded: AgentLattice, al: Al) -> None:
    """Any part of it: the entry, a hash, the checkpoint, the payload; or another key than the one that is trusted."""
    key = al("audit", "key").stdout.strip()
    event = document(al("audit", "list", "--action-type", "pr.open", "--json"))["events"][0]
    proof = al("audit", "prove", event["id"], "--disclose").stdout
    assert al("audit", "verify", "--proof", "-", "--key", key, input=proof).exit_code == 0
    for was, becomes in (
        ("pr.open", "pr.shut"),
        ('"hashes":["', '"hashes":["00'),
        ('"format"', '"formats"'),
        ("\\nprevious ", "\\nprecious "),
        ('"salt":"', '"salt":"00'),
        ("agentlattice/", "agentlattice/x"),
        ("}\n", "} \n"),
    ):
        if was in proof:
            changed = al(
                "audit", "verify", "--proof", "-", "--key", key, input=proof.replace(was, becomes, 1)
            )
            assert (changed.exit_code, changed.stdout) == (1, ""), was
            assert changed.stderr.startswith("error: ")
    other = key[:-8] + ("AAAAAAA=" if not key.endswith("AAAAAAA=") else "BBBBBBB=")
    assert al("audit", "verify", "--proof", "-", "--key", other, input=proof).exit_code == 1


def test_what_was_erased_cannot_be_disclosed(recorded: AgentLattice, al: Al) -> None:
    """The entry is still proved; what it held is gone."""
    event = document(al("audit", "list", "--action-type", "pr.open", "--json"))["events"][0]
    admin = recorded.for_operator("dpo", role="admin")
    admin.erase_sync([int(event["id"][4:16], 16)], "asked for")
    admin.close()
    assert al("audit", "prove", event["id"]).exit_code == 0
    refused = al("audit", "prove", event["id"], "--disclose")
    assert refused.exit_code == 1
    assert "has no payload to disclose, or it was erased" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["verify", "--export", "log.jsonl"],
            "is verified with a public key you trust; pass it with `--key`",
        ),
        (["verify", "--key", "k"], "`--key` goes with `--export` or `--proof`"),
        (["verify", "--proof", "p.json"], "is verified with a public key you trust; pass it with `--key`"),
        (["verify", "--proof", "p", "--key", "k", "--state"], "so it is verified alone"),
        (["prove", "evt_000000000005ffff"], "there is no event `evt_000000000005ffff`"),
        (["prove", "99999"], "there is no entry `99999`"),
        (["prove", "-1"], ""),
        (["prove", "what"], "neither the id of an event nor the index of an entry"),
        (["prove", "5", "-o", "policies.yaml"], "`policies.yaml` is there already and was left as it is"),
        (["verify", "--export", "x", "--key", "k", "--state"], "an export holds no state"),
        (
            ["verify", "--export", "x", "--key", "policies.yaml"],
            "`policies.yaml` is not what `al audit key` prints",
        ),
        (["verify", "--checkpoint", "missing.txt"], "`missing.txt`: no such file or directory"),
        (["verify", "--checkpoint", "policies.yaml"], ""),
        (["export", "policies.yaml"], "`policies.yaml` is there already and was left as it is"),
        (["export", "no/where.jsonl"], "`no/where.jsonl`: no such file or directory"),
        (["list", "--db", "missing.db"], "there is no database `missing.db`"),
    ],
)
def test_what_cannot_be_checked_is_an_error_and_not_a_verdict(
    recorded: AgentLattice, al: Al, arguments: list[str], message: str
) -> None:
    """One line says what was wrong with the question."""
    result = al("audit", *arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_copy_without_its_key_can_be_read_but_not_proved(
    recorded: AgentLattice, al: Al, project: Path
) -> None:
    """No command makes a new key for an old log."""
    recorded.close()
    for path in project.glob("governance.db.key*"):
        path.unlink()
    assert len(document(al("audit", "list", "--json"))["events"]) == 8
    for command in (["verify"], ["export", "-"], ["checkpoint"], ["key"]):
        result = al("audit", *command)
        assert result.exit_code == 1
        assert "there is no signing key `governance.db.key`" in result.stderr
    assert not list(project.glob("governance.db.key*"))


def test_the_signing_key_may_lie_elsewhere(
    al: Al, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By flag, by environment or by the project file, for those who write and those who prove."""
    key = tmp_path / "vault.key"
    assert al("execute", "pr.open", "--agent", "ci", "--signing-key", str(key)).exit_code == 1
    assert key.exists()
    assert not (project / "governance.db.key").exists()
    monkeypatch.setenv("AL_SIGNING_KEY", str(key))
    assert al("audit", "verify", "--state").exit_code == 0
