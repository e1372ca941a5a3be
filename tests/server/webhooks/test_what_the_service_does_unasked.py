"""`al serve` with webhooks and metrics: what is told leaves by itself, and who may manage and read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from service_world import ServiceWorld
from webhook_world import receiving, until

from agentlattice_server import OutwardSettings, ServiceSettings
from agentlattice_server.webhooks.addresses import Reach
from agentlattice_server.webhooks.sealing import SealingKey

TOKEN = "scraper-token"


@pytest.fixture
def outward(database: str, serve: Callable[..., ServiceWorld], tmp_path: Path) -> ServiceWorld:
    """A service that delivers, to this machine too, and lets a scraper with a token read its metrics."""
    settings = OutwardSettings(SealingKey(tmp_path / "webhook-key"), Reach.of(["loopback"]), TOKEN)
    return serve(database, ServiceSettings(0, outward=settings))


def test_what_an_agent_is_denied_reaches_a_webhook_and_is_counted(outward: ServiceWorld) -> None:
    """An operator subscribes over HTTP; the service delivers by itself and says so in its metrics."""
    key = outward.new_agent()
    with receiving() as receiver:
        made = outward.as_operator("POST", "/api/v1/webhooks", {"name": "hook", "url": receiver.url})
        assert made.status_code in (200, 201), made.text
        assert outward.hosted(key).execute_sync("secret.read").status == "denied"
        until(lambda: any(one.json["type"] == "action.denied" for one in receiver.requests), "the message")
    read = outward.call(TOKEN, "GET", "/metrics").text
    assert 'al_actions_total{outcome="denied"' in read


@pytest.mark.parametrize("path", ["/api/v1/webhooks", "/api/v1/webhooks/hook/deliveries"])
def test_only_operators_manage_webhooks(outward: ServiceWorld, path: str) -> None:
    """No key is 401; an agent's and a service's are 403."""
    assert outward.call(None, "GET", path).status_code == 401
    assert outward.call(outward.new_agent(), "GET", path).status_code == 403
    assert outward.as_service("GET", path).status_code == 403


def test_metrics_are_for_whoever_has_the_token(outward: ServiceWorld) -> None:
    """Another key, or none, reads nothing."""
    assert outward.call(None, "GET", "/metrics").status_code == 401
    assert outward.call(outward.keys.operator_key, "GET", "/metrics").status_code == 401
