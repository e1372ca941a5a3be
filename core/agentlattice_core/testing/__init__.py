"""What a test of governed code needs: a clock that is set by hand."""

from agentlattice_core.testing.clock import ManualClock

__all__ = ["ManualClock"]
