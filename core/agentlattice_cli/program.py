"""The program that all commands are part of, and groups of commands.

- However it is started, by the entry point or by a test, it ends as `ending` says.
- A group that is named without a command shows its help.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from agentlattice_cli.ending import ending

__all__ = ["Program", "command_group"]


class Program(TyperGroup):
    """The outermost group."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        run = super().main
        given = sys.argv[1:] if args is None else list(args)

        def program() -> Any:
            return run(given, prog_name or "al", complete_var, False, windows_expand_args, **extra)

        return sys.exit(ending(program, given)) if standalone_mode else program()


def command_group(help_text: str) -> typer.Typer:
    """A group of commands, described by `help_text`."""
    group = typer.Typer(rich_markup_mode=None, help=help_text)

    @group.callback(invoke_without_command=True)
    def alone(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())

    return group
