"""The pause contract itself: a careful adapter keeps it, and each kind of carelessness breaks one of its promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

# isort: off - the framework lies beside this file
import bare_pauses
import pytest
from bare_pauses import BarePauses

from agentlattice_integrations.contract import PauseContract
from agentlattice_integrations.contract.pause_cells import Cell, Stage
from agentlattice_integrations.contract.pauses import Theatre

# isort: on


class TestBareFramework(PauseContract):
    """An adapter that does everything right keeps the whole contract."""

    harness = BarePauses()


_CELL = Cell(5, "mixed", edits=True)
_Promise = Callable[[PauseContract, Theatre], None]


def _runs(contract: PauseContract, theatre: Theatre) -> None:
    contract.test_each_tool_runs_as_often_as_it_was_approved(theatre, "same process", _CELL)


def _answers(contract: PauseContract, theatre: Theatre) -> None:
    contract.test_every_answer_reaches_its_own_call(theatre, "same process", _CELL)


def _story(contract: PauseContract, theatre: Theatre) -> None:
    contract.test_the_log_tells_the_same_story(theatre, "same process", _CELL)


def _killed(contract: PauseContract, theatre: Theatre) -> None:
    contract.test_a_tool_killed_in_the_middle_is_not_run_again(theatre)


@pytest.mark.parametrize(
    ("kind", "promise"),
    [
        ("StartsOver", _answers),
        ("Misrouted", _answers),
        ("RunsWhatWasDenied", _runs),
        ("RunsAgain", _killed),
        ("ForgetsEdits", _runs),
        ("NoOutcome", _story),
    ],
)
def test_the_contract_notices_a_careless_adapter(kind: str, promise: _Promise, tmp_path: Path) -> None:
    """With one flaw in the adapter, the test that stands for that promise fails."""

    class Contract(PauseContract):
        harness = getattr(bare_pauses, kind)()

    theatre = Theatre(Contract.harness, tmp_path)
    try:
        with pytest.raises((AssertionError, ValueError, KeyError)):
            promise(Contract(), theatre)
    finally:
        theatre.close()


def test_the_contract_notices_a_pause_where_nothing_can_wake_it(tmp_path: Path) -> None:
    """A gate whose `pause` reaches the model as `pending` breaks the promise about where it cannot pause."""

    class Contract(PauseContract):
        harness = bare_pauses.PausesAllTheSame()

    stage = Stage(tmp_path)
    try:
        with pytest.raises(AssertionError):
            Contract().test_where_it_cannot_pause_nobody_is_waited_for_beyond_the_deadline(
                stage, "explicitly"
            )
    finally:
        stage.close()
