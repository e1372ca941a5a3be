"""What holds for every test."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from postgres_server import PostgresServer

# How long an example takes says something about the machine and nothing about the promise.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# No test speaks TLS with a stranger, but each HTTP client would read the certificates of all authorities there are.
# This one has signed nothing.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("offline") / "authority.pem")

# The programs that tests start find what the ones before them compiled, as installed programs do.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# What a shell starts in the background ignores Ctrl-C, and so would the programs that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--begin-until` and `--turn`, for where time is short."""
    parser.addoption(
        "--begin-until", type=float, metavar="TIME", help="Unix time after which no further test is begun."
    )
    parser.addoption(
        "--turn", type=int, default=0, metavar="N", help="Begin with the Nth file, not the first."
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Three workers for two processors: a test waits for a disk or another process half of its time."""
    processors = os.cpu_count() or 1
    return processors + processors // 2


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where there is not time for all, another file begins each time."""
    turn: int = config.getoption("--turn")
    files = list(dict.fromkeys(item.path for item in items))
    place = {path: (n - turn) % len(files) for n, path in enumerate(files)}
    items.sort(key=lambda item: place[item.path])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Say of each test that was not begun that it was not."""
    until = item.config.getoption("--begin-until")
    if until is not None and time.time() > until:
        pytest.skip("no time was left for it; `pytest -m soak` runs it")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server, brought up when the first test asks for it."""
    from postgres_server import running_server

    with running_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """The URL of an empty PostgreSQL database."""
    return postgres_server.new_database()
