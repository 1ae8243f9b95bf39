"""workload_stabilization from the outside: Watcher's scenario 1, and random clusters against the platform's rules."""

from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from trimtab.platform.contracts import Context
from trimtab.platform.model import ClusterModel
from trimtab.platform.proposal import Candidate, Migrate
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.simulator.estate import build_estate
from trimtab.strategies.library.workload_stabilization import WorkloadStabilization

STRATEGY = WorkloadStabilization()
BOTH = ["instance_cpu_usage", "instance_ram_usage"]
SEEDS = some.integers(0, 2**32 - 1)


def propose(
    scenarios: ModuleType, model: ClusterModel, set_to: dict[str, Any] | None = None, **values: Sequence[float]
) -> Candidate:
    snapshot = scenarios.snapshot(STRATEGY, model, set_to or {}, **values)
    (candidate,) = STRATEGY.propose(snapshot, read_parameters(STRATEGY, set_to or {}), Context())
    return candidate


def wanted(cpu: float, ram: float, metrics: list[str] | None = None, choice: str = "fullsearch") -> dict[str, Any]:
    thresholds = {"instance_cpu_usage": cpu, "instance_ram_usage": ram}
    return {"metrics": metrics or BOTH, "thresholds": thresholds, "host_choice": choice}


def moves(candidate: Candidate) -> list[tuple[int, int]]:
    return [(step.instance, step.destination) for step in candidate.steps if isinstance(step, Migrate)]


def deviation(candidate: Candidate, when: str) -> float:
    return candidate.indicators[f"standard_deviation_{when}_audit"]


def test_needs_are_watchers_metrics_periods_and_aggregates() -> None:
    """Only what `metrics` asks for: Watcher requires all four whatever it says. Old names of the hosts still count."""
    given = {"metrics": BOTH, "periods": {"node": 500}, "aggregation_method": {"node": "min"}}
    assert STRATEGY.needs(read_parameters(STRATEGY, given)) == [
        Need("instance_cpu_usage", "instance", "mean", 720, 300),
        Need("host_cpu_usage", "host", "min", 500, 300),
        Need("instance_ram_usage", "instance", "mean", 720, 300),
        Need("host_ram_usage", "host", "min", 500, 300),
    ]
    default = [need.metric for need in STRATEGY.needs(read_parameters(STRATEGY, {}))]
    assert default == ["instance_cpu_usage", "host_cpu_usage"]


def test_the_weighted_deviation_at_the_start_is_watchers(scenarios: ModuleType) -> None:
    """D4: 0.2961 of CPU and 0.0705 of memory; the first move Watcher would take is I5 to N4, after which 0.3245."""
    candidate = propose(scenarios, scenarios.scenario_1(), wanted(0.001, 0.0001), **scenarios.GNOCCHI)
    assert deviation(candidate, "before") == pytest.approx(0.3666507, abs=1e-6)
    one = propose(scenarios, scenarios.scenario_1(), {**wanted(0, 0), "max_migrations": 1}, **scenarios.GNOCCHI)
    assert moves(one) == [(5, 4)]
    assert deviation(one, "after") == pytest.approx(0.3244549, abs=1e-6)


def test_both_deviations_are_the_same_sum(scenarios: ModuleType) -> None:
    """Watcher reports one metric before and the sum after, so that an improvement looks like a loss."""
    candidate = propose(scenarios, scenarios.scenario_1(), wanted(0.2, 0.2), **scenarios.GNOCCHI)
    assert deviation(candidate, "after") < deviation(candidate, "before")


@pytest.mark.parametrize(
    ("metrics", "cpu", "ram", "acts"),
    [
        (BOTH, 0.25, 0.1, True),
        (["instance_cpu_usage"], 0.25, 0.1, True),
        (["instance_ram_usage"], 0.1, 0.05, True),
        (BOTH, 0.3, 0.2, False),
        (["instance_cpu_usage"], 0.4, 0.1, False),
        (["instance_ram_usage"], 0.1, 0.1, False),
    ],
)
def test_acts_when_one_metric_asked_for_is_above_its_threshold(
    scenarios: ModuleType, metrics: list[str], cpu: float, ram: float, acts: bool
) -> None:
    """D4, check_threshold: 0.296 of CPU, 0.071 of memory."""
    candidate = propose(scenarios, scenarios.scenario_1(), wanted(cpu, ram, metrics), **scenarios.GNOCCHI)
    assert bool(moves(candidate)) == acts


def test_goes_on_until_every_metric_is_below_its_threshold(scenarios: ModuleType) -> None:
    """D4, thresholds 0.2/0.2: Watcher stops after one move because memory was balanced before it began."""
    candidate = propose(scenarios, scenarios.scenario_1(), wanted(0.2, 0.2), **scenarios.GNOCCHI)
    assert len(moves(candidate)) > 1
    assert len({instance for instance, _ in moves(candidate)}) == len(moves(candidate))


def test_better_than_watcher_where_it_finds_two_moves(scenarios: ModuleType) -> None:
    """D4, thresholds .001/.0001: 0.3182838 there."""
    candidate = propose(scenarios, scenarios.scenario_1(), wanted(0.001, 0.0001), **scenarios.GNOCCHI)
    assert deviation(candidate, "after") <= 0.3182838


def test_cycle_spreads_over_the_hosts_in_turn(scenarios: ModuleType) -> None:
    """D4, CPU only, threshold 1e-4, cycle: Watcher moves I5, I3 and I4, after which 0.2712628."""
    set_to = wanted(1e-4, 1e-4, ["instance_cpu_usage"], "cycle")
    candidate = propose(scenarios, scenarios.scenario_1(), set_to, **scenarios.GNOCCHI)
    assert {3, 4, 5} <= {instance for instance, _ in moves(candidate)}
    assert [host for _, host in moves(candidate)][:2] == [0, 1]
    assert deviation(candidate, "after") <= 0.2712628 + 1e-7


def test_fullsearch_does_not_pick_an_instance_twice(scenarios: ModuleType) -> None:
    """D4, CPU only, threshold 1e-4, fullsearch: Watcher crashes on its own duplicate."""
    set_to = wanted(1e-4, 1e-4, ["instance_cpu_usage"])
    candidate = propose(scenarios, scenarios.scenario_1(), set_to, **scenarios.GNOCCHI)
    rows = [instance for instance, _ in moves(candidate)]
    assert len(rows) == len(set(rows)) >= 3
    assert deviation(candidate, "after") <= 0.2712628 + 1e-7


def test_indicators_count_moves_and_all_instances_of_the_scope(scenarios: ModuleType) -> None:
    candidate = propose(scenarios, scenarios.scenario_1(), wanted(0.2, 0.2), **scenarios.GNOCCHI)
    assert candidate.indicators["instances_count"] == 10
    assert candidate.indicators["instance_migrations_count"] == len(moves(candidate))
    assert candidate.planner == "capacity"


def test_excluded_instances_and_instances_in_other_states_stay(scenarios: ModuleType) -> None:
    """D4: all excluded, no candidate; of scenario 1 only active and paused instances move."""
    model = scenarios.scenario_1()
    nobody = model.with_changes(excluded=np.ones(model.instances, bool))
    assert moves(propose(scenarios, nobody, wanted(0.001, 0.001), **scenarios.GNOCCHI)) == []
    everything = propose(scenarios, model, wanted(0, 0), **scenarios.GNOCCHI)
    assert 6 not in {instance for instance, _ in moves(everything)}  # stopped


def test_a_host_without_measurements_is_left_out_and_named(scenarios: ModuleType) -> None:
    """D4, LOST_NODE: dropped from the load table; Watcher then fails on it in the simulation."""
    values = {**scenarios.GNOCCHI, "host_cpu_usage": [7.0, np.nan, 80, 5, 5]}
    candidate = propose(scenarios, scenarios.scenario_1(), wanted(0.001, 0.001), **values)
    assert moves(candidate)
    assert 1 not in {host for _, host in moves(candidate)}
    assert 2 not in {instance for instance, _ in moves(candidate)}
    assert candidate.notes[0] == "1 hosts without measurements are left out: hostname_1"


def test_an_instance_without_measurements_stays_and_is_named(scenarios: ModuleType) -> None:
    cpu = [7.0, 7, 10, 5, 5, np.nan, 8, 4, 0, 0]
    candidate = propose(
        scenarios, scenarios.scenario_1(), wanted(0.001, 0.001), **{**scenarios.GNOCCHI, "instance_cpu_usage": cpu}
    )
    assert moves(candidate)
    assert 5 not in {instance for instance, _ in moves(candidate)}
    assert candidate.notes == ("1 instances without measurements stay where they are: vm_5",)


def test_nothing_measured_means_nothing_moved(scenarios: ModuleType) -> None:
    candidate = propose(scenarios, scenarios.scenario_1(), wanted(0, 0))
    assert candidate.steps == ()
    assert candidate.notes[0].startswith("5 hosts without measurements")


def test_only_hosts_that_are_up_and_enabled_take_part(scenarios: ModuleType) -> None:
    """D4, scenario 9: three available nodes."""
    model = scenarios.scenario_8_with_4_nodes(("enabled", "enabled", "enabled", "disabled"))
    candidate = propose(
        scenarios,
        model,
        wanted(0, 0, ["instance_cpu_usage"]),
        instance_cpu_usage=[50.0] * 6,
        host_cpu_usage=[90.0, 5, 5, 0],
    )
    assert moves(candidate)
    assert 3 not in {host for _, host in moves(candidate)}
    assert 5 not in {instance for instance, _ in moves(candidate)}


def test_a_full_host_receives_nothing(scenarios: ModuleType) -> None:
    """Watcher looks at the disk's total only."""
    model = scenarios.cluster([(8, 100, 64)] * 3, [(0, 4, 0, 2), (0, 4, 0, 2), (1, 6, 0, 2)])
    values = {"instance_cpu_usage": [80.0, 80, 0], "host_cpu_usage": [80.0, 0, 5]}
    assert moves(propose(scenarios, model, wanted(0, 0, ["instance_cpu_usage"]), **values)) == [(0, 2)]


def test_retry_looks_at_the_least_loaded_hosts_only(scenarios: ModuleType) -> None:
    """Deterministic: Watcher draws `retry_count` hosts at random, and fails when there are fewer."""
    model = scenarios.cluster([(16, 100, 64), (4, 100, 64), (32, 100, 64)], [(0, 4, 0, 2), (0, 4, 0, 2)])
    values = {"instance_cpu_usage": [50.0, 20.0], "host_cpu_usage": [40.0, 2, 3]}
    one = {**wanted(0, 0, ["instance_cpu_usage"], "retry"), "max_migrations": 1}
    nearest = propose(scenarios, model, one, **values)
    many = propose(scenarios, model, {**one, "retry_count": 9}, **values)
    full = propose(scenarios, model, {**one, "host_choice": "fullsearch"}, **values)
    assert moves(nearest)[0][1] == 1
    assert moves(many) == moves(full)
    assert deviation(full, "after") < deviation(nearest, "after")


def test_a_failed_instance_is_not_tried_again(scenarios: ModuleType) -> None:
    snapshot = scenarios.snapshot(STRATEGY, scenarios.scenario_1(), wanted(0, 0), **scenarios.GNOCCHI)
    given = read_parameters(STRATEGY, wanted(0, 0))
    (candidate,) = STRATEGY.propose(replace(snapshot, failed_before=(5,)), given, Context())
    assert moves(candidate)
    assert 5 not in {instance for instance, _ in moves(candidate)}


def test_cancelled_means_no_candidate(scenarios: ModuleType) -> None:
    snapshot = scenarios.snapshot(STRATEGY, scenarios.scenario_1(), wanted(0, 0), **scenarios.GNOCCHI)
    given = read_parameters(STRATEGY, wanted(0, 0))
    assert STRATEGY.propose(snapshot, given, Context(cancelled=lambda: True)) == ()


def test_empty_clusters_give_empty_plans(scenarios: ModuleType) -> None:
    for model in (
        scenarios.cluster([], []),
        scenarios.cluster([(1, 1, 1)], []),
        scenarios.cluster([], [(-1, 1, 1, 1)]),
    ):
        candidate = propose(scenarios, model, host_cpu_usage=[50.0] * model.hosts)
        assert candidate.steps == ()
        assert deviation(candidate, "before") == 0


@settings(max_examples=150, deadline=None)
@given(
    seed=SEEDS,
    crowded=some.booleans(),
    metrics=some.sampled_from([BOTH, BOTH[:1], BOTH[1:], []]),
    choice=some.sampled_from(["fullsearch", "retry", "cycle"]),
    most=some.sampled_from([None, 3]),
)
def test_never_breaks_a_rule_at_any_step_and_always_improves(
    scenarios: ModuleType,
    replay: ModuleType,
    seed: int,
    crowded: bool,
    metrics: list[str],
    choice: str,
    most: int | None,
) -> None:
    model, measured = replay.random_cluster(scenarios, seed, crowded=crowded)
    set_to: dict[str, Any] = {"metrics": metrics, "host_choice": choice, "thresholds": {"instance_cpu_usage": 0.02}}
    set_to |= {} if most is None else {"max_migrations": most}
    candidate = propose(scenarios, model, set_to, **measured)
    assert candidate == propose(scenarios, model, set_to, **measured)
    assert replay.faults(model, candidate) == []
    assert most is None or len(moves(candidate)) <= most
    assert candidate.indicators["instance_migrations_count"] == len(moves(candidate))
    if moves(candidate):
        assert deviation(candidate, "after") < deviation(candidate, "before")
    else:
        assert deviation(candidate, "after") == deviation(candidate, "before")


def test_a_cloud_without_instances_is_left_alone() -> None:
    hosts, instances, _ = build_estate(4, 8, seed=1)
    model = ClusterModel.from_arrow(hosts, instances.slice(0, 0))
    needs = STRATEGY.needs(read_parameters(STRATEGY, {}))
    values = {need: np.linspace(1, 90, model.hosts if need.kind == "host" else 0) for need in needs}
    snapshot = Snapshot(model, 0.0, measured=values)
    parameters = read_parameters(STRATEGY, {"thresholds": {"instance_cpu_usage": 0.01}})
    (candidate,) = STRATEGY.propose(snapshot, parameters, Context())
    assert candidate.steps == ()
