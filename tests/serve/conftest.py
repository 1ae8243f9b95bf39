"""A whole Trimtab in this process: real store and simulated cloud, engine and applier as tasks, no sockets."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import uvicorn
from tests.platform.recorder import Recorder

from trimtab.platform import engine
from trimtab.platform.applier import serve_plans
from trimtab.platform.clocks import PacedClock, WallClock
from trimtab.platform.collector import Collector
from trimtab.platform.compute import InProcess
from trimtab.platform.contracts import Tools
from trimtab.platform.engine import Frozen, Parts, serve_audits
from trimtab.platform.model.flat import Flat, flat
from trimtab.platform.planner import PLANNERS
from trimtab.platform.plugins import load
from trimtab.platform.scope import narrow
from trimtab.platform.settings import Settings
from trimtab.platform.snapshot import Snapshot
from trimtab.platform.store.port import StorePort, SweepsPort
from trimtab.platform.store.state import Store
from trimtab.platform.store.sweeps import Sweeps
from trimtab.serve import whatif_engine
from trimtab.serve.app import create_app
from trimtab.serve.compose import sync_catalogue
from trimtab.serve.figures import cluster_figures
from trimtab.serve.resources import Backend, WhatIfParts
from trimtab.serve.whatif_command import here
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.driver import SimulatedDatasource, SimulatedDriver, local_call
from trimtab.simulator.rehearse import rehearse
from trimtab.simulator.truth import CloudSpec

SPEED = 600.0


@dataclass
class Whole:
    """What a test works with."""

    http: httpx.AsyncClient
    store: Store
    cloud: SimulatedCloud
    collector: Collector
    parts: Parts
    files: SweepsPort
    app: Any

    async def post(self, path: str, body: Any) -> dict[str, Any]:
        answer = await self.http.post(path, json=body)
        assert answer.status_code < 300, answer.text
        return dict(answer.json())

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        answer = await self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def ended(self, path: str, within_s: float = 60.0) -> dict[str, Any]:
        """Wait until an audit or plan has ended."""
        async with asyncio.timeout(within_s):
            while True:
                body = await self.get(path)
                if body["state"] not in {"PENDING", "ONGOING", "CANCELLING"}:
                    return body
                await asyncio.sleep(0.02)


@asynccontextmanager
async def whole(
    folder: Path, spec: CloudSpec, *, working: bool = True, now: Callable[[], float] = time.time, **applier: Any
) -> AsyncIterator[Whole]:
    """Start everything; `working` False leaves audits and plans untaken; `now` is the cloud's wall clock.

    `applier`: what else `serve_plans` is told.
    """
    settings = Settings(data_dir=folder)
    store = Store(folder / "trimtab.duckdb")
    sync_catalogue(store)
    port = StorePort.direct(store)
    cloud = SimulatedCloud(spec, folder / "cloud.journal", now)
    call = local_call(cloud)
    collector = Collector(SimulatedDriver(call), SimulatedDatasource(call), Recorder(folder / "metrics"), 86_400.0)

    async def freeze(scope: Any, needs: Any, failed: Any, models: Any) -> Frozen:
        snapshot = await collector.freeze(scope, needs, failed, models)
        return Frozen(snapshot, snapshot)

    parts = Parts(
        port,
        freeze,
        InProcess(),
        load(),
        PLANNERS,
        rehearse,
        settings.limits,
        refresh=collector.collect,
        refusals=collector.driver.refusals,
    )
    audits, plans = asyncio.Event(), asyncio.Event()
    tools = Tools(SimulatedDriver(call), PacedClock(*cloud.pace()), WallClock())
    tasks = []
    if working:
        tasks = [
            asyncio.create_task(serve_audits(parts, audits, idle_s=0.05)),
            asyncio.create_task(
                serve_plans(
                    port,
                    "applier",
                    handlers=load().actions,
                    tools=tools,
                    limits=settings.limits,
                    wake=plans,
                    idle_s=0.05,
                    **applier,
                )
            ),
        ]

    async def audit_created() -> None:
        audits.set()

    async def plan_started(_: str) -> None:
        plans.set()

    async def cluster() -> Mapping[str, Any]:
        return cluster_figures(collector)

    async def model_table(_: str) -> bytes | None:
        return None

    async def data_model(scope: Any) -> Flat:
        return flat(narrow(await collector.newest(), scope)[0])

    files = SweepsPort.direct(Sweeps(folder / "whatifs"))
    sweeps = asyncio.Event()

    async def snapshot() -> Snapshot:
        return await collector.freeze([], [])

    async def whatif_changed() -> None:
        sweeps.set()

    async def check_plan(plan_uuid: str, replan: bool) -> engine.Checked:
        return await engine.check_plan(parts, plan_uuid, replan=replan)

    if working:
        sweeping = whatif_engine.Parts(port, files, here)
        tasks.append(asyncio.create_task(whatif_engine.serve_whatifs(sweeping, sweeps, idle_s=0.05)))
    whatifs = WhatIfParts(files, snapshot, whatif_changed)
    app = create_app(
        Backend(
            port,
            settings,
            audit_created,
            plan_started,
            cluster,
            model_table,
            whatifs,
            data_model,
            collector.availability,
            partial(engine.plan_candidate, parts),
            partial(engine.plan_rollback, parts),
            check_plan,
        )
    )
    transport = httpx.ASGITransport(app)
    headers = {"OpenStack-API-Version": "infra-optim latest"}
    async with httpx.AsyncClient(transport=transport, base_url="http://trimtab:9322", headers=headers) as http:
        try:
            yield Whole(http, store, cloud, collector, parts, files, app)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            store.close()


@pytest.fixture
async def idle(tmp_path: Path) -> AsyncIterator[Whole]:
    """HTTP over a real store; nobody takes audits or plans, so that their states stay put."""
    async with whole(tmp_path, CloudSpec(hosts=6, instances=20, seed=3), working=False) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Whole]:
    """Like `idle`, one for a whole file of tests: for those that ask much and leave little behind."""
    folder = tmp_path_factory.mktemp("shared")
    async with whole(folder, CloudSpec(hosts=6, instances=20, seed=3), working=False) as running:
        yield running


@pytest.fixture
async def working(tmp_path: Path) -> AsyncIterator[Whole]:
    """A small cloud in a hurry (ten cloud minutes a second) that is audited and changed for real."""
    async with whole(tmp_path, CloudSpec(hosts=20, instances=120, seed=3, speed=SPEED)) as running:
        yield running


@pytest.fixture
def whole_trimtab() -> Any:
    """For tests that need several, or one of their own kind."""
    return whole


@asynccontextmanager
async def on_a_socket(app: Any) -> AsyncIterator[str]:
    """The address of an application on a real socket, for what cannot be given a transport: the command line."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as waiting:
        task = asyncio.create_task(server.serve(sockets=[waiting]))
        try:
            yield f"http://127.0.0.1:{waiting.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@pytest.fixture
async def listening(idle: Whole) -> AsyncIterator[str]:
    """The address of `idle`."""
    async with on_a_socket(idle.app) as url:
        yield url


@pytest.fixture
async def listening_at_work(working: Whole) -> AsyncIterator[tuple[Whole, str]]:
    """`working` and its address."""
    async with on_a_socket(working.app) as url:
        yield working, url
