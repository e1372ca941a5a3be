"""The local model that stands in for a provider answers what it understands, and nothing else."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from agentlattice_integrations.demo.local_model import LocalModel, Provider, provider

CHAT = "/chat/completions"
ASKED = {"model": "brain", "messages": [{"role": "user", "content": "Deploy `payment-api` to `production`."}]}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with LocalModel() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.base_url
        server.shutdown()


def _post(address: str, body: bytes) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, method="POST")) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_same_request_gets_the_same_call(address: str) -> None:
    """It remembers nothing between requests: only the ids of two answers differ."""
    answers = [_post(address + CHAT, json.dumps(ASKED).encode()) for _ in range(2)]
    assert [status for status, _ in answers] == [200, 200]
    calls = [answer["choices"][0]["message"]["tool_calls"][0] for _, answer in answers]
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [
        {"service": "payment-api", "environment": "production"}
    ] * 2
    assert calls[0]["id"] != calls[1]["id"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        b'{"messages": []}',
        b'{"messages": [{"role": "system", "content": "x"}]}',
        b'{"messages": [{"role": "user", "content": null}]}',
        json.dumps({**ASKED, "stream": True}).encode(),
    ],
)
def test_a_request_it_cannot_answer_is_refused(address: str, body: bytes) -> None:
    """A request that it cannot read, or one for a stream, is an error that clients understand, and never an answer."""
    status, answer = _post(address + CHAT, body)
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"


def test_it_has_one_address(address: str) -> None:
    """Other interfaces of a provider are not there, and say so."""
    assert _post(address + "/responses", json.dumps(ASKED).encode())[0] == 404


def test_a_key_in_the_environment_names_the_real_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a key nothing local is started; address and model are the user's, or the provider's own."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_MODEL", "large")
    before = threading.active_count()
    assert provider() == Provider("https://api.openai.com/v1", "sk-mine", "large")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://models.internal/v1")
    assert provider() == Provider("http://models.internal/v1", "sk-mine", "large")
    assert threading.active_count() == before
