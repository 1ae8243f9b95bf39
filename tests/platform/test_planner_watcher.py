"""Watcher's two other planners: their edges, and the capacity planner's beneath them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from trimtab.platform.errors import PlanError
from trimtab.platform.model import ClusterModel
from trimtab.platform.planner import PLANNERS
from trimtab.platform.plugins import load
from trimtab.platform.proposal import Act, Candidate, Limits, Migrate, Plan, Step

SEEDS = some.integers(0, 2**32 - 1)
TYPES = ("resize", "sleep", "nop", "stop", "volume_migrate", "change_node_power_state")


def cluster(capacity: list[float], guests: list[tuple[int, float]]) -> ClusterModel:
    """Hosts with so many vCPUs, instances (host, vCPUs)."""
    names = [f"h{n}" for n in range(len(capacity))]
    amounts = {"memory_mb": 1e6, "disk_gb": 1e6}
    return ClusterModel.from_arrow(
        pa.table(
            {"uuid": names, "hostname": names, "vcpus": capacity}
            | {name: [amount] * len(capacity) for name, amount in amounts.items()}
        ),
        pa.table(
            {
                "uuid": [f"v{n}" for n in range(len(guests))],
                "node": [names[host] for host, _ in guests],
                "vcpus": [size for _, size in guests],
                "memory_mb": [1.0] * len(guests),
                "disk_gb": [1.0] * len(guests),
            }
        ),
    )


ROOMY = cluster([99.0] * 4, [(0, 1.0), (0, 1.0), (1, 1.0), (1, 1.0)])


def service(host: int, state: str) -> Act:
    return Act("change_nova_service_state", f"h{host}", {"state": state}, host)


def plan(planner: str, *steps: Step, model: ClusterModel = ROOMY) -> Plan:
    return PLANNERS[planner](model, Candidate(steps), Limits())


def shape(made: Plan) -> list[tuple[str, tuple[int, ...]]]:
    return [(action.action_type, action.parents) for action in made.actions]


def test_entry_points_name_the_planners_of_the_table() -> None:
    assert dict(load().planners) == dict(PLANNERS)


# -- workload_stabilization ------------------------------------------------------------------------------------


def test_stabilization_nothing_waits_and_types_go_by_weight() -> None:
    """Part E: [migrate, nop] gives the nop first."""
    made = plan("workload_stabilization", Migrate(0, 2), Act("nop", None, {"message": "x"}), Migrate(2, 3))
    assert shape(made) == [("nop", ()), ("migrate", ()), ("migrate", ())]


def test_stabilization_a_resize_waits_for_the_migration_of_its_instance_only() -> None:
    """Part E: [migrate, resize of the same instance]; another instance's resize and a sleep wait for nobody."""
    steps = (
        Migrate(0, 2),
        Act("resize", "v0", {"flavor": "x2"}),
        Act("resize", "v3", {"flavor": "x2"}),
        Act("sleep", None, {"duration": 1.0}),
    )
    assert shape(plan("workload_stabilization", *steps)) == [
        ("sleep", ()),
        ("migrate", ()),
        ("resize", (1,)),
        ("resize", ()),
    ]


def test_stabilization_plans_the_types_watcher_has_no_weight_for() -> None:
    """Watcher raises KeyError, so that a plan with volumes can never be made; unknown types are named here."""
    for kind in ("volume_migrate", "stop", "change_node_power_state"):
        assert shape(plan("workload_stabilization", Act(kind, "x", {}), Act(kind, "y", {}))) == [(kind, ()), (kind, ())]
    with pytest.raises(
        PlanError, match="workload_stabilization planner does not know the action type 'TEST'; it knows"
    ):
        plan("workload_stabilization", Act("TEST", None, {}))


def test_stabilization_a_move_waits_for_room_at_its_destination() -> None:
    model = cluster([2.0, 2.0, 2.0], [(0, 2.0), (1, 2.0)])
    made = plan("workload_stabilization", Migrate(1, 0), Migrate(0, 2), model=model)
    assert [(action.instance, action.parents, action.needs_room_of) for action in made.actions] == [
        (0, (), ()),
        (1, (0,), (0,)),
    ]


def test_stabilization_a_host_is_disabled_after_what_leaves_it_when_the_candidate_says_so() -> None:
    """Watcher starts both at once: a drain that fails leaves the host disabled."""
    made = plan("workload_stabilization", Migrate(0, 2), Migrate(1, 2), service(0, "disabled"))
    assert shape(made) == [("migrate", ()), ("migrate", ()), ("change_nova_service_state", (0, 1))]


# -- node_resource_consolidation -------------------------------------------------------------------------------


def test_consolidation_disables_then_migrates_host_by_host_then_enables() -> None:
    """Part E: two disables, three migrations from two hosts, two enables, in that order and with those parents."""
    steps = (
        service(0, "disabled"),
        service(1, "disabled"),
        Migrate(0, 2),
        Migrate(1, 2),
        Migrate(2, 3),
        service(0, "enabled"),
        service(1, "enabled"),
    )
    made = plan("node_resource_consolidation", *steps)
    assert shape(made) == [
        ("change_nova_service_state", ()),
        ("change_nova_service_state", ()),
        ("migrate", (0, 1)),
        ("migrate", (0, 1, 2)),
        ("migrate", (0, 1)),
        ("change_nova_service_state", (3, 4)),
        ("change_nova_service_state", (3, 4)),
    ]


def test_consolidation_orders_a_mixed_candidate_by_phase() -> None:
    made = plan("node_resource_consolidation", Migrate(2, 3), service(0, "disabled"), Migrate(0, -1))
    assert shape(made) == [("change_nova_service_state", ()), ("migrate", (0,)), ("migrate", (0,))]
    assert [action.instance for action in made.actions] == [-1, 2, 0]


def test_consolidation_names_the_type_it_does_not_know() -> None:
    with pytest.raises(PlanError, match="action type 'nop'; it knows change_nova_service_state, migrate"):
        plan("node_resource_consolidation", Migrate(0, 2), Act("nop", None, {}))


def test_consolidation_what_the_candidate_disables_after_its_drain_is_disabled_after_it() -> None:
    """Watcher disables first, whatever the strategy said."""
    made = plan("node_resource_consolidation", Migrate(0, 2), Migrate(1, 2), service(0, "disabled"), Migrate(2, 3))
    kinds = [(action.instance, action.parents) for action in made.actions]
    assert kinds[:2] == [(0, ()), (1, (0,))]
    assert kinds[2] == (-1, (0, 1))
    assert kinds[3][0] == 2


def test_consolidation_a_host_that_must_be_enabled_first_is_enabled_first() -> None:
    made = plan("node_resource_consolidation", service(3, "enabled"), Migrate(0, 3))
    assert shape(made) == [("change_nova_service_state", ()), ("migrate", (0,))]


def test_consolidation_room_that_another_move_makes_is_waited_for() -> None:
    model = cluster([2.0, 2.0, 2.0], [(0, 2.0), (1, 2.0)])
    made = plan("node_resource_consolidation", Migrate(1, 0), Migrate(0, 2), model=model)
    assert [(action.instance, action.parents, action.needs_room_of) for action in made.actions] == [
        (0, (), ()),
        (1, (0,), (0,)),
    ]


# -- both ------------------------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(seed=SEEDS, planner=some.sampled_from(["workload_stabilization", "node_resource_consolidation"]))
def test_no_execution_that_the_graph_allows_overfills_a_host(seed: int, planner: str) -> None:
    """Actions start and end in random order as their parents allow; a moving instance counts on both its hosts."""
    rng = np.random.default_rng(seed)
    hosts = int(rng.integers(2, 6))
    room = np.full(hosts, 8.0)
    guests: list[tuple[int, float]] = []
    for _ in range(int(rng.integers(1, 12))):
        size = float(rng.integers(1, 5))
        fit = np.flatnonzero(room >= size)
        if len(fit):
            host = int(rng.choice(fit))
            room[host] -= size
            guests.append((host, size))
    model = cluster([8.0] * hosts, guests)
    steps: list[Step] = []
    place = model.placement()
    for instance in rng.permutation(model.instances).tolist():
        fit = np.flatnonzero(place.fits(instance))
        fit = fit[fit != place.host_of[instance]]
        if len(fit) and rng.random() < 0.7:
            host = int(rng.choice(fit))
            place.move(instance, host)
            steps.append(Migrate(instance, host))
        if rng.random() < 0.2:
            steps.append(service(int(rng.integers(hosts)), str(rng.choice(["enabled", "disabled"]))))
    made = PLANNERS[planner](model, Candidate(tuple(steps)), Limits())
    final = np.array([place.host_of[v] for v in range(model.instances)])
    waiting, running, done = set(range(len(made.actions))), set[int](), set[int]()
    used = model.used()[:, 0]
    host_of = model.host_of.copy()
    while waiting or running:
        ready = [n for n in sorted(waiting) if set(made.actions[n].parents) <= done]
        start = ready and (not running or rng.random() < 0.5)
        one = int(rng.choice(ready if start else sorted(running)))
        action = made.actions[one]
        if start:
            waiting.remove(one)
            running.add(one)
            if action.instance >= 0:
                used[action.destination] += model.demand[action.instance, 0]
        else:
            running.remove(one)
            done.add(one)
            if action.instance >= 0:
                used[action.source] -= model.demand[action.instance, 0]
                host_of[action.instance] = action.destination
        assert (used <= 8.0 + 1e-6).all()
    assert (host_of == final).all()
