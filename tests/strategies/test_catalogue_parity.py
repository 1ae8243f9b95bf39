"""Clients of Watcher find the same goals, indicators, strategies and parameters here."""

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from trimtab.platform.contracts import Goal, Score, Strategy
from trimtab.platform.errors import InvalidInput
from trimtab.platform.schema import parameters_spec, read_parameters

GOLDEN = json.loads(Path(__file__).with_name("golden_catalogue.json").read_text())
ADDED = {
    "basic": {"check_optimize_metadata"},
    "host_maintenance": {"more_backup_nodes", "more_maintenance_nodes"},
    "noisy_neighbor": {"max_migrations"},
    "outlet_temperature": {"max_migrations"},
    "storage_capacity_balance": {"excluded_pools"},
    "uniform_airflow": {"max_migrations"},
    "vm_workload_consolidation": {"max_cpu_pct", "max_migrations"},
    "workload_balance": {"max_migrations"},
    "workload_stabilization": {"max_migrations"},
    "zone_migration": {"complete"},
}
# Watcher's goals without indicators have none there; nothing is taken away from one that has.
OUR_INDICATORS = {
    "airflow_optimization": ["hosts_over_threshold_count", "instance_migrations_count"],
    "cluster_maintaining": [
        "instances_count",
        "instance_migrations_count",
        "stopped_instances_count",
        "remaining_instances_count",
    ],
    "noisy_neighbor": ["affected_hosts_count", "instance_migrations_count"],
    "saving_energy": ["hosts_powered_off_count", "hosts_powered_on_count"],
    "thermal_optimization": ["hot_hosts_count", "instance_migrations_count"],
}


def strategy_of(name: str) -> Strategy:
    """One strategy, found as the platform finds it."""
    (found,) = entry_points(group="trimtab.strategies", name=name)
    return found.load()()


def goal_of(name: str) -> Goal:
    """One goal, found as the platform finds it."""
    (found,) = entry_points(group="trimtab.goals", name=name)
    return found.load()


def undescribed(schema: Any) -> Any:
    """A schema without its descriptions, which the golden file does not hold."""
    if isinstance(schema, dict):
        return {k: undescribed(v) for k, v in schema.items() if not (k == "description" and isinstance(v, str))}
    return [undescribed(item) for item in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("golden", GOLDEN["strategies"], ids=lambda golden: golden["name"])
def test_parameters_are_watchers_and_what_is_new_is_optional(golden: dict[str, Any]) -> None:
    strategy = strategy_of(golden["name"])
    spec = undescribed(parameters_spec(strategy))
    added = set(spec["properties"]) - set(golden["parameters_spec"]["properties"])
    assert added == ADDED.get(golden["name"], set())
    assert not added & set(spec.get("required", ()))
    for name in added:
        assert "default" not in spec["properties"].pop(name)
    assert spec == golden["parameters_spec"]
    assert strategy.display_name == golden["display_name"]
    assert strategy.goal == golden["goal_name"]


@pytest.mark.parametrize("golden", GOLDEN["goals"], ids=lambda golden: golden["name"])
def test_goals_have_watchers_names_and_indicators(golden: dict[str, Any]) -> None:
    goal = goal_of(golden["name"])
    shown = [indicator.wire() for indicator in goal.indicators]
    assert all(indicator.pop("description") for indicator in shown)
    if not golden["efficacy_specification"]:
        assert [indicator["name"] for indicator in shown] == OUR_INDICATORS.get(golden["name"], [])
        shown = []
    assert {"name": goal.name, "display_name": goal.display_name, "efficacy_specification": shown} == golden


@pytest.mark.parametrize("golden", GOLDEN["strategies"], ids=lambda golden: golden["name"])
def test_strategies_keep_the_contract_and_their_grids_are_valid(golden: dict[str, Any]) -> None:
    strategy = strategy_of(golden["name"])
    assert isinstance(strategy, Strategy)
    assert strategy.name == golden["name"]
    grid = list(strategy.grid())
    assert not grid or grid[0] == {}
    read = [read_parameters(strategy, given) for given in grid]
    assert all(isinstance(one, strategy.parameters) for one in read)
    if "max_migrations" in ADDED.get(golden["name"], ()):
        assert 3 <= len(grid) <= 5


@pytest.mark.parametrize("golden", GOLDEN["strategies"], ids=lambda golden: golden["name"])
def test_an_unknown_parameter_is_refused_by_name(golden: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="there is no parameter 'perid': use one of"):
        read_parameters(strategy_of(golden["name"]), {"perid": 1})


@pytest.mark.parametrize(
    ("name", "given", "complaint"),
    [
        ("dummy", {"para1": 99}, "para1: Input should be less than or equal to 10.2"),
        ("dummy", {"para1": "3"}, "para1: Input should be a valid number"),
        ("dummy", {"para1": True}, "para1: Input should be a valid number"),
        ("actuator", {}, "actions: Field required"),
        ("actuator", {"actions": [{"action_type": "nop", "input_parameters": {"resource_id": "x"}}]}, "reserved word"),
        ("workload_stabilization", {"thresholds": {"instance_cpu_usage": 2}}, "thresholds.instance_cpu_usage"),
        ("workload_stabilization", {"metrics": ["load"]}, "metrics.0"),
        ("workload_stabilization", {"periods": {"instance": 1.5}}, "periods.instance"),
        ("workload_stabilization", {"retry_count": 0}, "retry_count"),
        ("workload_stabilization", {"host_choice": "best"}, "use fullsearch, retry, cycle"),
        ("workload_stabilization", {"aggregation_method": {"instance": "p95"}}, "use mean, min, max or count"),
        ("vm_workload_consolidation", {"max_cpu_pct": 0}, "max_cpu_pct"),
        ("vm_workload_consolidation", {"period": "1h"}, "period"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(name: str, given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        read_parameters(strategy_of(name), given)


def test_orderings_name_fields_of_the_score() -> None:
    fields = set(Score.__dataclass_fields__)
    for golden in GOLDEN["goals"]:
        assert set(goal_of(golden["name"]).ordering) <= fields
    assert goal_of("server_consolidation").ordering[:3] == ("rules_broken", "slatah", "hosts_in_use")
    assert goal_of("workload_balancing").ordering[:3] == ("rules_broken", "slatah", "cpu_sd_pp")
    assert goal_of("dummy").ordering == goal_of("unclassified").ordering == ()


def test_global_efficacy_is_watchers_percentage() -> None:
    consolidation, balancing = goal_of("server_consolidation"), goal_of("workload_balancing")
    (released,) = consolidation.global_efficacy({"compute_nodes_count": 4, "released_compute_nodes_count": 3})
    assert (released["name"], released["unit"], released["value"]) == ("released_nodes_ratio", "%", 75.0)
    assert consolidation.global_efficacy({})[0]["value"] == 0
    assert consolidation.global_efficacy({"compute_nodes_count": 0, "released_compute_nodes_count": 0})[0]["value"] == 0
    (moved,) = balancing.global_efficacy({"instance_migrations_count": 1, "instances_count": 35})
    assert (moved["name"], moved["unit"]) == ("live_migrations_count", "%")
    assert moved["value"] == pytest.approx(2.857, abs=1e-3)
    assert balancing.global_efficacy({"instance_migrations_count": 0, "instances_count": 0})[0]["value"] == 0
    assert goal_of("dummy").global_efficacy({}) == goal_of("unclassified").global_efficacy({}) == []
