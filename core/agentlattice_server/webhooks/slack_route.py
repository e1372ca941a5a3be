"""The address that Slack sends pressed buttons to: signed by Slack, and not by a key.

- Errors are answered as everywhere.
- Slack waits three seconds. A decision that takes longer goes on, and Slack is answered without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from agentlattice_core.errors import AgentLatticeError
from agentlattice_server.problems import RequestError, answer_error
from agentlattice_server.webhooks.slack_actions import Deciding, Press, answer_press, pressed
from agentlattice_server.webhooks.subscribing import Subscriptions

__all__ = ["SLACK_ACTIONS", "Workspace", "slack_route"]

SLACK_ACTIONS = "/integrations/slack/actions"

Workspace = Callable[[Request], tuple[Subscriptions, Deciding]]
"""The log that a request is for, with no more rights than to look, and how to decide in it for a person."""

_SLACK_PATIENCE = 2.5  # of the three seconds that Slack waits
_MOST_BYTES = 1_000_000


def slack_route(workspace: Workspace) -> Callable[[Request], Awaitable[Response]]:
    """What answers Slack. `workspace` may wait for the database."""
    running: set[asyncio.Future[None]] = set()

    async def serve(request: Request) -> Response:
        request.scope["al.endpoint"] = SLACK_ACTIONS
        try:
            body = await _body(request)
            found = await asyncio.to_thread(_read, workspace, request, body)
        except AgentLatticeError as error:
            return answer_error(error, wire=False)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody is there to read it
        if found is not None:
            press, deciding, desk = found
            deciding_now = asyncio.ensure_future(asyncio.to_thread(answer_press, press, deciding, desk))
            running.add(deciding_now)
            deciding_now.add_done_callback(running.discard)
            # Slack shows an error after three seconds, and a decision that was recorded would look like none.
            await asyncio.wait([deciding_now], timeout=_SLACK_PATIENCE)
        return Response(status_code=200)

    return serve


def _read(
    workspace: Workspace, request: Request, body: bytes
) -> tuple[Press, Deciding, Subscriptions] | None:
    desk, deciding = workspace(request)
    timestamp = request.headers.get("x-slack-request-timestamp")
    press = pressed(desk, body, timestamp, request.headers.get("x-slack-signature"), desk.engine.clock.now())
    return (press, deciding, desk) if press is not None else None


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise RequestError(
                "BODY_TOO_LARGE", f"the body is larger than {_MOST_BYTES} bytes", {"Connection": "close"}
            )
    return bytes(body)
