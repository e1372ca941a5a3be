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
- What was read is wiped, because actions hold what may have to be erased.
- Waiting is a lock on a byte of the file that the writer of the round holds: when the round ends, or its process dies,
  everybody who waits wakes at once. These are locks of an open file and not of a process, which only Linux has in this
  form; elsewhere every process writes for itself.
- The file is worth nothing once nobody has it open; whoever opens it alone starts it afresh.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import sys
import zlib
from collections.abc import Callable, Sequence
from functools import partial

from agentlattice_core.stores.base import Guest, Offer, Round
from agentlattice_core.stores.gate import ProcessGate

__all__ = ["Exchange"]

_SLOTS = 64
_ROUNDS = 8
_MESSAGE = 32_768 - 32
"""The most bytes of one request or answer."""

# The file: one page of words, then for each slot a request and an answer, each three words and the message.
_FORMAT, _ROUND, _USED = range(3)
_OFFERED, _TAKEN, _IN_ROUND = (64 * n for n in range(1, 4))  # one word for each slot
_PAGE = 4096
_AREA = 32_768
_BYTES = _PAGE + _SLOTS * 2 * _AREA
_VERSION = 0x414C_5851_0001
_HEAD = struct.Struct("=QII")  # number, length, checksum

# Bytes of the file that are locked: one for each slot and one for each round in progress, and one for who is there.
_ROUND_BYTES = 1000
_PRESENCE = 2000
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

    def __init__(self, exchange: Exchange, number: int, guests: Sequence[_Guest]) -> None:
        self._exchange = exchange
        self._number = number
        self._ended = False
        self.guests = guests

    def end(self, *, durable: bool) -> None:
        """Answer, if the transaction is durable, and wake everybody who waits. Interrupted, it may be called again."""
        if not self._ended:
            self._exchange._end(self._number, self.guests if durable else ())
            self._ended = True


class Exchange:
    """The exchange beside the file at `path`. Its owner holds a lock between threads around everything but `Round.end`.

    Open it while holding the gate.
    """

    @staticmethod
    def is_possible() -> bool:
        """Whether this system has the locks it takes."""
        return sys.platform == "linux" and hasattr(fcntl, "F_OFD_SETLKW") and struct.calcsize("P") == 8

    def __init__(self, path: str, gate: ProcessGate) -> None:
        self._gate = gate
        self._slot: int | None = None
        self._number = 0
        self._round = 0
        self.leave: Callable[[], object] = _nothing
        """End the round that was begun. Not a method, at whose start an interrupt could keep it open."""
        self._file = os.open(f"{path}-exchange", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(self._file).st_size < _BYTES:
                os.ftruncate(self._file, _BYTES)
            self._map = mmap.mmap(self._file, _BYTES)
        except BaseException:
            os.close(self._file)
            raise
        self._words = memoryview(self._map)[:_PAGE].cast("Q")
        if self._try_lock(_PRESENCE, fcntl.F_WRLCK):
            for word in range(_PAGE // 8):
                self._words[word] = 0
            self._words[_FORMAT] = _VERSION
        self._lock(_PRESENCE, fcntl.F_RDLCK)
        if self._words[_FORMAT] == _VERSION:
            self._take_slot()

    def _take_slot(self) -> None:
        for slot in range(_SLOTS):
            if self._try_lock(slot, fcntl.F_WRLCK):
                self._slot = slot
                # Whatever is still written for an owner before this one carries another number.
                self._number = int.from_bytes(os.urandom(6), "big")
                self._words[_OFFERED + slot] = self._words[_TAKEN + slot] = self._number
                self._wipe(self._request_at(slot))
                self._wipe(self._answer_at(slot))
                self._words[_USED] = max(self._words[_USED], slot + 1)
                return

    @property
    def is_alone(self) -> bool:
        """Whether no other process has a slot. While the turnstile is held, none can come."""
        return self._slot == 0 and self._words[_USED] == 1

    # Offering

    def offer(self, offer: Offer, size: int) -> bool:
        """Have whoever writes next run what is offered, and give the answer once that is durable; whether there is one.

        If not, the caller writes by itself, and has the turnstile and a round begun. `size` is how many entries the log
        has at least. An interrupt (Ctrl-C) is raised once the answer has been given.
        """
        slot = self._slot
        if (
            slot is None
            or self._gate.is_next()
            or (request := offer.request()) is None
            or len(request) > _MESSAGE
        ):
            self._gate.queue()
            self.begin()
            return False
        self._number += 1
        number = self._number
        self._write(self._request_at(slot), number, request)
        self._words[_OFFERED + slot] = number
        interrupt: BaseException | None = None
        answer: bytes | None = None
        try:
            while True:
                try:
                    answer = self._wait(slot, number)
                    break
                except BaseException as error:
                    # Somebody may run it right now, so wait for the answer; but not against somebody who insists.
                    if interrupt is not None or isinstance(error, Exception):
                        raise
                    interrupt = error
        finally:
            self._wipe(self._request_at(slot))
            self._wipe(self._answer_at(slot))
            if answer is not None:
                offer.answered(answer)
            elif self._words[_TAKEN + slot] == number:
                offer.unanswered(size)
        if interrupt is not None:
            raise interrupt
        if answer is not None:
            return True
        if self._words[_TAKEN + slot] == number:
            self._gate.queue()
            self.begin()
        return False

    def _wait(self, slot: int, number: int) -> bytes | None:
        words = self._words
        if words[_TAKEN + slot] != number and not self._gate.is_next():
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
        number = self._round
        words, used = self._words, self._words[_USED]
        if used == 1 or words[_OFFERED : _OFFERED + used] == words[_TAKEN : _TAKEN + used]:
            return None
        guests = []
        for slot in range(used):
            offered = words[_OFFERED + slot]
            if offered != words[_TAKEN + slot] and slot != self._slot and self._is_there(slot):
                request = self._read(self._request_at(slot), offered)
                if request is not None:
                    words[_IN_ROUND + slot] = number
                    words[_TAKEN + slot] = offered
                    guests.append(_Guest(slot, offered, request))
        return _Round(self, number, guests) if guests else None

    def keep(self) -> None:
        """Have the round go on until its own `end`, because it has guests."""
        self.leave = _nothing

    def _end(self, number: int, guests: Sequence[_Guest]) -> None:
        if self._file < 0:
            return  # closed for a fork, which woke everybody
        unlock = self._unlocking(_ROUND_BYTES + number % _ROUNDS)
        try:
            for guest in guests:
                if guest.answer is not None and len(guest.answer) <= _MESSAGE:
                    self._write(self._answer_at(guest.slot), guest.number, guest.answer)
        finally:
            unlock()

    # The file

    def _request_at(self, slot: int) -> int:
        return _PAGE + 2 * slot * _AREA

    def _answer_at(self, slot: int) -> int:
        return _PAGE + (2 * slot + 1) * _AREA

    def _write(self, place: int, number: int, message: bytes) -> None:
        start = place + _HEAD.size
        self._map[start : start + len(message)] = message
        _HEAD.pack_into(self._map, place, number, len(message), zlib.crc32(message))

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
        self._map[place : place + _HEAD.size + min(length, _MESSAGE)] = bytes(
            _HEAD.size + min(length, _MESSAGE)
        )

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
        """Give everything back."""
        if self._slot is not None:
            with contextlib.suppress(ValueError):
                self._wipe(self._request_at(self._slot))
                self._wipe(self._answer_at(self._slot))
        file, self._file = self._file, -1
        self._words.release()
        self._map.close()
        os.close(file)
