"""Drafts a least-privilege document from recorded actions.

- Every action that ran is allowed by the draft, and little else: action types and agents as seen, numbers within
  their range, short sets of texts, ceilings for sensitivity and count, the largest amount and day, the hours.
- What policy kept from running is left out, and said: an attempt is no reason to allow it. An action type of which
  a person was always asked goes on asking.
- A draft is for a person to edit: each bound has a comment that says what it was observed from, and what
  could not be bounded is said too.
- One pass over the records. What is kept does not grow with their number: ranges, small sets, and one running
  day.
- Texts enter the draft only where they look like one of a few choices, never where they look like content, and only
  as quoted YAML: what an agent wrote must not become a line of policy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from agentlattice_core.actions import SENSITIVITIES, Action
from agentlattice_core.policy.fields import ACTION_FIELDS, DATA_FIELDS
from agentlattice_core.policy.reader import DAYS
from agentlattice_core.policy.rules import exact_sum
from agentlattice_core.policy.simulate import RecordedAction

__all__ = ["suggest"]

_MOST_CHOICES = 8
_MOST_AGENTS = 20
_MOST_FIELDS = 40
_LONGEST_CHOICE = 64
_FEWEST_FOR_HOURS = 20
_FEWEST_DATES_FOR_WEEKDAYS = 7
_LARGEST_CAP = Decimal(10) ** 20
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_\-]{0,99}")
_CURRENCY = re.compile(r"[A-Z0-9]{3,10}")
_NOT_BARE = (*DATA_FIELDS, "agent", "time", "metadata", "true", "false", "null")
"""Names of arguments that mean something else where they stand alone, in whatever case."""


def suggest(records: Iterable[RecordedAction], since: datetime | None = None) -> str:
    """The draft, as YAML. `records` are in the order of their times.

    Of those before `since` (aware) nothing is drafted: what they spent on its day, in UTC, belongs to that day's total.
    """
    observed: dict[str, _Observed] = {}
    total = 0
    for recorded in records:
        seen = observed.setdefault(recorded.action.action_type, _Observed())
        if since is not None and recorded.at < since:
            if recorded.at.astimezone(UTC).date() == since.astimezone(UTC).date() and recorded.ran:
                seen.see_spend(recorded)
            continue
        total += 1
        seen.see(recorded)
    drafted = {action_type: seen for action_type, seen in sorted(observed.items()) if seen.seen}
    lines = [
        f"# Drafted from {_counted(total, 'recorded action')} of {_counted(len(drafted), 'type')}. "
        "It allows what ran and little else.",
        "# Read it, widen what is too narrow, and delete what should not have happened.",
        "version: 1",
        "",
        "policies:" if drafted else "policies: []",
    ]
    for number, (action_type, seen) in enumerate(drafted.items(), start=1):
        lines.extend(seen.draft(action_type, number))
    refused = {action_type: seen.refused for action_type, seen in sorted(observed.items()) if not seen.seen}
    for action_type, times in refused.items():
        if times:
            lines.extend(
                ["", f"  # {action_type}: asked for {_times(times)} and never allowed, so it is left out"]
            )
    return "\n".join(lines) + "\n"


@dataclass(slots=True)
class _Values:
    """What one argument looked like: the range of its numbers, or its few texts."""

    seen: int = 0
    lowest: int | float | None = None
    highest: int | float | None = None
    choices: dict[str | bool, None] | None = field(default_factory=dict)
    mixed: bool = False

    def see(self, value: Any) -> None:
        self.seen += 1
        kind = type(value)
        if kind is int or kind is float:
            self.mixed = self.mixed or bool(self.choices) or self.choices is None
            self.lowest = value if self.lowest is None else min(self.lowest, value)
            self.highest = value if self.highest is None else max(self.highest, value)
        elif (kind is str and 0 < len(value) <= _LONGEST_CHOICE and value.isprintable()) or kind is bool:
            self.mixed = self.mixed or self.lowest is not None
            if self.choices is not None:
                self.choices[value] = None
                if len(self.choices) > _MOST_CHOICES:
                    self.choices = None
        else:
            self.choices = None

    def bound(self) -> tuple[str, str] | None:
        """The operator and value that hold for all that was seen, or None if it cannot be bounded."""
        if self.mixed:
            return None
        if self.lowest is not None and self.choices == {}:
            return "between", f"[{json.dumps(self.lowest)}, {json.dumps(self.highest)}]"
        # Fewer sightings than this and a few different texts say nothing about which ones there are.
        if self.choices and self.seen >= 3 * len(self.choices):
            return "in", f"[{', '.join(_quoted(choice) for choice in self.choices)}]"
        return None


@dataclass(slots=True)
class _Spend:
    """What was spent in one currency: the largest amount and the largest day."""

    seen: int = 0
    largest: Decimal = Decimal(0)
    largest_day: Decimal = Decimal(0)
    day: str = ""
    today: Decimal = Decimal(0)

    def see(self, amount: Decimal) -> None:
        self.seen += 1
        self.largest = max(self.largest, amount)
        self.largest_day = max(self.largest_day, self.today)

    def charge(self, amount: Decimal, at: datetime) -> None:
        day = at.date().isoformat()
        self.today = exact_sum(self.today, amount) if day == self.day else amount
        self.day = day


@dataclass(slots=True)
class _Observed:
    """All that was seen of one action type."""

    seen: int = 0
    asked: int = 0
    denied: int = 0
    refused: int = 0
    agents: dict[str, None] | None = field(default_factory=dict)
    arguments: dict[str, _Values] = field(default_factory=dict)
    left_out: int = 0
    beneficiaries: _Values = field(default_factory=_Values)
    categories: _Values = field(default_factory=_Values)
    sensitivity: int = -1
    count: int = 0
    with_data: int = 0
    amounts: int = 0
    spend: dict[str, _Spend] = field(default_factory=dict)
    hours: set[int] = field(default_factory=set)
    weekdays: set[int] = field(default_factory=set)
    dates: int = 0
    last_date: str = ""

    def see(self, recorded: RecordedAction) -> None:
        if not recorded.ran:
            self.refused += 1
            return
        action, at = recorded.action, recorded.at.astimezone(UTC)
        self.seen += 1
        self.asked += recorded.outcome == "require_approval"
        self.denied += recorded.outcome == "deny"
        if self.agents is not None:
            self.agents[recorded.agent.root.name] = None
            if len(self.agents) > _MOST_AGENTS:
                self.agents = None
        for name, value in action.metadata.items():
            if value is None or name in ACTION_FIELDS:
                continue
            if name not in self.arguments and (
                len(self.arguments) >= _MOST_FIELDS or not _PLAIN_NAME.fullmatch(name)
            ):
                self.left_out += 1
                continue
            self.arguments.setdefault(name, _Values()).see(value)
        if action.beneficiary is not None:
            self.beneficiaries.see(action.beneficiary)
        if action.category is not None:
            self.categories.see(action.category)
        if action.amount is not None:
            self.amounts += 1
            spend = self.see_spend(recorded)
            if spend is not None:
                spend.see(action.amount)
        self._see_data(action)
        self.hours.add(at.hour)
        self.weekdays.add(at.weekday())
        date = at.date().isoformat()
        self.dates += date != self.last_date
        self.last_date = date

    def see_spend(self, recorded: RecordedAction) -> _Spend | None:
        """Charge what was spent to its day, if it is in one of the first few currencies."""
        amount, currency = recorded.action.amount, recorded.action.currency
        if amount is None or currency is None or not _CURRENCY.fullmatch(currency):
            return None
        if currency not in self.spend and len(self.spend) >= _MOST_CHOICES:
            return None
        spend = self.spend.setdefault(currency, _Spend())
        spend.charge(amount, recorded.at.astimezone(UTC))
        return spend

    def _see_data(self, action: Action) -> None:
        items = action.data_accessed
        if not items or any(item.get("sensitivity") is None or "count" not in item for item in items):
            return
        self.with_data += 1
        self.count = max(self.count, sum(item["count"] for item in items))
        self.sensitivity = max(
            self.sensitivity, *(SENSITIVITIES.index(item["sensitivity"]) for item in items)
        )

    def draft(self, action_type: str, number: int) -> Iterator[str]:
        yield ""
        yield f"  # {action_type}: {_times(self.seen)}, on {_counted(self.dates, 'day')}"
        if self.refused:
            yield f"  # asked for {_times(self.refused)} more and never allowed, which is left out"
        yield f"  - name: {_quoted(f'Observed {action_type}')}"
        yield f"    id: observed-{number}"
        yield f"    action: {_quoted(action_type)}"
        if self.denied:
            yield f"    # policy denied it {_times(self.denied)} and was only observed; this draft allows that"
        if self.asked < self.seen:
            if self.asked:
                yield f"    # policy asked a person {_times(self.asked)}, which this draft does not"
            yield "    effect: allow"
        else:
            yield "    # policy always asked a person; say whom and for how long with `approval`"
            yield "    effect: require_approval"
        if self.agents is not None and all(name.isprintable() and name.strip() for name in self.agents):
            yield f"    agents: [{', '.join(_quoted(name) for name in sorted(self.agents))}]"
        else:
            yield f"    # agents: more than {_MOST_AGENTS}, so this is for every agent"
        conditions = list(self._conditions())
        if any(not line.lstrip().startswith("#") for line in conditions):
            yield "    conditions:"
        yield from conditions
        yield from self._rules()

    def _conditions(self) -> Iterator[str]:
        for name, values in sorted(self.arguments.items()):
            path = f"metadata.{name}" if name.lower() in _NOT_BARE else name
            yield from self._bounded(path, values)
        yield from self._bounded("beneficiary", self.beneficiaries)
        yield from self._bounded("category", self.categories)
        if self.left_out:
            left_out = _counted(self.left_out, "argument")
            yield f"      # {left_out} left unbounded: too many, or a name with other characters"
        if self.with_data and self.with_data == self.seen:
            yield f"      # the highest sensitivity and the largest count of {_times(self.with_data)}"
            yield f"      - {{field: sensitivity, operator: lte, value: {SENSITIVITIES[self.sensitivity]}}}"
            yield f"      - {{field: count, operator: lte, value: {self.count}}}"
        hours = f"[{min(self.hours)}, {max(self.hours)}]"
        active = "" if self.seen >= _FEWEST_FOR_HOURS else "# too few to bind: "
        yield f"      # hours in UTC, of {_times(self.seen)}"
        yield f"      {active}- {{field: time.hour, operator: between, value: {hours}, timezone: UTC}}"
        active = "" if self.dates >= _FEWEST_DATES_FOR_WEEKDAYS else "# too few days to bind: "
        days = ", ".join(DAYS[day] for day in sorted(self.weekdays))
        yield f"      {active}- {{field: time.weekday, operator: in, value: [{days}], timezone: UTC}}"

    def _bounded(self, path: str, values: _Values) -> Iterator[str]:
        bound = values.bound()
        if not values.seen:
            return
        if bound is None:
            yield f"      # {path}: seen {_times(values.seen)}, too varied to bound"
            return
        operator, value = bound
        condition = f"{{field: {path}, operator: {operator}, value: {value}}}"
        if values.seen == self.seen:
            yield f"      # seen {_times(values.seen)}"
            yield f"      - {condition}"
        else:
            yield f"      # seen {_times(values.seen)} of {self.seen}, so it may be left out"
            yield f"      - any: [{{field: {path}, operator: exists, value: false}}, {condition}]"

    def _rules(self) -> Iterator[str]:
        if not self.amounts:
            return
        # Other currencies may have been spent before: what is drafted from is what was seen.
        currency, spend = max(self.spend.items(), key=lambda one: one[1].seen, default=("", _Spend()))
        if spend.seen != self.seen or spend.largest_day >= _LARGEST_CAP:
            given = f"an amount was seen {_times(self.amounts)} of {self.seen}"
            yield f"    # spend: {given}, not always in one currency such as EUR, so it is not capped"
            return
        largest, day = format(spend.largest, "f"), format(spend.largest_day, "f")
        yield "    rules:"
        yield f"      # the largest amount of {_times(spend.seen)}; more needs a person"
        yield (
            f'      - {{priority: 10, type: AMOUNT_THRESHOLD, above: "{largest}", currency: {currency},'
            " effect: REQUIRE_HUMAN}"
        )
        if not spend.largest_day:
            return
        yield f"      # the largest day, in UTC, over all agents, of {_counted(self.dates, 'day')}"
        yield (
            f'      - {{priority: 20, type: DAILY_CAP, cap: "{day}", currency: {currency}, per: organisation,'
            " timezone: UTC, effect: REJECT}"
        )


def _quoted(value: str | bool) -> str:
    return json.dumps(value, ensure_ascii=False)


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
