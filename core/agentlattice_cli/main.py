"""`al`, the command line: which commands there are, and how any of them ends.

- Starting must be quick, for help and completion: the core is imported by the command that needs it, frameworks by
  `al demo` alone.
- Help is plain text on a terminal and in a pipe alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import typer

from agentlattice_cli import (
    action_commands,
    approval_commands,
    audit_commands,
    custody_commands,
    delegation_commands,
    organisation_commands,
    policy_commands,
    registry_commands,
    service_commands,
    webhook_commands,
)
from agentlattice_cli.posture_commands import posture
from agentlattice_cli.program import Program
from agentlattice_cli.project_commands import config, init
from agentlattice_cli.serve_command import serve

__all__ = ["app", "main"]


custody_commands.extend(audit_commands.app)


class _Al(Program):
    groups: ClassVar[Mapping[str, typer.Typer]] = {
        "approvals": approval_commands.app,
        "delegations": delegation_commands.app,
        "policy": policy_commands.app,
        "registry": registry_commands.app,
        "webhooks": webhook_commands.app,
        "audit": audit_commands.app,
        "keys": service_commands.keys,
        "members": service_commands.members,
        "organisations": organisation_commands.app,
    }


app = typer.Typer(
    name="al",
    cls=_Al,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Govern what AI agents do: policy, approvals, and a log that can be proved.",
)
app.command("init")(init)
app.command("whoami")(action_commands.whoami)
app.command("can-i")(action_commands.can_i)
app.command("execute")(action_commands.execute)
app.command("gate")(action_commands.gate)
app.command("report")(action_commands.report)
app.command("posture")(posture)
app.command("config")(config)
app.command("register")(service_commands.register)
app.command("export")(service_commands.export)
app.command("import")(service_commands.import_)
app.command("serve")(serve)


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"al {installed('agentlattice-integrations')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(
    "demo",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def _demo(context: typer.Context) -> None:
    """Watch a governed agent be denied, correct itself, and ask a person. No key, no network."""
    from agentlattice_cli.demo import app as story

    command = typer.main.get_command(story)
    code = command.main(args=context.args, prog_name="al demo", standalone_mode=False)
    raise typer.Exit(code if isinstance(code, int) else 0)


def main() -> None:
    """Run `al` with the arguments of this process."""
    app()
