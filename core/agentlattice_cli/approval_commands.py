"""`al approvals`: what waits for a person, and deciding it.

- Looking needs no identity. Deciding needs an operator, named with `--as` or AL_OPERATOR, who is never the agent.
- Nobody approves what was not shown: an approval carries the digest of what was shown, by `--digest` or by showing it
  on the terminal and asking. Without a terminal and without a digest nothing is approved.
- When it is too late, the error says who decided.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentlattice_cli import approval_watch, options
from agentlattice_cli.program import command_group

if TYPE_CHECKING:
    from agentlattice_cli.output import Output
    from agentlattice_cli.settings import Settings
    from agentlattice_core.results import ApprovalRequest

__all__ = ["app"]

app = command_group("See what waits for a person, and decide it.")

_SHORTEST_DIGEST = 12

ApprovalId = Annotated[
    str, typer.Argument(metavar="ID", help="The approval, as `al approvals list` names it.")
]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why; the agent is told.")]


@app.command("list")
def list_pending(db: options.Db = None, json: options.Json = False) -> None:
    """List what waits for a person, the nearest deadline first."""
    from agentlattice_cli.opening import looking, served
    from agentlattice_cli.output import Output
    from agentlattice_cli.settings import resolve
    from agentlattice_core import approvals

    settings = resolve({"db": db})
    service = served(settings)
    if service is not None:
        with service:
            found = service.list_pending_approvals_sync()
    else:
        with looking(settings) as look:
            found = approvals.pending(look.reader, look.at)
    out = Output(json=json)
    if json:
        out.document({"approvals": found})
        return
    out.table(
        ["id", "agent", "action", "policy", "decide by", "approvers", "digest"],
        [
            [
                one.id,
                one.agent,
                one.action_type,
                one.policy_name,
                one.timeout_at,
                _approvers(one),
                one.digest[:_SHORTEST_DIGEST],
            ]
            for one in found
        ],
        "nothing waits for a person",
    )


@app.command()
def show(approval: ApprovalId, db: options.Db = None, json: options.Json = False) -> None:
    """Show a request in full, as an approver should read it."""
    from agentlattice_cli.output import Output
    from agentlattice_cli.settings import resolve

    request = _read(resolve({"db": db}), approval)
    out = Output(json=json)
    if json:
        out.document(request)
    else:
        _show(out, request)


app.command("watch")(approval_watch.watch)


@app.command()
@options.with_settings(options.DECIDING_IN_GROUPS)
def approve(
    settings: Settings,
    approval: ApprovalId,
    digest: options.Digest = None,
    reason: Reason = None,
    forever: Annotated[
        str | None,
        typer.Option(
            "--forever",
            metavar="policy|agent",
            help="Lift the policy that asks, for everybody or for this agent, once all who are needed say so.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Approve a request that was shown."""
    _decide(settings, approval, digest, reason, approving=True, json=json, forever=forever)


@app.command()
@options.with_settings(options.DECIDING_IN_GROUPS)
def deny(
    settings: Settings,
    approval: ApprovalId,
    digest: options.Digest = None,
    reason: Reason = None,
    json: options.Json = False,
) -> None:
    """Deny a request, and say why: the agent is told."""
    _decide(settings, approval, digest, reason, approving=False, json=json)


def _read(settings: Settings, approval_id: str) -> ApprovalRequest:
    from agentlattice_cli.opening import looking, means_service
    from agentlattice_cli.service_calls import calling
    from agentlattice_core import approvals

    if means_service(settings):
        return calling(settings, service=False).approval(approval_id)
    with looking(settings) as look:
        request = approvals.approval_request(look.reader, approval_id)
    if request.waits and request.timeout_at <= look.at:
        request.status = "timed_out"  # whether anything has recorded it yet or not
    return request


def _decide(
    settings: Settings,
    approval_id: str,
    digest: str | None,
    reason: str | None,
    *,
    approving: bool,
    json: bool,
    forever: str | None = None,
) -> None:
    from agentlattice_cli.asking import ask, is_yes
    from agentlattice_cli.opening import deciding, operator_of
    from agentlattice_cli.output import Output, note
    from agentlattice_core.errors import InvalidRequestError

    name = operator_of(settings)
    request = _read(settings, approval_id)
    if request.waits:  # else the core says who was faster
        asking = sys.stdin.isatty() and sys.stderr.isatty()
        if digest is not None:
            digest = _whole(digest, request)
        elif asking:
            _show(Output(stream=sys.stderr), request)
            digest = request.digest
            lasting = f" forever, for the {forever}," if forever else ""
            if approving and not is_yes(ask(f"approve{lasting} as {name}? [y/N] ")):
                note("nothing was decided")
                raise typer.Exit(1)
        elif approving:
            raise InvalidRequestError(
                f"nothing was shown, so nothing is approved; look with `al approvals show {approval_id}` "
                "and pass its `--digest`"
            )
        if not approving and not reason:
            reason = ask("why? the agent is told: ") if asking else None
            if not reason:
                raise InvalidRequestError(
                    "say why with `--reason`; the agent is told, so that it can do better"
                )
    with deciding(settings) as client:
        if approving:
            lift: Any = forever
            decided = client.approve_action_sync(approval_id, reason, digest=digest, forever=lift)
        else:
            decided = client.deny_action_sync(approval_id, reason, digest=digest)
    out = Output(json=json)
    if json:
        out.document(decided)
    elif decided.waits:
        out.line(f"{decided.id} noted, and waits for more approvers: {_approvers(decided)}")
    else:
        out.line(f"{decided.id} {decided.status} by {decided.resolved_by}")
    if forever is not None and not json:
        lifted = {"policy": "for everybody", "agent": f"for {decided.agent}"}.get(decided.forever or "")
        out.line(
            f"the policy is lifted {lifted}" if lifted else "the policy is not lifted: others have to agree"
        )


def _whole(digest: str, request: ApprovalRequest) -> str:
    """The digest that was shown, from its beginning. Raises InvalidRequestError or IllegalTransitionError."""
    from agentlattice_core.errors import IllegalTransitionError, InvalidRequestError

    if len(digest) < _SHORTEST_DIGEST:
        raise InvalidRequestError(
            f"--digest `{digest}` is too short; give at least {_SHORTEST_DIGEST} characters"
        )
    if not request.digest.startswith(digest.lower()):
        raise IllegalTransitionError(
            f"approval `{request.id}` is not what was shown when this decision was made; look at it again"
        )
    return request.digest


def _approvers(request: ApprovalRequest) -> str:
    sets = []
    for one in request.approvers:
        who = ", ".join(one["approvers"]) or "anyone"
        quorum = one["quorum"]
        sets.append(f"all of {who}" if quorum == "all" else who if quorum == 1 else f"{quorum} of {who}")
    return " and ".join(sets)


def _show(out: Output, request: ApprovalRequest) -> None:
    from agentlattice_cli.output import shown

    pairs: list[tuple[str, Any]] = [
        ("id", request.id),
        ("status", request.status),
        ("agent", request.agent),
        ("action", request.action_type),
        ("on behalf of", request.on_behalf_of),
        ("amount", " ".join(part for part in (request.amount, request.currency) if part)),
        ("beneficiary", request.beneficiary),
        ("category", request.category),
        ("data accessed", request.data_accessed),
        *((f"metadata {shown(name)}", value) for name, value in request.metadata.items()),
        ("policy", request.policy_name),
        ("approvers", _approvers(request)),
        ("requested at", request.requested_at),
        ("decide by", request.timeout_at),
        ("approved so far by", ", ".join(request.approved_by) if request.waits else None),
        ("escalated to", ", ".join(request.escalated_to)),
        ("decided by", request.resolved_by),
        ("decided at", request.resolved_at),
        ("reason", request.reason),
        ("event", request.audit_event_id),
        ("digest", request.digest),
    ]
    out.fields(pairs)
    out.why(request.conditions_evaluated, request.rules_fired)
