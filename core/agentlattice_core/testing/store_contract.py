"""What every store must keep, as a pytest class to subclass.

    class TestMyStore(StoreContract):
        @pytest.fixture
        def open_store(self, tmp_path):
            ...  # yields a function that opens one more handle on one and the same log, as another process would

        @pytest.fixture
        def failing_store(self, tmp_path):
            ...  # yields a store on a log of its own, and a function from whose call on it cannot make anything durable

- The promises are those of `stores.base`; nothing here knows how a store keeps them.
- A handle that `open_store` gave is closed by the test or, at its end, by the fixture.
- Power cuts, full disks and processes that die are a store's own to test: they take seams that differ.

Needs pytest and hypothesis, which no store needs to run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentlattice_core.audit.entry import Sealer
from agentlattice_core.audit.merkle import Frontier, leaf_hash
from agentlattice_core.audit.tiles import TILE_BYTES, TILE_WIDTH, TiledHashes
from agentlattice_core.errors import NotRecordedError, StoreError
from agentlattice_core.stores.base import Document, Reader, StateKey, Store, Transaction, encode

__all__ = ["OpenStore", "StoreContract", "append"]

OpenStore = Callable[[], Store]

_AT = "2026-03-02T09:00:00.000000Z"
_PATIENCE = 60  # seconds until a thread counts as stuck

# Every code point that text in a store may hold, the ends of each range often.
_TEXT = st.text(
    st.one_of(
        st.sampled_from("/%_*?[]\\'\"~\x01\x7f\ud7ff\ue000\uffff\U00010000\U0010ffff"),
        st.characters(codec="utf-8", exclude_characters="\0"),
    ),
    min_size=1,
    max_size=4,
)


def append(
    transaction: Transaction,
    log_id: str,
    count: int = 1,
    writes: Mapping[StateKey, Document | None] | None = None,
    payload: bytes | None = b"{}",
) -> int:
    """Append `count` entries and the state changes. The index of the first."""
    sealer = Sealer(log_id, transaction.head)
    first = sealer.size
    entries = [
        sealer.seal("log", {"system": "contract"}, {"event": "began"}, at=_AT, payload=payload)
        for _ in range(count)
    ]
    transaction.append(entries, sealer.head(), writes or {})
    return first


class StoreContract:
    """The promises of a `Store`. A subclass gives two fixtures: `open_store`, an `OpenStore`, and `failing_store`, a
    store and what makes it fail.
    """

    @pytest.fixture
    def store(self, open_store: OpenStore) -> Store:
        return open_store()

    # Writing

    def test_a_new_log_is_empty_and_keeps_its_id(self, open_store: OpenStore) -> None:
        """Whoever opens the same log finds the same id."""
        store, other = open_store(), open_store()
        assert store.log_id
        assert store.log_id == other.log_id
        with store.read() as reader:
            assert (reader.head.size, list(reader.rows()), list(reader.states())) == (0, [], [])

    def test_what_was_committed_is_visible_at_once_to_everybody(self, open_store: OpenStore) -> None:
        """Also before `sync`, also through another handle, byte for byte."""
        store, other = open_store(), open_store()
        writes = {("agent", "a"): {"tags": ["ü", "x"], "n": 1}}
        assert store.transact(lambda t: append(t, store.log_id, 3, writes)) == 0
        store.sync()
        found = []
        for handle in (store, other):
            with handle.read() as reader:
                assert reader.head.size == 3
                assert reader.get("agent", "a") == {"tags": ["ü", "x"], "n": 1}
                found.append((list(reader.rows()), reader.head.root(), reader.head.leaf, reader.head.at))
        assert found[0] == found[1]
        assert other.transact(lambda t: (t.head.size, t.get("agent", "a"))) == (3, writes["agent", "a"])
        assert other.transact(lambda t: append(t, other.log_id)) == 3
        assert store.transact(lambda t: t.head.size) == 4

    @pytest.mark.parametrize("failure", [RuntimeError, NotRecordedError, KeyboardInterrupt])
    def test_a_transaction_that_raises_leaves_nothing(
        self, store: Store, failure: type[BaseException]
    ) -> None:
        """Neither entries nor state, checkpoints, tiles or erasures; and the store goes on."""
        store.transact(lambda t: append(t, store.log_id, 255, {("agent", "a"): {"n": 1}}))
        store.sync()
        called: list[int] = []

        def work(transaction: Transaction) -> None:
            assert transaction.get("agent", "a") == {"n": 1}
            append(transaction, store.log_id, 2, {("agent", "a"): None, ("agent", "b"): {"n": 2}})
            transaction.erase(0)
            transaction.add_checkpoint(1, "note")
            raise failure("stop")

        before = everything(store)
        with pytest.raises(failure):
            store.transact(work, lambda: called.append(1))
        assert everything(store) == before
        assert called == []
        assert store.transact(lambda t: (t.get("agent", "a"), t.get("agent", "b"))) == ({"n": 1}, None)
        assert store.transact(lambda t: append(t, store.log_id)) == 255

    def test_a_commit_is_told_once(self, store: Store) -> None:
        """`on_commit` is called when the commit stands."""
        called: list[int] = []
        store.transact(lambda t: append(t, store.log_id), lambda: called.append(1))
        assert called == [1]

    def test_a_transaction_appends_at_most_once(self, store: Store) -> None:
        def work(transaction: Transaction) -> None:
            append(transaction, store.log_id)
            append(transaction, store.log_id)

        with pytest.raises(StoreError, match="once"):
            store.transact(work)
        with store.read() as reader:
            assert reader.head.size == 0

    def test_a_transaction_reads_its_own_writes(self, store: Store) -> None:
        store.transact(lambda t: append(t, store.log_id, 1, {("k", "a"): {"n": 1}, ("k", "gone"): {}}))

        def work(transaction: Transaction) -> None:
            assert transaction.get("k", "a") == {"n": 1}
            assert transaction.get("k", "b") is None
            assert transaction.get("k", "gone") == {}
            append(
                transaction,
                store.log_id,
                2,
                {("k", "a"): {"n": 2}, ("k", "b"): {"n": 3}, ("k", "gone"): None},
            )
            assert transaction.head.size == 3
            assert [row[0] for row in transaction.rows()] == [0, 1, 2]
            assert transaction.get("k", "a") == {"n": 2}
            assert transaction.get("k", "gone") is None
            assert list(transaction.scan("k")) == [("a", {"n": 2}), ("b", {"n": 3})]
            transaction.erase(2)
            row = transaction.row(2)
            assert row is not None
            assert row[3:] == (None, None)

        store.transact(work)

    def test_one_document_at_a_time_is_written_replaced_and_deleted(self, open_store: OpenStore) -> None:
        """Each handle sees what any of them wrote last."""
        handles = [open_store(), open_store()]
        for number in range(6):
            store, other = handles[number % 2], handles[1 - number % 2]
            document: Document | None = None if number % 3 == 2 else {"n": number}
            writes = {("k", "x"): document}
            store.transact(lambda t, s=store, w=writes: append(t, s.log_id, 1, w))  # type: ignore[misc]
            store.sync()
            with other.read() as reader:
                assert reader.get("k", "x") == document
            assert other.transact(lambda t: t.get("k", "x")) == document

    def test_an_erasure_drops_payload_and_salt_and_nothing_else(self, store: Store) -> None:
        store.transact(lambda t: append(t, store.log_id, 3, payload=b'{"secret":1}'))
        with store.read() as reader:
            before = list(reader.rows())
        store.transact(lambda t: t.erase(1))
        store.sync()
        with store.read() as reader:
            after = list(reader.rows())
        assert [row[:3] for row in after] == [row[:3] for row in before]
        assert [row[3:] for row in after] == [before[0][3:], (None, None), before[2][3:]]

    def test_checkpoints_come_back_smallest_first_and_the_first_of_a_size_stays(self, store: Store) -> None:
        for size, note in ((7, "seven"), (3, "three"), (7, "other"), (2**40, "large")):
            store.transact(lambda t, s=size, n=note: t.add_checkpoint(s, n))  # type: ignore[misc]
        store.sync()
        with store.read() as reader:
            assert list(reader.checkpoints()) == [(3, "three"), (7, "seven"), (2**40, "large")]

    @pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 600])
    def test_what_the_store_itself_wrote_has_its_place(self, store: Store, count: int) -> None:
        """Whatever size the log has, an untouched store holds nothing that does not belong to it."""
        store.transact(lambda t: append(t, store.log_id, count))
        store.sync()
        with store.read() as reader:
            assert list(reader.strays()) == []

    def test_writers_take_turns_and_lose_nothing(self, open_store: OpenStore) -> None:
        """Many threads over several handles add up one counter by reading and writing it."""
        handles, errors, inside = [open_store() for _ in range(3)], list[BaseException](), list[int]()

        def count(transaction: Transaction) -> None:
            inside.append(1)
            assert len(inside) == 1, "two writers at once"
            known = transaction.get("k", "counter") or {"n": 0}
            append(transaction, handles[0].log_id, 1, {("k", "counter"): {"n": known["n"] + 1}})
            inside.pop()

        def work(store: Store) -> None:
            try:
                for _ in range(20):
                    store.transact(count)
                    store.sync()
            except BaseException as error:
                errors.append(error)

        threads = [
            threading.Thread(target=work, args=(store,), daemon=True) for store in handles for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_PATIENCE)
            assert not thread.is_alive()
        assert errors == []
        with handles[0].read() as reader:
            assert reader.get("k", "counter") == {"n": 180}
            assert [row[0] for row in reader.rows()] == list(range(180))

    # Reading

    def test_a_reader_sees_one_moment(self, open_store: OpenStore) -> None:
        """Whatever is committed while it reads, here or elsewhere; the next reader sees it."""
        store, other = open_store(), open_store()
        store.transact(lambda t: append(t, store.log_id, 2, {("k", "a"): {"n": 1}}))
        store.sync()
        with store.read() as reader:
            rows = reader.rows()
            first = next(rows)
            for handle in (store, other):
                handle.transact(lambda t: append(t, store.log_id, 1, {("k", "a"): {"n": 2}, ("k", "b"): {}}))
                handle.transact(lambda t: t.erase(0))
                handle.sync()
            assert reader.head.size == 2
            assert [first[0], *(row[0] for row in rows)] == [0, 1]
            assert reader.get("k", "a") == {"n": 1}
            assert [key for key, _ in reader.scan("k")] == ["a"]
            assert reader.row(0) == first
            assert reader.row(2) is None
        with store.read() as reader:
            assert (reader.head.size, reader.get("k", "a")) == (4, {"n": 2})

    def test_a_reader_that_is_left_early_leaves_nothing_behind(self, open_store: OpenStore) -> None:
        """What was streamed and is still held by somebody makes neither readers nor writers see the past."""
        store, other = open_store(), open_store()
        store.transact(lambda t: append(t, store.log_id, 10, {("k", f"{n}"): {} for n in range(10)}))
        store.sync()
        held: list[Any] = []

        def stop(transaction: Transaction) -> None:
            held.append(transaction.rows())
            next(held[-1])
            raise RuntimeError("stop")

        def look_and_stop() -> None:
            with store.read() as reader:
                held.append(reader.scan("k"))
                next(held[-1])
                raise RuntimeError("stop")

        with pytest.raises(RuntimeError):
            look_and_stop()
        with pytest.raises(RuntimeError):
            store.transact(stop)

        def go_on(transaction: Transaction) -> None:
            held.append(transaction.scan("k"))
            next(held[-1])

        store.transact(go_on)
        other.transact(lambda t: append(t, other.log_id))
        other.sync()
        with store.read() as reader:
            assert reader.head.size == 11
        assert store.transact(lambda t: append(t, store.log_id)) == 11

    def test_rows_come_in_order_within_their_bounds(self, store: Store) -> None:
        store.transact(lambda t: append(t, store.log_id, 10))
        store.sync()
        with store.read() as reader:

            def indexes(*bounds: int, reverse: bool = False) -> list[int]:
                return [row[0] for row in reader.rows(*bounds, reverse=reverse)]

            assert indexes() == list(range(10))
            assert indexes(3, 6) == [3, 4, 5]
            assert indexes(8) == [8, 9]
            assert indexes(0, 100) == list(range(10))
            assert indexes(2, 5, reverse=True) == [4, 3, 2]
            assert indexes(10) == indexes(5, 5) == []
            assert reader.row(9) is not None
            assert reader.row(10) is None
            for index, body, leaf, salt, payload in reader.rows():
                assert leaf == leaf_hash(body)
                assert reader.row(index) == (index, body, leaf, salt, payload)

    def test_leaves_and_tiles_are_those_of_the_entries(self, store: Store) -> None:
        """However the entries came in; proofs that are made of them lead to the head's root."""
        for count in (1, 254, 1, 1, 300, 255):
            store.transact(lambda t, n=count: append(t, store.log_id, n))  # type: ignore[misc]
        store.sync()
        with store.read() as reader:
            leaves = [row[2] for row in reader.rows()]
            size = len(leaves)
            assert reader.leaves(0, size) == b"".join(leaves)
            assert reader.leaves(250, 10) == b"".join(leaves[250:260])
            assert reader.leaves(size - 1, 5) == leaves[-1]
            assert reader.leaves(size, 1) == b""
            for index in range(size // TILE_WIDTH):
                tile = reader.tile(0, index)
                assert tile == b"".join(leaves[index * TILE_WIDTH : (index + 1) * TILE_WIDTH])
                assert len(tile) == TILE_BYTES
            assert reader.tile(0, size // TILE_WIDTH) is None
            assert len(reader.tile(1, 0) or b"") == 32 * (size // TILE_WIDTH)
            frontier = Frontier.read(size, TiledHashes(reader.tile, reader.leaves))
            assert frontier.root() == reader.head.root()

    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.differing_executors,  # one class for each store, all of which inherit this test
        ],
    )
    @example(["a\U0010ffff", "a", "b"], "a", None, None, False, False)
    @example(["\U0010ffff", "\U0010ffffx", "\uffff"], "\U0010ffff", None, None, True, False)
    @example(["\ud7ffx", "\ue000"], "\ud7ff", None, None, False, False)
    @example(
        ["é" * 3000 + end for end in "cab"] + ["é" * 10], "é" * 2000, "é" * 3000 + "a", None, False, False
    )
    @example(["x" * 5000 + end for end in "cab"], "x" * 4000, None, 2, True, False)
    @given(
        keys=st.lists(_TEXT, max_size=12, unique=True),
        prefix=st.one_of(st.just(""), _TEXT),
        after=st.one_of(st.none(), _TEXT),
        limit=st.one_of(st.none(), st.integers(0, 5)),
        reverse=st.booleans(),
        extend=st.booleans(),
    )
    def test_a_scan_is_a_sorted_dictionary(
        self,
        store: Store,
        keys: list[str],
        prefix: str,
        after: str | None,
        limit: int | None,
        reverse: bool,
        extend: bool,
    ) -> None:
        """By code points, whatever the keys hold: prefix, beyond `after` in the direction of reading, limit."""
        if extend:
            keys = list(dict.fromkeys([*keys, *(prefix + key for key in keys)]))
        kind = f"kind{_taken(store)}"
        writes: dict[StateKey, Document | None] = {(kind, key): {"key": key} for key in keys}
        writes |= {(f"{kind}x", key): {} for key in keys}
        store.transact(lambda t: append(t, store.log_id, 1, writes))
        store.sync()
        expected = sorted((key for key in keys if key.startswith(prefix)), reverse=reverse)
        if after is not None:
            expected = [key for key in expected if (key < after if reverse else key > after)]
        with store.read() as reader:
            found = list(reader.scan(kind, prefix, after=after, limit=limit, reverse=reverse))
        assert found == [(key, {"key": key}) for key in expected[:limit]]

    def test_states_are_every_document_in_order_as_encoded(self, store: Store) -> None:
        documents: dict[StateKey, Document] = {
            (kind, key): {"z": 1, "a": [key]}
            for kind in ("b", "a", "ab")
            for key in ("2", "10", "ä", "x" * 3000)
        }
        store.transact(lambda t: append(t, store.log_id, 1, documents))
        store.sync()
        with store.read() as reader:
            assert list(reader.states()) == [(*name, encode(documents[name])) for name in sorted(documents)]

    # Beside

    def test_changed_tells_of_every_commit_whoever_made_it(self, open_store: OpenStore) -> None:
        store, other = open_store(), open_store()
        store.changed()
        assert not store.changed()
        for handle in (store, other):
            handle.transact(lambda t: append(t, store.log_id))
            handle.sync()
            assert store.changed()
            assert not store.changed()

    def test_closing_one_handle_leaves_the_others_and_what_was_written(self, open_store: OpenStore) -> None:
        store, other = open_store(), open_store()
        store.transact(lambda t: append(t, store.log_id, 2, {("k", "a"): {"n": 1}}))
        store.close()
        store.close()
        for use in (lambda: store.transact(lambda t: None), store.changed, lambda: everything(store)):
            with pytest.raises(StoreError, match="closed"):
                use()
        assert other.transact(lambda t: append(t, other.log_id)) == 2
        other.close()
        again = open_store()
        with again.read() as reader:
            assert (reader.head.size, reader.get("k", "a")) == (3, {"n": 1})

    def test_what_cannot_be_made_durable_is_refused_for_good(
        self, failing_store: tuple[Store, Callable[[], None]]
    ) -> None:
        """A failure of `sync` is final: nothing is answered after it, neither to writers nor to readers."""
        store, fail = failing_store
        store.transact(lambda t: append(t, store.log_id))
        store.sync()
        fail()

        def write() -> None:
            store.transact(lambda t: append(t, store.log_id))
            store.sync()

        for _ in range(3):
            with pytest.raises(NotRecordedError):
                write()
            with pytest.raises((NotRecordedError, StoreError)), store.read():
                pass


def everything(store: Store) -> tuple[Any, ...]:
    """All that a store holds."""
    with store.read() as reader:
        return (
            reader.head.size,
            reader.head.root(),
            list(reader.rows()),
            list(reader.states()),
            list(reader.checkpoints()),
            [_tiles(reader, level) for level in (0, 1)],
        )


def _tiles(reader: Reader, level: int) -> list[bytes | None]:
    return [reader.tile(level, index) for index in range(3)]


def _taken(store: Store) -> int:
    with store.read() as reader:
        return reader.head.size
