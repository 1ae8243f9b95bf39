"""InfluxDB behind Grafana as a datasource: few questions, the operator's words, and names that cannot end a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pytest
from tests.platform import metrics_standin as standin
from tests.platform.openstack_standin import StandIn, on_loopback
from tests.platform.test_openstack_inventory import driver_to

from trimtab.platform.datasources.grafana import LONGEST
from trimtab.platform.datasources.known import Known, Size
from trimtab.platform.datasources.ordered import Ordered
from trimtab.platform.errors import DatasourceError
from trimtab.platform.settings import Settings
from trimtab.platform.snapshot import Need
from trimtab.serve.sources import sources_of

KNOWN = Known.of(
    [("h-0", ("cmp-0.example", "cmp-0")), ("h-1", ("cmp-1",))],
    {f"vm-{number}": Size(2.0, 4096.0, 20.0) for number in range(4)},
)
CPU = Need("instance_cpu_usage", "instance", "mean", 600, 60)
QUERY = "SELECT {0}(value) FROM {4}.cpu WHERE vm='{1}' AND time > now()-{2}s GROUP BY time({3}s)"


def source(url: str, who: Known = KNOWN, **told: Any) -> Ordered:
    """As the settings have it: one metric of instances, unless told otherwise."""
    name = told.pop("metric", "instance_cpu_usage")
    client: dict[str, Any] = {
        "base_url": f"{url}/api/datasources/proxy/",
        "token": "key",
        "project_id_map": {name: "7"},
        "database_map": {name: "tele"},
        "attribute_map": {name: told.pop("attribute", "uuid")},
        "translator_map": {name: "influxdb"},
        "query_map": {name: told.pop("query", QUERY)},
    }
    settings = Settings.model_validate({"datasources": ["grafana"], "grafana_client": {**client, **told}})
    return sources_of(settings, driver_to(StandIn(0, 0)).rest, lambda: who)  # no cloud is asked


async def values(asked: Ordered, *needs: Need) -> Mapping[str, float]:
    return {row["resource"]: row["value"] for row in (await asked.aggregate(needs or [CPU], 0.0)).to_pylist()}


async def test_all_resources_in_one_question() -> None:
    with on_loopback(standin.Grafana(lambda query: 10.0 if "vm-1" in query else 20.0)) as backend:
        assert await values(source(backend.url)) == {"vm-0": 20, "vm-1": 10, "vm-2": 20, "vm-3": 20}
        (question,) = backend.asked
        assert question.path == "/api/datasources/proxy/7/query"
        assert (question.params["db"], question.params["epoch"]) == ("tele", "ms")
        first = "SELECT mean(value) FROM one_week.cpu WHERE vm='vm-0' AND time > now()-600s GROUP BY time(60s)"
        assert question.params["q"].split("; ")[0] == first


async def test_many_resources_in_questions_that_web_servers_take() -> None:
    many = Known.of([], {f"vm-{number}": Size(1.0, 1.0, 1.0) for number in range(500)})
    with on_loopback(standin.Grafana(lambda query: float(query.split("vm-")[1].split("'")[0]))) as backend:
        found = await values(source(backend.url, many))
        assert found == {f"vm-{number}": float(number) for number in range(500)}, "each has its own"
        assert len(backend.asked) < 500 / 20
        assert max(len(quote(one.params["q"])) for one in backend.asked) <= LONGEST


async def test_an_instance_is_named_by_its_attribute_and_cannot_end_the_text() -> None:
    with on_loopback(standin.Grafana(lambda _: 1.0)) as backend:
        asked = source(
            backend.url, Known.of([], KNOWN.instances, {"vm-0": "a' OR '1'='1", "vm-1": 'b\\"\n'}), attribute="name"
        )
        assert await values(asked) == {"vm-0": 1, "vm-1": 1}, "without a name nobody is asked for"
        (question,) = backend.asked
        assert r"vm='a\' OR \'1\'=\'1' AND" in question.params["q"]
        assert r"""vm='b\\\"\n' AND""" in question.params["q"]


@pytest.mark.parametrize(("attribute", "names"), [("hostname", ("cmp-0.example", "cmp-1")), ("uuid", ("h-0", "h-1"))])
async def test_a_host_is_named_by_its_attribute(attribute: str, names: tuple[str, ...]) -> None:
    with on_loopback(standin.Grafana(lambda _: 1.0)) as backend:
        asked = source(
            backend.url, metric="host_power", attribute=attribute, query="SELECT {0}(x) FROM p WHERE h='{1}'"
        )
        assert await values(asked, Need("host_power", "host", "max")) == {"h-0": 1, "h-1": 1}
        assert [one.split("'")[1] for one in backend.asked[0].params["q"].split("; ")] == list(names)


async def test_what_is_not_measured_is_missing_and_never_zero() -> None:
    answers = {"vm-0": None, "vm-1": None, "vm-2": 0.0, "vm-3": 4.0}
    with on_loopback(standin.Grafana(lambda query: next(v for name, v in answers.items() if name in query))) as backend:
        assert await values(source(backend.url)) == {"vm-2": 0.0, "vm-3": 4.0}, "what was measured as 0 is 0"
        assert source(backend.url).sources[0].offers("host_power") is False
        backend.asked.clear()
        assert await values(source(backend.url), Need("host_power", "host")) == {}
        assert backend.asked == []
        assert (await source(backend.url).samples("instance_cpu_usage", "instance", 0, 9e9)).num_rows == 0
        assert backend.asked == []


async def test_a_query_that_cannot_be_carried_out_does_not_fail_the_others(caplog: pytest.LogCaptureFixture) -> None:
    many = Known.of([], {f"vm-{number:02d}": Size(1.0, 1.0, 1.0) for number in range(20)})
    with on_loopback(standin.Grafana(lambda query: "too many points" if "vm-07" in query else 1.0)) as backend:
        found = await values(source(backend.url, many))
        assert set(found) == set(many.instances) - {"vm-07"}
        assert len(backend.asked) < 20
    assert "vm-07" in caplog.text
    assert "too many points" in caplog.text


async def test_queries_that_are_all_wrong_are_told_after_three_questions() -> None:
    with on_loopback(standin.Grafana(lambda _: "retention policy not found: one_week")) as backend:
        with pytest.raises(DatasourceError, match=r"InfluxDB behind grafana cannot answer SELECT .*: retention policy"):
            await values(source(backend.url))
        assert len(backend.asked) == 3
    with on_loopback(standin.Grafana(lambda _: 1.0)) as backend:
        backend.fail = [400] * 99
        with pytest.raises(DatasourceError, match="grafana answered 400"):
            await values(source(backend.url))
        assert len(backend.asked) == 3
        backend.asked.clear()
        with pytest.raises(DatasourceError, match=r"query_map: instance_cpu_usage: SELECT \{5\}: places are"):
            await values(source(backend.url, query="SELECT {5}"))
        assert backend.asked == []


async def test_the_shortest_retention_that_is_longer_than_the_window(caplog: pytest.LogCaptureFixture) -> None:
    with on_loopback(standin.Grafana(lambda _: 1.0)) as backend:
        for window, name in ((604_799, "one_week"), (604_800, "one_month"), (3_000_000, "five_years")):
            await values(source(backend.url), CPU._replace(window_s=window))
            assert f" FROM {name}.cpu " in backend.asked[-1].params["q"]
        await values(source(backend.url), CPU._replace(window_s=99_000_000))
        assert " FROM five_years.cpu " in backend.asked[-1].params["q"]
        assert caplog.text.count("no retention period of InfluxDB is longer than 99000000 s") == 1, "told once"
        with pytest.raises(DatasourceError, match="retention_periods is empty"):
            await values(source(backend.url, retention_periods={}))


async def test_a_wrong_token_and_a_dead_grafana_are_told() -> None:
    with on_loopback(standin.Grafana(lambda _: 1.0)) as backend:
        with pytest.raises(DatasourceError, match=r"grafana answered 401 .*Unauthorized"):
            await values(source(backend.url, token="another"))
        backend.asked.clear()
        backend.fail = [502] * 9
        asked = source(backend.url)
        for _ in range(3):
            with pytest.raises(DatasourceError, match=r"grafana at http://.* does not answer: 502"):
                await values(asked)
        assert len(backend.asked) == 1
        backend.fail, backend.raw = [], ["nothing"]
        with pytest.raises(DatasourceError, match="grafana answered 7/query without results"):
            await values(source(backend.url))


async def test_the_names_of_instances_are_those_of_the_cloud() -> None:
    with on_loopback(StandIn(1, 2)) as cloud:
        driver = driver_to(cloud)
        await driver.inventory()
        assert set(driver.known().names.values()) == {"vm-0", "vm-1"}
