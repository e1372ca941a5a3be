"""`al delegations`: which agents act for others, and ending that.

- Looking needs no identity, and revoking an operator, named with `--as` or AL_OPERATOR. A service takes who holds the
  key: an agent sees its own and ends what is below it, an operator everybody's.
- Revoking one ends everything that was delegated below it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agentlattice_cli import options
from agentlattice_cli.program import command_group

if TYPE_CHECKING:
    from agentlattice_cli.settings import Settings

__all__ = ["app"]

app = command_group("See what agents delegated to others, and take it back.")


@app.command("list")
def list_delegations(
    agent: Annotated[
        str | None,
        typer.Option("--agent", metavar="NAME", help="Only what this agent delegated or was given."),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            "--role", metavar="parent|child", help="With --agent: what it delegated, or what it was given."
        ),
    ] = None,
    ended: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
    db: options.Db = None,
    json: options.Json = False,
) -> None:
    """List delegations in force, the oldest first."""
    from agentlattice_cli.opening import check_known, looking, served
    from agentlattice_cli.output import Output
    from agentlattice_cli.settings import resolve
    from agentlattice_core.delegation import delegations
    from agentlattice_core.errors import InvalidRequestError

    if role is not None and agent is None:
        raise InvalidRequestError("`--role` is a side of an agent; name it with `--agent`")
    settings = resolve({"db": db})
    service = served(settings)
    if service is not None:
        with service:
            found = service.delegations_sync(role, not ended, agent).delegations
    else:
        with looking(settings) as look:
            if agent is not None:
                check_known(look, agent)
            found = delegations(look.reader, agent, role, active_only=not ended, at=look.at)
    out = Output(json=json)
    if json:
        out.document({"delegations": found})
        return
    out.table(
        ["id", "parent", "child", "may do", "until", "status"],
        [
            [
                one.id,
                one.parent,
                one.agent,
                one.scope["action_types"],
                one.expires_at,
                one.status,
            ]
            for one in found
        ],
        "nothing is delegated" if ended else "no delegation is in force",
    )


@app.command()
@options.with_settings(options.DECIDING)
def revoke(
    settings: Settings,
    delegation: Annotated[
        str, typer.Argument(metavar="ID", help="The delegation, as `al delegations list` names it.")
    ],
    json: options.Json = False,
) -> None:
    """End a delegation, and with it every one below."""
    from agentlattice_cli.opening import deciding
    from agentlattice_cli.output import Output

    with deciding(settings) as client:
        answer = client.revoke_sync(delegation)
    out = Output(json=json)
    if json:
        out.document(answer)
    else:
        out.line(f"{answer.delegation_id} revoked")
