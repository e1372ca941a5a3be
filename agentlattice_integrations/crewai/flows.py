"""A governed flow: hooks while it runs, pauses for people, and going on after them.

- `from_pending(...)` makes a flow as it was left; govern it, and `resume()` goes on by what was decided in the
  core. The paused method starts again; what is still undecided pauses it again.
- What a person says to the flow itself, `resume("deny: too risky")`, is that person's decision only where an
  operator was given to `govern`. Without one, a denial cancels the requests, and an approval is an error: an agent's
  process could otherwise approve itself.
- A flow that paused for something else is resumed by CrewAI alone.
- CrewAI's engine has no public way to start a method again. Two of its methods are replaced on the flow object:
  the one that runs a method, and once, when resuming, the one that names the methods to begin with. A flow of an
  engine without them does not pause, and its calls wait.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from crewai import Flow
from crewai.flow.async_feedback import HumanFeedbackPending, PendingFeedbackContext

from agentlattice_core.errors import (
    ForbiddenError,
    IllegalTransitionError,
    InvalidRequestError,
)
from agentlattice_core.toolcalls.call import Denial
from agentlattice_integrations.crewai.feedback import ApprovalFeedback, feedback_of
from agentlattice_integrations.crewai.governor import Governor
from agentlattice_integrations.crewai.hooks import CallHooks
from agentlattice_integrations.crewai.pauses import (
    FlowRun,
    MethodRun,
    current_flow,
    current_method,
    saved_pause,
)

__all__ = ["govern_flow"]

_ENTRIES = ("kickoff", "kickoff_async", "akickoff", "resume", "resume_async")
_RUNS_A_METHOD = "_execute_method"
_NAMES_THE_STARTS = "_start_method_names"
_APPROVES = ("approve", "approved", "yes")
_DENIES = ("deny", "denied", "reject", "rejected", "no")


class _Cancels(Protocol):
    def cancel_sync(self, audit_event_id: str, reason: str | None = None) -> None: ...


def govern_flow(flow: Flow[Any], governor: Governor) -> None:
    """What a flow's methods make and run is governed by hooks that hold while the flow runs. Once is enough."""
    hooks = CallHooks(lambda _: governor)
    if all(callable(getattr(flow, name, None)) for name in (_RUNS_A_METHOD, _NAMES_THE_STARTS)):
        _put(flow, _RUNS_A_METHOD, _noting(flow, getattr(flow, _RUNS_A_METHOD)))
        _put(flow, "kickoff_async", _as_a_run(flow, flow.kickoff_async))
        _put(flow, "resume_async", _resuming(flow, flow.resume_async, governor))
    for name in _ENTRIES:
        _put(flow, name, _inside(hooks, getattr(flow, name)))


def _put(flow: Flow[Any], name: str, entry: Callable[..., Any]) -> None:
    object.__setattr__(flow, name, entry)  # past pydantic, which knows no such field


def _inside(hooks: CallHooks, entry: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(entry):

        @functools.wraps(entry)
        async def run_later(*args: Any, **kwargs: Any) -> Any:
            with hooks.scoped():
                return await entry(*args, **kwargs)

        return run_later

    @functools.wraps(entry)
    def run(*args: Any, **kwargs: Any) -> Any:
        with hooks.scoped():
            return entry(*args, **kwargs)

    return run


# --- running ----------------------------------------------------------------------------------------------------------


def _as_a_run(flow: Flow[Any], kickoff: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(kickoff)
    async def run(*args: Any, **kwargs: Any) -> Any:
        known = current_flow.get()
        if known is not None and known.flow is flow:
            return await kickoff(*args, **kwargs)
        token = current_flow.set(FlowRun(flow))
        try:
            return await kickoff(*args, **kwargs)
        finally:
            current_flow.reset(token)

    return run


def _noting(flow: Flow[Any], execute: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(execute)
    async def run(name: Any, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        flow_run = current_flow.get()
        if flow_run is None or flow_run.flow is not flow:
            return await execute(name, method, *args, **kwargs)
        running = flow_run.begin(str(name), args, kwargs)
        token = current_method.set(running)
        try:
            return await execute(name, _pausing(method, running), *running.args, **running.kwargs)
        finally:
            current_method.reset(token)
            flow_run.under_way.discard(running)

    return run


def _pausing(method: Callable[..., Any], running: MethodRun) -> Callable[..., Any]:
    """The method; it ends in a pause if a call in it waits for a person, whatever else became of it."""

    async def awaited(result: Any) -> Any:
        try:
            value = await result
        except Exception as error:
            if running.pending:
                raise running.pause() from error
            raise
        if running.pending:
            raise running.pause()
        return value

    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def run_later(*args: Any, **kwargs: Any) -> Any:
            return await awaited(method(*args, **kwargs))

        return run_later

    @functools.wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            result = method(*args, **kwargs)
        except Exception as error:
            if running.pending:
                raise running.pause() from error
            raise
        if inspect.iscoroutine(result):
            return awaited(result)
        if running.pending:
            raise running.pause()
        return result

    return run


# --- resuming ---------------------------------------------------------------------------------------------------------


def _resuming(flow: Flow[Any], resume: Callable[..., Any], governor: Governor) -> Callable[..., Any]:
    @functools.wraps(resume)
    async def run(feedback: str = "") -> Any:
        paused = flow.pending_feedback
        saved = saved_pause(paused)
        if paused is None or saved is None:
            return await _in_a_run(flow, resume, feedback)
        if saved["kind"] == "tools":
            _settle(governor, saved["pending"], feedback)
            return await _go_on(flow, paused, saved)
        provider = _provider_of(flow, paused)
        _settle(governor, saved["pending"], feedback)
        answer = await provider.gate.authorize(provider.call_for(paused, saved))
        if isinstance(answer, Denial):
            if answer.status == "pending":
                return HumanFeedbackPending(paused)
            return await _in_a_run(flow, resume, feedback_of(answer))
        try:
            result = await _in_a_run(flow, resume, feedback_of(answer))
        except BaseException as error:
            answer.abandoned(f"the flow ended with {type(error).__name__} after the output was approved")
            raise
        answer.succeeded()
        return result

    return run


async def _in_a_run(flow: Flow[Any], resume: Callable[..., Any], feedback: str) -> Any:
    """CrewAI's own resume; the methods that follow can pause."""
    token = current_flow.set(FlowRun(flow))
    try:
        return await resume(feedback)
    finally:
        current_flow.reset(token)


def _provider_of(flow: Flow[Any], paused: PendingFeedbackContext) -> ApprovalFeedback:
    """The provider that had the flow pause, as the class of the flow declares it."""
    config = getattr(getattr(type(flow), paused.method_name, None), "__human_feedback_config__", None)
    provider = getattr(config, "provider", None)
    if not isinstance(provider, ApprovalFeedback):
        raise InvalidRequestError(
            f"the flow paused at `{paused.method_name}` for an approval, and its method has no approval_feedback "
            "provider; resume it with the flow class that paused"
        )
    return provider


async def _go_on(flow: Flow[Any], paused: PendingFeedbackContext, saved: Mapping[str, Any]) -> Any:
    """Run the flow from its paused method on."""
    persistence = flow.persistence
    if persistence is None:
        raise InvalidRequestError(
            "the paused flow has no persistence; make it by `from_pending(flow_id, persistence)`"
        )
    names = getattr(flow, _NAMES_THE_STARTS)

    def only_the_paused_one() -> list[Any]:
        _put(flow, _NAMES_THE_STARTS, names)
        return [paused.method_name]

    _put(flow, _NAMES_THE_STARTS, only_the_paused_one)
    flow._pending_feedback_context = None
    flow._is_execution_resuming = False
    token = current_flow.set(FlowRun.again(flow, saved))
    try:
        result = await flow.kickoff_async(inputs={"id": paused.flow_id})
    except BaseException:
        flow._pending_feedback_context = paused
        raise
    finally:
        current_flow.reset(token)
        _put(flow, _NAMES_THE_STARTS, names)
    if isinstance(result, HumanFeedbackPending):
        flow._pending_feedback_context = result.context
    else:
        persistence.clear_pending_feedback(paused.flow_id)
    return result


def _settle(governor: Governor, pending: list[dict[str, str]], feedback: str) -> None:
    """Take what was said to the flow for a decision on all that it waits for; nothing said leaves it to the core."""
    said, _, reason = feedback.strip().partition(":")
    said, told = said.strip().lower(), reason.strip() or None
    if not said:
        return
    if said not in (*_APPROVES, *_DENIES):
        raise InvalidRequestError(
            f"`{feedback.strip()[:100]}` is no decision; resume with `approve`, `deny`, `deny: <reason>`, or with "
            "nothing to go by what was decided"
        )
    operator = governor.settings.operator
    if said in _APPROVES and operator is None:
        raise ForbiddenError(
            "a flow cannot approve what it asked for: approve it as an operator (`al approvals approve`), or pass "
            "operator= to govern"
        )
    for asked in pending:
        try:
            if operator is None:
                cast(_Cancels, governor.gate.client).cancel_sync(
                    asked["action_id"], told or "denied through the flow"
                )
            elif said in _APPROVES:
                operator.approve_action_sync(asked["approval_id"], told)
            else:
                operator.deny_action_sync(asked["approval_id"], told)
        except IllegalTransitionError:
            continue  # it was decided meanwhile, and that stands
