"""The contract of adapters whose framework can pause, as one pytest class.

    from agentlattice_integrations.contract import PauseContract

    class TestMyFramework(PauseContract):
        harness = MyPauses()

{1, 2, 5 parallel calls} x {approve, deny, edit where the framework has it, time out, mixed} x {same process, another
process after SIGKILL}. The cells of one place are played once, and each of its promises is a test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from agentlattice_integrations.contract.harness import Seen
from agentlattice_integrations.contract.pause_cells import (
    CRASH,
    CRASH_NAME,
    PLACES,
    REVIEWER,
    Cell,
    Place,
    Played,
    Stage,
    cells,
    play,
)
from agentlattice_integrations.contract.pause_harness import PauseHarness, Resumed
from agentlattice_integrations.contract.world import at_work, parse_denial

__all__ = ["PauseContract", "Theatre"]

_ASKED = {"explicitly": {"on_approval": "pause"}, "by default": {}}


class PauseContract:
    """Every promise about pauses. Subclass it and set `harness`."""

    harness: ClassVar[PauseHarness]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each cell that the framework has."""
        if "cell" in metafunc.fixturenames:
            found = cells(self.harness.edits)
            metafunc.parametrize("cell", found, ids=[f"{cell.count}-{cell.decision}" for cell in found])
        if "place" in metafunc.fixturenames:
            metafunc.parametrize("place", PLACES, ids=[place.replace(" ", "-") for place in PLACES])

    @pytest.fixture(scope="class")
    @classmethod
    def theatre(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
        """All cells of a place, played when one of them is asked for."""
        theatre = Theatre(cls.harness, tmp_path_factory.mktemp("pauses"))
        yield theatre
        theatre.close()

    @pytest.fixture
    def stage(self, tmp_path: Path) -> Iterator[Stage]:
        """A log of the test's own."""
        stage = Stage(tmp_path)
        yield stage
        stage.close()

    # --- pausing ----------------------------------------------------------------------------------------------------

    def test_each_tool_runs_as_often_as_it_was_approved(
        self, theatre: Theatre, place: Place, cell: Cell
    ) -> None:
        """What was approved ran once, nothing else did, and what ran before the pause did not run again."""
        one = theatre.played(place)[cell.name]
        assert one.last.waiting == frozenset()
        ran = [str(arguments["version"]) for arguments in one.agent.effects.of("deploy")]
        assert sorted(ran) == sorted(cell.approved)
        assert one.agent.effects.of("free") == [{"text": cell.name}]

    def test_every_answer_reaches_its_own_call(self, theatre: Theatre, place: Place, cell: Cell) -> None:
        """The model reads for each call what became of that call: its result, its reviewer's reason, its deadline."""
        one = theatre.played(place)[cell.name]
        shown = one.last.shown
        assert shown[one.agent.free_call.call_id or ""] == f"said {cell.name}"
        for version, answer in cell.answers.items():
            content = shown[f"call-{version}"]
            if answer == "approve":
                assert content == f"deployed {version}"
            elif answer == "edit":
                assert content.endswith(f"deployed {cell.edited[version]}")
            elif answer == "deny":
                document = parse_denial(Seen("deploy", content))
                assert (document["reason"], document["message"]) == ("DENIED_BY_REVIEWER", f"not {version}")
            else:
                document = parse_denial(Seen("deploy_hastily", content))
                assert (document["status"], document["reason"]) == ("timed_out", "approval_timeout")

    def test_the_log_tells_the_same_story(self, theatre: Theatre, place: Place, cell: Cell) -> None:
        """One action for each call, with its decision and its outcome; an edited call is a second action."""
        theatre.played(place)
        story = theatre.story(place)
        for version, answer in cell.answers.items():
            if answer == "approve":
                assert story[version] == [(REVIEWER, None, "succeeded")]
            elif answer == "edit":
                assert story[version] == [(None, "APPROVAL_CANCELLED", None)]
                assert story[cell.edited[version]] == [(REVIEWER, None, "succeeded")]
            else:
                reason = "DENIED_BY_REVIEWER" if answer == "deny" else "approval_timeout"
                assert [told[1:] for told in story[version]] == [(reason, None)]

    def test_the_log_holds_together(self, theatre: Theatre, place: Place) -> None:
        """Whatever was killed, the chain of entries is whole and nobody is asked any more."""
        theatre.played(place)
        stage = theatre.stages[place]
        assert stage.client.verify_sync().chain_valid
        assert stage.pending() == []

    def test_only_what_was_edited_pauses_a_second_time(
        self, theatre: Theatre, place: Place, cell: Cell
    ) -> None:
        """Each call is asked about once; changed arguments are asked about as what they are."""
        one = theatre.played(place)[cell.name]
        assert one.error is None, one.error
        edited = frozenset(f"call-{version}" for version in cell.edited)
        assert [step.waiting for step in one.steps] == ([edited, frozenset()] if edited else [frozenset()])

    def test_a_tool_killed_in_the_middle_is_not_run_again(self, theatre: Theatre) -> None:
        """Approved, begun, and its process killed: whoever goes on reads that nobody knows whether it finished, and so
        does the log.
        """
        one = theatre.played("restarted")[CRASH_NAME]
        (version,) = one.agent.versions
        assert CRASH.count == 1
        assert one.agent.effects.of("deploy") == [{"version": version}]
        assert one.agent.effects.of("free") == [{"text": CRASH_NAME}]
        document = parse_denial(Seen("deploy", one.last.shown[f"call-{version}"]))
        assert (document["status"], document["reason"]) == ("unknown", "OUTCOME_UNKNOWN")
        assert theatre.story("restarted")[version] == [(REVIEWER, None, "unknown")]

    # --- where it cannot pause --------------------------------------------------------------------------------------

    @pytest.mark.parametrize("asked", _ASKED)
    @pytest.mark.parametrize("approve", [True, False], ids=["approved", "denied"])
    def test_where_it_cannot_pause_a_call_waits_or_is_refused(
        self, stage: Stage, asked: str, approve: bool
    ) -> None:
        """It waits for the person, or is refused and nobody is asked; the model is never told to come back later."""
        options = _ASKED[asked]
        agent = stage.agent(Cell(2, "approve"))
        if options and self.harness.where_no_pause == "refuses":
            resumed = self.harness.run_without_pause(agent, options)
            for version in agent.versions:
                document = parse_denial(Seen("deploy", resumed.shown[f"call-{version}"]))
                assert document["status"] == "denied"
            assert agent.effects.of("deploy") == []
            assert stage.pending() == []
            return
        with at_work(lambda: stage.decide_all(approve=approve), count=2):
            resumed = self.harness.run_without_pause(agent, options)
        self._waited(agent.versions, resumed, approve=approve)
        ran = sorted(arguments["version"] for arguments in agent.effects.of("deploy"))
        assert ran == (sorted(agent.versions) if approve else [])

    def _waited(self, versions: Any, resumed: Resumed, *, approve: bool) -> None:
        for version in versions:
            content = resumed.shown[f"call-{version}"]
            if approve:
                assert content == f"deployed {version}"
            else:
                document = parse_denial(Seen("deploy", content))
                assert (document["status"], document["reason"]) == ("denied", "DENIED_BY_REVIEWER")

    @pytest.mark.parametrize("asked", _ASKED)
    def test_where_it_cannot_pause_nobody_is_waited_for_beyond_the_deadline(
        self, stage: Stage, asked: str
    ) -> None:
        """A call that nobody decides does not run, and the run goes on."""
        agent = stage.agent(Cell(1, "time out"))
        resumed = self.harness.run_without_pause(agent, _ASKED[asked])
        (version,) = agent.versions
        document = parse_denial(Seen("deploy_hastily", resumed.shown[f"call-{version}"]))
        refuses = bool(_ASKED[asked]) and self.harness.where_no_pause == "refuses"
        assert document["status"] == ("denied" if refuses else "timed_out")
        assert agent.effects.of("deploy") == []
        assert stage.pending() == []


class Theatre:
    """The cells of each place, played once."""

    def __init__(self, harness: PauseHarness, directory: Path) -> None:
        self._harness = harness
        self._directory = directory
        self._played: dict[Place, Mapping[str, Played] | Exception] = {}
        self._stories: dict[Place, dict[str, list[tuple[str | None, str | None, str | None]]]] = {}
        self.stages: dict[Place, Stage] = {}

    def close(self) -> None:
        for stage in self.stages.values():
            stage.close()

    def played(self, place: Place) -> Mapping[str, Played]:
        """What became of the cells; raises for every one of them what kept all of them from being played."""
        if place not in self._played:
            directory = self._directory / place.replace(" ", "-")
            directory.mkdir()
            self.stages[place] = Stage(directory)
            try:
                self._played[place] = play(self._harness, place, self.stages[place])
            except Exception as error:
                self._played[place] = error
        played = self._played[place]
        if isinstance(played, Exception):
            raise played
        return played

    def story(self, place: Place) -> dict[str, list[tuple[str | None, str | None, str | None]]]:
        """Per version: who approved, why it was denied, and how it went, of each action, oldest first."""
        if place not in self._stories:
            story: dict[str, list[tuple[str | None, str | None, str | None]]] = {}
            for event in reversed(list(self.stages[place].events())):
                if event.action_type != "tool.free":
                    told = (event.approved_by, event.denial_reason, event.claim)
                    story.setdefault(str(event.metadata["version"]), []).append(told)
            self._stories[place] = story
        return self._stories[place]
