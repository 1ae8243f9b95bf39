"""Notifications have the names, versions and fields that consumers of Watcher's know, and none is lost."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from trimtab.platform.notifications import Notification, Related, loud_enough, notifications
from trimtab.platform.publishing import Pace, Sent, publish, related_to
from trimtab.platform.records import Action, ActionPlan, Audit, Event, Goal, Service, Strategy
from trimtab.platform.store.port import StorePort
from trimtab.platform.store.state import Store

U = "00000000-0000-4000-8000-0000000000{:02d}"


class Ticking:
    def __init__(self) -> None:
        self.second = 0

    def __call__(self) -> datetime:
        self.second += 1
        return datetime(2026, 1, 1, 0, 0, self.second % 60, 250_000, UTC)


@pytest.fixture
def store() -> Any:
    opened = Store(None, Ticking())
    goal = opened.create(Goal(uuid=U.format(1), name="dummy", display_name="Dummy goal"))
    opened.create(Strategy(uuid=U.format(2), name="dummy", display_name="Dummy", goal_id=goal.id))
    yield opened
    opened.close()


def make_audit(store: Store) -> Audit:
    return store.create(
        Audit(uuid=U.format(3), name="a", audit_type="ONESHOT", state="PENDING", goal_id=1, strategy_id=1)
    )


async def told(store: Store) -> list[Notification]:
    port = StorePort.direct(store)
    events = await port.events()
    related = await related_to(port, events)
    return [one for event in events for one in notifications(event, related)]


def data(payload: dict[str, Any]) -> dict[str, Any]:
    assert payload["watcher_object.namespace"] == "watcher"
    return dict(payload["watcher_object.data"])


def name(payload: dict[str, Any]) -> tuple[str, str]:
    return payload["watcher_object.name"], payload["watcher_object.version"]


def run_plan(store: Store) -> None:
    """Two actions, nop and nop, as an applier takes them through their states."""
    audit = make_audit(store)
    store.transition(Audit, audit.uuid, "run")
    actions = [
        Action(uuid=U.format(10 + n), action_plan_id=0, action_type="nop", state="PENDING", input_parameters={"n": n})
        for n in range(2)
    ]
    plan = ActionPlan(uuid=U.format(4), audit_id=0, strategy_id=1, state="RECOMMENDED")
    store.save_outcome(audit.uuid, event="succeed", epoch=None, plan=plan, actions=actions)
    store.transition(ActionPlan, plan.uuid, "start")
    store.transition(ActionPlan, plan.uuid, "run")
    for action in actions:
        store.transition(Action, action.uuid, "begin")
        store.transition(Action, action.uuid, "succeed")
    store.transition(ActionPlan, plan.uuid, "succeed")


async def test_a_plan_that_succeeds_is_told_in_watchers_order(store: Store) -> None:
    run_plan(store)
    kinds = [one.event_type for one in await told(store)]
    assert kinds[kinds.index("action.create") + 2 :] == [
        "audit.update",
        "action_plan.update", "action_plan.update", "action_plan.execution.start",
        "action.execution.start", "action.update", "action.update", "action.execution.end",
        "action.execution.start", "action.update", "action.update", "action.execution.end",
        "action_plan.update", "action_plan.execution.end",
    ]  # fmt: skip
    assert kinds[:3] == ["audit.create", "audit.update", "action_plan.create"]


async def test_payloads_have_the_classes_versions_and_fields_of_watcher(store: Store) -> None:
    run_plan(store)
    by_type = {one.event_type: one for one in await told(store)}
    create = by_type["audit.create"]
    assert (create.priority, name(create.payload)) == ("INFO", ("AuditCreatePayload", "1.2"))
    assert data(create.payload).keys() == {
        "uuid", "name", "audit_type", "state", "parameters", "interval", "scope", "goal_uuid", "strategy_uuid",
        "auto_trigger", "next_run_time", "created_at", "updated_at", "deleted_at", "status_message", "goal", "strategy",
    }  # fmt: skip
    assert data(create.payload)["state"] == "PENDING"
    assert data(create.payload)["created_at"] == "2026-01-01T00:00:03Z"
    assert name(data(create.payload)["goal"]) == ("GoalPayload", "1.0")
    assert name(data(create.payload)["strategy"]) == ("StrategyPayload", "1.0")
    update = data(by_type["action_plan.update"].payload)
    assert name(update["state_update"]) == ("ActionPlanStateUpdatePayload", "1.1")
    assert data(update["state_update"]) == {"old_state": "ONGOING", "state": "SUCCEEDED", "status_message": None}
    assert name(update["audit"]) == ("TerseAuditPayload", "1.3")
    assert data(update["audit"])["goal_uuid"] == U.format(1)
    assert data(update["audit"])["strategy_uuid"] is None, "as Watcher has it there"
    assert update["strategy_uuid"] == U.format(2)
    end = by_type["action.execution.end"]
    assert name(end.payload) == ("ActionExecutionPayload", "1.1")
    assert data(end.payload).keys() == {
        "uuid", "action_type", "input_parameters", "state", "parents", "status_message", "created_at", "updated_at",
        "deleted_at", "action_plan", "fault",
    }  # fmt: skip
    assert data(end.payload)["fault"] is None
    assert name(data(end.payload)["action_plan"]) == ("TerseActionPlanPayload", "1.2")
    assert data(by_type["action.execution.start"].payload)["state"] == "PENDING"


async def test_failures_are_errors_and_say_why(store: Store) -> None:
    run_plan(store)
    plan = store.create(ActionPlan(uuid=U.format(5), audit_id=1, strategy_id=1, state="ONGOING"))
    action = store.create(Action(uuid=U.format(20), action_plan_id=plan.id, action_type="nop", state="PENDING"))
    store.transition(Action, action.uuid, "begin")
    store.transition(Action, action.uuid, "fail", message="Action failed in execute: no")
    store.transition(ActionPlan, plan.uuid, "fail", message="it broke")
    last = (await told(store))[-5:]
    assert [one.event_type for one in last] == [
        "action.update", "action.update", "action.execution.error", "action_plan.update", "action_plan.execution.error",
    ]  # fmt: skip
    assert [one.priority for one in last] == ["INFO", "INFO", "ERROR", "INFO", "ERROR"]
    fault = data(last[-1].payload)["fault"]
    assert name(fault) == ("ExceptionPayload", "1.0")
    assert data(fault)["exception_message"] == "it broke"


async def test_a_cancel_is_told_from_the_wish_to_its_end(store: Store) -> None:
    plan = store.create(ActionPlan(uuid=U.format(5), audit_id=1, strategy_id=1, state="ONGOING"))
    store.transition(ActionPlan, plan.uuid, "cancel")
    store.transition(ActionPlan, plan.uuid, "stopped")
    kinds = [one.event_type for one in await told(store)]
    assert kinds == [
        "action_plan.create", "action_plan.update", "action_plan.cancel.start", "action_plan.update",
        "action_plan.cancel.end",
    ]  # fmt: skip


async def test_deleting_a_plan_tells_of_its_actions_too(store: Store) -> None:
    run_plan(store)
    before = len(await told(store))
    store.delete(ActionPlan, U.format(4))
    kinds = [one.event_type for one in (await told(store))[before:]]
    assert kinds == ["action_plan.update", "action_plan.delete"] + ["action.update", "action.delete"] * 2
    deleted = (await told(store))[before:][1]
    assert data(deleted.payload)["state"] == "DELETED"
    assert data(deleted.payload)["deleted_at"] is not None


async def test_steps_of_an_audit_are_told_with_their_fault(store: Store) -> None:
    audit = make_audit(store)
    store.note(Audit, audit.uuid, "strategy.start")
    store.note(Audit, audit.uuid, "strategy.error", "no such metric")
    start, error = (await told(store))[1:]
    assert (start.event_type, start.priority) == ("audit.strategy.start", "INFO")
    assert (error.event_type, error.priority) == ("audit.strategy.error", "ERROR")
    assert name(error.payload) == ("AuditActionPayload", "1.2")
    assert data(data(error.payload)["fault"])["exception_message"] == "no such metric"


def test_a_service_that_went_down_is_a_warning_with_watchers_spelling() -> None:
    service = Service(uuid=U.format(6), name="watcher-applier", host="ctl")
    event = Event(
        uuid=U.format(7), record_kind="service", record_uuid=service.uuid, event="status", old_state="ACTIVE",
        new_state="FAILED",
    )  # fmt: skip
    (one,) = notifications(event, Related(services={service.uuid: service}))
    assert (one.event_type, one.priority) == ("service.update", "WARNING")
    assert data(one.payload)["sevice_host"] == "ctl"
    assert data(data(one.payload)["status_update"]) == {"old_state": "ACTIVE", "state": "FAILED"}


def test_levels_let_through_what_is_as_grave() -> None:
    info, error = Notification("x", "INFO", {}), Notification("x", "ERROR", {})
    assert loud_enough(info, "info")
    assert not loud_enough(info, "warning")
    assert loud_enough(error, "warning")
    assert not loud_enough(error, "")


EAGER = Pace(idle_s=0.0)


class Broker:
    """Takes what it is given while it is up."""

    def __init__(self) -> None:
        self.got: list[Notification] = []
        self.up = True

    async def __call__(self, batch: Sequence[Notification]) -> None:
        if not self.up:
            raise ConnectionError("connection refused")
        self.got += batch


async def published(store: Store, broker: Broker, pace: Pace = EAGER, turns: int = 40) -> Sent:
    """Let the publisher go on for some turns of the loop, then stop it as a kill would."""
    seen = Sent()

    def tell(now: Sent) -> None:
        nonlocal seen
        seen = now

    async def sleep(_: float) -> None:
        await asyncio.sleep(0)

    task = asyncio.create_task(publish(StorePort.direct(store), "bus", broker, pace=pace, sleep=sleep, tell=tell))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return seen


async def test_events_wait_for_a_broker_that_is_away(store: Store) -> None:
    broker = Broker()
    await published(store, broker)
    broker.up = False
    run_plan(store)
    seen = await published(store, broker)
    assert broker.got == []
    assert seen.failures > 0
    assert seen.last_error == "ConnectionError: connection refused"
    broker.up = True
    await published(store, broker)
    assert [one.event_type for one in broker.got] == [one.event_type for one in await told(store)]


async def test_a_new_publisher_goes_on_where_the_last_one_was(store: Store) -> None:
    broker = Broker()
    await published(store, broker)
    make_audit(store)
    await published(store, broker)
    store.transition(Audit, U.format(3), "run")
    await published(store, broker)
    assert [one.event_type for one in broker.got] == ["audit.create", "audit.update"]


async def test_what_exceeds_the_backlog_is_dropped_and_counted(store: Store) -> None:
    broker = Broker()
    await published(store, broker)
    run_plan(store)
    waiting = store.newest_event()
    seen = await published(store, broker, Pace(idle_s=0.0, backlog=3))
    assert seen.lost == waiting - 3
    assert seen.events == 3
    assert broker.got[-1].event_type == "action_plan.execution.end"


async def test_a_new_feed_does_not_tell_old_stories(store: Store) -> None:
    run_plan(store)
    broker = Broker()
    await published(store, broker)
    assert broker.got == []
