"""What people do with subscriptions: the same for the command line, the service and the console.

- A secret is shown once, by whatever made it.
- A test message goes to the receiver at once, and is an entry.
- Everything takes an operator; changing anything takes an administrator.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from agentlattice_core import operators, webhooks
from agentlattice_core.clock import format_time
from agentlattice_core.engine import Engine
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.principals import Operator
from agentlattice_core.results import GovernanceEvent
from agentlattice_core.webhooks import ROTATION_OVERLAP, Attempt, Reseal, Webhook
from agentlattice_server.webhooks import mail
from agentlattice_server.webhooks.addresses import Reach, origin
from agentlattice_server.webhooks.attempting import Message, attempt
from agentlattice_server.webhooks.composing import News, Receiver
from agentlattice_server.webhooks.sealing import SealingKey
from agentlattice_server.webhooks.signing import checked_secret, new_secret

__all__ = ["PAGERDUTY", "Subscriptions"]

PAGERDUTY = "https://events.pagerduty.com/v2/enqueue"
_LONGEST_SECRET = 500


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """The subscriptions of one open log, as `operator` may see and change them."""

    engine: Engine
    key: SealingKey
    operator: Operator
    reach: Reach = field(default_factory=Reach)
    trust: ssl.SSLContext | None = None

    def all(self) -> list[Webhook]:
        """Every subscription. Raises ForbiddenError for who may see nothing."""
        with self.engine.read() as reader:
            operators.standing(reader, self.operator)
            return webhooks.webhooks(reader)

    def size(self) -> int:
        """How many entries there are to be told of."""
        with self.engine.read() as reader:
            size: int = reader.head.size
            return size

    def get(self, name: str) -> Webhook:
        """One, by id or name. Raises ForbiddenError, NotFoundError."""
        with self.engine.read() as reader:
            operators.standing(reader, self.operator)
            return webhooks.find(reader, name)

    def dead_letters(
        self, name: str, *, after: int = -1, limit: int = 100
    ) -> list[tuple[int, Mapping[str, Any]]]:
        """What could not be delivered, of entries after `after`: index and last attempt. Raises as `get`."""
        with self.engine.read() as reader:
            operators.standing(reader, self.operator)
            return webhooks.dead_letters(reader, webhooks.find(reader, name).id, after=after, limit=limit)

    def add(
        self,
        name: str,
        url: str | None = None,
        *,
        template: str = "generic",
        events: Iterable[str] | None = None,
        agent: str | None = None,
        people: Mapping[str, str] | None = None,
        secret: str | None = None,
        signing_secret: str | None = None,
        routing_key: str | None = None,
    ) -> tuple[Webhook, str | None]:
        """Subscribe; the subscription, and the secret it signs with where it does.

        `secret` is one that the receiver has already; `signing_secret` is Slack's, which makes its messages have
        buttons; `routing_key` is PagerDuty's. Raises InvalidRequestError, ForbiddenError, IllegalTransitionError.
        """
        if template == "pagerduty" and url is None:
            url = PAGERDUTY
        secrets = self._secrets(template, url, secret, signing_secret, routing_key)

        def command(batch: Any) -> Webhook:
            return webhooks.add(
                batch,
                self.operator,
                name,
                origin(secrets["url"]),
                self._sealing(secrets),
                template=template,
                events=events,
                agent=agent,
                people=people,
            )

        made = self.engine.run(command)
        signs: list[str] = secrets.get("secrets", [])
        return made, (signs[0] if signs else None)

    def change(self, name: str, /, **changes: Any) -> Webhook:
        """Change `url`, `name`, `events`, `agent`, `people` or `active`. Raises as `add`, and NotFoundError."""
        hook = self.get(name)
        target: tuple[str, Reseal] | None = None
        if "url" in changes:
            url = changes.pop("url")
            self._check_url(hook.template, url)
            target = (origin(url), self._resealing(lambda secrets: {**secrets, "url": url}))
        return self.engine.run(
            lambda batch: webhooks.change(batch, self.operator, hook.id, target=target, **changes)
        )

    def rotate(
        self, name: str, secret: str | None = None, overlap: timedelta = ROTATION_OVERLAP
    ) -> tuple[Webhook, str]:
        """Give it a new secret, which is returned; the one before signs beside it until `overlap` is over."""
        hook = self.get(name)
        new = checked_secret(secret) if secret is not None else new_secret()

        def rotated(secrets: dict[str, Any]) -> dict[str, Any]:
            if "secrets" not in secrets:
                raise InvalidRequestError(
                    f"webhook `{hook.name}` signs nothing, so there is no secret to rotate"
                )
            return {**secrets, "secrets": [new, secrets["secrets"][0]]}

        resealing = self._resealing(rotated)
        done = self.engine.run(
            lambda batch: webhooks.rotate(batch, self.operator, hook.id, resealing, overlap)
        )
        return done, new

    def remove(self, name: str) -> None:
        """End it. Raises ForbiddenError, NotFoundError."""
        hook = self.get(name)
        self.engine.run(lambda batch: webhooks.remove(batch, self.operator, hook.id))

    def replay(self, name: str, entries: Iterable[int] | None = None) -> int:
        """Have entries told again, or every dead letter; how many. Raises ForbiddenError, NotFoundError."""
        hook = self.get(name)
        chosen = list(entries) if entries is not None else None

        def command(batch: Any) -> int:
            dead = [index for index, _ in webhooks.dead_letters(batch, hook.id)]
            return webhooks.replay(batch, self.operator, hook.id, dead if chosen is None else chosen)

        return self.engine.run(command)

    def test(self, name: str) -> Attempt:
        """Send a test message now; how it went. Raises ForbiddenError, NotFoundError."""
        hook = self.get(name)
        with self.engine.read() as reader:
            operators.require_admin(reader, self.operator, "managing webhooks")
        now = self.engine.clock.now()
        event = GovernanceEvent(
            "webhook.test",
            format_time(now),
            self.engine.store.log_id,
            {"webhook_id": hook.id, "name": hook.name},
        )
        receiver = Receiver(hook, self._opened(hook), self.reach, self.trust)
        send = receiver.sending(News(event, None, True, ()), f"msg_test{os.urandom(14).hex()}")
        if send is None:
            raise InvalidRequestError(f"webhook `{hook.name}` names nobody to send to; give its URL a `to=`")
        made, _ = attempt(Message(hook.next, 1, send), self.engine.clock.now, lambda wait: wait)
        if made.outcome != "delivered":
            made = replace(made, outcome="failed", due=None)
        self.engine.run(lambda batch: webhooks.tried(batch, self.operator, hook.id, made.status))
        return made

    def opened(self, hook: Webhook) -> dict[str, Any]:
        """Its address and secrets, for what verifies what a receiver sends back. Raises SealingError."""
        return self._opened(hook)

    def _opened(self, hook: Webhook) -> dict[str, Any]:
        with self.engine.read() as reader:
            sealed = webhooks.sealed_target(reader, hook.id)
        return self.key.open(hook.id, sealed)

    def _sealing(self, secrets: dict[str, Any]) -> Callable[[str], str]:
        return lambda webhook_id: self.key.seal(webhook_id, secrets)

    def _resealing(self, changed: Callable[[dict[str, Any]], dict[str, Any]]) -> Reseal:
        """Opens what is sealed at that moment, in the transaction: two administrators undo nothing of each other."""
        return lambda webhook_id, sealed: self.key.seal(
            webhook_id, changed(self.key.open(webhook_id, sealed))
        )

    def _check_url(self, template: str, url: str) -> None:
        if template == "email":
            mail.relay_of(url, self.reach)
        else:
            self.reach.checked_url(url)

    def _secrets(
        self,
        template: str,
        url: str | None,
        secret: str | None,
        signing_secret: str | None,
        routing_key: str | None,
    ) -> dict[str, Any]:
        """What is sealed of a new subscription."""
        if url is None:
            raise InvalidRequestError("a webhook needs the URL that it delivers to")
        self._check_url(template, url)
        for what, given, form in (
            ("secret", secret, "generic"),
            ("signing secret", signing_secret, "slack"),
            ("routing key", routing_key, "pagerduty"),
        ):
            if given is None:
                continue
            if template != form:
                raise InvalidRequestError(
                    f"a {what} is for template `{form}`, and this one is `{template:.80}`"
                )
            if not given or len(given) > _LONGEST_SECRET or not (given.isascii() and given.isprintable()):
                raise InvalidRequestError(
                    f"the {what} must be printable text of 1 to {_LONGEST_SECRET} characters"
                )
        secrets: dict[str, Any] = {"url": url}
        if template == "generic":
            secrets["secrets"] = [checked_secret(secret) if secret is not None else new_secret()]
        elif template == "slack" and signing_secret is not None:
            secrets["signing_secret"] = signing_secret
        elif template == "pagerduty":
            if routing_key is None:
                raise InvalidRequestError("a PagerDuty webhook needs the routing key of its integration")
            secrets["routing_key"] = routing_key
        return secrets
