"""Compiled rules against the platform's own, and repair from the outside: random clusters, and BtrPlace's cases."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.contracts import Context
from trimtab.platform.model import VCPU, ClusterModel
from trimtab.platform.planner import plan_capacity
from trimtab.platform.proposal import Candidate, Limits
from trimtab.platform.rules import RunningCapacity, Spread, broken, judge, judge_plan, rulebook, with_rules
from trimtab.platform.rules.reach import obeying
from trimtab.platform.rules.violations import excess
from trimtab.platform.snapshot import Snapshot
from trimtab.strategies.feasibility import field_of, lift, may_join, put, recount, used_of
from trimtab.strategies.library.repair import Parameters, Repair

HERE = Path(__file__).parent


def beside(path: Path) -> ModuleType:
    """A module of helpers that lives beside the tests."""
    spec = importlib.util.spec_from_file_location(f"trimtab_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


plain = beside(HERE.parent / "platform" / "plain_rules.py")
btrplace = beside(HERE / "btrplace_cases.py")


def repaired(model: ClusterModel, **given: object) -> Candidate:
    (candidate,) = Repair().propose(Snapshot(model, 0.0), Parameters.model_validate(given), Context())
    return candidate


@settings(max_examples=60, deadline=None)
@given(plain.ruled_clouds(), st.lists(st.tuples(st.integers(0, 6), st.integers(-1, 4)), max_size=8))
def test_compiled_rules_allow_what_the_platform_allows_after_any_moves(
    model: ClusterModel, moves: list[tuple[int, int]]
) -> None:
    field = field_of(model, model.capacity, model.demand)
    host_of = model.host_of.copy()
    used = used_of(field, host_of)
    for v, h in moves:
        if h < 0:
            lift(field, host_of, used, v % model.instances)
        else:
            put(field, host_of, used, v % model.instances, min(h, model.hosts - 1))
    assert np.allclose(used, model.used(host_of))
    for v in range(model.instances):
        hosts = [h for h in range(model.hosts) if h != host_of[v]]
        assert [may_join(field, host_of, v, h) for h in hosts] == obeying(model, host_of, v)[hosts].tolist()
    kept = [array.copy() for array in (field.ties.guests, field.ties.tally)]
    recount(field, host_of)
    assert all((a == b).all() for a, b in zip(kept, (field.ties.guests, field.ties.tally), strict=True))


@settings(max_examples=60, deadline=None)
@given(plain.ruled_clouds(), st.sampled_from([None, None, 0, 1]))
def test_repair_never_breaks_a_rule_and_moves_nobody_when_none_is_broken(model: ClusterModel, most: int | None) -> None:
    candidate = repaired(model, max_migrations=most)
    assert judge(model, candidate) == []
    place = candidate.final_host_of(model)
    book = rulebook(model)
    before, after = excess(model, book, model.host_of), excess(model, book, place)
    assert (after <= before + 1e-6).all()
    figures = candidate.indicators
    assert figures["instance_migrations_count"] == len(candidate.steps) <= (most if most is not None else 99)
    assert figures["rules_broken_before"] == len(broken(model))
    assert figures["rules_broken_after"] == len(broken(model, host_of=place))
    assert figures["instances_placed_count"] == len(candidate.boots)
    assert len(set(candidate.moves()[:, 0].tolist())) == len(candidate.steps)
    if not broken(model) and not candidate.boots and (model.host_of >= 0).all():
        assert candidate.steps == ()


def test_what_is_broken_and_can_be_cured_is_cured_by_one_move() -> None:
    model = small([0, 0, 1], [8.0, 8.0, 8.0])
    ruled = with_rules(model, [Spread(name="web", members=np.array([0, 1], np.int32))])
    candidate = repaired(ruled)
    assert len(candidate.steps) == 1
    assert broken(ruled, host_of=candidate.final_host_of(ruled)) == []
    assert candidate.because == "1 rules broken before, 0 after, with 1 migrations"


def test_room_is_made_for_an_instance_on_no_host_by_moving_another() -> None:
    model = small([0, 1, -1], [3.0, 3.0, 1.0], vcpus=[2.0, 2.0, 3.0])
    room = small([0, 1, -1], [3.0, 4.0, 1.0], vcpus=[2.0, 2.0, 3.0])
    assert repaired(model).boots == ()
    assert "1 instances stay on no host: none may take them or has room: vm2" in repaired(model).notes
    candidate = repaired(room)
    assert [boot.instance for boot in candidate.boots] == [2]
    assert candidate.moves().tolist() == [[0, 1]]
    assert judge(room, candidate) == []
    assert repaired(room, place_instances=False).boots == ()


def test_too_many_on_a_group_of_hosts_are_taken_elsewhere() -> None:
    model = with_rules(
        small([0, 0, 1], [8.0, 8.0, 8.0]), [RunningCapacity(name="licence", hosts=np.array([0, 1], np.int32), most=1)]
    )
    candidate = repaired(model)
    assert len(candidate.steps) == 2
    assert candidate.indicators["rules_broken_after"] == 0
    assert set(candidate.moves()[:, 1].tolist()) == {2}


def test_what_cannot_be_cured_is_named() -> None:
    model = with_rules(small([0, 0], [8.0]), [Spread(name="web", members=np.array([0, 1], np.int32))])
    candidate = repaired(model)
    assert candidate.steps == ()
    assert candidate.notes == ("still broken: rule web (spread) is broken by vm0, vm1 on host0",)


def small(where: list[int], capacity: list[float], vcpus: list[float] | None = None) -> ClusterModel:
    import pyarrow as pa

    hosts = pa.table(
        {
            "uuid": [f"h{n}" for n in range(len(capacity))],
            "hostname": [f"host{n}" for n in range(len(capacity))],
            "vcpus": capacity,
            "memory_mb": [64.0] * len(capacity),
            "disk_gb": [64.0] * len(capacity),
        }
    )
    instances = pa.table(
        {
            "uuid": [f"v{n}" for n in range(len(where))],
            "name": [f"vm{n}" for n in range(len(where))],
            "node": pa.array([f"h{n}" if n >= 0 else None for n in where], pa.string()),
            "vcpus": vcpus or [1.0] * len(where),
            "memory_mb": [1.0] * len(where),
            "disk_gb": [1.0] * len(where),
        }
    )
    return ClusterModel.from_arrow(hosts, instances)


@pytest.mark.shared
@pytest.mark.parametrize("name", btrplace.LEAST_MIGRATIONS)
def test_btrplace_cases_are_repaired_with_the_fewest_migrations_there_can_be(name: str) -> None:
    if not (btrplace.folder() / name).exists():
        pytest.skip(f"no {name} in {btrplace.folder()}; set TRIMTAB_SHARED to the folder that has data/btrplace")
    model = btrplace.case(name)
    candidate = repaired(model)
    place = candidate.final_host_of(model)
    assert len(candidate.steps) == btrplace.LEAST_MIGRATIONS[name]
    assert len(candidate.boots) == btrplace.TO_PLACE[name]
    assert (place >= 0).all()
    assert judge(model, candidate) == []
    # Every rule again, one by one: nobody over capacity, nobody together who must not, everybody inside one group.
    used = np.bincount(place, model.need[:, VCPU], model.hosts)
    assert (used <= model.capacity[:, VCPU]).all()
    assert model.usable[place[place != model.host_of]].all()
    for rule in model.rules:
        where = place[rule.members]
        if rule.kind == "spread":
            assert len(set(where.tolist())) == len(where)
        elif rule.kind == "among":
            assert sum(np.isin(where, group).all() for group in rule.host_groups) == 1
    if candidate.steps:
        assert judge_plan(model, plan_capacity(model, candidate, Limits())) == []
