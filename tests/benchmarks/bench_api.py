"""How fast the API is: the real program with Ray Serve in a scratch folder, asked by a load generator of its own.

Audits are stored before the program starts, 1,000 and 100,000 of them; BENCH_API_AUDITS="1000,10000" asks for
others.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import psutil

from trimtab.platform.records import Audit, Goal, Strategy
from trimtab.platform.store.state import Store
from trimtab.serve.compose import sync_catalogue

Row = tuple[str, float, str, str]
SIZES = tuple(int(size) for size in os.environ.get("BENCH_API_AUDITS", "1000,100000").split(","))
SECONDS = 5.0
READY_S = 240.0
PAGE = "/v1/audits?limit=100"
# Which proxy of Serve is in front, the environment that says so, and how many GET /v1/goals a second it should bear.
PROXIES: Mapping[str, tuple[Mapping[str, str], int]] = {
    "default proxy": ({"RAY_SERVE_ENABLE_HA_PROXY": "0"}, 200),
    "HAProxy": ({"RAY_SERVE_ENABLE_HA_PROXY": "1"}, 400),
}


def measure() -> list[Row]:
    """What, value, unit, target."""
    rows: list[Row] = [("load of the machine before (idle: below 0.3)", os.getloadavg()[0], "1 min", "< 0.3")]
    for mode, (environment, goals_per_s) in PROXIES.items():
        for size in SIZES if mode == "default proxy" else SIZES[:1]:
            with tempfile.TemporaryDirectory() as folder:
                last = _fill(Path(folder), size)
                with _running(Path(folder), environment) as (port, family):
                    named = f"{size:,} audits, {mode}"
                    rows.append((f"POST of a dummy audit to its plan, {named}", _story(port), "s", "< 0.2"))
                    rows += _lists(port, family, named, last, goals_per_s if size == SIZES[0] else None)
    return rows


def _lists(port: int, family: list[psutil.Process], named: str, last: str, goals_per_s: int | None) -> Iterator[Row]:
    asked = [
        ("GET /v1/goals", "/v1/goals", f"> {goals_per_s}" if goals_per_s else "", ""),
        (f"GET {PAGE}", PAGE, "> 150", "< 15"),
        (f"GET {PAGE}&marker=…", f"{PAGE}&marker={last}", "", "< 15"),
        (f"GET {PAGE}&sort_key=created_at", f"{PAGE}&sort_key=created_at&sort_dir=desc", "", ""),
        ("GET /v1/audits/detail?limit=100", "/v1/audits/detail?limit=100", "", ""),
        ("GET one audit", f"/v1/audits/{last}", "", ""),
    ]
    for what, path, per_s, p50 in asked:
        _load(port, path, 1, 1.0)
        alone = _load(port, path, 1, SECONDS)
        yield f"{what}, 1 client, {named}: p50", alone["p50_ms"], "ms", p50
        yield f"{what}, 1 client, {named}: p95", alone["p95_ms"], "ms", ""
        before = _cpu_s(family)
        many = _load(port, path, 8, SECONDS)
        used = 1000 * (_cpu_s(family) - before) / (many["per_s"] * SECONDS)
        yield f"{what}, 8 clients, {named}", many["per_s"], "1/s", per_s
        yield f"{what}, 8 clients, {named}: CPU of all processes", used, "ms/request", ""


def _cpu_s(family: list[psutil.Process]) -> float:
    total = 0.0
    for process in family:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _fill(folder: Path, count: int) -> str:
    """Store so many audits that are over; the uuid of one in the middle."""
    store = Store(folder / "trimtab.duckdb")
    sync_catalogue(store)
    goal, strategy = store.get(Goal, "dummy"), store.get(Strategy, "dummy")
    audits = [
        Audit(
            uuid=str(uuid4()),
            name=f"audit {number}",
            audit_type="ONESHOT",
            state="SUCCEEDED",
            parameters={"para1": 3.2, "para2": "hello"},
            goal_id=goal.id,
            strategy_id=strategy.id,
        )
        for number in range(count)
    ]
    for start in range(0, count, 10_000):
        store.create_many(audits[start : start + 10_000])
    store.close()
    return audits[count // 2].uuid


@contextmanager
def _running(folder: Path, more: Mapping[str, str]) -> Iterator[tuple[int, list[psutil.Process]]]:
    """The program on a free port, with all its processes; ended, with all it started, at the end."""
    port = _free_port()
    environment = {
        **os.environ,
        **more,
        "TRIMTAB_RAY__DASHBOARD": "false",
        "TRIMTAB_CLOUD__HOSTS": "10",
        "TRIMTAB_CLOUD__INSTANCES": "50",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "haproxy.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "haproxy.state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
    }
    command = [sys.executable, "-m", "trimtab.serve.main", "up", "--foreground"]
    command += ["--port", str(port), "--data-dir", str(folder)]
    log = folder / "log"
    with log.open("wb") as out:
        program = psutil.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    family: list[psutil.Process] = [program]
    try:
        deadline = time.monotonic() + READY_S
        while not (folder / "ready.json").exists():
            if program.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the program did not come up: {log.read_text(errors='replace')[-1500:]}")
            time.sleep(0.2)
        _wait_for_answer(port, deadline)
        time.sleep(5.0)  # workers are warm by then
        family += program.children(recursive=True)
        yield port, family
    finally:
        family += [one for one in program.children(recursive=True) if one not in family] if program.is_running() else []
        program.terminate()
        _, alive = psutil.wait_procs([program], timeout=60.0)
        _, alive = psutil.wait_procs(family, timeout=10.0)
        for one in alive:
            one.kill()
        psutil.wait_procs(alive, timeout=10.0)


def _wait_for_answer(port: int, deadline: float) -> None:
    """HAProxy hears of the replica a little later than the program says that it is ready."""
    while True:
        try:
            _ask(port, "/v1/goals")
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _load(port: int, path: str, clients: int, seconds: float) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__).with_name("http_load.py"))]
    command += ["127.0.0.1", str(port), path, str(clients), str(seconds)]
    answer = subprocess.run(command, capture_output=True, check=True, text=True)
    return dict(json.loads(answer.stdout))


def _ask(port: int, path: str, body: Mapping[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30.0) as answer:
        return json.load(answer)


def _story(port: int) -> float:
    """Median seconds from asking for an audit to its RECOMMENDED plan."""
    taken = []
    for _ in range(10):
        began = time.perf_counter()
        audit = _ask(port, "/v1/audits", {"audit_type": "ONESHOT", "goal": "dummy", "strategy": "dummy"})
        path = f"/v1/action_plans?audit_uuid={audit['uuid']}"
        while not any(plan["state"] == "RECOMMENDED" for plan in _ask(port, path)["action_plans"]):
            if time.perf_counter() - began > 30.0:
                raise RuntimeError(f"audit {audit['uuid']} has no plan: {_ask(port, '/v1/audits/' + audit['uuid'])}")
            time.sleep(0.01)
        taken.append(time.perf_counter() - began)
    return median(taken[1:])
