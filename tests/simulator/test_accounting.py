"""The books balance: random worlds with everything in them, against slow sums over the timeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.model import DISK, MEMORY, VCPU, ClusterModel
from trimtab.platform.rules.kinds import Preserve
from trimtab.simulator.events import Action, Event, Events
from trimtab.simulator.happenings import Happening, schedule
from trimtab.simulator.memory_pressure import memory_pressure
from trimtab.simulator.migration import Physics
from trimtab.simulator.power import CURVES, Power
from trimtab.simulator.scheduler import choose_host
from trimtab.simulator.score import Blocks, LoadBlock, Window, play_series, score
from trimtab.simulator.service_level import contention, fair_share, service_level
from trimtab.simulator.specpower import watts_of
from trimtab.simulator.timeline import Moment, Timeline
from trimtab.simulator.world import World

STEP, END = 300.0, 5400.0
SEEDS = st.integers(0, 100_000)


class Watched(Events):
    """An event kernel that looks at something after every single event."""

    look: Action = staticmethod(lambda: None)

    def at(self, time: float, action: Action) -> Event:
        def both() -> None:
            action()
            self.look()

        return super().at(time, both)


def _model(make: Callable[..., ClusterModel], rng: np.random.Generator) -> ClusterModel:
    """Five hosts; some instances are there at the start, where there was room, the others are yet to come."""
    hosts, instances = 5, 24
    sizes = [(float(rng.choice([1, 2, 4])), float(rng.choice([1024, 4096])), 20.0) for _ in range(instances)]
    model = make(
        hosts,
        [-1] * instances,
        sizes,
        (8, 16_384, 400),
        state=rng.choice(["active", "active", "active", "stopped", "paused"], instances).tolist(),
        host_vcpu_ratio=[1.5] * hosts,
        host_memory_ratio=[1.5] * hosts,
        host_zone=["a", "a", "a", "b", "b"],
        pinned_zone=rng.choice(["", "", "", "a", "b"], instances).tolist(),
    )
    if rng.random() < 0.5:  # a rule lets some count for more than they asked for
        members = rng.choice(instances, 8, replace=False).astype(np.int32)
        model = model.with_changes(rules=(Preserve(name="kept", members=members, resource=MEMORY, least=2048.0),))
    place = model.placement()
    for v in range(14):
        if (host := choose_host(place, v, np.ones(hosts, bool))) >= 0:
            place.move(v, host)
    return model.with_changes(host_of=place.host_of)


def _story(make: Callable[..., ClusterModel], seed: int) -> World:
    """An hour and a half in which everything happens that can; every event is followed by the checks of `_sound`."""
    rng = np.random.default_rng(seed)
    model = _model(make, rng)
    physics = Physics(
        np.full(model.hosts, 40.0),
        rng.uniform(0, 150, model.instances),
        model.demand[:, MEMORY].copy(),
        model.demand[:, DISK] * 300,
        2.0,
        0.5,
        "post-copy" if rng.random() < 0.5 else "pre-copy",
        uplink_of=np.array([0, 0, 1, 1, -1], np.int32),
        uplink_mb_s=np.array([50.0, 30.0]),
    )
    events = Watched(0.0)
    world = World(model, events, physics, boot_s=float(rng.choice([0, 90])), rebuild_s=45.0)
    times = [0.0]

    def look() -> None:
        times.append(events.now)
        assert times[-2] <= times[-1]
        _sound(world)

    events.look = look
    kinds = ["host_down", "host_down", "host_up", "host_up", "evacuate", "disable", "enable"]
    happenings = [Happening(float(t), "arrive", int(rng.integers(24))) for t in rng.uniform(0, 5000, 20)]
    happenings += [Happening(float(t), "depart", int(rng.integers(24))) for t in rng.uniform(0, 5000, 8)]
    happenings += [Happening(float(t), str(rng.choice(kinds)), int(rng.integers(5))) for t in rng.uniform(0, 5000, 20)]
    schedule(world, happenings)

    def move(v: int, h: int, live: bool) -> None:
        if world.refusal(v, h, live=live) is None:
            world.migrate(v, h, live=live)

    for t in rng.uniform(0, 5000, 60):
        v, h, live = int(rng.integers(24)), int(rng.integers(-1, 5)), bool(rng.random() < 0.7)
        events.at(float(t), lambda v=v, h=h, live=live: move(v, h, live))  # type: ignore[misc]
    events.run_until(END)
    return world


def _sound(world: World) -> None:
    """What holds at every instant."""
    model, place = world.model, world.place
    room = np.zeros((3, model.hosts))
    for v in range(model.instances):
        held = {int(place.host_of[v])} - {-1}
        if v in world.moving:
            held |= {world.moving[v].flow.source, world.moving[v].flow.destination}
        for host in held:
            room[:, host] += model.need[v]
    assert place.used == pytest.approx(room)
    assert not place.over_capacity().any()
    gone = place.host_of < 0
    assert not world.running[gone].any()
    there = np.flatnonzero(world.running)
    assert world.up[place.host_of[there]].all()
    assert not (world.up & world.booting).any()
    assert all(v in world.departed for v in np.flatnonzero(gone & (model.host_of >= 0)))
    network = world._network
    for link, load in network.load_mb_s().items():
        assert load <= network.physics.capacity_mb_s(link) * (1 + 1e-9)


def _blocks(load: np.ndarray) -> Blocks:
    def blocks(start: float, end: float) -> Iterator[LoadBlock]:
        for first in range(0, len(load), 7):
            part = load[first : first + 7]
            yield LoadBlock(first * STEP, STEP, part, np.arange(len(part)), np.zeros(load.shape[1], np.float32))

    return blocks


def _load(seed: int) -> np.ndarray:
    return np.random.default_rng(seed + 1).uniform(0, 100, (18, 24)).astype(np.float32)


def _power(model: ClusterModel, seed: int) -> Power:
    rng = np.random.default_rng(seed)
    names = rng.choice(sorted(CURVES), model.hosts).tolist()
    return Power.named(names, model.total[:, VCPU]).with_boot(0.0, rng.uniform(50, 200, 5), rng.uniform(0, 9000, 5))


def _pieces(timeline: Timeline, begin: float, end: float) -> Iterator[tuple[float, float, Moment]]:
    """The time cut wherever anything changes, and the state in each piece."""
    cuts = {begin, end, *(n * STEP for n in range(19)), *(change.at for change in timeline.changes)}
    cuts |= {t for m in timeline.moves for part in m.losses() for t in part[:2]}
    for a, b in pairwise(sorted(t for t in cuts if begin <= t <= end)):
        yield a, b, timeline.at(a)


def _watts(power: Power, host: int, share: float) -> float:
    shape = {0: share, 1: 1.0, 2: share**2, 3: share**3}
    if power.curve[host] in shape:
        return float(power.idle_w[host] + power.busy_w[host] * shape[int(power.curve[host])])
    return float(watts_of(power.points[host], np.array(share)))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(SEEDS)
def test_energy_from_states_is_energy_from_events(small_model: Callable[..., ClusterModel], seed: int) -> None:
    world = _story(small_model, seed)
    model, timeline, load, power = world.model, world.timeline(), _load(seed), _power(world.model, seed)
    for begin, end in ((0.0, END), (130.0, 5271.0)):
        joules, demand_s = 0.0, 0.0
        for a, b, state in _pieces(timeline, begin, end):
            asks = load[int((a + b) / 2 // STEP)].astype(float) / 100 * model.demand[:, VCPU]
            runs = state.running & (state.host_of >= 0)
            of_hosts = np.bincount(state.host_of[runs], asks[runs], model.hosts)
            assert of_hosts.sum() == pytest.approx(asks[runs].sum())  # hosts together ask for what instances do
            demand_s += (b - a) * of_hosts.sum()
            for host in range(model.hosts):
                if state.booting[host]:
                    joules += (b - a) * power.boot_w[host]
                elif state.up[host] and not state.enabled[host] and not (state.host_of == host).any():
                    joules += (b - a) * power.standby_w[host]
                elif state.up[host]:
                    joules += (b - a) * _watts(power, host, min(of_hosts[host] / model.total[host, VCPU], 1))
        joules += _shutdowns(timeline, power, begin, end)
        window = Window(begin, end, begin, 2000.0)
        exact = score(model, timeline, _blocks(load), power, window)
        assert exact.energy_kwh * 3.6e6 == pytest.approx(joules, rel=1e-9)
        series = play_series(model, timeline, _blocks(load), power, begin, end)
        assert series.kwh.sum() == pytest.approx(exact.energy_kwh, rel=1e-12)
        assert (series.demand_vcpus.sum(axis=1) * series.seconds).sum() == pytest.approx(demand_s, rel=1e-9)
        assert series.seconds.sum() == pytest.approx(end - begin)
        fine = score(model, timeline, _blocks_of(load, 10), power, window)
        assert fine.energy_kwh == pytest.approx(exact.energy_kwh, rel=1e-9)  # no update interval


def _blocks_of(load: np.ndarray, finer: int) -> Blocks:
    many = np.repeat(load, finer, axis=0)

    def blocks(start: float, end: float) -> Iterator[LoadBlock]:
        yield LoadBlock(0.0, STEP / finer, many, np.arange(len(many)), np.zeros(load.shape[1], np.float32))

    return blocks


def _shutdowns(timeline: Timeline, power: Power, begin: float, end: float) -> float:
    """Hosts that went to standby while they were up, change by change."""
    host_of, up, enabled = timeline.host_of.copy(), timeline.up.copy(), timeline.enabled.copy()
    joules = 0.0
    for change in timeline.changes:
        before = up & ~(~enabled & (np.bincount(host_of[host_of >= 0], minlength=len(up)) == 0))
        if change.kind == 0:
            host_of[change.row] = change.to
        else:
            up[change.row], enabled[change.row] = change.to == 1, change.flag
        asleep = up & ~enabled & (np.bincount(host_of[host_of >= 0], minlength=len(up)) == 0)
        if begin < change.at <= end:
            joules += float(power.shutdown_j[before & asleep].sum())
    return joules


@settings(max_examples=40, deadline=None, derandomize=True)
@given(SEEDS)
def test_service_level_is_what_the_slow_sums_say(small_model: Callable[..., ClusterModel], seed: int) -> None:
    world = _story(small_model, seed)
    model, timeline, load, power = world.model, world.timeline(), _load(seed) ** 0.5 * 10, _power(world.model, seed)
    load = load.astype(np.float32)
    memory = np.random.default_rng(seed).uniform(0.5, 1.5, model.instances) * model.demand[:, MEMORY]
    burns = np.isin(model.state, [0, 5, 6])
    begin, end = 130.0, 5271.0
    active, full, over, pressed, excess = (np.zeros(model.hosts) for _ in range(5))
    asked, lost, missed, down = (np.zeros(model.instances) for _ in range(4))
    for a, b, state in _pieces(timeline, begin, end):
        asks = load[int((a + b) / 2 // STEP)].astype(float) / 100 * model.demand[:, VCPU]
        for host in range(model.hosts):
            there = np.flatnonzero(state.host_of == host)
            runs = there[state.running[there]]
            vcpus, demand = model.total[host, VCPU], asks[runs].sum()
            active[host] += (b - a) * bool(len(runs))
            full[host] += (b - a) * bool(len(runs) and demand >= vcpus * (1 - 1e-9))
            over[host] += (b - a) * (demand > 0.9 * vcpus * (1 + 1e-9))
            asked[runs] += (b - a) * asks[runs]
            missed[runs] += (b - a) * (asks[runs] - fair_share(asks[runs], model.demand[runs, VCPU], vcpus))
            holds = [v for v in there if state.running[v] or model.state[v] == 2]
            if state.up[host] and memory[holds].sum() > model.total[host, MEMORY] + 1e-6:
                pressed[host] += b - a
                excess[host] += (b - a) * (memory[holds].sum() - model.total[host, MEMORY])
        down += (b - a) * (burns & (state.host_of >= 0) & ~state.running)
        for move in timeline.moves:
            for since, until, share in move.losses():
                if move.running and since <= a and b <= until:
                    lost[move.instance] += share * (b - a) * asks[move.instance]
    seen = contention(model, timeline, _blocks(load), begin, end)
    for name, slow in (("active_s", active), ("full_s", full), ("over_s", over), ("asked", asked)):
        assert getattr(seen, name) == pytest.approx(slow, rel=1e-6, abs=1e-6)
    assert seen.undelivered == pytest.approx(missed, rel=1e-6, abs=1e-6)
    assert seen.lost == pytest.approx(lost, rel=1e-6, abs=1e-6)
    window = Window(begin, end, begin, begin)
    level = service_level(model, timeline, _blocks(load), power, window, memory)
    otf = np.mean(full[active > 0] / active[active > 0])
    pdm = np.mean(lost[asked > 0] / asked[asked > 0])
    exact = score(model, timeline, _blocks(load), power, window)
    assert level.otf == pytest.approx(otf, rel=1e-6)
    assert level.pdm == pytest.approx(pdm, rel=1e-6, abs=1e-9)
    assert level.slav == pytest.approx(otf * pdm, rel=1e-6, abs=1e-9)
    assert level.esv == pytest.approx(otf * pdm * exact.energy_kwh, rel=1e-6, abs=1e-9)
    assert exact.pdm == pytest.approx(lost.sum() / asked.sum(), rel=1e-6, abs=1e-9)
    assert exact.slatah == pytest.approx(full.sum() / active.sum(), rel=1e-6)
    assert level.overload_min == pytest.approx(exact.overload_min_during + exact.overload_min_after)
    assert level.down_min == pytest.approx(down.sum() / 60, abs=1e-6)
    assert level.memory_pressure_min == pytest.approx(pressed.sum() / 60, abs=1e-6)
    assert level.memory_excess_gib_h == pytest.approx(excess.sum() / 1024 / 3600, abs=1e-6)
    assert memory_pressure(model, timeline, begin, end, memory * 0).minutes == 0


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SEEDS)
def test_nothing_and_nobody_is_lost(small_model: Callable[..., ClusterModel], seed: int) -> None:
    """`_sound` has been asked after every event; here is what can be told at the end."""
    world = _story(small_model, seed)
    timeline, model = world.timeline(), world.model
    assert [change.at for change in timeline.changes] == sorted(change.at for change in timeline.changes)
    last = timeline.at(END)
    assert last.host_of.tolist() == world.place.host_of.tolist()
    assert last.running.tolist() == world.running.tolist()
    assert (last.up.tolist(), last.enabled.tolist()) == (world.up.tolist(), world.enabled.tolist())
    assert last.booting.tolist() == world.booting.tolist()
    placed = set(np.flatnonzero(world.place.host_of >= 0).tolist())
    arrived = {c.row for c in timeline.changes if c.kind == 0 and c.to >= 0} | set(
        np.flatnonzero(model.host_of >= 0).tolist()
    )
    refused = set(world.rejected) - arrived
    departed = (set(world.departed) & arrived) - placed
    never = set(range(model.instances)) - arrived - set(world.rejected)
    parts = (placed, refused, departed, never)
    assert sum(len(part) for part in parts) == model.instances
    assert set().union(*parts) == set(range(model.instances))
    for move in timeline.moves:
        assert move.start <= move.stop <= move.end
        if move.arrived:
            copied = world.physics.memory_mb if move.live else world.physics.disk_mb
            size = copied[move.instance] / 1024
            assert move.gib >= size * (1 - 1e-6)
            if not move.live or move.resumed is not None:
                assert move.gib == pytest.approx(size, rel=1e-6)


def test_the_stories_hold_what_they_promise(small_model: Callable[..., ClusterModel]) -> None:
    """Otherwise the checks above would check little."""
    worlds = [_story(small_model, seed) for seed in range(30)]
    moves = [move for world in worlds for move in world.timeline().moves]
    assert {(move.live, move.resumed is None, move.arrived) for move in moves} >= {
        (True, True, True),
        (True, False, True),
        (False, True, True),
        (True, True, False),
    }
    for what in ("rejected", "departed", "crashed"):
        assert sum(len(getattr(world, what)) for world in worlds) > 0
    assert any(world.boot_s > 0 for world in worlds)
    raised = [set(np.flatnonzero((world.model.need > world.model.demand).any(axis=1))) for world in worlds]
    came = [{c.row for c in world.timeline().changes if c.kind == 0 and c.to >= 0} for world in worlds]
    late = [set(np.flatnonzero(world.model.host_of < 0)) for world in worlds]
    assert any(a & b & c for a, b, c in zip(raised, came, late, strict=True)), "rules raise some that arrive"
