"""What is shipped, and what installing it brings: without an extra no framework and no web framework."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {
    "agentlattice_core": ROOT / "core",
    "agentlattice_cli": ROOT / "core",
    "agentlattice_server": ROOT / "core",
    "agentlattice_integrations": ROOT,
}
UNWANTED = {
    *("langgraph", "langchain", "langchain-core", "crewai", "openai-agents", "openai", "litellm"),
    *("fastapi", "starlette", "flask", "django", "uvicorn", "aiohttp", "requests", "sqlalchemy"),
}
BASE = {
    "apsw",
    "cryptography",
    "google-re2",
    "httpx",
    "orjson",
    "pyyaml",
    "rich",
    "typer",
    "tzdata",
    "websockets",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel and the sdist of this checkout."""
    place = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(place)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return place


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def described(wheel: Path) -> Message:
    """The wheel's own description of itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_the_wheel_holds_every_module_and_what_it_reads(wheel: Path) -> None:
    """Every source file of every room, the markers of types, the denial's schema, and nothing else on top."""
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    needed = {
        path.relative_to(root).as_posix()
        for room, root in ROOMS.items()
        for path in (root / room).rglob("*")
        if path.suffix in (".py", ".json", ".yaml", ".typed") and "__pycache__" not in path.parts
    }
    assert needed == held
    assert {f"{room}/py.typed" for room in ROOMS} <= held
    assert "agentlattice_core/toolcalls/denial.schema.json" in held
    assert {name.split("/")[0] for name in held} == set(ROOMS)


def test_the_sdist_holds_what_a_packager_needs(built: Path) -> None:
    """Sources, tests, documentation, examples, licence and pins, and no artefacts."""
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    top = {name.split("/")[0] for name in names}
    assert {"core", "agentlattice_integrations", "tests", "docs", "examples"} <= top
    assert {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "constraints.txt"} <= top
    assert [name for name in names if re.search(r"__pycache__|\.pyc$|\.db(-|$)|\.key", name)] == []


def test_without_extras_nothing_heavy_is_asked_for(described: Message) -> None:
    """The core's dependencies are the ones that were decided on, and none of them brings a framework along."""
    asked = [Requirement(line) for line in described.get_all("Requires-Dist", [])]
    waiting = [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    assert {canonicalize_name(one.name) for one in waiting} == BASE
    brought: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in brought:
            continue
        brought.add(name)
        for line in metadata.requires(name) or ():
            needed = Requirement(line)
            extras = {"", *requirement.extras}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    assert brought & UNWANTED == set()


def test_importing_the_core_and_the_command_line_imports_no_framework() -> None:
    """Every module of theirs together loads no framework and no web framework."""
    code = (
        "import importlib, json, pkgutil, sys\n"
        "for room in ('agentlattice_core', 'agentlattice_cli'):\n"
        "    package = importlib.import_module(room)\n"
        "    for found in pkgutil.walk_packages(package.__path__, room + '.'):\n"
        "        importlib.import_module(found.name)\n"
        "print(json.dumps(sorted(name for name in sys.modules if '.' not in name)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {canonicalize_name(name) for name in json.loads(done.stdout)}
    assert loaded & (UNWANTED | {"agents"}) == set()


@pytest.mark.soak
def test_a_fresh_environment_without_extras_works_and_holds_no_framework(wheel: Path, tmp_path: Path) -> None:
    """Installed by itself, the wheel begins, decides and verifies; each adapter says what it takes to have it."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    # It speaks with the package index, whose certificate the tests' only authority has not signed.
    environment = {name: value for name, value in os.environ.items() if name != "SSL_CERT_FILE"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(python.with_name(arguments[0])), *arguments[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    installed = run("pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel))
    assert installed.returncode == 0, installed.stderr
    listed = json.loads(run("pip", "list", "--format", "json").stdout)
    assert {canonicalize_name(one["name"]) for one in listed} & UNWANTED == set()
    for command in (["init"], ["execute", "report.write", "--agent", "ci"], ["audit", "verify", "--state"]):
        done = run("al", *command)
        assert done.returncode == 0, done.stderr
    for command in ("serve", "demo"):
        done = run("al", command)
        assert done.returncode == 1
        assert re.fullmatch(r"error: .*pip install .agentlattice-integrations\[\w+\].*\n", done.stderr), (
            done.stderr
        )
    for room, extra in (
        ("langgraph", "langgraph"),
        ("crewai", "crewai"),
        ("openai_agents", "openai-agents"),
    ):
        done = run("python", "-c", f"import agentlattice_integrations.{room}")
        assert done.returncode == 1
        assert f'pip install "agentlattice-integrations[{extra}]"' in done.stderr.splitlines()[-1]
