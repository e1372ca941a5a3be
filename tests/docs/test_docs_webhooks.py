"""The page on webhooks: its commands work as they stand, and what it says of retries is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from doc_pages import ROOT, blocks, run_console

from agentlattice_core import AgentLattice
from agentlattice_core.notifications import EVENT_TYPES
from agentlattice_core.webhooks import TEMPLATES
from agentlattice_server.webhooks.attempting import SCHEDULE
from agentlattice_server.webhooks.deliverer import DEAD_IN_A_ROW
from agentlattice_server.webhooks.posting import DEADLINE

PAGE = (ROOT / "docs" / "webhooks.md").read_text(encoding="utf-8")
_UNITS = {"s": 1, "min": 60, "h": 3600}


def test_its_commands_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adding and listing are typed as the page says."""
    monkeypatch.chdir(tmp_path)
    with AgentLattice.embedded("governance.db", agent="a") as al:
        al.execute_sync("db.migrate")
    shown = [block for block in blocks("docs/webhooks.md") if block.language == "console"]
    assert shown
    for block in shown:
        run_console(block)


def test_what_it_says_of_retries_is_what_happens() -> None:
    """The schedule, the patience and the number of dead letters are those of the code."""
    said = re.search(r"tried again after ([^;]+);", PAGE)
    assert said is not None
    waits = [part.split() for part in said[1].split(", ")]
    assert [int(number) * _UNITS[unit] for number, unit in waits] == [
        wait.total_seconds() for wait in SCHEDULE
    ]
    assert f"2xx within {DEADLINE:g} s" in PAGE
    assert "failed eight times" in PAGE
    assert len(SCHEDULE) + 1 == 8
    assert "five messages in a row" in PAGE
    assert DEAD_IN_A_ROW == 5


def test_the_names_that_it_uses_are_those_there_are() -> None:
    """Templates and events on the page exist."""
    assert set(re.findall(r"--template (\w+)", PAGE)) <= set(TEMPLATES)
    named = set(re.findall(r"--event ([\w.]+)", PAGE))
    assert named
    assert named <= set(EVENT_TYPES)
