"""Any graph of actions is walked in an order it allows, and the limits hold at every moment."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.applier.walk import Slots, check_graph, hosts_of, walk
from trimtab.platform.clocks import VirtualClock
from trimtab.platform.errors import InvalidInput, PlanError
from trimtab.platform.proposal import Limits
from trimtab.platform.records import Action


def nop(uuid: str, *parents: str, state: str = "PENDING") -> Action:
    wanted = {"message": uuid}
    return Action(
        uuid=uuid, action_plan_id=1, action_type="nop", input_parameters=wanted, state=state, parents=[*parents]
    )


def move(uuid: str, source: str, destination: str | None, *parents: str) -> Action:
    wanted = {"source_node": source, "destination_node": destination}
    return replace(nop(uuid, *parents), action_type="migrate", input_parameters=wanted)


def parents_of(actions: Sequence[Action]) -> dict[str, list[str]]:
    return {action.uuid: action.parents for action in actions}


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Action], dict[str, float], Limits]:
    count = draw(st.integers(1, 14))
    hosts = [f"h{n}" for n in range(draw(st.integers(2, 5)))]
    actions, lasts = [], {}
    for number in range(count):
        uuid = f"a{number}"
        parents = [f"a{p}" for p in draw(st.sets(st.integers(0, number - 1), max_size=3))] if number else []
        if draw(st.booleans()):
            source, to = draw(st.permutations(hosts))[:2]
            actions.append(move(uuid, source, draw(st.sampled_from([to, None])), *parents))
        else:
            actions.append(nop(uuid, *parents))
        lasts[uuid] = draw(st.sampled_from([0.0, 1.0, 2.5, 60.0]))
    limits = Limits(migrations_per_host=draw(st.integers(1, 2)), migrations_total=draw(st.integers(1, 4)))
    return draw(st.permutations(actions)), lasts, limits


@given(graphs())
@settings(max_examples=120, deadline=None)
def test_every_graph_is_walked_parents_first_and_within_the_limits(
    case: tuple[list[Action], dict[str, float], Limits],
) -> None:
    actions, lasts, limits = case
    check_graph(actions)

    async def story() -> None:
        clock, running = VirtualClock(), set[str]()
        over: list[str] = []
        by_uuid = {action.uuid: action for action in actions}

        async def work(action: Action) -> None:
            assert set(action.parents) <= set(over)
            running.add(action.uuid)
            moving = [by_uuid[uuid] for uuid in running if by_uuid[uuid].action_type == "migrate"]
            assert len(moving) <= limits.migrations_total
            load = Counter(host for one in moving for host in hosts_of(one))
            assert max(load.values(), default=0) <= limits.migrations_per_host
            await clock.sleep(lasts[action.uuid])
            running.remove(action.uuid)
            over.append(action.uuid)

        left = await walk(actions, parents_of(actions), Slots(limits), work)
        assert left == []
        assert sorted(over) == sorted(by_uuid)

    asyncio.run(story())


@given(graphs())
@settings(max_examples=40, deadline=None)
def test_two_plans_share_one_set_of_limits(case: tuple[list[Action], dict[str, float], Limits]) -> None:
    actions, lasts, limits = case
    others = [
        replace(a, uuid=f"{a.uuid}-other", parents=[f"{p}-other" for p in a.parents]) for a in actions
    ]  # fmt: skip

    async def story() -> None:
        clock, slots, over, moving = VirtualClock(), Slots(limits), [], Counter[str]()

        async def work(action: Action) -> None:
            hosts = hosts_of(action)
            moving.update(hosts)
            assert max(moving.values(), default=0) <= limits.migrations_per_host
            await clock.sleep(lasts[action.uuid.removesuffix("-other")])
            moving.subtract(hosts)
            over.append(action.uuid)

        await asyncio.gather(*(walk(plan, parents_of(plan), slots, work) for plan in (actions, others)))
        assert len(over) == 2 * len(actions)

    asyncio.run(story())


async def test_independent_migrations_run_side_by_side() -> None:
    clock = VirtualClock()
    actions = [move(f"a{n}", f"from{n}", f"to{n}") for n in range(4)]

    async def work(_: Action) -> None:
        await clock.sleep(60)

    await walk(actions, {}, Slots(Limits(2, 4)), work)
    assert clock.now() == 60


async def test_a_busy_host_does_not_hold_up_the_others() -> None:
    clock, order = VirtualClock(), []
    actions = [move("a", "h1", "h2"), move("b", "h1", "h3"), move("c", "h4", "h5")]

    async def work(action: Action) -> None:
        order.append((action.uuid, clock.now()))
        await clock.sleep(10)

    await walk(actions, {}, Slots(Limits(1, 10)), work)
    assert order == [("a", 0), ("c", 0), ("b", 10)]


async def test_what_is_under_way_goes_on_at_once_whatever_the_limits_say() -> None:
    clock, order = VirtualClock(), []
    going = [replace(move(f"g{n}", "h1", "h2", "later"), state="ONGOING") for n in range(3)]
    actions = [nop("later"), *going, move("next", "h1", "h3")]

    async def work(action: Action) -> None:
        order.append((action.uuid, clock.now()))
        await clock.sleep(10)

    await walk(actions, parents_of(actions), Slots(Limits(1, 1)), work)
    assert sorted(order) == [("g0", 0), ("g1", 0), ("g2", 0), ("later", 0), ("next", 10)]


async def test_stopping_lets_run_what_runs_and_returns_the_rest() -> None:
    clock, over = VirtualClock(), []

    async def work(action: Action) -> None:
        await clock.sleep(5)
        over.append(action.uuid)

    async def may_start() -> bool:
        return clock.now() < 5

    actions = [nop("a"), nop("b"), nop("c", "a"), nop("d", "c")]
    left = await walk(actions, parents_of(actions), Slots(Limits()), work, may_start=may_start)
    assert sorted(over) == ["a", "b"]
    assert [action.uuid for action in left] == ["c", "d"]


async def test_what_is_final_needs_no_work_and_opens_the_way() -> None:
    over = []

    async def work(action: Action) -> None:
        over.append(action.uuid)

    actions = [nop("a", state="SUCCEEDED"), nop("b", "a", state="FAILED"), nop("c", "b")]
    await walk(actions, parents_of(actions), Slots(Limits()), work, idle=lambda action: action.state != "PENDING")
    assert over == ["c"]


async def test_an_error_in_the_machinery_ends_the_walk_and_everything_in_it() -> None:
    clock, slots, ended = VirtualClock(), Slots(Limits()), []

    async def work(action: Action) -> None:
        try:
            await clock.sleep(1 if action.uuid == "a" else 100)
            raise OSError("the disk is full")
        finally:
            ended.append(action.uuid)

    with pytest.raises(OSError, match="disk"):
        await walk([nop("a"), nop("b")], {}, slots, work)
    assert ended == ["a", "b"]
    assert clock.now() == 1
    assert slots.free_for(nop("c"))


def test_limits_below_one_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no plan would ever end"):
        Slots(Limits(0, 5))


def test_a_cycle_or_an_unknown_parent_is_named() -> None:
    check_graph([nop("a"), nop("b", "a")])
    with pytest.raises(PlanError, match="has a parent nobody"):
        check_graph([nop("a", "nobody")])
    with pytest.raises(PlanError, match="cycle"):
        check_graph([nop("a"), nop("b", "c"), nop("c", "b")])
