"""Putting a question to the person at the terminal.

- The question goes to standard error, so that what a command answers on standard output stays what it is.
- Ctrl-C ends it whenever it comes, also between the question and the wait for its answer.
- The end of input is an empty answer, and no question takes that for a yes.
"""

from __future__ import annotations

import sys

from agentlattice_cli.interrupts import heeding_interrupts

__all__ = ["answered", "ask", "is_yes"]


def ask(question: str) -> str:
    """The line that the person types after `question`, without the space around it."""
    sys.stderr.write(question)
    sys.stderr.flush()
    return answered()


def answered() -> str:
    """The next line of the terminal, without the space around it; empty at the end of input."""
    with heeding_interrupts():
        return sys.stdin.readline().strip()


def is_yes(answer: str) -> bool:
    """Whether an answer to `[y/N]` is a yes."""
    return answer.lower() in ("y", "yes")
