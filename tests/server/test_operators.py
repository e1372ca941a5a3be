"""What operators do over HTTP: deciding, people, policy, the log."""

from __future__ import annotations

from typing import Any

from service_world import ServiceWorld

from agentlattice_core.audit.export import verify_export
from agentlattice_core.audit.note import VerifierKey
from agentlattice_core.audit.proof import verify_proof


def asked(world: ServiceWorld, key: str, count: int = 1) -> list[dict[str, Any]]:
    """Requests that wait."""
    return [
        world.call(
            key, "POST", "/api/v1/actions", {"action_type": "pr.merge", "metadata": {"pr_number": n}}
        ).json()
        for n in range(count)
    ]


def test_a_request_is_seen_decided_once_and_then_no_more_pending(world: ServiceWorld) -> None:
    """It shows what was asked, is decided with the digest that was shown, and a second decision is a conflict."""
    (request,) = asked(world, world.new_agent())
    (seen,) = world.as_operator("GET", "/api/v1/approvals?status=pending").json()["approvals"]
    assert (seen["id"], seen["action_type"], seen["agent"], seen["metadata"]) == (
        request["approval_id"],
        "pr.merge",
        "bot",
        {"pr_number": 0},
    )
    path = f"/api/v1/approvals/{seen['id']}"
    assert world.as_operator("GET", path).json() == seen
    wrong = world.as_operator("POST", f"{path}/approve", {"digest": "0" * 64})
    assert (wrong.status_code, wrong.json()["error"]) == (409, "DIGEST_MISMATCH")
    done = world.as_operator("POST", f"{path}/approve", {"digest": seen["digest"], "reason": "fine"}).json()
    assert (done["status"], done["resolved_by"]) == ("approved", "bootstrap")
    again = world.as_operator("POST", f"{path}/deny", {})
    assert (again.status_code, again.json()["error"]) == (409, "ILLEGAL_TRANSITION")
    assert again.headers["content-type"] == "application/problem+json"
    assert world.as_operator("GET", "/api/v1/approvals").json()["approvals"] == []
    (found,) = world.as_operator("GET", "/api/v1/approvals?status=approved").json()["approvals"]
    assert found["reason"] == "fine"


def test_requests_are_paged_without_gaps(world: ServiceWorld) -> None:
    """Page by page each request comes once, in the order of deadlines, also if one is decided in between."""
    requests = asked(world, world.new_agent(), 7)
    found: list[str] = []
    cursor = ""
    while True:
        page = world.as_operator("GET", f"/api/v1/approvals?limit=2{cursor}").json()
        found += [one["id"] for one in page["approvals"]]
        if len(found) == 4:
            world.decide(found[0], "approve")
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == [one["approval_id"] for one in requests]


def test_an_agent_takes_its_request_back(world: ServiceWorld) -> None:
    """Cancelled by whoever asked it reads denied, and by nobody else is it cancelled."""
    key, other = world.new_agent(), world.new_agent("other")
    (request,) = asked(world, key)
    path = f"/api/v1/approvals/{request['approval_id']}/cancel"
    assert world.call(other, "POST", path, {}).json()["error"] == "NOT_YOUR_EVENT"
    assert world.call(key, "POST", path, {"reason": "not needed"}).status_code == 204
    status = world.call(key, "GET", f"/api/approvals/{request['approval_id']}/status").json()
    assert status["status"] == "denied"


def test_whoever_waits_is_answered_as_soon_as_it_is_decided(world: ServiceWorld) -> None:
    """A long poll answers with the decision and claims nothing; the claim is the client's to take, once."""
    from concurrent.futures import ThreadPoolExecutor

    key = world.new_agent()
    (request,) = asked(world, key)
    path = f"/api/approvals/{request['approval_id']}/status"
    assert world.call(key, "GET", f"{path}?wait=0").json()["status"] == "pending"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(world.call, key, "GET", f"{path}?wait=30")
        world.decide(request["approval_id"], "approve")
        answer = waiting.result(60).json()
    assert (answer["status"], answer["action"]) == ("approved", request["audit_event_id"])
    claim = f"/api/v1/actions/{request['audit_event_id']}/claim"
    assert world.call(key, "POST", claim, {}).json()["claim"] == "started"
    assert world.call(key, "POST", claim, {}).status_code == 409
    assert world.call(key, "GET", f"{path}?wait=0").json()["status"] == "approved"


def test_an_outcome_and_an_abandoned_admission_are_recorded(world: ServiceWorld) -> None:
    """A claim that succeeded reads so; one that was given back has lapsed."""
    key = world.new_agent()
    action = {"action_type": "read_data"}
    ran, gone = (
        world.call(key, "POST", "/api/v1/actions", action).json()["audit_event_id"] for _ in range(2)
    )
    outcome = world.call(
        key, "POST", f"/api/v1/actions/{ran}/outcome", {"claim": "succeeded", "message": "ok"}
    )
    assert outcome.status_code == 202
    assert world.call(key, "POST", f"/api/v1/actions/{gone}/abandon", {}).status_code == 204
    world.engine.flush()
    events = {one["id"]: one for one in world.as_operator("GET", "/api/v1/audit").json()["events"]}
    assert (events[ran]["claim"], events[gone]["claim"]) == ("succeeded", "lapsed")


def test_an_action_is_known_by_the_nonce_of_whoever_asked(world: ServiceWorld) -> None:
    """A retry of an answer that was lost finds its own action by how its id ends; a malformed nonce is refused."""
    key, nonce = world.new_agent(), "0123456789abcdef0123"
    headers = {"X-AL-Event-ID": "e-1", "X-AL-Nonce": nonce}
    action = {"action_type": "read_data"}
    first = world.call(key, "POST", "/api/v1/actions", action, headers=headers)
    again = world.call(key, "POST", "/api/v1/actions", action, headers=headers)
    assert (first.status_code, again.status_code) == (200, 409)
    assert first.json()["audit_event_id"].endswith(nonce)
    assert again.json()["audit_event_id"] == first.json()["audit_event_id"]
    wrong = world.call(key, "POST", "/api/v1/actions", action, headers={"X-AL-Nonce": "z" * 20})
    assert wrong.json()["error"] == "INVALID_REQUEST"


def test_policy_is_rehearsed_simulated_and_put_into_force(world: ServiceWorld) -> None:
    """What a document would do is said before, nothing of it happens, and then it does."""
    key = world.new_agent()
    asked(world, key)
    world.call(key, "POST", "/api/v1/actions", {"action_type": "read_data"})
    text = "version: 1\npolicies:\n  - {name: Merges, action: pr.merge, effect: allow}\n"
    rehearsed = world.as_operator("POST", "/api/v1/policies/rehearse", {"yaml": text}).json()
    assert (rehearsed["changed"], len(rehearsed["approved"])) == (["policy/merges"], 1)
    simulated = world.as_operator("POST", "/api/v1/policies/simulate", {"yaml": text}).json()
    assert simulated["new_denials"] == 1
    assert len(world.as_operator("GET", "/api/v1/approvals").json()["approvals"]) == 1
    done = world.as_operator("PUT", "/api/v1/policies/document", {"yaml": text}).json()
    assert done["changed"] == ["policy/merges"]
    assert world.as_operator("GET", "/api/v1/approvals").json()["approvals"] == []
    parts = {
        one["part"]: one for one in world.as_operator("GET", "/api/v1/policies/document").json()["parts"]
    }
    assert (parts["policy/merges"]["version"], parts["policy/merges"]["content"]["effect"]) == (2, "allow")


def test_a_wrong_document_is_refused_with_every_problem(world: ServiceWorld) -> None:
    """Each problem names its line; nothing is published."""
    text = (
        "version: 1\npolicies:\n  - {name: A, action: 'x y', effect: allow}\n  - {name: B, effect: maybe}\n"
    )
    answer = world.as_operator("PUT", "/api/v1/policies/document", {"yaml": text, "name": "mine.yaml"})
    assert (answer.status_code, answer.json()["error"]) == (422, "INVALID_POLICY")
    problems = answer.json()["problems"]
    assert len(problems) > 1
    assert all(problem.startswith("mine.yaml:") for problem in problems)


def test_a_configuration_is_exported_and_imported_elsewhere(world: ServiceWorld) -> None:
    """Into the same organisation it changes nothing; after a change it says which part is modified and which added."""
    world.new_agent("bot", tags=["ci"])
    document = world.as_service("GET", "/api/v1/export").json()
    same = world.as_service("POST", "/api/v1/import", {"document": document}).json()
    assert (same["added"], same["modified"]) == ([], [])
    assert "agent/bot" in same["unchanged"]
    document["agents"]["bot"]["tags"] = ["cd"]
    document["agents"]["new"] = {"tags": [], "grants": [], "owner": None}
    document["policies"]["policy/reading"]["effect"] = "deny"
    for dry in (True, False):
        found = world.as_service("POST", "/api/v1/import", {"document": document, "dry_run": dry}).json()
        assert found["added"] == ["agent/new"]
        assert sorted(found["modified"]) == ["agent/bot", "policy/reading"]
    again = world.as_service("POST", "/api/v1/import", {"document": document}).json()
    assert (again["added"], again["modified"]) == ([], [])
    key = world.as_service("POST", "/api/v1/keys", {"kind": "agent", "holder": "new"}).json()["text"]
    denied = world.call(key, "POST", "/api/v1/actions", {"action_type": "read_data"}).json()
    assert denied["denial_reason"] == "POLICY_DENIED"


def test_the_log_is_proved_to_whoever_has_the_public_key(world: ServiceWorld) -> None:
    """An export, a proof of one action and a checkpoint verify with the key that was published."""
    key = world.new_agent()
    event = world.call(key, "POST", "/api/v1/actions", {"action_type": "read_data"}).json()["audit_event_id"]
    public = VerifierKey.parse(world.as_operator("GET", "/api/v1/audit/key").json()["verifier_key"])
    exported = world.as_operator("GET", "/api/v1/audit/export")
    assert exported.headers["content-type"].startswith("application/jsonl")
    report = verify_export(exported.content.splitlines(keepends=True), public)
    assert report.ok
    proof = world.as_operator("GET", f"/api/v1/audit/proof/{event}").content
    assert verify_proof(proof.removesuffix(b"\n"), public).entry.id == event
    note = world.as_operator("POST", "/api/v1/audit/checkpoint", {}).json()["checkpoint"]
    verified = world.as_operator("GET", "/api/v1/audit/verify", params={"checkpoint": note}).json()
    assert (verified["chain_valid"], verified["verified_from_checkpoint"]) == (True, False)
    wrong = world.as_operator("GET", "/api/v1/audit/verify", params={"checkpoint": "not a note"})
    assert wrong.status_code == 422


def test_an_administrator_erases_what_may_be_personal(world: ServiceWorld) -> None:
    """The payload is gone, the entry stays, and the log verifies."""
    key = world.new_agent()
    action = {"action_type": "read_data", "metadata": {"who": "a person"}}
    event = world.call(key, "POST", "/api/v1/actions", action).json()["audit_event_id"]
    index = int(event[4:16], 16)
    erased = world.as_operator("POST", "/api/v1/audit/erase", {"indexes": [index], "reason": "asked to"})
    assert erased.json() == {"erased": 1}
    (found,) = world.as_operator("GET", "/api/v1/audit").json()["events"]
    assert (found["erased"], found["metadata"]) == (True, {})
    assert world.as_operator("GET", "/api/v1/audit/verify").json()["chain_valid"]


def test_agents_and_people_are_listed(world: ServiceWorld) -> None:
    """Each with what is said of them, in pages."""
    for name in ("one", "three", "two"):
        world.new_agent(name, owner="alice", tags=["x"])
    page = world.as_operator("GET", "/api/v1/agents?limit=2").json()
    assert [one["name"] for one in page["agents"]] == ["one", "three"]
    assert page["agents"][0]["owner"] == "alice"
    rest = world.as_operator("GET", f"/api/v1/agents?limit=2&cursor={page['next_cursor']}").json()
    assert ([one["name"] for one in rest["agents"]], rest["next_cursor"]) == (["two"], None)
    changed = world.as_service("PUT", "/api/v1/agents/one", {"tags": ["y"]}).json()
    assert (changed["tags"], changed["owner"]) == (["y"], "alice")
    assert world.as_service("PUT", "/api/v1/agents/nobody", {"tags": ["y"]}).status_code == 404
    world.new_operator("alice", "viewer", groups=["dba"])
    people = world.as_operator("GET", "/api/v1/operators").json()["operators"]
    assert people == [
        {"name": "alice", "role": "viewer", "groups": ["dba"]},
        {"name": "bootstrap", "role": "admin", "groups": []},
    ]
