"""Checkpoints and signed notes: one text, one signature, and the same as everybody else's."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from agentlattice_core.audit.checkpoint import Checkpoint, log_origin
from agentlattice_core.audit.merkle import EMPTY_ROOT
from agentlattice_core.audit.note import VerifierKey, open_checkpoint, open_note, sign_note, verifier_key_of
from agentlattice_core.errors import AuditError

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "signed_notes.json").read_text())["notes"]
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = verifier_key_of("agentlattice/acme", PRIVATE)
CHECKPOINT = Checkpoint("agentlattice/acme", 20852163, bytes(range(32)))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_notes_of_other_implementations_open(vector: dict[str, Any]) -> None:
    """Notes and checkpoints that others signed verify with their published keys, and read as what they say."""
    key = VerifierKey.parse(vector["key"])
    assert key.format() == vector["key"]
    assert open_note(vector["text"] + "\n" + vector["signature"], key) == vector["text"]
    if "size" in vector:
        checkpoint = Checkpoint.parse(vector["text"])
        assert (checkpoint.size, checkpoint.root.hex()) == (vector["size"], vector["root"])
        assert checkpoint.format() == vector["text"]


def test_our_signature_is_the_one_the_go_implementation_makes() -> None:
    """Same key, same text, same bytes: others can open our notes."""
    vector = VECTORS[0]
    private = Ed25519PrivateKey.from_private_bytes(base64.b64decode(vector["private"])[1:])
    assert sign_note(vector["text"], "PeterNeumann", private) == vector["text"] + "\n" + vector["signature"]
    assert verifier_key_of("PeterNeumann", private).format() == vector["key"]


def test_every_change_to_a_signed_checkpoint_is_refused() -> None:
    """No character can be dropped, doubled or replaced."""
    note = sign_note(CHECKPOINT.format(), KEY.name, PRIVATE)
    assert open_checkpoint(note, KEY) == CHECKPOINT
    for place in range(len(note)):
        for changed in (
            note[:place] + note[place + 1 :],
            note[:place] + note[place] + note[place:],
            note[:place] + ("x" if note[place] != "x" else "y") + note[place + 1 :],
        ):
            if changed == note:
                continue
            with pytest.raises(AuditError):
                open_checkpoint(changed, KEY)


def test_a_note_by_other_keys_only_is_worth_nothing() -> None:
    """Neither another key under the same name nor the same key under another name stands in."""
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    for note in (
        sign_note(CHECKPOINT.format(), KEY.name, other),
        sign_note(CHECKPOINT.format(), "agentlattice/else", PRIVATE),
    ):
        with pytest.raises(AuditError, match="not signed by"):
            open_checkpoint(note, KEY)


def test_signatures_of_witnesses_are_allowed_beside_ours() -> None:
    """A note may carry more signatures; those of unknown keys are ignored, a forged one of ours is not."""
    note = sign_note(CHECKPOINT.format(), KEY.name, PRIVATE)
    witness = "— witness.example " + base64.b64encode(b"\1\2\3\4" + bytes(80)).decode() + "\n"
    assert open_checkpoint(note + witness, KEY) == CHECKPOINT
    forged = f"— {KEY.name} " + base64.b64encode(KEY.id + bytes(64)).decode() + "\n"
    with pytest.raises(AuditError, match="does not belong"):
        open_checkpoint(note + forged, KEY)
    with pytest.raises(AuditError):
        open_checkpoint(note + witness * 200, KEY)


def test_a_checkpoint_for_another_log_is_refused() -> None:
    """A key signs for the log of its own name only."""
    note = sign_note(Checkpoint("agentlattice/else", 1, bytes(32)).format(), KEY.name, PRIVATE)
    with pytest.raises(AuditError, match="agentlattice/else"):
        open_checkpoint(note, KEY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "a\n1\n",
        "a\n01\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "a\n+1\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "a\n-1\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "a\n１\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "a\n99999999999999999999\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "a\n1\n" + base64.b64encode(bytes(31)).decode() + "\n",
        "a\n1\n" + base64.b64encode(bytes(32)).decode().rstrip("=") + "\n",
        "a\n1\n" + base64.b64encode(bytes(32)).decode()[:-2] + "B=\n",
        "a\n1\n" + base64.b64encode(bytes(32)).decode(),
        "a\n1\n" + base64.b64encode(bytes(32)).decode() + "\n\n",
        "\n1\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "a\r\n1\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "a\n0\n" + base64.b64encode(bytes(32)).decode() + "\n",
    ],
)
def test_a_checkpoint_that_is_not_written_the_one_way_is_refused(text: str) -> None:
    """No leading zeros, no missing padding, no empty lines, no root that an empty log cannot have."""
    with pytest.raises(AuditError):
        Checkpoint.parse(text)


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1),
    st.integers(1, 2**62),
    st.binary(min_size=32, max_size=32),
    st.lists(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1), max_size=3),
)
def test_a_checkpoint_reads_back(origin: str, size: int, root: bytes, extensions: list[str]) -> None:
    """Formatting and parsing are inverse."""
    checkpoint = Checkpoint(origin, size, root, tuple(extensions))
    assert Checkpoint.parse(checkpoint.format()) == checkpoint


@given(st.text() | st.text(st.sampled_from("a\n— +=0")))
def test_any_text_raises_the_audit_error_alone(text: str) -> None:
    """Whatever is in a file, a reader of notes, checkpoints and keys has one error to handle."""
    for parse in (Checkpoint.parse, VerifierKey.parse, lambda note: open_note(note, KEY)):
        with pytest.raises(AuditError):
            parse(text)


def test_a_verifier_key_with_any_part_changed_is_refused() -> None:
    """The id in a key guards its name and its bytes against slips."""
    text = KEY.format()
    for place in range(len(text)):
        changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        with pytest.raises(AuditError):
            VerifierKey.parse(changed)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\n", "a\u2003b", "\ud800"])
def test_a_key_name_that_a_note_cannot_carry_is_refused(name: str) -> None:
    """Names of keys have no spaces and no plus signs."""
    with pytest.raises(AuditError):
        VerifierKey(name, bytes(32))


@pytest.mark.parametrize("text", ["", "\n", "no newline", "tab\there\n", "nul\0\n", "\ud800\n"])
def test_a_text_that_a_note_cannot_carry_is_not_signed(text: str) -> None:
    """What others could not open is never signed."""
    with pytest.raises(AuditError):
        sign_note(text, KEY.name, PRIVATE)


def test_the_empty_log_has_a_checkpoint() -> None:
    """Size 0 goes with the root of the empty tree, and with no other."""
    checkpoint = Checkpoint(log_origin("acme"), 0, EMPTY_ROOT)
    assert checkpoint.format().split("\n")[:2] == ["agentlattice/acme", "0"]
    with pytest.raises(AuditError):
        Checkpoint(log_origin("acme"), 0, bytes(32))
