"""Notifications over a WebSocket, for every client that speaks Phoenix channels.

- A connection is a cursor on the log: it reads on where it stands once there is something to read, as fast as its
  client takes it. There is no queue that could grow or lose anything.
- A join may say where to go on (`cursor`); its answer and each broadcast say where the client stands. A client that
  comes back with the last one it got misses nothing, and gets nothing twice.
- The topic is `gov:` and the organisation's id (or `realtime:gov:`, as some clients write it). Another organisation's
  may not be joined, and nobody may broadcast.
- A key that is not in force is refused before the upgrade. One that ends while it is connected is closed with 1008,
  once that is in the log or at the next heartbeat.
- An agent hears of what is its own, an operator of everything; a service key of nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, Literal

import orjson
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from agentlattice_core import keys
from agentlattice_core.agents import agent_facts
from agentlattice_core.clock import time_of_log
from agentlattice_core.errors import AgentLatticeError, ForbiddenError
from agentlattice_core.follower import Watch
from agentlattice_core.notifications import concerns, notification
from agentlattice_core.stores.base import Row
from agentlattice_server.authentication import Authenticator, Identity
from agentlattice_server.phoenix import ARRAYS, OBJECTS, PhoenixMessage, read_message, reply_to, written
from agentlattice_server.problems import answer_error

__all__ = ["realtime"]

_ROWS_AT_ONCE = 200
_MOST_TOPICS = 8
_POLICY_VIOLATION = 1008
_SERVICE_RESTART = 1012
_TOPIC = re.compile(r"(?:realtime:)?gov:(.+)", re.DOTALL)
_CURSOR = re.compile(r"-1|[0-9]{1,15}")
_CHANGES_WHO_MAY = ("key", "operator", "delegation")


def realtime(authenticator: Authenticator, stopping: asyncio.Event) -> Callable[[WebSocket], Awaitable[None]]:
    """The endpoint. Connections are closed once `stopping` is set."""

    async def connect(socket: WebSocket) -> None:
        version = socket.query_params.get("vsn") or OBJECTS
        try:
            if version not in (OBJECTS, ARRAYS):
                raise ForbiddenError(f"vsn `{version:.20}` must be {OBJECTS} or {ARRAYS}")
            identity = await authenticator.holder(socket.query_params.get("apikey") or "")
            if identity.kind == "service":
                raise ForbiddenError("a service key follows nothing; this takes an agent or operator key")
        except AgentLatticeError as error:
            await _refuse(socket, error)
            return
        await socket.accept()
        await _Connection(socket, identity, version, stopping).run()

    return connect


async def _refuse(socket: WebSocket, error: AgentLatticeError) -> None:
    if "websocket.http.response" in socket.scope.get("extensions", {}):
        refusal: Response = answer_error(error, wire=True)
        await socket.send_denial_response(refusal)
    else:
        await socket.close(_POLICY_VIOLATION)


class _Connection:
    """One connection that was accepted."""

    def __init__(self, socket: WebSocket, identity: Identity, version: str, stopping: asyncio.Event) -> None:
        self._socket = socket
        self._identity = identity
        self._version = version
        self._stopping = stopping
        self._joined: dict[str, str | None] = {}
        """Topics that were joined, and the reference of the join."""
        self._position = 0
        """The index of the entry that is to be read next."""
        self._bell = asyncio.Event()
        self._own: str | None = None
        self._ended: int | None = None

    async def run(self) -> None:
        """Serve it until it is closed by either side."""
        loop = asyncio.get_running_loop()
        follower = self._identity.engine.follower

        def ring(_entry: dict[str, Any], _row: Row) -> None:
            if not self._bell.is_set():
                try:
                    loop.call_soon_threadsafe(self._bell.set)
                except RuntimeError:
                    pass  # the loop has ended, and the connection with it

        watch = Watch(lambda: follower.watch(ring))
        tasks: list[asyncio.Task[Any]] = []
        try:
            await asyncio.to_thread(watch.begin)
            tasks += [asyncio.create_task(work()) for work in (self._listen, self._tell, self._stopping.wait)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            watch.end()
            await self._close()

    async def _close(self) -> None:
        if self._socket.application_state is WebSocketState.CONNECTED:
            code = self._ended or (_SERVICE_RESTART if self._stopping.is_set() else 1011)
            try:
                await self._socket.close(code)
            except (RuntimeError, OSError, WebSocketDisconnect):
                pass  # the other side was quicker

    # What the client says

    async def _listen(self) -> None:
        try:
            while True:
                frame = await self._socket.receive()
                if frame["type"] != "websocket.receive":
                    return
                text = frame.get("text")
                message = read_message(text, self._version) if text is not None else None
                if message is not None:
                    await self._hear(message)
                if self._ended is not None:
                    return
        except (WebSocketDisconnect, RuntimeError, OSError):
            return

    async def _hear(self, message: PhoenixMessage) -> None:
        if message.topic == "phoenix" and message.event == "heartbeat":
            if await self._may_go_on():
                await self._say(reply_to(message, "ok", {}))
        elif message.event == "phx_join":
            await self._join(message)
        elif message.event == "phx_leave":
            self._joined.pop(message.topic, None)
            await self._say(reply_to(message, "ok", {}))
        elif message.event == "access_token":
            pass  # the key that the connection was made with is what counts
        elif message.ref is not None:
            await self._say(reply_to(message, "error", {"reason": "nobody may send this here"}))

    async def _join(self, message: PhoenixMessage) -> None:
        topic = _TOPIC.fullmatch(message.topic)
        cursor = message.payload.get("cursor")
        reason = None
        if topic is None or topic[1] != self._identity.organisation:
            reason = "this key may not join this topic"
        elif cursor is not None and not _CURSOR.fullmatch(str(cursor)):
            reason = "cursor: must be one that a broadcast said"
        elif len(self._joined) >= _MOST_TOPICS:
            reason = f"more than {_MOST_TOPICS} topics"
        if reason is not None:
            await self._say(reply_to(message, "error", {"reason": reason}))
            return
        size = await asyncio.to_thread(self._begin)
        if not self._joined or cursor is not None:
            self._position = size if cursor is None else min(int(str(cursor)) + 1, size)
        self._joined[message.topic] = message.join_ref or message.ref
        await self._say(reply_to(message, "ok", {"cursor": str(self._position - 1), "postgres_changes": []}))
        self._bell.set()

    def _begin(self) -> int:
        """Find out what the agent may hear of; how long the log is."""
        with self._identity.engine.read() as reader:
            if self._identity.kind == "agent":
                self._own = agent_facts(reader, self._identity.name).id
            return reader.head.size

    # What it is told

    async def _tell(self) -> None:
        try:
            while self._ended is None:
                await self._bell.wait()
                self._bell.clear()
                await self._read_on()
        except (WebSocketDisconnect, RuntimeError, OSError):
            return

    async def _read_on(self) -> None:
        while self._joined and self._ended is None:
            rows = await asyncio.to_thread(self._rows)
            for row in rows:
                self._position = row[0] + 1
                told, changes = self._told(row)
                if changes and not await self._may_go_on():
                    return
                if told is not None:
                    for topic in list(self._joined):
                        payload = {"type": "broadcast", "event": "governance", "payload": told}
                        await self._say(PhoenixMessage(topic, "broadcast", payload))
            if len(rows) < _ROWS_AT_ONCE:
                return

    def _rows(self) -> list[Row]:
        with self._identity.engine.read() as reader:
            return list(reader.rows(self._position, self._position + _ROWS_AT_ONCE))

    def _told(self, row: Row) -> tuple[dict[str, Any] | None, bool]:
        """What an entry has the client told, and whether it may change who may hear it."""
        try:
            entry = orjson.loads(row[1])
        except orjson.JSONDecodeError:
            return None, False  # somebody changed it; verification names it
        audience: Literal["agent", "operator"] = "agent" if self._identity.kind == "agent" else "operator"
        event = notification(entry, row, audience)
        changes = entry["kind"] in _CHANGES_WHO_MAY
        if event is None or not concerns(event, self._own):
            return None, changes
        told = {name: value for name, value in asdict(event).items() if value is not None}
        return {**told, "cursor": str(row[0])}, changes

    async def _may_go_on(self) -> bool:
        """Whether the key is still in force; if it is not, the connection ends."""
        identity = self._identity

        def in_force() -> bool:
            with identity.engine.read() as reader:
                try:
                    keys.find(reader, identity.digest, time_of_log(identity.engine.clock, reader.head.at))
                except AgentLatticeError:
                    return False
            return True

        if await asyncio.to_thread(in_force):
            return True
        self._ended = _POLICY_VIOLATION
        return False

    async def _say(self, message: PhoenixMessage) -> None:
        await self._socket.send_text(written(message, self._version))
