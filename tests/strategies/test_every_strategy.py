"""What holds for every strategy on the oddest of clouds: no failure, no overfilled host, no forbidden move."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from trimtab.platform.contracts import Context, Strategy
from trimtab.platform.model import ClusterModel, InstanceState
from trimtab.platform.planner import PLANNERS
from trimtab.platform.planner.wire import act_parameters
from trimtab.platform.plugins import load
from trimtab.platform.proposal import Act, Candidate, Limits
from trimtab.platform.rules import destinations
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Snapshot
from trimtab.platform.trial import TryJob, try_out

SEEDS = some.integers(0, 2**32 - 1)
# They need other models than the compute model, or move what these checks forbid: they have tests of their own.
ELSEWHERE = {"actuator", "repair", "saving_energy", "storage_capacity_balance", "zone_migration"}
NAMES = [
    "basic", "dummy", "dummy_with_resize", "dummy_with_scorer", "host_maintenance", "node_resource_consolidation",
    "noisy_neighbor", "outlet_temperature", "uniform_airflow", "vm_workload_consolidation", "workload_balance",
    "workload_stabilization",
]  # fmt: skip
MORE: Mapping[str, list[dict[str, Any]]] = {
    "host_maintenance": [
        {"maintenance_node": "hostname_0"},
        {"maintenance_node": "hostname_0", "backup_node": "hostname_1"},
        {"maintenance_node": "hostname_0", "backup_node": "hostname_1", "disable_live_migration": True},
    ],
}


def strange_cluster(scenarios: ModuleType, replay: ModuleType, seed: int) -> ClusterModel:
    """A random cluster in which hosts have nothing of something, instances ask for nothing, and are in any state."""
    rng = np.random.default_rng(seed)
    model, _ = replay.random_cluster(scenarios, seed, crowded=bool(seed % 2))
    total = np.where(rng.random(model.total.shape) < 0.1, 0.0, model.total)
    reserved = np.where(rng.random(model.total.shape) < 0.1, model.total + 1, 0.0)
    demand = np.where(rng.random(model.demand.shape) < 0.1, 0.0, model.demand)
    state = rng.integers(0, len(InstanceState), model.instances).astype(np.int8)
    state[rng.random(model.instances) < 0.6] = InstanceState.ACTIVE
    return model.with_changes(total=total, reserved=reserved, demand=demand, state=state)


def strange_snapshot(strategy: Strategy, parameters: Any, model: ClusterModel, seed: int) -> Snapshot:
    """Measurements with gaps, zeros and nonsense; some metrics were not measured at all."""
    rng = np.random.default_rng(seed)
    measured = {}
    for need in strategy.needs(parameters):
        count = model.hosts if need.kind == "host" else model.instances
        values = rng.uniform(0, 100, count) * rng.choice([1, 10, 1024])
        values[rng.random(count) < 0.2] = np.nan
        values[rng.random(count) < 0.1] = 0.0
        values[rng.random(count) < 0.05] = -1.0
        if rng.random() < 0.8:
            measured[need] = values
    failed = np.flatnonzero(rng.random(model.instances) < 0.05)
    return Snapshot(model, 0.0, measured=measured, failed_before=tuple(failed.tolist()))


def check(model: ClusterModel, candidate: Candidate) -> None:
    """Step by step in order, against the platform's own rules; where the cloud chooses the host, only who moves."""
    placement, receivers, moved = model.placement(), model.usable.copy(), set()
    over = placement.over_capacity()
    for step in candidate.steps:
        if isinstance(step, Act):
            assert step.host < model.hosts
            act_parameters(step)
            if step.action_type == "change_nova_service_state":
                receivers[step.host] = step.parameters["state"] == "enabled" and model.up[step.host]
            continue
        assert step.instance not in moved
        moved.add(step.instance)
        assert model.movable[step.instance]
        assert model.up[model.host_of[step.instance]]
        fit = (InstanceState.ACTIVE, InstanceState.PAUSED if step.live else InstanceState.STOPPED)
        assert model.state[step.instance] in fit
        if step.destination >= 0:
            assert destinations(placement, step.instance, receivers)[step.destination]
        placement.move(step.instance, step.destination)
        assert not (placement.over_capacity() & ~over).any()


def test_no_installed_strategy_is_forgotten_here() -> None:
    assert set(NAMES) <= set(load().strategies) <= set(NAMES) | ELSEWHERE


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_no_cloud_makes_a_strategy_fail_or_break_a_rule(
    scenarios: ModuleType, replay: ModuleType, name: str, seed: int
) -> None:
    strategy = load().strategy(name)
    model = strange_cluster(scenarios, replay, seed)
    sets = [one for one in MORE.get(name, strategy.grid()) if model.hosts > 1 or "backup_node" not in one]
    given = sets[seed % len(sets)]
    parameters = read_parameters(strategy, given)
    snapshot = strange_snapshot(strategy, parameters, model, seed)
    candidates = strategy.propose(snapshot, parameters, Context(seed=1))
    assert list(candidates) == list(strategy.propose(snapshot, parameters, Context(seed=1)))
    specification = {indicator.name for indicator in load().goals[strategy.goal].indicators}
    for candidate in candidates:
        check(model, candidate)
        assert set(candidate.indicators) <= specification
        assert all(np.isfinite(value) and value >= 0 for value in candidate.indicators.values())
        assert candidate.because
        assert try_out(snapshot, TryJob(candidate, PLANNERS[candidate.planner], None, Limits(), 0)).reasons == ()


@pytest.mark.parametrize(
    "name", sorted(set(NAMES) - {"host_maintenance", "dummy", "dummy_with_resize", "dummy_with_scorer"})
)
def test_an_empty_cloud_gives_an_empty_plan(scenarios: ModuleType, name: str) -> None:
    strategy = load().strategy(name)
    for model in (
        scenarios.cluster([], []),
        scenarios.cluster([(4, 4, 4)], []),
        scenarios.cluster([], [(-1, 1, 1, 1)]),
        scenarios.cluster([(0, 0, 0)] * 2, []),
    ):
        for point in strategy.grid():
            parameters = read_parameters(strategy, point)
            for candidate in strategy.propose(Snapshot(model, 0.0), parameters, Context()):
                assert not candidate.moves().size
