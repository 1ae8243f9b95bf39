"""Several engines and appliers on one store: everything is done, and nothing twice, whoever dies when."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.platform.engine_stage import Stage

from trimtab.platform.applier import serve_plans
from trimtab.platform.contracts import Tools
from trimtab.platform.engine import serve_audits
from trimtab.platform.lease import cancelled
from trimtab.platform.records import Action, ActionPlan, Audit, Event
from trimtab.platform.store.port import StorePort

FIND_ONLY = (Phase.explicit, Phase.reuse, Phase.generate)  # a smaller case would take long to find and say no more
ACTS = [{"action_type": "nop", "input_parameters": {"message": str(n)}} for n in range(3)]
PARAMETERS = {"actions": [*ACTS, {"action_type": "sleep", "input_parameters": {"duration": 5.0}}]}


def slow_port(stage: Stage, chance: Random) -> StorePort:
    """A port whose questions take a few turns to arrive and to be answered, so that askers get in each other's way."""
    plain = StorePort.direct(stage.store)

    async def call(method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        answer = await plain._call(method, arguments, named)
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        return answer

    return StorePort(call)


def an_engine(stage: Stage, host: str, chance: Random) -> Any:
    parts = stage.parts(host, takes_s=4.0, store=slow_port(stage, chance), lease_s=9.0)
    return serve_audits(parts, asyncio.Event(), idle_s=3.0, look_s=6.0)


def an_applier(stage: Stage, host: str, chance: Random) -> Any:
    parts = stage.parts()
    # None of these actions asks a cloud for anything.
    tools = Tools(cloud=None, clock=stage.clock, wall=stage.clock)  # type: ignore[arg-type]
    options: dict[str, Any] = {"handlers": parts.plugins.actions, "tools": tools, "limits": parts.limits}
    port = slow_port(stage, chance)
    return serve_plans(port, f"applier@{host}", wake=asyncio.Event(), lease_s=9.0, workers=2, idle_s=2.0, **options)


def count(stage: Stage, kind: str, event: str) -> Counter[str]:
    """How often something happened to each record of a kind."""
    events: list[Event] = stage.store.events(limit=100_000)
    return Counter(e.record_uuid for e in events if (e.record_kind, e.event) == (kind, event))


def some_audits(stage: Stage) -> tuple[list[str], list[str], str]:
    """ONESHOT and EVENT audits whose plans are launched at once, and a CONTINUOUS one."""
    acting: dict[str, Any] = {"goal": "unclassified", "strategy": "actuator", "parameters": PARAMETERS}
    acting |= {"auto_trigger": True, "force": True}
    oneshot = [stage.audit(**acting) for _ in range(4)]
    event = [stage.audit("EVENT", triggered_at=stage.moment(), **acting) for _ in range(2)]
    return oneshot, event, stage.audit("CONTINUOUS", interval="20", force=True)


def nothing_twice(stage: Stage, once: list[str]) -> None:
    for uuid in once:
        assert stage.of(uuid).state == "SUCCEEDED"
        assert [plan.state for plan in stage.plans(uuid)] == ["SUCCEEDED"]
    for plan in stage.store.list(ActionPlan):
        states = [action.state for action in stage.actions(plan)]
        assert set(states) == ({"SUCCEEDED"} if plan.state == "SUCCEEDED" else {"PENDING"})
    assert set(count(stage, "action", "begin").values()) == {1}
    assert set(count(stage, "action", "succeed").values()) == {1}
    assert set(count(stage, "action_plan", "succeed").values()) == {1}
    assert len(count(stage, "action", "begin")) == stage.store.count(Action, {"state": "SUCCEEDED"})


async def until(stage: Stage, done: Callable[[], bool], within_s: float) -> None:
    end = stage.clock.now() + within_s
    while not done():
        assert stage.clock.now() < end, [(audit.state, audit.status_message) for audit in stage.store.list(Audit)]
        await stage.clock.sleep(1.0)


@settings(max_examples=2, deadline=None, phases=FIND_ONLY)
@given(st.integers(0, 1_000_000))
async def test_two_engines_and_two_appliers_share_all_work_and_do_nothing_twice(seed: int) -> None:
    stage, chance = Stage(), Random(seed)
    oneshot, event, continuous = some_audits(stage)
    works = [an_engine(stage, "a", chance), an_engine(stage, "b", chance)]
    works += [an_applier(stage, "a", chance), an_applier(stage, "b", chance)]
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await stage.clock.sleep(70)
        assert not any(task.done() for task in tasks)
    finally:
        await cancelled(tasks)
    nothing_twice(stage, [*oneshot, *event])
    runs = count(stage, "audit", "strategy.start")
    assert [runs[uuid] for uuid in (*oneshot, *event)] == [1] * 6
    assert stage.runs(continuous) == [0, 20, 40, 60]
    assert {stage.of(uuid).hostname for uuid in (*oneshot, *event)} == {"a", "b"}, "both had work"
    stage.store.close()


@settings(max_examples=4, deadline=None, phases=FIND_ONLY)
@given(
    st.integers(0, 1_000_000),
    st.lists(st.tuples(st.sampled_from([0, 1, 2, 3]), st.floats(0.0, 25.0)), min_size=1, max_size=3),
)
async def test_whoever_dies_whenever_the_others_finish_and_no_plan_is_made_twice(
    seed: int, deaths: list[tuple[int, float]]
) -> None:
    stage, chance = Stage(), Random(seed)
    oneshot, event, continuous = some_audits(stage)
    kinds = [(an_engine, "a"), (an_engine, "b"), (an_applier, "a"), (an_applier, "b")]
    tasks = [asyncio.create_task(make(stage, host, chance)) for make, host in kinds]
    try:
        for who, when in sorted(deaths, key=lambda death: death[1]):
            await stage.clock.sleep(max(0.0, when - stage.since(stage.moment())))
            await cancelled([tasks[who]])
        for kind in (slice(0, 2), slice(2, 4)):  # a last one of each kind that lives
            if all(task.done() for task in tasks[kind]):
                make, _ = kinds[kind][0]
                tasks.append(asyncio.create_task(make(stage, "c", chance)))
        plans = {"state": ["RECOMMENDED", "PENDING", "ONGOING"], "strategy_id": 2}
        ended = ["SUCCEEDED"]
        await until(
            stage,
            lambda: (
                all(stage.of(uuid).state in ended for uuid in (*oneshot, *event))
                and not stage.store.count(ActionPlan, plans)
            ),
            within_s=200,
        )
    finally:
        await cancelled(tasks)
    nothing_twice(stage, [*oneshot, *event])
    assert stage.of(continuous).state == "ONGOING"
    recommended = [plan for plan in stage.plans(continuous) if plan.state == "RECOMMENDED"]
    assert len(recommended) <= 1
    stage.store.close()
