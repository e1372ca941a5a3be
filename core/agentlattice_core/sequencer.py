"""Group commit: whoever waits when a transaction opens is served in it.

- Commands queue in order. One thread at a time leads: it takes what is waiting, runs it in one transaction, hands the
  lead on, makes the transaction durable, and answers. The next batch is decided while this one syncs.
- Opening a transaction at a distant store takes long enough for others to queue; whoever has by then joins the batch.
- A synchronous caller leads on its own thread, so alone it pays one commit and no hand-over. Asynchronous callers never
  block their loop: a worker thread leads for them and answers a whole batch by one call into each loop.
- One command that fails never fails its batch: its writes are taken back, and only its caller sees the error.
- Nothing is answered before it is durable. If a batch cannot be committed or synced, everyone in it gets
  NotRecordedError.
- The queue is bounded; a command that finds it full is refused, which fails closed.
- A caller that is cancelled or interrupted while it waits gives up its command: not run if the batch has not opened
  yet, and otherwise handed to `abandoned`, which can take back what nobody will use.
- A caller that is interrupted (Ctrl-C) while it leads finishes the batch first, because others wait for it.
- No threads exist until they are needed, and none is carried across a fork.
- If another process is about to write, it is offered the batch, and if it takes it, its answers are this batch's
  (`stores.exchange`). What it did not answer is run here. In turn, whoever leads runs what other processes offered, and
  answers when that is durable.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from agentlattice_core.batch import Batch
from agentlattice_core.clock import Clock, SystemClock
from agentlattice_core.commands import Commands, answers, foresee, perhaps_run, recorded
from agentlattice_core.errors import AgentLatticeError, NotRecordedError, StoreError
from agentlattice_core.metering import Measured, Meter
from agentlattice_core.stores.base import Offer, Round, Store, Transaction

__all__ = ["Command", "Sequencer"]

T = TypeVar("T")

Command = Callable[[Batch], T]

_log = logging.getLogger("agentlattice")

_MAX_BATCH = 256
_MAX_WAITING = 10_000


class _Ticket(Generic[T]):
    """A command in the queue, and how its caller is told: `signal` for a thread, `loop` and `future` for a task."""

    __slots__ = (
        "abandoned",
        "command",
        "done",
        "error",
        "future",
        "given_up",
        "loop",
        "result",
        "signal",
        "since",
    )

    def __init__(self, command: Command[T], abandoned: Callable[[T], None] | None) -> None:
        self.command = command
        self.abandoned = abandoned
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False
        self.given_up = False
        self.since = time.perf_counter()
        self.signal: threading.Lock | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.future: asyncio.Future[T] | None = None


class _Turn:
    """How far the serving of one batch has come, so that it can go on where an interrupt met it."""

    __slots__ = (
        "attempted",
        "committed",
        "failure",
        "interrupt",
        "offer",
        "over",
        "repeated",
        "riders",
        "round",
        "served",
        "synced",
        "tickets",
    )

    def __init__(self) -> None:
        self.tickets: list[_Ticket[Any]] | None = None
        self.riders: list[Command[Any]] = []
        self.round: Round | None = None
        self.attempted = False
        self.offer: _Offer | None = None
        self.served: frozenset[_Ticket[Any]] | None = None
        """What another process answered for, once that is known."""
        self.repeated = False
        self.interrupt: BaseException | None = None
        self.committed = False
        self.synced = False
        self.failure: BaseException | None = None
        self.over = False


class Sequencer:
    """The one writer of a store within this process. Safe to use from any thread and any event loop.

    `after_batch` is called after each durable batch, on the thread that led it. `commands` makes commands of this
    process known to others, and theirs to it.
    """

    def __init__(
        self, store: Store, clock: Clock, after_batch: Callable[[], None], commands: Commands | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._after_batch = after_batch
        # What another process decides is decided by the system's clock.
        self._commands = commands if isinstance(clock, SystemClock) else None
        self.meter: Meter | None = None
        self.restart()

    def restart(self) -> None:
        """Begin anew in a forked child: what was queued belongs to the parent, and so do its threads."""
        self._mutex = threading.Lock()
        self._queue: list[_Ticket[Any]] = []
        self._leader: _Ticket[Any] | None = None
        self._riders: deque[Command[Any]] = deque(maxlen=_MAX_WAITING)
        self._worker: threading.Thread | None = None
        self._worker_turn = threading.Semaphore(0)
        self._ending = False

    # Callers

    def run(self, command: Command[T], abandoned: Callable[[T], None] | None = None) -> T:
        """Run `command` in a transaction and return its result once it is durable."""
        ticket: _Ticket[T] = _Ticket(command, abandoned)
        signal = ticket.signal = threading.Lock()
        signal.acquire()
        try:
            leads = self._enqueue(ticket)
            if not leads:
                signal.acquire()  # until it is answered or told to lead
            if not ticket.done:
                self._lead(ticket)
        except BaseException:
            self._give_up(ticket)
            raise
        if ticket.error is not None:
            raise ticket.error
        result: T = ticket.result
        return result

    async def run_async(self, command: Command[T], abandoned: Callable[[T], None] | None = None) -> T:
        """As `run`, without blocking the event loop."""
        ticket: _Ticket[T] = _Ticket(command, abandoned)
        ticket.loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = ticket.loop.create_future()
        ticket.future = future
        try:
            self._start_worker()
            if self._enqueue(ticket):
                self._worker_turn.release()
            return await future
        except BaseException:  # cancelled, or its loop is gone
            self._give_up(ticket)
            raise

    def post(self, command: Command[Any]) -> None:
        """Have `command` ride along with the next batch. Nobody is told how it went."""
        self._riders.append(command)

    def flush(self) -> None:
        """Return when what was posted before is durable.

        Whoever leads may have taken it along already; a batch behind that one ends after it, and its sync covers both.
        """
        self.run(_nothing)

    @property
    def has_riders(self) -> bool:
        """Whether something posted still waits for a batch to take it along."""
        return bool(self._riders)

    @property
    def waiting(self) -> int:
        """How many commands wait for a batch."""
        return len(self._queue)

    def close(self) -> None:
        """Take no more commands, and end the worker thread once nothing waits for it."""
        with self._mutex:
            self._ending = True
        self._worker_turn.release()

    # The queue. `_leader` is the ticket whose caller serves the next batch; if there is none, the queue is empty.

    def _enqueue(self, ticket: _Ticket[Any]) -> bool:
        """Whether the ticket leads."""
        with self._mutex:
            if self._ending:
                raise StoreError("the database was closed; open it again to use it")
            if len(self._queue) >= _MAX_WAITING:
                raise NotRecordedError(
                    f"{_MAX_WAITING} actions are waiting to be recorded already; slow down and retry"
                )
            self._queue.append(ticket)
            if self._leader is None:
                self._leader = ticket
            return self._leader is ticket

    def _give_up(self, ticket: _Ticket[Any]) -> None:
        with self._mutex:
            ticket.given_up = True
            answered = ticket.done
            if ticket in self._queue:
                self._queue.remove(ticket)
                self._pass_lead(ticket)
        if answered:
            _abandon(ticket)

    def _pass_lead(self, leader: _Ticket[Any]) -> None:
        """If `leader` leads, tell whoever waits longest to lead instead. The caller holds the mutex."""
        if self._leader is not leader:
            return
        following = self._queue[0] if self._queue else None
        if following is not None and following.signal is None:
            self._worker_turn.release()
        # From here to the end nothing can be interrupted: a leader that was not told would never lead.
        self._leader = following
        if following is not None and following.signal is not None:
            following.signal.release()

    def _start_worker(self) -> None:
        """Have a worker thread before anybody counts on it. Raises NotRecordedError if there can be none."""
        if self._worker is not None:
            return
        with self._mutex:
            if self._worker is None:
                worker = threading.Thread(target=self._work, name="agentlattice-writer", daemon=True)
                try:
                    worker.start()
                except RuntimeError as error:
                    raise NotRecordedError(f"the action could not be recorded: {error}") from error
                self._worker = worker

    def _work(self) -> None:
        while True:
            self._worker_turn.acquire()
            leader = self._leader
            if leader is not None and leader.signal is None:
                try:
                    self._lead(leader)
                except BaseException as error:
                    _log.error("the writer was interrupted: %s", error)
            with self._mutex:
                if self._ending and not self._queue:
                    self._worker = None
                    return

    # Leading

    def _lead(self, leader: _Ticket[Any]) -> None:
        """Serve one batch on this thread, `leader` being the ticket that has the lead.

        Others wait for the batch, so an interrupt (Ctrl-C) is kept until it is served and the lead is passed on.
        """
        turn = _Turn()
        while not turn.over:
            try:
                self._serve(leader, turn)
            except Exception:
                raise
            except BaseException as error:
                turn.interrupt = error
        if self.meter is not None and turn.tickets:
            self._measure(self.meter, turn.tickets)
        if turn.interrupt is not None:
            raise turn.interrupt
        if turn.committed:
            try:
                self._after_batch()
            except Exception as error:
                _log.warning("background work could not be started: %s", error)

    def _measure(self, meter: Meter, tickets: list[_Ticket[Any]]) -> None:
        now = time.perf_counter()
        answers = [(ticket.result, now - ticket.since) for ticket in tickets if ticket.error is None]
        lost = sum(isinstance(ticket.error, NotRecordedError) for ticket in tickets)
        try:
            meter.batch(Measured(answers, lost, len(self._queue)))
        except Exception as error:
            _log.warning("a batch could not be measured: %s", error)

    def _serve(self, leader: _Ticket[Any], turn: _Turn) -> None:
        """Take what waits, run it, pass the lead on, answer. Interrupted, it goes on where it was."""
        if turn.tickets is None:
            with self._mutex:
                if self._leader is not leader:
                    turn.over = (
                        True  # its caller gave up before this thread came to it; somebody else was told
                    )
                    return
                # Nothing is called between these two, so that no interrupt finds a ticket in neither or in both.
                turn.tickets = self._queue[:_MAX_BATCH]
                del self._queue[:_MAX_BATCH]
        tickets = turn.tickets
        if not turn.attempted:
            turn.attempted = True
            try:
                while self._riders and len(turn.riders) < _MAX_BATCH:
                    turn.riders.append(self._riders.popleft())
                if tickets or turn.riders:
                    if self._commands is not None:
                        turn.offer = _Offer(self._commands, turn, tickets)
                    self._commit(tickets, turn, turn.offer)
            except BaseException as error:
                turn.failure = error
        offer = turn.offer
        if offer is not None:
            if offer.answer is not None and turn.served is None:
                self._take_results(turn, offer, offer.answer)
            interrupt = turn.failure if not isinstance(turn.failure, Exception) else None
            turn.interrupt = turn.interrupt or offer.interrupt or interrupt
            # Not after an error of the store: it would fail again.
            if (
                not turn.committed
                and not turn.repeated
                and offer.since is not None
                and (turn.failure is None or interrupt is not None)
            ):
                turn.repeated = True
                try:
                    self._commit(tickets, turn)
                except BaseException as error:
                    turn.failure = error
        if turn.failure is not None and not isinstance(turn.failure, Exception):
            turn.interrupt = turn.failure
        if not turn.committed and turn.riders:
            riders, turn.riders = turn.riders, []
            self._riders.extendleft(reversed(riders))
        with self._mutex:
            self._pass_lead(leader)
        if turn.committed and not turn.synced:
            try:
                self._store.sync()
                turn.synced = True
            except Exception as error:
                turn.committed, turn.failure = False, error
        if turn.round is not None:
            turn.round.end(durable=turn.synced)
        self._answer(tickets, None if turn.committed else turn.failure, turn.served or frozenset())
        turn.over = True

    def _commit(self, tickets: list[_Ticket[Any]], turn: _Turn, offer: Offer | None = None) -> None:
        def work(transaction: Transaction) -> None:
            if self._store.is_distant:
                self._join(tickets)
                foresee([*turn.riders, *(ticket.command for ticket in tickets)], transaction)
            batch = Batch(transaction, self._store.log_id, self._clock.now())
            if turn.offer is not None and turn.offer.since is not None:
                perhaps_run(turn.offer.commands, turn.offer.since)
            for rider in turn.riders:
                _, error = batch.attempt(rider)
                if error is not None:
                    _log.warning("an outcome could not be recorded: %s", error)
            for ticket in tickets:
                if turn.served is not None and ticket in turn.served:
                    continue
                # What nobody waits for is not run, but given back if another process has run it.
                command = recorded(ticket.command) if ticket.given_up else ticket.command
                if command is not None:
                    ticket.result, error = batch.attempt(command)
                    ticket.error = (
                        error if error is None or isinstance(error, AgentLatticeError) else _refusal(error)
                    )
            if self._commands is not None:
                turn.round = transaction.collect()
                if turn.round is not None:
                    for guest in turn.round.guests:
                        guest.answer = self._commands.run(batch, guest.request)
            batch.finish()

        def on_commit() -> None:
            turn.committed = True

        self._store.transact(work, on_commit, offer)

    def _join(self, tickets: list[_Ticket[Any]]) -> None:
        """Take in who queued while the transaction was opened: at a distant store that takes a journey, and as long as
        other nodes write.
        """
        with self._mutex:
            free = _MAX_BATCH - len(tickets)
            # Nothing is called between these two; see `_serve`.
            tickets += self._queue[:free]
            del self._queue[:free]

    def _take_results(self, turn: _Turn, offer: _Offer, answer: bytes) -> None:
        """What another process made of the batch, which is durable. What has no result is left. Interrupted, it may be
        called again.
        """
        results = answers(offer.commands, answer)
        of_tickets = results[len(offer.riders) :]
        left = [rider for rider, result in zip(offer.riders, results, strict=False) if result is None]
        served = []
        for ticket, result in zip(offer.tickets, of_tickets, strict=True):
            if result is not None:
                ticket.result = result
                served.append(ticket)
        turn.riders = left
        if not left and len(served) == len(offer.tickets):
            turn.committed = turn.synced = True
        turn.served = frozenset(served)

    def _answer(
        self,
        tickets: list[_Ticket[Any]],
        failure: BaseException | None,
        served: frozenset[_Ticket[Any]],
    ) -> None:
        with self._mutex:
            for ticket in tickets:
                if failure is not None and ticket not in served:
                    ticket.error = _refusal(failure)
                ticket.done = True
        loops: dict[asyncio.AbstractEventLoop, list[_Ticket[Any]]] = {}
        for ticket in tickets:
            # Taken before it is released, so that nobody is told twice.
            signal, ticket.signal = ticket.signal, None
            if signal is not None:
                signal.release()
            if ticket.given_up:
                _abandon(ticket)
            elif ticket.loop is not None:
                loops.setdefault(ticket.loop, []).append(ticket)
        for loop, answered in loops.items():
            try:
                loop.call_soon_threadsafe(_deliver, answered)
            except RuntimeError:  # the loop was closed: nobody is there to be told
                for ticket in answered:
                    _abandon(ticket)


class _Offer(Offer):
    """A batch that is offered to another process."""

    def __init__(self, known: Commands, turn: _Turn, tickets: Sequence[_Ticket[Any]]) -> None:
        self.answer: bytes | None = None
        self.since: int | None = None
        self.interrupt: BaseException | None = None
        self.riders: Sequence[Command[Any]] = ()
        self.tickets = tickets
        self.commands: Sequence[Command[Any]] = ()
        self._known = known
        self._turn = turn

    def request(self) -> bytes | None:
        self.riders = tuple(self._turn.riders)
        self.tickets = [ticket for ticket in self.tickets if not ticket.given_up]
        self.commands = (*self.riders, *(ticket.command for ticket in self.tickets))
        return self._known.request(self.commands)


def _nothing(batch: Batch) -> None:
    """A command that only gives riders a batch."""


def _deliver(tickets: list[_Ticket[Any]]) -> None:
    for ticket in tickets:
        future = ticket.future
        if future is None or future.done():
            continue  # cancelled in the meantime; its own handler gives the ticket up
        if ticket.error is not None:
            future.set_exception(ticket.error)
        else:
            future.set_result(ticket.result)


def _abandon(ticket: _Ticket[Any]) -> None:
    if ticket.error is None and ticket.result is not None and ticket.abandoned is not None:
        try:
            ticket.abandoned(ticket.result)
        except Exception as error:  # others wait for this thread, and the one this is for is gone
            _log.warning("an admission nobody waits for could not be taken back: %s", error)


def _refusal(failure: BaseException) -> BaseException:
    """An error of its own for each caller: a raised exception collects the traceback of whoever raises it."""
    if isinstance(failure, AgentLatticeError):
        return copy.copy(failure)
    why = str(failure) if isinstance(failure, Exception) else "the process was interrupted"
    error = NotRecordedError(
        f"the action could not be recorded: {why or 'the state is not what the log makes of it; verify it'}"
    )
    error.__cause__ = failure
    return error
