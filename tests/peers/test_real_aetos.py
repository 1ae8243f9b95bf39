"""A real Aetos, behind a real Keystone and before a real Prometheus: the same figures as without it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from tests.peers.conftest import needed
from tests.peers.identity import Keystone
from tests.peers.measuring import serving, source, values
from tests.platform.prometheus_server import STEP_S, PrometheusServer, past, share, with_past

from trimtab.platform.datasources.asking import Asking
from trimtab.platform.datasources.known import Known, Size
from trimtab.platform.datasources.prometheus import Prometheus
from trimtab.platform.errors import DatasourceError
from trimtab.platform.snapshot import Need

pytestmark = pytest.mark.peers

STEPS = 12
KNOWN = Known.of(
    [("h-0", ("cmp-0.example",)), ("h-1", ("cmp-1.example",))], {"vm-0": Size(1, 1024, 10), "vm-1": Size(4, 2048, 20)}
)
NEEDS = [Need(metric, kind, "mean", 900) for metric, kind in Prometheus.metrics.items()]


@dataclass
class Both:
    """Aetos' address, the Prometheus behind it, and the end of what that has measured."""

    url: str
    prometheus: PrometheusServer
    end: int


@pytest.fixture(scope="module")
def both(keystone: Keystone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    needed("aetos")
    home, end = tmp_path_factory.mktemp("aetos"), int(time.time()) // STEP_S * STEP_S
    lines = past(end, STEPS, ["cmp-0.example", "cmp-1.example"], ["vm-0", "vm-1", "vm-9"])
    with with_past(home / "prometheus", lines) as prometheus:
        options = {"host": "127.0.0.1", "port": prometheus.port}
        told = {"auth_mode": "keystone", "log_file": home / "aetos.log"}
        with serving("aetos", "metric-storage", home, keystone, DEFAULT=told, prometheus=options) as url:
            yield Both(url, prometheus, end)


async def test_values_are_those_of_the_prometheus_behind_it(both: Both, keystone: Keystone) -> None:
    through = await values(source(keystone, "aetos", KNOWN), both.end, *NEEDS)
    async with httpx.AsyncClient(base_url=both.prometheus.url, trust_env=False) as client:
        direct = (await Prometheus(Asking("prometheus", client), lambda: KNOWN).aggregate(NEEDS, both.end)).to_pylist()
    assert through == {(NEEDS[row["need"]].metric, row["resource"]): row["value"] for row in direct}
    assert len(through) == 12, "two hosts with two metrics, two instances with four"
    expected = 100 * sum(share(3, step) for step in range(STEPS - 3, STEPS)) / 3
    assert through["instance_cpu_usage", "vm-1"] == pytest.approx(expected / 4, rel=0.01)


@pytest.mark.parametrize("aggregate", ["max", "min", "count"])
async def test_the_other_aggregates_pass(both: Both, keystone: Keystone, aggregate: str) -> None:
    found = await values(
        source(keystone, "aetos", KNOWN), both.end, *(one._replace(aggregate=aggregate) for one in NEEDS)
    )
    assert len(found) == 12


async def test_samples_are_what_was_measured_step_by_step(both: Both, keystone: Keystone) -> None:
    table = await source(keystone, "aetos", KNOWN).samples(
        "instance_cpu_usage", "instance", both.end - 86400, both.end + 7
    )
    for number, (resource, size) in enumerate(KNOWN.instances.items()):
        mine = sorted((row["at"], row["value"]) for row in table.to_pylist() if row["resource"] == resource)
        assert [at for at, _ in mine] == [both.end - STEP_S * back for back in range(STEPS, 0, -1)]
        expected = [100 * share(2 + number, step) / size.vcpus for step in range(STEPS)]
        assert [value for _, value in mine] == pytest.approx(expected, rel=1e-6)


async def test_who_may_not_see_the_cloud_is_told_or_sees_nothing(both: Both, keystone: Keystone) -> None:
    need = Need("instance_ram_usage", "instance", "mean", 900)
    keystone.user("onlooker", "elsewhere", ["reader"])
    assert await values(source(keystone, "aetos", KNOWN, "onlooker", "elsewhere"), both.end, need) == {}
    keystone.user("guest", "elsewhere", ["visitor"])
    with pytest.raises(DatasourceError, match="aetos answered 403 to /api/v1/query"):
        await values(source(keystone, "aetos", KNOWN, "guest", "elsewhere"), both.end, need)
    both.prometheus.stop()
    with pytest.raises(DatasourceError, match="aetos"):
        await values(source(keystone, "aetos", KNOWN), both.end, need)
