"""`al registry`: looking into registries that are kept in the store. They are changed by actions, not from here."""

from __future__ import annotations

from typing import Annotated

import typer

from agentlattice_cli import options
from agentlattice_cli.program import command_group

__all__ = ["app"]

app = command_group("Look into the registries that are kept in the store.")


@app.callback()
def _registry() -> None:
    """Keeps `list` a command of its own, although there is no other."""


@app.command("list")
def list_entries(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A registry, such as wallets in agentlattice.registry.wallets.put."
        ),
    ],
    db: options.Db = None,
    json: options.Json = False,
) -> None:
    """List what a registry holds: values, their tags and caps, and the action that put them there."""
    from agentlattice_cli.opening import looking, served
    from agentlattice_cli.output import Output
    from agentlattice_cli.settings import resolve
    from agentlattice_core import registries
    from agentlattice_core.errors import NotFoundError
    from agentlattice_core.policy.reader import did_you_mean

    settings = resolve({"db": db})
    service = served(settings)
    if service is not None:
        with service:
            found = service.registry_sync(name)
    else:
        with looking(settings) as look:
            known = registries.names(look.reader)
            if name not in known:
                raise NotFoundError(
                    f"there is no registry `{name:.80}` in the store; it comes to be with its first "
                    f"`agentlattice.registry.<name>.put`{did_you_mean(name, known)}"
                )
            found = registries.entries(look.reader, name)
    out = Output(json=json)
    if json:
        out.document({"registry": name, "entries": found})
        return
    out.table(
        ["value", "tags", "caps", "changed at", "action"],
        [
            [
                one.value,
                one.tags,
                ", ".join(f"{cap} {amount}" for cap, amount in one.caps.items()),
                one.changed_at,
                one.audit_event_id,
            ]
            for one in found
        ],
        f"`{name}` is empty",
    )
