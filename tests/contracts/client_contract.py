"""What the client promises, embedded and remote: one contract for both.

Each promise is held in both forms of a method, the coroutine function and its blocking twin.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from client_world import ClientWorld

from agentlattice_core import (
    ActionOptions,
    AgentLattice,
    AgentLatticeDeniedError,
    AgentLatticeError,
    AgentLatticeTimeoutError,
    DigestMismatchError,
    EventIdConflictError,
    ForbiddenError,
    IllegalTransitionError,
    InvalidRequestError,
    NotFoundError,
    NotYourEventError,
    PolicyDocumentError,
    ReportOutcome,
    StoreError,
)

__all__ = ["ClientContract"]

Ask = Callable[..., Any]


@contextmanager
def beside(work: Callable[[], Any]) -> Iterator[None]:
    """`work` on another thread while the block runs; what it raises is raised when the block ends."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        yield
        done.result()


def first_pending(operator: AgentLattice) -> str:
    """The id of a request, once there is one."""
    while True:
        found = operator.list_pending_approvals_sync()
        if found:
            return found[0].id


class ClientContract:
    """Subclasses give a `world`."""

    @pytest.fixture(params=["sync", "async"])
    def ask(self, request: pytest.FixtureRequest) -> Ask:
        """Calls a method by name, in one of its two forms; the async one from a loop of its own."""

        def call(client: AgentLattice, name: str, *args: Any, **options: Any) -> Any:
            if request.param == "sync":
                return getattr(client, f"{name}_sync")(*args, **options)

            async def run() -> Any:
                return await getattr(client, name)(*args, **options)

            return asyncio.run(run())

        return call

    # Acting

    def test_an_allowed_action_is_recorded_and_claimed_by_who_asked(
        self, world: ClientWorld, ask: Ask
    ) -> None:
        """`executed` comes with the claim, the policy that allowed it, and an entry of the audit trail."""
        al = world.agent()
        result = ask(al, "execute", "free", metadata={"n": 1})
        assert (result.status, result.claim, result.policy_name) == ("executed", "started", "Free")
        assert result.may_run
        assert not result.replayed
        (event,) = ask(al, "audit").events
        assert (event.id, event.action_type, event.metadata) == (result.audit_event_id, "free", {"n": 1})

    def test_a_denial_says_which_condition_failed_and_on_what(self, world: ClientWorld, ask: Ask) -> None:
        """Every evaluated condition comes back with what was expected and what there was."""
        result = ask(world.agent(), "execute", "pr.open", ActionOptions(metadata={"pr_size": 60}))
        assert (result.status, result.denial_reason, result.policy_name) == (
            "denied",
            "CONDITIONS_DENIED",
            "PR Size",
        )
        (condition,) = result.conditions_evaluated
        assert (condition.field, condition.operator, condition.expected, condition.result) == (
            "pr_size",
            "lt",
            50,
            False,
        )
        assert condition.actual == 60

    def test_what_no_policy_covers_does_not_run(self, world: ClientWorld, ask: Ask) -> None:
        """`execute` answers `policy_not_found`, and `gate` raises it as a code."""
        al = world.agent()
        assert ask(al, "execute", "nobody.knows").status == "policy_not_found"
        with pytest.raises(AgentLatticeError) as raised:
            ask(al, "gate", "nobody.knows")
        assert raised.value.code == "POLICY_NOT_FOUND"

    def test_gate_raises_what_was_denied_with_everything_known_about_it(
        self, world: ClientWorld, ask: Ask
    ) -> None:
        """Reason, policy, conditions and the action's id are on the error; no person is named."""
        al = world.agent()
        with pytest.raises(AgentLatticeDeniedError) as raised:
            ask(al, "gate", "pr.open", metadata={"pr_size": 60})
        error = raised.value
        assert (error.reason, error.policy, error.approval_id) == ("CONDITIONS_DENIED", "PR Size", None)
        assert [each.result for each in error.conditions] == [False]
        assert error.audit_event_id == ask(al, "audit").events[0].id

    def test_one_event_id_is_one_action(self, world: ClientWorld, ask: Ask) -> None:
        """The same id with the same content is answered again, `replayed`, and never runs twice; with other content it
        is a conflict that names both.
        """
        al = world.agent()
        first = ask(al, "execute", "free", metadata={"n": 1}, event_id="one/ü %41")
        again = ask(al, "execute", "free", metadata={"n": 1}, event_id="one/ü %41")
        assert (first.replayed, again.replayed) == (False, True)
        assert again.audit_event_id == first.audit_event_id
        with pytest.raises(AgentLatticeDeniedError, match="at most once"):
            ask(al, "gate", "free", metadata={"n": 1}, event_id="one/ü %41")
        with pytest.raises(EventIdConflictError) as raised:
            ask(al, "execute", "free", metadata={"n": 2}, event_id="one/ü %41")
        assert (raised.value.event_id, raised.value.audit_event_id) == ("one/ü %41", first.audit_event_id)
        assert len(ask(al, "audit").events) == 1

    @pytest.mark.parametrize(
        ("action_type", "fields"),
        [
            ("not a type", {}),
            ("free", {"metadata": {"x": float("nan")}}),
            ("free", {"amount": "much"}),
            ("free", {"metadata": {"text": "\ud800"}}),
            ("free", {"no_such_member": 1}),
            ("free", {"context": {"too": "x" * 20_000}}),
            ("free", {"options": {"metadata": {"x": 1}}}),
        ],
    )
    def test_what_cannot_be_an_action_is_refused_and_recorded_nowhere(
        self, world: ClientWorld, ask: Ask, action_type: str, fields: dict[str, Any]
    ) -> None:
        """InvalidRequestError names what is wrong."""
        al = world.agent()
        with pytest.raises(InvalidRequestError):
            ask(al, "execute", action_type, **fields)
        assert ask(al, "audit").events == []

    def test_amounts_are_exact_and_caps_hold_under_threads(self, world: ClientWorld) -> None:
        """Of forty threads with a tenth of the cap each, ten are let through, to the cent."""
        al = world.agent()

        def spend(_: int) -> str:
            return al.execute_sync("refund.issue", amount="10.00", currency="EUR").status

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(spend, range(40)))
        assert (answers.count("executed"), answers.count("denied")) == (10, 30)
        result = al.execute_sync("refund.issue", amount="0.01", currency="EUR")
        assert result.denial_reason == "LIMIT_EXCEEDED"
        assert [rule.type for rule in result.rules_fired] == ["DAILY_CAP"]

    def test_how_a_run_went_is_recorded_without_waiting(self, world: ClientWorld, ask: Ask) -> None:
        """After `flush` the claim reads what was said of it."""
        al = world.agent()
        result = ask(al, "execute", "free")
        al.record_outcome(result.audit_event_id, "failed", "it broke")
        al.flush()
        while ask(al, "audit").events[0].claim == "started":
            pass  # a service answers before it has written
        assert ask(al, "audit").events[0].claim == "failed"

    def test_an_attempt_that_is_no_action_is_recorded_as_denied(self, world: ClientWorld, ask: Ask) -> None:
        """A refusal is an entry like any other."""
        al = world.agent()
        result = ask(al, "record_refusal", "free", "INVALID_ARGUMENTS", "not json", {"framework": "x"})
        assert result.status == "denied"
        assert ask(al, "audit").events[0].id == result.audit_event_id

    def test_the_last_report_counts(self, world: ClientWorld, ask: Ask) -> None:
        """A report may be corrected; another agent's action and one that is not there may not be reported."""
        al, other = world.agent(), world.agent("mallory")
        action = ask(al, "execute", "free").audit_event_id
        ask(al, "report", action, ReportOutcome("failure", "no"))
        said = ask(al, "report", action, ReportOutcome("success", "yes", {"rows": 3}))
        assert (said.audit_event_id, said.status) == (action, "success")
        outcome = ask(al, "audit").events[0].outcome
        assert (outcome["status"], outcome["message"]) == ("success", "yes")
        with pytest.raises(NotYourEventError):
            ask(other, "report", action, ReportOutcome("success"))
        with pytest.raises(NotFoundError):
            ask(al, "report", "evt_00000000ffff00000000000000000000", ReportOutcome("success"))
        with pytest.raises(InvalidRequestError):
            ask(al, "report", action, ReportOutcome("splendid"))

    def test_in_observe_mode_everything_runs_and_says_what_it_would_have_been(
        self, world: ClientWorld, ask: Ask
    ) -> None:
        """The status is what enforcement would have answered."""
        al = world.agent(mode="observe")
        result = ask(al, "execute", "forbidden")
        assert (result.status, result.observed, result.may_run) == ("denied", True, True)

    async def test_a_blocking_twin_may_be_called_on_a_running_loop(self, world: ClientWorld) -> None:
        """It blocks the loop, needs none, and leaves it usable."""
        al = world.agent()
        assert al.execute_sync("free").status == "executed"
        assert (await al.execute("free")).status == "executed"
        assert al.gate_sync("free").status == "executed"

    async def test_many_tasks_ask_at_once(self, world: ClientWorld) -> None:
        """Each gets its own answer."""
        al = world.agent()
        results = await asyncio.gather(*(al.execute("free", metadata={"n": n}) for n in range(30)))
        assert len({result.audit_event_id for result in results}) == 30
        found = {event.id: event.metadata["n"] for event in (await al.audit(limit=200)).events}
        assert [found[result.audit_event_id] for result in results] == list(range(30))

    # Waiting for a person

    def test_who_waits_is_woken_by_the_decision_and_holds_the_claim(
        self, world: ClientWorld, ask: Ask
    ) -> None:
        """`gate` returns once somebody approved; nobody looks again before ten minutes have passed."""
        al, ana = world.agent(), world.operator()
        with beside(lambda: ana.approve_action_sync(first_pending(ana), "fine")):
            result = ask(al, "gate", "ask", metadata={"why": "test"})
        assert (result.status, result.claim) == ("executed", "started")
        event = ask(al, "audit").events[0]
        assert (event.id, event.approved_by) == (result.audit_event_id, "ana")

    def test_a_denial_by_a_person_says_so_and_why(self, world: ClientWorld, ask: Ask) -> None:
        """The error names the approval; the answer of `await_approval` holds the reason."""
        al, ana = world.agent(), world.operator()
        with (
            beside(lambda: ana.deny_action_sync(first_pending(ana), "not today")),
            pytest.raises(AgentLatticeDeniedError, match="not today") as raised,
        ):
            ask(al, "gate", "ask")
        assert raised.value.reason == "DENIED_BY_REVIEWER"
        assert raised.value.approval_id is not None

    def test_nobody_decides_in_time(self, world: ClientWorld, ask: Ask) -> None:
        """The request's own deadline ends the waiting, by the log's clock."""
        al, ana = world.agent(), world.operator()

        def later() -> None:
            first_pending(ana)
            world.clock.advance(hours=2)

        with beside(later), pytest.raises(AgentLatticeTimeoutError) as raised:
            ask(al, "gate", "ask")
        assert raised.value.code == "APPROVAL_TIMEOUT"

    def test_patience_ends_before_the_request_does(self, world: ClientWorld, ask: Ask) -> None:
        """`gate` gives up after its own patience; `await_approval` says that it is still pending."""
        al, ana = world.agent(gate_poll_timeout_ms=0), world.operator()
        with pytest.raises(AgentLatticeTimeoutError) as raised:
            ask(al, "gate", "ask")
        approval_id = raised.value.approval_id
        assert ask(al, "await_approval", approval_id, 0).status == "requested"
        assert ask(al, "approval_status", approval_id) == "pending"
        assert [request.id for request in ask(ana, "list_pending_approvals")] == [approval_id]

    def test_an_approval_is_claimed_once(self, world: ClientWorld, ask: Ask) -> None:
        """Before the decision a claim answers `requested`; after it one caller gets it, and the next one an error."""
        al, ana = world.agent(), world.operator()
        asked = ask(al, "execute", "ask")
        assert ask(al, "claim", asked.audit_event_id).status == "requested"
        ask(ana, "approve_action", asked.approval_id)
        assert ask(al, "approval_status", asked.approval_id) == "approved"
        assert ask(al, "claim", asked.audit_event_id).claim == "started"
        with pytest.raises(IllegalTransitionError):
            ask(al, "claim", asked.audit_event_id)

    def test_a_request_is_taken_back_once(self, world: ClientWorld, ask: Ask) -> None:
        """Nobody decides on it in vain, and what was decided cannot be taken back."""
        al, ana = world.agent(), world.operator()
        asked = ask(al, "execute", "ask")
        ask(al, "cancel", asked.audit_event_id, "no longer needed")
        assert ask(ana, "list_pending_approvals") == []
        with pytest.raises(IllegalTransitionError):
            ask(al, "cancel", asked.audit_event_id)
        with pytest.raises(NotYourEventError):
            ask(world.agent("mallory"), "cancel", asked.audit_event_id)

    def test_what_is_not_there_is_not_found(self, world: ClientWorld, ask: Ask) -> None:
        """Approvals and actions that never were."""
        al = world.agent()
        with pytest.raises(NotFoundError):
            ask(al, "await_approval", "apr_000000000000", 1)
        with pytest.raises(NotFoundError):
            ask(al, "approval_status", "apr/../../v1/whoami")
        with pytest.raises(NotFoundError):
            ask(al, "claim", "evt_00000000ffff00000000000000000000")

    @pytest.mark.parametrize("wrong", [None, 5, b"apr", ["apr"], "\ud800"])
    def test_what_can_name_nothing_is_not_found(self, world: ClientWorld, ask: Ask, wrong: Any) -> None:
        """The caller's mistake says nothing of the log, which is neither broken nor unwritable."""
        al, ana = world.agent(), world.operator()
        asked = ask(al, "execute", "ask")
        for client, method in (
            (al, "await_approval"),
            (al, "approval_status"),
            (al, "claim"),
            (al, "cancel"),
            (al, "revoke"),
            (al, "registry"),
            (ana, "approve_action"),
            (ana, "deny_action"),
        ):
            with pytest.raises(NotFoundError):
                ask(client, method, wrong)
        with pytest.raises(NotFoundError):
            ask(al, "report", wrong, ReportOutcome("success"))
        with pytest.raises(InvalidRequestError):
            ask(al, "audit", limit=[wrong])
        with pytest.raises(InvalidRequestError):
            ask(al, "report", asked.audit_event_id, wrong)
        with pytest.raises(InvalidRequestError):
            ask(world.root, "erase", [wrong], "a mistake")
        if wrong is not None:  # which asks for all
            with pytest.raises(NotFoundError):
                ask(ana, "audit", agent=wrong)
        assert ask(al, "approval_status", asked.approval_id) == "pending"

    def test_text_of_a_class_of_its_own_is_its_text(self, world: ClientWorld, ask: Ask) -> None:
        """As frameworks and enumerations have it: what is recorded is what it says."""

        class Name(str):
            pass

        al = world.agent()
        result = ask(al, "execute", Name("free"), event_id=Name("one"), beneficiary=Name("acme"))
        assert (result.status, ask(al, "audit").events[0].action_type) == ("executed", "free")
        assert ask(al, "execute", "free", event_id="one", beneficiary="acme").replayed

    @pytest.mark.parametrize("patience", [float("nan"), float("-inf"), -1, 0])
    def test_patience_that_is_none_ends_at_once(self, world: ClientWorld, ask: Ask, patience: float) -> None:
        """Nobody waits forever for want of a number."""
        asked = ask(world.agent(), "execute", "ask")
        assert ask(world.agent(), "await_approval", asked.approval_id, patience).status == "requested"

    # Looking

    def test_a_dry_run_records_nothing(self, world: ClientWorld, ask: Ask) -> None:
        """It says what `execute` would answer, and what it would have to be told."""
        al = world.agent()
        assert ask(al, "can_i", "free").allowed
        assert ask(al, "can_i", "ask").needs_approval
        unknown = ask(al, "can_i", "pr.open")
        assert (unknown.allowed, unknown.reason, unknown.missing) == (False, "NEEDS_DATA", ["pr_size"])
        assert ask(al, "can_i", "pr.open", metadata={"pr_size": 3}).allowed
        assert ask(al, "can_i", "nobody.knows").reason == "POLICY_NOT_FOUND"
        assert ask(al, "audit").events == []

    def test_an_agent_knows_who_it_is_and_what_governs_it(self, world: ClientWorld, ask: Ask) -> None:
        """Name, organisation, state, and policies of its own and of the organisation."""
        al = world.agent()
        me = ask(al, "whoami")
        assert (me.name, me.org_id, me.is_active, me.cb_state) == ("bob", al.org_id, True, "MONITORING")
        assert (al.agent, al.mode) == ("bob", "enforce")
        assert me.delegations == {"as_parent": [], "as_child": []}
        own, organisation = ask(al, "policies"), ask(al, "policies", scope="org")
        assert (own.scope, organisation.scope) == ("own", "org")
        assert {"Free", "Asking"} <= {policy.name for policy in organisation.policies}
        assert next(p for p in own.policies if p.name == "Asking").approval_required
        with pytest.raises(InvalidRequestError):
            ask(al, "policies", scope="everything")

    def test_the_audit_trail_comes_in_pages(self, world: ClientWorld, ask: Ask) -> None:
        """Newest first, of one type where that is asked, an agent's own only; an operator's holds everybody's."""
        al, other = world.agent(), world.agent("mallory")
        ids = [al.execute_sync("free", metadata={"n": n}).audit_event_id for n in range(5)]
        other.execute_sync("free")
        first = ask(al, "audit", limit=2)
        second = ask(al, "audit", cursor=first.next_cursor, limit=200)
        assert [event.id for event in first.events + second.events] == ids[::-1]
        assert second.next_cursor is None
        assert ask(al, "audit", action_type="ask").events == []
        assert len(ask(world.operator(), "audit").events) == 6
        for wrong in ({"limit": 0}, {"limit": 201}, {"cursor": "x"}):
            with pytest.raises(InvalidRequestError):
                ask(al, "audit", **wrong)

    def test_the_log_is_verified(self, world: ClientWorld, ask: Ask) -> None:
        """It is whole, from its beginning and from a checkpoint that was kept; another log's checkpoint is no proof."""
        al, root = world.agent(), world.root
        ask(al, "execute", "free")
        kept = ask(root, "checkpoint")
        ask(al, "execute", "free")
        whole, rest = ask(al, "verify"), ask(al, "verify", kept, incremental=True)
        assert (whole.chain_valid, rest.chain_valid) == (True, True)
        assert (whole.org_id, whole.first_broken_at_row_id) == (al.org_id, None)
        assert rest.verified_from_checkpoint
        assert kept.splitlines()[0] == root.verifier_key().split("+")[0]

    def test_posture_is_made_of_parts(self, world: ClientWorld, ask: Ask) -> None:
        """Score, components with what they could have been, and the counts behind them."""
        al = world.agent()
        ask(al, "execute", "free")
        found = ask(al, "posture")
        assert 0 <= found.score <= 100
        assert found.components
        for component in found.components.values():
            assert 0 <= component.score <= component.max
            assert component.extra
        assert set(found.unmeasured).isdisjoint(found.components)

    def test_registries_change_by_actions_and_are_read(self, world: ClientWorld, ask: Ask) -> None:
        """In the order of values, with what changed each."""
        al = world.agent()
        made = ask(
            al,
            "execute",
            "agentlattice.registry.suppliers.put",
            metadata={"value": "acme", "tags": ["approved"], "caps": {"daily": "10"}},
        )
        assert made.status == "executed"
        (entry,) = ask(al, "registry", "suppliers")
        assert (entry.value, entry.tags, entry.caps) == ("acme", ["approved"], {"daily": "10"})
        assert entry.audit_event_id == made.audit_event_id
        with pytest.raises(NotFoundError):
            ask(al, "registry", "nothing")

    # Deciding

    def test_an_approver_is_shown_what_was_asked(self, world: ClientWorld, ask: Ask) -> None:
        """Data, deadline and digest; the nearest deadline first."""
        al, ana = world.agent(), world.operator()
        for n in range(3):
            ask(al, "execute", "ask", metadata={"n": n}, amount="12.50", currency="EUR")
            world.clock.advance(minutes=1)
        found = ask(ana, "list_pending_approvals")
        assert [request.metadata["n"] for request in found] == [0, 1, 2]
        assert (found[0].agent, found[0].amount, found[0].currency, found[0].status) == (
            "bob",
            "12.50",
            "EUR",
            "pending",
        )
        assert found[0].waits

    def test_a_request_is_decided_once_and_as_it_was_shown(self, world: ClientWorld, ask: Ask) -> None:
        """A digest of something else is refused, and so is a second decision."""
        al, ana = world.agent(), world.operator()
        asked = ask(al, "execute", "ask")
        with pytest.raises(DigestMismatchError):
            ask(ana, "approve_action", asked.approval_id, digest="of something else")
        (shown,) = ask(ana, "list_pending_approvals")
        decided = ask(ana, "approve_action", asked.approval_id, "fine", digest=shown.digest)
        assert (decided.status, decided.resolved_by, decided.reason) == ("approved", "ana", "fine")
        with pytest.raises(IllegalTransitionError):
            ask(ana, "deny_action", asked.approval_id)
        with pytest.raises(NotFoundError):
            ask(ana, "approve_action", "apr_000000000000")
        with pytest.raises(InvalidRequestError):
            ask(ana, "approve_action", asked.approval_id, forever="and a day")

    def test_approving_forever_changes_policy(self, world: ClientWorld, ask: Ask) -> None:
        """From then on the action runs; it takes an administrator."""
        al, ana = world.agent(), world.operator()
        asked = ask(al, "execute", "ask")
        with pytest.raises(ForbiddenError):
            ask(ana, "approve_action", asked.approval_id, forever="policy")
        decided = ask(world.root, "approve_action", asked.approval_id, forever="policy")
        assert decided.forever == "policy"
        assert ask(al, "execute", "ask").status == "executed"

    def test_an_agent_decides_nothing_and_an_operator_acts_on_nothing(
        self, world: ClientWorld, ask: Ask
    ) -> None:
        """One identity is never both."""
        al, ana = world.agent(), world.operator()
        asked = ask(al, "execute", "ask")
        with pytest.raises(ForbiddenError):
            ask(al, "approve_action", asked.approval_id)
        with pytest.raises(ForbiddenError):
            ask(al, "list_pending_approvals")
        with pytest.raises(ForbiddenError):
            ask(ana, "execute", "free")
        with pytest.raises(ForbiddenError):
            ask(ana, "whoami")
        assert ana.agent is None

    def test_people_are_managed_by_administrators(self, world: ClientWorld, ask: Ask) -> None:
        """Registered, shown by name with role and groups, removed; the last administrator stays."""
        ana = world.operator()
        ask(world.root, "register_operator", "dana", role="viewer", groups=["dba", "oncall"])
        people = {person.name: person for person in ask(world.root, "operators")}
        assert (people["dana"].role, people["dana"].groups) == ("viewer", frozenset({"dba", "oncall"}))
        assert people["dana"].established == "registered"
        with pytest.raises(ForbiddenError):
            ask(ana, "register_operator", "eve")
        ask(world.root, "remove_operator", "dana")
        with pytest.raises(NotFoundError):
            ask(world.root, "remove_operator", "dana")
        (admin,) = [person.name for person in ask(world.root, "operators") if person.role == "admin"]
        with pytest.raises(IllegalTransitionError):
            ask(world.root, "remove_operator", admin)

    def test_policy_is_rehearsed_and_applied(self, world: ClientWorld, ask: Ask) -> None:
        """A rehearsal says what would change and who would be let through, and changes nothing."""
        al = world.agent()
        asked = ask(al, "execute", "ask")
        path = world.directory / "more.yaml"
        path.write_text("version: 1\npolicies: [{name: Asking, action: ask, effect: allow}]\n")
        rehearsal = world.root.rehearse_policies_sync(path)
        assert rehearsal.changed == ["policy/asking"]
        assert [request.id for request in rehearsal.approved] == [asked.approval_id]
        assert ask(al, "execute", "ask").status == "requested"
        assert world.root.apply_policies_sync(path) == ["policy/asking"]
        assert ask(al, "execute", "ask").status == "executed"
        path.write_text("version: 1\npolicies: [{name: Bad, action: '', effect: perhaps}]\n")
        with pytest.raises(PolicyDocumentError) as raised:
            world.root.apply_policies_sync(path)
        assert len(raised.value.problems) > 1

    def test_erasing_takes_an_administrator_and_a_reason(self, world: ClientWorld, ask: Ask) -> None:
        """What was personal is gone, and the log still verifies."""
        al = world.agent()
        action = ask(al, "execute", "free", metadata={"name": "Grace"}).audit_event_id
        index = int(action[4:16], 16)
        with pytest.raises(ForbiddenError):
            ask(world.operator(), "erase", [index], "asked to")
        assert ask(world.root, "erase", [index], "asked to") == 1
        (event,) = ask(al, "audit").events
        assert (event.erased, event.metadata) == (True, {})
        assert ask(al, "verify").chain_valid

    # Ending

    def test_a_closed_client_says_that_it_is_closed(self, world: ClientWorld, ask: Ask) -> None:
        """Closing twice does nothing more."""
        al = world.agent()
        with al:
            ask(al, "execute", "free")
        al.close()
        with pytest.raises(StoreError, match="was closed"):
            ask(al, "execute", "free")

    def test_closing_waits_for_what_was_recorded_without_waiting(self, world: ClientWorld) -> None:
        """An outcome that was noted before is in the log when the client is closed."""
        al, again = world.agent(), world.agent()
        action = al.execute_sync("free").audit_event_id
        al.record_outcome(action, "succeeded")
        al.close()
        told = threading.Event()
        while again.audit_sync().events[0].claim == "started":
            told.wait(0.01)  # a service answers before it has written
        assert again.audit_sync().events[0].claim == "succeeded"
