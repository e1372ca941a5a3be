"""One request to a receiver.

- The name is resolved once; what is connected to is an address that was checked. TLS and the `Host` header still go by
  the name, so the certificate is the named host's.
- Redirects are not followed, and no proxy of the environment is used: either would lead elsewhere.
- All of it has one deadline, so that a receiver which sends a byte now and then holds nobody up; of an answer at most
  16 KB are read. How long a name may take to resolve is the system's to say; that counts towards the deadline.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import SplitResult

import httpcore

from agentlattice_server.webhooks.addresses import Reach, UnreachableError, port_of

__all__ = ["DEADLINE", "Answer", "post"]

DEADLINE = 15.0
"""Seconds for one attempt: to resolve, connect, send and be answered."""

_MOST_READ = 16_384
_CONNECT = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver answered. `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def post(
    parts: SplitResult,
    body: bytes,
    headers: Mapping[str, str],
    reach: Reach,
    *,
    deadline: float = DEADLINE,
    trust: ssl.SSLContext | None = None,
) -> Answer:
    """Send `body` and return the answer, whatever its status. Raises UnreachableError.

    `trust` is whom to believe instead of the system's authorities.
    """
    ends = time.monotonic() + deadline
    backend = _Backend(reach.addresses(parts), ends)
    sent = [
        (b"Host", _host(parts)),
        (b"Content-Length", str(len(body)).encode()),
        *((name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()),
    ]
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    url = httpcore.URL(
        scheme=parts.scheme.encode(),
        host=(parts.hostname or "").encode("ascii"),
        port=port_of(parts),
        target=target.encode("ascii"),
    )
    try:
        with (
            httpcore.ConnectionPool(
                ssl_context=trust or _authorities(), network_backend=backend, max_keepalive_connections=0
            ) as pool,
            pool.stream("POST", url, headers=sent, content=body) as response,
        ):
            read = bytearray()
            for chunk in response.iter_stream():
                read += chunk
                if len(read) >= _MOST_READ:
                    break
            names = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
            }
            return Answer(response.status, names, bytes(read[:_MOST_READ]))
    except httpcore.TimeoutException:
        raise UnreachableError(f"no answer within {deadline:g} s") from None
    except ssl.SSLError as error:
        raise UnreachableError(f"no trusted connection: {_plain(error)}") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        raise UnreachableError(f"no connection: {_plain(error)}") from None


def _host(parts: SplitResult) -> bytes:
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = f":{parts.port}" if parts.port is not None else ""
    return f"{host}{port}".encode("ascii")


def _plain(error: Exception) -> str:
    text = str(error).partition("\n")[0][:120]
    return "".join(one if one.isprintable() else " " for one in text) or type(error).__name__


@cache
def _authorities() -> ssl.SSLContext:
    return ssl.create_default_context()


class _Backend(httpcore.NetworkBackend):
    """Connects to addresses that were checked, whatever host it is asked for."""

    def __init__(self, addresses: Iterable[str], ends: float) -> None:
        self._addresses = list(addresses)
        self._ends = ends
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectError("no address")
        for address in self._addresses:
            try:
                stream = self._sockets.connect_tcp(address, port, min(_CONNECT, _left(self._ends)))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
                continue
            return _Stream(stream, self._ends)
        raise failure


class _Stream(httpcore.NetworkStream):
    """A connection on which everything together has one deadline."""

    def __init__(self, stream: httpcore.NetworkStream, ends: float) -> None:
        self._stream = stream
        self._ends = ends

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._ends))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._ends))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        inner = self._stream.start_tls(ssl_context, server_hostname, _left(self._ends))
        return _Stream(inner, self._ends)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the deadline has passed")
    return left
