"""Reading documents: lossless when they are right, PolicyDocumentError with every problem when they are not."""

from __future__ import annotations

import contextlib
import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_documents import documents

from agentlattice_core.errors import PolicyDocumentError
from agentlattice_core.policy import PolicyDocument, PolicySet, StoredPart, digest_of
from agentlattice_core.policy.source import MAX_BYTES

KNOWN_NAMES = [
    *("version", "policies", "guardrails", "actions", "registries", "name", "action", "effect", "conditions"),
    *(
        "rules",
        "field",
        "operator",
        "value",
        "approval",
        "approvers",
        "quorum",
        "timeout",
        "type",
        "priority",
    ),
    *("cap", "currency", "any", "all", "not", "fields"),
]


def problems_of(text: str, name: str = "p.yaml") -> list[tuple[int, int, str, str]]:
    with pytest.raises(PolicyDocumentError) as caught:
        PolicyDocument.parse(text, name)
    return [(one.line, one.column, one.field, one.message) for one in caught.value.problems]


class Quoting(yaml.SafeDumper):
    """Writes text in quotes: YAML 1.1, which the library writes, knows fewer numbers (`0E0`) than are read as such."""


Quoting.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


class TestRoundTrip:
    @settings(max_examples=80, deadline=None)
    @given(documents())
    def test_parts_read_back_to_the_same_document(self, raw):
        """Taking apart and putting together loses nothing, neither in value nor in bytes."""
        document = PolicyDocument.parse(json.dumps(raw), "p.json")
        parts = document.parts()
        again = PolicyDocument.from_parts(parts)
        assert again.parts() == parts
        assert {policy.id: policy for policy in again.policies} == {
            policy.id: policy for policy in document.policies
        }
        assert set(again.guardrails) == set(document.guardrails)
        assert again.registries == document.registries

    @settings(max_examples=60, deadline=None)
    @given(documents())
    def test_yaml_and_json_of_the_same_document_mean_the_same(self, raw):
        """The digest depends on what is said, not on how it is written."""
        from_json = PolicyDocument.parse(json.dumps(raw), "p.json")
        text = yaml.dump(raw, Dumper=Quoting, allow_unicode=True, sort_keys=False)
        from_yaml = PolicyDocument.parse(text, "p.yaml")
        assert from_yaml.digest() == from_json.digest()

    def test_parts_are_canonical(self):
        """Sorted members, no white space, UTF-8, and amounts as the text they were written as."""
        rule = "{priority: 1, type: DAILY_CAP, cap: 1500.10, currency: EUR, effect: REJECT}"
        text = f"version: 1\npolicies:\n  - {{name: Réf, effect: allow, action: x, rules: [{rule}]}}"
        written = (
            '{"action":"x","effect":"allow","id":"ref","name":"Réf","rules":[{"cap":"1500.10",'
            '"currency":"EUR","effect":"REJECT","priority":1,"type":"DAILY_CAP"}]}'
        )
        assert PolicyDocument.parse(text).parts() == {"policy/ref": written.encode()}

    @given(
        st.decimals(min_value=0, max_value="99999999999999999999", places=18).filter(bool),
        st.decimals(min_value="0.01", max_value="9999999999999", places=2),
    )
    def test_amounts_are_read_exactly(self, quoted, bare):
        """In quotes to 38 digits; as a bare number by its digits, never through binary floating point."""
        caps = (f"'{quoted:f}'", f"{bare:f}")
        rules = [
            f"{{priority: {n}, type: DAILY_CAP, cap: {cap}, currency: EUR, effect: REJECT}}"
            for n, cap in enumerate(caps)
        ]
        text = (
            f"version: 1\npolicies:\n  - {{name: a, action: x, effect: allow, rules: [{', '.join(rules)}]}}"
        )
        assert [rule.cap for rule in PolicyDocument.parse(text).policies[0].rules] == [quoted, bare]


def read_or_refused(text: str, name: str = "p.yaml") -> None:
    """Read `text`; fail unless it is a document or refused with problems that say where they are."""
    try:
        PolicyDocument.parse(text, name)
    except PolicyDocumentError as refusal:
        error = refusal
    else:
        return
    assert error.problems
    assert all(one.line >= 1 and one.column >= 1 and one.file == name for one in error.problems)
    assert "\n" not in error.message


class TestAnythingElseIsRefused:
    @settings(max_examples=400, deadline=None)
    @given(st.text(max_size=300))
    def test_any_text_is_read_or_refused(self, text):
        """Whatever the text, nothing but PolicyDocumentError comes out."""
        for name in ("p.yaml", "p.json"):
            read_or_refused(text, name)

    @settings(max_examples=200, deadline=None)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(
                    st.sampled_from(KNOWN_NAMES) | st.text(max_size=5),
                    inner,
                    max_size=5,
                )
            ),
            max_leaves=25,
        )
    )
    def test_any_structure_is_read_or_refused(self, value):
        """Known names in wrong places and of wrong types are problems, never crashes."""
        for name, text in (("p.json", json.dumps(value)), ("p.yaml", yaml.safe_dump(value))):
            read_or_refused(text, name)

    @settings(max_examples=80, deadline=None)
    @given(documents(), st.data())
    def test_a_damaged_document_is_read_or_refused(self, raw, data):
        """One character changed anywhere is noticed or harmless, never a crash."""
        text = yaml.safe_dump(raw)
        position = data.draw(st.integers(0, len(text) - 1))
        damage = data.draw(st.sampled_from(list("\t{}[]:-&*!|>'\"%@`#,0\n é\0")))
        read_or_refused(text[:position] + damage + text[position + 1 :])

    @settings(max_examples=150, deadline=None)
    @given(st.binary(max_size=200))
    def test_any_file_is_read_or_refused(self, tmp_path_factory, data):
        """Bytes that are not text are refused too."""
        path = tmp_path_factory.mktemp("policies") / "p.yaml"
        path.write_bytes(data)
        with contextlib.suppress(PolicyDocumentError):
            PolicyDocument.load(path)

    @settings(max_examples=150, deadline=None)
    @given(
        st.binary(max_size=100)
        | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
    )
    def test_a_stored_part_that_is_anything_else_counts_as_tampered(self, content):
        """Unreadable content never disappears from the set; it denies."""
        stored = StoredPart(content, 1, digest_of(content), "2026-01-01T00:00:00Z", pattern="db.*")
        policy_set = PolicySet.from_parts({"policy/x": stored})
        assert policy_set.summaries() == []


HEAD = "version: 1\npolicies:\n  - name: A\n    action: x.y\n    effect: allow\n"


class TestProblems:
    @pytest.mark.parametrize("character", ["\\x9b", "\\u202e", "\\u2028", "\\e", "\\u200b"])
    def test_what_does_not_print_reaches_no_terminal(self, character):
        """Neither a terminal's control sequences nor marks that turn the text around, however they are written."""
        text = (
            f'version: 1\npolicies:\n  - {{name: "a{character}b", action: "c{character}d", effect: allow}}\n'
        )
        messages = [message for *_, message in problems_of(text)]
        assert len(messages) >= 1
        assert all(message.isprintable() for message in messages)

    def test_every_problem_is_reported_at_its_place(self):
        """All at once, each with line, column, path and a hint."""
        text = (
            "version: 2\n"
            "policies:\n"
            "  - nam: A\n"
            "    action: db.*.x\n"
            "    effect: alow\n"
            "    conditions:\n"
            "      - {field: agent.nme, operator: equals, value: 1}\n"
            "polices: []\n"
        )
        assert [(line, column, field) for line, column, field, _ in problems_of(text)] == [
            (1, 10, "version"),
            (3, 5, "policies[0].nam"),
            (3, 5, "policies[0].name"),
            (4, 13, "policies[0].action"),
            (5, 13, "policies[0].effect"),
            (7, 38, "policies[0].conditions[0].operator"),
            (8, 1, "polices"),
        ]
        hints = [message for *_, message in problems_of(text)]
        assert "did you mean `name`?" in hints[1]
        assert "did you mean `allow`?" in hints[4]
        assert "did you mean `eq`?" in hints[5]
        assert "did you mean `policies`?" in hints[6]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "empty"),
            ("  \n# only a comment\n", "empty"),
            ("version: 1\n---\nversion: 1\n", "second document"),
            ("[1, 2]", "is not a document"),
            ("policies: []\n", "is missing"),
            ("version: true\n", "`True` is not a version"),
            ("version: 1\nversion: 1\n", "stands here twice"),
            ("version: 1\npolicies:\n\t- name: a\n", "tab"),
            ("version: 1\0\n", "U+0000"),
            ("version: 1 \ud800\n", "U+D800"),
            ('version: 1\n"a\\u0000b": 1\n', "cannot be a member's name"),
            ("a: &a [1]\nb: *a\n", "anchors are not used"),
            ("a: !!python/object:os.system {}\n", "tags are not used"),
            ("[" * 5000, "deeper than 32"),
            ("- " * 5000, "deeper than 32"),
            ("version: 1\n? [a]\n: b\n", "name must be text"),
            ("version: 010\n", "read differently"),
            ("version: [1\n", "not YAML"),
            (f"{HEAD}    agents: []\n", "empty list"),
            (f"{HEAD}    agents:\n", "is empty; give it a value, or leave it out"),
            (f"{HEAD}    conditions: ~\n", "is empty; give it a value, or leave it out"),
            (f"{HEAD}    rules: null\n", "is empty; give it a value, or leave it out"),
            (f"{HEAD}    agents: [ann, ann]\n", "`ann` stands here twice"),
            (f"{HEAD}    agents: [7]\n", "put it in quotes"),
            (f"{HEAD}    agents: ann\n", "is not a list"),
            (f"{HEAD}    agents: ['  ']\n", "is empty"),
            (f"{HEAD}    message: {'x' * 1001}\n", "longer than 1000"),
            ("version: 1\npolicies: {}\n", "an object is not a list"),
            ("version: 1\nactions: []\n", "an object of action types"),
            ("version: 1\nactions: {a: {fields: [b]}}\n", "an object of field names"),
            ("version: 1\nregistries: []\n", "an object of registries"),
            ("version: 1\nregistries: {r: 5}\n", "an object of value to entry"),
            ("version: 1\nregistries: {r: {a: 5}}\n", "is not an object such as"),
            (f"{HEAD}    conditions: []\n", "empty list"),
            (f"{HEAD}    rules: []\n", "empty list"),
            (f"{HEAD}    active: yes\n", "`true` or `false`"),
            (f"{HEAD}    explain: some\n", "one of full, fields, none"),
            (f"{HEAD}    id: Not An Id\n", "did you mean `not-an-id`?"),
            ("version: 1\npolicies:\n  - {name: 日本, action: x, effect: allow}\n", "give an `id` too"),
            (f"{HEAD}  - {{name: A, id: b, action: x, effect: allow}}\n", "name `A` is taken by p.yaml:3"),
            (f"{HEAD}  - {{name: a, action: x, effect: allow}}\n", "id `a` is taken by p.yaml:3"),
            (
                "version: 1\npolicies:\n  - {name: a, action: deploy*, effect: allow}\n",
                "did you mean `deploy.*`?",
            ),
            ("version: 1\npolicies:\n  - {name: a, action: x, effect: block}\n", "did you mean `deny`?"),
            ("version: 1\nguardrails:\n  - {name: a, action: x}\n", "does nothing"),
            ("version: 1\nactions: {a.*: {fields: {}}}\n", "patterns are not declared"),
            ("version: 1\nactions: {a: {fields: {b: {type: int}}}}\n", "did you mean `integer`?"),
            ("version: 1\nactions: {a: {fields: {a..b: {required: true}}}}\n", "is not a field"),
            ("version: 1\nactions: {a: {fields: {metadata: {}}}}\n", "name a member of the metadata"),
            ("version: 1\nactions: {a: {fields: {agent.nme: {}}}}\n", "did you mean `agent.name`?"),
            ("version: 1\nactions: {a: {fields: {time.hour: {}}}}\n", "is not what an action carries"),
            ("version: 1\nregistries: {Bad Name: []}\n", "is not a name"),
        ],
    )
    def test_documents_that_are_wrong_say_why(self, text, words):
        """One line each, in words that help."""
        assert any(words in message for *_, message in problems_of(text))

    @pytest.mark.parametrize(
        "number", ["1e99999999999999999999", "1e-99999999999999999999", "1e400", "1e-400"]
    )
    def test_a_number_beyond_every_range_is_refused(self, number):
        """In either language, as a problem with a place, whatever its exponent."""
        text = f'{{"version": 1, "registries": {{"r": {{"a": {{"cap": {number}}}}}}}}}'
        assert any("more digits than can be exact" in message for *_, message in problems_of(text, "p.json"))
        read_or_refused(text)

    @pytest.mark.parametrize(
        ("condition", "words"),
        [
            ("{field: a}", "is missing"),
            ("{field: a, operator: eq}", "use `exists`"),
            ("{field: a, operator: eq, value: [1]}", "did you mean `in`?"),
            ("{field: a, operator: in, value: x}", "needs a list"),
            ("{field: a, operator: lt, value: x}", "compares numbers"),
            ("{field: a, operator: lt, value: true}", "compares numbers"),
            ("{field: a, operator: between, value: [1]}", "list of two"),
            ("{field: a, operator: matches, value: '(a'}", "not a regular expression"),
            ("{field: a, operator: matches, value: '(a)\\1'}", "linear time"),
            ("{field: a, operator: matches, value: '(?=a)b'}", "linear time"),
            ("{field: a, operator: cidr, value: 10.0.0.1/8}", "host bits"),
            ("{field: a, operator: exists, value: 1}", "`true` or `false`"),
            ("{field: a, operator: eq, value: {b: 1}}", "an object is not"),
            ("{field: a, operator: eq, value: 12345678901234567890}", "too large to be exact"),
            ("{field: a, operator: eq, value: 0.1000000000000000000001}", "more digits"),
            ("{field: a, operator: eq, value: 1, timezone: UTC}", "only `time.*`"),
            ("{field: sensitivity, operator: lt, value: hihg}", "did you mean `high`?"),
            ("{field: amount, operator: lt, value: lots}", "is not an amount"),
            ("{field: time.weekday, operator: eq, value: Friday}", "did you mean `fri`?"),
            ("{field: time.hour, operator: lt, value: 25}", "not an hour"),
            ("{field: time.hour, operator: lt, value: 9, timezone: Europe/Pariss}", "not a known timezone"),
            (
                "{field: time.hour, operator: lt, value: 9, timezone: ../../etc/passwd}",
                "not a known timezone",
            ),
            ("{field: time.minute, operator: lt, value: 9}", "unknown field"),
            ("{field: metadata, operator: exists}", "name a member"),
            ("{field: a..b, operator: exists}", "is not a field"),
            ("{any: []}", "empty group"),
            ("{field: a, operator: exists, value: }", "is empty; give it a value"),
            ("{field: a, operator: in, value: []}", "empty list"),
            ("{field: a, operator: in, value: [[1]]}", "holds text, numbers"),
            ("{field: a, operator: cidr, value: 5}", "needs a network"),
            ("{field: a, operator: starts_with, value: 5}", "needs text"),
            ("{field: sensitivity, operator: contains, value: low}", "a sensitivity is compared with"),
            ("{field: amount, operator: contains, value: '5'}", "an amount is compared with"),
            ("{field: time.weekday, operator: lt, value: fri}", "a weekday is compared with"),
            ("{any: [{field: a, operator: exists}], all: []}", "a group has one member"),
            ("just text", "is not a condition"),
        ],
    )
    def test_conditions_that_are_wrong_say_why(self, condition, words):
        """What could never be compared is refused when the document is read."""
        found = problems_of(f"{HEAD}    conditions:\n      - {condition}\n")
        assert any(words in message for *_, message in found), found
        assert all(line == 7 for line, *_ in found)

    @pytest.mark.parametrize(
        ("rule", "words"),
        [
            ("{type: DAILY_CAPS}", "did you mean `DAILY_CAP`?"),
            ("just text", "is not a rule"),
            ("{priority: 1, effect: REJECT}", "is missing"),
            ("{priority: -1, type: CATEGORY_BLOCKLIST, effect: REJECT, categories: [a]}", "at least 0"),
            (
                f"{{priority: 1, type: DAILY_CAP, effect: REJECT, cap: '{'9' * 21}', currency: EUR}}",
                "20 digits",
            ),
            ("{priority: 1, type: DAILY_CAP, effect: REJECT, cap: 0, currency: EUR}", "a cap of 0"),
            (
                "{priority: 1, type: DAILY_CAP, effect: REJECT, cap: 5, currency: EUR, counter: 'a|b'}",
                "a name of letters",
            ),
            (
                "{priority: 1, type: AGENT_SCOPE, agents: [a], except_agents: [b], effect: REJECT}",
                "one of the two",
            ),
            ("{priority: 1, type: AMOUNT_THRESHOLD, effect: REJECT}", "at least one of min"),
            ("{priority: 1, type: AMOUNT_THRESHOLD, effect: REJECT, min: 5}", "in which currency"),
            (
                "{priority: 1, type: AMOUNT_THRESHOLD, effect: REJECT, min: 5, above: 4, currency: EUR}",
                "one of the two",
            ),
            (
                "{priority: 1, type: AMOUNT_THRESHOLD, effect: REJECT, min: 1e3, currency: EUR}",
                "is not an amount",
            ),
            (
                "{priority: 1, type: AMOUNT_THRESHOLD, effect: REJECT, min: -5, currency: EUR}",
                "is not an amount",
            ),
            (
                "{priority: 1, type: AMOUNT_THRESHOLD, effect: REJECT, min: '5', currency: eur}",
                "currency code",
            ),
            (
                "{priority: 1, type: AMOUNT_THRESHOLD, effect: REJECT, min: 5, currency: EUR, cap: 5}",
                "belongs to DAILY_CAP",
            ),
            (
                "{priority: 1, type: AMOUNT_THRESHOLD, effect: REJECT, min: 5, curency: EUR}",
                "did you mean `currency`?",
            ),
            ("{priority: 1, type: DAILY_CAP, effect: REJECT, currency: EUR}", "one of `cap` and `cap_from`"),
            ("{priority: 1, type: DAILY_CAP, effect: REJECT, cap: 5}", "in which currency"),
            ("{priority: 1, type: DAILY_CAP, effect: AUTO_APPROVE, cap: 5, currency: EUR}", "cannot approve"),
            (
                "{priority: 1, type: DAILY_CAP, effect: REJECT, cap_from: caps.daily, currency: EUR}",
                "go together",
            ),
            (
                "{priority: 1, type: DAILY_CAP, effect: REJECT, cap: 5, currency: EUR, per: organization}",
                "did you mean `organisation`?",
            ),
            ("{priority: 1, type: BENEFICIARY_WHITELIST, effect: REJECT}", "one of `values` and `registry`"),
            (
                "{priority: 1, type: BENEFICIARY_WHITELIST, effect: REJECT, values: [a], require_tag: b}",
                "needs a `registry`",
            ),
            ("{priority: 1, type: TIME_WINDOW, effect: REJECT}", "name one such as `Europe/Paris`"),
            ("{priority: 1, type: TIME_WINDOW, effect: REJECT, timezone: UTC, from: '8:00'}", "time of day"),
            (
                "{priority: 1, type: TIME_WINDOW, effect: REJECT, timezone: UTC, from: 08:00, to: 08:00}",
                "are the same",
            ),
            (
                "{priority: 1, type: TIME_WINDOW, effect: REJECT, timezone: UTC, days: [friday]}",
                "did you mean `fri`?",
            ),
            ("{priority: 1, type: AGENT_SCOPE, effect: REJECT}", "needs `agents`"),
            ("{priority: 1, type: CATEGORY_BLOCKLIST, effect: REJECT}", "is missing"),
            (
                "{priority: 1, type: CATEGORY_BLOCKLIST, effect: REJECT, categories: [a], registry: b}",
                "stands beside `categories`",
            ),
            (
                "{priority: 1, type: TIME_WINDOW, timezone: UTC, effect: REJECT, below: , currency: EUR}",
                "is empty; give it a value",
            ),
            (
                "{priority: 1, type: DAILY_CAP, effect: REJECT, cap: 5, currency: EUR, except_agents: }",
                "is empty; give it a value",
            ),
            (
                "{priority: 1, type: CATEGORY_BLOCKLIST, effect: REQUIRE HUMAN, categories: [a]}",
                "did you mean `REQUIRE_HUMAN`?",
            ),
            (
                "{priority: 1, type: CATEGORY_BLOCKLIST, effect: REJECT, categories: [a], approval: {}}",
                "asks nobody",
            ),
        ],
    )
    def test_rules_that_are_wrong_say_why(self, rule, words):
        """A member that would be ignored is a limit that is not there, so it is refused."""
        found = problems_of(f"{HEAD}    rules:\n      - {rule}\n")
        assert any(words in message for *_, message in found), found

    @pytest.mark.parametrize(
        ("approval", "words"),
        [
            ("{timeout: 4}", "is not a duration"),
            ("{timeout: 4hours}", "is not a duration"),
            ("{timeout: 0s}", "is not a duration"),
            ("{timeout: 367d}", "at most 366 days"),
            ("{approvers: [ann]}", "did you mean `user:ann` or `group:ann`?"),
            ("{approvers: ['webhook:x']}", "cannot approve"),
            ("{approvers: ['user:a', 'user:b'], quorum: 3}", "nobody could meet"),
            ("{quorum: all}", "all of whom?"),
            ("{quorum: 0}", "from 1 to 100"),
            ("{timeout: 1h, escalate_after: 1h, escalate_to: ['group:x']}", "not before `timeout`"),
            ("{escalate_after: 1h}", "go together"),
        ],
    )
    def test_approvals_that_are_wrong_say_why(self, approval, words):
        """Approvers that could never approve and times that could never pass are refused."""
        found = problems_of(f"{HEAD}    approval: {approval}\n")
        assert any(words in message for *_, message in found), found

    def test_equal_priorities_are_refused(self):
        """A rule's priority names its counter, so there is one of each."""
        rule = "{priority: 1, type: CATEGORY_BLOCKLIST, effect: REJECT, categories: [a]}"
        found = problems_of(f"{HEAD}    rules:\n      - {rule}\n      - {rule}\n")
        assert [(line, message) for line, *_, message in found] == [
            (8, "priority `1` stands here twice; each rule needs its own")
        ]

    def test_a_guardrail_cannot_approve(self):
        """It could only ever loosen."""
        rule = "{priority: 1, type: AMOUNT_THRESHOLD, max: 5, currency: EUR, effect: AUTO_APPROVE}"
        text = f"version: 1\nguardrails:\n  - {{name: a, action: x, rules: [{rule}]}}\n"
        assert any("only tightens" in message for *_, message in problems_of(text))

    def test_json_errors_have_positions(self):
        """JSON is read as strictly as YAML, with the same positions."""
        assert problems_of('{"version": 1,\n  "polices": []}', "p.json")[0][:3] == (2, 3, "polices")
        assert problems_of('{"version": 1,}', "p.json")[0][:2] == (1, 15)
        assert problems_of('{"version": 1, "version": 1}', "p.json")[0][3].startswith(
            "`version` stands here twice"
        )

    def test_files_are_named_and_read_together(self, tmp_path):
        """Several files make one document; a name taken in one file is refused in another, naming both places."""
        one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
        one.write_text("version: 1\npolicies:\n  - {name: A, action: x, effect: allow}\n")
        two.write_text("version: 1\npolicies:\n  - {name: B, action: y, effect: deny}\n")
        assert [policy.name for policy in PolicyDocument.load_all([one, two]).policies] == ["A", "B"]
        two.write_text("version: 1\n\npolicies:\n  - {name: A, action: y, effect: deny}\n")
        with pytest.raises(PolicyDocumentError) as caught:
            PolicyDocument.load_all([one, two])
        problem = caught.value.problems[0]
        assert (problem.file, problem.line) == (str(two), 4)
        assert f"{one}:3" in problem.message

    def test_files_that_cannot_be_read_are_refused(self, tmp_path):
        """Missing, a directory, not UTF-8 and too large are all PolicyDocumentErrors."""
        latin, huge = tmp_path / "latin.yaml", tmp_path / "huge.yaml"
        latin.write_bytes(b"version: 1\npolicies:\n  - {name: R\xe9f}\n")
        huge.write_bytes(b"#" * (MAX_BYTES + 1))
        messages = {}
        for path in (tmp_path / "none.yaml", tmp_path, latin, huge):
            with pytest.raises(PolicyDocumentError) as caught:
                PolicyDocument.load(path)
            messages[path] = caught.value.problems[0]
        assert "no such file" in messages[tmp_path / "none.yaml"].message
        assert (messages[latin].line, messages[latin].column, messages[latin].message) == (
            3,
            13,
            "not UTF-8; save the file as UTF-8",
        )
        assert "larger than" in messages[huge].message

    def test_plain_words_stay_words(self):
        """`no`, `on`, times and dates are text, as an author who writes them means."""
        condition = "{field: a, operator: in, value: [no, on, 22:00, 2026-01-01, 1.5, true]}"
        text = f"{HEAD}    conditions:\n      - {condition}\n"
        (policy,) = PolicyDocument.parse(text).policies
        assert policy.conditions[0].value == ("no", "on", "22:00", "2026-01-01", 1.5, True)
