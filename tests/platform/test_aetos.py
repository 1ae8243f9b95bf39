"""Aetos as a datasource: Prometheus' queries of one moment behind Keystone, and nothing that Aetos does not have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import openstack
import pytest
from tests.platform import metrics_standin as standin
from tests.platform.openstack_standin import StandIn, on_loopback

from trimtab.platform.datasources.known import Known, Size
from trimtab.platform.datasources.ordered import Ordered
from trimtab.platform.datasources.prometheus import Aetos
from trimtab.platform.errors import DatasourceError
from trimtab.platform.openstack.rest import Rest
from trimtab.platform.settings import Settings
from trimtab.platform.snapshot import Need
from trimtab.serve.sources import sources_of

AT = 1_800_000_000.0
KNOWN = Known.of(
    [("h-0", ("cmp-0.example", "cmp-0")), ("h-1", ("cmp-1",))],
    {"vm-0": Size(2.0, 4096.0, 20.0), "vm-1": Size(4.0, 8192.0, 40.0)},
)
VALUES = {"node_cpu": "37.5", "node_memory": "2000000", "ceilometer_cpu": "100", "ceilometer_memory": "512"}


def measured(query: str, at: float) -> list[Any]:
    """The same value for everybody, at every step of a subquery, and a stranger."""
    (value,) = (value for name, value in VALUES.items() if name in query)
    label, names = ("resource", ("vm-0", "vm-1", "vm-9"))
    if "node_" in query:
        label, names = ("fqdn", ("cmp-0.example", "cmp-1.example:9100", "elsewhere"))
    if (over := re.search(r"\)\[(\d+)s:(\d+)s\]$", query)) is None:
        return [{"metric": {label: name}, "value": [at, value]} for name in names]
    span, step = map(int, over.groups())
    moments = [moment for moment in range(int(at) - span, int(at) + 1) if moment % step == 0]
    return [{"metric": {label: name}, "values": [[moment, value] for moment in moments]} for name in names]


@pytest.fixture
def backend() -> Iterator[standin.Aetos]:
    with on_loopback(standin.Aetos(measured)) as one:
        yield one


@pytest.fixture
def cloud(backend: standin.Aetos) -> Iterator[StandIn]:
    with on_loopback(StandIn(1, 0)) as one:
        one.also["metric-storage"] = f"{backend.url}/"
        backend.tokens = lambda: one.tokens
        yield one


def source(cloud: StandIn, order: str = "aetos", who: Callable[[], Known] = lambda: KNOWN) -> Ordered:
    """As the settings have it; order as operators write it."""
    connection = openstack.connect(
        auth={
            "auth_url": f"{cloud.url}/identity/v3", "username": "trimtab", "password": "secret",
            "project_name": "service", "user_domain_name": "Default", "project_domain_name": "Default",
        },
        region_name="r",
    )  # fmt: skip
    return sources_of(Settings(datasources=order.split(",")), Rest(connection, deadline_s=2, pause_s=0.05), who)


async def values(asked: Ordered, *needs: Need) -> dict[tuple[str, str], float]:
    table = (await asked.aggregate(needs, AT)).to_pylist()
    return {(needs[row["need"]].metric, row["resource"]): row["value"] for row in table}


async def test_every_metric_of_every_resource_in_one_question_each(cloud: StandIn, backend: standin.Aetos) -> None:
    found = await values(source(cloud), *(Need(metric, kind, "mean", 600) for metric, kind in Aetos.metrics.items()))
    queries = sorted(one.params["query"] for one in backend.asked)
    assert queries == [
        "100 - (avg by (fqdn) (rate(node_cpu_seconds_total{mode='idle'}[600s])) * 100)",
        "avg by (resource) (rate(ceilometer_cpu[600s])) / 1e7",
        "max by (fqdn) ((node_memory_MemTotal_bytes - avg_over_time(node_memory_MemAvailable_bytes[600s])) / 1024)",
        "max by (resource) (avg_over_time(ceilometer_memory_usage[600s]))",
    ]
    assert {one.params["time"] for one in backend.asked} == {str(AT)}
    assert backend.paths() == ["/api/v1/query"] * 4, "what the model knows is not asked for"
    assert found["instance_cpu_usage", "vm-0"] == 50, "of the instance's own vCPUs"
    assert found["instance_cpu_usage", "vm-1"] == 25
    assert found["host_cpu_usage", "h-1"] == 37.5
    assert found["instance_ram_allocated", "vm-0"] == 4096
    assert found["instance_root_disk_size", "vm-1"] == 40
    assert {resource for _, resource in found} == {"h-0", "h-1", "vm-0", "vm-1"}, "no strangers"


async def test_samples_come_without_query_range_which_aetos_has_not(cloud: StandIn, backend: standin.Aetos) -> None:
    asked = source(cloud)
    table = (await asked.samples("instance_cpu_usage", "instance", AT - 3600, AT + 299)).to_pylist()
    assert backend.paths() == ["/api/v1/query"]
    for resource, value in (("vm-0", 50), ("vm-1", 25)):
        mine = [(row["at"] - AT, row["value"]) for row in table if row["resource"] == resource]
        assert mine == [(float(at), value) for at in range(-3600, 0, 300)], "whole steps that are over"
    assert len(table) == 24
    assert (await asked.samples("instance_cpu_usage", "instance", AT + 1, AT + 599)).num_rows == 0
    assert backend.asked == [], "no step of that time is over"


async def test_a_token_that_aetos_refuses_is_replaced_once(cloud: StandIn, backend: standin.Aetos) -> None:
    asked = source(cloud)
    assert await values(asked, Need("instance_ram_usage", "instance"))
    cloud.tokens.clear()  # Keystone forgot it
    backend.asked.clear()
    assert await values(asked, Need("instance_ram_usage", "instance"))
    assert backend.paths() == ["/api/v1/query"] * 2
    backend.tokens = lambda: ["somebody else's"]
    with pytest.raises(DatasourceError, match="aetos answered 401 to /api/v1/query"):
        await values(asked, Need("instance_ram_usage", "instance"))


async def test_what_is_not_measured_is_missing_and_never_zero(cloud: StandIn, backend: standin.Aetos) -> None:
    nonsense = [None, 7, {}, {"metric": {}, "value": [AT, "1"]}, {"metric": {"resource": "vm-0"}}]
    told: list[Any] = ["NaN", "+Inf", "much", None, []]
    need = Need("instance_ram_usage", "instance")
    for value in told:
        rows = [
            *nonsense,
            {"metric": {"resource": "vm-0"}, "value": [AT, value], "values": [[AT, value]]},
            {"metric": {"resource": "vm-1"}, "value": [AT, "3"], "values": [[AT, "3"]]},
        ]
        backend.series = lambda *_, rows=rows: rows
        assert await values(source(cloud), need) == {("instance_ram_usage", "vm-1"): 3.0}
        table = await source(cloud).samples("instance_ram_usage", "instance", AT - 300, AT)
        assert table.column("resource").to_pylist() == ["vm-1"]
    backend.series = lambda *_: []
    assert await values(source(cloud), need) == {}


@pytest.mark.parametrize("raw", [[], "text", {"status": "error"}, {"data": {"result": {}}}])
async def test_an_answer_that_is_none_is_told_in_our_words(cloud: StandIn, backend: standin.Aetos, raw: Any) -> None:
    backend.raw = raw
    with pytest.raises(DatasourceError, match="aetos answered /api/v1/query"):
        await values(source(cloud), Need("instance_ram_usage", "instance"))


async def test_a_dead_aetos_is_noticed_once(cloud: StandIn, backend: standin.Aetos) -> None:
    asked = source(cloud)
    backend.fail = [503] * 9
    for _ in range(5):
        with pytest.raises(DatasourceError, match="aetos does not answer: 503"):
            await values(asked, Need("instance_ram_usage", "instance"))
    assert len(backend.paths()) == 1


async def test_watchers_default_order_finds_the_one_that_the_cloud_has(cloud: StandIn, backend: standin.Aetos) -> None:
    asked = source(cloud, "gnocchi,grafana,aetos")
    assert [one.name for one in asked.sources] == ["gnocchi", "aetos"], "grafana is not configured"
    assert await values(asked, Need("instance_ram_usage", "instance")) == {
        ("instance_ram_usage", "vm-0"): 512,
        ("instance_ram_usage", "vm-1"): 512,
    }
    del cloud.also["metric-storage"]
    with pytest.raises(
        DatasourceError,
        match=r"gnocchi does not.* for metric service not found; aetos does not.* for metric-storage service not",
    ):
        await values(source(cloud, "gnocchi,aetos"), Need("instance_ram_usage", "instance"))
