"""The closed loop: what it scores, what it lets a strategy see, and that nothing stops it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from trimtab.platform.collector import by_row
from trimtab.platform.contracts import Context, Strategy
from trimtab.platform.errors import InvalidInput, PlanError, StrategyError
from trimtab.platform.model import VCPU, ClusterModel
from trimtab.platform.planner import plan_capacity
from trimtab.platform.plugins import load as load_plugins
from trimtab.platform.proposal import Act, Candidate, Limits, Migrate, Plan, PlannedAction
from trimtab.platform.snapshot import History, Need, Snapshot
from trimtab.simulator.carbon import Intensity
from trimtab.simulator.closed_loop import Case, Outcome, Policy, run
from trimtab.simulator.events import Events
from trimtab.simulator.failures import random_failures
from trimtab.simulator.happenings import Happening
from trimtab.simulator.load import Load, generated
from trimtab.simulator.measurements import Measurements
from trimtab.simulator.observed import Observed, Truth, bytes_of
from trimtab.simulator.power import Power
from trimtab.simulator.rehearse import ASSUMPTIONS, rehearse
from trimtab.simulator.score import Window, score
from trimtab.simulator.servers import RESIZE_S
from trimtab.simulator.timeline import Timeline
from trimtab.simulator.truth import CloudSpec, true_blocks
from trimtab.simulator.world import World, burns_cpu

DAY_S = 86_400.0
START_S = 20_000 * DAY_S
MODEL = CloudSpec(hosts=12, instances=90, seed=3).model()


class Nothing(BaseModel):
    """No parameters."""


class Does:
    """A strategy that does what a function says; it keeps the snapshots it was given."""

    name: ClassVar[str] = "does"
    display_name: ClassVar[str] = "Does"
    goal: ClassVar[str] = "none"
    parameters: ClassVar[type[BaseModel]] = Nothing
    models: ClassVar[tuple[str, ...]] = ("compute",)

    def __init__(self, what: Callable[[Snapshot], Sequence[Candidate]], needs: Sequence[Need] = ()) -> None:
        self.what, self.asks, self.seen = what, needs, list[Snapshot]()

    def needs(self, parameters: Any) -> Sequence[Need]:
        return self.asks

    def grid(self) -> Sequence[dict[str, Any]]:
        return ({},)

    def propose(self, snapshot: Snapshot, parameters: Any, context: Context) -> Sequence[Candidate]:
        self.seen.append(snapshot)
        return self.what(snapshot)


def balancing() -> Strategy:
    return load_plugins().strategy("workload_stabilization")


def level(**parameters: Any) -> Any:
    return balancing().parameters.model_validate(
        {"thresholds": {"instance_cpu_usage": 0.01}, "host_choice": "fullsearch", **parameters}
    )


def case_of(policy: Policy, model: ClusterModel = MODEL, seed: int = 5, **others: Any) -> Case:
    return Case(model, Load(generated(model.instances, seed), model.instances), policy, START_S, **others)


def test_nobody_scores_as_an_untouched_timeline() -> None:
    case = case_of(Policy("nobody"), horizon_s=40_000.0)
    outcome = run(case)
    untouched = Timeline(START_S, MODEL.host_of, burns_cpu(MODEL), MODEL.up, MODEL.enabled)
    window = Window(START_S, START_S + 40_000, START_S, START_S)
    power = Power.of(MODEL.total[:, VCPU])
    expected = score(MODEL, untouched, lambda a, b: true_blocks(case.load, a, b), power, window)
    assert asdict(outcome.score) == pytest.approx(asdict(expected))
    assert expected.energy_kwh > 0
    assert outcome.figures["audits"] == 0
    assert outcome.moves == ()


def test_one_audit_at_the_start_scores_as_its_rehearsal_on_the_true_load() -> None:
    plans: list[Plan] = []

    def kept(model: ClusterModel, candidate: Candidate, limits: Limits) -> Plan:
        plans.append(plan_capacity(model, candidate, limits))
        return plans[-1]

    every_day_the_same = Load(generated(MODEL.instances, 5, variation=0.0), MODEL.instances)
    policy = Policy("once", balancing(), level(), interval_s=2 * DAY_S, planner=kept)
    outcome = run(Case(MODEL, every_day_the_same, policy, START_S))
    yesterday = History(START_S - DAY_S, 300.0, every_day_the_same.cpu_pct(int(START_S // 300) - 288, 288))
    rehearsal = rehearse(Snapshot(MODEL, START_S, history=yesterday), plans[0], policy.limits, 0)
    assert rehearsal.violations == ()
    assert rehearsal.score.moves > 3
    assert asdict(outcome.score) == pytest.approx(asdict(rehearsal.score))


def test_the_same_case_gives_the_same_outcome() -> None:
    case = case_of(Policy("level", balancing(), level()))
    first, second = run(case, series=True), run(case, series=True)
    assert first.score == second.score
    assert first.figures == second.figures
    assert first.moves == second.moves
    assert first.series is not None
    assert first.series.equals(second.series)
    assert first.figures["plans"] > 1


@given(seed=st.integers(0, 10_000), cut=st.integers(1, 143), other=st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_what_the_future_brings_changes_nothing_before(seed: int, cut: int, other: int) -> None:
    policy = Policy("level", balancing(), level(), interval_s=1800.0)
    case = case_of(policy, seed=seed, horizon_s=DAY_S / 2)
    changed = Load(generated(MODEL.instances, seed), MODEL.instances)
    changed.rewritten(int(START_S // 300) + cut, generated(MODEL.instances, other + 20_000))
    before, after = run(case), run(replace(case, load=changed))
    until = START_S + cut * 300.0

    def early(outcome: Outcome) -> list[tuple[float, int, int, int]]:
        return [(m.start, m.instance, m.source, m.destination) for m in outcome.moves if m.start <= until]

    assert early(before) == early(after)


def test_the_history_ends_now_and_cannot_be_written() -> None:
    strategy = Does(lambda _: ())
    case = case_of(Policy("looks", strategy, interval_s=1000.0, first_s=250.0), horizon_s=7200.0, past_s=3600.0)
    run(case)
    assert len(strategy.seen) == 7
    for snapshot in strategy.seen:
        history = snapshot.history
        assert history is not None
        assert snapshot.taken_at - 300 < history.end_s <= snapshot.taken_at
        assert len(history.cpu_pct) == 12
        true = case.load.cpu_pct(int(history.start_s // 300), 12)
        burning = burns_cpu(MODEL)
        np.testing.assert_array_equal(history.cpu_pct[:, burning], true[:, burning])
        with pytest.raises(ValueError, match="read-only"):
            history.cpu_pct[0, 0] = 1.0


@given(seed=st.integers(0, 10_000), hosts=st.integers(4, 8))
@settings(max_examples=12, deadline=None)
def test_no_host_ever_holds_more_than_it_may(seed: int, hosts: int) -> None:
    try:
        model = CloudSpec(hosts=hosts, instances=8 * hosts, seed=seed).model()
    except InvalidInput:  # a few seeds draw instances too large for so few hosts
        reject()
    policy = Policy("level", balancing(), level(), interval_s=1200.0, limits=Limits(4, 20))
    outcome = run(case_of(policy, model, seed, horizon_s=20_000.0))
    edges = sorted({time for move in outcome.moves for time in (move.start, move.end)})
    for now in edges:
        host_of = model.host_of.copy()
        on_the_way = []
        for move in sorted(outcome.moves, key=lambda move: move.end):
            if move.end <= now and move.arrived:
                host_of[move.instance] = move.destination
            elif move.start <= now < move.end:
                on_the_way.append(move)
        used = model.used(host_of)
        for move in on_the_way:
            used[move.destination] += model.demand[move.instance]
        assert (used <= np.maximum(model.capacity, model.used()) + 1e-6).all()


def test_a_strategy_that_breaks_is_survived_and_explained() -> None:
    answers = iter([StrategyError("no hosts"), ZeroDivisionError("oops"), PlanError("a circle")])

    def breaks(_: Snapshot) -> Sequence[Candidate]:
        if (problem := next(answers, None)) is not None:
            raise problem
        return ()

    outcome = run(case_of(Policy("breaks", Does(breaks)), horizon_s=5 * 3600.0))
    assert outcome.figures["audits"] == 5
    assert outcome.figures["failed_audits"] == 3
    assert outcome.failures == (
        "audit 1, 0 h after the start: no hosts",
        "audit 2, 1 h after the start: ZeroDivisionError: oops",
        "audit 3, 2 h after the start: a circle",
    )


def test_a_candidate_that_breaks_a_rule_fails_its_audit(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(2, [0, 0, 1, 1, 1, 1], [(2, 8_192, 20)] * 6)
    strategy = Does(lambda _: (Candidate((Migrate(0, 1),)),))
    outcome = run(case_of(Policy("overfills", strategy, interval_s=DAY_S), model))
    assert outcome.figures["failed_audits"] == 1
    assert "host-1 would hold" in outcome.failures[0]
    assert outcome.moves == ()


def at_once(model: ClusterModel, candidate: Candidate, limits: Limits) -> Plan:
    """All moves side by side, whatever the planner would prefer."""
    moves = candidate.moves().tolist()
    return Plan(tuple(PlannedAction("migrate", {}, instance=v, source=-1, destination=h) for v, h in moves))


def test_failed_moves_are_told_to_later_audits_and_the_run_goes_on(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(3, [0, 0], [(2, 16_384, 20)] * 2)
    slow = replace(ASSUMPTIONS, nic_mb_s=100.0, dirty_mb_s=0.0).physics(model)  # 164 s alone, 328 s together

    def away(snapshot: Snapshot) -> Sequence[Candidate]:
        if snapshot.failed_before:
            return ()
        return (Candidate((Migrate(0, 1), Migrate(1, 2))),)

    strategy = Does(away, [Need("host_cpu_usage", "host")])
    happenings = (Happening(START_S + 200, "host_down", 1), Happening(START_S + 9000, "host_up", 1))
    policy = Policy("away", strategy, planner=at_once, limits=Limits(2, 20))
    case = case_of(policy, model, horizon_s=4 * 3600.0, physics=slow, happenings=happenings)
    outcome = run(case)
    assert [snapshot.failed_before for snapshot in strategy.seen] == [(), (0,), (0,), (0,)]
    assert [bool(snapshot.model.up[1]) for snapshot in strategy.seen] == [True, False, False, True]
    assert [bool(np.isnan(s.metric(strategy.asks[0])[1])) for s in strategy.seen] == [False, True, True, False]
    assert strategy.seen[-1].model.host_of.tolist() == [0, 2]
    assert outcome.figures["failed_migrations"] == 1
    assert outcome.figures["failed_audits"] == 0
    assert outcome.score.moves == 1


@given(seed=st.integers(0, 10_000))
@settings(max_examples=8, deadline=None)
def test_hosts_that_fail_mid_run_break_neither_audits_nor_capacity(seed: int) -> None:
    model = CloudSpec(hosts=8, instances=64, seed=seed).model()
    random = np.random.default_rng(seed)
    failures = random_failures(8, DAY_S / 4, 6.0, 1.0, random, START_S, evacuate_after_s=300.0)
    coming = [Happening(START_S + 300.0 * n, "arrive", n) for n in range(10)]
    going = [Happening(START_S + 9000.0 + 777.0 * n, "depart", n + 20) for n in range(10)]
    happenings = tuple(sorted((*failures, *coming, *going), key=lambda happening: happening.at))
    host_of = model.host_of.copy()
    host_of[:10] = -1
    model = model.with_changes(host_of=host_of)
    parameters = level()
    strategy = Does(
        lambda snapshot: balancing().propose(snapshot, parameters, Context()), balancing().needs(parameters)
    )
    policy = Policy("level", strategy, interval_s=900.0)
    case = case_of(policy, model, seed, horizon_s=DAY_S / 4, happenings=happenings)
    outcome = run(case)
    assert outcome.failures == ()
    assert len(strategy.seen) + outcome.figures["skipped_audits"] == 24
    for snapshot in strategy.seen:
        now = snapshot.model
        assert (now.used() <= np.maximum(now.capacity, model.used()) + 1e-6).all()
        assert (now.host_of[20:30] < 0).sum() == (snapshot.taken_at >= START_S + 9000 + 777.0 * np.arange(10)).sum()
    assert run(case).score == outcome.score
    assert failures or outcome.figures["down_min"] == 0


def test_instances_that_arrive_and_leave_are_seen_as_they_are(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(1, [0, -1, -1], [(2, 4_096, 20), (2, 4_096, 20), (2, 64_000, 20)])
    strategy = Does(lambda _: (), [Need("instance_cpu_usage", "instance")])
    happenings = (
        Happening(START_S + 1000, "arrive", 1),
        Happening(START_S + 1000, "arrive", 2),
        Happening(START_S + 5000, "depart", 0),
    )
    outcome = run(case_of(Policy("looks", strategy), model, horizon_s=3 * 3600.0, happenings=happenings))
    assert [snapshot.model.host_of.tolist() for snapshot in strategy.seen] == [[0, -1, -1], [0, 0, -1], [-1, 0, -1]]
    known = [np.isfinite(snapshot.metric(strategy.asks[0])).tolist() for snapshot in strategy.seen]
    assert known == [[True, False, False], [True, True, False], [False, True, False]]
    assert outcome.figures["rejected_arrivals"] == 1
    assert outcome.figures["hosts_in_use_mean"] == pytest.approx(1.0)


def test_time_migrating_counts_overlaps_once_and_hosts_in_use_by_time(
    small_model: Callable[..., ClusterModel],
) -> None:
    model = small_model(3, [0, 0], [(2, 16_384, 20)] * 2)
    slow = replace(ASSUMPTIONS, nic_mb_s=100.0, dirty_mb_s=0.0, downtime_s=0.0, setup_s=0.0).physics(model)
    strategy = Does(lambda _: (Candidate((Migrate(0, 1), Migrate(1, 2))),))
    policy = Policy("away", strategy, interval_s=DAY_S, planner=at_once, limits=Limits(2, 20))
    outcome = run(case_of(policy, model, horizon_s=3276.8, physics=slow))
    assert outcome.figures["migrating_min"] == pytest.approx(327.68 / 60)
    # Both arrive after a tenth of the time: from one host in use to two.
    assert outcome.figures["hosts_in_use_mean"] == pytest.approx(0.1 * 1 + 0.9 * 2)


def to_and_fro(snapshot: Snapshot) -> Sequence[Candidate]:
    return (Candidate((Migrate(0, 1 - int(snapshot.model.host_of[0])),)),)


def test_what_a_policy_stops_is_not_down_but_its_resizes_are_while_they_last(
    small_model: Callable[..., ClusterModel],
) -> None:
    sizes = [(2.0, 4_096.0, 20.0), (2.0, 4_096.0, 20.0), (4.0, 8_192.0, 20.0)]
    model = small_model(1, [0, 0, 0], sizes, host_vcpu_ratio=[4.0], flavor=["s", "s", "l"])

    def acts(action: str, **parameters: str) -> Policy:
        step = Act(action, "v0", {"resource_id": "v0", **parameters})
        return Policy(action, Does(lambda _: (Candidate((step,)),)), interval_s=DAY_S)

    def at(action: str, **parameters: str) -> Outcome:
        return run(case_of(acts(action, **parameters), model, horizon_s=7200.0))

    nobody = run(case_of(Policy("nobody"), model, horizon_s=7200.0))
    stopped, resized = at("stop", state="stopped"), at("resize", flavor="l")
    assert stopped.failures == resized.failures == ()
    assert stopped.figures["down_min"] == 0
    assert stopped.score.energy_kwh < nobody.score.energy_kwh
    assert resized.figures["down_min"] == pytest.approx(RESIZE_S / 60)
    assert resized.score.energy_kwh == pytest.approx(nobody.score.energy_kwh, rel=5e-3), "the same work"


def test_a_run_that_would_not_fit_into_memory_is_refused_before_it_begins() -> None:
    def never(_: int) -> np.ndarray:
        raise AssertionError("nothing is read")

    load = Load(never, MODEL.instances)
    hundred_thousand_days = 1e5 * DAY_S
    looks = Does(lambda _: (), [Need("host_cpu_usage", "host"), Need("host_cpu_usage", "host", window_s=900)])
    for policy, gib in ((Policy("nobody"), 19.3), (Policy("looks", looks), 21.9)):
        with pytest.raises(
            InvalidInput, match=f"policy {policy.name}: .* about {gib} GiB, and 8 GiB .* shorter horizon"
        ):
            run(Case(MODEL, load, policy, START_S, horizon_s=hundred_thousand_days))


@pytest.mark.parametrize("metric", ["host_cpu_usage", "instance_cpu_usage", "instance_ram_usage"])
def test_the_estimate_is_what_the_arrays_hold(metric: str) -> None:
    need = Need(metric, "host" if metric.startswith("host") else "instance")
    world = World(MODEL, Events(START_S), ASSUMPTIONS.physics(MODEL))
    truth = Truth(Load(generated(MODEL.instances, 1), MODEL.instances), int(START_S // 300), 50)
    observed = Observed(world, truth, [need], DAY_S, MODEL.demand[:, 1])
    held = {id(array): array.nbytes for array in (truth.cpu_pct, *observed._record.values())}
    assert bytes_of(50, MODEL.hosts, MODEL.instances, [need]) == sum(held.values())


def test_an_audit_is_skipped_while_a_plan_runs(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(2, [0], [(2, 16_384, 20)])
    slow = replace(ASSUMPTIONS, nic_mb_s=4.0, dirty_mb_s=0.0).physics(model)  # 4096 s a migration
    strategy = Does(to_and_fro)
    outcome = run(case_of(Policy("slow", strategy, interval_s=1000.0), model, horizon_s=10_000.0, physics=slow))
    assert outcome.figures["audits"] == 10
    assert outcome.figures["skipped_audits"] == 8  # at 1 to 4 thousand seconds, and at 6 to 9
    assert outcome.figures["plans"] == 2
    assert len(strategy.seen) == 2
    assert outcome.score.moves == 2 - 1 + int(outcome.moves[1].end <= START_S + 10_000)


def test_times_of_several_plans_are_during_and_the_rest_is_after(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(2, [0] * 5, [(2, 4_096, 20)] * 5, host_vcpu_ratio=[2.0, 2.0])  # 10 vCPUs on 8
    busy = Load(lambda _: np.full((288, 5), 100, np.float32), 5)
    policy = Policy("and back", Does(to_and_fro), interval_s=3600.0, first_s=1800.0)
    outcome = run(Case(model, busy, policy, START_S, horizon_s=4 * 3600.0))
    assert outcome.figures["plans"] == 4
    # One instance away leaves 8 vCPUs on 8: the first host is overloaded all the time, during plans as after them.
    assert outcome.score.overload_min_during == pytest.approx(outcome.score.duration_s / 60)
    total = outcome.score.overload_min_during + outcome.score.overload_min_after
    assert total == pytest.approx(4 * 60)
    assert outcome.score.moves == 4


def test_the_first_candidate_is_taken_unless_somebody_chooses(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(3, [0, 0])
    strategy = Does(lambda _: (Candidate((Migrate(0, 1),)), Candidate((Migrate(0, 2),))))
    first = run(case_of(Policy("first", strategy, interval_s=DAY_S), model))
    last = run(case_of(Policy("last", strategy, interval_s=DAY_S, choose=lambda _, found: found[-1]), model))
    none = run(case_of(Policy("none", strategy, interval_s=DAY_S, choose=lambda *_: None), model))
    assert [move.destination for move in first.moves] == [1]
    assert [move.destination for move in last.moves] == [2]
    assert none.moves == ()


NEEDS = [
    Need("instance_cpu_usage", "instance", "mean", 720),
    Need("instance_cpu_usage", "instance", "max", 3600),
    Need("host_cpu_usage", "host", "mean", 600),
    Need("host_cpu_usage", "host", "min", 1500),
    Need("host_ram_usage", "host", "mean", 900),
    Need("instance_ram_usage", "instance", "count", 900),
    Need("host_power", "host", "mean", 300),
]


def test_measurements_are_those_of_a_cloud_with_the_same_past() -> None:
    load = Load(generated(MODEL.instances, 5), MODEL.instances)
    world = World(MODEL, Events(START_S), ASSUMPTIONS.physics(MODEL))
    memory = MODEL.demand[:, 1] * 0.7
    truth = Truth(load, int(START_S // 300) - 12, 60)
    observed = Observed(world, truth, NEEDS, 3600.0, memory)
    random = np.random.default_rng(1)
    for number in range(12):
        instance, destination = int(random.integers(MODEL.instances)), int(random.integers(MODEL.hosts))
        if world.refusal(instance, destination, live=True) is None:
            world.migrate(instance, destination, live=True)
        if number == 4:
            world.lose_host(2)
        if number == 6:
            world.lose_instance(5)
        world.events.run_until(world.events.now + float(random.uniform(100, 900)))
        now = world.events.now
        seen = observed.snapshot(MODEL)
        past = replace(world.timeline(), began=truth.first * 300.0)
        table = Measurements(MODEL, past, load, memory, now).aggregate(NEEDS, now)
        expected = by_row(MODEL, NEEDS, table)
        for need in NEEDS:
            np.testing.assert_allclose(seen.metric(need), expected[need], rtol=1e-6)
        assert need not in seen.measured
    assert len(world.trips) > 3
    assert np.isnan(seen.metric(NEEDS[2])).sum() == 1


def test_a_hole_in_the_record_is_unknown_and_its_load_typical(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(1, [0, 0], [(4, 4_096, 20)] * 2)
    day = np.full((288, 2), 50, np.float32)
    day[:, 1] = np.nan
    strategy = Does(lambda _: (), [Need("instance_cpu_usage", "instance"), Need("host_cpu_usage", "host")])
    case = Case(
        model, Load(lambda _: day, 2), Policy("looks", strategy), START_S, typical_pct=np.array([1, 25], np.float32)
    )
    outcome = run(case, series=True)
    seen = strategy.seen[-1]
    np.testing.assert_array_equal(seen.metric(strategy.asks[0]), [50, np.nan])
    assert seen.metric(strategy.asks[1]) == pytest.approx([100 * (2 + 1) / 8])
    assert outcome.series is not None
    assert outcome.series["demand_vcpus"].to_pylist() == pytest.approx([3.0] * 288)


def test_the_series_adds_up_to_the_score() -> None:
    outcome = run(case_of(Policy("level", balancing(), level()), horizon_s=50_000.0), series=True)
    series = outcome.series
    assert series is not None
    assert series.num_rows == 167  # the last one is cut
    hours = np.minimum(300, START_S + 50_000 - series["at_s"].to_numpy()) / 3600
    assert series["power_w"].to_numpy() @ hours / 1000 == pytest.approx(outcome.score.energy_kwh)
    assert series["migrations_started"].to_numpy().sum() == len(outcome.moves) > 0
    assert series["hosts_in_use"].to_numpy()[-1] == outcome.score.hosts_in_use
    assert series["migrating"].to_numpy().max() >= 1


def test_carbon_is_energy_times_the_intensity_of_its_hour() -> None:
    flat = run(case_of(Policy("nobody"), intensity=Intensity(0.0, 3600.0, np.array([400.0]))))
    night = run(case_of(Policy("nobody"), intensity=Intensity(0.0, DAY_S / 2, np.array([0.0, 400.0]))))
    assert flat.figures["carbon_kg"] == pytest.approx(0.4 * flat.score.energy_kwh)
    assert 0 < night.figures["carbon_kg"] < flat.figures["carbon_kg"]
    assert "carbon_kg" not in run(case_of(Policy("nobody"), horizon_s=600.0)).figures


def test_nothing_of_hosts_is_known_while_monitoring_is_down(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(1, [0, 0])
    day = np.full((288, 2), 50, np.float32)
    day[10:14] = np.nan
    strategy = Does(lambda _: (), [Need("host_cpu_usage", "host", "count", 1500), Need("host_cpu_usage", "host")])
    run(Case(model, Load(lambda _: day, 2), Policy("looks", strategy, first_s=4200.0), START_S, horizon_s=4300.0))
    count, newest = (strategy.seen[0].metric(need) for need in strategy.asks)
    np.testing.assert_array_equal(count, [1])  # samples 9 to 13
    np.testing.assert_array_equal(newest, [np.nan])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon_s": 0.0}, "horizon must be positive"),
        ({"past_s": -1.0}, "must not be negative"),
        ({"policy": Policy("often", interval_s=0.0)}, "interval must be positive"),
        ({"load": Load(generated(7, 1), 7)}, "load is of 7 instances"),
    ],
)
def test_what_cannot_be_run_is_refused_with_a_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        run(replace(case_of(Policy("nobody")), **changes))
