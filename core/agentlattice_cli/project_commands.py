"""`al init` and `al config`: beginning a project, and seeing what is in force."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentlattice_cli import options

__all__ = ["config", "init"]

_PROJECT = """\
# Where the commands of `al` and your agents find things. Paths are relative to this file.
# Flags and AL_* variables win over it; `al config` shows what is in force.
db = "governance.db"
policies = ["policies.yaml"]
"""

_NEXT = """\
next:
  1. let your agents run and record what they do, with nothing stopped:
       AgentLattice.embedded("governance.db", policies="policies.yaml", agent="my-agent", mode="observe")
  2. draft a policy from it:          al policy suggest --since 1d -o suggested.yaml
  3. see what it would have stopped:  al policy simulate suggested.yaml --since 1d
  4. check it, put it into force:     al policy lint suggested.yaml
                                      mv suggested.yaml policies.yaml, and leave mode="observe" out
  5. say what it must go on saying:   edit policies.test.yaml, then al policy test
  6. prove what happened:             al audit verify
"""


def init(
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where to begin; made if it is not there.")
    ] = Path("."),
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there already.")] = False,
    json: options.Json = False,
) -> None:
    """Write a starter policy with its cases and a project file, and say what to do next."""
    from agentlattice_cli.output import Output
    from agentlattice_core.errors import AgentLatticeError
    from agentlattice_core.policy.starter import starter_cases, starter_document

    files = {
        directory / "policies.yaml": starter_document(),
        directory / "policies.test.yaml": starter_cases(),
        directory / "agentlattice.toml": _PROJECT,
    }
    if not force:
        for path in files:
            if path.exists() or path.is_symlink():
                raise AgentLatticeError(
                    "ALREADY_THERE",
                    f"`{path}` is there already and was left as it is; pass `--force` to replace it",
                )
    directory.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    out = Output(json=json)
    if json:
        out.document({"written": [str(path) for path in files]})
        return
    for path in files:
        out.line(f"wrote {path}")
    if directory != Path("."):
        out.line(f"go there: cd {directory}")
    out.text(_NEXT)


def config(
    db: options.Db = None,
    signing_key: options.SigningKey = None,
    agent: options.Agent = None,
    operator: options.As = None,
    role: options.Roles = None,
    groups: options.Groups = None,
    policies: options.Policies = None,
    mode: options.Mode = None,
    base_url: options.BaseUrl = None,
    json: options.Json = False,
) -> None:
    """Show every setting that is in force, and where it comes from."""
    from agentlattice_cli.output import Output
    from agentlattice_cli.settings import resolve

    settings = resolve(
        {
            "db": db,
            "signing_key": signing_key,
            "agent": agent,
            "operator": operator,
            "role": role,
            "groups": groups,
            "policies": policies,
            "mode": mode,
            "base_url": base_url,
        }
    )
    out = Output(json=json)
    if json:
        out.document({one.name: {"value": one.shown, "source": one.source} for one in settings})
        return
    out.table(
        ["setting", "value", "source"],
        [[one.name, one.shown if one.shown else "(not set)", one.source] for one in settings],
        "",
    )
