"""Writes down the public surface: every public module, its names, and what each takes.

Run it as a program after a change that is meant: `python tests/packaging/public_surface.py`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PINNED", "PUBLIC", "surface"]

PINNED = Path(__file__).with_name("public_surface.txt")
PUBLIC = (
    "agentlattice_core",
    "agentlattice_core.actions",
    "agentlattice_core.audit.export",
    "agentlattice_core.audit.note",
    "agentlattice_core.audit.proof",
    "agentlattice_core.audit.signer",
    "agentlattice_core.errors",
    "agentlattice_core.pauses",
    "agentlattice_core.policy",
    "agentlattice_core.policy.cases",
    "agentlattice_core.policy.lint",
    "agentlattice_core.policy.simulate",
    "agentlattice_core.policy.suggest",
    "agentlattice_core.policy.trial",
    "agentlattice_core.principals",
    "agentlattice_core.results",
    "agentlattice_core.testing",
    "agentlattice_core.toolcalls",
    "agentlattice_integrations.contract",
    "agentlattice_integrations.crewai",
    "agentlattice_integrations.demo.local_model",
    "agentlattice_integrations.langgraph",
    "agentlattice_integrations.openai_agents",
    "agentlattice_server",
)
"""What code outside of this project may import."""


def surface() -> str:
    """The surface as text, one name a line, members indented below their class."""
    lines: list[str] = []
    described: dict[int, str] = {}
    for name in PUBLIC:
        module = importlib.import_module(name)
        lines.append(f"{name}" if not lines else f"\n{name}")
        for public in sorted(module.__all__):
            value = getattr(module, public)
            place = described.setdefault(id(value), f"{name}.{public}")
            known = place != f"{name}.{public}"
            lines += [f"    {public} = {place}"] if known else [f"    {x}" for x in _described(public, value)]
    return "\n".join(lines) + "\n"


def _described(name: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        yield f"class {name}({', '.join(base.__name__ for base in value.__bases__ if base is not object)})"
        if _ours(value):
            yield from (f"    {line}" for line in _members(value))
    elif inspect.isroutine(value):
        yield f"{_kind(value)}{name}{_signature(value)}"
    else:
        yield f"{name}: {type(value).__name__}"


def _members(cls: type) -> Iterator[str]:
    """Public members that this project defines, inherited ones among them."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if _ours(base):
            found.update(vars(base))
    for name, member in sorted(found.items()):
        if name.startswith("_") and name != "__init__":
            continue
        if isinstance(member, property):
            yield f"{name}: property"
        elif isinstance(member, classmethod | staticmethod):
            yield f"{type(member).__name__} {name}{_signature(member.__func__)}"
        elif inspect.isroutine(member):
            yield f"{_kind(member)}{name}{_signature(member)}"
        elif not callable(member):
            yield f"{name}"


def _kind(function: Any) -> str:
    return "async def " if inspect.iscoroutinefunction(function) else "def "


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    shown = [
        parameter.replace(default=_default(parameter.default), annotation=_as_written(parameter.annotation))
        for parameter in signature.parameters.values()
    ]
    return str(
        signature.replace(parameters=shown, return_annotation=_as_written(signature.return_annotation))
    )


@dataclass(frozen=True)
class _Text:
    """Something whose `repr` is this text."""

    text: str

    def __repr__(self) -> str:
        return self.text


def _default(default: Any) -> Any:
    """A default that is not the same in every process is shown as dots."""
    plain = default is None or isinstance(default, bool | int | float | str | tuple)
    return default if plain or default is inspect.Parameter.empty else _Text("...")


def _as_written(annotation: Any) -> Any:
    """Annotations are text already; without their quotes they read as in the source."""
    return _Text(annotation) if isinstance(annotation, str) else annotation


def _ours(cls: type) -> bool:
    return cls.__module__.startswith("agentlattice_")


if __name__ == "__main__":
    PINNED.write_text(surface(), encoding="utf-8")
