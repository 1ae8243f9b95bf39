"""A rehearsal knows how long stops, resizes, volume moves and changes of power take, and what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from trimtab.platform.model import ClusterModel
from trimtab.platform.proposal import Limits, Plan, PlannedAction
from trimtab.platform.snapshot import Snapshot
from trimtab.simulator.annex import build_storage
from trimtab.simulator.events import Events
from trimtab.simulator.other_actions import OtherActions
from trimtab.simulator.plan_run import PlanRun
from trimtab.simulator.rehearse import ASSUMPTIONS, rehearse
from trimtab.simulator.world import World

AT = 20_000 * 86_400.0
LIMITS = Limits()


def act(kind: str, *parents: int, host: int = -1, **parameters: Any) -> PlannedAction:
    return PlannedAction(kind, parameters, parents, host=host)


def move(instance: int, source: int, destination: int, *parents: int) -> PlannedAction:
    return PlannedAction("migrate", {}, parents, instance=instance, source=source, destination=destination)


def off(model: ClusterModel, host: int, *parents: int, state: str = "off") -> PlannedAction:
    name = model.host_name(host)
    return act("change_node_power_state", *parents, resource_id="metal", resource_name=name, state=state)


def test_a_stopped_instance_works_no_more(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(2, [0, 1])
    plan = Plan((act("stop", resource_id=model.instance_id(0)),))
    result = rehearse(Snapshot(model, AT), plan, LIMITS, 1)
    assert not result.violations
    assert result.score.duration_s == pytest.approx(8 + ASSUMPTIONS.notice_s)
    world = World(model, Events(AT), ASSUMPTIONS.physics(model))
    run = PlanRun(world, plan, LIMITS, 1, 1)
    run.start()
    world.events.run_until(AT + 60)
    assert (world.running == [False, True]).all()
    assert np.allclose(world.place.used.T, model.used())


def test_a_resize_takes_its_room_before_others_may(small_model: Callable[..., ClusterModel]) -> None:
    """Two hosts of 8 vCPUs; the small one grows to the large one's 6 on the other host, which then is full."""
    model = small_model(3, [0, 0, 1], [(6, 4096, 20), (2, 4096, 20), (2, 4096, 20)], flavor=["large", "small", "small"])
    grow = act("resize", resource_id=model.instance_id(1), flavor="large")
    world = World(model, Events(AT), ASSUMPTIONS.physics(model))
    run = PlanRun(world, Plan((grow,)), LIMITS, 1, 1)
    run.start()
    world.events.run_until(AT + 3600)
    assert (run.open, run.violations) == (0, [])
    assert (world.model.demand[1] == model.demand[0]).all()
    assert (world.place.used <= world.place.capacity + 1e-9).all()
    assert np.allclose(world.place.used.T, world.model.used(world.place.host_of))
    full = rehearse(Snapshot(model, AT), Plan((grow, move(2, 1, 2), move(0, 0, 2, 0))), LIMITS, 1)
    assert any("no room" in words for words in full.violations)
    odd = rehearse(
        Snapshot(model, AT), Plan((act("resize", resource_id=model.instance_id(1), flavor="odd"),)), LIMITS, 1
    )
    assert not odd.violations
    assert odd.score.duration_s > 10


def test_volume_moves_share_the_pools_and_are_refused_without_room(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(2, [0, 1])
    storage = build_storage(model, 5)
    row = next(v for v in range(storage.volumes) if storage.snapshots[v] == 0 and storage.type_of[v] >= 0)
    own = int(storage.pool_of[row])
    other = next(p for p in range(storage.pools) if p != own and storage.pool_backend[p] == storage.pool_backend[own])
    moved = act(
        "volume_migrate",
        resource_id=storage.volume_id(row),
        migration_type="migrate",
        destination_node=storage.pool_name(other),
    )
    result = rehearse(Snapshot(model, AT, storage=storage), Plan((moved,)), LIMITS, 1)
    assert not result.violations
    expected = 5 + storage.size_gb[row] * 1024 / 300 + ASSUMPTIONS.notice_s
    assert result.score.duration_s == pytest.approx(expected)
    free = storage.free_gb.copy()
    free[other] = 0
    full = rehearse(Snapshot(model, AT, storage=storage.with_changes(free_gb=free)), Plan((moved,)), LIMITS, 1)
    assert "has no room for" in full.violations[0]
    unknown = rehearse(Snapshot(model, AT), Plan((moved,)), LIMITS, 1)
    assert not unknown.violations
    assert unknown.score.duration_s == pytest.approx(600 + ASSUMPTIONS.notice_s)
    wrong = act("volume_migrate", resource_id=storage.volume_id(row), migration_type="retype", destination_type="gold")
    assert (
        "no volume type gold" in rehearse(Snapshot(model, AT, storage=storage), Plan((wrong,)), LIMITS, 1).violations[0]
    )


def test_a_host_that_is_emptied_and_turned_off_takes_no_power(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(2, [0, 1])
    kept = rehearse(Snapshot(model, AT), Plan((move(0, 0, 1),)), LIMITS, 1).score
    gone = rehearse(Snapshot(model, AT), Plan((move(0, 0, 1), off(model, 0, 0))), LIMITS, 1)
    assert not gone.violations
    assert kept.energy_kwh - gone.score.energy_kwh == pytest.approx(72 * 24 / 1000, rel=0.01)
    back = rehearse(
        Snapshot(model, AT),
        Plan((move(0, 0, 1), off(model, 0, 0), off(model, 0, 1, state="on"), move(0, 1, 0, 2))),
        LIMITS,
        1,
    )
    assert not back.violations
    assert back.score.hosts_in_use == 2
    early = rehearse(Snapshot(model, AT), Plan((off(model, 0),)), LIMITS, 1)
    assert "is to be turned off but holds instances" in early.violations[0]


def test_an_instance_that_is_being_resized_is_not_migrated(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(3, [0, 1], [(2, 4096, 20), (4, 8192, 40)], flavor=["small", "large"])
    grow = act("resize", resource_id=model.instance_id(0), flavor="large")
    both = rehearse(Snapshot(model, AT), Plan((grow, move(0, 0, 2))), LIMITS, 1)
    assert "busy" in both.violations[0]


def test_what_names_nobody_is_a_violation(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(1, [0])
    world = World(model, Events(AT), ASSUMPTIONS.physics(model))
    others = OtherActions(world)
    for kind in ("stop", "resize"):
        said = others.begin(act(kind, resource_id="nobody", flavor="x"), lambda: None)
        assert said == f"{kind}: the model has no instance nobody"
