"""Tracing stays on, as by default, and exports nothing; files to call tools on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from agents.tracing import set_trace_processors, set_tracing_disabled
from openai_files import Files


@pytest.fixture(autouse=True)
def _no_export(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Another test of the same run may have switched it off for the whole process, as the demonstration does.
    monkeypatch.delenv("OPENAI_AGENTS_DISABLE_TRACING", raising=False)
    set_tracing_disabled(False)
    set_trace_processors([])
    yield
    set_trace_processors([])


@pytest.fixture
def files() -> Files:
    return Files()
