"""`al demo`: an agent is denied, corrects itself, asks a person, and leaves a log that verifies. No key, no network.

- Frameworks are imported one after the other, each when its turn comes, and told beforehand to send nothing anywhere.
- The question is asked at the terminal. With `--yes`, with `--json`, or where there is no terminal, the demonstration
  answers by itself and says so.
- The exit code is 0 if every step went as the story says, and 1 if one did not. Interrupted, it denies what it was
  asking and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from agentlattice_cli.demo_screen import Screen
from agentlattice_cli.output import Output, note
from agentlattice_core import AgentLattice, ApprovalRequest, InvalidRequestError, VerifyResult
from agentlattice_core.policy.document import PolicyDocument
from agentlattice_integrations.demo import Played, Reply, play, read_denial, status_of

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@dataclass(frozen=True, slots=True)
class _Framework:
    """One framework: how it is called, the distributions that bring it, and the module that drives it."""

    name: str
    title: str
    distributions: tuple[str, ...]
    driver: str

    @property
    def version(self) -> str | None:
        """The version of the first distribution, None unless all of them are installed."""
        try:
            versions = [importlib.metadata.version(name) for name in self.distributions]
        except importlib.metadata.PackageNotFoundError:
            return None
        return versions[0]

    @property
    def install(self) -> str:
        return f'pip install "agentlattice-integrations[{self.name}]"'


_FRAMEWORKS: Final = (
    _Framework(
        "langgraph", "LangGraph", ("langgraph", "langchain"), "agentlattice_integrations.langgraph.demo"
    ),
    _Framework("crewai", "CrewAI", ("crewai",), "agentlattice_integrations.crewai.demo"),
    _Framework(
        "openai-agents",
        "OpenAI Agents SDK",
        ("openai-agents",),
        "agentlattice_integrations.openai_agents.demo",
    ),
)

# Nothing that a framework measures about its users leaves the machine while the demonstration runs.
_QUIET: Final = {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_TRACKING": "true",
    "CREWAI_DISABLE_VERSION_CHECK": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "OTEL_SDK_DISABLED": "true",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "LANGSMITH_TRACING": "false",
    "LANGSMITH_TRACING_V2": "false",
    "LANGCHAIN_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
}


@app.command()
def demo(
    framework: Annotated[
        str,
        typer.Option(metavar="NAME", help="langgraph, crewai, openai-agents, or `all` that are installed."),
    ] = "all",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Approve without asking.")] = False,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep the database in this file, which must not exist."),
    ] = None,
    policies: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Play it under another policy file than the one that ships."),
    ] = None,
) -> None:
    """Watch a governed agent be denied, correct itself, and ask a person. No key, no network."""
    out = sys.stdout
    screen = Screen(Console(file=io.StringIO() if as_json else out, highlight=False))
    chosen, missing = _choose(framework)
    if keep is not None and keep.exists():
        raise InvalidRequestError(f"file `{keep}` exists; name a new one to keep the database in")
    document = _document(policies)
    asks = not (yes or as_json) and sys.stdin.isatty() and out.isatty()
    acts: list[dict[str, Any]] = []
    screen.opening()
    try:
        with _quiet_place() as folder:
            path = keep if keep is not None else folder / "governance.db"
            for entry in chosen:
                screen.framework(entry.title, entry.version or "")
                acts.append(_act(entry, path, document, screen, lambda request: screen.ask(request, asks)))
    except KeyboardInterrupt:
        note("\ninterrupted: whatever the agent was still asking for was denied")
        raise
    ok = all(act["ok"] for act in acts)
    if as_json:
        absent = [{"framework": entry.name, "install": entry.install} for entry in missing]
        Output(json=True).document(
            {"ok": ok, "frameworks": acts, "missing": absent, "database": str(keep) if keep else None}
        )
    else:
        screen.end(ok, [(entry.title, entry.install) for entry in missing], keep)
    if not ok:
        raise typer.Exit(1)


def _choose(name: str) -> tuple[list[_Framework], list[_Framework]]:
    """What to play, and what could be played if it were installed."""
    names = [entry.name for entry in _FRAMEWORKS]
    if name not in ("all", *names):
        raise InvalidRequestError(f"framework `{name}` is not one of {', '.join(names)}, all")
    wanted = [entry for entry in _FRAMEWORKS if name in ("all", entry.name)]
    installed = [entry for entry in wanted if entry.version is not None]
    missing = [entry for entry in wanted if entry.version is None]
    if not installed:
        what = "no framework is" if name == "all" else f"{missing[0].title} is not"
        extra = "all" if name == "all" else name
        raise InvalidRequestError(f'{what} installed; run `pip install "agentlattice-integrations[{extra}]"`')
    return installed, missing


def _document(policies: Path | None) -> PolicyDocument:
    if policies is not None:
        return PolicyDocument.load(policies)
    with resources.as_file(resources.files("agentlattice_integrations.demo") / "policies.yaml") as shipped:
        return PolicyDocument.load(shipped)


@contextlib.contextmanager
def _quiet_place() -> Iterator[Path]:
    """A directory that goes away afterwards, and an environment in which frameworks keep to it."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="al-demo-", ignore_cleanup_errors=True) as folder:
        os.environ.update(_QUIET, CREWAI_STORAGE_DIR=str(Path(folder) / "crewai"))
        try:
            yield Path(folder)
        finally:
            os.environ.clear()
            os.environ.update(before)


def _act(
    entry: _Framework,
    path: Path,
    document: PolicyDocument,
    screen: Screen,
    ask: Callable[[ApprovalRequest], Reply],
) -> dict[str, Any]:
    """Play the story on one framework and verify the log."""
    with _silence():
        try:
            build = importlib.import_module(entry.driver).demo_agent
        except ImportError as error:
            raise InvalidRequestError(
                f"{entry.title} {entry.version} cannot be used: {error}; run `{entry.install}`"
            ) from None
    with (
        AgentLattice.embedded(path, policies=document, agent=f"demo-{entry.name}") as al,
        al.for_operator("oncall@example.com", groups=["oncall"]) as operator,
    ):
        with _silence():
            played = list(play(build, al, operator, ask, screen.show))
        verified = al.verify_sync()
    screen.verified(verified)
    ok = verified.chain_valid and all(step.problem is None for step in played)
    return {
        "framework": entry.name,
        "version": entry.version,
        "ok": ok,
        "steps": [_told(step) for step in played],
        "verify": _verified(verified),
    }


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what frameworks print out of the story, which is written to the stream as it was before."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _told(played: Played) -> dict[str, Any]:
    asked = None
    if played.asked is not None:
        asked = {
            "action_type": played.asked.action_type,
            "policy": played.asked.policy_name,
            "approved": played.reply.approved if played.reply else None,
            "automatic": played.reply.automatic if played.reply else None,
        }
    return {
        "step": played.step.name,
        "title": played.step.title,
        "task": played.step.task,
        "ok": played.problem is None,
        "problem": played.problem,
        "calls": [
            {
                "tool": exchange.call.tool,
                "arguments": dict(exchange.call.arguments),
                "status": status_of(exchange),
                "saw": read_denial(exchange.result) or exchange.result,
            }
            for exchange in played.exchanges
        ],
        "asked": asked,
        "answer": played.answer,
    }


def _verified(result: VerifyResult) -> dict[str, Any]:
    return {
        "chain_valid": result.chain_valid,
        "entries": result.verified_through_row,
        "chain_hash": result.chain_hash,
        "first_broken_at_row_id": result.first_broken_at_row_id,
        "problem": result.problem,
    }
