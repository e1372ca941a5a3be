"""A node that is killed between sending and recording, by the receiver itself, at the worst moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from webhook_world import PATIENCE, World, receiving, until

PROGRAM = Path(__file__).with_name("delivering.py")


def begin(world: World, node: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), str(world.path), node], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_what_a_killed_node_had_sent_comes_again_under_the_same_id(world: World) -> None:
    """The receiver kills the node as soon as it has a message. Each message arrives, and one that comes twice has one
    id both times.
    """
    with receiving() as receiver:
        world.desk.add("hook", receiver.url, events=["action.executed"])
        for round_number in range(3):
            before = len(receiver.requests)
            process = begin(world, "node")

            def kill(number: int, process: subprocess.Popen[str] = process) -> tuple[int, dict[str, str]]:
                os.kill(process.pid, signal.SIGKILL)
                return 200, {}

            receiver.answer = kill
            world.act(1, round=round_number)
            until(lambda known=before: len(receiver.requests) > known, "a message")
            assert process.wait(PATIENCE) == -signal.SIGKILL
            assert process.stdout is not None
            process.stdout.close()
        receiver.answer = lambda number: (200, {})
        with world.deliverer(node="node"):
            until(lambda: world.told(), "all of them")
        by_action: dict[str, set[str]] = {}
        for request in receiver.requests:
            by_action.setdefault(request.json["data"]["audit_event_id"], set()).add(request.id)
        assert len(by_action) == 3
        assert all(len(ids) == 1 for ids in by_action.values())
        assert len(receiver.requests) > 3
