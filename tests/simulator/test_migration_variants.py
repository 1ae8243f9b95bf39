"""Pre-copy round by round, post-copy and what it loses, shared uplinks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import ClusterModel
from trimtab.simulator.events import Events
from trimtab.simulator.migration import CONVERGE, Flow, Mishap, Network, Physics, precopy_rounds
from trimtab.simulator.world import World


def _physics(hosts: int, memory: list[float], rate: float = 100.0, dirty: float = 0.0, down: float = 0.5) -> Physics:
    size = np.array(memory, float)
    return Physics(np.full(hosts, rate), np.full(len(memory), dirty), size, size, 0.0, down)


def _alone(physics: Physics, *, live: bool = True) -> Flow:
    events, done = Events(0.0), list[Flow]()
    Network(events, physics).begin(0, 0, 1, live=live, running=True, done=done.append)
    events.run_until(1e9)
    return done[0]


@settings(max_examples=60, deadline=None)
@given(st.floats(100, 500_000), st.floats(10, 3_000), st.floats(0, 1.5), st.integers(1, 12))
def test_the_fluid_is_the_sum_of_the_rounds(memory: float, rate: float, dirty_share: float, count: int) -> None:
    """Exactly, where the downtime takes what is left after a whole number of rounds."""
    ratio = min(dirty_share, CONVERGE)
    left = memory * ratio**count
    rounds = precopy_rounds(memory, rate, dirty_share * rate, left / rate)
    flow = _alone(_physics(2, [memory], rate, dirty_share * rate, left / rate))
    assert flow.stopped_at == pytest.approx(rounds.copy_s, rel=1e-6)
    assert flow.sent_mb == pytest.approx(rounds.sent_mb.sum() + rounds.last_mb, rel=1e-6)
    assert rounds.stop_s == pytest.approx(left / rate, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.floats(100, 500_000), st.floats(10, 3_000), st.floats(0, 1.5), st.floats(0.01, 5))
def test_rounds_last_at_most_one_round_longer_than_the_fluid(
    memory: float, rate: float, dirty_share: float, down: float
) -> None:
    rounds = precopy_rounds(memory, rate, dirty_share * rate, down)
    flow = _alone(_physics(2, [memory], rate, dirty_share * rate, down))
    assert flow.stopped_at is not None
    last = rounds.sent_mb[-1] / rate if len(rounds.sent_mb) else 0.0
    assert -1e-6 <= rounds.copy_s - flow.stopped_at <= last + 1e-6
    assert rounds.stop_s <= down * (1 + 1e-9)
    assert np.all(np.diff(rounds.sent_mb) < 0)


def test_rounds_without_a_downtime_are_the_geometric_series() -> None:
    rounds = precopy_rounds(8000, 100, 60, 0.0)
    assert rounds.copy_s == pytest.approx(8000 / (100 - 60))
    assert rounds.sent_mb[:3] == pytest.approx([8000, 4800, 2880])
    with pytest.raises(InvalidInput, match="never ends"):
        precopy_rounds(8000, 0, 60, 0.5)


def test_post_copy_stops_at_once_and_sends_every_page_once() -> None:
    flow = _alone(replace(_physics(2, [8000], dirty=5000), variant="post-copy", setup_s=3.0))
    assert (flow.stopped_at, flow.resumed_at) == (3.0, 3.5)
    assert flow.ended_at == pytest.approx(3.5 + 80)
    assert flow.sent_mb == pytest.approx(8000)
    cold = _alone(replace(_physics(2, [8000]), variant="post-copy"), live=False)
    assert cold.resumed_at is None


def _world(small_model: Callable[..., ClusterModel], hosts: int = 3) -> World:
    model = small_model(hosts, [0, 0], [(2, 8000, 10), (2, 8000, 10)])
    return World(model, Events(0.0), replace(_physics(hosts, [8000, 8000]), variant="post-copy"), rebuild_s=60.0)


def test_a_post_copied_guest_runs_at_its_destination_while_pages_come(small_model: Callable[..., ClusterModel]) -> None:
    world = _world(small_model)
    world.migrate(0, 1, live=True)
    world.events.run_until(10.0)
    assert world.place.host_of[0] == 1
    assert world.running[0]
    assert world.place.used[1].tolist() == [16_000, 8000, 0]  # room on both
    world.events.run_until(100.0)
    assert world.place.used[1].tolist() == [8000, 8000, 0]
    (move,) = world.timeline().moves
    assert move.arrived
    assert move.losses() == ((0.0, 0.5, 1.0), (0.5, 80.5, 0.3))
    assert move.gib == pytest.approx(8000 / 1024)


@pytest.mark.parametrize("who", ["source", "copy"])
def test_a_failure_in_between_loses_what_the_guest_had(small_model: Callable[..., ClusterModel], who: str) -> None:
    world = _world(small_model)
    trip = world.migrate(0, 1, live=True)
    world.events.run_until(10.0)
    if who == "source":
        world.lose_host(0)
    else:
        world.upset(0, Mishap(fails=True))
        world.events.run_until(80.5)
    assert trip.status == "failed"
    assert world.crashed == [0]
    assert world.place.host_of[0] == 1
    assert not world.running[0]
    assert world.place.used[1, 1] == 8000
    assert "being rebuilt" in str(world.refusal(0, 2, live=True))
    world.events.run_until(world.events.now + 60.0)
    assert world.running[0]
    assert not world.timeline().moves[0].arrived


def test_a_dead_destination_takes_the_post_copied_guest_with_it(small_model: Callable[..., ClusterModel]) -> None:
    world = _world(small_model)
    world.migrate(0, 1, live=True)
    world.events.run_until(10.0)
    world.lose_host(1)
    world.events.run_until(1000.0)
    assert world.place.host_of[0] == 1
    assert not world.running[0]
    world.restore_host(1)
    assert world.running[0]


def test_a_failure_before_the_switch_harms_nobody(small_model: Callable[..., ClusterModel]) -> None:
    world = _world(small_model)
    world.migrate(0, 1, live=True)
    world.events.run_until(0.2)
    world.lose_host(1)
    assert (world.place.host_of[0], bool(world.running[0]), world.crashed) == (0, True, [])
    assert world.place.used[1].tolist() == [16_000, 0, 0]


def test_flows_between_racks_share_the_uplinks() -> None:
    """Two flows leave rack 0 (uplink 100 MB/s) by different cards of 90 MB/s; one stays inside it."""
    physics = replace(
        _physics(6, [1e4] * 3, rate=90.0, down=0.0),
        uplink_of=np.array([0, 0, 0, 0, 1, -1], np.int32),
        uplink_mb_s=np.array([100.0, 1000.0]),
    )
    events = Events(0.0)
    network = Network(events, physics)
    flows = [
        network.begin(n, a, b, live=True, running=True, done=lambda _: None)
        for n, (a, b) in enumerate([(0, 4), (1, 5), (2, 3)])
    ]
    events.run_until(1.0)
    assert [flow.links for flow in flows] == [(0, 4, 6, 7), (1, 5, 6), (2, 3)]
    assert [flow.rate for flow in flows] == [50.0, 50.0, 90.0]
    assert network.load_mb_s()[6] == 100.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_no_link_ever_carries_more_than_it_can(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hosts, count = 6, 15
    physics = Physics(
        rng.uniform(50, 200, hosts),
        rng.uniform(0, 100, count),
        rng.uniform(100, 20_000, count),
        rng.uniform(100, 20_000, count),
        1.0,
        0.5,
        "post-copy" if rng.random() < 0.5 else "pre-copy",
        uplink_of=rng.integers(-1, 2, hosts).astype(np.int32),
        uplink_mb_s=rng.uniform(50, 300, 2),
    )
    events, done = Events(0.0), list[Flow]()
    network = Network(events, physics)
    begun = list[Flow]()

    def begin(v: int) -> None:
        a, b = rng.choice(hosts, 2, replace=False)
        flow = network.begin(v, int(a), int(b), live=bool(rng.random() < 0.7), running=True, done=done.append)
        begun.append(flow)

    def check() -> None:
        for link, load in network.load_mb_s().items():
            assert load <= physics.capacity_mb_s(link) * (1 + 1e-9)
        for flow in begun:
            if flow.copying:
                assert flow.rate > 0
                # A flow's bottleneck is one where it has its equal share.
                shares = [physics.capacity_mb_s(link) / len(network._on_link[link]) for link in flow.links]
                assert flow.rate == pytest.approx(min(shares))

    for v in range(count):
        events.at(float(rng.uniform(0, 200)), lambda v=v: begin(v))  # type: ignore[misc]
    for second in np.linspace(0, 2000, 400):
        events.run_until(float(second))
        check()
    events.run_until(1e7)
    assert len(done) == count
    for flow in done:
        size = float((physics.memory_mb if flow.live else physics.disk_mb)[flow.instance])
        if not flow.live or physics.variant == "post-copy":
            assert flow.sent_mb == pytest.approx(size, rel=1e-6)
        else:
            assert flow.sent_mb >= size * (1 - 1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "warp"}, "use pre-copy or post-copy"),
        ({"slowdown": 1.5}, "slowdown is 1.5: it is a share"),
        ({"uplink_of": np.zeros(2, np.int32)}, "need both uplink_of"),
        ({"uplink_of": np.zeros(3, np.int32), "uplink_mb_s": np.ones(1)}, "give one number a host"),
        ({"uplink_of": np.array([0, 4], np.int32), "uplink_mb_s": np.ones(1)}, r"uplink_of\[1\] is 4"),
    ],
)
def test_impossible_physics_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        replace(_physics(2, [1.0]), **changes)


def test_the_slowdown_of_a_migrating_guest_is_a_parameter(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(2, [0])
    world = World(model, Events(0.0), replace(_physics(2, [8000]), slowdown=0.25))
    world.migrate(0, 1, live=True)
    world.events.run_until(500.0)
    (move,) = world.timeline().moves
    assert move.losses() == ((0.0, 79.5, 0.25), (79.5, 80.0, 1.0))
