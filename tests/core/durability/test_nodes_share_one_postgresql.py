"""Four nodes on one PostgreSQL with 64 agents: caps exact, no fork in the log, no action lost or doubled."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from postgres_nodes import Run, check, prepare

if TYPE_CHECKING:
    from postgres_server import PostgresServer


def test_what_many_nodes_were_answered_is_what_the_log_says(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    """Undisturbed: a cap that all want, events that are recorded once."""
    run = Run(postgres_url, "org_nodes", prepare(postgres_url, "org_nodes", tmp_path), agents=8, events=6)
    run.go(postgres_server, [], random.Random(0))
    check(run)


def test_nodes_that_are_killed_and_cut_off_lose_and_double_nothing(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    """One node dies, connections are cut, and the database crashes."""
    run = Run(postgres_url, "org_nodes", prepare(postgres_url, "org_nodes", tmp_path), agents=8, events=10)
    run.go(postgres_server, ["kill", "cut", "immediate", "kill"], random.Random(1))
    check(run)


@pytest.mark.soak
@pytest.mark.timeout(3600)  # ten minutes are not enough for all where the machine has other work
def test_nodes_lose_and_double_nothing_fifty_times_of_fifty(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    """Killed at random, connections cut, the database stopped in an orderly way or crashed: 50 runs of 64 agents."""
    chance = random.Random(5)
    for number in range(50):
        organisation = f"org_{number}"
        disturbances = ["kill", "kill", "cut", "cut", chance.choice(["fast", "immediate"])]
        chance.shuffle(disturbances)
        print(f"run {number}: {', '.join(disturbances)}")
        run = Run(postgres_url, organisation, prepare(postgres_url, organisation, tmp_path))
        run.go(postgres_server, disturbances, chance)
        check(run)
