"""basic from the outside: Watcher's scenarios, and what was wrong there."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from trimtab.platform.contracts import Context
from trimtab.platform.model import ClusterModel, InstanceState
from trimtab.platform.proposal import Candidate, Migrate
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.strategies.library.basic import Basic, sizes, worths

STRATEGY = Basic()
SEEDS = some.integers(0, 2**32 - 1)


def propose(
    scenarios: ModuleType, model: ClusterModel, set_to: dict[str, Any] | None = None, **values: Sequence[float]
) -> Candidate:
    snapshot = scenarios.snapshot(STRATEGY, model, set_to or {}, **values)
    (candidate,) = STRATEGY.propose(snapshot, read_parameters(STRATEGY, set_to or {}), Context())
    return candidate


def words(candidate: Candidate) -> list[str]:
    """Steps as short words: `5>2` a live migration, `-3` a host that is disabled for Watcher's reason."""
    found = []
    for step in candidate.steps:
        if isinstance(step, Migrate):
            found.append(f"{step.instance}{'>' if step.live else '~'}{step.destination}")
        else:
            assert step.parameters["state"] == "disabled"
            assert step.parameters["disabled_reason"] == "watcher_disabled"
            assert step.parameters["resource_name"] == f"hostname_{step.host}"
            assert step.resource_id == f"Node_{step.host}"
            found.append(f"-{step.host}")
    return found


def counts(candidate: Candidate) -> tuple[float, ...]:
    names = ("compute_nodes", "released_compute_nodes", "instance_migrations")
    return tuple(candidate.indicators[f"{name}_count"] for name in names)


def gnocchi(scenarios: ModuleType, model: ClusterModel) -> dict[str, Any]:
    """Table C1 for models whose first hosts are N0 to N4; what is not in the table is 0."""
    return {
        "host_cpu_usage": [*scenarios.GNOCCHI["host_cpu_usage"], *[0.0] * 9][: model.hosts],
        "instance_cpu_usage": [7.0, *[0.0] * 40][: model.instances],
    }


def test_needs_are_watchers_metrics_and_the_old_name_of_hosts_counts() -> None:
    """D1: aggregation_method node = "min" sets compute_node."""
    assert STRATEGY.needs(read_parameters(STRATEGY, {"aggregation_method": {"node": "min"}})) == (
        Need("host_cpu_usage", "host", "min", 7200, 300),
        Need("instance_cpu_usage", "instance", "mean", 7200, 300),
    )


def test_the_less_loaded_of_two_hosts_gives_its_instance(scenarios: ModuleType) -> None:
    """D1, scenario_3_with_2_nodes."""
    model = scenarios.scenario_3_with_2_nodes()
    candidate = propose(scenarios, model, host_cpu_usage=[0.0, 0], instance_cpu_usage=[0.0, 0])
    assert words(candidate) == ["1>0", "-1"]
    assert counts(candidate) == (2, 1, 1)
    assert candidate.planner == "capacity"


def test_three_of_four_hosts_are_released(scenarios: ModuleType) -> None:
    """D1, scenario 8: five migrations, three state changes."""
    model = scenarios.scenario_8_with_4_nodes()
    candidate = propose(scenarios, model, **gnocchi(scenarios, model))
    assert words(candidate) == ["5>2", "-3", "3>2", "-1", "0>2", "1>2", "2>2", "-0"]
    assert counts(candidate) == (4, 3, 5)


def test_a_stopped_instance_keeps_its_host(scenarios: ModuleType) -> None:
    """D1, scenario 1."""
    candidate = propose(scenarios, scenarios.scenario_1(), **scenarios.GNOCCHI)
    assert words(candidate) == ["7>2", "-4", "2>0", "-1"]
    assert counts(candidate) == (5, 2, 2)
    assert candidate.notes[-1].endswith("hostname_3")


@pytest.mark.parametrize("state", [state.wire for state in InstanceState if state != InstanceState.ACTIVE])
def test_only_active_instances_migrate_and_a_host_with_any_other_is_left_alone(
    scenarios: ModuleType, state: str
) -> None:
    """D1, section 1, step 2b: candidates are active only. Watcher moves the others off a host that it cannot free."""
    guests = [(0, 4, 20, 2), (1, 1, 20, 2), (1, 1, 20, 2), (2, 2, 20, 2)]
    states = {"state": ["active", "active", state, "active"]}
    model = scenarios.cluster([(16, 250, 64)] * 3, guests, instance_columns=states)
    values: dict[str, Any] = {"host_cpu_usage": [40.0, 2, 10], "instance_cpu_usage": [10.0] * 4}
    candidate = propose(scenarios, model, **values)
    assert words(candidate) == ["3>0", "-2"]
    assert any("1 hosts cannot be emptied" in note and "hostname_1" in note for note in candidate.notes)
    model = scenarios.cluster([(16, 250, 64)] * 3, guests)
    assert words(propose(scenarios, model, **values)) == ["3>0", "-2", "1>0", "2>0", "-1"]


def test_only_hosts_that_could_not_be_emptied_count_as_attempts(scenarios: ModuleType) -> None:
    """D1, scenario 1, migration_attempts 1: Watcher counts a released host's second look and stops after one."""
    candidate = propose(scenarios, scenarios.scenario_1(), {"migration_attempts": 1}, **scenarios.GNOCCHI)
    assert counts(candidate) == (5, 2, 2)
    guests = [(0, 6, 1, 1), (1, 7, 1, 1), (2, 8, 1, 1), (3, 2, 1, 1), (3, 3, 1, 1)]
    model = scenarios.cluster([(10, 99, 99)] * 4, guests)
    values: dict[str, Any] = {"host_cpu_usage": [10.0, 20, 30, 40], "instance_cpu_usage": [1.0] * 5}
    assert words(propose(scenarios, model, {"migration_attempts": 3}, **values)) == ["4>1", "3>2", "-3"]
    assert words(propose(scenarios, model, {"migration_attempts": 2}, **values)) == []


@pytest.mark.parametrize("number", [6, 7])
def test_of_two_equal_hosts_the_second_is_emptied(scenarios: ModuleType, number: int) -> None:
    """D1, scenarios 6 and 7."""
    model = getattr(scenarios, f"scenario_{number}_with_2_nodes")()
    values: dict[str, Any] = {"host_cpu_usage": [7.0, 7.0], "instance_cpu_usage": [0.0] * 4}
    assert words(propose(scenarios, model, **values)) == ["2>0", "3>0", "-1"]


def test_an_excluded_instance_keeps_its_host(scenarios: ModuleType) -> None:
    """D1, scenario 8 with INSTANCE_5 excluded."""
    model = scenarios.scenario_8_with_4_nodes()
    model = model.with_changes(excluded=np.arange(6) == 5)
    candidate = propose(scenarios, model, **gnocchi(scenarios, model))
    assert words(candidate) == ["3>2", "-1", "0>2", "1>2", "2>2", "-0"]
    assert counts(candidate) == (4, 2, 5 - 1)


def test_a_disabled_host_neither_receives_nor_gives_nor_counts(scenarios: ModuleType) -> None:
    """D1, scenario 9: Watcher releases the disabled host as well and reports 100 % while one host is still in use."""
    model = scenarios.scenario_8_with_4_nodes(("enabled", "enabled", "enabled", "disabled"))
    candidate = propose(scenarios, model, **gnocchi(scenarios, model))
    assert words(candidate) == ["3>2", "-1", "0>2", "1>2", "2>2", "-0"]
    assert counts(candidate) == (3, 2, 4)
    values: dict[str, Any] = {**gnocchi(scenarios, model), "host_cpu_usage": [7.0, 7, 5, 80]}
    assert 3 not in propose(scenarios, model, **values).moves()[:, 1]


def test_disk_and_memory_count_where_nothing_is_busy(scenarios: ModuleType) -> None:
    """D1, scenario 10, all metrics 0: Watcher empties the disabled h7 as well, and fills hosts in the model's order."""
    model = scenarios.scenario_10()
    candidate = propose(scenarios, model, host_cpu_usage=[0.0] * 8, instance_cpu_usage=[0.0] * 9)
    assert words(candidate) == ["7>2", "-4", "6>0", "-3"]
    assert counts(candidate) == (6, 2, 2)


def test_an_empty_host_is_neither_released_nor_filled(scenarios: ModuleType) -> None:
    """D1, scenario 4: efficacy 0."""
    assert counts(propose(scenarios, scenarios.cluster([(1, 1, 1)], []))) == (1, 0, 0)
    model = scenarios.cluster([(8, 9, 9), (8, 9, 9)], [(0, 1, 1, 1)])
    assert propose(scenarios, model, host_cpu_usage=[5.0, 0], instance_cpu_usage=[5.0]).steps == ()


def test_scores_are_thirds_of_cpu_disk_and_memory(scenarios: ModuleType) -> None:
    """D1: 7 % of CPU are 0.0233333, as in Watcher; disk and memory, which it leaves out, come on top."""
    model = scenarios.scenario_1()
    used = np.concatenate([model.used(), model.total[:, [0]] * np.array([[7.0], [7], [80], [5], [5]]) / 100], axis=1)
    score = worths(model) * used
    np.testing.assert_allclose(score[:3, 3], [0.0233333, 0.0233333, 0.2666667], atol=1e-6)
    np.testing.assert_allclose(score[0, 1:3], [5 / 132 / 3, 38 / 250 / 3])
    assert sizes(model, np.full(10, 2.8))[0] == pytest.approx(0.0233333 + 20 / 250 / 3 + 2 / 132 / 3, abs=1e-6)


def test_nothing_moves_off_a_host_that_does_not_become_empty(scenarios: ModuleType) -> None:
    """Watcher moves what fits and keeps the host."""
    model = scenarios.cluster([(8, 99, 99), (8, 99, 99)], [(0, 4, 1, 1), (1, 4, 1, 1), (1, 3, 1, 1)])
    values: dict[str, Any] = {"host_cpu_usage": [50.0, 10], "instance_cpu_usage": [10.0] * 3}
    assert propose(scenarios, model, **values).steps == ()


def test_measured_load_counts_in_the_fit(scenarios: ModuleType) -> None:
    """Watcher looks at what is allocated only: a host at 95 % takes more if its instances asked for little."""
    model = scenarios.cluster([(8, 99, 99), (8, 99, 1)], [(0, 2, 1, 2), (1, 2, 1, 1)])
    busy: dict[str, Any] = {"host_cpu_usage": [90.0, 20], "instance_cpu_usage": [50.0, 80.0]}
    assert propose(scenarios, model, **busy).steps == ()
    calm: dict[str, Any] = {"host_cpu_usage": [70.0, 20], "instance_cpu_usage": [50.0, 80.0]}
    assert words(propose(scenarios, model, **calm)) == ["1>0", "-1"]


def test_scores_follow_the_plan(scenarios: ModuleType) -> None:
    """Host 1 becomes the fullest by what it takes from host 2, so that host 0 gives: by the old scores host 1 would."""
    model = scenarios.cluster(
        [(3, 100, 100), (20, 100, 100), (20, 100, 100)], [(0, 2, 30, 30), (1, 2, 29, 29), (2, 2, 25, 25)]
    )
    values: dict[str, Any] = {"host_cpu_usage": [1.0, 1, 1], "instance_cpu_usage": [0.0] * 3}
    assert words(propose(scenarios, model, **values)) == ["2>1", "-2", "0>1", "-0"]


def test_nothing_of_vcpus_or_memory_is_no_division(scenarios: ModuleType) -> None:
    """Watcher divides by zero."""
    model = scenarios.cluster([(0, 0, 0), (8, 99, 99), (8, 0, 99)], [(0, 0, 0, 0), (1, 1, 1, 1), (2, 0, 0, 0)])
    candidate = propose(scenarios, model, host_cpu_usage=[np.nan, 50, 10], instance_cpu_usage=[np.nan, 5, 0])
    assert words(candidate) == ["0>1", "-0", "2>1", "-2"]


def test_missing_measurements_are_named(scenarios: ModuleType) -> None:
    model = scenarios.scenario_3_with_2_nodes()
    candidate = propose(scenarios, model, host_cpu_usage=[np.nan, 5], instance_cpu_usage=[np.nan, 5])
    assert candidate.notes == (
        "1 hosts without CPU measurement count as their instances: hostname_0",
        "1 instances without CPU measurement count with all their vCPUs: vm_0",
    )
    assert words(candidate) == ["1>0", "-1"]


def test_metadata_say_what_stays_when_asked(scenarios: ModuleType) -> None:
    """Watcher's option check_optimize_metadata: no metadata is kept, metadata without the key is not."""
    said = ['{"optimize": "True"}', '{"optimize": false}', '{"top": "floor"}', "{}", ""]
    for text, moves in zip(said, (True, False, False, True, True), strict=True):
        model = scenarios.cluster(
            [(40, 250, 132)] * 2, [(0, 10, 20, 2), (1, 10, 20, 2)], instance_columns={"metadata": ["", text]}
        )
        values: dict[str, Any] = {"host_cpu_usage": [9.0, 5], "instance_cpu_usage": [5.0, 5]}
        candidate = propose(scenarios, model, {"check_optimize_metadata": True}, **values)
        assert (words(candidate)[:1] == ["1>0"]) is moves
        assert words(propose(scenarios, model, **values)) == ["1>0", "-1"]


def test_what_failed_before_keeps_its_host(scenarios: ModuleType) -> None:
    model = scenarios.scenario_3_with_2_nodes()
    parameters = read_parameters(STRATEGY, {})
    (candidate,) = STRATEGY.propose(Snapshot(model, 0.0, failed_before=(1,)), parameters, Context())
    assert words(candidate) == ["0>1", "-0"]


@settings(max_examples=80, deadline=None)
@given(seed=SEEDS, crowded=some.booleans())
def test_releases_only_what_is_empty_and_breaks_no_rule(
    scenarios: ModuleType, replay: ModuleType, seed: int, crowded: bool
) -> None:
    model, measured = replay.random_cluster(scenarios, seed, crowded=crowded)
    candidate = propose(scenarios, model, **measured)
    assert candidate == propose(scenarios, model, **measured)
    assert replay.faults(model, candidate) == []
    final = candidate.final_host_of(model)
    left = np.bincount(final[final >= 0], minlength=model.hosts)
    sources = model.host_of[candidate.moves()[:, 0]]
    assert (left[sources] == 0).all()
    assert counts(candidate) == (model.usable.sum(), len(np.unique(sources)), len(candidate.moves()))
