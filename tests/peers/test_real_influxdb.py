"""A real InfluxDB, behind what stands for Grafana's proxy: a token is asked for, and questions are passed on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.peers.test_watcher_databases import free_port, served
from tests.platform.openstack_standin import on_loopback
from tests.platform.test_grafana import source, values

from trimtab.platform.datasources.known import Known, Size
from trimtab.platform.errors import DatasourceError
from trimtab.platform.snapshot import Need

pytestmark = pytest.mark.peers

NAMES = {**{f"vm-{number}": f"web-{number}" for number in range(60)}, "vm-60": "it's [one]", "vm-61": "' OR vm != '"}
KNOWN = Known.of([("h-0", ("cmp-0.example",))], dict.fromkeys(NAMES, Size(1, 1, 1)), NAMES)
CPU = Need("instance_cpu_usage", "instance", "mean", 600)
QUERY = "SELECT {0}(value) FROM {4}.cpu WHERE vm='{1}' AND time > now()-{2}s"


@dataclass
class Proxy:
    """Grafana's proxy of one data source, with number 7."""

    behind: str
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def routes(self) -> list[Route]:
        return [Route("/api/datasources/proxy/7/{path:path}", self._pass)]

    async def _pass(self, request: Request) -> Response:
        assert request.headers["authorization"] == "Bearer key"
        self.asked.append(request.query_params["q"])
        async with httpx.AsyncClient(trust_env=False) as client:
            found = await client.get(f"{self.behind}/{request.path_params['path']}", params=request.query_params)
        return Response(found.content, found.status_code, {"Content-Type": found.headers["Content-Type"]})


@pytest.fixture(scope="module")
def influxdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One with what Telegraf would have written in the last minutes; its address."""
    if (program := shutil.which("influxd")) is None:
        pytest.skip("there is no influxd on this machine (Debian: apt-get install influxdb)")
    home: Path = tmp_path_factory.mktemp("influxdb")
    port = free_port()
    (home / "influxd.conf").write_text(
        f'reporting-disabled = true\nbind-address = "127.0.0.1:{free_port()}"\n'
        f'[meta]\ndir = "{home}/meta"\n[data]\ndir = "{home}/data"\nwal-dir = "{home}/wal"\n'
        f'[http]\nbind-address = "127.0.0.1:{port}"\nlog-enabled = false\n[monitor]\nstore-enabled = false\n'
    )
    url = f"http://127.0.0.1:{port}"
    with (
        served([program, "-config", str(home / "influxd.conf")], port, home / "log"),
        httpx.Client(base_url=url, trust_env=False) as http,
    ):
        policies = "CREATE DATABASE tele WITH DURATION 7d NAME one_week"
        assert http.post("/query", params={"q": policies}).json() == {"results": [{"statement_id": 0}]}
        now = int(time.time())
        lines = [
            f"cpu,vm={name} value={number + step} {now - 60 * step}"
            for number, (uuid, by_name) in enumerate(NAMES.items())
            for name in (uuid, by_name.replace(" ", "\\ ").replace("=", "\\="))
            for step in range(3)
            if number != 5
        ]
        assert http.post("/write", params={"db": "tele", "precision": "s"}, content="\n".join(lines)).status_code == 204
        yield url


@pytest.fixture
def grafana(influxdb: str) -> Iterator[Proxy]:
    with on_loopback(Proxy(influxdb)) as one:
        yield one


@pytest.mark.parametrize(("aggregate", "more"), [("mean", 1), ("max", 2), ("min", 0)])
async def test_values_are_what_was_written(grafana: Proxy, aggregate: str, more: int) -> None:
    found = await values(source(grafana.url, KNOWN, query=QUERY), CPU._replace(aggregate=aggregate))
    assert found == {f"vm-{number}": number + more for number in range(62) if number != 5}, (
        "who was not measured is missing"
    )
    assert len(grafana.asked) <= 3


async def test_names_that_would_end_a_text_find_themselves(grafana: Proxy) -> None:
    found = await values(source(grafana.url, KNOWN, query=QUERY, attribute="name"), CPU)
    assert found == {f"vm-{number}": number + 1 for number in range(62) if number != 5}


async def test_a_query_that_cannot_be_understood_does_not_fail_the_others(grafana: Proxy) -> None:
    by_pattern = "SELECT {0}(value) FROM {4}.cpu WHERE vm =~ /^{1}$/ AND time > now()-{2}s"
    names = {"vm-1": "web-1", "vm-2": "web-[2", "vm-3": "web-3", "vm-4": "web-4"}
    who = Known.of([], dict.fromkeys(names, Size(1, 1, 1)), names)
    assert await values(source(grafana.url, who, query=by_pattern, attribute="name"), CPU) == {
        "vm-1": 2,
        "vm-3": 4,
        "vm-4": 5,
    }


async def test_what_is_wrong_with_all_is_told_in_influxdbs_words(grafana: Proxy) -> None:
    asked = source(grafana.url, KNOWN, query=QUERY)
    with pytest.raises(DatasourceError, match="retention policy not found: one_month"):
        await values(asked, CPU._replace(window_s=700_000))
    with pytest.raises(DatasourceError, match=r"grafana answered 400 .*error parsing query"):
        await values(source(grafana.url, KNOWN, query="SELECT {0} cpu"), CPU)
