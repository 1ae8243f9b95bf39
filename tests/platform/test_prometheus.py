"""Prometheus as a datasource, a real one: few queries, the right units, and what is dead is noticed once."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from trimtab.platform.datasources.asking import Asking
from trimtab.platform.datasources.known import Known, Size
from trimtab.platform.datasources.ordered import Ordered
from trimtab.platform.datasources.prometheus import Prometheus
from trimtab.platform.errors import DatasourceError
from trimtab.platform.snapshot import Need

KNOWN = Known.of(
    [("h-0", ("cmp-0.example",)), ("h-1", ("cmp-1.example",))],
    {"vm-0": Size(2.0, 4096.0, 20.0), "vm-1": Size(4.0, 8192.0, 40.0)},
)
STARTED = time.time()


def exposition() -> str:
    """Host 0 is busy at 30 %, host 1 at 80 %; instance 0 uses 50 % of its two vCPUs, instance 1 25 % of its four."""
    age = time.time() - STARTED + 1000
    lines = [
        f'node_cpu_seconds_total{{fqdn="cmp-{host}.example",cpu="{cpu}",mode="{mode}"}} {share * age}'
        for host, busy in ((0, 0.3), (1, 0.8))
        for cpu in (0, 1)
        for mode, share in (("idle", 1 - busy), ("user", busy))
    ]
    for host, free in ((0, 3e9), (1, 1e9)):
        lines.append(f'node_memory_MemTotal_bytes{{fqdn="cmp-{host}.example"}} 4e9')
        lines.append(f'node_memory_MemAvailable_bytes{{fqdn="cmp-{host}.example"}} {free}')
    for vm, cores in ((0, 1.0), (1, 1.0), (9, 1.0)):  # the last one is of somebody else's cloud
        lines.append(f'ceilometer_cpu{{resource="vm-{vm}"}} {cores * age * 1e9}')
        lines.append(f'ceilometer_memory_usage{{resource="vm-{vm}"}} {1024 * (vm + 1)}')
    return "\n".join(lines) + "\n"


class Exporter(BaseHTTPRequestHandler):
    """Answers every GET with the metrics of this moment."""

    def do_GET(self) -> None:
        body = exposition().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Backend:
    url: str
    paths: list[str]

    def source(self) -> Prometheus:
        async def count(request: httpx.Request) -> None:
            self.paths.append(request.url.path)

        client = httpx.AsyncClient(base_url=self.url, timeout=10, event_hooks={"request": [count]})
        return Prometheus(Asking("prometheus", client), lambda: KNOWN)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("there is no prometheus on this machine (Debian: apt-get install prometheus)")
    folder: Path = tmp_path_factory.mktemp("prometheus")
    exporter = ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
    threading.Thread(target=exporter.serve_forever, daemon=True).start()
    scrape = {"job_name": "lab", "static_configs": [{"targets": [f"127.0.0.1:{exporter.server_port}"]}]}
    config = {"global": {"scrape_interval": "200ms"}, "scrape_configs": [scrape]}
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    command = [
        program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield ready(Backend(f"http://127.0.0.1:{port}", []))
        finally:
            process.terminate()
            exporter.shutdown()
            exporter.server_close()


def ready(backend: Backend, patience_s: float = 60.0) -> Backend:
    """Wait until it has scraped often enough for a rate."""
    give_up = time.monotonic() + patience_s
    while time.monotonic() < give_up:
        try:
            answer = httpx.get(f"{backend.url}/api/v1/query", params={"query": "count_over_time(ceilometer_cpu[1m])"})
            counts = [int(one["value"][1]) for one in answer.json()["data"]["result"]]
            if counts and min(counts) >= 18:
                return backend
        except (httpx.HTTPError, ValueError, KeyError):
            pass
        time.sleep(0.3)
    raise AssertionError("prometheus scraped nothing")


def values(source: Any, needs: list[Need]) -> dict[tuple[str, str], float]:
    table = asyncio.run(source.aggregate(needs, time.time())).to_pylist()
    return {(needs[row["need"]].metric, row["resource"]): row["value"] for row in table}


def test_every_metric_of_every_resource_in_one_question_each(backend: Backend) -> None:
    needs = [Need(metric, kind, "mean", 3, 3) for metric, kind in Prometheus.metrics.items()]
    backend.paths.clear()
    found = values(backend.source(), needs)
    assert len(backend.paths) == 4, "what the model knows is not asked for"
    # A rate over so few scrapes loses up to a scrape interval at each end.
    assert found["host_cpu_usage", "h-0"] == pytest.approx(30, abs=12)
    assert found["host_cpu_usage", "h-1"] == pytest.approx(80, abs=5)
    assert found["instance_cpu_usage", "vm-0"] == pytest.approx(50, rel=0.3)
    assert found["instance_cpu_usage", "vm-1"] == pytest.approx(25, rel=0.3)
    assert found["host_ram_usage", "h-1"] == pytest.approx(3e9 / 1024), "KiB"
    assert found["instance_ram_usage", "vm-1"] == 2048
    assert found["instance_ram_allocated", "vm-0"] == 4096
    assert found["instance_root_disk_size", "vm-1"] == 40
    assert {resource for _, resource in found} == {"h-0", "h-1", "vm-0", "vm-1"}, "no strangers"


@pytest.mark.parametrize("aggregate", ["max", "min", "count"])
def test_the_other_aggregates_are_understood(backend: Backend, aggregate: str) -> None:
    needs = [Need(metric, kind, aggregate, 120, 300) for metric, kind in Prometheus.metrics.items()]
    found = values(backend.source(), needs)
    assert found["host_ram_usage", "h-0"] == pytest.approx(1e9 / 1024)
    # Their steps are whole minutes, of which a young Prometheus may have none yet.
    assert 0 <= found.get(("instance_cpu_usage", "vm-0"), 0.0) <= 100


def test_what_is_not_measured_is_missing_and_not_asked_for(backend: Backend) -> None:
    backend.paths.clear()
    assert values(backend.source(), [Need("host_outlet_temp", "host"), Need("host_cpu_usage", "instance")]) == {}
    assert backend.paths == []


def test_samples_are_those_of_whole_steps(backend: Backend) -> None:
    now = time.time()
    table = asyncio.run(backend.source().samples("instance_ram_usage", "instance", now - 900, now + 300))
    assert all(at % 300 == 0 for at in table.column("at").to_pylist())
    backend.paths.clear()
    long = asyncio.run(backend.source().samples("host_ram_usage", "host", now - 60 * 86400, now))
    assert len(backend.paths) == 2, "more steps than one question may have"
    assert long.num_rows >= 0


def test_a_dead_backend_is_noticed_once_and_the_next_one_is_asked(backend: Backend) -> None:
    clock = [0.0]
    dead = Prometheus(
        Asking("dead", httpx.AsyncClient(base_url="http://127.0.0.1:9"), now=lambda: clock[0]), lambda: KNOWN
    )
    needs = [Need("host_cpu_usage", "host", "mean", 3, 3), Need("instance_cpu_usage", "instance", "mean", 3, 3)]
    with pytest.raises(DatasourceError, match=r"dead at http://127\.0\.0\.1:9 does not answer"):
        values(dead, needs)
    begun = time.monotonic()
    for _ in range(200):
        with pytest.raises(DatasourceError):
            values(dead, needs)
    assert time.monotonic() - begun < 5, "nobody waits for it again"
    assert values(Ordered([dead, backend.source()]), needs).keys() == values(backend.source(), needs).keys()
    with pytest.raises(DatasourceError, match="dead at"):
        values(Ordered([dead]), needs)


def test_each_metric_comes_from_the_first_that_has_it(backend: Backend) -> None:
    class Thermometer:
        name = "thermometer"

        def offers(self, metric: str) -> bool:
            return metric == "host_outlet_temp"

        async def aggregate(self, needs: Sequence[Need], at: float) -> Any:
            import pyarrow as pa

            return pa.table({"need": pa.array([0], pa.int32()), "resource": ["h-0"], "value": [21.5]})

        async def samples(self, *_: Any) -> Any:
            raise AssertionError("not asked")

    needs = [Need("host_outlet_temp", "host"), Need("host_ram_usage", "host", "mean", 3, 3)]
    found = values(Ordered([Thermometer(), backend.source()]), needs)
    assert found["host_outlet_temp", "h-0"] == 21.5
    assert found["host_ram_usage", "h-0"] == pytest.approx(1e9 / 1024)


def test_hosts_are_found_by_all_their_names() -> None:
    known = Known.of([("a", ("cmp-1.x", "cmp-1")), ("b", ("cmp-2.x",)), ("c", ("same.x",)), ("d", ("same.y",))], {})
    assert [known.host(name) for name in ("cmp-1", "cmp-1.x", "cmp-1.x:9100", "cmp-2", "cmp-2:9100")] == [*"aaabb"]
    assert [known.host(name) for name in ("same.x", "same.y", "same", "unknown")] == ["c", "d", None, None]
