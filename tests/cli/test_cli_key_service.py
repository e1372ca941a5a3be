"""`al` with a signing key that a key service holds: named once, and found again by the file beside the database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import POLICIES, Al, document
from transit_engine import TOKEN, TransitEngine, transit_engine

ADMIN = ("--as", "ana", "--role", "admin", "--reason", "yearly")


@pytest.fixture
def vault(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TransitEngine]:
    """A key service, its token, and a policy file."""
    (project / "policies.yaml").write_text(POLICIES)
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    with transit_engine() as engine:
        yield engine


def test_a_key_service_is_named_once(al: Al, vault: TransitEngine) -> None:
    """Everything after that goes by the file; verifying an export takes the public key and no service."""
    apply = ("policy", "apply", "policies.yaml", "--as", "ana", "--role", "admin")
    made = al(*apply, env={"AL_SIGNING_KEY": vault.address})
    assert made.exit_code == 0, made.output
    assert Path("governance.db.key").read_text().startswith(vault.address)
    for named in ({}, {"AL_SIGNING_KEY": vault.address}):
        assert al("audit", "verify", env=named).exit_code == 0
        assert document(al("audit", "checkpoint", "--json", env=named))
    key = al("audit", "key").stdout.strip()
    assert al("audit", "export", "log.jsonl").exit_code == 0
    vault.answer = lambda path: (503, {})
    assert al("audit", "verify", "--export", "log.jsonl", "--key", key).exit_code == 0
    Path("policies.yaml").write_text(f"{POLICIES}  - {{name: More, action: more.do, effect: allow}}\n")
    recorded = al(*apply)
    assert (recorded.exit_code, TOKEN in recorded.output) == (0, False), recorded.output
    away = al("audit", "checkpoint")
    assert (away.exit_code, TOKEN in away.output) == (1, False)
    assert "is sealed or not ready" in away.stderr


def test_a_log_goes_over_to_a_key_service(al: Al, vault: TransitEngine) -> None:
    """Named without rotating it is refused; `--to` lets it take over, and the first key still verifies the log."""
    assert al("policy", "apply", "policies.yaml", "--as", "ana", "--role", "admin").exit_code == 0
    first = al("audit", "key").stdout.strip()
    refused = al("audit", "checkpoint", env={"AL_SIGNING_KEY": vault.address})
    assert refused.exit_code == 1
    assert "`al audit rotate-key --to`" in refused.stderr
    assert al("audit", "rotate-key", "--to", vault.address, *ADMIN).exit_code == 0
    assert al("audit", "checkpoint", env={"AL_SIGNING_KEY": vault.address}).exit_code == 0
    assert al("audit", "export", "log.jsonl").exit_code == 0
    assert al("audit", "verify", "--export", "log.jsonl", "--key", first).exit_code == 0
    unknown = al("audit", "rotate-key", "--to", "gopher://a/b/c", *ADMIN)
    assert (unknown.exit_code, unknown.stderr.count("\n")) == (1, 1)
    assert "no key service for `gopher://`" in unknown.stderr


def test_a_further_organisation_takes_no_file_for_its_key(al: Al, vault: TransitEngine) -> None:
    """The service would look for it elsewhere; nothing is made."""
    refused = al("organisations", "add", "acme", "--signing-key", "acme.key")
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert "name a key service, or nothing" in refused.stderr
    assert not list(Path().glob("*.key*"))
