"""The client `agentlattice` from the index, unmodified: each of its methods, errors and context managers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import agentlattice as hosted
import pytest
from agentlattice import ActionOptions, AgentLattice, ReportOutcome
from service_world import ServiceWorld

import agentlattice_core

SMALL, LARGE = ActionOptions(metadata={"pr_size": 3}), ActionOptions(metadata={"pr_size": 300})


def until(find: Callable[[], Any], what: str) -> Any:
    """What `find` finds, within a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = find()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen")


def pending(world: ServiceWorld) -> str:
    """The one request that waits."""

    def find() -> Any:
        return world.as_operator("GET", "/api/v1/approvals?status=pending").json()["approvals"]

    found: str = until(find, "a request")[0]["id"]
    return found


# Registering


def test_a_service_key_registers_an_agent_that_can_act_at_once(world: ServiceWorld) -> None:
    """`register` gives a client and its configuration."""
    client, config = AgentLattice.register_sync(
        world.keys.service_key, "ci-deployer", description="deploys", base_url=world.url
    )
    assert set(config) == {"id", "name", "api_key", "created_at"}
    assert config["name"] == "ci-deployer"
    assert client.whoami_sync().config_id == config["id"]
    assert client.execute_sync("read_data").status == "executed"


@pytest.mark.parametrize("key", ["agent", "nonsense"])
def test_only_a_service_key_registers(world: ServiceWorld, key: str) -> None:
    """Another key is refused with a code that the client shows."""
    wrong = world.new_agent() if key == "agent" else "al_agent_nonsense"
    with pytest.raises(hosted.AgentLatticeError) as refused:
        AgentLattice.register_sync(wrong, "other", base_url=world.url)
    assert refused.value.code == ("FORBIDDEN" if key == "agent" else "INVALID_API_KEY")


def test_a_name_is_registered_once(world: ServiceWorld) -> None:
    """A second registration of a name does not give a second key to it."""
    world.new_agent("bot")
    with pytest.raises(hosted.AgentLatticeError) as refused:
        AgentLattice.register_sync(world.keys.service_key, "bot", base_url=world.url)
    assert refused.value.code == "ALREADY_REGISTERED"


# Acting


async def test_execute_answers_what_policy_says(world: ServiceWorld) -> None:
    """Executed, denied with conditions, requested and without a policy each come back as a result."""
    al = world.hosted()
    done = await al.execute("pr.open", SMALL)
    assert (done.status, done.policy_name) == ("executed", "PR Size")
    assert [(c.field, c.operator, c.expected, c.result) for c in done.conditions_evaluated] == [
        ("pr_size", "lt", 50, True)
    ]
    denied = await al.execute("pr.open", LARGE)
    assert (denied.status, denied.denial_reason) == ("denied", "CONDITIONS_DENIED")
    assert [c.result for c in denied.conditions_evaluated] == [False]
    asked = await al.execute("pr.merge")
    assert (asked.status, asked.policy_name) == ("requested", "Merges")
    assert asked.approval_id is not None
    assert asked.timeout_at is not None
    unknown = await al.execute("nobody.knows")
    assert unknown.status == "policy_not_found"


async def test_an_event_id_is_acted_on_once(world: ServiceWorld) -> None:
    """The same id with the same content gives the first answer, and with other content a conflict."""
    al = world.hosted()
    first = await al.execute("pr.open", ActionOptions(metadata={"pr_size": 1}, event_id="e-1"))
    again = await al.execute("pr.open", ActionOptions(metadata={"pr_size": 1}, event_id="e-1"))
    assert again == first
    with pytest.raises(hosted.AgentLatticeError) as conflict:
        await al.execute("pr.open", ActionOptions(metadata={"pr_size": 2}, event_id="e-1"))
    assert conflict.value.code == "EVENT_ID_CONFLICT"


async def test_amounts_in_metadata_count_against_a_cap(world: ServiceWorld) -> None:
    """The hosted client sends money in metadata, and limits hold for it."""
    al = world.hosted()
    options = ActionOptions(metadata={"amount": "60.00", "currency": "EUR"})
    assert (await al.execute("refund.issue", options)).status == "executed"
    assert (await al.execute("refund.issue", options)).status == "denied"


async def test_a_malformed_action_is_an_error_with_a_code(world: ServiceWorld) -> None:
    """What cannot be an action is refused as invalid."""
    al = world.hosted()
    with pytest.raises(hosted.AgentLatticeError) as refused:
        await al.execute("not an action type")
    assert refused.value.code == "INVALID_REQUEST"


async def test_gate_returns_once_an_action_may_run(world: ServiceWorld) -> None:
    """What policy allows passes, and what it denies raises with the reason, the policy and the conditions."""
    al = world.hosted()
    await al.gate("pr.open", SMALL)
    with pytest.raises(hosted.AgentLatticeDeniedError) as denied:
        await al.gate("pr.open", LARGE)
    assert (denied.value.code, denied.value.reason, denied.value.policy) == (
        "ACTION_DENIED",
        "CONDITIONS_DENIED",
        "PR Size",
    )
    assert [c.field for c in denied.value.conditions] == ["pr_size"]
    with pytest.raises(hosted.AgentLatticeError) as unknown:
        await al.gate("nobody.knows")
    assert unknown.value.code == "POLICY_NOT_FOUND"


async def test_gate_waits_for_a_person_who_approves(world: ServiceWorld) -> None:
    """The gate opens once approved, the action counts as run, and its outcome can be reported."""
    al = world.hosted()
    waiting = asyncio.create_task(al.gate("pr.merge"))
    approval = await asyncio.to_thread(pending, world)
    await asyncio.to_thread(world.decide, approval, "approve", reason="reviewed")
    await asyncio.wait_for(waiting, 60)
    (event,) = (await al.audit(action_type="pr.merge")).events
    assert event.status == "executed"
    assert (await al.report(event.id, ReportOutcome("success"))).status == "success"


async def test_gate_raises_if_a_person_denies(world: ServiceWorld) -> None:
    """A denial names the approval."""
    al = world.hosted()
    waiting = asyncio.create_task(al.gate("pr.merge"))
    approval = await asyncio.to_thread(pending, world)
    await asyncio.to_thread(world.decide, approval, "deny", reason="not today")
    with pytest.raises(hosted.AgentLatticeDeniedError) as denied:
        await asyncio.wait_for(waiting, 60)
    assert (denied.value.approval_id, denied.value.reason) == (approval, "DENIED_BY_REVIEWER")


async def test_gate_raises_if_policy_changed_since_the_approval(world: ServiceWorld) -> None:
    """A poll takes the claim, which asks policy again: what it now denies never reads `approved`."""
    al = world.hosted()
    asked = await al.execute("pr.merge")
    assert asked.approval_id is not None
    await asyncio.to_thread(world.decide, asked.approval_id, "approve")
    document = {"yaml": "version: 1\npolicies: [{name: Merges, action: pr.merge, effect: deny}]"}
    changed = await asyncio.to_thread(world.as_operator, "PUT", "/api/v1/policies/document", document)
    assert changed.status_code == 200, changed.text
    key = al._api_key
    for _ in range(2):
        answer = await asyncio.to_thread(world.call, key, "GET", f"/api/approvals/{asked.approval_id}/status")
        assert answer.json()["status"] == "denied"


async def test_gate_gives_up_after_its_own_patience(world: ServiceWorld) -> None:
    """The client's own timeout, and the approval's deadline, both read as a timeout."""
    al = world.hosted(gate_poll_timeout_ms=150)
    with pytest.raises(hosted.AgentLatticeTimeoutError) as late:
        await al.gate("pr.merge")
    assert late.value.code == "APPROVAL_TIMEOUT"


def test_gate_sync_blocks_until_decided(world: ServiceWorld) -> None:
    """The blocking twin does the same."""
    al, ended = world.hosted(), threading.Event()

    def gate() -> None:
        al.gate_sync("pr.merge")
        ended.set()

    thread = threading.Thread(target=gate)
    thread.start()
    world.decide(pending(world), "approve")
    thread.join(60)
    assert ended.is_set()


# Looking


async def test_whoami_tells_identity_policies_and_delegations(world: ServiceWorld) -> None:
    """An agent learns who it is, what governs it and what it delegated."""
    al = world.hosted()
    async with al.delegate("reader", capabilities=["read_data"], ttl=60):
        me = await al.whoami()
    assert (me.name, me.org_id, me.is_active, me.cb_state) == ("bot", world.org_id, True, "MONITORING")
    assert {"Merges", "PR Size"} <= {policy.name for policy in me.policies}
    assert [entry.scope for entry in me.delegations["as_parent"]] == [{"action_types": ["read_data"]}]


async def test_policies_are_listed_for_the_agent_and_for_the_organisation(world: ServiceWorld) -> None:
    """Both scopes answer, each saying which it is."""
    al = world.hosted()
    own, everybodys = await al.policies(), await al.policies(scope="org")
    assert (own.scope, everybodys.scope) == ("own", "org")
    merges = next(policy for policy in everybodys.policies if policy.name == "Merges")
    assert (merges.action_type, merges.approval_required, merges.version) == ("pr.merge", True, 1)
    with pytest.raises(hosted.AgentLatticeError) as refused:
        await al.policies(scope="galaxy")
    assert refused.value.code == "INVALID_REQUEST"


async def test_can_i_records_nothing(world: ServiceWorld) -> None:
    """A dry run tells allowed, needs approval and denied apart, and leaves no trace."""
    al = world.hosted()
    assert (await al.can_i("read_data")).allowed
    assert (await al.can_i("pr.merge")).needs_approval
    denied = await al.can_i("secret.read")
    assert (denied.allowed, denied.needs_approval, denied.policy_name) == (False, False, "Secrets")
    assert (await al.audit()).events == []


async def test_the_audit_trail_is_paged_and_filtered(world: ServiceWorld) -> None:
    """Newest first, by type, page by page to the end, and an agent's own only."""
    al, other = world.hosted(), world.hosted(world.new_agent("other"))
    for size in range(5):
        await al.execute(
            "pr.open", ActionOptions(metadata={"pr_size": size, "repo": "acme/web", "pr_number": 7})
        )
    await al.execute("read_data", ActionOptions(data_accessed=[{"type": "db", "count": 2}]))
    await other.execute("read_data")
    everything = (await al.audit()).events
    assert [event.action_type for event in everything] == ["read_data", *["pr.open"] * 5]
    assert everything[0].data_accessed == [{"type": "db", "count": 2}]
    assert (everything[1].repo, everything[1].pr_number) == ("acme/web", 7)
    found, cursor = [], None
    while True:
        page = await al.audit(cursor=cursor, limit=2, action_type="pr.open")
        found += page.events
        cursor = page.next_cursor
        if cursor is None:
            break
    assert [event.id for event in found] == [event.id for event in everything[1:]]


async def test_verify_says_that_the_log_is_whole(world: ServiceWorld) -> None:
    """The chain is valid, through the last row."""
    al = world.hosted()
    await al.execute("read_data")
    found = await al.verify()
    assert (found.org_id, found.chain_valid, found.first_broken_at_row_id) == (world.org_id, True, None)
    assert found.verified_through_row > 0


async def test_posture_is_scored_by_component(world: ServiceWorld) -> None:
    """Each component has a score of at most its maximum."""
    al = world.hosted()
    await al.execute("read_data")
    found = await al.posture()
    assert 0 <= found.score <= 100
    assert found.components
    assert all(0 <= one.score <= one.max for one in found.components.values())


async def test_the_last_report_on_an_action_counts(world: ServiceWorld) -> None:
    """An outcome is recorded with its message and data, and can be corrected."""
    al = world.hosted()
    done = await al.execute("read_data")
    first = await al.report(done.audit_event_id, ReportOutcome("partial", "half", {"rows": 3}))
    assert (first.audit_event_id, first.status) == (done.audit_event_id, "partial")
    assert (await al.report(done.audit_event_id, ReportOutcome("success"))).status == "success"


async def test_an_agent_reports_only_on_its_own_actions(world: ServiceWorld) -> None:
    """Another agent's action is refused by name, and one that is not there is not found."""
    al, other = world.hosted(), world.hosted(world.new_agent("other"))
    done = await al.execute("read_data")
    with pytest.raises(hosted.AgentLatticeError) as refused:
        await other.report(done.audit_event_id, ReportOutcome("success"))
    assert refused.value.code == "NOT_YOUR_EVENT"
    with pytest.raises(hosted.AgentLatticeError) as missing:
        await al.report("evt_0000000000ff00000000000000000000", ReportOutcome("success"))
    assert missing.value.code == "NOT_FOUND"


# Delegating


async def test_a_child_may_do_what_was_passed_on_and_nothing_else(world: ServiceWorld) -> None:
    """Within its capabilities it acts and gates, beyond them it is denied, and after the block it may do nothing."""
    al = world.hosted()
    async with al.delegate("reader", capabilities=["read_data"], ttl=60) as child:
        assert (await child.execute("read_data")).status == "executed"
        await child.gate("read_data")
        with pytest.raises(hosted.AgentLatticeDeniedError) as denied:
            await child.gate("write_results")
        assert denied.value.reason == "OUT_OF_SCOPE"
    assert (await child.execute("read_data")).status == "denied"
    (ended,) = (await al.delegations(role="parent", active_only=False)).delegations
    assert not ended.active
    assert (await al.delegations(role="parent")).delegations == []


async def test_a_child_delegates_less_than_it_holds(world: ServiceWorld) -> None:
    """A chain narrows; what a child does not hold it cannot pass on."""
    al = world.hosted()
    async with al.delegate("reader", capabilities=["read_data", "write_results"], ttl=60) as child:
        async with child.delegate("sub", capabilities=["read_data"], ttl=30) as grandchild:
            assert (await grandchild.execute("read_data")).status == "executed"
            assert (await grandchild.execute("write_results")).status == "denied"
        with pytest.raises(hosted.AgentLatticeError) as refused:
            async with child.delegate("sub", capabilities=["secret.read"], ttl=30):
                pass
    assert refused.value.code == "FORBIDDEN"


def test_delegation_works_without_a_loop(world: ServiceWorld) -> None:
    """The blocking twins of delegating, alone and in parallel."""
    al = world.hosted()
    with al.delegate_sync("reader", capabilities=["read_data"], ttl=60) as child:
        assert child.execute_sync("read_data").status == "executed"
        child.gate_sync("read_data")
    with AgentLattice.parallel_sync(
        al.delegate("one", capabilities=["read_data"], ttl=60),
        al.delegate("two", capabilities=["write_results"], ttl=60),
    ) as (one, two):
        assert one.execute_sync("read_data").status == "executed"
        assert two.execute_sync("write_results").status == "executed"
    assert al.delegations_sync(role="parent").delegations == []


async def test_parallel_children_begin_and_end_together(world: ServiceWorld) -> None:
    """All of them act at once, and none is left."""
    al = world.hosted()
    names = [f"reader-{n}" for n in range(4)]
    blocks = [al.delegate(name, capabilities=["read_data"], ttl=60) for name in names]
    async with AgentLattice.parallel(*blocks) as children:
        results = await asyncio.gather(*(child.execute("read_data") for child in children))
    assert {result.status for result in results} == {"executed"}
    assert (await al.delegations(role="parent")).delegations == []


async def test_a_revoked_child_may_do_nothing(world: ServiceWorld) -> None:
    """`revoke` ends it at once; what is not there is not found."""
    al = world.hosted()
    async with al.delegate("reader", capabilities=["read_data"], ttl=60) as child:
        (entry,) = (await al.delegations(role="parent")).delegations
        found = await al.revoke(entry.id)
        assert (found.revoked, found.delegation_id) == (True, entry.id)
        assert (await child.execute("read_data")).status == "denied"
    with pytest.raises(hosted.AgentLatticeError) as missing:
        await al.revoke("del_nothing")
    assert missing.value.code == "NOT_FOUND"


# Keys


async def test_a_revoked_key_does_nothing(world: ServiceWorld) -> None:
    """From the revocation on, whatever its holder asks for is refused, a retry of what was done before included."""
    answer = world.as_service("POST", "/api/agents/register", {"name": "bot"}).json()
    al = world.hosted(answer["api_key"])
    options = ActionOptions(event_id="e-1")
    assert (await al.execute("read_data", options)).status == "executed"
    ended = await asyncio.to_thread(world.as_service, "DELETE", f"/api/v1/keys/{answer['key_id']}")
    assert ended.status_code == 200
    for call in (al.execute("read_data"), al.execute("read_data", options), al.whoami(), al.audit()):
        with pytest.raises(hosted.AgentLatticeError) as refused:
            await call
        assert refused.value.code == "INVALID_API_KEY"


# Following


async def following(al: hosted.AgentLattice, world: ServiceWorld, heard: list[Any], **options: Any) -> None:
    """Have `heard` filled with notifications. The client does not say when it has been let in; the service's answer
    does.
    """
    await al.subscribe(world.org_id, heard.append, **options)
    joined, read = asyncio.Event(), al._realtime._handle_message

    def handle(message: dict[str, Any]) -> None:
        if message.get("event") == "phx_reply":
            joined.set()
        read(message)

    al._realtime._handle_message = (
        handle  # nothing was received yet: its reader begins with the next step of the loop
    )
    await asyncio.wait_for(joined.wait(), 60)


async def until_heard(heard: list[Any]) -> None:
    """Return once something was."""
    async with asyncio.timeout(60):
        while not heard:
            await asyncio.sleep(0.05)


async def test_notifications_arrive_as_they_happen(world: ServiceWorld) -> None:
    """Subscribed, a client hears of its actions, by type if it asks, until it unsubscribes."""
    al, heard = world.hosted(), []
    await following(al, world, heard, events=["action.denied", "policy.changed"])
    await al.execute("read_data")
    await al.execute("secret.read")
    await until_heard(heard)
    assert [(event.event_type, event.org_id) for event in heard] == [("action.denied", world.org_id)]
    assert heard[0].data["action_type"] == "secret.read"
    await al.unsubscribe()
    await al.execute("secret.read")
    await asyncio.sleep(0.3)
    assert len(heard) == 1


async def test_an_agent_hears_of_nobody_elses_actions(world: ServiceWorld) -> None:
    """What another agent does is not told to it."""
    al, other, heard = world.hosted(), world.hosted(world.new_agent("other")), []
    await following(al, world, heard)
    await other.execute("secret.read")
    await al.execute("read_data")
    await until_heard(heard)
    await al.unsubscribe()
    assert [event.event_type for event in heard] == ["action.executed"]


def test_code_written_for_it_needs_one_changed_import() -> None:
    """Every name that it exports, those for annotations too, is exported here."""
    assert set(hosted.__all__) - set(agentlattice_core.__all__) == set()
    delegate = agentlattice_core.Delegate
    for name in ("DelegationContext", "SyncDelegationContext"):
        assert getattr(agentlattice_core, name) is delegate
