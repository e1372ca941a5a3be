"""docs/cli.md says what the commands do, and cannot come to say something else."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import orjson
import pytest
from cli_reference import PAGE, commands, page
from cli_world import PATIENCE, PROGRAM, Al, document

from agentlattice_core import AgentLattice
from agentlattice_core.policy import PolicyDocument

TEXT = PAGE.read_text(encoding="utf-8")
PROSE = TEXT.partition("## Commands")[0]
BLOCKS = re.findall(r"(?:^    al .*\n)+", PROSE, flags=re.MULTILINE)


def test_the_reference_is_what_the_commands_say() -> None:
    """Every command, argument and option with its help; run tests/cli/cli_reference.py after a change."""
    assert page(TEXT) == TEXT


def test_every_command_and_option_explains_itself() -> None:
    """No help is empty, and none ends in the middle of a sentence."""
    for name, command in commands():
        assert (command.help or "").strip().endswith("."), name
        for param in command.params:
            assert param.help, f"{name} {param.name}"
            assert param.help.endswith("."), f"{name} {param.name}"


def test_the_settings_are_those_there_are(al: Al) -> None:
    """The table names each setting with its variable."""
    documented = dict(re.findall(r"^\| `(\w+)` \| `(AL_\w+)`", PROSE, flags=re.MULTILINE))
    assert documented.keys() == document(al("config", "--json")).keys()
    assert all(variable == f"AL_{name.upper()}" for name, variable in documented.items())


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if "gate" not in block], ids=lambda block: block.split()[2]
)
def test_what_the_page_shows_runs(project: Path, block: str) -> None:
    """The commands work one after the other, typed as they stand."""
    begin = "" if block.lstrip().startswith("al init") else "al execute pr.open --agent ci || true\n"
    script = f'set -e\nal() {{ {shlex.join(PROGRAM)} "$@"; }}\n{begin}{block}'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr


def test_the_json_documents_hold_what_is_promised(governed: AgentLattice, al: Al, project: Path) -> None:
    """For each command the table of the page lists what its document holds, all of it unless it ends in dots."""
    request = governed.execute_sync("deploy.production")
    other = governed.execute_sync("deploy.production")
    assert request.approval_id is not None
    assert other.approval_id is not None
    with governed.for_operator("ana") as operator:
        operator.apply_policies_sync(
            PolicyDocument.parse(
                "version: 1\npolicies: [{name: Lists, action: agentlattice.registry.*, effect: allow}]\n"
            )
        )
    governed.gate_sync("agentlattice.registry.wallets.put", metadata={"value": "bc1q"})
    child = governed.delegate_sync("child", capabilities=["pr.open"], ttl=600)
    child.__enter__()
    delegation = governed.delegations_sync().delegations[0].id
    ran = governed.execute_sync("pr.open", metadata={"pr_size": 1}).audit_event_id
    cases = "version: 1\ncases: [{name: secrets, action: secret.read, expect: deny}]\n"
    (project / "policies.test.yaml").write_text(cases)
    key = al("audit", "key").stdout.strip()
    al("audit", "export", "log.jsonl")
    al("audit", "prove", ran, "-o", "proof.json")
    digest = document(al("approvals", "show", request.approval_id, "--json"))["digest"]
    ci, ana = ("--agent", "ci"), ("--as", "ana")
    examples = {
        "init": ["--dir", "new"],
        "config": [],
        "whoami": [*ci],
        "can-i": ["pr.open", *ci],
        "execute": ["pr.open", *ci],
        "gate": ["pr.open", *ci],
        "report": [ran, "success", *ci],
        "approvals list": [],
        "approvals show": [request.approval_id],
        "approve": ["approvals", request.approval_id, "--digest", digest, *ana],
        "deny": ["approvals", other.approval_id, "--reason", "no", *ana],
        "delegations list": ["--all"],
        "delegations revoke": [delegation, *ana],
        "registry list": ["wallets"],
        "posture": [],
        "policy lint": ["policies.yaml"],
        "policy test": ["policies.yaml"],
        "policy list": [],
        "policy simulate": ["policies.yaml"],
        "policy diff": ["policies.yaml"],
        "policy explain": ["pr.open"],
        "policy apply": ["policies.yaml", *ana],
        "audit list": [],
        "audit verify": ["--state"],
        "audit verify --export": ["log.jsonl", "--key", key],
        "audit rotate-key": ["--reason", "yearly", *ana, "--role", "admin"],
        "audit rebuild-state": ["--reason", "edited", *ana, "--role", "admin"],
        "audit verify --proof": ["proof.json", "--key", key],
        "audit checkpoint": [],
        "audit key": [],
        "demo": ["--framework", "langgraph"],
    }
    rows = re.findall(
        r"^\| (`[^|]*`) \| ([^|]*) \|$", PROSE.partition("the JSON document |")[2], flags=re.MULTILINE
    )
    documented: dict[str, str] = {}
    for names, members in rows:
        several = re.findall(r"`([^`]*)`", names)
        parts = members.split("; ") if len(several) == members.count("; ") + 1 else [members] * len(several)
        documented |= dict(zip(several, parts, strict=True))
    assert documented.keys() == examples.keys()
    for name, members in documented.items():
        arguments = examples[name]
        words = name.split() if name not in ("approve", "deny") else [arguments.pop(0), name]
        result = al(*words, *arguments, "--json")
        assert result.stdout, f"{name}: {result.stderr}"
        found = orjson.loads(result.stdout)
        if name == "config":
            assert all(setting.keys() == {"value", "source"} for setting in found.values())
            continue
        top = re.sub(r"`\{[^}]*\}`", "", members)
        promised = set(re.findall(r"`(\w+)`", top)) - {"show"}
        if top.rstrip().endswith("...") or "..." in top:
            assert promised <= found.keys(), name
        else:
            assert promised == found.keys(), name
        for nested, inner in re.findall(r"`(\w+)`: `\{([^}]*)\}`", members):
            for item in found[nested]:
                assert item.keys() == {part.strip() for part in inner.split(",")}, name
