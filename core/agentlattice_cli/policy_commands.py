"""`al policy`: writing policy and putting it into force.

- Only `apply` changes anything, in an operator's name. It says first which pending requests it decides; none is
  approved that way without a yes.
- What is wrong in a file is said as `file:line:column: field: message`, so that editors can jump there.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentlattice_cli import options, policy_cases, policy_replays
from agentlattice_cli.program import command_group

if TYPE_CHECKING:
    from agentlattice_cli.settings import Settings
    from agentlattice_core.results import PolicyRehearsal

__all__ = ["app"]

app = command_group("Write policy, try it, and put it into force.")

File = Annotated[Path, typer.Argument(metavar="FILE", help="A policy file.")]


@app.command()
def lint(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE...]", help="Policy files, read as one document; default: the project's policies."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    db: Annotated[
        str | None,
        typer.Option(
            "--db",
            metavar="FILE",
            help="Also check that agents, tags and registries are known in this database.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Check policy files: what is invalid, and what says something its author cannot have meant."""
    from agentlattice_cli.output import Output, note
    from agentlattice_cli.settings import project_policies
    from agentlattice_core.errors import PolicyDocumentError
    from agentlattice_core.policy.document import PolicyDocument
    from agentlattice_core.policy.lint import lint as findings_of

    out = Output(json=json)
    checked = files or project_policies()
    try:
        document = PolicyDocument.load_all(checked)
    except PolicyDocumentError as error:
        if not json:
            raise
        problems = [{**asdict(one), "severity": "error", "code": "invalid"} for one in error.problems]
        out.document({"valid": False, "findings": problems})
        raise typer.Exit(1) from None
    agents, registries = _known_there(db) if db is not None else (None, ())
    findings = findings_of(document, agents=agents, registries=registries)
    if json:
        found = [
            {
                "file": one.file,
                "line": one.line,
                "column": one.column,
                "field": one.path,
                "message": one.message,
                "severity": one.severity,
                "code": one.code,
            }
            for one in findings
        ]
        out.document({"valid": True, "findings": found})
    else:
        for one in findings:
            out.line(str(one))
        policies, guardrails = len(document.policies), len(document.guardrails)
        counted = f"{_count(policies, 'policy', 'policies')}, {_count(guardrails, 'guardrail', 'guardrails')}"
        found_here = _count(len(findings), "finding", "findings") if findings else "nothing to say"
        note(f"{counted}: {found_here}")
    if any(one.severity == "error" or strict for one in findings):
        raise typer.Exit(1)


app.command("test")(policy_cases.run_cases)
app.command("simulate")(policy_replays.simulate)
app.command("suggest")(policy_replays.suggest)


@app.command()
def diff(
    file: File,
    other: Annotated[
        Path | None, typer.Argument(metavar="[OTHER]", help="A second file; without it, what is in force.")
    ] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if anything differs.")] = False,
    db: options.Db = None,
    json: options.Json = False,
) -> None:
    """Show what FILE would change in what is in force, or what OTHER changes in FILE."""
    from agentlattice_cli.output import Output, note, shown
    from agentlattice_cli.policy_in_force import in_force
    from agentlattice_cli.settings import resolve
    from agentlattice_core.policy.diff import diff as changes_of
    from agentlattice_core.policy.document import PolicyDocument

    parts = PolicyDocument.load(file).parts()
    if other is not None:
        changes = changes_of(parts, PolicyDocument.load(other).parts())
    else:
        with in_force(resolve({"db": db})) as there:
            changes = changes_of(there.beside(file, parts), parts)
    out = Output(json=json)
    if json:
        out.document({"changes": changes})
    else:
        for change in changes:
            out.line(f"{change.kind} {shown(change.part_id)} {shown(change.name)}")
            for one in change.fields:
                out.line(f"  {shown(str(one))}")
        if not changes:
            note("nothing differs")
        elif other is None and any(change.kind == "removed" for change in changes):
            note("note: `al policy apply` removes only with `--prune`")
    if changes and exit_code:
        raise typer.Exit(1)


@app.command("list")
def list_policies(
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="NAME", help="Only what may concern this agent.")
    ] = None,
    db: options.Db = None,
    json: options.Json = False,
) -> None:
    """List the policies and guardrails in force."""
    from agentlattice_cli.opening import check_known, note_unapplied
    from agentlattice_cli.output import Output, shown
    from agentlattice_cli.policy_in_force import in_force
    from agentlattice_cli.settings import resolve
    from agentlattice_core.errors import NotFoundError
    from agentlattice_core.policy.evaluate import PolicySet
    from agentlattice_core.results import PoliciesResult

    settings = resolve({"db": db})
    with in_force(settings) as there:
        if agent is not None and there.look is not None:
            check_known(there.look, agent)
        facts = there.agent(agent) if agent is not None else None
        if agent is not None and facts is None:
            raise NotFoundError(f"agent `{agent:.80}` is not registered at this service; check the name")
        summaries = PolicySet.from_parts(there.parts).summaries(facts)
        found = PoliciesResult("org" if agent is None else "own", summaries)
        document, tampered = there.document(), there.tampered()
        if there.look is not None:  # what a service enforces was applied there, and not from this project
            note_unapplied(there.look, settings)
    out = Output(json=json)
    if json:
        out.document(found)
        return
    effects: dict[str, str] = {one.id: one.effect for one in document.policies}
    effects |= {one.id: f"guardrail: {one.effect}" for one in document.guardrails}
    for part in tampered:
        out.line(f"TAMPERED: {shown(part)} is not what was published; what it governs is denied")
    out.table(
        ["policy", "governs", "effect", "conditions", "version", "since"],
        [
            [
                one.name,
                one.action_type,
                effects[one.id],
                "yes" if one.has_conditions else "no",
                one.version,
                one.created_at,
            ]
            for one in found.policies
        ],
        "no policy is in force, so nothing that anybody asks for will run",
    )


@app.command()
def explain(
    action_type: Annotated[str, typer.Argument(metavar="ACTION_TYPE", help="Such as db.migrate.")],
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Ask this file instead of what is in force.")
    ] = None,
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="NAME", help="For this agent; without it, for any.")
    ] = None,
    db: options.Db = None,
    json: options.Json = False,
) -> None:
    """Show which policies govern an action, in the order in which they decide, and why."""
    from agentlattice_cli.output import Output, note
    from agentlattice_cli.policy_in_force import in_force
    from agentlattice_cli.precedence import explained
    from agentlattice_cli.settings import resolve
    from agentlattice_core.actions import Action
    from agentlattice_core.policy.document import PolicyDocument
    from agentlattice_core.principals import AgentFacts

    Action.build(action_type)  # a typo is no action type, and would match `*` silently
    if file is not None:
        document, tampered = PolicyDocument.load(file), []
        facts = AgentFacts(agent, agent) if agent is not None else None
    else:
        with in_force(resolve({"db": db})) as there:
            facts = there.agent(agent) if agent is not None else None
            if agent is not None and facts is None:
                note(f"note: agent `{agent}` has never acted here, so it is taken to have no tags")
                facts = AgentFacts(agent, agent)
            document, tampered = there.document(), there.tampered(action_type)
    found = explained(document, action_type, facts)
    out = Output(json=json)
    if json:
        out.document(
            {
                "action_type": action_type,
                "declared": found.declared,
                "tampered": tampered,
                "policies": found.steps,
            }
        )
        return
    for part in tampered:
        out.line(
            f"TAMPERED: {part} is not what was published; every such action is denied until it is published again"
        )
    if found.declared:
        out.line("declared: an action that lacks a required field is denied before any policy is asked")
    out.table(
        ["order", "policy", "pattern", "effect", "why here", "then"],
        [[one.order, one.name, one.pattern, one.effect, one.why, one.then] for one in found.steps],
        f"no policy matches `{action_type}`, so it does not run",
    )


@app.command()
@options.with_settings(options.DECIDING)
def apply(
    settings: Settings,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Policy files.")],
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Remove what a file of the same name published before and no longer holds."
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask, also where pending requests are approved by it.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Put policy files into force, in an operator's name."""
    from agentlattice_cli.opening import deciding
    from agentlattice_cli.output import Output, shown
    from agentlattice_core.errors import ForbiddenError
    from agentlattice_core.policy.document import PolicyDocument

    PolicyDocument.load_all(files)  # all of them, before any is published
    if settings["role"].value == "viewer":
        raise ForbiddenError("a viewer may see policies but not apply them; name another role with `--role`")
    sources = [os.fspath(path) for path in files]
    out = Output(json=json)
    with deciding(settings, new=True) as client:
        rehearsal = client.rehearse_policies_sync(sources, prune=prune)
        _tell_consequences(rehearsal)
        if rehearsal.approved and not yes and not _confirmed(len(rehearsal.approved)):
            raise typer.Exit(1)
        changed = client.apply_policies_sync(sources, prune=prune)
    if json:
        out.document({"changed": changed, "approved": [one.id for one in rehearsal.approved]})
        return
    for part in changed:
        out.line(shown(part))
    if not changed:
        out.line("nothing changed: what is in force is what the files say")


def _tell_consequences(rehearsal: PolicyRehearsal) -> None:
    """Name the pending requests that this decides, before it does."""
    from agentlattice_cli.output import note, shown

    for what, requests in (
        ("approves", rehearsal.approved),
        ("denies", rehearsal.denied),
        ("asks other approvers about", rehearsal.amended),
    ):
        for one in requests:
            note(
                f"{what} {one.id}: {shown(one.action_type)} of {shown(one.agent)}, asked at {one.requested_at}"
            )


def _confirmed(approved: int) -> bool:
    """Whether a person on the terminal wants that. Raises InvalidRequestError where there is none to ask."""
    from agentlattice_cli.asking import ask, is_yes
    from agentlattice_cli.output import note
    from agentlattice_core.errors import InvalidRequestError

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidRequestError(
            f"this would approve {approved} pending request{'' if approved == 1 else 's'} without a person; "
            "pass `--yes` if that is meant"
        )
    if is_yes(ask(f"approve {approved} pending without a person? [y/N] ")):
        return True
    note("nothing was changed")
    return False


def _known_there(db: str) -> tuple[set[str], list[str]]:
    """Names, ids and tags of the agents that are registered, and the registries that are kept in the store."""
    from agentlattice_cli.opening import looking
    from agentlattice_cli.settings import resolve
    from agentlattice_core import registries

    with looking(resolve({"db": db})) as look:
        agents = {
            name
            for agent, stored in look.reader.scan("agent")
            for name in (agent, stored["id"], *stored["tags"])
        }
        return agents, registries.names(look.reader)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
