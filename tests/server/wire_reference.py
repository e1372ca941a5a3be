"""Writes the list of calls at the end of docs/wire.md from the endpoints themselves.

Run it as a program after a change of the endpoints.
"""

from __future__ import annotations

from pathlib import Path

from agentlattice_server.application import ENDPOINTS

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parents[2] / "docs" / "wire.md"
_FROM_HERE = "<!-- From here on this page is written by tests/server/wire_reference.py. -->\n"


def page(present: str) -> str:
    """The page `present` with its list written anew."""
    prose, marker, _ = present.partition(_FROM_HERE)
    assert marker, "the page has lost the line after which its list begins"
    rows = [
        f"| `{one.name}` | {', '.join(one.kinds)} | {one.summary} |" for one in sorted(ENDPOINTS, key=_order)
    ]
    return f"{prose}{marker}\n| call | keys | |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _order(one: object) -> tuple[str, str]:
    path, method = getattr(one, "path", ""), getattr(one, "method", "")
    return path, method


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
