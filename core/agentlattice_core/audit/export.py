"""Export of a whole log as JSON lines, and its verification with nothing but the public key.

- First line: which log, the public key, how many entries follow, and a checkpoint of exactly that many, as a
  signed note.
- Then one line per entry, in order: `body` is the exact text that was hashed, `leaf` its hash; `salt` and
  `payload` where there is a payload (`payload_base64` if it is not text); `erased: true` where there was one.
- A line can be written in one way only (canonical JSON), and every line counts: nothing is skipped or
  guessed.
- If the signing key was rotated, the first line also holds the statements that lead from the first key to the one in
  the file, and they must be those that the entries record.
- The key in the file is for reading; verification uses the one the caller trusts, and those that statements lead to
  from it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from agentlattice_core.audit import canonical
from agentlattice_core.audit.checkpoint import Checkpoint, log_origin
from agentlattice_core.audit.cuts import Cut, explained, read_cut
from agentlattice_core.audit.diagnosis import Row
from agentlattice_core.audit.entry import SALT_BYTES, Entry, parse
from agentlattice_core.audit.keys import KEY_ROTATED, Keyring, read_statement, texts_of
from agentlattice_core.audit.merkle import HASH_BYTES
from agentlattice_core.audit.note import VerifierKey, open_checkpoint
from agentlattice_core.audit.report import Problem, VerifyReport
from agentlattice_core.audit.verify import verify_rows
from agentlattice_core.errors import AuditError, InvalidRequestError

__all__ = ["EXPORT_FORMAT", "export_lines", "keys_of_export", "verify_export"]

EXPORT_FORMAT: Final = "agentlattice-audit-export"
_VERSION: Final = 1
_HEADER: Final = frozenset({"format", "version", "log", "key", "size", "checkpoint"})
_STATEMENTS: Final = frozenset({"statements"})
_SHAPES: Final = (
    frozenset({"body", "leaf"}),
    frozenset({"body", "leaf", "erased"}),
    frozenset({"body", "leaf", "salt", "payload"}),
    frozenset({"body", "leaf", "salt", "payload_base64"}),
)
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*")


def export_lines(
    rows: Iterable[Row], *, log: str, key: VerifierKey, checkpoint: str, statements: Sequence[str] = ()
) -> Iterator[bytes]:
    """The lines of an export, each with its newline: the entries that `checkpoint`, a signed note, covers.

    `rows` are those of log `log` from index 0; more than the checkpoint covers are left out. Raises
    AuditError if the checkpoint is not signed by `key` or there are too few rows. What a row holds is
    exported as it is, not verified. `statements` lead to `key` from the keys before it.
    """
    size = _open(checkpoint, key, log).size
    header: dict[str, Any] = {
        "format": EXPORT_FORMAT,
        "version": _VERSION,
        "log": log,
        "key": key.format(),
        "size": size,
        "checkpoint": checkpoint,
    }
    if statements:
        header["statements"] = list(statements)
    yield canonical.dumps(header) + b"\n"
    written = 0
    for _, body, leaf, salt, payload in rows:
        if written == size:
            break
        yield canonical.dumps(_line(written, body, leaf, salt, payload)) + b"\n"
        written += 1
    if written < size:
        raise AuditError(
            f"the log ends after {written} entries, but its checkpoint was signed for {size}; verify it"
        )


def verify_export(
    lines: Iterable[bytes], key: VerifierKey, *, checkpoints: Sequence[Checkpoint] = ()
) -> VerifyReport:
    """Verify an export (a binary file or its lines) with a public key and, if there are any, checkpoints kept
    elsewhere.

    Raises AuditError if it is not an export, a line is malformed, or its checkpoint is not signed by `key`;
    what is wrong with the entries themselves is in the report.
    """
    source = iter(lines)
    header = _read_line(next(source, b""), 1)
    if header.keys() - _STATEMENTS != _HEADER or header["format"] != EXPORT_FORMAT:
        raise AuditError("line 1 is not the header of an audit export")
    if header["version"] is True or header["version"] != _VERSION:
        raise AuditError(
            f"the export has version `{str(header['version'])[:20]}`, and only {_VERSION} is known"
        )
    for name in ("log", "key", "checkpoint"):
        if type(header[name]) is not str:
            raise AuditError(f"line 1: `{name}` is not text")
    log = header["log"]
    keys = _keyring(header, key)
    try:
        checkpoint = _open(header["checkpoint"], keys.newest, log)
    except InvalidRequestError as error:
        raise AuditError(f"line 1: {error.message}") from None
    if type(header["size"]) is not int or header["size"] != checkpoint.size:
        raise AuditError("line 1: the size is not that of the checkpoint")
    reader = _Reader(source)
    report = verify_rows(reader.rows(), log=log, checkpoints=[checkpoint, *checkpoints])
    if report.ok and reader.problem is not None:
        row = reader.problem.row or 0
        return VerifyReport(0, row, report.erased, report.checkpoints, None, reader.problem)
    if report.ok and reader.statements[: len(keys.statements)] != keys.statements:
        raise AuditError("line 1: the statements of key rotation are not those that the entries record")
    if report.ok and report.size != checkpoint.size:
        extra = report.size - checkpoint.size
        raise AuditError(f"{extra} lines too many after the {checkpoint.size} entries of the export")
    before = checkpoint.previous
    turned_back = report.ok and before is not None and before.size >= checkpoint.size
    if turned_back and not explained(checkpoint, reader.cuts, keys):
        raise AuditError(
            "line 1: the checkpoint follows one of as many entries or more, and no entry says that the history was cut"
        )
    return replace(report, cuts=tuple(reader.cuts))


class _Reader:
    """Rows from lines. `problem` is the first entry that is not what its line says, though its bytes may be
    as sealed."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self.problem: Problem | None = None
        self.recorded: list[str] = []
        self.cuts: list[Cut] = []

    @property
    def statements(self) -> list[str]:
        """The statements of key rotation that the entries read so far record and that hold."""
        if not self.recorded:
            return []
        return Keyring(read_statement(self.recorded[0]).old, self.recorded).statements

    def rows(self) -> Iterator[Row]:
        for index, line in enumerate(self._source):
            value = _read_line(line, index + 2)
            row = _row(index, value)
            if self.problem is None:
                self.problem = self._look_at(index, row, erased="erased" in value)
            yield row

    def _look_at(self, index: int, row: Row, *, erased: bool) -> Problem | None:
        try:
            entry = parse(row[1])
        except AuditError as error:
            return Problem("malformed", f"entry {index} is malformed: {error.message}", index)
        if entry.kind == "log" and entry.data.get("event") == KEY_ROTATED:
            self.recorded.append(str(entry.data.get("statement")))
        try:
            cut = read_cut(entry)
        except AuditError as error:
            return Problem("malformed", error.message, index)
        if cut is not None:
            self.cuts.append(cut)
        return _mislabelled(index, row, entry, erased=erased)


def _mislabelled(index: int, row: Row, entry: Entry, *, erased: bool) -> Problem | None:
    if erased != (entry.payload is not None and row[4] is None):
        message = f"entry {index} is marked as erased and never had a payload, or lacks the mark"
        return Problem("malformed", message, index)
    return None


def _line(index: int, body: bytes, leaf: bytes, salt: bytes | None, payload: bytes | None) -> dict[str, Any]:
    try:
        line: dict[str, Any] = {"body": body.decode(), "leaf": leaf.hex()}
        if salt is None or payload is None:
            if parse(body).payload is not None:
                line["erased"] = True
            return line
        line["salt"] = salt.hex()
    except (UnicodeDecodeError, AttributeError):
        raise AuditError(
            f"entry {index} cannot be exported: it is not the text it was; verify the log"
        ) from None
    try:
        line["payload"] = payload.decode()
    except UnicodeDecodeError:
        line["payload_base64"] = base64.b64encode(payload).decode()
    return line


def _row(index: int, value: dict[str, Any]) -> Row:
    texts = [member for name, member in value.items() if name != "erased"]
    if value.keys() not in _SHAPES or any(type(member) is not str for member in texts):
        raise AuditError(f"line {index + 2} is not an entry of an export")
    if "erased" in value and value["erased"] is not True:
        raise AuditError(f"line {index + 2}: `erased` can only be true")
    body = value["body"].encode()
    leaf = _bytes_of(value["leaf"], HASH_BYTES, index)
    if "salt" not in value:
        return (index, body, leaf, None, None)
    salt = _bytes_of(value["salt"], SALT_BYTES, index)
    if "payload" in value:
        return (index, body, leaf, salt, value["payload"].encode())
    try:
        payload = base64.b64decode(value["payload_base64"], validate=True)
    except (binascii.Error, ValueError):
        raise AuditError(f"line {index + 2}: `payload_base64` is not base64") from None
    try:
        payload.decode()
    except UnicodeDecodeError:
        if base64.b64encode(payload).decode() == value["payload_base64"]:
            return (index, body, leaf, salt, payload)
    raise AuditError(f"line {index + 2}: `payload_base64` is not written the one way it can be")


def _bytes_of(text: str, count: int, index: int) -> bytes:
    if len(text) != 2 * count or _HEX.fullmatch(text) is None:
        raise AuditError(f"line {index + 2}: a hash or salt is not {count} bytes in lowercase hex")
    return bytes.fromhex(text)


def _read_line(line: bytes, number: int) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise AuditError(f"line {number} is cut short" if line else f"line {number} is missing")
    value = canonical.loads(line[:-1], f"line {number}")
    if type(value) is not dict:
        raise AuditError(f"line {number} is not a JSON object")
    try:
        again = canonical.dumps(value)
    except InvalidRequestError as error:
        raise AuditError(f"line {number} is not canonical JSON: {error.message}") from None
    if again != line[:-1]:
        raise AuditError(f"line {number} is not canonical JSON")
    return value


def keys_of_export(first_line: bytes, key: VerifierKey) -> Keyring:
    """The keys that the first line of an export leads to from one that is trusted. Raises AuditError."""
    header = _read_line(first_line, 1)
    if type(header.get("key")) is not str:
        raise AuditError("line 1 is not the header of an audit export")
    return _keyring(header, key)


def _keyring(header: dict[str, Any], key: VerifierKey) -> Keyring:
    statements = texts_of(header.get("statements", []))
    made_with = VerifierKey.parse(header["key"])
    keys = Keyring(key, statements) if statements or made_with == key else None
    if keys is None or keys.newest != made_with:
        raise AuditError("the export was made with another key than the one given")
    return keys


def _open(note: str, key: VerifierKey, log: str) -> Checkpoint:
    checkpoint = open_checkpoint(note, key)
    if checkpoint.origin != log_origin(log):
        raise AuditError(f"the checkpoint is for `{checkpoint.origin}`, not for `{log_origin(log)}`")
    return checkpoint
