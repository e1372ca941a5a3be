"""Putting a question to the person at the terminal.

- The question goes to standard error, so that what a command answers on standard output stays what it is.
- Ctrl-C ends it whenever it comes: a signal between the question and the wait for its answer is seen within the
  interval of a poll, where a plain read would sleep through it until the person presses again.
- The end of input is an empty answer, and no question takes that for a yes.
"""

from __future__ import annotations

import select
import sys

__all__ = ["answered", "ask", "is_yes"]

_POLL_SECONDS = 0.2


def ask(question: str) -> str:
    """The line that the person types after `question`, without the space around it."""
    sys.stderr.write(question)
    sys.stderr.flush()
    return answered()


def answered() -> str:
    """The next line of the terminal, without the space around it; empty at the end of input."""
    while not select.select([sys.stdin], [], [], _POLL_SECONDS)[0]:
        pass
    return sys.stdin.readline().strip()


def is_yes(answer: str) -> bool:
    """Whether an answer to `[y/N]` is a yes."""
    return answer.lower() in ("y", "yes")
