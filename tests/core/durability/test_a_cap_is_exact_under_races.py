"""A cap of 100, with 8 threads in each of 4 processes racing for it and a restart in between, ends at exactly 100."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

POLICIES = """
version: 1
policies:
  - name: Refunds
    action: refund.issue
    effect: allow
    rules:
      - {priority: 40, type: DAILY_CAP, cap: "100", currency: EUR, timezone: Etc/GMT+12, effect: REJECT}
"""
SPENDER = Path(__file__).parent / "spender.py"


def race(directory: Path, mutant: str = "") -> int:
    """How much was allowed in all. Two waves: the second opens what the first has closed."""
    directory.mkdir()
    (directory / "policies.yaml").write_text(POLICIES)
    allowed = 0
    for tries in ("2", "3"):
        arguments = [str(directory / "governance.db"), str(directory / "policies.yaml"), mutant, tries]
        processes = [
            subprocess.Popen([sys.executable, str(SPENDER), *arguments], stdout=subprocess.PIPE)
            for _ in range(4)
        ]
        for process in processes:
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0
            allowed += int(output)
    return allowed


def test_the_cap_is_exact(tmp_path: Path) -> None:
    assert race(tmp_path / "races") == 100


def test_a_limit_without_the_lock_is_caught(tmp_path: Path) -> None:
    assert any(race(tmp_path / str(number), "mutant") > 100 for number in range(3))


@pytest.mark.soak
def test_the_cap_is_exact_fifty_times_of_fifty(tmp_path: Path) -> None:
    assert [race(tmp_path / str(number)) for number in range(50)] == [100] * 50
