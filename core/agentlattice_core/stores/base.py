"""What a store is: one append-only log and the state folded from it, one transaction at a time.

- A store serialises writers per log, across threads and processes: inside `transact` nobody else writes.
- What `transact` committed is *visible* at once and *durable* after `sync`. Nothing may be answered before `sync`.
- State is documents by (kind, key), written only together with the entries they are folded from.
- A document that was read must not be changed in place; write a new one.
- A store that failed to sync is dead: it refuses everything until it is opened anew, because nobody can know what the
  disk holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, TypeVar

import orjson

from agentlattice_core.audit.entry import Head, SealedEntry
from agentlattice_core.errors import AuditError

__all__ = [
    "CACHED_DOCUMENTS",
    "Document",
    "Guest",
    "Offer",
    "Reader",
    "Round",
    "Row",
    "StateKey",
    "Store",
    "Transaction",
    "beyond",
    "decode",
    "encode",
]

T = TypeVar("T")

Document = dict[str, Any]
StateKey = tuple[str, str]
Row = tuple[int, bytes, bytes, bytes | None, bytes | None]
"""A stored entry: index, body, leaf hash, salt, payload; the last two are None once the payload is erased."""

CACHED_DOCUMENTS: Final = 4_000
"""How many state documents a store remembers between transactions; so few that looking through them for garbage, for
which the interpreter stops everything, takes milliseconds.
"""


def encode(document: Document) -> bytes:
    """A document as it is stored: members in order, so that equal documents are equal bytes."""
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def decode(kind: str, key: str, value: bytes) -> Document:
    """A stored document. Raises AuditError if somebody made it unreadable."""
    try:
        document: Document = orjson.loads(value)
    except ValueError:
        raise AuditError(
            f"the stored {kind} `{key}` cannot be read; verify the state against the log"
        ) from None
    return document


def beyond(prefix: str) -> str | None:
    """The least text that sorts after everything beginning with `prefix`; None if nothing does."""
    while prefix:
        prefix, last = prefix[:-1], ord(prefix[-1])
        if last < 0x10FFFF:
            # Surrogates are no text, so the character after U+D7FF is U+E000.
            return prefix + chr(0xE000 if last == 0xD7FF else last + 1)
    return None


class Reader(Protocol):
    """A consistent view of the log and its state."""

    @property
    def head(self) -> Head:
        """Where the log ends."""
        ...

    def get(self, kind: str, key: str) -> Document | None:
        """One document of the state, or None."""
        ...

    def scan(
        self,
        kind: str,
        prefix: str = "",
        *,
        after: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> Iterator[tuple[str, Document]]:
        """Documents of one kind whose key starts with `prefix`, in key order, beyond `after` if given."""
        ...

    def row(self, index: int) -> Row | None:
        """One stored entry, or None."""
        ...

    def rows(self, start: int = 0, stop: int | None = None, *, reverse: bool = False) -> Iterator[Row]:
        """Stored entries with start <= index < stop, streamed."""
        ...

    def leaves(self, start: int, count: int) -> bytes:
        """The leaf hashes of `count` stored entries from `start` on, joined; shorter where entries are missing."""
        ...

    def tile(self, level: int, index: int) -> bytes | None:
        """A stored tile (`audit.tiles`), or None."""
        ...

    def checkpoints(self) -> Iterator[tuple[int, str]]:
        """Saved checkpoints: tree size and signed note, smallest first."""
        ...

    def states(self) -> Iterator[tuple[str, str, bytes]]:
        """Every state document in (kind, key) order, as stored."""
        ...

    def strays(self) -> Iterator[tuple[str, int | None]]:
        """What is stored and has no place in a log with this head: a sentence, and the index if it is an entry. Entries
        come first, in order."""
        ...


class Offer(Protocol):
    """What one process would have another run."""

    answer: bytes | None
    """What the other answered. All of it is durable."""
    since: int | None
    """If the other may have run it: how many entries the log had at least, before whatever it recorded."""
    interrupt: BaseException | None
    """An interrupt (Ctrl-C) that came while this process waited, to be raised once everybody is served."""

    def request(self) -> bytes | None:
        """It as data; None if it can only run here."""
        ...


class Guest(Protocol):
    """What another process offered. `answer` is what it will be told; None has it look in the log and run it itself."""

    request: bytes
    answer: bytes | None


class Round(Protocol):
    """The guests of one transaction, who wait until it is durable."""

    guests: Sequence[Guest]

    def end(self, *, durable: bool) -> None:
        """Answer, if the transaction is durable, and wake everybody who waits. Interrupted, it may be called again."""
        ...


class Transaction(Reader, Protocol):
    """A reader that may write. Reads see the transaction's own writes."""

    def collect(self) -> Round | None:
        """What other processes offer to have run in this transaction; None if nothing.

        Run each, set its answer, and end the round once everything is durable. If the transaction fails, the store ends
        it.
        """
        ...

    def prefetch(self, names: Iterable[StateKey], rows: Iterable[int] = ()) -> None:
        """Say which documents and entries will be asked for. A store for which each question is a journey reads them at
        once."""
        ...

    def append(
        self,
        entries: Sequence[SealedEntry],
        head: Head,
        writes: Mapping[StateKey, Document | None],
    ) -> None:
        """Add entries that continue the log up to `head`, the tiles they complete, and the state changes folded from
        them (None deletes). At most once a transaction."""
        ...

    def erase(self, index: int) -> None:
        """Drop the payload and the salt of one entry."""
        ...

    def add_checkpoint(self, size: int, note: str) -> None:
        """Keep a signed checkpoint."""
        ...


class Store(Protocol):
    """One log with its state. Safe to use from many threads and, where it says so, many processes."""

    log_id: str

    @property
    def poll(self) -> tuple[float, float]:
        """How many seconds apart `changed` is asked by whoever follows the log: while things happen, and after that."""
        ...

    @property
    def is_distant(self) -> bool:
        """Whether each question to it is a journey, so that it pays to say what will be asked (`prefetch`)."""
        ...

    def transact(
        self,
        work: Callable[[Transaction], T],
        on_commit: Callable[[], None] | None = None,
        offer: Offer | None = None,
    ) -> T | None:
        """Run `work` alone on the log and commit; roll back if it raises. Raises NotRecordedError if it cannot commit.

        `on_commit` is called as soon as the commit stands, even where an interrupt (Ctrl-C) then keeps `transact` from
        returning: whoever answers others must know. If another process writes next, it may be given the `offer`; if it
        answers that, `work` is not run and the result is None.
        """
        ...

    def sync(self) -> None:
        """Return when everything committed so far is durable. Raises NotRecordedError, for good, if it cannot be."""
        ...

    @property
    def is_untidy(self) -> bool:
        """Whether `tidy` has something to do."""
        ...

    def tidy(self) -> None:
        """Do beside the writers what would otherwise hold one of them up. Raises NotRecordedError if the disk fails."""
        ...

    def read(self) -> AbstractContextManager[Reader]:
        """A consistent view of what is durable."""
        ...

    def changed(self) -> bool:
        """Whether anybody may have committed since the last call; cheap enough to ask as often as `poll` says."""
        ...

    def listen(self, bell: Callable[[], None]) -> None:
        """Have `bell` called soon after another process has committed what somebody may wait for, if the store can
        tell; until it is closed."""
        ...

    def signing(self, *, wait: bool = True) -> AbstractContextManager[bool]:
        """Within it nobody else signs the log; whether that is so, which with `wait` it always is."""
        ...

    def close(self) -> None:
        """Release everything. Using the store again raises StoreError."""
        ...
