"""Proof that one entry is in the log, as one self-contained JSON document.

- It holds the entry's exact text, the hashes from its leaf to the root, and a signed checkpoint with that
  root; with the payload and its salt if the owner chooses to show them.
- If the signing key was rotated it also holds the statements that lead from the first key to the one that signed.
- Whoever has it and the public key can check it, with no access to the log and no other entry disclosed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentlattice_core.audit import canonical
from agentlattice_core.audit.checkpoint import Checkpoint, log_origin
from agentlattice_core.audit.diagnosis import Row
from agentlattice_core.audit.entry import SALT_BYTES, Entry, commitment, parse
from agentlattice_core.audit.keys import Keyring, texts_of
from agentlattice_core.audit.merkle import ReadHashes, inclusion_proof, leaf_hash, verify_inclusion
from agentlattice_core.audit.note import VerifierKey, open_checkpoint
from agentlattice_core.errors import AuditError, InvalidRequestError

__all__ = ["PROOF_FORMAT", "ProvenEntry", "prove_entry", "verify_proof"]

PROOF_FORMAT: Final = "agentlattice-audit-proof"
_VERSION: Final = 1
_REQUIRED: Final = frozenset({"format", "version", "body", "hashes", "checkpoint"})
_DISCLOSED: Final = frozenset({"salt", "payload"})
_STATEMENTS: Final = frozenset({"statements"})
_HEX32: Final = re.compile(r"[0-9a-f]{64}")
_SALT: Final = re.compile(rf"[0-9a-f]{{{2 * SALT_BYTES}}}")
_MAX_HASHES: Final = 63


@dataclass(frozen=True, slots=True)
class ProvenEntry:
    """An entry that is in the log of `checkpoint`. `payload` is None where it was not disclosed or is
    erased."""

    entry: Entry
    checkpoint: Checkpoint
    payload: bytes | None = None


def prove_entry(
    row: Row,
    checkpoint: str,
    key: VerifierKey,
    read_hashes: ReadHashes,
    *,
    disclose: bool = False,
    statements: Sequence[str] = (),
) -> bytes:
    """The proof document for `row`, against `checkpoint`, a note that `key` has signed; `disclose` puts the
    payload in. `statements` lead to `key` from the keys before it.

    The document is verified before it is returned. Raises AuditError if the checkpoint does not cover the row
    or the log is not the one that was signed.
    """
    _, body, _, salt, payload = row
    entry = parse(body)
    size = open_checkpoint(checkpoint, key).size
    document: dict[str, Any] = {
        "format": PROOF_FORMAT,
        "version": _VERSION,
        "body": body.decode(),
        "hashes": [item.hex() for item in inclusion_proof(entry.i, size, read_hashes)],
        "checkpoint": checkpoint,
    }
    if statements:
        document["statements"] = list(statements)
    if disclose and salt is not None and payload is not None:
        document["salt"] = salt.hex()
        try:
            document["payload"] = payload.decode()
        except UnicodeDecodeError:
            raise AuditError(f"the payload of entry {entry.i} is not text and cannot be disclosed") from None
    text = canonical.dumps(document)
    verify_proof(text, key)
    return text


def verify_proof(document: bytes, key: VerifierKey) -> ProvenEntry:
    """What a proof document proves. Raises AuditError if it proves nothing under `key` and those that follow it."""
    value = canonical.loads(document, "the proof")
    if type(value) is not dict or value.keys() - _STATEMENTS not in (_REQUIRED, _REQUIRED | _DISCLOSED):
        raise AuditError("this is not a proof document")
    if value["format"] != PROOF_FORMAT or value["version"] is True or value["version"] != _VERSION:
        raise AuditError("this is not a proof document of a known version")
    try:
        again = canonical.dumps(value)
    except InvalidRequestError as error:
        raise AuditError(f"the proof is not canonical JSON: {error.message}") from None
    if again != document:
        raise AuditError("the proof is not canonical JSON")
    if type(value["body"]) is not str or type(value["checkpoint"]) is not str:
        raise AuditError("the entry or the checkpoint in the proof is not text")
    hashes = value["hashes"]
    if type(hashes) is not list or len(hashes) > _MAX_HASHES:
        raise AuditError("the hashes in the proof are not a list of the right length")
    if not all(type(item) is str and _HEX32.fullmatch(item) for item in hashes):
        raise AuditError("a hash in the proof is not 32 bytes in lowercase hex")
    body = value["body"].encode()
    entry = parse(body)
    checkpoint = Keyring(key, texts_of(value.get("statements", []))).open(value["checkpoint"])
    if checkpoint.origin != log_origin(entry.log):
        raise AuditError(
            f"the entry is of log `{entry.log}`, but the checkpoint is for `{checkpoint.origin}`"
        )
    path = [bytes.fromhex(item) for item in hashes]
    verify_inclusion(leaf_hash(body), entry.i, checkpoint.size, path, checkpoint.root)
    if "payload" not in value:
        return ProvenEntry(entry, checkpoint)
    if (
        type(value["payload"]) is not str
        or type(value["salt"]) is not str
        or not _SALT.fullmatch(value["salt"])
    ):
        raise AuditError("the payload or the salt in the proof is malformed")
    payload = value["payload"].encode()
    if entry.payload is None or commitment(bytes.fromhex(value["salt"]), payload) != entry.payload:
        raise AuditError(f"the payload in the proof is not the one entry {entry.i} was sealed with")
    return ProvenEntry(entry, checkpoint, payload)
