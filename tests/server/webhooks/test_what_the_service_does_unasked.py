"""What the service does unasked: what is told leaves by itself, and is measured."""

from __future__ import annotations

from service_world import METRICS_TOKEN, ServiceWorld
from webhook_world import receiving, until


def test_what_an_agent_is_denied_reaches_a_webhook_and_is_counted(outward: ServiceWorld) -> None:
    """An operator subscribes over HTTP; the service delivers by itself and says so in its metrics."""
    key = outward.new_agent()
    with receiving() as receiver:
        made = outward.as_operator("POST", "/api/v1/webhooks", {"name": "hook", "url": receiver.url})
        assert made.status_code == 201, made.text
        assert outward.hosted(key).execute_sync("secret.read").status == "denied"
        until(lambda: any(one.json["type"] == "action.denied" for one in receiver.requests), "the message")
    read = outward.call(METRICS_TOKEN, "GET", "/metrics").text
    assert 'al_actions_total{outcome="denied"' in read
