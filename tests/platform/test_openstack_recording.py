"""A real cloud's load is kept in our own Parquet: what Prometheus forgets, rehearsals and backtests still know."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.platform.openstack_standin import StandIn, on_loopback, uuid_of
from tests.platform.prometheus_server import STEP_S, PrometheusServer, past, share, with_past
from tests.platform.test_collector import Recorder
from tests.platform.test_openstack_inventory import driver_to

from trimtab.platform.collector import RECORDED, Collector
from trimtab.platform.datasources.asking import REST_S, Asking
from trimtab.platform.datasources.prometheus import Prometheus
from trimtab.platform.snapshot import Need
from trimtab.serve.backtest_load import from_metrics
from trimtab.simulator.forecast import Forecast

DAY_S = 86_400
DAYS = 4
HOSTS = ["cmp-000.example", "cmp-001.example"]
SERVERS = [uuid_of(2, number) for number in range(4)]
CPU = Need("instance_cpu_usage", "instance")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """Four days of a cloud's measurements, the last of which ended."""
    end = int(time.time()) // DAY_S * DAY_S
    lines = past(end, DAYS * DAY_S // STEP_S, HOSTS, SERVERS)
    with with_past(tmp_path_factory.mktemp("prometheus"), lines) as server:
        yield server


@dataclass
class Scene:
    """A cloud and its Prometheus at a moment that tests choose, and our own store."""

    cloud: StandIn
    prometheus: PrometheusServer
    recorder: Recorder
    end: int = field(default_factory=lambda: int(time.time()) // DAY_S * DAY_S)
    now: float = 0.0

    @property
    def begin(self) -> int:
        return self.end - DAYS * DAY_S

    def collector(self, keep_days: int = 30) -> Collector:
        """As a process that starts has it."""
        driver = driver_to(self.cloud)
        driver.now = lambda: self.now
        client = httpx.AsyncClient(base_url=self.prometheus.url, timeout=30, trust_env=False)
        source = Prometheus(Asking("prometheus", client, now=lambda: self.now), driver.known)
        return Collector(driver, source, self.recorder, DAY_S, keep_days)

    def load(self, until: float) -> np.ndarray:
        """Per cent of every instance's one vCPU in the steps of the day before a moment, as it was exported."""
        last = int(until - self.begin) // STEP_S
        return np.array([[100 * share(2 + vm, step) for vm in range(4)] for step in range(last - 288, last)])

    def kept(self, metric: str) -> list[Path]:
        return sorted(self.recorder.kept._folder.glob(f"metric={metric}/date=*/[!.]*.parquet"))


@pytest.fixture
def scene(whole: PrometheusServer, tmp_path: Path) -> Iterator[Scene]:
    recorder = Recorder(tmp_path / "metrics")
    with on_loopback(StandIn(2, 4)) as cloud:
        cloud.groups.clear()
        yield Scene(cloud, whole, recorder)
    recorder.kept.close()


async def history(collector: Collector, needs: Sequence[Need] = ()) -> np.ndarray:
    """What a rehearsal would look back on, by instance in the order of `SERVERS`."""
    snapshot = await collector.freeze([], needs)
    assert snapshot.history is not None
    assert snapshot.history.end_s == collector.collected_at // STEP_S * STEP_S
    recorded = snapshot.history.cpu_pct[:, snapshot.model.instance_rows(SERVERS)]
    if np.isfinite(recorded).any():
        typical = Forecast.of(snapshot).typical[snapshot.model.instance_rows(SERVERS)]
        np.testing.assert_allclose(typical, np.nanmean(recorded, axis=0), rtol=1e-5)
    return recorded


async def test_what_the_backend_forgets_is_still_known(scene: Scene, tmp_path: Path) -> None:
    scene.now = scene.begin + 2 * DAY_S + 10
    first = scene.collector()
    await first.collect()
    before = await history(first)
    np.testing.assert_allclose(before, scene.load(scene.now), rtol=1e-4)
    for metric, kind in RECORDED:
        kept = scene.recorder.kept.samples(metric, kind, 0, scene.now)
        assert len(set(kept.column("resource").to_pylist())) == (4 if kind == "instance" else 2), metric
        assert kept.num_rows == len(set(kept.column("resource").to_pylist())) * 288, metric

    empty = PrometheusServer(tmp_path / "another")
    empty.start()
    try:
        scene.prometheus = empty  # its volume was lost, and the process starts anew
        second = scene.collector()
        scene.now += STEP_S
        await second.collect()
        after = await history(second)
        np.testing.assert_array_equal(after[:-1], before[1:])
        assert np.isnan(after[-1]).all(), "nobody measured since"
        assert second.gaps == {}
        assert np.isnan((await second.freeze([], [CPU])).metric(CPU)).all(), "missing, not made up"
    finally:
        empty.stop()
    model = await second.newest()
    recorded = from_metrics(model, tmp_path / "metrics", scene.begin + 1.5 * DAY_S, scene.begin + 2 * DAY_S, None)
    shown = recorded.record.cpu_pct[-144:, model.instance_rows(SERVERS)]
    np.testing.assert_allclose(shown, scene.load(scene.begin + 2 * DAY_S)[-144:], rtol=1e-4)


async def test_a_step_is_recorded_once_and_when_it_is_over(scene: Scene) -> None:
    scene.now = scene.begin + DAY_S + 1
    collector = scene.collector()
    for seconds in (0, 149, 299, 300, 450, 601, 1000):
        scene.now = scene.begin + DAY_S + 1 + seconds
        await collector.collect()
        np.testing.assert_allclose(await history(collector), scene.load(scene.now), rtol=1e-4)
    kept = scene.recorder.kept.samples("instance_cpu_usage", "instance", 0, scene.now).to_pylist()
    assert len({(row["resource"], row["at"]) for row in kept}) == len(kept) == 4 * (288 + 3)


async def test_days_are_merged_and_forgotten_as_the_settings_say(scene: Scene) -> None:
    collector = scene.collector(keep_days=2)
    midnight = scene.begin + DAY_S
    for seconds in (DAY_S - 1100, DAY_S - 700, DAY_S - 350):
        scene.now = midnight + seconds
        await collector.collect()
    for metric, _ in RECORDED:
        assert len(scene.kept(metric)) == 2 + 2, "of the first look two days, of the others one"
    scene.now = midnight + DAY_S + 700
    await collector.collect()
    for metric, _ in RECORDED:
        today = scene.kept(metric)[-2:]
        assert [len(list(one.parent.glob("[!.]*.parquet"))) for one in today] == [1, 1], "yesterday is one file"
        assert len(scene.kept(metric)) == 2, "the day before yesterday is gone"
    np.testing.assert_allclose(await history(collector), scene.load(scene.now), rtol=1e-4)


async def test_what_could_not_be_recorded_is_fetched_later(scene: Scene) -> None:
    scene.now = scene.begin + DAY_S + 5
    collector = scene.collector()
    await collector.collect()
    scene.prometheus.stop()
    try:
        scene.now += 2 * STEP_S
        await collector.collect()
        assert set(collector.gaps) == {metric for metric, _ in RECORDED}
        snapshot = await collector.freeze([], [CPU])
        assert np.isnan(snapshot.metric(CPU)).all()
        assert any("measurements are missing: prometheus at" in note for note in snapshot.notes)
        recorded = await history(collector)
        assert np.isnan(recorded[-2:]).all()
        np.testing.assert_allclose(recorded[:-2], scene.load(scene.now)[:-2], rtol=1e-4)
    finally:
        scene.prometheus.start()
    scene.now += STEP_S + REST_S
    await collector.collect()
    assert collector.gaps == {}
    np.testing.assert_allclose(await history(collector), scene.load(scene.now), rtol=1e-4)
