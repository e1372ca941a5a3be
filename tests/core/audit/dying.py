"""A process that is killed at one of its calls of the system."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

from agentlattice_core.engine import Engine, open_engine

__all__ = ["lives_through"]


def lives_through(
    database: Path,
    prepare: Callable[[Engine], Callable[[], object]],
    point: int,
    calls: Iterable[str],
) -> bool:
    """Do what `prepare` returns in a child that is killed at its `point`-th of these `calls`, functions of `os`.

    Returns whether it lived to the end.
    """
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    try:
        act = prepare(open_engine(database))
        called = 0

        def dying(original: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **options: object) -> object:
                nonlocal called
                called += 1
                if called == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*args, **options)

            return call

        for name in calls:
            setattr(os, name, dying(getattr(os, name)))
        act()
        os._exit(0)
    finally:
        os._exit(3)
