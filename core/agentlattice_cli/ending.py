"""How a command ends, whatever happens.

- Exit codes: 0 done; 1 an error, or the answer is no; 130 interrupted. Commands that ask for an action (`gate`,
  `execute`, `can-i`, `whoami`) use 1 for denied, 2 for nobody decided, 3 for anything that kept them from an answer,
  so that a mistyped flag never reads as a denial or a timeout.
- An error is one line on standard error that begins with `error: `, whatever the text that it quotes. A traceback is a
  defect of ours.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

__all__ = ["ending", "say_error"]

_INTERRUPTED = 130
_NO_ANSWER = 3
_ASKING = ("gate", "execute", "can-i", "whoami")


def ending(program: Callable[[], Any], arguments: Sequence[str]) -> int:
    """Run the program, which was given `arguments`, and say how it ended."""
    logging.getLogger("agentlattice").addHandler(_WARNINGS)
    try:
        code = program()
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else " ".join(["al", *arguments[:1]])
        _say(f"{_sentence(error.format_message())}; see `{command} --help`")
        return _NO_ANSWER if arguments and arguments[0] in _ASKING else 1
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not complain about it on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if not say_error(error):
            raise
        return 1


def say_error(error: Exception) -> bool:
    """Say what went wrong, one line per problem; False for a defect, of which nothing is said."""
    lines = _expected(error)
    for line in lines:
        _say(line)
    return bool(lines)


def _expected(error: Exception) -> Sequence[str]:
    """What to say of an error that is not a defect; nothing for one that is."""
    from agentlattice_core.errors import AgentLatticeError, PolicyDocumentError

    if isinstance(error, PolicyDocumentError):
        return [str(problem) for problem in error.problems]
    if isinstance(error, AgentLatticeError):
        return [error.message]
    if isinstance(error, OSError):
        where = f"`{error.filename}`: " if error.filename is not None else ""
        return [f"{where}{(error.strerror or str(error)).lower()}"]
    return []


class _Warnings(logging.Handler):
    """What the core notices in the background, as one line on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        _say(record.getMessage(), "warning")


_WARNINGS = _Warnings()


def _sentence(message: str) -> str:
    """A usage error in our own style: one line that begins in lower case."""
    text = " ".join(message.split()).rstrip(".?").replace("'", "`").replace(". Did you", ", did you")
    return ": ".join(part[:1].lower() + part[1:] for part in text.split(": "))


def _say(message: str, kind: str = "error") -> None:
    from agentlattice_cli.output import spelled_out

    sys.stderr.write(f"{kind}: {spelled_out(message)}\n")
    sys.stderr.flush()
