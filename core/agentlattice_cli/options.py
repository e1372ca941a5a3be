"""Options that several commands share, so that one name means one thing everywhere.

- What a person says of themselves and of where they decide is one list, `DECIDING`; `with_settings` gives it to a
  command.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

__all__ = [
    "DECIDING",
    "DECIDING_IN_GROUPS",
    "Accessed",
    "Agent",
    "Amount",
    "As",
    "BaseUrl",
    "Beneficiary",
    "Bootstrap",
    "Category",
    "Currency",
    "Data",
    "Database",
    "Db",
    "Digest",
    "EventId",
    "Groups",
    "Json",
    "Metadata",
    "Mode",
    "OnBehalfOf",
    "Policies",
    "Roles",
    "SigningKey",
    "WebhookKey",
    "WebhookReach",
    "with_settings",
]

Db = Annotated[
    str | None, typer.Option("--db", metavar="FILE", help="The database (AL_DB; default: governance.db).")
]
SigningKey = Annotated[
    str | None,
    typer.Option(
        "--signing-key",
        metavar="KEY",
        help="The key that signs the log: a file, or vault://HOST:PORT/MOUNT/NAME (AL_SIGNING_KEY; default: a file "
        "beside the database).",
    ),
]
WebhookKey = Annotated[
    str | None,
    typer.Option(
        "--webhook-key",
        metavar="FILE",
        help="The key that seals the secrets of webhooks (AL_WEBHOOK_KEY; default: beside the database).",
    ),
]
WebhookReach = Annotated[
    list[str] | None,
    typer.Option(
        "--webhook-reach",
        metavar="NETWORK",
        help="A network, or `loopback`, that webhooks may reach beside public addresses (AL_WEBHOOK_REACH). "
        "May be repeated.",
    ),
]
Database = Annotated[
    str,
    typer.Option(
        "--database",
        metavar="URL",
        envvar="AL_DATABASE",
        help="sqlite:///FILE, or postgresql://... for many nodes (AL_DATABASE).",
    ),
]
Bootstrap = Annotated[
    Path | None,
    typer.Option(
        "--bootstrap",
        metavar="FILE",
        help="Write the address and first keys there, for a program; only its owner may read it.",
    ),
]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", metavar="URL", help="The service's address (AL_BASE_URL).")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Agent = Annotated[str | None, typer.Option("--agent", metavar="NAME", help="The agent that acts (AL_AGENT).")]
Policies = Annotated[
    list[str] | None,
    typer.Option(
        "--policies", metavar="FILE", help="A policy file to keep in force (AL_POLICIES). May be repeated."
    ),
]
Mode = Annotated[
    str | None,
    typer.Option(
        "--mode", metavar="MODE", help="enforce, or observe: record and let everything run (AL_MODE)."
    ),
]
As = Annotated[str | None, typer.Option("--as", metavar="NAME", help="The person who decides (AL_OPERATOR).")]
Roles = Annotated[
    str | None,
    typer.Option("--role", metavar="ROLE", help="That person's role: viewer, member or admin (AL_ROLE)."),
]
Groups = Annotated[
    list[str] | None,
    typer.Option("--group", metavar="GROUP", help="A group of that person (AL_GROUPS). May be repeated."),
]
Digest = Annotated[
    str | None,
    typer.Option(
        "--digest", metavar="DIGEST", help="The digest that was shown, or its first 12 characters or more."
    ),
]

Metadata = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata",
        metavar="NAME=VALUE",
        help="A member of the metadata; a value that is JSON is read as JSON. May be repeated.",
    ),
]
Accessed = Annotated[
    list[str] | None,
    typer.Option(
        "--accessed",
        metavar="TYPE[:COUNT[:SENSITIVITY]]",
        help="Data that the action touches, such as credentials:1:critical. May be repeated.",
    ),
]
Amount = Annotated[
    str | None, typer.Option("--amount", metavar="DECIMAL", help="The amount of money, such as 12.50.")
]
Currency = Annotated[
    str | None, typer.Option("--currency", metavar="CODE", help="The currency, such as EUR.")
]
Beneficiary = Annotated[
    str | None, typer.Option("--beneficiary", metavar="NAME", help="Who receives the money.")
]
Category = Annotated[
    str | None, typer.Option("--category", metavar="NAME", help="What kind of spending it is.")
]
OnBehalfOf = Annotated[
    str | None, typer.Option("--on-behalf-of", metavar="NAME", help="The end user whom the agent acts for.")
]
EventId = Annotated[
    str | None,
    typer.Option("--event-id", metavar="ID", help="Makes a retry safe: the same id is the same action."),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="FILE",
        help="The action's data as a JSON object, from a file or - for standard input.",
    ),
]

DECIDING = {"operator": As, "role": Roles, "db": Db, "signing_key": SigningKey}
"""Who decides, and where, by the name of the setting."""
DECIDING_IN_GROUPS = {"operator": As, "role": Roles, "groups": Groups, "db": Db, "signing_key": SigningKey}
"""As `DECIDING`, where it matters which groups the person is in."""


def with_settings(shared: dict[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the `shared` options, after its own and before `--json`; it takes the `settings` they make."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        # Commands import `Settings` for type checkers only: help imports nothing that running a command takes.
        hints = get_type_hints(command, include_extras=True, localns={"Settings": Any})
        own = [
            one.replace(kind=one.KEYWORD_ONLY, annotation=hints[one.name])
            for one in inspect.signature(command).parameters.values()
            if one.name != "settings"
        ]
        given = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
            for name, option in shared.items()
        ]
        last = next((at for at, one in enumerate(own) if one.name == "json"), len(own))
        options = [*own[:last], *given, *own[last:]]

        @wraps(command)
        def run(**said: Any) -> None:
            from agentlattice_cli.settings import resolve

            flags = {name: said.pop(name) for name in shared}
            command(settings=resolve(flags), **said)

        run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in options}
        return run

    return decorate
