"""Volumes, metal nodes, sensors, power and size of servers: nothing is overfilled, nothing is lost, all is replayed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import CloudConflict, CloudNotFound, InvalidInput
from trimtab.platform.model import (
    BaremetalModel,
    ClusterModel,
    StorageModel,
    read_baremetal,
    read_model,
    read_storage,
    write_model,
)
from trimtab.platform.snapshot import Need
from trimtab.simulator.annex import build_metal, build_storage
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.estate import FLAVORS, build_estate
from trimtab.simulator.faults import Fault
from trimtab.simulator.load import Load
from trimtab.simulator.sensors import SENSORS
from trimtab.simulator.truth import CloudSpec

START = 20_000 * 86_400.0
SPEC = CloudSpec(hosts=5, instances=30, seed=4, start_s=START, speed=0.0, history_s=7200.0)


def model_of(cloud: SimulatedCloud) -> ClusterModel:
    inventory = cloud.inventory()
    return ClusterModel.from_arrow(inventory.hosts, inventory.instances, inventory.groups)


def storage_of(cloud: SimulatedCloud) -> StorageModel:
    tables = cloud.inventory().storage
    assert tables is not None
    return StorageModel.from_arrow(*tables)


def metal_of(cloud: SimulatedCloud) -> BaremetalModel:
    table = cloud.inventory().metal
    assert table is not None
    return BaremetalModel.from_arrow(table)


def state_of(cloud: SimulatedCloud, at: float) -> dict[str, Any]:
    """Everything that can be seen of a cloud at some time."""
    cloud.fast_forward(at - cloud.now())
    inventory = cloud.inventory()
    assert inventory.storage is not None
    assert inventory.metal is not None
    ids = inventory.instances["uuid"].to_pylist()
    return {
        "servers": cloud.servers(ids),
        "instances": inventory.instances.to_pylist(),
        "hosts": inventory.hosts.to_pylist(),
        "storage": [table.to_pylist() for table in inventory.storage],
        "volumes": cloud.volumes(inventory.storage[3]["uuid"].to_pylist()),
        "metal": [cloud.metal_node(row) for row in inventory.metal["uuid"].to_pylist()],
        "migrations": [cloud.migrations(server) for server in ids],
        "score": cloud.measure(START - 7200, cloud.now()),
        **{m: cloud.samples(m, k, START - 600, cloud.now()).to_pylist() for m, k in SENSORS.items()},
        "cpu": cloud.samples("instance_cpu_usage", "instance", START - 600, cloud.now()).to_pylist(),
    }


COMMANDS = st.lists(
    st.tuples(
        st.sampled_from(
            ["stop", "start", "resize", "confirm", "migrate", "volume", "retype", "off", "on", "fault", "gone", "dies"]
        ),
        st.integers(0, 10_000),
        st.integers(0, 10_000),
        st.sampled_from([0.0, 0.5, 4.0, 12.0, 90.0, 700.0]),
    ),
    max_size=30,
)


class Operator:
    """Asks a cloud for this and that; what it refuses is refused."""

    def __init__(self, cloud: SimulatedCloud) -> None:
        inventory = cloud.inventory()
        assert inventory.storage is not None
        assert inventory.metal is not None
        self.cloud = cloud
        self.servers, self.hosts = (table["uuid"].to_pylist() for table in (inventory.instances, inventory.hosts))
        self.names = inventory.hosts["hostname"].to_pylist()
        self.volumes, self.pools = inventory.storage[3]["uuid"].to_pylist(), inventory.storage[1]["name"].to_pylist()
        self.types, self.nodes = inventory.storage[2]["name"].to_pylist(), inventory.metal["uuid"].to_pylist()

    def ask(self, command: str, a: int, b: int) -> None:
        cloud, server = self.cloud, self.servers[a % len(self.servers)]
        volume, node = self.volumes[a % len(self.volumes)], self.nodes[a % len(self.nodes)]
        kinds = ("resize_fails", "resize_hangs", "volume_fails", "volume_hangs", "power_fails", "power_hangs")
        if command == "stop":
            cloud.stop(server)
        elif command == "start":
            cloud.start(server)
        elif command == "resize":
            cloud.resize(server, FLAVORS[b % len(FLAVORS)].name)
        elif command == "confirm":
            cloud.confirm_resize(server)
        elif command == "migrate":
            cloud.migrate(server, self.names[b % len(self.names)], live=bool(b % 2))
        elif command == "volume":
            cloud.migrate_volume(volume, self.pools[b % len(self.pools)])
        elif command == "retype":
            cloud.retype_volume(volume, self.types[b % len(self.types)])
        elif command in {"off", "on"}:
            cloud.set_power(node, on=command == "on")
        elif command == "gone":
            cloud.inject(Fault("server_vanishes", server, at=cloud.now() + 5))
        elif command == "dies":
            cloud.inject(Fault("host_dies" if b % 2 else "host_recovers", self.names[a % len(self.names)]))
        else:
            kind = kinds[b % len(kinds)]
            target = {"resize": server, "volume": volume, "power": node}[kind.partition("_")[0]]
            cloud.inject(Fault(kind, target))


def check_room(cloud: SimulatedCloud) -> None:
    """No host and no pool holds or has promised more than it can."""
    model, storage = model_of(cloud), storage_of(cloud)
    assert (model.used() <= model.capacity + 1e-6).all()
    assert (storage.free_gb >= -1e-6).all()
    assert (storage.provisioned_gb <= storage.total_gb * storage.over_subscription + 1e-6).all()
    held = np.bincount(storage.pool_of, storage.size_gb, storage.pools)
    assert (storage.allocated_gb >= held - 1e-6).all()
    assert np.allclose(storage.allocated_gb + storage.free_gb, storage.total_gb)
    on = metal_of(cloud).power == 0
    assert not (model.up & ~on).any()  # a host whose node is off is down
    assert not np.bincount(model.host_of[model.host_of >= 0], minlength=model.hosts)[~on].any()


@settings(max_examples=25, deadline=None)
@given(COMMANDS)
def test_nothing_is_overfilled_and_everything_is_replayed(commands: list[tuple[str, int, int, float]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        cloud = SimulatedCloud(SPEC, path)
        operator = Operator(cloud)
        for command, a, b, pause in commands:
            with suppress(CloudConflict, CloudNotFound):
                operator.ask(command, a, b)
            cloud.fast_forward(pause)
            check_room(cloud)
        size, end = path.stat().st_size, cloud.now() + 300
        again = SimulatedCloud(SPEC, path)
        assert path.stat().st_size == size
        assert state_of(again, end) == state_of(cloud, end)
        check_room(cloud)


def test_a_cloud_killed_in_the_middle_of_everything_goes_on(tmp_path: Path) -> None:
    cloud = SimulatedCloud(SPEC, tmp_path / "journal")
    operator, asked = Operator(cloud), 0
    for n in range(30):
        for command in ("stop", "resize", "volume", "retype"):
            with suppress(CloudConflict):
                operator.ask(command, n * 7, n)
                asked += 1
        cloud.fast_forward(1.0)
    assert asked > 20
    states = {s.task_state for s in cloud.servers(operator.servers).values()}
    assert {"powering-off", "resize_migrating"} <= states
    assert "migrating" in {v.migration_status for v in cloud.volumes(operator.volumes).values()}
    again = SimulatedCloud(SPEC, tmp_path / "journal")
    assert state_of(again, START + 400) == state_of(cloud, START + 400)
    cloud.fast_forward(24 * 3600)
    assert {s.task_state for s in cloud.servers(operator.servers).values()} == {""}
    assert "migrating" not in {v.migration_status for v in cloud.volumes(operator.volumes).values()}


# -- servers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def cloud() -> SimulatedCloud:
    return SimulatedCloud(SPEC)


def active(cloud: SimulatedCloud, flavor: str = "m1.small") -> str:
    rows = cloud.inventory().instances.to_pylist()
    return str(next(row["uuid"] for row in rows if row["state"] == "active" and row["flavor"] == flavor))


def test_a_stopped_server_keeps_its_room_and_neither_works_nor_reports(cloud: SimulatedCloud) -> None:
    server = active(cloud)
    used = model_of(cloud).used()
    cloud.stop(server)
    assert cloud.servers([server])[server].task_state == "powering-off"
    with pytest.raises(CloudConflict, match="busy: powering-off"):
        cloud.migrate(server, None, live=True)
    cloud.fast_forward(600)
    assert cloud.servers([server])[server].status == "SHUTOFF"
    assert (model_of(cloud).used() == used).all()
    cloud.fast_forward(1500)
    stopped_at = START + 8
    seen = cloud.samples("instance_cpu_usage", "instance", START - 3000, cloud.now())
    mine = seen.filter(pa.array([row == server for row in seen["resource"].to_pylist()]))["at"].to_pylist()
    assert mine == [at for at in np.arange(START - 3000, cloud.now(), 300) if at + 300 < stopped_at]
    cloud.start(server)
    cloud.fast_forward(20)
    assert cloud.servers([server])[server].status == "ACTIVE"


def test_a_resize_takes_room_for_both_sizes_until_it_is_confirmed(cloud: SimulatedCloud) -> None:
    server = active(cloud)
    before = model_of(cloud)
    row = int(before.instance_rows([server])[0])
    cloud.resize(server, "m1.large")
    cloud.fast_forward(1200)
    found = cloud.servers([server])[server]
    assert (found.status, found.flavor, found.task_state) == ("VERIFY_RESIZE", "m1.large", "")
    kept = cloud.migrations(server)[-1]
    assert (kept.kind, kept.status, kept.destination) == ("resize", "completed", found.host)
    assert (model_of(cloud).demand[row] == [4, 16_384, 60]).all()
    with pytest.raises(CloudConflict, match="confirm its resize first"):
        cloud.migrate(server, None, live=False)
    # The old size is still held where the server was: as much as fits beside it, and not more, can come.
    place = cloud._world.place  # claims are seen nowhere else
    source = before.host_rows_by_name([kept.source])[0]
    held = place.used[:, source] - model_of(cloud).used()[source]
    assert np.allclose(held, before.demand[row])
    cloud.confirm_resize(server)
    cloud.fast_forward(5)
    assert cloud.servers([server])[server].status == "ACTIVE"
    assert np.allclose(place.used.T, model_of(cloud).used())
    with pytest.raises(CloudConflict, match="vm_state active"):
        cloud.confirm_resize(server)


def test_a_server_that_does_not_fit_beside_itself_moves_or_is_refused() -> None:
    hosts = {
        "uuid": ["h1", "h2"], "hostname": ["h1", "h2"], "vcpus": [8.0, 8.0], "memory_mb": [20_000.0, 20_000.0],
        "disk_gb": [500.0, 500.0],
    }  # fmt: skip
    uuid = "00000000-0000-4000-8000-000000000001"
    vms = {
        "uuid": [uuid], "name": ["one"], "node": ["h1"], "vcpus": [2.0], "memory_mb": [8_192.0], "disk_gb": [40.0],
        "flavor": ["odd"],
    }  # fmt: skip
    with TemporaryDirectory() as folder:
        write_model(ClusterModel.from_arrow(pa.table(hosts), pa.table(vms)), Path(folder) / "estate")
        spec = CloudSpec(start_s=START, history_s=0.0, speed=0.0, estate=str(Path(folder) / "estate"))
        cloud = SimulatedCloud(spec)
    assert set(cloud.flavors(["odd", "m1.large", "none"])) == {"odd", "m1.large"}
    assert cloud.inventory().storage is None
    assert cloud.inventory().metal is None
    assert (cloud.volumes([uuid]), cloud.pools(), cloud.metal_node(uuid)) == ({}, [], None)
    with pytest.raises(CloudNotFound):
        cloud.migrate_volume(uuid, "pool")
    with pytest.raises(CloudNotFound):
        cloud.set_power(uuid, on=True)
    with pytest.raises(CloudConflict, match=r"no host has room for instance one as r1\.large"):
        cloud.resize(uuid, "r1.large")
    cloud.resize(uuid, "m1.large")
    cloud.fast_forward(600)
    assert cloud.servers([uuid])[uuid].host == "h2"


def test_more_vcpus_make_the_same_work_a_smaller_share_and_the_past_stays(cloud: SimulatedCloud) -> None:
    server = active(cloud)  # 1 vCPU
    cloud.fast_forward(3600)
    at = cloud.now()

    def cpu(begin: float, end: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        table = cloud.samples("instance_cpu_usage", "instance", begin, end)
        mine = pa.array([row == server for row in table["resource"].to_pylist()])
        return np.array(table.filter(mine)["value"].to_pylist())

    before, same = cpu(START, at), SimulatedCloud(SPEC)
    score = cloud.measure(START, at)
    cloud.fast_forward(10)
    cloud.resize(server, "m1.large")  # 4 vCPUs
    cloud.fast_forward(1200)
    cloud.confirm_resize(server)
    cloud.fast_forward(3600)
    same.fast_forward(3600 + 4810)
    assert np.array_equal(cpu(START, at), before)
    assert cloud.measure(START, at) == pytest.approx(score)
    given, cloud_2 = cpu(at + 1800, at + 4500), same
    table = cloud_2.samples("instance_cpu_usage", "instance", at + 1800, at + 4500)
    mine = pa.array([row == server for row in table["resource"].to_pylist()])
    assert np.allclose(given * 4, table.filter(mine)["value"].to_pylist(), rtol=1e-5)


def test_with_fewer_vcpus_work_is_cut_off_at_all_of_them() -> None:
    given = np.array([[50.0, 50.0], [90.0, 20.0], [100.0, 100.0]], np.float32)
    load = Load(lambda _: np.tile(given, (96, 1)), 2)
    load.resize(1, 0, 4.0, 2.0)
    assert np.allclose(load.cpu_pct(0, 3), [[100, 50], [100, 20], [100, 100]])  # of the 2 vCPUs it has now
    assert np.allclose(load.cpu_pct(0, 3, of_its_time=True), [[50, 50], [100, 20], [100, 100]])
    load.resize(2, 0, 2.0, 8.0)
    assert np.allclose(load.cpu_pct(0, 3), [[25, 50], [25, 20], [50, 100]])
    assert np.allclose(load.cpu_pct(0, 3, of_its_time=True), [[50, 50], [100, 20], [50, 100]])


# -- storage and metal ---------------------------------------------------------------------------------------------


def test_a_pool_shares_its_speed_among_the_volumes_that_move() -> None:
    def time_for(count: int) -> float:
        cloud = SimulatedCloud(replace(SPEC, hosts=10, instances=120))
        storage = storage_of(cloud)
        there = [v for v in np.flatnonzero(storage.pool_of == 0) if storage.snapshots[v] == 0]
        assert len(there) >= count
        start = cloud.now()
        ids = [storage.volume_id(int(v)) for v in there[:count]]
        for volume in ids:
            cloud.migrate_volume(volume, storage.pool_name(1))
        while cloud.volumes(ids[:1])[ids[0]].migration_status == "migrating":
            cloud.fast_forward(1.0)
        return cloud.now() - start

    assert time_for(2) > 1.2 * time_for(1)


def test_refused_moves_name_the_reason(cloud: SimulatedCloud) -> None:
    storage = storage_of(cloud)
    free = [v for v in range(storage.volumes) if storage.snapshots[v] == 0 and storage.type_of[v] >= 0]
    volume, frozen = storage.volume_id(free[0]), int(np.flatnonzero(storage.snapshots > 0)[0])
    home = storage.pool_name(int(storage.pool_of[free[0]]))
    other = next(p.name for p in cloud.pools() if p.reports["volume_backend_name"] not in home)
    with pytest.raises(CloudConflict, match="already"):
        cloud.migrate_volume(volume, home)
    with pytest.raises(CloudConflict, match="of backend"):
        cloud.migrate_volume(volume, other)
    elsewhere = next(p for p in range(storage.pools) if p != storage.pool_of[frozen])
    with pytest.raises(CloudConflict, match="snapshots"):
        cloud.migrate_volume(storage.volume_id(frozen), storage.pool_name(elsewhere))
    with pytest.raises(CloudNotFound, match="no pool nowhere"):
        cloud.migrate_volume(volume, "nowhere")
    with pytest.raises(CloudNotFound, match="no volume type gold"):
        cloud.retype_volume(volume, "gold")
    with pytest.raises(CloudNotFound, match="no volume"):
        cloud.inject(Fault("volume_fails", "nobody"))
    with pytest.raises(InvalidInput, match="volume_fails"):
        Fault("volume_explodes", volume)


def test_the_made_up_annex_is_seeded_and_plausible() -> None:
    model = ClusterModel.from_arrow(*build_estate(40, 400, 2))
    storage = build_storage(model, 7)
    assert build_storage(model, 7).to_arrow() == storage.to_arrow()
    assert build_storage(model, 8).to_arrow() != storage.to_arrow()
    full = 1 - storage.free_gb / storage.total_gb
    assert (full > 0.8).any()
    assert (full < 0.6).any()
    assert 0.5 * model.instances < storage.volumes < 0.7 * model.instances
    assert build_metal(model, 7).nodes == model.hosts


def test_storage_and_metal_travel_as_parquet_and_start_a_cloud(tmp_path: Path, cloud: SimulatedCloud) -> None:
    write_model(model_of(cloud), tmp_path / "estate", storage_of(cloud), metal_of(cloud))
    storage, metal = read_storage(tmp_path / "estate"), read_baremetal(tmp_path / "estate")
    assert storage is not None
    assert metal is not None
    assert storage.to_arrow() == storage_of(cloud).to_arrow()
    assert metal.to_arrow() == metal_of(cloud).to_arrow()
    twin = SimulatedCloud(CloudSpec(start_s=START, history_s=0.0, speed=0.0, estate=str(tmp_path / "estate")))
    assert storage_of(twin).to_arrow() == storage.to_arrow()
    write_model(read_model(tmp_path / "estate"), tmp_path / "bare")
    assert (read_storage(tmp_path / "bare"), read_baremetal(tmp_path / "bare")) == (None, None)


# -- sensors -------------------------------------------------------------------------------------------------------


def test_heat_air_and_power_agree_with_each_other(cloud: SimulatedCloud) -> None:
    model = model_of(cloud)
    cloud.fast_forward(3600)
    needs = [Need(m, k, "mean", 300) for m, k in SENSORS.items()] + [Need("host_cpu_usage", "host")]
    table = cloud.aggregate(needs, cloud.now())
    got = {
        need.metric: dict(zip(part["resource"].to_pylist(), part["value"].to_pylist(), strict=True))
        for position, need in enumerate(needs)
        for part in [table.filter(pa.array(table["need"].to_numpy() == position))]
    }
    for host, vcpus in zip(model.host_ids.to_pylist(), model.total[:, 0], strict=True):
        watts = 60 + 1.5 * vcpus + 4 * vcpus * got["host_cpu_usage"][host] / 100
        assert got["host_power"][host] == pytest.approx(watts)
        rise = got["host_outlet_temp"][host] - got["host_inlet_temp"][host]
        flow_m3_s = got["host_airflow"][host] / 10 * 0.000471947
        assert rise == pytest.approx(watts / (1206 * flow_m3_s), abs=1.5)
        assert 15 < got["host_inlet_temp"][host] < 35
    reporting = set(got["instance_ram_allocated"])
    rows = {row["uuid"]: row for row in cloud.inventory().instances.to_pylist()}
    assert reporting == {uuid for uuid, row in rows.items() if row["state"] in {"active", "paused"}}
    assert all(got["instance_ram_allocated"][uuid] == rows[uuid]["memory_mb"] for uuid in reporting)
    assert all(got["instance_root_disk_size"][uuid] == rows[uuid]["disk_gb"] for uuid in reporting)


def test_guests_never_fill_more_cache_than_their_host_has(cloud: SimulatedCloud) -> None:
    cloud.fast_forward(7200)
    table = cloud.samples("instance_l3_cache_usage", "instance", START, cloud.now())
    model = model_of(cloud)
    rows = model.instance_rows(table["resource"].to_pylist())
    ats = table["at"].to_numpy()
    for at in np.unique(ats):
        now = ats == at
        held = np.bincount(model.host_of[rows[now]], table["value"].to_numpy()[now], model.hosts)
        assert (held <= model.total[:, 0] * 1.5 * 2**20 * (1 + 1e-5)).all()
    assert table["value"].to_numpy().max() > 0


def test_samples_of_sensors_are_the_same_whenever_they_are_read(cloud: SimulatedCloud) -> None:
    cloud.fast_forward(3600)
    early = cloud.samples("host_outlet_temp", "host", START, START + 1800)
    cloud.fast_forward(3600)
    assert cloud.samples("host_outlet_temp", "host", START, START + 1800) == early


def test_a_node_that_is_off_shows_nothing_and_takes_nothing(cloud: SimulatedCloud) -> None:
    host = next(n for n in cloud.inventory().hosts["hostname"].to_pylist() if len(cloud.residents(n)) < 12)
    for server in cloud.residents(host):
        cloud.migrate(server.id, None, live=False)
        cloud.fast_forward(900)
    metal = metal_of(cloud)
    node = metal.ids[metal.hostnames.to_pylist().index(host)].as_py()
    cloud.set_power(node, on=False)
    with pytest.raises(CloudConflict, match="turning off already"):
        cloud.set_power(node, on=True)
    cloud.fast_forward(1200)
    found = cloud.service(host)
    assert found is not None
    assert not found.up
    row = cloud.inventory().hosts["uuid"][cloud.inventory().hosts["hostname"].to_pylist().index(host)].as_py()
    seen = cloud.samples("host_power", "host", cloud.now() - 600, cloud.now())
    assert row not in seen["resource"].to_pylist()
    cloud.set_power(node, on=True)
    cloud.fast_forward(30)
    turning = cloud.metal_node(node)
    assert turning is not None
    assert turning.power == "on"
    found = cloud.service(host)
    assert found is not None
    assert not found.up  # it boots
    cloud.fast_forward(300)
    found = cloud.service(host)
    assert found is not None
    assert found.up


def test_a_server_that_arrives_while_a_node_shuts_down_keeps_it_on(cloud: SimulatedCloud) -> None:
    names = cloud.inventory().hosts["hostname"].to_pylist()
    host = min((n for n in names if cloud.residents(n)), key=lambda n: len(cloud.residents(n)))
    there = cloud.residents(host)
    for server in there:
        cloud.migrate(server.id, None, live=False)
        cloud.fast_forward(900)
    metal = metal_of(cloud)
    node = metal.ids[metal.hostnames.to_pylist().index(host)].as_py()
    cloud.set_power(node, on=False)
    cloud.migrate(there[0].id, host, live=False)
    cloud.fast_forward(900)
    found = cloud.metal_node(node)
    assert found is not None
    assert (found.power, found.target) == ("on", "")
    assert "received a server" in found.error
    assert [server.id for server in cloud.residents(host)] == [there[0].id]
    check_room(cloud)
