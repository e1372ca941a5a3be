"""What the demonstration's model knows, it knows from the denial document."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlattice_core import AgentLattice
from agentlattice_core.policy import PolicyDocument
from agentlattice_core.toolcalls import Denial, ToolCall, ToolGate, ToolMapping
from agentlattice_integrations.demo import Answer, Brain, Call, Conversation, Exchange, Offer

TASK = "Open a pull request with every file that branch `b` changes."
OPENING = {"pr_size": lambda arguments: len(arguments["files"])}

PULL_REQUESTS = """
version: 1
policies:
  - name: Reading
    action: tool.list_changed_files
    effect: allow
  - name: PR Size
    action: pr.open
    effect: allow
    explain: {explain}
    conditions:
      - {{field: pr_size, operator: {operator}, value: {limit}}}
"""

SECRETS = """
version: 1
policies:
  - name: Everything else
    action: "*"
    effect: allow
  - name: Secrets
    action: secret.read
    effect: allow
    {message}
    conditions:
      - {{field: agent.grants, operator: contains, value: secret.read}}
"""


_numbers = itertools.count(1)


class Agent:
    """The brain, and a real gate before each call. `opened` are the pull requests that got through, `ran` all calls."""

    def __init__(self, policies: str, files: Sequence[str] = (), offers: Sequence[Offer] = ()) -> None:
        document = PolicyDocument.parse(policies)
        self.al = AgentLattice.embedded(f"{next(_numbers)}.db", policies=document, agent="demo")
        self.gate = ToolGate(
            self.al,
            actions={
                "open_pull_request": ToolMapping("pr.open", metadata=OPENING),
                "read_credentials": "secret.read",
            },
        )
        self.files = list(files)
        self.offers = offers
        self.exchanges: list[Exchange] = []
        self.ran: list[Call] = []

    def run(self, task: str) -> str:
        for _ in range(200):
            move = Brain().think(Conversation(task, self.exchanges, self.offers))
            if isinstance(move, Answer):
                return move.text
            answer = self.gate.authorize_sync(ToolCall("test", move.tool, dict(move.arguments)))
            if isinstance(answer, Denial):
                self.exchanges.append(Exchange(move, answer.text))
            else:
                self.ran.append(move)
                listing = move.tool == "list_changed_files"
                self.exchanges.append(Exchange(move, "\n".join(self.files) if listing else "done"))
        raise AssertionError("the model never came to an end")

    @property
    def opened(self) -> list[list[str]]:
        return [call.arguments["files"] for call in self.ran if call.tool == "open_pull_request"]


@pytest.fixture
def agents() -> Iterator[list[Agent]]:
    made: list[Agent] = []
    yield made
    for agent in made:
        agent.al.close()


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 60), limit=st.integers(-1, 70), operator=st.sampled_from(["lt", "lte"]))
def test_any_limit_is_kept_with_as_few_calls_as_it_takes(count: int, limit: int, operator: str) -> None:
    """Whatever the limit, every file is opened once, in the fewest calls within it; without a way, none is opened."""
    files = [f"file_{number}" for number in range(count)]
    agent = Agent(PULL_REQUESTS.format(explain="full", operator=operator, limit=limit), files)
    try:
        agent.run(TASK)
        most = limit - 1 if operator == "lt" else limit
        if most < 1:
            assert agent.opened == []
        else:
            assert [file for part in agent.opened for file in part] == files
            assert len(agent.opened) == -(-count // most)
            assert all(len(part) <= most for part in agent.opened)
    finally:
        agent.al.close()


def test_a_bound_that_the_policy_hides_is_not_guessed(agents: list[Agent]) -> None:
    """Where `explain` keeps the limit from the agent, the model has nothing to go by: it tells the user and stops."""
    files = [f"file_{number}" for number in range(87)]
    for explain in ("fields", "none"):
        agent = Agent(PULL_REQUESTS.format(explain=explain, operator="lt", limit=50), files)
        agents.append(agent)
        assert "not done: " in agent.run(TASK)
        assert agent.opened == []
        assert len(agent.exchanges) == 2


SERVICE = ("service",)
OFFERS = [
    Offer("read_credentials", "Read a service's secrets.", SERVICE),
    Offer("read_configuration", "Read a service's configuration.", SERVICE),
    Offer("read_logs", "Read a service's logs.", SERVICE),
    Offer("page_somebody", "Page the person on call about the logs.", ("service", "person")),
]


@pytest.mark.parametrize(
    ("message", "followed"),
    [
        ("message: read the configuration of the service instead", "read_configuration"),
        ("message: the logs of the service hold what is needed", "read_logs"),
    ],
)
def test_the_alternative_is_the_one_that_the_denial_names(
    agents: list[Agent], message: str, followed: str
) -> None:
    """Another message in the policy, another tool: the model has no favourite of its own."""
    agent = Agent(SECRETS.format(message=message), offers=OFFERS)
    agents.append(agent)
    agent.run("Diagnose the errors of `payment-api`.")
    assert [call.tool for call in agent.ran] == [followed]


@pytest.mark.parametrize("message", ["", "message: ask security", "message: page somebody about it"])
def test_without_an_alternative_the_user_is_told(agents: list[Agent], message: str) -> None:
    """A denial that names no tool on offer, or one whose arguments are not known, ends in an answer, not in a guess."""
    agent = Agent(SECRETS.format(message=message), offers=OFFERS)
    agents.append(agent)
    assert agent.run("Diagnose the errors of `payment-api`.").startswith("not done: ")
    assert agent.ran == []


@pytest.mark.parametrize(
    "result",
    ["", "null", "[]", "{}", '{"type": 5}', '{"type": "agentlattice.denial/v1"}', '{"type":', "12", "\x00"],
)
def test_any_result_of_a_tool_is_taken_as_it_is(result: Any) -> None:
    """What is not a denial document is a result; a document without its members is a refusal; neither is an error."""
    call = Call("read_credentials", {"service": "payment-api"})
    move = Brain().think(Conversation("Diagnose `payment-api`.", [Exchange(call, result)], OFFERS))
    assert isinstance(move, Answer)
    assert move.text.startswith("not done: ") == ("denial/v1" in result)


def test_a_task_it_does_not_know_ends_in_an_answer() -> None:
    """A task outside its few words, or without the values it needs, is declined in words."""
    for task in ("Sing.", "Deploy something.", ""):
        assert isinstance(Brain().think(Conversation(task, [], OFFERS)), Answer)
