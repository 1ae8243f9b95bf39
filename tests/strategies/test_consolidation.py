"""vm_workload_consolidation from the outside: Watcher's scenarios, and random clusters against the platform's rules."""

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
from trimtab.platform.proposal import Act, Candidate, Migrate
from trimtab.platform.schema import read_parameters
from trimtab.strategies.library.vm_workload_consolidation import VmWorkloadConsolidation

STRATEGY = VmWorkloadConsolidation()
SEEDS = some.integers(0, 2**32 - 1)


def propose(
    scenarios: ModuleType, model: ClusterModel, set_to: dict[str, Any] | None = None, **values: Sequence[float]
) -> list[Candidate]:
    snapshot = scenarios.snapshot(STRATEGY, model, set_to or {}, **values)
    return list(STRATEGY.propose(snapshot, read_parameters(STRATEGY, set_to or {}), Context()))


def fake(scenarios: ModuleType, model: ClusterModel) -> dict[str, Any]:
    """The measurements of Watcher's table C3."""
    cpu = scenarios.CPU[: model.instances]
    return {
        "instance_cpu_usage": cpu,
        "instance_ram_usage": scenarios.RAM[: model.instances],
        "host_cpu_usage": scenarios.host_cpu(model, cpu),
    }


def off(model: ClusterModel, host: int) -> Act:
    parameters = {
        "state": "disabled",
        "disabled_reason": "watcher_disabled",
        "resource_name": model.host_name(host),
    }
    return Act("change_nova_service_state", model.host_id(host), parameters, host)


def counts(candidate: Candidate) -> tuple[float, ...]:
    return tuple(
        candidate.indicators[f"{name}_count"]
        for name in ("compute_nodes", "released_compute_nodes", "instance_migrations")
    )


def test_two_half_empty_hosts_become_one_and_the_other_is_disabled(scenarios: ModuleType) -> None:
    """D2, scenario_1_with_metrics."""
    model = scenarios.scenario_1_with_metrics()
    (candidate,) = propose(scenarios, model, **fake(scenarios, model))
    assert candidate.steps == (Migrate(0, 1, True), off(model, 0))
    assert counts(candidate) == (2, 1, 1)
    assert candidate.planner == "capacity"


def test_an_overloaded_host_is_relieved_by_three_moves(scenarios: ModuleType, replay: ModuleType) -> None:
    """D2, scenario_2: as many moves as Watcher makes, one to each other host, and nothing is released."""
    model = scenarios.scenario_2_with_metrics()
    (candidate,) = propose(scenarios, model, **fake(scenarios, model))
    assert len(candidate.steps) == 3
    assert sorted(step.destination for step in candidate.steps if isinstance(step, Migrate)) == [1, 2, 3]
    assert counts(candidate) == (4, 0, 3)
    assert replay.faults(model, candidate) == []


def test_one_move_relieves_where_watcher_makes_two(scenarios: ModuleType) -> None:
    """D2, scenario_3: 15 busy vCPUs on 10. Watcher moves 1 + 4 vCPUs (and 2 there and back); moving the 8 is enough."""
    model = scenarios.scenario_3_with_metrics()
    cpu = [100.0] * 4
    (candidate,) = propose(scenarios, model, instance_cpu_usage=cpu, host_cpu_usage=scenarios.host_cpu(model, cpu))
    assert candidate.steps == (Migrate(3, 1, True),)
    assert counts(candidate) == (2, 0, 1)


def test_disabled_hosts_are_enabled_only_to_relieve_and_never_count_below_zero(
    scenarios: ModuleType, replay: ModuleType
) -> None:
    """D2, scenario_2 with N1 to N3 disabled: Watcher counts -3 released hosts there, and the audit fails."""
    model = scenarios.scenario_2_with_metrics(("enabled", "disabled", "disabled", "disabled"), "watcher_disabled")
    (candidate,) = propose(scenarios, model, **fake(scenarios, model))
    enabled = [step.host for step in candidate.steps if isinstance(step, Act)]
    assert sorted(enabled) == [1, 2, 3]
    assert all(step.parameters["state"] == "enabled" for step in candidate.steps if isinstance(step, Act))
    assert counts(candidate) == (1, 0, 3)
    assert replay.faults(model, candidate) == []


def test_a_host_that_an_operator_disabled_stays_disabled(scenarios: ModuleType) -> None:
    """Watcher enables any disabled host; one that is being repaired is none of our business."""
    model = scenarios.scenario_2_with_metrics(("enabled", "disabled", "disabled", "disabled"), "broken fan")
    (candidate,) = propose(scenarios, model, **fake(scenarios, model))
    assert candidate.steps == ()
    assert any("over their capacity: " in note for note in candidate.notes)


def test_an_idle_instance_counts_as_idle(scenarios: ModuleType) -> None:
    """Watcher takes a CPU usage of 0.0 for a missing one and counts all vCPUs as busy."""
    model = scenarios.cluster([(16, 100, 64)] * 2, [(0, 8, 10, 8), (1, 8, 10, 8)])
    (candidate,) = propose(scenarios, model, {"max_cpu_pct": 50.0}, instance_cpu_usage=[0.0, 90.0])
    assert counts(candidate) == (2, 1, 1)
    (missing,) = propose(scenarios, model, {"max_cpu_pct": 50.0}, instance_cpu_usage=[np.nan, 90.0])
    assert counts(missing) == (2, 0, 0)
    assert missing.notes[0] == "1 instances without CPU measurement count with all their vCPUs: vm_0"


def test_hosts_without_disk_are_as_good_as_others(scenarios: ModuleType) -> None:
    """Shared storage: Watcher divides by zero."""
    model = scenarios.cluster([(40, 0, 64)] * 2, [(0, 10, 0, 20), (1, 10, 0, 20)])
    (candidate,) = propose(scenarios, model, instance_cpu_usage=[10.0, 30.0])
    assert counts(candidate) == (2, 1, 1)


def test_stopped_instances_move_cold_paused_ones_live_and_failed_ones_not_at_all(scenarios: ModuleType) -> None:
    states = ["stopped", "paused", "active", "active", "error"]
    model = scenarios.cluster(
        [(16, 100, 64)] * 3,
        [(0, 2, 0, 2), (0, 2, 0, 2), (1, 2, 0, 2), (1, 2, 0, 2), (2, 2, 0, 2)],
        instance_columns={"state": states},
    )
    candidate = propose(scenarios, model)[-1]
    moves = {step.instance: step for step in candidate.steps if isinstance(step, Migrate)}
    assert set(moves) == {0, 1, 2, 3}
    assert {row: move.live for row, move in moves.items()} == {0: False, 1: True, 2: True, 3: True}
    assert {move.destination for move in moves.values()} == {2}
    assert any(note.startswith("1 hosts cannot be emptied") for note in candidate.notes)


def test_a_host_that_cannot_be_emptied_altogether_is_left_alone(scenarios: ModuleType) -> None:
    """Watcher moves what it can and frees nothing."""
    model = scenarios.cluster([(8, 100, 64)] * 2, [(0, 2, 0, 2), (0, 4, 0, 2), (1, 4, 0, 2), (1, 2, 0, 2)])
    (candidate,) = propose(scenarios, model)
    assert candidate.steps == ()
    assert counts(candidate) == (2, 0, 0)


def test_hosts_that_are_empty_already_are_disabled_too(scenarios: ModuleType) -> None:
    model = scenarios.cluster([(8, 100, 64)] * 2, [(0, 8, 0, 2)])
    (candidate,) = propose(scenarios, model)
    assert candidate.steps == (off(model, 1),)
    assert counts(candidate) == (2, 1, 0)


def test_the_thrifty_candidate_leaves_out_the_dear_hosts(scenarios: ModuleType, replay: ModuleType) -> None:
    guests = [(0, 1, 0, 1), *[(1, 1, 0, 1)] * 9, *[(2, 1, 0, 1)] * 10, (3, 1, 0, 1)]
    model = scenarios.cluster([(16, 100, 64)] * 3 + [(32, 100, 64)], guests)
    thrifty, thorough = propose(scenarios, model)
    assert counts(thrifty)[1] < counts(thorough)[1]
    assert counts(thrifty)[2] < counts(thorough)[2]
    assert counts(thorough) == (4, 3, 20)
    for candidate in (thrifty, thorough):
        assert replay.faults(model, candidate) == []


def test_a_plan_begins_with_the_cheapest_hosts(scenarios: ModuleType) -> None:
    """Stopped half way, it has freed the most hosts for its moves."""
    guests = [*[(0, 1, 0, 1)] * 3, *[(1, 1, 0, 1)] * 2, (2, 1, 0, 1), *[(3, 1, 0, 1)] * 5]
    model = scenarios.cluster([(16, 100, 60), (16, 100, 62), (16, 100, 64), (32, 100, 128)], guests)
    candidate = propose(scenarios, model)[-1]
    acts = [(number, step.host) for number, step in enumerate(candidate.steps) if isinstance(step, Act)]
    assert acts == [(1, 2), (4, 1), (8, 0)]


def test_a_host_that_is_enabled_counts_against_those_released(scenarios: ModuleType) -> None:
    model = scenarios.cluster(
        [(16, 100, 64)] * 4,
        [(0, 10, 0, 2), (0, 10, 0, 2), (1, 8, 0, 2), (2, 8, 0, 2)],
        host_columns={"status": ["enabled"] * 3 + ["disabled"], "disabled_reason": [""] * 3 + ["watcher_disabled"]},
    )
    (candidate,) = propose(scenarios, model)
    states = [step.parameters["state"] for step in candidate.steps if isinstance(step, Act)]
    assert states == ["enabled", "disabled"]
    assert counts(candidate) == (3, 0, 2)


@pytest.mark.parametrize("most", [0, 1, 2, 5, 100])
def test_at_most_so_many_migrations_and_no_host_half_emptied(scenarios: ModuleType, most: int) -> None:
    guests = [(0, 1, 0, 1), (1, 1, 0, 1), (1, 1, 0, 1), *[(2, 1, 0, 1)] * 6]
    model = scenarios.cluster([(16, 100, 64)] * 3, guests)
    (candidate,) = propose(scenarios, model, {"max_migrations": most})
    assert counts(candidate) == (3, {0: 0, 1: 1, 2: 1, 5: 2, 100: 2}[most], {0: 0, 1: 1, 2: 1, 5: 3, 100: 3}[most])


def test_receivers_stay_below_the_measured_cpu_asked_for(scenarios: ModuleType) -> None:
    model = scenarios.cluster(
        [(10, 100, 64)] * 3, [(0, 4, 0, 2), (1, 4, 0, 2), (2, 4, 0, 2)], host_columns={"vcpu_ratio": [4.0] * 3}
    )
    cpu = [100.0, 100.0, 40.0]
    freely = propose(scenarios, model, instance_cpu_usage=cpu)[-1]
    bounded = propose(scenarios, model, {"max_cpu_pct": 80.0}, instance_cpu_usage=cpu)[-1]
    assert (counts(freely)[1], counts(bounded)[1]) == (2, 1)
    cores = np.bincount(bounded.final_host_of(model), model.demand[:, 0] * np.array(cpu) / 100, 3)
    assert cores.max() <= 8


def test_what_a_host_uses_beyond_its_instances_stays_with_it(scenarios: ModuleType) -> None:
    """The larger of the host's own measurement and the sum of its instances counts, as with Watcher."""
    model = scenarios.cluster([(10, 100, 64)] * 2, [(0, 5, 0, 2), (1, 5, 0, 2)])
    cpu = [60.0, 60.0]
    (fits,) = propose(scenarios, model, {"max_cpu_pct": 70.0}, instance_cpu_usage=cpu, host_cpu_usage=[40.0, 40.0])
    (full,) = propose(scenarios, model, {"max_cpu_pct": 70.0}, instance_cpu_usage=cpu, host_cpu_usage=[50.0, 50.0])
    assert (counts(fits)[1], counts(full)[1]) == (1, 0)


def test_an_instance_whose_migration_failed_before_keeps_its_host_in_use(scenarios: ModuleType) -> None:
    model = scenarios.scenario_1_with_metrics()
    snapshot = scenarios.snapshot(STRATEGY, model, {}, **fake(scenarios, model))
    (candidate,) = STRATEGY.propose(replace(snapshot, failed_before=(0,)), read_parameters(STRATEGY, {}), Context())
    assert candidate.steps == (Migrate(1, 0, True), off(model, 1))


def test_a_cluster_without_hosts_or_instances_gives_an_empty_plan(scenarios: ModuleType) -> None:
    for model in (scenarios.cluster([], []), scenarios.cluster([], [(-1, 1, 1, 1)])):
        (candidate,) = propose(scenarios, model)
        assert candidate.steps == ()
        assert counts(candidate) == (0, 0, 0)


def test_cancelled_means_no_candidates(scenarios: ModuleType) -> None:
    model = scenarios.scenario_1_with_metrics()
    snapshot = scenarios.snapshot(STRATEGY, model, {})
    assert STRATEGY.propose(snapshot, read_parameters(STRATEGY, {}), Context(cancelled=lambda: True)) == ()


@settings(max_examples=150, deadline=None)
@given(seed=SEEDS, crowded=some.booleans(), limit=some.sampled_from([None, 60.0]), most=some.sampled_from([None, 4]))
def test_never_breaks_a_rule_at_any_step(
    scenarios: ModuleType, replay: ModuleType, seed: int, crowded: bool, limit: float | None, most: int | None
) -> None:
    model, measured = replay.random_cluster(scenarios, seed, crowded=crowded)
    set_to = {name: value for name, value in (("max_cpu_pct", limit), ("max_migrations", most)) if value is not None}
    candidates = propose(scenarios, model, set_to, **measured)
    assert candidates == propose(scenarios, model, set_to, **measured)
    for candidate in candidates:
        assert replay.faults(model, candidate) == []
        check_figures(model, candidate, most)


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS)
def test_every_host_that_something_leaves_becomes_empty(scenarios: ModuleType, replay: ModuleType, seed: int) -> None:
    """Without overload there is no other reason to move anything."""
    model, _ = replay.random_cluster(scenarios, seed, crowded=False)
    for candidate in propose(scenarios, model):
        final = candidate.final_host_of(model)
        left = np.bincount(final[final >= 0], minlength=model.hosts)
        assert (left[model.host_of[candidate.moves()[:, 0]]] == 0).all()


def check_figures(model: ClusterModel, candidate: Candidate, most: int | None) -> None:
    """Indicators say what the steps do."""
    nodes, released, migrations = counts(candidate)
    assert nodes == model.usable.sum()
    assert migrations == len(candidate.moves())
    assert most is None or migrations <= most
    before = np.bincount(model.host_of[model.host_of >= 0], minlength=model.hosts)
    final = candidate.final_host_of(model)
    after = np.bincount(final[final >= 0], minlength=model.hosts)
    acts = [step for step in candidate.steps if isinstance(step, Act)]
    disabled = {act.host for act in acts if act.parameters["state"] == "disabled"}
    enabled = {act.host for act in acts if act.parameters["state"] == "enabled"}
    assert len(disabled) + len(enabled) == len(acts)
    assert disabled == set(np.flatnonzero(model.usable & (after == 0)))
    assert enabled == set(np.flatnonzero(~model.enabled & (after > before)))
    assert released == max(len(disabled) - len(enabled), 0)
