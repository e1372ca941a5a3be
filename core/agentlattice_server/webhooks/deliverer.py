"""Telling every subscription what the log says: one thread that looks for work, and pools that do it.

- Each subscription is a cursor on the log. In rounds: collect what is due, take the lease, send, record what came of
  it. A node that dies after sending and before recording leaves messages that another sends again, under the same ids.
- One node at a time serves a subscription; each serves several at once, so that a slow receiver holds up no other.
- Messages of one round are sent side by side, and failed ones later, so receivers must not count on order; the
  notification carries the entry's index.
- Messages that failed and wait are bounded: a receiver that is down for long keeps its place in the log instead.
- Who gives up five messages in a row is disabled, which is an entry and a notification.
- What cannot be recorded or unsealed is said once and tried again; nothing is skipped.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import orjson

from agentlattice_core import webhooks
from agentlattice_core.batch import Batch
from agentlattice_core.clock import MovableClock, format_time, parse_time, time_of_log
from agentlattice_core.engine import Engine
from agentlattice_core.errors import AgentLatticeError
from agentlattice_core.stores.base import Reader, Row
from agentlattice_core.webhooks import LEASE, Attempt, Webhook
from agentlattice_server.webhooks.addresses import Reach
from agentlattice_server.webhooks.attempting import Message, Spread, attempt
from agentlattice_server.webhooks.composing import Receiver, message_id, news
from agentlattice_server.webhooks.posting import Answer
from agentlattice_server.webhooks.sealing import SealingKey

__all__ = ["DEAD_IN_A_ROW", "Deliverer", "Observe"]

_log = logging.getLogger("agentlattice")

DEAD_IN_A_ROW = 5
"""How many messages in a row may be given up before a subscription is disabled."""

Observe = Callable[[Webhook, Attempt], None]
"""Is told of each attempt once it was recorded."""

_NAP = 1.0  # seconds until retries, leases and subscriptions are looked at again
_ROUNDS = 16  # subscriptions served at once
_SIDE_BY_SIDE = 8  # messages of one subscription
_OUTSTANDING = 100  # messages of one subscription that failed and wait
_AT_ONCE = 1000  # entries looked at in one round
_SILENT = 10_000  # entries that said nothing after which the cursor is recorded all the same


class Deliverer:
    """Delivers for all subscriptions of one open log, until it is stopped.

    `node` names this process in the log; `observe` is told of attempts; `trust` stands in for the system's authorities.
    """

    def __init__(
        self,
        engine: Engine,
        key: SealingKey,
        reach: Reach | None = None,
        *,
        node: str | None = None,
        observe: Observe | None = None,
        spread: Spread | None = None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._engine = engine
        self._key = key
        self._reach = reach or Reach()
        self._node = node or f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
        self._observe = observe
        self._spread = spread or _spread
        self._trust = trust
        self._wake = threading.Event()
        self._stopping = False
        self._busy: set[str] = set()
        self._positions: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._said: dict[str, str] = {}
        self._rounds = ThreadPoolExecutor(_ROUNDS, "agentlattice-webhooks")
        self._attempts = ThreadPoolExecutor(_ROUNDS * _SIDE_BY_SIDE, "agentlattice-webhook")
        self._thread = threading.Thread(target=self._work, name="agentlattice-webhooks", daemon=True)
        self._ends: list[Callable[[], None]] = []

    def start(self) -> None:
        """Begin to deliver."""
        self._ends.append(self._engine.follower.watch(lambda entry, row: self._wake.set()))
        if isinstance(self._engine.clock, MovableClock):
            self._ends.append(self._engine.clock.on_move(self._wake.set))
        self._thread.start()

    def stop(self) -> None:
        """Finish what is being sent, record it, and leave the subscriptions to other nodes."""
        self._stopping = True
        while self._ends:
            self._ends.pop()()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._rounds.shutdown()
        self._attempts.shutdown()
        try:
            self._release()
        except AgentLatticeError as error:
            _log.warning("webhooks could not be left to other nodes, which take them in a minute: %s", error)

    def __enter__(self) -> Deliverer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _work(self) -> None:
        while not self._stopping:
            try:
                for hook in self._with_work():
                    self._busy.add(hook.id)
                    self._rounds.submit(self._round, hook.id)
            except Exception as error:
                self._say("", f"webhooks could not be looked at: {error}")
            self._wake.wait(_NAP)
            self._wake.clear()

    def _with_work(self) -> list[Webhook]:
        with self._engine.read() as reader:
            now = time_of_log(self._engine.clock, reader.head.at)
            return [hook for hook in webhooks.webhooks(reader) if self._has_work(hook, reader.head.size, now)]

    def _has_work(self, hook: Webhook, size: int, now: str) -> bool:
        if hook.id in self._busy or not self._may_serve(hook, now):
            return False
        if self._not_before.get(hook.id, 0.0) > time.monotonic():
            return False
        new = max(hook.next, self._positions.get(hook.id, 0)) < size and len(hook.retries) < _OUTSTANDING
        return new or any(retry["due"] <= now for retry in hook.retries.values())

    def _may_serve(self, hook: Webhook, now: str) -> bool:
        return hook.active and (hook.by == self._node or hook.until <= now)

    def _holds(self, hook: Webhook, now: str) -> bool:
        """Whether the lease is this node's for long enough, so that nobody need be asked."""
        return hook.by == self._node and hook.until > format_time(parse_time(now) + LEASE / 2)

    def _round(self, webhook_id: str) -> None:
        again = False
        try:
            again = self._deliver(webhook_id)
            self._said.pop(webhook_id, None)
        except Exception as error:
            self._not_before[webhook_id] = time.monotonic() + _NAP
            self._say(webhook_id, f"webhook `{webhook_id}` could not be served: {error}")
        finally:
            self._busy.discard(webhook_id)
            if again:
                self._wake.set()

    def _deliver(self, webhook_id: str) -> bool:
        """One round; whether there is more to do."""
        with self._engine.read() as reader:
            now = time_of_log(self._engine.clock, reader.head.at)
            if reader.get("webhook", webhook_id) is None:
                return False  # removed meanwhile
            hook = webhooks.find(reader, webhook_id)
            if not self._may_serve(hook, now):
                return False
            secrets = self._key.open(webhook_id, webhooks.sealed_target(reader, webhook_id))
            receiver = Receiver(hook, secrets, self._reach, self._trust)
            messages, empty, position = self._collect(reader, receiver, now)
            size = reader.head.size
        more = position < size
        if not messages and not empty and position - hook.next < _SILENT:
            self._positions[webhook_id] = position
            return more
        if not self._holds(hook, now) and not self._engine.run(
            lambda batch: webhooks.lease(batch, webhook_id, self._node)
        ):
            return False
        answered = list(
            self._attempts.map(partial(attempt, clock=self._engine.clock.now, spread=self._spread), messages)
        )
        attempts = [*empty, *(made for made, _ in answered)]
        gone = any(is_gone for _, is_gone in answered)

        def command(batch: Batch) -> bool:
            return self._record(batch, hook.id, position, attempts, gone=gone)

        if not self._engine.run(command):
            return True  # another node took it over, and tells it all again under the same ids
        self._positions[webhook_id] = position
        if self._observe is not None:
            for made, _ in answered:
                self._observe(hook, made)
        return more

    def _record(
        self, batch: Batch, webhook_id: str, position: int, attempts: list[Attempt], *, gone: bool
    ) -> bool:
        if not webhooks.record(batch, webhook_id, self._node, position, attempts, keep=not self._stopping):
            return False
        if gone:
            webhooks.disable(batch, webhook_id, self._node, "gone")
        elif webhooks.find(batch, webhook_id).failed >= DEAD_IN_A_ROW:
            webhooks.disable(batch, webhook_id, self._node, "failing")
        return True

    def _collect(
        self, reader: Reader, receiver: Receiver, now: str
    ) -> tuple[list[Message], list[Attempt], int]:
        """What is to be sent, what turned out to have nothing to say, and up to where the log was looked at."""
        hook = receiver.hook
        messages: list[Message] = []
        empty: list[Attempt] = []
        for index, retry in sorted(hook.retries.items()):
            if retry["due"] <= now and len(messages) < _SIDE_BY_SIDE:
                row = reader.row(index)
                message = None if row is None else self._message(reader, receiver, row, retry["n"] + 1)
                if message is None:
                    at = format_time(self._engine.clock.now())
                    empty.append(Attempt(index, retry["n"] + 1, at, "delivered", 0))
                else:
                    messages.append(message)
        position = max(hook.next, self._positions.get(hook.id, 0))
        room = min(_SIDE_BY_SIDE - len(messages), _OUTSTANDING - len(hook.retries))
        if room <= 0:
            return messages, empty, position
        for row in reader.rows(position, min(position + _AT_ONCE, reader.head.size)):
            position = row[0] + 1
            message = self._message(reader, receiver, row, 1)
            if message is not None:
                messages.append(message)
                room -= 1
                if room == 0:
                    break
        return messages, empty, position

    def _message(self, reader: Reader, receiver: Receiver, row: Row, number: int) -> Message | None:
        try:
            entry: dict[str, Any] = orjson.loads(row[1])
        except ValueError:
            return None  # somebody changed it; verification names it
        try:
            told = news(reader, receiver.hook, entry, row)
            send = receiver.sending(told, message_id(row)) if told is not None else None
        except AgentLatticeError:
            raise  # it is so for every message: none is sent until somebody has seen to it
        except Exception as error:
            send = partial(_raise, error)  # this one becomes a dead letter, and the others go on
        return None if send is None else Message(row[0], number, send)

    def _release(self) -> None:
        with self._engine.read() as reader:
            held = [hook for hook in webhooks.webhooks(reader) if hook.by == self._node]
        for hook in held:
            position = self._positions.get(hook.id, hook.next)
            self._engine.run(partial(_let_go, hook.id, self._node, position))

    def _say(self, about: str, text: str) -> None:
        if self._said.get(about) != text:  # it is tried again every second, and said once
            self._said[about] = text
            _log.warning("%s", text)


def _let_go(webhook_id: str, node: str, position: int, batch: Batch) -> bool:
    return webhooks.record(batch, webhook_id, node, position, (), keep=False)


def _raise(error: Exception, at: datetime) -> Answer:
    raise error


def _spread(wait: timedelta) -> timedelta:
    return wait * random.uniform(1.0, 1.1)  # noqa: S311  spreads load, decides nothing
