"""A Prometheus of a test's own that has a past: written into it before it starts, gone when it is told to forget."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from tests.platform.test_prometheus import free_port

PATIENCE_S = 60.0
SCRAPE_S = 60
STEP_S = 300


class PrometheusServer:
    """One server over one folder, which scrapes nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yml").write_text("{}")

    def remember(self, lines: Sequence[str]) -> None:
        """Take over a past: lines of OpenMetrics with their times; while it does not run."""
        past = self.folder / "past"
        past.write_text("\n".join([*lines, "# EOF\n"]))
        command = [
            _program("promtool"),
            "tsdb",
            "create-blocks-from",
            "openmetrics",
            str(past),
            str(self.folder / "data"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start it; returns when it answers."""
        command = [
            _program("prometheus"), f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/data", f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=error",
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/-/ready", trust_env=False).status_code == 200:
                    return
            assert self._process.poll() is None, "prometheus ended"
            time.sleep(0.2)
        raise AssertionError("prometheus did not come up")

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE_S)
            self._process = None

    def forget(self) -> None:
        """Lose all of the past, as a backend whose volume was replaced; it goes on at the same address."""
        self.stop()
        shutil.rmtree(self.folder / "data")
        self.start()


@contextlib.contextmanager
def with_past(folder: Path, lines: Sequence[str]) -> Iterator[PrometheusServer]:
    """One that runs and has this past."""
    server = PrometheusServer(folder)
    server.remember(lines)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name} on this machine (Debian: apt-get install prometheus)")
    return found


def share(resource: int, step: int) -> float:
    """The load of a resource in a step of five minutes, 0 to 1: no two steps in a row, nor two resources, are alike."""
    return 0.1 * (1 + (step + 3 * resource) % 8)


def past(end: int, steps: int, hosts: Sequence[str], instances: Sequence[str]) -> list[str]:
    """What exporters told every minute of so many whole steps until `end`.

    A host's processors are busy for its `share`, an instance uses its `share` of one core; a host has 4 GB of memory
    and its share of it is available, an instance uses 1,000 MB for a share of 1.
    """
    first = end - steps * STEP_S
    moments = range(first, end + 1, SCRAPE_S)
    lines: dict[str, list[str]] = {}

    def tell(metric: str, labels: str, values: Sequence[float]) -> None:
        told = (f"{metric}{{{labels}}} {value} {at}" for at, value in zip(moments, values, strict=True))
        lines.setdefault(metric, []).extend(told)

    for number, (label, name) in enumerate([("fqdn", one) for one in hosts] + [("resource", one) for one in instances]):
        loads = [share(number, (at - first) // STEP_S) for at in moments]
        busy = [0.0]
        for load in loads[:-1]:
            busy.append(busy[-1] + load * SCRAPE_S)
        labels = f'{label}="{name}"'
        if label == "fqdn":
            idle = [at - first - used for at, used in zip(moments, busy, strict=True)]
            tell("node_cpu_seconds_total", f'{labels},cpu="0",mode="idle"', idle)
            tell("node_cpu_seconds_total", f'{labels},cpu="0",mode="user"', busy)
            tell("node_memory_MemTotal_bytes", labels, [4e9] * len(loads))
            tell("node_memory_MemAvailable_bytes", labels, [4e9 * load for load in loads])
        else:
            tell("ceilometer_cpu", labels, [used * 1e9 for used in busy])
            tell("ceilometer_memory_usage", labels, [1000 * load for load in loads])
    return [line for some in lines.values() for line in some]
