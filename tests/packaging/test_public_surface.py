"""What code outside of this project may rely on changes only when somebody means it to."""

from __future__ import annotations

import importlib
import pkgutil

from public_surface import PINNED, PUBLIC, surface

ROOMS = ("agentlattice_core", "agentlattice_server", "agentlattice_cli")


def test_the_public_surface_is_what_was_written_down() -> None:
    """Names, signatures and defaults; after a change that is meant, run tests/packaging/public_surface.py."""
    assert surface() == PINNED.read_text(encoding="utf-8")


def test_every_public_module_says_what_is_public() -> None:
    """Each has `__all__`, and everything it lists is there."""
    for name in PUBLIC:
        module = importlib.import_module(name)
        assert module.__all__, name
        assert [public for public in module.__all__ if not hasattr(module, public)] == [], name


def test_every_module_says_what_it_shares() -> None:
    """No module of the core, the service or the command line is without `__all__`, and none lists what it has not."""
    without = []
    for room in ROOMS:
        package = importlib.import_module(room)
        for found in pkgutil.walk_packages(package.__path__, f"{room}."):
            module = importlib.import_module(found.name)
            listed = getattr(module, "__all__", None)
            if found.ispkg and listed is None:
                continue
            if listed is None or any(not hasattr(module, name) for name in listed):
                without.append(found.name)
    assert without == []
