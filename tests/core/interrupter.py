"""Ctrl-C at every point where the interpreter would notice it."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

WRITING = (
    *("sequencer.py", "batch.py", "sqlite.py", "sqlite_transaction.py", "gate.py", "board.py", "exchange.py"),
    "commands.py",
)
"""What takes part in writing to the log."""


class Interrupter:
    """Raises KeyboardInterrupt at the n-th point where the interpreter would notice Ctrl-C inside `modules`.

    CPython looks for signals after a call of a C function, at the start of a Python function and where a loop jumps
    back, and nowhere else. Where blocks of the modules are left, the very start of `__exit__` can be left out: no
    context manager written in Python can do anything about it.
    """

    def __init__(self, at: int, modules: tuple[str, ...], *, but_starts_of_exits: bool = False) -> None:
        self.left = at
        self.struck = False
        self._modules = modules
        self._left_out = "__exit__" if but_starts_of_exits else None
        self._previous: dict[FrameType, str] = {}

    def __enter__(self) -> Interrupter:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _argument: Any) -> Callable[..., Any] | None:
        if event == "call" and frame.f_back is not None:
            self._previous[frame.f_back] = "a call of a Python function"
        if not frame.f_code.co_filename.endswith(self._modules):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if event == "opcode":
            before = self._previous.get(frame, "RESUME")
            self._previous[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            starts = before == "RESUME" and frame.f_code.co_name == self._left_out
            if before.startswith(("CALL", "JUMP_BACKWARD", "RESUME")) and not starts and not self.struck:
                self.left -= 1
                if self.left < 0:
                    self.struck = True
                    raise KeyboardInterrupt
        elif event == "return":
            self._previous.pop(frame, None)
        return self._trace
