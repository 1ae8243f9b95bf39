"""Hard rules against one-line definitions on random small clusters, and every reason a candidate is rejected for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform import rules
from trimtab.platform.model import ClusterModel, GroupPolicy
from trimtab.platform.proposal import Act, Candidate, Migrate, Step

SERVICE = "change_nova_service_state"
HOST = {"state": "up", "status": "enabled", "zone": "nova"}
GUEST = {"locked": False, "pinned_zone": "", "group": ""}


def cloud(hosts: list[dict[str, Any]], instances: list[dict[str, Any]], policies: tuple[str, ...] = ()) -> ClusterModel:
    """Hosts of 4 and instances of 1 of everything unless told otherwise."""
    nodes = [
        {"uuid": f"h{n}", "hostname": f"host{n}", "vcpus": 4.0, "memory_mb": 4.0, "disk_gb": 4.0, **HOST, **host}
        for n, host in enumerate(hosts)
    ]
    guests = [
        {"uuid": f"v{n}", "name": f"vm{n}", "vcpus": 1.0, "memory_mb": 1.0, "disk_gb": 1.0, **GUEST, **instance}
        for n, instance in enumerate(instances)
    ]
    groups = {"uuid": pa.array([f"g{n}" for n in range(len(policies))], pa.string())}
    return ClusterModel.from_arrow(
        pa.Table.from_pylist(nodes),
        pa.Table.from_pylist(guests),
        pa.table(groups | {"policy": pa.array(policies, pa.string())}),
    )


@st.composite
def clouds(draw: st.DrawFn) -> ClusterModel:
    count = draw(st.integers(1, 4))
    hosts = [
        {
            "vcpus": draw(st.sampled_from([1.0, 2.0, 4.0])),
            "state": draw(st.sampled_from(["up", "up", "up", "down"])),
            "status": draw(st.sampled_from(["enabled", "enabled", "disabled"])),
            "zone": draw(st.sampled_from(["a", "b"])),
        }
        for _ in range(count)
    ]
    instances = [
        {
            "node": draw(st.sampled_from([None, *(f"h{n}" for n in range(count)), "h0"])),
            "vcpus": draw(st.sampled_from([0.0, 1.0, 2.0])),
            "locked": draw(st.sampled_from([False, False, True])),
            "pinned_zone": draw(st.sampled_from(["", "", "a", "nowhere"])),
            "group": draw(st.sampled_from(["", "g0", "g1", "g2"])),
        }
        for _ in range(draw(st.integers(1, 6)))
    ]
    model = cloud(hosts, instances, ("anti-affinity", "affinity", "soft-anti-affinity"))
    excluded = np.array([draw(st.booleans()) and draw(st.booleans()) for _ in instances])
    return model.with_changes(excluded=excluded)


def peers(model: ClusterModel, where: np.ndarray, instance: int, policy: GroupPolicy) -> set[int]:
    """Hosts of the other placed members, when the instance is in a group with this policy."""
    group = model.group[instance]
    if group < 0 or model.group_policy[group] != policy:
        return set()
    return {int(where[n]) for n in range(model.instances) if n != instance and model.group[n] == group} - {-1}


@settings(max_examples=120, deadline=None)
@given(clouds(), st.booleans())
def test_destinations_are_what_the_definition_says(model: ClusterModel, everywhere: bool) -> None:
    place = model.placement()
    receivers = np.ones(model.hosts, bool) if everywhere else None
    for v in range(model.instances):
        apart = peers(model, model.host_of, v, GroupPolicy.ANTI_AFFINITY)
        together = peers(model, model.host_of, v, GroupPolicy.AFFINITY)
        pinned = model.zone.names[model.pinned_zone[v]] if model.pinned_zone[v] >= 0 else None
        naive = [
            bool(place.fits(v)[h])
            and (everywhere or bool(model.up[h] and model.enabled[h]))
            and h != model.host_of[v]
            and pinned in {None, model.zone[h]}
            and h not in apart
            and (not together or h in together)
            for h in range(model.hosts)
        ]
        assert rules.destinations(place, v, receivers).tolist() == naive


@settings(max_examples=120, deadline=None)
@given(clouds(), st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 3)), max_size=5))
def test_a_candidate_is_sound_when_the_definition_says_so(model: ClusterModel, wishes: list[tuple[int, int]]) -> None:
    steps = [Migrate(v % model.instances, min(h, model.hosts - 1)) for v, h in wishes]
    where = model.host_of.copy()
    sound = True
    for v, h in ((step.instance, step.destination) for step in steps):
        sound &= not model.locked[v] and not model.excluded[v] and where[v] >= 0
        if h >= 0:
            pinned = model.zone.names[model.pinned_zone[v]] if model.pinned_zone[v] >= 0 else None
            sound &= bool(model.up[h] and model.enabled[h]) and where[v] != h and pinned in {None, model.zone[h]}
        where[v] = h
    before, after = model.used(), model.used(where)
    for h in range(model.hosts):
        sound &= not any(after[h, r] > max(model.capacity[h, r], before[h, r]) + 1e-6 for r in range(3))
    for group in range(2):
        sound &= broken(model, where, group) <= broken(model, model.host_of, group)
    assert (rules.judge(model, Candidate(tuple(steps))) == []) == sound


def broken(model: ClusterModel, where: np.ndarray, group: int) -> int:
    """Members to be moved away before the group is as its policy wants it, at least."""
    there = [int(where[n]) for n in range(model.instances) if model.group[n] == group and where[n] >= 0]
    if model.group_policy[group] == GroupPolicy.ANTI_AFFINITY:
        return len(there) - len(set(there))
    return len(there) - max((there.count(h) for h in there), default=0)


@settings(max_examples=60, deadline=None)
@given(clouds())
def test_groups_broken_counts_members_that_are_in_the_wrong_place(model: ClusterModel) -> None:
    counted = rules.groups_broken(model, model.host_of).tolist()
    assert counted == [broken(model, model.host_of, 0), broken(model, model.host_of, 1), 0]


TWO = [{"zone": "a"}, {"zone": "b"}, {"status": "disabled", "zone": "a"}, {"state": "down", "zone": "a"}]
GUESTS: list[dict[str, Any]] = [
    {"node": "h0", "pinned_zone": "a"},
    {"node": "h0", "locked": True},
    {"node": None},
    {"node": "h1", "vcpus": 4.0, "group": "g0"},
    {"node": "h0", "group": "g0"},
]


@pytest.mark.parametrize(
    ("steps", "reasons"),
    [
        ([], []),
        (
            [Migrate(0, 1)],
            ["instance vm0 is bound to zone a; host host1 is not in it", "host host1 would hold 5 of 4 vcpus"],
        ),
        ([Migrate(0, 0)], ["instance vm0 is on host0 already"]),
        ([Migrate(0, 2)], ["host host2 is disabled and cannot receive vm0"]),
        ([Migrate(0, 3)], ["host host3 is down and cannot receive vm0"]),
        ([Act(SERVICE, "h2", {"state": "enabled"}, 2), Migrate(0, 2)], []),
        ([Act(SERVICE, "h3", {"state": "enabled"}, 3), Migrate(0, 3)], ["host host3 is down and cannot receive vm0"]),
        (
            [Migrate(0, 2), Act(SERVICE, "h2", {"state": "enabled"}, 2)],
            ["host host2 is disabled and cannot receive vm0"],
        ),
        ([Act(SERVICE, "h0", {"state": "disabled"}, 0), Migrate(0, -1)], []),
        ([Migrate(1, -1)], ["instance vm1 is locked"]),
        ([Migrate(2, 0)], ["instance vm2 is on no host"]),
        ([Migrate(3, 0)], ["host host0 would hold 7 of 4 vcpus", "server group g0 (anti-affinity) would be broken"]),
        ([Migrate(4, 1), Migrate(3, 0)], ["host host0 would hold 6 of 4 vcpus"]),
        ([Migrate(9, 0)], ["move of row 9 to row 0: no such row in the model"]),
        ([Migrate(0, 9)], ["move of row 0 to row 9: no such row in the model"]),
        ([Migrate(-1, 0)], ["move of row -1 to row 0: no such row in the model"]),
        ([Act(SERVICE, "x", {"state": "enabled"}, 9)], [f"{SERVICE} of host row 9: no such row in the model"]),
    ],
)
def test_every_reason_names_who_and_why(steps: list[Step], reasons: list[str]) -> None:
    model = cloud(TWO, GUESTS, ("anti-affinity",))
    assert rules.judge(model, Candidate(tuple(steps))) == reasons


def test_what_was_overfull_before_and_gets_no_worse_is_no_reason() -> None:
    model = cloud(
        [{"vcpus": 1.0}, {"vcpus": 1.0}, {}], [{"node": "h0"}, {"node": "h0"}, {"node": "h0"}, {"node": "h1"}]
    )
    assert rules.judge(model, Candidate((Migrate(0, 2),))) == []
    assert rules.judge(model, Candidate((Migrate(0, 2), Migrate(3, 0)))) == []
    assert rules.judge(model, Candidate((Migrate(3, 0),))) == ["host host0 would hold 4 of 1 vcpus"]


def test_an_excluded_instance_stays() -> None:
    model = cloud([{}, {}], [{"node": "h0"}]).with_changes(excluded=np.array([True]))
    assert rules.judge(model, Candidate((Migrate(0, 1),))) == ["instance vm0 is excluded by the audit's scope"]


def test_reasons_end_after_twenty() -> None:
    model = cloud([{}, {"status": "disabled"}], [{"node": "h0"}] * 30)
    reasons = rules.judge(model, Candidate(tuple(Migrate(n, 1) for n in range(30))))
    assert len(reasons) == rules.MOST_REASONS + 1
    assert reasons[-1] == "and more"
