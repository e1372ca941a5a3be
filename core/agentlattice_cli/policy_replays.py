"""`al policy simulate` and `suggest`: what was recorded, held against policies.

- Both read the log once and record nothing. At a service the log is read there, by the same code.
- What would newly be denied comes first, then what a person would newly be asked about, then what would be let through.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentlattice_cli import options

if TYPE_CHECKING:
    from agentlattice_cli.settings import Settings
    from agentlattice_core.policy.decision import Outcome

__all__ = ["simulate", "suggest"]

Since = Annotated[
    str,
    typer.Option("--since", metavar="WHEN", help="How far back: 90m, 12h, 7d, or a date such as 2026-03-01."),
]


def simulate(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Policy files, read as one document.")
    ],
    since: Since = "7d",
    fail_on_new_denials: Annotated[
        bool,
        typer.Option("--fail-on-new-denials", help="Exit with 1 if an action that was not denied would be."),
    ] = False,
    db: options.Db = None,
    json: options.Json = False,
) -> None:
    """Replay recorded actions against policy files, and show what would be decided otherwise."""
    from agentlattice_cli.opening import looking, means_service
    from agentlattice_cli.output import Output, note
    from agentlattice_cli.periods import moment
    from agentlattice_cli.settings import resolve
    from agentlattice_core.policy.document import PolicyDocument
    from agentlattice_core.policy.evaluate import PolicySet
    from agentlattice_core.policy.simulate import LEAD
    from agentlattice_core.policy.simulate import simulate as replayed
    from agentlattice_core.recorded import RecordedActions

    document = PolicyDocument.load_all(files)
    settings = resolve({"db": db})
    if means_service(settings):
        from agentlattice_core.remote.requests import laid_out

        report = _asked(settings, "simulate", since, yaml=laid_out(document))
    else:
        with looking(settings) as look:
            begin = moment(since, look.now, "--since")
            records = RecordedActions(look.reader, begin, LEAD)
            candidate, registries = PolicySet.from_document(document), look.policies.registries(look.reader)
            report = replayed(records, candidate, registries, since=begin).as_json()
            report["left_out"] = {"erased": records.erased, "refused": records.refused}
    out = Output(json=json)
    if json:
        out.document(report)
    else:
        out.table(
            ["action", "was", "would be", "actions", "policy", "for example"],
            [
                [
                    flip["action_type"],
                    _words(flip["was"]),
                    _words(flip["now"]),
                    flip["count"],
                    flip["policy"],
                    flip["examples"][0]["message"],
                ]
                for flip in report["flips"]
            ],
            "every action would be decided as it was",
        )
        note(
            f"{report['actions']} actions: {report['unchanged']} as before, {report['new_denials']} newly denied, "
            f"{report['stricter'] - report['new_denials']} newly asked about"
        )
        erased, refused = report["left_out"]["erased"], report["left_out"]["refused"]
        if erased or refused:
            note(
                f"{erased + refused} more were left out: {erased} erased, {refused} that were never an action"
            )
    if fail_on_new_denials and report["new_denials"]:
        raise typer.Exit(1)


def suggest(
    since: Since = "1d",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write it there instead of printing it."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")] = False,
    db: options.Db = None,
) -> None:
    """Draft a least-privilege policy from what was recorded."""
    from agentlattice_cli.opening import looking, means_service
    from agentlattice_cli.output import Output, note
    from agentlattice_cli.periods import moment
    from agentlattice_cli.settings import resolve
    from agentlattice_core.errors import InvalidRequestError
    from agentlattice_core.policy.simulate import LEAD
    from agentlattice_core.policy.suggest import suggest as drafted
    from agentlattice_core.recorded import RecordedActions

    if output is not None and output.exists() and not force:
        raise InvalidRequestError(
            f"`{output}` is there already and was left as it is; pass `--force` to replace it"
        )
    settings = resolve({"db": db})
    if means_service(settings):
        text = _asked(settings, "suggest", since)["yaml"]
    else:
        with looking(settings) as look:
            begin = moment(since, look.now, "--since")
            text = drafted(RecordedActions(look.reader, begin, LEAD), begin)
    if output is None:
        Output().text(text)
        return
    output.write_text(text, encoding="utf-8")
    note(
        f"wrote {output}; read it, then: al policy lint {output} && al policy simulate {output} --since {since}"
    )


def _asked(settings: Settings, what: str, since: str, **said: str) -> dict[str, Any]:
    """What a service makes of its own log."""
    from agentlattice_cli.periods import moment
    from agentlattice_cli.service_calls import calling
    from agentlattice_core.clock import SystemClock, format_time

    begin = format_time(moment(since, SystemClock().now(), "--since"))
    service = calling(settings, service=False)
    found: dict[str, Any] = service.call(
        "POST", f"/api/v1/policies/{what}", {"since": begin, **said}, slow=True
    )
    return found


def _words(outcome: Outcome) -> str:
    return {
        "allow": "allowed",
        "require_approval": "asked about",
        "deny": "denied",
        "not_found": "denied: no policy",
    }[outcome]
