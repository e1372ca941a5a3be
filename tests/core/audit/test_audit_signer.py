"""The signer: it signs one history, whatever happens to the database, to its own process or beside it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from memory_log import MemoryLog

from agentlattice_core.audit.checkpoint import Checkpoint
from agentlattice_core.audit.merkle import EMPTY_ROOT, consistency_proof
from agentlattice_core.audit.note import open_checkpoint
from agentlattice_core.audit.signer import FileSigner
from agentlattice_core.errors import AuditError, InvalidRequestError


def sign(signer: FileSigner, log: MemoryLog, size: int | None = None) -> Checkpoint:
    """Sign `log` as if it had `size` entries, and open what was signed."""
    checkpoint = log.checkpoint(size)
    note = signer.sign(
        lambda: (checkpoint.size, checkpoint.root),
        lambda old, new: consistency_proof(old, new, log.hashes()),
        keep_nothing,
    )
    return bare(open_checkpoint(note, signer.verifier_key()))


def bare(checkpoint: Checkpoint) -> Checkpoint:
    """What a checkpoint says of the log, without the one it names before it."""
    return Checkpoint(checkpoint.origin, checkpoint.size, checkpoint.root)


def keep_nothing(size: int, note: str) -> None:
    """For tests that have no place to keep checkpoints."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "acme.key"


def test_what_is_signed_is_the_log(path: Path) -> None:
    """Each signature is over the size and root that were read, and verifies with the published key."""
    log, signer = MemoryLog(), FileSigner(path, "acme")
    assert bare(open_checkpoint(signer.last(), signer.verifier_key())) == log.checkpoint(0)
    for count in (0, 1, 2, 300):
        log.fill(count)
        assert sign(signer, log) == log.checkpoint()
        assert bare(open_checkpoint(signer.last(), signer.verifier_key())) == log.checkpoint()


def test_the_key_survives_a_restart_and_is_private(path: Path) -> None:
    """The key is made once, readable by its owner alone, and the same ever after; so is what was signed."""
    log = MemoryLog().fill(5)
    before = FileSigner(path, "acme")
    note = sign(before, log)
    after = FileSigner(path, "acme")
    assert after.verifier_key() == before.verifier_key()
    assert bare(open_checkpoint(after.last(), after.verifier_key())) == note
    for name in ("acme.key", "acme.key.signed", "acme.key.lock"):
        assert stat.S_IMODE((path.parent / name).stat().st_mode) == 0o600
    assert sorted(item.name for item in path.parent.iterdir()) == [
        "acme.key",
        "acme.key.lock",
        "acme.key.signed",
    ]


def test_a_process_that_changes_its_directory_goes_on_with_its_key(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that was named from the current directory stays where it was, and nothing is made in the new one."""
    elsewhere = path.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(path.parent)
    log, signer = MemoryLog().fill(5), FileSigner(path.name, "acme")
    monkeypatch.chdir(elsewhere)
    assert sign(signer, log) == log.checkpoint()
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_key_that_others_can_read_is_refused(path: Path, mode: int) -> None:
    """A key that may have been copied signs nothing, and the refusal says what to do."""
    FileSigner(path, "acme")
    path.chmod(mode)
    with pytest.raises(AuditError, match="chmod 600"):
        FileSigner(path, "acme")


def test_a_log_that_was_cut_short_or_restored_is_not_signed(path: Path) -> None:
    """Any size below the last one signed is refused, in this process and after a restart."""
    log, signer = MemoryLog().fill(12), FileSigner(path, "acme")
    sign(signer, log)
    for size in range(12):
        for each in (signer, FileSigner(path, "acme")):
            with pytest.raises(AuditError, match="cut short or an old copy was restored"):
                sign(each, log, size)
    assert sign(signer, log.fill(1)).size == 13


def test_a_log_that_was_rewritten_is_not_signed(path: Path) -> None:
    """A log with another past is refused at the same size and at any later one, whatever proof it offers."""
    log, signer = MemoryLog().fill(12), FileSigner(path, "acme")
    sign(signer, log)
    for place in range(12):
        forged = log.resealed(lambda index, data, place=place: data.update(n=-1) if index == place else None)
        for _ in range(3):
            with pytest.raises(AuditError, match="does not extend"):
                sign(signer, forged)
            forged.fill(1)


def test_two_histories_are_never_both_signed(path: Path) -> None:
    """A fork after a common past: whichever comes first is signed, the other never."""
    one, two = MemoryLog().fill(7), MemoryLog()
    two = one.resealed(lambda index, data: None)
    signer = FileSigner(path, "acme")
    sign(signer, one)
    assert sign(signer, two) == one.checkpoint()
    one.append(data={"branch": "one"})
    two.append(data={"branch": "two"})
    sign(signer, one)
    for _ in range(3):
        with pytest.raises(AuditError):
            sign(signer, two)
        two.append()


def test_each_checkpoint_names_the_one_before_which_was_kept_first(path: Path) -> None:
    """If the one before cannot be kept, the next is not signed; a signer that died in between is made up for."""
    log, signer = MemoryLog(), FileSigner(path, "acme")
    kept: list[int] = []
    before = log.checkpoint(0)
    for count in (1, 5, 300):
        log.fill(count)
        now = log.checkpoint()
        note = FileSigner(path, "acme").sign(
            lambda now=now: (now.size, now.root),
            lambda old, new: consistency_proof(old, new, log.hashes()),
            lambda size, note: kept.append(bare(open_checkpoint(note, signer.verifier_key())).size),
        )
        assert open_checkpoint(note, signer.verifier_key()).previous == before
        before = now
    assert kept == [1, 6]

    def fail(size: int, note: str) -> None:
        raise OSError("disk full")

    last = signer.last()
    now = log.fill(1).checkpoint()
    with pytest.raises(OSError, match="disk full"):
        signer.sign(
            lambda: (now.size, now.root), lambda old, new: consistency_proof(old, new, log.hashes()), fail
        )
    assert signer.last() == last


def test_a_refusal_changes_nothing(path: Path) -> None:
    """After an alarm the record is what it was, and the true log is signed on."""
    log, signer = MemoryLog().fill(4), FileSigner(path, "acme")
    sign(signer, log)
    before = signer.last()
    with pytest.raises(AuditError):
        sign(signer, MemoryLog().fill(9))
    assert signer.last() == before
    assert sign(signer, log.fill(1)).size == 5


def test_a_missing_or_foreign_file_is_refused(path: Path) -> None:
    """Key and record belong together: without one, or with another's, nothing is signed and nothing is made anew."""
    log, signer = MemoryLog().fill(3), FileSigner(path, "acme")
    sign(signer, log)
    record = path.with_name("acme.key.signed")
    key_text, record_text = path.read_bytes(), record.read_bytes()

    record.unlink()
    with pytest.raises(AuditError, match="restore it"):
        FileSigner(path, "acme")
    with pytest.raises(AuditError):
        sign(signer, log)
    record.write_bytes(record_text)

    path.unlink()
    with pytest.raises(AuditError, match="restore the key"):
        FileSigner(path, "acme")
    other = FileSigner(path.with_name("other.key"), "acme")
    path.write_bytes(other._path.read_bytes())
    path.chmod(0o600)
    with pytest.raises(AuditError, match="not this key's"):
        FileSigner(path, "acme")

    path.write_bytes(key_text)
    with pytest.raises(AuditError, match="not signed by"):
        FileSigner(path, "another-log")
    assert sign(FileSigner(path, "acme"), log.fill(1)).size == 4


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_key_or_record_is_refused(path: Path, content: bytes) -> None:
    """A file that is not what was written raises the audit error and is left alone."""
    FileSigner(path, "acme")
    record = path.with_name("acme.key.signed")
    before = record.read_bytes()
    record.write_bytes(content)
    with pytest.raises(AuditError):
        FileSigner(path, "acme")
    record.write_bytes(before)
    path.write_bytes(content)
    with pytest.raises(AuditError, match="not an Ed25519 private key"):
        FileSigner(path, "acme")
    assert path.read_bytes() == content


def test_a_log_id_or_place_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    """A key in a directory that does not exist, or for no log, is an error that names it."""
    with pytest.raises(AuditError, match="cannot be opened"):
        FileSigner(tmp_path / "missing" / "key", "acme")
    with pytest.raises(InvalidRequestError):
        FileSigner(tmp_path / "key", "no log")


def test_many_signers_at_once_make_one_history(path: Path) -> None:
    """Threads that sign a growing log through their own signers are never refused, and sizes never go back."""
    log = MemoryLog().fill(40)
    durable = 0
    guard = threading.Lock()
    failures: list[BaseException] = []
    signed: list[int] = []

    def read_head() -> tuple[int, bytes]:
        nonlocal durable
        with guard:
            durable = min(durable + 1, 40)
            checkpoint = log.checkpoint(durable)
            signed.append(durable)
            return checkpoint.size, checkpoint.root

    def prove(old: int, new: int) -> Sequence[bytes]:
        return consistency_proof(old, new, log.hashes())

    def work() -> None:
        try:
            signer = FileSigner(path, "acme")
            for _ in range(10):
                open_checkpoint(signer.sign(read_head, prove, keep_nothing), signer.verifier_key())
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert signed == list(range(1, 41))
    signer = FileSigner(path, "acme")
    assert bare(open_checkpoint(signer.last(), signer.verifier_key())) == log.checkpoint(40)


def _make_key(path: str, start: object, keys: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    keys.put(FileSigner(path, "acme").verifier_key().format())  # type: ignore[attr-defined]


def test_processes_that_start_together_agree_on_one_key(path: Path) -> None:
    """At first use by several processes at once one key is made and all use it."""
    context = multiprocessing.get_context("fork")
    start, keys = context.Barrier(4), context.Queue()
    workers = [context.Process(target=_make_key, args=(str(path), start, keys)) for _ in range(4)]
    for worker in workers:
        worker.start()
    found = {keys.get(timeout=30) for _ in workers}
    for worker in workers:
        worker.join()
    assert found == {FileSigner(path, "acme").verifier_key().format()}


_KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from memory_log import MemoryLog
from agentlattice_core.audit import signer as module
from agentlattice_core.audit.merkle import EMPTY_ROOT, consistency_proof

log = MemoryLog()
for _ in range(60):
    log.append()
signer = module.FileSigner({path!r}, "acme")
point, calls = {point}, 0
originals = {{name: getattr(os, name) for name in ("open", "fsync", "replace", "close")}}

def dying(name):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == point:
            os.kill(os.getpid(), signal.SIGKILL)
        return originals[name](*args, **kwargs)
    return call

for name in originals:
    setattr(os, name, dying(name))
size = {size}
checkpoint = log.checkpoint(size)
note = signer.sign(lambda: (size, checkpoint.root), lambda old, new: consistency_proof(old, new, log.hashes()),
    lambda size, note: None)
sys.stdout.write(note)
sys.stdout.flush()
"""


def test_a_crash_at_any_system_call_of_signing_leaves_a_signer_that_goes_on(path: Path) -> None:
    """Killed before, between and after the writes: no signature has left that the record does not cover."""
    log = MemoryLog()
    for _ in range(60):
        log.append()  # without payloads, and so without random salts: the other process builds the same log
    released = size = point = 0
    finished = False
    while not finished:
        point += 1
        size += 1
        script = _KILLED.format(tests=str(Path(__file__).parent), path=str(path), point=point, size=size)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        signer = FileSigner(path, "acme")
        recorded = bare(open_checkpoint(signer.last(), signer.verifier_key()))
        assert recorded == log.checkpoint(recorded.size)
        if done.stdout:
            released = open_checkpoint(done.stdout, signer.verifier_key()).size
        assert released <= recorded.size <= size
        finished = done.returncode == 0
    assert point > 5
    assert sign(FileSigner(path, "acme"), log) == log.checkpoint(60)
    assert not list(path.parent.glob("*.new"))


def test_a_signature_is_released_only_after_the_record_is_written(path: Path) -> None:
    """If the record cannot be written, there is no signature."""
    log, signer = MemoryLog().fill(3), FileSigner(path, "acme")
    before = signer.last()
    blocked = path.with_name("acme.key.signed.new")
    blocked.mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        sign(signer, log)
    blocked.rmdir()
    assert signer.last() == before


def test_a_child_forked_while_the_signer_works_does_not_keep_its_lock(tmp_path: Path) -> None:
    """Else a fork at the wrong moment would stop all signing until that child ends."""
    signer = FileSigner(tmp_path / "signing.key", "acme")
    children: list[int] = []

    def read_head() -> tuple[int, bytes]:
        pid = os.fork()
        if pid == 0:
            time.sleep(30)
            os._exit(0)
        children.append(pid)
        return 0, EMPTY_ROOT

    signer.sign(read_head, lambda old, new: [], keep_nothing)
    again = threading.Thread(target=signer.last, daemon=True)
    again.start()
    again.join(10)
    blocked = again.is_alive()
    os.kill(children[0], signal.SIGKILL)
    os.waitpid(children[0], 0)
    assert not blocked
