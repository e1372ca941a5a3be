"""A process is killed while it writes for another: that other's action is recorded once, and answered."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from neighbours import PATIENCE, Neighbour, actions, note, prepare, state_is_what_the_log_makes_of_it, until

from agentlattice_core.stores import exchange as exchange_module

LIBRARY = (
    "sequencer.py",
    "sqlite.py",
    "sqlite_transaction.py",
    "gate.py",
    "board.py",
    "exchange.py",
    "commands.py",
)
WHOLE = 7  # the exit status of a writer that came to its end


class Killer:
    """Kills this process before the n-th line that it runs inside the library."""

    def __init__(self, at: int) -> None:
        self.left = at

    def begin(self) -> None:
        sys.settrace(self._trace)
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            if frame.f_code.co_filename.endswith(LIBRARY):
                frame.f_trace = self._trace
            frame = frame.f_back

    def _trace(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if not frame.f_code.co_filename.endswith(LIBRARY):
            return None
        if event == "line":
            self.left -= 1
            if self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return self._trace


def write_for_others(path: Path, at: int, told: int, tell: int) -> None:
    """The writer: opens the log, says so, and once the guest has offered writes for it, as far as it comes."""
    host = Neighbour(path, "host")
    killer = Killer(at)

    def hold(batch: Any) -> int:
        os.write(tell, b"h")
        exchange = host.store._exchange
        assert exchange is not None
        words = exchange._words
        offered, taken = exchange_module._OFFERED, exchange_module._TAKEN

        def posted() -> bool:
            used = words[exchange_module._USED]
            return any(words[offered + slot] != words[taken + slot] for slot in range(used))

        until(posted, "the guest offers")
        killer.begin()
        return note(batch)

    os.write(tell, b"o")
    os.read(told, 1)
    host.sequencer.run(hold)
    sys.settrace(None)


def served_by_one_killed_at(path: Path, at: int) -> bool:
    """Whether the writer was killed."""
    (told, go), (heard, tell) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            write_for_others(path, at, told, tell)
        finally:
            os._exit(WHOLE)
    assert os.read(heard, 1) == b"o"
    guest = Neighbour(path, "guest")
    before = len(actions(guest.store))
    os.write(go, b"g")
    assert os.read(heard, 1) == b"h"
    answers: list[Any] = []
    waiting = threading.Thread(
        target=lambda: answers.append(guest.act("note.write", event_id=f"at-{at}")), daemon=True
    )
    waiting.start()
    waiting.join(PATIENCE)
    assert not waiting.is_alive(), f"nobody answers after line {at}"
    _, status = os.waitpid(pid, 0)
    recorded = actions(guest.store)
    assert len(recorded) == before + 1, f"at line {at}"
    assert recorded[-1]["id"] == answers[0].audit_event_id
    assert not answers[0].replayed
    assert answers[0].status == "executed"
    # Somebody who comes later is not held up by what the dead one left.
    assert guest.act("note.write", event_id=f"at-{at}").replayed
    guest.close()
    for end in (told, go, heard, tell):
        os.close(end)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == WHOLE
    return False


def every_line(path: Path, step: int) -> int:
    at = 0
    while served_by_one_killed_at(path, at):
        at += step
    assert state_is_what_the_log_makes_of_it(path)
    return at


def test_a_writer_killed_at_every_seventh_line(tmp_path: Path) -> None:
    assert every_line(prepare(tmp_path), 7) > 100


@pytest.mark.soak
def test_a_writer_killed_at_every_line(tmp_path: Path) -> None:
    assert every_line(prepare(tmp_path), 1) > 100
