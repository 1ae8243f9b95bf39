"""Every score formula against a slow and obvious reference, and what must not matter to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.model import MEMORY, VCPU, ClusterModel
from trimtab.simulator.events import Events
from trimtab.simulator.migration import Physics
from trimtab.simulator.power import Power
from trimtab.simulator.score import Blocks, LoadBlock, Window, host_cpu, score
from trimtab.simulator.timeline import Timeline
from trimtab.simulator.world import World

STEP = 300.0


def _blocks(load: np.ndarray, step: float = STEP, at_once: int = 1000) -> Blocks:
    def blocks(start: float, end: float) -> Iterator[LoadBlock]:
        fallback = np.full(load.shape[1], 50, np.float32)
        for first in range(0, len(load), at_once):
            part = load[first : first + at_once]
            if first * step < end and (first + len(part)) * step > start:
                yield LoadBlock(first * step, step, part, np.arange(len(part)), fallback)

    return blocks


def _slow(model: ClusterModel, timeline: Timeline, load: np.ndarray, power: Power, w: Window) -> dict[str, float]:
    """The formulas of docs/scores.md, one rectangle and one host after the other."""
    cuts = {w.start_s, w.end_s, w.plan_start_s, w.plan_end_s, *(n * STEP for n in range(len(load) + 1))}
    cuts |= {change.at for change in timeline.changes} | {t for m in timeline.moves for t in (m.start, m.stop, m.end)}
    times = sorted(t for t in cuts if w.start_s <= t <= w.end_s)
    out = dict.fromkeys(("during", "after", "kwh", "full", "active", "asked", "lost"), 0.0)
    mean, after_s = np.zeros(model.hosts), 0.0
    for begin, end in pairwise(times):
        hours, middle = (end - begin) / 3600, (begin + end) / 2
        state, pct = timeline.at(begin), load[int(middle // STEP)]
        for host in range(model.hosts):
            there = [v for v in range(model.instances) if state.host_of[v] == host]
            runs = [v for v in there if state.running[v]]
            demand, vcpus = sum(pct[v] / 100 * model.demand[v, VCPU] for v in runs), model.total[host, VCPU]
            if state.up[host]:
                watts = power.idle_w[host] + power.busy_w[host] * min(demand / vcpus, 1)
                if not there and not state.enabled[host]:
                    watts = power.standby_w[host]
                out["kwh"] += watts / 1000 * hours
                if runs:
                    out["active"] += hours
                    out["full"] += hours * (demand >= vcpus * (1 - 1e-9))
            if demand > 0.9 * vcpus * (1 + 1e-9):
                out["during"] += 60 * hours * (w.plan_start_s <= middle <= w.plan_end_s)
                out["after"] += 60 * hours * (middle > w.plan_end_s)
            out["asked"] += demand * hours
            if middle > w.plan_end_s:
                mean[host] += demand / vcpus * 100 * hours
        after_s += hours * (middle > w.plan_end_s)
        for m in timeline.moves:
            if m.running and m.start <= middle < m.end:
                share = 1.0 if middle >= m.stop else 0.1 if m.live else 0.0
                out["lost"] += share * pct[m.instance] / 100 * model.demand[m.instance, VCPU] * hours
    last = timeline.at(w.end_s)
    held = {int(h) for h in last.host_of if h >= 0}
    counted = [h for h in range(model.hosts) if h in held or (last.up[h] and last.enabled[h])]
    return {
        "overload_min_during": out["during"],
        "overload_min_after": out["after"],
        "energy_kwh": out["kwh"],
        "slatah": out["full"] / out["active"] if out["active"] else 0.0,
        "pdm": out["lost"] / out["asked"] if out["asked"] else 0.0,
        "cpu_sd_pp": float(np.std([mean[h] / after_s for h in counted])),
        "hosts_in_use": len(held),
    }


def _story(model: ClusterModel, seed: int, commands: int) -> tuple[World, float]:
    """A world in which much happens in one hour and a half."""
    rng = np.random.default_rng(seed)
    physics = Physics(
        np.full(model.hosts, 200.0),
        rng.uniform(0, 300, model.instances),
        model.demand[:, MEMORY].copy(),
        model.demand[:, MEMORY] * 3,
        2.0,
        0.5,
    )
    world = World(model, Events(0.0), physics)
    for time in np.sort(rng.uniform(100, 5000, commands)):
        world.events.run_until(float(time))
        v, h, live = int(rng.integers(model.instances)), int(rng.integers(model.hosts)), bool(rng.random() < 0.7)
        what = rng.random()
        if what < 0.75:
            if world.refusal(v, h, live=live) is None:
                world.migrate(v, h, live=live)
        elif what < 0.9:
            world.set_service(h, enabled=bool(rng.random() < 0.5))
        elif what < 0.95:
            world.lose_instance(v)
        else:
            world.lose_host(h)
    last = world.events.now
    world.events.run_until(5400.0)
    return world, last


def _random_model(small_model: Callable[..., ClusterModel], rng: np.random.Generator) -> ClusterModel:
    hosts, instances = 5, 18
    sizes = [(float(rng.choice([1, 2, 4])), float(rng.choice([512, 2048])), 10.0) for _ in range(instances)]
    return small_model(
        hosts,
        rng.integers(0, hosts, instances).tolist(),
        sizes,
        state=rng.choice(["active", "active", "active", "stopped", "paused"], instances).tolist(),
        host_vcpu_ratio=[4.0] * hosts,
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10_000))
def test_every_field_is_what_the_slow_reference_says(small_model: Callable[..., ClusterModel], seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = _random_model(small_model, rng)
    world, last = _story(model, seed, 25)
    load = rng.uniform(0, 100, (18, model.instances)).astype(np.float32)
    power = Power.of(model.total[:, VCPU])
    for window in (Window(0, 5400, 0, last), Window(130, 5271, 500, 3000), Window(600, 5400, 600, 600)):
        exact = asdict(score(model, world.timeline(), _blocks(load), power, window))
        slow = _slow(model, world.timeline(), load, power, window)
        assert {name: exact[name] for name in slow} == pytest.approx(slow, rel=1e-6, abs=1e-9)
        chunked = score(model, world.timeline(), _blocks(load, at_once=4), power, window)
        assert asdict(chunked) == pytest.approx(exact, rel=1e-12)


def test_energy_does_not_depend_on_the_step(small_model: Callable[..., ClusterModel]) -> None:
    model = _random_model(small_model, np.random.default_rng(3))
    world, last = _story(model, 3, 25)
    load = np.random.default_rng(4).uniform(0, 100, (18, model.instances)).astype(np.float32)
    power, window = Power.of(model.total[:, VCPU]), Window(17, 5333, 17, last)
    coarse = score(model, world.timeline(), _blocks(load), power, window)
    fine = score(model, world.timeline(), _blocks(np.repeat(load, 10, axis=0), STEP / 10), power, window)
    assert asdict(fine) == pytest.approx(asdict(coarse), rel=1e-9)
    halves = [window._replace(end_s=2000.0), window._replace(start_s=2000.0)]
    parts = [score(model, world.timeline(), _blocks(load), power, half).energy_kwh for half in halves]
    assert sum(parts) == pytest.approx(coarse.energy_kwh, rel=1e-12)


def test_a_page_that_can_be_checked_by_hand(small_model: Callable[..., ClusterModel]) -> None:
    """Host 0 holds 8 vCPUs at 100 % of 8; half of them leave at 100 s; host 2 is empty and disabled."""
    model = small_model(3, [0, 0], [(4, 1000, 10), (4, 1000, 10)], host_status=["enabled", "enabled", "disabled"])
    physics = Physics(np.full(3, 100.0), np.zeros(2), np.array([9950.0, 9950.0]), np.zeros(2), 0.0, 0.5)
    world = World(model, Events(0.0), physics)
    world.migrate(0, 1, live=True)  # 99.5 s in all, of which 0.5 s stopped
    world.events.run_until(1000.0)
    load = np.full((4, 2), 100, np.float32)
    result = score(model, world.timeline(), _blocks(load), Power.of(model.total[:, VCPU]), Window(0, 1000, 0, 99.5))
    idle, busy = 60 + 1.5 * 8, 4 * 8
    joules = 99.5 * ((idle + busy) + idle + 8) + 900.5 * (2 * (idle + busy / 2) + 8)
    assert asdict(result) == pytest.approx(
        {
            "duration_s": 99.5,
            "moves": 1,
            "moved_gib": 9950 / 1024,
            "overload_min_during": 99.5 / 60,
            "overload_min_after": 0.0,
            "energy_kwh": joules / 3.6e6,
            "slatah": 99.5 / (1000 + 900.5),
            "pdm": 4 * (0.1 * 99 + 0.5) / 8000,
            "cpu_sd_pp": 0.0,
            "hosts_in_use": 2,
            "rules_broken": 0,
        }
    )


def test_broken_rules_are_counted_at_the_end(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(
        3,
        [0, 0, 1],
        [(2, 1000, 10), (2, 1000, 10), (20, 1000, 10)],
        host_zone=["a", "a", "b"],
        pinned_zone=["b", "a", ""],
    )
    world = World(model, Events(0.0), Physics(np.ones(3), np.zeros(3), np.ones(3), np.ones(3), 0.0, 0.0))
    load = np.zeros((1, 3), np.float32)
    result = score(model, world.timeline(), _blocks(load), Power.of(model.total[:, VCPU]), Window(0, 300, 0, 0))
    assert result.rules_broken == 2  # one instance outside its zone, one host over capacity
    assert result.pdm == 0.0


def test_host_cpu_is_the_mean_over_each_sample(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(2, [0], [(4, 1000, 10)])
    world = World(model, Events(0.0), Physics(np.full(2, 10.0), np.zeros(1), np.array([750.0]), np.ones(1), 0.0, 0.0))
    world.events.run_until(300.0)
    world.migrate(0, 1, live=True)  # arrives after 75 s
    world.events.run_until(900.0)
    load = np.array([[50], [100], [25]], np.float32)
    means = host_cpu(model, world.timeline(), _blocks(load), Power.of(model.total[:, VCPU]), 0.0, 900.0)
    assert means == pytest.approx(np.array([[2, 0], [1, 3], [0, 1]]))


def test_power_of_a_host_follows_its_state() -> None:
    power = Power.of(np.full(5, 10.0))
    up, enabled = np.array([1, 1, 1, 1, 0], bool), np.array([1, 1, 0, 0, 1], bool)
    watts = power.watts(np.array([0.0, 20.0, 0.0, 5.0, 3.0]), np.array([0, 2, 0, 1, 1]), up, enabled)
    assert watts == pytest.approx([75, 115, 8, 95, 0])
