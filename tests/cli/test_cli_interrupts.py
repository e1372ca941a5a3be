"""Ctrl-C ends a command that waits, also if the signal did not wake it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from cli_world import PATIENCE

from agentlattice_core import AgentLattice

# A thread takes the signal, as the kernel may choose; the main thread goes on waiting as if it had just missed it.
_ANOTHER_THREAD_IS_TOLD = """
import signal, sys, threading, time

def take():
    sys.stdin.readline()
    time.sleep(1)  # a wait that has not begun would see the signal by itself, and nothing would be tested
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    threading.Event().wait()

threading.Thread(target=take, daemon=True).start()
from agentlattice_cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gate", "deploy.production", "--agent", "ci"], "waiting for a person"),
        (["webhooks", "listen"], "listening; Ctrl-C ends it"),
    ],
    ids=["gate", "listen"],
)
def test_an_interrupt_that_wakes_nobody_is_heard(
    governed: AgentLattice, arguments: list[str], says: str
) -> None:
    """Nobody decides and nothing happens, and the command ends all the same, quietly and with 130."""
    process = subprocess.Popen(
        [sys.executable, "-c", _ANOTHER_THREAD_IS_TOLD, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(says)
        assert process.communicate("\n", timeout=PATIENCE) == ("", "")
        assert process.returncode == 130
    finally:
        process.kill()
        process.wait()
