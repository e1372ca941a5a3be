"""What the tests of the command line share: the policies they run under, and `al` on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

import orjson
from typer.testing import Result

__all__ = ["PATIENCE", "POLICIES", "PROGRAM", "Al", "AlProcess", "Terminal", "document"]

PROGRAM = [sys.executable, "-c", "from agentlattice_cli.main import main; main()"]
PATIENCE = 60.0

POLICIES = """\
version: 1
policies:
  - name: PR Size
    action: pr.open
    effect: allow
    conditions:
      - {field: pr_size, operator: lt, value: 50}
  - name: Deploys
    action: deploy.*
    effect: require_approval
    approval: {timeout: 4h, approvers: ["user:ana", "group:ops"]}
  - name: No secrets
    action: secret.read
    effect: deny
"""

Al = Callable[..., Result]
AlProcess = Callable[..., "subprocess.CompletedProcess[str]"]


class Terminal:
    """`al` on a terminal: what it writes, what is typed."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "200", **environment},
            start_new_session=True,
        )
        os.close(theirs)
        self.text = ""

    def until(self, expected: str) -> str:
        """Everything written so far, once `expected` is part of it."""
        deadline = time.monotonic() + PATIENCE
        while expected not in self.text:
            assert time.monotonic() < deadline, f"{expected!r} never came, only {self.text!r}"
            if not self._read():
                assert expected in self.text, f"ended without {expected!r}: {self.text!r}"
        return self.text

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def end(self) -> int:
        """The exit code, once everything was read."""
        while self._read():
            pass
        os.close(self._ours)
        return self.process.wait(PATIENCE)

    def _read(self) -> bool:
        ready = connection.wait([self._ours], PATIENCE)
        assert ready, f"nothing more came after {self.text!r}"
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # the other end was closed
            return False
        self.text += data.decode().replace("\r\n", "\n")
        return bool(data)


def document(result: Result | subprocess.CompletedProcess[str]) -> Any:
    """The one JSON document that a command printed."""
    return orjson.loads(result.stdout)
