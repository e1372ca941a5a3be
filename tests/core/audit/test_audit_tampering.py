"""Tampering: whatever is changed in a stored log is found, and the row is named."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_log import MemoryLog, Row

from agentlattice_core.audit.canonical import dumps, loads
from agentlattice_core.audit.checkpoint import Checkpoint
from agentlattice_core.audit.entry import Head, Sealer, commitment, parse
from agentlattice_core.audit.merkle import Frontier, leaf_hash
from agentlattice_core.audit.report import VerifyReport
from agentlattice_core.audit.verify import resume, verify_rows
from agentlattice_core.errors import AuditError

SMALL = MemoryLog().fill(9)


def verified(log: MemoryLog, rows: list[Row] | None = None, **more: Any) -> VerifyReport:
    return verify_rows(log.rows if rows is None else rows, log=log.name, head=log.head, **more)


def named(report: VerifyReport) -> tuple[str, int | None]:
    assert report.problem is not None, "the change was not noticed"
    assert report.head is None
    message = report.problem.message
    assert message[0].islower()
    assert "\n" not in message
    return report.problem.kind, report.problem.row


def changed(rows: list[Row], index: int, column: int, value: Any) -> list[Row]:
    rows = rows.copy()
    row: list[Any] = list(rows[index])
    row[column] = value
    rows[index] = tuple(row)  # type: ignore[assignment]
    return rows


def flipped(text: bytes, bit: int) -> bytes:
    found = bytearray(text)
    found[bit // 8] ^= 1 << bit % 8
    return bytes(found)


def test_an_untouched_log_verifies(log_of_600: MemoryLog) -> None:
    """Everything fits: rows, head, tiles, checkpoints at any size."""
    log = log_of_600
    checkpoints = [log.checkpoint(size) for size in (0, 1, 255, 256, 257, 511, 512, 599, 600)]
    report = verified(log, checkpoints=checkpoints, read_tile=log.read_tile)
    assert report == VerifyReport(0, 600, 0, 9, log.head)


def test_an_empty_log_verifies() -> None:
    """A log without entries is sound and has the empty root."""
    report = verify_rows([], log="acme", head=Head())
    assert (report.ok, report.size) == (True, 0)


@pytest.mark.parametrize("index", range(9))
def test_every_bit_of_every_entry_counts(index: int) -> None:
    """Any one bit of an entry's bytes changed: found, that row named, whichever of its neighbours is last."""
    body = SMALL.rows[index][1]
    for bit in range(8 * len(body)):
        report = verified(SMALL, changed(SMALL.rows, index, 1, flipped(body, bit)))
        kind, row = named(report)
        assert row == index
        assert kind in ("body_changed", "moved")


@pytest.mark.parametrize("index", range(9))
def test_every_bit_of_the_other_columns_counts(index: int) -> None:
    """Any one bit of hash, salt or payload changed: found, that row named, and said what it was."""
    for column, kind in ((2, "leaf_changed"), (3, "payload_changed"), (4, "payload_changed")):
        stored = SMALL.rows[index][column]
        for bit in range(8 * len(stored) if isinstance(stored, bytes) else 0):
            rows = changed(SMALL.rows, index, column, flipped(stored, bit))  # type: ignore[arg-type]
            assert named(verified(SMALL, rows)) == (kind, index)


@pytest.mark.parametrize("index", range(9))
@pytest.mark.parametrize("column", [1, 2, 3, 4])
@pytest.mark.parametrize("value", ["text", 7, b"", b"x" * 32, 1.5])
def test_a_column_of_another_type_is_found(index: int, column: int, value: Any) -> None:
    """Whatever somebody puts into a column, verification names the row and does not fall over."""
    assert named(verified(SMALL, changed(SMALL.rows, index, column, value)))[1] == index


@pytest.mark.parametrize("index", range(8))
def test_a_removed_entry_is_named(index: int) -> None:
    """One row removed from the middle or the front, its number left free or closed up: the missing entry is named."""
    rows = SMALL.rows[:index] + SMALL.rows[index + 1 :]
    assert named(verified(SMALL, rows)) == ("missing", index)
    renumbered = [(position, *row[1:]) for position, row in enumerate(rows)]
    assert named(verify_rows(renumbered, log="acme")) == ("missing", index)


@pytest.mark.parametrize(("one", "two"), [(a, b) for a in range(9) for b in range(a + 1, 9)])
def test_two_swapped_entries_are_named(one: int, two: int) -> None:
    """Two rows swapped, as a whole or only in some columns: the first of them is named."""
    rows = SMALL.rows.copy()
    rows[one], rows[two] = (one, *SMALL.rows[two][1:]), (two, *SMALL.rows[one][1:])
    assert named(verified(SMALL, rows)) == ("moved", one)
    rows = changed(changed(SMALL.rows, one, 1, SMALL.rows[two][1]), two, 1, SMALL.rows[one][1])
    assert named(verified(SMALL, rows)) == ("moved", one)
    rows = changed(changed(SMALL.rows, one, 2, SMALL.rows[two][2]), two, 2, SMALL.rows[one][2])
    assert named(verified(SMALL, rows)) == ("leaf_changed", one)
    rows = SMALL.rows.copy()
    rows[one], rows[two] = rows[two], rows[one]
    assert named(verified(SMALL, rows))[1] == one


@pytest.mark.parametrize("index", range(1, 9))
def test_a_repeated_entry_is_named(index: int) -> None:
    """A row that is there twice, or an earlier one put in again, is named where it does not belong."""
    rows = SMALL.rows[:index] + SMALL.rows[index - 1 :]
    assert named(verified(SMALL, rows)) == ("repeated", index - 1)
    renumbered = [(position, *row[1:]) for position, row in enumerate(rows)]
    assert named(verified(SMALL, renumbered)) == ("repeated", index)


@pytest.mark.parametrize("index", range(9))
def test_an_inserted_entry_is_named(index: int) -> None:
    """Forged entries that continue the log before them are given away by the entry that came there really."""
    forger = Sealer("acme", _head_of(SMALL.rows[:index]))
    forged: list[Row] = []
    for count in (1, 2):
        forged.append(tuple(forger.seal("action", {"agent": "agent-0"}, {"n": "forged"}, at=SMALL.head.at)))
        after = [(row[0] + count, *row[1:]) for row in SMALL.rows[index:]]
        assert named(verified(SMALL, [*SMALL.rows[:index], *forged, *after]))[1] == index


@pytest.mark.parametrize("index", range(9))
def test_an_entry_replaced_with_its_hash_is_named(index: int) -> None:
    """Body and hash column both forged to fit each other: the neighbours, or the head, give the row away."""
    body = SMALL.rows[index][1].replace(b'"n":', b'"m":')
    rows = changed(changed(SMALL.rows, index, 1, body), index, 2, leaf_hash(body))
    kind, row = named(verified(SMALL, rows))
    assert (kind, row) == ("entry_changed" if index < 8 else "head_changed", index)


@pytest.mark.parametrize("index", range(1, 9))
def test_an_entry_made_to_continue_another_log_is_named(index: int) -> None:
    """`prev` forged together with the hash column: that row is named and not the one before."""
    entry = parse(SMALL.rows[index][1])
    body = SMALL.rows[index][1].replace(entry.prev.hex().encode(), b"ab" * 32)
    rows = changed(changed(SMALL.rows, index, 1, body), index, 2, leaf_hash(body))
    assert named(verified(SMALL, rows)) == ("entry_changed", index)


@pytest.mark.parametrize("size", range(9))
def test_a_tail_cut_to_any_length_is_found(size: int) -> None:
    """Cut off without touching the head: the head tells. Head cut too: the checkpoint tells, with the interval."""
    rows = SMALL.rows[:size]
    assert named(verified(SMALL, rows)) == ("truncated", size)
    old = _head_of(rows)
    assert verify_rows(rows, log="acme", head=old).ok
    report = verify_rows(rows, log="acme", head=old, checkpoints=[SMALL.checkpoint(9)])
    assert named(report) == ("truncated", size)
    assert report.problem is not None
    assert report.problem.interval == (size, 8)


def test_rows_beyond_the_head_are_found() -> None:
    """An old head put back does not hide what came after it."""
    assert named(verify_rows(SMALL.rows, log="acme", head=_head_of(SMALL.rows[:5]))) == ("head_changed", 5)


def test_a_changed_frontier_is_found() -> None:
    """Every hash and bit of the stored head is compared."""
    head = SMALL.head
    hashes = [flipped(head.frontier.hashes[0], 3), *head.frontier.hashes[1:]]
    report = verify_rows(SMALL.rows, log="acme", head=Head(head.leaf, head.at, Frontier(9, hashes)))
    assert named(report) == ("head_changed", None)


def test_a_log_rewritten_with_all_hashes_is_found_and_its_interval_named(log_of_600: MemoryLog) -> None:
    """One field changed and everything after it recomputed: only signed checkpoints tell, and between which."""
    log = log_of_600

    def forge(index: int, data: dict[str, Any]) -> None:
        if index == 300:
            data["n"] = -1

    forged = log.resealed(forge)
    assert verified(forged, read_tile=forged.read_tile).ok
    signed = [log.checkpoint(size) for size in (600, 100, 299, 300, 400, 301)]
    report = verified(forged, checkpoints=signed)
    assert named(report) == ("rewritten", None)
    assert report.problem is not None
    assert report.problem.interval == (300, 300)
    report = verified(forged, checkpoints=[log.checkpoint(100), log.checkpoint(600)])
    assert report.problem is not None
    assert report.problem.interval == (100, 599)
    assert (report.size, report.checkpoints) == (100, 1)


def test_every_rewritten_log_misses_every_later_checkpoint() -> None:
    """Whichever entry is rewritten, each checkpoint after it fails and each one before it holds."""
    for place in range(9):
        forged = SMALL.resealed(
            lambda index, data, place=place: data.update(n=-1) if index == place else None
        )
        for size in range(10):
            report = verify_rows(
                forged.rows[: max(size, place + 1)], log="acme", checkpoints=[SMALL.checkpoint(size)]
            )
            assert report.ok == (size <= place)


def test_a_changed_or_missing_tile_is_found(log_of_600: MemoryLog) -> None:
    """Every stored tile is compared with the entries; the first entry it is wrong about is named."""
    log = log_of_600
    for at, hashes in log.tiles.items():
        for place in (0, len(hashes) // 32 - 1):
            broken = copy.copy(log.tiles)
            broken[at] = flipped(hashes, 256 * place + 9)
            report = verified(log, read_tile=lambda *key, broken=broken: broken.get(key))
            row = (at[1] * 256 + place) << (8 * at[0])
            assert named(report) == ("tile_changed", row)
        rest = {key: value for key, value in log.tiles.items() if key != at}
        report = verified(log, read_tile=lambda *key, rest=rest: rest.get(key))
        assert named(report)[0] == "tile_changed"


def test_an_erased_payload_verifies_and_is_counted() -> None:
    """Gone with an entry that says so: fine, and told apart from tampering."""
    log = MemoryLog().fill(20)
    log.erase(4, 5, 6, 12)
    log.fill(3)
    log.erase(0)
    report = verified(log)
    assert (report.ok, report.erased) == (True, 5)


def test_a_payload_that_vanished_is_missing() -> None:
    """Gone and nothing says so: the first such row is named, also when an erasure names others."""
    log = MemoryLog().fill(20)
    log.erase(4, 6)
    rows = changed(changed(log.rows, 5, 3, None), 5, 4, None)
    assert named(verified(log, rows)) == ("payload_missing", 5)
    assert named(verified(log, changed(log.rows, 9, 4, None))) == ("payload_changed", 9)
    assert named(verified(log, changed(log.rows, 9, 3, None))) == ("payload_changed", 9)


def test_a_payload_nobody_sealed_is_found() -> None:
    """A payload added to an entry without one, put back changed, or shifted into the salt, is not believed."""
    log = MemoryLog().fill(8)
    salt = bytes(16)
    assert named(verified(log, changed(changed(log.rows, 3, 3, salt), 3, 4, b"{}"))) == ("payload_changed", 3)
    for rows in (log.rows, log.rows[:3]):
        _, body, _, salt, payload = rows[2]
        assert salt is not None
        assert payload is not None
        shifted = changed(changed(rows, 2, 3, salt + payload[:1]), 2, 4, payload[1:])
        assert commitment(salt + payload[:1], payload[1:]) == parse(body).payload
        assert named(verify_rows(shifted, log="acme")) == ("payload_changed", 2)


def test_an_erasure_does_not_excuse_what_it_does_not_name() -> None:
    """An erasure that names nothing before it is malformed, and hashes that fit do not help it."""
    log = MemoryLog().fill(3)
    rows = changed(changed(log.rows, 1, 3, None), 1, 4, None)
    log.append("erasure", {"ranges": [[0, 3]]})
    assert named(verified(log, [*rows, log.rows[3]])) == ("malformed", 3)


def _chained(index: int, members: dict[str, Any]) -> list[Row]:
    """The first entries, and then one with these members in place of its own, its hash right."""
    value = loads(SMALL.rows[index][1]) | members
    value.pop("payload", None)
    body = dumps(value)
    return [*SMALL.rows[:index], (index, body, leaf_hash(body), None, None)]


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ({"i": 4}, "malformed"),
        ({"i": 6}, "malformed"),
        ({"log": "other"}, "moved"),
        ({"at": "2020-01-01T00:00:00.000000Z"}, "time"),
        ({"at": "2027-02-30T00:00:00.000000Z"}, "malformed"),
        ({"v": 2}, "malformed"),
        ({"who": {"prev": 1, "v": 1, "log": "acme"}, "i": 4}, "malformed"),
        ({"data": {"i": 5, "kind": "action", "log": "acme"}, "i": 7}, "malformed"),
        ({"data": {"a": {}, "i": 5, "kind": "action"}, "i": 7}, "malformed"),
    ],
)
def test_a_writer_at_fault_is_found_though_every_hash_fits(members: dict[str, Any], kind: str) -> None:
    """Right hashes do not excuse a wrong index, log, time or version."""
    assert named(verify_rows(_chained(5, members), log="acme")) == (kind, 5)


def test_members_within_data_and_who_cannot_stand_in_for_the_entrys_own() -> None:
    """`prev`, `payload` and `log` planted inside `who` or `data` are not taken for the entry's own."""
    right = SMALL.rows[4][2].hex()
    planted = {"a": 0, "log": "acme", "prev": right, "v": 1, "who": {"agent": "agent-1"}}
    for members in ({"who": planted}, {"data": planted}):
        assert verify_rows(_chained(5, members), log="acme").ok
        assert named(verify_rows(_chained(5, members | {"prev": "00" * 32}), log="acme")) == (
            "entry_changed",
            4,
        )


def test_entries_of_many_agents_and_kinds_verify() -> None:
    """The fast path and the full parse agree on every shape of a sound entry."""
    log = MemoryLog()
    for n in range(300):
        log.append(
            "action",
            {"text": '"},"i":7,"kind":"erasure","log":"acme","prev":"' * (n % 3)} if n % 2 else {},
            who={"agent": f"a{n}", "prev": "x" * (n % 5), "nested": {"who": {"prev": "y"}}} if n % 7 else {},
            payload={"n": n} if n % 3 else None,
        )
    assert verified(log, read_tile=log.read_tile).ok


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_combination_of_changes_goes_unnoticed(data: st.DataObject) -> None:
    """Any rows that differ from the ones sealed are found by the head alone, unless only unread bytes differ."""
    rows = SMALL.rows.copy()
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(len(rows) - 1, 0)))
        if not rows:
            break
        change = data.draw(st.sampled_from(["drop", "swap", "copy", "flip", "renumber"]))
        if change == "drop":
            del rows[place]
        elif change == "swap":
            other = data.draw(st.integers(0, len(rows) - 1))
            rows[place], rows[other] = rows[other], rows[place]
        elif change == "copy":
            rows.insert(data.draw(st.integers(0, len(rows))), rows[place])
        elif change == "flip":
            body = rows[place][1]
            rows[place] = changed(
                [rows[place]], 0, 1, flipped(body, data.draw(st.integers(0, 8 * len(body) - 1)))
            )[0]
        else:
            rows = [(index, *row[1:]) for index, row in enumerate(rows)]
    assert verified(SMALL, rows).ok == (rows == SMALL.rows)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 300, 512, 599, 600])
def test_verification_goes_on_from_a_signed_checkpoint(log_of_600: MemoryLog, size: int) -> None:
    """From a checkpoint only what came after it is read, and the outcome is that of the whole."""
    log = log_of_600
    start = resume(log.checkpoint(size), log.hashes())
    report = verify_rows(
        log.rows[size:],
        log="acme",
        start=start,
        head=log.head,
        checkpoints=[log.checkpoint(600)],
        read_tile=log.read_tile,
    )
    assert (report.ok, report.start, report.size, report.checkpoints) == (True, size, 600, 1)
    assert report.head is not None
    assert report.head.root() == log.head.root()


def test_resuming_reads_few_hashes_whatever_the_size(log_of_600: MemoryLog) -> None:
    """The cost of going on depends on what is new, not on what is old."""
    reads = 0
    hashes = log_of_600.hashes()

    def counting(level: int, index: int) -> bytes:
        nonlocal reads
        reads += 1
        return hashes(level, index)

    resume(log_of_600.checkpoint(599), counting)
    assert reads <= 40


def test_a_checkpoint_does_not_resume_on_another_history(log_of_600: MemoryLog) -> None:
    """Stored hashes that do not lead to the signed root are refused."""
    forged = log_of_600.resealed(lambda index, data: data.update(n=-1) if index == 0 else None)
    with pytest.raises(AuditError, match="verify from the beginning"):
        resume(log_of_600.checkpoint(500), forged.hashes())


def test_a_change_after_the_checkpoint_is_named(log_of_600: MemoryLog) -> None:
    """Incremental verification names rows as the whole one does, the first new one included."""
    start = resume(log_of_600.checkpoint(300), log_of_600.hashes())
    for row in (300, 301, 599):
        body = log_of_600.rows[row][1].replace(b'"n":', b'"m":')
        rows = changed(log_of_600.rows, row, 1, body)[300:]
        report = verify_rows(rows, log="acme", start=start, head=log_of_600.head)
        assert named(report) == ("body_changed", row)
    rows = log_of_600.rows[301:]
    assert named(verify_rows(rows, log="acme", start=start)) == ("missing", 300)
    forged = log_of_600.resealed(lambda index, data: data.update(n=-1) if index == 0 else None)
    assert named(verify_rows(forged.rows[300:], log="acme", start=start)) == ("entry_changed", 300)


def test_checkpoints_that_cannot_be_compared_are_refused() -> None:
    """Another log's, two of one size, or one from before the start: an error, not a silent pass."""
    checkpoint = SMALL.checkpoint(5)
    for wrong in (
        [Checkpoint("agentlattice/other", 5, checkpoint.root)],
        [checkpoint, Checkpoint(checkpoint.origin, 5, bytes(32))],
    ):
        with pytest.raises(AuditError):
            verify_rows(SMALL.rows, log="acme", checkpoints=wrong)
    with pytest.raises(AuditError, match="older"):
        verify_rows(
            SMALL.rows[7:],
            log="acme",
            start=resume(SMALL.checkpoint(7), SMALL.hashes()),
            checkpoints=[checkpoint],
        )


def _head_of(rows: list[Row]) -> Head:
    frontier = Frontier()
    for row in rows:
        frontier.push(row[2])
    return Head(rows[-1][2], parse(rows[-1][1]).at, frontier) if rows else Head()
