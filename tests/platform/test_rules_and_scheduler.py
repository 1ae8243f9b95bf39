"""Moves left to the cloud's own scheduler: who must not be, whatever host it chooses, and what the judge says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.platform import plain_rules as plain

from trimtab.platform import rules as r
from trimtab.platform.errors import PlanError
from trimtab.platform.model import ClusterModel
from trimtab.platform.planner import plan_capacity, plan_weight
from trimtab.platform.proposal import Act, Candidate, Limits, Migrate
from trimtab.platform.rules.violations import excess


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
        binding = r.binding_rule(part, 0)
        assert binding is not None
        assert binding.label == f"bank ({rule.kind})"
        assert r.broken(part) == []
        assert r.destinations(part.placement(), 0).tolist() == [False, True]
    part = r.with_rules(cloud(3, [0, 1, 2]), [r.Spread(members=rows(2))]).subset(inside)
    assert not r.bound_by_rules(part).any()


CHANCE = "instance vm0 needs a named destination: the cloud's own choice does not know rule gpu (fence)"


@pytest.mark.parametrize("continuous", [True, False])
def test_a_bound_instance_left_to_the_cloud_is_refused_with_the_rule(continuous: bool) -> None:
    fence = r.Fence(name="gpu", members=rows(0), hosts=rows(0, 1), continuous=continuous)
    model = r.with_rules(cloud(3, [0, 0, 0]), [fence])
    both = Candidate((Migrate(0, -1), Migrate(1, -1)))
    assert r.judge(model, both) == [CHANCE]
    assert r.judge(model, Candidate((Migrate(0, 1), Migrate(1, -1)))) == []
    careless = plan_weight(model, both, Limits())
    assert r.judge_plan(model, careless) == [f"action 0: {CHANCE}"]
    made = plan_capacity(model, both, Limits())
    assert [action.instance for action in made.actions] == [1]
    assert made.notes[0].startswith("instance vm0 stays on host host0: the cloud's own choice does not know rule gpu")
    with pytest.raises(PlanError, match="does not know rule gpu"):
        plan_capacity(model, Candidate((Migrate(0, -1),)), Limits())


def test_one_left_to_the_cloud_frees_nothing_under_a_limit_for_the_judge_as_for_the_planner() -> None:
    limit = r.RunningCapacity(name="licence", hosts=rows(0, 1), most=2)
    model = r.with_rules(cloud(3, [0, 1, 2]), [limit])
    swap = Candidate((Migrate(0, -1), Migrate(2, 1)))
    assert r.judge(model, swap) == ["rule licence (running_capacity) would be broken"]
    made = plan_capacity(model, swap, Limits())
    assert [action.instance for action in made.actions] == [0]
    assert r.judge_plan(model, made) == []
    careless = plan_weight(model, swap, Limits())
    assert r.judge_plan(model, careless) == [
        "action 1: rule licence (running_capacity) would be broken while vm2 goes to host1"
    ]


def test_nobody_is_left_to_the_cloud_under_a_limit_of_hosts_in_use() -> None:
    model = r.with_rules(cloud(4, [0, 0, 1]), [r.MaxOnline(name="power", hosts=rows(0, 1, 2), most=2)])
    reasons = r.judge(model, Candidate((Migrate(0, -1), Migrate(2, -1))))
    assert reasons == [
        f"instance vm{v} needs a named destination: the cloud's own choice does not know rule power (max_online)"
        for v in (0, 2)
    ]
    assert r.judge(model, Candidate((Migrate(0, 3), Migrate(2, 0)))) == []


def test_moves_that_break_a_rule_without_one_that_is_left_out_stay_too() -> None:
    together = r.Gather(name="pair", members=rows(0, 1), continuous=False)
    stuck = r.Root(name="pin", members=rows(1))
    model = r.with_rules(cloud(3, [0, 0, 0]), [together, stuck])
    made = plan_capacity(model, Candidate((Migrate(0, 1), Migrate(1, 1), Migrate(2, 2))), Limits())
    assert [action.instance for action in made.actions] == [2]
    assert made.notes == (
        "instance vm0 stays on host host0: rule pair (gather) would be broken without the moves that cannot be done",
        "instance vm1 stays on host host0: rule pin (root) would be broken on its way to host host1",
    )


def test_a_crowd_that_would_meet_again_elsewhere_is_left_out_not_the_whole_plan() -> None:
    model = r.with_rules(cloud(4, [0, 0, 1, 1]), [r.Spread(name="web", members=rows(0, 1))])
    meeting = (Migrate(0, 2), Migrate(1, 2), Migrate(3, 3))
    assert r.judge(model, Candidate(meeting)) == []
    made = plan_capacity(model, Candidate(meeting), Limits())
    assert sorted(action.instance for action in made.actions) == [0, 3]
    assert made.notes == (
        "instance vm1 stays on host host0: rule web (spread) would be broken on its way to host host2",
    )
    assert r.judge_plan(model, made) == []


@settings(max_examples=120, deadline=None)
@given(plain.ruled_clouds(), st.lists(st.tuples(st.integers(0, 6), st.integers(-1, 4)), min_size=1, max_size=5))
def test_what_is_left_of_a_sound_candidate_is_sound_too(model: ClusterModel, wishes: list[tuple[int, int]]) -> None:
    wanted = {v % model.instances: min(h, model.hosts - 1) for v, h in wishes}
    steps = tuple(Migrate(v, h) for v, h in wanted.items() if model.movable[v] and model.host_of[v] != h)
    if not steps or r.judge(model, Candidate(steps)):
        return
    try:
        made = plan_capacity(model, Candidate(steps), Limits())
    except PlanError:
        return
    assert r.judge_plan(model, made) == []
    last = {action.instance: Migrate(action.instance, action.destination) for action in made.actions}
    assert r.judge(model, Candidate(tuple(last.values()))) == []


def test_an_act_of_type_migrate_without_a_destination_counts_as_left_to_the_cloud() -> None:
    fence = r.Fence(name="gpu", members=rows(0), hosts=rows(0, 1))
    model = r.with_rules(cloud(3, [0, 0]), [fence])
    wire = {"migration_type": "live", "resource_name": "vm0", "source_node": "host0"}
    steps = (Act("migrate", "v0", wire), Migrate(1, 1))
    assert [action.instance for action in plan_capacity(model, Candidate(steps), Limits()).actions] == [1]
