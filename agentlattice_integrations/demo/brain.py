"""What the demonstration's model thinks: no network, no learning, and no knowledge of the policy.

- `Brain.think` is a pure function of the conversation: the task, the calls made so far with what came back, and the
  tools on offer. It keeps nothing between turns, so the same brain sits behind every framework and behind an HTTP API.
- How to begin a task is scripted (`_openings`). How to go on after a denial is not: it is worked out from the denial
  document alone.
  - A retry can succeed, and a failed condition bounds a number: find the argument of which there were that many, and
    make several calls that each stay within the bound.
  - No retry can succeed: find the tool on offer that the document's message speaks of, and call that instead.
  - Otherwise: leave it, and tell the user why.
- What it tells the user is what it was shown.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Answer", "Brain", "Call", "Conversation", "Exchange", "Offer", "read_denial"]

_DENIAL: Final = "agentlattice.denial/"


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call the model wants to make."""

    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's last word on a task."""

    text: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """A call and the text the model was shown for it."""

    call: Call
    result: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool the model may call: its name, what it is for, and the names of its parameters."""

    name: str
    description: str = ""
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conversation:
    """Everything the model is shown in one turn."""

    task: str
    exchanges: Sequence[Exchange] = ()
    offers: Sequence[Offer] = field(default_factory=tuple)


def read_denial(text: str) -> dict[str, Any] | None:
    """The denial document in what a tool answered, or None if the tool ran."""
    try:
        document = json.loads(text)
    except ValueError:
        return None
    if isinstance(document, dict) and str(document.get("type", "")).startswith(_DENIAL):
        return document
    return None


class Brain:
    """Decides what to do next."""

    def think(self, conversation: Conversation) -> Call | Answer:
        """The next call, or the answer when there is nothing left to do."""
        agenda = deque(_opening(conversation.task))
        if not agenda and not conversation.exchanges:
            return Answer(
                "I know how to list files, open pull requests, diagnose, deploy and refund; not this."
            )
        told: list[str] = []
        for exchange in conversation.exchanges:
            if agenda:
                agenda.popleft()
            denial = read_denial(exchange.result)
            if denial is None:
                following = _continue(conversation.task, exchange)
            else:
                following = self._correct(exchange.call, denial, conversation.offers)
            agenda.extendleft(reversed(following))
            told.append(_tell(exchange, denial, bool(following)))
        return agenda[0] if agenda else Answer("\n".join(told))

    def _correct(self, call: Call, denial: Mapping[str, Any], offers: Sequence[Offer]) -> list[Call]:
        """What to do instead of a call that was refused; nothing if the document leaves nothing to do."""
        if denial.get("status") != "denied":
            return []
        if denial.get("retry_can_succeed"):
            return _within_bounds(call, denial.get("failed_conditions") or [])
        return _alternative(call, denial, offers)


# --- reading a denial -----------------------------------------------------------------------------------------------


def _within_bounds(call: Call, failed: Sequence[Mapping[str, Any]]) -> list[Call]:
    """The same work in calls that are each small enough for every failed condition."""
    calls = [call]
    for condition in failed:
        most = _most(condition)
        name = _counted(call, condition.get("actual"))
        if most is None or most < 1 or name is None:
            return []
        calls = [
            Call(part.tool, {**part.arguments, name: part.arguments[name][start : start + most]})
            for part in calls
            for start in range(0, len(part.arguments[name]), most)
        ]
    return calls if len(calls) > 1 else []


def _most(condition: Mapping[str, Any]) -> int | None:
    """The largest count that a condition lets pass, if it is a bound from above."""
    bound = condition.get("expected")
    if not isinstance(bound, int | float) or isinstance(bound, bool):
        return None
    if condition.get("operator") == "lt":
        return math.ceil(bound) - 1
    if condition.get("operator") == "lte":
        return math.floor(bound)
    return None


def _counted(call: Call, count: Any) -> str | None:
    """The argument that holds `count` items: the one that the condition's field measures."""
    if isinstance(count, bool) or not isinstance(count, int):
        return None
    for name, value in call.arguments.items():
        if isinstance(value, list) and len(value) == count:
            return name
    return None


def _alternative(call: Call, denial: Mapping[str, Any], offers: Sequence[Offer]) -> list[Call]:
    """The offered tool that the denial's message speaks of most, if the refused call's arguments are enough for it."""
    advice = _words(str(denial.get("message") or ""))
    refused = _words(call.tool)
    best: Offer | None = None
    score = 0
    for offer in offers:
        usable = offer.name != call.tool and all(name in call.arguments for name in offer.parameters)
        shared = len(advice & (_words(offer.name) - refused))
        if usable and shared > score:
            best, score = offer, shared
    return [Call(best.name, {name: call.arguments[name] for name in best.parameters})] if best else []


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


# --- beginning a task -----------------------------------------------------------------------------------------------


def _quoted(task: str) -> list[str]:
    """The values in backticks, in order."""
    return re.findall(r"`([^`]+)`", task)


def _list_files(task: str) -> list[Call]:
    return [Call("list_changed_files", {"branch": _quoted(task)[0]})]


def _read_credentials(task: str) -> list[Call]:
    return [Call("read_credentials", {"service": _quoted(task)[0]})]


def _deploy(task: str) -> list[Call]:
    service, environment = _quoted(task)[:2]
    return [Call("deploy", {"service": service, "environment": environment})]


def _refund(task: str) -> list[Call]:
    amount, *customers = _quoted(task)
    return [Call("issue_refund", {"customer": customer, "amount": amount}) for customer in customers]


_openings: Final[Sequence[tuple[str, int, Callable[[str], list[Call]]]]] = (
    # words in the task, how many values it must quote, the first calls
    (r"\bdeploy\b", 2, _deploy),
    (r"\brefund\b", 2, _refund),
    (r"\b(diagnose|credentials)\b", 1, _read_credentials),
    (r"\b(branch|pull request)\b", 1, _list_files),
)


def _opening(task: str) -> list[Call]:
    """The calls to begin with, from what the user asked for."""
    for words, values, begin in _openings:
        if re.search(words, task, re.IGNORECASE) and len(_quoted(task)) >= values:
            return begin(task)
    return []


def _continue(task: str, exchange: Exchange) -> list[Call]:
    """What a call that went well leads to."""
    if exchange.call.tool == "list_changed_files" and re.search(r"\bpull request\b", task, re.IGNORECASE):
        files = exchange.result.split()
        return [Call("open_pull_request", {"branch": exchange.call.arguments["branch"], "files": files})]
    return []


# --- telling the user -----------------------------------------------------------------------------------------------


def _tell(exchange: Exchange, denial: Mapping[str, Any] | None, corrected: bool) -> str:
    """One line on one call, in the words of the tool or of the denial."""
    if denial is None:
        first, *more = exchange.result.strip().splitlines() or ["done"]
        return f"{first} and {len(more)} more" if more else first
    why = denial.get("message") or denial.get("summary")
    return f"refused: {why}; so I did it another way" if corrected else f"not done: {why}"
