"""What a test of governed code needs: a clock that is set by hand.

`agentlattice_core.testing.store_contract` holds what every store must keep; it needs pytest and hypothesis.
"""

from agentlattice_core.testing.clock import ManualClock

__all__ = ["ManualClock"]
