"""What is sent for each method and what is made of the answer, replayed from a cassette of a real service.

`RECORD_WIRE=1 pytest -n0` on this file records it anew. A change of the cassette is a change of the wire.
"""

from __future__ import annotations

import json
import os
import re
import string
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import vcr
from client_world import POLICIES, RunningService

from agentlattice_core import AgentLattice, NotFoundError, ReportOutcome
from agentlattice_core.testing import ManualClock

CASSETTE = Path(__file__).resolve().parent / "cassettes" / "every_method.yaml"
RECORD = bool(os.environ.get("RECORD_WIRE"))
_KEY = re.compile(rb"al_(agent|svc|op)_[A-Za-z0-9_.\-]+_[0-9A-Za-z]{38}")
_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase


def _made_up(kind: str) -> str:
    """A key that nobody was given, of the shape that keys have."""
    text = f"al_{kind}_org_replayed_{'0' * 32}"
    number, checksum = zlib.crc32(text.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, len(_DIGITS))
        checksum = _DIGITS[digit] + checksum
    return text + checksum


def _bare(request: Any) -> Any:
    """A request without what differs each time: port, headers but the kind of its body, and the time it was made."""
    request.uri = re.sub(r"^http://[^/]+", "http://service", request.uri)
    request.headers = {"content-type": request.headers.get("content-type", "")}
    if request.body:
        body = json.loads(request.body)
        if "timestamp" in body:
            body["timestamp"] = "2026-03-02T09:00:00Z"
        request.body = json.dumps(body, sort_keys=True).encode()
    return request


def _plain(response: Any) -> Any:
    """An answer without keys and headers."""
    response["headers"] = {"content-type": ["application/json"]}
    response["body"]["string"] = _KEY.sub(
        lambda found: _made_up(found[1].decode()).encode(), response["body"]["string"]
    )
    return response


@contextmanager
def the_service(directory: Path) -> Iterator[tuple[str, str, str]]:
    """Its address, a service key and an operator's key; nobody listens there unless it is recorded."""
    recorder = vcr.VCR(
        record_mode=vcr.mode.ALL if RECORD else vcr.mode.NONE,
        match_on=("method", "path", "query", "body"),
        before_record_request=_bare,
        before_record_response=_plain,
        decode_compressed_response=True,
    )
    with ExitStack() as stack:
        found = ("http://127.0.0.1:9", _made_up("svc"), _made_up("op"))
        if RECORD:
            CASSETTE.unlink(missing_ok=True)
            service = RunningService(directory, ManualClock())
            stack.callback(service.stop)
            found = (service.url, service.keys.service_key, service.keys.operator_key)
        cassette = stack.enter_context(recorder.use_cassette(str(CASSETTE), allow_playback_repeats=False))
        yield found
        if not RECORD:
            assert cassette.all_played


def test_every_method_sends_what_was_recorded_and_reads_what_was_answered(tmp_path: Path) -> None:
    """Method, path, query and body of each request, in order, and the members of each answer that matter."""
    with (
        the_service(tmp_path) as (url, service_key, operator_key),
        AgentLattice(service_key, base_url=url) as registrar,
        AgentLattice(operator_key, base_url=url) as root,
    ):
        assert root.apply_policies_sync(POLICIES, prune=True)
        assert not root.rehearse_policies_sync(POLICIES).changed
        root.register_operator_sync("ana", role="member", groups=["dba"])
        assert [person.name for person in root.operators_sync()] == ["ana", "bootstrap"]
        with registrar.for_agent("bob", tags=["eu"], owner="ana") as al:
            _act(al, root)
            _look(al, root)
            _delegate(al)
        root.remove_operator_sync("ana")
        with pytest.raises(NotFoundError):
            root.remove_operator_sync("ana")


def _act(al: AgentLattice, root: AgentLattice) -> None:
    done = al.execute_sync(
        "free",
        event_id="one",
        data_accessed=[{"type": "source_code", "count": 2, "sensitivity": "low"}],
        metadata={"n": 1},
        amount="12.50",
        currency="EUR",
        beneficiary="acme",
        category="parts",
        on_behalf_of="grace",
        context={"thread": "t1"},
        trusted=["amount"],
    )
    assert (done.status, done.claim) == ("executed", "started")
    al.record_outcome(done.audit_event_id, "succeeded", "it went well")
    al.flush()
    assert (
        al.report_sync(done.audit_event_id, ReportOutcome("partial", "most", {"rows": 3})).status == "partial"
    )
    denied = al.execute_sync("pr.open", metadata={"pr_size": 60}, event_id="two")
    assert [each.actual for each in denied.conditions_evaluated] == [60]
    assert al.record_refusal_sync("free", "INVALID_ARGUMENTS", "no json", {"tool": "x"}).status == "denied"
    asked = al.execute_sync("ask", event_id="three")
    assert asked.approval_id is not None
    assert asked.timeout_at is not None
    assert al.approval_status_sync(asked.approval_id) == "pending"
    (shown,) = root.list_pending_approvals_sync()
    assert root.approve_action_sync(shown.id, "fine", digest=shown.digest).resolved_by == "bootstrap"
    assert al.await_approval_sync(asked.approval_id, 60).claim == "started"
    other = al.execute_sync("ask", event_id="four")
    assert root.deny_action_sync(other.approval_id or "", "no").status == "denied"
    al.cancel_sync(al.execute_sync("ask", event_id="five").audit_event_id, "no longer needed")


def _look(al: AgentLattice, root: AgentLattice) -> None:
    assert al.whoami_sync().name == "bob"
    assert al.policies_sync("org").policies
    assert al.can_i_sync("free").allowed
    assert al.can_i_sync("pr.open", metadata={"pr_size": 3}).allowed
    page = al.audit_sync(limit=2)
    assert [event.status for event in page.events]
    assert al.audit_sync(cursor=page.next_cursor, limit=200, action_type="free").events
    note = root.checkpoint_sync()
    assert al.verify_sync(note, incremental=True).chain_valid
    assert root.verifier_key()
    assert al.posture_sync().components
    with pytest.raises(NotFoundError):
        al.registry_sync("suppliers")
    assert root.erase_sync([int(page.events[0].id[4:16], 16)], "asked to") in (0, 1)


def _delegate(al: AgentLattice) -> None:
    with al.delegate_sync("reader", capabilities=["data.read"], ttl=60, run="r1") as child:
        assert child.execute_sync("data.read", event_id="six").status == "executed"
        assert al.delegations_sync(role="parent").delegations[0].active
    with al.delegate_sync("writer", capabilities=["data.write"], ttl=60) as child:
        assert al.revoke_sync(child.delegation_id).revoked


def test_the_cassette_holds_no_key() -> None:
    """What was recorded can be read by anybody."""
    found = {key[0] for key in _KEY.finditer(CASSETTE.read_bytes())}
    assert found == {_made_up("agent").encode()}
