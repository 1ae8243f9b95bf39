"""Worth of moves: cost and gain by hand, what is always worth it, and that leaving out never hurts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform import ranking, rules
from trimtab.platform.contracts import Goal
from trimtab.platform.model import VCPU, ClusterModel, InstanceState
from trimtab.platform.model.tables import Codes
from trimtab.platform.planner import plan_capacity
from trimtab.platform.planner.durations import NIC_MB_S, NOTICE_S, SETUP_S, migration_s, transfer
from trimtab.platform.proposal import Act, Candidate, Limits, Migrate, Step
from trimtab.platform.snapshot import History, Need, Snapshot
from trimtab.platform.trial import TryJob, try_out
from trimtab.platform.worth import Prices, cost_of, remaining_s, weigh
from trimtab.simulator import power
from trimtab.simulator.estate import build_estate
from trimtab.simulator.load import Load, generated
from trimtab.simulator.rehearse import rehearse
from trimtab.strategies.goals import HARDWARE_MAINTENANCE, SERVER_CONSOLIDATION, WORKLOAD_BALANCING
from trimtab.strategies.services import switch

AT = 20_700 * 86_400.0
CPU = Need("instance_cpu_usage", "instance")
BALANCE = Goal("balance", "Balance", ordering=("cpu_sd_pp",), weighed=True)


def estate(hosts: int = 12, instances: int = 70, seed: int = 3, ages: Any = None) -> Snapshot:
    """A cloud with a day of recorded load; `ages` in seconds, by lot among those given."""
    model = ClusterModel.from_arrow(*build_estate(hosts, instances, seed=seed))
    model = model.with_changes(created=born(model.instances, ages, seed))
    load = Load(generated(model.instances, seed=seed), model.instances)
    now = int(AT // 300)
    return Snapshot(model, AT, history=History(AT - 86_400, 300.0, load.cpu_pct(now - 288, 288)))


def born(count: int, ages: Any, seed: int = 0) -> Codes:
    texts = [""] if ages is None else [datetime.fromtimestamp(AT - age, UTC).isoformat() for age in ages]
    return Codes(np.random.default_rng(seed).integers(0, len(texts), count).astype(np.int32), tuple(texts))


def two_hosts(cpu: list[float], where: list[int], ages: list[float] | None = None, **more: Any) -> Snapshot:
    """Instances of 4 vCPUs and 4 GiB on three hosts of 16 vCPUs."""
    import pyarrow as pa

    from trimtab.platform.model.tables import GROUP_COLUMNS, empty_table

    hosts = pa.table(
        {
            "uuid": ["h0", "h1", "h2"],
            "hostname": ["h0", "h1", "h2"],
            "vcpus": [16.0] * 3,
            "memory_mb": [65_536.0] * 3,
            "disk_gb": [1000.0] * 3,
            **more,
        }
    )
    instances = pa.table(
        {
            "uuid": [f"i{n}" for n in range(len(cpu))],
            "node": [f"h{host}" for host in where],
            "vcpus": [4.0] * len(cpu),
            "memory_mb": [4096.0] * len(cpu),
            "disk_gb": [10.0] * len(cpu),
            "created": [datetime.fromtimestamp(AT - age, UTC).isoformat() for age in ages or [1e9] * len(cpu)],
        }
    )
    model = ClusterModel.from_arrow(hosts, instances, empty_table(GROUP_COLUMNS))
    return Snapshot(model, AT, measured={CPU: np.array(cpu)})


def test_an_instance_is_expected_to_live_as_long_again_and_at_most_the_horizon() -> None:
    snapshot = two_hosts([50.0] * 4, [0] * 4, ages=[60.0, 3600.0, 1e9, -50.0])
    assert remaining_s(snapshot).tolist() == [60.0, 3600.0, 86_400.0, 0.0]
    assert remaining_s(snapshot, Prices(life_per_age=2.0, horizon_s=100.0)).tolist() == [100.0, 100.0, 100.0, 0.0]
    unknown = replace(snapshot, model=snapshot.model.with_changes(created=Codes(np.zeros(4, np.int32), ("no time",))))
    assert (remaining_s(unknown) == 86_400.0).all()


def test_the_cost_is_work_lost_and_memory_sent() -> None:
    snapshot = two_hosts([50.0, 100.0], [0, 0])
    rows, live = np.array([0, 1], np.int32), np.array([True, False])
    moved = transfer(snapshot.model, rows, live)
    assert moved.copied_s[0] == pytest.approx((4096 - 500) / 960)
    assert moved.stopped_s.tolist() == [0.5, pytest.approx(10 * 1024 * 0.25 / 1000)]
    assert moved.gib[0] == pytest.approx((moved.copied_s[0] + 0.5) * NIC_MB_S / 1024)
    assert migration_s(snapshot.model, rows, live) == pytest.approx(
        SETUP_S + NOTICE_S + moved.copied_s + moved.stopped_s
    )
    by_hand = [2 * (0.1 * moved.copied_s[0] + 0.5) + 2 * moved.gib[0], 4 * moved.stopped_s[1] + 2 * moved.gib[1]]
    assert cost_of(snapshot, rows, live) == pytest.approx(by_hand)


def test_the_power_it_counts_with_is_that_of_rehearsals() -> None:
    prices, vcpus = Prices(), np.array([16.0, 64.0])
    known = power.Power.of(vcpus)
    assert known.idle_w == pytest.approx(prices.idle_w + prices.idle_w_per_vcpu * vcpus)
    assert known.standby_w == pytest.approx([prices.standby_w] * 2)


def test_relief_of_a_host_over_ninety_per_cent_is_worth_a_move_only_for_who_lives_on() -> None:
    move = Candidate((Migrate(0, 1),))
    overload = Goal("relief", "Relief", ordering=("overload_min_after",), weighed=True)
    old = two_hosts([100.0] * 4, [0] * 4)
    assert weigh(old, move, overload).left_out == ()
    young = two_hosts([100.0] * 4, [0] * 4, ages=[5.0] * 4)
    (left,) = weigh(young, move, overload).left_out
    assert (left.instance, left.source, left.destination, left.life_s) == (0, 0, 1, 5.0)
    assert left.gain == pytest.approx(16 - 0.9 * 16), "16 cores wanted where 14.4 are in time"
    calm = two_hosts([50.0] * 4, [0] * 4)
    (left,) = weigh(calm, move, overload).left_out
    assert left.gain == 0.0
    wrong_way = two_hosts([100.0] * 5, [0, 1, 1, 1, 1])
    (left,) = weigh(wrong_way, move, overload).left_out
    assert left.gain == pytest.approx(-(20 - 14.4 - 1.6)), "what it causes where it goes counts against it"


def test_evenness_counts_where_the_goal_asks_for_it() -> None:
    snapshot = two_hosts([100.0] * 4, [0] * 4)
    mean = 16 / 48
    before, after = 16 * ((1 - mean) ** 2 + mean**2), 16 * ((0.75 - mean) ** 2 + (0.25 - mean) ** 2)
    free = Prices(overload=2.0, horizon_s=1.0, core_s_per_gib=100.0)
    (left,) = weigh(snapshot, Candidate((Migrate(0, 1),)), BALANCE, free).left_out
    assert left.gain == pytest.approx(0.1 * (before - after))
    assert weigh(snapshot, Candidate((Migrate(0, 1),)), BALANCE).left_out == ()


def test_a_host_is_emptied_by_all_or_by_nobody_and_stays_open() -> None:
    young = two_hosts([20.0, 20.0, 20.0], [0, 0, 1], ages=[1.0, 1.0, 1e9])
    steps = (Migrate(0, 1), Migrate(1, 1), switch(young.model, 0, enabled=False), switch(young.model, 2, enabled=False))
    candidate = Candidate(steps)
    assert rules.judge(young.model, candidate) == []
    weighed, left = weigh(young, candidate, SERVER_CONSOLIDATION)
    assert {one.instance for one in left} == {0, 1}
    assert {one.host for one in left} == {0}
    assert weighed.steps == (switch(young.model, 2, enabled=False),), "an empty host is closed all the same"
    assert len(weighed.notes) == 2
    assert "i0 stays on h0: moving it costs" in "".join(weighed.notes)
    watts = (60 + 1.5 * 16 - 8) / 7
    assert left[0].gain == pytest.approx(watts / 2), "the host's power is shared among those who leave it"
    one_old = replace(young, model=young.model.with_changes(created=Codes(np.array([0, 1, 1], np.int32), (
        datetime.fromtimestamp(AT - 1, UTC).isoformat(), ""))))  # fmt: skip
    assert weigh(one_old, candidate, SERVER_CONSOLIDATION).left_out == (), "judged together: one of them lives on"
    assert weigh(young, candidate, SERVER_CONSOLIDATION, hosts_too=False).left_out == ()


def test_leaving_a_host_open_that_the_candidate_would_have_opened_takes_its_enabling_along() -> None:
    snapshot = two_hosts([10.0, 10.0], [0, 0], ages=[1.0, 1.0], status=["enabled", "enabled", "disabled"])
    candidate = Candidate((switch(snapshot.model, 2, enabled=True), Migrate(0, 2)))
    weighed, left = weigh(snapshot, candidate, BALANCE)
    assert len(left) == 1
    assert weighed.steps == ()


@pytest.mark.parametrize(
    "more",
    [
        {"status": ["disabled", "enabled", "enabled"]},
        {"vcpus": [8.0, 16.0, 16.0]},
    ],
    ids=["a disabled host is left", "a host over its capacity is left"],
)
def test_who_leaves_what_is_wrong_pays_any_price(more: dict[str, Any]) -> None:
    snapshot = two_hosts([0.0] * 3, [0] * 3, ages=[1.0] * 3, **more)
    assert weigh(snapshot, Candidate((Migrate(0, 1),)), BALANCE).left_out == ()


def test_a_cure_of_a_broken_rule_pays_any_price() -> None:
    snapshot = two_hosts([0.0] * 3, [0, 0, 1], ages=[1.0] * 3)
    apart = rules.Spread(name="apart", members=np.array([0, 1]))
    ruled = replace(snapshot, model=rules.with_rules(snapshot.model, [apart]))
    move = Candidate((Migrate(0, 2),))
    assert len(weigh(snapshot, move, BALANCE).left_out) == 1
    assert weigh(ruled, move, BALANCE).left_out == ()


def test_who_makes_room_for_others_goes_though_it_is_not_worth_it_alone() -> None:
    snapshot = two_hosts([0.0, 0.0, 0.0, 0.0, 100.0], [1, 1, 1, 1, 0], ages=[1.0] * 4 + [1e9])
    candidate = Candidate((Migrate(0, 2), Migrate(4, 1)))
    relief = Goal("relief", "Relief", ordering=("energy_kwh",), weighed=True)
    assert weigh(snapshot, candidate, relief).left_out == ()
    alone = Candidate((Migrate(0, 2),))
    assert [one.instance for one in weigh(snapshot, alone, relief).left_out] == [0]


def job(candidate: Candidate, goal: Goal | None) -> TryJob:
    return TryJob(candidate, plan_capacity, rehearse, Limits(), 0, goal)


def test_the_engine_keeps_moves_without_which_the_goal_is_missed_and_says_so() -> None:
    young = two_hosts([20.0, 20.0, 20.0], [0, 0, 1], ages=[1.0, 1.0, 1e9])
    candidate = Candidate((Migrate(0, 1), Migrate(1, 1), switch(young.model, 0, enabled=False)))
    tried = try_out(young, job(candidate, SERVER_CONSOLIDATION))
    assert tried.candidate is not None
    assert tried.plan is not None
    assert len(tried.plan.migrations()) == 2
    assert tried.candidate.notes == (
        "2 moves cost more than they bring, but without them hosts_in_use is worse: they are done",
    )


def test_the_engine_leaves_out_what_brings_nothing() -> None:
    snapshot = two_hosts([0.0, 0.0, 100.0, 100.0, 100.0, 100.0], [0, 0, 1, 1, 1, 1])
    candidate = Candidate((Migrate(0, 2), Migrate(2, 0), Migrate(3, 2)))
    whole = try_out(snapshot, job(candidate, None))
    assert (whole.candidate, len(whole.plan.migrations()) if whole.plan else 0) == (None, 3)
    tried = try_out(snapshot, job(candidate, WORKLOAD_BALANCING))
    assert tried.candidate is not None
    assert [step.instance for step in tried.candidate.steps if isinstance(step, Migrate)] == [2, 3]
    assert tried.score is not None
    assert whole.score is not None
    assert tried.score.moved_gib < whole.score.moved_gib
    assert tried.score.cpu_sd_pp == pytest.approx(whole.score.cpu_sd_pp)


def test_only_goals_that_say_so_are_weighed() -> None:
    assert WORKLOAD_BALANCING.weighed
    assert SERVER_CONSOLIDATION.weighed
    assert not HARDWARE_MAINTENANCE.weighed
    assert not Goal("mine", "Mine").weighed


def random_candidate(snapshot: Snapshot, random: np.random.Generator, moves: int, drained: int) -> Candidate:
    """Moves to hosts that may receive them, and hosts emptied as far as others have room; closed when empty."""
    model, place, steps = snapshot.model, snapshot.model.placement(), list[Step]()
    able = model.movable & np.isin(model.state, (InstanceState.ACTIVE, InstanceState.PAUSED, InstanceState.STOPPED))
    for host in random.choice(model.hosts, min(drained, model.hosts), replace=False).tolist():
        for guest in np.flatnonzero(place.host_of == host).tolist():
            ok = rules.destinations(place, guest) & (
                np.bincount(place.host_of[place.host_of >= 0], minlength=model.hosts) > 0
            )
            if ok.any() and able[guest]:
                to = int(random.choice(np.flatnonzero(ok)))
                place.move(guest, to)
                steps.append(Migrate(guest, to, live=bool(model.state[guest] != InstanceState.STOPPED)))
        if not (place.host_of == host).any() and model.enabled[host]:
            steps.append(switch(model, host, enabled=False))
    closed = {step.host for step in steps if isinstance(step, Act)}
    for guest in random.permutation(model.instances)[:moves].tolist():
        ok = rules.destinations(place, guest)
        ok[list(closed)] = False
        if ok.any() and able[guest]:
            to = int(random.choice(np.flatnonzero(ok)))
            place.move(guest, to)
            steps.append(Migrate(guest, to, live=bool(model.state[guest] != InstanceState.STOPPED)))
    return Candidate(tuple(steps), indicators={"instance_migrations_count": float(len(steps))})


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    moves=st.integers(0, 25),
    drained=st.integers(0, 4),
    goal=st.sampled_from([SERVER_CONSOLIDATION, WORKLOAD_BALANCING]),
    ages=st.sampled_from([None, (5.0, 1e7), (30.0, 600.0, 1e7), (1.0,)]),
)
def test_leaving_out_never_makes_a_plan_worse_or_unsafe(
    seed: int, moves: int, drained: int, goal: Goal, ages: Any
) -> None:
    snapshot = estate(seed=seed % 50, ages=ages)
    candidate = random_candidate(snapshot, np.random.default_rng(seed), moves, drained)
    assert rules.judge(snapshot.model, candidate) == []
    whole, tried = try_out(snapshot, job(candidate, None)), try_out(snapshot, job(candidate, goal))
    assert whole.plan is not None
    assert whole.score is not None
    assert tried.plan is not None
    assert tried.score is not None
    assert tried.reasons == ()
    assert ranking.beats(goal, whole.score, tried.score) is None
    kept = tried.candidate or candidate
    weighed = weigh(snapshot, candidate, goal)
    for reduced in (kept, weighed.candidate):
        assert rules.judge(snapshot.model, reduced) == []
        place = reduced.final_host_of(snapshot.model)
        used, before = snapshot.model.used(place), snapshot.model.used()
        assert (used <= np.maximum(snapshot.model.capacity, before) + 1e-6).all()
        closed = [s.host for s in reduced.steps if isinstance(s, Act) and s.parameters["state"] == "disabled"]
        assert not np.isin(place, closed).any(), "nobody is left on a host that is closed"
    gone = {one.instance for one in weighed.left_out}
    assert {s.instance for s in weighed.candidate.steps if isinstance(s, Migrate)} == {
        s.instance for s in candidate.steps if isinstance(s, Migrate)
    } - gone


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_gain_is_what_a_plain_recomputation_says(seed: int) -> None:
    snapshot = estate(seed=seed % 20, ages=(1.0,))
    model = snapshot.model
    candidate = random_candidate(snapshot, np.random.default_rng(seed), 6, 0)
    dear = Prices(core_s_per_gib=1e9, live_loss=0.0)  # everything is left out, so that every gain is told
    left = weigh(snapshot, candidate, Goal("relief", "R", ordering=("slatah",), weighed=True), dear).left_out
    assert snapshot.history is not None
    cores = snapshot.history.cpu_pct[-12:].mean(axis=0, dtype=float) / 100 * model.demand[:, VCPU]
    cores[model.state != 0] = 0.0
    final = candidate.final_host_of(model)

    def late(place: Any) -> float:
        load = np.array([cores[place == host].sum() for host in range(model.hosts)])
        return float(np.maximum(load - 0.9 * model.total[:, VCPU], 0).sum())

    for one in left:
        without = final.copy()
        without[one.instance] = one.source
        assert one.gain == pytest.approx(late(without) - late(final), abs=1e-6)
