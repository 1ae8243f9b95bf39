"""Notifications on a real RabbitMQ: their format as consumers of Watcher's know it; a broker that comes and goes."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.peers import server
from tests.peers.broker import Broker, missing
from tests.peers.conftest import needed
from tests.peers.server import PLAN_ENDED, Trimtab
from tests.peers.workers import Worker

from trimtab.platform.publishing import Pace, Sent, publish
from trimtab.platform.records import Audit, Goal
from trimtab.platform.store.port import StorePort
from trimtab.platform.store.state import Store
from trimtab.serve.amqp import Bus
from trimtab.serve.compose import sync_catalogue

kombu: Any = importlib.import_module("kombu")  # half typed
pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]

QUEUES = ("notifications.info", "notifications.error", "notifications.warn", "notifications.warning")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
BY_ITSELF_S = 60.0  # longest that a broker is noticed to be back, and then some


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker that is not started yet."""
    if (why := missing()) is not None:
        pytest.skip(why)
    made = Broker(tmp_path / "rabbitmq")
    yield made
    made.stop()


class Consumer:
    """A plain consumer: it knows AMQP and JSON, nothing of Trimtab's or of oslo.messaging's code."""

    def __init__(self, broker: Broker) -> None:
        self.url = broker.amqp_url
        self.heard: list[dict[str, Any]] = []
        self.raw: list[Any] = []

    def listen(self, done: Callable[[list[dict[str, Any]]], bool], within_s: float = BY_ITSELF_S) -> None:
        """Take what comes until `done`, in the order of its coming."""
        deadline = time.monotonic() + within_s
        with kombu.Connection(self.url, connect_timeout=5.0) as connection:
            while not done(self.heard):
                assert time.monotonic() < deadline, [one["event_type"] for one in self.heard]
                if sum(self._take(connection, name) for name in QUEUES) == 0:
                    time.sleep(0.05)

    def _take(self, connection: Any, name: str) -> bool:
        channel = connection.channel()
        try:
            message = kombu.Queue(name, channel=channel, no_declare=True).get(no_ack=True)
        except connection.channel_errors:
            return False  # nothing was ever sent there
        finally:
            channel.close()
        if message is None:
            return False
        self.raw.append(message)
        envelope = json.loads(message.body)
        assert set(envelope) == {"oslo.version", "oslo.message"}
        assert envelope["oslo.version"] == "2.0"
        self.heard.append({**json.loads(envelope["oslo.message"]), "queue": name})
        return True

    def of(self, uuid: str) -> list[dict[str, Any]]:
        """What was heard of one record."""
        return [one for one in self.heard if inner(one["payload"]).get("uuid") == uuid]

    def kinds(self, uuid: str) -> list[str]:
        """The types of what was heard of one record."""
        return [one["event_type"] for one in self.of(uuid)]


def inner(payload: dict[str, Any]) -> dict[str, Any]:
    """What is in a versioned object."""
    data: dict[str, Any] = payload["watcher_object.data"]
    return data


def said(*event_types: str, of: str) -> Callable[[list[dict[str, Any]]], bool]:
    """Whether all of these were heard of one record."""
    return lambda heard: (
        set(event_types) <= {one["event_type"] for one in heard if inner(one["payload"]).get("uuid") == of}
    )


def applied(trimtab: Trimtab) -> tuple[str, str, list[str]]:
    """The uuids of an audit that succeeded, of its plan that was run, and of the plan's actions."""
    plan = trimtab.planned(strategy="dummy", parameters={"para1": 1.0})
    trimtab.post(f"/v1/action_plans/{plan['uuid']}/start", {})
    ended = trimtab.until(f"/v1/action_plans/{plan['uuid']}", lambda body: body["state"] in PLAN_ENDED)
    assert ended["state"] == "SUCCEEDED"
    return plan["audit_uuid"], plan["uuid"], [one["uuid"] for one in trimtab.actions(plan["uuid"])]


def test_a_broker_comes_goes_and_comes_back_and_no_audit_waits_for_it(broker: Broker, tmp_path: Path) -> None:
    """One Trimtab through the life of a broker: absent at its start, up, killed in the middle, up again."""
    consumer = Consumer(broker)
    with server.running(tmp_path / "trimtab", {"TRIMTAB_NOTIFICATIONS_URL": broker.url}) as url:
        trimtab = Trimtab(url, {})
        audit, plan, actions = applied(trimtab)  # nobody listens there yet

        broker.start()
        consumer.listen(said("action_plan.execution.end", of=plan))
        assert consumer.kinds(audit) == [
            *("audit.create", "audit.update", "audit.strategy.start", "audit.strategy.end"),
            *("audit.planner.start", "audit.planner.end", "audit.update"),
        ]
        assert consumer.kinds(plan) == [
            *("action_plan.create", "action_plan.update", "action_plan.update", "action_plan.execution.start"),
            *("action_plan.update", "action_plan.execution.end"),
        ]
        for action in actions:
            assert consumer.kinds(action) == [
                *("action.create", "action.execution.start", "action.update", "action.update", "action.execution.end"),
            ]
        check_envelopes(consumer.heard, consumer.raw)
        check_payloads(consumer, trimtab, audit, plan, actions[2])

        broker.kill()
        second_audit, second_plan, _ = applied(trimtab)
        broker.start()
        consumer.listen(said("action_plan.execution.end", of=second_plan))
        assert consumer.kinds(second_audit)[:2] == ["audit.create", "audit.update"]
        assert consumer.kinds(second_plan)[-2:] == ["action_plan.update", "action_plan.execution.end"]

        with watchers_own_consumer(broker) as heard:
            third, its_plan, _ = applied(trimtab)
            trimtab.ask("DELETE", f"/v1/action_plans/{its_plan}")
            trimtab.ask("DELETE", f"/v1/audits/{third}")
            told = heard(third, "audit.delete")
        assert {(one["event_type"], one["fault"]) for one in told if one["fault"] is not None} == set()
        assert {one["publisher_id"] for one in told} == {"infra-optim:trimtab"}
        of_audit = [one for one in told if one["uuid"] == third]
        assert of_audit[0]["event_type"] == "audit.create"
        assert of_audit[-1]["state"] == "DELETED"
        assert {one["event_type"] for one in told} >= {"action_plan.delete", "action.delete", "action.execution.end"}


@contextmanager
def watchers_own_consumer(broker: Broker) -> Iterator[Callable[[str, str], list[dict[str, Any]]]]:
    """What oslo.messaging's listener hears until an event of a record, read by Watcher's own classes."""
    needed("watcher")
    worker = Worker("watcher", "listener_worker.py", broker.url)
    told: list[dict[str, Any]] = []

    def heard(uuid: str, last: str) -> list[dict[str, Any]]:
        deadline = time.monotonic() + BY_ITSELF_S
        while (uuid, last) not in [(one["uuid"], one["event_type"]) for one in told]:
            assert time.monotonic() < deadline, told
            told.extend(worker.ask(seconds=1.0)["heard"])
        return told

    yield heard
    worker.close()


@pytest.mark.filterwarnings("ignore:(?s).*Eventlet is deprecated", "ignore::DeprecationWarning:oslo_.*")
async def test_what_waits_for_a_broker_is_bounded_and_what_is_lost_is_counted(broker: Broker, tmp_path: Path) -> None:
    """Twenty events while the broker is away, of which eight may wait."""
    store = Store(tmp_path / "trimtab.duckdb")
    sync_catalogue(store)
    goal = store.get(Goal, "dummy")
    port = StorePort.direct(store)
    await port.feed("bus")
    bus = Bus(broker.url, "infra-optim:here")
    states: list[Sent] = []
    news, waking = asyncio.Condition(), list[Any]()

    async def impatiently(seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.2))

    async def wake() -> None:
        async with news:
            news.notify_all()

    def tell(now: Sent) -> None:
        states.append(replace(now))
        waking.append(asyncio.ensure_future(wake()))

    def audit(number: int) -> str:
        made = Audit(uuid=str(uuid4()), name=f"audit {number}", audit_type="ONESHOT", goal_id=goal.id, state="PENDING")
        return store.create(made).uuid

    async def until(done: Callable[[Sent], bool]) -> None:
        async with asyncio.timeout(BY_ITSELF_S), news:
            await news.wait_for(lambda: bool(states) and done(states[-1]))

    uuids = [audit(number) for number in range(20)]
    publishing = asyncio.create_task(
        publish(port, "bus", bus.send, pace=Pace(batch=5, idle_s=0.05, backlog=8), sleep=impatiently, tell=tell)
    )
    try:
        await until(lambda sent: sent.failures > 0)
        assert (states[-1].lost, states[-1].notifications) == (12, 0)
        uuids += [audit(number) for number in range(20, 23)]
        await until(lambda sent: sent.lost == 15)
        await asyncio.to_thread(broker.start)
        await until(lambda sent: sent.notifications == 8)
        assert states[-1].lost == 15
        consumer = Consumer(broker)
        await asyncio.to_thread(consumer.listen, said("audit.create", of=uuids[-1]))
        assert [inner(one["payload"])["uuid"] for one in consumer.heard] == uuids[-8:]
    finally:
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        bus.close()
        store.close()


def check_envelopes(heard: Sequence[dict[str, Any]], raw: Sequence[Any]) -> None:
    """The envelope is oslo.messaging's, on the exchange where Watcher's consumers listen."""
    for one, message in zip(heard, raw, strict=True):
        assert set(one) == {
            *("message_id", "publisher_id", "event_type", "priority", "payload", "timestamp", "queue"),
            *(name for name in one if name.startswith("_")),
        }
        assert one["publisher_id"] == "infra-optim:trimtab"
        assert one["queue"] == f"notifications.{one['priority'].lower()}"
        assert message.delivery_info["exchange"] == "watcher"
        assert message.delivery_info["routing_key"] == one["queue"]
        assert message.content_type == "application/json"
        assert set(one["payload"]) == {f"watcher_object.{part}" for part in ("name", "version", "namespace", "data")}
    assert len({one["message_id"] for one in heard}) == len(heard)


def check_payloads(consumer: Consumer, trimtab: Trimtab, audit: str, plan: str, action: str) -> None:
    """The payloads are Watcher's versioned objects and say what the API says."""
    for one in consumer.heard:
        for name in ("created_at", "updated_at", "deleted_at"):
            moment = inner(one["payload"])[name]
            assert moment is None or MOMENT.fullmatch(moment), one
    last = consumer.of(audit)[-1]["payload"]
    assert (last["watcher_object.name"], last["watcher_object.version"]) == ("AuditUpdatePayload", "1.2")
    body = trimtab.get(f"/v1/audits/{audit}")
    data = inner(last)
    for name in ("uuid", "name", "audit_type", "state", "parameters", "interval", "scope", "goal_uuid", "auto_trigger"):
        assert data[name] == body[name], name
    assert inner(data["goal"])["name"] == "dummy"
    assert inner(data["strategy"])["name"] == "dummy"
    assert inner(data["state_update"])["old_state"] == "ONGOING"
    assert inner(data["state_update"])["state"] == "SUCCEEDED"
    end = consumer.of(plan)[-1]["payload"]
    assert (end["watcher_object.name"], end["watcher_object.version"]) == ("ActionPlanActionPayload", "1.2")
    assert inner(end)["fault"] is None
    assert inner(inner(end)["audit"])["uuid"] == audit
    assert inner(end)["audit_uuid"] == audit
    ran = consumer.of(action)[-1]["payload"]
    assert (ran["watcher_object.name"], ran["watcher_object.version"]) == ("ActionExecutionPayload", "1.1")
    assert (inner(ran)["action_type"], inner(ran)["state"]) == ("sleep", "SUCCEEDED")
    assert inner(inner(ran)["action_plan"])["uuid"] == plan
