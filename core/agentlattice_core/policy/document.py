"""Policy documents: read from YAML or JSON, taken apart into stored parts, and put together again.

- Reading either gives a whole, checked document or raises PolicyDocumentError with every problem found.
- Names and ids of policies and guardrails are unique, across files too when several are loaded together.
- `parts()` and `from_parts()` are each other's inverse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentlattice_core.errors import PolicyDocumentError, PolicyProblem
from agentlattice_core.policy.model import ActionDeclaration, Policy, Registry
from agentlattice_core.policy.parts import canonical_json, digest_of
from agentlattice_core.policy.reader import Reader
from agentlattice_core.policy.schema import SECTIONS, read_action, read_policy, read_registries, read_registry
from agentlattice_core.policy.source import Node, read_file, read_json, read_yaml, shown

__all__ = ["PolicyDocument", "Position", "read_part"]


@dataclass(frozen=True, slots=True)
class Position:
    """Where something stands. Lines and columns count from 1."""

    file: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """Everything that one or several policy files say. `positions` tells where, by part id and field path
    within it.
    """

    policies: tuple[Policy, ...] = ()
    guardrails: tuple[Policy, ...] = ()
    actions: tuple[ActionDeclaration, ...] = ()
    registries: tuple[Registry, ...] = ()
    positions: Mapping[str, Position] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str, name: str = "policies.yaml") -> PolicyDocument:
        """Read the text of a document. `name` stands in messages; one ending in `.json` is read as JSON, else
        as YAML.
        """
        return _read([(name, text)])

    @classmethod
    def load(cls, path: str | Path) -> PolicyDocument:
        """Read the document at `path`."""
        return cls.load_all([path])

    @classmethod
    def load_all(cls, paths: Iterable[str | Path]) -> PolicyDocument:
        """Read several files as one document."""
        problems: list[PolicyProblem] = []
        texts: list[tuple[str, str]] = []
        for path in paths:
            try:
                texts.append(read_file(path))
            except PolicyDocumentError as error:
                problems.extend(error.problems)
        if problems:
            raise PolicyDocumentError(problems)
        return _read(texts)

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> PolicyDocument:
        """The document that `parts` were made of, in the order of their ids. Raises PolicyDocumentError."""
        policies: list[Policy] = []
        guardrails: list[Policy] = []
        actions: list[ActionDeclaration] = []
        registries: list[Registry] = []
        for part_id in sorted(parts):
            part = read_part(part_id, parts[part_id])
            if isinstance(part, ActionDeclaration):
                actions.append(part)
            elif isinstance(part, Registry):
                registries.append(part)
            elif part_id.startswith("guardrail/"):
                guardrails.append(part)
            else:
                policies.append(part)
        return cls(tuple(policies), tuple(guardrails), tuple(actions), tuple(registries))

    def parts(self) -> dict[str, bytes]:
        """Part id to canonical JSON."""
        found = {f"policy/{policy.id}": canonical_json(policy.as_json()) for policy in self.policies}
        found |= {f"guardrail/{policy.id}": canonical_json(policy.as_json()) for policy in self.guardrails}
        found |= {
            f"action/{declared.action}": canonical_json(declared.as_json()) for declared in self.actions
        }
        found |= {
            f"registry/{registry.name}": canonical_json(registry.as_json()) for registry in self.registries
        }
        return found

    def digest(self) -> str:
        """One digest over all parts, the same for documents that mean the same whatever their layout."""
        return digest_of(
            canonical_json({part_id: digest_of(content) for part_id, content in self.parts().items()})
        )


def read_part(part_id: str, content: bytes) -> Policy | ActionDeclaration | Registry:
    """The value that a part's content was made from. Raises PolicyDocumentError naming the part."""
    kind, _, name = part_id.partition("/")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise PolicyDocumentError([PolicyProblem(part_id, 1, 1, "part", "not UTF-8")]) from None
    root, problems = read_json(text, part_id)
    reader = Reader(part_id)
    reader.problems.extend(problems)
    value: Policy | ActionDeclaration | Registry | None = None
    if kind in ("policy", "guardrail"):
        value = read_policy(reader, root, "", guardrail=kind == "guardrail")
        named = value.id if value is not None else name
    elif kind == "action":
        members = reader.members(root, "", ("action", "fields", "description"), ("action", "fields"))
        named = reader.text(members.get("action"), "action") or name
        value = read_action(reader, named, root, root, "")
    elif kind == "registry":
        members = reader.members(root, "", ("name", "entries"), ("name", "entries"))
        named = reader.text(members.get("name"), "name") or name
        value = read_registry(reader, named, members.get("entries", root), "entries")
    else:
        reader.problem(
            root, "part", f"`{shown(part_id)}` is not the id of a policy, guardrail, action or registry"
        )
        named = name
    if named != name:
        reader.problem(root, "part", f"says it is `{shown(named)}`")
    if reader.problems or value is None:
        raise PolicyDocumentError(reader.problems or [PolicyProblem(part_id, 1, 1, "part", "cannot be read")])
    return value


def _read(texts: Sequence[tuple[str, str]]) -> PolicyDocument:
    assembly = _Assembly()
    for name, text in texts:
        assembly.add(name, text)
    return assembly.document()


class _Assembly:
    """Collects what the files of one document say, and what is wrong with any of them."""

    def __init__(self) -> None:
        self._problems: list[PolicyProblem] = []
        self._positions: dict[str, Position] = {}
        self._names: dict[str, Position] = {}
        self._policies: list[Policy] = []
        self._guardrails: list[Policy] = []
        self._actions: list[ActionDeclaration] = []
        self._registries: list[Registry] = []

    def add(self, file: str, text: str) -> None:
        read = read_json if file.lower().endswith(".json") else read_yaml
        try:
            root, problems = read(text, file)
        except PolicyDocumentError as error:
            self._problems.extend(error.problems)
            return
        reader = Reader(file)
        reader.problems.extend(problems)
        members = reader.members(
            root, "", SECTIONS, ("version",), "a document beginning with `version: 1`", may_be_empty=True
        )
        version = members.get("version")
        if version is not None and (version.value != 1 or isinstance(version.value, bool)):
            reader.wrong(version, "version", "a version this library knows, which is `1`")
        self._read_policies(reader, members.get("policies"), "policies", self._policies)
        self._read_policies(reader, members.get("guardrails"), "guardrails", self._guardrails)
        self._read_actions(reader, members.get("actions"))
        for name, (registry, node) in read_registries(
            reader, members.get("registries"), "registries"
        ).items():
            if self._first(
                reader, f"registry/{name}", node, f"registries.{name}", f"registry `{shown(name)}`"
            ):
                self._registries.append(registry)
        self._problems.extend(reader.problems)

    def _read_policies(self, reader: Reader, node: Node | None, section: str, into: list[Policy]) -> None:
        kind = "guardrail" if section == "guardrails" else "policy"
        for item, path in reader.items(node, section):
            policy = read_policy(reader, item, path, guardrail=kind == "guardrail")
            if policy is None:
                continue
            self._check_name(reader, policy.name, item, path)
            if self._first(reader, f"{kind}/{policy.id}", item, f"{path}.id", f"id `{shown(policy.id)}`"):
                into.append(policy)

    def _check_name(self, reader: Reader, name: str, node: Node, path: str) -> None:
        first = self._names.get(name)
        if name and first is not None:
            reader.problem(
                node, f"{path}.name", f"name `{shown(name)}` is taken by {first.file}:{first.line}"
            )
        self._names.setdefault(name, Position(reader.file, node.line, node.column))

    def _read_actions(self, reader: Reader, node: Node | None) -> None:
        if node is None:
            return
        if not isinstance(node.value, dict):
            reader.wrong(node, "actions", "an object of action types")
            return
        for action, item in node.value.items():
            path = f"actions.{shown(action)}"
            declared = read_action(reader, action, node.keys[action], item, path)
            if self._first(reader, f"action/{action}", item, path, f"action `{shown(action)}`"):
                self._actions.append(declared)

    def _first(self, reader: Reader, part_id: str, node: Node, path: str, what: str) -> bool:
        """Whether this is the first of that id; notes where its fields stand if it is, a problem if not."""
        taken = self._positions.get(part_id)
        if taken is not None:
            reader.problem(node, path, f"{what} is taken by {taken.file}:{taken.line}")
            return False
        self._locate(reader.file, part_id, node)
        return True

    def _locate(self, file: str, path: str, node: Node) -> None:
        self._positions[path] = Position(file, node.line, node.column)
        if isinstance(node.value, dict):
            for name, member in node.value.items():
                self._locate(file, f"{path}.{name}", member)
        elif isinstance(node.value, list):
            for position, item in enumerate(node.value):
                self._locate(file, f"{path}[{position}]", item)

    def document(self) -> PolicyDocument:
        if self._problems:
            raise PolicyDocumentError(
                sorted(self._problems, key=lambda found: (found.file, found.line, found.column))
            )
        return PolicyDocument(
            tuple(self._policies),
            tuple(self._guardrails),
            tuple(self._actions),
            tuple(self._registries),
            self._positions,
        )
