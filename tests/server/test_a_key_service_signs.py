"""`al serve` with its signing key in a key service, which signs for every organisation and may stay away."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from receivers import until
from service_world import PROGRAM, al_serve
from transit_engine import TOKEN, TransitEngine, transit_engine

from agentlattice_core.audit.note import VerifierKey, open_checkpoint


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[TransitEngine]:
    """A key service, and its token in the environment."""
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    with transit_engine() as engine:
        yield engine


def test_a_service_signs_each_log_by_its_key_service(
    vault: TransitEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two organisations have one key and a name each; while nobody signs both record, and a metric says so."""
    monkeypatch.setenv("AL_SIGNING_KEY", vault.address)
    with al_serve(tmp_path, "--bootstrap", "first.json", AL_METRICS_TOKEN="scraper") as (_, _):
        first = json.loads((tmp_path / "first.json").read_text())
        subprocess.run(
            [sys.executable, "-c", PROGRAM, "organisations", "add", "second", "--bootstrap", "second.json"],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )
        second = json.loads((tmp_path / "second.json").read_text())
        with httpx.Client(base_url=first["url"], timeout=60) as http:

            def call(keys: dict[str, Any], method: str, path: str, body: Any = None) -> httpx.Response:
                headers = {"Authorization": f"Bearer {keys['operator_key']}"}
                return http.request(method, path, json=body, headers=headers)

            def unsigned() -> str:
                text = http.get("/metrics", headers={"Authorization": "Bearer scraper"}).text
                (line,) = (line for line in text.splitlines() if line.startswith("al_logs_unsigned "))
                return line.split(" ")[1]

            names = set()
            for keys in (first, second):
                key = VerifierKey.parse(call(keys, "GET", "/api/v1/audit/key").json()["verifier_key"])
                assert key.public == vault.keys[0].public_key().public_bytes_raw()
                signed = call(keys, "POST", "/api/v1/audit/checkpoint", {}).json()["checkpoint"]
                names.add(open_checkpoint(signed, key).origin)
            assert len(names) == 2
            assert unsigned() == "0.0"

            vault.answer = lambda path: (503, {"errors": ["Vault is sealed"]})
            for keys in (first, second):
                made = call(keys, "POST", "/api/v1/operators", {"name": "mia"})
                assert made.status_code == 200, made.text
                refused = call(keys, "POST", "/api/v1/audit/checkpoint", {})
                assert (refused.status_code, refused.json()["error"]) == (503, "STORE_ERROR")
            until(lambda: unsigned() == "2.0", "both wait to be signed")
            assert http.get("/readyz").status_code == 200
            vault.answer = lambda path: None
            until(lambda: unsigned() == "0.0", "both are signed")
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes(), file
