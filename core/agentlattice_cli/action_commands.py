"""`al whoami`, `can-i`, `execute`, `gate` and `report`: asking for an action from a shell, as an agent.

- Exit codes, so that `al gate deploy.production && ./deploy.sh` is safe: 0 it may run, 1 denied, 2 nobody has decided
  (`gate`: in time; `execute`: yet; `can-i`: a person would be asked), 3 no answer (not configured, not reachable).
- Whoever gets 0 from `gate` or `execute` holds the right to run the action once, and says with `report` how it went.
- `whoami` and `can-i` record nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from agentlattice_cli import options
from agentlattice_cli.ending import say_error

if TYPE_CHECKING:
    from agentlattice_cli.output import Output
    from agentlattice_cli.settings import Settings
    from agentlattice_core.actions import Action
    from agentlattice_core.client import AgentLattice
    from agentlattice_core.results import ActionResult, CanIResult

__all__ = ["can_i", "execute", "gate", "report", "whoami"]

_DENIED, _UNDECIDED, _NO_ANSWER = 1, 2, 3
_EIGHT_HOURS = 8 * 60 * 60

ActionType = Annotated[
    str, typer.Argument(metavar="ACTION_TYPE", help="What the agent wants to do, such as db.migrate.")
]


@contextmanager
def _answering() -> Iterator[None]:
    """Whatever keeps a command from an answer ends it with 3, so that it never reads as denied or allowed."""
    from agentlattice_core.errors import AgentLatticeError

    try:
        yield
    except (AgentLatticeError, OSError) as error:
        say_error(error)
        raise typer.Exit(_NO_ANSWER) from None


def whoami(agent: options.Agent = None, db: options.Db = None, json: options.Json = False) -> None:
    """Show an agent's identity, and what governs it."""
    with _answering():
        from agentlattice_cli.opening import check_known, looking, note_unapplied, served
        from agentlattice_cli.output import Output
        from agentlattice_cli.settings import resolve
        from agentlattice_core import introspection
        from agentlattice_core.clock import SystemClock, time_of_log

        settings = resolve({"agent": agent, "db": db})
        service = served(settings)
        if service is not None:
            with service:
                found = service.whoami_sync()
        else:
            name = settings.needed("agent", "pass `--agent NAME` or set AL_AGENT")
            with looking(settings) as look:
                check_known(look, name)
                now = time_of_log(SystemClock(), look.reader.head.at)
                found = introspection.whoami(look.policies, look.reader, name, look.log_id, now)
                note_unapplied(look, settings)
        out = Output(json=json)
        if json:
            out.document(found)
            return
        out.fields(
            [("agent", found.name), ("id", found.config_id), ("log", found.org_id), ("state", found.cb_state)]
        )
        out.line()
        out.table(
            ["policy", "governs", "asks a person", "conditions", "version"],
            [
                [
                    one.name,
                    one.action_type,
                    _yes(one.approval_required),
                    _yes(one.has_conditions),
                    one.version,
                ]
                for one in found.policies
            ],
            "no policy governs this agent, so nothing it asks for will run",
        )


def can_i(
    action_type: ActionType,
    metadata: options.Metadata = None,
    accessed: options.Accessed = None,
    amount: options.Amount = None,
    currency: options.Currency = None,
    beneficiary: options.Beneficiary = None,
    category: options.Category = None,
    on_behalf_of: options.OnBehalfOf = None,
    data: options.Data = None,
    agent: options.Agent = None,
    db: options.Db = None,
    json: options.Json = False,
) -> None:
    """Say what policy would answer. Nothing is recorded and nobody is asked."""
    with _answering():
        from agentlattice_cli.action_data import action_fields
        from agentlattice_cli.opening import served
        from agentlattice_cli.output import Output
        from agentlattice_cli.settings import resolve
        from agentlattice_core.actions import Action
        from agentlattice_core.results import ActionOptions

        settings = resolve({"agent": agent, "db": db})
        service = served(settings)
        fields = action_fields(
            data,
            metadata,
            accessed,
            amount=amount,
            currency=currency,
            beneficiary=beneficiary,
            category=category,
            on_behalf_of=on_behalf_of,
        )
        action = Action.build(action_type, ActionOptions(**fields))
        if service is not None:
            with service:
                answer = service.can_i_sync(action_type, **fields)
        else:
            name = settings.needed("agent", "pass `--agent NAME` or set AL_AGENT")
            answer = _dry_run(settings, name, action)
        _show_dry_run(Output(json=json), answer)
    if not answer.allowed:
        raise typer.Exit(_UNDECIDED if answer.needs_approval else _DENIED)


def _dry_run(settings: Settings, name: str, action: Action) -> CanIResult:
    from agentlattice_cli.opening import check_known, looking, note_unapplied
    from agentlattice_core import introspection

    with looking(settings) as look:
        check_known(look, name)
        answer = introspection.can_i(look.policies, look.reader, name, action, look.at)
        note_unapplied(look, settings)
    return answer


def execute(
    action_type: ActionType,
    metadata: options.Metadata = None,
    accessed: options.Accessed = None,
    amount: options.Amount = None,
    currency: options.Currency = None,
    beneficiary: options.Beneficiary = None,
    category: options.Category = None,
    on_behalf_of: options.OnBehalfOf = None,
    event_id: options.EventId = None,
    data: options.Data = None,
    agent: options.Agent = None,
    policies: options.Policies = None,
    mode: options.Mode = None,
    db: options.Db = None,
    signing_key: options.SigningKey = None,
    json: options.Json = False,
) -> None:
    """Submit an action and say at once what was decided."""
    with _answering():
        from agentlattice_cli.action_data import action_fields
        from agentlattice_cli.opening import acting
        from agentlattice_core.actions import Action
        from agentlattice_core.results import ActionOptions

        fields = action_fields(
            data,
            metadata,
            accessed,
            amount=amount,
            currency=currency,
            beneficiary=beneficiary,
            category=category,
            on_behalf_of=on_behalf_of,
            event_id=event_id,
        )
        Action.build(action_type, ActionOptions(**fields))  # what cannot be an action opens nothing
        with acting(_acting_settings(agent, policies, mode, db, signing_key)) as client:
            result = client.execute_sync(action_type, **fields)
        _show_result(result, json=json)
    raise typer.Exit(_code(result))


def gate(
    action_type: ActionType,
    metadata: options.Metadata = None,
    accessed: options.Accessed = None,
    amount: options.Amount = None,
    currency: options.Currency = None,
    beneficiary: options.Beneficiary = None,
    category: options.Category = None,
    on_behalf_of: options.OnBehalfOf = None,
    event_id: options.EventId = None,
    data: options.Data = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout", metavar="PERIOD", help="How long to wait for a person, such as 30m (default: 8h)."
        ),
    ] = None,
    agent: options.Agent = None,
    policies: options.Policies = None,
    mode: options.Mode = None,
    db: options.Db = None,
    signing_key: options.SigningKey = None,
    json: options.Json = False,
) -> None:
    """Submit an action and wait until it may run, or may not.

    Exit codes: 0 approved, 1 denied, 2 nobody decided in time, 3 no answer.
    """
    with _answering():
        from agentlattice_cli.action_data import action_fields
        from agentlattice_cli.opening import acting
        from agentlattice_cli.periods import period
        from agentlattice_core.actions import Action
        from agentlattice_core.results import ActionOptions

        patience = _EIGHT_HOURS if timeout is None else period(timeout, "--timeout").total_seconds()
        fields = action_fields(
            data,
            metadata,
            accessed,
            amount=amount,
            currency=currency,
            beneficiary=beneficiary,
            category=category,
            on_behalf_of=on_behalf_of,
            event_id=event_id,
        )
        Action.build(action_type, ActionOptions(**fields))  # what cannot be an action opens nothing
        with acting(_acting_settings(agent, policies, mode, db, signing_key)) as client:
            result = client.execute_sync(action_type, **fields)
            if result.status == "requested" and not result.observed:
                result = _wait(client, result, patience)
        _show_result(result, json=json)
    raise typer.Exit(_code(result))


def report(
    action: Annotated[str, typer.Argument(metavar="ID", help="The action, as `execute` or `gate` named it.")],
    status: Annotated[str, typer.Argument(metavar="STATUS", help="success, failure or partial.")],
    message: Annotated[
        str | None, typer.Option("--message", metavar="TEXT", help="What there is to say about it.")
    ] = None,
    agent: options.Agent = None,
    db: options.Db = None,
    signing_key: options.SigningKey = None,
    json: options.Json = False,
) -> None:
    """Record how an action went."""
    from agentlattice_cli.opening import acting
    from agentlattice_cli.output import Output
    from agentlattice_core.results import ReportOutcome

    with acting(_acting_settings(agent, None, None, db, signing_key), new=False) as client:
        answer = client.report_sync(action, ReportOutcome(status, message))
    out = Output(json=json)
    if json:
        out.document(answer)
    else:
        out.line(f"{answer.audit_event_id} reported: {answer.status}")


def _acting_settings(
    agent: str | None, policies: list[str] | None, mode: str | None, db: str | None, signing_key: str | None
) -> Settings:
    from agentlattice_cli.settings import resolve

    return resolve({"agent": agent, "policies": policies, "mode": mode, "db": db, "signing_key": signing_key})


def _wait(client: AgentLattice, requested: ActionResult, patience: float) -> ActionResult:
    from agentlattice_cli.interrupts import heeding_interrupts
    from agentlattice_cli.output import note

    assert requested.approval_id is not None
    with heeding_interrupts():
        note(f"waiting for a person until {requested.timeout_at}: al approvals show {requested.approval_id}")
        return client.await_approval_sync(requested.approval_id, patience)


def _code(result: ActionResult) -> int:
    if result.may_run and not result.replayed:
        return 0
    return _UNDECIDED if result.status in ("requested", "timed_out") else _DENIED


def _show_result(result: ActionResult, *, json: bool) -> None:
    from agentlattice_cli.output import Output, note

    out = Output(json=json)
    if json:
        out.document(result)
        return
    out.fields(
        [
            ("status", result.status),
            ("action", result.audit_event_id),
            ("approval", result.approval_id),
            ("decide by", result.timeout_at if result.status == "requested" else None),
            ("policy", result.policy_name),
            ("reason", result.denial_reason),
            ("message", result.message),
        ]
    )
    out.why(result.conditions_evaluated, result.rules_fired)
    if result.observed:
        note("note: observe mode lets it run; enforced, it would not")
    elif result.replayed:
        note(f"note: this event id was used before (claim: {result.claim or 'none'}); it does not run again")


def _show_dry_run(out: Output, answer: CanIResult) -> None:
    if out.json:
        out.document(answer)
        return
    verdict = "allowed" if answer.allowed else "needs approval" if answer.needs_approval else "not allowed"
    out.fields(
        [
            ("answer", verdict),
            ("action", answer.action_type),
            ("policy", answer.policy_name),
            ("reason", answer.reason),
            ("missing", answer.missing),
        ]
    )
    out.why(answer.conditions_evaluated, answer.rules_fired)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
