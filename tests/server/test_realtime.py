"""Notifications over Phoenix channels: the index's `realtime` client, both serializers, resuming, refusals, fuzz."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from realtime import AsyncRealtimeClient, RealtimeSubscribeStates
from service_world import ServiceWorld

from agentlattice_core.admission import Caller
from agentlattice_core.client import AgentLattice

PATIENCE = 60.0


class Phoenix:
    """A connection that speaks objects or arrays."""

    def __init__(self, socket: websockets.ClientConnection, arrays: bool) -> None:
        self.socket = socket
        self._arrays = arrays
        self._ref = 0

    async def send(self, topic: str, event: str, payload: dict[str, Any]) -> str:
        self._ref += 1
        ref = str(self._ref)
        whole: Any = {"topic": topic, "event": event, "payload": payload, "ref": ref}
        await self.socket.send(json.dumps([ref, ref, topic, event, payload] if self._arrays else whole))
        return ref

    async def receive(self) -> dict[str, Any]:
        value = json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE))
        if self._arrays:
            value = dict(zip(("join_ref", "ref", "topic", "event", "payload"), value, strict=True))
        return value

    async def ask(self, topic: str, event: str, payload: dict[str, Any]) -> dict[str, Any]:
        ref = await self.send(topic, event, payload)
        while True:
            message = await self.receive()
            if message["event"] == "phx_reply" and message["ref"] == ref:
                return message["payload"]

    async def told(self, count: int) -> list[dict[str, Any]]:
        found = []
        while len(found) < count:
            message = await self.receive()
            if message["event"] == "broadcast":
                assert message["payload"]["event"] == "governance"
                found.append(message["payload"]["payload"])
        return found


@asynccontextmanager
async def connected(
    world: ServiceWorld, key: str, *, path: str = "/realtime/v1", vsn: str | None = None
) -> AsyncIterator[Phoenix]:
    address = f"{world.url.replace('http', 'ws', 1)}{path}?apikey={key}&eventsPerSecond=10"
    async with websockets.connect(f"{address}&vsn={vsn}" if vsn else address, ping_interval=None) as socket:
        yield Phoenix(socket, vsn == "2.0.0")


async def acted(world: ServiceWorld, key: str, action_type: str = "read_data") -> str:
    answer = await asyncio.to_thread(world.call, key, "POST", "/api/v1/actions", {"action_type": action_type})
    assert answer.status_code == 200, answer.text
    event: str = answer.json()["audit_event_id"]
    return event


async def test_the_indexs_realtime_client_joins_keeps_its_heartbeat_and_receives(world: ServiceWorld) -> None:
    """`realtime` subscribes, is answered its heartbeat, and is called with what happens."""
    key, heard, states = world.new_agent(), [], []
    client = AsyncRealtimeClient(f"{world.url}/realtime/v1", key)
    await client.connect()
    channel = client.channel(f"gov:{world.org_id}")
    channel.on_broadcast("governance", heard.append)
    await channel.subscribe(lambda state, error: states.append((state, error)))
    assert states == [(RealtimeSubscribeStates.SUBSCRIBED, None)]
    event = await acted(world, key)
    async with asyncio.timeout(PATIENCE):
        while not heard:
            await asyncio.sleep(0.05)
    assert heard[0]["payload"]["data"]["audit_event_id"] == event
    assert client.is_connected
    await channel.unsubscribe()
    await client.close()


async def test_the_indexs_realtime_client_is_refused_another_topic(world: ServiceWorld) -> None:
    """A topic of another organisation reads as an error of the channel."""
    states: list[Any] = []
    client = AsyncRealtimeClient(f"{world.url}/realtime/v1", world.new_agent())
    await client.connect()
    channel = client.channel("gov:org_of_somebody_else")
    await channel.subscribe(lambda state, error: states.append(state))
    assert states == [RealtimeSubscribeStates.CHANNEL_ERROR]
    await client.close()


@pytest.mark.parametrize("path", ["/realtime/v1", "/realtime/v1/websocket"])
@pytest.mark.parametrize("vsn", [None, "1.0.0", "2.0.0"])
async def test_both_serializers_and_both_addresses_work(
    world: ServiceWorld, path: str, vsn: str | None
) -> None:
    """Join, heartbeat, broadcast and leave are answered in the form that was asked for."""
    key, topic = world.new_agent(), f"gov:{world.org_id}"
    async with connected(world, key, path=path, vsn=vsn) as phoenix:
        joined = await phoenix.ask(topic, "phx_join", {})
        assert joined["status"] == "ok"
        assert (await phoenix.ask("phoenix", "heartbeat", {}))["status"] == "ok"
        event = await acted(world, key)
        (told,) = await phoenix.told(1)
        assert told["event_type"] == "action.executed"
        assert told["org_id"] == world.org_id
        assert told["data"]["audit_event_id"] == event
        assert (await phoenix.ask(topic, "phx_leave", {}))["status"] == "ok"
        await acted(world, key)
        assert (await phoenix.ask("phoenix", "heartbeat", {}))["status"] == "ok"


async def test_who_comes_back_with_a_cursor_misses_nothing_and_hears_nothing_twice(
    world: ServiceWorld,
) -> None:
    """What happened while a client was away is told first, in order, before what happens then."""
    key, topic = world.new_agent(), f"gov:{world.org_id}"
    async with connected(world, key) as phoenix:
        await phoenix.ask(topic, "phx_join", {})
        before = [await acted(world, key) for _ in range(2)]
        told = await phoenix.told(2)
        assert [one["data"]["audit_event_id"] for one in told] == before
        cursor = told[0]["cursor"]
    missed = [await acted(world, key) for _ in range(3)]
    async with connected(world, key) as phoenix:
        joined = await phoenix.ask(topic, "phx_join", {"cursor": cursor})
        assert joined["response"]["cursor"] == cursor
        after = await acted(world, key)
        told = await phoenix.told(5)
    assert [one["data"]["audit_event_id"] for one in told] == [before[1], *missed, after]


async def test_a_client_that_reads_slowly_loses_nothing(world: ServiceWorld) -> None:
    """Each of hundreds of notifications arrives in order, however late the client reads them."""
    key, topic = world.new_agent(), f"gov:{world.org_id}"
    async with connected(world, key) as phoenix:
        await phoenix.ask(topic, "phx_join", {})
        al = AgentLattice.over(world.engine, Caller("bot"))
        results = await asyncio.gather(*(al.execute("read_data") for _ in range(300)))
        told = await phoenix.told(300)
    # An id begins with the entry's index.
    assert [one["data"]["audit_event_id"] for one in told] == sorted(one.audit_event_id for one in results)


async def test_an_operator_hears_everybody_and_an_agent_itself(world: ServiceWorld) -> None:
    """What concerns others is not told to an agent; a change of policy concerns all."""
    one, other, topic = world.new_agent("one"), world.new_agent("other"), f"gov:{world.org_id}"
    async with connected(world, one) as agent, connected(world, world.keys.operator_key) as operator:
        await agent.ask(topic, "phx_join", {})
        await operator.ask(topic, "phx_join", {})
        theirs, own = await acted(world, other), await acted(world, one)
        heard = [told["data"]["audit_event_id"] for told in await operator.told(2)]
        assert heard == [theirs, own]
        assert [told["data"]["audit_event_id"] for told in await agent.told(1)] == [own]
        document = {"yaml": "version: 1\npolicies: [{name: New, action: new.thing, effect: allow}]"}
        await asyncio.to_thread(world.as_operator, "PUT", "/api/v1/policies/document", document)
        assert [told["event_type"] for told in await agent.told(1)] == ["policy.changed"]


@pytest.mark.parametrize(("key", "status"), [("", 401), ("al_agent_x", 401), ("service", 403)])
async def test_who_may_not_follow_is_refused_before_the_upgrade(
    world: ServiceWorld, key: str, status: int
) -> None:
    """No key, a wrong one and a service key get an HTTP answer, and no WebSocket."""
    shown = world.keys.service_key if key == "service" else key
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with connected(world, shown):
            pass
    assert refused.value.response.status_code == status


@pytest.mark.parametrize("topic", ["gov:org_of_somebody_else", "gov:", "phoenix", "*", "gov:*", ""])
async def test_no_other_topic_may_be_joined(world: ServiceWorld, topic: str) -> None:
    """Whatever it is called, a topic that is not the key's own organisation is an error."""
    async with connected(world, world.keys.operator_key) as phoenix:
        answer = await phoenix.ask(topic, "phx_join", {})
        assert answer["status"] == "error"


async def test_a_key_that_is_revoked_hears_no_more(world: ServiceWorld) -> None:
    """The connection is closed as soon as the log says that its key has ended."""
    answer = world.as_service("POST", "/api/agents/register", {"name": "bot"}).json()
    async with connected(world, answer["api_key"]) as phoenix:
        await phoenix.ask(f"gov:{world.org_id}", "phx_join", {})
        await asyncio.to_thread(world.as_service, "DELETE", f"/api/v1/keys/{answer['key_id']}")
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await phoenix.told(1)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


async def test_nobody_may_broadcast(world: ServiceWorld) -> None:
    """What a client sends on a topic is refused, and reaches nobody."""
    topic = f"gov:{world.org_id}"
    async with connected(world, world.keys.operator_key) as one, connected(world, world.new_agent()) as other:
        await one.ask(topic, "phx_join", {})
        await other.ask(topic, "phx_join", {})
        payload = {"type": "broadcast", "event": "governance", "payload": {"event_type": "action.executed"}}
        assert (await one.ask(topic, "broadcast", payload))["status"] == "error"
        await other.ask("phoenix", "heartbeat", {})


async def test_whatever_is_sent_the_connection_answers_its_heartbeat_or_closes(world: ServiceWorld) -> None:
    """Frames that are no messages, in no form, bring nothing down and nobody else's connection with them."""
    seed = int(os.environ.get("AL_FUZZ_SEED", random.SystemRandom().randrange(2**32)))
    print(f"AL_FUZZ_SEED={seed}")
    dice = random.Random(seed)
    pieces: list[Any] = [
        None,
        True,
        -1,
        2**70,
        1.5,
        "",
        "gov:",
        "phx_join",
        "phoenix",
        "heartbeat",
        {},
        [],
        "\0",
    ]

    def piece(depth: int = 0) -> Any:
        choice = dice.randrange(8)
        if choice == 0 and depth < 4:
            return {str(piece(9)): piece(depth + 1) for _ in range(dice.randrange(4))}
        if choice == 1 and depth < 4:
            return [piece(depth + 1) for _ in range(dice.randrange(7))]
        return dice.choice(pieces)

    def frame() -> str | bytes:
        choice = dice.randrange(4)
        if choice == 0:
            return dice.randbytes(dice.randrange(200))
        if choice == 1:
            return dice.randbytes(dice.randrange(100)).decode("latin-1")
        if choice == 2:
            return json.dumps([piece() for _ in range(5)])
        members = ("topic", "event", "payload", "ref", "join_ref", "cursor")
        return json.dumps({name: piece() for name in members if dice.random() < 0.8})

    async with connected(world, world.keys.operator_key) as watching:
        for vsn in ("1.0.0", "2.0.0"):
            async with connected(world, world.keys.operator_key, vsn=vsn) as phoenix:
                await phoenix.ask(f"gov:{world.org_id}", "phx_join", {})
                for _ in range(150):
                    await phoenix.socket.send(frame())
                await phoenix.ask("phoenix", "heartbeat", {})
        assert (await watching.ask("phoenix", "heartbeat", {}))["status"] == "ok"
