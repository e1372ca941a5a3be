"""Publishing: a file is applied when its content changed, every version is kept, and tampering denies."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from agentlattice_core import (
    AgentLattice,
    AgentLatticeError,
    InvalidRequestError,
    NotRecordedError,
    PolicyDocumentError,
)
from agentlattice_core.batch import Batch
from agentlattice_core.policies import publish
from agentlattice_core.policy import PolicyDocument
from agentlattice_core.stores.base import Transaction


def size_of(al: AgentLattice, **action) -> str:
    return al.execute_sync("pr.open", metadata={"pr_size": 40}).status


def edit(path: Path, statement: str, *values: object) -> None:
    """Change the database behind the product's back."""
    connection = apsw.Connection(str(path / "governance.db"))
    connection.execute(statement, values)
    assert connection.changes() > 0
    connection.close()


def test_an_unchanged_file_never_undoes_an_edit(opened, policies: Path) -> None:
    al = opened()
    stricter = PolicyDocument.parse(policies.read_text().replace("value: 50", "value: 30"))
    al.apply_policies_sync(stricter)
    assert size_of(al) == "denied"
    al.close()
    assert size_of(opened()) == "denied"
    policies.write_text(policies.read_text() + "\n# a comment\n")
    assert size_of(opened()) == "executed"


def test_a_changed_file_replaces_what_it_published_and_keeps_the_versions_apart(
    opened, policies: Path
) -> None:
    al = opened()
    assert [p.version for p in al.policies_sync("org").policies if p.name == "PR Size"] == [1]
    policies.write_text(policies.read_text().replace("value: 50", "value: 30"))
    al = opened()
    assert [p.version for p in al.policies_sync("org").policies if p.name == "PR Size"] == [2]
    assert [p.version for p in al.policies_sync("org").policies if p.name == "Secrets"] == [1]
    denied = al.execute_sync("pr.open", metadata={"pr_size": 40})
    assert denied.conditions_evaluated[0].expected == 30
    assert al.audit_sync().events[0].policy_version == "2"


def test_a_policy_that_its_file_no_longer_holds_is_gone_and_its_actions_fail_closed(
    opened, policies: Path
) -> None:
    opened()
    start = policies.read_text().index("  - name: PR Size")
    end = policies.read_text().index("  - name: Deploys")
    policies.write_text(policies.read_text()[:start] + policies.read_text()[end:])
    assert size_of(opened()) == "policy_not_found"


def test_what_another_source_published_stays(opened, policies: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.yaml"
    more.write_text("version: 1\npolicies:\n  - {name: Mail, action: mail.send, effect: allow}\n")
    al = opened(policies=[policies, more])
    policies.write_text(policies.read_text() + "\n# changed\n")
    al = opened(policies=policies)
    assert al.execute_sync("mail.send").status == "executed"


def test_a_typo_in_a_policy_changes_nothing_and_names_its_place(
    opened, policies: Path, tmp_path: Path
) -> None:
    opened().close()
    good = policies.read_text()
    policies.write_text(good.replace("effect: allow", "effect: alow", 1))
    with pytest.raises(PolicyDocumentError) as raised:
        opened()
    line = good.splitlines().index("    effect: allow") + 1
    assert f"policies.yaml:{line}:" in str(raised.value)
    assert "alow" in str(raised.value)
    policies.write_text(good)
    assert size_of(opened()) == "executed"


def test_a_stored_policy_that_was_changed_denies_as_tampered(opened, tmp_path: Path) -> None:
    opened().close()
    edit(
        tmp_path,
        "UPDATE entries SET payload = CAST(replace(CAST(payload AS TEXT), '50', '99') AS BLOB) "
        "WHERE CAST(payload AS TEXT) LIKE '%PR Size%'",
    )
    al = opened()
    result = al.execute_sync("pr.open", metadata={"pr_size": 87})
    assert (result.status, result.denial_reason) == ("denied", "POLICY_TAMPERED")
    assert al.execute_sync("secret.read").denial_reason == "POLICY_DENIED"
    assert not al.verify_sync().chain_valid


def test_state_that_points_at_an_older_version_denies_as_tampered(
    opened, policies: Path, tmp_path: Path
) -> None:
    al = opened()
    al.apply_policies_sync(PolicyDocument.parse(policies.read_text().replace("value: 50", "value: 30")))
    al.close()
    connection = apsw.Connection(str(tmp_path / "governance.db"))
    (value,) = connection.execute(
        "SELECT value FROM state WHERE kind = 'policy' AND key = 'policy/pr-size'"
    ).fetchone()
    connection.close()
    assert b'"version":2' in value
    edit(
        tmp_path,
        "UPDATE state SET value = ? WHERE kind = 'policy' AND key = 'policy/pr-size'",
        value.replace(b'"version":2', b'"version":1'),
    )
    result = opened().execute_sync("pr.open", metadata={"pr_size": 1})
    assert result.denial_reason == "POLICY_TAMPERED"


def test_a_policy_removed_behind_the_logs_back_denies_everything(opened, tmp_path: Path) -> None:
    opened().close()
    edit(tmp_path, "DELETE FROM state WHERE kind = 'policy' AND key = 'policy/secrets'")
    al = opened()
    for action in ("secret.read", "pr.open", "shell.run"):
        assert al.execute_sync(action, metadata={"pr_size": 1}).denial_reason == "POLICY_TAMPERED"


def test_a_thousand_policies_open_and_decide(opened, tmp_path: Path) -> None:
    many = "version: 1\npolicies:\n" + "".join(
        f"  - {{name: P{n}, action: area{n}.do, effect: allow}}\n" for n in range(1000)
    )
    path = tmp_path / "many.yaml"
    path.write_text(many)
    al = opened(policies=path)
    assert al.execute_sync("area999.do").status == "executed"
    assert al.verify_sync().chain_valid
    assert al.verify_state_sync() == []


def mail(effect: str, name: str = "Mail") -> str:
    return f"version: 1\npolicies:\n  - {{name: {name}, action: mail.send, effect: {effect}}}\n"


def test_two_files_with_different_policies_of_one_id_are_refused_by_both_names(
    opened, tmp_path: Path
) -> None:
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text(mail("deny"))
    other.write_text(mail("allow"))
    al = opened(policies=one)
    with pytest.raises(InvalidRequestError, match=r"`policy/mail` of `other.yaml` .* by `one.yaml`"):
        opened(policies=other)
    with pytest.raises(InvalidRequestError, match=r"already published by `one.yaml`"):
        opened(policies=PolicyDocument.parse(mail("allow")))
    assert al.execute_sync("mail.send").status == "denied"
    other.write_text(mail("deny"))
    opened(policies=other)  # the very same policy contradicts nobody


def test_a_file_that_is_applied_explicitly_takes_a_policy_over(opened, tmp_path: Path) -> None:
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text(mail("deny"))
    other.write_text(mail("allow"))
    al = opened(policies=one)
    assert al.apply_policies_sync(other) == ["policy/mail"]
    assert al.execute_sync("mail.send").status == "executed"
    one.write_text(mail("deny") + "# changed\n")
    with pytest.raises(InvalidRequestError, match=r"already published by `other.yaml`"):
        opened(policies=one)
    other.write_text(mail("allow", "Post"))
    al = opened(policies=other)
    assert [policy.name for policy in al.policies_sync("org").policies] == ["Post"]


def test_an_edit_in_code_leaves_a_policy_to_its_file(opened, policies: Path) -> None:
    al = opened()
    al.apply_policies_sync(PolicyDocument.parse(policies.read_text().replace("value: 50", "value: 30")))
    assert size_of(al) == "denied"
    start = policies.read_text().index("  - name: PR Size")
    end = policies.read_text().index("  - name: Deploys")
    policies.write_text(policies.read_text()[:start] + policies.read_text()[end:])
    assert size_of(opened()) == "policy_not_found"


def test_two_sources_of_one_name_are_refused_because_each_would_remove_the_other(
    opened, tmp_path: Path
) -> None:
    for directory, name in (("a", "Mail"), ("b", "Post")):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "policies.yaml").write_text(mail("deny", name))
    both = [tmp_path / "a" / "policies.yaml", tmp_path / "b" / "policies.yaml"]
    with pytest.raises(InvalidRequestError, match=r"two policy sources are called `policies.yaml`"):
        opened(policies=both)
    documents = [PolicyDocument.parse(mail("deny", "Mail")), PolicyDocument.parse(mail("deny", "Post"))]
    with pytest.raises(InvalidRequestError, match="two policy sources are called `code`"):
        opened(policies=documents)


def test_a_publication_that_could_not_be_recorded_decides_nothing(opened, tmp_path: Path) -> None:
    """One that was rolled back, and another that then takes the same place in the log."""
    al = opened(policies=None)
    engine = al._opened
    by, document = {"system": "test"}, PolicyDocument.parse(mail("allow"))

    def publish_and_fail(transaction: Transaction) -> None:
        batch = Batch(transaction, engine.store.log_id, engine.clock.now())
        publish(batch, document, source="a", source_digest="1", by=by, prune=True, force=False)
        assert engine.policies.at(batch).summaries()
        raise OSError(28, "No space left on device")

    with pytest.raises(NotRecordedError, match="no space"):
        engine.store.transact(publish_and_fail)
    al.apply_policies_sync(PolicyDocument.parse(mail("deny")))
    assert al.execute_sync("mail.send").status == "denied"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("version: 1\npolicies: []\n", "`PolicyDocument.parse` reads a text"),
        ({"version": 1}, "a value of type `dict` is neither the name of a file nor a PolicyDocument"),
        ([5], "a value of type `int` is neither"),
        ("a\0b.yaml", "cannot be read: embedded null byte"),
    ],
)
def test_what_is_no_policy_source_is_refused_and_says_what_to_give(tmp_path: Path, given, says: str) -> None:
    """The text of a document where its file is asked for, a document as a dictionary: one line each, nothing opened."""
    with pytest.raises(AgentLatticeError, match=says) as caught:
        AgentLattice.embedded(tmp_path / "g.db", policies=given, agent="ci")
    assert caught.value.message.isprintable()
    assert not (tmp_path / "g.db").exists()
