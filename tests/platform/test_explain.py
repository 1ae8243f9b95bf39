"""Explanations: figures agree with a plain recomputation, and each sort of reason is told where it holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform import rules
from trimtab.platform.contracts import Goal
from trimtab.platform.explain import FIGURES, Reason, explain, reason_to_json
from trimtab.platform.model import DISK, MEMORY, VCPU, ClusterModel
from trimtab.platform.model.compute import Ints
from trimtab.platform.observed import observed
from trimtab.platform.planner import plan_capacity
from trimtab.platform.planner.durations import migration_s, transfer
from trimtab.platform.proposal import Act, Candidate, Limits, Migrate, Plan, PlannedAction, Step
from trimtab.platform.snapshot import History, Need, Snapshot
from trimtab.simulator.estate import build_estate
from trimtab.strategies.services import switch

PACK = Goal("pack", "Pack", ordering=("hosts_in_use",))
EVEN = Goal("even", "Even", ordering=("cpu_sd_pp",))
ANY = Goal("any", "Any")
CPU = Need("instance_cpu_usage", "instance")


def cloud(
    cpu: Sequence[float],
    where: Sequence[int],
    *,
    hosts: int = 3,
    vcpus: Sequence[float] = (),
    groups: Sequence[tuple[str, str]] = (),
    **columns: Any,
) -> Snapshot:
    """Instances of 4 vCPUs, 4 GiB and 10 GB on hosts of 16 vCPUs, 64 GiB and 1 TB; `columns` of either table."""
    of_host = {
        "uuid": [f"h{n}" for n in range(hosts)],
        "hostname": [f"h{n}" for n in range(hosts)],
        "vcpus": list(vcpus) or [16.0] * hosts,
        "memory_mb": [65_536.0] * hosts,
        "disk_gb": [1000.0] * hosts,
    }
    of_instance = {
        "uuid": [f"i{n}" for n in range(len(cpu))],
        "node": [f"h{host}" for host in where],
        "vcpus": [4.0] * len(cpu),
        "memory_mb": [4096.0] * len(cpu),
        "disk_gb": [10.0] * len(cpu),
    }
    mine = {"status", "state", "zone"}
    of_host |= {name: values for name, values in columns.items() if name in mine and len(values) == hosts}
    of_instance |= {name: values for name, values in columns.items() if name not in mine}
    policies = pa.table(
        {"uuid": pa.array([g for g, _ in groups], pa.string()), "policy": pa.array([p for _, p in groups], pa.string())}
    )
    model = ClusterModel.from_arrow(pa.table(of_host), pa.table(of_instance), policies)
    return Snapshot(model, 0.0, measured={CPU: np.array(cpu, float)})


def told(snapshot: Snapshot, candidate: Candidate, goal: Goal = ANY) -> tuple[Plan, tuple[Reason, ...]]:
    plan = plan_capacity(snapshot.model, candidate, Limits())
    reasons = explain(snapshot, candidate, plan, goal)
    assert [reason.action for reason in reasons] == list(range(len(plan.actions)))
    assert all(reason.why for reason in reasons)
    json.dumps([reason_to_json(snapshot.model, one, [f"u{n}" for n in range(len(reasons))]) for one in reasons])
    return plan, reasons


def of(reasons: Sequence[Reason], subject: str) -> Reason:
    (found,) = (reason for reason in reasons if reason.subject.startswith(subject))
    return found


def text(reason: Reason) -> str:
    return " | ".join([*reason.why, "WITHOUT", *reason.without])


def test_a_host_is_emptied_and_closed() -> None:
    snapshot = cloud([10.0, 10.0, 50.0], [0, 0, 1])
    steps = (Migrate(0, 1), Migrate(1, 1), switch(snapshot.model, 0, enabled=False))
    plan, reasons = told(snapshot, Candidate(steps), PACK)
    first = of(reasons, "i0")
    assert first.empties
    assert "h0 becomes empty: this is one of its 2 instances, and all leave; then it is disabled" in first.why
    assert "h0 would keep it and stay in use, it could not be disabled, and 1 other moves from it" in text(first)
    closing = of(reasons, "h0")
    assert closing.why == ("h0 holds nothing any more once its 2 instances have left",)
    assert first.awaited_by == (closing.action,)
    assert first.blocks == 1
    assert plan.actions[closing.action].parents == tuple(sorted(r.action for r in reasons if r is not closing))


def test_a_host_over_its_capacity_is_relieved() -> None:
    snapshot = cloud([10.0, 10.0], [0, 0], vcpus=[4.0, 16.0, 16.0])
    (reason,) = told(snapshot, Candidate((Migrate(0, 1),)))[1]
    assert "cures: capacity: host h0 holds 8 of 4 vcpus" in reason.why
    over = "h0 is over its capacity: 200 % of its vCPUs before, 100 % with this move alone, 100 % in the end"
    assert over in reason.why
    assert "h0 would hold 200 % of its vCPUs" in reason.without


def test_an_overloaded_host_is_relieved_and_would_be_overloaded_without() -> None:
    snapshot = cloud([100.0, 100.0, 100.0, 100.0, 0.0], [0, 0, 0, 0, 1])
    (reason,) = told(snapshot, Candidate((Migrate(0, 1),)), EVEN)[1]
    assert "h0 is overloaded: CPU 100.0 % before, 75.0 % with this move alone, 75.0 % in the end" in reason.why
    assert "h0 would run at 100.0 % CPU" in reason.without
    before, after = np.std([100.0, 0.0, 0.0]), np.std([75.0, 25.0, 0.0])
    assert f"{before:.2f} pp before and {after:.2f} with this move alone" in text(reason)


def test_a_broken_rule_that_is_cured_is_named_and_one_that_stays_is_not() -> None:
    model = cloud([10.0] * 3, [0, 0, 0])
    apart = rules.Spread(name="apart", members=np.array([0, 1]))
    fence = rules.Fence(name="fence", members=np.array([2]), hosts=np.array([1]))
    ruled = Snapshot(rules.with_rules(model.model, [apart, fence]), 0.0, measured=model.measured)
    (reason,) = told(ruled, Candidate((Migrate(0, 2),)))[1]
    assert len(reason.cures) == 1
    assert "apart" in reason.cures[0]
    assert any(line.startswith("still broken: ") for line in reason.without)


def test_who_makes_room_for_whom_is_told() -> None:
    snapshot = cloud([10.0] * 5, [0, 1, 1, 1, 1])
    _, reasons = told(snapshot, Candidate((Migrate(1, 2), Migrate(0, 1))))
    maker, taker = of(reasons, "i1"), of(reasons, "i0")
    assert taker.needs_room_of == (maker.action,)
    assert maker.awaited_by == (taker.action,)
    assert maker.blocks == 1
    assert "makes room on h1 for i0" in maker.why
    assert "no room on h1 for i0" in maker.without


def test_a_detour_says_what_it_is_for_and_only_the_last_leg_has_alternatives() -> None:
    snapshot = cloud([10.0] * 8, [0] * 4 + [1] * 4)
    plan, reasons = told(snapshot, Candidate((Migrate(0, 1), Migrate(4, 0))))
    assert len(plan.actions) == 3
    (hop,) = (one for one in reasons if "opens a circle" in text(one))
    assert hop.elsewhere is None
    assert sum(one.elsewhere is not None for one in reasons) == 2


def test_the_strategy_has_the_first_word() -> None:
    snapshot = cloud([10.0], [0])
    (reason,) = told(snapshot, Candidate((Migrate(0, 1),), reasons={0: "its neighbour is noisy"}))[1]
    assert reason.why[0] == "its neighbour is noisy"


def test_acts_are_explained_by_what_happens_on_their_host() -> None:
    snapshot = cloud([10.0, 10.0], [0, 1], status=["enabled", "enabled", "disabled"])
    model = snapshot.model
    steps = (
        switch(model, 2, enabled=True),
        Migrate(0, 2),
        switch(model, 0, enabled=False),
        Act("change_node_power_state", "metal-0", {"state": "off", "resource_name": "h0"}, 0),
        switch(model, 1, enabled=False),
        Act("nop", None, {"message": "hello"}),
    )
    _, reasons = told(snapshot, Candidate(steps, because="a night's rest"))
    assert of(reasons, "h2").why == ("h2 receives 1 instances",)
    assert of(reasons, "h2").blocks == 3
    assert "then it is disabled and turned off" in text(of(reasons, "i0"))
    assert "h0 would go on drawing power" in of(reasons, "h0: off").without
    assert of(reasons, "h1").why == ("h1 is to receive nothing more; 1 instances stay",)
    assert of(reasons, "nop").why == ("a night's rest",)
    assert "stay fully powered" in text(of(reasons, "h0: disabled"))
    assert "the cloud would start new instances on h1" in of(reasons, "h1").without


def test_an_act_about_an_instance_names_it_and_its_host() -> None:
    snapshot = cloud([10.0, 10.0], [0, 1], name=["web", "db"])
    steps = (Act("stop", "i0", {}), Act("resize", "i1", {"flavor": "x2"}), Act("stop", "gone", {}))
    _, reasons = told(snapshot, Candidate(steps))
    assert {reason.subject for reason in reasons} == {"web on h0", "db on h1", "gone"}


def test_a_move_of_which_the_cloud_chooses_the_end_has_one_side() -> None:
    snapshot = cloud([10.0], [0])
    (reason,) = told(snapshot, Candidate((Migrate(0, -1),)))[1]
    assert reason.destination is None
    assert reason.elsewhere is None
    assert reason.empties


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"status": ["enabled", "enabled", "disabled", "enabled"]}, "state"),
        ({"state": ["up", "up", "down", "up"]}, "state"),
        ({"zone": ["a", "a", "b", "a"], "pinned_zone": ["a", "", ""]}, "zone"),
        ({"groups": [("g", "anti-affinity")], "group": ["g", "", "g"]}, "group"),
        ({"vcpus": [16.0, 16.0, 4.0, 16.0]}, "vcpus"),
    ],
)
def test_a_host_that_is_ruled_out_is_counted_under_its_reason(more: dict[str, Any], reason: str) -> None:
    snapshot = cloud([10.0] * 3, [0, 1, 2], hosts=4, **more)
    if more.get("state"):
        snapshot = cloud([10.0] * 2, [0, 1], hosts=4, **more)
    found = of(told(snapshot, Candidate((Migrate(0, 1),)), PACK)[1], "i0").elsewhere
    assert found is not None
    assert found.ruled_out == {reason: 1}
    assert found.feasible == 1
    assert [one.host for one in found.best] == [3]


def test_a_host_of_which_a_rule_keeps_it_away_is_counted() -> None:
    plain = cloud([10.0] * 2, [0, 1], hosts=4)
    ban = rules.Ban(name="not there", members=np.array([0]), hosts=np.array([2]))
    ruled = Snapshot(rules.with_rules(plain.model, [ban]), 0.0, measured=plain.measured)
    found = told(ruled, Candidate((Migrate(0, 1),)))[1][0].elsewhere
    assert found is not None
    assert (found.ruled_out, found.feasible) == ({"rule": 1}, 1)


def test_packing_prefers_the_fuller_host_and_spreading_the_cooler_one() -> None:
    snapshot = cloud([50.0, 50.0, 50.0, 100.0, 10.0], [0, 1, 1, 2, 3], hosts=5)
    to = {goal.name: told(snapshot, Candidate((Migrate(0, 2),)), goal)[1][0].elsewhere for goal in (PACK, EVEN)}
    packed, even = to["pack"], to["even"]
    assert packed is not None
    assert even is not None
    assert [(one.host, one.chosen_is) for one in packed.best] == [(1, "worse"), (3, "equal")]
    assert [(one.host, one.chosen_is) for one in even.best] == [(4, "worse"), (3, "worse")]
    assert even.best[0].cpu_pct == pytest.approx(2 / 16 * 100)
    hot = cloud([100.0] * 5, [0, 1, 1, 1, 2])
    found = told(hot, Candidate((Migrate(0, 2),)), PACK)[1][0].elsewhere
    assert found is not None
    (other,) = found.best
    assert (other.chosen_is, other.text) == ("better", "it would run at 100 % CPU, the chosen one at 50 %")


def test_a_huge_plan_looks_at_other_hosts_for_its_first_moves_only() -> None:
    snapshot = cloud([10.0] * 3, [0] * 3)
    candidate = Candidate(tuple(Migrate(n, 1) for n in range(3)))
    plan = plan_capacity(snapshot.model, candidate, Limits())
    reasons = explain(snapshot, candidate, plan, ANY, most_pairs=6)
    assert [one.elsewhere is not None for one in reasons] == [True, True, False]


def test_use_is_what_was_measured_else_recorded_else_all() -> None:
    model = cloud([np.nan] * 3, [0] * 3).model
    recorded = np.full((4, 3), np.nan, np.float32)
    recorded[:, 1] = [90.0, 90.0, 20.0, 40.0]
    snapshot = Snapshot(
        model, 0.0, measured={CPU: np.array([50.0, np.nan, np.nan])}, history=History(0.0, 1800.0, recorded)
    )
    use = observed(snapshot)
    assert use.cores.tolist() == pytest.approx([2.0, 4 * 0.3, 4.0])
    assert use.guessed.tolist() == [False, False, True]
    assert use.memory_mb.tolist() == [4096.0] * 3


# -- against a plain recomputation -----------------------------------------------------------------------


def random_plan(seed: int) -> tuple[Snapshot, Candidate, Plan]:
    random = np.random.default_rng(seed)
    model = ClusterModel.from_arrow(*build_estate(10, 60, seed=seed % 30))
    snapshot = Snapshot(model, 0.0, measured={CPU: random.uniform(0, 100, model.instances)})
    place, steps = model.placement(), list[Step]()
    for guest in random.permutation(model.instances)[:12].tolist():
        ok = rules.destinations(place, guest)
        if ok.any() and model.movable[guest]:
            to = int(random.choice(np.flatnonzero(ok)))
            place.move(guest, to)
            steps.append(Migrate(guest, to))
    candidate = Candidate(tuple(steps))
    return snapshot, candidate, plan_capacity(model, candidate, Limits())


def plain_figures(snapshot: Snapshot, place: Ints, host: int) -> list[float]:
    model, rows = snapshot.model, [v for v in range(snapshot.model.instances) if place[v] == host]
    use = observed(snapshot)
    asked = [sum(model.demand[v, r] for v in rows) / model.capacity[host, r] * 100 for r in (VCPU, MEMORY, DISK)]
    cores = sum(use.cores[v] for v in rows) / model.total[host, VCPU] * 100
    return [*asked, cores, sum(use.memory_mb[v] for v in rows) / model.total[host, MEMORY] * 100, len(rows)]


def plain_elsewhere(model: ClusterModel, place: Ints, action: PlannedAction, emptied: set[int]) -> set[int]:
    """Hosts that would do, one by one."""
    v, home, found = action.instance, int(model.host_of[action.instance]), set()
    without = place.copy()
    without[v] = home
    used = model.used(place)
    for host in range(model.hosts):
        if host in {home, action.destination} or host in emptied or not model.usable[host]:
            continue
        if model.pinned_zone[v] >= 0 and model.zone.codes[host] != model.pinned_zone[v]:
            continue
        if any(
            model.need[v, r] > 0 and used[host, r] + model.need[v, r] > model.capacity[host, r] + 1e-6 for r in range(3)
        ):
            continue
        tried = without.copy()
        tried[v] = host
        group = int(model.group[v])
        if group >= 0:
            peers = [p for p in range(model.instances) if model.group[p] == group and p != v and without[p] >= 0]
            policy = int(model.group_policy[group])
            if policy == 1 and any(without[p] == host for p in peers):
                continue
            if policy == 0 and peers and not any(without[p] == host for p in peers):
                continue
        found.add(host)
    return found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 100_000), goal=st.sampled_from([PACK, EVEN, ANY]))
def test_figures_agree_with_a_plain_recomputation(seed: int, goal: Goal) -> None:
    snapshot, candidate, plan = random_plan(seed)
    model = snapshot.model
    reasons = explain(snapshot, candidate, plan, goal)
    final = model.host_of.copy()
    for action in plan.actions:
        final[action.instance] = action.destination
    emptied = {h for h in range(model.hosts) if (model.host_of == h).any() and not (final == h).any()}
    behind: list[set[int]] = [set() for _ in plan.actions]
    for n in range(len(plan.actions) - 1, -1, -1):
        for parent in plan.actions[n].parents:
            behind[parent] |= {n} | behind[n]
    for n, (action, reason) in enumerate(zip(plan.actions, reasons, strict=True)):
        assert reason.blocks == len(behind[n])
        assert reason.empties == (action.source in emptied)
        rows, live = np.array([action.instance]), np.array([action.live])
        assert reason.duration_s == pytest.approx(migration_s(model, rows, live)[0])
        assert reason.gib == pytest.approx(transfer(model, rows, live).gib[0])
        alone = model.host_of.copy()
        for side in (reason.source, reason.destination):
            assert side is not None
            assert side.before == pytest.approx(plain_figures(snapshot, model.host_of, side.host))
            assert side.after == pytest.approx(plain_figures(snapshot, final, side.host), abs=1e-6)
            if model.host_of[action.instance] == action.source:
                alone[action.instance] = action.destination
                assert side.alone == pytest.approx(plain_figures(snapshot, alone, side.host), abs=1e-6)
        if reason.elsewhere is None:
            continue
        plain = plain_elsewhere(model, final, action, emptied)
        assert reason.elsewhere.feasible == len(plain)
        assert reason.elsewhere.feasible + sum(reason.elsewhere.ruled_out.values()) == model.hosts - 2
        assert {one.host for one in reason.elsewhere.best} <= plain
        for one in reason.elsewhere.best:
            there = final.copy()
            there[action.instance] = one.host
            figures = dict(zip(FIGURES, plain_figures(snapshot, there, one.host), strict=True))
            assert one.cpu_pct == pytest.approx(figures["cpu_pct"])
            scarcest = max(figures[name] for name in ("vcpus_pct", "memory_pct", "disk_pct"))
            assert one.allocated_pct == pytest.approx(scarcest)
        if goal is EVEN and any("evens out" in why for why in reason.why):
            without = final.copy()
            without[action.instance] = model.host_of[action.instance]
            deviations = [
                np.std([plain_figures(snapshot, place, host)[3] for host in range(model.hosts) if model.usable[host]])
                for place in (model.host_of, final, without)
            ]
            if model.usable.all():
                (told_,) = (why for why in reason.why if "evens out" in why)
                assert f"is {deviations[0]:.2f} pp before" in told_
                assert f"{deviations[1]:.2f} in the end and {deviations[2]:.2f} without it" in told_
