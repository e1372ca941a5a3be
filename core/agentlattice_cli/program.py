"""The program that all commands are part of, and groups of commands.

- However it is started, by the entry point or by a test, it ends as `ending` says.
- A group that is named without a command shows its help.
- A group is built when it is named: building all of them takes longer than most commands.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup
from typer.main import get_command

from agentlattice_cli.ending import ending

__all__ = ["Program", "command_group"]


class Program(TyperGroup):
    """The outermost group. A subclass names the `groups` within it, which its help lists after its own commands."""

    groups: ClassVar[Mapping[str, typer.Typer]] = {}

    def __init__(self, *, commands: Mapping[str, Any], **options: Any) -> None:
        super().__init__(**options)
        self.commands: Any = _Commands(commands, self.groups)

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


class _Commands(Mapping[str, Any]):
    """Commands by name. Whoever looks at one builds that one; whoever looks through them builds all."""

    def __init__(self, commands: Mapping[str, Any], groups: Mapping[str, typer.Typer]) -> None:
        self._built = dict(commands)
        self._groups = groups
        self._names = (*commands, *groups)

    def __getitem__(self, name: str) -> Any:
        command = self._built.get(name)
        if command is None:
            command = self._built[name] = get_command(self._groups[name])
            command.name = name
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def command_group(help_text: str) -> typer.Typer:
    """A group of commands, described by `help_text`."""
    group = typer.Typer(rich_markup_mode=None, add_completion=False, help=help_text)

    @group.callback(invoke_without_command=True)
    def alone(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())

    return group
