"""The reasons told of moves are the true ones: what each strategy really compared, worked out here anew."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from trimtab.platform.contracts import Context
from trimtab.platform.explain import explain
from trimtab.platform.model import ClusterModel
from trimtab.platform.planner import PLANNERS
from trimtab.platform.plugins import load
from trimtab.platform.proposal import Candidate, Limits
from trimtab.platform.rules import Spread, with_rules
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Snapshot
from trimtab.simulator.annex import build_metal, build_storage


def proposed(name: str, snapshot: Snapshot, given: Mapping[str, Any] | None = None) -> Candidate:
    strategy = load().strategy(name)
    return list(strategy.propose(snapshot, read_parameters(strategy, given or {}), Context()))[-1]


def seen(
    scenarios: ModuleType, name: str, model: ClusterModel, given: Mapping[str, Any], **values: Sequence[float]
) -> Candidate:
    snapshot = scenarios.snapshot(load().strategy(name), model, given, **values)
    candidate = proposed(name, snapshot, given)
    assert candidate.reasons.keys() == set(candidate.moves()[:, 0].tolist()), "every move has a reason"
    plan = PLANNERS[candidate.planner](model, candidate, Limits())
    for reason, action in zip(
        explain(snapshot, candidate, plan, load().goals[load().strategy(name).goal]), plan.actions, strict=True
    ):
        if action.instance >= 0:
            assert reason.why[0] == candidate.reasons[action.instance], "it has the first word"
    return candidate


def figures(text: str) -> list[float]:
    """All numbers of a text that are no part of a name."""
    return [float(found) for found in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])", text)]


def test_basic_tells_the_score_of_the_host_that_is_emptied(scenarios: ModuleType) -> None:
    model = scenarios.scenario_8_with_4_nodes()
    host_cpu, guests = [7.0, 5.0, 80.0, 4.0], np.bincount(model.host_of, minlength=4)
    candidate = seen(scenarios, "basic", model, {}, host_cpu_usage=host_cpu, instance_cpu_usage=[1.0] * model.instances)
    assert len(candidate.reasons) > 1
    for instance, text in candidate.reasons.items():
        host = int(model.host_of[instance])
        cpu, memory, disk = host_cpu[host], guests[host] * 2 / 64 * 100, guests[host] * 20 / 250 * 100
        assert text.startswith(f"hostname_{host} is emptied")
        assert figures(text)[:4] == pytest.approx([(cpu + memory + disk) / 300, cpu, memory, disk], abs=0.06)


@pytest.mark.parametrize("choice", ["auto", "specify"])
def test_node_resource_consolidation_tells_how_little_is_allocated(scenarios: ModuleType, choice: str) -> None:
    candidate = seen(scenarios, "node_resource_consolidation", scenarios.scenario_10(), {"host_choice": choice})
    assert [figures(candidate.reasons[instance]) for instance in (6, 7, 8)] == [[8], [10], [12]]
    assert all(("the cloud chooses" in text) == (choice == "auto") for text in candidate.reasons.values())


def test_vm_workload_consolidation_tells_who_is_over_what_and_who_is_emptied(scenarios: ModuleType) -> None:
    """Three hosts of 10 vCPUs: one has 12 in use, one a single small instance, one has room."""
    model = scenarios.cluster(
        [(10, 900, 900)] * 3, [(0, 6, 1, 1), (0, 6, 1, 1), (1, 1, 1, 1), (2, 2, 1, 1), (2, 1, 1, 1)]
    )
    candidate = seen(scenarios, "vm_workload_consolidation", model, {}, instance_cpu_usage=[50.0] * 5)
    relieved = next(text for row, text in candidate.reasons.items() if row in (0, 1))
    assert relieved.startswith("hostname_0 is relieved: vCPUs allocated is 12, and it may be 10")
    emptied = candidate.reasons[2]
    assert emptied.startswith("hostname_1 is emptied: it may hold 10 vCPUs")
    assert figures(emptied) == [10, 1]


def test_workload_balance_tells_shares_as_they_are_when_the_move_is_made(scenarios: ModuleType) -> None:
    """Table C2: 73b09e16 uses 5 of 40 vCPUs, N0 has 13 in use, N1 has 3."""
    model = scenarios.scenario_6_with_2_nodes()
    candidate = seen(scenarios, "workload_balance", model, {"threshold": 25.0}, instance_cpu_usage=[50.0, 80, 20, 10])
    assert figures(candidate.reasons[0]) == pytest.approx([32.5, 25, 7.5, 20])
    many = [(host, 1, 1, 1) for host in (0, 0, 0, 0, 0, 0, 1)]
    model = scenarios.cluster([(10, 99, 99)] * 3, many)
    given = {"threshold": 25.0, "max_migrations": 9}
    candidate = seen(scenarios, "workload_balance", model, given, instance_cpu_usage=[100.0] * 6 + [10])
    load_of = [6.0, 0.1, 0.0]
    for instance, host in candidate.moves().tolist():
        expected = [load_of[0] * 10, 25, load_of[host] * 10, (load_of[host] + 1) * 10]
        assert load_of[host] == min(load_of[1:])
        assert figures(candidate.reasons[instance]) == pytest.approx(expected)
        load_of[0], load_of[host] = load_of[0] - 1, load_of[host] + 1
    assert len(candidate.moves()) == 4


def test_workload_stabilization_tells_the_deviation_before_and_after_each_move(scenarios: ModuleType) -> None:
    """D4: of all moves d050 to N4 lowers the weighted deviation most, from 0.3666507 to 0.3244549."""
    given = {
        "metrics": ["instance_cpu_usage", "instance_ram_usage"],
        "thresholds": {"instance_cpu_usage": 0.001, "instance_ram_usage": 0.0001},
        "host_choice": "fullsearch",
    }
    candidate = seen(scenarios, "workload_stabilization", scenarios.scenario_1(), given, **scenarios.GNOCCHI)
    told = [figures(candidate.reasons[instance]) for instance in candidate.moves()[:, 0].tolist()]
    assert candidate.moves()[0].tolist() == [5, 4]
    assert told[0] == pytest.approx([0.3666507, 0.3244549], abs=6e-5)
    assert all(one[1] == pytest.approx(later[0]) for one, later in pairwise(told))
    assert all(after < before for before, after in told)
    assert told[-1][1] == pytest.approx(candidate.indicators["standard_deviation_after_audit"], abs=6e-5)


def test_outlet_temperature_tells_temperatures_and_the_use_that_heats(scenarios: ModuleType) -> None:
    """Not CPU per cent of hosts, which is what explanations fall back on."""
    model = scenarios.cluster([(40, 99, 99)] * 3, [(0, 10, 1, 1), (0, 4, 1, 1), (1, 1, 1, 1)])
    values = {"host_outlet_temp": [41.0, 30.0, 22.5], "instance_cpu_usage": [10.0, 80.0, 5.0]}
    candidate = seen(scenarios, "outlet_temperature", model, {}, **values)
    assert candidate.moves().tolist() == [[1, 2]]
    assert figures(candidate.reasons[1]) == pytest.approx([41, 35, 3.2, 22.5])


def test_uniform_airflow_tells_airflow_and_whether_the_hardware_is_at_fault(scenarios: ModuleType) -> None:
    """Scenario 7 with Watcher's table: airflow 400 and 100, inlet 24, power 260."""
    model = scenarios.scenario_7_with_2_nodes()
    values = {"host_airflow": [400.0, 100.0], "host_inlet_temp": [24.0, 26.0], "host_power": [260.0, 240.0]}
    candidate = seen(scenarios, "uniform_airflow", model, {}, **values)
    assert [figures(candidate.reasons[row]) for row in candidate.moves()[:, 0].tolist()] == [
        [400, 400, 0.1, 24, 260, 15, 100],
        [400, 400, 0.1, 24, 260, 10, 100],
    ]
    candidate = seen(scenarios, "uniform_airflow", model, {"threshold_inlet_t": 22.0}, **values)
    (text,) = candidate.reasons.values()
    assert "fault" not in text
    assert figures(text) == [400, 400, 0.1, 15, 100]


def test_noisy_neighbor_tells_who_suffers_from_whom_and_by_how_much(scenarios: ModuleType) -> None:
    """D7: INSTANCE_3 fell from 80 to 40, INSTANCE_4 grew from 10 to 35; on N0 are 65."""
    model = scenarios.scenario_7_with_2_nodes()
    strategy = load().strategy("noisy_neighbor")
    now, both = strategy.needs(read_parameters(strategy, {}))
    snapshot = Snapshot(
        model, 0.0, measured={now: np.array([35.0, 30, 40, 35]), both: np.array([34.5, 30.5, 60, 22.5])}
    )
    candidate = proposed("noisy_neighbor", snapshot)
    assert candidate.moves().tolist() == [[3, 0]]
    assert figures(candidate.reasons[3]) == [10, 35, 1, 9, 80, 40, 65]


def test_host_maintenance_tells_why_there(scenarios: ModuleType) -> None:
    """A backup, no room there, a rule that the cloud does not know."""
    model = scenarios.cluster([(40, 99, 99)] * 4, [(0, 1, 1, 50), (0, 1, 1, 60), (0, 1, 1, 9), (2, 1, 1, 30)])
    model = with_rules(model, [Spread(name="apart", members=np.array([2, 3], np.int32), continuous=False)])
    given = {"maintenance_node": "hostname_0", "backup_node": "hostname_1"}
    candidate = seen(scenarios, "host_maintenance", model, given)
    first = "hostname_0 is to be maintained: "
    assert candidate.reasons[1] == f"{first}hostname_1 is the first of its backups that may take it"
    assert candidate.reasons[0] == f"{first}no backup may take it, and the cloud chooses"
    alone = {"maintenance_node": "hostname_0"}
    assert (
        seen(scenarios, "host_maintenance", model, alone).reasons[0]
        == f"{first}it has no backup, and the cloud chooses"
    )
    told = seen(scenarios, "host_maintenance", model, alone).reasons[2]
    assert told.startswith(f"{first}the cloud does not know its rule apart")


def test_zone_migration_tells_what_was_asked_for(scenarios: ModuleType) -> None:
    model = scenarios.scenario_1()
    given = {"compute_nodes": [{"src_node": "hostname_0", "dst_node": "hostname_1"}, {"src_node": "hostname_4"}]}
    reasons = seen(scenarios, "zone_migration", model, given).reasons
    assert reasons[0] == (
        "compute_nodes asks for everything on hostname_0 to go to hostname_1, which has room and may take it"
    )
    assert reasons[7] == "compute_nodes asks for everything on hostname_4 to go, and the cloud chooses where to"


def test_repair_leaves_the_first_word_to_the_rule_and_tells_who_only_makes_room(scenarios: ModuleType) -> None:
    """Two must part, and no host has room before a third one has moved."""
    model = scenarios.cluster([(4, 99, 99)] * 3, [(0, 2, 1, 1), (0, 2, 1, 1), (1, 3, 1, 1), (2, 2, 1, 1), (2, 1, 1, 1)])
    model = with_rules(model, [Spread(name="apart", members=np.array([0, 1], np.int32), continuous=False)])
    snapshot = Snapshot(model, 0.0)
    candidate = proposed("repair", snapshot)
    moved = set(candidate.moves()[:, 0].tolist())
    assert moved & {0, 1}
    assert moved - {0, 1}
    assert candidate.reasons == dict.fromkeys(moved - {0, 1}, "moves out of the way, so that a broken rule can be kept")
    plan = PLANNERS[candidate.planner](model, candidate, Limits())
    for reason, action in zip(
        explain(snapshot, candidate, plan, load().goals["rules_compliance"]), plan.actions, strict=True
    ):
        assert ("apart" in reason.why[0]) == (action.instance in (0, 1))


def test_the_actuator_says_that_it_was_asked(scenarios: ModuleType) -> None:
    model = scenarios.scenario_1()
    action = {
        "action_type": "migrate",
        "resource_id": model.instance_id(0),
        "input_parameters": {"migration_type": "live", "source_node": "hostname_0", "destination_node": "hostname_3"},
    }
    candidate = proposed("actuator", Snapshot(model, 0.0), {"actions": [action]})
    assert dict(candidate.reasons) == {0: "the audit's actions ask for it (migrate)"}


def test_acts_of_energy_and_storage_tell_counts_that_hold(scenarios: ModuleType) -> None:
    """One host in use, two free ones on, one enough; and pools at or above the threshold."""
    model = scenarios.cluster([(4, 99, 99)] * 3, [(0, 1, 1, 1)])
    metal = build_metal(model, 1)
    candidate = proposed("saving_energy", Snapshot(model, 0.0, baremetal=metal))
    assert figures(candidate.because) == [1, 2, 1]
    storage = build_storage(scenarios.cluster([(40, 900, 900)] * 4, [(n % 4, 1, 9, 1) for n in range(40)]), 5)
    use = (1 - storage.free_gb / storage.total_gb) * 100
    given = {"volume_threshold": float(np.sort(use)[-2:].mean())}
    candidate = proposed("storage_capacity_balance", Snapshot(model, 0.0, storage=storage), given)
    assert figures(candidate.because) == pytest.approx([1, storage.pools, given["volume_threshold"]], rel=1e-4)


def test_no_strategy_is_forgotten_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    silent = {"dummy", "dummy_with_resize", "dummy_with_scorer"}  # they only try the machinery
    assert all(f'"{name}"' in text for name in set(load().strategies) - silent)
