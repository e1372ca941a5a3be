"""When an agent's time is over.

- `Agent(max_execution_time=...)` raises TimeoutError to the caller and leaves the agent's thread running: a
  tool that was waiting for a person would still run afterwards. The gate therefore asks here before a tool
  starts.
- CrewAI does not tell when an agent was started. The first model call of an execution stands for it; where
  that was not seen, the start of the task does, which is never later.
- An agent that works for another one (delegation) is bound by both deadlines.
"""

from __future__ import annotations

import threading
import time
import weakref
from datetime import datetime
from typing import Any

from agentlattice_integrations.crewai.scope import CallScope

__all__ = ["note_model_call", "time_is_over"]

_lock = threading.Lock()
_started: dict[int, tuple[weakref.ref[Any], float]] = {}


def note_model_call(context: Any) -> None:
    """Hook before a model call: remember when an agent with a deadline began to work."""
    agent = context.agent
    if agent is None or context.iterations or getattr(agent, "max_execution_time", None) is None:
        return
    key = id(agent)

    def forget(_: object) -> None:
        _started.pop(key, None)

    with _lock:
        _started[key] = (weakref.ref(agent, forget), time.monotonic())


def time_is_over(scope: CallScope | None) -> bool:
    """Whether the agent of this call, or one it works for, has used up its `max_execution_time`."""
    while scope is not None:
        limit = getattr(scope.agent, "max_execution_time", None)
        if limit is not None and _running_for(scope) >= limit:
            return True
        scope = scope.outer
    return False


def _running_for(scope: CallScope) -> float:
    noted = _started.get(id(scope.agent))
    if noted is not None and noted[0]() is scope.agent:
        return time.monotonic() - noted[1]
    began = getattr(scope.task, "start_time", None)
    if began is None:
        return 0.0
    return float((datetime.now() - began).total_seconds())  # noqa: DTZ005 (CrewAI stamps tasks with naive local time)
