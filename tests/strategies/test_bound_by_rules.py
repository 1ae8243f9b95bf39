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


def test_host_maintenance_says_whose_migration_failed_before() -> None:
    _, candidate = proposed("host_maintenance", {"maintenance_node": "host-0"}, failed_before=(3,))
    assert any("1 instances failed to move in an earlier plan" in note and "vm-3" in note for note in candidate.notes)
