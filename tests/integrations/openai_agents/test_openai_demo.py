"""The demonstration on the OpenAI Agents SDK."""

from __future__ import annotations

from pathlib import Path

import pytest

import agentlattice_integrations.demo as demo
from agentlattice_core import AgentLattice
from agentlattice_integrations.demo import Reply, play
from agentlattice_integrations.openai_agents.demo import demo_agent

POLICIES = Path(demo.__file__).with_name("policies.yaml")


@pytest.mark.parametrize("approved", [True, False])
def test_the_story_comes_out_as_it_is_told(tmp_path: Path, approved: bool) -> None:
    """Every step ends as the story says, whether the person approves or not, and the log verifies."""
    database = tmp_path / "governance.db"
    with (
        AgentLattice.embedded(database, policies=POLICIES, agent="demo-agent") as al,
        AgentLattice.embedded(database, operator="maria", groups=["oncall"]) as operator,
    ):
        played = list(
            play(demo_agent, al, operator, lambda request: Reply(approved, True), lambda shown: None)
        )
        assert [(step.step.name, step.problem) for step in played] == [(s.step.name, None) for s in played]
        assert len(played) >= 5
        assert al.verify_sync().chain_valid
