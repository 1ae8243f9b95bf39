"""ONESHOT and EVENT audits: webhooks, restarts, force, auto_trigger, cancelled runs, and what is told of every step."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from tests.platform.engine_stage import Stage

from trimtab.platform.engine import Frozen
from trimtab.platform.errors import CloudUnavailable, Conflict, TrimtabError
from trimtab.platform.records import ActionPlan, Audit, Goal, Strategy
from trimtab.platform.store.port import StorePort


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.store.close()


def call_webhook(stage: Stage, uuid: str) -> None:
    """What POST /v1/webhooks does."""
    audit = stage.of(uuid)
    assert audit.state in {"PENDING", "SUCCEEDED"}
    stage.store.update(Audit, uuid, {"triggered_at": stage.moment()}, state=audit.state)


# -- EVENT ---------------------------------------------------------------------------------------


async def test_an_event_audit_runs_whenever_its_webhook_was_called(stage: Stage) -> None:
    uuid, wake = stage.audit("EVENT"), asyncio.Event()
    async with stage.serving(stage.parts(), wake=wake, idle_s=1e6):
        await stage.clock.sleep(50)
        assert (stage.of(uuid).state, stage.runs(uuid)) == ("PENDING", [])
        for moment in (50, 80):
            await stage.clock.sleep(moment - stage.since(stage.moment()))
            call_webhook(stage, uuid)
            wake.set()
            await stage.clock.sleep(5)
            assert (stage.of(uuid).state, stage.of(uuid).triggered_at) == ("SUCCEEDED", None)
    assert stage.runs(uuid) == [50, 80]
    assert [plan.state for plan in stage.plans(uuid)] == ["RECOMMENDED", "RECOMMENDED"], "none replaces another"


async def test_a_webhook_that_nobody_heard_is_answered_after_a_restart(stage: Stage) -> None:
    uuid = stage.audit("EVENT")
    call_webhook(stage, uuid)
    await stage.clock.sleep(3_600)
    await stage.serve(5)
    assert stage.runs(uuid) == [3_600]


async def test_webhooks_before_the_run_begins_are_one_and_during_the_run_are_refused(stage: Stage) -> None:
    uuid = stage.audit("EVENT")
    call_webhook(stage, uuid)
    call_webhook(stage, uuid)
    async with stage.serving(stage.parts(takes_s=9.0)):
        await stage.clock.sleep(3)
        assert stage.of(uuid).state == "ONGOING"
        with pytest.raises(Conflict):
            stage.store.update(Audit, uuid, {"triggered_at": stage.moment()}, state="SUCCEEDED")
        await stage.clock.sleep(30)
    assert stage.runs(uuid) == [0]


async def test_an_event_run_that_was_broken_off_runs_again(stage: Stage) -> None:
    uuid = stage.audit("EVENT")
    call_webhook(stage, uuid)
    await stage.serve(5, stage.parts(takes_s=60.0))
    assert (stage.of(uuid).state, stage.of(uuid).triggered_at) == ("ONGOING", None)
    await stage.serve(60)
    assert stage.runs(uuid) == [0, 30]
    assert (stage.of(uuid).state, len(stage.plans(uuid))) == ("SUCCEEDED", 1)


async def test_while_a_plan_is_ongoing_a_webhook_is_answered_by_no_run_unless_forced(stage: Stage) -> None:
    new, ran, forced = (
        stage.audit("EVENT"),
        stage.audit("EVENT", state="SUCCEEDED"),
        stage.audit("EVENT", force=True),
    )
    stage.busy_plan()
    for uuid in (new, ran, forced):
        call_webhook(stage, uuid)
    await stage.serve(20)
    assert [stage.of(uuid).state for uuid in (new, ran, forced)] == ["PENDING", "SUCCEEDED", "SUCCEEDED"]
    assert [stage.runs(uuid) for uuid in (new, ran, forced)] == [[], [], [0]]
    assert {stage.of(uuid).triggered_at for uuid in (new, ran, forced)} == {None}
    assert "Run skipped: an action plan is ongoing" in (stage.of(new).status_message or "")


# -- ONESHOT -------------------------------------------------------------------------------------


async def test_a_oneshot_audit_runs_once(stage: Stage) -> None:
    uuid = stage.audit()
    await stage.serve(100)
    assert (stage.of(uuid).state, stage.runs(uuid), len(stage.plans(uuid))) == ("SUCCEEDED", [0], 1)
    assert stage.of(uuid).hostname == "here"


async def test_pending_and_ongoing_audits_run_after_a_restart(stage: Stage) -> None:
    begun = stage.audit()
    await stage.serve(5, stage.parts(takes_s=60.0))
    waiting = stage.audit()
    await stage.serve(60, stage.parts("there"))
    assert [stage.of(uuid).state for uuid in (begun, waiting)] == ["SUCCEEDED", "SUCCEEDED"]
    assert stage.runs(waiting) == [5]
    assert stage.runs(begun)[0] == 0
    assert 30 <= stage.runs(begun)[1] <= 35, "as soon as its lease was over"
    assert stage.of(begun).hostname == "there"
    assert len(stage.plans(begun)) == 1


@pytest.mark.parametrize("state", ["ONGOING", "SUCCEEDED", "RECOMMENDED", "PENDING", "CANCELLING"])
async def test_a_oneshot_audit_is_cancelled_only_while_a_plan_is_ongoing(stage: Stage, state: str) -> None:
    uuid, forced = stage.audit(), stage.audit(force=True)
    stage.busy_plan(state)
    await stage.serve(10)
    assert stage.of(uuid).state == ("CANCELLED" if state == "ONGOING" else "SUCCEEDED")
    assert stage.of(forced).state == "SUCCEEDED"


async def test_a_suspended_oneshot_audit_runs_when_it_is_resumed(stage: Stage) -> None:
    uuid = stage.audit(state="SUSPENDED")
    async with stage.serving(stage.parts()):
        await stage.clock.sleep(20)
        assert stage.runs(uuid) == []
        stage.store.transition(Audit, uuid, "resume")
        await stage.clock.sleep(20)
    assert stage.of(uuid).state == "SUCCEEDED"


async def test_suspended_or_set_ongoing_by_a_person_while_it_runs_it_ends_all_the_same(stage: Stage) -> None:
    uuid, ongoing = stage.audit(), stage.audit()
    stage.store.transition(Audit, ongoing, "run")  # PATCH PENDING -> ONGOING
    async with stage.serving(stage.parts(takes_s=9.0)):
        await stage.clock.sleep(3)
        stage.store.transition(Audit, uuid, "suspend")
        await stage.clock.sleep(20)
    assert [stage.of(one).state for one in (uuid, ongoing)] == ["SUCCEEDED", "SUCCEEDED"]
    assert [len(stage.plans(one)) for one in (uuid, ongoing)] == [1, 1]


@pytest.mark.parametrize("moment", [0.5, 3.0, 6.0, 8.5])
async def test_cancelled_at_any_moment_of_its_run_it_stays_cancelled(stage: Stage, moment: float) -> None:
    uuid = stage.audit(auto_trigger=True)
    async with stage.serving(stage.parts(takes_s=9.0)):
        await stage.clock.sleep(moment)
        stage.store.transition(Audit, uuid, "cancel")
        await stage.clock.sleep(60)
    assert (stage.of(uuid).state, stage.plans(uuid), stage.of(uuid).owner) == ("CANCELLED", [], None)


async def test_deleted_while_it_runs_it_leaves_no_plan_and_the_engine_goes_on(stage: Stage) -> None:
    uuid = stage.audit()
    async with stage.serving(stage.parts(takes_s=9.0)):
        await stage.clock.sleep(3)
        stage.store.transition(Audit, uuid, "suspend")
        stage.store.delete(Audit, uuid)
        await stage.clock.sleep(20)
        other = stage.audit()
        await stage.clock.sleep(20)
    assert stage.store.list(ActionPlan, {"audit_id": 1}) == []
    assert stage.of(other).state == "SUCCEEDED"


async def test_auto_trigger_launches_the_plan_without_a_wait(stage: Stage) -> None:
    uuid = stage.audit(auto_trigger=True)
    await stage.serve(10)
    (plan,) = stage.plans(uuid)
    assert [event.new_state for event in stage.events(plan.uuid)] == ["RECOMMENDED", "ONGOING"]


async def test_no_more_run_at_once_than_there_are_workers_and_continuous_ones_have_their_own(stage: Stage) -> None:
    oneshot = [stage.audit() for _ in range(5)]
    continuous = [stage.audit("CONTINUOUS", interval="3600") for _ in range(3)]
    await stage.serve(40, stage.parts(takes_s=9.0), workers=2, continuous_workers=2)
    assert sorted(stage.runs(uuid)[0] for uuid in oneshot) == [0, 0, 9, 9, 18]
    assert [stage.runs(uuid)[0] for uuid in oneshot] == sorted(stage.runs(uuid)[0] for uuid in oneshot), "oldest first"
    assert sorted(stage.runs(uuid)[0] for uuid in continuous) == [0, 0, 9]


# -- what is told --------------------------------------------------------------------------------


async def test_every_step_of_an_audit_is_told_in_its_order(stage: Stage) -> None:
    uuid = stage.audit()
    await stage.serve(10)
    told = [(e.record_kind, e.event) for e in stage.store.events() if e.event != "create" or e.record_kind != "audit"]
    assert told == [
        ("audit", "run"),
        ("audit", "strategy.start"),
        ("audit", "strategy.end"),
        ("audit", "planner.start"),
        ("action_plan", "create"),
        *[("action", "create")] * 3,
        ("audit", "planner.end"),
        ("audit", "succeed"),
    ]
    moments = {event.event: stage.since(event.created_at) for event in stage.events(uuid)}
    assert moments["strategy.end"] == 0.3
    assert moments["planner.end"] == 1.0


async def test_a_strategy_that_fails_is_told_with_the_reason(stage: Stage) -> None:
    uuid = stage.audit(parameters={"para1": "much"})
    await stage.serve(10)
    *_, error, failed = stage.events(uuid)
    assert [event.event for event in stage.events(uuid)] == [
        "create",
        "run",
        "strategy.start",
        "strategy.error",
        "fail",
    ]
    assert error.message == failed.message == stage.of(uuid).status_message
    assert "para1" in (error.message or "")


async def test_a_cloud_that_cannot_be_looked_at_fails_the_audit_in_words(stage: Stage) -> None:
    async def freeze(*_: Any) -> Frozen:
        raise CloudUnavailable("nova does not answer")

    known = stage.audit()
    await stage.serve(10, stage.parts(freeze=freeze))
    assert (stage.of(known).state, stage.of(known).status_message) == ("FAILED", "nova does not answer")

    async def broken(*_: Any) -> Frozen:
        raise ZeroDivisionError("by nothing")

    unknown = stage.audit()
    await stage.serve(10, stage.parts(freeze=broken))
    assert stage.of(unknown).status_message == "ZeroDivisionError: by nothing"


async def test_a_planner_that_fails_is_told_as_such(stage: Stage) -> None:
    def crash(*_: Any, **__: Any) -> Any:
        raise ArithmeticError("no horizon")

    uuid = stage.audit(goal="server_consolidation", strategy="basic")
    await stage.serve(10, stage.parts(rehearse=crash))
    assert [event.event for event in stage.events(uuid)][-3:] == ["planner.start", "planner.error", "fail"]
    assert "ArithmeticError: no horizon" in (stage.of(uuid).status_message or "")
    assert stage.plans(uuid) == []


async def test_a_cancelled_run_ends_with_an_error_for_those_who_listen(stage: Stage) -> None:
    uuid = stage.audit()
    async with stage.serving(stage.parts(takes_s=9.0)):
        await stage.clock.sleep(4)
        stage.store.transition(Audit, uuid, "cancel")
        await stage.clock.sleep(20)
    last = stage.events(uuid)[-1]
    assert (last.event, last.message) == ("planner.error", "audit is CANCELLED: cannot succeed; possible now: delete")


# -- trouble -------------------------------------------------------------------------------------


async def test_trouble_with_the_store_ends_neither_the_engine_nor_an_audit(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    plain = StorePort.direct(stage.store)

    async def call(method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        now = stage.since(stage.moment())
        if now < 10 or 12 < now < 25 or method == "note":
            raise TrimtabError("the store is restarting")
        return await plain._call(method, arguments, named)

    uuid = stage.audit()
    await stage.serve(100, stage.parts(store=StorePort(call), takes_s=9.0))
    assert (stage.of(uuid).state, len(stage.plans(uuid))) == ("SUCCEEDED", 1)
    assert "the queue of audits could not be read" in caplog.text
    assert "nobody will hear of strategy.start" in caplog.text
    assert "it will be taken up again" in caplog.text


async def test_a_run_whose_lease_ran_out_while_the_store_was_away_is_done_again(stage: Stage) -> None:
    plain = StorePort.direct(stage.store)

    async def call(method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if 2 < stage.since(stage.moment()) < 25:
            raise TrimtabError("the store is restarting")
        return await plain._call(method, arguments, named)

    uuids = [stage.audit("EVENT"), stage.audit(), stage.audit("CONTINUOUS", interval="3600")]
    call_webhook(stage, uuids[0])
    await stage.serve(120, stage.parts(store=StorePort(call), takes_s=40.0, lease_s=9.0))
    for uuid in uuids:
        assert len(stage.runs(uuid)) == 2
        assert len(stage.plans(uuid)) == 1
    assert [stage.of(uuid).state for uuid in uuids] == ["SUCCEEDED", "SUCCEEDED", "ONGOING"]


async def test_a_strategy_that_is_not_installed_any_more_takes_its_audits_and_plans_along(stage: Stage) -> None:
    running = stage.audit("CONTINUOUS", interval="60")
    waiting = stage.audit("EVENT")
    async with stage.serving(stage.parts()):
        await stage.clock.sleep(10)
        call_webhook(stage, waiting)
        goals = stage.store.list(Goal)
        names = {goal.id: goal.name for goal in goals}
        left = [(row, names[row.goal_id]) for row in stage.store.list(Strategy) if row.name != "dummy"]
        assert stage.store.sync_catalogue(goals, left, {}).removed == ["strategy dummy"]
        await stage.clock.sleep(100)
    assert [stage.of(uuid).state for uuid in (running, waiting)] == ["CANCELLED", "CANCELLED"]
    assert (stage.runs(running), stage.runs(waiting)) == ([0], [])
    assert [plan.state for plan in stage.plans(running)] == ["CANCELLED"]


async def test_while_all_goes_well_nothing_is_logged_as_a_warning(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    uuid = stage.audit()
    await stage.serve(10)
    assert stage.of(uuid).state == "SUCCEEDED"
    assert not caplog.records
