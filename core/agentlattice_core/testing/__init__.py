"""What a test of governed code needs: a clock that is set by hand, and the contract every store must keep."""

from agentlattice_core.testing.clock import ManualClock

__all__ = ["ManualClock"]
