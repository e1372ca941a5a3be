"""The deployment files, checked without a container engine: what they name exists, and nothing runs as root."""

from __future__ import annotations

import ast
import fnmatch
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "deploy" / "Containerfile"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
INSTRUCTIONS = set(
    "FROM WORKDIR COPY RUN ENV USER VOLUME EXPOSE STOPSIGNAL HEALTHCHECK ENTRYPOINT CMD".split()  # noqa: SIM905
)
SECRET = re.compile(r"PASS|SECRET|TOKEN|CREDENTIAL|_KEY\b|DATABASE_URL", re.IGNORECASE)


def instructions() -> list[tuple[str, str]]:
    """Each instruction with what follows it, its lines joined."""
    text = "\n".join(line for line in CONTAINERFILE.read_text().splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [line.strip() for line in joined.splitlines() if line.strip()]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def of(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    start = max(number for number, (name, _) in enumerate(found) if name == "FROM")
    return found[start:]


def copied() -> Iterator[str]:
    for rest in of("COPY"):
        parts = shlex.split(rest)
        if not parts[0].startswith("--from="):
            yield from parts[:-1]


def test_only_known_instructions_are_used() -> None:
    """A misspelt one would end the build, which nothing here does."""
    assert {name for name, _ in instructions()} <= INSTRUCTIONS


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    """Each source is in the repository, and the build is given it."""
    ignored = (ROOT / ".dockerignore").read_text().split()
    sources = list(copied())
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not any(fnmatch.fnmatch(source, pattern) for pattern in ignored), source


def test_what_is_installed_is_all_that_the_build_needs() -> None:
    """The files that the project's metadata names, and every package of its wheel, are copied before."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"]
    needed += project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    sources = set(copied())
    for name in needed:
        assert {name, name.split("/")[0]} & sources, name


def test_images_are_named_with_their_registry_and_a_version() -> None:
    """Nothing is `latest`, and nothing depends on what a machine searches first."""
    images = [rest.split()[0] for rest in of("FROM")] + [COMPOSE["services"]["db"]["image"]]
    for image in images:
        assert re.fullmatch(r"docker\.io/library/[a-z]+:\d[\w.\-]*", image), image


def test_the_service_is_not_root() -> None:
    """The last stage ends as a user with a number, and nothing in compose makes it another one."""
    users = [rest for name, rest in last_stage() if name == "USER"]
    assert len(users) == 1
    user, _, group = users[0].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    service = COMPOSE["services"]["service"]
    assert "user" not in service
    assert not service.get("privileged", False)
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True


def test_no_secret_is_in_the_environment_or_on_a_command_line() -> None:
    """Secrets are files: an environment is shown to whoever may inspect a container, and an image keeps its own."""
    assert of("ARG") == []
    for rest in of("ENV"):
        assert not SECRET.search(rest), rest
    for name, service in COMPOSE["services"].items():
        for variable, value in service.get("environment", {}).items():
            assert not SECRET.search(variable) or (
                variable.endswith("_FILE") and value.startswith("/run/secrets/")
            ), f"{name}: {variable}"
        for word in service.get("command", ()):
            assert not re.search(r"://[^/@]*:[^/@]*@", word), f"{name}: {word}"


def test_every_secret_and_volume_that_is_used_is_declared_and_kept_out_of_the_repository() -> None:
    """What a service is given exists, and the files of secrets are never committed."""
    for name, service in COMPOSE["services"].items():
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"]), name
        for volume in service.get("volumes", ()):
            assert volume.split(":")[0] in COMPOSE["volumes"], f"{name}: {volume}"
    ignored = (ROOT / ".gitignore").read_text().split()
    for secret in COMPOSE["secrets"].values():
        assert secret["file"].startswith("./secrets/")
    assert "deploy/secrets/" in ignored
    assert "deploy/secrets" in (ROOT / ".dockerignore").read_text().split()


def test_the_service_faces_this_machine_only() -> None:
    """What faces the network speaks TLS; the service itself does not. The database faces nobody."""
    assert all(port.startswith("127.0.0.1:") for port in COMPOSE["services"]["service"]["ports"])
    assert "ports" not in COMPOSE["services"]["db"]


def test_what_is_kept_lies_on_a_volume() -> None:
    """Keys outlive the container: the directory that they are made in is a volume, and compose mounts one there."""
    (kept,) = of("VOLUME")
    assert [rest for name, rest in last_stage() if name == "WORKDIR"] == [kept]
    assert f"keys:{kept}" in COMPOSE["services"]["service"]["volumes"]


def test_the_health_check_is_a_program_that_asks_the_port_that_is_served() -> None:
    """It parses, and asks `/readyz` where the command listens."""
    (check,) = of("HEALTHCHECK")
    command = json.loads(check[check.index("[") :])
    assert command[:2] == ["python", "-c"]
    ast.parse(command[2])
    (served,) = [json.loads(rest) for rest in of("CMD")]
    port = served[served.index("--port") + 1]
    assert f":{port}/readyz" in command[2]
    assert of("EXPOSE") == [port]


@pytest.mark.parametrize(
    "command",
    [json.loads(of("CMD")[0]), COMPOSE["services"]["service"]["command"]],
    ids=["container", "compose"],
)
def test_the_command_is_one_that_starts(command: list[str]) -> None:
    """The entry point is installed with the package, and knows the command with each of its flags."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    ((entry,),) = [json.loads(rest) for rest in of("ENTRYPOINT")]
    module, _, function = scripts[entry].partition(":")
    program = f"from {module} import {function}; {function}()"
    done = subprocess.run(
        [sys.executable, "-c", program, *command, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for flag in (word for word in command if word.startswith("--")):
        assert flag in done.stdout, flag
