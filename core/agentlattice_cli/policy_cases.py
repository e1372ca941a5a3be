"""`al policy test`: whether policy files say what their cases expect.

- Case files lie beside the policy they are about: `policies.test.yaml` beside `policies.yaml`. One that says
  `policies:` is about those files instead, named relative to itself.
- No database is opened and nothing is recorded: a case says all that a decision depends on.
- A run without a case is an error, or a typo would read as success.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentlattice_cli import options

if TYPE_CHECKING:
    from agentlattice_core.policy.cases import CaseDocument
    from agentlattice_core.policy.trial import Aspect, Trial

__all__ = ["run_cases"]

_ENDINGS = (".test.yaml", ".test.yml", ".test.json")


@dataclass(frozen=True, slots=True)
class _Ran:
    """What came of all case files: the trials, and how often each aspect of each policy file was exercised."""

    trials: list[Trial]
    exercised: dict[Aspect, int]

    @property
    def percent(self) -> float:
        """How much of the policy was exercised."""
        done = sum(times > 0 for times in self.exercised.values())
        return 100.0 * done / len(self.exercised) if self.exercised else 100.0


def run_cases(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE...]",
            help="Case files, policy files with cases beside them, or directories; default: the project's policies.",
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="REGEX", help="Only cases whose name matches somewhere."),
    ] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="List the cases that pass too.")] = False,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="List what of the policies no case exercised.")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            metavar="PERCENT",
            min=0,
            max=100,
            help="Exit with 1 if less of the policies was exercised.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Run the cases of policy files, and say which do not come out as expected."""
    from agentlattice_cli.output import Output, note, shown

    chosen = _pattern(run)
    documents = _case_documents(files or [])
    ran = _run(documents, chosen)
    failed = [trial for trial in ran.trials if not trial.passed]
    never = [aspect for aspect, times in ran.exercised.items() if not times]
    short = threshold is not None and ran.percent < threshold
    out = Output(json=json)
    if json:
        out.document(
            {
                "passed": len(ran.trials) - len(failed),
                "failed": len(failed),
                "cases": [_as_json(trial) for trial in ran.trials],
                "coverage": {
                    "percent": round(ran.percent, 1),
                    "never": [_aspect_as_json(aspect) for aspect in never],
                },
            }
        )
    else:
        for trial in ran.trials:
            where = f"{trial.case.file}:{trial.case.line}: {shown(trial.case.name)}"
            if not trial.passed:
                out.line(f"FAIL {where}")
                for difference in trial.differences:
                    out.line(f"  {shown(difference)}")
            elif verbose:
                out.line(f"pass {where}")
        if coverage:
            for aspect in never:
                out.line(f"never {aspect}")
        note(
            f"{len(ran.trials)} cases: {len(ran.trials) - len(failed)} passed, {len(failed)} failed; "
            f"{ran.percent:.0f}% of the policies exercised"
            + (f", at least {threshold:g}% wanted" if short else "")
        )
        if never and not coverage and chosen is None:
            note(f"{len(never)} things were never exercised; `--coverage` lists them")
    if failed or short:
        raise typer.Exit(1)


def _pattern(run: str | None) -> re.Pattern[str] | None:
    from agentlattice_core.errors import InvalidRequestError

    try:
        return None if run is None else re.compile(run)
    except re.error as error:
        raise InvalidRequestError(f"--run `{run:.80}` is not a regular expression: {error}") from None


def _run(documents: Sequence[CaseDocument], chosen: re.Pattern[str] | None) -> _Ran:
    from agentlattice_core.errors import InvalidRequestError, PolicyDocumentError
    from agentlattice_core.policy.document import PolicyDocument
    from agentlattice_core.policy.trial import TrialRun

    ran = _Ran([], {})
    problems: list[Any] = []
    for cases in documents:
        try:
            policies = PolicyDocument.load_all(_policies_of(cases))
        except PolicyDocumentError as error:
            problems += error.problems
            continue
        trials = TrialRun(policies, cases.registries)
        ran.trials.extend(
            trials.run(case) for case in cases.cases if chosen is None or chosen.search(case.name)
        )
        for aspect, times in trials.exercised.items():
            ran.exercised[aspect] = ran.exercised.get(aspect, 0) + times
    if problems:
        raise PolicyDocumentError(list(dict.fromkeys(problems)))
    if not ran.trials:
        raise InvalidRequestError(
            f"no case's name matches `{chosen.pattern:.80}`"
            if chosen is not None
            else "there is no case to run"
        )
    return ran


def _case_documents(given: Sequence[Path]) -> list[CaseDocument]:
    """Every case file, read. Raises PolicyDocumentError with the problems of all of them."""
    from agentlattice_core.errors import PolicyDocumentError
    from agentlattice_core.policy.cases import CaseDocument

    found: list[CaseDocument] = []
    problems: list[Any] = []
    for path in dict.fromkeys(_case_files(given)):
        try:
            found.append(CaseDocument.load(path))
        except PolicyDocumentError as error:
            problems += error.problems
    if problems:
        raise PolicyDocumentError(problems)
    return found


def _case_files(given: Sequence[Path]) -> Iterator[Path]:
    from agentlattice_cli.settings import project_policies
    from agentlattice_core.errors import InvalidRequestError

    for path in given or project_policies():
        if path.is_dir():
            inside = sorted(one for one in path.rglob("*.test.*") if one.name.endswith(_ENDINGS))
            if not inside:
                raise InvalidRequestError(
                    f"there is no case file in `{path}`; its name would end in `.test.yaml`"
                )
            yield from inside
        elif path.name.endswith(_ENDINGS):
            yield path
        else:
            beside = [path.with_name(f"{path.stem}{ending}") for ending in _ENDINGS]
            there = [one for one in beside if one.is_file()]
            if not there:
                raise InvalidRequestError(
                    f"there are no cases for `{path}`; write them into `{beside[0]}`"
                    if path.exists()
                    else f"there is no file `{path}`, and no `{beside[0]}` either"
                )
            yield from there


def _policies_of(cases: CaseDocument) -> list[Path]:
    """The policy files that a case file is about."""
    from agentlattice_core.errors import InvalidRequestError

    own = Path(cases.file)
    if cases.policies:
        return [own.parent / name for name in cases.policies]
    stem = own.name.removesuffix(own.suffix).removesuffix(".test")
    for ending in (".yaml", ".yml", ".json"):
        path = own.with_name(f"{stem}{ending}")
        if path.is_file():
            return [path]
    raise InvalidRequestError(
        f"`{own}` names no policies, and there is no `{own.with_name(f'{stem}.yaml')}`; add `policies: [FILE]` to it"
    )


def _as_json(trial: Trial) -> dict[str, Any]:
    case, decision = trial.case, trial.decision
    return {
        "file": case.file,
        "line": case.line,
        "name": case.name,
        "passed": trial.passed,
        "differences": trial.differences,
        "outcome": decision.outcome,
        "reason": decision.denial_reason,
        "policy": decision.policy.name if decision.policy is not None else None,
        "rules": [f"{rule.policy}/{rule.priority}" for rule in decision.rules],
        "message": decision.message,
    }


def _aspect_as_json(aspect: Aspect) -> dict[str, Any]:
    at = aspect.position
    return {
        "file": at.file if at is not None else None,
        "line": at.line if at is not None else None,
        "part": aspect.part_id,
        "name": aspect.name,
        "what": aspect.what,
    }
