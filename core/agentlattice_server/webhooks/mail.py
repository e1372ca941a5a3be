"""E-mail: how people outside of the console learn that a request was escalated to them.

- A subscription with an `smtp://` or `smtps://` URL is a mail relay: `smtp://user:password@host:587?from=al@acme.com`.
  `to=` names whom its own events go to; an escalation goes to the `mailto:` addresses that its policy names.
- `smtp` means STARTTLS, and nothing is sent without it, except to this machine where that is allowed.
- The relay's address is checked like any other receiver's; a relay in a private network must be allowed by name.
- Mail says what is asked and where to look. Nobody decides by answering it: a sender can be anybody.
- Agents' words go into the text, never into a header as they are.
"""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote

from agentlattice_core.clock import parse_time
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.results import ApprovalRequest, GovernanceEvent
from agentlattice_server.webhooks.addresses import Reach, UnreachableError, port_of
from agentlattice_server.webhooks.bodies import details
from agentlattice_server.webhooks.posting import DEADLINE, Answer

__all__ = ["Relay", "letter", "recipients", "relay_of", "send"]

SCHEMES = ("smtp", "smtps")
_ADDRESS = re.compile(r"[^\s@,;:<>\"()\\]{1,64}@[A-Za-z0-9.\-]{1,253}")


@dataclass(frozen=True, slots=True)
class Relay:
    """What a mail relay's URL says."""

    parts: SplitResult
    user: str
    password: str
    sender: str
    to: tuple[str, ...]


def relay_of(url: str, reach: Reach) -> Relay:
    """Raises InvalidRequestError for a URL that is none."""
    parts = reach.checked_url(url, SCHEMES)
    said = parse_qs(parts.query)
    senders, to = said.get("from", []), said.get("to", [])
    if len(senders) != 1 or set(said) - {"from", "to"}:
        raise InvalidRequestError(
            "a mail relay's URL must end with `?from=` and an address, and may have `to=`"
        )
    for address in (*senders, *to):
        if _ADDRESS.fullmatch(address) is None:
            raise InvalidRequestError(f"`{address:.80}` is not a mail address")
    return Relay(parts, unquote(parts.username or ""), unquote(parts.password or ""), senders[0], tuple(to))


def recipients(relay: Relay, escalated_to: Sequence[str], wanted: bool) -> list[str]:
    """Whom a notification goes to: those an escalation names, and where it is `wanted`, the relay's own."""
    named = [party.removeprefix("mailto:") for party in escalated_to if party.startswith("mailto:")]
    return list(dict.fromkeys([*named, *(relay.to if wanted else ())]))


def letter(
    relay: Relay,
    to: Sequence[str],
    message_id: str,
    event: GovernanceEvent,
    request: ApprovalRequest | None,
) -> bytes:
    """The mail as it is sent."""
    mail = EmailMessage()
    what = request.action_type if request is not None else event.data.get("action_type", "")
    subject = f"[AgentLattice] {event.event_type} {what}".strip()
    mail["Subject"] = "".join(one for one in subject if one.isprintable())[:200]
    mail["From"], mail["To"] = relay.sender, ", ".join(to)
    mail["Date"] = format_datetime(parse_time(event.timestamp))
    mail["Message-ID"] = f"<{message_id}@{relay.sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    lines = [f"{name}: {text}" for name, text in details(event, request)]
    if request is not None and request.waits:
        lines += ["", f"Decide in the console, or with: al approvals show {request.id}"]
    mail.set_content("\n".join(lines) + "\n")
    return mail.as_bytes()


def send(
    relay: Relay,
    to: Sequence[str],
    body: bytes,
    reach: Reach,
    *,
    deadline: float = DEADLINE,
    trust: ssl.SSLContext | None = None,
) -> Answer:
    """Hand a mail to its relay; the answer has the relay's reply code. Raises UnreachableError."""
    parts, context = relay.parts, trust or ssl.create_default_context()
    host, addresses = parts.hostname or "", reach.addresses(parts)
    plain = reach.loopback and all(_is_loopback(address) for address in addresses)
    try:
        with _connection(parts.scheme, host, addresses, port_of(parts), context, deadline) as connection:
            if parts.scheme == "smtp":
                connection.ehlo()
                if connection.has_extn("starttls"):
                    connection.starttls(context=context)
                    connection.ehlo()
                elif not plain:
                    raise UnreachableError(f"`{host}` offers no STARTTLS, so nothing was sent")
            if relay.user:
                connection.login(relay.user, relay.password)
            refused: Mapping[str, Any] = connection.sendmail(relay.sender, list(to), body)
    except smtplib.SMTPResponseException as error:
        return Answer(error.smtp_code, {}, b"")
    except smtplib.SMTPRecipientsRefused:
        return Answer(550, {}, b"")
    except ssl.SSLError as error:
        raise UnreachableError(f"no trusted connection: {error.reason or 'TLS failed'}") from None
    except TimeoutError:
        raise UnreachableError(f"no answer within {deadline:g} s") from None
    except (OSError, smtplib.SMTPException) as error:
        raise UnreachableError(f"no connection: {type(error).__name__}") from None
    # Some got it: to send it again would tell those twice, and the others will be refused again.
    return Answer(250, {}, f"{len(refused)} recipients refused".encode() if refused else b"")


def _connection(
    scheme: str, host: str, addresses: Sequence[str], port: int, context: ssl.SSLContext, deadline: float
) -> smtplib.SMTP:
    """A connection to one of the addresses that were checked, which goes by the host's name in TLS."""
    connection = (
        _SecureSMTP(addresses, deadline, context) if scheme == "smtps" else _SMTP(addresses, deadline)
    )
    code, _ = connection.connect(host, port)
    if code != 220:
        connection.close()
        raise smtplib.SMTPConnectError(code, b"")
    return connection


class _SMTP(smtplib.SMTP):
    def __init__(self, addresses: Sequence[str], deadline: float) -> None:
        self._addresses = addresses
        super().__init__(timeout=deadline, local_hostname="agentlattice")

    def connect(
        self, host: str = "localhost", port: int = 0, source_address: Any = None
    ) -> tuple[int, bytes]:
        self._host = host  # what STARTTLS checks the certificate against
        return super().connect(host, port, source_address)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        failure: OSError | None = None
        for address in self._addresses:
            try:
                return socket.create_connection((address, port), timeout)
            except OSError as error:
                failure = error
        raise failure or OSError("no address")


class _SecureSMTP(_SMTP):
    def __init__(self, addresses: Sequence[str], deadline: float, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(addresses, deadline)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self._context.wrap_socket(super()._get_socket(host, port, timeout), server_hostname=host)


def _is_loopback(address: str) -> bool:
    return address == "::1" or address.startswith("127.")
