"""Which addresses a webhook may reach: public ones, and what whoever runs the service allows by name.

- A URL comes from whoever may manage webhooks, and the service stands inside of a network: without this check, it would
  ask that network's own services on their behalf (server-side request forgery).
- Every address that a name resolves to must be allowed, not only the one that is then used.
- Public is what `ipaddress` calls global, less what it takes for global although it leads elsewhere: multicast,
  addresses that hold an IPv4 address (NAT64, 6to4, IPv4-mapped), and the deprecated site-local ones.
- Plain HTTP is for loopback only, and only where that is allowed.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from agentlattice_core.errors import AgentLatticeError, InvalidRequestError

__all__ = ["Reach", "Resolve", "UnreachableError", "is_public", "origin", "port_of", "resolve"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Sequence[str]]
"""All addresses of a host, as text. Raises OSError."""

_LONGEST_URL = 2048
_HOST = re.compile(r"[A-Za-z0-9._\-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")
_PORTS = {"https": 443, "http": 80, "smtps": 465, "smtp": 587}
_LEADING_ELSEWHERE = tuple(
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24",  # protocol assignments, some of which are taken for global
        "192.88.99.0/24",  # 6to4 relays
        "64:ff9b::/96",  # NAT64: holds an IPv4 address of the local network's choice
        "64:ff9b:1::/48",
        "2002::/16",  # 6to4
        "2001::/32",  # Teredo
        "::/96",  # IPv4-compatible, deprecated
        "fec0::/10",  # site-local, deprecated
    )
)


class UnreachableError(AgentLatticeError):
    """The receiver may not be reached, or could not be."""

    def __init__(self, message: str) -> None:
        super().__init__("UNREACHABLE", message)


def resolve(host: str, port: int) -> Sequence[str]:
    """What the system's resolver says."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def is_public(address: Address) -> bool:
    """Whether the address is one of the public Internet."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.scope_id is not None:
            return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(
            address.version == network.version and address in network for network in _LEADING_ELSEWHERE
        )
    )


def origin(url: str) -> str:
    """Scheme, host and port of a URL: what may be shown of it."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port is not None else ""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{port}"


@dataclass(frozen=True, slots=True)
class Reach:
    """Where deliveries may go beside public addresses: `networks`, and with `loopback` this machine, then also by plain
    HTTP. `resolver` says what a name means.
    """

    networks: tuple[Network, ...] = ()
    loopback: bool = False
    resolver: Resolve = resolve

    @classmethod
    def of(cls, allowed: Sequence[str], resolver: Resolve = resolve) -> Reach:
        """What `allowed` says: networks such as `10.1.0.0/16`, and `loopback`. Raises InvalidRequestError."""
        networks: list[Network] = []
        for text in allowed:
            if text != "loopback":
                try:
                    networks.append(ipaddress.ip_network(text))
                except ValueError:
                    raise InvalidRequestError(
                        f"`{text:.80}` is not a network such as 10.1.0.0/16, nor `loopback`"
                    ) from None
        return cls(tuple(networks), "loopback" in allowed, resolver)

    def checked_url(self, url: str, schemes: Sequence[str] = ("https",)) -> SplitResult:
        """`url`, taken apart. Raises InvalidRequestError for one that nothing may be sent to."""
        if not isinstance(url, str) or len(url) > _LONGEST_URL:
            raise InvalidRequestError(f"a webhook's URL must be text of at most {_LONGEST_URL} characters")
        if not (url.isascii() and url.isprintable() and " " not in url and "\\" not in url):
            raise InvalidRequestError("a webhook's URL must be printable ASCII without spaces or backslashes")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise InvalidRequestError("the webhook's URL cannot be read") from None
        allowed = [*schemes, "http"] if "https" in schemes and self.loopback else list(schemes)
        if parts.scheme not in allowed:
            raise InvalidRequestError(f"a webhook's URL must begin with {' or '.join(allowed)}")
        netloc_host = parts.netloc.rpartition("@")[2]
        if port is not None:
            netloc_host = netloc_host.rpartition(":")[0]
        if not parts.hostname or _HOST.fullmatch(netloc_host) is None or port == 0:
            raise InvalidRequestError("a webhook's URL must name a host, and a port from 1 to 65535 if any")
        if "https" in schemes and ("@" in parts.netloc or parts.fragment):
            raise InvalidRequestError("a webhook's URL must hold neither a user name nor a fragment")
        literal = _literal(parts.hostname)
        if literal is not None and not self.allows(literal):
            raise InvalidRequestError(f"`{literal}` is not a public address, so no webhook may reach it")
        return parts

    def addresses(self, parts: SplitResult) -> list[str]:
        """The addresses of the URL's host, each of which may be reached. Raises UnreachableError."""
        host = parts.hostname or ""
        try:
            found = self.resolver(host, port_of(parts))
        except (OSError, UnicodeError):
            raise UnreachableError(f"host `{host}` has no address") from None
        if not found:
            raise UnreachableError(f"host `{host}` has no address")
        for text in found:
            address = _literal(text)
            if address is None or not self.allows(address):
                raise UnreachableError(
                    f"host `{host}` leads to `{text:.60}`, which is not a public address; nothing was sent"
                )
            if parts.scheme == "http" and not address.is_loopback:
                raise UnreachableError(f"host `{host}` is not this machine, and http reaches nothing else")
        return list(found)

    def allows(self, address: Address) -> bool:
        """Whether the address may be reached."""
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return (
            is_public(address)
            or (self.loopback and address.is_loopback)
            or any(address.version == network.version and address in network for network in self.networks)
        )


def port_of(parts: SplitResult) -> int:
    """The port that a URL means."""
    return parts.port if parts.port is not None else _PORTS[parts.scheme]


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
