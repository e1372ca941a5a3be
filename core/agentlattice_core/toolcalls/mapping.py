"""How a tool call becomes an action: which action type, and which value goes where.

- A value in a mapping is a constant, `arg("path")`, or a callable over the arguments. Text is always a constant:
  `currency="EUR"` is euros, `currency=arg("currency")` is what the model sent.
- Constants and callables come from the tool's owner and count as trusted; what is copied from the model's arguments
  does not, and neither does anything that holds such a copy.
- Without a mapping the action is `tool.<name>` with all arguments as metadata. Names outside the grammar of action
  types are escaped (`read file` is `tool.read_x20_file`), so that two tools never share an action type by accident.
- Which mapping wins: the table's entry for the tool object, then for its exact name, then what `@governed` left, then
  the table's most specific glob, then the default.
- A mapping that raises, or yields what cannot be recorded, refuses the call.
"""

from __future__ import annotations

import hashlib
import re
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from agentlattice_core.actions import Action
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.results import ActionOptions

__all__ = [
    "ActionTable",
    "Arg",
    "MappedAction",
    "MappingError",
    "ToolMapping",
    "arg",
    "default_action_type",
    "governed",
    "mark_of",
]

_T = TypeVar("_T")

_MARK: Final = "__agentlattice_action__"
_FIELDS: Final = ("amount", "currency", "beneficiary", "category", "on_behalf_of")
_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Arg:
    """The value of one argument, wherever the mapping puts it; see `arg`."""

    path: tuple[str, ...]
    default: Any = _MISSING

    def read(self, arguments: Mapping[str, Any]) -> Any:
        """The value in `arguments`, the default, or the marker for a missing one."""
        value: Any = arguments
        for step in self.path:
            if isinstance(value, Mapping) and step in value:
                value = value[step]
            elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
                value = value[int(step)]
            else:
                return self.default
        return value


def arg(path: str | Sequence[str], default: Any = _MISSING) -> Any:
    """In a mapping: the argument at `path`, such as `"total"`, `"order.total"` or `"items.0.id"`.

    A sequence of steps reads names that hold dots. Where the argument is missing the default stands, and without one
    the field is left out of the action. Raises ValueError for an empty path.
    """
    steps = tuple(path.split(".")) if isinstance(path, str) else tuple(path)
    if not steps or not all(isinstance(step, str) and step for step in steps):
        raise ValueError(f"argument path `{path}` is empty or has an empty step")
    return Arg(steps, default)


class MappingError(InvalidRequestError):
    """A mapping raised, or what it yields cannot be used."""


@dataclass(slots=True)
class MappedAction:
    """What a mapping made of one call. `constant` names the fields that no change of the arguments can change."""

    options: ActionOptions
    trusted: frozenset[str]
    constant: frozenset[str]


@dataclass(frozen=True)
class ToolMapping:
    """The action a tool's calls are.

    - `action_type`: dot-notation such as `db.migrate`.
    - `data_accessed`: a list of `{"type", "count", "sensitivity"}`, whose members may be `arg(...)` or callables, or a
      callable that returns such a list.
    - `metadata`: members to add to the arguments, or a callable that returns them; they win over arguments of the
      same name.
    - `arguments`: which arguments are recorded as metadata: `"all"`, or a list of names (an empty list: none).
    - `amount`, `currency`, `beneficiary`, `category`, `on_behalf_of`: the action's fields of those names.
    - `redact`: further paths to redact for this tool; see `redaction`.

    `computes` says whether anything beside the plain arguments goes into the action. Raises InvalidRequestError when it
    is built for an action type outside the grammar, ValueError for anything else.
    """

    action_type: str
    data_accessed: Any = None
    metadata: Any = None
    amount: Any = None
    currency: Any = None
    beneficiary: Any = None
    category: Any = None
    on_behalf_of: Any = None
    redact: Sequence[str] = ()
    arguments: str | Sequence[str] = "all"
    computes: bool = field(init=False, repr=False, compare=False)
    _constant: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        Action.build(self.action_type)
        if isinstance(self.redact, str):
            raise ValueError(f"redact must be a list of paths, not the text `{self.redact}`")
        object.__setattr__(self, "redact", tuple(self.redact))
        if isinstance(self.arguments, str):
            if self.arguments != "all":
                raise ValueError(
                    f"arguments must be `all` or a list of names, not the text `{self.arguments}`"
                )
        else:
            object.__setattr__(self, "arguments", tuple(self.arguments))
        if (
            self.metadata is not None
            and not isinstance(self.metadata, Mapping)
            and not callable(self.metadata)
        ):
            raise ValueError("metadata must be an object or a callable that returns one")
        values = {
            name: getattr(self, name)
            for name in (*_FIELDS, "data_accessed")
            if getattr(self, name) is not None
        }
        if isinstance(self.metadata, Mapping):
            values = {**self.metadata, **values}
        object.__setattr__(
            self, "_constant", frozenset(name for name, value in values.items() if not _dynamic(value))
        )
        object.__setattr__(
            self, "computes", bool(values) or self.metadata is not None or self.arguments != "all"
        )

    def build(
        self,
        shown: dict[str, Any],
        copy: Callable[[], dict[str, Any]],
        on_behalf_of: str | None,
        event_id: str | None,
    ) -> MappedAction:
        """The action's options for one call.

        `shown` are the canonical arguments after redaction, which `arg(...)` reads and the log will hold; `copy`
        makes a copy of the unredacted ones for callables. Raises MappingError naming the field that could not be
        computed.
        """
        source = _Source(shown, copy)
        metadata = (
            dict(shown) if self.arguments == "all" else {n: shown[n] for n in self.arguments if n in shown}
        )
        trusted: set[str] = set()
        for name, value in self._added(source).items():
            found, from_owner = source.value(value, f"metadata.{name}")
            if found is not _MISSING:
                metadata[name] = found
                if from_owner:
                    trusted.add(name)
        fields: dict[str, Any] = {}
        for name in (*_FIELDS, "data_accessed"):
            value = getattr(self, name)
            if value is None:
                continue
            trusted.discard(name)
            found, from_owner = source.value(value, name)
            if found is not _MISSING:
                fields[name] = found
                if from_owner:
                    trusted.add(name)
        if on_behalf_of is not None:
            fields["on_behalf_of"] = on_behalf_of
        options = ActionOptions(metadata=metadata, event_id=event_id, **fields)
        return MappedAction(options, frozenset(trusted), self._constant)

    def _added(self, source: _Source) -> Mapping[str, Any]:
        if self.metadata is None:
            return {}
        if isinstance(self.metadata, Mapping):
            return self.metadata
        added = source.call(self.metadata, "metadata")
        if not isinstance(added, Mapping) or not all(isinstance(name, str) for name in added):
            raise MappingError("metadata: the mapping's callable did not return an object")
        return {name: _Computed(value) for name, value in added.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | str, where: str = "mapping") -> ToolMapping:
        """Read a mapping from plain data, as in YAML: `{arg: path}` (and `default:`) stands for `arg(path)`.

        Text alone is the action type. Raises InvalidRequestError naming an unknown member.
        """
        if isinstance(data, str):
            return cls(data)
        if not isinstance(data, Mapping):
            raise InvalidRequestError(f"{where}: must be an action type or an object with `action`")
        members = dict(data)
        action_type = members.pop("action", None)
        known = {*_FIELDS, "data_accessed", "metadata", "redact", "arguments"}
        for name in members:
            if name not in known:
                raise InvalidRequestError(
                    f"{where}: unknown member `{name}`; known are action, {', '.join(sorted(known))}"
                )
        if not isinstance(action_type, str):
            raise InvalidRequestError(f"{where}: `action` must be an action type such as `db.migrate`")
        plain = {name: members.pop(name) for name in ("redact", "arguments") if name in members}
        try:
            return cls(action_type, **{name: _from_data(value) for name, value in members.items()}, **plain)
        except (ValueError, TypeError) as error:
            raise InvalidRequestError(f"{where}: {error}") from None


@dataclass(frozen=True, slots=True)
class _Computed:
    """A value a callable already returned: trusted whole, and not looked into again."""

    value: Any


class _Source:
    """The arguments of one call, as the values of a mapping see them."""

    __slots__ = ("_copied", "_copy", "_shown")

    def __init__(self, shown: dict[str, Any], copy: Callable[[], dict[str, Any]]) -> None:
        self._shown = shown
        self._copy = copy
        self._copied: dict[str, Any] | None = None

    def call(self, function: Callable[[dict[str, Any]], Any], where: str) -> Any:
        if self._copied is None:
            self._copied = self._copy()
        try:
            return function(self._copied)
        except Exception as error:
            raise MappingError(f"{where}: the mapping failed with {type(error).__name__}") from error

    def value(self, value: Any, where: str) -> tuple[Any, bool]:
        """The value for this call, and whether all of it comes from the tool's owner."""
        if isinstance(value, _Computed):
            return value.value, True
        if isinstance(value, Arg):
            return value.read(self._shown), False
        if callable(value):
            return self.call(value, where), True
        if isinstance(value, Mapping):
            members = {name: self.value(member, f"{where}.{name}") for name, member in value.items()}
            return (
                {name: found for name, (found, _) in members.items() if found is not _MISSING},
                all(owned for _, owned in members.values()),
            )
        if isinstance(value, list | tuple):
            items = [self.value(item, f"{where}[{position}]") for position, item in enumerate(value)]
            return [found for found, _ in items if found is not _MISSING], all(owned for _, owned in items)
        return value, True


def _dynamic(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_dynamic(member) for member in value.values())
    if isinstance(value, list | tuple):
        return any(_dynamic(item) for item in value)
    return isinstance(value, Arg) or callable(value)


def _from_data(value: Any) -> Any:
    if isinstance(value, Mapping):
        if "arg" in value and set(value) <= {"arg", "default"}:
            return arg(value["arg"], value.get("default", _MISSING))
        return {name: _from_data(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_from_data(item) for item in value]
    return value


# --- marks ----------------------------------------------------------------------------------------------------------

# Objects that refuse attributes, by id; the reference's callback forgets them, and a recycled id is told by identity.
_registry: dict[int, tuple[weakref.ref[Any], ToolMapping]] = {}


def governed(
    action_type: str,
    *,
    data_accessed: Any = None,
    metadata: Any = None,
    amount: Any = None,
    currency: Any = None,
    beneficiary: Any = None,
    category: Any = None,
    on_behalf_of: Any = None,
    redact: Iterable[str] = (),
    arguments: str | Iterable[str] = "all",
) -> Callable[[_T], _T]:
    """Mark a function, tool class or tool object with the action its calls are; members as in `ToolMapping`.

    The thing itself is returned and behaves as before: the mark alone decides nothing, an adapter's `govern(...)`
    reads it. It may stand above or below the framework's own decorator. Raises TypeError for an object that can
    neither carry an attribute nor be referred to weakly; put it in an `ActionTable` then.
    """
    mapping = ToolMapping(
        action_type,
        data_accessed=data_accessed,
        metadata=metadata,
        amount=amount,
        currency=currency,
        beneficiary=beneficiary,
        category=category,
        on_behalf_of=on_behalf_of,
        redact=redact if isinstance(redact, str) else tuple(redact),
        arguments=arguments if isinstance(arguments, str) else tuple(arguments),
    )

    def mark(target: _T) -> _T:
        _leave_mark(getattr(target, "__func__", target), mapping)
        return target

    return mark


def _leave_mark(target: Any, mapping: ToolMapping) -> None:
    try:
        setattr(target, _MARK, mapping)
        if getattr(target, _MARK, None) is mapping:
            return
    except Exception:  # noqa: S110 - the object refuses attributes; the registry below holds its mark
        pass
    key = id(target)
    try:
        reference = weakref.ref(target, lambda _: _registry.pop(key, None))
    except TypeError:
        raise TypeError(
            f"an object of type `{type(target).__name__}` cannot carry a mark; name the tool in an action table instead"
        ) from None
    _registry[key] = (reference, mapping)


def _own_mark(target: Any) -> ToolMapping | None:
    entry = _registry.get(id(target)) if _registry else None
    if entry is not None and entry[0]() is target:
        return entry[1]
    try:
        found = getattr(target, _MARK, None)
    except Exception:
        return None
    return found if isinstance(found, ToolMapping) else None


def mark_of(target: object | None) -> ToolMapping | None:
    """What `@governed` left on `target`, or on the function a framework's tool object holds."""
    if target is None:
        return None
    found = _own_mark(target)
    if found is not None:
        return found
    for name in ("func", "coroutine", "_run", "_arun", "__wrapped__", "__func__"):
        try:
            inner = getattr(target, name, None)
        except Exception:  # noqa: S112 - a tool object may compute its attributes; one that fails holds no mark
            continue
        if inner is not None:
            found = _own_mark(inner)
            if found is not None:
                return found
    return None


# --- names ----------------------------------------------------------------------------------------------------------

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*")
_PREFIX = "tool."
_LONGEST = 200 - len(_PREFIX)
# An underscore that, once its neighbours are escaped, would read as the beginning of an escape.
_LIKE_AN_ESCAPE = re.compile(r"_(?=x(?:[0-9a-f]+|h[0-9a-f]{64})(?:_|[^A-Za-z0-9_-]))")


def default_action_type(tool: str) -> str:
    """`tool.<name>`, escaped where an action type cannot have it so; no two names give the same.

    A character outside the grammar becomes `_x<hex>_`; a name too long keeps its beginning and ends in its SHA-256.
    Raises InvalidRequestError for an empty name.
    """
    if not isinstance(tool, str) or not tool:
        raise InvalidRequestError("a tool without a name cannot be governed; give it one")
    if len(tool) <= _LONGEST and _PLAIN_NAME.fullmatch(tool) and not _LIKE_AN_ESCAPE.search(tool):
        return _PREFIX + tool
    ambiguous = {match.start() for match in _LIKE_AN_ESCAPE.finditer(tool)}
    escaped = "".join(
        character
        if (character.isascii() and (character.isalnum() or character in "_-")) and position not in ambiguous
        else f"_x{ord(character):x}_"
        for position, character in enumerate(tool)
    )
    if len(escaped) > _LONGEST:
        digest = hashlib.sha256(tool.encode("utf-8", "surrogatepass")).hexdigest()
        escaped = f"{escaped[:100]}_xh{digest}_"
    return _PREFIX + escaped


# --- tables ---------------------------------------------------------------------------------------------------------


class _TableLoader(yaml.SafeLoader):
    """Reads plain data only. A name that stands twice is an error: one of two mappings would be lost silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, "a name stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class ActionTable:
    """Mappings for tools one does not own: tool name, glob (`fs_*`) or tool object to a mapping.

    A value is a `ToolMapping`, an action type, or plain data as `ToolMapping.from_dict` reads it. Tools are
    looked up by object, exact name, and then the glob with the most literal characters (the first of those that tie).
    """

    def __init__(self, entries: Mapping[Any, Any] | None = None) -> None:
        self._names: dict[str, ToolMapping] = {}
        self._objects: list[tuple[Any, ToolMapping]] = []
        globs: list[tuple[str, ToolMapping]] = []
        for key, value in (entries or {}).items():
            where = f"action table entry `{key}`" if isinstance(key, str) else "action table entry"
            mapping = value if isinstance(value, ToolMapping) else ToolMapping.from_dict(value, where)
            if not isinstance(key, str):
                self._objects.append((key, mapping))
            elif any(character in key for character in "*?["):
                globs.append((key, mapping))
            elif key:
                self._names[key] = mapping
            else:
                raise InvalidRequestError("action table: a tool name is empty")
        self._globs = sorted(globs, key=lambda entry: -sum(character not in "*?[]" for character in entry[0]))

    @classmethod
    def of(cls, entries: ActionTable | Mapping[Any, Any] | str | Path | None) -> ActionTable:
        """`entries` as a table; text or a path names a YAML file. Raises InvalidRequestError."""
        if isinstance(entries, ActionTable):
            return entries
        if isinstance(entries, str | Path):
            try:
                text = Path(entries).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "not UTF-8"
                raise InvalidRequestError(
                    f"action table `{entries}` cannot be read: {str(why).lower()}"
                ) from None
            return cls.from_yaml(text, str(entries))
        return cls(entries)

    @classmethod
    def from_yaml(cls, text: str, source: str = "action table") -> ActionTable:
        """Read a table from YAML: an object of tool names or globs. Raises InvalidRequestError naming the entry."""
        try:
            data = yaml.load(text, Loader=_TableLoader)  # noqa: S506 - a safe loader that also refuses repeated names
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f" at line {mark.line + 1}" if mark is not None else ""
            problem = getattr(error, "problem", None) or "it cannot be read"
            raise InvalidRequestError(f"{source}: not valid YAML{line} ({problem})") from None
        if not isinstance(data, dict) or not all(isinstance(name, str) for name in data):
            raise InvalidRequestError(f"{source}: must be an object of tool names")
        return cls(data)

    def own(self, tool: str, target: object | None = None) -> ToolMapping | None:
        """What is said about this very tool: the entry for the object, else for the exact name, else its mark."""
        if target is not None and self._objects:
            for known, mapping in self._objects:
                if known is target:
                    return mapping
        found = self._names.get(tool)
        return found if found is not None else mark_of(target)

    def find_glob(self, tool: str) -> ToolMapping | None:
        """The most specific glob entry that matches."""
        for pattern, mapping in self._globs:
            if fnmatchcase(tool, pattern):
                return mapping
        return None

    def resolve(self, tool: str, target: object | None = None) -> ToolMapping:
        """The mapping for a tool: table by object and name, then its mark, then globs, then the default."""
        found = self.own(tool, target) or self.find_glob(tool)
        return found if found is not None else ToolMapping(default_action_type(tool))
