"""Entries: sealed so that nothing can be changed, parsed so that nothing else passes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_log import MemoryLog

from agentlattice_core.audit.canonical import dumps
from agentlattice_core.audit.entry import (
    NO_PREVIOUS,
    Entry,
    Head,
    Sealer,
    commitment,
    erased_ranges,
    erasure_data,
    parse,
)
from agentlattice_core.audit.merkle import root_from_leaves
from agentlattice_core.errors import AuditError, InvalidRequestError

AT = "2026-03-02T09:00:00.000000Z"
LATER = "2026-03-02T09:00:00.000001Z"


def test_a_sealed_entry_reads_back_with_every_member() -> None:
    """What goes into an entry comes out of it, and the payload only as its commitment."""
    sealer = Sealer("acme")
    sealed = sealer.seal(
        "action", {"agent": "a"}, {"x": [1, None]}, at=AT, id="act-1", payload=b'{"secret":1}'
    )
    assert sealed.salt is not None
    assert sealed.payload == b'{"secret":1}'
    assert b"secret" not in sealed.body
    assert parse(sealed.body) == Entry(
        log="acme",
        i=0,
        at=AT,
        prev=NO_PREVIOUS,
        kind="action",
        who={"agent": "a"},
        data={"x": [1, None]},
        id="act-1",
        payload=commitment(sealed.salt, b'{"secret":1}'),
    )


def test_each_entry_names_the_hash_of_the_one_before() -> None:
    """The chain is carried inside the entries, and the tree is over the same hashes."""
    sealer = Sealer("acme")
    sealed = [sealer.seal("action", {"agent": "a"}, {"n": n}, at=AT) for n in range(5)]
    assert [parse(one.body).prev for one in sealed] == [NO_PREVIOUS, *(one.leaf for one in sealed[:-1])]
    assert [one.leaf for one in sealed] == [hashlib.sha256(b"\0" + one.body).digest() for one in sealed]
    assert sealer.head().root() == root_from_leaves(one.leaf for one in sealed)
    assert (sealer.size, sealer.head().leaf, sealer.at) == (5, sealed[-1].leaf, AT)


def test_a_sealer_goes_on_where_a_stored_head_ends() -> None:
    """Sealing in one go and sealing across restarts give the same log."""
    whole, first = Sealer("acme"), Sealer("acme")
    for sealer in (whole, first):
        sealer.seal("action", {}, {"n": 0}, at=AT)
    second = Sealer("acme", first.head())
    assert second.seal("claim", {}, {}, at=LATER).body == whole.seal("claim", {}, {}, at=LATER).body
    assert second.head() == whole.head()


def test_rewinding_takes_back_what_was_sealed() -> None:
    """After a failed transaction the next entry is what it would have been without it."""
    sealer = Sealer("acme")
    sealer.seal("action", {}, {"n": 0}, at=AT)
    kept = sealer.head()
    wrong = sealer.seal("action", {}, {"n": 1}, at=LATER)
    sealer.rewind(kept)
    assert sealer.head() == kept
    again = sealer.seal("action", {}, {"n": 2}, at=AT)
    assert (again.i, parse(again.body).prev) == (1, parse(wrong.body).prev)


def test_two_equal_payloads_have_different_commitments() -> None:
    """Nobody can tell from the log that two payloads were the same, or guess one that was erased."""
    sealer = Sealer("acme")
    one, two = (sealer.seal("action", {}, {}, at=AT, payload=b"yes") for _ in range(2))
    assert one.salt != two.salt
    assert parse(one.body).payload != parse(two.body).payload


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"kind": "Action"}, InvalidRequestError),
        ({"kind": ""}, InvalidRequestError),
        ({"at": "2026-03-02T09:00:00Z"}, InvalidRequestError),
        ({"at": "2026-02-30T09:00:00.000000Z"}, InvalidRequestError),
        ({"at": "2026-03-02T08:59:59.999999Z"}, AuditError),
        ({"id": ""}, InvalidRequestError),
        ({"data": {"x": 0.5}}, InvalidRequestError),
        ({"data": [1]}, InvalidRequestError),
        ({"who": "me"}, InvalidRequestError),
    ],
)
def test_a_refused_entry_leaves_the_sealer_as_it_was(changed: dict[str, Any], error: type[Exception]) -> None:
    """One bad entry in a batch costs nothing but itself."""
    sealer = Sealer("acme")
    sealer.seal("action", {}, {}, at=AT)
    before = sealer.head()
    members: dict[str, Any] = {"kind": "action", "who": {}, "data": {}, "at": AT} | changed
    with pytest.raises(error):
        sealer.seal(members.pop("kind"), members.pop("who"), members.pop("data"), **members)
    assert sealer.head() == before
    assert sealer.seal("action", {}, {}, at=AT).i == 1


@pytest.mark.parametrize("log", ["", "a b", "a/b", "é", "-x", "x" * 129, "a\n"])
def test_a_log_id_that_is_no_name_is_refused(log: str) -> None:
    """A log id ends up in checkpoints and file names, so it is plain."""
    with pytest.raises(InvalidRequestError):
        Sealer(log)


def test_a_head_is_not_changed_by_later_sealing() -> None:
    """A head that was read stays what it was."""
    sealer = Sealer("acme", Head())
    head = sealer.head()
    sealer.seal("action", {}, {}, at=AT)
    assert (head.size, Head().size) == (0, 0)


def _members() -> dict[str, Any]:
    return json.loads(
        Sealer("acme").seal("action", {"agent": "a"}, {"n": 1}, at=AT, id="x", payload=b"p").body
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"v": 2},
        {"v": True},
        {"v": "1"},
        {"i": -1},
        {"i": True},
        {"i": "0"},
        {"at": "2026-03-02T09:00:00Z"},
        {"at": "2026-13-02T09:00:00.000000Z"},
        {"at": 0},
        {"prev": "0" * 63},
        {"prev": "A" * 64},
        {"prev": None},
        {"kind": "A"},
        {"kind": 1},
        {"who": []},
        {"data": None},
        {"id": ""},
        {"id": None},
        {"payload": "x"},
        {"payload": None},
        {"log": "a b"},
        {"extra": 1},
    ],
)
def test_an_entry_with_a_wrong_member_is_not_parsed(changed: dict[str, Any]) -> None:
    """Strict in every member: nothing unknown, nothing of another type, no second spelling."""
    parse(dumps(_members()))
    with pytest.raises(AuditError):
        parse(dumps(_members() | changed))


@pytest.mark.parametrize("name", ["v", "log", "i", "at", "prev", "kind", "who", "data"])
def test_an_entry_that_lacks_a_member_is_not_parsed(name: str) -> None:
    """Every required member is required."""
    members = _members()
    del members[name]
    with pytest.raises(AuditError):
        parse(dumps(members))


def test_an_entry_has_one_spelling_only() -> None:
    """Spaces, other orders, repeated members and needless escapes are refused, though JSON would allow them."""
    members = _members()
    body = dumps(members)
    spellings = [
        json.dumps(members).encode(),
        json.dumps(dict(reversed(members.items())), separators=(",", ":")).encode(),
        body[:-1] + b',"who":{"agent":"a"}}',
        body.replace(b"acme", b"\\u0061cme"),
        b" " + body,
        body + b"\n",
        body.replace(b'"n":1', b'"n":1.0'),
        body.replace(b'"n":1', b'"n":1e0'),
    ]
    for spelling in spellings:
        assert spelling != body
        with pytest.raises(AuditError):
            parse(spelling)


@given(st.binary(max_size=300) | st.text().map(lambda text: text.encode("utf-8", "replace")))
def test_parsing_anything_raises_the_audit_error_alone(body: bytes) -> None:
    """Whatever bytes are in the column, a reader has one error to handle."""
    with pytest.raises(AuditError):
        parse(body)


@given(st.data())
def test_parsing_a_damaged_entry_raises_the_audit_error_alone(data: st.DataObject) -> None:
    """Cut, spliced and overwritten entries are refused or are other valid entries; nothing else is raised."""
    body = bytearray(MemoryLog().append(payload={"a": 1})[1])
    begin = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(begin, len(body)))
    body[begin:end] = data.draw(st.binary(max_size=20))
    try:
        canonical = dumps(json.loads(bytes(body))) == bytes(body)
    except (ValueError, InvalidRequestError):
        canonical = False
    try:
        parse(bytes(body))
    except AuditError:
        return
    assert canonical


@given(st.sets(st.integers(0, 60), min_size=1))
def test_an_erasure_names_exactly_what_was_erased(indexes: set[int]) -> None:
    """Neighbours become ranges and no other entry gets into them."""
    entry = Entry("acme", 100, AT, NO_PREVIOUS, "erasure", {}, erasure_data(indexes))
    named = [index for first, last in erased_ranges(entry) for index in range(first, last + 1)]
    assert named == sorted(indexes)


@pytest.mark.parametrize(
    "ranges",
    [None, [], [[1]], [[2, 1]], [[3, 3], [1, 1]], [[1, 2], [2, 3]], [[0, 100]], [[-1, 0]], [["0", 1]], {}],
)
def test_an_erasure_that_names_no_earlier_entries_is_refused(ranges: Any) -> None:
    """An erasure cannot excuse itself, the future, or nothing in particular."""
    with pytest.raises(AuditError):
        erased_ranges(Entry("acme", 100, AT, NO_PREVIOUS, "erasure", {}, {"ranges": ranges}))
