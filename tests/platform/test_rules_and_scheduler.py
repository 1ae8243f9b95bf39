"""Moves left to the cloud's own scheduler: who must not be, whatever host it chooses, and what the judge says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform import rules as r
from trimtab.platform.model import ClusterModel
from trimtab.platform.rules.violations import excess


def _plain() -> Any:
    path = Path(__file__).with_name("plain_rules.py")
    spec = importlib.util.spec_from_file_location("trimtab_plain_rules", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


plain = _plain()


def rows(*values: int) -> Any:
    return np.array(values, np.int32)


def cloud(hosts: int, where: list[int], **columns: Any) -> ClusterModel:
    return ClusterModel.from_arrow(
        pa.table(
            {
                "uuid": [f"h{n}" for n in range(hosts)],
                "hostname": [f"host{n}" for n in range(hosts)],
                "vcpus": [8.0] * hosts,
                "memory_mb": [8.0] * hosts,
                "disk_gb": [8.0] * hosts,
            }
        ),
        pa.table(
            {
                "uuid": [f"v{n}" for n in range(len(where))],
                "name": [f"vm{n}" for n in range(len(where))],
                "node": pa.array([f"h{n}" if n >= 0 else None for n in where], pa.string()),
                "vcpus": [1.0] * len(where),
                "memory_mb": [1.0] * len(where),
                "disk_gb": [0.0] * len(where),
                **columns,
            }
        ),
        pa.table({"uuid": ["g0"], "policy": ["anti-affinity"]}),
    )


@settings(max_examples=150, deadline=None)
@given(plain.ruled_clouds(), st.lists(st.integers(0, 4), min_size=7, max_size=7))
def test_wherever_the_cloud_puts_those_left_to_it_no_rule_gets_worse(model: ClusterModel, choice: list[int]) -> None:
    place = model.host_of.copy()
    free = np.flatnonzero(~r.bound_by_rules(model) & (model.host_of >= 0))
    for v in free.tolist():
        host = min(choice[v], model.hosts - 1)
        before = place[v]
        place[v] = host
        demand = np.zeros((model.hosts, 3))
        np.add.at(demand, place[place >= 0], model.demand[place >= 0])
        if (demand[host] > model.capacity[host]).any():  # the cloud knows what fits
            place[v] = before
    start, end = excess(model, r.rulebook(model), model.host_of), excess(model, r.rulebook(model), place)
    assert (end <= start + 1e-6).all()


@pytest.mark.parametrize(
    ("rule", "bound"),
    [
        (r.Fence(members=rows(0), hosts=rows(0, 1)), [0]),
        (r.Ban(members=rows(1), hosts=rows(2)), [1]),
        (r.Spread(members=rows(0, 1), continuous=False), [0, 1]),
        (r.Gather(members=rows(0, 1)), [0, 1]),
        (r.Root(members=rows(2)), [2]),
        (r.Split(groups=[rows(0), rows(2)]), [0, 2]),
        (r.Among(members=rows(1, 2), host_groups=[rows(0), rows(1, 2)]), [1, 2]),
        (r.Lonely(members=rows(2)), [0, 1, 2]),
        (r.Lonely(), []),
        (r.MaxOnline(hosts=rows(0, 1), most=1), [0, 1, 2]),
        (r.RunningCapacity(hosts=rows(0), most=2), [1, 2]),
        (r.RunningCapacity(most=2), []),
        (r.ResourceCapacity(hosts=rows(0), most=2, resource=0), [1, 2]),
        (r.ResourceCapacity(hosts=rows(0), most=2, resource=2), []),
        (r.Preserve(members=rows(0), resource=0, least=2.0), [0, 1, 2]),
        (r.Preserve(members=rows(0), resource=0, least=1.0), []),
    ],
    ids=lambda given: given.kind if isinstance(given, r.Rule) else "",
)
def test_a_rule_binds_its_members_and_those_who_could_break_it_by_arriving(rule: r.Rule, bound: list[int]) -> None:
    model = r.with_rules(cloud(3, [0, 1, 2]), [rule])
    assert np.flatnonzero(r.bound_by_rules(model)).tolist() == bound


def test_what_the_cloud_knows_itself_binds_nobody() -> None:
    model = cloud(2, [0, 1], pinned_zone=["nova", ""], group=["g0", "g0"])
    assert not r.bound_by_rules(model).any()
    assert r.binding_rule(model, 0) is None


def test_rules_about_hosts_outside_the_scope_still_bind_who_could_be_put_there() -> None:
    inside = np.array([True, True, False])
    for rule in (
        r.Lonely(name="bank", members=rows(2)),
        r.RunningCapacity(name="bank", hosts=rows(2), most=1),
        r.Preserve(name="bank", members=rows(2), resource=0, least=4.0),
    ):
        part = r.with_rules(cloud(3, [0, 1, 2]), [rule]).subset(inside)
        assert r.bound_by_rules(part).tolist() == [True, True]
        assert r.binding_rule(part, 0).label == f"bank ({rule.kind})"
        assert r.broken(part) == []
        assert r.destinations(part.placement(), 0).tolist() == [False, True]
    part = r.with_rules(cloud(3, [0, 1, 2]), [r.Spread(members=rows(2))]).subset(inside)
    assert not r.bound_by_rules(part).any()
