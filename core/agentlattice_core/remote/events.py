"""Following a service's notifications, over a WebSocket that speaks Phoenix channels (version 1.0.0, objects).

- One thread per subscription: it joins, beats every 30 s, and hands over each notification in order.
- A connection that is lost is made again, after 1, 2, 4, 8, 16 and then every 30 seconds, for as long as it takes. The
  cursor of the last notification goes into the new join, so that none is missed and none comes twice.
- A refusal (a key that is not known, another organisation's topic) is final: nobody follows what they may not.
- The key is in the address, as the protocol wants it: nothing of the address is ever logged or put into an error.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import orjson

from agentlattice_core.errors import AgentLatticeError, ForbiddenError
from agentlattice_core.remote.connections import Pace
from agentlattice_core.results import GovernanceEvent

if TYPE_CHECKING:
    from websockets.sync.connection import Connection

__all__ = ["Subscription"]

_log = logging.getLogger("agentlattice")
_silent = logging.getLogger("agentlattice.realtime.connection")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False  # what is logged there holds the address, and with it the key
_silent.setLevel(logging.CRITICAL + 1)

_BEAT = 30.0
_PATIENCE = 30.0
_FIRST_PAUSES = (1.0, 2.0, 4.0)
_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_LARGEST = 8 * 1024 * 1024


class _LostError(Exception):
    """The connection does not do what it is there for."""


class Subscription:
    """Notifications of one organisation, handed to `deliver` on a thread of its own until `end`."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        org_id: str,
        deliver: Callable[[GovernanceEvent], None],
        pace: Pace,
    ) -> None:
        query = urlencode({"apikey": api_key, "eventsPerSecond": 10, "vsn": "1.0.0"})
        self._address = f"ws{base_url.removeprefix('http')}/realtime/v1?{query}"
        self._topic = f"gov:{org_id}"
        self._deliver = deliver
        self._pace = pace
        self._cursor: Any = None
        self._ref = 0
        self._ended = threading.Event()
        self._begun = threading.Event()
        self._joins = 0
        self._failure: AgentLatticeError | None = None
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._follow, name="agentlattice-subscriber", daemon=True)

    def begin(self) -> None:
        """Return once the first notification would be heard. Raises ForbiddenError, AgentLatticeError."""
        self._thread.start()
        self._begun.wait()
        if self._failure is not None:
            raise self._failure

    def end(self) -> None:
        """Hear no more."""
        self._ended.set()
        connection = self._connection
        if connection is not None:
            connection.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(_PATIENCE)

    def _follow(self) -> None:
        try:
            self._keep_listening()
        except AgentLatticeError as error:
            self._failure = error
            if self._joins:
                _log.error("a subscription has ended: %s", error)
        finally:
            self._begun.set()

    def _keep_listening(self) -> None:
        from websockets.exceptions import InvalidStatus, WebSocketException

        failures = 0
        while not self._ended.is_set():
            why = "it was closed"
            joins = self._joins
            try:
                self._listen()
            except InvalidStatus as refused:
                status = refused.response.status_code
                if status < 500 and status not in (408, 429):
                    raise _refusal(status) from None
                why = f"HTTP {status}"
            except (WebSocketException, OSError, EOFError, ValueError, _LostError) as error:
                why = type(error).__name__
            if self._ended.is_set():
                return
            failures = 1 if self._joins > joins else failures + 1
            pauses = _PAUSES if self._joins else _FIRST_PAUSES
            if not self._joins and failures > len(pauses):
                raise AgentLatticeError(
                    "NETWORK_ERROR",
                    f"the service could not be followed ({why}); see that it runs and that `base_url` is right",
                ) from None
            self._pace.wait(self._ended, pauses[min(failures, len(pauses)) - 1])

    def _listen(self) -> None:
        """One connection, until it is lost."""
        from websockets.sync.client import connect

        with connect(
            self._address, open_timeout=_PATIENCE, close_timeout=1, max_size=_LARGEST, logger=_silent
        ) as connection:
            self._connection = connection
            try:
                self._join(connection)
                self._joins += 1
                self._begun.set()
                self._hear(connection)
            finally:
                self._connection = None

    def _join(self, connection: Connection) -> None:
        payload = {} if self._cursor is None else {"cursor": self._cursor}
        ref = self._send(connection, self._topic, "phx_join", payload)
        while True:
            message = self._receive(connection, _PATIENCE)
            if message.get("event") != "phx_reply" or message.get("ref") != ref:
                self._told(message)
                continue
            reply = message["payload"]
            response = reply.get("response") if isinstance(reply.get("response"), Mapping) else {}
            if reply.get("status") != "ok":
                raise ForbiddenError(
                    f"this key may not follow `{self._topic.removeprefix('gov:')}`", response or None
                )
            if self._cursor is None:
                self._cursor = response.get("cursor")
            return

    def _hear(self, connection: Connection) -> None:
        now = self._pace.now
        beat, unanswered = now() + _BEAT, ""
        while not self._ended.is_set():
            try:
                message = self._receive(connection, max(0.0, beat - now()))
            except TimeoutError:
                if unanswered:
                    raise _LostError from None  # nobody is there, though the connection looks open
                unanswered = self._send(connection, "phoenix", "heartbeat", {})
                beat = now() + _BEAT
                continue
            if message.get("event") == "phx_reply" and message.get("ref") == unanswered:
                unanswered = ""
            elif message.get("event") in ("phx_error", "phx_close"):
                raise _LostError
            else:
                self._told(message)

    def _send(self, connection: Connection, topic: str, event: str, payload: Mapping[str, Any]) -> str:
        self._ref += 1
        message = {"topic": topic, "event": event, "payload": payload, "ref": str(self._ref)}
        if event == "phx_join":
            message["join_ref"] = str(self._ref)
        connection.send(orjson.dumps(message).decode())
        return str(self._ref)

    def _receive(self, connection: Connection, patience: float) -> dict[str, Any]:
        message = orjson.loads(connection.recv(timeout=patience))
        if not isinstance(message, dict) or not isinstance(message.get("payload"), dict):
            raise _LostError
        return message

    def _told(self, message: Mapping[str, Any]) -> None:
        """Hand over what a broadcast holds, and remember where it stands."""
        payload = message["payload"]
        if message.get("event") != "broadcast" or payload.get("event") != "governance":
            return
        told = payload.get("payload")
        try:
            event = GovernanceEvent(
                told["event_type"], told["timestamp"], told["org_id"], told["data"], told.get("agent_id")
            )
        except (AttributeError, LookupError, TypeError):
            raise _LostError from None
        try:
            self._deliver(event)
        except Exception as error:
            _log.warning("a subscriber failed: %s: %s", type(error).__name__, error)
        if told.get("cursor") is not None:
            self._cursor = told["cursor"]


def _refusal(status: int) -> AgentLatticeError:
    if status in (401, 403):
        return ForbiddenError("the service refuses this key", {"status": status})
    return AgentLatticeError(
        "BAD_ANSWER",
        f"the service answers HTTP {status} where its notifications should be",
        {"status": status},
    )
