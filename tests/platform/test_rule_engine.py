"""The rule engine against plain definitions on random small clusters: masks, verdicts, counts, plans under way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.platform import plain_rules as plain

from trimtab.platform import rules as r
from trimtab.platform.errors import PlanError, RulesError
from trimtab.platform.model import ClusterModel, GroupPolicy
from trimtab.platform.planner import plan_capacity
from trimtab.platform.proposal import Boot, Candidate, Limits, Migrate, Plan
from trimtab.platform.rules.reach import obeying
from trimtab.platform.rules.violations import excess

ALL = settings(max_examples=70, deadline=None)


@ALL
@given(plain.ruled_clouds(), st.lists(st.tuples(st.integers(0, 6), st.integers(-1, 4)), max_size=5))
def test_every_rule_is_counted_as_its_definition_says(model: ClusterModel, shifts: list[tuple[int, int]]) -> None:
    place = shifted(model, shifts)
    wanted = [plain.plain_excess(model, rule, plain.state_of(place)) for rule in given_to(model)]
    assert excess(model, r.rulebook(model), place).tolist() == pytest.approx(wanted)
    named = {one.rule for one in r.broken(model, host_of=place)} - {"capacity"}
    assert named == {rule.label for rule, much in zip(given_to(model), wanted, strict=True) if much}


@ALL
@given(plain.ruled_clouds(), st.lists(st.tuples(st.integers(0, 6), st.integers(-1, 4)), max_size=5))
def test_an_instance_may_go_where_every_definition_lets_it(model: ClusterModel, shifts: list[tuple[int, int]]) -> None:
    place = model.placement()
    for v, h in enumerate(shifted(model, shifts).tolist()):
        place.move(v, h)
    for v in range(model.instances):
        naive = [
            all(plain.plain_admits(model, rule, place.host_of, v, h) for rule in given_to(model))
            for h in range(model.hosts)
        ]
        elsewhere = np.arange(model.hosts) != place.host_of[v]
        assert (obeying(model, place.host_of, v) & elsewhere).tolist() == (naive & elsewhere).tolist()
        assert (r.destinations(place, v) == (place.fits(v) & naive & elsewhere)).all()


@ALL
@given(plain.ruled_clouds(), st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), max_size=4))
def test_a_move_that_is_allowed_makes_no_rule_worse(model: ClusterModel, shifts: list[tuple[int, int]]) -> None:
    place = shifted(model, shifts)
    before = excess(model, r.rulebook(model), place)
    soft = np.array([rule.kind in {"root", "preserve"} for rule in given_to(model)])  # room and `movable` see to these
    for v in range(model.instances):
        for h in np.flatnonzero(obeying(model, place, v)):
            after = place.copy()
            after[v] = h
            assert (excess(model, r.rulebook(model), after) <= before + 1e-6)[~soft].all()


@ALL
@given(plain.ruled_clouds(), st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), max_size=4))
def test_the_judge_rejects_what_makes_a_rule_worse_and_only_that(
    model: ClusterModel, wishes: list[tuple[int, int]]
) -> None:
    place, steps = model.host_of.copy(), list[Migrate]()
    boots = list[Boot]()
    for v, h in wishes:
        v, h = v % model.instances, h % model.hosts  # noqa: PLW2901
        if place[v] == h:
            continue
        if place[v] >= 0:
            steps.append(Migrate(v, h))
        elif not boots:
            boots.append(Boot(v, h))
            continue
        else:
            continue
        place[v] = h
    boots = [boot for boot in boots if place[boot.instance] < 0]
    for boot in boots:
        place[boot.instance] = boot.host
    reasons = r.judge(model, Candidate(tuple(steps), boots=tuple(boots)))
    for rule in given_to(model):
        was = plain.plain_excess(model, rule, plain.state_of(model.host_of))
        worse = plain.plain_excess(model, rule, plain.state_of(place)) > was + 1e-6
        assert (f"rule {rule.label} would be broken" in reasons) == worse


@settings(max_examples=90, deadline=None)
@given(plain.ruled_clouds(), st.randoms(use_true_random=False))
def test_no_execution_of_a_plan_breaks_a_continuous_rule(model: ClusterModel, random: Any) -> None:
    place, steps = model.placement(), []
    movers = [v for v in range(model.instances) if model.host_of[v] >= 0]
    random.shuffle(movers)
    for v in movers:
        targets = np.flatnonzero(r.destinations(place, v)).tolist()
        if targets and model.movable[v]:
            steps.append(Migrate(v, random.choice(targets)))
            place.move(v, steps[-1].destination)
    # As an operator may wish it: also what the search would not have done in one go.
    if random.random() < 0.5:
        steps += [Migrate(v, random.randrange(model.hosts)) for v in movers[:2]]
        if r.judge(model, Candidate(tuple(steps))):
            return
    try:
        plan = plan_capacity(model, Candidate(tuple(steps)), Limits())
    except PlanError:
        return
    assert r.judge_plan(model, plan) == []
    start = [plain.plain_excess(model, rule, plain.state_of(model.host_of)) for rule in given_to(model)]
    for _ in range(3):
        for state in executed(model, plan, random):
            for rule, was in zip(given_to(model), start, strict=True):
                if rule.continuous and rule.kind not in STILL:
                    assert plain.plain_excess(model, rule, state) <= was + 1e-6, (rule.label, plan)


# Rules about where the many are see an instance where it leaves until it has arrived (below), preserve is capacity's
# business, and fences that are broken today are judged by their members' destinations.
STILL = {"gather", "among", "split_among", "root", "preserve", "fence", "ban"}


@settings(max_examples=90, deadline=None)
@given(
    plain.ruled_clouds(("gather", "among", "split_among", "fence", "ban", "root")), st.randoms(use_true_random=False)
)
def test_no_moment_of_a_plan_leaves_the_few_without_the_many(model: ClusterModel, random: Any) -> None:
    place, steps = model.placement(), []
    for v in np.flatnonzero(model.movable).tolist():
        targets = np.flatnonzero(r.destinations(place, v)).tolist()
        if targets:
            steps.append(Migrate(v, random.choice(targets)))
            place.move(v, steps[-1].destination)
    try:
        plan = plan_capacity(model, Candidate(tuple(steps)), Limits())
    except PlanError:
        return
    start = [plain.plain_excess(model, rule, plain.state_of(model.host_of)) for rule in given_to(model)]
    for state in executed(model, plan, random, both=False):
        for rule, was in zip(given_to(model), start, strict=True):
            if rule.continuous:
                assert plain.plain_excess(model, rule, state) <= was + 1e-6, (rule.label, plan)


def executed(model: ClusterModel, plan: Plan, random: Any, *, both: bool = True) -> list[Any]:
    """States of one random execution, as overlapping as the graph allows; `both`: under way counts at both ends."""
    state, states = plain.state_of(model.host_of), []
    waiting, running, done = set(range(len(plan.actions))), set[int](), set[int]()
    while waiting or running:
        ready = [n for n in waiting if set(plan.actions[n].parents) <= done]
        if ready and (not running or random.random() < 0.7):
            n = random.choice(sorted(ready))
            waiting.remove(n)
            running.add(n)
            if both and plan.actions[n].destination >= 0:
                state[plan.actions[n].instance] = {plan.actions[n].source, plan.actions[n].destination}
        else:
            n = random.choice(sorted(running))
            running.remove(n)
            done.add(n)
            state[plan.actions[n].instance] = {plan.actions[n].destination} - {-1}
        states.append([set(where) for where in state])
    return states


def given_to(model: ClusterModel) -> list[Any]:
    """The rules of a model, as its rulebook has them."""
    return list(r.rulebook(model).rules)


def shifted(model: ClusterModel, shifts: list[tuple[int, int]]) -> np.ndarray:
    place = model.host_of.copy()
    for v, h in shifts:
        place[v % model.instances] = min(h, model.hosts - 1)
    return place


def cloud(hosts: int, where: list[int], **columns: Any) -> ClusterModel:
    import pyarrow as pa

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
                "disk_gb": [1.0] * len(where),
                **columns,
            }
        ),
        pa.table({"uuid": ["g0"], "policy": ["soft-anti-affinity"]}),
    )


def test_a_rule_that_was_broken_before_and_gets_no_worse_is_reported_not_rejected() -> None:
    model = r.with_rules(cloud(3, [0, 0, 1]), [r.Spread(name="web", members=np.array([0, 1], np.int32))])
    assert [one.text for one in r.broken(model)] == ["rule web (spread) is broken by vm0, vm1 on host0"]
    assert r.judge(model, Candidate((Migrate(2, 2),))) == []
    assert r.judge(model, Candidate((Migrate(0, 1),))) == []


def test_a_plan_error_names_the_rule_that_makes_it_impossible() -> None:
    model = r.with_rules(cloud(2, [0, 0]), [r.Gather(name="pair", members=np.array([0, 1], np.int32))])
    with pytest.raises(PlanError, match=r"rule pair \(gather\) would be broken on its way to host host1"):
        plan_capacity(model, Candidate((Migrate(0, 1), Migrate(1, 1))), Limits())
    relaxed = model.with_changes(rules=(r.Gather(name="pair", members=np.array([0, 1], np.int32), continuous=False),))
    assert len(plan_capacity(relaxed, Candidate((Migrate(0, 1), Migrate(1, 1))), Limits()).actions) == 2


def test_two_that_must_not_meet_swap_hosts_by_way_of_a_third() -> None:
    model = r.with_rules(
        cloud(3, [0, 1]), [r.Split(name="rivals", groups=[np.array([0], np.int32), np.array([1], np.int32)])]
    )
    plan = plan_capacity(model, Candidate((Migrate(0, 1), Migrate(1, 0))), Limits())
    assert len(plan.actions) == 3
    assert r.judge_plan(model, plan) == []
    two = r.with_rules(cloud(2, [0, 1]), given_to(model))
    with pytest.raises(PlanError, match="rule rivals"):
        plan_capacity(two, Candidate((Migrate(0, 1), Migrate(1, 0))), Limits())


def test_an_arrival_waits_for_the_departure_that_makes_room_under_a_limit() -> None:
    model = r.with_rules(
        cloud(3, [0, 2]), [r.RunningCapacity(name="licence", hosts=np.array([0, 1], np.int32), most=1)]
    )
    plan = plan_capacity(model, Candidate((Migrate(1, 1), Migrate(0, 2))), Limits())
    assert [(a.instance, a.parents) for a in plan.actions] == [(0, ()), (1, (0,))]
    full = r.with_rules(cloud(3, [0, 2]), [r.RunningCapacity(name="licence", hosts=np.array([0, 1], np.int32), most=0)])
    with pytest.raises(PlanError, match=r"rule licence \(running_capacity\)"):
        plan_capacity(full, Candidate((Migrate(1, 1),)), Limits())


def test_the_replay_of_a_plan_finds_what_the_order_breaks() -> None:
    model = r.with_rules(cloud(3, [0, 1]), [r.Spread(name="web", members=np.array([0, 1], np.int32))])
    sound = plan_capacity(model, Candidate((Migrate(1, 2), Migrate(0, 1))), Limits())
    late = next(n for n, action in enumerate(sound.actions) if action.instance == 0)
    assert r.judge_plan(model, sound) == []
    hasty = Plan((replace(sound.actions[late], parents=()), *(a for n, a in enumerate(sound.actions) if n != late)))
    assert r.judge_plan(model, hasty)[0] == "action 0: rule web (spread) would be broken while vm0 goes to host1"


def test_rules_in_a_part_of_the_cloud_count_what_is_outside() -> None:
    model = r.with_rules(
        cloud(4, [0, 1, 2, 3]),
        [
            r.MaxOnline(name="power", hosts=np.array([0, 1, 2, 3], np.int32), most=4),
            r.Fence(name="gone", members=np.array([3], np.int32), hosts=np.array([3], np.int32)),
            r.Among(
                name="room",
                members=np.array([0, 3], np.int32),
                host_groups=[np.array([0, 1], np.int32), np.array([2, 3], np.int32)],
            ),
        ],
    )
    part = model.subset(np.array([True, True, False, True]))
    kept = {rule.label: rule for rule in given_to(part)}
    assert kept["power (max_online)"].most == 3
    assert kept["gone (fence)"].hosts.tolist() == [2]
    alone = model.subset(np.array([True, True, False, False]))
    assert [rule.kind for rule in given_to(alone)] == ["max_online", "among"]
    assert [group.tolist() for group in given_to(alone)[1].host_groups] == [[], []]  # vm3 stays in the other room


def test_soft_server_groups_are_counted_and_never_refused() -> None:
    model = cloud(2, [0, 0], group=["g0", "g0"])
    assert model.group_policy[0] == GroupPolicy.SOFT_ANTI_AFFINITY
    assert r.preferences_missed(model, model.host_of).tolist() == [1]
    assert r.groups_broken(model, model.host_of).tolist() == [0]
    assert r.broken(model) == []


def test_a_rooted_instance_is_not_movable() -> None:
    model = r.with_rules(cloud(2, [0, 1]), [r.Root(name="pin", members=np.array([0], np.int32))])
    assert model.movable.tolist() == [False, True]
    assert r.judge(model, Candidate((Migrate(0, 1),))) == ["rule pin (root) would be broken"]


def test_preserved_resources_count_wherever_the_instance_is() -> None:
    model = r.with_rules(
        cloud(2, [0, 1]), [r.Preserve(name="gold", members=np.array([0], np.int32), resource=0, least=8.0)]
    )
    assert model.need[0].tolist() == [8, 1, 1]
    assert model.demand[0].tolist() == [1, 1, 1]
    assert not r.destinations(model.placement(), 0).any()


def test_groups_that_overlap_are_refused_with_their_name() -> None:
    with pytest.raises(RulesError, match=r"rule x \(split\): instance row 1 is in two of its groups"):
        r.Split(name="x", groups=[np.array([0, 1], np.int32), np.array([1], np.int32)])
