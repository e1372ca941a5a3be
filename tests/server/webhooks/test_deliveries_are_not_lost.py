"""Whatever receivers and nodes do, every message arrives at least once, under one id, or is a dead letter."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from webhook_world import ADMIN, LOOPBACK, Receiver, World, receiving, until

from agentlattice_core import AgentLattice, webhooks
from agentlattice_core.clock import parse_time
from agentlattice_core.errors import IllegalTransitionError, NotFoundError
from agentlattice_core.results import GovernanceEvent
from agentlattice_core.testing.clock import ManualClock
from agentlattice_server.webhooks import composing
from agentlattice_server.webhooks.addresses import Reach
from agentlattice_server.webhooks.attempting import SCHEDULE
from agentlattice_server.webhooks.deliverer import DEAD_IN_A_ROW
from agentlattice_server.webhooks.sealing import SealingKey
from agentlattice_server.webhooks.subscribing import Subscriptions

SOON = timedelta(seconds=1)


def actions_of(receiver: Receiver) -> list[str]:
    return [request.json["data"]["audit_event_id"] for request in receiver.requests]


def test_every_notification_arrives_once_when_all_goes_well(world: World) -> None:
    """Fifty actions are fifty messages, each with an id of its own."""
    with receiving() as receiver, world.deliverer():
        world.desk.add("hook", receiver.url, events=["action.executed"])
        acted = world.act(50)
        until(lambda: world.told(), "all messages")
        assert sorted(actions_of(receiver)) == sorted(acted)
        assert len(set(receiver.ids)) == 50


def test_only_what_it_asks_for_arrives(world: World) -> None:
    """A subscription hears of its events and its agent, and of nothing before it was made."""
    world.act(3, "secret.read")
    other = world.client.for_agent("other")
    with receiving() as receiver, world.deliverer():
        world.desk.add("hook", receiver.url, events=["action.denied"], agent="worker")
        world.act(2)
        other.execute_sync("secret.read")
        denied = world.act(1, "secret.read")
        until(lambda: world.told(), "the message")
        assert actions_of(receiver) == denied
    other.close()


def test_a_failed_message_comes_again_under_its_id_by_the_schedule(timed: World, clock: ManualClock) -> None:
    """Each attempt comes when the schedule says and not before; the id stays, and then it is a dead letter."""
    with receiving(500) as receiver, timed.deliverer():
        timed.desk.add("hook", receiver.url)
        timed.act(1)
        for number, wait in enumerate(SCHEDULE, 1):
            until(lambda n=number: len(timed.hook().attempts) == n, f"attempt {number}")
            (retry,) = timed.hook().retries.values()
            assert parse_time(retry["due"]) - parse_time(retry["at"]) == wait
            clock.set(parse_time(retry["due"]) - SOON)
            assert len(receiver.requests) == number
            clock.advance(seconds=1)
        until(lambda: timed.desk.dead_letters("hook"), "the dead letter")
        assert len(receiver.requests) == len(SCHEDULE) + 1
        assert len(set(receiver.ids)) == 1
        assert timed.hook().retries == {}
        assert timed.hook().active


def test_a_dead_letter_is_sent_again_when_asked_for(timed: World, clock: ManualClock) -> None:
    """Replay sends it under the id it had, and it is no dead letter any more."""
    with receiving(500) as receiver, timed.deliverer():
        timed.desk.add("hook", receiver.url)
        timed.act(1)
        for _ in range(len(SCHEDULE)):
            until(lambda: timed.hook().retries, "a retry")
            before = len(timed.hook().attempts)
            clock.set(parse_time(next(iter(timed.hook().retries.values()))["due"]))
            until(lambda n=before: len(timed.hook().attempts) > n, "the next attempt")
        assert len(timed.desk.dead_letters("hook")) == 1
        receiver.answer = lambda number: (204, {})
        assert timed.desk.replay("hook") == 1
        until(lambda: not timed.hook().retries, "the replay")
        assert timed.desk.dead_letters("hook") == []
        assert len(set(receiver.ids)) == 1
        assert timed.hook().attempts[-1]["outcome"] == "delivered"


def test_what_was_not_told_yet_cannot_be_replayed(world: World) -> None:
    """Replay is for what was tried; an entry beyond the cursor is refused."""
    world.desk.add("hook", "https://hooks.example.com/x")
    with pytest.raises(NotFoundError, match="not yet told"):
        world.desk.replay("hook", [10_000])


@pytest.mark.parametrize(
    ("asked", "wait"),
    [
        ("120", timedelta(seconds=120)),
        ("Mon, 02 Mar 2026 09:10:00 GMT", timedelta(minutes=10)),
        ("2", SCHEDULE[0]),
        ("99999999", timedelta(days=1)),
        ("soon", SCHEDULE[0]),
        ("-5", SCHEDULE[0]),
    ],
)
def test_retry_after_is_honoured(timed: World, asked: str, wait: timedelta) -> None:
    """The receiver may ask for more time, by seconds or a date, and is given at most a day."""
    with receiving(lambda number: (503, {"Retry-After": asked})) as receiver, timed.deliverer():
        timed.desk.add("hook", receiver.url)
        timed.act(1)
        until(lambda: timed.hook().retries, "the retry")
        (retry,) = timed.hook().retries.values()
        assert parse_time(retry["due"]) - timed.engine.clock.now() == wait


def test_a_receiver_that_is_gone_is_left_alone_and_loses_nothing(world: World) -> None:
    """410 disables at once and says so; once resumed, it is told what it missed."""
    heard: list[str] = []
    world.client.subscribe_sync(
        world.client.org_id, lambda event: heard.append(event.data["reason"]), events=["webhook.disabled"]
    )
    with receiving(410) as receiver, world.deliverer():
        world.desk.add("hook", receiver.url, events=["action.executed"])
        acted = world.act(1)
        until(lambda: not world.hook().active, "the end")
        assert world.hook().why == "gone"
        acted += world.act(3)
        until(lambda: heard == ["gone"], "the notification")
        assert len(receiver.requests) == 1
        receiver.answer = lambda number: (200, {})
        world.desk.change("hook", active=True)
        until(lambda: world.told(), "what it missed")
        assert set(actions_of(receiver)) == set(acted)


def test_giving_up_again_and_again_disables_and_keeps_the_rest(timed: World, clock: ManualClock) -> None:
    """A receiver that failed for days is disabled; what it was not told is delivered when it is resumed."""
    with receiving(500) as receiver, timed.deliverer():
        timed.desk.add("hook", receiver.url, events=["action.executed"])
        acted = timed.act(DEAD_IN_A_ROW)
        for _ in range(60):
            if not timed.hook().active:
                break
            clock.advance(hours=10)
            time.sleep(0.05)
        until(lambda: not timed.hook().active, "the end")
        assert timed.hook().why == "failing"
        late = timed.act(2)
        receiver.answer = lambda number: (200, {})
        receiver.requests.clear()
        timed.desk.change("hook", active=True)
        assert timed.desk.replay("hook") >= DEAD_IN_A_ROW
        until(lambda: timed.told(), "what it missed")
        assert set(actions_of(receiver)) == {*acted, *late}


def test_a_redirect_is_a_failure(world: World) -> None:
    """Nothing follows it, and nothing arrives where it leads."""
    with receiving() as elsewhere, receiving() as receiver, world.deliverer():
        receiver.answer = lambda number: (302, {"Location": elsewhere.url})
        world.desk.add("hook", receiver.url)
        world.act(1)
        until(lambda: world.hook().retries, "the failure")
        (retry,) = world.hook().retries.values()
        assert retry["status"] == 302
        assert "redirects" in retry["error"]
        assert elsewhere.requests == []


def test_a_dead_receiver_is_tried_again(timed: World, clock: ManualClock) -> None:
    """Nobody listens; later somebody does, and gets the message."""
    with receiving() as receiver:
        url, port = receiver.url, receiver.port
    with timed.deliverer():
        timed.desk.add("hook", url)
        acted = timed.act(1)
        until(lambda: timed.hook().retries, "the failure")
        (retry,) = timed.hook().retries.values()
        assert "status" not in retry
        with receiving() as receiver:
            timed.desk.change("hook", url=f"http://127.0.0.1:{receiver.port}/hook")
            clock.set(parse_time(retry["due"]))
            until(lambda: timed.told(), "the message")
            assert actions_of(receiver) == acted
    assert port != 0


def test_a_slow_receiver_holds_up_no_other(world: World) -> None:
    """One does not answer; the other is told everything meanwhile."""
    release = threading.Event()

    def slowly(number: int) -> tuple[int, dict[str, str]]:
        release.wait(10)
        return 200, {}

    with receiving(slowly) as slow, receiving() as quick, world.deliverer():
        world.desk.add("slow", slow.url)
        world.desk.add("quick", quick.url, events=["action.executed"])
        acted = world.act(30)
        until(lambda: len(quick.requests) == 30, "everything at the quick one")
        assert sorted(actions_of(quick)) == sorted(acted)
        release.set()
        until(lambda: world.told("slow"), "everything at the slow one")


def test_what_was_sent_and_not_recorded_is_sent_again_under_its_id(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node dies between the answer and the cursor: the next one repeats the messages, with the same ids."""
    real = webhooks.record
    died = threading.Event()

    def dies(*_: object, **__: object) -> bool:
        died.set()
        raise OSError("the machine lost power")

    with receiving() as receiver:
        monkeypatch.setattr(webhooks, "record", dies)
        with world.deliverer(node="first"):
            world.desk.add("hook", receiver.url, events=["action.executed"])
            acted = world.act(3)
            until(died.is_set, "the death")
            until(lambda: len(receiver.requests) >= 3, "the messages")
        monkeypatch.setattr(webhooks, "record", real)
        first = set(receiver.ids)
        receiver.requests.clear()
        world.engine.run(lambda batch: webhooks.record(batch, world.hook().id, "first", 0, (), keep=False))
        with world.deliverer(node="second"):
            until(lambda: world.told(), "the messages again")
        assert set(receiver.ids) == first
        assert set(actions_of(receiver)) == set(acted)


def test_a_restart_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """What was recorded while nobody delivered arrives afterwards, and what arrived before does not come again."""
    with receiving() as receiver:
        world = World(tmp_path)
        world.desk.add("hook", receiver.url, events=["action.executed"])
        with world.deliverer():
            acted = world.act(2)
            until(lambda: world.told(), "the first ones")
        acted += world.act(4)
        world.close()
        world = World(tmp_path)
        with world.deliverer():
            until(lambda: world.told(), "the others")
        world.close()
        assert sorted(actions_of(receiver)) == sorted(acted)


def test_one_node_at_a_time_delivers(world: World) -> None:
    """Two nodes on one log send each message once between them, and the lease says whose turn it is."""
    with receiving() as receiver:
        with world.deliverer(node="a"), world.deliverer(node="b"):
            world.desk.add("hook", receiver.url, events=["action.executed"])
            acted = world.act(40)
            until(lambda: world.told(), "all messages")
        assert sorted(actions_of(receiver)) == sorted(acted)


def test_a_lease_is_taken_over_when_it_is_over_and_not_before(timed: World, clock: ManualClock) -> None:
    """A node that vanished keeps a subscription for a minute; what it says after that does not count."""
    hook, _ = timed.desk.add("hook", "https://hooks.example.com/x")

    def run(node: str) -> bool:
        return timed.engine.run(lambda batch: webhooks.lease(batch, hook.id, node))

    assert run("a")
    assert not run("b")
    clock.advance(seconds=61)
    assert run("b")
    said = timed.engine.run(lambda batch: webhooks.record(batch, hook.id, "a", 99, (), keep=True))
    assert said is False
    assert timed.hook().next != 99


def test_stopping_leaves_the_subscription_to_others_at_once(world: World) -> None:
    """A node that is stopped in good order keeps nobody waiting for its lease."""
    with receiving() as receiver:
        with world.deliverer(node="a"):
            world.desk.add("hook", receiver.url)
            world.act(1)
            until(lambda: world.told(), "the message")
        assert world.engine.run(lambda batch: webhooks.lease(batch, world.hook().id, "b"))


def test_a_paused_subscription_waits(world: World) -> None:
    """Paused, it is told nothing; resumed, everything."""
    with receiving() as receiver, world.deliverer():
        world.desk.add("hook", receiver.url, events=["action.executed"])
        world.desk.change("hook", active=False)
        acted = world.act(2)
        assert world.hook().why == "paused"
        assert receiver.requests == []
        world.desk.change("hook", active=True)
        until(lambda: world.told(), "the messages")
        assert sorted(actions_of(receiver)) == sorted(acted)


def test_a_receiver_that_is_down_keeps_its_place_in_the_log(timed: World) -> None:
    """Messages that wait are bounded, and the rest is not skipped."""
    with receiving(500) as receiver, timed.deliverer():
        timed.desk.add("hook", receiver.url, events=["action.executed"])
        acted = timed.act(130)
        until(lambda: len(timed.hook().retries) == 100, "a full set of messages that wait")
        time.sleep(0.2)
        hook = timed.hook()
        assert len(hook.retries) == 100
        with timed.engine.read() as reader:
            left = sum(b'"kind":"action"' in row[1] for row in reader.rows(hook.next))
        assert left == len(acted) - 100


def test_a_lost_key_loses_no_message(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without the key nothing is sent and nothing skipped; with it everything arrives."""
    with receiving() as receiver:
        world.desk.add("hook", receiver.url, events=["action.executed"])
        acted = world.act(2)
        right, world.key = world.key, SealingKey(tmp_path / "another")
        with world.deliverer():
            until(lambda: "sealed with a key" in caplog.text, "the warning")
        assert receiver.requests == []
        world.key = right
        with world.deliverer():
            until(lambda: world.told(), "the messages")
        assert sorted(actions_of(receiver)) == sorted(acted)


def test_a_message_that_cannot_be_made_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of ours with one message is a failure of that message; the others arrive."""
    made = composing.body_of

    def fails(template: str, event: GovernanceEvent, *rest: Any) -> bytes | None:
        if event.event_type == "action.denied":
            raise KeyError("a defect")
        return made(template, event, *rest)

    monkeypatch.setattr(composing, "body_of", fails)
    with receiving() as receiver, world.deliverer():
        world.desk.add("hook", receiver.url)
        world.act(1, "secret.read")
        acted = world.act(2)
        until(lambda: len(receiver.requests) == 2, "the others")
        assert sorted(actions_of(receiver)) == sorted(acted)
        until(lambda: world.hook().retries, "the failure")
        (retry,) = world.hook().retries.values()
        assert retry["error"] == "could not be sent: KeyError"


def test_two_subscriptions_cannot_share_a_name(world: World) -> None:
    """A name means one subscription; a removed one's is free again."""
    world.desk.add("hook", "https://hooks.example.com/x")
    with pytest.raises(IllegalTransitionError, match="already"):
        world.desk.add("hook", "https://hooks.example.com/y")
    world.desk.remove("hook")
    world.desk.add("hook", "https://hooks.example.com/y")


def test_it_is_never_told_what_happened_after_it_was_removed(world: World) -> None:
    """Removed is over, whatever waited."""
    with receiving(500) as receiver, world.deliverer():
        world.desk.add("hook", receiver.url)
        world.act(1)
        until(lambda: world.hook().retries, "the failure")
        world.desk.remove("hook")
        sent = len(receiver.requests)
        world.act(3)
        with world.engine.read() as reader:
            assert webhooks.webhooks(reader) == []
        assert len(receiver.requests) == sent


def test_another_process_opens_what_this_one_subscribed(world: World) -> None:
    """Subscriptions are in the log: whoever opens it with the key delivers them."""
    with receiving() as receiver:
        world.desk.add("hook", receiver.url)
        with AgentLattice.embedded(world.path, operator="ana", role="admin") as other:
            desk = Subscriptions(other._engine, SealingKey(world.key.path, make=False), ADMIN, LOOPBACK)
            assert desk.get("hook").target == f"http://127.0.0.1:{receiver.port}"
            assert desk.opened(desk.get("hook"))["url"] == receiver.url


def test_a_receiver_that_must_not_be_reached_any_more_keeps_its_messages(world: World) -> None:
    """What may be reached is the node's to say: where it no longer may, messages wait and none is sent."""
    with receiving() as receiver:
        world.desk.add("hook", receiver.url)
        world.act(1)
        with world.deliverer(reach=Reach()):
            time.sleep(0.3)
        assert receiver.requests == []
        assert not world.told()
        with world.deliverer():
            until(lambda: world.told(), "the message")
