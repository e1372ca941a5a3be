"""No secret is in anything that a run of the service wrote.

- Secrets are planted wherever the service takes or makes one. Then everything is searched for them: what the process
  printed and logged, the database's files while it runs and after, every answer but the one that shows a secret once,
  the export of the log, the metrics, and what receivers got.
- They are searched for as text, in base64 at each alignment, and in hexadecimal.
"""

from __future__ import annotations

import base64
import json
import re
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlparse

import httpx
import pytest
import websockets.sync.client
from identity_provider import CLIENT, running_provider
from receivers import Receiver, receiving, until
from service_world import POLICIES, ServiceWorld, al_serve
from websockets.exceptions import InvalidStatus

from agentlattice_server.requestlog import without_keys
from agentlattice_server.webhooks.slack_actions import signature

PLANTED = "planted7f3a9c51e0b84d26"
METRICS_TOKEN = f"{PLANTED}-metrics-token"
CLIENT_SECRET = f"{PLANTED}-client-secret"
SIGNING_SECRET = f"{PLANTED}-slack-signing"
ROUTING_KEY = f"{PLANTED}-routing-key"
WEBHOOK_SECRET = base64.b64encode(f"{PLANTED}-webhook-secret".encode()).decode()
NEXT_WEBHOOK_SECRET = base64.b64encode(f"{PLANTED}-next-webhook-secret".encode()).decode()
URL_SECRET = f"{PLANTED}-url-path"
MAIL_PASSWORD = f"{PLANTED}-mail-password"
DATABASE_PASSWORD = f"{PLANTED}-database-password"


def forms(secret: bytes) -> set[bytes]:
    """How a secret may stand in a text: as it is, in base64 wherever it begins, in hexadecimal."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    for before in range(3):
        begins, ends = -(-before * 8 // 6), (before + len(secret)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(bytes(before) + secret)[begins:ends])
    return found


def named_in(content: bytes, secrets: dict[str, set[bytes]]) -> list[str]:
    """Which of the secrets stand in `content`."""
    return [name for name, those in secrets.items() if any(form in content for form in those)]


@dataclass
class Run:
    """A run of the service: its secrets by what they are, and every answer that must hold none."""

    url: str
    secrets: dict[str, bytes]
    answers: list[tuple[str, bytes]] = field(default_factory=list)
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=60))

    def call(
        self, key: str | None, method: str, path: str, body: Any = None, *, echoes: bool = False, **more: Any
    ) -> httpx.Response:
        """One call. `echoes` marks an answer that may hold a secret: it shows one once, or repeats what came."""
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        headers |= more.pop("headers", {})
        answer = self.http.request(method, self.url + path, json=body, headers=headers, **more)
        self.http.cookies.clear()
        if not echoes:
            written = answer.content + repr(sorted(answer.headers.items())).encode()
            self.answers.append((f"the answer to {method} {path[:60]}", written))
        return answer

    def keep(self, name: str, key: str) -> str:
        """Note a key, of which the secret is what comes last."""
        self.secrets[name] = key.rpartition("_")[2].encode()
        return key


def first_lines(process: Any, lines: list[str]) -> str:
    """What is printed once, up to the link."""
    while not lines[-1].startswith("log in once"):
        lines.append(process.stdout.readline())
        assert lines[-1], "the service ended"
    return "".join(lines)


def act(run: Run, service: str, operator: str) -> str:
    """Agents that act, are denied, ask, and send keys where none belong; the key of one."""
    made = run.call(service, "POST", "/api/agents/register", {"name": "bot"}, echoes=True).json()
    agent = run.keep("agent key", made["api_key"])
    issued = run.call(
        service, "POST", f"/api/v1/keys/{made['key_id']}/rotate", {"overlap_seconds": 600}, echoes=True
    )
    rotated = run.keep("rotated key", issued.json()["text"])
    wanted = {"name": "kid", "capabilities": ["read_data"], "ttl_seconds": 600}
    child = run.keep(
        "child key", run.call(agent, "POST", "/api/v1/delegate", wanted, echoes=True).json()["child_api_key"]
    )
    asked = {"kind": "agent", "holder": "bot"}
    ended = run.call(service, "POST", "/api/v1/keys", asked, echoes=True).json()
    run.keep("revoked key", ended["text"])
    run.call(operator, "DELETE", f"/api/v1/keys/{ended['key']['id']}")
    for key in (agent, rotated, child, service, operator, ended["text"], agent + "x", "nonsense"):
        for path in ("/api/v1/whoami", "/api/v1/audit", "/api/v1/keys", "/api/v1/export", "/api/v1/nothing"):
            run.call(key, "GET", path)
        run.call(key, "POST", "/api/v1/actions", {"action_type": "read_data"})
        run.call(key, "POST", "/api/v1/actions", {"action_type": "secret.read"})
        run.call(key, "PATCH", "/api/v1/actions", {})
        run.call(key, "POST", "/api/v1/actions", content=b"{", headers={"Content-Type": "application/json"})
        run.call(key, "POST", "/api/v1/actions", {"action_type": "read_data", "metadata": {"k": key}})
        run.call(key, "POST", "/api/v1/actions", {"action_type": key}, echoes=True)
        run.call(key, "GET", f"/api/approvals/{key}/status", echoes=True)
        run.call(key, "GET", f"/api/v1/audit/proof/{PLANTED}?token={PLANTED}&apikey={key}", echoes=True)
        try:
            address = run.url.replace("http", "ws", 1)
            with websockets.sync.client.connect(f"{address}/realtime/v1?apikey={key}") as socket:
                socket.send("{}")
        except InvalidStatus:
            pass
    done = run.call(agent, "POST", "/api/v1/actions", {"action_type": "write_results"}).json()
    failed = {"audit_event_id": done["audit_event_id"], "outcome": {"status": "failure", "message": "no"}}
    assert run.call(agent, "POST", "/api/v1/report", failed).status_code == 201
    return agent


def log_in(run: Run, link: str, operator: str) -> None:
    """By the one-time link, and by the identity provider; what a session sees is as good an answer as any."""
    run.secrets["login link"] = link.encode()
    for _ in range(2):  # the second time it is no link any more
        answer = run.call(None, "GET", f"/login/link/{link}", echoes=True)
        if "al_session" in answer.cookies:
            session = run.keep("session", answer.cookies["al_session"])
    assert answer.status_code == 401
    headers = {"Cookie": f"al_session={session}", "Sec-Fetch-Site": "same-origin"}
    for path in ("/api/v1/operators", "/api/v1/keys", "/api/v1/whoami"):
        run.call(None, "GET", path, headers=headers)
    with httpx.Client(base_url=run.url, timeout=60) as browser:
        left = browser.get("/login/oidc")
        run.answers.append(("the way to the provider", repr(left.headers).encode()))
        back = urlparse(httpx.get(left.headers["location"]).headers["location"])
        come = browser.get(f"{back.path}?{back.query}")
        assert come.status_code == 303, come.text
        run.keep("session by the provider", come.cookies["al_session"])
        refused = browser.get("/login/oidc/callback?code=x&state=y")
        run.answers.append(("a login that nobody began", refused.content))
    assert run.call(None, "POST", "/logout", headers=headers).status_code == 204


def subscribe(run: Run, operator: str, receiver: Receiver) -> None:
    """Webhooks of each kind, those that cannot be made and those that cannot be reached among them."""

    def add(name: str, url: str, echoes: bool = False, **said: Any) -> httpx.Response:
        body = {"name": name, "url": url, **said}
        return run.call(operator, "POST", "/api/v1/webhooks", body, echoes=echoes)

    assert add("given", receiver.url, secret=f"whsec_{WEBHOOK_SECRET}", echoes=True).status_code == 201
    made = add("made", f"{receiver.url}/{URL_SECRET}", echoes=True).json()["secret"]
    run.secrets["webhook secret that was made"] = made.removeprefix("whsec_").encode()
    run.secrets["webhook secret that was made, its bytes"] = base64.b64decode(made.removeprefix("whsec_"))
    new = {"secret": f"whsec_{NEXT_WEBHOOK_SECRET}"}
    assert run.call(operator, "POST", "/api/v1/webhooks/given/rotate", new, echoes=True).status_code == 200
    people = {"U1": "ana"}
    slack = {"template": "slack", "signing_secret": SIGNING_SECRET, "people": people}
    assert add("slack", f"{receiver.url}/slack", **slack).status_code == 201
    pager = {"template": "pagerduty", "routing_key": ROUTING_KEY}
    assert add("pager", f"{receiver.url}/pager", **pager).status_code == 201
    relay = f"smtp://user:{MAIL_PASSWORD}@127.0.0.1:1?from=al@acme.test&to=ana@acme.test"
    assert add("mail", relay, template="email").status_code == 201
    assert add("dead", f"http://127.0.0.1:1/{URL_SECRET}", echoes=True).status_code == 201
    assert add("wrong", f"http://10.0.0.1/{URL_SECRET}").status_code == 422
    assert add("wrong", f"https://user:{URL_SECRET}@hooks.example.com/").status_code == 422
    assert add("wrong", receiver.url, secret=f"whsec_{WEBHOOK_SECRET}!").status_code == 422
    assert add("wrong", receiver.url, routing_key=ROUTING_KEY).status_code == 422
    assert add("wrong", receiver.url, signing_secret=SIGNING_SECRET).status_code == 422
    for name in ("given", "made", "slack", "pager", "mail", "dead"):
        tested = run.call(operator, "POST", f"/api/v1/webhooks/{name}/test")
        assert tested.status_code == 200, tested.text
    run.call(operator, "PATCH", "/api/v1/webhooks/dead", {"url": f"http://127.0.0.1:2/{URL_SECRET}"})


def decide_in_slack(run: Run, operator: str, agent: str, receiver: Receiver) -> None:
    """A press that Slack signed, one that it did not, and an answer that cannot be delivered."""
    assert run.call(operator, "POST", "/api/v1/operators", {"name": "ana"}).status_code == 200
    asked = run.call(agent, "POST", "/api/v1/actions", {"action_type": "pr.merge"}).json()
    found = until(
        lambda: [
            one
            for one in receiver.requests
            if one.path.endswith("/slack") and b"agentlattice_approve" in one.body
        ],
        "the message with buttons",
    )
    button = found[-1].json["blocks"][-1]["elements"][0]
    payload = {
        "type": "block_actions",
        "user": {"id": "U1"},
        "response_url": f"http://127.0.0.1:1/{URL_SECRET}",
        "actions": [{"action_id": button["action_id"], "value": button["value"]}],
    }
    body, at = urlencode({"payload": json.dumps(payload)}).encode(), str(int(time.time()))
    for signed, status in (("v0=" + "0" * 64, 403), (signature(SIGNING_SECRET, at, body), 200)):
        headers = {"X-Slack-Request-Timestamp": at, "X-Slack-Signature": signed}
        answer = run.call(None, "POST", "/integrations/slack/actions", content=body, headers=headers)
        assert answer.status_code == status, answer.text
    approval = f"/api/v1/approvals/{asked['approval_id']}"
    until(lambda: run.call(operator, "GET", approval).json()["status"] == "approved", "the decision")


def look(run: Run, operator: str) -> None:
    """Everything that shows what there is."""
    until(
        lambda: run.call(operator, "GET", "/api/v1/webhooks/dead/deliveries").json()["deliveries"],
        "an attempt that failed",
    )
    for path in (
        "",
        "/given",
        "/made",
        "/slack",
        "/pager/deliveries",
        "/mail/deliveries",
        "/dead/dead-letters",
    ):
        assert run.call(operator, "GET", f"/api/v1/webhooks{path}").status_code == 200
    for path in (
        "/api/v1/audit?limit=200",
        "/api/v1/audit/export",
        "/api/v1/audit/key",
        "/api/v1/audit/verify",
        "/api/v1/export",
        "/api/v1/keys",
        "/api/v1/operators",
        "/api/v1/approvals?status=approved",
        "/api/v1/posture",
        "/openapi.json",
    ):
        assert run.call(operator, "GET", path).status_code == 200, path
    assert run.call(None, "GET", "/metrics").status_code == 401
    assert run.call("wrong", "GET", "/metrics").status_code == 401
    assert b"al_webhook_attempts" in run.call(METRICS_TOKEN, "GET", "/metrics").content


def read_files(directory: Path) -> dict[str, bytes]:
    """What lies in the directory, but the files that are there to hold a secret."""
    found = {}
    for path in directory.iterdir():
        if path.name not in ("webhook.key", "other.key", "log.key"):
            with suppress(FileNotFoundError):  # a draft that was put in its place meanwhile
                found[path.name] = path.read_bytes()
    return found


def test_no_secret_is_in_anything_that_a_run_writes(tmp_path: Path) -> None:
    """Keys, links, sessions, and what was given to deliver with are in no log, file, answer, export or measure."""
    (tmp_path / "policies.yaml").write_text(POLICIES)
    secrets = {
        "metrics token": METRICS_TOKEN,
        "client secret": CLIENT_SECRET,
        "signing secret": SIGNING_SECRET,
        "routing key": ROUTING_KEY,
        "webhook secret": WEBHOOK_SECRET,
        "next webhook secret": NEXT_WEBHOOK_SECRET,
        "path of a URL": URL_SECRET,
        "mail password": MAIL_PASSWORD,
        "anything planted": PLANTED,
    }
    written: list[tuple[str, bytes]] = []
    arguments = ("--policies", "policies.yaml", "--oidc", "oidc.toml", "--signing-key", "log.key")
    environment = {
        "AL_WEBHOOK_KEY": "webhook.key",
        "AL_WEBHOOK_REACH": "loopback",
        "AL_METRICS_TOKEN": METRICS_TOKEN,
        "AL_OIDC_CLIENT_SECRET": CLIENT_SECRET,
    }
    with running_provider() as provider, receiving() as receiver:
        (tmp_path / "oidc.toml").write_text(
            f'issuer = "{provider.url}"\nclient_id = "{CLIENT}"\n[roles]\ndba = "member"\n'
        )
        with al_serve(tmp_path, *arguments, **environment) as (process, lines):
            printed = first_lines(process, lines)
            url = re.findall(r"at (http://\S+)", printed)[0]
            run = Run(url, {name: text.encode() for name, text in secrets.items()})
            service, operator = re.findall(r"  (al_(?:svc|op)_\S+)\n", printed)[:2]
            run.keep("service key", service)
            run.keep("operator key", operator)
            agent = act(run, service, operator)
            log_in(run, printed.rpartition("/login/link/")[2].strip(), operator)
            subscribe(run, operator, receiver)
            decide_in_slack(run, operator, agent, receiver)
            look(run, operator)
            assert run.call(operator, "DELETE", "/api/v1/webhooks/made").status_code == 204
            written += [(f"{name}, while it ran", content) for name, content in read_files(tmp_path).items()]
            process.terminate()
            assert process.stdout is not None
            written.append(("what was printed", process.stdout.read().encode()))
        # Started again with another key: what is sealed cannot be opened, which it must say without saying more.
        with al_serve(tmp_path, *arguments, **environment | {"AL_WEBHOOK_KEY": "other.key"}) as (_, lines):
            run.url = re.findall(r"at (http://\S+)", lines[0])[0]
            refused = run.call(operator, "POST", "/api/v1/webhooks/given/test")
            assert (refused.status_code, refused.json()["error"]) == (503, "CANNOT_UNSEAL")
        got = [
            (f"what {one.path[:12]} got", one.body + repr(one.headers).encode()) for one in receiver.requests
        ]
    for file in ("webhook.key", "other.key", "log.key"):
        longest = max((tmp_path / file).read_bytes().split(), key=len)
        run.secrets[file] = longest
    written += read_files(tmp_path).items()
    written += run.answers
    searched = {name: forms(secret) for name, secret in run.secrets.items()}
    assert len(searched) > 20
    assert [(where, found) for where, content in written if (found := named_in(content, searched))] == []
    # PagerDuty is told its routing key, which is what it is for.
    for where, content in got:
        assert set(named_in(content, searched)) <= {"routing key", "anything planted"}, where
    err = (tmp_path / "err").read_bytes()
    assert err.count(b"\n") > 50
    for line in err.splitlines():
        assert json.loads(line)["level"]
    assert b"cannot be opened" in err or b"were sealed with a key" in err


def test_a_database_that_cannot_be_reached_is_named_without_its_password(tmp_path: Path) -> None:
    """Neither the error nor anything else that is printed has it."""
    address = f"postgresql://user:{DATABASE_PASSWORD}@127.0.0.1:1/governance"
    with (
        pytest.raises(AssertionError) as ended,
        al_serve(tmp_path, "--database", address),
    ):
        pass
    assert "error: " in str(ended.value)
    assert named_in(str(ended.value).encode(), {"password": forms(DATABASE_PASSWORD.encode())}) == []


def test_a_failure_of_ours_is_answered_and_logged_without_what_it_held(
    world: ServiceWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer says under what reference the logs say more, and they say it without keys and secrets."""
    key, secret = world.new_agent(), f"whsec_{WEBHOOK_SECRET}"

    def broken() -> Any:
        raise RuntimeError(f"it went wrong with {key} and {secret} in it")

    with monkeypatch.context() as patch:
        patch.setattr(world.engine, "read", broken)
        answer = world.call(key, "GET", "/api/v1/whoami")
    assert (answer.status_code, answer.json()["error"]) == (500, "INTERNAL")
    assert "went wrong" not in answer.text
    (record,) = (one for one in caplog.records if hasattr(one, "reference"))
    assert record.reference in answer.json()["message"]
    assert record.exc_info is not None
    logged = without_keys("".join(traceback.format_exception(record.exc_info[1])))
    assert "it went wrong with al_agent_[removed] and whsec_[removed] in it" in logged
    searched = {"key": forms(key.rpartition("_")[2].encode()), "secret": forms(WEBHOOK_SECRET.encode())}
    assert named_in(logged.encode() + answer.content, searched) == []


def test_a_secret_is_found_in_each_form() -> None:
    """The search itself: as text, in base64 wherever it begins, in hexadecimal."""
    secret = b"planted secret"
    searched = {"it": forms(secret)}
    for content in (
        b"a planted secret here",
        secret.hex().encode(),
        *(base64.b64encode(b"x" * before + secret + b"yz") for before in range(4)),
        *(base64.urlsafe_b64encode(b"\xff" * before + secret) for before in range(4)),
    ):
        assert named_in(content, searched) == ["it"], content
    assert named_in(b"a planted sekret here", searched) == []
