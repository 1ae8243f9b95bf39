"""Rehearsed against measured: when a horizon has passed, what a plan really brought is stored beside its score."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from trimtab.platform.clocks import PacedClock, WallClock
from trimtab.platform.collector import STEP_S, Recorder, fill
from trimtab.platform.contracts import Migration, Score
from trimtab.platform.engine import Tell
from trimtab.platform.errors import InvalidInput, TrimtabError
from trimtab.platform.model import ClusterModel
from trimtab.platform.records import Action, ActionPlan
from trimtab.platform.snapshot import History
from trimtab.platform.states import ActionState, PlanState
from trimtab.platform.store.port import StorePort
from trimtab.simulator.recorded import Switch, score_recorded
from trimtab.simulator.score import Window

Measure = Callable[[float, float, float], Awaitable[Score]]
HOUR_S = 3600
AGAIN_S = 300.0  # until a cloud that did not tell is asked again; given up when a horizon has passed with it
log = logging.getLogger(__name__)
# Actions that turn something of a host on or off, and whether that is its power.
SWITCHES = {"change_nova_service_state": False, "change_node_power_state": True}


class OurRecord(NamedTuple):
    """What Trimtab itself knows of a real cloud's past.

    `store`: what was done to hosts, as actions of plans; `model` gives the cloud as it was read last; `recorder` the
    load that was measured.
    """

    store: StorePort
    model: Callable[[], Awaitable[ClusterModel]]
    recorder: Recorder


async def settle(
    store: StorePort,
    clock: Callable[[], Awaitable[PacedClock | WallClock]],
    measure: Measure,
    horizon_s: float,
    tell: Tell,
    late_s: float = 0.0,
) -> None:
    """Look at all plans that have ended: note when they ran (cloud time), and measure those whose horizon is over.

    Args:
        store: where the plans are.
        clock: the cloud's clock as it is now.
        measure: (start, end of the plan, horizon) -> score, in cloud seconds.
        horizon_s: how long after its start a plan is measured.
        tell: counts the plans that wait and the migrations that ended.
        late_s: how long after a moment everything about it is known.
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
        now, known_at = (await clock()).now(), start + horizon_s + late_s
        if now < max(known_at, plan.measured.get("asked_at_s", 0.0) + AGAIN_S):
            continue
        measured: dict[str, Any] = {"started_at_s": start, "ended_at_s": end}
        try:
            changes = {"measured": {**measured, **asdict(await measure(start, end, horizon_s))}, "settled": True}
        except InvalidInput as error:  # never to be had: the cloud does not remember that time
            changes = {"measured": {**measured, "error": str(error)}, "settled": True}
        except TrimtabError as error:  # the cloud is away, or a role is missing: others are not to wait for it
            log.warning("what action plan %s brought is not measured yet: %s", plan.uuid, error)
            told = {"error": str(error)} if now >= known_at + horizon_s else {"asked_at_s": now}
            changes = {"measured": {**measured, **told}, "settled": "error" in told}
        await store.update(ActionPlan, plan.uuid, changes)


async def measured_on_record(
    ours: OurRecord,
    moves: Callable[[float], Awaitable[Sequence[Migration]]],
    start_s: float,
    end_s: float,
    horizon_s: float,
) -> Score:
    """What a plan brought on a cloud that is only looked at.

    Args:
        ours: what we know.
        moves: the cloud's own record of migrations since a moment.
        start_s: begin of the plan.
        end_s: its end.
        horizon_s: how long from its begin on is looked at.

    Raises:
        InvalidInput: nothing was measured then. CloudError: the cloud does not tell.
    """
    over = start_s + horizon_s
    now, migrations = await ours.model(), await moves(start_s)
    first = int(start_s // STEP_S * STEP_S)
    cpu_pct = np.full((math.ceil((over - first) / STEP_S), now.instances), np.nan, np.float32)
    for begin in range(first, math.ceil(over), HOUR_S):  # a day of a large cloud is too much for one answer
        end = min(begin + HOUR_S, over)
        fill(cpu_pct, await ours.recorder.samples("instance_cpu_usage", "instance", begin, end), now, first)
    switches = [
        Switch(action.finished_at.timestamp(), str(wanted["resource_name"]), SWITCHES[action.action_type], on)
        for action in await ours.store.list(Action, {"action_type": list(SWITCHES), "state": ActionState.SUCCEEDED})
        if action.finished_at is not None and "resource_name" in (wanted := action.input_parameters)
        for on in [wanted.get("state") in ("enabled", "on")]
    ]
    window = Window(start_s, over, start_s, end_s)
    history = History(first, STEP_S, cpu_pct)
    return await asyncio.to_thread(score_recorded, now, migrations, switches, history, window)


def _cloud_time(
    pace: PacedClock | WallClock, moments: list[datetime], pick: Callable[[list[datetime]], datetime]
) -> float | None:
    return pace.of_wall(pick(moments).timestamp()) if moments else None
