"""`al organisations`: the organisations that one database of the service holds, and making another.

- It works on the database, not through a service: whoever may write that may make an organisation. A service that runs
  serves it from then on.
- A new organisation has an administrator called `bootstrap` and a service key. Both keys are shown once, or go to a
  file for a program, which is left as it is while its keys are in force.
- The first organisation is made by `al serve`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from agentlattice_cli import options
from agentlattice_cli.program import command_group

__all__ = ["app"]

app = command_group("See the organisations of the service's database, and make another.")

_ADDRESS = "http://127.0.0.1:8700"


@app.command("list")
def list_organisations(
    database: options.Database = "sqlite:///governance.db", json: options.Json = False
) -> None:
    """List the organisations of a database."""
    from agentlattice_cli.output import Output
    from agentlattice_core.stores.databases import organisations

    found = sorted(organisations(database))
    out = Output(json=json)
    if json:
        out.document({"organisations": found})
    else:
        out.table(["organisation"], [[one] for one in found], "there is none; `al serve` makes the first")


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its id, such as acme.")],
    database: options.Database = "sqlite:///governance.db",
    bootstrap: options.Bootstrap = None,
    signing_key: options.SigningKey = None,
    base_url: options.BaseUrl = None,
    json: options.Json = False,
) -> None:
    """Make an organisation, and print its first keys, which are shown this once."""
    from agentlattice_cli.opening import installed_server
    from agentlattice_cli.output import Output, note
    from agentlattice_cli.settings import resolve
    from agentlattice_core.audit.key_service import is_key_service
    from agentlattice_core.engine import open_engine, release
    from agentlattice_core.errors import IllegalTransitionError, InvalidRequestError, StoreError
    from agentlattice_core.stores.databases import organisations

    with installed_server():
        from agentlattice_server.bootstrap import first_keys, write_bootstrap

    settings = resolve({"base_url": base_url, "signing_key": signing_key})
    url = settings["base_url"].value or _ADDRESS
    key = settings["signing_key"].value or ""
    if signing_key is not None and not is_key_service(key):
        raise InvalidRequestError(
            f"`{key:.80}` is a file, and the service looks for the key of a further organisation beside its log; "
            "name a key service, or nothing"
        )
    known = organisations(database)
    if not known:
        raise StoreError(
            "there is no log in this database; `al serve` makes one, with the first organisation"
        )
    if name in known and bootstrap is None:
        raise IllegalTransitionError(
            f"there is an organisation `{name}` already; its administrators make further keys with `al keys create`"
        )
    # A file in the settings is the first organisation's.
    engine = open_engine(database, signing_key=key if is_key_service(key) else None, organisation=name)
    try:
        if bootstrap is not None:
            write_bootstrap(bootstrap, engine, url)
            note(f"address and keys of `{name}` are in {bootstrap}")
            return
        found = first_keys(engine)
    finally:
        release(engine)
    if found is None:
        raise IllegalTransitionError(
            f"somebody else made organisation `{name}` at this moment, and has its keys"
        )
    out = Output(json=json)
    if json:
        keys = {"service_key": found.service_key, "operator_key": found.operator_key}
        out.document({"url": url, "org_id": name, **keys})
        return
    note(f"organisation `{name}` is made; its first keys, which are not shown again:")
    out.fields([("service key", found.service_key), ("operator key", found.operator_key)])
