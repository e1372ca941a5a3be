"""The contract holds with a service between the adapter and the log."""

from __future__ import annotations

from wire_world import WireWorld

from agentlattice_integrations.contract import EnforcementContract

from bare_framework import BareHarness  # isort: skip - the framework lies beside this file


class TestBareFrameworkOverTheWire(EnforcementContract):
    """Every promise, without any framework's own ways."""

    harness = BareHarness()
    world_type = WireWorld
