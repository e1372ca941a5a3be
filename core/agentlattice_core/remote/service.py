"""A service as one key holder sees it: asking, waiting for a person, and giving back what nobody will use.

- The key is in the header of each request, and nowhere else: not in a `repr`, an error or a log.
- An action carries an event id that is made once, so that however often it is sent it is one action. A replay that ends
  with this caller's own nonce is its own admission, whose answer was lost; any other replay gives nothing.
- Waiting asks the service to hold its answer until a person has decided. One that does not is asked again at the poll
  interval. A failure of the service does not end the waiting; a refusal does.
- A caller that is cancelled while it asks gives back what it is granted after all.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

from agentlattice_core import keys
from agentlattice_core.actions import Action
from agentlattice_core.clock import SystemClock, format_time
from agentlattice_core.errors import AgentLatticeError, ForbiddenError, InvalidRequestError
from agentlattice_core.remote import requests
from agentlattice_core.remote.connections import Connections, UnansweredError
from agentlattice_core.remote.requests import Page, Request
from agentlattice_core.results import ActionResult, WhoamiResult
from agentlattice_core.waiting import Standing

__all__ = ["Asking", "Service", "Talking", "checked_key", "without_claims"]

T = TypeVar("T")

_LONGEST_HOLD = 25.0  # seconds, below what proxies let a connection idle
_LONGEST_SILENCE = 600.0  # seconds without any answer after which nobody waits for a person any more

_Step = Request[Any] | float
_Talk = Generator[_Step, Any, T]
"""Requests to be answered and pauses to be made, one after the other."""


class Service:
    """One key, at one address. `delegation` is sent along with a child's actions."""

    __slots__ = (
        "_delegation",
        "_headers",
        "_no_agent",
        "_said",
        "_whoami",
        "connections",
        "name",
        "poll_interval",
    )

    def __init__(
        self,
        connections: Connections,
        api_key: str,
        poll_interval: float,
        *,
        delegation: str | None = None,
    ) -> None:
        self.connections = connections
        self.poll_interval = poll_interval
        self._headers = {"Authorization": f"Bearer {checked_key(api_key)}"}
        self._delegation = delegation
        self._whoami: WhoamiResult | None = None
        self._no_agent = False
        self._said = keys.split(api_key)
        self.name: str | None = None

    def __repr__(self) -> str:
        return f"<service at {self.connections.base_url}>"

    def holder(self, api_key: str) -> Service:
        """Another key holder at the same address, over these connections."""
        return Service(self.connections, api_key, self.poll_interval)

    def child(self, api_key: str, delegation: str, name: str) -> Service:
        """One who acts under a delegation, over its parent's connections."""
        child = Service(self.connections, api_key, self.poll_interval, delegation=delegation)
        child.name = name
        return child

    @property
    def identity(self) -> tuple[int, str]:
        """The same for those who act as the same."""
        return id(self.connections), self._headers["Authorization"]

    @property
    def key(self) -> str:
        """What this holder identifies itself by."""
        return self._headers["Authorization"].removeprefix("Bearer ")

    def close(self) -> None:
        """Send what is outstanding, and let go of the connections."""
        self.connections.close()

    def flush(self) -> None:
        """Return when all that was posted has been sent."""
        self.connections.flush()

    # Asking

    def work(self, request: Request[T], abandoned: Callable[[T], None] | None = None) -> Asking[T]:
        """One request as work to be done. `abandoned` is called with an answer whose caller is gone."""
        return Asking(self, request, abandoned)

    def talk(self, talk: Callable[[], _Talk[T]]) -> Talking[T]:
        """Several requests as one piece of work."""
        return Talking(self, talk)

    def ask(self, request: Request[T]) -> T:
        """The answer to `request`. Raises what the service says is wrong, or that it says nothing."""
        try:
            answer: T = self.connections.ask(request, self._headers)
        except UnansweredError as unanswered:
            raise unanswered.error from None
        return answer

    async def ask_async(self, request: Request[T]) -> T:
        """As `ask`, without blocking the event loop."""
        try:
            answer: T = await self.connections.ask_async(request, self._headers)
        except UnansweredError as unanswered:
            raise unanswered.error from None
        return answer

    def drive(self, talk: _Talk[T]) -> T:
        """Answer what `talk` asks until it is over."""
        connections, headers = self.connections, self._headers
        try:
            step = next(talk)
            while True:
                if isinstance(step, float):
                    connections.pace.sleep(step)
                    step = talk.send(None)
                    continue
                try:
                    answer = connections.ask(step, headers)
                except (AgentLatticeError, UnansweredError) as error:
                    step = talk.throw(error)
                else:
                    step = talk.send(answer)
        except StopIteration as over:
            found: T = over.value
            return found
        except UnansweredError as unanswered:
            raise unanswered.error from None

    async def drive_async(self, talk: _Talk[T]) -> T:
        """As `drive`, without blocking the event loop."""
        connections, headers = self.connections, self._headers
        try:
            step = next(talk)
            while True:
                if isinstance(step, float):
                    await connections.pace.sleep_async(step)
                    step = talk.send(None)
                    continue
                try:
                    answer = await connections.ask_async(step, headers)
                except (AgentLatticeError, UnansweredError) as error:
                    step = talk.throw(error)
                else:
                    step = talk.send(answer)
        except StopIteration as over:
            found: T = over.value
            return found
        except UnansweredError as unanswered:
            raise unanswered.error from None

    def post(self, request: Request[Any], then: Callable[[Any], None] | None = None) -> None:
        """Have `request` sent soon, without waiting for it; `then` is called with what it is answered."""

        def send() -> None:
            answer = self.connections.ask(request, self._headers)
            if then is not None:
                then(answer)

        self.connections.post(send)

    def me(self) -> WhoamiResult | None:
        """The agent that this holder is, asked once; None for who is no agent."""
        if self._said is not None and self._said.kind != "agent":
            return None
        if self._whoami is None and not self._no_agent:
            try:
                self._whoami = self.ask(requests.whoami())
            except ForbiddenError:
                self._no_agent = True
        return self._whoami

    def agent(self) -> str | None:
        """The name of the agent that this holder is."""
        if self.name is None:
            me = self.me()
            self.name = me.name if me is not None else None
        return self.name

    def org_id(self) -> str:
        """The organisation that the key is one of: where the key itself does not say so, it is asked for."""
        if self._said is not None:
            return self._said.organisation
        me = self.me()
        return me.org_id if me is not None else self.ask(requests.verify(None, True)).org_id

    # Acting

    def execution(self, action: Action, mode: str, context: Mapping[str, Any] | None) -> Asking[ActionResult]:
        """Submit `action`, once."""
        nonce = os.urandom(10).hex()
        request = requests.execute(
            action,
            action.event_id or f"al_{nonce}",
            nonce,
            mode=mode,
            context=context,
            timestamp=format_time(SystemClock().now()),
            delegation=self._delegation,
        )

        def read(body: Any) -> ActionResult:
            result = request.read(body)
            if result.replayed and (action.event_id is None or result.audit_event_id.endswith(nonce)):
                result = replace(result, replayed=False)
            if result.claim is None and result.status == "executed" and not result.replayed:
                result = replace(result, claim="started")  # where there are no claims, the answer is one
            return result

        def interrupted() -> None:
            # It may have arrived, or may still. Sent once more it is still one action, and is then given back.
            self.post(asked, self.give_back)

        asked = replace(request, read=read)
        return Asking(self, asked, interrupted=interrupted)

    def claiming(self, audit_event_id: str) -> Asking[ActionResult]:
        """Claim an approved action."""
        return self.work(requests.claim(audit_event_id), self.give_back)

    def give_back(self, result: ActionResult) -> None:
        """What nobody will run, because its caller is gone."""
        if result.claim == "started" and not result.replayed:
            self.post(requests.abandon(result.audit_event_id))

    # Waiting

    def until_decided(self, approval_id: str, patience: float | None) -> _Talk[Standing]:
        """How a request stands once it no longer waits, or after `patience` seconds."""
        now = self.connections.pace.now
        begun = heard = now()
        while True:
            asked = now()
            left = _LONGEST_HOLD if patience is None else max(0.0, begun + patience - asked)
            try:
                standing: Standing = yield requests.approval_status(approval_id, min(_LONGEST_HOLD, left))
                heard = now()
            except UnansweredError as unanswered:
                if now() - heard >= _LONGEST_SILENCE or (patience is not None and now() - begun >= patience):
                    raise unanswered.error from None
                standing = Standing("pending")
            if not standing.waits or (patience is not None and now() - begun >= patience):
                return standing
            held = now() - asked
            if held < self.poll_interval:
                pause = self.poll_interval - held
                yield pause if patience is None else max(0.0, min(pause, begun + patience - now()))

    # Lists that come in pages

    def all_of(self, page: Callable[[str | None], Request[Page[T]]]) -> Talking[list[T]]:
        """What all pages hold, from the first on."""

        def talk() -> _Talk[list[T]]:
            found: list[T] = []
            cursor: str | None = None
            while True:
                next_page: Page[T] = yield page(cursor)
                found += next_page.items
                cursor = next_page.next_cursor
                if cursor is None:
                    return found

        return self.talk(talk)


def without_claims(approval_id: str, status: str) -> ActionResult:
    """What a service that has no claims has decided."""
    if status == "approved":
        return ActionResult("executed", "", approval_id=approval_id, claim="started")
    if status == "timed_out":
        return ActionResult("timed_out", "", approval_id=approval_id, denial_reason="approval_timeout")
    if status in ("pending", "escalated"):
        return ActionResult("requested", "", approval_id=approval_id)
    return ActionResult("denied", "", approval_id=approval_id, denial_reason="DENIED_BY_REVIEWER")


class Asking(Generic[T]):
    """One request to be made. `abandoned` is called with an answer whose caller is gone, `interrupted` when the caller
    goes before there is one.
    """

    __slots__ = ("_abandoned", "_interrupted", "_request", "_service")

    def __init__(
        self,
        service: Service,
        request: Request[T],
        abandoned: Callable[[T], None] | None = None,
        interrupted: Callable[[], None] | None = None,
    ) -> None:
        self._service = service
        self._request = request
        self._abandoned = abandoned
        self._interrupted = interrupted

    def run(self) -> T:
        """Ask on this thread."""
        try:
            return self._service.ask(self._request)
        except Exception:
            raise
        except BaseException:
            self._gone()
            raise

    async def run_async(self) -> T:
        """Ask without blocking the event loop."""
        if self._abandoned is None:
            try:
                return await self._service.ask_async(self._request)
            except Exception:
                raise
            except BaseException:
                self._gone()
                raise
        asking = asyncio.ensure_future(self._service.ask_async(self._request))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(self._given_back)
            raise

    def post(self) -> None:
        """Ask soon, without waiting."""
        self._service.post(self._request)

    def _gone(self) -> None:
        if self._interrupted is not None:
            self._interrupted()

    def _given_back(self, asking: asyncio.Future[T]) -> None:
        if not asking.cancelled() and asking.exception() is None and self._abandoned is not None:
            self._abandoned(asking.result())


class Talking(Generic[T]):
    """Several requests that make one piece of work."""

    __slots__ = ("_service", "_talk")

    def __init__(self, service: Service, talk: Callable[[], _Talk[T]]) -> None:
        self._service = service
        self._talk = talk

    def run(self) -> T:
        """Talk on this thread."""
        return self._service.drive(self._talk())

    async def run_async(self) -> T:
        """Talk without blocking the event loop."""
        return await self._service.drive_async(self._talk())


def checked_key(api_key: object) -> str:
    """`api_key` if it can be one. Raises InvalidRequestError, which does not show it."""
    if not isinstance(api_key, str) or not api_key or not api_key.isascii() or not api_key.isprintable():
        raise InvalidRequestError("`api_key` must be the text of a key, as the service showed it once")
    if " " in api_key:
        raise InvalidRequestError("`api_key` holds a blank, which no key does")
    return api_key
