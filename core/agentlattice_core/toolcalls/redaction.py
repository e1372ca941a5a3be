"""Secrets, taken out before anything is stored, shown or decided on.

- Three ways to be recognised: the member's name (`password`, `api_key`, `authorization`, ...), a path the user gave,
  and the shape of the text itself (keys of well-known services, bearer tokens, private keys, passwords in addresses,
  JWTs, card numbers that pass their check digit).
- By name or path the whole value goes, whatever is inside it; structure and nulls stay. By shape only the secret
  part goes.
- What goes leaves a marker that names its kind: `[redacted]` for text, `[redacted number]`, `[redacted boolean]`. A
  marker is text, so no condition on a number can pass by it: conditions see what the log holds.
- Redaction never raises, changes nothing it was given, and done twice is the same as done once.
- Matching takes linear time on any input.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final

import orjson
import re2

__all__ = ["HIDDEN", "MARKER", "Redactor", "redact_text", "withheld"]

MARKER: Final = "[redacted]"
HIDDEN: Final = "**********"
"""What pydantic shows in the place of every SecretStr."""
_MARKER_NUMBER: Final = "[redacted number]"
_MARKER_BOOLEAN: Final = "[redacted boolean]"
_MARKERS: Final = (MARKER, _MARKER_NUMBER, _MARKER_BOOLEAN)

_SECRET_NAMES: Final = frozenset(
    (
        *(
            "password",
            "passwd",
            "pwd",
            "passphrase",
            "passcode",
            "secret",
            "token",
            "bearer",
            "otp",
            "cvv",
            "cvc",
            "ssn",
        ),
        *(
            "api_key",
            "apikey",
            "api_token",
            "access_key",
            "accesskey",
            "secret_key",
            "secretkey",
            "private_key",
        ),
        *(
            "privatekey",
            "encryption_key",
            "signing_key",
            "access_token",
            "accesstoken",
            "refresh_token",
            "auth_token",
        ),
        *(
            "authtoken",
            "id_token",
            "session_token",
            "session_id",
            "sessionid",
            "client_secret",
            "clientsecret",
        ),
        *(
            "authorization",
            "proxy_authorization",
            "authentication",
            "cookie",
            "set_cookie",
            "credential",
            "credentials",
        ),
        *("card_number", "cardnumber", "connection_string", "webhook_secret"),
    )
)
_SECRET_ENDINGS: Final = (
    "_password",
    "_passwd",
    "_pwd",
    "_passphrase",
    "_secret",
    "_token",
    "_api_key",
    "_apikey",
    "_access_key",
    "_secret_key",
    "_private_key",
    "_credential",
    "_credentials",
    "_authorization",
    "_connection_string",
)

# Each shape, with the secret part as group 1. The order does not matter: every shape is applied to every suspect text.
_SHAPES: Final = (
    r"(?s)(-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?"
    r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\z))",
    r"\b((?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ABIA|ACCA)[A-Z0-9]{16})\b",
    r"\b(gh[pousr]_[A-Za-z0-9]{20,})",
    r"\b(github_pat_[A-Za-z0-9_]{20,})",
    r"\b(glpat-[A-Za-z0-9_\-]{20,})",
    r"\b(xox[abeoprs]-[A-Za-z0-9\-]{10,})",
    r"\b(xapp-[A-Za-z0-9\-]{10,})",
    r"hooks\.slack\.com/(?:services|workflows)/([A-Za-z0-9/_\-]{10,})",
    r"\b(sk-[A-Za-z0-9_\-]{20,})",
    r"\b((?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,})",
    r"\b(whsec_[A-Za-z0-9+/=]{10,})",
    r"\b(AIza[A-Za-z0-9_\-]{35})",
    r"\b(ya29\.[A-Za-z0-9_\-]{20,})",
    r"\b(npm_[A-Za-z0-9]{30,})",
    r"\b(hf_[A-Za-z0-9]{30,})",
    r"\b(pypi-[A-Za-z0-9_\-]{50,})",
    r"\b(eyJ[A-Za-z0-9_\-]{5,}\.[A-Za-z0-9_\-]{5,}\.[A-Za-z0-9_\-]*)",
    r"(?i)\bbearer[ \t]+([A-Za-z0-9._~+/=\-]{16,})",
    r"(?i)\bbasic[ \t]+([A-Za-z0-9+/]{16,}={0,2})",
    r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s/:@\"']*:([^\s/\"']+)@",
    r"(?i)(?:password|passwd|passphrase|secret|token|api[_\-]?key|access[_\-]?key|private[_\-]?key)"
    r"[\"']?\s{0,4}(?:=|:)\s{0,4}[\"']?([^\s\"'&;,]{6,})",
    r"(?i)--?(?:password|passwd|passphrase|secret|token|api[_\-]?key)[ \t]+[\"']?([^\s\"'&;,\-][^\s\"'&;,]{5,})",
)
_CARD_SHAPE: Final = r"\d(?:[ \-]?\d){12,}"
# What one shape leaves may complete another; every pass leaves less, and more than two are not known to happen.
_MOST_PASSES: Final = 8


def _compiled(pattern: str) -> Any:
    return re2.compile(pattern)


_EACH: Final = tuple(_compiled(shape) for shape in _SHAPES)
_ANY: Final = _compiled(
    "|".join(f"(?:{shape})".replace("(?:(?s)", "(?s:").replace("(?:(?i)", "(?i:") for shape in _SHAPES)
)
_CARD: Final = _compiled(_CARD_SHAPE)
# Looks at canonical JSON text for anything that could be a secret, generously: it may be wrong about suspecting, never
# about clearing. Word boundaries and white space are not relied on, because JSON escapes them.
_SUSPECT: Final = re2.compile(
    rb"(?i)pass(?:w|phrase)|secret|token|api[_\-]?key|access[_\-]?key|private.?key|bearer|basic"
    rb"|(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ABIA|ACCA)[A-Z0-9]{16}|gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|xapp-"
    rb"|hooks\.slack\.com|sk-|[srp]k_(?:live|test)_|whsec_|AIza|ya29|npm_|hf_|pypi-|eyJ|://[^@]*@|\d(?:[ \-]?\d){12}"
    rb'|"[^"]*(?:pass|pwd|otp|cv[vc]|ssn|key|auth|cookie|credential|session|number|string)[^"]*":'
)
# The same for one short text in lower case, where the engine above would take longer to begin than to search. Each
# choice is a piece that a shape cannot do without; addresses are looked for apart. Nothing repeats without a bound.
_HINT: Final = re.compile(
    r"pass(?:w|phrase)|secret|token|api[_\-]?key|access[_\-]?key|private[_\- ]?key|bearer|basic"
    r"|a(?:kia|sia|gpa|ida|roa|npa|bia|cca)[a-z0-9]{16}|gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|xapp-"
    r"|hooks\.slack\.com|sk-[a-z0-9_\-]{20}|[srp]k_(?:live|test)_|whsec_|aiza|ya29|npm_|hf_|pypi-|eyj"
    r"|[0-9](?:[ \-]?[0-9]){12}",
    re.ASCII,
)
_SHORT: Final = 1024
_LEAST_SHAPE: Final = 7
_CARD_ISSUERS: Final = re.compile(
    r"4\d{12}(?:\d{3})?(?:\d{3})?|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}|6(?:011|5\d\d|4[4-9]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}"
)
_LEAST_CARD: Final = 10**12
_DIGITS: Final = re.compile(r"[0-9]+")
_LONGEST_CARD: Final = 19
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SEPARATORS: Final = re.compile(r"[^a-z0-9]+")


def withheld(value: Any, shown: Any) -> Iterator[str]:
    """The texts of the leaves of `value` in whose place `shown`, which was made of it, has a marker."""
    if isinstance(value, dict) and isinstance(shown, dict):
        for name, member in value.items():
            yield from withheld(member, shown.get(name))
    elif isinstance(value, list) and isinstance(shown, list):
        for item, item_shown in zip(value, shown, strict=False):
            yield from withheld(item, item_shown)
    elif shown in (*_MARKERS, HIDDEN) and value != shown and not isinstance(value, bool):
        yield str(value)


def redact_text(text: str) -> str:
    """`text` without the secrets in it; everything else as it was."""
    for _ in range(_MOST_PASSES):
        before = text
        if _ANY.search(text) is not None:
            for shape in _EACH:
                text = _without_group(shape, text)
        if _may_hold_card(text):
            text = _without_cards(text)
        if text == before:
            break
    return text


class Redactor:
    """Redacts JSON values by member name, by shape, and by the paths given.

    A path without a dot is a member's name at any depth, `*` in it stands for any characters: `ssn`, `x_*`. A path with
    dots starts at the arguments: `card.number`, `items.*.code` (one step, list positions included), `**.inner` (any
    number of steps).
    """

    __slots__ = ("_anywhere", "_hints", "_paths", "paths")

    def __init__(self, paths: Iterable[str] = ()) -> None:
        if isinstance(paths, str):
            raise ValueError(f"redact must be a list of paths, not the text `{paths}`")
        self.paths: tuple[str, ...] = tuple(paths)
        for path in self.paths:
            if not isinstance(path, str) or not all(path.split(".")):
                raise ValueError(f"redaction path `{path}` is empty or has an empty step")
        self._anywhere = tuple(path for path in self.paths if "." not in path)
        self._paths = tuple(tuple(path.split(".")) for path in self.paths if "." in path)
        self._hints = _hints(self.paths)

    def including(self, paths: Iterable[str]) -> Redactor:
        """A redactor with further paths."""
        return Redactor((*self.paths, *paths))

    def redact_canonical(self, value: Any, encoded: bytes) -> Any:
        """As `redact`, for a value whose canonical JSON text is at hand: one look at it is usually enough."""
        hints = self._hints
        if hints is None or (hints and any(hint in encoded for hint in hints)):
            return self.redact(value)
        if len(encoded) <= _SHORT:
            clear = _is_clear(value)
        else:
            clear = encoded.isascii() and _SUSPECT.search(encoded) is None
        return value if clear else self.redact(value)

    def redact(self, value: Any) -> Any:
        """`value` (plain JSON) without secrets. The very same object if there are none."""
        for _ in range(_MOST_PASSES):
            redacted = _Walk(self).run(value)
            if redacted is value or redacted == value:
                return value
            value = redacted
        return value

    def _names(self, name: str) -> bool:
        return _secret_name(name) or any(fnmatchcase(name, pattern) for pattern in self._anywhere)


def _hints(paths: tuple[str, ...]) -> tuple[bytes, ...] | None:
    """What canonical JSON must hold for a path to reach anything; None if that cannot be told from the text."""
    hints = []
    for path in paths:
        last = path.rsplit(".", 1)[-1]
        if any(character in last for character in "*?[") or last.isdecimal():
            return None
        hints.append(orjson.dumps(last) + b":")
    return tuple(hints)


def _is_clear(value: Any) -> bool:
    """Whether there is certainly no secret in `value`, by names or shapes. May be wrong about suspecting only."""
    kind = type(value)
    if kind is str:
        return len(value) < _LEAST_SHAPE or _clear_text(value)
    if kind is int:
        return bool(-_LEAST_CARD < value < _LEAST_CARD)
    if kind is dict:
        for name, member in value.items():
            if not _clear_name(name):
                return False
            if type(member) is str:
                if len(member) >= _LEAST_SHAPE and not _clear_text(member):
                    return False
            elif not _is_clear(member):
                return False
        return True
    if kind is list:
        return all(map(_is_clear, value))
    return True


def _clear_text(text: str) -> bool:
    return text.isascii() and _HINT.search(text.lower()) is None and not ("@" in text and "://" in text)


@lru_cache(maxsize=4096)
def _clear_name(name: str) -> bool:
    return not _secret_name(name) and (len(name) < _LEAST_SHAPE or _clear_text(name))


class _Walk:
    """One pass over one value: first for names and paths, then, if any text is suspect, for shapes."""

    __slots__ = ("_redactor", "_suspect", "_texts")

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._texts: list[str] = []
        self._suspect = False

    def run(self, value: Any) -> Any:
        paths = self._redactor._paths
        walked = self._named(value, tuple((path, 0) for path in paths) if paths else ())
        joined = "\n".join(self._texts)
        if self._suspect or _ANY.search(joined) is not None or _may_hold_card(joined):
            return _shaped(walked)
        return walked

    def _named(self, value: Any, open_paths: tuple[tuple[tuple[str, ...], int], ...]) -> Any:
        """Copies on write: a part in which nothing goes is returned as it is."""
        kind = type(value)
        if kind is str:
            self._texts.append(value)
            return value
        if kind is dict:
            changed: dict[str, Any] | None = None
            for name, member in value.items():
                self._texts.append(name)
                if self._redactor._names(name):
                    new = self._marked(member)
                else:
                    new = self._step(name, member, open_paths) if open_paths else self._named(member, ())
                if new is not member:
                    if changed is None:
                        changed = dict(value)
                    changed[name] = new
            return value if changed is None else changed
        if kind is list:
            items = [
                self._step(str(position), item, open_paths) if open_paths else self._named(item, ())
                for position, item in enumerate(value)
            ]
            return value if all(new is old for new, old in zip(items, value, strict=True)) else items
        if kind is int and (value >= _LEAST_CARD or value <= -_LEAST_CARD) and _is_card(str(abs(value))):
            self._suspect = True
        return value

    def _step(self, name: str, member: Any, open_paths: tuple[tuple[tuple[str, ...], int], ...]) -> Any:
        inner: set[tuple[tuple[str, ...], int]] = set()
        for path, position in open_paths:
            if _advance(path, position, name, inner):
                return self._marked(member)
        return self._named(member, tuple(inner))

    def _marked(self, value: Any) -> Any:
        """`value` with every leaf replaced by the marker of its kind. Names inside may be secrets by their shape."""
        kind = type(value)
        if kind is dict:
            self._texts.extend(value)
            return {name: self._marked(member) for name, member in value.items()}
        if kind is list:
            return [self._marked(item) for item in value]
        if value is None:
            return None
        if kind is bool:
            return _MARKER_BOOLEAN
        if kind is str:
            return value if value in _MARKERS else MARKER
        return _MARKER_NUMBER


def _advance(path: tuple[str, ...], position: int, name: str, into: set[tuple[tuple[str, ...], int]]) -> bool:
    """Match one step; adds where the path may go on to `into`, and says whether it ends here."""
    last = len(path) - 1
    while path[position] == "**":
        into.add((path, position))
        if position == last:
            return True
        position += 1
    if not fnmatchcase(name, path[position]):
        return False
    if position == last:
        return True
    into.add((path, position + 1))
    return False


def _shaped(value: Any) -> Any:
    kind = type(value)
    if kind is str:
        return redact_text(value)
    if kind is dict:
        members: dict[str, Any] = {}
        for name, member in value.items():
            new = redact_text(name)
            base, number = new, 2
            while new in members or (new != name and new in value):
                new, number = f"{base} {number}", number + 1
            members[new] = _shaped(member)
        return members
    if kind is list:
        return [_shaped(item) for item in value]
    if kind is int and _is_card(str(abs(value))):
        return _MARKER_NUMBER
    return value


def _without_group(shape: Any, text: str) -> str:
    parts: list[str] = []
    end = 0
    for match in shape.finditer(text):
        start, stop = match.span(1)
        parts += (text[end:start], MARKER)
        end = stop
    return "".join((*parts, text[end:])) if parts else text


def _may_hold_card(text: str) -> bool:
    return len(text) >= 13 and _CARD.search(text) is not None


def _without_cards(text: str) -> str:
    parts: list[str] = []
    end = 0
    for match in _CARD.finditer(text):
        for start, stop in _cards(match.group(), match.start()):
            parts += (text[end:start], MARKER)
            end = stop
    return "".join((*parts, text[end:])) if parts else text


def _cards(run: str, offset: int) -> Iterator[tuple[int, int]]:
    """Where card numbers lie in a run of digits with single separators: whole groups, next to each other."""
    groups = [(match.start(), match.end()) for match in _DIGITS.finditer(run)]
    first = 0
    while first < len(groups):
        digits = ""
        for last in range(first, len(groups)):
            start, stop = groups[last]
            digits += run[start:stop]
            if len(digits) > _LONGEST_CARD:
                break
            if _is_card(digits):
                yield offset + groups[first][0], offset + stop
                first = last
                break
        first += 1


def _is_card(digits: str) -> bool:
    if _CARD_ISSUERS.fullmatch(digits) is None:
        return False
    total = 0
    for position, digit in enumerate(reversed(digits)):
        number = int(digit)
        if position % 2:
            number = number * 2 - 9 if number > 4 else number * 2
        total += number
    return total % 10 == 0


@lru_cache(maxsize=4096)
def _secret_name(name: str) -> bool:
    plain = _SEPARATORS.sub("_", _CAMEL.sub("_", name).lower()).strip("_")
    return plain in _SECRET_NAMES or plain.endswith(_SECRET_ENDINGS)
