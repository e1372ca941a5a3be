"""Logging in with a browser: one-time links, an identity provider (OIDC), logging out.

- The code flow with PKCE, by Authlib: state, nonce and verifier lie in a cookie of the browser that began it, for ten
  minutes, so that any node may end what another began. The ID token's signature, issuer, audience, times and nonce are
  checked against the provider's published keys.
- A group that the provider says gives a role: the highest of those that are mapped. Who is in none may not log in.
- The session is in a cookie that scripts cannot read and that no other site can send along (`SameSite=Strict`).
- A request by cookie that changes anything must come from this site: `Sec-Fetch-Site` says so, or `Origin` does.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, get_args

import httpx
import orjson
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from agentlattice_core import keys, logins
from agentlattice_core.agents import operator_named
from agentlattice_core.batch import Batch
from agentlattice_core.engine import Engine
from agentlattice_core.errors import AgentLatticeError, ForbiddenError, InvalidRequestError
from agentlattice_core.keys import IssuedKey
from agentlattice_core.principals import Operator, Role
from agentlattice_server.oidc import OidcSettings
from agentlattice_server.problems import answer_error

__all__ = ["SESSION_COOKIE", "Login", "check_same_site"]

SESSION_COOKIE = "al_session"
_FLOW_COOKIE = "al_login"
_FLOW_SECONDS = 600
_LEEWAY = 60
_ALGORITHMS = ["RS256", "PS256", "ES256", "Ed25519"]
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


def check_same_site(request: Request) -> None:
    """Raise ForbiddenError if a request that came with a cookie, and changes something, came from another site."""
    if request.method in _SAFE_METHODS:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    own = f"{request.url.scheme}://{request.headers.get('host', '')}"
    if site == "same-origin" or (site is None and origin == own):
        return
    raise ForbiddenError("this came from another site, so the session that came with it does not count")


class Login:
    """The pages by which people log in to one organisation."""

    def __init__(self, engine: Engine, provider: OidcSettings | None = None) -> None:
        self._engine = engine
        self._provider = provider

    def routes(self) -> list[tuple[str, str, Callable[[Request], Awaitable[Response]]]]:
        """Method, path and handler of each."""
        found = [("GET", "/login/link/{link}", self._link), ("POST", "/logout", self._logout)]
        if self._provider is not None:
            found += [("GET", "/login/oidc", self._leave), ("GET", "/login/oidc/callback", self._come_back)]
        return [(method, path, _answering(handler)) for method, path, handler in found]

    async def _link(self, request: Request) -> Response:
        text = request.path_params["link"]
        issued = await self._engine.run_async(lambda batch: logins.redeem(batch, text))
        return _logged_in(request, issued)

    async def _logout(self, request: Request) -> Response:
        check_same_site(request)
        digest = keys.digest_of(request.cookies.get(SESSION_COOKIE, ""))

        def command(batch: Batch) -> None:
            key = keys.find(batch, digest, batch.at)
            keys.revoke(batch, key.id, {"operator": key.holder, "established": "key"})

        await self._engine.run_async(command)
        answer = Response(status_code=204)
        answer.delete_cookie(SESSION_COOKIE)
        return answer

    # An identity provider

    async def _leave(self, request: Request) -> Response:
        provider = self._known()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        async with self._client(request) as client:
            found = await _discovered(client, provider)
            address, _ = client.create_authorization_url(
                found["authorization_endpoint"], state=state, nonce=nonce, code_verifier=verifier
            )
        answer = RedirectResponse(address, 303)
        answer.set_cookie(
            _FLOW_COOKIE,
            f"{state}.{nonce}.{verifier}",
            max_age=_FLOW_SECONDS,
            httponly=True,
            secure=request.url.scheme == "https",
            samesite="lax",  # the provider sends the browser back from its own site
            path="/login",
        )
        return answer

    async def _come_back(self, request: Request) -> Response:
        provider = self._known()
        kept = request.cookies.get(_FLOW_COOKIE, "").split(".")
        if len(kept) != 3 or not secrets.compare_digest(kept[0], request.query_params.get("state", "")):
            raise ForbiddenError("this login was not begun by this browser, or too long ago; begin again")
        code = request.query_params.get("code")
        if code is None:
            raise ForbiddenError("the identity provider did not log this person in")
        async with self._client(request) as client:
            found = await _discovered(client, provider)
            try:
                token = await client.fetch_token(found["token_endpoint"], code=code, code_verifier=kept[2])
                published = await client.request("GET", found["jwks_uri"], withhold_token=True)
                keyring = KeySet.import_key_set(orjson.loads(published.content))
                claims = jwt.decode(token["id_token"], keyring, algorithms=_ALGORITHMS).claims
                jwt.JWTClaimsRegistry(
                    leeway=_LEEWAY,
                    iss={"essential": True, "value": provider.issuer},
                    aud={"essential": True, "value": provider.client_id},
                    exp={"essential": True},
                    nonce={"essential": True, "value": kept[1]},
                    sub={"essential": True},
                ).validate(claims)
            except (JoseError, OAuthError, httpx.HTTPError, LookupError, ValueError, TypeError) as error:
                raise ForbiddenError(
                    f"what the identity provider says cannot be trusted ({type(error).__name__})"
                ) from None
        person, subject = _person(provider, claims), str(claims["sub"])
        issued = await self._engine.run_async(
            lambda batch: logins.begin(batch, person, provider.issuer, subject)
        )
        answer = _logged_in(request, issued)
        answer.delete_cookie(_FLOW_COOKIE, path="/login")
        return answer

    def _known(self) -> OidcSettings:
        if self._provider is None:
            raise InvalidRequestError("no identity provider is configured")
        return self._provider

    def _client(self, request: Request) -> Any:
        provider = self._known()
        return AsyncOAuth2Client(
            provider.client_id,
            provider.client_secret,
            scope="openid email profile groups",
            redirect_uri=str(request.url.replace(path="/login/oidc/callback", query="")),
            code_challenge_method="S256",
            timeout=30,
        )


async def _discovered(client: Any, provider: OidcSettings) -> dict[str, Any]:
    """The provider's own description. Raises ForbiddenError if it is not that provider's."""
    address = f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration"
    try:
        found: dict[str, Any] = orjson.loads(
            (await client.request("GET", address, withhold_token=True)).content
        )
        if found["issuer"] != provider.issuer:
            raise ValueError
    except (httpx.HTTPError, ValueError, LookupError, TypeError):
        raise ForbiddenError("the identity provider cannot be reached, or is another one") from None
    return found


def _person(provider: OidcSettings, claims: Mapping[str, Any]) -> Operator:
    name, groups = claims.get(provider.name_claim), claims.get(provider.groups_claim) or []
    if provider.name_claim == "email" and claims.get("email_verified") is False:
        raise ForbiddenError("the identity provider has not verified this person's address")
    if not isinstance(name, str) or not isinstance(groups, list):
        raise ForbiddenError(
            f"the identity provider does not say `{provider.name_claim}` and `{provider.groups_claim}`"
        )
    known = [str(group) for group in groups]
    roles = [provider.roles[group] for group in known if group in provider.roles]
    if not roles:
        raise ForbiddenError(f"`{name:.80}` is in no group that may do anything here")
    ranks = get_args(Role)
    return operator_named(name, max(roles, key=ranks.index), known)


def _logged_in(request: Request, issued: IssuedKey) -> Response:
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        SESSION_COOKIE,
        issued.text,
        max_age=int(logins.SESSION_LIFE.total_seconds()),
        httponly=True,
        secure=request.url.scheme == "https",
        samesite="strict",
        path="/",
    )
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer


def _answering(
    handler: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except AgentLatticeError as error:
            return answer_error(error, wire=False)

    return answer
