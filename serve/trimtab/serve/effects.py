"""Rehearsed against measured: when a horizon has passed, what a plan really brought is stored beside its score."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import datetime

from trimtab.platform.clocks import PacedClock, WallClock
from trimtab.platform.contracts import Score
from trimtab.platform.engine import Tell
from trimtab.platform.errors import InvalidInput
from trimtab.platform.records import Action, ActionPlan
from trimtab.platform.states import PlanState
from trimtab.platform.store.port import StorePort

Measure = Callable[[float, float, float], Awaitable[Score]]


async def settle(
    store: StorePort,
    clock: Callable[[], Awaitable[PacedClock | WallClock]],
    measure: Measure,
    horizon_s: float,
    tell: Tell,
) -> None:
    """Look at all plans that have ended: note when they ran (cloud time), and measure those whose horizon is over.

    Args:
        store: where the plans are.
        clock: the cloud's clock as it is now.
        measure: (start, end of the plan, horizon) -> score, in cloud seconds.
        horizon_s: how long after its start a plan is measured.
        tell: counts the plans that wait and the migrations that ended.
    """
    tell("plan_queue_length", await store.count(ActionPlan, {"state": PlanState.PENDING}))
    ended = {"state": [PlanState.SUCCEEDED, PlanState.FAILED, PlanState.CANCELLED], "settled": False}
    for plan in await store.list(ActionPlan, ended):
        if {"hosts_in_use", "error"} & plan.measured.keys() or plan.measured.get("started_at_s", 0) is None:
            await store.update(ActionPlan, plan.uuid, {"settled": True})
            continue
        if "started_at_s" not in plan.measured:
            actions = await store.list(Action, {"action_plan_id": plan.id})
            for action in actions:
                if action.action_type == "migrate":
                    tell("moves", 1, state=action.state)
            pace = await clock()
            began = _cloud_time(pace, [a.started_at for a in actions if a.started_at], min)
            over = _cloud_time(pace, [a.finished_at for a in actions if a.finished_at and a.started_at], max)
            # A plan that did nothing has no effect to measure: None says that it was looked at.
            changes = {"measured": {"started_at_s": began, "ended_at_s": over}, "settled": began is None}
            await store.update(ActionPlan, plan.uuid, changes)
            continue
        start, end = plan.measured["started_at_s"], plan.measured["ended_at_s"]
        if (await clock()).now() >= start + horizon_s:
            try:
                found = asdict(await measure(start, end, horizon_s))
            except InvalidInput as error:  # never to be had: the cloud does not remember that time
                found = {"error": str(error)}
            await store.update(ActionPlan, plan.uuid, {"measured": {**plan.measured, **found}, "settled": True})


def _cloud_time(
    pace: PacedClock | WallClock, moments: list[datetime], pick: Callable[[list[datetime]], datetime]
) -> float | None:
    return pace.of_wall(pick(moments).timestamp()) if moments else None
