"""Power: the kernel against numpy for every curve, boot and shutdown, and nothing changed for the default."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import VCPU, ClusterModel
from trimtab.simulator.events import Events
from trimtab.simulator.power import CURVES, Power
from trimtab.simulator.rehearse import ASSUMPTIONS
from trimtab.simulator.score import Blocks, LoadBlock, Window, play_series, score
from trimtab.simulator.specpower import SPEC_WATTS
from trimtab.simulator.world import World


def _blocks(load: np.ndarray) -> Blocks:
    def blocks(start: float, end: float) -> Iterator[LoadBlock]:
        yield LoadBlock(0.0, 300.0, load, np.arange(len(load)), np.zeros(load.shape[1], np.float32))

    return blocks


def test_the_default_is_what_it_always_was() -> None:
    vcpus = np.array([4.0, 32.0, 128.0])
    power, demand = Power.of(vcpus), np.array([1.0, 32.0, 500.0])
    expected = 60 + 1.5 * vcpus + 4 * vcpus * np.clip(demand / vcpus, 0, 1)
    watts = power.watts(demand, np.ones(3, np.int64), np.ones(3, bool), np.ones(3, bool))
    assert watts.tolist() == expected.tolist()
    named = Power.named("linear", vcpus).watts(demand, np.ones(3, np.int64), np.ones(3, bool), np.ones(3, bool))
    assert named.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("name", "half"),
    [("constant", 1.0), ("linear", 0.5), ("square", 0.25), ("cubic", 0.125)],
)
def test_curves_go_from_idle_to_full(name: str, half: float) -> None:
    power = Power.named(name, np.full(3, 10.0))
    one, yes = np.ones(3, np.int64), np.ones(3, bool)
    idle = 75 + 40 * (name == "constant")
    assert power.watts(np.array([0.0, 5.0, 10.0]), one, yes, yes) == pytest.approx([idle, 75 + 40 * half, 115])


def test_a_measured_server_draws_what_its_table_says() -> None:
    for name, table in SPEC_WATTS.items():
        power = Power.named(name, np.full(11, 2.0))
        yes = np.ones(11, bool)
        watts = power.watts(np.linspace(0, 2, 11), np.ones(11, np.int64), yes, yes)
        assert watts == pytest.approx(table)
        between = Power.named(name, np.array([2.0])).watts(np.array([0.5]), np.ones(1, np.int64), yes[:1], yes[:1])
        assert between == pytest.approx([(table[2] + table[3]) / 2])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(sorted(CURVES)), min_size=4, max_size=4), st.integers(0, 1000))
def test_the_kernel_draws_what_numpy_says(
    small_model: Callable[..., ClusterModel], names: list[str], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    model = small_model(4, rng.integers(0, 4, 9).tolist(), host_status=["enabled", "enabled", "disabled", "disabled"])
    world = World(model, Events(0.0), ASSUMPTIONS.physics(model))
    world.events.run_until(900.0)
    load = rng.uniform(0, 100, (3, 9)).astype(np.float32)
    power = Power.named(names, model.total[:, VCPU])
    residents = np.bincount(model.host_of, minlength=4)
    joules = sum(
        300
        * power.watts(
            np.bincount(model.host_of, row / 100 * model.demand[:, VCPU], 4).astype(float),
            residents,
            model.up,
            model.enabled,
        ).sum()
        for row in load.astype(float)
    )
    series = play_series(model, world.timeline(), _blocks(load), power, 0.0, 900.0)
    assert series.kwh.sum() == pytest.approx(joules / 3.6e6, rel=1e-9)


def test_unknown_curves_and_wrong_sizes_are_refused() -> None:
    with pytest.raises(InvalidInput, match="power model 'warp' does not exist: use one of constant, linear"):
        Power.named("warp", np.ones(2))
    with pytest.raises(InvalidInput, match="3 curves for 2 hosts"):
        Power.named(["linear"] * 3, np.ones(2))
    with pytest.raises(InvalidInput, match="boot_s is -1"):
        Power.of(np.ones(2)).with_boot(-1.0)
    with pytest.raises(InvalidInput, match="boot_w must have one number"):
        Power.of(np.ones(2)).with_boot(10.0, boot_w=np.ones(3))


def test_a_sleeping_host_boots_before_it_works(small_model: Callable[..., ClusterModel]) -> None:
    """Standby 100 s, booting 60 s at 92 W, then idle at 72 W; the other host is idle all the time."""
    model = small_model(2, [0], host_status=["enabled", "disabled"])
    power = Power.of(model.total[:, VCPU]).with_boot(60.0, boot_w=np.full(2, 92.0))
    world = World(model, Events(0.0), ASSUMPTIONS.physics(model), boot_s=power.boot_s)
    world.events.run_until(100.0)
    world.set_service(1, enabled=True)
    assert world.booting.tolist() == [False, True]
    assert "booting" in str(world.refusal(0, 1, live=True))
    assert world.choose(0) == -1
    world.events.run_until(160.0)
    assert world.refusal(0, 1, live=True) is None
    world.events.run_until(300.0)
    load = np.zeros((1, 1), np.float32)
    result = score(model, world.timeline(), _blocks(load), power, Window(0, 300, 0, 0))
    assert result.energy_kwh * 3.6e6 == pytest.approx(300 * 72 + 100 * 8 + 60 * 92 + 140 * 72)


def test_going_to_standby_costs_the_shutdown_once(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(2, [1], [(2, 1000, 10)])
    plain = Power.of(model.total[:, VCPU])
    dear = plain.with_boot(0.0, shutdown_j=np.full(2, 5000.0))
    world = World(model, Events(0.0), ASSUMPTIONS.physics(model))
    world.events.run_until(10.0)
    world.set_service(0, enabled=False)  # empty: sleeps at once
    world.events.run_until(20.0)
    world.set_service(1, enabled=False)  # holds an instance: sleeps when that has gone
    world.set_service(0, enabled=True)
    world.migrate(0, 0, live=True)
    world.events.run_until(250.0)
    world.set_service(1, enabled=False)  # is so already
    world.events.run_until(300.0)
    load = np.full((1, 1), 50, np.float32)
    cost = [
        score(model, world.timeline(), _blocks(load), power, Window(0, 300, 0, 0)).energy_kwh for power in (plain, dear)
    ]
    assert (cost[1] - cost[0]) * 3.6e6 == pytest.approx(2 * 5000)
    series = play_series(model, world.timeline(), _blocks(load), dear, 0.0, 300.0)
    assert series.kwh.sum() == pytest.approx(cost[1], rel=1e-12)


def test_a_dead_host_that_is_emptied_shuts_nothing_down(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(2, [0])
    world = World(model, Events(0.0), ASSUMPTIONS.physics(model))
    world.set_service(0, enabled=False)
    world.events.run_until(100.0)
    world.lose_host(0)
    world.evacuate(0)
    world.events.run_until(200.0)
    world.restore_host(0)  # comes back empty and disabled: standby
    world.events.run_until(300.0)
    power = Power.of(model.total[:, VCPU]).with_boot(0.0, shutdown_j=np.full(2, 5000.0))
    load = np.zeros((1, 1), np.float32)
    result = score(model, world.timeline(), _blocks(load), power, Window(0, 300, 0, 0))
    assert result.energy_kwh * 3.6e6 == pytest.approx(100 * 72 + 100 * 8 + 300 * 72)


def test_watts_of_this_moment_know_booting_hosts() -> None:
    power = Power.of(np.full(2, 10.0))
    no, zero = np.zeros(2, bool), np.zeros(2, np.int64)
    assert power.watts(np.zeros(2), zero, no, ~no, np.array([True, False])) == pytest.approx([115, 0])
