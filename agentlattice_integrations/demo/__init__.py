"""What `al demo` shows, without a framework: the story, the tools, and the scripted model's brain.

Each adapter's `demo` module puts the brain behind a real agent of its framework.
"""

from agentlattice_integrations.demo.brain import (
    Answer,
    Brain,
    Call,
    Conversation,
    Exchange,
    Offer,
    read_denial,
)
from agentlattice_integrations.demo.stage import BuildAgent, Played, Reply, Shown, Think, play, status_of
from agentlattice_integrations.demo.story import STORY, Step
from agentlattice_integrations.demo.workplace import Workplace

__all__ = [
    "STORY",
    "Answer",
    "Brain",
    "BuildAgent",
    "Call",
    "Conversation",
    "Exchange",
    "Offer",
    "Played",
    "Reply",
    "Shown",
    "Step",
    "Think",
    "Workplace",
    "play",
    "read_denial",
    "status_of",
]
