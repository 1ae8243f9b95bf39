"""The simulated cloud from the outside: Nova's refusals, faults, measurements that never look ahead."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import CloudConflict, CloudNotFound, CloudUnavailable, InvalidInput
from trimtab.platform.model import ClusterModel, write_model
from trimtab.platform.proposal import Limits, Plan
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.faults import Fault
from trimtab.simulator.rehearse import rehearse
from trimtab.simulator.truth import CloudSpec

DAY_S = 86_400.0
CPU = ("instance_cpu_usage", "instance")


def _model(cloud: SimulatedCloud) -> ClusterModel:
    inventory = cloud.inventory()
    return ClusterModel.from_arrow(inventory.hosts, inventory.instances, inventory.groups)


@pytest.fixture
def tiny(tmp_path: Path, small_model: Callable[..., ClusterModel]) -> SimulatedCloud:
    """Four hosts of 8 vCPUs: 0 has six of them taken, 1 is full, 2 is empty, 3 is down; v5 is stopped, v6 paused."""
    model = small_model(
        4,
        [0, 0, 1, 1, 1, 0, 1],
        host_state=["up", "up", "up", "down"],
        state=["active"] * 5 + ["stopped", "paused"],
    )
    write_model(model, tmp_path / "estate")
    return SimulatedCloud(CloudSpec(estate=str(tmp_path / "estate"), start_s=20_000 * DAY_S, speed=0.0))


def test_a_migration_is_seen_under_way_and_arrives(tiny: SimulatedCloud) -> None:
    tiny.migrate("v0", "host-2", live=True)
    server = tiny.servers(["v0"])["v0"]
    assert (server.host, server.status, server.task_state) == ("host-0", "ACTIVE", "migrating")
    assert tiny.migrations("v0")[0].status == "running"
    assert tiny.figures()["migrating"] == 1
    tiny.fast_forward(60)
    server, (migration,) = tiny.servers(["v0"])["v0"], tiny.migrations("v0")
    assert (server.host, server.task_state) == ("host-2", "")
    assert (migration.source, migration.destination, migration.status) == ("host-0", "host-2", "completed")
    assert migration.ended_at is not None
    assert 0 < migration.ended_at - migration.started_at < 60
    assert _model(tiny).host_of[0] == 2
    assert tiny.all_migrations() == [migration]


def test_nova_refuses_what_cannot_be(tiny: SimulatedCloud) -> None:
    tiny.migrate("v0", "host-2", live=True)
    for server, destination, live, error, said in (
        ("v9", "host-2", True, CloudNotFound, "no server v9"),
        ("v1", "host-9", True, CloudNotFound, "no compute host host-9"),
        ("v0", "host-1", True, CloudConflict, "busy"),
        ("v1", "host-0", True, CloudConflict, "is on host-0 already"),
        ("v1", "host-1", True, CloudConflict, "host-1 has no room"),
        ("v1", "host-3", True, CloudConflict, "host-3 is down"),
        ("v5", "host-2", True, CloudConflict, "stopped: live migration needs active or paused"),
    ):
        with pytest.raises(error, match=said):
            tiny.migrate(server, destination, live=live)
    tiny.set_service("host-2", enabled=False, reason="maintenance")
    with pytest.raises(CloudConflict, match="host-2 is disabled"):
        tiny.migrate("v1", "host-2", live=True)
    with pytest.raises(CloudNotFound, match="no compute host"):
        tiny.set_service("host-9", enabled=False)
    with pytest.raises(CloudConflict, match="nothing to abort"):
        tiny.abort_migration("v1")
    assert len(tiny.all_migrations()) == 1


def test_cold_migration_moves_what_does_not_run_and_cannot_be_aborted(tiny: SimulatedCloud) -> None:
    tiny.migrate("v5", "host-2", live=False)
    tiny.migrate("v6", "host-2", live=True)  # a paused one may move live
    with pytest.raises(CloudConflict, match="cold"):
        tiny.abort_migration("v5")
    tiny.fast_forward(600)
    servers = tiny.servers(["v5", "v6", "none"])
    assert {uuid: (s.host, s.status) for uuid, s in servers.items()} == {
        "v5": ("host-2", "SHUTOFF"),
        "v6": ("host-2", "PAUSED"),
    }


def test_room_is_taken_on_both_hosts_while_moving(tiny: SimulatedCloud) -> None:
    for server in ("v2", "v3", "v4", "v6"):
        tiny.migrate(server, "host-2", live=True)
    with pytest.raises(CloudConflict, match="host-2 has no room"):
        tiny.migrate("v0", "host-2", live=True)
    with pytest.raises(CloudConflict, match="host-1 has no room"):
        tiny.migrate("v0", "host-1", live=True)
    tiny.fast_forward(600)
    tiny.migrate("v0", "host-1", live=True)


def test_the_scheduler_chooses_when_nobody_does(tiny: SimulatedCloud) -> None:
    tiny.migrate("v0", None, live=True)
    assert tiny.migrations("v0")[0].destination == "host-2"
    tiny.set_service("host-2", enabled=False)
    with pytest.raises(CloudConflict, match="no host has room for instance vm-1"):
        tiny.migrate("v1", None, live=True)


def test_an_aborted_migration_leaves_the_server_where_it_was(tiny: SimulatedCloud) -> None:
    tiny.migrate("v0", "host-2", live=True)
    tiny.fast_forward(5)
    tiny.abort_migration("v0")
    tiny.fast_forward(600)
    (migration,) = tiny.migrations("v0")
    assert (migration.status, tiny.servers(["v0"])["v0"].host) == ("aborted", "host-0")
    score = tiny.measure(tiny.now() - 605, tiny.now())
    assert score.moves == 0
    assert score.moved_gib > 0


def test_services_are_told_and_changed(tiny: SimulatedCloud) -> None:
    assert tiny.service("host-9") is None
    assert tiny.service("host-3") == ("host-3", True, False, "")
    assert tiny.set_service("host-0", enabled=False, reason="empty it") == ("host-0", False, True, "empty it")
    hosts = tiny.inventory().hosts.to_pylist()
    assert (hosts[0]["status"], hosts[0]["disabled_reason"], hosts[3]["state"]) == ("disabled", "empty it", "down")
    assert tiny.set_service("host-0", enabled=True, reason="ignored") == ("host-0", True, True, "")


def test_faults_strike_migrations(tiny: SimulatedCloud) -> None:
    tiny.inject(Fault("migration_fails", "v0"))
    tiny.inject({"kind": "migration_slow", "target": "v1", "factor": 100, "at": "now"})
    tiny.migrate("v0", "host-2", live=True)
    tiny.migrate("v1", "host-2", live=True)
    tiny.migrate("v2", "host-2", live=True)
    tiny.fast_forward(1)
    tiny.inject(Fault("migration_hangs", "v2"))
    tiny.fast_forward(120)
    assert [m.status for m in tiny.all_migrations()] == ["failed", "running", "running"]
    assert "error" in tiny.migrations("v0")[0].reason
    tiny.fast_forward(50_000)
    assert [m.status for m in tiny.all_migrations()] == ["failed", "completed", "running"]
    tiny.abort_migration("v2")
    tiny.migrate("v0", "host-2", live=True)  # the fault was for one migration
    tiny.fast_forward(600)
    assert tiny.servers(["v0"])["v0"].host == "host-2"


def test_a_dying_host_takes_down_what_is_on_it(tiny: SimulatedCloud) -> None:
    tiny.migrate("v0", "host-2", live=True)
    tiny.migrate("v2", "host-2", live=True)
    fault = tiny.inject(Fault("host_dies", "host-0", at=tiny.now() + 4.5))
    assert fault.at == tiny.now() + 4.5
    tiny.fast_forward(4)
    assert tiny.service("host-0") == ("host-0", True, True, "")
    tiny.fast_forward(600)
    assert tiny.service("host-0") == ("host-0", True, False, "")
    assert tiny.migrations("v0")[0].reason == "host host-0 died"
    assert tiny.servers(["v2"])["v2"].host == "host-2"
    with pytest.raises(CloudConflict, match="host-0, which is down"):
        tiny.migrate("v1", "host-2", live=True)
    reported = tiny.samples(*CPU, tiny.now() - 590, tiny.now())["resource"].to_pylist()
    assert "v1" not in reported
    assert "v2" in reported
    assert "h0" not in tiny.samples("host_cpu_usage", "host", tiny.now() - 590, tiny.now())["resource"].to_pylist()


def test_a_vanished_server_is_nowhere(tiny: SimulatedCloud) -> None:
    tiny.migrate("v0", "host-2", live=True)
    tiny.inject(Fault("server_vanishes", "v0"))
    assert tiny.servers(["v0"]) == {}
    assert "v0" not in tiny.inventory().instances["uuid"].to_pylist()
    assert tiny.migrations("v0")[0].status == "failed"
    with pytest.raises(CloudNotFound):
        tiny.migrate("v0", "host-2", live=True)
    tiny.fast_forward(10)
    for server in ("v2", "v3", "v4", "v6"):  # what it took is free again on both hosts
        tiny.migrate(server, "host-2", live=True)


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ({"kind": "rain", "target": "v0"}, InvalidInput, "use one of migration_fails"),
        ({"kind": "host_dies", "target": "host-9"}, CloudNotFound, "host-9"),
        ({"kind": "host_dies", "target": "v0"}, CloudNotFound, "v0"),
        ({"kind": "server_vanishes", "target": "host-0"}, CloudNotFound, "host-0"),
        ({"kind": "server_vanishes", "target": "v0", "at": 5.0}, InvalidInput, "already"),
        ({"kind": "server_vanishes", "target": "v0", "at": "soon"}, InvalidInput, "soon"),
        ({"kind": "server_vanishes"}, InvalidInput, "target"),
        ({"kind": "migration_slow", "target": "v0", "factor": 0.5}, InvalidInput, "1 or more"),
    ],
)
def test_impossible_faults_are_refused(
    tiny: SimulatedCloud, fault: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        tiny.inject(fault)


def test_samples_have_the_promised_units_and_gaps(tiny: SimulatedCloud) -> None:
    now = tiny.now()
    cpu = tiny.samples(*CPU, now - 600, now)
    assert cpu.column_names == ["resource", "at", "value"]
    assert sorted(set(cpu["at"].to_pylist())) == [now - 600, now - 300]
    assert sorted(set(cpu["resource"].to_pylist())) == ["v0", "v1", "v2", "v3", "v4", "v6"]  # v5 is stopped
    assert {v for r, v in zip(*cpu.select(["resource", "value"]).to_pydict().values(), strict=True) if r == "v6"} == {0}
    ram = tiny.aggregate([Need("instance_ram_usage", "instance"), Need("host_ram_usage", "host")], now).to_pylist()
    of = {(row["need"], row["resource"]): row["value"] for row in ram}
    assert 0.3 * 4096 - 1 <= of[0, "v0"] <= 0.95 * 4096
    assert of[1, "h0"] == pytest.approx((of[0, "v0"] + of[0, "v1"]) * 1024)
    assert (1, "h2") in of
    assert (1, "h3") not in of  # down
    host = {row["resource"]: row["value"] for row in tiny.samples("host_cpu_usage", "host", now - 300, now).to_pylist()}
    own = {row["resource"]: row["value"] for row in tiny.samples(*CPU, now - 300, now).to_pylist()}
    assert host["h0"] == pytest.approx((own["v0"] + own["v1"]) * 2 / 8, rel=1e-5)
    assert host["h2"] == 0
    assert len(tiny.samples("instance_weight", "instance", now - 600, now)) == 0
    assert len(tiny.samples("instance_cpu_usage", "host", now - 600, now)) == 0


def test_aggregates_are_of_the_samples_in_their_window(spec: CloudSpec) -> None:
    cloud = SimulatedCloud(replace(spec, start_s=(spec.start_s or 0) + 100))
    needs = [Need(*CPU, how, 1800) for how in ("mean", "min", "max", "count")]
    needs += [Need("weight", "host"), Need(*CPU)]
    table = cloud.aggregate(needs, cloud.now())
    assert table.column_names == ["need", "resource", "value"]
    raw: dict[str, list[float]] = {}
    for row in cloud.samples(*CPU, cloud.now() - 1900, cloud.now()).to_pylist():
        raw.setdefault(row["resource"], []).append(row["value"])
    for row in table.to_pylist():
        values = raw[row["resource"]]
        assert len(values) == 6
        expected = [np.mean(values), min(values), max(values), 6, None, values[-1]][row["need"]]
        assert row["value"] == pytest.approx(expected)
    assert set(table["need"].to_pylist()) == {0, 1, 2, 3, 5}
    with pytest.raises(InvalidInput, match="use mean, min, max or count"):
        cloud.aggregate([Need(*CPU, "median")], cloud.now())
    assert len(cloud.aggregate([], cloud.now())) == 0


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 2_000), st.floats(-100_000, 5_000), st.floats(0, 10_000))
def test_samples_never_reveal_the_future(passed: float, start: float, length: float) -> None:
    cloud = SimulatedCloud(CloudSpec(hosts=3, instances=10, start_s=20_000 * DAY_S + 77, speed=0.0, history_s=7200))
    cloud.fast_forward(passed)
    now, begun = cloud.now(), 20_000 * DAY_S + 77 - 7200
    for metric, kind in (CPU, ("host_ram_usage", "host")):
        at = cloud.samples(metric, kind, now + start, now + start + length)["at"].to_numpy()
        assert ((at >= max(now + start, begun)) & (at < now + start + length) & (at + 300 <= now)).all()
        expected = np.arange(np.ceil(begun / 300), now // 300) * 300
        wanted = expected[(expected >= now + start) & (expected < now + start + length)]
        assert np.array_equal(np.unique(at), wanted)
    later = cloud.aggregate([Need(*CPU)], now + 10_000)  # asks for a window that is not over
    assert len(later) == 0


def test_a_rewritten_future_changes_what_will_be_measured_and_nothing_known_now(
    spec: CloudSpec, snapshot_of: Callable[[SimulatedCloud], Snapshot]
) -> None:
    ours, same, other = (SimulatedCloud(spec) for _ in range(3))
    snapshot = snapshot_of(ours)
    start = ours.now()
    known = ours.samples(*CPU, start - DAY_S, start)
    before = rehearse(snapshot, Plan(()), Limits(), 1)
    other.rewrite_future(99)
    assert other.samples(*CPU, start - DAY_S, start).equals(known)
    assert rehearse(snapshot_of(other), Plan(()), Limits(), 1) == before
    for cloud in (ours, same, other):
        cloud.fast_forward(7200)
    real = ours.measure(start, start + 7200)
    assert same.measure(start, start + 7200) == real
    assert other.measure(start, start + 7200) != real
    assert other.measure(start - 7200, start) == ours.measure(start - 7200, start)
    assert rehearse(snapshot, Plan(()), Limits(), 1) == before
    assert not other.samples(*CPU, start, start + 7200).equals(ours.samples(*CPU, start, start + 7200))


def test_measure_refuses_times_nobody_has_seen(tiny: SimulatedCloud) -> None:
    now = tiny.now()
    for start, end in ((now - 100, now + 1), (now - 2 * DAY_S, now), (now, now)):
        with pytest.raises(InvalidInput, match="the future is not known"):
            tiny.measure(start, end)


def test_figures_agree_with_the_samples(spec: CloudSpec) -> None:
    cloud = SimulatedCloud(spec)
    cloud.fast_forward(299.9)
    figures = cloud.figures()
    cloud.fast_forward(0.2)
    now = cloud.now()
    values = cloud.samples("host_cpu_usage", "host", now // 300 * 300 - 300, now)["value"].to_numpy()
    assert figures["hosts_in_use"] == len(np.unique(_model(cloud).host_of))
    assert np.mean(values) == pytest.approx(figures["cpu_mean_pct"], rel=1e-4)
    assert np.std(values) == pytest.approx(figures["cpu_sd_pp"], rel=1e-4)
    model = _model(cloud)
    by_name = {
        row["resource"]: row["value"] for row in cloud.samples("host_cpu_usage", "host", now - 310, now).to_pylist()
    }
    share = np.array([by_name[uuid] for uuid in model.host_ids.to_pylist()]) / 100
    vcpus = model.total[:, 0]
    assert figures["power_w"] == pytest.approx((60 + 1.5 * vcpus + 4 * vcpus * share).sum(), rel=1e-4)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.integers(0, 10_000))
def test_whatever_is_asked_room_and_numbers_are_kept(seed: int) -> None:
    """Random requests, accepted or refused: no host over capacity, no instance lost, time goes on."""
    cloud = SimulatedCloud(CloudSpec(hosts=6, instances=45, seed=seed, start_s=20_000 * DAY_S, speed=0.0))
    rng, first, gone, time = np.random.default_rng(seed), _model(cloud), set(), cloud.now()
    ids, hosts = first.instance_ids.to_pylist(), first.host_names.to_pylist()
    for _ in range(40):
        server, host, what = str(rng.choice(ids)), str(rng.choice(hosts)), rng.random()
        with suppress(CloudConflict, CloudNotFound):
            if what < 0.6:
                cloud.migrate(server, host if rng.random() < 0.8 else None, live=bool(rng.random() < 0.7))
            elif what < 0.7:
                cloud.abort_migration(server)
            elif what < 0.8:
                cloud.set_service(host, enabled=bool(rng.random() < 0.7))
            elif what < 0.84:
                cloud.inject(Fault("server_vanishes", server))
                gone.add(server)
            elif what < 0.86:
                cloud.inject(Fault("host_dies", host))
            else:
                kinds = ("migration_fails", "migration_hangs", "migration_slow")
                cloud.inject(Fault(str(rng.choice(kinds)), server, at=cloud.now() + float(rng.uniform(0, 30))))
        cloud.fast_forward(float(rng.exponential(8)))
        assert cloud.now() >= time
        time, model = cloud.now(), _model(cloud)
        assert set(model.instance_ids.to_pylist()) == set(ids) - gone
        assert (model.host_of >= 0).all()
        under_way = [m for m in cloud.all_migrations() if m.status == "running"]
        rows = model.instance_rows([m.server_id for m in under_way])
        arriving = model.host_rows_by_name([m.destination for m in under_way])
        reserved = model.used()
        np.add.at(reserved, arriving, model.demand[rows])
        assert (reserved <= model.capacity + 1e-6).all()
        assert len({m.server_id for m in under_way}) == len(under_way)


def test_a_cloud_can_live_on_recorded_load(tmp_path: Path) -> None:
    traces = np.random.default_rng(1).integers(0, 100, (5, 288)).astype(np.uint8)
    column = pa.FixedSizeListArray.from_arrays(pa.array(traces.ravel()), 288)
    names = [f"vm{n}" for n in range(5)]
    pq.write_table(pa.table({"vm_index": range(5), "name": names, "cpu_pct": column}), tmp_path / "day.parquet")
    spec = CloudSpec(
        hosts=3, instances=12, start_s=20_000 * DAY_S, speed=0.0, traces=str(tmp_path / "day.parquet"), variation=0.0
    )
    cloud = SimulatedCloud(spec, tmp_path / "journal")
    table = cloud.samples(*CPU, cloud.now() - DAY_S, cloud.now())
    recorded = {tuple(trace) for trace in traces.tolist()}
    active = [row["uuid"] for row in cloud.inventory().instances.to_pylist() if row["state"] == "active"]
    for server in active:
        assert tuple(table.filter(pc.equal(table["resource"], server))["value"].to_pylist()) in recorded
    assert SimulatedCloud(spec, tmp_path / "journal").samples(*CPU, cloud.now() - 900, cloud.now()).num_rows > 0


def test_errors_survive_pickling() -> None:
    for error in (CloudConflict("busy"), CloudNotFound("gone"), CloudUnavailable("later")):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
