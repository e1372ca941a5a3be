"""docs/delegation.md does what it says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "delegation.md"


def test_the_programs_of_the_page_print_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, in one directory, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    shown = re.findall(r"```(python|text)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    programs = [text for language, text in shown if language == "python"]
    outputs = [text for language, text in shown if language == "text"]
    assert len(programs) == len(outputs) == 3
    for program, output in zip(programs, outputs, strict=True):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(program, PAGE.name, "exec"), names)
        assert printed.getvalue() == output
    names["al"].close()  # type: ignore[attr-defined]
