"""A webhook reaches public addresses, and what whoever runs the service allows; nothing else, whatever a name says."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

import pytest
from webhook_world import World, certificate, dripping, names, receiving, until

from agentlattice_core.errors import InvalidRequestError
from agentlattice_server.webhooks.addresses import Reach, UnreachableError, is_public
from agentlattice_server.webhooks.posting import post

HERE = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "192.0.0.8",
        "192.88.99.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "2002:a00:1::",
        "2001:0:4136:e378::1",
        "2001:db8::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ],
)
def test_no_address_of_an_inside_is_public(address: str) -> None:
    """Private, local, reserved, multicast, and addresses that hold another one inside them."""
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    """What a webhook is for."""
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/x",
        "ftp://hooks.example.com/x",
        "file:///etc/passwd",
        "https://",
        "https:///x",
        "https://user:word@hooks.example.com/",
        "https://hooks.example.com@10.0.0.1/",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://[::ffff:10.0.0.1]/x",
        "https://169.254.169.254/latest/meta-data",
        "https://hooks.example.com:0/",
        "https://hooks.example.com:99999/",
        "https://hooks.example.com/#part",
        "https://hooks.example.com\\@10.0.0.1/",
        "https://hooks.example.com/\r\nHost: inside",
        "https://hooks.example.com/ x",
        "https://höoks.example.com/",
        "https://hooks.example.com/" + "x" * 2048,
        "",
    ],
)
def test_a_url_that_nothing_may_be_sent_to_is_refused_at_once(url: str) -> None:
    """Whoever subscribes is told, and nothing is resolved."""
    with pytest.raises(InvalidRequestError):
        Reach(resolver=names({})).checked_url(url)


@pytest.mark.parametrize(
    "found",
    [
        ["10.0.0.7"],
        ["1.1.1.1", "10.0.0.7"],
        ["169.254.169.254"],
        ["::ffff:192.168.0.1"],
        ["64:ff9b::a9fe:a9fe"],
        [],
    ],
)
def test_a_name_that_leads_inside_is_not_followed(found: list[str]) -> None:
    """One address among many is enough: the next connection might get that one."""
    reach = Reach(resolver=names({"hooks.test": found}))
    with pytest.raises(UnreachableError):
        reach.addresses(reach.checked_url("https://hooks.test/x"))


def test_numbers_that_mean_an_address_inside_are_checked_as_addresses() -> None:
    """The system's resolver reads `2130706433` as 127.0.0.1, and so does the check."""
    reach = Reach()
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1"):
        reach.addresses(reach.checked_url("https://2130706433/x"))


def test_http_reaches_this_machine_only_and_only_where_allowed() -> None:
    """A name that plain HTTP was allowed for must not lead to the Internet."""
    reach = Reach(loopback=True, resolver=names({"hooks.test": ["1.1.1.1"]}))
    with pytest.raises(UnreachableError, match="not this machine"):
        reach.addresses(reach.checked_url("http://hooks.test/x"))


def test_what_is_connected_to_is_the_address_that_was_checked(tmp_path: Path) -> None:
    """The name is resolved once; TLS and the host header go by the name, and the certificate must be the name's."""
    asked: list[str] = []

    def resolver(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.7"]

    server, trusting = certificate(tmp_path, "hooks.test")
    reach = Reach(networks=HERE, resolver=resolver)
    with receiving(tls=server) as receiver:
        parts = reach.checked_url(f"https://hooks.test:{receiver.port}/a?b=c")
        answer = post(parts, b"{}", {}, reach, trust=trusting)
    assert answer.status == 200
    assert asked == ["hooks.test"]
    assert receiver.requests[0].headers["host"] == f"hooks.test:{receiver.port}"
    assert receiver.requests[0].path == "/a?b=c"


def test_a_receiver_that_is_not_who_it_says_gets_nothing(tmp_path: Path) -> None:
    """A certificate of another name, or one that nobody vouches for, ends it before anything is sent."""
    server, trusting = certificate(tmp_path, "other.test")
    reach = Reach(networks=HERE, resolver=names({"hooks.test": ["127.0.0.1"]}))
    with receiving(tls=server) as receiver:
        parts = reach.checked_url(f"https://hooks.test:{receiver.port}/")
        for trust in (trusting, None):
            with pytest.raises(UnreachableError):
                post(parts, b"{}", {}, reach, trust=trust)
    assert receiver.requests == []


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would reach what we must not."""
    with receiving() as proxy, receiving() as receiver:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        reach = Reach(loopback=True)
        assert post(reach.checked_url(receiver.url), b"{}", {}, reach).status == 200
    assert len(receiver.requests) == 1
    assert proxy.requests == []


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"]
)
def test_a_receiver_that_answers_a_byte_now_and_then_is_cut_off(start: bytes) -> None:
    """The whole attempt has one deadline, however much of an answer came, and whether its head is complete."""
    reach = Reach(loopback=True)
    with dripping(start, b"x") as url, pytest.raises(UnreachableError, match=r"no answer within 0\.5 s"):
        post(reach.checked_url(url), b"{}", {}, reach, deadline=0.5)


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    """What a receiver sends back is bounded, and what is there counts."""
    reach = Reach(loopback=True)
    with dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"y" * 4096) as url:
        answer = post(reach.checked_url(url), b"{}", {}, reach)
    assert answer.status == 200
    assert len(answer.body) == 16_384


def test_a_name_that_changes_its_mind_is_asked_again_for_every_attempt(world: World) -> None:
    """Public when it was subscribed, inside when it is told: nothing arrives, the message waits, and says why."""
    with receiving() as receiver:
        table = {"hooks.test": ["1.1.1.1"]}
        reach = Reach(resolver=names(table))
        world.desk = type(world.desk)(world.engine, world.key, world.desk.operator, reach)
        world.desk.add("hook", f"https://hooks.test:{receiver.port}/")
        table["hooks.test"] = ["127.0.0.1"]
        world.act(1)
        with world.deliverer(reach=reach):
            until(lambda: world.hook().retries, "the refusal")
        (retry,) = world.hook().retries.values()
        assert "127.0.0.1" in retry["error"]
        assert receiver.requests == []
