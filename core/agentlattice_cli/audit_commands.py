"""`al audit`: reading the log, proving it, and taking it elsewhere.

- `verify` ends with 0 only if all that it was asked to check is sound; 1 says what is not, or why it could not check.
- What somebody else holds proves most: keep what `checkpoint` and `key` print where whoever can write the log cannot.
- An export, and the proof of one entry, are verified with the public key alone, on any machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentlattice_cli import options
from agentlattice_cli.program import command_group

if TYPE_CHECKING:
    from agentlattice_cli.service_calls import ServiceCalls
    from agentlattice_cli.settings import Settings
    from agentlattice_core.audit.checkpoint import Checkpoint
    from agentlattice_core.audit.note import VerifierKey
    from agentlattice_core.results import AuditResult

__all__ = ["app"]

app = command_group("Read the log, prove it, take it elsewhere.")

_PAGE = 200
_MOST_DIFFERENCES = 20
_MAX_NOTE_BYTES = 1 << 20
_MAX_PROOF_BYTES = 16 << 20


@app.command("list")
def list_actions(
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="NUMBER", help="How many actions.")] = 50,
    action_type: Annotated[
        str | None, typer.Option("--action-type", metavar="TYPE", help="Only actions of this type.")
    ] = None,
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="NAME", help="Only this agent's actions.")
    ] = None,
    cursor: Annotated[
        str | None, typer.Option("--cursor", metavar="CURSOR", help="Go on where the last page ended.")
    ] = None,
    db: options.Db = None,
    json: options.Json = False,
) -> None:
    """List actions, the newest first."""
    from agentlattice_cli.opening import looking, served
    from agentlattice_cli.output import Output, note
    from agentlattice_cli.settings import resolve
    from agentlattice_core import introspection

    def pages(read: Callable[[str | None, int], AuditResult]) -> tuple[list[Any], str | None]:
        events: list[Any] = []
        after = cursor
        while len(events) < limit:
            page = read(after, min(_PAGE, limit - len(events)))
            events += page.events
            after = page.next_cursor
            if after is None:
                break
        return events, after

    settings = resolve({"db": db})
    service = served(settings)
    if service is not None:
        with service:
            events, following = pages(lambda after, most: service.audit_sync(after, most, action_type, agent))
    else:
        with looking(settings) as look:
            events, following = pages(
                lambda after, most: introspection.audit_page(
                    look.reader,
                    agent=agent,
                    cursor=after,
                    limit=most,
                    action_type=action_type,
                    for_operator=True,
                )
            )
    out = Output(json=json)
    if json:
        out.document({"events": events, "next_cursor": following})
        return
    out.table(
        ["time", "agent", "action", "status", "policy", "reason", "id"],
        [
            [
                one.timestamp,
                one.agent,
                one.action_type,
                one.status,
                one.policy_name,
                one.denial_reason,
                one.id,
            ]
            for one in events
        ],
        "no actions",
    )
    if following is not None:
        note(f"more: --cursor {following}")


@app.command()
def verify(
    state: Annotated[
        bool,
        typer.Option("--state", help="Also fold the log again, and compare limits and approvals with it."),
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", metavar="FILE", help="A checkpoint that was kept elsewhere."),
    ] = None,
    since_checkpoint: Annotated[
        bool,
        typer.Option(
            "--since-checkpoint", help="Trust what the checkpoint vouches for; read what came after."
        ),
    ] = False,
    export: Annotated[
        str | None,
        typer.Option(
            "--export",
            metavar="FILE",
            help="Verify this export (- for standard input), not a database.",
        ),
    ] = None,
    proof: Annotated[
        str | None,
        typer.Option(
            "--proof",
            metavar="FILE",
            help="Verify this proof of one entry (- for standard input), not a database.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", metavar="KEY", help="The public key, as `al audit key` printed it, or a file with it."
        ),
    ] = None,
    db: options.Db = None,
    signing_key: options.SigningKey = None,
    json: options.Json = False,
) -> None:
    """Verify the log, or an export of it: every entry, payload, tile and checkpoint. Or the proof of one entry."""
    from agentlattice_core.errors import InvalidRequestError

    if proof is not None:
        if state or since_checkpoint or checkpoint is not None or export is not None:
            raise InvalidRequestError("a proof is of one entry, so it is verified alone")
        if key is None:
            raise InvalidRequestError("a proof is verified with a public key you trust; pass it with `--key`")
        _verify_proof(proof, key, json=json)
        return
    if export is not None:
        if state or since_checkpoint:
            raise InvalidRequestError(
                "an export holds no state and no tree, so it is verified whole and alone"
            )
        if key is None:
            raise InvalidRequestError(
                "an export is verified with a public key you trust; pass it with `--key`"
            )
        sound = _verify_export(export, key, checkpoint, json=json)
    else:
        if key is not None:
            raise InvalidRequestError(
                "`--key` goes with `--export` or `--proof`; a database is verified with its signer's own key"
            )
        sound = _verify_database(
            db, signing_key, checkpoint, state=state, incremental=since_checkpoint, json=json
        )
    if not sound:
        raise typer.Exit(1)


def _verify_database(
    db: str | None,
    signing_key: str | None,
    checkpoint: Path | None,
    *,
    state: bool,
    incremental: bool,
    json: bool,
) -> bool:
    from agentlattice_cli.opening import proving, served
    from agentlattice_cli.output import Output
    from agentlattice_cli.output import note as say
    from agentlattice_cli.settings import resolve
    from agentlattice_core import verification

    note = _read_note(checkpoint) if checkpoint is not None else None
    settings = resolve({"db": db, "signing_key": signing_key})
    service = None if state else served(settings)
    differences: list[verification.StateDifference] = []
    alarm: str | None = None
    if service is not None:
        with service:
            result = service.verify_sync(note, incremental=incremental)
    else:
        with proving(settings) as engine:
            result = verification.verify(engine, note, incremental=incremental)
            # State is only worth comparing with a log that is what was written.
            differences = list(verification.verify_state(engine)) if state and result.chain_valid else []
            alarm = engine.notary.alarm
    sound = result.chain_valid and not differences
    out = Output(json=json)
    if json:
        found = {**vars(result), "sound": sound, "alarm": alarm}
        if state:
            found["state_valid"] = result.chain_valid and not differences
            found["state_differences"] = [str(one) for one in differences]
        out.document(found)
        return sound
    if not result.chain_valid:
        row = result.first_broken_at_row_id
        out.line(f"BROKEN at row {row}: {result.problem}" if row is not None else f"BROKEN: {result.problem}")
    else:
        since = "since the checkpoint " if result.verified_from_checkpoint else ""
        out.line(f"sound: {_entries(result.verified_through_row + 1)} {since}verified")
        out.line(f"head {result.chain_hash}" if result.chain_hash else "head of an empty log")
    for cut in result.cuts:
        out.line(f"CUT: {cut}")
    for one in islice(differences, _MOST_DIFFERENCES):
        out.line(f"STATE: {one}")
    if len(differences) > _MOST_DIFFERENCES:
        out.line(f"STATE: and {len(differences) - _MOST_DIFFERENCES} more")
    if differences:
        say("an administrator mends it with `al audit rebuild-state`")
    if state and sound:
        out.line("state: limits, approvals and policies are what the log makes of them")
    return sound


def _verify_export(export: str, key: str, checkpoint: Path | None, *, json: bool) -> bool:
    from agentlattice_cli.output import Output
    from agentlattice_core.audit.export import keys_of_export, verify_export

    public = _public_key(key)
    with nullcontext(sys.stdin.buffer) if export == "-" else open(export, "rb") as lines:
        first = lines.readline()
        kept: list[Checkpoint] = []
        if checkpoint is not None:
            kept.append(keys_of_export(first, public).open_kept(_read_note(checkpoint)))
        report = verify_export(chain([first], lines), public, checkpoints=kept)
    out = Output(json=json)
    if json:
        out.document(
            {
                "sound": report.ok,
                "entries": report.size,
                "erased": report.erased,
                "checkpoints": report.checkpoints,
                "problem": report.problem.message if report.problem is not None else None,
                "first_broken_at_row_id": _row(report.problem),
                "cuts": [str(cut) for cut in report.cuts],
            }
        )
        return report.ok
    if report.problem is not None:
        out.line(f"BROKEN at row {_row(report.problem)}: {report.problem.message}")
    else:
        out.line(f"sound: {_entries(report.size)} verified, {report.erased} payloads erased")
    for cut in report.cuts:
        out.line(f"CUT: {cut}")
    return report.ok


def _verify_proof(proof: str, key: str, *, json: bool) -> None:
    """Show what a proof proves. Raises AuditError if it proves nothing."""
    from agentlattice_cli.output import Output, shown
    from agentlattice_core.audit.proof import verify_proof

    # One byte more than any proof has, so that too long a file is refused and not cut to fit.
    most = _MAX_PROOF_BYTES + 1
    if proof == "-":
        content = sys.stdin.buffer.read(most)
    else:
        with open(proof, "rb") as file:
            content = file.read(most)
    proven = verify_proof(content.removesuffix(b"\n"), _public_key(key))
    entry, payload = proven.entry, None if proven.payload is None else proven.payload.decode()
    found = {
        "log": entry.log,
        "entry": entry.i,
        "at": entry.at,
        "kind": entry.kind,
        "id": entry.id,
        "who": dict(entry.who),
        "data": dict(entry.data),
        "payload": payload,
    }
    out = Output(json=json)
    if json:
        out.document({"sound": True, "entries": proven.checkpoint.size, **found})
        return
    out.line(f"sound: entry {entry.i} is one of the {_entries(proven.checkpoint.size)} that were signed")
    for name, value in found.items():
        if value is not None:
            out.line(f"{name}\t{shown(value)}")


@app.command()
def prove(
    entry: Annotated[str, typer.Argument(metavar="ID", help="The event, or the index of an entry.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write it there instead of printing it."),
    ] = None,
    disclose: Annotated[
        bool,
        typer.Option("--disclose", help="Put in what may be personal too: arguments, metadata, reasons."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")] = False,
    db: options.Db = None,
    signing_key: options.SigningKey = None,
) -> None:
    """Write a proof that one entry is in the log: who has it and the public key needs nothing else."""
    from agentlattice_cli.opening import means_service, proving
    from agentlattice_cli.output import note
    from agentlattice_cli.service_calls import calling, part
    from agentlattice_cli.settings import resolve
    from agentlattice_core.proving import prove as prove_one

    settings = resolve({"db": db, "signing_key": signing_key})
    if means_service(settings):
        service = calling(settings, service=False)
        chosen = "true" if disclose else "false"
        document = service.content("GET", f"/api/v1/audit/proof/{part(entry)}", disclose=chosen)
        public = _key_of(service)
    else:
        with proving(settings) as engine:
            document = prove_one(engine, entry, disclose=disclose) + b"\n"
            public = engine.notary.verifier_key().format()
    if out is None:
        sys.stdout.write(document.decode())
        return
    _write_whole(out, [document], force=force)
    note(f"wrote the proof to {out}; to verify it anywhere:")
    note(f"  al audit verify --proof {out} --key {public}")


@app.command()
def export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to write it; - for standard output.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")] = False,
    db: options.Db = None,
    signing_key: options.SigningKey = None,
) -> None:
    """Write the whole log as JSON lines, with a signed checkpoint over it."""
    from agentlattice_cli.opening import means_service
    from agentlattice_cli.output import note
    from agentlattice_cli.service_calls import calling
    from agentlattice_cli.settings import resolve

    settings = resolve({"db": db, "signing_key": signing_key})
    exported: AbstractContextManager[tuple[Iterable[bytes], str]]
    if means_service(settings):
        service = calling(settings, service=False)
        exported = nullcontext((service.lines("/api/v1/audit/export"), _key_of(service)))
    else:
        exported = _exported(settings)
    with exported as (lines, public):
        if file == "-":
            for line in lines:
                sys.stdout.buffer.write(line)
            return
        count = _write_whole(Path(file), lines, force=force)
    note(f"wrote {_entries(count - 1)} to {file}; to verify it anywhere:")
    note(f"  al audit verify --export {file} --key {public}")


@contextmanager
def _exported(settings: Settings) -> Iterator[tuple[Iterable[bytes], str]]:
    """The lines of a database's log, and the public key that verifies them."""
    from agentlattice_cli.opening import proving
    from agentlattice_core.audit.export import export_lines
    from agentlattice_core.history import noted_history

    with proving(settings) as engine:
        signed = _signed(engine)
        public = engine.notary.verifier_key()
        with engine.read() as reader:
            lines = export_lines(
                reader.rows(),
                log=engine.store.log_id,
                key=public,
                checkpoint=signed,
                statements=engine.notary.keyring(noted_history(reader)).up_to(public),
            )
            yield lines, public.format()


def _key_of(service: ServiceCalls) -> str:
    key: str = service.call("GET", "/api/v1/audit/key")["verifier_key"]
    return key


@app.command("checkpoint")
def take_checkpoint(
    db: options.Db = None, signing_key: options.SigningKey = None, json: options.Json = False
) -> None:
    """Sign the log as it is now, and print the checkpoint: keep it where nobody can change it with the log."""
    from agentlattice_cli.opening import proving, served
    from agentlattice_cli.output import Output
    from agentlattice_cli.settings import resolve

    settings = resolve({"db": db, "signing_key": signing_key})
    service = served(settings)
    if service is not None:
        with service:
            signed = service.checkpoint_sync()
    else:
        with proving(settings) as engine:
            signed = _signed(engine)
    out = Output(json=json)
    if json:
        out.document({"checkpoint": signed})
    else:
        sys.stdout.write(signed)


@app.command("key")
def public_key(
    db: options.Db = None, signing_key: options.SigningKey = None, json: options.Json = False
) -> None:
    """Print the public key that checkpoints and exports are verified with."""
    from agentlattice_cli.opening import proving, served
    from agentlattice_cli.output import Output
    from agentlattice_cli.settings import resolve

    settings = resolve({"db": db, "signing_key": signing_key})
    service = served(settings)
    if service is not None:
        with service:
            public = service.verifier_key()
    else:
        with proving(settings) as engine:
            public = engine.notary.verifier_key().format()
    out = Output(json=json)
    if json:
        out.document({"key": public})
    else:
        out.line(public)


def _signed(engine: Any) -> str:
    """A checkpoint of the log as it is. Raises AuditError if it is not the log that was signed before."""
    from agentlattice_core.errors import AuditError

    signed: str | None = engine.notary.sign()
    if signed is None:
        raise AuditError(engine.notary.alarm or "the log could not be signed")
    return signed


def _write_whole(path: Path, lines: Iterable[bytes], *, force: bool) -> int:
    """Write a file that is there whole or not at all, readable by its owner; how many lines."""
    from agentlattice_core.errors import InvalidRequestError

    if path.exists() and not force:
        raise InvalidRequestError(
            f"`{path}` is there already and was left as it is; pass `--force` to replace it"
        )
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    count = 0
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as out:
            for line in lines:
                out.write(line)
                count += 1
        os.replace(partial, path)
    except OSError as error:
        # What was asked for, not what it is written through.
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        partial.unlink(missing_ok=True)
    return count


def _read_note(path: Path) -> str:
    from agentlattice_core.errors import AuditError

    content = path.read_bytes()[: _MAX_NOTE_BYTES + 1]
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise AuditError(f"`{path}` is not a checkpoint: it is not text") from None


def _public_key(given: str) -> VerifierKey:
    from agentlattice_core.audit.note import VerifierKey
    from agentlattice_core.errors import AuditError

    path, text = Path(given), given
    if "+" not in given or path.is_file():
        try:
            text = path.read_bytes()[:_MAX_NOTE_BYTES].decode().strip()
        except UnicodeDecodeError:
            raise AuditError(f"`{path}` is not a public key: it is not text") from None
    try:
        return VerifierKey.parse(text)
    except AuditError as error:
        raise AuditError(f"`{given:.80}` is not what `al audit key` prints: {error.message}") from None


def _row(problem: Any) -> str | None:
    if problem is None:
        return None
    row = problem.row if problem.row is not None else (problem.interval or (None,))[0]
    return None if row is None else str(row)


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"
