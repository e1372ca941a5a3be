"""What every error keeps, whatever it quotes."""

from __future__ import annotations

import pytest

from agentlattice_core.errors import AgentLatticeError, ForbiddenError, InvalidRequestError, NotFoundError


@pytest.mark.parametrize("kind", [NotFoundError, ForbiddenError, InvalidRequestError])
def test_what_an_error_quotes_can_be_written_anywhere(kind: type[AgentLatticeError]) -> None:
    """Half a surrogate pair from a model's arguments is shown escaped, and does not stop a log or a terminal."""
    error = kind("there is no action `evt_\ud800`")
    assert str(error).encode("utf-8") == b"there is no action `evt_\\ud800`"
    assert error.message == str(error)
