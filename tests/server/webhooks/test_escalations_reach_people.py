"""What a policy escalates to arrives there: a webhook that it names, and mail."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope
from webhook_world import LOOPBACK, PATIENCE, World, certificate, names, receiving, until

from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.policy.document import PolicyDocument
from agentlattice_core.testing.clock import ManualClock
from agentlattice_server.webhooks.addresses import Reach, UnreachableError
from agentlattice_server.webhooks.mail import relay_of, send


class Mailbox:
    """A mail server's end: what it got, and what it answers."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], EmailMessage]] = []
        self.secured: list[bool] = []
        self.answer = "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802  the library's
        if self.answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            mail = message_from_bytes(envelope.content, policy=policy.default)
            self.mails.append((list(envelope.rcpt_tos), mail))  # type: ignore[arg-type]
            self.secured.append(session.ssl is not None)
        return self.answer


@contextmanager
def mailing(tls: ssl.SSLContext | None = None, **options: Any) -> Iterator[tuple[Mailbox, int]]:
    """A mail server on a real socket."""
    box, loop = Mailbox(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def listen() -> asyncio.Server:
        return await loop.create_server(
            lambda: SMTP(box, tls_context=tls, loop=loop, **options), "127.0.0.1", 0
        )

    async def end() -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(PATIENCE)
    try:
        yield box, server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


def test_an_escalation_is_mailed_to_whom_the_policy_names(timed: World, clock: ManualClock) -> None:
    """One mail, to the named address, with what is asked and by when, and no way to decide by answering."""
    with mailing() as (box, port), timed.deliverer():
        timed.desk.add("mail", f"smtp://127.0.0.1:{port}?from=al@acme.test", template="email", events=[])
        asked = timed.agent.execute_sync("deploy.web", metadata={"service": "web\r\nBcc: thief@evil.test"})
        assert box.mails == []
        clock.advance(minutes=61)
        until(lambda: box.mails, "the mail")
        until(lambda: timed.told("mail"), "its record")
    ((to, mail),) = box.mails
    assert to == ["oncall@acme.test"]
    assert mail["From"] == "al@acme.test"
    assert mail["Subject"] == "[AgentLattice] approval.escalated deploy.web"
    assert mail["Bcc"] is None
    assert mail["Message-ID"].startswith("<msg_")
    text = mail.get_content()
    assert str(asked.approval_id) in text
    assert "worker" in text
    assert "http" not in text


def test_the_end_of_what_was_escalated_is_mailed_too(timed: World, clock: ManualClock) -> None:
    """Whoever was woken is told that it is over."""
    with mailing() as (box, port), timed.deliverer():
        timed.desk.add("mail", f"smtp://127.0.0.1:{port}?from=al@acme.test", template="email", events=[])
        asked = timed.agent.execute_sync("deploy.web")
        clock.advance(minutes=61)
        until(lambda: box.mails, "the mail")
        timed.client.approve_action_sync(str(asked.approval_id), "fine")
        until(lambda: len(box.mails) == 2, "the second mail")
    assert "approval.resolved" in box.mails[1][1]["Subject"]
    assert "Decided by: ana" in box.mails[1][1].get_content()


def test_mail_that_is_refused_is_tried_again(timed: World, clock: ManualClock) -> None:
    """A relay that is busy gets it later, under the same message id; nothing is lost."""
    with mailing() as (box, port), timed.deliverer():
        box.answer = "451 busy"
        timed.desk.add("mail", f"smtp://127.0.0.1:{port}?from=al@acme.test", template="email", events=[])
        timed.agent.execute_sync("deploy.web")
        clock.advance(minutes=61)
        until(lambda: timed.hook("mail").retries, "the failure")
        (retry,) = timed.hook("mail").retries.values()
        assert retry["status"] == 451
        box.answer = "250 OK"
        clock.advance(seconds=5)
        until(lambda: box.mails, "the mail")


def test_mail_goes_by_tls_and_logs_in(tmp_path: Path) -> None:
    """STARTTLS with the relay's own certificate, then the password; another name's certificate ends it."""
    server, trusting = certificate(tmp_path, "mail.test")
    asked: list[Any] = []

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        asked.append((data.login, data.password))
        return AuthResult(success=True)

    with mailing(server, require_starttls=True, authenticator=authenticate, auth_required=True) as (
        box,
        port,
    ):
        reach = Reach(
            loopback=True, resolver=names({"mail.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]})
        )
        relay = relay_of(f"smtp://al:p%40ss@mail.test:{port}?from=al@acme.test", reach)
        answer = send(relay, ["ops@acme.test"], b"Subject: x\r\n\r\nhello\r\n", reach, trust=trusting)
        assert answer.status == 250
        assert box.secured == [True]
        assert asked == [(b"al", b"p@ss")]
        other = relay_of(f"smtp://al:p@other.test:{port}?from=al@acme.test", reach)
        with pytest.raises(UnreachableError, match="no trusted connection"):
            send(other, ["ops@acme.test"], b"Subject: x\r\n\r\nhello\r\n", reach, trust=trusting)
        assert len(box.mails) == 1


def test_no_mail_leaves_this_machine_without_tls() -> None:
    """A relay that offers no STARTTLS, reached by anything but the loopback allowance, gets nothing."""
    with mailing() as (box, port):
        reach = Reach(networks=(ipaddress.ip_network("127.0.0.0/8"),))
        relay = relay_of(f"smtp://127.0.0.1:{port}?from=al@acme.test", reach)
        with pytest.raises(UnreachableError, match="STARTTLS"):
            send(relay, ["ops@acme.test"], b"Subject: x\r\n\r\nhello\r\n", reach)
        assert box.mails == []


def test_a_relay_inside_must_be_allowed() -> None:
    """A mail relay is a receiver like any other."""
    with pytest.raises(InvalidRequestError, match="not a public address"):
        relay_of("smtp://10.0.0.5?from=al@acme.test", Reach())
    reach = Reach(resolver=names({"relay.test": ["10.0.0.5"]}))
    relay = relay_of("smtp://relay.test?from=al@acme.test", reach)
    with pytest.raises(UnreachableError, match="not a public address"):
        send(relay, ["ops@acme.test"], b"x", reach)


@pytest.mark.parametrize(
    "url",
    [
        "smtp://mail.acme.test",
        "smtp://mail.acme.test?from=nobody",
        "smtp://mail.acme.test?from=a@b.c&to=x%0d%0ay@b.c",
        "smtp://mail.acme.test?from=a@b.c&bcc=x@b.c",
        "https://mail.acme.test?from=a@b.c",
    ],
)
def test_a_relay_says_who_sends(url: str) -> None:
    """What is no relay's URL is refused when it is subscribed."""
    with pytest.raises(InvalidRequestError):
        relay_of(url, LOOPBACK)


def test_an_escalation_reaches_the_webhook_that_it_names(timed: World, clock: ManualClock) -> None:
    """`webhook:pager` is told, though it asked for no events; another one that asked for none is not."""
    with receiving(202) as pager, receiving() as other, timed.deliverer():
        timed.desk.add("pager", pager.url, template="pagerduty", routing_key="R0UT1NG", events=[])
        timed.desk.add("other", other.url, events=[])
        asked = timed.agent.execute_sync("deploy.web", metadata={"service": "web"})
        clock.advance(minutes=61)
        until(lambda: pager.requests, "the alert")
        timed.client.deny_action_sync(str(asked.approval_id), "not today")
        until(lambda: len(pager.requests) == 2, "its end")
        timed.desk.change("other", events=["action.executed"])
        timed.act(1)
        until(lambda: timed.told("other"), "what the other asked for")
    trigger, resolve = (request.json for request in pager.requests)
    assert trigger["event_action"] == "trigger"
    assert trigger["routing_key"] == "R0UT1NG"
    assert trigger["payload"]["severity"] == "critical"
    assert trigger["payload"]["summary"] == "Approval escalated: deploy.web"
    assert trigger["payload"]["custom_details"]["Agent"] == "worker"
    assert resolve["event_action"] == "resolve"
    assert trigger["dedup_key"] == resolve["dedup_key"] == asked.approval_id
    assert [request.json["type"] for request in other.requests] == ["action.executed"]


def test_a_policy_may_escalate_to_a_mail_address_and_not_have_it_approve() -> None:
    """`mailto:` is for telling."""
    text = """
version: 1
policies:
  - name: Deploys
    action: deploy
    effect: require_approval
    approval: {escalate_after: 1h, %s}
"""
    PolicyDocument.parse(text % 'escalate_to: ["mailto:ops@acme.test"]')
    for wrong in (
        'approvers: ["mailto:ops@acme.test"], escalate_to: ["user:ana"]',
        'escalate_to: ["mailto:nobody"]',
        'escalate_to: ["mailto:a@b.c,d@e.f"]',
    ):
        with pytest.raises(Exception, match=r"cannot approve|is not one of"):
            PolicyDocument.parse(text % wrong)
