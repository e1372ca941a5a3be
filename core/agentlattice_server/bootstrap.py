"""The first keys of a log, for whoever starts the service: nobody is registered who could make any.

- A person called `bootstrap` is registered as administrator, with a key; a service key is made that has no owner, so
  that who decides for the agents it registers is for policy to say.
- For a program they are written to a file that only its owner may read. A file whose keys are still in force is left as
  it is, but for the address.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentlattice_core import keys, logins, operators
from agentlattice_core.batch import Batch
from agentlattice_core.clock import time_of_log
from agentlattice_core.engine import Engine
from agentlattice_core.errors import InvalidKeyError, StoreError
from agentlattice_core.principals import Operator

__all__ = ["BOOTSTRAP", "FirstKeys", "first_keys", "first_link", "write_bootstrap"]

BOOTSTRAP = "bootstrap"
"""What the first person is called."""

_BY = {"system": "bootstrap"}


@dataclass(frozen=True, slots=True)
class FirstKeys:
    """The texts of a service key and of an operator's key, known nowhere else."""

    service_key: str
    operator_key: str

    def __repr__(self) -> str:
        return "FirstKeys(...)"


def first_keys(engine: Engine, *, even_if_there_are: bool = False) -> FirstKeys | None:
    """Make the first keys; None if there are keys already, unless more are wanted `even_if_there_are`.

    Whoever may call this may write the database, and could do as much without.
    """

    def command(batch: Batch) -> FirstKeys | None:
        if not even_if_there_are and any(True for _ in batch.scan("key")):
            return None
        if batch.get("operator", BOOTSTRAP) is None:
            operators.begin(batch, Operator(BOOTSTRAP, "admin"), _BY)
        service = keys.issue(batch, "service", BOOTSTRAP, _BY)
        person = keys.issue(batch, "operator", BOOTSTRAP, _BY)
        return FirstKeys(service.text, person.text)

    return engine.run(command)


def first_link(engine: Engine) -> str | None:
    """A one-time link for the first person; None if they were removed since."""

    def command(batch: Batch) -> str | None:
        return logins.offer(batch, BOOTSTRAP) if batch.get("operator", BOOTSTRAP) is not None else None

    return engine.run(command)


def write_bootstrap(path: Path, engine: Engine, url: str) -> None:
    """Have `path` hold the service's address and two keys that are in force. Raises StoreError."""
    held = _held(path, engine)
    if held is None:
        made = first_keys(engine, even_if_there_are=True)
        assert made is not None
        held = {"service_key": made.service_key, "operator_key": made.operator_key}
    document = {"url": url, "org_id": engine.store.log_id, **held}
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        # Made as what only its owner may read, and put in place whole: nobody ever sees it wider, or half.
        file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(file, "w", encoding="utf-8") as stream:
            json.dump(document, stream, indent=2)
            stream.write("\n")
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StoreError(f"cannot write `{path}`: {(error.strerror or str(error)).lower()}") from None


def _held(path: Path, engine: Engine) -> dict[str, Any] | None:
    """The keys that the file holds, if both are in force here."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        texts = {name: document[name] for name in ("service_key", "operator_key")}
        with engine.read() as reader:
            now = time_of_log(engine.clock, reader.head.at)
            for text in texts.values():
                keys.find(reader, keys.digest_of(text), now)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, InvalidKeyError):
        return None
    return texts
