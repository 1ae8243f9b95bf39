"""Nodes of a Ray cluster with a token, each a `ray start` of its own on a loopback address, and Trimtab beside them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from tests.peers.server import Trimtab, free_port

# Ray gives a node 30 s to start, which a busy machine may exceed.
ATTEMPTS, STARTED_S, UP_S = 4, 120.0, 300.0
# What docs/deploy.md sets on every node. Of the exporter's ports, which ask for no token, there are none.
VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_enable_metrics_collection": "0",
}


class NotStartedError(Exception):
    """A node did not start; the message has the end of its log."""


def without_ours(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment in which nobody has said anything about Ray, Trimtab or a cloud."""
    return {name: value for name, value in environ.items() if not name.startswith(("RAY_", "TRIMTAB_", "OS_"))}


def kill_family(process: psutil.Process) -> None:
    """Kill a process and all that it started, as a machine that loses its power does."""
    try:
        family = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for one in family:
        try:
            one.kill()
        except psutil.NoSuchProcess:  # it went with another of them
            continue
    psutil.wait_procs(family, timeout=10.0)


class Program:
    """The command line of Trimtab with a configuration file and an environment of its own."""

    def __init__(self, folder: Path, environment: Mapping[str, str], toml: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.data, self.config = folder / "data", folder / "trimtab.toml"
        self.environment = dict(environment)
        self.port = free_port()
        self.config.write_text(f'data_dir = "{self.data}"\nport = {self.port}\n{toml}')
        self.url = f"http://127.0.0.1:{self.port}"

    def run(self, *words: str, **changed: str) -> subprocess.CompletedProcess[str]:
        """`trimtab WORDS`, with some variables changed; it may fail."""
        command = [sys.executable, "-m", "trimtab.serve.main", *words, "--config", str(self.config)]
        environment = {**self.environment, "COLUMNS": "1000", **changed}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=UP_S, check=False, cwd=self.config.parent
        )

    def up(self) -> Trimtab:
        """`trimtab up`; the API, once it answers and the cloud has been collected."""
        done = self.run("up")
        assert done.returncode == 0, done.stdout + done.stderr
        api = Trimtab(self.url, {})
        deadline = time.monotonic() + 90.0
        while api.ask("GET", "/v1/cluster").json().get("version", 0) == 0:
            assert time.monotonic() < deadline, "the cloud was never collected"
            time.sleep(0.2)
        return api

    def addresses(self) -> dict[str, Any]:
        """Where it can be reached, as it says itself."""
        told: dict[str, Any] = json.loads((self.data / "ready.json").read_text())
        return told

    def running(self) -> bool:
        """Whether it is up."""
        return (self.data / "ready.json").exists() and psutil.pid_exists(self.supervisor().pid)

    def supervisor(self) -> psutil.Process:
        """The process that `trimtab up` left running."""
        return psutil.Process(json.loads((self.data / "trimtab.pid").read_text())["pid"])

    def end(self) -> None:
        """Leave no process behind, whatever state a test left this in."""
        if (self.data / "trimtab.pid").exists() and self.run("down").returncode != 0:
            kill_family(self.supervisor())


class Nodes:
    """A cluster whose first node is its head."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = secrets.token_hex(32)
        token_file = folder / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(self.token)
        self.environment = {
            **without_ours(os.environ),
            **VARIABLES,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token_file),
        }
        self.address = f"127.0.0.2:{free_port()}"
        self.dashboard = f"http://127.0.0.1:{free_port()}"
        self.started: list[psutil.Popen] = []

    def add(self, **more: str) -> psutil.Popen:
        """One more node of one CPU, on an address of its own; the process that the others of it end with.

        Addresses other than 127.0.0.1, which Ray takes for the one that others see this machine at.
        """
        where = f"127.0.0.{2 + len(self.started)}"
        words = ["--address", self.address]
        if not self.started:
            words = ["--head", "--port", self.address.rpartition(":")[2], "--ray-client-server-port", str(free_port())]
            words += ["--dashboard-host", "127.0.0.1", "--dashboard-port", self.dashboard.rpartition(":")[2]]
        words += ["--node-ip-address", where, "--num-cpus", "1", "--object-store-memory", "100000000"]
        words += ["--min-worker-port", "0", "--max-worker-port", "0", "--temp-dir", str(self.folder / "r"), "--block"]
        command = [str(Path(sys.executable).with_name("ray")), "start", *words]
        for _ in range(ATTEMPTS):
            log = self.folder / f"{where}.log"
            with log.open("wb") as sink:
                node = psutil.Popen(
                    command,
                    env={**self.environment, **more},
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=sink,
                    start_new_session=True,
                )
            deadline = time.monotonic() + STARTED_S
            while node.poll() is None and time.monotonic() < deadline:
                if "Ray runtime started" in log.read_text(errors="replace"):
                    self.started.append(node)
                    return node
                time.sleep(0.2)
            kill_family(node)
        raise NotStartedError(f"a node did not start; its log ends:\n{log.read_text(errors='replace')[-3000:]}")

    def ask_dashboard(self, path: str, **headers: str) -> httpx.Response:
        """What Ray's dashboard answers; without `Authorization` as somebody without a token."""
        return httpx.get(f"{self.dashboard}{path}", headers=headers, timeout=30.0, trust_env=False)

    def listed(self, what: str, **only: str) -> list[dict[str, Any]]:
        """Ray's state API: its nodes, actors or tasks, those with these values."""
        told = self.ask_dashboard(
            f"/api/v0/{what}?detail=true&limit=10000", Authorization=f"Bearer {self.token}"
        ).json()
        rows: list[dict[str, Any]] = told["data"]["result"]["result"]
        return [row for row in rows if all(row[name] == value for name, value in only.items())]

    def node_id(self, number: int) -> str:
        """The id of the node that was added as this one, the head being 0."""
        (found,) = self.listed("nodes", node_ip=f"127.0.0.{2 + number}", state="ALIVE")
        return str(found["node_id"])

    def end(self) -> None:
        """End all nodes."""
        for node in self.started:
            kill_family(node)


@contextmanager
def nodes() -> Iterator[Nodes]:
    """A cluster of no node as yet; its folder has a short name, because paths of sockets must."""
    folder = Path(tempfile.mkdtemp(prefix="tt", dir="/tmp"))
    cluster = Nodes(folder)
    try:
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(folder, ignore_errors=True)


def until(said: Callable[[], Any], within_s: float = 90.0) -> Any:
    """Wait for something that must come true; what was said then."""
    deadline = time.monotonic() + within_s
    while not (value := said()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)
    return value
