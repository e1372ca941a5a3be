"""The connections to one address, of a client and those it gave: pools, retries, and what is sent without waiting.

- Blocking calls share one pool; each event loop has one of its own, which ends with it. A forked child opens new ones.
- A request that got no answer, or 5xx, is sent again after 1, 2 and 4 seconds, and one that was turned away (429, 503)
  not before the service says. One that must not arrive twice is sent again only if it cannot have arrived.
- No redirect is followed: a key goes to the address that was named, and nowhere else.
- What nobody waits for is sent by one thread, in order. It exists while there is something to send.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from agentlattice_core.errors import AgentLatticeError, InvalidRequestError, NotRecordedError
from agentlattice_core.remote.answers import UnreadableError, error_of
from agentlattice_core.remote.requests import Request

if TYPE_CHECKING:
    import httpx

__all__ = ["Connections", "Pace", "UnansweredError", "checked_address"]

_log = logging.getLogger("agentlattice")

_PATIENCE = 30.0  # seconds for one request, beside what the service was asked to hold it
_PAUSES = (1.0, 2.0, 4.0)
_LONGEST_PAUSE = 60.0
_MOST_WAITING = 10_000
_IDLE = 2.0  # seconds after which a thread with nothing to send ends
_PARTING = 5.0  # seconds a process that ends goes on sending


class Pace:
    """Time, as waiting sees it: replaced in tests."""

    now: Callable[[], float] = staticmethod(time.monotonic)
    sleep: Callable[[float], None] = staticmethod(time.sleep)
    sleep_async: Callable[[float], Awaitable[None]] = staticmethod(asyncio.sleep)

    @staticmethod
    def wait(event: threading.Event, seconds: float) -> None:
        """Wait for `event`, at most so long."""
        event.wait(seconds)


class UnansweredError(Exception):
    """A request was sent as often as it may be, and never answered. `error` is what its caller is told."""

    def __init__(self, error: AgentLatticeError) -> None:
        super().__init__(error.message)
        self.error = error


class Connections:
    """Everything that speaks to one address. `pace` is replaced in tests."""

    def __init__(self, base_url: str, *, pace: Pace | None = None) -> None:
        self.base_url = base_url
        self.pace = pace or Pace()
        self._tls: ssl.SSLContext | None = None
        self._restart()
        _all.add(self)

    def _restart(self) -> None:
        """Begin anew, also in a forked child: sockets and threads are the parent's, and locks may be held."""
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = (
            weakref.WeakKeyDictionary()
        )
        self._waiting: deque[Callable[[], None]] = deque(maxlen=_MOST_WAITING)
        self._idle = threading.Condition(threading.Lock())
        self._sender: threading.Thread | None = None
        self._sending = False

    # Asking

    def ask(self, request: Request[Any], headers: dict[str, str]) -> Any:
        """The answer, read. Raises UnansweredError, or what the service says is wrong."""
        attempts = Attempts(request)
        while True:
            response: httpx.Response | Exception
            try:
                response = self._blocking().request(
                    request.method, self.base_url + request.path, **_sent(request, headers)
                )
            except Exception as error:
                response = error
            pause = attempts.after(response)
            if pause is None:
                return attempts.answer
            self.pace.sleep(pause)

    async def ask_async(self, request: Request[Any], headers: dict[str, str]) -> Any:
        """As `ask`, without blocking the event loop."""
        attempts = Attempts(request)
        while True:
            response: httpx.Response | Exception
            try:
                response = await self._of_this_loop().request(
                    request.method, self.base_url + request.path, **_sent(request, headers)
                )
            except Exception as error:
                response = error
            pause = attempts.after(response)
            if pause is None:
                return attempts.answer
            await self.pace.sleep_async(pause)

    def _blocking(self) -> httpx.Client:
        client = self._client
        if client is None:
            import httpx

            with self._lock:
                client = self._client
                if client is None:
                    client = self._client = httpx.Client(limits=_limits(), verify=self._trusted())
        return client

    def _of_this_loop(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            import httpx

            with self._lock:
                trusted = self._trusted()
                client = self._clients[loop] = httpx.AsyncClient(limits=_limits(), verify=trusted)
        return client

    def _trusted(self) -> ssl.SSLContext | bool:
        """Whom TLS trusts, read once: it takes longer than a request. Without TLS there is nothing to trust."""
        if not self.base_url.startswith("https:"):
            return False
        if self._tls is None:
            import httpx

            self._tls = httpx.create_ssl_context()
        return self._tls

    # Sending without waiting

    def post(self, send: Callable[[], None]) -> None:
        """Have `send` called soon, after all that was posted before."""
        with self._idle:
            if len(self._waiting) == _MOST_WAITING:
                _log.warning(
                    "more than %d outcomes wait for the service; the oldest is given up", _MOST_WAITING
                )
            self._waiting.append(send)
            if self._sender is None:
                self._sender = threading.Thread(target=self._send, name="agentlattice-sender", daemon=True)
                self._sender.start()
            self._idle.notify_all()

    def _send(self) -> None:
        while True:
            with self._idle:
                self._sending = False
                self._idle.notify_all()
                if not self._waiting and not self._idle.wait_for(lambda: bool(self._waiting), _IDLE):
                    self._sender = None
                    return
                send = self._waiting.popleft()
                self._sending = True
            try:
                send()
            except (AgentLatticeError, UnansweredError) as error:
                _log.warning("what nobody waited for could not be sent to the service: %s", error)
            except Exception:
                _log.exception("what nobody waited for could not be sent to the service")

    def flush(self, patience: float | None = None) -> bool:
        """Return once all that was posted is sent, or given up; False if `patience` seconds were not enough."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._waiting and not self._sending, patience)

    # Ending

    def close(self) -> None:
        """Send what is posted, and let go of the connections."""
        with self._lock:
            client, self._client = self._client, None
            clients = list(self._clients.items())
            self._clients.clear()
        self.flush()
        if client is not None:
            client.close()
        for loop, other in clients:
            if not loop.is_closed():
                try:
                    loop.call_soon_threadsafe(_end_on, loop, other)
                except RuntimeError:
                    pass  # it was closed meanwhile, and its connections with it


class Attempts:
    """One request from its first attempt to its answer: what to make of each response, and how long to pause."""

    def __init__(self, request: Request[Any]) -> None:
        self._request = request
        self._pauses = list(_PAUSES)
        self.answer: Any = None
        self.made = 0

    def after(self, response: httpx.Response | Exception) -> float | None:
        """How many seconds to wait before the next attempt; None once there is an answer.

        Raises UnansweredError when there will be none, and the error that the answer is.
        """
        self.made += 1
        request = self._request
        if isinstance(response, Exception):
            return self._without_answer(response)
        status, body = response.status_code, _body_of(response)
        if status in (429, 503) and (request.repeated or status == 429):
            return self._again(error_of(status, body), _retry_after(response))
        if status >= 500:
            error = error_of(status, body, request.event_id)
            if request.repeated:
                return self._again(error, None)
            raise UnansweredError(self._told(error))
        if 300 <= status < 400:
            raise UnansweredError(
                self._told(
                    AgentLatticeError(
                        "BAD_ANSWER",
                        f"the service at {response.url.host} sends its callers elsewhere (HTTP {status}); name the "
                        "address it means as `base_url`",
                    )
                )
            )
        if status >= 400 and status not in request.resulting:
            raise error_of(status, body, request.event_id)
        try:
            self.answer = request.read(body)
        except (UnreadableError, TypeError, AttributeError) as error:
            raise UnansweredError(
                self._told(
                    AgentLatticeError("BAD_ANSWER", f"what the service answered cannot be read: {error}")
                )
            ) from None
        return None

    def _without_answer(self, failure: Exception) -> float:
        import httpx

        if not isinstance(failure, httpx.TransportError):
            if isinstance(failure, httpx.HTTPError | httpx.InvalidURL | ValueError):
                raise UnansweredError(
                    self._told(_unreachable(f"could not be asked ({type(failure).__name__})"))
                ) from None
            raise failure
        never_sent = isinstance(failure, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        error = _unreachable(f"could not be reached ({_why(failure)})")
        if never_sent or self._request.repeated:
            return self._again(error, None)
        raise UnansweredError(self._told(error))

    def _again(self, error: AgentLatticeError, said: float | None) -> float:
        if not self._pauses:
            raise UnansweredError(self._told(error))
        pause = self._pauses.pop(0)
        return pause if said is None else max(pause, min(said, _LONGEST_PAUSE))

    def _told(self, error: AgentLatticeError) -> AgentLatticeError:
        """What the caller is told: of what was to be recorded, that it was not, or that nobody knows."""
        if not self._request.records or isinstance(error, NotRecordedError):
            return error
        known = (
            ""
            if self._request.repeated
            else "; whether it was recorded is not known, so look before it is repeated"
        )
        return NotRecordedError(f"{error.message}{known}", {"code": error.code})


def _unreachable(how: str) -> AgentLatticeError:
    return AgentLatticeError(
        "NETWORK_ERROR", f"the service {how}; see that it runs and that `base_url` is right"
    )


def _why(failure: Exception) -> str:
    """A word on it. Its own text may hold the address, and whatever a proxy says."""
    return {"ConnectError": "no connection", "ConnectTimeout": "no connection in time"}.get(
        type(failure).__name__, type(failure).__name__.lower()
    )


def _sent(request: Request[Any], headers: dict[str, str]) -> dict[str, Any]:
    sent: dict[str, Any] = {
        "headers": {"Accept": "application/json", **headers, **request.headers},
        "timeout": _PATIENCE + request.holds,
        "follow_redirects": False,
    }
    if request.query:
        sent["params"] = dict(request.query)
    if request.body is not None:
        sent["content"] = orjson.dumps(request.body)
        sent["headers"]["Content-Type"] = "application/json"
    return sent


def _body_of(response: httpx.Response) -> Any:
    if not response.content:
        return None
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return None


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds, or a date; None for neither."""
    said = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _limits() -> httpx.Limits:
    import httpx

    # Waiting for a person holds a connection: many may wait, and none of them may keep others from asking.
    return httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=30.0)


def _end_on(loop: asyncio.AbstractEventLoop, client: httpx.AsyncClient) -> None:
    ending = loop.create_task(client.aclose())
    _endings.add(ending)
    ending.add_done_callback(_endings.discard)


def checked_address(base_url: Any) -> str:
    """`base_url` without what comes after it. Raises InvalidRequestError: there is no default to fall back on."""
    if base_url is None:
        raise InvalidRequestError(
            "name the service: `base_url=`, such as `http://localhost:8700`; a key is sent nowhere that was not named"
        )
    parts = urlsplit(base_url) if isinstance(base_url, str) else None
    if (
        parts is None
        or parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.username is not None
        or parts.query
        or parts.fragment
    ):
        raise InvalidRequestError(
            "`base_url` must be the address of a service, such as `https://governance.example.com`, and hold no "
            "password, query or fragment"
        )
    return str(base_url).rstrip("/")


_all: weakref.WeakSet[Connections] = weakref.WeakSet()
_endings: set[asyncio.Task[None]] = set()


def _flush_all() -> None:
    for connections in list(_all):
        if not connections.flush(_PARTING):
            _log.warning(
                "the process ends before the service was told everything; what is missing reads `unknown`"
            )


def _after_fork() -> None:
    for connections in list(_all):
        connections._restart()


atexit.register(_flush_all)
os.register_at_fork(after_in_child=_after_fork)
