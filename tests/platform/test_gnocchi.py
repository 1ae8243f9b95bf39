"""Gnocchi as a datasource: few questions, Watcher's units, and what is odd, missing or dead spoils nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.platform import metrics_standin as standin
from tests.platform.metrics_standin import Kept, Resource
from tests.platform.openstack_standin import on_loopback

from trimtab.platform.datasources.asking import REST_S, Asking
from trimtab.platform.datasources.gnocchi import GNOCCHIS, Gnocchi
from trimtab.platform.datasources.known import Known, Size
from trimtab.platform.datasources.policies import seconds
from trimtab.platform.errors import DatasourceError
from trimtab.platform.snapshot import Need

AT = 1_800_000_000.0  # the begin of a granule
CPU, RAM = Need("instance_cpu_usage", "instance"), Need("instance_ram_usage", "instance")


def known(instances: int = 3) -> Known:
    """Two hosts, the first of which has the names of a service and of a hypervisor; instances of two vCPUs."""
    hosts = [("h-0", ("cmp-0.example", "cmp-0")), ("h-1", ("cmp-1",))]
    return Known.of(hosts, {f"vm-{number}": Size(2.0, 4096.0, 20.0) for number in range(instances)})


def vm(number: int, granularity: int = 300, method: str = "rate:mean") -> Resource:
    """An instance that uses a quarter of its two vCPUs, in every granule."""
    moments = [AT + 300 * step for step in range(-12, 1)]
    cpu = Kept({"mean": [], method: [(at, 0.25 * 2 * granularity * 1e9) for at in moments]}, granularity)
    ram = Kept({"mean": [(at, 1000.0 + number) for at in moments]})
    return Resource(f"vm-{number}", f"vm-{number}", {"cpu": cpu, "memory.resident": ram})


@pytest.fixture
def backend() -> Iterator[standin.Gnocchi]:
    with on_loopback(standin.Gnocchi()) as one:
        one.resources = [vm(number) for number in range(3)]
        yield one


def ask(
    backend: standin.Gnocchi,
    *needs: Need,
    who: Known | None = None,
    then: Callable[[Gnocchi], Any] | None = None,
    now: Callable[[], float] = lambda: 0.0,
) -> Any:
    """What is measured by metric and resource; or what `then` does with the datasource."""

    async def run() -> Any:
        async with httpx.AsyncClient(base_url=backend.url, timeout=10) as client:
            source = Gnocchi(Asking("gnocchi", client, now=now), lambda: who or known())
            return await (then(source) if then else values(source, *needs))

    return asyncio.run(run())


async def values(source: Gnocchi, *needs: Need) -> dict[tuple[str, str], float]:
    table = (await source.aggregate(needs, AT + 60)).to_pylist()
    return {(needs[row["need"]].metric, row["resource"]): row["value"] for row in table}


def test_every_metric_of_every_resource_in_one_question_each(backend: standin.Gnocchi) -> None:
    host = {name: Kept({"mean": [(AT, 7.0)]}) for of, name in GNOCCHIS.values() if of == "host"}
    backend.resources.append(Resource("r-0", "cmp-0_cmp-0.example", host))
    other = {name: Kept({"mean": [(AT, 9.0)]}) for of, name in GNOCCHIS.values() if of == "instance" and name != "cpu"}
    backend.resources.append(Resource("vm-9", "vm-9", other))
    backend.resources.append(Resource("stranger", "stranger", {**host, **other}))
    who = known(10)
    needs = [Need(metric, kind) for metric, (kind, _) in GNOCCHIS.items()]
    found = ask(backend, *needs, who=who)
    assert backend.paths() == ["/v1/aggregates"] * len(GNOCCHIS)
    assert found["instance_cpu_usage", "vm-0"] == pytest.approx(25), "per cent of the instance's own vCPUs"
    assert found["instance_ram_usage", "vm-2"] == 1002, "MB"
    assert found["host_airflow", "h-0"] == 70, "tenths of CFM"
    for metric in ("host_cpu_usage", "host_ram_usage", "host_outlet_temp", "host_inlet_temp", "host_power"):
        assert found[metric, "h-0"] == 7
    for metric in ("instance_ram_allocated", "instance_l3_cache_usage", "instance_root_disk_size"):
        assert found[metric, "vm-9"] == 9
    assert {resource for _, resource in found} == {"h-0", "vm-0", "vm-1", "vm-2", "vm-9"}, "no strangers"


def test_cpu_is_reckoned_as_watcher_does(backend: standin.Gnocchi) -> None:
    measured = 360 * 1e9 * 2 * 5.5 / 100
    backend.resources = [
        Resource("vm-0", "vm-0", {"cpu": Kept({"rate:mean": [(AT - 360, measured)]}, 360)}),
        Resource("vm-1", "vm-1", {"cpu": Kept({"rate:mean": [(AT - 360, -measured)]}, 360)}),  # its counter began anew
    ]
    found = ask(backend, Need("instance_cpu_usage", "instance", "mean", 360, 360))
    assert found == {("instance_cpu_usage", "vm-0"): pytest.approx(5.5), ("instance_cpu_usage", "vm-1"): 0.0}


@pytest.mark.parametrize("name", ["cmp-0_cmp-0", "cmp-0.example_cmp-0.example", "cmp-0", "cmp-0_cmp-0.example"])
def test_a_host_is_found_by_whatever_its_names_make(backend: standin.Gnocchi, name: str) -> None:
    backend.resources = [Resource("r", name, {"hardware.ipmi.node.power": Kept({"mean": [(AT, 300.0)]})})]
    assert ask(backend, Need("host_power", "host")) == {("host_power", "h-0"): 300.0}


def test_values_are_over_the_whole_window(backend: standin.Gnocchi) -> None:
    points = [(AT - 900, 1.0), (AT - 600, 50.0), (AT - 300, 30.0), (AT, 10.0)]
    kept = dict.fromkeys(("mean", "max", "min"), points)
    backend.resources = [Resource("vm-0", "vm-0", {"memory.resident": Kept(kept)})]
    needs = [Need("instance_ram_usage", "instance", aggregate, 660) for aggregate in ("mean", "max", "min", "count")]
    table = ask(backend, then=lambda source: source.aggregate(needs, AT + 60)).to_pylist()
    assert [row["value"] for row in table] == [30.0, 50.0, 10.0, 30.0]


def test_many_resources_are_asked_for_some_hundred_at_a_time(backend: standin.Gnocchi) -> None:
    backend.resources = [vm(number) for number in range(1000)]
    assert len(ask(backend, CPU, who=known(1000))) == 1000
    assert len(backend.paths()) == 3


def test_what_is_not_measured_is_missing_and_never_zero(backend: standin.Gnocchi) -> None:
    backend.resources[1].metrics["cpu"].points["rate:mean"] = []
    backend.resources[2].metrics["cpu"].points["rate:mean"] = [(AT - 900, 1e9)]  # before the window
    assert set(ask(backend, CPU)) == {("instance_cpu_usage", "vm-0")}
    assert ask(backend, Need("host_power", "host")) == {}, "nobody has it"
    backend.asked.clear()
    assert ask(backend, Need("host_cpu_usage", "instance"), Need("unheard_of", "host")) == {}
    assert ask(backend, CPU, who=Known()) == {}
    assert backend.asked == [], "nothing to ask for"


@pytest.mark.parametrize("odd", [vm(2, granularity=60), vm(2, method="rate:max")])
def test_who_keeps_a_metric_otherwise_is_missing_and_the_others_are_not(
    backend: standin.Gnocchi, odd: Resource, caplog: pytest.LogCaptureFixture
) -> None:
    backend.resources[2] = odd
    clock = [0.0]

    async def thrice(source: Gnocchi) -> None:
        asked = [["/v1/aggregates", "/v1/metric", "/v1/metric", "/v1/aggregates"], ["/v1/aggregates"]]
        for expected in (asked[0], asked[1], asked[0]):
            assert set(await values(source, CPU)) == {("instance_cpu_usage", "vm-0"), ("instance_cpu_usage", "vm-1")}
            assert backend.paths() == expected
            clock[0] += 3599 if expected == asked[0] else 2

    ask(backend, then=thrice, now=lambda: clock[0])
    assert "1 resources of gnocchi keep no rate:mean of cpu in steps of 300 s" in caplog.text


def test_hosts_that_keep_a_metric_otherwise_are_left_out_too(backend: standin.Gnocchi) -> None:
    kept = [Kept({"mean": [(AT, 5.0)]}), Kept({"mean": [(AT, 5.0)]}, 60)]
    backend.resources = [
        Resource(f"r-{number}", f"cmp-{number}_cmp-{number}", {"compute.node.cpu.percent": one})
        for number, one in enumerate(kept)
    ]
    assert ask(backend, Need("host_cpu_usage", "host")) == {("host_cpu_usage", "h-0"): 5.0}
    backend.resources[0].metrics["compute.node.cpu.percent"].granularity = 60
    assert ask(backend, Need("host_cpu_usage", "host")) == {}


def test_one_list_is_enough_for_all_who_are_refused_at_once(backend: standin.Gnocchi) -> None:
    backend.resources = [vm(number, granularity=60 if number % 300 == 0 else 300) for number in range(1200)]
    assert len(ask(backend, CPU, who=known(1200))) == 1196
    paths = backend.paths()
    assert (paths.count("/v1/aggregates"), paths.count("/v1/metric")) == (6, 3), (
        "1,200 metrics are two pages and an end"
    )


def test_a_row_of_nonsense_does_not_fail_the_others(backend: standin.Gnocchi) -> None:
    backend.resources += [vm(3), vm(4), vm(5)]
    for resource, nonsense in zip(backend.resources, ("many", None, "NaN", [1]), strict=False):
        resource.metrics["memory.resident"].points["mean"] = [(AT, nonsense)]
    assert set(ask(backend, RAM, who=known(6))) == {("instance_ram_usage", f"vm-{number}") for number in (4, 5)}


@pytest.mark.parametrize("raw", [[], ["what"], {"measures": 7}, {"references": [{}]}, "text"])
def test_an_answer_that_is_none_is_told_in_our_words(backend: standin.Gnocchi, raw: Any) -> None:
    backend.raw = raw
    with pytest.raises(DatasourceError, match="gnocchi answered"):
        ask(backend, CPU)


def test_a_refusal_has_gnocchis_words(backend: standin.Gnocchi) -> None:
    backend.fail = [403]
    with pytest.raises(DatasourceError, match="gnocchi answered 403 to /v1/aggregates: no"):
        ask(backend, CPU)
    backend.fail = [400, 400]
    with pytest.raises(DatasourceError, match="gnocchi answered 400"):
        ask(backend, CPU)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_dead_backend_is_noticed_once_and_asked_again_later(backend: standin.Gnocchi, status: int) -> None:
    clock = [0.0]

    async def run(source: Gnocchi) -> None:
        backend.fail = [status] * 9
        for _ in range(3):
            with pytest.raises(DatasourceError, match=rf"does not answer: {status}"):
                await source.aggregate([CPU], AT)
        assert len(backend.paths()) == 1
        backend.fail.clear()
        clock[0] = REST_S - 1
        with pytest.raises(DatasourceError, match="does not answer"):
            await source.aggregate([CPU], AT)
        assert backend.paths() == []
        clock[0] = REST_S
        assert len(await values(source, CPU)) == 3

    ask(backend, then=run, now=lambda: clock[0])


def test_samples_are_those_of_granules_whose_measures_are_in(backend: standin.Gnocchi) -> None:
    def moments(start: float, end: float) -> list[float]:
        table = ask(backend, then=lambda source: source.samples("instance_cpu_usage", "instance", start, end))
        assert all(row["value"] == pytest.approx(25) for row in table.to_pylist())
        return sorted({row["at"] - AT for row in table.to_pylist()})

    assert moments(AT - 1200, AT + 299) == [-1200, -900, -600], "the last one is not over, of the one before some lack"
    assert moments(AT - 1200, AT + 300) == [-1200, -900, -600, -300]
    assert moments(AT - 1199, AT + 300) == [-900, -600, -300]
    backend.asked.clear()
    assert moments(AT - 299.999, AT + 200) == []
    assert backend.asked == []


def test_spans_are_understood_as_gnocchi_tells_them() -> None:
    told: list[str | float] = ["0:05:00", "1:00:00", "1 day, 0:00:00", "30 days, 0:00:30.5", "300.0", 300]
    assert [seconds(one) for one in told] == [300, 3600, 86400, 30 * 86400 + 30.5, 300, 300]
    with pytest.raises(ValueError, match="soon"):
        seconds("soon")
