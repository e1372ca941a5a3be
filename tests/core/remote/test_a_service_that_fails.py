"""What a client makes of a service that fails, is slow, lies or is not there."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import socket
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from conftest import KEY
from scripted_service import EXECUTED, Answer, Asked, ScriptedService, Steps

from agentlattice_core import (
    AgentLattice,
    AgentLatticeError,
    ForbiddenError,
    InvalidRequestError,
    NotRecordedError,
)
from agentlattice_core.toolcalls import Denial, ToolCall, ToolGate

Ask = Callable[..., Any]
Scripted = Callable[..., ScriptedService]
Client = Callable[..., AgentLattice]

FAILED = Answer(503, {"error": "STORE_ERROR", "message": "the database is away"})
CUT = Answer(cut=True)


@pytest.fixture
def nowhere() -> str:
    """An address where nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{found.getsockname()[1]}"


# Retries


def test_an_action_is_sent_again_under_one_event_id(
    scripted: Scripted, client: Client, ask: Ask, pace: Steps
) -> None:
    """Three more times, after 1, 2 and 4 seconds, always as the same action."""
    service = scripted(
        CUT, Answer(500, {"error": "INTERNAL"}), Answer(502, text=b"<html>"), Answer(200, EXECUTED)
    )
    assert ask(client(service.url), "execute", "free").status == "executed"
    assert pace.slept == [1.0, 2.0, 4.0]
    assert len(service.asked) == 4
    assert len({asked.headers["X-AL-Event-ID"] for asked in service.asked}) == 1
    assert all(asked.body["action_type"] == "free" for asked in service.asked)


def test_two_actions_have_two_event_ids(scripted: Scripted, client: Client, ask: Ask) -> None:
    """An id is made for each call, and never used for another."""
    service = scripted(Answer(200, EXECUTED))
    al = client(service.url)
    ask(al, "execute", "free")
    ask(al, "execute", "free")
    assert len({asked.headers["X-AL-Event-ID"] for asked in service.asked}) == 2


def test_a_service_that_is_down_records_nothing_and_runs_nothing(
    client: Client, ask: Ask, pace: Steps, nowhere: str
) -> None:
    """After the last attempt NotRecordedError says so; what only looks gets a code of its own."""
    al = client(nowhere)
    with pytest.raises(NotRecordedError):
        ask(al, "execute", "free")
    assert pace.slept == [1.0, 2.0, 4.0]
    with pytest.raises(AgentLatticeError) as raised:
        ask(al, "whoami")
    assert raised.value.code == "NETWORK_ERROR"


@pytest.mark.parametrize(("said", "slept"), [("7", 7.0), ("86400", 60.0), ("soon", 1.0)])
@pytest.mark.parametrize("status", [429, 503])
def test_a_service_says_when_to_come_again(
    scripted: Scripted, client: Client, ask: Ask, pace: Steps, status: int, said: str, slept: float
) -> None:
    """`Retry-After` is kept to, up to a minute; what cannot be read is not."""
    busy = Answer(status, {"error": "RATE_LIMITED", "message": "slower"}, {"Retry-After": said})
    service = scripted(busy, Answer(200, EXECUTED))
    assert ask(client(service.url), "execute", "free").status == "executed"
    assert pace.slept == [slept]


def test_what_is_refused_is_not_sent_again(scripted: Scripted, client: Client, ask: Ask, pace: Steps) -> None:
    """A 4xx is an answer."""
    service = scripted(Answer(403, {"error": "FORBIDDEN", "message": "this key may not"}))
    with pytest.raises(ForbiddenError, match="this key may not"):
        ask(client(service.url), "execute", "free")
    assert (len(service.asked), pace.slept) == (1, [])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("claim", ("evt_1",)),
        ("cancel", ("evt_1",)),
        ("approve_action", ("apr_1",)),
        ("deny_action", ("apr_1",)),
        ("revoke", ("del_1",)),
        ("remove_operator", ("dana",)),
    ],
)
def test_what_must_not_arrive_twice_is_not_sent_twice(
    scripted: Scripted, client: Client, ask: Ask, name: str, arguments: tuple[str, ...]
) -> None:
    """Where nobody can tell whether it arrived, the error says so."""
    service = scripted(CUT)
    with pytest.raises(NotRecordedError, match="not known"):
        ask(client(service.url), name, *arguments)
    assert len(service.asked) == 1


# Answers that were lost


def test_an_admission_whose_answer_was_lost_is_still_the_callers(
    scripted: Scripted, client: Client, ask: Ask
) -> None:
    """The service answers the second attempt as a replay; its id ends with what this call drew, so it is its own."""

    def replayed(asked: Asked) -> Answer:
        ours = f"evt_000000000001{asked.headers['X-AL-Nonce']}"
        return Answer(409, {**EXECUTED, "audit_event_id": ours, "replayed": True})

    result = ask(client(scripted(CUT, replayed).url), "execute", "free", event_id="of the framework")
    assert (result.replayed, result.claim) == (False, "started")


def test_a_replay_of_somebody_elses_admission_gives_nothing(
    scripted: Scripted, client: Client, ask: Ask
) -> None:
    """An event id that came from outside may have been used before, by another process that runs the tool."""
    result = ask(
        client(scripted(Answer(409, {**EXECUTED, "replayed": True})).url),
        "execute",
        "free",
        event_id="of the framework",
    )
    assert result.replayed


async def test_who_is_cancelled_while_asking_gives_back_what_they_are_granted(
    scripted: Scripted, client: Client
) -> None:
    """The action is asked for once more under its id, and abandoned by the id that it has."""
    arrived, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        arrived.set()
        go_on.wait(30)

    service = scripted(Answer(200, EXECUTED, after=slow), Answer(200, EXECUTED), Answer(204))
    al = client(service.url)
    task = asyncio.create_task(al.execute("free"))
    await asyncio.to_thread(arrived.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await asyncio.to_thread(al.flush)
    first, again, abandoned = service.asked
    assert first.headers["X-AL-Event-ID"] == again.headers["X-AL-Event-ID"]
    assert abandoned.path == f"/api/v1/actions/{EXECUTED['audit_event_id']}/abandon"


async def test_who_is_cancelled_while_claiming_gives_the_claim_back(
    scripted: Scripted, client: Client
) -> None:
    """Nobody else may have it while nobody can say whether it is used."""
    arrived, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        arrived.set()
        go_on.wait(30)

    service = scripted(Answer(200, EXECUTED, after=slow), Answer(204))
    al = client(service.url)
    task = asyncio.create_task(al.claim("evt_1"))
    await asyncio.to_thread(arrived.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    while len(service.asked) < 2:
        await asyncio.sleep(0.01)
    assert service.asked[1].path.endswith("/abandon")


# Waiting for a person


PENDING = Answer(200, {"status": "pending", "action": "evt_1"})


def test_a_service_that_cannot_hold_its_answer_is_polled(
    scripted: Scripted, client: Client, ask: Ask, pace: Steps
) -> None:
    """At the interval that was asked for; the hosted product's services know no claims, so `approved` is one."""
    asked = Answer(202, {"status": "requested", "audit_event_id": "evt_1", "approval_id": "apr_1"})
    still, done = Answer(200, {"status": "pending"}), Answer(200, {"status": "approved"})
    service = scripted(asked, still, Answer(200, {"status": "escalated"}), still, done)
    result = ask(client(service.url, gate_poll_interval_ms=7000), "gate", "ask")
    assert (result.status, result.claim, result.audit_event_id) == ("executed", "started", "evt_1")
    assert pace.slept == [7.0, 7.0, 7.0]


@pytest.mark.parametrize(
    ("status", "result", "reason"),
    [("denied", "denied", "DENIED_BY_REVIEWER"), ("timed_out", "timed_out", "approval_timeout")],
)
def test_what_a_service_without_claims_decided_is_told_alike(
    scripted: Scripted, client: Client, ask: Ask, status: str, result: str, reason: str
) -> None:
    """A denial by a person, and nobody in time."""
    found = ask(client(scripted(Answer(200, {"status": status})).url), "await_approval", "apr_1")
    assert (found.status, found.denial_reason, found.approval_id) == (result, reason, "apr_1")


def test_a_service_that_holds_its_answer_is_asked_again_at_once(
    scripted: Scripted, client: Client, ask: Ask, pace: Steps
) -> None:
    """It held the request for as long as it was asked to; nothing is slept through."""
    held = Answer(200, {"status": "pending", "action": "evt_1"}, after=lambda: pace.sleep(25))
    service = scripted(
        held, held, Answer(200, {"status": "approved", "action": "evt_1"}), Answer(200, EXECUTED)
    )
    assert ask(client(service.url), "await_approval", "apr_1").status == "executed"
    assert pace.slept == [25, 25]
    assert [asked.path for asked in service.asked] == [
        *["/api/approvals/apr_1/status?wait=25"] * 3,
        "/api/v1/actions/evt_1/claim",
    ]


def test_a_failure_of_the_service_does_not_end_the_waiting(
    scripted: Scripted, client: Client, ask: Ask
) -> None:
    """A gate that has waited for hours outlasts a restart; a refusal ends it."""
    service = scripted(PENDING, *[CUT] * 4, *[FAILED] * 4, Answer(200, {"status": "denied"}))
    assert ask(client(service.url), "await_approval", "apr_1").status == "denied"
    refused = scripted(PENDING, Answer(404, {"error": "NOT_FOUND", "message": "there is no approval"}))
    with pytest.raises(AgentLatticeError, match="there is no approval"):
        ask(client(refused.url), "await_approval", "apr_1")
    assert len(refused.asked) == 2


def test_a_service_that_is_gone_for_good_ends_the_waiting(
    client: Client, ask: Ask, nowhere: str, pace: Steps
) -> None:
    """After ten minutes without any answer nobody waits any more."""
    with pytest.raises(AgentLatticeError) as raised:
        ask(client(nowhere), "await_approval", "apr_1")
    assert raised.value.code == "NETWORK_ERROR"
    assert 600 <= pace.now() < 700


# What the model is told


def test_a_tool_does_not_run_while_the_service_is_away(client: Client, nowhere: str) -> None:
    """The model is told NOT_RECORDED, and nothing of hosts and ports."""
    answer = ToolGate(client(nowhere)).authorize_sync(ToolCall("framework", "deploy", {"version": "1"}))
    assert isinstance(answer, Denial)
    assert answer.reason == "NOT_RECORDED"
    assert "127.0.0.1" not in answer.text


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, text=b"<html>hello</html>"),
        Answer(200, {"status": "executed"}),
        Answer(200, [1, 2]),
        Answer(200, {**EXECUTED, "audit_event_id": 7}),
        Answer(200, {**EXECUTED, "conditions_evaluated": [{"field": "x"}]}),
        Answer(302, None, {"Location": "http://127.0.0.1:9/api/v1/actions"}),
        Answer(418, {"error": 7}),
    ],
)
def test_an_answer_that_cannot_be_read_lets_nothing_run(
    scripted: Scripted, client: Client, answer: Answer
) -> None:
    """Whoever answers so is no service, and no redirect is followed."""
    service = scripted(answer)
    asked = ToolGate(client(service.url)).authorize_sync(ToolCall("framework", "deploy", {}))
    assert isinstance(asked, Denial)
    assert asked.reason == "NOT_RECORDED"
    assert len(service.asked) == 1


def test_a_newer_service_may_say_more(scripted: Scripted, client: Client, ask: Ask) -> None:
    """Members that are not known are passed over."""
    service = scripted(Answer(200, {**EXECUTED, "guidance": {"next": 1}}))
    assert ask(client(service.url), "execute", "free").status == "executed"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("NOT_FOUND", "NotFoundError"),
        ("ILLEGAL_TRANSITION", "IllegalTransitionError"),
        ("DIGEST_MISMATCH", "DigestMismatchError"),
        ("NOT_YOUR_EVENT", "NotYourEventError"),
        ("EVENT_ID_CONFLICT", "EventIdConflictError"),
        ("INVALID_POLICY", "PolicyDocumentError"),
        ("INVALID_API_KEY", "InvalidKeyError"),
        ("CIRCUIT_BREAKER_OPEN", "ForbiddenError"),
        ("AUDIT_ERROR", "AuditError"),
        ("SOMETHING_NEW", "AgentLatticeError"),
    ],
)
def test_an_error_is_the_one_that_is_raised_embedded(
    scripted: Scripted, client: Client, ask: Ask, code: str, kind: str
) -> None:
    """By its code; one that is not known keeps it. Each can cross a process."""
    body = {
        "error": code,
        "message": "this and that",
        "details": {"audit_event_id": "evt_1", "approval_id": "apr_1"},
        "problems": ["p.yaml:3:5: policies[0].effect: no effect"],
    }
    with pytest.raises(AgentLatticeError) as raised:
        ask(client(scripted(Answer(409, body)).url), "claim", "evt_1")
    assert (type(raised.value).__name__, raised.value.code) == (kind, code)
    assert pickle.loads(pickle.dumps(raised.value)).code == code


# The key


def test_the_key_is_shown_nowhere(
    client: Client, ask: Ask, nowhere: str, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    """Not by the client, its parts, an error with all it chains, or any log at its most talkative."""
    caplog.set_level(logging.DEBUG)
    refused = scripted(Answer(401, {"error": "INVALID_API_KEY", "message": "no"}))
    for url in (nowhere, refused.url):
        al = client(url)
        for name, arguments in (("execute", ("free",)), ("whoami", ()), ("subscribe", ("org_1", print))):
            with pytest.raises(AgentLatticeError) as raised:
                ask(al, name, *arguments)
            told = "".join(traceback.format_exception(raised.value)) + repr(raised.value.__dict__)
            assert KEY not in told
        assert KEY not in repr(al) + repr(al._service) + str(al._service)
    assert KEY not in caplog.text
    for wrong in (f"{KEY}\n", f"{KEY} x", f"{KEY}ü", "", None):
        with pytest.raises(InvalidRequestError) as refusal:
            AgentLattice(wrong, base_url=nowhere)  # type: ignore[arg-type]
        assert KEY not in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [None, "", "localhost:8700", "ftp://host", "https://", "https://me:secret@host", "https://host?x=1", 7],
)
def test_a_key_goes_nowhere_that_was_not_named(url: Any) -> None:
    """There is no default, and what is no address of a service is refused."""
    with pytest.raises(InvalidRequestError, match="base_url"):
        AgentLattice(KEY, base_url=url)


def test_every_request_is_made_with_the_key_and_in_json(scripted: Scripted, client: Client, ask: Ask) -> None:
    """As a bearer token, at the path below the address."""
    service = scripted(Answer(200, EXECUTED))
    ask(client(f"{service.url}/behind/a/proxy/"), "execute", "free")
    (asked,) = service.asked
    assert asked.path == "/behind/a/proxy/api/v1/actions"
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    assert asked.headers["Content-Type"] == "application/json"


# Threads, loops, processes


def test_one_client_serves_threads_and_loops(scripted: Scripted, client: Client) -> None:
    """Each event loop has connections of its own, which end with it."""
    service = scripted(Answer(200, EXECUTED))
    al = client(service.url)

    async def several() -> list[str]:
        return [result.status for result in await asyncio.gather(*(al.execute("free") for _ in range(5)))]

    threads = [threading.Thread(target=lambda: asyncio.run(several())) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert [al.execute_sync("free").status for _ in range(5)] == ["executed"] * 5
    for thread in threads:
        thread.join()
    assert asyncio.run(several()) == ["executed"] * 5
    assert len(service.asked) == 30


def test_a_forked_child_opens_connections_of_its_own(scripted: Scripted, client: Client) -> None:
    """Neither reads the other's answers, and the parent's outcomes stay the parent's."""
    service = scripted(Answer(200, EXECUTED))
    al = client(service.url)
    al.execute_sync("free")
    al.record_outcome("evt_1", "succeeded")
    child = os.fork()
    if child == 0:
        try:
            ok = al.execute_sync("free").status == "executed"
            al.record_outcome("evt_2", "succeeded")
            al.flush()
        except BaseException:
            ok = False
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert al.execute_sync("free").status == "executed"
    al.flush()
    outcomes = [asked.path for asked in service.asked if asked.path.endswith("/outcome")]
    assert sorted(outcomes) == ["/api/v1/actions/evt_1/outcome", "/api/v1/actions/evt_2/outcome"]


def test_outcomes_are_sent_in_order_and_again_while_the_service_is_away(
    scripted: Scripted, client: Client
) -> None:
    """Nobody waits for them, and none overtakes another."""
    service = scripted(CUT, CUT, Answer(202), Answer(202))
    al = client(service.url)
    for n in range(3):
        al.record_outcome(f"evt_{n}", "succeeded")
    al.flush()
    ids = [asked.path.split("/")[4] for asked in service.asked]
    assert ids == ["evt_0", "evt_0", "evt_0", "evt_1", "evt_2"]


def test_a_lost_outcome_breaks_nothing_and_is_said(
    client: Client, nowhere: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The tool has run; what could not be said of it reads `unknown`."""
    al = client(nowhere)
    al.record_outcome("evt_1", "succeeded")
    al.flush()
    assert "could not be sent" in caplog.text
