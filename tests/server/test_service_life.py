"""The service as a process: its first run, its limits, its logs, its end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import agentlattice as hosted
import httpx
import pytest
import websockets.sync.client
from service_world import POLICIES, PROGRAM, ServiceWorld, al_serve
from websockets.exceptions import ConnectionClosed

from agentlattice_server import ServiceSettings, listen

SECRET = re.compile(rb"al_(?:agent|svc|op)_[\w.\-]+_[0-9A-Za-z]{38}")


def test_a_program_bootstraps_from_a_file_that_only_its_owner_may_read(tmp_path: Path) -> None:
    """`--bootstrap` writes address and keys with mode 0600; started again, the keys stay and the address follows."""
    file = tmp_path / "bootstrap.json"
    file.write_text("{}")
    file.chmod(0o644)
    (tmp_path / "policies.yaml").write_text(POLICIES)
    found = []
    for _ in range(2):
        arguments = ("--bootstrap", str(file), "--policies", "policies.yaml")
        with al_serve(tmp_path, *arguments) as (process, _):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            found.append(json.loads(file.read_text()))
            assert httpx.get(found[-1]["url"] + "/readyz").json() == {"status": "ready"}
            name = f"bot-{len(found)}"
            client, _ = hosted.AgentLattice.register_sync(
                found[-1]["service_key"], name, base_url=found[-1]["url"]
            )
            assert client.execute_sync("read_data").status == "executed"
            headers = {"Authorization": f"Bearer {found[-1]['operator_key']}"}
            answer = httpx.get(found[-1]["url"] + "/api/v1/agents", headers=headers)
            assert [one["name"] for one in answer.json()["agents"]] == [
                f"bot-{n + 1}" for n in range(len(found))
            ]
        assert process.returncode == 0
    assert set(found[0]) == {"url", "org_id", "service_key", "operator_key"}
    assert {name: found[0][name] for name in found[0] if name != "url"} == {
        name: found[1][name] for name in found[1] if name != "url"
    }
    assert [path.name for path in tmp_path.glob("*.new")] == []


def test_the_first_run_says_what_to_do_next_and_the_second_shows_no_key(tmp_path: Path) -> None:
    """Keys are printed once, with commands that can be copied."""
    printed = []
    for _ in range(2):
        with al_serve(tmp_path) as (process, lines):
            process.send_signal(signal.SIGTERM)
            assert process.stdout is not None
            printed.append("".join(lines) + process.stdout.read())
    assert len(SECRET.findall(printed[0].encode())) == 4
    assert "al register my-agent" in printed[0]
    assert SECRET.findall(printed[1].encode()) == []


async def test_no_part_of_an_answer_waits_for_another_to_be_acknowledged() -> None:
    """Connections that are taken have Nagle's algorithm off, which would hold an answer of two parts up for 40 ms."""
    taken: asyncio.Queue[bool] = asyncio.Queue()

    def took(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        option = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        taken.put_nowait(option != 0)
        writer.close()

    listening = listen("127.0.0.1", 0)
    async with await asyncio.start_server(took, sock=listening):
        _, writer = await asyncio.open_connection(*listening.getsockname())
        assert await taken.get()
        writer.close()


def test_told_to_stop_it_answers_what_is_under_way_and_takes_no_more(tmp_path: Path) -> None:
    """A call that waits is answered, a WebSocket is closed with 1012, the log is whole, and the process ends with 0."""
    (tmp_path / "policies.yaml").write_text(POLICIES)
    file = tmp_path / "bootstrap.json"
    with (
        al_serve(tmp_path, "--bootstrap", str(file), "--policies", "policies.yaml") as (process, _),
        ThreadPoolExecutor(4) as pool,
        ExitStack() as stack,
    ):
        held = json.loads(file.read_text())
        url, headers = held["url"], {"Authorization": f"Bearer {held['service_key']}"}
        key = httpx.post(f"{url}/api/agents/register", json={"name": "bot"}, headers=headers).json()[
            "api_key"
        ]
        headers = {"Authorization": f"Bearer {key}"}
        asked = httpx.post(f"{url}/api/v1/actions", json={"action_type": "pr.merge"}, headers=headers).json()
        socket = stack.enter_context(
            websockets.sync.client.connect(f"{url.replace('http', 'ws', 1)}/realtime/v1?apikey={key}")
        )
        status = f"{url}/api/approvals/{asked['approval_id']}/status?wait=30"
        sent = threading.Event()
        trace = {"trace": lambda name, _: sent.set() if name.endswith("send_request_body.complete") else None}
        client = stack.enter_context(httpx.Client(headers=headers, timeout=60))
        client.get(f"{url}/healthz")  # the connection that it waits on is accepted
        waiting = pool.submit(client.get, status, extensions=trace)
        assert sent.wait(60)
        httpx.get(f"{url}/healthz")  # answered after what came before it was read
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert waiting.result(60).json()["status"] == "pending"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert process.wait(60) == 0
        assert time.monotonic() - begun < 25
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz")


def test_a_key_that_calls_too_often_is_told_when_to_come_back(
    database: str, serve: Callable[..., ServiceWorld]
) -> None:
    """Over its budget a key gets 429 with Retry-After; others do not, and asking how a request stands goes on."""
    world = serve(database, ServiceSettings(calls_per_minute=20))
    one, other = world.new_agent("one"), world.new_agent("other")
    asked = world.call(one, "POST", "/api/v1/actions", {"action_type": "pr.merge"}).json()
    answers = [world.call(one, "GET", "/api/v1/whoami") for _ in range(25)]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) >= 5
    assert {(answer.status_code, answer.json()["error"]) for answer in refused} == {(429, "RATE_LIMITED")}
    assert all(0 < int(answer.headers["retry-after"]) <= 120 for answer in refused)
    assert world.call(other, "GET", "/api/v1/whoami").status_code == 200
    path = f"/api/approvals/{asked['approval_id']}/status"
    assert {world.call(one, "GET", path).status_code for _ in range(60)} == {200}


def test_it_is_healthy_while_it_runs_and_ready_while_the_log_can_be_written(world: ServiceWorld) -> None:
    """`/readyz` fails once the log may not be written, `/healthz` does not."""
    assert world.call(None, "GET", "/healthz").json() == {"status": "ok"}
    assert world.call(None, "GET", "/readyz").json() == {"status": "ready"}
    world.engine.notary.alarm = "the log is not the one that was signed"
    assert world.call(None, "GET", "/healthz").status_code == 200
    answer = world.call(None, "GET", "/readyz")
    assert (answer.status_code, answer.json()["error"]) == (503, "STORE_ERROR")
    key = world.keys.service_key
    refused = world.call(key, "POST", "/api/agents/register", {"name": "bot"})
    assert (refused.status_code, refused.json()["error"]) == (503, "NOT_RECORDED")
    world.engine.notary.alarm = None


def test_a_port_that_is_taken_is_an_error_in_one_line(tmp_path: Path, world: ServiceWorld) -> None:
    """It names the address and what to do, and makes no database."""
    port = world.url.rpartition(":")[2]
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "serve", "--port", port],
        cwd=directory,
        capture_output=True,
        text=True,
        env={**os.environ, "AL_DATABASE": ""},
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: cannot listen on `127.0.0.1:{port}`")
    assert list(directory.iterdir()) == []
