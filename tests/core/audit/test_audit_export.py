"""Export and proofs: what leaves the house can be checked with the public key alone, also by somebody else's code."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from memory_log import MemoryLog

from agentlattice_core.audit.canonical import dumps, loads
from agentlattice_core.audit.checkpoint import Checkpoint
from agentlattice_core.audit.export import export_lines, verify_export
from agentlattice_core.audit.merkle import leaf_hash
from agentlattice_core.audit.note import sign_note, verifier_key_of
from agentlattice_core.audit.proof import prove_entry, verify_proof
from agentlattice_core.errors import AuditError

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = verifier_key_of("agentlattice/acme", PRIVATE)
OTHER = verifier_key_of("agentlattice/acme", Ed25519PrivateKey.from_private_bytes(bytes(32)))
DOCUMENT = Path(__file__).parents[3] / "docs" / "audit-format.md"


def signed(checkpoint: Checkpoint) -> str:
    return sign_note(checkpoint.format(), KEY.name, PRIVATE)


def exported(log: MemoryLog, size: int | None = None) -> list[bytes]:
    return list(export_lines(log.rows, log="acme", key=KEY, checkpoint=signed(log.checkpoint(size))))


def edited(line: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    value = loads(line[:-1])
    change(value)
    return dumps(value) + b"\n"


@pytest.fixture(scope="module")
def log() -> MemoryLog:
    """Entries with and without payloads, some erased, one whose payload is no text."""
    log = MemoryLog().fill(20)
    log.erase(1, 2, 9)
    sealed = log.sealer.seal("action", {"agent": "a"}, {"n": 1}, at=log.head.at, payload=b"\xff\xfe")
    log.rows.append(tuple(sealed))
    return log


def test_an_export_verifies_with_the_public_key_alone(log: MemoryLog, tmp_path: Path) -> None:
    """Written to a file and read back: every entry, payload and erasure is vouched for."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"".join(exported(log)))
    with path.open("rb") as file:
        report = verify_export(file, KEY)
    assert (report.ok, report.size, report.erased, report.checkpoints) == (True, 22, 3, 1)


@pytest.mark.parametrize("size", [0, 1, 10, 22])
def test_an_export_ends_where_its_checkpoint_does(log: MemoryLog, size: int) -> None:
    """What came after the checkpoint is left out; nothing unsigned is exported."""
    complete = MemoryLog().fill(22)
    lines = exported(complete, size)
    assert len(lines) == size + 1
    assert verify_export(lines, KEY).size == size


def test_every_byte_of_an_export_counts(log: MemoryLog) -> None:
    """Any byte of any line changed: refused, or reported as a problem."""
    lines = exported(MemoryLog().fill(3))
    for number, line in enumerate(lines):
        for place in range(len(line)):
            changed = bytearray(line)
            changed[place] ^= 1
            try:
                report = verify_export([*lines[:number], bytes(changed), *lines[number + 1 :]], KEY)
            except AuditError:
                continue
            assert not report.ok, (number, place)


@pytest.mark.parametrize("number", range(1, 23))
def test_a_changed_entry_in_an_export_is_named(log: MemoryLog, number: int) -> None:
    """Body, payload and order: the report names the entry."""
    lines = exported(log)

    def problem(changed: list[bytes]) -> tuple[str, int | None]:
        report = verify_export(changed, KEY)
        assert report.problem is not None
        return report.problem.kind, report.problem.row

    def forge(value: dict[str, Any]) -> None:
        value["body"] = value["body"].replace('"data":{', '"data":{"forged":1,', 1).replace(",}", "}")

    index = number - 1
    changed = [*lines[:number], edited(lines[number], forge), *lines[number + 1 :]]
    assert problem(changed) == ("body_changed", index)
    line = loads(lines[number])
    if "payload" in line:
        changed[number] = edited(lines[number], lambda value: value.update(payload=value["payload"] + " "))
        assert problem(changed) == ("payload_changed", index)
        without = edited(
            lines[number], lambda value: (value.pop("payload"), value.pop("salt"), value.update(erased=True))
        )
        assert problem([*lines[:number], without, *lines[number + 1 :]]) == ("payload_missing", index)
    if index < 21:
        assert problem([*lines[:number], *lines[number + 1 :]]) == ("missing", index)
        swapped = [*lines[:number], lines[number + 1], lines[number], *lines[number + 2 :]]
        assert problem(swapped) == ("moved", index)
    assert problem([*lines[: number + 1], *lines[number:]]) == ("repeated", number)
    assert problem(lines[:number]) == ("truncated", index)


def test_a_rewritten_log_is_not_saved_by_its_own_export(log: MemoryLog) -> None:
    """Entries recomputed under the old checkpoint are found; under no key but ours can a new one be signed."""
    genuine = MemoryLog().fill(12)
    forged = genuine.resealed(lambda index, data: data.update(n=-1) if index == 5 else None)
    header, *_ = exported(genuine)
    _, *entries = list(export_lines(forged.rows, log="acme", key=KEY, checkpoint=signed(forged.checkpoint())))
    report = verify_export([header, *entries], KEY, checkpoints=[genuine.checkpoint(5)])
    assert report.problem is not None
    assert (report.problem.kind, report.problem.interval) == ("rewritten", (5, 11))
    with pytest.raises(AuditError, match="another key"):
        verify_export(exported(genuine), OTHER)


def test_a_checkpoint_kept_elsewhere_catches_an_old_copy(log: MemoryLog) -> None:
    """An export of fewer entries than somebody's checkpoint counts is said to be cut short."""
    genuine = MemoryLog().fill(12)
    report = verify_export(
        exported(genuine, 8), KEY, checkpoints=[genuine.checkpoint(12), genuine.checkpoint(3)]
    )
    assert report.problem is not None
    assert (report.problem.kind, report.problem.interval) == ("truncated", (8, 11))


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.update(format="x"),
        lambda header: header.update(version=2),
        lambda header: header.update(version=True),
        lambda header: header.update(log="other"),
        lambda header: header.update(log="no log"),
        lambda header: header.update(log=1),
        lambda header: header.update(size=3),
        lambda header: header.update(size="4"),
        lambda header: header.update(key=OTHER.format()),
        lambda header: header.update(checkpoint=header["checkpoint"].replace("acme", "acne", 1)),
        lambda header: header.update(checkpoint=None),
        lambda header: header.update(more=1),
        lambda header: header.pop("size"),
    ],
)
def test_a_header_that_is_not_exactly_right_is_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    """Format, version, log, key, size and checkpoint have to agree with each other and with the caller's key."""
    lines = exported(MemoryLog().fill(4))
    with pytest.raises(AuditError):
        verify_export([edited(lines[0], change), *lines[1:]], KEY)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.update(more=1),
        lambda line: line.pop("leaf"),
        lambda line: line.update(leaf=line["leaf"].upper()),
        lambda line: line.update(leaf=line["leaf"][2:]),
        lambda line: line.update(salt=line["salt"] + "00"),
        lambda line: line.pop("salt"),
        lambda line: line.update(erased=True),
        lambda line: line.update(body=1),
        lambda line: line.update(payload=None),
        lambda line: line.update(payload_base64="e30="),
        lambda line: line.update(payload_base64=base64.b64encode(line.pop("payload").encode()).decode()),
    ],
)
def test_a_line_that_is_not_exactly_right_is_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    """A line has one of four shapes and one spelling."""
    lines = exported(MemoryLog().fill(4))
    with pytest.raises(AuditError, match="line 2"):
        verify_export([lines[0], edited(lines[1], change), *lines[2:]], KEY)


def test_marks_of_erasure_have_to_be_true(log: MemoryLog) -> None:
    """An entry that never had a payload is not passed off as erased, nor an erased one as never having had one."""
    lines = exported(log)
    never = next(
        number for number, line in enumerate(lines) if number and loads(line).keys() == {"body", "leaf"}
    )
    for number, change in (
        (never, lambda line: line.update(erased=True)),
        (2, lambda line: line.pop("erased")),
    ):
        report = verify_export([*lines[:number], edited(lines[number], change), *lines[number + 1 :]], KEY)
        assert report.problem is not None
        assert (report.problem.kind, report.problem.row) == ("malformed", number - 1)


def test_an_entry_that_is_sealed_but_not_well_formed_is_found() -> None:
    """A writer at fault is found in an export in every member, signed checkpoint or not."""
    genuine = MemoryLog().fill(3)
    body = genuine.rows[2][1].replace(b'"kind":"outcome"', b'"kind":"Outcome"')
    genuine.rows[2] = (2, body, leaf_hash(body), *genuine.rows[2][3:])
    report = verify_export(exported(genuine), KEY)
    assert report.problem is not None
    assert (report.problem.kind, report.problem.row) == ("malformed", 2)


def test_an_export_with_lines_too_many_or_cut_short_is_refused() -> None:
    """Nothing is skipped: no empty lines, no missing newline, no second header, no empty file."""
    lines = exported(MemoryLog().fill(4))
    for wrong in (
        [],
        [lines[1]],
        [*lines, b"\n"],
        [*lines[:-1], lines[-1][:-1]],
        [lines[0], *lines],
        [b"\n", *lines],
    ):
        with pytest.raises(AuditError):
            verify_export(wrong, KEY)


def test_a_log_that_is_shorter_than_its_checkpoint_is_not_exported() -> None:
    """An export is complete or an error."""
    log = MemoryLog().fill(4)
    with pytest.raises(AuditError, match="ends after 3 entries"):
        list(export_lines(log.rows[:3], log="acme", key=KEY, checkpoint=signed(log.checkpoint())))
    with pytest.raises(AuditError, match="not signed by"):
        list(export_lines(log.rows, log="acme", key=OTHER, checkpoint=signed(log.checkpoint())))


@given(st.lists(st.binary(max_size=80), max_size=4))
def test_any_lines_raise_the_audit_error_alone(lines: list[bytes]) -> None:
    """Whatever file is handed in, there is one error to handle."""
    header, *_ = exported(MemoryLog())
    with pytest.raises(AuditError):
        verify_export(lines, KEY)
    if lines:
        with pytest.raises(AuditError):
            verify_export(io.BytesIO(header + b"".join(lines) + b"x"), KEY)


def test_a_proof_shows_that_one_entry_is_in_the_log(log_of_600: MemoryLog) -> None:
    """A proof stands alone: entry, place and payload, under one signed checkpoint."""
    log = log_of_600
    for size in (1, 256, 513, 600):
        note = signed(log.checkpoint(size))
        for index in {0, size // 2, size - 1}:
            proven = verify_proof(prove_entry(log.rows[index], note, KEY, log.hashes(), disclose=True), KEY)
            assert (proven.entry.i, proven.checkpoint, proven.payload) == (
                index,
                log.checkpoint(size),
                log.rows[index][4],
            )
            undisclosed = prove_entry(log.rows[index], note, KEY, log.hashes())
            assert verify_proof(undisclosed, KEY).payload is None
            assert b"metadata" not in undisclosed


def test_every_byte_of_a_proof_counts(log_of_600: MemoryLog) -> None:
    """Nothing in a proof can be changed, and it holds under no other key."""
    note = signed(log_of_600.checkpoint())
    proof = prove_entry(log_of_600.rows[300], note, KEY, log_of_600.hashes(), disclose=True)
    for place in range(len(proof)):
        changed = bytearray(proof)
        changed[place] ^= 1
        with pytest.raises(AuditError):
            verify_proof(bytes(changed), KEY)
    with pytest.raises(AuditError):
        verify_proof(proof, OTHER)
    for spelling in (proof + b"\n", b" " + proof, json.dumps(json.loads(proof)).encode()):
        with pytest.raises(AuditError, match="not canonical"):
            verify_proof(spelling, KEY)


def test_a_proof_is_not_made_from_a_log_that_was_changed(log_of_600: MemoryLog) -> None:
    """The document is verified before it is handed out; an entry beyond the checkpoint has no proof."""
    log = log_of_600
    forged = log.resealed(lambda index, data: data.update(n=-1) if index == 300 else None)
    note = signed(log.checkpoint(500))
    for rows, hashes in (
        (forged.rows, forged.hashes()),
        (forged.rows, log.hashes()),
        (log.rows, forged.hashes()),
    ):
        with pytest.raises(AuditError):
            prove_entry(rows[300], note, KEY, hashes)
    with pytest.raises(AuditError, match="not in a tree"):
        prove_entry(log.rows[500], note, KEY, log.hashes())


@given(
    st.binary(max_size=200)
    | st.dictionaries(st.sampled_from(["body", "format"]), st.integers(0, 9)).map(dumps)
)
def test_any_document_raises_the_audit_error_alone(document: bytes) -> None:
    """Whatever is handed in as a proof, there is one error to handle."""
    with pytest.raises(AuditError):
        verify_proof(document, KEY)


def _documented_verifier() -> str:
    """The program in the format's description."""
    found = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_verifier_written_in_the_documentation_works(log: MemoryLog, tmp_path: Path) -> None:
    """Forty lines of somebody else's Python, from the description alone, come to the same verdict on every change."""
    program = tmp_path / "verifier.py"
    program.write_text(_documented_verifier(), encoding="utf-8")
    assert "agentlattice" not in re.sub(r"agentlattice[-/]", "", program.read_text(encoding="utf-8"))
    lines = exported(log)
    forged = log.resealed(lambda index, data: data.update(n=-1) if index == 5 else None)
    _, *other = list(export_lines(forged.rows, log="acme", key=KEY, checkpoint=signed(forged.checkpoint())))
    payload = edited(lines[1], lambda value: value.update(payload="{}"))
    body = edited(lines[5], lambda value: value.update(body=value["body"].replace('"n":', '"m":')))
    missing = edited(
        lines[1], lambda value: (value.pop("payload"), value.pop("salt"), value.update(erased=True))
    )
    cases = {
        "sound": lines,
        "cut": lines[:-1],
        "removed": [*lines[:4], *lines[5:]],
        "swapped": [*lines[:4], lines[5], lines[4], *lines[6:]],
        "payload": [lines[0], payload, *lines[2:]],
        "missing": [lines[0], missing, *lines[2:]],
        "body": [*lines[:5], body, *lines[6:]],
        "rewritten": [lines[0], *other],
    }
    for name, case in cases.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(b"".join(case))
        done = subprocess.run(
            [sys.executable, "-I", str(program), str(path)], capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) == verify_export(case, KEY).ok == (name == "sound"), (name, done)
        if name == "sound":
            root = json.loads(json.dumps(log.checkpoint().root.hex()))
            assert done.stdout.split() == ["22", root]
