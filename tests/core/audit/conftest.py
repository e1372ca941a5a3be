"""Fixtures of the audit tests."""

from __future__ import annotations

import pytest
from memory_log import MemoryLog


@pytest.fixture(scope="session")
def log_of_600() -> MemoryLog:
    """Shared and never changed: two full tiles and a rest."""
    return MemoryLog().fill(600)
