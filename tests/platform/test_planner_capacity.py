"""The capacity planner: whatever order and overlap a plan is carried out in, no host is ever overfull."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import PlanError
from trimtab.platform.model import ClusterModel
from trimtab.platform.planner import PLANNERS, plan_capacity
from trimtab.platform.proposal import Act, Candidate, Limits, Migrate, Plan, PlannedAction, Step

SERVICE = "change_nova_service_state"


def cluster(
    capacity: Sequence[float],
    hosts: Sequence[int],
    sizes: Sequence[float],
    *,
    groups: Sequence[str] = (),
    policies: dict[str, str] | None = None,
    zones: Sequence[str] = (),
    pinned: Sequence[str] = (),
    off: Sequence[int] = (),
    memory: Sequence[float] = (),
) -> ClusterModel:
    """Hosts of so many vCPUs (memory and disk in step), instances of such sizes on given hosts."""
    count = len(sizes)
    ram = [float(m) for m in memory] or [float(s) * 1024 for s in sizes]
    nodes = pa.table(
        {
            "uuid": [f"host-id-{n}" for n in range(len(capacity))],
            "hostname": [f"host{n}" for n in range(len(capacity))],
            "vcpus": pa.array([float(c) for c in capacity], pa.float64()),
            "memory_mb": pa.array([float(c) * 1024 for c in capacity], pa.float64()),
            "disk_gb": pa.array([float(c) * 10 for c in capacity], pa.float64()),
            "zone": list(zones) or ["nova"] * len(capacity),
            "status": ["disabled" if n in off else "enabled" for n in range(len(capacity))],
        }
    )
    instances = pa.table(
        {
            "uuid": pa.array([f"id-{n}" for n in range(count)], pa.string()),
            "name": pa.array([f"vm{n}" for n in range(count)], pa.string()),
            "node": pa.array([f"host-id-{h}" for h in hosts], pa.string()),
            "vcpus": pa.array([float(s) for s in sizes], pa.float64()),
            "memory_mb": pa.array(ram, pa.float64()),
            "disk_gb": pa.array([float(s) * 5 for s in sizes], pa.float64()),
            "group": pa.array(list(groups) or [""] * count, pa.string()),
            "pinned_zone": pa.array(list(pinned) or [""] * count, pa.string()),
        }
    )
    policies = policies or {}
    table = pa.table(
        {"uuid": pa.array(list(policies), pa.string()), "policy": pa.array(list(policies.values()), pa.string())}
    )
    return ClusterModel.from_arrow(nodes, instances, table)


def plan(model: ClusterModel, *steps: Step) -> Plan:
    return plan_capacity(model, Candidate(steps), Limits())


def route(action: PlannedAction) -> tuple[int, int, int]:
    return action.instance, action.source, action.destination


def routes(made: Plan) -> list[tuple[int, int, int]]:
    return [route(action) for action in made.actions if action.instance >= 0]


def parents_of(made: Plan, instance: int) -> list[tuple[int, int, int]]:
    """Routes of the parents of an instance's (last) move."""
    action = [action for action in made.actions if action.instance == instance][-1]
    return [route(made.actions[parent]) for parent in action.parents]


def carry_out(model: ClusterModel, made: Plan, rng: random.Random, *, failing: float = 0.0) -> np.ndarray:
    """Carry a plan out in a random order with random overlaps, checking every rule whenever an action starts.

    A failed action leaves its instance where it was; what needs its room is skipped, as the applier does.
    """
    demand, capacity = model.demand, model.capacity
    where = model.host_of.copy()
    present: list[set[int]] = [set(np.flatnonzero(where == host).tolist()) for host in range(model.hosts)]
    final = model.host_of.copy()
    for action in made.actions:
        if action.instance >= 0:
            final[action.instance] = action.destination
    todo, running, done, lost = set(range(len(made.actions))), set[int](), set[int](), set[int]()
    while todo or running:
        ready = [n for n in todo if all(parent in done for parent in made.actions[n].parents)]
        starting = bool(ready) and (not running or rng.random() < 0.6)
        if not starting:
            n = rng.choice(sorted(running))
            running.remove(n)
            done.add(n)
            action = made.actions[n]
            if action.instance < 0:
                continue
            if rng.random() < failing:
                lost.add(n)
                present[action.destination].discard(action.instance)
            else:
                where[action.instance] = action.destination
                present[action.source].discard(action.instance)
            continue
        n = rng.choice(sorted(ready))
        todo.remove(n)
        action = made.actions[n]
        if action.instance >= 0 and (where[action.instance] != action.source or lost & set(action.needs_room_of)):
            assert failing, f"{action} finds its instance on {where[action.instance]}"
            done.add(n)
            lost.add(n)
            continue
        running.add(n)
        if action.instance < 0:
            continue
        need = demand[action.instance]
        used = sum((demand[i] for i in present[action.destination]), np.zeros(3)) + need
        asked = need > 0
        assert (used[asked] <= capacity[action.destination][asked] + 1e-6).all(), f"no room for {action} in {made}"
        group = model.group[action.instance]
        if group >= 0 and model.group_policy[group] == 1:
            for peer in present[action.destination] - {action.instance}:
                both_stay = final[peer] == action.destination == final[action.instance]
                assert model.group[peer] != group or both_stay, f"{action} joins a peer in {made}"
        if action.destination != final[action.instance]:
            zone = model.pinned_zone[action.instance]
            assert model.usable[action.destination]
            assert zone < 0 or model.zone.codes[action.destination] == zone
        present[action.destination].add(action.instance)
    return where


def order_exists(model: ClusterModel, targets: dict[int, int]) -> bool:
    """Whether the moves can be done one after another, each with room and without meeting a peer: by trying all."""
    demand, capacity = model.demand, model.capacity

    @cache
    def go(left: frozenset[int]) -> bool:
        if not left:
            return True
        where = [int(h) if i in left or i not in targets else targets[i] for i, h in enumerate(model.host_of)]
        for i in left:
            to = targets[i]
            there = [j for j in range(model.instances) if where[j] == to]
            used = demand[there].sum(axis=0) + demand[i]
            asked = demand[i] > 0
            group = model.group[i]
            met = group >= 0 and model.group_policy[group] == 1 and any(model.group[j] == group for j in there)
            if (used[asked] <= capacity[to][asked] + 1e-6).all() and not met and go(left - {i}):
                return True
        return False

    return go(frozenset(targets))


@st.composite
def puzzles(draw: st.DrawFn) -> tuple[ClusterModel, tuple[Migrate, ...]]:
    """A small cluster, often full or overfull, and a random wish: swaps, circles, impossible things, moves in steps."""
    count = draw(st.integers(2, 5))
    hosts = draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=8))
    sizes = draw(st.lists(st.sampled_from([1, 1, 2, 3, 0.5, 1.1]), min_size=len(hosts), max_size=len(hosts)))
    memory = draw(st.lists(st.sampled_from([0, 512, 1024, 2048]), min_size=len(hosts), max_size=len(hosts)))
    load = [sum(s for s, h in zip(sizes, hosts, strict=True) if h == n) for n in range(count)]
    ram = [sum(m for m, h in zip(memory, hosts, strict=True) if h == n) / 1024 for n in range(count)]
    spare = draw(st.lists(st.sampled_from([0, 0, 0, 1, 2, -1, 1.1]), min_size=count, max_size=count))
    capacity = [max(0.0, max(a, b) + extra) for a, b, extra in zip(load, ram, spare, strict=True)]
    groups = draw(st.lists(st.sampled_from(["", "", "a", "b", "c"]), min_size=len(hosts), max_size=len(hosts)))
    zones = draw(st.lists(st.sampled_from(["east", "west"]), min_size=count, max_size=count))
    pinned = [draw(st.sampled_from(["", zones[h]])) for h in hosts]
    model = cluster(
        capacity,
        hosts,
        sizes,
        groups=groups,
        policies={"a": "anti-affinity", "b": "affinity", "c": "anti-affinity"},
        zones=zones,
        pinned=pinned,
        off=draw(st.lists(st.integers(0, count - 1), max_size=1)),
        memory=memory,
    )
    steps: list[Migrate] = []
    style = draw(st.sampled_from(["any", "shuffle", "steps"]))
    if style == "shuffle":  # same places, other instances: circles
        for instance, to in enumerate(draw(st.permutations(hosts))):
            steps.append(Migrate(instance, to))
    else:
        for instance in draw(st.permutations(range(len(hosts)))):
            most = 2 if style == "steps" else 1
            stops = draw(st.lists(st.integers(0, count - 1), max_size=most))
            steps += [Migrate(instance, to) for to in stops]
    return model, tuple(steps)


def wishes(model: ClusterModel, steps: Sequence[Migrate]) -> dict[int, int]:
    last = {step.instance: step.destination for step in steps}
    return {instance: to for instance, to in last.items() if to != model.host_of[instance]}


@settings(max_examples=250, deadline=None)
@given(puzzles(), st.integers(0, 2**20))
def test_never_overfills_a_host_in_any_order_or_overlap(
    puzzle: tuple[ClusterModel, tuple[Migrate, ...]], seed: int
) -> None:
    model, steps = puzzle
    wanted = wishes(model, steps)
    try:
        made = plan(model, *steps)
    except PlanError:
        assert wanted
        assert not any(order_exists(model, {instance: to}) for instance, to in wanted.items())
        return
    left_out = {i for i in wanted if any(note.startswith(f"instance vm{i} stays on") for note in made.notes)}
    by_way = {i for i in wanted if any(note.startswith(f"instance vm{i} goes by way") for note in made.notes)}
    for n, action in enumerate(made.actions):
        assert all(parent < n for parent in action.parents)
        assert set(action.needs_room_of) <= set(action.parents)
    expected = model.host_of.copy()
    for instance, to in wanted.items():
        if instance not in left_out:
            expected[instance] = to
    rng = random.Random(seed)
    for _ in range(5):
        assert carry_out(model, made, rng).tolist() == expected.tolist()
        carry_out(model, made, rng, failing=0.3)
    counts = np.bincount([r[0] for r in routes(made)], minlength=model.instances)
    assert set(np.flatnonzero(counts > 1).tolist()) == by_way
    assert set(np.flatnonzero(counts > 0).tolist()) == set(wanted) - left_out
    if left_out or by_way:
        assert not order_exists(model, wanted)
    after = model.with_changes(host_of=expected)
    assert not any(order_exists(after, {instance: wanted[instance]}) for instance in left_out)


def test_moves_with_room_need_nobody() -> None:
    model = cluster([4, 4, 4], [0, 0, 1], [1, 1, 1])
    made = plan(model, Migrate(0, 1), Migrate(1, 2), Migrate(2, 0))
    assert routes(made) == [(0, 0, 1), (1, 0, 2), (2, 1, 0)]
    assert all(action.parents == () for action in made.actions)
    assert made.notes == ()


def test_a_move_waits_only_for_the_departure_whose_room_it_takes() -> None:
    model = cluster([2, 2, 4], [0, 0, 1, 1], [1, 1, 1, 1])
    made = plan(model, Migrate(0, 1), Migrate(2, 2), Migrate(3, 2))
    assert len(parents_of(made, 0)) == 1
    action = next(action for action in made.actions if action.instance == 0)
    assert action.needs_room_of == action.parents


def test_the_room_of_one_large_departure_serves_several_arrivals() -> None:
    model = cluster([4, 4, 4], [0, 1, 1, 1], [4, 1, 1, 2])
    made = plan(model, Migrate(1, 0), Migrate(2, 0), Migrate(3, 0), Migrate(0, 2))
    assert all(parents_of(made, n) == [(0, 0, 2)] for n in (1, 2, 3))


def test_one_large_arrival_waits_for_several_departures_and_the_free_room_first() -> None:
    model = cluster([4, 4, 4], [0, 1, 1], [4, 1, 2])
    made = plan(model, Migrate(0, 1), Migrate(1, 2), Migrate(2, 2))
    assert sorted(parents_of(made, 0)) == [(1, 1, 2), (2, 1, 2)]


def test_whom_others_wait_for_gets_the_free_room_before_those_nobody_waits_for() -> None:
    # host1 has one free place: vm0 nobody waits for, but vm2 waits for vm1 to leave host2.
    model = cluster([4, 2, 1, 1], [0, 2, 3, 1], [1, 1, 1, 1])
    made = plan(model, Migrate(0, 1), Migrate(1, 1), Migrate(2, 2), Migrate(3, 3))
    assert parents_of(made, 1) == []
    assert parents_of(made, 2) == [(1, 2, 1)]
    assert parents_of(made, 0) == [(3, 1, 3)]
    assert made.notes == ()


def test_whom_others_wait_for_goes_first_in_a_long_circle_too() -> None:
    # vm1 .. vm20 move round a circle of 20 hosts; only the host vm1 wants has a free place, and vm0 wants it as well.
    model = cluster([4, 2, *[1] * 19], range(21), [1] * 21)
    circle = [Migrate(n, n - 1 if n > 1 else 20) for n in range(2, 21)]
    made = plan(model, Migrate(0, 1), *circle, Migrate(1, 20))
    assert made.notes == ()
    assert len(made.actions) == 21
    assert parents_of(made, 2) == []
    assert parents_of(made, 0) == [(1, 1, 20)]


def test_of_two_that_others_wait_for_the_one_that_keeps_the_way_open_goes_first() -> None:
    # host0 has one place: vm1 first lets vm0 and then vm2 in; vm2 first would make a circle of vm0 and vm1.
    model = cluster([2, 1, 1, 1], [0, 1, 2, 3], [1, 1, 1, 1])
    made = plan(model, Migrate(2, 0), Migrate(3, 2), Migrate(1, 0), Migrate(0, 1))
    assert made.notes == ()
    assert sorted(routes(made)) == [(0, 0, 1), (1, 1, 0), (2, 2, 0), (3, 3, 2)]
    assert parents_of(made, 2) == [(0, 0, 1)]


def test_two_full_hosts_swap_by_way_of_the_host_with_room_and_the_smaller_instance_takes_the_detour() -> None:
    model = cluster([4, 4, 4], [0, 1], [4, 4], memory=[4096, 2048])
    made = plan(model, Migrate(0, 1), Migrate(1, 0))
    assert routes(made) == [(1, 1, 2), (0, 0, 1), (1, 2, 0)]
    assert parents_of(made, 0) == [(1, 1, 2)]
    assert sorted(parents_of(made, 1)) == [(0, 0, 1), (1, 1, 2)]
    assert len(made.notes) == 1
    assert "vm1" in made.notes[0]
    assert "host2" in made.notes[0]


def test_full_hosts_that_exchange_everything_in_pairs_take_one_detour_a_pair() -> None:
    home = [host for host in range(40) for _ in range(3)]
    model = cluster([3] * 40 + [2], home, [1] * 120)
    made = plan(model, *(Migrate(n, host ^ 1) for n, host in enumerate(home)))
    assert len(made.notes) == 20
    assert len(made.actions) == 140
    assert carry_out(model, made, random.Random(4)).tolist() == [host ^ 1 for host in home]


def test_a_circle_of_three_full_hosts_takes_one_detour() -> None:
    model = cluster([1, 1, 1, 1], [0, 1, 2], [1, 1, 1])
    made = plan(model, Migrate(0, 1), Migrate(1, 2), Migrate(2, 0))
    assert len(made.actions) == 4
    assert carry_out(model, made, random.Random(1)).tolist() == [1, 2, 0]


def test_moves_that_only_wait_for_a_circle_take_no_detour() -> None:
    # vm0 and vm1 swap; vm2 (the smallest) wants to where vm3 is, which wants into the swap's room.
    model = cluster([2, 2, 1, 1, 2], [0, 1, 2, 3], [2, 1, 1, 1], memory=[2048, 1024, 10, 10])
    made = plan(model, Migrate(0, 1), Migrate(1, 0), Migrate(3, 0), Migrate(2, 3))
    assert [note for note in made.notes if "by way" in note and "vm1" not in note] == []
    assert carry_out(model, made, random.Random(2)).tolist() == [1, 0, 3, 0]


def test_a_circle_without_a_third_host_is_left_out_by_name_and_the_rest_is_done() -> None:
    model = cluster([1, 1, 4, 1], [0, 1, 2], [1, 1, 1], off=[2, 3])
    made = plan(model, Migrate(0, 1), Migrate(1, 0), Migrate(2, 3))
    assert routes(made) == [(2, 2, 3)]
    assert len(made.notes) == 2
    assert "vm0 stays on host host0" in made.notes[0]
    assert "vm1 stays on host host1" in made.notes[1]


def test_nothing_possible_is_an_error_that_says_who_stays() -> None:
    model = cluster([1, 1], [0, 1], [1, 1])
    with pytest.raises(PlanError, match="none of the 2 steps can be done safely: instance vm0 stays on host host0"):
        plan(model, Migrate(0, 1), Migrate(1, 0))


def test_a_detour_obeys_the_zone_and_the_state_of_hosts() -> None:
    model = cluster([1, 1, 4, 4, 1], [0, 1], [1, 1], zones=["a", "a", "b", "a", "a"], pinned=["a", "a"], off=[3])
    made = plan(model, Migrate(0, 1), Migrate(1, 0))
    assert {destination for _, _, destination in routes(made)} == {0, 1, 4}


def test_a_detour_stays_away_from_hosts_where_a_peer_is_or_comes() -> None:
    anti = {"a": "anti-affinity"}
    model = cluster([1, 1, 9, 8, 7], [0, 1, 2], [1, 1, 1], groups=["a", "a", "a"], policies=anti)
    made = plan(model, Migrate(0, 1), Migrate(1, 0), Migrate(2, 3))
    assert [note for note in made.notes if "by way of host host4" in note] == list(made.notes) != []


def test_a_member_of_an_affinity_group_takes_no_detour_away_from_the_others() -> None:
    model = cluster([2, 1, 9], [0, 0, 1], [1, 1, 1], groups=["b", "b", ""], policies={"b": "affinity"})
    made = plan(model, Migrate(0, 1), Migrate(2, 0))
    assert routes(made) == [(2, 1, 2), (0, 0, 1), (2, 2, 0)]
    both = cluster(
        [2, 2, 9], [0, 0, 1, 1], [1, 1, 1, 1], groups=["b", "b", "c", "c"], policies={"b": "affinity", "c": "affinity"}
    )
    with pytest.raises(PlanError, match="none of the 4 steps"):
        plan(both, Migrate(0, 1), Migrate(1, 1), Migrate(2, 0), Migrate(3, 0))


def test_an_overfull_host_takes_nobody_in_before_it_is_back_within_its_capacity() -> None:
    model = cluster([3, 9, 9], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1])
    made = plan(model, Migrate(4, 0), Migrate(0, 2), Migrate(1, 2))
    assert sorted(parents_of(made, 4)) == [(0, 0, 2), (1, 0, 2)]


def test_members_of_an_anti_affinity_group_swap_by_way_of_a_third_host() -> None:
    model = cluster([9, 9, 9], [0, 1], [1, 1], groups=["a", "a"], policies={"a": "anti-affinity"})
    made = plan(model, Migrate(0, 1), Migrate(1, 0))
    assert len(made.actions) == 3
    assert carry_out(model, made, random.Random(3)).tolist() == [1, 0]


def test_a_member_arrives_after_the_other_member_left() -> None:
    model = cluster([9, 9, 9], [0, 1], [1, 1], groups=["a", "a"], policies={"a": "anti-affinity"})
    made = plan(model, Migrate(0, 1), Migrate(1, 2))
    assert parents_of(made, 0) == [(1, 1, 2)]
    soft = cluster([9, 9, 9], [0, 1], [1, 1], groups=["a", "a"], policies={"a": "soft-anti-affinity"})
    assert parents_of(plan(soft, Migrate(0, 1), Migrate(1, 2)), 0) == []


def test_several_moves_of_an_instance_become_one_or_none() -> None:
    model = cluster([9, 9, 9], [0, 1], [1, 1])
    made = plan(model, Migrate(0, 1), Migrate(1, 2), Migrate(0, 2, live=False), Migrate(1, 1))
    assert routes(made) == [(0, 0, 2)]
    assert made.actions[0].parameters == {
        "migration_type": "cold",
        "resource_id": "id-0",
        "resource_name": "vm0",
        "source_node": "host0",
        "destination_node": "host2",
    }
    assert plan(model, Migrate(1, 2), Migrate(1, 1)) == Plan(())


def test_the_cloud_may_choose_the_destination() -> None:
    model = cluster([1, 9], [0, 1], [1, 1])
    made = plan(model, Act(SERVICE, "s", {"state": "disabled"}, host=0), Migrate(0, -1))
    assert "destination_node" not in made.actions[1].parameters
    assert made.actions[1].parents == (0,)


def test_service_acts_keep_their_place_among_the_moves_that_touch_their_host() -> None:
    model = cluster([9, 9, 9], [0, 0, 1, 1], [1, 1, 1, 1], off=[2])
    made = plan(
        model,
        Act(SERVICE, "s2", {"state": "enabled", "resource_name": "host2"}, host=2),
        Migrate(0, 2),
        Act(SERVICE, "s1", {"state": "disabled", "resource_name": "host1"}, host=1),
        Migrate(2, 0),
        Migrate(1, 2),
        Act(SERVICE, "s0", {"state": "disabled", "resource_name": "host0"}, host=0),
    )
    acts = {action.host: n for n, action in enumerate(made.actions) if action.host >= 0}
    where = {action.instance: n for n, action in enumerate(made.actions) if action.instance >= 0}
    assert made.actions[acts[2]].parents == ()
    assert made.actions[acts[2]].parameters == {"state": "enabled", "resource_name": "host2", "resource_id": "s2"}
    assert made.actions[acts[1]].parents == ()
    assert made.actions[where[0]].parents == (acts[2],)
    assert made.actions[where[1]].parents == (acts[2],)
    assert made.actions[where[2]].parents == (acts[1],)
    assert set(made.actions[acts[0]].parents) == {where[0], where[1], where[2]}


def test_a_host_is_not_disabled_when_an_instance_that_should_have_left_stays() -> None:
    model = cluster([1, 1, 9], [0, 1, 2], [1, 1, 1], off=[2])
    made = plan(
        model,
        Migrate(0, 1),
        Act(SERVICE, "s0", {"state": "disabled"}, host=0),
        Act(SERVICE, "s2", {"state": "enabled"}, host=2),
    )
    assert [action.host for action in made.actions] == [2]
    assert any("host0 is left out" in note for note in made.notes)


def test_other_acts_keep_their_order_where_it_matters_and_with_the_instance_they_name() -> None:
    model = cluster([9, 9], [0, 0], [1, 1])
    made = plan(
        model,
        Act("nop", None, {"message": "first"}),
        Act("stop", "id-1", {}),
        Migrate(0, 1),
        Migrate(1, 1, live=False),
        Act("resize", "id-0", {"flavor": "m1"}),
    )
    at = {action.action_type: n for n, action in enumerate(made.actions) if action.instance < 0}
    where = {action.instance: n for n, action in enumerate(made.actions) if action.instance >= 0}
    assert made.actions[at["stop"]].parents == (at["nop"],)
    assert made.actions[at["stop"]].parameters == {"resource_id": "id-1"}
    assert made.actions[where[0]].parents == ()
    assert made.actions[where[1]].parents == (at["stop"],)
    assert set(made.actions[at["resize"]].parents) == {at["nop"], where[0]}


def test_volumes_move_two_at_a_time_to_a_pool_and_never_while_their_instance_moves() -> None:
    model = cluster([9, 9], [0, 0], [1, 1])

    def volume(number: int, pool: str, *instances: int) -> Act:
        wanted = {"migration_type": "migrate", "destination_node": pool}
        return Act("volume_migrate", f"volume-{number}", wanted, instances=instances)

    steps: list[Step] = [
        volume(0, "a", 0),
        Migrate(0, 1),
        volume(1, "a"),
        volume(2, "a"),
        volume(3, "b"),
        Migrate(1, 1),
    ]
    made = plan(model, *steps, volume(4, "b", 1), Act("nop", None, {"message": "last"}))
    at = {action.parameters.get("resource_id", "nop"): n for n, action in enumerate(made.actions)}
    before = {name: {list(at)[list(at.values()).index(p)] for p in made.actions[n].parents} for name, n in at.items()}
    assert before["volume-0"] == before["volume-1"] == before["volume-3"] == set()
    assert before["id-0"] == {"volume-0"}
    assert before["volume-2"] == {"volume-0"}
    assert before["volume-4"] == {"id-1"}
    assert before["nop"] == {f"volume-{n}" for n in range(5)}


def test_a_power_off_waits_until_its_host_is_empty_and_disabled_and_is_left_out_when_it_is_not() -> None:
    turn = Act("change_node_power_state", "metal-0", {"state": "off", "resource_name": "host0"}, host=0)
    model = cluster([1, 1], [0], [1])
    made = plan(model, Migrate(0, 1), Act(SERVICE, "s0", {"state": "disabled"}, host=0), turn)
    assert [(a.action_type, a.parents) for a in made.actions] == [
        ("migrate", ()),
        (SERVICE, (0,)),
        ("change_node_power_state", (1,)),
    ]
    full = cluster([1, 1], [0, 1], [1, 1])
    kept = plan(full, Migrate(0, 1), turn, Act("nop", None, {"message": "hello"}))
    assert [action.action_type for action in kept.actions] == ["nop"]


def test_a_wire_migration_among_the_acts_is_planned_like_any_move() -> None:
    model = cluster([1, 1, 1], [0, 1], [1, 1])
    wire = {"migration_type": "live", "source_node": "host0", "destination_node": "host1"}
    made = plan(model, Act("migrate", "id-0", wire), Migrate(1, 2))
    assert parents_of(made, 0) == [(1, 1, 2)]
    odd = plan(model, Act("migrate", "id-0", wire | {"source_node": "host2"}), Migrate(1, 2))
    assert [action.instance for action in odd.actions] == [-1, 1]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Migrate(7, 0), "row 7 to row 0: the model has 2 instances and 2 hosts"),
        (Migrate(0, 9), "row 0 to row 9"),
        (Act(SERVICE, "s9", {"state": "enabled"}, host=9), "of host row 9: the model has 2 hosts; name one of them"),
        (Act(SERVICE, "a", {"resource_id": "b"}), "resource_id is 'b' but the action's own is 'a'"),
    ],
)
def test_impossible_steps_are_named(step: Step, message: str) -> None:
    model = cluster([1, 1], [0, 1], [1, 1])
    for planner in PLANNERS.values():
        with pytest.raises(PlanError, match=message):
            planner(model, Candidate((step,)), Limits())


def test_an_instance_on_no_host_cannot_be_moved() -> None:
    model = cluster([1, 1], [0], [1])
    model = model.with_changes(host_of=np.array([-1], np.int32))
    with pytest.raises(PlanError, match="instance vm0 is on no host"):
        plan(model, Migrate(0, 1))


def test_an_empty_candidate_gives_an_empty_plan_and_keeps_its_notes() -> None:
    model = cluster([1], [0], [1])
    for planner in PLANNERS.values():
        assert planner(model, Candidate((), notes=("nothing to do",)), Limits()) == Plan((), ("nothing to do",))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**20))
def test_large_full_clusters_are_planned_safely_too(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hosts = np.repeat(np.arange(40), 5)
    sizes = np.tile([1, 1, 1, 2, 3], 40)
    spare = rng.integers(0, 2, 40)
    model = cluster((8 + spare).tolist(), hosts.tolist(), sizes.tolist())
    target = hosts.copy()
    for size in (1, 2, 3):
        rows = np.flatnonzero(sizes == size)
        target[rows] = hosts[rng.permutation(rows)]
    steps = [Migrate(int(i), int(target[i])) for i in rng.permutation(200) if target[i] != hosts[i]]
    made = plan(model, *steps)
    expected = model.host_of.copy()
    for step in steps:
        if not any(note.startswith(f"instance vm{step.instance} stays") for note in made.notes):
            expected[step.instance] = step.destination
    assert carry_out(model, made, random.Random(seed)).tolist() == expected.tolist()
    carry_out(model, made, random.Random(seed), failing=0.1)
    assume(spare.any())
    assert len(made.actions) > 100
