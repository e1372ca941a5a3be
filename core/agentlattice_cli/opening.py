"""Opening the database for a command.

- A command that only looks opens a database that is there, and creates none. It registers nobody and records nothing.
- A file that is not a database of this product is refused before anything is written beside it.
- An agent acts and an operator decides; no command is both.
- With a service's address (`base_url`) and no `--db`, acting, deciding and looking happen there, with the key in
  AL_API_KEY. A command that needs the database itself says so, rather than look at another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agentlattice_cli.output import note
from agentlattice_cli.settings import Settings, key_of
from agentlattice_core.client import AgentLattice
from agentlattice_core.clock import SystemClock, format_time, parse_time, time_of_log
from agentlattice_core.engine import Engine, open_engine, release
from agentlattice_core.errors import AgentLatticeError, InvalidRequestError, NotFoundError, StoreError
from agentlattice_core.policies import Policies
from agentlattice_core.policy.reader import did_you_mean
from agentlattice_core.stores.base import Reader, Store
from agentlattice_core.stores.databases import open_store, organisations, place_of_signing_key
from agentlattice_core.stores.schema import APPLICATION_ID

__all__ = [
    "Look",
    "acting",
    "check_known",
    "deciding",
    "following",
    "installed_server",
    "looking",
    "managing",
    "means_service",
    "note_unapplied",
    "operator_of",
    "proving",
    "served",
]

_MAGIC = b"SQLite format 3\x00"
_APPLICATION_ID_AT = 68
_NAME_AGENT = "pass `--agent NAME` or set AL_AGENT"
_NAME_KEY = "set AL_API_KEY to the key of an agent or of an operator"
_NAME_OPERATOR = "deciding takes a person: pass `--as NAME` or set AL_OPERATOR"


@dataclass(frozen=True, slots=True)
class Look:
    """One consistent view of a database, and the policies in force in it."""

    log_id: str
    reader: Reader
    policies: Policies
    now: datetime

    @property
    def at(self) -> str:
        """The stamp that an entry would get now."""
        return format_time(self.now)


def served(settings: Settings) -> AgentLattice | None:
    """A client of the service that is named, for whoever holds the key; None if a database is meant.

    Raises AgentLatticeError with code NOT_CONFIGURED if there is no key.
    """
    if not means_service(settings):
        return None
    return AgentLattice(key_of("AL_API_KEY", how=_NAME_KEY), base_url=settings["base_url"].value)


def means_service(settings: Settings) -> bool:
    """Whether a service is named, and no database by a flag."""
    return bool(settings["base_url"].value) and settings["db"].source != "flag"


def _check_database(settings: Settings) -> None:
    """Raise InvalidRequestError if a service is meant where only a database will do."""
    if means_service(settings):
        raise InvalidRequestError(
            "this works on the database itself and not through a service; run it where the database can be reached "
            "and name that with `--db`"
        )


@contextmanager
def looking(settings: Settings) -> Iterator[Look]:
    """The database, to be read. Raises StoreError if there is none."""
    with following(settings) as store, store.read() as reader:
        now = parse_time(time_of_log(SystemClock(), reader.head.at))
        yield Look(store.log_id, reader, Policies(), now)


@contextmanager
def following(settings: Settings) -> Iterator[Store]:
    """The database, to be read again and again. Raises StoreError if there is none."""
    _check_database(settings)
    _check_there(settings)
    # Neither an engine nor a signer: whoever looks leaves no key and no checkpoint behind.
    store = open_store(settings.db, settings.organisation)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def proving(settings: Settings) -> Iterator[Engine]:
    """The database with its signer, for what takes checkpoints. Raises StoreError if either is missing."""
    _check_database(settings)
    _check_there(settings)
    key = file = settings.signing_key
    if not isinstance(file, Path):
        with following(settings) as store:
            file = Path(place_of_signing_key(key, store)[0])
    if not file.exists():
        raise StoreError(
            f"there is no signing key `{file}`; name it with `--signing-key`, "
            "or verify an export, which takes the public key only"
        )
    engine = open_engine(settings.db, signing_key=key, organisation=settings.organisation)
    try:
        yield engine
    finally:
        release(engine)


@contextmanager
def managing(settings: Settings) -> Iterator[Engine]:
    """The database, to be written to by whoever was checked before. Raises StoreError if there is none."""
    _check_database(settings)
    _check_there(settings)
    engine = open_engine(settings.db, signing_key=settings.signing_key, organisation=settings.organisation)
    try:
        yield engine
    finally:
        release(engine)


@contextmanager
def acting(settings: Settings, *, new: bool = True) -> Iterator[AgentLattice]:
    """A client for the agent that is named.

    With `new`, the database is made if there is none, the policy files are applied, and an agent that never acted is
    registered, which is noted; else nothing of this, and such an agent raises NotFoundError.
    """
    service = served(settings)
    if service is not None:
        with service:
            yield service
        return
    agent = settings.needed("agent", _NAME_AGENT)
    if not new or _holds_a_log(settings):
        with looking(settings) as look:
            if not new:
                check_known(look, agent)
            elif hint := _near(look, agent):
                note(f"note: agent `{agent}` is new here and becomes known by this{hint}")
    with AgentLattice.embedded(
        settings.db,
        agent=agent,
        policies=settings.policies if new else None,
        mode=settings["mode"].value,
        signing_key=settings.signing_key,
        organisation=settings.organisation,
    ) as client:
        yield client


@contextmanager
def deciding(settings: Settings, *, new: bool = False) -> Iterator[AgentLattice]:
    """A client for the operator that is named. Only with `new` is a database made where there is none."""
    service = served(settings)
    if service is not None:
        with service:
            yield service
        return
    operator = operator_of(settings)
    if not new:
        _check_there(settings)
    elif isinstance(settings.db, Path):
        _check_ours(settings.db)
    with AgentLattice.embedded(
        settings.db,
        operator=operator,
        role=settings["role"].value,
        groups=settings["groups"].value,
        signing_key=settings.signing_key,
        organisation=settings.organisation,
    ) as client:
        yield client


@contextmanager
def installed_server() -> Iterator[None]:
    """Import what the service needs; says what to install where that is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0].startswith("agentlattice"):
            raise
        raise AgentLatticeError(
            "NOT_INSTALLED",
            f"this needs `{error.name}`, which comes with `pip install 'agentlattice-integrations[server]'`",
        ) from None


def operator_of(settings: Settings) -> str:
    """The person who decides. Raises AgentLatticeError with code NOT_CONFIGURED if nobody is named, or the agent is."""
    if means_service(settings):
        return "the holder of AL_API_KEY"
    operator: str = settings.needed("operator", _NAME_OPERATOR)
    if operator == settings["agent"].value:
        raise AgentLatticeError(
            "NOT_CONFIGURED",
            f"`{operator}` is the agent; nobody decides on their own requests, so name a person",
        )
    return operator


def check_known(look: Look, agent: str) -> None:
    """Raise NotFoundError for an agent that never acted: it is a typo, more often than not."""
    if look.reader.get("agent", agent) is None:
        raise NotFoundError(
            f"agent `{agent:.80}` has never acted here, so nothing is known of it; "
            f"check the name{_near(look, agent)}"
        )


def _near(look: Look, agent: str) -> str:
    """`; did you mean ...?` for an agent that is not known and whose name is like that of one that is."""
    if look.reader.get("agent", agent) is not None:
        return ""
    return did_you_mean(agent, [name for name, _ in look.reader.scan("agent")])


def _holds_a_log(settings: Settings) -> bool:
    """Whether there is a log of this organisation. Raises StoreError for a file that is not ours."""
    path = settings.db
    if isinstance(path, Path) and settings.organisation is None:
        _check_ours(path)
        return path.is_file() and path.stat().st_size > 0
    known = organisations(path)
    return settings.organisation in known if settings.organisation is not None else bool(known)


def note_unapplied(look: Look, settings: Settings) -> None:
    """Say it if a policy file of this project is not what the database goes by."""
    for path in settings.policies:
        applied = look.reader.get("source", path.name)
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            note(f"note: `{path}` cannot be read; this answer is by what was applied before")
            continue
        if applied is None or applied["digest"] != digest:
            note(
                f"note: `{path}` has changed since it was applied; `al policy apply {path}` brings it into force"
            )


def _check_there(settings: Settings) -> None:
    path = settings.db
    if isinstance(path, Path):
        if not path.exists():
            raise StoreError(
                f"there is no database `{path}`; name one with `--db`, "
                "or let `al policy apply` or an agent's first action make it"
            )
        if path.is_file() and path.stat().st_size == 0:
            raise StoreError(f"`{path}` is empty, so there is nothing to read; name another file with `--db`")
        _check_ours(path)
    if not _holds_a_log(settings):
        raise StoreError(
            f"there is no organisation `{settings.organisation}` in this database; name another in AL_ORGANISATION"
            if settings.organisation is not None
            else "there is no log in this database; name another with `--db`"
        )


def _check_ours(path: Path) -> None:
    """Raise StoreError if there is a file at `path` that is not ours."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"cannot open `{path}`: {(error.strerror or str(error)).lower()}") from None
    if not header:
        return
    application = int.from_bytes(header[_APPLICATION_ID_AT : _APPLICATION_ID_AT + 4])
    # Until its write-ahead log is moved into it, a new file does not say yet whose it is.
    unsettled = application == 0 and Path(f"{path}-wal").exists()
    if not header.startswith(_MAGIC) or (application != APPLICATION_ID and not unsettled):
        raise StoreError(
            f"cannot open `{path}`: it is not a governance database; name another file with `--db`"
        )
