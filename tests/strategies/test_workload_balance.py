"""workload_balance from the outside: Watcher's scenario 6, and what was wrong there."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from trimtab.platform.contracts import Context
from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import ClusterModel
from trimtab.platform.proposal import Candidate, Migrate
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Need
from trimtab.strategies.goals import WORKLOAD_BALANCING
from trimtab.strategies.library.workload_balance import WorkloadBalance

STRATEGY = WorkloadBalance()
SEEDS = some.integers(0, 2**32 - 1)
CPU = [50.0, 80, 20, 10]  # table C2 of scenario 6
RAM = [9.0, 40, 12, 12]
BY_RAM = {"metrics": "instance_ram_usage"}


def propose(
    scenarios: ModuleType, model: ClusterModel, set_to: dict[str, Any] | None = None, **values: Sequence[float]
) -> Candidate:
    snapshot = scenarios.snapshot(STRATEGY, model, set_to or {}, **values)
    (candidate,) = STRATEGY.propose(snapshot, read_parameters(STRATEGY, set_to or {}), Context())
    return candidate


def moves(candidate: Candidate) -> list[tuple[int, int]]:
    assert all(isinstance(step, Migrate) and step.live for step in candidate.steps)
    return [(int(instance), int(host)) for instance, host in candidate.moves()]


def test_only_the_metric_asked_for_is_measured() -> None:
    assert STRATEGY.needs(read_parameters(STRATEGY, {})) == (Need("instance_cpu_usage", "instance", "mean", 300, 300),)
    assert STRATEGY.needs(read_parameters(STRATEGY, BY_RAM))[0].metric == "instance_ram_usage"
    with pytest.raises(InvalidInput, match="use instance_cpu_usage or instance_ram_usage"):
        read_parameters(STRATEGY, {"metrics": "host_cpu_usage"})


def test_the_largest_instance_within_the_surplus_goes(scenarios: ModuleType) -> None:
    """D3, CPU, threshold 25: 5 of 13 cores where 8 are the average; 25 % of the instances."""
    candidate = propose(scenarios, scenarios.scenario_6_with_2_nodes(), instance_cpu_usage=CPU)
    assert moves(candidate) == [(0, 1)]
    assert candidate.indicators["instances_count"] == 4
    assert WORKLOAD_BALANCING.global_efficacy(candidate.indicators)[0]["value"] == 25
    assert candidate.planner == "capacity"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"threshold": 25.0}, [(0, 1)]),
        ({"threshold": 20.0}, []),  # 20.0 is not below 20
        ({"threshold": 30.0, **BY_RAM}, [(0, 1)]),  # 37.1 % on N0, N1 would be at 25.0
        ({"threshold": 25.0, **BY_RAM}, []),  # 25.0 is not below 25
        ({"threshold": 40.0, **BY_RAM}, []),  # nobody is overloaded
    ],
)
def test_receivers_stay_strictly_below_the_threshold(
    scenarios: ModuleType, given: dict[str, Any], expected: list[tuple[int, int]]
) -> None:
    """D3."""
    model = scenarios.scenario_6_with_2_nodes()
    values: dict[str, Any] = {"instance_cpu_usage": CPU, "instance_ram_usage": RAM}
    assert moves(propose(scenarios, model, given, **values)) == expected


def test_deviations_are_those_of_the_shares(scenarios: ModuleType) -> None:
    """Watcher leaves them out: 13 and 3 of 40 cores, then 8 and 8."""
    candidate = propose(scenarios, scenarios.scenario_6_with_2_nodes(), instance_cpu_usage=CPU)
    assert candidate.indicators["standard_deviation_before_audit"] == pytest.approx(0.125)
    assert candidate.indicators["standard_deviation_after_audit"] == pytest.approx(0)


def test_an_instance_without_measurement_stays_and_is_named(scenarios: ModuleType) -> None:
    """Watcher fails with a KeyError."""
    candidate = propose(scenarios, scenarios.scenario_6_with_2_nodes(), instance_cpu_usage=[np.nan, 120, 20, 10])
    assert candidate.notes == ("1 instances without measurement count as idle and stay where they are: vm_0",)
    assert moves(candidate) == []
    candidate = propose(
        scenarios, scenarios.scenario_6_with_2_nodes(), {"threshold": 40.0}, instance_cpu_usage=[180.0, 80, 20, np.nan]
    )
    assert moves(candidate) == [(1, 1)]


def test_several_moves_on_request(scenarios: ModuleType) -> None:
    """Watcher: one an audit."""
    model = scenarios.cluster([(10, 99, 99)] * 3, [(0, 1, 1, 1)] * 8)
    values: dict[str, Any] = {"instance_cpu_usage": [100.0] * 8}
    assert len(moves(propose(scenarios, model, {"threshold": 50.0}, **values))) == 1
    many = propose(scenarios, model, {"threshold": 50.0, "max_migrations": 9}, **values)
    assert moves(many) == [(0, 1), (1, 2), (2, 1), (3, 2)]
    assert moves(propose(scenarios, model, {"threshold": 50.0, "max_migrations": 0}, **values)) == []


def test_the_next_instance_and_the_next_host_are_tried(scenarios: ModuleType) -> None:
    """Watcher gives up when its first pick finds no room: vm_0 has too much memory, and so has all of host 0."""
    guests = [(0, 1, 1, 50), (0, 1, 1, 1), (0, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1)]
    model = scenarios.cluster([(4, 99, 99), (4, 99, 99), (9, 99, 9)], guests)
    values: dict[str, Any] = {"instance_cpu_usage": [100.0, 90, 90, 60, 60, 60]}
    assert moves(propose(scenarios, model, **values)) == [(1, 2)]
    heavy = scenarios.cluster([(4, 99, 99), (4, 99, 99), (9, 99, 9)], [*[(0, 1, 1, 30)] * 3, *guests[3:]])
    assert moves(propose(scenarios, heavy, **values)) == [(3, 2)]


def test_the_average_goes_by_the_size_of_a_host(scenarios: ModuleType) -> None:
    """Watcher compares cores: a large host has more than the average of all hosts at any load, a small one never."""
    model = scenarios.cluster([(8, 99, 99), (64, 99, 99)], [(0, 2, 1, 1), (0, 2, 1, 1), (1, 8, 1, 1)])
    values: dict[str, Any] = {"instance_cpu_usage": [100.0, 75, 100]}
    # Cores: 3.5 and 8, on average 5.75, so that host 0 has no surplus; shares: 43.75 % and 12.5 %, on average 16 %.
    assert moves(propose(scenarios, model, {"threshold": 40.0}, **values)) == [(0, 1)]


def test_a_small_surplus_still_moves_something(scenarios: ModuleType) -> None:
    """Watcher moves nothing when every instance is larger than the surplus."""
    model = scenarios.cluster([(10, 99, 99)] * 2, [(0, 4, 1, 1), (0, 4, 1, 1), (1, 4, 1, 1)])
    values: dict[str, Any] = {"instance_cpu_usage": [75.0, 100, 25.0]}
    candidate = propose(scenarios, model, {"threshold": 60.0}, **values)
    assert moves(candidate) == [(0, 1)]
    assert (
        candidate.indicators["standard_deviation_after_audit"] < candidate.indicators["standard_deviation_before_audit"]
    )


def test_hosts_of_no_size_and_empty_clouds_take_no_part(scenarios: ModuleType) -> None:
    """D3, scenario 4: nothing; and no division by zero."""
    assert moves(propose(scenarios, scenarios.cluster([(1, 1, 1)], []))) == []
    model = scenarios.cluster([(0, 99, 99), (4, 99, 99), (9, 99, 99)], [(0, 0, 0, 0), (1, 2, 1, 1), (1, 2, 1, 1)])
    candidate = propose(scenarios, model, instance_cpu_usage=[5.0, 50, 50])
    assert moves(candidate) == [(1, 2)]
    assert candidate.notes == ("1 hosts without vCPUs or memory of their own are left out: hostname_0",)


def test_only_active_instances_of_usable_hosts_move_and_only_within_room(scenarios: ModuleType) -> None:
    guests = [(0, 4, 1, 1), (0, 4, 1, 1), (1, 1, 1, 1), (2, 1, 1, 1), (3, 1, 1, 1)]
    columns = {"status": ["enabled", "disabled", "enabled", "enabled"], "state": ["up", "up", "down", "up"]}
    model = scenarios.cluster([(8, 99, 99)] * 4, guests, host_columns=columns)
    values: dict[str, Any] = {"instance_cpu_usage": [70.0, 60, 1, 1, 1]}
    assert moves(propose(scenarios, model, {"threshold": 50.0}, **values)) == [(1, 3)]
    full = model.with_changes(demand=np.where(np.arange(5)[:, None] == 4, 6.0, model.demand))
    assert moves(propose(scenarios, full, {"threshold": 50.0}, **values)) == []
    still = model.with_changes(state=np.array([0, 4, 0, 0, 0], np.int8))
    assert moves(propose(scenarios, still, {"threshold": 50.0}, **values)) == [(0, 3)]


@settings(max_examples=80, deadline=None)
@given(seed=SEEDS, metric=some.sampled_from(["cpu", "ram"]), threshold=some.sampled_from([20.0, 40.0]))
def test_never_breaks_a_rule_and_never_makes_a_new_overload(
    scenarios: ModuleType, replay: ModuleType, seed: int, metric: str, threshold: float
) -> None:
    model, measured = replay.random_cluster(scenarios, seed, crowded=bool(seed % 2))
    given = {"metrics": f"instance_{metric}_usage", "threshold": threshold, "max_migrations": 20}
    candidate = propose(scenarios, model, given, **measured)
    assert candidate == propose(scenarios, model, given, **measured)
    assert replay.faults(model, candidate) == []
    amount = np.nan_to_num(measured[f"instance_{metric}_usage"]) * (model.demand[:, 0] / 100 if metric == "cpu" else 1)
    size = model.total[:, 0 if metric == "cpu" else 1]
    before = np.bincount(model.host_of[model.host_of >= 0], amount[model.host_of >= 0], model.hosts) / size
    final = candidate.final_host_of(model)
    after = np.bincount(final[final >= 0], amount[final >= 0], model.hosts) / size
    limit = threshold / 100
    assert ((after < limit) | (after <= before + 1e-9)).all()
    assert (before[model.host_of[candidate.moves()[:, 0]]] >= limit - 1e-9).all()
