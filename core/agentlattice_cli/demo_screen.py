"""What `al demo` shows: each call, what the model saw for it, and what it did next, in 80 columns of plain text.

- Colour only adds: every line reads the same without it.
- A denial is shown as the members a model acts on; nothing of it is rewritten.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from agentlattice_cli.asking import answered, is_yes
from agentlattice_cli.output import shown
from agentlattice_core import ApprovalRequest, VerifyResult
from agentlattice_integrations.demo import Answer, Call, Exchange, Played, Reply, Shown, Step, read_denial

__all__ = ["Screen"]

_SHOWN: Final = (
    "reason",
    "policy",
    "message",
    "failed_conditions",
    "retry_can_succeed",
    "what_to_change",
    "next_step",
)
_LONGEST: Final = 60
_COLUMN: Final = 15


class Screen:
    """Writes the play to a console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps = 0

    def opening(self) -> None:
        """What there is to see."""
        about = (
            "A scripted model drives a real agent, without a key and without a network. It knows nothing "
            "of the policy: what it does about a denial, it reads in the denial."
        )
        self._hang(Text(), 0, Text(about))

    def framework(self, title: str, version: str) -> None:
        """A new agent comes on."""
        self._steps = 0
        self._console.print()
        self._console.rule(Text(f"{title} {version}", "bold"), align="left")

    def show(self, moment: Shown) -> None:
        """One thing that happened."""
        if isinstance(moment, Step):
            self._steps += 1
            self._console.print()
            self._console.print(Text(f"{self._steps}. {moment.title}", "bold"))
            self._line("user", moment.task)
        elif isinstance(moment, Call):
            self._line("model calls", _call(moment), "cyan")
        elif isinstance(moment, Exchange):
            denial = read_denial(moment.result)
            if denial is None:
                self._line("model sees", _result(moment.result), "green")
            else:
                self._line("model sees", f"{denial['status']} {{", "red")
                self._document(denial)
        elif isinstance(moment, Reply):
            said = "approved" if moment.approved else "not approved"
            self._line(
                "person", f"{said} (by the demonstration itself)" if moment.automatic else said, "yellow"
            )
        elif isinstance(moment, Answer):
            self._line("model says", moment.text)
        elif isinstance(moment, Played) and moment.problem is not None:
            self._line("problem", moment.problem, "bold red")

    def ask(self, request: ApprovalRequest, asks: bool) -> Reply:
        """Put the question; without somebody to ask, answer it."""
        what = ", ".join(f"{name}={shown(value)}" for name, value in request.metadata.items())
        self._line("asks a person", f"may {request.agent} do {request.action_type} ({what})?", "yellow")
        if not asks:
            return Reply(approved=True, automatic=True)
        self._console.print(Text(f"{'':{_COLUMN}}Approve? [y/N] ", "bold yellow"), end="")
        return Reply(approved=is_yes(answered()), automatic=False)

    def verified(self, result: VerifyResult) -> None:
        """Whether the log holds."""
        self._steps += 1
        self._console.print()
        self._console.print(Text(f"{self._steps}. The audit log, verified", "bold"))
        if result.chain_valid:
            self._line("verify", f"{result.verified_through_row} entries, unbroken", "green")
        else:
            self._line(
                "verify", f"broken at row {result.first_broken_at_row_id}: {result.problem}", "bold red"
            )

    def end(self, ok: bool, missing: list[tuple[str, str]], keep: Path | None) -> None:
        """The last lines."""
        self._console.print()
        for title, install in missing:
            self._console.print(Text(f"{title} is not installed: {install}", "dim"), soft_wrap=True)
        if keep is not None:
            self._console.print(Text(f"The database is kept in {keep}."), soft_wrap=True)
        told = (
            ("Every step went as the story says.", "bold green") if ok else ("A step went wrong.", "bold red")
        )
        self._console.print(Text(*told))

    def _line(self, who: str, text: str, style: str = "") -> None:
        """A column for who, and the text beside it."""
        self._hang(Text(f"{who:>13}  ", "dim"), _COLUMN, Text(text, style))

    def _document(self, denial: Mapping[str, Any]) -> None:
        for name in _SHOWN:
            if denial.get(name) not in (None, []):
                member = f"{json.dumps(name)}: {json.dumps(denial[name], ensure_ascii=False)},"
                self._hang(Text(" " * (_COLUMN + 2)), _COLUMN + 4, Text(member, "red"))
        self._hang(Text(" " * _COLUMN), _COLUMN, Text("... }", "red"))

    def _hang(self, first: Text, indent: int, text: Text) -> None:
        """`text` in lines of the console's width: the first behind `first`, the others at `indent`."""
        for line in text.wrap(self._console, max(1, self._console.width - indent)):
            line.rstrip()
            self._console.print(Text.assemble(first, line))
            first = Text(" " * indent)


def _call(call: Call) -> str:
    return f"{call.tool}({', '.join(f'{name}={_value(value)}' for name, value in call.arguments.items())})"


def _value(value: Any) -> str:
    if isinstance(value, list) and len(value) > 1:
        return f"[{len(value)} items]"
    return _cut(json.dumps(value, ensure_ascii=False))


def _result(text: str) -> str:
    first, *more = text.splitlines() or [""]
    return f"{_cut(first)} ... ({len(more) + 1} lines)" if more else text


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
