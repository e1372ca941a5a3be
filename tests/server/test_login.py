"""Logging in: one-time links, an identity provider, sessions, and requests from other sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlparse

import httpx
import pytest
from identity_provider import CLIENT, Provider, running_provider
from joserfc.jwk import RSAKey
from service_world import ServiceWorld

from agentlattice_core import logins
from agentlattice_server import ServiceSettings
from agentlattice_server.oidc import OidcSettings

SECRET = "planted-client-secret"


@pytest.fixture
def provider() -> Iterator[Provider]:
    """A running identity provider."""
    with running_provider() as running:
        yield running


@pytest.fixture
def governed(provider: Provider, database: str, serve: Callable[..., ServiceWorld]) -> ServiceWorld:
    """A service whose people that provider vouches for."""
    settings = OidcSettings(provider.url, CLIENT, SECRET, {"dba": "member", "root": "admin"})
    return serve(database, ServiceSettings(0, provider=settings))


def browser(world: ServiceWorld) -> httpx.Client:
    return httpx.Client(base_url=world.url, follow_redirects=False, timeout=60)


def log_in(http: httpx.Client) -> httpx.Response:
    """Follow the login to its end."""
    answer = http.get("/login/oidc")
    assert answer.status_code == 303, answer.text
    assert SECRET not in answer.headers["location"]
    at_provider = httpx.get(answer.headers["location"])
    back = urlparse(at_provider.headers["location"])
    return http.get(f"{back.path}?{back.query}")


def test_a_one_time_link_logs_in_once(world: ServiceWorld) -> None:
    """It begins a session that may do what the person may, and a second use, or another text, is refused."""
    link = world.engine.run(lambda batch: logins.offer(batch, "bootstrap"))
    with browser(world) as http:
        done = http.get(f"/login/link/{link}")
        assert done.status_code == 303
        cookie = done.headers["set-cookie"].lower()
        assert {"httponly", "samesite=strict"} <= {part.strip() for part in cookie.split(";")}
        assert http.get("/api/v1/operators").json()["operators"][0]["name"] == "bootstrap"
    for text in (link, link[:-1], "", "x"):
        assert httpx.get(f"{world.url}/login/link/{text}").status_code in (401, 404)


def test_a_session_ends_when_it_is_revoked_or_logged_out(world: ServiceWorld) -> None:
    """It is listed as a key of the person, and ends as one; logging out ends it too."""
    for way in ("revoked", "logout"):
        link = world.engine.run(lambda batch: logins.offer(batch, "bootstrap"))
        with browser(world) as http:
            http.get(f"/login/link/{link}")
            if way == "revoked":
                (session,) = [
                    key
                    for key in world.as_operator("GET", "/api/v1/keys").json()["keys"]
                    if key["session"] and key["revoked_at"] is None
                ]
                assert (
                    world.as_operator("POST", f"/api/v1/keys/{session['id']}/rotate", {}).status_code == 409
                )
                assert world.as_operator("DELETE", f"/api/v1/keys/{session['id']}").status_code == 200
            else:
                kept = http.cookies["al_session"]
                assert http.post("/logout", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 204
                http.cookies.set("al_session", kept)
            assert http.get("/api/v1/operators").status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "{url}"}, 200),
        ({}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "{url}"}, 403),
    ],
    ids=str,
)
def test_what_another_site_sends_with_the_cookie_changes_nothing(
    world: ServiceWorld, headers: dict[str, str], status: int
) -> None:
    """A change by session takes a request of this very site; a key in a header takes no such thing."""
    link = world.engine.run(lambda batch: logins.offer(batch, "bootstrap"))
    with browser(world) as http:
        http.get(f"/login/link/{link}")
        shown = {name: value.format(url=world.url) for name, value in headers.items()}
        body = {"name": "ana", "role": "viewer"}
        assert http.post("/api/v1/operators", json=body, headers=shown).status_code == status
        assert http.get("/api/v1/operators", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200
    people = world.as_operator("GET", "/api/v1/operators").json()["operators"]
    assert ("ana" in [one["name"] for one in people]) is (status == 200)


def test_a_group_of_the_provider_gives_a_role(governed: ServiceWorld, provider: Provider) -> None:
    """Who logs in is registered with role and groups, which follow what the provider says at the next login."""
    with browser(governed) as http:
        assert log_in(http).status_code == 303
        people = http.get("/api/v1/operators").json()["operators"]
        assert {"name": "ana@acme.com", "role": "member", "groups": ["dba", "on-call"]} in people
    provider.person["groups"] = ["dba", "root"]
    with browser(governed) as http:
        assert log_in(http).status_code == 303
        people = http.get("/api/v1/operators").json()["operators"]
        assert {"name": "ana@acme.com", "role": "admin", "groups": ["dba", "root"]} in people


@pytest.mark.parametrize(
    "changes",
    [
        {"groups": ["nobody-knows"]},
        {"groups": []},
        {"email": None},
        {"email_verified": False},
        {"nonce": "another"},
        {"aud": "another"},
        {"iss": "http://another.example"},
        {"exp": 1},
        {"email": "bootstrap"},
    ],
    ids=str,
)
def test_what_the_provider_does_not_vouch_for_is_no_login(
    governed: ServiceWorld, provider: Provider, changes: dict[str, Any]
) -> None:
    """No group, no name, another nonce, audience, issuer or time, or a name that is somebody else's: no session."""
    provider.changes = changes
    with browser(governed) as http:
        assert log_in(http).status_code == 403
        assert http.get("/api/v1/operators").status_code == 401


def test_a_token_that_another_key_signed_is_no_login(governed: ServiceWorld, provider: Provider) -> None:
    """The signature must be by a key that the provider publishes."""
    provider.signing = RSAKey.generate_key(2048, {"kid": "k1"})
    with browser(governed) as http:
        assert log_in(http).status_code == 403


def test_a_login_ends_in_the_browser_that_began_it(governed: ServiceWorld) -> None:
    """What another browser began, and a callback that nobody began, log nobody in."""
    with browser(governed) as one, browser(governed) as other:
        away = httpx.get(one.get("/login/oidc").headers["location"]).headers["location"]
        back = urlparse(away)
        assert other.get(f"{back.path}?{back.query}").status_code == 403
        other.get("/login/oidc")
        assert other.get(f"{back.path}?{back.query}").status_code == 403
        assert one.get(f"{back.path}?{back.query}").status_code == 303
