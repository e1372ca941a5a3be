"""What is in force when a command runs, and where each setting came from.

- Flag over environment (`AL_*`) over project file over user file over default. An empty variable counts as not set.
- The project file is the nearest `agentlattice.toml`, or `pyproject.toml` with a table `[tool.agentlattice]`, in the
  current directory or above it. The user file is `agentlattice/config.toml` in `$XDG_CONFIG_HOME` (`~/.config`).
- A path in a file is relative to that file; any other is relative to the current directory.
- A service's keys are no settings: they are read from the environment and nowhere else, because files are kept, copied
  and committed.
- A file that cannot be read, or says something that is not a setting, is an error: nothing is skipped.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from agentlattice_core.errors import AgentLatticeError, InvalidRequestError
from agentlattice_core.principals import Role
from agentlattice_core.stores.databases import is_postgres, sqlite_path

__all__ = [
    "SETTINGS",
    "Setting",
    "Settings",
    "key_of",
    "project_file",
    "project_policies",
    "resolve",
    "user_file",
]

_MODES = ("enforce", "observe")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its value (None: not set) and where that came from, in words."""

    name: str
    value: Any
    source: str

    @property
    def shown(self) -> Any:
        """The value without the password of a database."""
        return _PASSWORD.sub(r"\1***@", self.value) if self.name == "db" else self.value


class Settings:
    """Every setting by name, with what commands need of them."""

    def __init__(self, found: Sequence[Setting]) -> None:
        self._found = {setting.name: setting for setting in found}

    def __iter__(self) -> Iterator[Setting]:
        return iter(self._found.values())

    def __getitem__(self, name: str) -> Setting:
        return self._found[name]

    @property
    def db(self) -> Path | str:
        """The database: a SQLite file, or the URL of a PostgreSQL database."""
        value: str = self._found["db"].value
        return value if is_postgres(value) else Path(sqlite_path(value))

    @property
    def organisation(self) -> str | None:
        """The organisation in the database; None for the first or only one."""
        found: str | None = self._found["organisation"].value
        return found

    @property
    def signing_key(self) -> Path | str | None:
        """The file of the key that signs the log, or the address of a key in a key service; None where only the
        database says which file that is by default.
        """
        named = self._found["signing_key"].value
        if named and _is_url(named):
            return str(named)
        if named or (self.organisation is None and isinstance(self.db, Path)):
            return Path(named or f"{self.db}.key")
        return None

    @property
    def webhook_key(self) -> Path:
        """The file of the key that seals webhooks' secrets: beside a SQLite file, else in the working directory."""
        beside = f"{self.db}.webhook-key" if isinstance(self.db, Path) else "agentlattice.webhook-key"
        return Path(self._found["webhook_key"].value or beside)

    @property
    def policies(self) -> list[Path]:
        """The policy files to keep in force."""
        return [Path(path) for path in self._found["policies"].value]

    def needed(self, name: str, how: str) -> Any:
        """The value of a setting that the command cannot do without; `how` says how to give it."""
        value = self._found[name].value
        if not value:
            raise AgentLatticeError("NOT_CONFIGURED", f"no {name} is named; {how}")
        return value


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a setting is read. `split` takes the text of an environment variable apart; `check` says what is wrong."""

    variable: str
    default: Any = None
    default_source: str = "default"
    split: str | None = None
    paths: bool = False
    choices: tuple[str, ...] = ()
    is_list: bool = False


SETTINGS: Mapping[str, _Kind] = {
    "db": _Kind("AL_DB", "governance.db", paths=True),
    "organisation": _Kind("AL_ORGANISATION", default_source="the first or only one"),
    "signing_key": _Kind("AL_SIGNING_KEY", default_source="beside the database", paths=True),
    "agent": _Kind("AL_AGENT"),
    "operator": _Kind("AL_OPERATOR"),
    "role": _Kind("AL_ROLE", "member", choices=get_args(Role)),
    "groups": _Kind("AL_GROUPS", (), split=",", is_list=True),
    "policies": _Kind("AL_POLICIES", (), split=os.pathsep, paths=True, is_list=True),
    "mode": _Kind("AL_MODE", "enforce", choices=_MODES),
    "base_url": _Kind("AL_BASE_URL"),
    "webhook_key": _Kind("AL_WEBHOOK_KEY", default_source="beside the database", paths=True),
    "webhook_reach": _Kind("AL_WEBHOOK_REACH", (), split=",", is_list=True),
}
"""Every setting there is, by its name in a file."""

_PASSWORD = re.compile(r"(^\w+://[^/@]*:)[^/]*@")

_Place = tuple[str, Callable[[str], Any], Path]
"""Where to look: what to call it, how to read a setting from it, and what paths in it are relative to."""


def resolve(flags: Mapping[str, Any]) -> Settings:
    """The settings in force, given the flags of this command (None: not given).

    Raises InvalidRequestError for a value that cannot be, AgentLatticeError with code INVALID_CONFIG for a file.
    """
    here = Path()
    places: list[_Place] = [
        ("flag", flags.get, here),
        ("environment", lambda name: _from_environment(name, SETTINGS[name]), here),
    ]
    for found in (project_file(), user_file()):
        if found is not None:
            path, kind = found
            table = _read(path)
            places.append((f"{kind} `{path}`", table.get, path.parent))
    return Settings([_first(name, kind, places) for name, kind in SETTINGS.items()])


def project_policies() -> list[Path]:
    """The policy files of the project, as one would type them here.

    Raises InvalidRequestError if it names none, and what `resolve` raises.
    """
    found = resolve({}).policies
    if not found:
        raise InvalidRequestError("no file is named and the project names no policies; name a file")
    here = Path.cwd()
    return [path.relative_to(here) if path.is_relative_to(here) else path for path in found]


def _first(name: str, kind: _Kind, places: Sequence[_Place]) -> Setting:
    for source, read, base in places:
        value = read(name)
        if value is None or value == "" or (source == "flag" and value in ([], ())):
            continue
        if source == "environment":
            source = f"environment `{kind.variable}`"
        elif source == "flag":
            source = "flag"
        return Setting(name, _checked(name, kind, value, source, base), source)
    return Setting(name, list(kind.default) if kind.is_list else kind.default, kind.default_source)


def _checked(name: str, kind: _Kind, value: Any, source: str, base: Path) -> Any:
    """`value` as the setting's type. Raises InvalidRequestError."""
    items = value if kind.is_list and isinstance(value, list) else [value]
    if not all(isinstance(item, str | os.PathLike) and str(item) for item in items):
        wanted = "a list of texts" if kind.is_list else "text"
        raise InvalidRequestError(f"setting `{name}` ({source}) must be {wanted}")
    if kind.choices and value not in kind.choices:
        raise InvalidRequestError(
            f"setting `{name}` ({source}) is `{value}`, and must be one of {', '.join(kind.choices)}"
        )
    if kind.paths:
        items = [item if _is_url(item) else str(base / Path(item).expanduser()) for item in items]
    return [str(item) for item in items] if kind.is_list else str(items[0])


def _is_url(item: str | os.PathLike[str]) -> bool:
    return "://" in os.fspath(item)


def _from_environment(name: str, kind: _Kind) -> Any:
    text = os.environ.get(kind.variable, "")
    if kind.split is None or not text:
        return text
    return [part.strip() for part in text.split(kind.split) if part.strip()]


def key_of(*variables: str, how: str) -> str:
    """The key in the first of these variables that is set. Raises AgentLatticeError with code NOT_CONFIGURED."""
    for variable in variables:
        if key := os.environ.get(variable, "").strip():
            return key
    raise AgentLatticeError("NOT_CONFIGURED", f"no key is set; {how}")


def project_file() -> tuple[Path, str] | None:
    """The nearest project file and what to call it, or None."""
    try:
        here = Path.cwd()
    except OSError:
        return None
    for directory in (here, *here.parents):
        own = directory / "agentlattice.toml"
        if own.is_file():
            return own, "project file"
        shared = directory / "pyproject.toml"
        if shared.is_file() and b"[tool.agentlattice" in _bytes(shared):
            return shared, "project file"
    return None


def user_file() -> tuple[Path, str] | None:
    """The user's own file and what to call it, or None."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # The specification says that a relative path there is to be ignored.
    home = Path(base) if os.path.isabs(base) else Path("~/.config").expanduser()
    path = home / "agentlattice" / "config.toml"
    return (path, "user file") if path.is_file() else None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _wrong(path, (error.strerror or str(error)).lower()) from None


def _read(path: Path) -> Mapping[str, Any]:
    """The settings that a file holds."""
    try:
        table: Any = tomllib.loads(_bytes(path).decode())
    except UnicodeDecodeError:
        raise _wrong(path, "not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        text = str(error)
        raise _wrong(path, text[:1].lower() + text[1:]) from None
    where = ""
    if path.name == "pyproject.toml":
        table, where = table.get("tool", {}).get("agentlattice", {}), "tool.agentlattice."
        if not isinstance(table, dict):
            raise _wrong(path, "`tool.agentlattice` must be a table")
    for name in table:
        if name not in SETTINGS:
            raise _wrong(path, f"`{where}{name}` is not a setting; there are {', '.join(SETTINGS)}")
    settings: Mapping[str, Any] = table
    return settings


def _wrong(path: Path, what: str) -> AgentLatticeError:
    return AgentLatticeError("INVALID_CONFIG", f"cannot use `{path}`: {what}")
