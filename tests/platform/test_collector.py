"""The collector against a simulated cloud and a real Parquet store: what is asked, what is kept, what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.collector import RECORDED, Collector, by_row, fill
from trimtab.platform.contracts import Inventory
from trimtab.platform.errors import CloudError, CloudUnavailable, DatasourceError, ModelError, TrimtabError
from trimtab.platform.model import ClusterModel
from trimtab.platform.snapshot import Need
from trimtab.platform.store.measurements import Measurements
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.driver import SimulatedDatasource, SimulatedDriver, local_call
from trimtab.simulator.truth import CloudSpec

DAY_S = 86_400.0
START_S = 20_000 * DAY_S + 7 * 3600 + 77  # not at the edge of a sample
CPU = Need("instance_cpu_usage", "instance")
HOST_CPU = Need("host_cpu_usage", "host", window_s=600)


class Recorder:
    """The Parquet store in this process; `fault` says what goes wrong, after the samples were kept."""

    def __init__(self, folder: Path) -> None:
        self.kept = Measurements(folder)
        self.asked: list[tuple[str, float, float]] = []
        self.tidied: list[tuple[float, int]] = []
        self.fault: Exception | None = None

    async def append(self, metric: str, kind: str, table: pa.Table) -> None:
        self.kept.append(metric, kind, table)
        if self.fault is not None:
            raise self.fault

    async def samples(self, metric: str, kind: str, start_s: float, end_s: float) -> pa.Table:
        self.asked.append((metric, start_s, end_s))
        return self.kept.samples(metric, kind, start_s, end_s)

    async def tidy(self, now_s: float, keep_days: int) -> None:
        self.tidied.append((now_s, keep_days))
        self.kept.tidy(now_s, keep_days)


@dataclass
class Scene:
    """A cloud that stands still until told, what was asked of it, and what goes wrong on the way to it."""

    cloud: SimulatedCloud
    recorder: Recorder
    gone: set[str] = field(default_factory=set)  # instances the inventory does not show
    faults: dict[str, Exception] = field(default_factory=dict)  # by method
    asked: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    before_answer: Callable[[str], Any] | None = None

    async def call(self, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        self.asked.append((method, arguments))
        if method in self.faults:
            raise self.faults[method]
        answer = await local_call(self.cloud)(method, arguments, named)
        if method == "inventory" and self.gone:
            inventory = Inventory(*answer)
            there = [uuid not in self.gone for uuid in inventory.instances["uuid"].to_pylist()]
            answer = inventory._replace(instances=inventory.instances.filter(pa.array(there)))
        if self.before_answer is not None:
            await self.before_answer(method)
        return answer

    def collector(self, history_s: float = DAY_S) -> Collector:
        return Collector(SimulatedDriver(self.call), SimulatedDatasource(self.call), self.recorder, history_s)

    def asked_for(self, metric: str) -> list[tuple[float, float]]:
        return [
            (arguments[2], arguments[3])
            for method, arguments in self.asked
            if method == "samples" and arguments[0] == metric
        ]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    recorder = Recorder(tmp_path / "metrics")
    yield Scene(SimulatedCloud(CloudSpec(hosts=4, instances=12, seed=5, start_s=START_S, speed=0.0)), recorder)
    recorder.kept.close()


def expected(scene: Scene, collector: Collector) -> np.ndarray:
    """The history by plain loops over what the store has kept."""
    model, history = collector.model, collector.history
    assert model is not None
    assert history is not None
    matrix = np.full(history.cpu_pct.shape, np.nan, np.float32)
    rows = {uuid: row for row, uuid in enumerate(model.instance_ids.to_pylist())}
    kept = scene.recorder.kept.samples("instance_cpu_usage", "instance", history.start_s, history.end_s)
    for sample in kept.to_pylist():
        if sample["resource"] in rows:
            matrix[int((sample["at"] - history.start_s) // 300), rows[sample["resource"]]] = sample["value"]
    return matrix


def cpu(collector: Collector) -> np.ndarray:
    assert collector.history is not None
    return collector.history.cpu_pct


# -- collecting ------------------------------------------------------------------------------------------


async def test_the_history_is_what_was_recorded(scene: Scene) -> None:
    collector = scene.collector()
    assert await collector.collect() == 1
    history = collector.history
    assert history is not None
    assert history.cpu_pct.shape == (288, 12)
    assert history.end_s == START_S // 300 * 300
    np.testing.assert_array_equal(cpu(collector), expected(scene, collector))
    assert np.isfinite(cpu(collector)).any(axis=0).sum() >= 8, "a running instance reports"
    with pytest.raises(ValueError, match="read-only"):
        history.cpu_pct[0, 0] = 1


async def test_a_second_collection_asks_only_for_what_is_new(scene: Scene) -> None:
    collector = scene.collector()
    await collector.collect()
    scene.asked.clear()
    scene.recorder.asked.clear()
    scene.cloud.fast_forward(1500)
    assert await collector.collect() == 2
    for metric, _ in RECORDED:
        ((since, until),) = scene.asked_for(metric)
        assert START_S // 300 * 300 - 300 < since <= START_S, "the last sample known began a step before the end"
        assert until == START_S + 1500
    assert [metric for metric, *_ in scene.recorder.asked] == ["instance_cpu_usage"], "the past is in memory"
    assert scene.recorder.asked[0][1] > START_S - 600
    np.testing.assert_array_equal(cpu(collector), expected(scene, collector))
    assert np.isfinite(cpu(collector)[-5:]).any(axis=1).all()


async def test_a_collection_without_news_changes_nothing(scene: Scene) -> None:
    collector = scene.collector()
    await collector.collect()
    before = cpu(collector).copy()
    await collector.collect()
    np.testing.assert_array_equal(cpu(collector), before)
    samples = scene.recorder.kept.samples("instance_cpu_usage", "instance", 0, START_S).to_pylist()
    assert len({(row["resource"], row["at"]) for row in samples}) == len(samples), "nothing was recorded twice"


async def test_after_a_restart_only_the_gap_is_asked_of_the_datasource(scene: Scene) -> None:
    first = scene.collector()
    await first.collect()
    scene.cloud.fast_forward(3 * 3600)
    scene.asked.clear()
    again = scene.collector()
    await again.collect()
    for metric, _ in RECORDED:
        ((since, _),) = scene.asked_for(metric)
        assert since > START_S - 600, metric
    np.testing.assert_array_equal(cpu(again), expected(scene, again))
    known = np.isfinite(cpu(again)).any(axis=0)
    assert np.isfinite(cpu(again)[:, known]).all(axis=1).sum() == 288, "the day before the restart is there too"


async def test_a_long_pause_leaves_a_hole_of_the_right_size(scene: Scene) -> None:
    """The backend has kept only what this collector's history spans; older rows scroll out."""
    collector = scene.collector(history_s=3600)
    await collector.collect()
    scene.cloud.fast_forward(5 * 3600)
    await collector.collect()
    assert cpu(collector).shape == (12, 12)
    np.testing.assert_array_equal(cpu(collector), expected(scene, collector))


async def test_instances_that_vanish_and_appear_keep_columns_and_rows_together(scene: Scene) -> None:
    ids = [row["uuid"] for row in scene.cloud.inventory().instances.to_pylist()]
    scene.gone = {ids[3], ids[11]}
    collector = scene.collector()
    await collector.collect()
    assert cpu(collector).shape == (288, 10)
    scene.cloud.fast_forward(600)
    scene.gone = {ids[0], ids[11]}
    await collector.collect()
    model = collector.model
    assert model is not None
    assert cpu(collector).shape == (288, 10)
    wanted = expected(scene, collector)
    there = [row for row in range(10) if model.instance_id(row) != ids[3]]
    np.testing.assert_array_equal(cpu(collector)[:, there], wanted[:, there])
    new = int(model.instance_rows([ids[3]])[0])
    assert np.isnan(cpu(collector)[:-2, new]).all(), "its past is read from the record after a restart"
    np.testing.assert_array_equal(cpu(collector)[-2:, new], wanted[-2:, new])
    restarted = scene.collector()
    await restarted.collect()
    np.testing.assert_array_equal(cpu(restarted), wanted)


# -- what goes wrong -------------------------------------------------------------------------------------


async def test_a_failing_cloud_keeps_the_last_model_and_the_snapshot_says_it_is_stale(scene: Scene) -> None:
    collector = scene.collector()
    await collector.collect()
    good = collector.model
    scene.faults["inventory"] = CloudUnavailable("keystone is away")
    scene.cloud.fast_forward(600)
    with pytest.raises(CloudUnavailable):
        await collector.collect()
    assert collector.model is good
    snapshot = await collector.freeze([], [CPU])
    assert (snapshot.model is good, snapshot.version, snapshot.taken_at) == (True, 1, START_S)
    (note,) = snapshot.notes
    assert "stale" in note
    assert "keystone is away" in note
    scene.faults.clear()
    await collector.collect()
    assert (await collector.freeze([], [])).notes == ()


async def test_an_inventory_that_makes_no_model_keeps_the_last_one(scene: Scene) -> None:
    collector = scene.collector()
    await collector.collect()

    async def broken(method: str, *_: Any) -> Any:
        inventory = scene.cloud.inventory()
        twice = pa.concat_tables([inventory.instances, inventory.instances.slice(0, 1)])
        return inventory._replace(instances=twice)

    collector.driver = SimulatedDriver(broken)
    with pytest.raises(ModelError):
        await collector.collect()
    assert "ModelError" in (await collector.freeze([], [])).notes[0]
    assert collector.version == 1


async def test_a_cloud_that_never_answered_makes_freezing_fail_clearly(scene: Scene) -> None:
    scene.faults["inventory"] = CloudUnavailable("keystone is away")
    with pytest.raises(CloudUnavailable, match="no model of the cloud yet: keystone is away"):
        await scene.collector().freeze([], [])


async def test_freezing_before_the_first_collection_collects(scene: Scene) -> None:
    snapshot = await scene.collector().freeze([], [])
    assert (snapshot.version, snapshot.model.instances) == (1, 12)


@pytest.mark.parametrize("fault", [DatasourceError("gnocchi is away"), CloudUnavailable("gnocchi is away")])
async def test_a_dead_datasource_leaves_measurements_missing_with_a_note(scene: Scene, fault: CloudError) -> None:
    scene.faults |= {"samples": fault, "aggregate": fault}
    collector = scene.collector()
    await collector.collect()
    snapshot = await collector.freeze([], [CPU, HOST_CPU])
    assert snapshot.model.instances == 12
    assert np.isnan(snapshot.metric(CPU)).all()
    assert snapshot.metric(HOST_CPU).shape == (4,)
    assert snapshot.history is not None
    assert np.isnan(snapshot.history.cpu_pct).all()
    assert len(snapshot.notes) == 2
    assert all("gnocchi is away" in note for note in snapshot.notes)


async def test_when_the_datasource_is_back_the_gap_is_closed(scene: Scene) -> None:
    collector = scene.collector()
    await collector.collect()
    scene.faults["samples"] = DatasourceError("gnocchi is away")
    for _ in range(2):
        scene.cloud.fast_forward(900)
        await collector.collect()
    assert np.isnan(cpu(collector)[-6:]).all(), "nothing is made up meanwhile"
    assert np.isfinite(cpu(collector)[-7]).any()
    scene.faults.clear()
    scene.cloud.fast_forward(300)
    await collector.collect()
    np.testing.assert_array_equal(cpu(collector), expected(scene, collector))
    assert np.isfinite(cpu(collector)).any(axis=1).all()
    assert (await collector.freeze([], [])).notes == ()


async def test_a_recorder_that_fails_after_keeping_makes_nothing_double(scene: Scene) -> None:
    collector = scene.collector()
    await collector.collect()
    scene.cloud.fast_forward(600)
    scene.recorder.fault = TrimtabError("the store is restarting")
    with pytest.raises(TrimtabError):
        await collector.collect()
    assert "the store is restarting" in str(collector.fault)
    scene.recorder.fault = None
    await collector.collect()
    for metric, kind in RECORDED:
        samples = scene.recorder.kept.samples(metric, kind, 0, START_S + DAY_S).to_pylist()
        assert len({(row["resource"], row["at"]) for row in samples}) == len(samples), metric
    np.testing.assert_array_equal(cpu(collector), expected(scene, collector))


# -- freezing --------------------------------------------------------------------------------------------


async def test_measured_values_stand_in_the_rows_of_their_resources(scene: Scene) -> None:
    collector = scene.collector()
    await collector.collect()
    snapshot = await collector.freeze([], [CPU, HOST_CPU, CPU])
    answer = scene.cloud.aggregate([CPU, HOST_CPU], START_S).to_pylist()
    for position, need in enumerate((CPU, HOST_CPU)):
        ids = snapshot.model.host_ids if need.kind == "host" else snapshot.model.instance_ids
        values = {row["resource"]: row["value"] for row in answer if row["need"] == position}
        wanted = [values.get(uuid, np.nan) for uuid in ids.to_pylist()]
        np.testing.assert_array_equal(snapshot.metric(need), wanted)
    assert len([method for method, _ in scene.asked if method == "aggregate"]) == 1, "one bulk question"


async def test_a_scope_narrows_model_history_and_measurements_alike(scene: Scene) -> None:
    collector = scene.collector()
    await collector.collect()
    whole = await collector.freeze([], [CPU])
    name = whole.model.host_name(int(whole.model.host_of[0]))
    part = await collector.freeze([{"compute": [{"exclude": [{"compute_nodes": [{"name": name}]}]}]}], [CPU])
    assert 0 < part.model.instances < 12
    assert whole.history is not None
    assert part.history is not None
    rows = whole.model.instance_rows(part.model.instance_ids)
    np.testing.assert_array_equal(part.history.cpu_pct, whole.history.cpu_pct[:, rows])
    np.testing.assert_array_equal(part.metric(CPU), whole.metric(CPU)[rows])


async def test_a_scope_that_leaves_nothing_can_be_frozen(scene: Scene) -> None:
    collector = scene.collector()
    await collector.collect()
    snapshot = await collector.freeze([{"compute": [{"host_aggregates": [{"name": "none"}]}]}], [CPU, HOST_CPU])
    assert (snapshot.model.hosts, snapshot.model.instances) == (0, 0)
    assert snapshot.history is not None
    assert snapshot.history.cpu_pct.shape == (288, 0)
    assert snapshot.notes == ("scope: no host is in aggregate none",)


async def test_failed_instances_are_rows_and_unknown_ones_are_dropped(scene: Scene) -> None:
    collector = scene.collector()
    await collector.collect()
    ids = collector.model.instance_ids.to_pylist() if collector.model else []
    snapshot = await collector.freeze([], [], [ids[4], "deleted meanwhile", ids[1]])
    assert snapshot.failed_before == (4, 1)


async def test_a_frozen_snapshot_knows_nothing_later_than_its_collection(scene: Scene) -> None:
    collector = scene.collector()
    await collector.collect()
    scene.cloud.fast_forward(7200)
    later = await collector.freeze([], [CPU])  # nobody has collected since
    assert later.taken_at == START_S
    assert later.history is not None
    assert later.history.end_s <= later.taken_at
    reference = SimulatedCloud(scene.cloud.spec).aggregate([CPU], START_S).to_pylist()
    values = {row["resource"]: row["value"] for row in reference}
    wanted = [values.get(uuid, np.nan) for uuid in later.model.instance_ids.to_pylist()]
    np.testing.assert_array_equal(later.metric(CPU), wanted)


async def test_a_collection_in_the_middle_of_a_freeze_does_not_mix_two_moments(scene: Scene) -> None:
    collector = scene.collector()
    await collector.collect()

    async def collect_meanwhile(method: str) -> None:
        if method == "aggregate":
            scene.before_answer = None
            scene.cloud.fast_forward(3600)
            await collector.collect()

    scene.before_answer = collect_meanwhile
    snapshot = await collector.freeze([], [CPU])
    assert collector.version == 2
    assert (snapshot.version, snapshot.taken_at) == (1, START_S)
    assert snapshot.history is not None
    assert snapshot.history.end_s <= START_S


async def test_news_are_asked_for_when_no_collection_is_under_way(scene: Scene) -> None:
    """News that are older than what a collection is finding must not come after it."""
    collector = scene.collector()
    await collector.collect()
    asked: list[str] = []

    def news() -> Inventory:
        asked.append("news")
        return Inventory(*scene.cloud.inventory())

    async def meanwhile(method: str) -> None:
        if method == "inventory":
            asked.append("collection")
            await asyncio.sleep(0.05)
        elif asked[-1:] == ["collection"]:
            asked.append("samples")

    scene.before_answer = meanwhile
    collecting = asyncio.create_task(collector.collect())
    await asyncio.sleep(0.01)
    assert asked == ["collection"]
    assert await collector.take(news) == 3
    assert await collecting == 2
    assert asked == ["collection", "samples", "news"]


async def test_two_collections_at_once_take_turns(scene: Scene) -> None:
    collector = scene.collector()
    assert sorted(await asyncio.gather(collector.collect(), collector.collect())) == [1, 2]
    np.testing.assert_array_equal(cpu(collector), expected(scene, collector))


# -- house-keeping ---------------------------------------------------------------------------------------


async def test_measurements_are_tidied_once_a_day_of_the_cloud(scene: Scene) -> None:
    collector = scene.collector()
    for _ in range(3):
        await collector.collect()
        scene.cloud.fast_forward(600)
    assert scene.recorder.tidied == [(START_S, 30)]
    scene.cloud.fast_forward(DAY_S)
    await collector.collect()
    assert [int(at // DAY_S) for at, _ in scene.recorder.tidied] == [20_000, 20_001]
    yesterday = scene.recorder.kept.days("instance_cpu_usage")[-2]
    (folder,) = scene.recorder.kept._folder.glob(f"metric=instance_cpu_usage/date={yesterday}")
    assert len(list(folder.glob("*.parquet"))) == 1
    np.testing.assert_array_equal(cpu(collector), expected(scene, collector))


async def test_what_forecasts_look_back_on_is_never_expired(scene: Scene) -> None:
    collector = Collector(
        SimulatedDriver(scene.call), SimulatedDatasource(scene.call), scene.recorder, 10 * DAY_S, keep_days=2
    )
    assert collector.keep_days == 11


async def test_disorder_is_no_reason_to_have_no_model(scene: Scene) -> None:
    async def no_space(now_s: float, keep_days: int) -> None:
        scene.recorder.tidied.append((now_s, keep_days))
        raise OSError(28, "No space left on device")

    scene.recorder.tidy = no_space  # type: ignore[method-assign]
    collector = scene.collector()
    assert await collector.collect() == 1
    assert await collector.collect() == 2
    assert len(scene.recorder.tidied) == 2, "tried again at the next collection"


# -- pure functions against plain loops ------------------------------------------------------------------


def little(hosts: int, instances: int) -> ClusterModel:
    sizes = ("vcpus", "memory_mb", "disk_gb")
    names, guests = [f"h{n}" for n in range(hosts)], [f"v{n}" for n in range(instances)]
    return ClusterModel.from_arrow(
        pa.table({"uuid": names, "hostname": names, **{size: [1.0] * hosts for size in sizes}}),
        pa.table(
            {
                "uuid": pa.array(guests, pa.string()),
                "node": pa.array(["h0"] * instances, pa.string()),
                **{size: pa.array([1.0] * instances) for size in sizes},
            }
        ),
    )


def samples_table(rows: Sequence[tuple[str, float, float]], *, coded: bool) -> pa.Table:
    resource = pa.array([row[0] for row in rows], pa.string())
    return pa.table(
        {
            "resource": resource.dictionary_encode() if coded else resource,
            "at": pa.array([row[1] for row in rows], pa.float64()),
            "value": pa.array([row[2] for row in rows], pa.float64()),
        }
    )


resources = st.sampled_from(["v0", "v1", "v2", "h0", "nobody", ""])
rows_of_samples = st.lists(
    st.tuples(resources, st.sampled_from([-301.0, -300, -0.5, 0, 1, 299, 300, 899.9, 900, 5000]), st.floats(0, 100)),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(rows_of_samples, st.booleans(), st.floats(0, 1e9).map(round))
def test_fill_writes_what_a_plain_loop_writes(rows: list[tuple[str, float, float]], coded: bool, start_s: int) -> None:
    model = little(2, 3)
    found, wanted = np.full((3, 3), np.nan, np.float32), np.full((3, 3), np.nan, np.float32)
    fill(found, samples_table([(r, start_s + at, v) for r, at, v in rows], coded=coded), model, start_s)
    for resource, at, value in rows:
        row, name = int(at // 300), resource
        if name in {"v0", "v1", "v2"} and 0 <= row < 3:
            wanted[row, int(name[1])] = value
    np.testing.assert_array_equal(found, wanted)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), resources, st.floats(-1e6, 1e6)), max_size=12, unique_by=lambda row: row[:2]),
    st.booleans(),
)
def test_by_row_reads_what_a_plain_loop_reads(rows: list[tuple[int, str, float]], coded: bool) -> None:
    model = little(1, 3)
    needs = [CPU, HOST_CPU, Need("instance_ram_usage", "instance")]
    resource = pa.array([row[1] for row in rows], pa.string())
    table = pa.table(
        {
            "need": pa.array([row[0] for row in rows], pa.int32()),
            "resource": resource.dictionary_encode() if coded else resource,
            "value": pa.array([row[2] for row in rows], pa.float64()),
        }
    )
    found = by_row(model, needs, table)
    assert list(found) == needs
    for position, need in enumerate(needs):
        wanted = [np.nan] * (1 if need.kind == "host" else 3)
        for which, name, value in rows:
            if which == position and name in ({"h0"} if need.kind == "host" else {"v0", "v1", "v2"}):
                wanted[int(name[1])] = value
        np.testing.assert_array_equal(found[need], wanted)
