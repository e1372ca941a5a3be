"""Redaction: total, idempotent, and it finds what it says it finds."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.toolcalls.arguments import plain_json
from agentlattice_core.toolcalls.redaction import _CARD_SHAPE, _SHAPES, MARKER, Redactor, redact_text

_SECRETS = {
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "github": "ghp_" + "aB3" * 12,
    "github fine": "github_pat_" + "aB3" * 12,
    "gitlab": "glpat-" + "aB3-" * 6,
    "slack": "xoxb-1234567890-abcdefghij",
    "openai": "sk-proj-" + "aB3" * 10,
    "anthropic": "sk-ant-api03-" + "aB3" * 10,
    "stripe": "sk_live_" + "aB3" * 6,
    "google": "AIza" + "aB3-_" * 7,
    "npm": "npm_" + "aB3" * 12,
    "hugging face": "hf_" + "aB3" * 12,
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "card": "4111111111111111",
    "card in groups": "5500 0000 0000 0004",
    "amex": "3782-822463-10005",
    "private key": "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc\n-----END RSA PRIVATE KEY-----",
    "cut off key": "-----BEGIN PRIVATE KEY-----\nMIIEow\nabc",
}
_IN_CONTEXT = {
    "bearer": ("Authorization: Bearer abcdef0123456789abcdef", "abcdef0123456789abcdef"),
    "basic": ("curl -H 'Authorization: Basic dXNlcjpwYXNzd29yZDEy'", "dXNlcjpwYXNzd29yZDEy"),
    "url": ("psql postgres://app:hunter22@db:5432/main", "hunter22"),
    "url with an at": ("redis://:p@ssw0rd@cache/0", "p@ssw0rd"),
    "assignment": ("export API_KEY=zebra-17-blue", "zebra-17-blue"),
    "json text": ('{"password": "zebra-17-blue"}', "zebra-17-blue"),
    "option": ("deploy --token zebra-17-blue --now", "zebra-17-blue"),
    "card after digits": ("order 1234 4111 1111 1111 1111 now", "4111 1111 1111 1111"),
}
_TEXT = st.text(max_size=20) | st.sampled_from(
    [*_SECRETS.values(), *(text for text, _ in _IN_CONTEXT.values())]
)
_MIXED = st.lists(
    _TEXT | st.sampled_from([MARKER, "token=", "password: ", "@", "[redacted number]"]), max_size=4
).map("".join)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _MIXED,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            _MIXED | st.sampled_from(["password", "apiKey", "user", "X-Api-Key"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
_PATHS = st.lists(st.sampled_from(["vat", "x_*", "a.b", "items.*.code", "**.inner", "*.*"]), max_size=3)


@given(_JSON, _PATHS)
def test_redaction_is_total_and_idempotent(value: Any, paths: list[str]) -> None:
    """Any value is redacted without an error, redacting twice is redacting once, and the input is left as it was."""
    before = repr(value)
    redactor = Redactor(paths)
    once = redactor.redact(value)
    assert repr(redactor.redact(once)) == repr(once)
    assert repr(value) == before


@given(st.dictionaries(_MIXED, _JSON, max_size=3), _PATHS)
def test_the_quick_look_clears_nothing_that_is_secret(value: dict[str, Any], paths: list[str]) -> None:
    """Redacting with the canonical text at hand gives exactly what redacting without it gives."""
    redactor = Redactor(paths)
    try:
        plain, encoded = plain_json(value, "value")
    except InvalidRequestError:
        return
    assert redactor.redact_canonical(plain, encoded) == redactor.redact(plain)


@pytest.mark.parametrize("name", [*_SECRETS, *_IN_CONTEXT])
@pytest.mark.parametrize("around", ["{}", "\n{}\t", '"{}"', "\\{}", "x\r\n{}"])
def test_the_quick_look_suspects_every_secret(name: str, around: str) -> None:
    """However JSON escapes what stands around a secret, it is found."""
    text = _SECRETS[name] if name in _SECRETS else _IN_CONTEXT[name][0]
    plain, encoded = plain_json({"note": around.format(text)}, "value")
    assert MARKER in Redactor().redact_canonical(plain, encoded)["note"]


_SHAPED = st.one_of(
    [st.from_regex(shape.replace(r"\z", r"\Z"), fullmatch=True) for shape in _SHAPES]
    + [st.from_regex(_CARD_SHAPE, fullmatch=True)]
)


@given(_SHAPED, st.text(max_size=5), st.text(max_size=5), st.sampled_from(["", "x" * 1100]))
def test_the_quick_look_suspects_whatever_has_the_shape_of_a_secret(
    secret: str, before: str, after: str, filling: str
) -> None:
    """For any text that any shape matches, short or long, the quick look takes out what the thorough one does."""
    try:
        plain, encoded = plain_json({"note": before + secret + after, "filling": filling}, "value")
        named, name_encoded = plain_json({before + secret + after: filling}, "value")
    except InvalidRequestError:
        return
    redactor = Redactor()
    assert redactor.redact_canonical(plain, encoded) == redactor.redact(plain)
    assert redactor.redact_canonical(named, name_encoded) == redactor.redact(named)


@given(_JSON)
def test_redaction_keeps_the_shape_and_everything_that_is_not_secret(value: Any) -> None:
    """Objects keep their number of members, lists their length; a leaf either stays exactly or carries a marker."""

    def compare(old: Any, new: Any) -> None:
        if isinstance(old, dict):
            assert isinstance(new, dict)
            assert len(new) == len(old)
            for old_member, new_member in zip(old.values(), new.values(), strict=True):
                compare(old_member, new_member)
        elif isinstance(old, list):
            assert isinstance(new, list)
            assert len(new) == len(old)
            for old_item, new_item in zip(old, new, strict=True):
                compare(old_item, new_item)
        elif isinstance(new, str) and (not isinstance(old, str) or old != new):
            assert "[redacted" in new
        else:
            assert repr(old) == repr(new)

    compare(value, Redactor().redact(value))


@pytest.mark.parametrize("name", _SECRETS)
@pytest.mark.parametrize("around", ["{}", "use {} now", "x={};", "line\n{}\nline", "é{}é"])
def test_a_secret_is_found_by_its_shape_wherever_it_stands(name: str, around: str) -> None:
    """In text, in a list, in a member's name: the secret is gone and the marker is there."""
    secret = _SECRETS[name]
    text = around.format(secret)
    redacted = Redactor().redact({"note": text, "list": [text], text: 1})
    shown = json.dumps(redacted, ensure_ascii=False)
    for line in secret.splitlines():
        assert line not in shown
    assert shown.count(MARKER) == 3


@pytest.mark.parametrize("name", _IN_CONTEXT)
def test_only_the_secret_part_of_a_text_goes(name: str) -> None:
    """What surrounds a secret stays readable."""
    text, secret = _IN_CONTEXT[name]
    assert redact_text(text) == text.replace(secret, MARKER)


@pytest.mark.parametrize(
    "text",
    [
        "order 4111111111111112 of 2026-11-20",  # fails the check digit
        "1741600000000000 microseconds",  # no issuer
        "commit 4b825dc642cb6eb9a060e54bf8d69288fbee4904",
        "see https://example.com:8080/path?page=2",
        "the token budget is large",
        "user@example.com",
        "sk-short",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    """What merely resembles a secret is not touched."""
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "Password",
        "apiKey",
        "api-key",
        "X-API-Key",
        "authorization",
        "clientSecret",
        "db_password",
        "access_token",
    ],
)
def test_a_secret_is_found_by_its_members_name(name: str) -> None:
    """Whatever is under a secret's name goes, at any depth; structure and nulls stay, the marker tells the kind."""
    value = {"outer": [{name: {"a": "x", "b": [1, True, None, 1.5]}}]}
    assert Redactor().redact(value) == {
        "outer": [
            {name: {"a": MARKER, "b": ["[redacted number]", "[redacted boolean]", None, "[redacted number]"]}}
        ]
    }


@pytest.mark.parametrize(
    "name", ["max_tokens", "tokens", "secretary", "passwords_checked", "keyboard", "author"]
)
def test_names_that_only_resemble_a_secrets_stay(name: str) -> None:
    """A number of tokens is not a token."""
    assert Redactor().redact({name: 5}) == {name: 5}


def test_paths_reach_exactly_what_they_say() -> None:
    """A bare name at any depth, a dotted path from the root, `*` for one step, `**` for any number."""
    value = {
        "vat": "1",
        "card": {"number": "2", "year": 3},
        "items": [{"code": "4"}, {"code": "5", "vat": "6"}],
        "a": {"b": {"x": 7}},
    }
    assert Redactor(["vat"]).redact(value)["items"][1] == {"code": "5", "vat": MARKER}
    assert Redactor(["card.number"]).redact(value)["card"] == {"number": MARKER, "year": 3}
    assert Redactor(["number.card"]).redact(value) is value
    assert Redactor(["items.*.code"]).redact(value)["items"] == [
        {"code": MARKER},
        {"code": MARKER, "vat": "6"},
    ]
    assert Redactor(["items.0.code"]).redact(value)["items"][1]["code"] == "5"
    assert Redactor(["**.x"]).redact(value)["a"] == {"b": {"x": "[redacted number]"}}
    assert Redactor(["a.**"]).redact(value)["a"] == {"b": {"x": "[redacted number]"}}


@pytest.mark.parametrize("paths", ["ssn", [""], ["a..b"], [1]])
def test_a_path_that_cannot_work_is_refused_when_it_is_given(paths: Any) -> None:
    """A mistake in the paths is an error at once, not a secret in the log later."""
    with pytest.raises(ValueError, match="redact"):
        Redactor(paths)


def test_a_card_number_as_a_number_goes_too() -> None:
    """A model may send a card number without quotes."""
    assert Redactor().redact({"n": 4111111111111111}) == {"n": "[redacted number]"}


def test_two_secret_names_do_not_become_one() -> None:
    """Members whose names are redacted to the same text are all still there."""
    value = {_SECRETS["github"]: 1, _SECRETS["aws"]: 2, MARKER: 3}
    assert sorted(Redactor().redact(value).values()) == [1, 2, 3]


@pytest.mark.parametrize(
    "text",
    [
        "4" * 80_000,
        "4111 " * 8_000,
        "a" * 80_000,
        "password=" * 8_000,
        "://:" * 20_000,
        "-----BEGIN PRIVATE KEY-----" * 2_000,
    ],
)
def test_hostile_text_takes_linear_work(text: str) -> None:
    """Eight times the text takes about eight times the steps, not sixty-four times."""

    def steps(sample: str) -> int:
        count = 0

        def step(*_: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(step)
        try:
            redact_text(sample)
        finally:
            sys.setprofile(None)
        return count

    assert steps(text) < 16 * steps(text[: len(text) // 8]) + 1000
