"""A small identity provider on a real socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from agentlattice_server import listen

__all__ = ["CLIENT", "Provider", "running_provider"]

CLIENT = "agentlattice"


class Provider:
    """A small identity provider that logs in whoever it was told, and checks PKCE as a real one does."""

    def __init__(self) -> None:
        self.person: dict[str, Any] = {"sub": "u1", "email": "ana@acme.com", "groups": ["dba", "on-call"]}
        self.changes: dict[str, Any] = {}
        self.key = RSAKey.generate_key(2048, {"kid": "k1"})
        self.signing = self.key
        self._codes: dict[str, dict[str, str]] = {}
        self.url = ""

    def app(self) -> Starlette:
        async def configuration(_: Request) -> Response:
            endpoints = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "jwks"}
            return JSONResponse(
                {"issuer": self.url, **{name: f"{self.url}/{path}" for name, path in endpoints.items()}}
            )

        async def authorize(request: Request) -> Response:
            asked = dict(request.query_params)
            assert asked["response_type"] == "code"
            assert asked["code_challenge_method"] == "S256"
            code = f"code-{len(self._codes)}"
            self._codes[code] = asked
            return RedirectResponse(f"{asked['redirect_uri']}?code={code}&state={asked['state']}", 303)

        async def token(request: Request) -> Response:
            from authlib.oauth2.rfc7636 import create_s256_code_challenge

            form = parse_qs((await request.body()).decode())
            asked = self._codes.pop(form["code"][0])
            if create_s256_code_challenge(form["code_verifier"][0]) != asked["code_challenge"]:
                return JSONResponse({"error": "invalid_grant"}, 400)
            claims = {
                "iss": self.url,
                "aud": CLIENT,
                "nonce": asked["nonce"],
                "iat": int(time.time()),
                "exp": int(time.time()) + 60,
                **self.person,
                **self.changes,
            }
            signed = jwt.encode({"alg": "RS256", "kid": "k1"}, claims, self.signing)
            return JSONResponse({"access_token": "t", "token_type": "Bearer", "id_token": signed})

        async def jwks(_: Request) -> Response:
            return JSONResponse({"keys": [self.key.as_dict(private=False)]})

        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", configuration),
                Route("/authorize", authorize),
                Route("/token", token, methods=["POST"]),
                Route("/jwks", jwks),
            ]
        )


@contextmanager
def running_provider() -> Iterator[Provider]:
    provider, socket = Provider(), listen("127.0.0.1", 0)
    provider.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(provider.app(), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        yield provider
    finally:
        server.should_exit = True
        thread.join(30)
