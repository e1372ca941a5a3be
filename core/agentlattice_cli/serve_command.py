"""`al serve`: the service, on this machine.

- The first run makes the first keys and says what to do with them; they are shown once. With `--bootstrap` they go to a
  file instead, for a program to read.
- What it prints goes to standard output, its logs to standard error.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentlattice_cli.options import Bootstrap, Database, Policies, SigningKey, WebhookKey, WebhookReach

if TYPE_CHECKING:
    from agentlattice_core.engine import Engine

__all__ = ["serve"]


def serve(
    host: Annotated[str, typer.Option("--host", metavar="HOST", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="PORT", help="0: any that is free.")] = 8700,
    database: Database = "sqlite:///governance.db",
    bootstrap: Bootstrap = None,
    policies: Policies = None,
    signing_key: SigningKey = None,
    oidc: Annotated[
        Path | None,
        typer.Option(
            "--oidc",
            metavar="FILE",
            help="An identity provider for people: a TOML file with issuer, client_id and a table of roles by group; "
            "its secret comes from AL_OIDC_CLIENT_SECRET.",
        ),
    ] = None,
    webhook_key: WebhookKey = None,
    webhook_reach: WebhookReach = None,
    calls_per_minute: Annotated[
        int,
        typer.Option(
            "--calls-per-minute", metavar="N", min=0, help="Most calls of one key; 0: as many as it likes."
        ),
    ] = 6000,
) -> None:
    """Serve agents and operators over HTTP."""
    from agentlattice_cli.opening import installed_server
    from agentlattice_cli.settings import resolve
    from agentlattice_core.client import AgentLattice
    from agentlattice_core.principals import Operator

    with installed_server():
        from agentlattice_server import (
            Organisations,
            OutwardSettings,
            Service,
            ServiceSettings,
            create_app,
            listen,
            telemetry,
        )
        from agentlattice_server.bootstrap import BOOTSTRAP, first_keys, first_link, write_bootstrap
        from agentlattice_server.oidc import provider_in
        from agentlattice_server.requestlog import log_as_json
        from agentlattice_server.webhooks.addresses import Reach
        from agentlattice_server.webhooks.sealing import SealingKey

    settings = resolve(
        {
            "db": database,
            "signing_key": signing_key,
            "webhook_key": webhook_key,
            "webhook_reach": webhook_reach,
        }
    )
    provider = provider_in(oidc) if oidc is not None else None
    listening = listen(host, port)  # before anything is made: where the port is taken, nothing is left behind
    outward = OutwardSettings(
        SealingKey(settings.webhook_key),
        Reach.of(settings["webhook_reach"].value),
        os.environ.get("AL_METRICS_TOKEN") or None,
    )
    log_as_json()
    telemetry.set_up()
    organisations = Organisations(database, signing_key=settings["signing_key"].value)
    engine = organisations.first
    service = Service(
        create_app(organisations, ServiceSettings(calls_per_minute, provider=provider, outward=outward)),
        listening,
    )
    if bootstrap is not None:
        write_bootstrap(bootstrap, engine, service.url)
        found = None
    else:
        found = first_keys(engine)
    link = None if bootstrap is not None else first_link(engine)
    if policies:
        AgentLattice.over(engine, Operator(BOOTSTRAP, "admin")).apply_policies_sync(policies, prune=True)

    def started() -> None:
        # What a started service holds, it holds to its end. Looking through it for garbage again and again would stop
        # everything for a tenth of a second each time.
        gc.collect()
        gc.freeze()
        typer.echo(f"serving {_count(engine)} at {service.url} from {_shown(database)}")
        if found is not None:
            typer.echo(
                _WELCOME.format(url=service.url, service=found.service_key, operator=found.operator_key)
            )
        elif bootstrap is not None:
            typer.echo(f"address and keys are in {bootstrap}")
        if link is not None:
            typer.echo(f"log in once, within 15 minutes: {service.url}/login/link/{link}")

    service.run(started)


_WELCOME = """
This log is new. Its first keys, which are not shown again:

  service key (registers agents)    {service}
  operator key (decides, manages)   {operator}

Next:

  export AL_BASE_URL={url}
  AL_SERVICE_KEY={service} al register my-agent
  AL_API_KEY={operator} al policy apply policies.yaml
"""


def _count(engine: Engine) -> str:
    return f"organisation {engine.store.log_id}"


def _shown(database: str) -> str:
    """A database without the password that may be in its address."""
    scheme, mark, rest = database.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}" if mark else database
