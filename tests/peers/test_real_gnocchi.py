"""A real Gnocchi behind a real Keystone: what was pushed into it, as our datasource tells it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import pytest
from tests.peers.conftest import needed
from tests.peers.identity import Keystone
from tests.peers.measuring import serving, source, values
from tests.peers.test_watcher_databases import free_port, program, run, served

from trimtab.platform.datasources.known import Known, Size
from trimtab.platform.datasources.ordered import Ordered
from trimtab.platform.errors import DatasourceError
from trimtab.platform.snapshot import Need

pytestmark = pytest.mark.peers

STEP, STEPS = 300, 12
BUSY, HALF, YOUNG, ODD, UNMEASURED = (str(UUID(int=number)) for number in range(1, 6))
KNOWN = Known.of(
    [("h-0", ("cmp-0", "cmp-0.example")), ("h-1", ("cmp-1",))],
    {BUSY: Size(1, 1024, 10), HALF: Size(4, 2048, 20), **dict.fromkeys((YOUNG, ODD, UNMEASURED), Size(2, 512, 5))},
)
POLICIES = {  # as Ceilometer's documentation has them, and one of an operator's own
    "ceilometer-low": (["mean"], 300),
    "ceilometer-low-rate": (["mean", "rate:mean"], 300),
    "all": (["mean", "max", "min"], 300),
    "own": (["mean", "rate:mean"], 60),
}


@dataclass
class Pushed:
    """What Gnocchi was given: begin of the newest granule, and points by resource and metric."""

    at: float
    points: dict[str, dict[str, list[tuple[float, float]]]]

    def of(self, resource: str, metric: str) -> list[float]:
        return [value for _, value in self.points[resource][metric]]


@pytest.fixture(scope="module")
def gnocchi(keystone: Keystone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One with its index in a MariaDB of its own, measures in files; its address, which the catalogue has too."""
    needed("gnocchi")
    home, port = tmp_path_factory.mktemp("gnocchi"), free_port()
    server, install, client = program("mariadbd"), program("mariadb-install-db"), program("mariadb")
    as_me = [f"--user={home.owner()}"]
    run(
        install,
        "--no-defaults",
        *as_me,
        f"--datadir={home}/db",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
    )
    command = [server, "--no-defaults", *as_me, f"--datadir={home}/db", f"--socket={home}/socket",
               f"--port={port}", "--bind-address=127.0.0.1", f"--pid-file={home}/pid"]  # fmt: skip
    with served(command, port, home / "log"):
        grant = "CREATE USER gnocchi@'127.0.0.1' IDENTIFIED BY 'secret'; GRANT ALL ON gnocchi.* TO gnocchi@'127.0.0.1';"
        run(
            client, "--no-defaults", "--user=root", f"--socket={home}/socket", given=f"CREATE DATABASE gnocchi; {grant}"
        )
        (home / "data").mkdir()
        files = {"driver": "file", "file_basepath": home / "data"}
        with serving(
            "gnocchi",
            "metric",
            home,
            keystone,
            DEFAULT={"coordination_url": f"file://{home}/turns", "log_file": home / "gnocchi.log"},
            api={"auth_mode": "keystone"},
            indexer={"url": f"mysql+pymysql://gnocchi:secret@127.0.0.1:{port}/gnocchi"},
            storage=files,
            incoming=files,
        ) as url:
            yield url


@pytest.fixture(scope="module")
def pushed(gnocchi: str, keystone: Keystone) -> Pushed:
    """An hour of measures, through Gnocchi's own API."""
    at = time.time() // STEP * STEP
    moments = [at - STEP * back for back in reversed(range(STEPS))]
    shares = {BUSY: 0.9, HALF: 2.0, YOUNG: 0.5, ODD: 1.0}  # cores
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for vm, cores in shares.items():
        mine = moments[-2:] if vm == YOUNG else moments
        grows = np.cumsum([cores * STEP * 1e9 * (1 + 0.01 * step) for step in range(len(mine))])
        ram = [100.0 + step for step in range(len(mine))]
        points[vm] = {
            "cpu": [*zip(mine, grows.tolist(), strict=True)],
            "memory.resident": [*zip(mine, ram, strict=True)],
        }
    points[HALF]["memory.resident"] = points[HALF]["memory.resident"][::2]  # polled more rarely than the others
    points["cmp-0_cmp-0.example"] = {
        "compute.node.cpu.percent": [(one, 10.0 + number) for number, one in enumerate(moments)]
    }
    points["cmp-0"] = {"hardware.ipmi.node.airflow": [(moments[-1], 12.5)]}
    points["cmp-1_cmp-1"] = {"compute.node.cpu.percent": [(moments[-1], 77.0)]}
    policy = {"cpu": "ceilometer-low-rate", "compute.node.cpu.percent": "all"}
    with httpx.Client(base_url=gnocchi, timeout=60, trust_env=False) as http:
        http.headers["X-Auth-Token"] = keystone.token("admin", "admin")

        def told(method: str, path: str, body: Any = None, **params: str) -> Any:
            answer = http.request(method, path, json=body, params=params)
            assert answer.status_code < 300, answer.text
            return answer

        there = {one["name"] for one in told("GET", "/v1/archive_policy").json()}
        for name, (methods, granularity) in POLICIES.items():
            if name not in there:
                definition = [{"granularity": granularity, "timespan": "30 days"}]
                told(
                    "POST",
                    "/v1/archive_policy",
                    {"name": name, "aggregation_methods": methods, "definition": definition},
                )
        points[UNMEASURED] = {"memory.resident": []}
        for resource, metrics in points.items():
            wanted = {
                name: {"archive_policy_name": "own" if resource == ODD else policy.get(name, "ceilometer-low")}
                for name in metrics
            }
            told("POST", "/v1/resource/generic", {"id": resource, "metrics": wanted})
        batch = {
            resource: {
                name: [
                    {"timestamp": datetime.fromtimestamp(one, UTC).isoformat(), "value": value} for one, value in some
                ]
                for name, some in metrics.items()
            }
            for resource, metrics in points.items()
        }
        told("POST", "/v1/batch/resources/metrics/measures", batch)
        for resource, metrics in points.items():
            for name in metrics:  # Gnocchi reckons its aggregates now
                told("GET", f"/v1/resource/generic/{resource}/metric/{name}/measures", refresh="true")
    return Pushed(at, points)


@pytest.fixture
def asked(pushed: Pushed, keystone: Keystone) -> Ordered:
    return source(keystone, "gnocchi", KNOWN)


async def test_values_are_what_was_measured(asked: Ordered, pushed: Pushed) -> None:
    needs = [
        Need("instance_cpu_usage", "instance", "mean", STEP - 1),
        Need("instance_ram_usage", "instance", "mean", STEP - 1),
        Need("host_cpu_usage", "host", "mean", STEP - 1),
        Need("host_airflow", "host", "mean", STEP - 1),
        Need("host_power", "host"),
        Need("instance_l3_cache_usage", "instance"),
    ]
    found = await values(asked, pushed.at + STEP - 1, *needs)
    for vm, cores in ((BUSY, 1), (HALF, 4), (YOUNG, 2)):
        before, last = pushed.of(vm, "cpu")[-2:]
        assert found.pop(("instance_cpu_usage", vm)) == pytest.approx(100 * (last - before) / (STEP * 1e9) / cores)
    assert found == {
        ("instance_ram_usage", BUSY): 111.0,
        ("instance_ram_usage", YOUNG): 101.0,
        ("host_cpu_usage", "h-0"): 21.0,
        ("host_cpu_usage", "h-1"): 77.0,
        ("host_airflow", "h-0"): 125.0,
    }, "who was not measured then, keeps other steps or has no such metric is missing, and spoils nothing"


async def test_windows_are_aggregated_whole(asked: Ordered, pushed: Pushed) -> None:
    at, window = pushed.at + STEP, STEP * STEPS
    measured = pushed.of("cmp-0_cmp-0.example", "compute.node.cpu.percent")
    for aggregate, expected in (("mean", np.mean(measured)), ("max", max(measured)), ("min", min(measured))):
        found = await values(asked, at, Need("host_cpu_usage", "host", aggregate, window))
        assert found == {
            ("host_cpu_usage", "h-0"): pytest.approx(expected),
            ("host_cpu_usage", "h-1"): 77.0,
        }
    ram = await values(asked, at, Need("instance_ram_usage", "instance", "mean", window))
    assert ram["instance_ram_usage", HALF] == pytest.approx(np.mean(pushed.of(HALF, "memory.resident")))
    assert ram["instance_ram_usage", YOUNG] == pytest.approx(100.5), "of what there is"
    assert await values(asked, at, Need("instance_ram_usage", "instance", "max", window)) == {}, "its policy keeps none"


async def test_one_question_a_metric_and_one_more_look_where_gnocchi_refuses(asked: Ordered, pushed: Pushed) -> None:
    (gnocchi,) = asked.sources
    paths: list[str] = []

    async def count(request: httpx.Request) -> None:
        paths.append(f"{request.method} {request.url.path}")

    gnocchi.asking.client.event_hooks["request"].append(count)  # type: ignore[attr-defined]
    needs = [Need("host_cpu_usage", "host"), Need("instance_cpu_usage", "instance")]
    await values(asked, pushed.at + 60, *needs)
    assert sorted(paths) == ["GET /v1/metric"] * 2 + ["POST /v1/aggregates"] * 3
    paths.clear()
    await values(asked, pushed.at + 60, *needs)
    assert paths == ["POST /v1/aggregates"] * 2


async def test_samples_are_the_granules_that_are_over(asked: Ordered, pushed: Pushed) -> None:
    end = pushed.at + STEP + 100
    table = await asked.samples("instance_cpu_usage", "instance", end - 86400, end)
    measured = pushed.points[BUSY]["cpu"]
    expected = [(at, 100 * (value - before) / (STEP * 1e9)) for (_, before), (at, value) in pairwise(measured)]
    mine = sorted((row["at"], row["value"]) for row in table.to_pylist() if row["resource"] == BUSY)
    assert [at for at, _ in mine] == [at for at, _ in expected[:-1]], "without the last, whose measures still come in"
    assert [value for _, value in mine] == pytest.approx([value for _, value in expected[:-1]])
    assert set(table.column("resource").to_pylist()) == {BUSY, HALF}, (
        "the young one has no rate before its second value"
    )
    later = await asked.samples("instance_cpu_usage", "instance", mine[-1][0] + 1e-3, end + STEP)
    assert sorted(later.column("resource").to_pylist()) == [BUSY, HALF, YOUNG]


async def test_who_may_not_read_is_told(pushed: Pushed, keystone: Keystone) -> None:
    keystone.user("nobody", "elsewhere", ["reader"])
    theirs = source(keystone, "gnocchi", KNOWN, "nobody", "elsewhere")
    assert await values(theirs, pushed.at + 60, Need("instance_cpu_usage", "instance")) == {}, "not theirs to see"
    keystone.passwords["nobody"] = "wrong"
    with pytest.raises(DatasourceError, match=r"gnocchi does not answer: .*check the credentials"):
        await values(source(keystone, "gnocchi", KNOWN, "nobody", "elsewhere"), pushed.at, Need("host_power", "host"))
