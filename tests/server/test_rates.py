"""How often a key may call: never more than its budget in any minute, and told truly when to come back."""

from __future__ import annotations

import random

import pytest

from agentlattice_server.problems import RequestError
from agentlattice_server.rates import RateLimits


class Clock:
    """Seconds as a test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def admitted(rates: RateLimits, key: str = "k", *, waiting: bool = False) -> int:
    """0 if a call is admitted, else after how many seconds it may be made again."""
    try:
        rates.count(key, waiting=waiting)
    except RequestError as error:
        return int((error.headers or {})["Retry-After"])
    return 0


@pytest.mark.parametrize("budget", [1, 2, 7, 60])
def test_whoever_comes_back_when_told_is_admitted_and_not_much_earlier(budget: int) -> None:
    """A key that calls at random gets no more than its budget in a minute by the clock; `Retry-After` is right to the
    second.
    """
    chance, clock = random.Random(budget), Clock()
    rates = RateLimits(budget, clock)
    calls: list[float] = []
    for _ in range(600):
        wait = admitted(rates)
        if wait == 0:
            calls.append(clock.now)
            clock.now += chance.choice([0.0, 0.0, 0.0, 1.0, 20.0, 90.0])
            continue
        assert 1 <= wait <= 120
        clock.now += max(wait - 1, 0) * 0.999
        if wait > 1:
            assert admitted(rates) > 0
        clock.now += wait - max(wait - 1, 0) * 0.999 + 1e-6
        assert admitted(rates) == 0
        calls.append(clock.now)
    for start in range(16, 16 + int(calls[-1] // 60)):
        assert sum(start * 60 <= call < (start + 1) * 60 for call in calls) <= budget


def test_keys_and_budgets_are_apart_and_the_old_is_forgotten() -> None:
    """One key's calls cost another nothing, asking how a request stands has a budget of its own, and time heals."""
    clock = Clock()
    rates = RateLimits(2, clock)
    assert [admitted(rates, "a") for _ in range(2)] == [0, 0]
    assert admitted(rates, "a") > 0
    assert admitted(rates, "b") == 0
    assert [admitted(rates, "a", waiting=True) for _ in range(40)] == [0] * 40
    assert admitted(rates, "a", waiting=True) > 0
    clock.now += 121
    assert [admitted(rates, "a") for _ in range(2)] == [0, 0]
    unlimited = RateLimits(0, clock)
    assert [admitted(unlimited) for _ in range(100)] == [0] * 100
