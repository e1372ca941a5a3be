"""Reading a page of the documentation as what it asks its reader to do, and doing it.

- A `yaml` block that begins with `# name.yaml` is a file of that name.
- A `python` block is a program; a `text` block after it is what it prints.
- A `console` block is commands, after `$`, with what they print; `...` stands for anything.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "AL",
    "ROOT",
    "Block",
    "blocks",
    "check_output",
    "follow",
    "pages",
    "run_console",
    "run_program",
    "write_file",
]

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
AL = [sys.executable, "-c", "from agentlattice_cli.main import main; main()"]
"""`al`, as a program."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its language, its text, and the line of the page that it begins at."""

    page: str
    language: str
    text: str
    line: int


def pages() -> list[Path]:
    """Every page that this project's readers are sent to."""
    return [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "examples" / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        yield Block(page, found[1], found[2], text.count("\n", 0, found.start()) + 2)


def follow(page: str) -> None:
    """Do what a page says, in order, in the present directory; its programs share one namespace."""
    namespace: dict[str, object] = {"__name__": "docs"}
    printed = ""
    for block in blocks(page):
        match block.language:
            case "yaml":
                write_file(block)
            case "python":
                # The empty lines make a traceback name the page's own line.
                source = "\n" * (block.line - 1) + block.text
                with contextlib.redirect_stdout(io.StringIO()) as output:
                    exec(compile(source, block.page, "exec", dont_inherit=True), namespace)
                printed = output.getvalue()
            case "text":
                check_output(block, printed)
            case "console":
                run_console(block)
            case _:
                raise AssertionError(f"{block.page}:{block.line}: nobody runs a `{block.language}` block")


def write_file(block: Block) -> None:
    """Write the file that the block's first line names."""
    name = re.match(r"# ([\w.-]+)\n", block.text)
    assert name, f"{block.page}:{block.line}: say which file this is, as `# policies.yaml`"
    Path(name[1]).write_text(block.text, encoding="utf-8")


def run_program(block: Block) -> str:
    """Run a `python` block by itself, without a key and without a network; what it prints."""
    Path("program.py").write_text(block.text, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    environment |= {
        "PYTHONPATH": str(ROOT / "tests" / "offline"),
        "OFFLINE_LOG": os.path.abspath("attempts"),
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
        "CREWAI_DISABLE_TELEMETRY": "true",
        "CREWAI_TRACING_ENABLED": "false",
        "CREWAI_DISABLE_VERSION_CHECK": "true",
        "LANGSMITH_TRACING": "false",
        "HOME": os.getcwd(),
    }
    done = subprocess.run(
        [sys.executable, "program.py"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, f"{block.page}:{block.line}: {done.stderr}"
    assert not Path("attempts").exists(), Path("attempts").read_text()
    return done.stdout


def run_console(block: Block) -> None:
    """Run each command of a `console` block and compare what it prints."""
    for step in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, expected = step.partition("\n")
        script = f'al() {{ {shlex.join(AL)} "$@"; }}\n{command}\n'
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AL_")}
        done = subprocess.run(
            ["sh", "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # on a terminal a reader sees both
            text=True,
            stdin=subprocess.DEVNULL,
            env=environment | {"HOME": os.getcwd(), "NO_COLOR": "1"},
            check=False,
        )
        assert done.returncode == 0, f"{block.page}:{block.line}: `{command}`: {done.stdout}"
        check_output(Block(block.page, "text", expected, block.line), done.stdout)


def check_output(expected: Block, printed: str) -> None:
    """Compare what a page says is printed with what was; `...` stands for anything."""
    same = doctest.OutputChecker().check_output(expected.text, printed, doctest.ELLIPSIS)
    assert same, f"{expected.page}:{expected.line}: the page says\n{expected.text}\nand it printed\n{printed}"
