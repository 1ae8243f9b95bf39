"""Signs of life, who tells of whom, plans that expire, old events that go; however often something goes wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.platform.engine_stage import Stage

from trimtab.platform.errors import TrimtabError
from trimtab.platform.housekeeping import put_away, stay_alive
from trimtab.platform.lease import cancelled
from trimtab.platform.liveness import APPLIER, ENGINE
from trimtab.platform.notifications import notifications
from trimtab.platform.publishing import related_to
from trimtab.platform.records import ActionPlan, Service
from trimtab.platform.store.port import StorePort

HOUR = 3_600.0


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.store.close()


@asynccontextmanager
async def going_on(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        await cancelled(tasks)


def told(stage: Stage) -> list[tuple[str, str | None, str | None, float]]:
    """Who was told to be what instead of what, and when."""
    hosts = {service.uuid: service.host for service in stage.store.list(Service)}
    return [
        (hosts[e.record_uuid], e.old_state, e.new_state, stage.since(e.created_at))
        for e in stage.store.events()
        if e.record_kind == "service"
    ]


# -- signs of life -------------------------------------------------------------------------------


async def test_a_service_is_there_at_once_and_gives_signs_of_life_in_one_row(stage: Stage) -> None:
    async with going_on(stay_alive(stage.port, stage.clock, ENGINE, "a", every_s=60.0)):
        await stage.clock.sleep(1)
        (row,) = stage.store.list(Service)
        assert (row.name, row.host, stage.since(row.last_seen_up)) == ("watcher-decision-engine", "a", 0)
        await stage.clock.sleep(190)
    async with going_on(stay_alive(stage.port, stage.clock, ENGINE, "a", every_s=60.0)):
        await stage.clock.sleep(1)
    (again,) = stage.store.list(Service)
    assert (again.uuid, stage.since(again.last_seen_up)) == (row.uuid, 191)
    assert told(stage) == [], "signs of life are no news"


async def test_a_service_that_fails_and_comes_back_is_told_once_each_by_the_one_who_leads(stage: Stage) -> None:
    others = [stay_alive(stage.port, stage.clock, APPLIER, host, every_s=60.0) for host in ("a", "c")]
    async with going_on(*others):
        async with going_on(stay_alive(stage.port, stage.clock, APPLIER, "b", every_s=60.0)):
            await stage.clock.sleep(100)
        await stage.clock.sleep(300)
        async with going_on(stay_alive(stage.port, stage.clock, APPLIER, "b", every_s=60.0)):
            await stage.clock.sleep(200)
    assert told(stage) == [("b", "ACTIVE", "FAILED", 180), ("b", "FAILED", "ACTIVE", 420)]


async def test_a_leader_that_fails_is_told_of_by_the_next_and_tells_of_its_own_return(stage: Stage) -> None:
    async with going_on(stay_alive(stage.port, stage.clock, ENGINE, "b", every_s=60.0)):
        async with going_on(stay_alive(stage.port, stage.clock, ENGINE, "a", every_s=60.0)):
            await stage.clock.sleep(10)
        await stage.clock.sleep(300)
        async with going_on(stay_alive(stage.port, stage.clock, ENGINE, "a", every_s=60.0)):
            await stage.clock.sleep(10)
    assert told(stage) == [("a", "ACTIVE", "FAILED", 120), ("a", "FAILED", "ACTIVE", 310)]


async def test_those_of_another_name_are_nobodys_business(stage: Stage) -> None:
    stage.store.beat(ENGINE, "a")
    async with going_on(stay_alive(stage.port, stage.clock, APPLIER, "b", every_s=60.0)):
        await stage.clock.sleep(1_000)
    assert told(stage) == []


async def test_one_that_was_down_while_nobody_looked_is_back_without_a_word(stage: Stage) -> None:
    for _ in range(2):
        async with going_on(stay_alive(stage.port, stage.clock, ENGINE, "a")):
            await stage.clock.sleep(10)
        await stage.clock.sleep(HOUR)
    assert told(stage) == []


async def test_what_is_told_of_a_service_becomes_watchers_notification(stage: Stage) -> None:
    stage.store.beat(ENGINE, "gone")
    async with going_on(stay_alive(stage.port, stage.clock, ENGINE, "a")):
        await stage.clock.sleep(200)
    events = [event for event in stage.store.events() if event.record_kind == "service"]
    related = await related_to(stage.port, events)
    (one,) = [one for event in events for one in notifications(event, related)]
    assert (one.event_type, one.priority) == ("service.update", "WARNING")
    assert one.payload["watcher_object.data"]["sevice_host"] == "gone"


# -- putting away --------------------------------------------------------------------------------


async def test_plans_that_nobody_starts_within_a_day_are_superseded(stage: Stage) -> None:
    old = {state: stage.busy_plan(state) for state in ("RECOMMENDED", "PENDING", "ONGOING", "SUCCEEDED", "CANCELLED")}
    await stage.clock.sleep(2 * HOUR)
    young = stage.busy_plan("RECOMMENDED")

    def state(uuid: str) -> str:
        return stage.store.get(ActionPlan, uuid).state

    async with going_on(put_away(stage.port, stage.clock, "a", expiry_h=24.0, expire_every_s=1_800.0)):
        await stage.clock.sleep(22 * HOUR)
        assert state(old["RECOMMENDED"]) == "RECOMMENDED", "not before a day is over"
        await stage.clock.sleep(HOUR)
        assert {was: state(uuid) for was, uuid in old.items()} == {**{w: w for w in old}, "RECOMMENDED": "SUPERSEDED"}
        assert state(young) == "RECOMMENDED"
        await stage.clock.sleep(2 * HOUR)
        assert state(young) == "SUPERSEDED"
    plan = stage.store.get(ActionPlan, old["RECOMMENDED"])
    assert plan.status_message == "Nobody started it within 24 hours"
    last = stage.events(plan.uuid)[-1]
    assert (last.event, last.new_state) == ("supersede", "SUPERSEDED")


async def test_an_expiry_of_0_hours_leaves_plans_alone_for_ever(stage: Stage) -> None:
    uuid = stage.busy_plan("RECOMMENDED")
    async with going_on(put_away(stage.port, stage.clock, "a", expiry_h=0.0)):
        await stage.clock.sleep(100 * HOUR)
    assert stage.store.get(ActionPlan, uuid).state == "RECOMMENDED"


async def test_events_are_kept_for_so_many_days_and_no_longer(stage: Stage) -> None:
    stage.busy_plan("SUCCEEDED")
    async with going_on(put_away(stage.port, stage.clock, "a", keep_days=2.0)):
        await stage.clock.sleep(47 * HOUR)
        stage.busy_plan("SUCCEEDED")
        assert len(stage.store.events()) == 2
        await stage.clock.sleep(3 * HOUR)
    assert [stage.since(event.created_at) for event in stage.store.events()] == [47 * HOUR]


def listening(stage: Stage, asked: list[tuple[str, str]], who: str) -> StorePort:
    plain = StorePort.direct(stage.store)

    async def call(method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        asked.append((who, method))
        return await plain._call(method, arguments, named)

    return StorePort(call)


async def test_of_several_engines_one_does_the_chores_and_the_next_takes_them_over(stage: Stage) -> None:
    asked: list[tuple[str, str]] = []

    def engine(host: str) -> list[Coroutine[Any, Any, None]]:
        port = listening(stage, asked, host)
        return [
            stay_alive(port, stage.clock, ENGINE, host, every_s=600.0, down_after_s=900.0),
            put_away(port, stage.clock, host, expire_every_s=1_800.0, down_after_s=900.0),
        ]

    def chores() -> set[str]:
        return {who for who, method in asked if method in {"supersede_plans", "tidy"}}

    async with going_on(*engine("b")):
        async with going_on(*engine("a")):
            await stage.clock.sleep(700)
            asked.clear()
            await stage.clock.sleep(2 * HOUR)
            assert chores() == {"a"}
        asked.clear()
        await stage.clock.sleep(2 * HOUR)
        assert chores() == {"b"}


async def test_one_step_that_fails_ends_nothing(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    plain = StorePort.direct(stage.store)

    async def call(method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if stage.since(stage.moment()) < 2 * HOUR:
            raise OSError("the disk is full")
        if method == "tidy":
            raise TrimtabError("never")
        return await plain._call(method, arguments, named)

    port = StorePort(call)
    uuid = stage.busy_plan("RECOMMENDED")
    async with going_on(stay_alive(port, stage.clock, ENGINE, "a"), put_away(port, stage.clock, "a", expiry_h=1.0)):
        await stage.clock.sleep(3 * HOUR)
    assert stage.store.get(ActionPlan, uuid).state == "SUPERSEDED"
    (row,) = stage.store.list(Service)
    assert stage.since(row.last_seen_up) > 3 * HOUR - 61
    assert "expiry of plans: OSError: the disk is full; tried again in 1800 seconds" in caplog.text
    assert "removal of old events: TrimtabError: never" in caplog.text
