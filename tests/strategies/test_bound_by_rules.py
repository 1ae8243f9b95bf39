"""Instances that rules bind are sent to named hosts, never to wherever the cloud's scheduler likes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from trimtab.platform.contracts import Context
from trimtab.platform.model import ClusterModel
from trimtab.platform.planner import PLANNERS
from trimtab.platform.plugins import load
from trimtab.platform.proposal import Candidate, Limits, Migrate
from trimtab.platform.rules import Spread, judge, judge_plan, with_rules
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Snapshot


def ruled() -> ClusterModel:
    """Four hosts of 8 vCPUs; on the first three instances that must be apart, and one that is free to go anywhere."""
    hosts = {
        "uuid": [f"h{n}" for n in range(4)],
        "hostname": [f"host-{n}" for n in range(4)],
        "vcpus": [8.0] * 4,
        "memory_mb": [8192.0] * 4,
        "disk_gb": [100.0] * 4,
    }
    instances = {
        "uuid": [f"i{n}" for n in range(4)],
        "name": [f"vm-{n}" for n in range(4)],
        "node": ["h0", "h0", "h0", "h0"],
        "vcpus": [1.0] * 4,
        "memory_mb": [512.0] * 4,
        "disk_gb": [1.0] * 4,
    }
    model = ClusterModel.from_arrow(pa.table(hosts), pa.table(instances))
    return with_rules(model, [Spread(name="web", members=np.array([0, 1, 2], np.int32), continuous=False)])


def proposed(strategy: str, parameters: dict[str, Any], **more: Any) -> tuple[ClusterModel, Candidate]:
    model = ruled()
    one = load().strategy(strategy)
    (candidate,) = one.propose(Snapshot(model, 0.0, **more), read_parameters(one, parameters), Context())
    return model, candidate


@pytest.mark.parametrize(
    ("strategy", "parameters"),
    [
        ("host_maintenance", {"maintenance_node": "host-0"}),
        ("zone_migration", {"compute_nodes": [{"src_node": "host-0"}], "complete": True}),
    ],
)
def test_who_is_bound_is_sent_to_a_named_host_that_keeps_the_rule(strategy: str, parameters: dict[str, Any]) -> None:
    model, candidate = proposed(strategy, parameters)
    moves = {step.instance: step.destination for step in candidate.steps if isinstance(step, Migrate)}
    assert moves.keys() == {0, 1, 2, 3}
    assert {moves[0], moves[1], moves[2]} == {1, 2, 3}
    assert moves[3] == -1, "nothing binds it: the cloud chooses"
    assert not judge(model, candidate)
    plan = PLANNERS[candidate.planner](model, candidate, Limits())
    assert not judge_plan(model, plan)
    assert len(plan.migrations()) == 4


def test_consolidation_leaves_the_choice_to_the_cloud_only_for_the_unbound() -> None:
    model, candidate = proposed("node_resource_consolidation", {"host_choice": "auto"})
    bound = [step for step in candidate.steps if isinstance(step, Migrate) and step.instance in (0, 1, 2)]
    assert all(step.destination >= 0 for step in bound)
    assert not judge(model, candidate)


def test_whose_migration_failed_once_is_sent_to_a_named_host_and_whose_failed_twice_stays() -> None:
    model, candidate = proposed("host_maintenance", {"maintenance_node": "host-0"}, failed_before=(3,))
    (again,) = [step for step in candidate.steps if isinstance(step, Migrate) and step.instance == 3]
    assert again.destination > 0, "the first time the cloud chose"
    assert any("1 instances failed to move" in note and "vm-3" in note for note in candidate.notes)
    _, candidate = proposed("host_maintenance", {"maintenance_node": "host-0"}, failed_before=(3, 3))
    assert 3 not in candidate.moves()[:, 0]
    assert candidate.indicators["remaining_instances_count"] == 1
    (told,) = [note for note in candidate.notes if "vm-3" in note]
    assert told.startswith("1 instances stay: their migration failed twice")
    assert not judge(model, candidate)


def test_whose_migration_to_a_backup_failed_is_sent_to_another_host() -> None:
    given = {"maintenance_node": "host-0", "backup_node": "host-2"}
    _, candidate = proposed("host_maintenance", given)
    assert [3, 2] in candidate.moves().tolist()
    _, candidate = proposed("host_maintenance", given, failed_before=(3,))
    (again,) = [step for step in candidate.steps if isinstance(step, Migrate) and step.instance == 3]
    assert again.destination in (1, 3)


def test_who_is_bound_and_finds_no_host_stays_and_is_named() -> None:
    model = with_rules(ruled(), [Spread(name="web", members=np.array([0, 1, 2, 3], np.int32), continuous=False)])
    one = load().strategy("host_maintenance")
    parameters = read_parameters(one, {"maintenance_node": "host-0"})
    (candidate,) = one.propose(Snapshot(model, 0.0), parameters, Context())
    moves = candidate.moves()
    assert sorted(moves[:, 1].tolist()) == [1, 2, 3]
    (left,) = {0, 1, 2, 3} - set(moves[:, 0].tolist())
    assert (candidate.indicators["instance_migrations_count"], candidate.indicators["remaining_instances_count"]) == (
        3,
        1,
    )
    (told,) = [note for note in candidate.notes if f"vm-{left}" in note]
    assert told.startswith("1 instances stay: no other host has room")
    assert not judge(model, candidate)
