"""Service level by hand: the paper's figures, fair shares, memory pressure, downtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.model import VCPU, ClusterModel
from trimtab.simulator.events import Events
from trimtab.simulator.happenings import Happening, schedule
from trimtab.simulator.memory_pressure import memory_pressure
from trimtab.simulator.migration import Physics
from trimtab.simulator.power import Power
from trimtab.simulator.score import Blocks, LoadBlock, Window, score
from trimtab.simulator.servers import Servers
from trimtab.simulator.service_level import ServiceLevel, contention, down_seconds, fair_share, service_level
from trimtab.simulator.world import World


def _blocks(load: np.ndarray) -> Blocks:
    def blocks(start: float, end: float) -> Iterator[LoadBlock]:
        yield LoadBlock(0.0, 300.0, load, np.arange(len(load)), np.zeros(load.shape[1], np.float32))

    return blocks


def _world(model: ClusterModel, rebuild_s: float = 60.0) -> World:
    size = np.full(model.instances, 9950.0)
    physics = Physics(np.full(model.hosts, 100.0), np.zeros(model.instances), size, size, 0.0, 0.5)
    return World(model, Events(0.0), physics, rebuild_s=rebuild_s)


def test_a_page_that_can_be_checked_by_hand(small_model: Callable[..., ClusterModel]) -> None:
    """Host 0 has 8 vCPUs and is asked for 12 until half of that has left after 99.5 s; host 2 never does anything."""
    model = small_model(3, [0, 0], [(6, 1000, 10), (6, 1000, 10)], host_vcpu_ratio=[2.0] * 3)
    world = _world(model)
    world.migrate(0, 1, live=True)
    world.events.run_until(1000.0)
    load = np.full((4, 2), 100, np.float32)
    power = Power.of(model.total[:, VCPU])
    level = service_level(model, world.timeline(), _blocks(load), power, Window(0, 1000, 0, 500))
    otf = (99.5 / 1000 + 0 / 900.5) / 2
    pdm = ((0.1 * 99 + 0.5) / 1000 + 0) / 2
    joules = 99.5 * (104 + 2 * 72) + 900.5 * (2 * (72 + 24) + 72)
    assert level == pytest.approx(
        ServiceLevel(
            otf=otf,
            pdm=pdm,
            slav=otf * pdm,
            esv=joules / 3.6e6 * otf * pdm,
            overload_min=99.5 / 60,
            memory_pressure_min=0.0,
            down_min=0.0,
            migration_stop_min=0.5 / 60,
            undelivered_vcpu_h=4 * 99.5 / 3600,
            worst_undelivered=2 * 99.5 / 6000,
            memory_excess_gib_h=0.0,
        )
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 16), st.floats(0.5, 16)), min_size=1, max_size=10), st.floats(0.1, 64))
def test_shares_are_fair(guests: list[tuple[float, float]], capacity: float) -> None:
    asks, weights = np.array(guests).T.copy()
    asks = np.minimum(asks, weights)  # nobody asks for more than its vCPUs
    given_ = fair_share(asks, weights, capacity)
    assert (given_ <= asks + 1e-12).all()
    assert given_.sum() == pytest.approx(min(asks.sum(), capacity))
    short = given_ < asks - 1e-9
    if short.any():  # those that get less have one level, and nobody is above it
        level = given_ / weights
        assert level[short] == pytest.approx(level[short].max())
        assert (level <= level[short].min() + 1e-9).all()


def test_small_guests_get_all_they_want_before_large_ones_share_the_rest() -> None:
    assert fair_share(np.array([1.0, 8.0, 8.0]), np.array([8.0, 8.0, 8.0]), 9.0) == pytest.approx([1, 4, 4])
    assert fair_share(np.array([4.0, 8.0]), np.array([4.0, 8.0]), 6.0) == pytest.approx([2, 4])
    assert fair_share(np.array([0.0]), np.array([0.0]), 6.0) == pytest.approx([0])


def test_what_a_full_host_did_not_give_is_split_fairly(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(1, [0, 0], [(8, 1000, 10), (8, 1000, 10)], host_vcpu_ratio=[2.0])
    load = np.array([[25, 100]], np.float32)
    seen = contention(model, _world(model).timeline(), _blocks(load), 0.0, 300.0)
    assert seen.asked == pytest.approx([600, 2400])
    assert seen.undelivered == pytest.approx([0, 600])


def test_memory_pressure_counts_what_is_used_and_the_reserve(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(
        2,
        [0, 0, 0],
        [(1, 20_480, 10)] * 3,
        state=["active", "paused", "stopped"],
        host_memory_ratio=[4.0] * 2,
        host_memory_mb_reserved=[1024, 0],
    )
    world = _world(model)
    world.events.run_until(600.0)
    world.migrate(0, 1, live=True)  # arrives after 99.5 s
    world.events.run_until(3600.0)
    pressure = memory_pressure(model, world.timeline(), 0.0, 3600.0)
    assert pressure.minutes == pytest.approx(699.5 / 60)
    assert pressure.excess_gib_h == pytest.approx((2 * 20 + 1 - 32) * 699.5 / 3600)
    half = memory_pressure(model, world.timeline(), 0.0, 3600.0, np.full(3, 10_000.0))
    assert half == (0.0, 0.0)
    assert memory_pressure(model, world.timeline(), 650.0, 660.0).minutes == pytest.approx(10 / 60)


def test_a_dead_host_presses_nobody(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(1, [0, 0], [(1, 20_480, 10)] * 2, host_memory_ratio=[4.0])
    world = _world(model)
    world.events.run_until(60.0)
    world.lose_host(0)
    world.events.run_until(3600.0)
    assert memory_pressure(model, world.timeline(), 0.0, 3600.0).minutes == pytest.approx(1)


def test_downtime_ends_when_the_guest_runs_again(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(3, [0, 0, 0, 1], state=["active", "active", "stopped", "active"])
    world = _world(model)
    schedule(
        world,
        [
            Happening(100.0, "host_down", 0),
            Happening(200.0, "depart", 1),  # 100 s down, then nobody misses it
            Happening(300.0, "evacuate", 0),  # runs again after 60 s: 260 s down
            Happening(1000.0, "host_down", 1),  # until the end
        ],
    )
    world.events.run_until(1500.0)
    back = int(world.place.host_of[0])
    on_one = 500.0 * (back == 1)
    assert down_seconds(model, world.timeline(), 0.0, 1500.0) == pytest.approx(100 + 260 + 500 + on_one)
    assert down_seconds(model, world.timeline(), 150.0, 250.0) == pytest.approx(50 + 100)


def test_means_of_hosts_are_not_time_over_time(small_model: Callable[..., ClusterModel]) -> None:
    """The example of docs/scores.md: one host is full for 1 of its 2 active hours, one never in 10."""
    model = small_model(2, [0, 1], [(8, 4_096, 20)] * 2)
    world = _world(model)
    schedule(world, [Happening(7200.0, "depart", 0)])
    world.events.run_until(36_000.0)
    load = np.full((120, 2), 10, np.float32)
    load[:12, 0] = 100
    window, power = Window(0, 36_000, 0, 0), Power.of(model.total[:, VCPU])
    level = service_level(model, world.timeline(), _blocks(load), power, window)
    assert level.otf == pytest.approx(1 / 4)
    assert score(model, world.timeline(), _blocks(load), power, window).slatah == pytest.approx(1 / 12)


def test_who_was_stopped_on_purpose_is_not_down(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(2, [0, 0, 0], state=["active", "active", "stopped"])
    world = _world(model)
    servers = Servers(world, None, {})
    servers.stop(0)  # takes 8 s
    world.events.at(500.0, lambda: servers.start(2))  # takes 12 s
    world.events.at(1000.0, lambda: world.lose_host(0))
    world.events.run_until(1500.0)
    timeline = world.timeline()
    assert world.running.tolist() == [False] * 3
    assert down_seconds(model, timeline, 0.0, 1000.0) == 0
    assert down_seconds(model, timeline, 0.0, 1500.0) == pytest.approx(2 * 500), "the one stopped misses nothing"
    assert down_seconds(model, timeline, 1200.0, 1500.0) == pytest.approx(2 * 300), "whatever came before"


def test_nothing_there_is_no_division_by_zero(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(2, [-1])
    power = Power.of(model.total[:, VCPU])
    load = np.zeros((1, 1), np.float32)
    level = service_level(model, _world(model).timeline(), _blocks(load), power, Window(0, 300, 0, 0))
    assert level == ServiceLevel(*[0.0] * 11)
