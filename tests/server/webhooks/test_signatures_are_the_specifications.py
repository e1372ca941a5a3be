"""Receivers verify with any Standard Webhooks library."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError
from webhook_world import World, receiving, until

from agentlattice_core.errors import InvalidRequestError
from agentlattice_server.webhooks.signing import checked_secret, new_secret, signed_headers

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_specifications_vector() -> None:
    """The specification's own example gives the specification's own signature."""
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        datetime.fromtimestamp(1614265330, UTC),
        b'{"test": 2432232314}',
        [SECRET],
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_what_arrives_verifies_and_what_was_changed_does_not(world: World) -> None:
    """Signed with the secret that was shown when it was made."""
    with receiving() as receiver, world.deliverer():
        _, secret = world.desk.add("hook", receiver.url)
        assert secret is not None
        world.act(1)
        until(lambda: world.told(), "the message")
        (request,) = receiver.requests
        assert Verifier(secret).verify(request.body, request.headers)["type"] == "action.executed"
        with pytest.raises(WebhookVerificationError):
            Verifier(secret).verify(request.body + b" ", request.headers)
        with pytest.raises(WebhookVerificationError):
            Verifier(new_secret()).verify(request.body, request.headers)


def test_while_a_secret_rotates_both_verify(world: World) -> None:
    """A receiver may change over any time in between; afterwards only the new one does."""
    with receiving() as receiver, world.deliverer():
        _, old = world.desk.add("hook", receiver.url)
        _, new = world.desk.rotate("hook")
        assert old is not None
        world.act(1)
        until(lambda: world.told(), "the message")
        request = receiver.requests[-1]
        for secret in (old, new):
            Verifier(secret).verify(request.body, request.headers)
        _, newest = world.desk.rotate("hook", overlap=timedelta(0))
        world.act(1)
        until(lambda: world.told() and len(receiver.requests) == 2, "the second message")
        request = receiver.requests[-1]
        Verifier(newest).verify(request.body, request.headers)
        for secret in (old, new):
            with pytest.raises(WebhookVerificationError):
                Verifier(secret).verify(request.body, request.headers)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_!!!"]
)
def test_a_secret_that_is_none_is_refused_and_not_repeated(secret: str) -> None:
    """Too short, of another form, or not base64."""
    with pytest.raises(InvalidRequestError) as caught:
        checked_secret(secret)
    assert not secret or secret not in str(caught.value) or secret == "whsec_"
    assert checked_secret(SECRET) == SECRET
