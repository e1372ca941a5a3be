"""The examples against a provider: what they send to one that a key names, replayed from cassettes.

`RECORD_EXAMPLES=1 pytest tests/examples` records the cassettes anew, against a local model.
"""

from __future__ import annotations

import os
import runpy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import vcr

from agentlattice_integrations.demo.local_model import LocalModel

ROOT = Path(__file__).resolve().parents[2]
CASSETTES = Path(__file__).resolve().parent / "cassettes"
AGENTS = ["crewai_agent", "langgraph_agent", "openai_agents_agent"]
KEY = "sk-a-key-that-must-not-be-kept"
RECORD = bool(os.environ.get("RECORD_EXAMPLES"))


def _bare(request: Any) -> Any:
    """A request without what differs from machine to machine: its port and all headers but the kind of its body."""
    request.uri = "http://127.0.0.1/v1/chat/completions"
    request.headers = {"content-type": "application/json"}
    return request


def _plain(response: Any) -> Any:
    response["headers"] = {"content-type": ["application/json"]}
    return response


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An environment that names a provider by its key and address. Nobody listens there, unless it is recorded."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_MODEL", "brain")
    monkeypatch.setenv("CREWAI_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("CREWAI_TRACING_ENABLED", "false")
    monkeypatch.setenv("CREWAI_STORAGE_DIR", str(tmp_path / "crewai"))
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    if not RECORD:
        yield
        return
    with LocalModel() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        yield
        server.shutdown()


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("example", AGENTS)
def test_the_example_runs_unchanged_against_the_provider_that_a_key_names(
    example: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a key and an address in the environment the same script talks to that provider, and to nobody else."""
    recorder = vcr.VCR(
        record_mode=vcr.mode.ALL if RECORD else vcr.mode.NONE,
        match_on=("method", "host", "path"),
        before_record_request=_bare,
        before_record_response=_plain,
        decode_compressed_response=True,
    )
    if RECORD:
        (CASSETTES / f"{example}.yaml").unlink(missing_ok=True)
    with recorder.use_cassette(str(CASSETTES / f"{example}.yaml")) as cassette:
        runpy.run_path(str(ROOT / "examples" / f"{example}.py"), run_name="__main__")
    told = capsys.readouterr().out
    assert "the model saw: opened a pull request with 49 files" in told
    assert "the log verifies: True" in told
    assert len(cassette) == 5
    assert RECORD or cassette.all_played


@pytest.mark.parametrize("example", AGENTS)
def test_a_cassette_keeps_no_credential(example: str) -> None:
    """Neither the key nor any header that could carry one is in the recorded traffic."""
    kept = (CASSETTES / f"{example}.yaml").read_text().lower()
    assert "chat/completions" in kept
    assert [word for word in (KEY, "authorization", "cookie", "api-key", "bearer") if word in kept] == []
