"""docs/python.md shows the client as it is: its programs run, and nothing that is public is left out."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from doc_pages import ROOT, follow

import agentlattice_core
from agentlattice_core import AgentLattice, AgentLatticeError
from agentlattice_core.notifications import EVENT_TYPES

_CODE = " ".join(re.findall(r"`([^`\n]+)`", (ROOT / "docs/python.md").read_text(encoding="utf-8")))
NAMED = {*re.findall(r"\w+", _CODE), *re.findall(r"\w+\.\w+", _CODE)}


def test_what_the_page_shows_runs_and_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening, acting, looking, deciding, being told and testing, in one directory and in order."""
    monkeypatch.chdir(tmp_path)
    follow("docs/python.md")


def test_every_method_of_the_client_is_named() -> None:
    """A method that is added to the client needs a line on its page; `over` is for who builds a service."""
    public = {name for name in dir(AgentLattice) if not name.startswith("_")} - {"over"}
    assert {name for name in public if not {name, name.removesuffix("_sync")} & NAMED} == set()


def test_every_argument_of_embedded_is_named() -> None:
    """So does an argument of `embedded`."""
    assert set(inspect.signature(AgentLattice.embedded).parameters) - NAMED == set()


def test_every_error_is_named_with_its_code() -> None:
    """So does an error that the package exports, and every notification that a subscriber can hear of."""
    errors = {
        name
        for name in agentlattice_core.__all__
        if isinstance(one := getattr(agentlattice_core, name), type) and issubclass(one, AgentLatticeError)
    }
    assert errors - NAMED == set()
    assert set(EVENT_TYPES) - NAMED == set()
