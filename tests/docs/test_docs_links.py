"""Whoever follows a link in the documentation arrives, and every page can be found."""

from __future__ import annotations

import re
from pathlib import Path

from doc_pages import ROOT, pages

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def _prose(path: Path) -> str:
    return _CODE.sub("", path.read_text(encoding="utf-8"))


def _anchors(path: Path) -> set[str]:
    """The anchors that headings make, as GitHub names them."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_link_within_the_repository_leads_somewhere() -> None:
    """The file is there, and so is the heading."""
    broken = []
    for path in pages():
        for link in _LINK.findall(_prose(path)):
            if re.match(r"https?:", link):
                continue
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            if not target.exists() or (anchor and anchor not in _anchors(target)):
                broken.append(f"{path.relative_to(ROOT)}: {link}")
    assert broken == []


def test_every_page_is_reached_from_the_readme() -> None:
    """No page is there that nothing links to; a link to a directory reaches what is in it."""
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        for link in _LINK.findall(_prose(path)):
            target = (path.parent / link.partition("#")[0]).resolve()
            waiting += target.glob("*.md") if target.is_dir() else [target] if target.suffix == ".md" else []
    assert [path for path in pages() if path not in reached] == []


def test_every_decision_has_a_number_of_its_own() -> None:
    """Decisions are numbered without gaps, and begin with their number."""
    found = sorted((ROOT / "docs" / "adr").glob("*.md"))
    numbers = [path.name[:4] for path in found]
    assert numbers == [f"{number:04}" for number in range(1, len(found) + 1)]
    assert all(path.read_text().startswith(f"# {path.name[:4]}: ") for path in found)
