"""`al audit`: what an administrator may do to a log that is not in order, and to the key that signs it.

- Each is done by a person, named with `--as`, in the role `admin`, with a reason; the log says so ever after.
- None makes a log verify that does not.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from agentlattice_cli import options

if TYPE_CHECKING:
    from agentlattice_cli.settings import Settings
    from agentlattice_core.principals import Operator

__all__ = ["extend"]

_MOST_DIFFERENCES = 20

Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; the log keeps it.")]


def extend(audit: typer.Typer) -> None:
    """Add these commands to the group `al audit`."""
    audit.command("rebuild-state")(_rebuild_state)
    audit.command("rotate-key")(_rotate_key)
    audit.command("accept-restore")(_accept_restore)


@options.with_settings(options.DECIDING)
def _rebuild_state(
    settings: Settings,
    reason: Why,
    json: options.Json = False,
) -> None:
    """Mend what `verify --state` finds: make limits, approvals and policies anew from the log, if the log verifies."""
    from agentlattice_cli.opening import proving
    from agentlattice_cli.output import Output
    from agentlattice_core import rebuilding

    person = _person(settings)
    with proving(settings) as engine:
        mended = rebuilding.rebuild_state(engine, person, reason)
    out = Output(json=json)
    if json:
        out.document({"mended": [str(one) for one in mended]})
        return
    for one in islice(mended, _MOST_DIFFERENCES):
        out.line(f"mended: {one}")
    if len(mended) > _MOST_DIFFERENCES:
        out.line(f"mended: and {len(mended) - _MOST_DIFFERENCES} more")
    if not mended:
        out.line("state: limits, approvals and policies are what the log makes of them; nothing was changed")


@options.with_settings(options.DECIDING)
def _rotate_key(
    settings: Settings,
    reason: Why,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="KEY",
            help="Where the new key is: `file`, or the newest version of vault://HOST:PORT/MOUNT/NAME; by default "
            "where the old one is.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Let a new key sign the log. The old one names it in the log first; if it is in a file, it is then destroyed."""
    from agentlattice_cli.opening import proving
    from agentlattice_cli.output import Output, note
    from agentlattice_core.rotation import rotate_key

    person = _person(settings)
    with proving(settings) as engine:
        old = engine.notary.verifier_key().format()
        new = rotate_key(engine, person, reason, to).format()
    out = Output(json=json)
    if json:
        out.document({"key": new, "previous": old})
        return
    out.line(new)
    note("whoever holds an earlier key can go on with it; if it may have been stolen, give them this one")


@options.with_settings(options.DECIDING)
def _accept_restore(
    settings: Settings,
    reason: Why,
    confirm: Annotated[
        str | None,
        typer.Option(
            "--confirm",
            metavar="KEPT/SIGNED",
            help="How many entries are there, and how many were signed, as this command says them.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Go on with an older copy of the log that was restored on purpose. What was lost stays on record."""
    from agentlattice_cli.opening import proving
    from agentlattice_cli.output import Output, note
    from agentlattice_core.errors import InvalidRequestError
    from agentlattice_core.restoring import accept_restore, found_restore

    person = _person(settings)
    with proving(settings) as engine:
        if confirm is None:
            found = found_restore(engine)
            unsigned = found.kept - found.vouched
            unproved = f"; the last {unsigned} of those there were never signed" if unsigned else ""
            raise InvalidRequestError(
                f"{found.kept} entries are there and {found.signed} were signed{unproved}; limits, approvals and "
                "event ids of what is lost are forgotten. to accept that for good, pass "
                f"`--confirm {found.confirmation}`"
            )
        cut = accept_restore(engine, person, reason, confirm)
    out = Output(json=json)
    if json:
        out.document({"entry": cut.entry, "kept": cut.kept, "signed": cut.signed, "vouched": cut.vouched})
        return
    out.line(f"CUT: {cut}")
    note("open the database anew wherever it is open; `al audit verify` says this from now on")


def _person(settings: Settings) -> Operator:
    from agentlattice_cli.opening import operator_of
    from agentlattice_core.agents import operator_named

    return operator_named(operator_of(settings), settings["role"].value, ())
