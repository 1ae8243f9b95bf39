"""What happens to a world from outside: arrivals, departures, hosts that die, come back and are evacuated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import ClusterModel
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.events import Events
from trimtab.simulator.faults import Fault
from trimtab.simulator.happenings import KINDS, Happening, schedule
from trimtab.simulator.journal import Journal
from trimtab.simulator.rehearse import ASSUMPTIONS
from trimtab.simulator.truth import CloudSpec
from trimtab.simulator.world import World


def _world(model: ClusterModel, **settings: float) -> World:
    return World(model, Events(0.0), ASSUMPTIONS.physics(model), **settings)  # type: ignore[arg-type]


def test_happenings_happen_in_their_order(small_model: Callable[..., ClusterModel]) -> None:
    world = _world(small_model(2, [0, -1]))
    schedule(
        world,
        [
            Happening(50.0, "depart", 0),
            Happening(10.0, "arrive", 1),
            Happening(50.0, "disable", 0),
            Happening(60.0, "host_down", 1),
            Happening(70.0, "enable", 0),
            Happening(80.0, "evacuate", 1),
            Happening(90.0, "host_up", 1),
        ],
    )
    seen = []
    for time in (9, 10, 50, 60, 70, 80, 90):
        world.events.run_until(time)
        seen.append((world.place.host_of.tolist(), world.enabled.tolist(), world.up.tolist()))
    both = [True, True]
    assert seen == [
        ([0, -1], both, both),
        ([0, 1], both, both),
        ([-1, 1], [False, True], both),
        ([-1, 1], [False, True], [True, False]),
        ([-1, 1], both, [True, False]),
        ([-1, 0], both, [True, False]),
        ([-1, 0], both, both),
    ]
    assert world.departed == [0]
    assert [change.at for change in world.timeline().changes if change.kind == 0] == [10.0, 50.0, 60.0, 80.0]


@pytest.mark.parametrize(
    ("happening", "message"),
    [
        (Happening(1.0, "explode", 0), "no such kind; use one of host_down"),
        (Happening(1.0, "arrive", 7), r"happening 1 \(arrive of row 7 at 1.0\): the model has rows 0 to 1"),
        (Happening(1.0, "host_down", -1), "the model has rows 0 to 1"),
        (Happening(-1.0, "host_down", 0), "give a time from now"),
        (Happening(float("nan"), "host_down", 0), "give a time from now"),
    ],
)
def test_wrong_happenings_are_named_and_none_is_scheduled(
    small_model: Callable[..., ClusterModel], happening: Happening, message: str
) -> None:
    world = _world(small_model(2, [0, 1]))
    with pytest.raises(InvalidInput, match=message):
        schedule(world, [Happening(1.0, "depart", 0), happening])
    world.events.run_until(10.0)
    assert world.place.host_of.tolist() == [0, 1]


def test_what_makes_no_sense_any_more_does_nothing(small_model: Callable[..., ClusterModel]) -> None:
    world = _world(small_model(2, [0, -1]))
    schedule(
        world,
        [
            Happening(1.0, "arrive", 0),
            Happening(1.0, "depart", 1),
            Happening(1.0, "host_up", 0),
            Happening(1.0, "evacuate", 0),
        ],
    )
    world.events.run_until(2.0)
    assert world.place.host_of.tolist() == [0, -1]
    assert world.timeline().changes == ()
    assert (world.rejected, world.departed) == ([], [])
    assert len(KINDS) == 7


def test_an_arrival_without_a_valid_host_is_rejected_and_counted(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(2, [-1, -1, -1], [(6, 1000, 10)] * 3)
    world = _world(model)
    assert [world.arrive(v) for v in range(3)] == [0, 1, -1]
    assert world.rejected == [2]
    world.lose_instance(0)
    assert world.arrive(2) == 0
    assert world.running.tolist() == [False, True, True]
    assert world.place.used[0].tolist() == [6, 6]


def test_arrivals_obey_zone_and_service(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(
        3, [-1, -1], host_zone=["a", "b", "b"], pinned_zone=["b", "a"], host_status=["disabled", "disabled", "enabled"]
    )
    world = _world(model)
    assert world.arrive(0) == 2
    assert world.arrive(1) == -1


def test_a_host_that_comes_back_starts_what_is_on_it(small_model: Callable[..., ClusterModel]) -> None:
    world = _world(small_model(2, [0, 0, 1], state=["active", "stopped", "active"]), boot_s=30.0)
    world.lose_host(0)
    world.events.run_until(100.0)
    world.restore_host(0)
    assert (bool(world.up[0]), bool(world.booting[0]), bool(world.running[0])) == (False, True, False)
    world.restore_host(0)  # it is on its way
    world.events.run_until(130.0)
    assert (bool(world.up[0]), bool(world.booting[0])) == (True, False)
    assert world.running.tolist() == [True, False, True]


def test_a_host_may_die_while_it_boots(small_model: Callable[..., ClusterModel]) -> None:
    world = _world(small_model(2, [0]), boot_s=30.0)
    world.lose_host(0)
    world.restore_host(0)
    world.events.run_until(10.0)
    world.lose_host(0)
    world.events.run_until(1000.0)
    assert (bool(world.up[0]), bool(world.booting[0]), bool(world.running[0])) == (False, False, False)


def test_evacuated_instances_run_again_elsewhere_after_the_rebuild(small_model: Callable[..., ClusterModel]) -> None:
    world = _world(small_model(2, [0, 0, 0, 1], [(3, 1000, 10)] * 4), rebuild_s=100.0)
    assert world.evacuate(0) == []  # nobody evacuates a living host
    world.lose_host(0)
    assert world.evacuate(0) == [1, 2]  # room for one
    assert world.place.host_of.tolist() == [1, 0, 0, 1]
    assert world.running.tolist() == [False, False, False, True]
    world.events.run_until(99.0)
    assert not world.running[0]
    world.events.run_until(100.0)
    assert world.running.tolist() == [True, False, False, True]
    world.restore_host(0)
    assert world.running.all()
    assert world.place.used[0].tolist() == [6, 6]


def test_what_is_being_rebuilt_may_be_hit_again(small_model: Callable[..., ClusterModel]) -> None:
    world = _world(small_model(3, [0, 0]), rebuild_s=100.0)
    world.lose_host(0)
    world.evacuate(0)
    first = world.place.host_of.tolist()
    assert sorted(first) == [1, 2]
    world.lose_host(first[0])  # its host dies too
    world.lose_instance(1)  # its owner gives up
    world.events.run_until(1000.0)
    assert world.place.host_of.tolist() == [first[0], -1]
    assert not world.running.any()


def test_the_scheduler_keeps_away_from_where_a_group_member_is_going(
    small_model: Callable[..., ClusterModel],
) -> None:
    model = small_model(3, [0, -1], [(2, 1000, 10)] * 2)
    model = model.with_changes(
        group=np.zeros(2, np.int32), group_policy=np.ones(1, np.int8), group_ids=model.host_ids[:1]
    )
    world = _world(model)
    world.migrate(0, 2, live=True)
    world.set_service(1, enabled=False)
    assert world.arrive(1) == -1
    world.set_service(1, enabled=True)
    assert world.arrive(1) == 1


SPEC = CloudSpec(hosts=6, instances=40, seed=3, start_s=20_000 * 86_400.0, speed=0.0)


def test_a_host_of_the_simulated_cloud_recovers(tmp_path: Path) -> None:
    cloud = SimulatedCloud(SPEC, tmp_path / "journal")
    host = cloud.inventory().hosts["hostname"][0].as_py()
    before = cloud.figures()["power_w"]
    cloud.inject(Fault("host_dies", host))
    assert cloud.figures()["power_w"] < before
    cloud.inject(Fault("host_recovers", host, at=cloud.now() + 100))
    cloud.fast_forward(100)
    service = cloud.service(host)
    assert service is not None
    assert service.up
    assert cloud.figures()["power_w"] == pytest.approx(before)
    again = SimulatedCloud(SPEC, tmp_path / "journal")
    assert again.figures() == cloud.figures()


def test_journals_say_where_the_scheduler_sent_an_instance(tmp_path: Path) -> None:
    cloud = SimulatedCloud(SPEC, tmp_path / "journal")
    rows = cloud.inventory().instances.to_pylist()
    server = next(row["uuid"] for row in rows if row["state"] == "active")
    cloud.migrate(server, None, live=True)
    (entry,) = Journal(tmp_path / "journal").entries()[1:]
    assert entry["destination"] == cloud.migrations(server)[0].destination


def test_a_journal_without_the_choice_is_replayed_as_it_was_made(tmp_path: Path) -> None:
    """Then an instance went to the possible host with most free memory; today disk and CPU count as well."""
    cloud = SimulatedCloud(
        CloudSpec(hosts=40, instances=300, seed=5, start_s=SPEC.start_s, speed=0.0), tmp_path / "old"
    )
    world, model = cloud._world, cloud._world.model
    free = world.place.free()[1]
    expected = None
    for v in np.flatnonzero((model.state == 0) & (model.group < 0)).tolist():
        ok = world.place.fits(v) & model.usable & (np.arange(model.hosts) != model.host_of[v])
        if model.pinned_zone[v] >= 0:
            ok &= model.zone.codes == model.pinned_zone[v]
        roomiest = int(np.argmax(np.where(ok, free, -np.inf)))
        if ok.any() and world.choose(v) != roomiest:
            expected = (model.instance_id(v), model.host_name(roomiest))
            break
    assert expected is not None
    server, host = expected
    cloud._journal.append(
        {"at": cloud.now(), "command": "migrate", "server": server, "destination": None, "live": True}
    )
    (migration,) = SimulatedCloud(cloud.spec, tmp_path / "old").all_migrations()
    assert (migration.server_id, migration.destination) == (server, host)
