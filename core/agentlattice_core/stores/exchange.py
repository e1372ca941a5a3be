"""How a process that is about to write runs what other processes wait to have written, in its own transaction.

Waking a process and filling its caches costs more than an action. So of all who want to write, one does, for all.

- Each process that has the file open holds a slot in a small shared file. `offer` puts a request there, when somebody
  else writes next, and waits for that writer's round to end. `begin` opens a round, `collect` takes what was offered so
  far into it, and `Round.end` gives the answers once everything is durable.
- A request is taken at most once: only the holder of the gate takes, and only the owner of a slot offers in it.
- An answer that does not come says nothing: the writer may have died before its commit or after. `offer` then returns
  None, and whoever offered looks in the log before it writes by itself.
- Every word of the file has one writer, and each message carries a number and a checksum, so that what a dead process
  left, or one that was stopped for a while writes late, is never taken for something else.
- What was read is wiped, because actions hold what may have to be erased. What a dead process left is wiped by whoever
  gets its slot, and by whoever erases anything.
- Waiting is a lock on a byte of the file that the writer of the round holds: when the round ends, or its process dies,
  everybody who waits wakes at once. These are locks of an open file and not of a process, which only Linux has in this
  form; elsewhere every process writes for itself.
- The file is worth nothing once nobody has it open; whoever opens it alone starts it afresh. One that is laid out
  otherwise is left to those who have it open.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Sequence
from functools import partial

from agentlattice_core.stores.base import Guest, Offer, Round
from agentlattice_core.stores.gate import ProcessGate

__all__ = ["Exchange"]

_SLOTS = 64
_ROUNDS = 1024
_MESSAGE = 32_768 - 32
"""The most bytes of one request or answer."""

# The file: one page of words, then for each slot a request and an answer, each three words and the message.
_FORMAT, _ROUND, _USED = range(3)
_OFFERED, _TAKEN, _IN_ROUND, _DATABASE = (64 * n for n in range(1, 5))  # one word for each slot
_PAGE = 4096
_AREA = 32_768
_BYTES = _PAGE + _SLOTS * 2 * _AREA
_VERSION = (
    0x414C_5851_0001  # another one whenever this layout, what `commands` sends or how is decided changes
)
_HEAD = struct.Struct("=QII")  # number, length, checksum

# Bytes of the file that are locked: one for each slot and one for each round in progress, and one for who is there.
_PRESENCE = 512
_ROUND_BYTES = 1024
_FLOCK = struct.Struct("@hhqqi4x")


def _nothing() -> None:
    """No round is open."""


class _Guest(Guest):
    """A request that was taken into a round. `answer` is what its owner will be given; None says nothing."""

    __slots__ = ("answer", "number", "request", "slot")

    def __init__(self, slot: int, number: int, request: bytes) -> None:
        self.slot = slot
        self.number = number
        self.request = request
        self.answer: bytes | None = None


class _Round(Round):
    """The guests of one transaction, who wait until it is durable."""

    def __init__(self, exchange: Exchange, guests: Sequence[_Guest]) -> None:
        self._exchange = exchange
        self.guests = guests
        self.wake: Callable[[], object] | None = None
        """Wake the guests; None as long as the transaction itself does so, and once they are awake."""

    def end(self, *, durable: bool) -> None:
        """Answer, if the transaction is durable, and wake everybody who waits. Interrupted, it may be called again."""
        with self._exchange.closing:
            wake = self.wake
            if wake is None or self._exchange.closed:
                return  # nobody waits for it any more
            if durable:
                self._exchange.answer(self.guests)
            # Nothing is called between these two: who was woken without being answered is answered no more.
            self.wake = None
            wake()


class Exchange:
    """The exchange beside the file at `path`. Its owner holds a lock between threads around everything but `Round.end`.

    Open it with `beside`, while holding the gate.
    """

    @staticmethod
    def is_possible() -> bool:
        """Whether this system has the locks it takes."""
        return sys.platform == "linux" and hasattr(fcntl, "F_OFD_SETLKW") and struct.calcsize("P") == 8

    @classmethod
    def beside(cls, path: str, gate: ProcessGate) -> Exchange | None:
        """The exchange of the file at `path`, or None where there can be none: not on this system, in this file
        system or on a full disk, or another release has it open.
        """
        if not cls.is_possible():
            return None
        try:
            exchange = cls(path, gate)
        except OSError:
            return None
        if exchange._words[_FORMAT] == _VERSION:
            return exchange
        exchange.close()
        return None

    def __init__(self, path: str, gate: ProcessGate) -> None:
        self._gate = gate
        self._slot: int | None = None
        self._number = 0
        self._round = 0
        # Actions are not handed over between processes of which one has a file open that was replaced since.
        self._database = os.stat(path).st_ino
        self.closing = threading.Lock()
        self.closed = False
        self.leave: Callable[[], object] = _nothing
        """End the round that was begun. Not a method, at whose start an interrupt could keep it open."""
        self._file = os.open(f"{path}-exchange", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            alone = self._try_lock(_PRESENCE, fcntl.F_WRLCK)
            if alone:
                os.ftruncate(self._file, 0)
            if os.fstat(self._file).st_size < _BYTES:
                os.ftruncate(self._file, _BYTES)
            # On a full disk, writing to mapped memory that has no place on the disk would end the process.
            os.posix_fallocate(self._file, 0, _PAGE)
            self._map = mmap.mmap(self._file, _BYTES)
            self._words = memoryview(self._map)[:_PAGE].cast("Q")
            if alone:
                self._words[_FORMAT] = _VERSION
            self._lock(_PRESENCE, fcntl.F_RDLCK)
            if self._words[_FORMAT] == _VERSION:
                self._take_slot()
        except BaseException:
            os.close(self._file)
            raise

    def _take_slot(self) -> None:
        for slot in range(_SLOTS):
            if self._try_lock(slot, fcntl.F_WRLCK):
                try:
                    os.posix_fallocate(self._file, self._request_at(slot), 2 * _AREA)
                except OSError:
                    return  # the disk is full, so this process writes for itself
                self._forget(slot)
                # Whatever is still written for an owner before this one carries another number.
                self._number = int.from_bytes(os.urandom(6), "big")
                self._words[_OFFERED + slot] = self._words[_TAKEN + slot] = self._number
                self._words[_DATABASE + slot] = self._database
                self._words[_USED] = max(self._words[_USED], slot + 1)
                self._slot = slot
                return

    @property
    def is_alone(self) -> bool:
        """Whether no other process has a slot. While the turnstile is held, none can come."""
        return self._slot == 0 and self._words[_USED] == 1

    # Offering

    def offer(self, offer: Offer, size: int) -> bool:
        """Have whoever writes next run what is offered, and give the answer once that is durable; whether there is one.

        If not, the caller writes by itself, and has the turnstile and a round begun. `size` is how many entries the log
        has at least. The first interrupt (Ctrl-C) is kept in the offer.
        """
        slot, request = self._slot, None
        if slot is not None and not self._gate.is_next():
            request = offer.request()
        if slot is None or request is None or len(request) > _MESSAGE:
            self._gate.queue()
            self.begin()
            return False
        number = self._number = self._number + 1
        words, start = self._words, self._request_at(slot)
        nothing = bytes(_HEAD.size + len(request))
        end = start + len(nothing)
        try:
            self._write(start, number, request)
            offer.since = size
            words[_OFFERED + slot] = number
            while True:
                try:
                    offer.answer = self._wait(slot, number)
                    break
                except BaseException as error:
                    # Somebody may run it right now, so wait for the answer; but not against somebody who insists.
                    if offer.interrupt is not None or isinstance(error, Exception):
                        raise
                    offer.interrupt = error
        finally:
            # Nothing is called before this is done: no interrupt leaves a request behind that nobody waits for.
            self._map[start:end] = nothing
            self._wipe(self._answer_at(slot))
        if offer.answer is not None:
            return True
        if words[_TAKEN + slot] == number:
            self._gate.queue()
            self.begin()
        else:
            offer.since = None  # nor will it be taken any more, since this process is in the gate
        return False

    def _wait(self, slot: int, number: int) -> bytes | None:
        words = self._words
        if words[_TAKEN + slot] != number and not self._gate.is_next():
            if words[_ROUND] != self._round:  # this process's own round is not whose end to wait for
                self._await_round(words[_ROUND])
            if words[_TAKEN + slot] != number:
                # Too late for that round, or the next writer had not opened its own yet: be next.
                self._gate.queue()
        if words[_TAKEN + slot] != number:
            # This process writes next. Nobody else takes any more once it is in the gate.
            self.begin()
            self._gate.enter()
            if words[_TAKEN + slot] != number:
                words[_OFFERED + slot] = words[_TAKEN + slot]
                return None
        self.leave()
        self._gate.leave()
        self._gate.admit()
        self._await_round(words[_IN_ROUND + slot])
        return self._read(self._answer_at(slot), number)

    def _await_round(self, number: int) -> None:
        place = _ROUND_BYTES + number % _ROUNDS
        unlock = self._unlocking(place)
        try:
            self._lock(place, fcntl.F_RDLCK)
        finally:
            unlock()

    # Writing for others

    def begin(self) -> None:
        """Open a round: whoever finds the turnstile taken waits for its end. The caller holds the turnstile, and calls
        `leave` however it goes on.
        """
        self.leave()  # one that an interrupt left open
        if self.is_alone:
            return
        number = self._words[_ROUND] + 1
        place = _ROUND_BYTES + number % _ROUNDS
        self.leave = self._unlocking(place)
        self._lock(place, fcntl.F_WRLCK)
        self._round = number
        self._words[_ROUND] = number

    def collect(self) -> _Round | None:
        """Take into the round what was offered, and let go of the turnstile. The caller holds both locks."""
        # Whoever found the turnstile taken had offered before this.
        self._gate.admit()
        words, used = self._words, self._words[_USED]
        if used == 1 or words[_OFFERED : _OFFERED + used] == words[_TAKEN : _TAKEN + used]:
            return None
        guests = []
        for slot in range(used):
            offered = words[_OFFERED + slot]
            if (
                offered != words[_TAKEN + slot]
                and slot != self._slot
                and words[_DATABASE + slot] == self._database
                and self._is_there(slot)
            ):
                request = self._read(self._request_at(slot), offered)
                if request is not None:
                    words[_IN_ROUND + slot] = self._round
                    words[_TAKEN + slot] = offered
                    guests.append(_Guest(slot, offered, request))
        return _Round(self, guests) if guests else None

    def keep(self, collected: Round) -> None:
        """Have the round go on until its own `end`, because it has guests."""
        if isinstance(collected, _Round):
            # Nothing is called between these two: one of both ends the round, and only one.
            collected.wake = self.leave
            self.leave = _nothing

    def answer(self, guests: Sequence[_Guest]) -> None:
        """Leave each guest its answer. Whoever calls this keeps the exchange from being closed, by `closing`."""
        for guest in guests:
            if guest.answer is not None and len(guest.answer) <= _MESSAGE:
                self._write(self._answer_at(guest.slot), guest.number, guest.answer)

    def forget(self) -> None:
        """Wipe every slot, because something was erased. The caller holds the gate. Whoever loses an answer by it looks
        in the log, and whoever loses a request writes by itself.
        """
        for slot in range(self._words[_USED]):
            self._forget(slot)

    # The file

    def _request_at(self, slot: int) -> int:
        return _PAGE + 2 * slot * _AREA

    def _answer_at(self, slot: int) -> int:
        return _PAGE + (2 * slot + 1) * _AREA

    def _write(self, place: int, number: int, message: bytes) -> None:
        self._wipe(place)  # an answer that came too late
        # First how long it is, so that all of it is wiped even if this process dies in between.
        _HEAD.pack_into(self._map, place, number, len(message), zlib.crc32(message))
        start = place + _HEAD.size
        self._map[start : start + len(message)] = message

    def _read(self, place: int, number: int) -> bytes | None:
        """The message with that number, or None."""
        found, length, checksum = _HEAD.unpack_from(self._map, place)
        if found != number or length > _MESSAGE:
            return None
        start = place + _HEAD.size
        message = self._map[start : start + length]
        return message if zlib.crc32(message) == checksum else None

    def _wipe(self, place: int) -> None:
        _, length, _ = _HEAD.unpack_from(self._map, place)
        end = place + _HEAD.size + min(length, _MESSAGE)
        self._map[place:end] = bytes(end - place)

    def _forget(self, slot: int) -> None:
        """Wipe all of a slot, whatever it says it holds."""
        start = self._request_at(slot)
        self._map[start : start + 2 * _AREA] = bytes(2 * _AREA)

    # Locks

    def _is_there(self, slot: int) -> bool:
        """Whether somebody holds the slot, so that an answer is waited for."""
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, slot, 1, 0)
        found = _FLOCK.unpack(fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, asked))
        return bool(found[0] != fcntl.F_UNLCK)

    def _try_lock(self, place: int, kind: int) -> bool:
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0))
        except BlockingIOError:
            return False
        return True

    def _lock(self, place: int, kind: int) -> None:
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLKW, _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0))

    def _unlocking(self, place: int) -> Callable[[], object]:
        unlocked = _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, place, 1, 0)
        return partial(fcntl.fcntl, self._file, fcntl.F_OFD_SETLK, unlocked)

    def close(self) -> None:
        """Give everything back. Whoever waits for this process wakes."""
        with self.closing:
            if self.closed:
                return
            if self._slot is not None:
                self._forget(self._slot)
            self.closed = True
            self._words.release()
            self._map.close()
            os.close(self._file)
