"""The client of a service keeps what every client must, over real sockets, and outlasts connections that are cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("client_contract", "client_contract_delegation", "client_contract_following")

from client_contract import ClientContract, beside, first_pending  # noqa: E402
from client_contract_delegation import DelegationContract  # noqa: E402
from client_contract_following import FollowingContract, Heard  # noqa: E402
from client_world import ClientWorld, RemoteWorld  # noqa: E402

from agentlattice_core import AgentLattice, IllegalTransitionError  # noqa: E402


class TestRemoteClient(ClientContract, DelegationContract, FollowingContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[ClientWorld]:
        world = RemoteWorld(tmp_path)
        yield world
        world.close()


@pytest.mark.soak
class TestRemoteClientOnPostgreSQL(ClientContract, DelegationContract, FollowingContract):
    """What the service keeps in a file it keeps in PostgreSQL; the whole contract takes minutes there."""

    @pytest.fixture
    def world(self, tmp_path: Path, postgres_url: str) -> Iterator[ClientWorld]:
        world = RemoteWorld(tmp_path, postgres_url)
        yield world
        world.close()


class CuttingProxy:
    """Passes on what comes, until it is told to cut every connection, and to let none in for a while."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._target = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._open = True
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Cut what is there, and what comes until `mend`."""
        self._open = False
        for pair in self._pairs:
            for end in pair:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it was gone already
        self._pairs.clear()

    def mend(self) -> None:
        self._open = True

    def close(self) -> None:
        self.cut()
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            if not self._open:
                near.close()
                continue
            far = socket.create_connection(self._target)
            self._pairs.append((near, far))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass_on(one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                other.sendall(data)
        except OSError:
            pass
        for end in (one, other):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RemoteWorld]:
    world = RemoteWorld(tmp_path)
    yield world
    world.close()


@pytest.fixture
def proxy(world: RemoteWorld) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(world.service.url)
    yield proxy
    proxy.close()


@pytest.fixture
def behind(world: RemoteWorld, proxy: CuttingProxy) -> Iterator[AgentLattice]:
    """The agent `bob`, whose connections can be cut."""
    al = world.agent()
    assert al._service is not None
    with AgentLattice(al._service.key, base_url=proxy.url, gate_poll_interval_ms=600_000) as client:
        yield client


def test_a_reconnect_misses_nothing_and_repeats_nothing(
    world: RemoteWorld, proxy: CuttingProxy, behind: AgentLattice
) -> None:
    """What happened while the connection was cut comes once it is mended, in its place."""
    al, heard = world.agent(), Heard()
    behind.subscribe_sync(behind.org_id, heard)
    ids = [al.execute_sync("free").audit_event_id]
    told = [heard.next().data["audit_event_id"]]
    for _ in range(2):
        proxy.cut()
        ids += [al.execute_sync("free").audit_event_id for _ in range(3)]
        proxy.mend()
        ids.append(al.execute_sync("free").audit_event_id)
        told += [heard.next().data["audit_event_id"] for _ in range(4)]
    assert told == ids
    assert heard.nothing_more


def test_what_happens_before_the_first_notification_is_not_missed_either(
    world: RemoteWorld, proxy: CuttingProxy, behind: AgentLattice
) -> None:
    """A connection that is cut before it carried anything goes on from where it joined."""
    al, heard = world.agent(), Heard()
    behind.subscribe_sync(behind.org_id, heard)
    proxy.cut()
    done = al.execute_sync("free")
    proxy.mend()
    assert heard.next().data["audit_event_id"] == done.audit_event_id


def test_who_waits_for_a_person_outlasts_a_cut_connection(
    world: RemoteWorld, proxy: CuttingProxy, behind: AgentLattice
) -> None:
    """The decision is taken up once the service can be reached again."""
    ana = world.operator()

    def decide() -> None:
        approval_id = first_pending(ana)
        proxy.cut()
        ana.approve_action_sync(approval_id)
        proxy.mend()

    with beside(decide):
        assert behind.gate_sync("ask").claim == "started"


def test_an_admission_whose_answer_was_cut_off_runs_once(
    world: RemoteWorld, proxy: CuttingProxy, behind: AgentLattice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second attempt finds what the first one recorded, knows it as its own, and there is one action."""
    first = behind.execute_sync("free")
    passed = CuttingProxy._pass_on

    def swallowing(one: socket.socket, other: socket.socket) -> None:
        if one.getpeername()[1] == proxy._target[1]:  # from the service
            one.recv(65536)
            monkeypatch.setattr(CuttingProxy, "_pass_on", staticmethod(passed))
            for end in (one, other):
                end.shutdown(socket.SHUT_RDWR)
            return
        passed(one, other)

    proxy.cut()
    monkeypatch.setattr(CuttingProxy, "_pass_on", staticmethod(swallowing))
    proxy.mend()
    result = behind.execute_sync("free", event_id="of the framework")
    assert (result.status, result.claim, result.replayed) == ("executed", "started", False)
    assert [event.id for event in behind.audit_sync().events] == [result.audit_event_id, first.audit_event_id]


def test_a_service_key_registers_an_agent_once_and_gives_another_key_after(world: RemoteWorld) -> None:
    """The agent stays the same one; saying something new of it is not overlooked."""
    registrar = world._registrar
    one, other = registrar.for_agent("carol"), registrar.for_agent("carol")
    with one, other:
        assert one.whoami_sync().config_id == other.whoami_sync().config_id
        assert one._service is not None
        assert other._service is not None
        assert one._service.key != other._service.key
        with pytest.raises(IllegalTransitionError):
            registrar.for_agent("carol", tags=["trusted"])
        with one.for_agent("carol") as again:
            assert again.execute_sync("free").status == "executed"
