"""Writes the command reference at the end of docs/cli.md from the commands themselves.

Run it as a program after a change of the commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from agentlattice_cli import demo
from agentlattice_cli.main import app

__all__ = ["PAGE", "commands", "page"]

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
_FROM_HERE = "<!-- From here on this page is written by tests/cli/cli_reference.py. -->\n"


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name, groups left out."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        if name == "al demo":  # which hands all it is given on to a program of its own
            command = get_command(demo.app)
        if not hasattr(command, "commands"):
            yield name, command
            return
        for part, inner in command.commands.items():
            yield from walk(f"{name} {part}", inner)

    yield from walk("al", get_command(app))


def page(present: str) -> str:
    """The page `present` with its reference written anew."""
    prose, marker, _ = present.partition(_FROM_HERE)
    assert marker, "the page has lost the line after which its reference begins"
    return prose + marker + "".join(_section(name, command) for name, command in commands())


def _section(name: str, command: Any) -> str:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [
        param for param in command.params if param.param_type_name == "option" and param.name != "help"
    ]
    usage = " ".join([name, *(param.metavar for param in arguments), *(["[OPTIONS]"] if options else [])])
    lines = ["", f"### `{usage}`", "", " ".join((command.help or "").split()), ""]
    if arguments or options:
        lines += ["| | |", "|---|---|"]
        lines += [f"| `{param.metavar}` | {param.help} |" for param in arguments]
        lines += [f"| `{_spelled(param)}` | {param.help}{_otherwise(param)} |" for param in options]
    return "\n".join(lines).rstrip("\n") + "\n"


def _spelled(option: Any) -> str:
    flags = ", ".join(option.opts)
    return flags if option.is_flag else f"{flags} {option.metavar.replace('|', chr(92) + '|')}"


def _otherwise(option: Any) -> str:
    """What holds without the option, where its help does not say so itself."""
    if option.required:
        return " Required."
    return "" if option.is_flag or not option.default else f" Default: `{option.default}`."


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
