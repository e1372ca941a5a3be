"""The coverage report: every tool once, readable, and strict when asked to be."""

from __future__ import annotations

import pytest

from agentlattice_core.errors import AgentLatticeError
from agentlattice_core.toolcalls import Coverage


def _report() -> Coverage:
    report = Coverage()
    report.add("open_pr", action_type="pr.open")
    report.add("search", kind="hosted", status="refused", why="the provider runs it")
    return report


def test_every_tool_is_listed_once_per_owner() -> None:
    """Seeing a tool again updates its line; another agent's tool of that name is another line."""
    report = _report()
    report.add("open_pr", action_type="pr.open2")
    report.add("open_pr", action_type="pr.open", owner="helper")
    assert [(tool.owner, tool.name, tool.action_type) for tool in report if tool.kind == "function"] == [
        (None, "open_pr", "pr.open2"),
        ("helper", "open_pr", "pr.open"),
    ]


def test_what_is_not_governed_must_say_why() -> None:
    """A report cannot leave a gap unexplained, nor invent a status."""
    with pytest.raises(ValueError, match="without saying why"):
        Coverage().add("x", status="refused")
    with pytest.raises(ValueError, match="not one of"):
        Coverage().add("x", status="fine", why="x")  # type: ignore[arg-type]


def test_an_open_gap_can_be_made_an_error() -> None:
    """`raise_if_uncovered` passes over refused tools and names those that can run undecided."""
    report = _report()
    report.raise_if_uncovered()
    report.add("shell", status="not_coverable", why="runs on the provider's machines")
    with pytest.raises(
        AgentLatticeError, match="1 of 3 tools can run without being decided on: `shell`"
    ) as caught:
        report.raise_if_uncovered()
    assert caught.value.code == "UNCOVERED_TOOLS"


def test_the_report_prints_as_a_table_and_as_data() -> None:
    """One line per tool and a count; the same as JSON members."""
    report = _report()
    assert str(report).splitlines() == [
        "tool     kind      status    action type  why",
        "open_pr  function  governed  pr.open",
        "search   hosted    refused   -            the provider runs it",
        "2 tools: 1 governed, 1 refused, 0 not coverable",
    ]
    assert report.to_dict()["counts"] == {"governed": 1, "refused": 1, "not_coverable": 0}
    assert report.to_dict()["tools"][0]["action_type"] == "pr.open"
