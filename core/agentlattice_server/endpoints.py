"""An endpoint: what it is called by, who may call it, and the one way every call takes.

- Who may call is part of the declaration, so that there is no endpoint without. What a person's role lets them do is
  the core's to ask, in the transaction that does it.
- The way: who it is, how often they called, is the body JSON and not too large, the call, its answer or its error.
- A handler gets checked JSON and an identity, and answers with what is dumped as it is.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from agentlattice_core.actions import MAX_DEPTH
from agentlattice_core.errors import AgentLatticeError, ForbiddenError, InvalidRequestError
from agentlattice_core.keys import KeyKind
from agentlattice_server.authentication import Authenticator, Identity
from agentlattice_server.login import SESSION_COOKIE, check_same_site
from agentlattice_server.problems import RequestError, answer_error, internal_error
from agentlattice_server.rates import RateLimits

__all__ = [
    "AGENT",
    "BOTH",
    "LONGEST_WAIT",
    "MANAGING",
    "MOST_ON_A_PAGE",
    "OPERATOR",
    "Call",
    "Endpoint",
    "Endpoints",
    "Handler",
    "answer",
    "make_cursor",
    "page",
    "read_cursor",
    "serving",
    "unless_stopping",
]

_log = logging.getLogger("agentlattice.server")

T = TypeVar("T")

MOST_ON_A_PAGE = 200
LONGEST_WAIT = 30
"""Seconds that an answer may be held back until there is something to say."""

AGENT: tuple[KeyKind, ...] = ("agent",)
OPERATOR: tuple[KeyKind, ...] = ("operator",)
MANAGING: tuple[KeyKind, ...] = ("service", "operator")
BOTH: tuple[KeyKind, ...] = ("agent", "operator")
"""Agents see what is theirs, operators everything."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an endpoint, by somebody who may. `headers` are by their names in lower case, `body` is the JSON
    object that came with it, or empty.
    """

    request: Request
    headers: Mapping[str, str]
    identity: Identity
    body: dict[str, Any]

    def query(self, name: str) -> str | None:
        """A query parameter; None if it is not there or empty."""
        return self.request.query_params.get(name) or None

    def number(self, name: str, default: int) -> int:
        """A query parameter that is a whole number. Raises InvalidRequestError."""
        text = self.query(name)
        if text is None:
            return default
        if not text.isascii() or not text.isdecimal() or len(text) > 9:
            raise InvalidRequestError(f"{name} `{text:.40}` must be a whole number of at least 0")
        return int(text)

    def flag(self, name: str, default: bool) -> bool:
        """A query parameter that is `true` or `false`. Raises InvalidRequestError."""
        text = self.query(name)
        if text is None:
            return default
        if text not in ("true", "false"):
            raise InvalidRequestError(f"{name} `{text:.40}` must be `true` or `false`")
        return text == "true"

    def path(self, name: str) -> str:
        """What the path says for a name in braces."""
        value: str = self.request.path_params[name]
        return value

    def text(self, name: str) -> str:
        """A member of the body that must be there and be text. Raises InvalidRequestError."""
        value = self.body.get(name)
        if not isinstance(value, str):
            raise InvalidRequestError(f"{name}: must be there, and be text")
        return value

    def maybe(self, name: str, kind: type | tuple[type, ...] = str) -> Any:
        """A member of the body that may be missing or null. Raises InvalidRequestError for another type."""
        value = self.body.get(name)
        if value is not None and (
            not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
        ):
            raise InvalidRequestError(f"{name}: is not of the type that it must be")
        return value

    def names(self, name: str) -> list[str] | None:
        """A member of the body that may be missing, or a list of texts. Raises InvalidRequestError."""
        value = self.body.get(name)
        if value is not None and not (
            isinstance(value, list) and all(isinstance(item, str) for item in value)
        ):
            raise InvalidRequestError(f"{name}: must be a list of texts")
        return value


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint. `wire` marks what the hosted product's client knows, `remembering` the one call whose key its own
    transaction checks, `waiting` what is asked again and again while a person decides.

    `body` is the JSON Schema of what it takes, `query` those of its parameters, `answers` of what it answers by status.
    """

    method: str
    path: str
    kinds: tuple[KeyKind, ...]
    handler: Handler
    summary: str
    wire: bool = False
    remembering: bool = False
    waiting: bool = False
    body: Mapping[str, Any] | None = None
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    answers: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    headers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The method and the path."""
        return f"{self.method} {self.path}"


class Endpoints(list[Endpoint]):
    """The endpoints of one module, in the order in which they are declared."""

    def add(
        self, method: str, path: str, kinds: tuple[KeyKind, ...], summary: str, **more: Any
    ) -> Callable[[Handler], Handler]:
        """Declare a handler; `more` as in `Endpoint`."""

        def declare(handler: Handler) -> Handler:
            self.append(Endpoint(method, path, kinds, handler, summary, **more))
            return handler

        return declare


def answer(value: Any, status: int = 200) -> Response:
    """`value`, results of the core among it, as JSON."""
    return Response(orjson.dumps(value), status, media_type="application/json")


def page(name: str, items: Sequence[T], call: Call, key: Callable[[T], str]) -> dict[str, Any]:
    """One page of `items`, which keep their order from call to call. Raises InvalidRequestError."""
    limit = call.number("limit", 50)
    if not 1 <= limit <= MOST_ON_A_PAGE:
        raise InvalidRequestError(f"limit `{limit}` must be from 1 to {MOST_ON_A_PAGE}")
    start, cursor = 0, call.query("cursor")
    if cursor is not None:
        after = read_cursor(cursor)
        start = next((n + 1 for n, item in enumerate(items) if key(item) == after), len(items))
    shown = items[start : start + limit]
    more = start + limit < len(items)
    return {name: shown, "next_cursor": make_cursor(key(shown[-1])) if more else None}


async def unless_stopping(call: Call, wait: Coroutine[Any, Any, T]) -> T | None:
    """What comes of `wait`; None if the service is told to stop before."""
    waiting = asyncio.create_task(wait)
    ending = asyncio.create_task(call.request.app.state.stopping.wait())
    try:
        done, _ = await asyncio.wait({waiting, ending}, return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting in done else None
    finally:
        for task in (waiting, ending):
            task.cancel()
        await asyncio.gather(waiting, ending, return_exceptions=True)


def make_cursor(after: str) -> str:
    """Where a page ended, as opaque text."""
    return base64.urlsafe_b64encode(after.encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> str:
    """The inverse of `make_cursor`. Raises InvalidRequestError."""
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:
        raise InvalidRequestError(
            f"cursor `{cursor:.80}` is not one of ours; pass `next_cursor` as it came"
        ) from None


_DRAINED = 16
"""How many times too large a body is read to its end, and thrown away, so that its sender gets to read the answer."""


def serving(
    endpoint: Endpoint, authenticator: Authenticator, rates: RateLimits, most_bytes: int
) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint as the web framework calls it."""
    identify = authenticator.remembered if endpoint.remembering else authenticator.identify
    wire = endpoint.wire

    async def serve(request: Request) -> Response:
        request.scope["al.endpoint"] = endpoint.path
        try:
            headers = _headers(request)
            identity = await identify(_shown_key(request, headers))
            request.scope["al.key"] = identity.key_id
            if identity.kind not in endpoint.kinds:
                raise ForbiddenError(
                    f"this takes {_one_of(endpoint.kinds)} key, and this is {_one_of((identity.kind,))} key"
                )
            rates.count(identity.digest, waiting=endpoint.waiting)
            body = await _body(request, headers, most_bytes) if endpoint.body is not None else {}
            return await endpoint.handler(Call(request, headers, identity, body))
        except AgentLatticeError as error:
            return answer_error(error, wire=wire)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody is there to read it
        except Exception:
            reference = secrets.token_hex(8)
            _log.exception("a call failed", extra={"reference": reference, "endpoint": endpoint.name})
            return internal_error(reference, wire=wire)

    return serve


def _headers(request: Request) -> dict[str, str]:
    """Each header by its name in lower case; of one that came twice, the first. Read once, because looking one up in
    the framework's own goes through them all.
    """
    raw = reversed(request.scope["headers"])
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}


def _shown_key(request: Request, headers: Mapping[str, str]) -> str | None:
    """The key that a request shows, as a header: by itself, or the session that a browser sends along."""
    header = headers.get("authorization")
    session = request.cookies.get(SESSION_COOKIE) if header is None else None
    if session is None:
        return header
    check_same_site(request)
    return f"Bearer {session}"


def _one_of(kinds: tuple[KeyKind, ...]) -> str:
    return " or ".join("a service" if kind == "service" else f"an {kind}" for kind in kinds)


async def _body(request: Request, headers: Mapping[str, str], most_bytes: int) -> dict[str, Any]:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError("UNSUPPORTED_MEDIA_TYPE", "the body must be JSON, sent as `application/json`")
    announced = headers.get("content-length")
    if announced is not None and announced.isdecimal() and int(announced) > most_bytes * _DRAINED:
        raise _too_large(most_bytes)
    read, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= most_bytes:
            read += chunk
        elif size > most_bytes * _DRAINED:
            raise _too_large(most_bytes)
    if size > most_bytes:
        raise _too_large(most_bytes)
    shown = headers.get("authorization", "").rpartition(" ")[2].encode("latin-1")
    if shown and shown in read:  # what is recorded is for many to read
        raise InvalidRequestError("the body holds the key that it was sent with; leave it out")
    try:
        value = orjson.loads(read)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"the body is not JSON: {error.msg.lower()}") from None
    if not isinstance(value, dict):
        raise InvalidRequestError("the body must be a JSON object")
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    """Raise InvalidRequestError for what is nested so deep that walking it is dear."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH + 4:
            raise InvalidRequestError(f"the body is nested deeper than {MAX_DEPTH} levels")
        level = [
            member
            for item in level
            for member in (item.values() if isinstance(item, dict) else item)
            if isinstance(member, dict | list)
        ]


def _too_large(most_bytes: int) -> RequestError:
    return RequestError(
        "BODY_TOO_LARGE", f"the body is larger than {most_bytes} bytes", {"Connection": "close"}
    )
