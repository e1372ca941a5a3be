"""Mappings: each value goes where the mapping says, is trusted only if the owner wrote it, and failures refuse."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentlattice_core.actions import Action
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.toolcalls import ActionTable, ToolMapping, arg, default_action_type, governed
from agentlattice_core.toolcalls.mapping import MappedAction, MappingError, mark_of

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def _build(mapping: ToolMapping, arguments: dict[str, Any], **given: Any) -> MappedAction:
    def copy() -> dict[str, Any]:
        return dict(arguments)

    return mapping.build(arguments, copy, given.get("on_behalf_of"), given.get("event_id"))


@given(st.dictionaries(st.text(max_size=8), _JSON, max_size=5))
def test_without_a_mapping_every_argument_is_metadata_unchanged(arguments: dict[str, Any]) -> None:
    """The default mapping loses nothing, changes nothing and trusts nothing."""
    action = _build(ToolMapping("tool.x"), arguments)
    assert action.options.metadata == arguments
    assert action.trusted == frozenset()


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_no_two_tools_share_a_default_action_type(left: str, right: str) -> None:
    """Whatever a tool is called, its action type is valid, and only its own."""
    Action.build(default_action_type(left))
    assert (default_action_type(left) == default_action_type(right)) == (left == right)


@given(
    st.lists(st.text(alphabet="_x5fé.\x05 ", min_size=1, max_size=9), min_size=2, max_size=60, unique=True)
)
def test_names_that_look_like_escapes_keep_apart(names: list[str]) -> None:
    """Only what could be misread is escaped, and nothing can be."""
    assert len({default_action_type(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("a b", "a_x20_b"),
        ("a.b", "a_x2e_b"),
        ("_x", "_x5f_x"),
        ("a..b", "a.b"),
        (".a", "a"),
        ("A", "a"),
        ("x" * 300, "x" * 301),
    ],
)
def test_names_made_to_collide_do_not(left: str, right: str) -> None:
    """An escaped name cannot be imitated by writing the escape oneself, nor by being too long."""
    assert default_action_type(left) != default_action_type(right)


def test_ordinary_names_stay_readable() -> None:
    """A usual tool name is the action type's last part as it is."""
    assert default_action_type("open_pr") == "tool.open_pr"
    assert default_action_type("github.open-pr") == "tool.github.open-pr"
    assert default_action_type("get_xml") == "tool.get_xml"
    assert default_action_type("transfer_to_xavier") == "tool.transfer_to_xavier"
    assert default_action_type("read file") == "tool.read_x20_file"
    with pytest.raises(InvalidRequestError, match="without a name"):
        default_action_type("")


def test_constants_and_callables_are_trusted_and_copies_are_not() -> None:
    """What the owner wrote counts as trusted; what the model wrote never does, however it is wrapped."""
    mapping = ToolMapping(
        "refund.issue",
        amount=arg("order.total"),
        currency="EUR",
        beneficiary=lambda given: f"customer-{given['order']['id']}",
        metadata={"env": "prod", "size": lambda given: len(given["lines"]), "echo": {"of": [arg("lines.0")]}},
        data_accessed=[{"type": "orders", "count": arg("count"), "sensitivity": "low"}],
    )
    arguments = {"order": {"total": "12.50", "id": 7}, "lines": ["a", "b"], "count": 3, "currency": "USD"}
    action = _build(mapping, arguments)
    options = action.options
    assert (options.amount, options.currency, options.beneficiary) == ("12.50", "EUR", "customer-7")
    assert options.metadata == {**arguments, "env": "prod", "size": 2, "echo": {"of": ["a"]}}
    assert options.data_accessed == [{"type": "orders", "count": 3, "sensitivity": "low"}]
    assert action.trusted == {"currency", "beneficiary", "env", "size"}
    assert action.constant == {"currency", "env"}


def test_a_models_argument_cannot_pass_for_the_owners_value() -> None:
    """An untrusted field of the action is not trusted because metadata has a constant of the same name."""
    action = _build(ToolMapping("x", amount=arg("amount"), metadata={"amount": "1"}), {"amount": "99"})
    assert "amount" not in action.trusted
    assert action.options.amount == "99"


def test_a_missing_argument_leaves_the_field_out_or_takes_the_default() -> None:
    """Nothing is made up: without the argument there is no field, unless the mapping names a default."""
    mapping = ToolMapping(
        "x", amount=arg("total"), currency=arg("currency", "EUR"), metadata={"a": arg("b.c")}
    )
    action = _build(mapping, {})
    assert action.options.amount is None
    assert action.options.currency == "EUR"
    assert action.options.metadata == {}
    assert action.trusted == frozenset()


@pytest.mark.parametrize("function", [lambda given: given["missing"], lambda: 1, lambda given: 1 / 0])
def test_a_mapping_that_raises_refuses(function: Callable[..., Any]) -> None:
    """Whatever a callable raises becomes one clear refusal that names the field and not the values."""
    for mapping in (ToolMapping("x", amount=function), ToolMapping("x", metadata=function)):
        with pytest.raises(MappingError, match="the mapping failed with"):
            _build(mapping, {"secret": "hunter2"})


def test_a_callable_cannot_change_what_was_decided_on() -> None:
    """Callables get a copy of the arguments."""
    arguments = {"a": 1}

    def meddle(given: dict[str, Any]) -> int:
        given["a"] = 2
        return 3

    assert _build(ToolMapping("x", metadata={"b": meddle}), arguments).options.metadata == {"a": 1, "b": 3}
    assert arguments == {"a": 1}


def test_the_recorded_arguments_can_be_chosen() -> None:
    """`arguments` names what becomes metadata; the rest is not recorded."""
    mapping = ToolMapping(
        "mail.send", arguments=["to"], metadata={"length": lambda given: len(given["body"])}
    )
    assert _build(mapping, {"to": "a", "body": "hello"}).options.metadata == {"to": "a", "length": 5}


def test_who_the_application_says_it_acts_for_wins() -> None:
    """The end user that the adapter knows is not replaced by what a mapping copies from the model."""
    mapping = ToolMapping("x", on_behalf_of=arg("user"))
    assert _build(mapping, {"user": "mallory"}, on_behalf_of="alice").options.on_behalf_of == "alice"
    assert _build(mapping, {"user": "bob"}).options.on_behalf_of == "bob"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ToolMapping("not valid!"), "dot-notation"),
        (lambda: ToolMapping("x", redact="password"), "list of paths"),
        (lambda: ToolMapping("x", arguments="some"), "`all` or a list"),
        (lambda: ToolMapping("x", metadata=["a"]), "object or a callable"),
        (lambda: arg(""), "empty"),
        (lambda: ActionTable({"a": {"action": "x", "amuont": 1}}), "unknown member `amuont`"),
        (lambda: ActionTable({"a": {"amount": 1}}), "`action` must be"),
        (lambda: ActionTable({"": "x"}), "tool name is empty"),
        (lambda: ActionTable.of("gone.yaml"), "action table `gone.yaml` cannot be read: no such file"),
        (lambda: ActionTable.from_yaml("- a"), "object of tool names"),
        (lambda: ActionTable.from_yaml("a: [", "t.yaml"), "t.yaml: not valid YAML at line"),
        (lambda: ActionTable.from_yaml("a: x\na: y", "t.yaml"), "at line 2 .a name stands twice"),
    ],
)
def test_a_wrong_mapping_is_refused_when_it_is_written(build: Callable[[], Any], message: str) -> None:
    """Mistakes are programming errors at once, never surprises at a call."""
    with pytest.raises((ValueError, InvalidRequestError), match=message):
        build()


# --- marks ---


class _Refusing(BaseModel):
    """Refuses unknown attributes, as pydantic tools do."""

    name: str = "x"


def test_a_mark_leaves_its_target_as_it_was() -> None:
    """The very same object comes back; calling it does what it did."""

    def function(a: int) -> int:
        """Doubles."""
        return 2 * a

    marked = governed("math.double", metadata={"a": 1})(function)
    assert marked is function
    assert marked(2) == 4
    mapping = mark_of(marked)
    assert mapping is not None
    assert mapping.action_type == "math.double"


def test_objects_that_refuse_attributes_can_be_marked_and_are_forgotten() -> None:
    """Such a mark belongs to that one object, leaves no trace in it, and goes when the object goes."""
    tool, twin = _Refusing(), _Refusing()
    governed("x.y")(tool)
    found = mark_of(tool)
    assert found is not None
    assert found.action_type == "x.y"
    assert mark_of(twin) is None
    assert tool.model_dump() == {"name": "x"}
    address = id(tool)
    del tool
    gc.collect()
    from agentlattice_core.toolcalls import mapping as mapping_module

    assert address not in mapping_module._registry


def test_a_mark_is_found_through_what_frameworks_wrap_around_it() -> None:
    """Below a framework's decorator the mark lies on the function inside the tool object."""

    @governed("x.y")
    def function() -> None: ...

    class Tool:
        func = staticmethod(function)

    class Owner:
        @governed("x.method")
        def run(self) -> None: ...

    for target, expected in ((Tool(), "x.y"), (Owner().run, "x.method")):
        found = mark_of(target)
        assert found is not None
        assert found.action_type == expected
    bound = governed("x.bound")(Owner().run)
    found = mark_of(bound)
    assert found is not None
    assert found.action_type == "x.bound"


def test_what_cannot_be_marked_says_so() -> None:
    """An object that can hold neither an attribute nor a weak reference is refused with what to do instead."""
    with pytest.raises(TypeError, match="action table"):
        governed("x.y")((1, 2))


# --- tables ---


def test_the_most_specific_mapping_wins() -> None:
    """The object, then the exact name, then the mark, then the longest glob, then the default."""

    @governed("by.mark")
    def marked() -> None: ...

    def plain() -> None: ...

    table = ActionTable(
        {
            plain: "by.object",
            "plain": "by.name",
            "fs_*": "by.glob",
            "fs_read_*": "by.longer.glob",
            "*": "by.all",
        }
    )
    assert table.resolve("plain", plain).action_type == "by.object"
    assert table.resolve("plain", marked).action_type == "by.name"
    assert table.resolve("fs_x", marked).action_type == "by.mark"
    assert table.resolve("fs_x").action_type == "by.glob"
    assert table.resolve("fs_read_x").action_type == "by.longer.glob"
    assert table.resolve("other").action_type == "by.all"
    assert ActionTable().resolve("other").action_type == "tool.other"


def test_a_table_can_be_written_in_yaml() -> None:
    """Everything but callables can be said in a file; `{arg: path}` copies an argument."""
    table = ActionTable.from_yaml(
        """
        open_pr: pr.open
        issue_refund:
          action: refund.issue
          amount: {arg: order.total}
          currency: {arg: currency, default: EUR}
          metadata: {channel: agent, first: {arg: lines.0}}
          redact: [order.card]
        """
    )
    mapping = table.resolve("issue_refund")
    action = _build(mapping, {"order": {"total": 5}, "lines": ["a"]})
    assert (action.options.amount, action.options.currency) == (5, "EUR")
    assert action.options.metadata is not None
    assert action.options.metadata["first"] == "a"
    assert action.trusted == {"channel"}
    assert mapping.redact == ("order.card",)
