"""What a subscription makes of a service that goes silent, turns it away, or says what is no notification."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import KEY
from scripted_service import Steps
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from agentlattice_core import AgentLattice, AgentLatticeError, ForbiddenError, GovernanceEvent
from agentlattice_core.remote import events

Client = Callable[..., AgentLattice]
PATIENCE = 60.0


class PhoenixService:
    """A WebSocket server of whose connections each is run by the next of `scripts`, the last one by all that follow."""

    def __init__(self, *scripts: Callable[[PhoenixService, ServerConnection], None], refuse: int = 0) -> None:
        self.said: queue.Queue[dict[str, Any]] = queue.Queue()
        self.paths: list[str] = []
        self._scripts = list(scripts)

        def check(_: ServerConnection, request: Request) -> Response | None:
            self.paths.append(request.path)
            return Response(refuse, "No", Headers({"Content-Length": "0"}), b"") if refuse else None

        def run(connection: ServerConnection) -> None:
            script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
            try:
                script(self, connection)
            except ConnectionClosed:
                pass  # the client has heard enough

        self._server = serve(run, "127.0.0.1", 0, process_request=check)
        self.url = f"http://127.0.0.1:{self._server.socket.getsockname()[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def heard(self, connection: ServerConnection) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(connection.recv(timeout=PATIENCE))
        self.said.put(message)
        return message

    def joined(self, connection: ServerConnection, cursor: str | None = None) -> str:
        """Take a join, and answer it. The topic."""
        message = self.heard(connection)
        response = {} if cursor is None else {"cursor": cursor}
        self.reply(connection, message, "ok", response)
        topic: str = message["topic"]
        return topic

    @staticmethod
    def reply(connection: ServerConnection, message: dict[str, Any], status: str, response: Any) -> None:
        payload = {"status": status, "response": response}
        told = {"topic": message["topic"], "event": "phx_reply", "payload": payload, "ref": message["ref"]}
        connection.send(json.dumps(told))

    @staticmethod
    def tell(connection: ServerConnection, topic: str, cursor: str | None = None) -> None:
        told = {"event_type": "action.executed", "timestamp": "t", "org_id": "org_1", "data": {"n": cursor}}
        if cursor is not None:
            told["cursor"] = cursor
        payload = {"type": "broadcast", "event": "governance", "payload": told}
        connection.send(json.dumps({"topic": topic, "event": "broadcast", "payload": payload, "ref": None}))

    def stop(self) -> None:
        self._server.shutdown()


@pytest.fixture
def phoenix() -> Iterator[Callable[..., PhoenixService]]:
    started: list[PhoenixService] = []

    def start(*scripts: Any, **options: Any) -> PhoenixService:
        started.append(PhoenixService(*scripts, **options))
        return started[-1]

    yield start
    for service in started:
        service.stop()


@pytest.fixture
def told() -> queue.Queue[GovernanceEvent]:
    return queue.Queue()


def test_it_joins_by_the_protocol(
    phoenix: Callable[..., PhoenixService], client: Client, told: queue.Queue[GovernanceEvent]
) -> None:
    """The key and the rate are in the address, the topic is the organisation's; what is not for it is passed over."""

    def script(service: PhoenixService, connection: ServerConnection) -> None:
        topic = service.joined(connection)
        connection.send(json.dumps({"topic": topic, "event": "presence_state", "payload": {}, "ref": None}))
        connection.send(json.dumps({"topic": topic, "event": "broadcast", "payload": {"event": "other"}}))
        service.tell(connection, topic, "7")
        connection.recv(timeout=PATIENCE)

    service = phoenix(script)
    client(service.url).subscribe_sync("org_1", told.put)
    event = told.get(timeout=PATIENCE)
    assert (event.event_type, event.data) == ("action.executed", {"n": "7"})
    join = service.said.get()
    assert (join["topic"], join["event"], join["payload"]) == ("gov:org_1", "phx_join", {})
    assert service.paths == [f"/realtime/v1?apikey={KEY}&eventsPerSecond=10&vsn=1.0.0"]


def test_a_service_that_goes_silent_is_left(
    phoenix: Callable[..., PhoenixService],
    client: Client,
    told: queue.Queue[GovernanceEvent],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A heartbeat that is not answered by the time of the next one means that nobody is there; the next connection goes
    on from the cursor.
    """
    monkeypatch.setattr(events, "_BEAT", 0.05)

    def silent(service: PhoenixService, connection: ServerConnection) -> None:
        service.tell(connection, service.joined(connection, "3"), "4")
        while True:
            service.heard(connection)

    def alive(service: PhoenixService, connection: ServerConnection) -> None:
        service.tell(connection, service.joined(connection, "4"), "5")
        while True:
            service.reply(connection, service.heard(connection), "ok", {})

    service = phoenix(silent, alive)
    client(service.url).subscribe_sync("org_1", told.put)
    assert [told.get(timeout=PATIENCE).data["n"] for _ in range(2)] == ["4", "5"]
    said = [service.said.get(timeout=PATIENCE) for _ in range(6)]
    joins = [message["payload"] for message in said if message["event"] == "phx_join"]
    assert joins == [{}, {"cursor": "4"}]
    beats = [message for message in said if message["event"] == "heartbeat"]
    assert {message["topic"] for message in beats} == {"phoenix"}


@pytest.mark.parametrize(
    "nonsense",
    ["not json", "[1]", '{"event": "broadcast", "payload": 7}', '{"event": "phx_error", "payload": {}}'],
)
def test_nonsense_ends_the_connection_and_not_the_subscription(
    phoenix: Callable[..., PhoenixService], client: Client, told: queue.Queue[GovernanceEvent], nonsense: str
) -> None:
    """It joins again from where it stood when it joined."""

    def mad(service: PhoenixService, connection: ServerConnection) -> None:
        service.joined(connection, "8")
        connection.send(nonsense)
        connection.recv(timeout=PATIENCE)

    def sane(service: PhoenixService, connection: ServerConnection) -> None:
        service.tell(connection, service.joined(connection, "8"), "9")
        connection.recv(timeout=PATIENCE)

    service = phoenix(mad, sane)
    client(service.url).subscribe_sync("org_1", told.put)
    assert told.get(timeout=PATIENCE).data == {"n": "9"}
    assert [service.said.get()["payload"] for _ in range(2)] == [{}, {"cursor": "8"}]


def test_a_key_that_may_not_follow_is_told_so_at_once(
    phoenix: Callable[..., PhoenixService], client: Client, pace: Steps
) -> None:
    """Before the upgrade or in answer to the join; nothing is tried again."""
    with pytest.raises(ForbiddenError):
        client(phoenix(lambda *_: None, refuse=401).url).subscribe_sync("org_1", print)

    def refusing(service: PhoenixService, connection: ServerConnection) -> None:
        service.reply(connection, service.heard(connection), "error", {"reason": "not yours"})

    with pytest.raises(ForbiddenError):
        client(phoenix(refusing).url).subscribe_sync("org_1", print)
    assert pace.slept == []


def test_a_service_that_is_down_is_tried_four_times_at_first(
    phoenix: Callable[..., PhoenixService], client: Client, pace: Steps
) -> None:
    """Whoever subscribes is told that nobody will tell them anything."""
    service = phoenix(lambda *_: None, refuse=503)
    with pytest.raises(AgentLatticeError) as raised:
        client(service.url).subscribe_sync("org_1", print)
    assert raised.value.code == "NETWORK_ERROR"
    assert (len(service.paths), pace.slept) == (4, [1.0, 2.0, 4.0])
