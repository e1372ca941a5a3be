"""The gate over a real log: one permit per claim, one approval per run, and never an exception."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from agentlattice_core.client import AgentLattice
from agentlattice_core.errors import (
    AgentLatticeDeniedError,
    AgentLatticeTimeoutError,
    EventIdConflictError,
    ForbiddenError,
    NotRecordedError,
    StoreError,
)
from agentlattice_core.toolcalls import (
    ActionTable,
    Denial,
    Permit,
    ToolCall,
    ToolGate,
    ToolMapping,
    arg,
    denial_schema,
    governed,
)

_POLICIES = """
version: 1
actions:
  refund.issue:
    fields:
      category: {type: string, required: true, trusted: true}
policies:
  - {name: Free, action: tool.free, effect: allow}
  - {name: Forbidden, action: tool.forbidden, effect: deny}
  - {name: Deploy, action: tool.deploy, effect: require_approval, approval: {timeout: 10m}}
  - {name: Hasty, action: tool.hasty, effect: require_approval, approval: {timeout: 1s}}
  - {name: Refunds, action: refund.issue, effect: allow}
  - {name: Env, action: env.change, effect: allow, conditions: [{field: env, operator: eq, value: dev}]}
"""

_DEPLOY = ToolCall("test", "deploy", {"version": "1.4"}, identity="thread-1/call-1")


class Bench:
    """A client, a reviewer, and gates over one file."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "governance.db"
        policies = directory / "policies.yaml"
        policies.write_text(_POLICIES, encoding="utf-8")
        self.policies = policies
        self.client = AgentLattice.embedded(self.path, policies=policies, agent="tester")
        self.reviewer = AgentLattice.embedded(self.path, operator="reviewer")

    def gate(self, **options: Any) -> ToolGate:
        return ToolGate(self.client, **options)

    def decide(self, *, approve: bool = True) -> int:
        pending = self.reviewer.list_pending_approvals_sync()
        for request in pending:
            if approve:
                self.reviewer.approve_action_sync(request.id)
            else:
                self.reviewer.deny_action_sync(request.id, reason="no")
        return len(pending)

    def claims(self) -> list[str | None]:
        self.client.flush()
        return [event.claim for event in reversed(self.client.audit_sync(limit=200).events)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.reviewer.close()
    bench.client.close()


def _permit(answer: Permit | Denial) -> Permit:
    assert isinstance(answer, Permit), answer.text if isinstance(answer, Denial) else answer
    return answer


def _denial(answer: Permit | Denial) -> Denial:
    assert isinstance(answer, Denial), answer
    return answer


# --- once ---


def test_a_call_that_comes_again_never_runs_twice(bench: Bench) -> None:
    """The same identity and arguments get a permit once; then what is known of that run."""
    gate, call = bench.gate(), ToolCall("test", "free", {"a": 1}, identity="thread-1/call-1")
    permit = _permit(gate.authorize_sync(call))
    again = _denial(gate.authorize_sync(call))
    assert (again.status, again.reason, again.action_id) == ("unknown", "OUTCOME_UNKNOWN", permit.action_id)
    permit.succeeded()
    bench.client.flush()
    assert _denial(bench.gate().authorize_sync(call)).reason == "ALREADY_RAN"
    assert bench.claims() == ["succeeded"]


def test_a_call_whose_outcome_was_lost_reads_unknown_in_the_log(bench: Bench) -> None:
    """Nobody here can say how it went: the model is told so, and so is the log, until somebody comes who knows."""
    gate, call = bench.gate(), ToolCall("test", "free", {"a": 1}, identity="thread-1/call-1")
    action_id = _permit(gate.authorize_sync(call)).action_id  # the permit itself is gone
    assert bench.claims() == ["started"]
    assert _denial(gate.authorize_sync(call)).reason == "OUTCOME_UNKNOWN"
    bench.client.flush()
    assert bench.claims() == ["unknown"]
    assert _denial(gate.authorize_sync(call)).reason == "OUTCOME_UNKNOWN"
    bench.client.record_outcome(action_id, "succeeded")  # another process was running it all the while
    bench.client.flush()
    assert bench.claims() == ["succeeded"]
    assert _denial(gate.authorize_sync(call)).reason == "ALREADY_RAN"


def test_a_call_that_still_runs_is_not_taken_for_lost(bench: Bench) -> None:
    """As long as somebody in this process holds its permit, or it waits inside, the log does not say otherwise."""
    call = ToolCall("test", "free", {"a": 1}, identity="thread-1/call-1")
    permit = _permit(bench.gate().authorize_sync(call))
    assert _denial(bench.gate().authorize_sync(call)).reason == "OUTCOME_UNKNOWN"
    bench.client.flush()
    assert bench.claims() == ["started"]
    permit.succeeded()
    waits = replace(call, identity="thread-1/call-2", suspended=True)
    _permit(bench.gate().authorize_sync(waits))
    assert _denial(bench.gate().authorize_sync(waits)).reason == "OUTCOME_UNKNOWN"
    bench.client.flush()
    assert sorted(bench.claims()) == ["started", "succeeded"]


def test_attempts_arguments_and_unidentified_calls_are_new_actions(bench: Bench) -> None:
    """A retry, other arguments, or a call without an identity each need, and get, a permit of their own."""
    gate, call = bench.gate(), ToolCall("test", "free", {"a": 1}, identity="thread-1/call-1")
    nameless = replace(call, identity=None)
    calls = [call, replace(call, attempt=2), replace(call, arguments={"a": 2}), nameless, nameless]
    assert len({_permit(gate.authorize_sync(each)).action_id for each in calls}) == 5


def test_racing_copies_of_one_call_get_one_permit(bench: Bench) -> None:
    """However many threads bring the same call at once, one of them may run it."""
    call = ToolCall("test", "free", {"a": 1}, identity="thread-1/call-1")
    gates = [bench.gate() for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: gates[n % 2].authorize_sync(call), range(24)))
    assert sum(isinstance(answer, Permit) for answer in answers) == 1


def test_event_ids_are_readable_and_bounded(bench: Bench) -> None:
    """Framework, identity, tool, digest, attempt; an identity of any length still makes a distinct, valid id."""
    seen = []

    class Recording:
        mode = "enforce"

        def execute_sync(self, action_type: str, options: Any, **rest: Any) -> Any:
            seen.append(options.event_id)
            return bench.client.execute_sync(action_type, options, **rest)

    gate = ToolGate(Recording())  # type: ignore[arg-type]
    for identity in ("thread/call", "x" * 5000 + "1", "x" * 5000 + "2"):
        _permit(gate.authorize_sync(ToolCall("test", "free", {}, identity=identity)))
    assert seen[0].startswith("test:thread/call:free:")
    assert seen[0].endswith(":1")
    assert len(seen[0].split(":")[3]) == 16
    assert [len(event_id) for event_id in seen[1:]] == [1024, 1024]
    assert seen[1] != seen[2]


def test_a_permit_covers_its_own_arguments_only(bench: Bench) -> None:
    """What is about to be used is compared with what was decided, in whatever form it comes."""
    permit = _permit(bench.gate().authorize_sync(ToolCall("test", "free", '{"a": 1, "b": [true]}')))
    assert permit.arguments == {"a": 1, "b": [True]}
    assert permit.covers({"b": [True], "a": 1})
    assert permit.covers('{"b":[true],"a":1}')
    for other in ({"a": 2, "b": [True]}, {"a": 1}, {"a": 1, "b": [1]}, "not json", {"a": object()}):
        assert not permit.covers(other)


def test_a_permits_arguments_are_its_own(bench: Bench) -> None:
    """Changing what was passed in, afterwards, changes nothing of what was decided."""
    given: dict[str, Any] = {"list": [1]}
    permit = _permit(bench.gate().authorize_sync(ToolCall("test", "free", given)))
    given["list"].append(2)
    assert permit.arguments == {"list": [1]}


def test_only_the_first_outcome_counts_and_secrets_in_it_are_redacted(bench: Bench) -> None:
    """A run is reported once, and an error's text is redacted like everything else."""
    permit = _permit(bench.gate().authorize_sync(ToolCall("test", "free", {})))
    permit.failed(ValueError("bad key AKIAIOSFODNN7EXAMPLE \ud800 \0"))
    permit.succeeded()
    assert bench.claims() == ["failed"]
    bench.reviewer.close()
    bench.client.close()
    assert b"AKIA" not in b"".join(path.read_bytes() for path in bench.path.parent.glob("governance.db*"))


class _SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class _Login(BaseModel):
    user: str
    pin: SecretStr


@pytest.mark.parametrize(
    ("given", "schema"),
    [
        ({"user": "ada", "password": "hunter2"}, None),
        ({"user": "ada", "keys": ["hunter", "hunter2"]}, None),
        ({"user": "ada", "password": {"old": "hunter2"}}, None),
        ({"user": "ada", "pin": "hunter2"}, _Login),
    ],
)
def test_an_error_that_repeats_a_redacted_argument_is_recorded_without_it(
    bench: Bench, given: dict[str, Any], schema: Any
) -> None:
    """What a tool says of its failure often holds what it was given; a value that was redacted there goes here too."""
    gate = bench.gate(redact=["keys.*"])
    permit = _permit(gate.authorize_sync(ToolCall("test", "free", given, schema=schema)))
    permit.failed(ValueError(f"nobody can log in with {given}"))
    bench.reviewer.close()
    bench.client.close()
    written = b"".join(path.read_bytes() for path in bench.path.parent.glob("governance.db*"))
    assert b"nobody can log in" in written
    assert b"hunter" not in written


@pytest.mark.parametrize("closed", [False, True])
def test_reporting_an_outcome_never_raises(bench: Bench, closed: bool) -> None:
    """The tool has run: neither an error that cannot be printed nor a closed log may break its caller."""
    permit = _permit(bench.gate().authorize_sync(ToolCall("test", "free", {})))
    if closed:
        bench.reviewer.close()
        bench.client.close()
    permit.failed(_SpeechlessError())


# --- a person ---


def test_a_deferred_call_is_asked_about_once(bench: Bench) -> None:
    """The same call, and an identical later one, meet the earlier question; once approved, exactly one runs."""
    gate = bench.gate(on_approval="defer")
    later = replace(_DEPLOY, identity="thread-1/call-2")
    texts = {_denial(gate.authorize_sync(call)).text for call in (_DEPLOY, later, _DEPLOY)}
    assert len(texts) == 1
    assert bench.decide() == 1
    permit = _permit(gate.authorize_sync(later))
    assert permit.result.claim == "started"
    assert _denial(gate.authorize_sync(later)).reason == "OUTCOME_UNKNOWN"
    assert _denial(gate.authorize_sync(_DEPLOY)).reason == "OUTCOME_UNKNOWN"
    assert _denial(gate.authorize_sync(replace(_DEPLOY, identity="thread-1/call-3"))).status == "pending"
    assert bench.decide() == 1


def test_a_deferred_call_with_an_identity_survives_a_restart(bench: Bench) -> None:
    """A new gate, as after a restart, finds the approval of a call that comes again with its own identity."""
    _denial(bench.gate(on_approval="defer").authorize_sync(_DEPLOY))
    bench.decide()
    _permit(bench.gate(on_approval="defer").authorize_sync(_DEPLOY))


def test_what_a_restart_forgets_is_asked_again(bench: Bench) -> None:
    """Without the same identity a new gate asks a second question, rather than guess."""
    _denial(bench.gate(on_approval="defer").authorize_sync(_DEPLOY))
    other = replace(_DEPLOY, identity="thread-1/call-2")
    assert _denial(bench.gate(on_approval="defer").authorize_sync(other)).status == "pending"
    assert bench.decide() == 2


@pytest.mark.parametrize(
    "change",
    [
        {"arguments": {"version": "6.6"}},
        {"run": "run-2"},
        {"on_behalf_of": "mallory"},
        {"framework": "other"},
    ],
)
def test_an_approval_is_not_lent_to_another_call(bench: Bench, change: dict[str, Any]) -> None:
    """Other arguments, another run, end user or framework: another question."""
    gate = bench.gate(on_approval="defer")
    _denial(gate.authorize_sync(_DEPLOY))
    bench.decide()
    other = replace(_DEPLOY, identity="thread-1/call-2", **change)
    assert _denial(gate.authorize_sync(other)).status == "pending"
    assert bench.decide() == 1


def test_secrets_that_look_alike_in_the_log_are_told_apart(bench: Bench) -> None:
    """Two calls that differ only in a redacted secret are two questions."""
    gate = bench.gate(on_approval="defer")
    one, other = (ToolCall("test", "deploy", {"password": secret}) for secret in ("one", "other"))
    _denial(gate.authorize_sync(one))
    bench.decide()
    assert _denial(gate.authorize_sync(other)).status == "pending"
    _permit(gate.authorize_sync(one))


def test_one_approval_runs_one_of_many_racing_calls(bench: Bench) -> None:
    """Identical calls that race for one approved action get one permit; the others are new questions."""
    gate = bench.gate(on_approval="defer")
    _denial(gate.authorize_sync(_DEPLOY))
    bench.decide()
    calls = [replace(_DEPLOY, identity=f"thread-1/again-{n}") for n in range(12)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(gate.authorize_sync, calls))
    assert sum(isinstance(answer, Permit) for answer in answers) == 1
    assert {answer.status for answer in answers if isinstance(answer, Denial)} == {"pending"}


def test_a_denied_deferral_is_told_once_and_may_be_asked_again(bench: Bench) -> None:
    """The next identical call hears the reviewer's answer; one after that is a new question."""
    gate = bench.gate(on_approval="defer")
    _denial(gate.authorize_sync(_DEPLOY))
    bench.decide(approve=False)
    answer = _denial(gate.authorize_sync(replace(_DEPLOY, identity="thread-1/call-2")))
    assert (answer.reason, answer.document["message"]) == ("DENIED_BY_REVIEWER", "no")
    assert _denial(gate.authorize_sync(replace(_DEPLOY, identity="thread-1/call-3"))).status == "pending"


@pytest.mark.parametrize("approve", [True, False])
def test_waiting_ends_with_the_reviewers_decision(bench: Bench, approve: bool) -> None:
    """The blocked caller gets the permit, or the refusal, as soon as somebody decides."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(bench.gate(on_approval="wait").authorize_sync, _DEPLOY)
        while not bench.decide(approve=approve):
            pass
        answer = waiting.result(60)
    assert isinstance(answer, Permit) is approve
    if isinstance(answer, Denial):
        assert answer.reason == "DENIED_BY_REVIEWER"


def test_waiting_ends_at_the_approvals_deadline(bench: Bench) -> None:
    """Nobody decides: the call is timed out, and says so."""
    answer = _denial(bench.gate().authorize_sync(ToolCall("test", "hasty", {})))
    assert (answer.status, answer.reason) == ("timed_out", "approval_timeout")


def test_a_gate_that_stops_waiting_leaves_the_question_open(bench: Bench) -> None:
    """After `approval_timeout` the call is pending; the same call again goes on from there and runs once approved."""
    gate = bench.gate(approval_timeout=0.02)
    assert _denial(gate.authorize_sync(_DEPLOY)).status == "pending"
    assert bench.decide() == 1
    _permit(gate.authorize_sync(replace(_DEPLOY, identity="thread-1/call-2")))


async def test_cancelling_a_wait_leaves_nothing_running(bench: Bench) -> None:
    """A cancelled caller takes no claim, then or later, and leaves no task or thread behind."""
    asked = asyncio.Event()
    await bench.reviewer.subscribe(
        bench.reviewer.org_id, lambda _: asked.set(), events=["approval.requested"]
    )
    _permit(await bench.gate().authorize(ToolCall("test", "free", {})))  # the core's own threads are up now
    before = _threads()
    waiting = asyncio.create_task(bench.gate().authorize(_DEPLOY))
    await asyncio.wait_for(asked.wait(), 60)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await bench.reviewer.unsubscribe()
    assert _threads() <= before
    await asyncio.to_thread(bench.decide)
    events = (await bench.client.audit(limit=10, action_type="tool.deploy")).events
    assert [event.claim for event in events] == [None]


def _threads() -> set[str]:
    """The names of all threads but those of the event loop's own pool."""
    return {thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio")}


async def test_the_coroutine_answers_as_the_blocking_call_does(bench: Bench) -> None:
    """Permit, denial, refusal and deferral, without a thread of one's own."""
    gate = bench.gate(on_approval="defer")
    permit = _permit(await gate.authorize(ToolCall("test", "free", {"a": 1})))
    permit.succeeded()
    for call in (ToolCall("test", "forbidden", {}), ToolCall("test", "free", "[1]"), _DEPLOY):
        assert _denial(await gate.authorize(call)).text == _denial(gate.authorize_sync(call)).text
    assert (await gate.refuse(_DEPLOY, "NOT_COVERABLE", "it runs elsewhere")).reason == "NOT_COVERABLE"


# --- mappings, in the gate ---


def test_what_the_mapping_computes_is_decided_on_and_recorded(bench: Bench) -> None:
    """A policy on a computed field sees the owner's value, whatever the model sends under that name."""

    @governed("env.change", metadata={"env": lambda given: "dev" if given["target"] == "dev-1" else "prod"})
    def change(target: str) -> None: ...

    gate = bench.gate()
    _permit(gate.authorize_sync(ToolCall("test", "change", {"target": "dev-1"}, target=change)))
    lying = ToolCall("test", "change", {"target": "prod-1", "env": "dev"}, target=change)
    assert _denial(gate.authorize_sync(lying)).document["failed_conditions"][0]["actual"] == "prod"


def test_a_trusted_field_cannot_come_from_the_model(bench: Bench) -> None:
    """A declared trusted field is satisfied by the mapping's constant and not by an argument."""
    call = ToolCall("test", "refund", {"category": "goods"})
    constant = bench.gate(actions={"refund": ToolMapping("refund.issue", category="goods")})
    copied = bench.gate(actions={"refund": ToolMapping("refund.issue", category=arg("category"))})
    _permit(constant.authorize_sync(call))
    _denial(copied.authorize_sync(call))


@pytest.mark.parametrize(
    "mapping",
    [
        ToolMapping("tool.free", metadata={"a": lambda given: given["missing"]}),
        ToolMapping("tool.free", metadata=lambda given: {"a": object()}),
        ToolMapping("tool.free", amount="a lot"),
        ToolMapping("tool.free", data_accessed=lambda given: [{"type": 1}]),
    ],
)
def test_a_mapping_that_fails_denies_and_is_recorded(bench: Bench, mapping: ToolMapping) -> None:
    """What a call would do cannot be worked out, so it does not run, though its policy would allow it."""
    answer = _denial(bench.gate(actions={"free": mapping}).authorize_sync(ToolCall("test", "free", {})))
    assert answer.reason == "MAPPING_FAILED"
    (event,) = bench.client.audit_sync().events
    assert event.status == "denied"


def test_what_a_callable_takes_from_a_secret_is_redacted(bench: Bench) -> None:
    """Callables see the real arguments; what they put into the action is redacted before it is stored."""
    mapping = ToolMapping(
        "tool.free",
        metadata={
            "password": lambda given: given["password"],
            "note": lambda given: f"token={given['password']}",
        },
        beneficiary=lambda given: f"https://me:{given['password']}@host",
    )
    gate = bench.gate(actions=ActionTable({"free": mapping}))
    permit = _permit(gate.authorize_sync(ToolCall("test", "free", {"password": "correct-horse"})))
    assert permit.arguments == {"password": "correct-horse"}
    bench.reviewer.close()
    bench.client.close()
    assert b"correct-horse" not in b"".join(
        path.read_bytes() for path in bench.path.parent.glob("governance.db*")
    )


# --- when it goes wrong ---


class _Failing:
    """A client whose every question fails in one way."""

    def __init__(self, error: Exception, mode: str = "enforce") -> None:
        self.error = error
        self.mode = mode

    def __getattr__(self, name: str) -> Any:
        def fail(*_: Any, **__: Any) -> Any:
            raise self.error

        return fail


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NotRecordedError("disk /var/lib/secret.db is full"), "NOT_RECORDED"),
        (StoreError("cannot open /var/lib/secret.db"), "NOT_RECORDED"),
        (RuntimeError("/var/lib/secret.db"), "NOT_RECORDED"),
        (StopIteration("/var/lib/secret.db"), "NOT_RECORDED"),
        (EventIdConflictError("/var/lib/secret.db", "evt_1"), "EVENT_ID_CONFLICT"),
        (ForbiddenError("halted", code="CIRCUIT_BREAKER_OPEN"), "CIRCUIT_BREAKER_OPEN"),
        (AgentLatticeDeniedError(reason="OUT_OF_SCOPE", policy="P"), "OUT_OF_SCOPE"),
        (AgentLatticeTimeoutError("apr_1"), "approval_timeout"),
    ],
)
def test_any_failure_of_the_core_is_a_denial(error: Exception, reason: str) -> None:
    """Nothing is raised, nothing runs, and the model is not shown paths or hosts."""
    for call in (ToolCall("test", "free", {}), ToolCall("test", "free", "not json")):
        answer = _denial(ToolGate(_Failing(error)).authorize_sync(call))  # type: ignore[arg-type]
        assert answer.reason == reason
        assert "secret.db" not in answer.text


@pytest.mark.parametrize("arguments", [{"a": 1}, {"a": float("nan")}, '{"a": 1, "a": 2}', "not json"])
def test_observing_permits_even_when_the_core_fails(arguments: Any) -> None:
    """An observer never stands in the way: not when the log fails, not when the arguments cannot be recorded."""
    gate = ToolGate(_Failing(NotRecordedError("full"), "observe"))  # type: ignore[arg-type]
    permit = _permit(gate.authorize_sync(ToolCall("test", "free", arguments)))
    assert permit.result.observed
    assert permit.covers({"whatever": 1})
    permit.succeeded()


def test_observing_permits_what_policy_denies_and_records_it(bench: Bench) -> None:
    """The log holds what enforcement would have answered, and the outcome."""
    observer = AgentLattice.embedded(bench.path, agent="tester", mode="observe")
    gate = ToolGate(observer)
    for tool in ("forbidden", "deploy", "unheard_of"):
        _permit(gate.authorize_sync(ToolCall("test", tool, {}))).succeeded()
    observer.flush()
    events = list(reversed(observer.audit_sync().events))
    observer.close()
    assert [(event.status, event.claim) for event in events] == [
        ("denied", "succeeded"),
        ("requested", "succeeded"),
        ("policy_not_found", "succeeded"),
    ]


def test_a_refusal_of_the_adapter_is_recorded(bench: Bench) -> None:
    """What an adapter itself must refuse is in the log like any other attempt."""
    answer = bench.gate().refuse_sync(
        ToolCall("test", "search", {}, kind="hosted"), "NOT_COVERABLE", "the provider runs it"
    )
    assert (answer.reason, answer.document["message"]) == ("NOT_COVERABLE", "the provider runs it")
    (event,) = bench.client.audit_sync().events
    assert (event.action_type, event.status) == ("tool.search", "denied")


def test_what_the_framework_injects_is_not_recorded(bench: Bench) -> None:
    """Runtime objects are left out of the decision, the log and the permit."""
    call = ToolCall("test", "free", {"a": 1, "state": object()}, injected=frozenset({"state"}))
    assert _permit(bench.gate().authorize_sync(call)).arguments == {"a": 1}
    (event,) = bench.client.audit_sync().events
    assert event.metadata == {"a": 1}


_WILD = st.text(max_size=6) | st.sampled_from(["free", "\0", "\ud800", "x" * 3000])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    call=st.builds(
        ToolCall,
        framework=st.just("test"),
        tool=_WILD,
        arguments=_WILD
        | st.binary(max_size=5)
        | st.dictionaries(_WILD, st.floats() | _WILD | st.binary(), max_size=3),
        call_id=st.none() | _WILD,
        identity=st.none() | _WILD,
        run=st.none() | _WILD,
        on_behalf_of=st.none() | _WILD,
        context=st.dictionaries(_WILD, st.integers(-(2**70), 2**70) | _WILD, max_size=2),
    )
)
def test_no_call_makes_the_gate_raise_or_lose_the_attempt(bench: Bench, call: ToolCall) -> None:
    """Whatever a model invents, the answer is a permit or a valid denial, and the attempt is in the log."""
    before = bench.client.verify_sync().verified_through_row
    answer = bench.gate().authorize_sync(call)
    if isinstance(answer, Denial):
        jsonschema.validate(json.loads(answer.text), denial_schema())
        assert answer.reason != "NOT_RECORDED"
    if call.identity is None or isinstance(answer, Permit):  # a call that came before is not recorded again
        assert bench.client.verify_sync().verified_through_row > before


@pytest.mark.parametrize(
    "options",
    [{"on_approval": "hope"}, {"approval_timeout": -1}, {"redact": "password"}, {"actions": {"a": {"x": 1}}}],
)
def test_a_gate_that_cannot_work_is_refused_when_it_is_built(options: dict[str, Any]) -> None:
    """Wrong options are programming errors at once."""
    with pytest.raises(
        (ValueError, Exception), match=r"on_approval|approval_timeout|redact|unknown member|`action`"
    ):
        ToolGate(_Failing(RuntimeError()), **options)  # type: ignore[arg-type]


def test_a_tool_without_a_name_is_denied(bench: Bench) -> None:
    """Models invent calls of nothing; they are denied and recorded like others."""
    answer = _denial(bench.gate().authorize_sync(ToolCall("test", "", {})))
    assert answer.reason == "INVALID_ARGUMENTS"
    assert json.loads(answer.text)["tool"] == ""
