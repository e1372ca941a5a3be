"""What the service does unasked: it delivers webhooks, and measures what it does.

- Each organisation's log has a deliverer of its own, from when it is opened until the service stops. Which node serves
  a subscription is settled in the log.
- Deliverers stop before the engines are closed, so that what is being sent is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from agentlattice_core.client import AgentLattice
from agentlattice_core.engine import Engine
from agentlattice_core.errors import NotFoundError
from agentlattice_core.principals import Operator
from agentlattice_server.metrics import Metrics, MetricsApp
from agentlattice_server.organisations import Organisations
from agentlattice_server.webhooks.addresses import Reach
from agentlattice_server.webhooks.deliverer import Deliverer
from agentlattice_server.webhooks.sealing import SealingKey
from agentlattice_server.webhooks.slack_actions import Deciding
from agentlattice_server.webhooks.slack_route import SLACK_ACTIONS, slack_route
from agentlattice_server.webhooks.subscribing import Subscriptions

__all__ = ["Outward", "OutwardSettings"]

_SLACK = Operator("slack", "viewer")
"""Who reads the subscriptions that a press in Slack may belong to. Who decides is the person who pressed."""


@dataclass(frozen=True, slots=True)
class OutwardSettings:
    """`webhook_key` seals the secrets of webhooks, `reach` says where they may go beside public addresses, and
    `metrics_token` is what a scraper shows; without one, whoever reaches the service may read its metrics.
    """

    webhook_key: SealingKey
    reach: Reach = field(default_factory=Reach)
    metrics_token: str | None = None


class Outward:
    """The deliverers and the metrics of one service."""

    def __init__(self, organisations: Organisations, settings: OutwardSettings) -> None:
        self._organisations = organisations
        self._settings = settings
        self._deliverers: dict[str, Deliverer] = {}
        self._metrics = Metrics(organisations.engines)

    def start(self) -> None:
        """Open every organisation, and serve each, and those that are opened later."""
        self._organisations.follow(self._serve)

    def stop(self) -> None:
        """Finish what is being sent, and leave the rest to other nodes."""
        while self._deliverers:
            self._deliverers.popitem()[1].stop()

    def _serve(self, engine: Engine) -> None:
        engine.measure(self._metrics)
        deliverer = Deliverer(
            engine, self._settings.webhook_key, self._settings.reach, observe=self._metrics.attempted
        )
        self._deliverers[engine.store.log_id] = deliverer
        deliverer.start()

    def attach(self, app: Starlette) -> None:
        """Add to `app` what takes no key: Slack signs what it sends, and a scraper has a token."""
        settings, organisations = self._settings, self._organisations

        def workspace(request: Request) -> tuple[Subscriptions, Deciding]:
            named: Mapping[str, str] = request.query_params
            engine = organisations.engine(named.get("org") or organisations.first.store.log_id)
            if engine is None:
                raise NotFoundError("there is no such organisation")

            def deciding(name: str) -> AgentLattice:
                return AgentLattice.over(engine, Operator(name, "viewer", frozenset(), "registered"))

            return Subscriptions(engine, settings.webhook_key, _SLACK, settings.reach), deciding

        app.router.routes.append(Route(SLACK_ACTIONS, slack_route(workspace), methods=["POST"]))
        app.router.routes.append(Route("/metrics", MetricsApp(self._metrics, settings.metrics_token)))
