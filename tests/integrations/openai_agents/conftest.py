"""Tracing stays on, as by default, and exports nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from agents.tracing import set_trace_processors


@pytest.fixture(autouse=True)
def _no_export() -> Iterator[None]:
    set_trace_processors([])
    yield
    set_trace_processors([])
