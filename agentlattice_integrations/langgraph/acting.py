"""Which run of a graph a call belongs to, for whoever acts in it under a delegation; see `toolcalls.acting`.

    researcher = govern(graph, al.delegate("researcher", capabilities=["search.*"], ttl=300))

- A run is told by its thread: whoever resumes the thread, in whatever process, finds the same child.
- A run of the graph that begins in a thread is a new turn of it, for which the child is looked for again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig

from agentlattice_core.delegating import Delegate
from agentlattice_core.toolcalls.acting import Acting

__all__ = ["delegation_in", "run_of", "settles"]

_RUNTIME = "__pregel_runtime"
_LONGEST_RUN = 200


def run_of(config: RunnableConfig | None) -> tuple[str | None, object | None]:
    """The name of the run that a call with this configuration belongs to, and what stands for this turn of it."""
    configurable: Mapping[str, Any] = (config and config.get("configurable")) or {}
    return _of_thread(configurable), getattr(configurable.get(_RUNTIME), "control", None)


def settles(asked: Acting, acting: Acting) -> bool:
    """Whether what `asked` was answered counts for `acting` too: it is the same agent, or a child of that."""
    theirs = asked.principal
    return theirs is acting.principal or (isinstance(theirs, Delegate) and theirs.parent is acting.principal)


def delegation_in(delegate: Delegate, config: RunnableConfig) -> Delegate:
    """The delegation as it is in the thread of `config`; as it is where it names its run, or there is no thread."""
    run = delegate.run or _of_thread(config.get("configurable") or {})
    return delegate if run is None else delegate.of_run(run)


def _of_thread(configurable: Mapping[str, Any]) -> str | None:
    thread = configurable.get("thread_id")
    if thread is None:
        return None
    name = str(thread)
    if 0 < len(name) <= _LONGEST_RUN and name.isprintable() and name == name.strip():
        return name
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
