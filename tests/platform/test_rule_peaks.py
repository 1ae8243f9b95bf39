"""Limits of hosts while a plan runs: the judge against their one-line definitions, in every state a plan can be in."""

from __future__ import annotations

from itertools import product

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.platform import plain_rules as plain

from trimtab.platform import rules as r
from trimtab.platform.errors import PlanError
from trimtab.platform.model import ClusterModel
from trimtab.platform.planner import plan_capacity
from trimtab.platform.proposal import Candidate, Limits, Migrate, Plan, PlannedAction

LIMITS = ("max_online", "running_capacity", "resource_capacity")
WAITS, RUNS, DONE = range(3)


@st.composite
def plans(draw: st.DrawFn, model: ClusterModel, *, hops: int) -> Plan:
    """Up to five migrations, one after another of the same instance, otherwise after any of those before."""
    place = model.host_of.tolist()
    trips = dict.fromkeys(range(model.instances), 0)
    actions: list[PlannedAction] = []
    for v, h in draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=5)):
        v, h = v % model.instances, h % model.hosts  # noqa: PLW2901
        if place[v] in (-1, h) or trips[v] == hops:
            continue
        own = [n for n, action in enumerate(actions) if action.instance == v]
        some = draw(st.lists(st.sampled_from(range(len(actions))), max_size=2)) if actions else []
        parents = tuple(sorted({*own[-1:], *some}))
        actions.append(PlannedAction("migrate", {}, parents, instance=v, source=place[v], destination=h))
        place[v] = h
        trips[v] += 1
    return Plan(tuple(actions))


def states(model: ClusterModel, plan: Plan) -> list[list[set[int]]]:
    """Every state that some execution of a plan passes through; under way counts at both ends."""
    found = []
    for phases in product((WAITS, RUNS, DONE), repeat=len(plan.actions)):
        if any(phase and any(phases[m] != DONE for m in plan.actions[n].parents) for n, phase in enumerate(phases)):
            continue
        state = plain.state_of(model.host_of)
        for action, phase in zip(plan.actions, phases, strict=True):
            if phase:
                state[action.instance] = {action.source, action.destination} if phase == RUNS else {action.destination}
        found.append(state)
    return found


def exceeded(model: ClusterModel, plan: Plan) -> set[str]:
    """Continuous rules that some state of a plan breaks more than today's."""
    reachable = states(model, plan)
    found = set()
    for rule in r.rulebook(model).rules:
        was = plain.plain_excess(model, rule, plain.state_of(model.host_of))
        if rule.continuous and any(plain.plain_excess(model, rule, state) > was + 1e-6 for state in reachable):
            found.add(rule.label)
    return found


def named(reasons: list[str]) -> set[str]:
    """The rules that a verdict names."""
    return {reason.partition("rule ")[2].partition(" would be broken")[0] for reason in reasons}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_plan_is_refused_exactly_when_some_moment_of_it_exceeds_a_limit(data: st.DataObject) -> None:
    model = data.draw(plain.ruled_clouds(("running_capacity", "resource_capacity")))
    plan = data.draw(plans(model, hops=2))
    assert named(r.judge_plan(model, plan)) == exceeded(model, plan)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_moment_of_a_plan_that_is_not_refused_has_more_hosts_online_than_allowed(data: st.DataObject) -> None:
    model = data.draw(plain.ruled_clouds(("max_online",)))
    plan = data.draw(plans(model, hops=2))
    refused = named(r.judge_plan(model, plan))
    assert exceeded(model, plan) <= refused
    moves = plan.actions
    if len({action.destination for action in moves} | {action.source for action in moves}) == 2 * len(moves):
        assert refused == exceeded(model, plan)  # a host is opened or emptied by one migration


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_planner_makes_no_plan_that_the_judge_refuses(data: st.DataObject) -> None:
    model = data.draw(plain.ruled_clouds(LIMITS))
    place, steps = model.placement(), []
    for v in np.flatnonzero(model.movable & (model.host_of >= 0)).tolist():
        targets = np.flatnonzero(r.destinations(place, v)).tolist()
        if targets:
            steps.append(Migrate(v, data.draw(st.sampled_from(targets))))
            place.move(v, steps[-1].destination)
    try:
        plan = plan_capacity(model, Candidate(tuple(steps)), Limits())
    except PlanError:
        return
    assert r.judge_plan(model, plan) == []


def test_a_host_that_opens_before_the_other_has_closed_is_one_too_many_and_named() -> None:
    bare = ClusterModel.from_arrow(
        pa.table(
            {
                "uuid": ["h0", "h1", "h2"],
                "hostname": ["host0", "host1", "host2"],
                **dict.fromkeys(("vcpus", "memory_mb", "disk_gb"), [8.0] * 3),
            }
        ),
        pa.table(
            {
                "uuid": ["v0", "v1"],
                "name": ["vm0", "vm1"],
                "node": ["h0", "h1"],
                **dict.fromkeys(("vcpus", "memory_mb", "disk_gb"), [1.0] * 2),
            }
        ),
    )
    model = r.with_rules(bare, [r.MaxOnline(name="licences", hosts=np.arange(3, dtype=np.int32), most=2)])
    closes = PlannedAction("migrate", {}, (), instance=0, source=0, destination=1)
    opens = PlannedAction("migrate", {}, (0,), instance=1, source=1, destination=2)
    assert r.judge_plan(model, Plan((closes, opens))) == []
    words = "action 1: rule licences (max_online) would be broken while vm1 goes to host2"
    hasty = PlannedAction("migrate", {}, (), instance=1, source=1, destination=2)
    assert r.judge_plan(model, Plan((closes, hasty))) == [words]
    assert r.judge_plan(model, Plan((hasty,))) == [words.replace("action 1", "action 0")]
