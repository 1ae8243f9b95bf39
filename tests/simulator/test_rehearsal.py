"""Rehearsals: limits, room, states, forecasts, and how near they come to what then happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import ClusterModel
from trimtab.platform.proposal import Limits, Plan, PlannedAction
from trimtab.platform.rules import destinations
from trimtab.platform.snapshot import History, Need, Snapshot
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.forecast import Forecast
from trimtab.simulator.rehearse import Assumptions, rehearse
from trimtab.simulator.truth import CloudSpec

LIMITS = Limits(2, 20)
AT = 20_000 * 86_400.0
FAST = Assumptions(nic_mb_s=100.0, dirty_mb_s=0.0, setup_s=0.0, downtime_s=0.0, notice_s=0.0)


def _move(instance: int, source: int, destination: int, *parents: int, live: bool = True) -> PlannedAction:
    return PlannedAction("migrate", {}, parents, (), instance, source, destination, live)


def _plan(*actions: PlannedAction) -> Plan:
    return Plan(actions)


def _act(kind: str, *parents: int, host: int = -1, **parameters: object) -> PlannedAction:
    return PlannedAction(kind, parameters, parents, host=host)


def test_doing_nothing_is_the_baseline(small_model: Callable[..., ClusterModel]) -> None:
    result = rehearse(Snapshot(small_model(2, [0, 0, 1]), AT), Plan(()), LIMITS, 1)
    score = result.score
    assert (score.moves, score.duration_s, score.moved_gib, score.pdm) == (0, 0, 0, 0)
    assert (score.hosts_in_use, score.rules_broken, result.violations) == (2, 0, ())
    idle, busy = 60 + 1.5 * 8, 4 * 8
    # nothing was measured: instances of 2 vCPUs are taken to use both
    assert score.energy_kwh == pytest.approx((2 * idle + busy * (4 + 2) / 8) * 24 / 1000)


def test_limits_hold_per_host_and_in_total(small_model: Callable[..., ClusterModel]) -> None:
    """Six instances of 4 GiB leave host 0 for six others, at 100 MB/s a card: 40.96 s alone, n times that in n-fold."""
    model = small_model(7, [0] * 6, host_size=(16, 65_536, 500))
    plan = _plan(*(_move(v, 0, v + 1) for v in range(6)))
    for per_host, total in ((1, 20), (2, 20), (3, 20), (6, 2), (6, 1)):
        result = rehearse(Snapshot(model, AT), plan, Limits(per_host, total), 1, assumptions=FAST)
        assert result.score.duration_s == pytest.approx(6 * 40.96)  # the card of host 0 is always full
    apart = small_model(12, [0, 1, 2, 3, 4, 5])
    plan = _plan(*(_move(v, v, v + 6) for v in range(6)))
    for total in (1, 2, 3, 6):
        result = rehearse(Snapshot(apart, AT), plan, Limits(1, total), 1, assumptions=FAST)
        assert result.score.duration_s == pytest.approx(6 / total * 40.96)


def test_children_wait_for_parents_and_acts_take_their_time(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(3, [0, 1])
    plan = _plan(
        _act("nop"),
        _act("sleep", 0, duration=30),
        _move(0, 0, 2, 1),
        _act("change_nova_service_state", 2, host=0, state="disabled"),
        _move(1, 1, 2, 3),
    )
    result = rehearse(Snapshot(model, AT), plan, LIMITS, 1, assumptions=FAST)
    assert result.score.duration_s == pytest.approx(30 + 40.96 + 1 + 40.96)
    assert result.score.hosts_in_use == 1
    assert not result.violations


def test_a_host_that_is_emptied_and_disabled_saves_energy(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(2, [0, 1])
    only_moved = rehearse(Snapshot(model, AT), _plan(_move(0, 0, 1)), LIMITS, 1).score.energy_kwh
    disable = _act("change_nova_service_state", 0, resource_id="h0", resource_name="host-0", state="disabled")
    disabled = rehearse(Snapshot(model, AT), _plan(_move(0, 0, 1), disable), LIMITS, 1).score.energy_kwh
    assert disabled == pytest.approx(only_moved - (72 - 8) * 24 / 1000, rel=0.001)


@pytest.mark.parametrize(
    ("actions", "columns", "said"),
    [
        ([_move(0, 0, 1)], {}, "host host-1 has no room for vm-0: it needs 2 vCPUs, 4096 MB, 20 GB; free are 0,"),
        ([_move(0, 0, 2)], {"host_state": ["up", "up", "down"]}, "host host-2 is down and cannot receive vm-0"),
        ([_move(0, 0, 2)], {"host_status": ["enabled"] * 2 + ["disabled"]}, "host host-2 is disabled"),
        ([_act("change_nova_service_state", host=2, state="disabled"), _move(0, 0, 2, 0)], {}, "host-2 is disabled"),
        ([_move(0, 0, 2)], {"state": ["stopped"] * 5}, "vm-0 is stopped: live migration needs active or paused"),
        ([_move(0, 0, 2)], {"host_zone": ["a", "a", "b"], "pinned_zone": ["a"] + [""] * 4}, "vm-0 is bound to zone a"),
        ([_move(0, 1, 2)], {}, "instance vm-0 is on host-0, not on host-1, when its move begins"),
        ([_move(0, 0, 0)], {}, "instance vm-0 is on host-0 already"),
        ([_move(0, 0, 2), _move(0, 0, 2)], {}, "instance vm-0 is busy"),
        ([_act("levitate")], {}, "action 0: there is a levitate, of which the simulator has no model"),
        ([_act("change_nova_service_state", resource_id="h9", state="disabled")], {}, "the model has no host h9"),
        ([_act("sleep", duration=90_000)], {}, "1 of 1 actions have not ended after 24 hours"),
    ],
)
def test_what_cannot_be_done_is_a_violation_with_names(
    small_model: Callable[..., ClusterModel], actions: list[PlannedAction], columns: dict[str, list[str]], said: str
) -> None:
    model = small_model(3, [0, 1, 1, 1, 1], **columns)
    result = rehearse(Snapshot(model, AT), Plan(tuple(actions)), LIMITS, 1)
    assert len(result.violations) == 1
    assert said in result.violations[0]


def test_an_instance_on_its_way_takes_room_on_both_hosts(small_model: Callable[..., ClusterModel]) -> None:
    """A swap of two hosts that are nearly full has no room; one after the other by way of a third has."""
    model = small_model(3, [0, 1], [(6, 4096, 20)] * 2)
    swap = rehearse(Snapshot(model, AT), _plan(_move(0, 0, 1), _move(1, 1, 0)), LIMITS, 1)
    assert len(swap.violations) == 2
    too_early = rehearse(Snapshot(model, AT), _plan(_move(0, 0, 2), _move(1, 1, 0)), LIMITS, 1)
    assert "host host-0 has no room for vm-1" in too_early.violations[0]
    round_trip = _plan(_move(0, 0, 2), _move(1, 1, 0, 0), _move(0, 2, 1, 1))
    assert not rehearse(Snapshot(model, AT), round_trip, LIMITS, 1).violations


def test_the_cloud_chooses_where_a_plan_names_no_destination(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(3, [0, 0, 1])
    result = rehearse(Snapshot(model, AT), _plan(_move(0, 0, -1)), LIMITS, 1)
    assert not result.violations
    assert result.score.hosts_in_use == 3


def test_the_forecast_is_the_same_time_of_the_last_recorded_day(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(1, [0, 0, 0, 0])
    load = np.tile(np.arange(576)[:, None] / 10, (1, 4)).astype(np.float32)  # two days; the second counts
    load[300:310, 1] = np.nan
    load[:, 2] = np.nan
    load[:, 3] = np.nan
    measured = {Need("instance_cpu_usage", "instance"): np.array([1.0, 2.0, 33.0, np.nan])}
    snapshot = Snapshot(model, AT, history=History(AT - 172_800, 300.0, load), measured=measured)
    (block,) = Forecast.of(snapshot).blocks(AT + 10, AT + 100_000)
    assert block.start_s == AT
    assert block.rows.tolist() == [*range(288, 576), *range(288, 334)]
    own_mean = np.nanmean(load[:, 1])
    assert block.fallback == pytest.approx([load[:, 0].mean(), own_mean, 33.0, 100.0])
    # what the record does not reach back to is typical
    short = replace(snapshot, history=History(AT - 3_600, 300.0, load[:12]))
    (block,) = Forecast.of(short).blocks(AT, AT + 86_400)
    assert block.rows.tolist() == [-1] * 276 + list(range(12))
    with pytest.raises(InvalidInput, match="4 instances"):
        Forecast.of(replace(snapshot, history=History(AT, 300.0, load[:, :3])))


def test_holes_in_the_record_never_fail_a_rehearsal(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(1, [0, 0, 0], state=["active", "active", "stopped"])
    rng = np.random.default_rng(1)
    load = rng.uniform(0, 100, (288, 3)).astype(np.float32)
    load[:, 0], load[rng.random(288) < 0.3, 1] = np.nan, np.nan
    with_holes = Snapshot(model, AT, history=History(AT - 86_400, 300.0, load))
    filled = load.copy()
    filled[:, 0] = 100
    filled[np.isnan(load[:, 1]), 1] = np.nanmean(load[:, 1])
    without = Snapshot(model, AT, history=History(AT - 86_400, 300.0, filled))
    a, b = (rehearse(s, Plan(()), LIMITS, 1).score for s in (with_holes, without))
    assert a.energy_kwh == pytest.approx(b.energy_kwh, rel=1e-6)
    assert a.cpu_sd_pp == 0.0


def _sound_plan(model: ClusterModel, seed: int, moves: int) -> Plan:
    """Moves that fit one after the other, each the child of the one before."""
    place, rng = model.placement(), np.random.default_rng(seed)
    actions: list[PlannedAction] = []
    for instance in rng.permutation(model.instances):
        options = np.flatnonzero(destinations(place, int(instance)))
        if len(actions) == moves or not model.movable[instance] or model.state[instance] != 0 or not len(options):
            continue
        source, destination = int(place.host_of[instance]), int(rng.choice(options))
        parents = (len(actions) - 1,) if actions else ()
        actions.append(_move(int(instance), source, destination, *parents))
        place.move(int(instance), destination)
    return Plan(tuple(actions))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(0, 15))
def test_a_sound_plan_is_rehearsed_without_violation_and_the_same_twice(seed: int, moves: int) -> None:
    cloud = SimulatedCloud(CloudSpec(hosts=8, instances=60, seed=seed, start_s=AT, speed=0.0))
    inventory = cloud.inventory()
    model = ClusterModel.from_arrow(inventory.hosts, inventory.instances, inventory.groups)
    plan, snapshot = _sound_plan(model, seed, moves), Snapshot(model, AT)
    first = rehearse(snapshot, plan, LIMITS, 1)
    assert first == rehearse(snapshot, plan, LIMITS, 1)
    assert not first.violations
    assert first.score.moves == len(plan.actions)
    final = model.host_of.copy()
    for action in plan.actions:
        final[action.instance] = action.destination
    assert first.score.hosts_in_use == len(np.unique(final))


@pytest.mark.parametrize("as_assumed", [True, False])
def test_a_rehearsal_comes_near_to_what_is_measured(
    spec: CloudSpec, snapshot_of: Callable[[SimulatedCloud], Snapshot], as_assumed: bool
) -> None:
    """With the assumed rates and a load that repeats itself the two agree; otherwise the difference is moderate."""
    cloud = SimulatedCloud(replace(spec, variation=0.0 if as_assumed else 1.0, as_assumed=as_assumed))
    snapshot = snapshot_of(cloud)
    plan = _sound_plan(snapshot.model, 5, 6)
    assumed = replace(Assumptions(), notice_s=0.0)
    expected = rehearse(snapshot, plan, LIMITS, 1, assumptions=assumed)
    assert not expected.violations
    start = cloud.now()
    for action in plan.actions:  # one after the other, as the plan's parents say
        instance = snapshot.model.instance_id(action.instance)
        cloud.migrate(instance, snapshot.model.host_name(action.destination), live=True)
        while cloud.servers([instance])[instance].task_state:
            cloud.fast_forward(0.01)
    cloud.fast_forward(start + 86_400 - cloud.now())
    real = cloud.measure(start, start + 86_400)
    score, near = expected.score, 0.01 if as_assumed else 0.5
    for field in ("duration_s", "moved_gib", "energy_kwh", "pdm", "cpu_sd_pp", "overload_min_after", "slatah"):
        assert getattr(real, field) == pytest.approx(getattr(score, field), rel=near, abs=near * 0.1), field
    assert (real.moves, real.hosts_in_use, real.rules_broken) == (score.moves, score.hosts_in_use, score.rules_broken)
    if not as_assumed:
        assert real.duration_s != pytest.approx(score.duration_s, rel=1e-3)  # the world has rates of its own
