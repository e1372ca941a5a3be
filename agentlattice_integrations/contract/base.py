"""What the parts of the contract share: the harness, the world of one test, and how a missing feature is handled."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from agentlattice_integrations.contract.harness import Feature, FrameworkHarness, How, Seen
from agentlattice_integrations.contract.world import World, parse_denial

__all__ = ["HOWS", "ContractPart", "ends_with", "needs", "needs_how"]

HOWS: tuple[How, ...] = ("sync", "async", "stream")
_FEATURE_OF: dict[str, Feature] = {"sync": Feature.SYNC, "async": Feature.ASYNC, "stream": Feature.STREAMING}


class ContractPart:
    """A part of the contract. Subclasses name a harness, and another world if theirs is not a file."""

    harness: ClassVar[FrameworkHarness]
    world_type: ClassVar[type[World]] = World

    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[World]:
        """A fresh log, policy and reviewer."""
        world = self.world_type(self.harness, tmp_path)
        try:
            yield world
        finally:
            world.close()

    @contextmanager
    def another_world(self, world: World, **options: Any) -> Iterator[World]:
        """A world of other options beside `world`."""
        directory = world.directory / "another"
        directory.mkdir()
        another = self.world_type(self.harness, directory, **options)
        try:
            yield another
        finally:
            another.close()

    @property
    def any_how(self) -> How:
        """A way of running agents that the framework has."""
        return next(how for how in HOWS if _FEATURE_OF[how] not in self.harness.alternatives)

    def assert_denied(self, seen: Seen, reason: str) -> dict[str, Any]:
        """The model saw a valid denial document with this reason, and nothing else."""
        document = parse_denial(seen)
        assert document["reason"] == reason, (
            f"the model was told {document['reason']} instead of {reason}: {document}"
        )
        return document


@contextmanager
def ends_with(message: str) -> Iterator[None]:
    """A run that may end with a tool's own error, as some frameworks' runs do, but with no other."""
    try:
        yield
    except Exception as error:
        said, cause = str(error), error.__cause__ or error.__context__
        while cause is not None:
            said, cause = f"{said} {cause}", cause.__cause__ or cause.__context__
        if message not in said:
            raise


def needs(*features: Feature) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run the harness's alternative in place of the test where one of `features` is missing."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(self: ContractPart, world: World, **parameters: Any) -> None:
            if not _alternative(self, world, *features):
                test(self, world=world, **parameters)

        return run

    return decorate


def needs_how(test: Callable[..., None]) -> Callable[..., None]:
    """As `needs`, by the test's parameter `how`; parametrises it with all three."""

    @pytest.mark.parametrize("how", HOWS)
    @functools.wraps(test)
    def run(self: ContractPart, world: World, how: How, **parameters: Any) -> None:
        if not _alternative(self, world, _FEATURE_OF[how]):
            test(self, world=world, how=how, **parameters)

    parametrized: Callable[..., None] = run
    return parametrized


def _alternative(part: ContractPart, world: World, *features: Feature) -> bool:
    for feature in features:
        alternative = part.harness.alternatives.get(feature)
        if alternative is not None:
            assert alternative.reason, f"{feature.name} is declared missing without a reason"
            alternative.check(world)
            return True
    return False
