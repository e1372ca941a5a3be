"""`al` against a service: registering, exporting and importing, keys, members, and all that it does with a database."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from receivers import PATIENCE, receiving
from service_world import POLICIES, PROGRAM, Al, ServiceWorld, said
from standardwebhooks import Webhook as Verifier

from agentlattice_core.client import AgentLattice


def test_register_prints_the_key_and_nothing_else(al: Al, world: ServiceWorld) -> None:
    """In a pipe the key is all of standard output, and it works; a second time the name is taken."""
    done = al("register", "bot", "--owner", "alice", "--tag", "ci")
    assert done.exit_code == 0, done.output
    key = done.stdout.strip()
    assert world.call(key, "GET", "/api/v1/whoami").json()["name"] == "bot"
    (agent,) = world.as_operator("GET", "/api/v1/agents").json()["agents"]
    assert (agent["owner"], agent["tags"]) == ("alice", ["ci"])
    again = al("register", "bot")
    assert again.exit_code == 1
    assert again.stderr.startswith("error: agent `bot` is registered already")


def test_what_is_exported_is_imported_and_said_part_by_part(al: Al) -> None:
    """Unchanged, then modified in a dry run that changes nothing, then modified, then unchanged."""
    assert al("register", "bot").exit_code == 0
    assert al("export", "--file", "all.json").exit_code == 0
    file = Path("all.json")
    kept = file.read_bytes()
    refused = al("export", "--file", "all.json")
    assert (refused.exit_code, file.read_bytes()) == (1, kept)
    assert said(al("import", "--file", "all.json", "--json"))["modified"] == []
    document = orjson.loads(kept)
    document["agents"]["bot"]["tags"] = ["cd"]
    document["agents"]["new"] = {"tags": []}
    file.write_bytes(orjson.dumps(document))
    for dry in (["--dry-run"], []):
        done = al("import", "--file", "all.json", *dry)
        assert "added\tagent/new" in done.stdout
        assert "modified\tagent/bot" in done.stdout
        assert "unchanged\tpolicy/reading" in done.stdout
    again = said(al("import", "--file", "all.json", "--json"))
    assert (again["added"], again["modified"]) == ([], [])
    file.write_text("version: 1")
    assert al("import", "--file", "all.json").exit_code == 1


def test_keys_are_made_listed_rotated_and_revoked(al: Al, world: ServiceWorld) -> None:
    """A key's text is printed where it is made and nowhere else."""
    al("register", "bot")
    made = said(al("keys", "create", "agent", "bot", "--json"))
    first = made["text"]
    assert world.call(first, "GET", "/api/v1/whoami").status_code == 200
    rotated = al("keys", "rotate", made["key"]["id"])
    second = rotated.stdout.strip()
    assert world.call(first, "GET", "/api/v1/whoami").status_code == 401
    assert world.call(second, "GET", "/api/v1/whoami").status_code == 200
    listed = al("keys", "list", "--json")
    assert first not in listed.stdout
    assert second not in listed.stdout
    newest = said(listed)["keys"][-1]
    assert al("keys", "revoke", newest["id"]).stdout == f"revoked {newest['id']}\n"
    assert world.call(second, "GET", "/api/v1/whoami").status_code == 401
    assert al("keys", "revoke", newest["id"]).exit_code == 1


def test_members_are_added_listed_and_removed(al: Al) -> None:
    """By an administrator's key; the last administrator stays."""
    assert al("members", "add", "ana", "--role", "admin", "--group", "dba").stdout == "ana is admin\n"
    people = said(al("members", "list", "--json"))["members"]
    assert {"name": "ana", "role": "admin", "groups": ["dba"]} in people
    assert al("members", "remove", "bootstrap").exit_code == 0
    refused = al("members", "list")
    assert refused.stderr.startswith("error: this key is not known")


def test_what_is_missing_or_wrong_is_said_in_one_line(al: Al) -> None:
    """No address, no key, nobody there, and another server each name what to do."""
    for changes, begins in (
        ({"AL_BASE_URL": ""}, "error: no base_url is named"),
        ({"AL_SERVICE_KEY": "", "AL_API_KEY": ""}, "error: no key is set"),
        ({"AL_BASE_URL": "http://127.0.0.1:1"}, "error: cannot reach `http://127.0.0.1:1`"),
        ({"AL_SERVICE_KEY": "al_svc_x"}, "error: this key is not known"),
    ):
        done = al("register", "bot", **changes)
        assert done.exit_code == 1
        assert done.stderr.startswith(begins)
        assert done.stderr.count("\n") == 1


def test_webhooks_listen_forwards_what_a_service_tells(world: ServiceWorld, tmp_path: Path) -> None:
    """With an operator's key each notification is sent on, signed with the secret that was printed."""
    agent, environment = (
        world.new_agent(),
        os.environ
        | {
            "AL_BASE_URL": world.url,
            "AL_API_KEY": world.keys.operator_key,
        },
    )
    arguments = ("webhooks", "listen", "--event", "action.denied", "--limit", "2", "--json")
    with receiving() as receiver:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments, "--forward-to", receiver.url],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            secret = process.stderr.readline().rsplit(" ", 1)[1].strip()
            assert process.stderr.readline().startswith("listening")
            denied = []
            for action in ("read_data", "secret.read", "secret.read"):
                answer = world.call(agent, "POST", "/api/v1/actions", {"action_type": action}).json()
                denied += [answer["audit_event_id"]] if answer["status"] == "denied" else []
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 0, err
        told = [orjson.loads(line) for line in out.splitlines()]
        assert [one["event"]["data"]["audit_event_id"] for one in told] == denied
        assert [one["answer"] for one in told] == ["200", "200"]
        assert receiver.ids == [one["id"] for one in told]
        assert len(set(receiver.ids)) == 2
        for one in receiver.requests:
            assert Verifier(secret).verify(one.body, one.headers)["type"] == "action.denied"


LOOKS = (
    ("policy", "list"),
    ("policy", "list", "--agent", "bot"),
    ("policy", "diff", "draft.yaml"),
    ("policy", "explain", "pr.open"),
    ("policy", "explain", "pr.open", "--agent", "bot"),
    ("policy", "simulate", "draft.yaml", "--since", "2026-01-01"),
    ("delegations", "list"),
    ("delegations", "list", "--all", "--agent", "bot", "--role", "parent"),
    ("registry", "list", "wallets"),
    ("audit", "list"),
    ("audit", "list", "--agent", "bot"),
    ("audit", "key"),
    ("audit", "verify"),
    ("approvals", "list"),
    ("posture",),
)
"""What only looks, and so must say the same of a service and of its database."""

DRAFT = """
version: 1
policies:
  - {name: PR Size, action: pr.open, effect: deny}
  - {name: Registries, action: agentlattice.registry.*, effect: allow}
"""


@pytest.fixture
def busy(al: Al, world: ServiceWorld) -> ServiceWorld:
    """A service with a little of everything, and a draft in the working directory."""
    Path("policies.yaml").write_text(
        POLICIES + "  - {name: Wallets, action: agentlattice.registry.*, effect: allow}"
    )
    Path("draft.yaml").write_text(DRAFT)
    assert al("policy", "apply", "policies.yaml").exit_code == 0
    key = world.new_agent("bot", tags=["ci"])
    with AgentLattice(key, base_url=world.url) as bot:
        bot.execute_sync("pr.open", metadata={"pr_size": 10})
        bot.execute_sync("pr.open", metadata={"pr_size": 90})
        bot.execute_sync("pr.merge")
        bot.execute_sync("agentlattice.registry.wallets.put", metadata={"value": "0xA1"})
    child = {"name": "kid", "capabilities": ["read_data"], "ttl_seconds": 3600}
    assert world.call(key, "POST", "/api/v1/delegate", child).status_code == 201
    return world


def test_what_looks_says_the_same_of_a_service_and_of_its_database(
    al: Al, busy: ServiceWorld, database: str, tmp_path: Path
) -> None:
    """Every command that looks, as one JSON document and as lines for a pipe, by the service and by `--db`."""
    busy.engine.flush()
    said(al("audit", "checkpoint", "--json"))
    keys = {} if database.startswith("sqlite") else {"AL_SIGNING_KEY": str(next(tmp_path.glob("org_*.key")))}
    for command in LOOKS:
        for form in ((), ("--json",)):
            by_service, by_database = al(*command, *form), al(*command, *form, "--db", database, **keys)
            assert by_service.exit_code == by_database.exit_code == 0, (command, by_service.output)
            assert _timeless(by_service.stdout) == _timeless(by_database.stdout), command
            assert by_service.stdout.strip(), command


def _timeless(text: str) -> str:
    """Without the time at which it was asked."""
    return re.sub(r'"timestamp":\s*"[^"]*",?', "", text) if '"chain_hash"' in text else text


def test_a_draft_from_a_service_is_the_one_from_its_database(
    al: Al, busy: ServiceWorld, database: str
) -> None:
    """What a service suggests allows what was recorded, and simulating it there flips nothing but what was denied."""
    drafted = al("policy", "suggest", "--since", "1d", "-o", "suggested.yaml")
    assert drafted.exit_code == 0, drafted.output
    assert Path("suggested.yaml").read_text() == al("policy", "suggest", "--db", database).stdout
    replayed = said(al("policy", "simulate", "suggested.yaml", "--json"))
    assert (replayed["actions"], replayed["new_denials"]) == (4, 0)
    strict = al("policy", "simulate", "draft.yaml", "--fail-on-new-denials")
    assert (strict.exit_code, "1 newly denied" not in strict.stderr) == (1, True)


def test_a_delegation_is_revoked_at_a_service(al: Al, busy: ServiceWorld) -> None:
    """By its id, once; then nothing is in force."""
    (one,) = said(al("delegations", "list", "--json"))["delegations"]
    assert (one["parent"], one["name"]) == ("bot", "kid")
    done = al("delegations", "revoke", one["id"])
    assert done.stdout == f"{one['id']} revoked\n", done.output
    assert said(al("delegations", "list", "--json"))["delegations"] == []
    assert al("delegations", "revoke", one["id"]).exit_code == 1


def test_what_proves_a_service_s_log_is_verified_anywhere(al: Al, busy: ServiceWorld) -> None:
    """An export and a proof that the service wrote are verified with the key that it named, without it."""
    public = al("audit", "key").stdout.strip()
    assert al("audit", "export", "log.jsonl").exit_code == 0
    assert al("audit", "prove", "2", "-o", "proof.json").exit_code == 0
    alone = {"AL_BASE_URL": "", "AL_API_KEY": ""}
    for kind, file in (("--export", "log.jsonl"), ("--proof", "proof.json")):
        checked = al("audit", "verify", kind, file, "--key", public, **alone)
        assert (checked.exit_code, checked.stdout.startswith("sound: ")) == (0, True), checked.output


def test_what_is_not_there_is_said_by_its_name(al: Al, busy: ServiceWorld) -> None:
    """An agent, a registry and a delegation that a service does not know are errors of one line."""
    for command, names in (
        (("policy", "list", "--agent", "botty"), "`botty`"),
        (("delegations", "list", "--agent", "botty"), "`botty`"),
        (("registry", "list", "walletz"), "`walletz`"),
        (("delegations", "revoke", "del_x"), "`del_x`"),
    ):
        done = al(*command)
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
        assert names in done.stderr
    said_so = al("policy", "explain", "pr.open", "--agent", "botty")
    assert "agent `botty` has never acted here" in said_so.stderr


def test_what_needs_the_database_itself_says_where_to_run_it(al: Al) -> None:
    """With a service named, no other database is looked at in its place."""
    for command in (
        ("audit", "verify", "--state"),
        ("audit", "rebuild-state", "--reason", "x"),
        ("audit", "rotate-key", "--reason", "x"),
        ("audit", "accept-restore", "--reason", "x"),
    ):
        done = al(*command)
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
        assert done.stderr.startswith("error: this works on the database itself and not through a service")
        assert "`--db`" in done.stderr


def test_watching_a_service_tells_everything_once_in_order(
    al: Al, busy: ServiceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits, what is asked for, and what becomes of it; what was told is not told again."""
    monkeypatch.setenv("AL_BASE_URL", busy.url)
    monkeypatch.setenv("AL_API_KEY", busy.keys.operator_key)
    command = [sys.executable, "-c", "from agentlattice_cli.main import main; main()"]
    with subprocess.Popen(
        [*command, "approvals", "watch", "--json"], stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None

        def told() -> tuple[str, str]:
            assert watching.stdout is not None
            event = orjson.loads(watching.stdout.readline())
            return event["event"], event["approval"]["id"]

        try:
            (first,) = busy.as_operator("GET", "/api/v1/approvals").json()["approvals"]
            assert told() == ("pending", first["id"])
            busy.decide(first["id"], "approve")
            assert told() == ("approved", first["id"])
            key = busy.new_agent("another")
            asked = busy.call(key, "POST", "/api/v1/actions", {"action_type": "pr.merge"}).json()
            assert told() == ("requested", asked["approval_id"])
            busy.decide(asked["approval_id"], "deny", reason="no")
            assert told() == ("denied", asked["approval_id"])
        finally:
            watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 130
