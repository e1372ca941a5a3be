"""A call that needs a person suspends the graph, and runs as often as it was approved, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from langgraph_pausing import FORMS, Thread, deploys, make_deploy
from langgraph_scripted import ScriptedModel, asking, call

from agentlattice_core import AgentLattice
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.results import AuditEvent
from agentlattice_core.testing import ManualClock
from agentlattice_integrations.langgraph import aresume_when_decided, resume_when_decided

Recorded = Callable[..., list[AuditEvent]]
SEPARATE = [form for form in FORMS if form != "wrapped"]
APPROVE = {"decisions": [{"type": "approve"}]}


@pytest.fixture
def ana(al: AgentLattice) -> AgentLattice:
    """The person who decides."""
    return al.for_operator("ana")


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("form", SEPARATE)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_call_runs_as_often_as_it_was_approved(
    al: AgentLattice, ana: AgentLattice, recorded: Recorded, form: str, how: str, count: int
) -> None:
    """Decided in the core, in turn approved and denied: each answer reaches its own call, and the log says the same."""
    services = [f"s{number}" for number in range(count)]
    ran: list[str] = []
    graph = FORMS[form](al, deploys(*services), [make_deploy(ran.append)], InMemorySaver(), {})
    thread = Thread(graph, how=how).go()
    assert ran == []
    assert set(thread.paused) == {f"call-{each}" for each in services}
    approved = services[::2]
    for each in services:
        decide = ana.approve_action_sync if each in approved else ana.deny_action_sync
        decide(thread.approval(f"call-{each}"), f"because {each}")
    thread.answer_each(dict.fromkeys(thread.paused, "go on"))
    assert sorted(ran) == approved
    assert thread.paused == {}
    for each in services:
        said = thread.answers[f"call-{each}"]
        assert said == f"deployed {each}" if each in approved else f"because {each}" in said
    events = {event.metadata["service"]: event for event in recorded("tool.deploy")}
    assert {each: event.claim for each, event in events.items()} == {
        each: "succeeded" if each in approved else None for each in services
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "sent",
    [
        APPROVE,
        {"type": "approve"},
        [{"type": "accept", "args": None}],
    ],
)
def test_an_approval_in_the_interface_counts_as_its_persons(
    al: AgentLattice, ana: AgentLattice, recorded: Recorded, form: str, sent: Any
) -> None:
    """With `approver`, what agent-chat-ui, LangChain and Agent Inbox send approves as that operator."""
    ran: list[str] = []
    graph = FORMS[form](al, deploys("web"), [make_deploy(ran.append)], InMemorySaver(), {"approver": ana})
    thread = Thread(graph).go()
    request = thread.paused["call-web"].value
    assert request["action_requests"][0]["args"] == {"service": "web"}
    assert request["review_configs"][0]["action_name"] == request["action_requests"][0]["name"] == "deploy"
    thread.answer(sent)
    assert ran == ["web"]
    (event,) = recorded("tool.deploy")
    assert (event.approved_by, event.claim) == ("ana", "succeeded")


def test_an_approval_by_nobody_known_does_not_count(al: AgentLattice, ana: AgentLattice) -> None:
    """Without `approver` the graph stays paused and says why: an agent must not approve itself."""
    ran: list[str] = []
    graph = FORMS["middleware"](al, deploys("web"), [make_deploy(ran.append)], InMemorySaver(), {})
    thread = Thread(graph).go()
    thread.answer(APPROVE)
    assert ran == []
    assert "operator" in thread.paused["call-web"].value["governance"]["note"]
    ana.approve_action_sync(thread.approval("call-web"))
    assert thread.answer(APPROVE).answers == {"call-web": "deployed web"}


def test_an_approver_who_may_not_decide_does_not(al: AgentLattice) -> None:
    """A viewer's approval in the interface leaves the graph paused, with the reason."""
    viewer = al.for_operator("vic", role="viewer")
    ran: list[str] = []
    graph = FORMS["middleware"](
        al, deploys("web"), [make_deploy(ran.append)], InMemorySaver(), {"approver": lambda config: viewer}
    )
    thread = Thread(graph).go().answer(APPROVE)
    assert ran == []
    assert "vic" in thread.paused["call-web"].value["governance"]["note"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    "sent",
    [
        {"decisions": [{"type": "reject", "message": "not on a Friday"}]},
        {"type": "reject", "args": "not on a Friday"},
        [{"type": "response", "args": "not on a Friday"}],
    ],
)
def test_a_rejection_stops_the_call_whoever_sent_it(
    al: AgentLattice, ana: AgentLattice, recorded: Recorded, form: str, named: bool, sent: Any
) -> None:
    """As the approver's denial where there is one, else as the request's withdrawal; the model reads the reason."""
    ran: list[str] = []
    options = {"approver": ana} if named else {}
    graph = FORMS[form](al, deploys("web"), [make_deploy(ran.append)], InMemorySaver(), options)
    thread = Thread(graph).go().answer(sent)
    assert ran == []
    assert "not on a Friday" in thread.answers["call-web"]
    (event,) = recorded("tool.deploy")
    assert event.denial_reason == ("DENIED_BY_REVIEWER" if named else "APPROVAL_CANCELLED")


def test_a_rejection_in_the_interface_stops_a_call_that_was_approved_elsewhere(
    al: AgentLattice, ana: AgentLattice
) -> None:
    """Whoever resumes the graph may still say no."""
    ran: list[str] = []
    graph = FORMS["middleware"](al, deploys("web"), [make_deploy(ran.append)], InMemorySaver(), {})
    thread = Thread(graph).go()
    ana.approve_action_sync(thread.approval("call-web"))
    thread.answer({"type": "reject", "message": "no"})
    assert ran == []
    assert '"reason":"DENIED_BY_REVIEWER"' in thread.answers["call-web"]


def _edit(service: str, *, inbox: bool = False) -> Any:
    if inbox:
        return [{"type": "edit", "args": {"action": "deploy", "args": {"service": service}}}]
    edited = {"name": "deploy", "args": {"service": service}}
    return {"decisions": [{"type": "edit", "edited_action": edited}]}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inbox", [True, False])
def test_an_edit_is_an_action_of_its_own(
    al: AgentLattice, ana: AgentLattice, recorded: Recorded, form: str, inbox: bool
) -> None:
    """Policy decides on the new arguments, a person is asked about them, and the first request is taken back."""
    ran: list[str] = []
    graph = FORMS[form](al, deploys("web"), [make_deploy(ran.append)], InMemorySaver(), {})
    thread = Thread(graph).go()
    first = thread.approval("call-web")
    thread.answer(_edit("api", inbox=inbox))
    assert ran == []
    assert thread.approval("call-web") != first
    assert thread.paused["call-web"].value["action_requests"][0]["args"] == {"service": "api"}
    ana.approve_action_sync(thread.approval("call-web"))
    thread.answer("go on")
    assert ran == ["api"]
    assert "A person changed the arguments" in thread.answers["call-web"]
    assert thread.answers["call-web"].endswith("deployed api")
    old, new = recorded("tool.deploy")
    assert (old.denial_reason, old.claim) == ("APPROVAL_CANCELLED", None)
    assert (new.metadata, new.claim) == ({"service": "api"}, "succeeded")


@pytest.mark.parametrize("form", FORMS)
def test_an_edit_by_the_approver_is_approved_with_it(
    al: AgentLattice, ana: AgentLattice, recorded: Recorded, form: str
) -> None:
    """Whoever may approve need not be asked again about what they wrote themselves."""
    ran: list[str] = []
    graph = FORMS[form](al, deploys("web"), [make_deploy(ran.append)], InMemorySaver(), {"approver": ana})
    Thread(graph).go().answer(_edit("api"))
    assert ran == ["api"]
    assert [event.approved_by for event in recorded("tool.deploy")] == [None, "ana"]


@pytest.mark.parametrize("form", FORMS)
def test_an_edit_that_policy_forbids_does_not_run(al: AgentLattice, ana: AgentLattice, form: str) -> None:
    """Not even when the approver makes it."""
    ran: list[str] = []
    graph = FORMS[form](al, deploys("web"), [make_deploy(ran.append)], InMemorySaver(), {"approver": ana})
    thread = Thread(graph).go().answer(_edit("vault"))
    assert ran == []
    assert '"status":"denied"' in thread.answers["call-web"]


def test_an_edit_to_another_tool_changes_nothing(al: AgentLattice) -> None:
    """The approval was asked for this tool; the graph stays paused."""
    ran: list[str] = []
    graph = FORMS["middleware"](al, deploys("web"), [make_deploy(ran.append)], InMemorySaver(), {})
    thread = Thread(graph).go()
    first = thread.approval("call-web")
    thread.answer({"type": "edit", "edited_action": {"name": "write", "args": {"size": 1}}})
    assert ran == []
    assert thread.approval("call-web") == first


def test_secrets_are_not_shown_and_survive_an_edit(al: AgentLattice, ana: AgentLattice) -> None:
    """The interface sees the redacted arguments; what an edit leaves as shown keeps the value that the model gave."""
    ran: list[tuple[str, str]] = []

    @tool
    def deploy(service: str, password: str) -> str:
        """Deploy."""
        ran.append((service, password))
        return "deployed"

    model = ScriptedModel(asking(call("deploy", "c", service="web", password="hunter2-hunter2")))
    graph = FORMS["middleware"](al, model, [deploy], InMemorySaver(), {"approver": ana})
    thread = Thread(graph).go()
    shown = thread.paused["c"].value["action_requests"][0]["args"]
    assert "hunter2" not in str(thread.paused["c"].value)
    thread.answer({"type": "edit", "args": {**shown, "service": "api"}})
    assert ran == [("api", "hunter2-hunter2")]


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize(
    ("edited", "pauses"),
    [
        ({"service": "api", "password": "[redacted]"}, True),
        ({"service": "api", "password": "another-one"}, False),
        ({"service": "api sk-abcdefghijklmnopqrstuvwx", "password": "[redacted]"}, False),
    ],
)
def test_a_secret_that_an_edit_brings_is_never_replaced_by_another_value(
    al: AgentLattice, ana: AgentLattice, how: str, edited: dict[str, str], pauses: bool
) -> None:
    """Nothing that is redacted is kept while a call waits: an edit that would need it is refused, and does not run with
    the value from before, or with the marker in its place.
    """
    ran: list[tuple[str, str]] = []

    @tool
    def deploy(service: str, password: str) -> str:
        """Deploy."""
        ran.append((service, password))
        return "deployed"

    model = ScriptedModel(asking(call("deploy", "c", service="web", password="hunter2-hunter2")))
    thread = Thread(FORMS["middleware"](al, model, [deploy], InMemorySaver(), {}), how=how).go()
    thread.answer({"type": "edit", "args": edited})
    assert bool(thread.paused) == pauses
    for request in ana.list_pending_approvals_sync():
        ana.approve_action_sync(request.id)
    if pauses:
        thread.answer("go on")
        assert ran == [("api", "hunter2-hunter2")]
    else:
        assert ran == []
        assert '"reason":"APPROVAL_CANCELLED"' in thread.answers["c"]
        assert "a person put a secret into its arguments" in thread.answers["c"]


@pytest.mark.parametrize("form", SEPARATE)
@pytest.mark.parametrize("count", [2, 5])
def test_mixed_answers_reach_their_own_calls(
    al: AgentLattice, ana: AgentLattice, recorded: Recorded, form: str, count: int
) -> None:
    """Approve, reject and edit at once, one after the other, and in reverse: no answer reaches another call."""
    services = [f"s{number}" for number in range(count)]
    ran: list[str] = []
    graph = FORMS[form](al, deploys(*services), [make_deploy(ran.append)], InMemorySaver(), {"approver": ana})
    thread = Thread(graph).go()
    kinds = [APPROVE, {"type": "reject", "message": "no"}, _edit("edited")]
    answers = {f"call-{each}": kinds[number % 3] for number, each in enumerate(services)}
    for call_id in reversed(answers):
        thread.answer_each({call_id: answers[call_id]})
    expected = {
        f"call-{each}": (f"deployed {each}", '"reason":"DENIED_BY_REVIEWER"', "deployed edited")[number % 3]
        for number, each in enumerate(services)
    }
    assert all(text in thread.answers[call_id] for call_id, text in expected.items())
    assert sorted(ran) == sorted(
        "edited" if number % 3 == 2 else each for number, each in enumerate(services) if number % 3 != 1
    )
    assert [event.claim for event in recorded("tool.deploy")].count("succeeded") == len(ran)


@pytest.mark.parametrize("form", SEPARATE)
def test_siblings_that_need_nobody_run_once(
    al: AgentLattice, ana: AgentLattice, recorded: Recorded, form: str
) -> None:
    """A call beside a paused one is neither held up by it nor run again when it is resumed."""
    ran: list[str] = []

    @tool
    def write(size: int) -> str:
        """Write."""
        ran.append(f"write {size}")
        return "written"

    model = ScriptedModel(
        asking(
            call("write", "w1", size=1),
            call("deploy", "d1", service="a"),
            call("write", "w2", size=2),
            call("deploy", "d2", service="b"),
        )
    )
    graph = FORMS[form](al, model, [write, make_deploy(ran.append)], InMemorySaver(), {"approver": ana})
    thread = Thread(graph).go()
    assert sorted(ran) == ["write 1", "write 2"]
    thread.answer_each({"d2": APPROVE})
    thread.answer(APPROVE)
    assert sorted(ran) == ["a", "b", "write 1", "write 2"]
    assert set(thread.answers) == {"w1", "d1", "w2", "d2"}
    assert len(recorded()) == 4


@pytest.mark.parametrize("form", FORMS)
def test_a_graph_that_is_run_on_without_an_answer_stays_paused(
    al: AgentLattice, ana: AgentLattice, recorded: Recorded, form: str
) -> None:
    """Nobody is asked twice, and nothing runs before somebody answers."""
    ran: list[str] = []
    graph = FORMS[form](al, deploys("web"), [make_deploy(ran.append)], InMemorySaver(), {})
    thread = Thread(graph).go().again().again()
    ana.approve_action_sync(thread.approval("call-web"))
    thread.answer("go on")
    assert ran == ["web"]
    assert len(recorded("tool.deploy")) == 1


@pytest.mark.parametrize("form", FORMS)
def test_a_resume_done_twice_runs_the_tool_once(al: AgentLattice, ana: AgentLattice, form: str) -> None:
    """One after the other, and by the id of an interrupt that was answered before."""
    ran: list[str] = []
    graph = FORMS[form](al, deploys("web"), [make_deploy(ran.append)], InMemorySaver(), {"approver": ana})
    thread = Thread(graph).go()
    interrupt_id = thread.paused["call-web"].id
    thread.answer(APPROVE)
    thread.answer(APPROVE)
    thread.go(Command(resume={interrupt_id: APPROVE}))
    assert ran == ["web"]


@pytest.mark.parametrize("form", SEPARATE)
def test_two_resumes_at_once_run_the_tool_once(al: AgentLattice, ana: AgentLattice, form: str) -> None:
    """The claim is taken once; the other run is told that it was."""
    ran: list[str] = []
    graph = FORMS[form](al, deploys("web"), [make_deploy(ran.append)], InMemorySaver(), {})
    thread = Thread(graph).go()
    ana.approve_action_sync(thread.approval("call-web"))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: graph.invoke(Command(resume="go"), thread.config), range(4)))
    assert ran == ["web"]


@pytest.mark.parametrize("form", FORMS)
def test_a_fork_of_the_past_asks_again(
    al: AgentLattice, ana: AgentLattice, recorded: Recorded, form: str
) -> None:
    """Going back to before an approved call is a call of its own: the approval was used."""
    ran: list[str] = []
    model = ScriptedModel(asking(call("deploy", "call-web", service="web")), AIMessage("done"))
    graph = FORMS[form](al, model, [make_deploy(ran.append)], InMemorySaver(), {"approver": ana})
    thread = Thread(graph).go().answer(APPROVE)
    assert ran == ["web"]
    past = next(
        state for state in graph.get_state_history(thread.config) if state.next and state.next[0] == "tools"
    )
    state = graph.invoke(None, past.config)
    assert ran == ["web"]
    assert state["__interrupt__"]
    assert len(recorded("tool.deploy")) == 2


@pytest.mark.parametrize("form", SEPARATE)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_request_that_nobody_decides_times_out(
    tmp_path: Path, policies: str, form: str, count: int
) -> None:
    """An approval that expires while the graph is paused: the model is told so, and nothing ran."""
    clock = ManualClock()
    document = tmp_path / "policies.yaml"
    document.write_text(policies, encoding="utf-8")
    services = [f"s{number}" for number in range(count)]
    ran: list[str] = []
    with AgentLattice.embedded(
        tmp_path / "governance.db", policies=document, agent="tester", clock=clock
    ) as al:
        graph = FORMS[form](al, deploys(*services), [make_deploy(ran.append)], InMemorySaver(), {})
        thread = Thread(graph).go()
        clock.advance(minutes=11)
        thread.answer_each(dict.fromkeys(thread.paused, "go on"))
    assert ran == []
    assert all('"status":"timed_out"' in each for each in thread.answers.values())
    assert len(thread.answers) == count


@pytest.mark.parametrize("form", FORMS)
def test_a_policy_that_changes_while_paused_counts(
    al: AgentLattice, ana: AgentLattice, tmp_path: Path, policies: str, form: str
) -> None:
    """What was approved and is forbidden meanwhile does not run."""
    ran: list[str] = []
    graph = FORMS[form](al, deploys("web"), [make_deploy(ran.append)], InMemorySaver(), {})
    thread = Thread(graph).go()
    ana.approve_action_sync(thread.approval("call-web"))
    changed = tmp_path / "policies.yaml"
    changed.write_text(policies.replace("effect: require_approval", "effect: deny"), encoding="utf-8")
    al.for_operator("root", role="admin").apply_policies_sync(changed)
    thread.answer("go on")
    assert ran == []
    assert '"status":"denied"' in thread.answers["call-web"]


def test_a_decision_that_arrives_before_the_pause_is_saved_counts(
    al: AgentLattice, ana: AgentLattice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator is faster than the graph checkpoint: the graph pauses all the same, and goes on when resumed."""
    ran: list[str] = []

    one_at_a_time = threading.Lock()  # LangGraph writes from several threads

    class Slow(InMemorySaver):
        def put_writes(self, config: Any, writes: Any, *rest: Any) -> None:
            with one_at_a_time:
                for request in ana.list_pending_approvals_sync():
                    ana.approve_action_sync(request.id)
            super().put_writes(config, writes, *rest)

    graph = FORMS["middleware"](al, deploys("web"), [make_deploy(ran.append)], Slow(), {})
    thread = Thread(graph).go()
    assert ana.list_pending_approvals_sync() == []
    assert ran == []
    assert thread.answer("go on").answers == {"call-web": "deployed web"}


@pytest.mark.parametrize("form", FORMS)
def test_without_a_checkpointer_the_call_waits(al: AgentLattice, ana: AgentLattice, form: str) -> None:
    """By default a graph that cannot be paused blocks until somebody decides."""
    ran: list[str] = []
    graph = FORMS[form](al, deploys("web"), [make_deploy(ran.append)], None, {})
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(graph.invoke, {"messages": ["go"]})
        while not (pending := ana.list_pending_approvals_sync()):
            pass
        ana.approve_action_sync(pending[0].id)
        run.result(60)
    assert ran == ["web"]


@pytest.mark.parametrize("form", FORMS)
def test_a_pause_that_was_asked_for_and_cannot_be_is_refused(
    al: AgentLattice, ana: AgentLattice, form: str
) -> None:
    """`on_approval="pause"` without a checkpointer is not quietly something else: no tool runs and nobody is asked."""
    ran: list[str] = []
    graph = FORMS[form](al, deploys("web"), [make_deploy(ran.append)], None, {"on_approval": "pause"})
    state = graph.invoke({"messages": ["go"]})
    assert ran == []
    assert "checkpointer" in state["messages"][-2].content
    assert ana.list_pending_approvals_sync() == []


def test_calls_that_share_a_task_wait(al: AgentLattice, ana: AgentLattice) -> None:
    """In a tool node that runs all calls in one task, and is not ours, an answer could reach the wrong call."""
    ran: list[str] = []
    graph = FORMS["wrapped"](al, deploys("a", "b"), [make_deploy(ran.append)], InMemorySaver(), {})
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(Thread(graph).go)
        decided: set[str] = set()
        while len(decided) < 2:
            for request in ana.list_pending_approvals_sync():
                ana.approve_action_sync(request.id)
                decided.add(request.id)
        thread = run.result(60)
    assert sorted(ran) == ["a", "b"]
    assert thread.answers == {"call-a": "deployed a", "call-b": "deployed b"}


@pytest.mark.parametrize("form", SEPARATE)
def test_a_tool_that_pauses_inside_is_asked_about_for_each_run(
    al: AgentLattice, ana: AgentLattice, recorded: Recorded, form: str
) -> None:
    """Its own answer is kept for it while a person is asked about the next run, and neither is taken for the other."""
    ran: list[str] = []

    @tool
    def deploy(service: str) -> str:
        """Deploy."""
        ran.append(service)
        return f"deployed to {interrupt('where to?')}"

    graph = FORMS[form](al, deploys("web"), [deploy], InMemorySaver(), {})
    thread = Thread(graph).go()
    ana.approve_action_sync(thread.approval("call-web"))
    thread.answer("go on")
    assert ran == ["web"]
    assert [each.value for each in graph.get_state(thread.config).interrupts] == ["where to?"]
    thread.again()
    assert ran == ["web"]
    thread.answer("Paris")
    assert ran == ["web"]
    ana.approve_action_sync(thread.approval("call-web"))
    thread.answer("go on")
    assert ran == ["web", "web"]
    assert thread.answers == {"call-web": "deployed to Paris"}
    assert [event.claim for event in recorded("tool.deploy")] == ["unknown", "succeeded"]


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("form", SEPARATE)
def test_a_graph_goes_on_when_its_requests_are_decided_elsewhere(
    al: AgentLattice, ana: AgentLattice, form: str, how: str
) -> None:
    """One decided before anybody listens, the others after: each call is answered, and none runs twice."""
    ran: list[str] = []
    graph = FORMS[form](al, deploys("a", "b", "c"), [make_deploy(ran.append)], InMemorySaver(), {})
    thread = Thread(graph, how=how).go()
    ana.approve_action_sync(thread.approval("call-a"))
    with ThreadPoolExecutor(1) as pool:
        if how == "sync":
            run = pool.submit(resume_when_decided, graph, thread.config, al)
        else:
            run = pool.submit(asyncio.run, aresume_when_decided(graph, thread.config, al))
        while ran != ["a"]:
            pass
        ana.deny_action_sync(thread.approval("call-b"), "not b")
        ana.approve_action_sync(thread.approval("call-c"))
        state = run.result(60)
    assert ran == ["a", "c"]
    assert [message.content for message in state["messages"][2:5:2]] == ["deployed a", "deployed c"]
    assert "not b" in state["messages"][3].content


def test_nobody_decides_and_the_graph_stays_paused(al: AgentLattice) -> None:
    """After the time given, whoever waits gets the state back."""
    graph = FORMS["middleware"](al, deploys("a"), [make_deploy(lambda _: None)], InMemorySaver(), {})
    thread = Thread(graph).go()
    resume_when_decided(graph, thread.config, al, timeout=0.05)
    assert set(thread.paused) == {"call-a"}


def test_waiting_takes_the_agents_client(al: AgentLattice, ana: AgentLattice) -> None:
    """A client without an agent would never hear of anything."""
    graph = FORMS["middleware"](al, deploys("a"), [make_deploy(lambda _: None)], InMemorySaver(), {})
    with pytest.raises(InvalidRequestError, match="acts for no agent"):
        resume_when_decided(graph, Thread(graph).go().config, ana)
