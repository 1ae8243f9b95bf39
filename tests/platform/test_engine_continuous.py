"""Continuous audits: when they run, what becomes of their plans, and what a restart, a pause or a person changes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tests.platform.engine_stage import Stage

from trimtab.platform.records import ActionPlan, Audit, CandidateRecord


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.store.close()


async def test_one_with_seconds_runs_at_once_and_then_on_its_grid(stage: Stage) -> None:
    uuid = stage.audit("CONTINUOUS", interval="60")
    assert stage.of(uuid).next_run_time is None
    await stage.serve(200)
    assert stage.runs(uuid) == [0, 60, 120, 180]
    audit = stage.of(uuid)
    assert (audit.state, audit.hostname, audit.owner) == ("ONGOING", "here", None)
    assert stage.since(audit.next_run_time) == 240
    events = [event.event for event in stage.events(uuid)]
    assert (events.count("run"), events.count("ran")) == (1, 4)


async def test_one_with_cron_waits_for_its_first_tick_and_says_when_that_is(stage: Stage) -> None:
    uuid = stage.audit("CONTINUOUS", interval="*/2 * * * *")
    engine = stage.parts()
    await stage.serve(100, engine)
    audit = stage.of(uuid)
    assert (audit.state, stage.since(audit.next_run_time), stage.runs(uuid)) == ("PENDING", 120, [])
    await stage.serve(300, engine)
    assert stage.runs(uuid) == [120, 240, 360]
    assert stage.since(stage.of(uuid).next_run_time) == 480


@pytest.mark.parametrize(("interval", "runs"), [("* * * * * */20", [20, 40]), ("1 12 1 3 * 30 2026", [])])
async def test_cron_may_name_seconds_and_years(stage: Stage, interval: str, runs: list[float]) -> None:
    uuid = stage.audit("CONTINUOUS", interval=interval)
    await stage.serve(59)
    assert stage.runs(uuid) == runs
    await stage.serve(60)
    assert stage.runs(uuid)[-1] == (90 if not runs else 100)


async def test_a_run_that_takes_longer_than_the_interval_skips_ticks_and_never_overlaps(stage: Stage) -> None:
    uuid = stage.audit("CONTINUOUS", interval="10")
    await stage.serve(70, stage.parts(takes_s=24.0))
    assert stage.runs(uuid) == [0, 30, 60]


async def test_only_the_newest_plan_is_recommended_and_cancelled_ones_keep_their_actions(stage: Stage) -> None:
    uuid = stage.audit("CONTINUOUS", interval="60")
    started = stage.busy_plan("RECOMMENDED")
    await stage.serve(130)
    plans = stage.plans(uuid)
    assert [plan.state for plan in plans] == ["CANCELLED", "CANCELLED", "RECOMMENDED"]
    assert [action.state for action in stage.actions(plans[0])] == ["PENDING"] * 3
    assert plans[0].status_message == "A newer run of its audit made another plan"
    assert stage.store.get(ActionPlan, started).state == "RECOMMENDED", "another audit's"


async def test_a_plan_that_somebody_started_is_left_alone_by_the_next_run(stage: Stage) -> None:
    uuid = stage.audit("CONTINUOUS", interval="60")
    await stage.serve(10)
    (plan,) = stage.plans(uuid)
    stage.store.transition(ActionPlan, plan.uuid, "start")
    await stage.serve(60)
    assert [plan.state for plan in stage.plans(uuid)] == ["PENDING", "RECOMMENDED"]


async def test_candidates_of_old_runs_go_unless_a_plan_was_made_from_them(stage: Stage) -> None:
    uuid = stage.audit("CONTINUOUS", goal="server_consolidation", strategy="basic", interval="60")
    await stage.serve(10)
    first = stage.store.list(CandidateRecord)
    assert [one.number for one in first] == [0, 1]
    await stage.serve(120)
    kept = stage.store.list(CandidateRecord)
    made_from = [plan.candidate for plan in stage.plans(uuid)]
    assert {one.number for one in kept} == {*made_from, 4, 5}
    assert {one.number: one.verdict for one in kept if one.number in made_from} == dict.fromkeys(made_from, "chosen")


async def test_it_runs_between_its_start_and_its_end_and_then_has_succeeded(stage: Stage) -> None:
    uuid = stage.audit("CONTINUOUS", start_time=stage.at(30), end_time=stage.at(170))
    engine = stage.parts()
    await stage.serve(29, engine)
    assert (stage.of(uuid).state, stage.runs(uuid)) == ("PENDING", [])
    await stage.serve(140, engine)
    assert stage.of(uuid).state == "ONGOING"
    await stage.serve(60, engine)
    assert (stage.of(uuid).state, stage.runs(uuid)) == ("SUCCEEDED", [30, 90, 150])
    assert stage.events(uuid)[-1].event == "expire"


async def test_one_that_never_ran_before_its_end_has_succeeded_too(stage: Stage) -> None:
    uuid = stage.audit("CONTINUOUS", end_time=stage.at(-1))
    await stage.serve(5)
    assert (stage.of(uuid).state, stage.runs(uuid)) == ("SUCCEEDED", [])


async def test_after_a_restart_missed_ticks_are_skipped_and_the_grid_is_kept(stage: Stage) -> None:
    seconds, cron = stage.audit("CONTINUOUS", interval="60"), stage.audit("CONTINUOUS", interval="* * * * *")
    await stage.serve(70)
    await stage.clock.sleep(200)  # nobody is there
    await stage.serve(70)
    assert stage.runs(seconds) == [0, 60, 300]
    assert stage.runs(cron) == [60, 300]


async def test_after_a_short_restart_the_next_run_is_where_it_was(stage: Stage) -> None:
    uuid = stage.audit("CONTINUOUS", interval="60")
    await stage.serve(10)
    await stage.serve(55)
    assert stage.runs(uuid) == [0, 60]


@pytest.mark.parametrize(("other", "runs"), [("there", [0, 40]), ("here", [40]), (None, [40])])
async def test_an_engine_that_joins_another_makes_it_miss_nothing(
    stage: Stage, other: str | None, runs: list[float]
) -> None:
    uuid = stage.audit("CONTINUOUS", next_run_time=stage.at(-20))
    if other is not None:
        stage.store.beat("watcher-decision-engine", other)  # "here" is what this one was before its restart
    await stage.serve(50)
    assert stage.runs(uuid) == runs


async def test_a_run_that_was_broken_off_runs_again_when_its_lease_is_over(stage: Stage) -> None:
    uuid = stage.audit("CONTINUOUS", interval="600")
    await stage.serve(10, stage.parts(takes_s=60.0))
    assert stage.of(uuid).owner == "engine@here"
    await stage.serve(60)
    assert stage.runs(uuid) == [0, 40], "its lease was renewed at 10"
    assert len(stage.plans(uuid)) == 1
    assert stage.since(stage.of(uuid).next_run_time) == 640


async def test_a_changed_interval_counts_as_soon_as_the_bell_rings(stage: Stage) -> None:
    uuid, wake = stage.audit("CONTINUOUS", interval="3600"), asyncio.Event()
    async with stage.serving(stage.parts(), wake=wake, look_s=1e6):
        await stage.clock.sleep(100)
        stage.store.update(Audit, uuid, {"interval": "20"})
        wake.set()
        await stage.clock.sleep(50)
    assert stage.runs(uuid) == [0, 120, 140]


async def test_without_a_bell_changes_are_seen_at_the_next_look(stage: Stage) -> None:
    uuid = stage.audit("CONTINUOUS", interval="3600")
    async with stage.serving(stage.parts(), look_s=10.0):
        await stage.clock.sleep(101)
        stage.store.update(Audit, uuid, {"interval": "20"})
        await stage.clock.sleep(40)
    assert stage.runs(uuid)[0] == 0
    assert 121 <= stage.runs(uuid)[1] <= 132


async def test_suspended_it_rests_and_resumed_it_goes_on_at_its_next_tick(stage: Stage) -> None:
    uuid = stage.audit("CONTINUOUS", interval="60")
    async with stage.serving(stage.parts()):
        await stage.clock.sleep(70)
        stage.store.transition(Audit, uuid, "suspend")
        await stage.clock.sleep(100)
        stage.store.transition(Audit, uuid, "resume")
        assert stage.since(stage.of(uuid).next_run_time) == 180, "nobody makes up for what was missed"
        await stage.clock.sleep(80)
    assert stage.runs(uuid) == [0, 60, 180, 240]


async def test_suspended_while_it_runs_it_keeps_the_plan_and_rests(stage: Stage) -> None:
    uuid = stage.audit("CONTINUOUS")
    async with stage.serving(stage.parts(takes_s=9.0)):
        await stage.clock.sleep(3)
        stage.store.transition(Audit, uuid, "suspend")
        await stage.clock.sleep(100)
    assert (stage.of(uuid).state, [plan.state for plan in stage.plans(uuid)]) == ("SUSPENDED", ["RECOMMENDED"])
    assert stage.runs(uuid) == [0]


async def test_cancelled_while_it_runs_it_stays_cancelled_and_leaves_no_plan(stage: Stage) -> None:
    uuid = stage.audit("CONTINUOUS")
    async with stage.serving(stage.parts(takes_s=9.0)):
        await stage.clock.sleep(3)
        stage.store.transition(Audit, uuid, "cancel")
        await stage.clock.sleep(100)
    assert (stage.of(uuid).state, stage.plans(uuid), stage.runs(uuid)) == ("CANCELLED", [], [0])


async def test_one_that_failed_never_runs_again(stage: Stage) -> None:
    uuid = stage.audit("CONTINUOUS", parameters={"para1": "much"})
    await stage.serve(130)
    audit = stage.of(uuid)
    assert (audit.state, stage.runs(uuid)) == ("FAILED", [0])
    assert "para1" in (audit.status_message or "")
    assert stage.since(audit.next_run_time) == 60
    assert stage.plans(uuid) == []


@pytest.mark.parametrize("fields", [{}, {"next_run_time": "set"}], ids=["new", "waiting"])
async def test_one_whose_interval_is_none_fails_and_says_so(stage: Stage, fields: dict[str, Any]) -> None:
    uuid = stage.audit("CONTINUOUS", interval="now and then", **({"next_run_time": stage.at(20)} if fields else {}))
    await stage.serve(40)
    audit = stage.of(uuid)
    assert audit.state == "FAILED"
    assert "'now and then' is neither a number of seconds nor a cron expression" in (audit.status_message or "")


async def test_while_a_plan_is_ongoing_runs_are_skipped_and_the_state_stays(stage: Stage) -> None:
    new, forced = stage.audit("CONTINUOUS"), stage.audit("CONTINUOUS", force=True)
    busy = stage.busy_plan()
    async with stage.serving(stage.parts()):
        await stage.clock.sleep(70)
        audit = stage.of(new)
        assert (audit.state, stage.runs(new)) == ("PENDING", [])
        assert audit.status_message == "Run skipped: an action plan is ongoing (use force to audit all the same)"
        stage.store.transition(ActionPlan, busy, "succeed")
        await stage.clock.sleep(60)
    assert stage.runs(new) == [120]
    assert (stage.of(new).state, stage.of(new).status_message) == ("ONGOING", None)
    assert stage.runs(forced) == [0, 60, 120]


async def test_with_auto_trigger_every_plan_is_launched_at_once(stage: Stage) -> None:
    uuid = stage.audit("CONTINUOUS", auto_trigger=True)
    async with stage.serving(stage.parts()):
        await stage.clock.sleep(10)
        (plan,) = stage.plans(uuid)
        assert [event.event for event in stage.events(plan.uuid)] == ["create", "launch"]
        stage.store.transition(ActionPlan, plan.uuid, "succeed")
        await stage.clock.sleep(60)
    assert [plan.state for plan in stage.plans(uuid)] == ["SUCCEEDED", "ONGOING"]


async def test_an_empty_plan_has_succeeded_and_replaces_the_last_one_all_the_same(stage: Stage) -> None:
    acts = {"actions": [{"action_type": "nop", "input_parameters": {"message": "x"}}]}
    uuid = stage.audit("CONTINUOUS", goal="unclassified", strategy="actuator", parameters=acts)
    async with stage.serving(stage.parts()):
        await stage.clock.sleep(10)
        stage.store.update(Audit, uuid, {"parameters": {"actions": []}})
        await stage.clock.sleep(60)
    assert [plan.state for plan in stage.plans(uuid)] == ["CANCELLED", "SUCCEEDED"]
