"""`al webhooks`: who else is told of what happens, and what they could not be told.

- Everything takes a person: in a database the one named with `--as` or AL_OPERATOR, at a service the holder of
  AL_API_KEY. Changing anything takes an administrator.
- Secrets are read from standard input or made, never taken from the command line, where others can see them. One that
  is made is shown once.
- Delivering is the service's part; `listen` forwards what happens to a program on this machine, for trying out.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentlattice_cli import options
from agentlattice_cli.program import command_group
from agentlattice_cli.webhook_listen import listen

if TYPE_CHECKING:
    from agentlattice_cli.settings import Settings

__all__ = ["app"]

app = command_group("Tell other systems what happens: Standard Webhooks, Slack, PagerDuty, mail.")
app.command()(listen)

_MANAGING = {
    "operator": options.As,
    "role": options.Roles,
    "db": options.Db,
    "webhook_key": options.WebhookKey,
}
_SENDING = {**_MANAGING, "webhook_reach": options.WebhookReach}
_Name = Annotated[str, typer.Argument(metavar="NAME", help="The webhook's name or id.")]


@app.command("list")
@options.with_settings(_MANAGING)
def list_webhooks(
    settings: Settings,
    json: options.Json = False,
) -> None:
    """List webhooks: where to, what they hear of, whether they are active, and how many messages failed and wait."""
    from agentlattice_cli.output import Output
    from agentlattice_cli.webhook_subscriptions import webhook_subscriptions

    with webhook_subscriptions(settings) as there:
        found = there.all()
    out = Output(json=json)
    if json:
        out.document({"webhooks": found})
        return
    out.table(
        ["id", "name", "to", "as", "events", "state", "waiting"],
        [
            [
                hook["id"],
                hook["name"],
                hook["target"],
                hook["template"],
                "all" if hook["events"] is None else list(hook["events"]) or "escalations that name it",
                "active" if hook["active"] else hook["why"],
                hook["waiting"],
            ]
            for hook in found
        ],
        "there are no webhooks",
    )


@app.command()
@options.with_settings(_SENDING)
def add(
    settings: Settings,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What policies call it: webhook:<name>.")],
    url: Annotated[
        str | None, typer.Argument(metavar="URL", help="Where to; PagerDuty has one of its own.")
    ] = None,
    template: Annotated[
        str, typer.Option("--template", metavar="FORM", help="generic, slack, pagerduty or email.")
    ] = "generic",
    event: Annotated[
        list[str] | None,
        typer.Option(
            "--event", metavar="TYPE", help="A notification to hear of; all without it. May be repeated."
        ),
    ] = None,
    only_escalations: Annotated[
        bool, typer.Option("--only-escalations", help="Hear only of escalations that name it.")
    ] = False,
    only_agent: Annotated[
        str | None, typer.Option("--only-agent", metavar="NAME", help="Hear of one agent only.")
    ] = None,
    person: Annotated[
        list[str] | None,
        typer.Option(
            "--person",
            metavar="CHAT=OPERATOR",
            help="Who decides as whom when they press a button, such as U024BE7LH=ana. May be repeated.",
        ),
    ] = None,
    secret_stdin: Annotated[
        bool,
        typer.Option(
            "--secret-stdin",
            help="Read the secret from standard input: the receiver's own, Slack's signing secret, or PagerDuty's "
            "routing key.",
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """Subscribe somebody to what happens from now on. Prints the secret that it signs with, once."""
    from agentlattice_cli.output import Output
    from agentlattice_cli.webhook_subscriptions import webhook_subscriptions
    from agentlattice_core.errors import InvalidRequestError

    if only_escalations and event:
        raise InvalidRequestError("`--event` and `--only-escalations` exclude each other")
    given = sys.stdin.readline().strip() if secret_stdin else None
    names = {"generic": "secret", "slack": "signing_secret", "pagerduty": "routing_key"}
    secrets = {names.get(template, "secret"): given} if given is not None else {}
    wanted = {
        "name": name,
        "url": url,
        "template": template,
        "events": [] if only_escalations else event or None,
        "agent": only_agent,
        "people": dict(_pair(one) for one in person or ()),
        **secrets,
    }
    with webhook_subscriptions(settings) as there:
        made = there.add(wanted)
    _print_made(Output(json=json), made, given)


@app.command()
@options.with_settings(_MANAGING)
def rotate(
    settings: Settings,
    name: _Name,
    secret_stdin: Annotated[
        bool, typer.Option("--secret-stdin", help="Read the new secret from standard input.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Give a webhook a new secret, printed once; the one before signs beside it for a day."""
    from agentlattice_cli.output import Output
    from agentlattice_cli.webhook_subscriptions import webhook_subscriptions

    given = sys.stdin.readline().strip() if secret_stdin else None
    with webhook_subscriptions(settings) as there:
        made = there.rotate(name, given)
    _print_made(Output(json=json), made, given)


@app.command()
@options.with_settings(_MANAGING)
def remove(
    settings: Settings,
    name: _Name,
) -> None:
    """End a webhook and erase its secrets. What it was not told yet, it is never told."""
    from agentlattice_cli.output import Output
    from agentlattice_cli.webhook_subscriptions import webhook_subscriptions

    with webhook_subscriptions(settings) as there:
        webhook_id = there.remove(name)
    Output().line(f"{webhook_id} removed")


@app.command()
@options.with_settings(_MANAGING)
def pause(
    settings: Settings,
    name: _Name,
) -> None:
    """Tell a webhook nothing until it is resumed."""
    _set_active(False, name, settings)


@app.command()
@options.with_settings(_MANAGING)
def resume(
    settings: Settings,
    name: _Name,
) -> None:
    """Go on where a paused or disabled webhook stopped."""
    _set_active(True, name, settings)


@app.command("test")
@options.with_settings(_SENDING)
def send_test(
    settings: Settings,
    name: _Name,
    json: options.Json = False,
) -> None:
    """Send a test message now. Exits with 1 if it was not delivered."""
    from agentlattice_cli.output import Output
    from agentlattice_cli.webhook_subscriptions import webhook_subscriptions

    with webhook_subscriptions(settings) as there:
        made = there.test(name)
    out = Output(json=json)
    if json:
        out.document(made)
    else:
        why = f": {made['error']}" if made["error"] else ""
        out.line(f"{made['outcome']} in {made['milliseconds']} ms{why}")
    if made["outcome"] != "delivered":
        raise typer.Exit(1)


@app.command("dead-letters")
@options.with_settings(_MANAGING)
def dead_letters(
    settings: Settings,
    name: _Name,
    json: options.Json = False,
) -> None:
    """List what could not be delivered, the oldest first, as far as the first hundred."""
    from agentlattice_cli.output import Output
    from agentlattice_cli.webhook_subscriptions import webhook_subscriptions

    with webhook_subscriptions(settings) as there:
        webhook_id, found = there.dead_letters(name)
    out = Output(json=json)
    if json:
        out.document({"webhook": webhook_id, "dead_letters": found})
        return
    out.table(
        ["id", "entry", "time", "attempts", "error"],
        [[one["id"], one["entry"], one["at"], one["number"], one["error"]] for one in found],
        "everything was delivered, or waits to be",
    )


@app.command()
@options.with_settings(_MANAGING)
def replay(
    settings: Settings,
    name: _Name,
    entry: Annotated[
        list[int] | None,
        typer.Option(
            "--entry", metavar="INDEX", help="An entry to tell of again; every dead letter without it."
        ),
    ] = None,
) -> None:
    """Have messages sent again, under the ids they had."""
    from agentlattice_cli.output import Output
    from agentlattice_cli.webhook_subscriptions import webhook_subscriptions

    with webhook_subscriptions(settings) as there:
        count = there.replay(name, entry or None)
    Output().line(f"{count} to be sent again" if count else "there is nothing to send again")


def _set_active(active: bool, name: str, settings: Settings) -> None:
    from agentlattice_cli.output import Output
    from agentlattice_cli.webhook_subscriptions import webhook_subscriptions

    with webhook_subscriptions(settings) as there:
        hook = there.set_active(name, active)
    Output().line(f"{hook['id']} {'active' if active else 'paused'}")


def _pair(text: str) -> tuple[str, str]:
    from agentlattice_core.errors import InvalidRequestError

    chat, equals, person = text.partition("=")
    if not (chat and equals and person):
        raise InvalidRequestError(f"person `{text:.80}` must be like U024BE7LH=ana")
    return chat, person


def _print_made(out: Any, made: dict[str, Any], given: str | None) -> None:
    """Say what was made. A secret that was `given` is its owner's, and not shown."""
    from agentlattice_cli.output import note

    secret = made.pop("secret")
    if given is not None:
        secret = None
    if out.json:
        out.document({**made, **({"secret": secret} if secret is not None else {})})
        return
    out.fields([("id", made["id"]), ("name", made["name"]), ("to", made["target"]), ("secret", secret)])
    if secret is not None:
        note("note: the secret is shown this once; the receiver needs it to verify what it gets")
