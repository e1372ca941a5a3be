"""The process that asked is killed, and another one goes on: what was approved runs there, once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph_saver import FileSaver

from agentlattice_core import AgentLattice

COUNTS = (1, 2, 5)
DECISIONS = ("approve", "deny", "edit", "time out")
FORMS = ("middleware", "tools", "node")

_AGENT = r"""
import json, os, signal, sys
from pathlib import Path
from langgraph.types import Command
from langgraph_pausing import FORMS, Thread, deploys, make_deploy
from langgraph_saver import FileSaver
from langgraph_scripted import ScriptedModel, asking, call
from agentlattice_core import AgentLattice
from agentlattice_core.toolcalls import governed

directory, step = Path(sys.argv[1]), sys.argv[2]
threads = json.loads((directory / "threads.json").read_text())
saver = FileSaver(directory / "graph")
al = AgentLattice.embedded(directory / "governance.db", policies=directory / "policies.yaml", agent="tester")
hurried = al.for_agent("hurried")

def ran_in(thread):
    def ran(service):
        with open(directory / f"ran-{thread}", "a") as file:
            file.write(service + "\n")
        if step == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
    return ran

def graph_of(name, form, services, first):
    model = deploys(*services) if first else ScriptedModel()
    client = hurried if services[0].startswith("hurry") else al
    return FORMS[form](client, model, [make_deploy(ran_in(name))], saver, {})

said = {}
for name, (form, services, answers) in threads.items():
    thread = Thread(graph_of(name, form, services, step == "ask"), name)
    if step == "ask":
        thread.go()
    elif thread.paused:
        thread.answer_each({each: answers.get(each, "go on") for each in thread.paused})
        if thread.paused:
            asked = {each: paused.value["action_requests"][0]["args"] for each, paused in thread.paused.items()}
            said[name] = {each: f"paused: {arguments}" for each, arguments in asked.items()}
        else:
            said[name] = thread.answers
    else:
        thread.again()
        said[name] = thread.answers
(directory / f"{step}.json").write_text(json.dumps(said))
if step == "ask":
    os.kill(os.getpid(), signal.SIGKILL)
hurried.close()
al.close()
"""


class Processes:
    """Runs the agents of `threads` in processes of their own."""

    def __init__(self, directory: Path, policies: str) -> None:
        self.directory = directory
        (directory / "policies.yaml").write_text(policies, encoding="utf-8")
        (directory / "agent.py").write_text(_AGENT, encoding="utf-8")

    def run(self, step: str, threads: dict[str, tuple[str, list[str], dict[str, Any]]]) -> dict[str, Any]:
        """One process over all threads; what the models were answered. `ask` and `crash` end by SIGKILL."""
        (self.directory / "threads.json").write_text(json.dumps(threads), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(self.directory / "agent.py"), str(self.directory), step],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": f"{Path(__file__).parent}:{':'.join(sys.path)}"},
            check=False,
        )
        killed = step in ("ask", "crash")
        assert done.returncode == (-signal.SIGKILL if killed else 0), done.stderr
        found = self.directory / f"{step}.json"
        return json.loads(found.read_text()) if found.exists() else {}

    def ran(self, name: str) -> list[str]:
        """What ran in a thread, sorted."""
        found = self.directory / f"ran-{name}"
        return sorted(found.read_text().split()) if found.exists() else []

    def pending(self) -> dict[str, str]:
        """The approval of each thread's call, as `thread/call`, read from the graph checkpoints alone."""
        found: dict[str, str] = {}
        for thread, interrupt in FileSaver(self.directory / "graph").interrupts():
            governance = interrupt.value["governance"]
            found[f"{thread}/{governance['tool_call_id']}"] = governance["approval_id"]
        return found


@pytest.fixture
def processes(tmp_path: Path, policies: str) -> Processes:
    """Processes over one directory."""
    return Processes(tmp_path, policies)


@pytest.fixture
def reopen(processes: Processes) -> Iterator[Callable[[], AgentLattice]]:
    """The log, opened by somebody else than the agent."""
    opened: list[AgentLattice] = []

    def opening() -> AgentLattice:
        opened.append(
            AgentLattice.embedded(processes.directory / "governance.db", operator="ana", role="member")
        )
        return opened[-1]

    yield opening
    for client in opened:
        client.close()


def test_every_answer_reaches_its_own_call_in_another_process(
    processes: Processes, reopen: Callable[[], AgentLattice]
) -> None:
    """1, 2 and 5 parallel calls in each form, killed after the pause; approved, denied, edited and timed out."""
    threads: dict[str, tuple[str, list[str], dict[str, Any]]] = {}
    for form in FORMS:
        for count in COUNTS:
            for decision in DECISIONS:
                hurried = "hurry" if decision == "time out" else "s"
                name = f"{form}-{count}-{decision.replace(' ', '')}"
                threads[name] = (form, [f"{hurried}{number}" for number in range(count)], {})
    processes.run("ask", threads)
    assert all(processes.ran(name) == [] for name in threads)
    ana = reopen()
    approvals = processes.pending()
    assert len(approvals) == sum(len(services) for _, services, _ in threads.values())
    expected: dict[str, dict[str, str]] = {}
    for name, (_, services, answers) in threads.items():
        expected[name] = {}
        for each in services:
            call_id = f"call-{each}"
            approval = approvals[f"{name}/{call_id}"]
            if name.endswith("approve"):
                ana.approve_action_sync(approval)
                expected[name][call_id] = f"deployed {each}"
            elif name.endswith("deny"):
                ana.deny_action_sync(approval, f"not {name} {each}")
                expected[name][call_id] = f"not {name} {each}"
            elif name.endswith("edit"):
                edited = {"name": "deploy", "args": {"service": f"edited-{each}"}}
                answers[call_id] = {"decisions": [{"type": "edit", "edited_action": edited}]}
                expected[name][call_id] = f"paused: {{'service': 'edited-{each}'}}"
            else:
                expected[name][call_id] = '"status":"timed_out"'
    time.sleep(1.1)  # the deadline of those that nobody decides
    said = processes.run("resume", threads)
    for name, answers in expected.items():
        for call_id, text in answers.items():
            assert text in said[name][call_id], (name, call_id)
        assert processes.ran(name) == (sorted(threads[name][1]) if name.endswith("approve") else []), name
    for approval in ana.list_pending_approvals_sync():
        ana.approve_action_sync(approval.id)
    edited = {
        name: (form, services, {}) for name, (form, services, _) in threads.items() if name.endswith("edit")
    }
    said = processes.run("again", edited)
    for name, (_, services, _) in edited.items():
        assert processes.ran(name) == [f"edited-{each}" for each in services]
        assert all(said[name][f"call-{each}"].endswith(f"deployed edited-{each}") for each in services)
    claims = [event.claim for event in _all(ana)]
    assert claims.count("succeeded") == 2 * len(FORMS) * sum(COUNTS)
    assert set(claims) == {"succeeded", None}


@pytest.mark.parametrize("form", ["middleware", "node"])
def test_a_crash_inside_an_approved_tool_leaves_one_run(
    processes: Processes, reopen: Callable[[], AgentLattice], form: str
) -> None:
    """Killed after the tool began: resumed with the same answer, or run on, it is not run again and says so."""
    threads: dict[str, tuple[str, list[str], dict[str, Any]]] = {"t": (form, ["web"], {})}
    processes.run("ask", threads)
    ana = reopen()
    (approval,) = processes.pending().values()
    ana.approve_action_sync(approval)
    processes.run("crash", threads)
    assert processes.ran("t") == ["web"]
    said = processes.run("resume", threads)
    assert processes.ran("t") == ["web"]
    assert '"reason":"OUTCOME_UNKNOWN"' in said["t"]["call-web"]
    assert [event.claim for event in _all(ana)] == ["started"]


def _all(client: AgentLattice) -> list[Any]:
    found: list[Any] = []
    cursor = None
    while True:
        page = client.audit_sync(cursor, limit=200, action_type="tool.deploy")
        found += page.events
        if (cursor := page.next_cursor) is None:
            return found
