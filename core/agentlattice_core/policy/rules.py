"""Spend rules, compiled once: whether one fires, why, and what it charges.

- A rule *matches* when its selectors (agents, categories) do; a selector whose subject is absent on the
  action does not.
- A rule that matches *fires* when its measure says so. Where the measured input (amount, beneficiary) is
  missing or in another currency it fires too, except AUTO_APPROVE, which then does not: what cannot be
  measured is never let through.
- Every cap that matches is charged, whether it fires or not. A cap per agent charges the whole delegation
  chain.
- A limit key is `counter|per:subject|YYYY-MM-DD@Zone|CURRENCY`, the date being local to the rule's zone.
  Subjects are escaped, so that none can spell another's key.
- Tags and caps come from the registry, never from what the action says of itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Context, Decimal, Inexact
from typing import Any, TypeAlias

from agentlattice_core.actions import parse_amount
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.policy.decision import Charge, Facts
from agentlattice_core.policy.model import Policy, Rule
from agentlattice_core.policy.reader import DAYS, load_zone
from agentlattice_core.results import RuleResult

__all__ = ["CompiledRule", "Registries", "RuleFindings", "charge_once", "compile_rule", "exact_sum"]

Registries: TypeAlias = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(slots=True)
class RuleFindings:
    """What walking rules found: those that fired, what to charge by limit key, missing fields, and what those that
    fired have to say (None: nobody asks).
    """

    fired: list[Rule] = field(default_factory=list)
    results: list[RuleResult] | None = field(default_factory=list)
    charges: dict[str, Charge] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Measured:
    """What a rule measured. `fires` None: it could not be measured. `told` says why, with details, if somebody asks."""

    fires: bool | None
    told: Callable[[], tuple[str, dict[str, Any]]]
    missing: str | None = None


_QUIET = _Measured(False, lambda: ("", {}))
"""The measure of every rule that does not fire."""

_Measure: TypeAlias = Callable[[Facts, Registries, RuleFindings], _Measured]

CompiledRule: TypeAlias = Callable[[Facts, Registries, RuleFindings], None]
"""Walks one rule: adds to the findings what it fires and charges."""


def compile_rule(rule: Rule, policy: Policy, part_id: str) -> CompiledRule:
    """The rule of `policy`; `part_id` names its counter where it names none."""
    matches = _selectors(rule)
    measure = _measure_of(rule, part_id)
    lenient = rule.effect == "AUTO_APPROVE"
    open_handed = policy.explain == "full"

    def walk(facts: Facts, registries: Registries, findings: RuleFindings) -> None:
        if matches is not None and not matches(facts):
            return
        measured = measure(facts, registries, findings)
        if measured.fires is False or (measured.fires is None and lenient):
            return
        if measured.fires is None and measured.missing:
            findings.missing.append(measured.missing)
        findings.fired.append(rule)
        if findings.results is None:
            return
        why, details = measured.told()
        # What was measured may be for the log only; what the author wrote is for the agent.
        message = rule.message or (why if open_handed else None)
        details = {**details, "why": why}
        findings.results.append(
            RuleResult(policy.name, rule.priority, rule.type, rule.effect, message, details)
        )

    return walk


def _selectors(rule: Rule) -> Callable[[Facts], bool] | None:
    """Whether the rule is about an action; None: it is about every one."""
    agents, excepted, categories = (
        frozenset(rule.agents),
        frozenset(rule.except_agents),
        frozenset(rule.categories),
    )
    if not agents and not excepted and not categories:
        return None

    def matches(facts: Facts) -> bool:
        root = facts.agent.root
        if agents and root.name not in agents and root.id not in agents:
            return False
        if excepted and (root.name in excepted or root.id in excepted):
            return False
        return not categories or facts.action.category in categories

    return matches


def _measure_of(rule: Rule, part_id: str) -> _Measure:
    if rule.type == "DAILY_CAP":
        own = _daily_cap(rule, part_id)
    elif rule.type == "BENEFICIARY_WHITELIST":
        own = _whitelist(rule)
    elif rule.type == "TIME_WINDOW":
        own = _time_window(rule)
    else:
        own = _selected(rule)
    return _within_bounds(rule, own) if rule.bounds else own


def _amount_of(rule: Rule, facts: Facts) -> Decimal | _Measured:
    """The action's amount in the rule's currency, or why there is none."""
    action = facts.action
    if action.amount is None:
        return _Measured(None, lambda: ("the action has no amount", {"amount": None}), "amount")
    amount, currency = action.amount, action.currency
    if currency is None:
        return _Measured(None, lambda: ("the action has no currency", {"amount": _text(amount)}), "currency")
    if currency != rule.currency:
        why = f"the amount is in {currency}, and the limit is in {rule.currency}"
        return _Measured(None, lambda: (why, {"amount": _text(amount), "currency": currency}))
    return amount


def _within_bounds(rule: Rule, own: _Measure) -> _Measure:
    bounds, amount_only = rule.bounds, _only_bounds(rule)
    limits = bounds.as_json()
    wording = " and ".join(f"{_WORDS[name]} {value}" for name, value in limits.items())

    def measure(facts: Facts, registries: Registries, findings: RuleFindings) -> _Measured:
        amount = _amount_of(rule, facts)
        if isinstance(amount, _Measured):
            unmeasured = amount
            if amount_only:
                return unmeasured
            # Out of its own measure it does not fire whatever the amount; else the amount decides, and is
            # unknown.
            measured = own(facts, registries, findings)
            return measured if measured.fires is False else unmeasured
        if not bounds.hold(amount):
            return _QUIET
        if not amount_only:
            return own(facts, registries, findings)
        return _Measured(True, lambda: told(amount))

    def told(amount: Decimal) -> tuple[str, dict[str, Any]]:
        details = {"amount": _text(amount), "currency": rule.currency, **limits}
        return f"the amount {_text(amount)} {rule.currency} is {wording}", details

    return measure


def _only_bounds(rule: Rule) -> bool:
    """Whether being within its bounds is all that the rule measures."""
    return rule.registry is None and rule.type in ("AMOUNT_THRESHOLD", "AGENT_SCOPE", "CATEGORY_BLOCKLIST")


_WORDS = {"min": "at least", "above": "above", "max": "at most", "below": "below"}


def _selected(rule: Rule) -> _Measure:
    """AGENT_SCOPE and CATEGORY_BLOCKLIST without bounds: the selectors are the measure."""

    def measure(facts: Facts, registries: Registries, findings: RuleFindings) -> _Measured:
        category = facts.action.category
        if rule.type == "CATEGORY_BLOCKLIST":
            if rule.registry is not None:
                return _listed(rule.registry, category, registries)
            return _Measured(True, lambda: (f"category `{category}` is blocked", {"category": category}))
        agent = facts.agent.root.name
        where = f" for category `{category}`" if rule.categories else ""
        details = {"agent": agent, "category": category}
        return _Measured(True, lambda: (f"agent `{agent}` is limited{where}", details))

    return measure


def _listed(registry: str, category: str | None, registries: Registries) -> _Measured:
    """Whether the category is in the registry. An action without one is in none."""
    details: dict[str, Any] = {"category": category, "registry": registry}
    if registry not in registries:
        return _Measured(None, lambda: (f"there is no registry `{registry}`", details))
    listed = category is not None and _entry(registries, registry, category) is not None
    return _Measured(listed, lambda: (f"category `{category}` is blocked by `{registry}`", details))


def _time_window(rule: Rule) -> _Measure:
    zone = load_zone(rule.timezone or "UTC")
    days = frozenset(rule.days or DAYS)
    start, end, inside = rule.start, rule.end, rule.when == "inside"
    hours = f"{start // 60:02d}:{start % 60:02d}-{end // 60:02d}:{end % 60:02d}"
    window = f"{', '.join(rule.days) or 'any day'} {hours} {rule.timezone}"

    def measure(facts: Facts, registries: Registries, findings: RuleFindings) -> _Measured:
        local = facts.now.astimezone(zone)
        minute, weekday = local.hour * 60 + local.minute, local.weekday()
        if start < end:
            within = start <= minute < end and DAYS[weekday] in days
        else:
            # Overnight: the hours after midnight belong to the day on which the window opened.
            within = (minute >= start and DAYS[weekday] in days) or (
                minute < end and DAYS[weekday - 1] in days
            )
        if within is not inside:
            return _QUIET
        return _Measured(True, lambda: told(local))

    def told(local: datetime) -> tuple[str, dict[str, Any]]:
        at = f"{DAYS[local.weekday()]} {local:%H:%M}"
        return f"{at} is {'in' if inside else 'out'}side {window}", {"time": at, "window": window}

    return measure


def _whitelist(rule: Rule) -> _Measure:
    values = frozenset(rule.values)

    def measure(facts: Facts, registries: Registries, findings: RuleFindings) -> _Measured:
        beneficiary = facts.action.beneficiary
        if beneficiary is None:
            return _Measured(
                None, lambda: ("the action names no beneficiary", {"beneficiary": None}), "beneficiary"
            )
        details: dict[str, Any] = {"beneficiary": beneficiary}
        if rule.registry is None:
            known = beneficiary in values
            return _Measured(not known, lambda: (f"beneficiary `{beneficiary}` is not on the list", details))
        details["registry"] = rule.registry
        if rule.registry not in registries:
            return _Measured(None, lambda: (f"there is no registry `{rule.registry}`", details))
        entry = _entry(registries, rule.registry, beneficiary)
        if entry is None:
            return _Measured(
                True, lambda: (f"beneficiary `{beneficiary}` is not in `{rule.registry}`", details)
            )
        if rule.require_tag is None:
            return _QUIET
        tags = entry.get("tags")
        tagged = isinstance(tags, list | tuple | set | frozenset) and rule.require_tag in tags
        details["require_tag"] = rule.require_tag
        return _Measured(
            not tagged, lambda: (f"beneficiary `{beneficiary}` is not tagged `{rule.require_tag}`", details)
        )

    return measure


def _entry(registries: Registries, registry: str, value: str) -> Mapping[str, Any] | None:
    entries = registries.get(registry)
    entry = entries.get(value) if entries is not None else None
    return entry if isinstance(entry, Mapping) else None


def _daily_cap(rule: Rule, part_id: str) -> _Measure:
    zone_name = rule.timezone or "UTC"
    zone = None if zone_name == "UTC" else load_zone(zone_name)
    counter = rule.counter or f"{part_id}/{rule.priority}"
    currency, per = rule.currency or "", rule.per
    date_at = _local_dates(zone or UTC)
    # A cap that asks a person is only counted: what the person approves may pass it.
    hard = rule.effect == "REJECT"

    def measure(facts: Facts, registries: Registries, findings: RuleFindings) -> _Measured:
        amount = _amount_of(rule, facts)
        if isinstance(amount, _Measured):
            return amount
        subjects = _subjects(rule, facts)
        if not subjects:
            return _Measured(None, lambda: (f"the action names no {rule.per}", {rule.per: None}), rule.per)
        cap = rule.cap if rule.cap_from is None else _cap_from(rule, facts, registries)
        date = date_at(facts.now)
        highest = Decimal(0)
        for subject in subjects:
            spelled = subject.translate(_ESCAPES) if "|" in subject or "%" in subject else subject
            key = f"{counter}|{per}:{spelled}|{date}@{zone_name}|{currency}"
            highest = max(highest, facts.usage(key))
            scope = {
                "counter": counter,
                "per": per,
                "subject": subject,
                "date": date,
                "timezone": zone_name,
                "currency": currency,
            }
            charge = Charge(key, amount, cap if hard else None, rule.release_on_failure, scope)
            charge_once(findings.charges, charge)
        if cap is None:
            what, who = _capped(rule, facts)
            why = f"{what} `{who}` has no `{rule.cap_from}` in `{rule.registry}`"
            return _Measured(None, lambda: (why, {"cap_from": rule.cap_from}))
        if exact_sum(highest, amount) <= cap:
            return _QUIET
        used, limit = highest, cap
        return _Measured(True, lambda: told(amount, used, limit, date))

    def told(amount: Decimal, used: Decimal, cap: Decimal, date: str) -> tuple[str, dict[str, Any]]:
        details = {
            "amount": _text(amount),
            "used": _text(used),
            "cap": _text(cap),
            "remaining": _text(max(_EXACT.subtract(cap, used), Decimal(0))),
            "currency": currency,
            "per": rule.per,
            "date": date,
            "timezone": zone_name,
        }
        why = (
            f"{_text(amount)} {currency} on top of today's {_text(used)}"
            f" would exceed the daily cap of {_text(cap)}"
        )
        return why, details

    return measure


def _local_dates(zone: tzinfo) -> Callable[[datetime], str]:
    """The date at a time in `zone`, remembered for as long as the minute lasts: clocks are set forward and back, and
    days begin, on whole minutes.
    """
    known: tuple[datetime | None, str] = (None, "")

    def date_at(now: datetime) -> str:
        nonlocal known  # any number of threads may, each replacing it by what is true
        minute, date = known
        if minute is None or not _NO_TIME <= now - minute < _MINUTE:
            minute = now.replace(second=0, microsecond=0)
            date = minute.astimezone(zone).date().isoformat()
            known = (minute, date)
        return date

    return date_at


_NO_TIME, _MINUTE = timedelta(0), timedelta(minutes=1)


# The default context would round a sum to 28 digits; amounts alone have up to 38.
_EXACT = Context(prec=100, traps=[Inexact])
_ESCAPES = str.maketrans({"%": "%25", "|": "%7C"})


def _subjects(rule: Rule, facts: Facts) -> tuple[str, ...]:
    if rule.per == "agent":
        agent = facts.agent
        return (
            (agent.id,)
            if not agent.ancestors
            else tuple(dict.fromkeys(member.id for member in agent.lineage))
        )
    if rule.per == "organisation":
        return ("all",)
    subject = facts.action.beneficiary if rule.per == "beneficiary" else facts.action.category
    return () if subject is None else (subject,)


def _capped(rule: Rule, facts: Facts) -> tuple[str, str | None]:
    """Whose entry holds the cap: the category's where the cap is per category, else the beneficiary's."""
    if rule.per == "category":
        return "category", facts.action.category
    return "beneficiary", facts.action.beneficiary


def _cap_from(rule: Rule, facts: Facts, registries: Registries) -> Decimal | None:
    assert rule.registry is not None
    assert rule.cap_from is not None
    value: Any = _entry(registries, rule.registry, _capped(rule, facts)[1] or "")
    for name in rule.cap_from.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    try:
        return None if value is None else parse_amount(value)
    except InvalidRequestError:
        return None


def charge_once(charges: dict[str, Charge], charge: Charge) -> None:
    """Add a charge. Rules that share a counter charge it once, under the lowest cap, released only if all say
    so.
    """
    other = charges.get(charge.key)
    if other is not None:
        caps = [cap for cap in (other.cap, charge.cap) if cap is not None]
        release = other.release_on_failure and charge.release_on_failure
        charge = Charge(charge.key, charge.amount, min(caps, default=None), release, charge.scope)
    charges[charge.key] = charge


def exact_sum(first: Decimal, second: Decimal) -> Decimal:
    """The sum with all its digits."""
    return _EXACT.add(first, second)


def _text(amount: Decimal) -> str:
    return format(amount, "f")
