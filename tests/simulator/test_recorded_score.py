"""What a plan brought, by records alone: the truth of the simulated cloud is the judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pytest

from trimtab.platform.collector import fill
from trimtab.platform.contracts import Migration
from trimtab.platform.errors import CloudConflict, InvalidInput
from trimtab.platform.model import ClusterModel
from trimtab.platform.model.compute import InstanceState
from trimtab.platform.snapshot import History
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.recorded import Switch, score_recorded, timeline_of
from trimtab.simulator.score import Window
from trimtab.simulator.truth import CloudSpec

AT = 20_000 * 86_400.0


def _load(cloud: SimulatedCloud, model: ClusterModel, start: float, end: float) -> History:
    first = start // 300 * 300
    cpu_pct = np.full((int(-(-(end - first) // 300)), model.instances), np.nan, np.float32)
    fill(cpu_pct, cloud.samples("instance_cpu_usage", "instance", first, end), model, first)
    return History(first, 300.0, cpu_pct)


def _now(cloud: SimulatedCloud) -> ClusterModel:
    inventory = cloud.inventory()
    return ClusterModel.from_arrow(inventory.hosts, inventory.instances, inventory.groups)


def test_records_tell_what_really_happened(spec: CloudSpec) -> None:
    """A host is emptied, live and cold, and closed; afterwards it is opened, and one comes back."""
    cloud = SimulatedCloud(replace(spec, as_assumed=True, start_s=21_000 * 86_400.0))  # after all were created
    before, start = _now(cloud), cloud.now()
    active = before.state == InstanceState.ACTIVE
    emptied = next(h for h in range(before.hosts) if active[before.host_of == h].all())
    guests = [before.instance_id(row) for row in np.flatnonzero(before.host_of == emptied).tolist()]
    moved = []
    for guest, live in zip(guests, [True, False] * len(guests), strict=False):
        for host in set(range(before.hosts)) - {emptied}:
            try:
                cloud.migrate(guest, before.host_name(host), live=live)
            except CloudConflict:  # no room there, or another zone
                continue
            moved.append(guest)
            break
        while cloud.servers([guest])[guest].task_state:
            cloud.fast_forward(1.0)
        if cloud.servers([guest])[guest].status == "VERIFY_RESIZE":
            cloud.confirm_resize(guest)
    assert len(moved) == len(guests) >= 2
    ended, switches = cloud.now(), []
    cloud.set_service(before.host_name(emptied), enabled=False)
    switches.append(Switch(cloud.now(), before.host_name(emptied), power=False, on=False))
    cloud.fast_forward(start + 7200 - cloud.now())
    truth = cloud.measure(start, start + 7200, start, ended)
    cloud.set_service(before.host_name(emptied), enabled=True)  # afterwards: it is no part of the window
    switches.append(Switch(cloud.now(), before.host_name(emptied), power=False, on=True))
    cloud.migrate(moved[0], before.host_name(emptied), live=True)
    cloud.fast_forward(600.0)
    after = _now(cloud)
    assert after.host_of[after.instance_rows([moved[0]])[0]] == emptied
    record = [migration for guest in guests for migration in cloud.migrations(guest)]
    window = Window(start, start + 7200, start, ended)
    found = score_recorded(after, record, switches, _load(cloud, after, start, start + 7200), window)
    for name, true in asdict(truth).items():
        # What is copied again is in nobody's record, and a sample in which a guest was down is a hole.
        near = {"moved_gib": 0.9, "pdm": 0.2}.get(name, 0.02)
        assert getattr(found, name) == pytest.approx(true, rel=near, abs=1e-3), name
    assert found.moves == len(moved)


def test_what_is_odd_in_the_record_is_left_out(small_model: Callable[..., ClusterModel]) -> None:
    """Unknown instances and hosts, what failed, what still runs; and an instance counts from its creation on."""
    born = "1970-01-01T00:16:40Z"
    model = small_model(2, [1, 1, 0], created=["x", born, ""])
    record = [
        Migration("1", "v0", "host-0", "host-1", "completed", 100.0, 200.0),
        Migration("2", "v1", "host-9", "host-1", "completed", 100.0, 200.0),
        Migration("3", "nobody", "host-0", "host-1", "completed", 100.0, 200.0),
        Migration("4", "v2", "host-0", "host-1", "failed", 100.0, 200.0),
        Migration("5", "v2", "host-0", "host-1", "running", 300.0, None),
        Migration("6", "v2", "host-1", "host-0", "completed", 10.0, 40.0),
    ]
    timeline = timeline_of(model, record, [Switch(500.0, "host-7", power=True, on=False)], 50.0)
    assert timeline.host_of.tolist() == [0, -1, 0]
    assert timeline.at(150.0).host_of.tolist() == [0, -1, 0]
    assert timeline.at(250.0).host_of.tolist() == [1, -1, 0]
    assert timeline.at(1001.0).host_of.tolist() == [1, 1, 0]
    assert [(move.instance, move.arrived) for move in timeline.moves] == [(0, True), (2, False), (2, False)]
    assert timeline.up.all()


def test_a_resize_is_over_long_before_somebody_confirms_it(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(2, [1, 1])
    record = [
        Migration("1", "v0", "host-0", "host-1", "completed", 10.0, 90_000.0, live=False),
        Migration("2", "v1", "host-0", "host-1", "completed", 5_000.0, 90_000.0, live=False),
    ]
    timeline = timeline_of(model, record, [], 1_000.0)
    assert timeline.host_of.tolist() == [1, 0], "the first one has been there since before"
    assert [(move.instance, move.stop, move.end) for move in timeline.moves] == [(1, 5_000.0, 5_600.0)]
    assert timeline.at(5_601.0).host_of.tolist() == [1, 1]


def test_a_host_that_was_turned_off_was_on_before(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(2, [0], host_state=["up", "down"])
    timeline = timeline_of(model, [], [Switch(500.0, "host-1", power=True, on=False)], 50.0)
    assert timeline.at(499.0).up.tolist() == [True, True]
    assert timeline.at(500.0).up.tolist() == [True, False]


def test_a_time_nobody_measured_has_no_score(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(1, [0, 0])
    nothing = History(AT, 300.0, np.full((12, 2), np.nan, np.float32))
    with pytest.raises(InvalidInput, match="nothing was measured"):
        score_recorded(model, [], [], nothing, Window(AT, AT + 3600, AT, AT))
