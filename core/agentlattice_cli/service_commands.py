"""What takes a service: registering agents, exporting and importing a configuration, keys, members.

- A key that is made is printed once. In a pipe it is the only thing on standard output.
- Importing says of each policy and agent whether it is added, modified or unchanged, and removes nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from agentlattice_cli import options
from agentlattice_cli.program import command_group

__all__ = ["export", "import_", "keys", "members", "register"]

File = Annotated[Path, typer.Option("--file", metavar="FILE", help="The file that holds the configuration.")]
Names = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="A tag. May be repeated.")]
Url = options.BaseUrl

keys = command_group("Make, list, rotate and revoke keys of a service.")
members = command_group("Say who decides, on a service.")


def register(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The agent's name, once per organisation.")],
    description: Annotated[
        str | None, typer.Option("--description", metavar="TEXT", help="What it is for.")
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(
            "--owner", metavar="NAME", help="The person whose agent it is, who may not decide for it."
        ),
    ] = None,
    tags: Names = None,
    base_url: Url = None,
    json: options.Json = False,
) -> None:
    """Register an agent with a service, and print its key, which is shown this once."""
    from agentlattice_cli.output import Output, note
    from agentlattice_cli.service_calls import calling
    from agentlattice_cli.settings import resolve

    body = {"name": name, "description": description, "owner": owner, "tags": tags or None}
    made = calling(resolve({"base_url": base_url})).call("POST", "/api/agents/register", body)
    out = Output(json=json)
    if json:
        out.document(made)
        return
    note(f"registered {made['name']} as {made['id']}; its key, which is not shown again:")
    out.line(made["api_key"])


def export(
    file: File,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")] = False,
    base_url: Url = None,
) -> None:
    """Write the policies and agents of a service to a file, for `al import`."""
    import orjson

    from agentlattice_cli.output import note
    from agentlattice_cli.service_calls import calling
    from agentlattice_cli.settings import resolve
    from agentlattice_core.errors import InvalidRequestError

    if file.exists() and not force:
        raise InvalidRequestError(
            f"`{file}` is there already and was left as it is; pass `--force` to replace it"
        )
    document = calling(resolve({"base_url": base_url})).call("GET", "/api/v1/export")
    beside = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        beside.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        os.replace(beside, file)
    finally:
        beside.unlink(missing_ok=True)
    note(f"wrote {len(document['policies'])} policy parts and {len(document['agents'])} agents to {file}")


def import_(
    file: File,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    base_url: Url = None,
    json: options.Json = False,
) -> None:
    """Bring what `al export` wrote into force at a service; nothing is removed."""
    import orjson

    from agentlattice_cli.output import Output, note, shown
    from agentlattice_cli.service_calls import calling
    from agentlattice_cli.settings import resolve
    from agentlattice_core.errors import InvalidRequestError

    try:
        document = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError:
        raise InvalidRequestError(f"`{file}` is not JSON; `al export` writes what this reads") from None
    body = {"document": document, "dry_run": dry_run}
    found = calling(resolve({"base_url": base_url})).call("POST", "/api/v1/import", body)
    out = Output(json=json)
    if json:
        out.document({**found, "dry_run": dry_run})
        return
    for kind in ("added", "modified", "unchanged"):
        for name in found[kind]:
            out.line(f"{kind}\t{shown(name)}")
    if dry_run:
        note("nothing was changed")


# Keys


@keys.command("list")
def list_keys(base_url: Url = None, json: options.Json = False) -> None:
    """List keys: whose they are, since when and until when. Their text is known nowhere."""
    from agentlattice_cli.output import Output
    from agentlattice_cli.service_calls import calling
    from agentlattice_cli.settings import resolve

    found = calling(resolve({"base_url": base_url})).pages("/api/v1/keys", "keys")
    out = Output(json=json)
    if json:
        out.document({"keys": found})
        return
    members_of = ("id", "kind", "holder", "owner", "issued_at", "expires_at", "revoked_at")
    out.table(
        ["id", "kind", "holder", "owner", "issued", "expires", "revoked"],
        [[one[member] for member in members_of] for one in found],
        "there is no key",
    )


@keys.command("create")
def create_key(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="agent, service or operator.")],
    holder: Annotated[
        str,
        typer.Argument(metavar="HOLDER", help="Whose key it is: a registered agent or member, or a name."),
    ],
    base_url: Url = None,
    json: options.Json = False,
) -> None:
    """Make a key, and print its text, which is shown this once."""
    from agentlattice_cli.service_calls import calling
    from agentlattice_cli.settings import resolve

    body = {"kind": kind, "holder": holder}
    _show_key(calling(resolve({"base_url": base_url})).call("POST", "/api/v1/keys", body), json=json)


@keys.command("rotate")
def rotate_key(
    key: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `al keys list` shows it.")],
    overlap: Annotated[
        float,
        typer.Option(
            "--overlap",
            metavar="SECONDS",
            help="How long the old key goes on working; without it, not at all.",
        ),
    ] = 0,
    base_url: Url = None,
    json: options.Json = False,
) -> None:
    """Make a key's successor, and print its text, which is shown this once."""
    from agentlattice_cli.service_calls import calling, part
    from agentlattice_cli.settings import resolve

    service = calling(resolve({"base_url": base_url}))
    path = f"/api/v1/keys/{part(key)}/rotate"
    _show_key(service.call("POST", path, {"overlap_seconds": overlap}), json=json)


@keys.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `al keys list` shows it.")],
    base_url: Url = None,
    json: options.Json = False,
) -> None:
    """End a key at once."""
    from agentlattice_cli.output import Output
    from agentlattice_cli.service_calls import calling, part
    from agentlattice_cli.settings import resolve

    ended = calling(resolve({"base_url": base_url})).call("DELETE", f"/api/v1/keys/{part(key)}")
    out = Output(json=json)
    if json:
        out.document(ended)
    else:
        out.line(f"revoked {ended['id']}")


def _show_key(made: Any, *, json: bool) -> None:
    from agentlattice_cli.output import Output, note

    out = Output(json=json)
    if json:
        out.document(made)
        return
    note(f"{made['key']['kind']} key {made['key']['id']} of {made['key']['holder']}, not shown again:")
    out.line(made["text"])


# Members


@members.command("list")
def list_members(base_url: Url = None, json: options.Json = False) -> None:
    """List the people who are registered, with role and groups."""
    from agentlattice_cli.output import Output
    from agentlattice_cli.service_calls import calling
    from agentlattice_cli.settings import resolve

    found = calling(resolve({"base_url": base_url}), service=False).pages("/api/v1/operators", "operators")
    out = Output(json=json)
    if json:
        out.document({"members": found})
        return
    out.table(
        ["name", "role", "groups"],
        [[one["name"], one["role"], ", ".join(one["groups"])] for one in found],
        "nobody is registered",
    )


@members.command("add")
def add_member(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The person's name.")],
    role: Annotated[
        str, typer.Option("--role", metavar="ROLE", help="Their role: viewer, member or admin.")
    ] = "member",
    groups: Annotated[
        list[str] | None, typer.Option("--group", metavar="GROUP", help="A group. May be repeated.")
    ] = None,
    base_url: Url = None,
    json: options.Json = False,
) -> None:
    """Register a person, or change their role and groups."""
    from agentlattice_cli.output import Output, note
    from agentlattice_cli.service_calls import calling
    from agentlattice_cli.settings import resolve

    body = {"name": name, "role": role, "groups": groups or []}
    made = calling(resolve({"base_url": base_url}), service=False).call("POST", "/api/v1/operators", body)
    out = Output(json=json)
    if json:
        out.document(made)
        return
    out.line(f"{made['name']} is {made['role']}")
    note(f"a key for them: al keys create operator {made['name']}")


@members.command("remove")
def remove_member(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The person's name.")],
    base_url: Url = None,
    json: options.Json = False,
) -> None:
    """Remove a person; their keys end with it."""
    from agentlattice_cli.output import Output
    from agentlattice_cli.service_calls import calling, part
    from agentlattice_cli.settings import resolve

    service = calling(resolve({"base_url": base_url}), service=False)
    service.call("DELETE", f"/api/v1/operators/{part(name)}")
    out = Output(json=json)
    if json:
        out.document({"removed": name})
    else:
        out.line(f"removed {name}")
