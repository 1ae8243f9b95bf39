"""The composition root: the one module that knows every class. Settings in, running parts out."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from trimtab.serve import local_ray  # sets what Ray reads when it is imported, so it comes first

import ray  # isort: skip
from ray.exceptions import RayError  # isort: skip

from trimtab.platform import housekeeping, liveness
from trimtab.platform.applier import serve_plans
from trimtab.platform.clocks import WallClock
from trimtab.platform.collector import Availability, Collector
from trimtab.platform.contracts import Tools
from trimtab.platform.engine import Checked, Parts, serve_audits
from trimtab.platform.errors import CloudUnavailable, Conflict, InvalidInput, TrimtabError
from trimtab.platform.lease import cancelled
from trimtab.platform.model import ClusterModel, read_model, write_model
from trimtab.platform.model.flat import Flat
from trimtab.platform.plugins import load, scoring_engines
from trimtab.platform.publishing import Sent, publish
from trimtab.platform.records import ActionPlan, Goal, Json, ScoringEngine, Strategy
from trimtab.platform.rules import AnyRule, read_rules
from trimtab.platform.runtime import actors
from trimtab.platform.runtime.compute import RayCompute
from trimtab.platform.schema import parameters_spec
from trimtab.platform.secrets import hide_secrets
from trimtab.platform.settings import Settings
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.platform.store.catalogue import Synced
from trimtab.platform.store.measurements import Measurements
from trimtab.platform.store.port import StorePort, SweepsPort
from trimtab.platform.store.state import Store
from trimtab.platform.store.sweeps import Sweeps
from trimtab.serve import worlds
from trimtab.serve.effects import OurRecord, settle
from trimtab.serve.figures import cluster_figures
from trimtab.serve.warm import warm_worker
from trimtab.serve.worlds import World
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.rehearse import ASSUMPTIONS, rehearse
from trimtab.simulator.truth import CloudSpec

if TYPE_CHECKING:
    from trimtab.serve.resources import Backend

log = logging.getLogger(__name__)

# Serve and FastAPI are imported where they are used: every actor's process imports this module, few need those.

APPLICATION = "trimtab"
PORT_S = 20.0  # how long Serve's proxy on a cluster that goes on may take to end
FOLD_S = 10.0  # how long the way down waits for the records' file
ESTATE = "estate"  # folder of an imported model, below the data folder


# -- what each actor holds; built inside the actor's own process ----------------------------------


def build_state(settings: Settings) -> Mapping[str, Any]:
    """The store and the measurements: everything that touches files."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    store = Store(settings.data_dir / "trimtab.duckdb")
    sync_catalogue(store)
    return {
        "store": store,
        "measurements": Measurements(settings.data_dir / "metrics"),
        "sweeps": Sweeps(settings.data_dir / "whatifs"),
    }


def sync_catalogue(store: Store) -> Synced:
    """Make the stored catalogue equal to the installed plug-ins."""
    plugins = load()
    goals = [
        Goal(
            uuid=str(uuid.uuid4()),
            name=goal.name,
            display_name=goal.display_name,
            efficacy_specification=[indicator.wire() for indicator in goal.indicators],
        )
        for goal in plugins.goals.values()
    ]
    strategies = [
        (
            Strategy(
                uuid=str(uuid.uuid4()),
                name=strategy.name,
                display_name=strategy.display_name,
                goal_id=0,
                parameters_spec=parameters_spec(strategy),
            ),
            strategy.goal,
        )
        for strategy in plugins.strategies.values()
    ]
    descriptions = {name: handler.description for name, handler in plugins.actions.items()}
    engines = [
        ScoringEngine(uuid=str(uuid.uuid4()), name=one.name, description=one.description, metainfo=one.metainfo)
        for one in scoring_engines().values()
    ]
    return store.sync_catalogue(goals, strategies, descriptions, engines)


def build_cloud(settings: Settings) -> Mapping[str, Any]:
    """The simulated cloud, new or replayed from its journal."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    estate = settings.data_dir / ESTATE
    spec = CloudSpec(
        hosts=settings.cloud.hosts,
        instances=settings.cloud.instances,
        zones=settings.cloud.zones,
        seed=settings.cloud.seed,
        speed=settings.cloud.speed,
        history_s=settings.history_s,
        traces=str(settings.cloud.trace) if settings.cloud.trace else None,
        estate=str(estate) if estate.exists() else None,
    )
    return {"cloud": SimulatedCloud(spec, settings.data_dir / "cloud.journal", time.time)}


def build_model(settings: Settings) -> actors.ModelParts:
    """The collector over the cloud, recording into the state actor's Parquet store."""
    world = _world(settings)
    collector = Collector(
        world.driver,
        world.datasource,
        _recorder(),
        settings.history_s,
        settings.keep_days,
        rules=_operators_rules(settings),
    )
    return actors.ModelParts(collector, world.wall_interval_s, cluster_figures, world.follow)


def build_engine(settings: Settings, gauges: actors.Gauges) -> actors.EngineParts:
    """The engine: audits from the store, snapshots from the model actor, work on the cluster."""
    store = StorePort(actors.call_of(_actor("state"), "store"))
    world = _world(settings)
    # An arrival is noticed half a look later, on average.
    assumptions = replace(ASSUMPTIONS, notice_s=settings.migration_interval_s / 2)
    plugins = load()
    parts = Parts(
        store=store,
        freeze=partial(actors.freeze_through, _actor("model")),
        compute=RayCompute(settings.audit_deadline_s),
        plugins=plugins,
        planners=plugins.planners,
        rehearse=partial(rehearse, horizon_s=settings.horizon_s, assumptions=assumptions),
        limits=settings.limits,
        seed=settings.seed,
        hostname=settings.hostname,
        owner=f"engine@{settings.hostname}:{os.getpid()}",
        lease_s=settings.lease_s,
        tell=gauges,
        weigh=settings.weigh_moves,
        down_after_s=settings.service_down_time_s,
        refresh=partial(actors.collect_through, _actor("model")),
        refusals=partial(actors.refusals_through, _actor("model")),
    )
    measure = world.measuring(OurRecord(store, _newest_model, _recorder()))
    put_away = partial(
        housekeeping.put_away,
        store,
        parts.wall,
        settings.hostname,
        expiry_h=settings.action_plan_expiry_h,
        expire_every_s=settings.check_periodic_interval_s,
        down_after_s=settings.service_down_time_s,
    )
    return actors.EngineParts(
        parts,
        partial(serve_audits, workers=settings.max_audit_workers, look_s=settings.continuous_audit_interval_s),
        partial(settle, store, world.clock, measure, settings.horizon_s, gauges, world.late_s),
        warm_worker,
        (partial(_signs_of_life, settings, store, liveness.ENGINE), put_away),
    )


async def _newest_model() -> ClusterModel:
    """The compute model as it was collected last."""
    return (await actors.freeze_through(_actor("model"), [], [], [])).snapshot.model


def _recorder() -> RemoteRecorder:
    return RemoteRecorder(actors.call_of(_actor("state"), "measurements"))


def _signs_of_life(settings: Settings, store: StorePort, service: str) -> Coroutine[Any, Any, None]:
    return housekeeping.stay_alive(
        store,
        WallClock(),
        service,
        settings.hostname,
        every_s=settings.periodic_interval_s,
        down_after_s=settings.service_down_time_s,
    )


def build_whatifs(settings: Settings) -> Callable[[asyncio.Event], Coroutine[Any, Any, None]]:
    """What runs sweeps: their files through the state actor, their cells on the cluster."""
    from trimtab.platform.runtime.cells import on_cluster
    from trimtab.serve import whatif_engine
    from trimtab.simulator.whatif.cell_run import run_cell

    state = _actor("state")
    parts = whatif_engine.Parts(
        store=StorePort(actors.call_of(state, "store")),
        files=SweepsPort(actors.call_of(state, "sweeps")),
        runner=partial(on_cluster, run_cell, deadline_s=settings.whatif_deadline_s),
        hostname=settings.hostname,
        owner=f"whatifs@{settings.hostname}:{os.getpid()}",
        lease_s=settings.lease_s,
    )
    return partial(whatif_engine.serve_whatifs, parts)


def build_notifier(settings: Settings, tell: Callable[[Sent], None]) -> Coroutine[Any, Any, None]:
    """What sends notifications to the bus of the settings."""
    from trimtab.serve.amqp import Bus

    if settings.notifications_url is None:
        raise InvalidInput("there is no bus for notifications: set notifications_url")
    bus = Bus(settings.notifications_url.get_secret_value(), f"infra-optim:{settings.hostname}")
    store = StorePort(actors.call_of(_actor("state"), "store"))
    return publish(store, "bus", bus.send, level=settings.notification_level, tell=tell)


class RemoteRecorder:
    """`collector.Recorder` over the state actor."""

    def __init__(self, call: actors.Call) -> None:
        self._call = call

    async def append(self, metric: str, kind: str, table: pa.Table) -> None:
        """Keep samples."""
        await self._call("append", (metric, kind, table), {})

    async def samples(self, metric: str, kind: str, start_s: float, end_s: float) -> pa.Table:
        """Samples kept before."""
        return await self._call("samples", (metric, kind, start_s, end_s), {})

    async def tidy(self, now_s: float, keep_days: int) -> None:
        """Put the files in order."""
        await self._call("tidy", (now_s, keep_days), {})


def build_backend(settings: Settings, plan_started: Callable[[str], Awaitable[None]]) -> Backend:
    """What the HTTP layer works with."""
    from trimtab.serve.remembering import remembering
    from trimtab.serve.resources import Backend, WhatIfParts

    engine, model, whatifs = _actor("engine"), _actor("model"), _actor("whatifs")

    async def audit_created() -> None:
        engine.wake.remote()

    async def from_model(method: Any, *args: Any) -> Any:
        try:
            return actors.answered(await method.remote(*args))
        except RayError as error:
            raise CloudUnavailable(f"the model is restarting: ask again ({type(error).__name__})") from error

    async def cluster() -> Mapping[str, Any]:
        return await from_model(model.figures)

    async def model_table(name: str) -> bytes | None:
        return await from_model(model.table, name)

    async def data_model(scope: Sequence[Json]) -> Flat:
        return await from_model(model.flat, scope)

    async def availability(needs: Sequence[Need]) -> Availability:
        return await from_model(model.availability, needs)

    async def from_engine(method: Any, *args: Any) -> Any:
        try:
            return actors.answered(await method.remote(*args))
        except RayError as error:
            raise Conflict(f"the engine is restarting: ask again ({type(error).__name__})") from error

    async def plan_candidate(audit_uuid: str, number: int) -> ActionPlan:
        return await from_engine(engine.plan_candidate, audit_uuid, number)

    async def plan_rollback(plan_uuid: str) -> ActionPlan:
        return await from_engine(engine.plan_rollback, plan_uuid)

    async def check_plan(plan_uuid: str, replan: bool) -> Checked:
        return await from_engine(engine.check_plan, plan_uuid, replan)

    async def snapshot() -> Snapshot:
        return (await actors.freeze_through(model, [], [], [])).snapshot

    async def whatif_changed() -> None:
        whatifs.wake.remote()

    return Backend(
        store=StorePort(remembering(actors.call_of(_actor("state"), "store"))),
        settings=settings,
        audit_created=audit_created,
        plan_started=plan_started,
        cluster=cluster,
        model_table=model_table,
        whatifs=WhatIfParts(SweepsPort(actors.call_of(_actor("state"), "sweeps")), snapshot, whatif_changed),
        data_model=data_model,
        availability=availability,
        plan_candidate=plan_candidate,
        plan_rollback=plan_rollback,
        check_plan=check_plan,
    )


def _operators_rules(settings: Settings) -> list[AnyRule]:
    return [] if settings.rules_file is None else read_rules(settings.rules_file)


async def apply_forever(settings: Settings, wake: asyncio.Event) -> None:
    """The applier's work: plans from the store, actions on the cloud, in the cloud's own time."""
    world = _world(settings)
    clock = await world.clock()
    tools = Tools(
        cloud=world.driver,
        clock=clock,
        wall=WallClock(),
        poll_s=settings.migration_interval_s,
        deadline_s=settings.migration_deadline_s,
        extra={"rules": _operators_rules(settings)},
    )
    store = StorePort(actors.call_of(_actor("state"), "store"))
    beside = [
        asyncio.create_task(worlds.keep_pace(clock, world.clock)),
        asyncio.create_task(_signs_of_life(settings, store, liveness.APPLIER)),
    ]
    try:
        await serve_plans(
            store,
            f"applier@{settings.hostname}:{os.getpid()}",
            handlers=load().actions,
            tools=tools,
            limits=settings.limits,
            wake=wake,
            rollback=settings.rollback_when_actionplan_failed,
            lease_s=settings.lease_s,
            workers=settings.applier_workers,
            abort=settings.abort_when_cancelled,
            timeouts_s=settings.action_timeouts_s,
        )
    finally:
        await cancelled(beside)


def _world(settings: Settings) -> World:
    if settings.driver == "openstack":
        return worlds.real(settings)
    return worlds.simulated(settings, actors.call_of(_actor("cloud"), "cloud", CloudUnavailable))


# -- starting and stopping it all -------------------------------------------------------------------


class Running(NamedTuple):
    """Addresses of a running Trimtab, and its simulated cloud for those who are in the same program.

    It lives for as long as somebody has this: Ray ends actors that nobody holds.
    """

    api_url: str
    dashboard_url: str
    ask_cloud: Callable[..., Any]
    ray_address: str
    parts: Sequence[Any]


def _discreetly(build: Callable[..., Any], settings: Settings, *args: Any) -> Any:
    """Build a part in its own process, where no log is to have a secret from then on."""
    hide_secrets(settings)
    return build(settings, *args)


def _http_options(settings: Settings) -> dict[str, Any]:
    """Where Serve listens, and with which certificate."""
    found: dict[str, Any] = {"host": settings.host, "port": settings.port}
    if settings.ssl.cert_file is not None:
        found |= {"ssl_certfile": str(settings.ssl.cert_file), "ssl_keyfile": str(settings.ssl.key_file)}
    return found


def _api_url(settings: Settings) -> str:
    scheme = "http" if settings.ssl.cert_file is None else "https"
    return f"{scheme}://{f'[{settings.host}]' if ':' in settings.host else settings.host}:{settings.port}"


def deploy(settings: Settings) -> Running:
    """Start (or join) Ray, the actors and the Serve application; returns when the API answers.

    Raises:
        Conflict: the API's port is taken, or another Trimtab runs on the cluster.
        TrimtabError: Ray did not start it, or what one of the actors says.
    """
    from ray import serve

    from trimtab.serve.deployments import LIGHT, Api, Applier

    stop_ray: Any = ray.shutdown  # untyped
    settings = settings.model_copy(update={"data_dir": settings.data_dir.resolve()})
    dashboard = local_ray.start(settings.ray, actors.NAMESPACE)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        state = actors.start(actors.State, partial(_discreetly, build_state, settings))
    except Conflict:
        stop_ray()  # else what the other one runs would be taken for ours, and stopped
        raise
    patience_s = 0.0
    if settings.ray.address is not None:
        # What one that was killed left has the address, the settings and the code of then.
        if others := _stop_serving():
            raise Conflict(f"Ray Serve runs {', '.join(others)} on this cluster: give Trimtab a cluster of its own")
        patience_s = PORT_S
    if not _falls_free(settings.host, settings.port, patience_s):
        raise Conflict(f"port {settings.port} is taken: choose another with --port or stop what listens there")
    cloud = (
        actors.start(actors.Cloud, partial(_discreetly, build_cloud, settings))
        if settings.driver == "simulated"
        else None
    )
    model = actors.start(actors.Model, partial(_discreetly, build_model, settings), retries=3)
    engine = actors.start(actors.Engine, partial(_discreetly, build_engine, settings), retries=3)
    whatifs = actors.start(actors.WhatIfs, partial(_discreetly, build_whatifs, settings), retries=3)
    parts = [actor for actor in (state, cloud, model, engine, whatifs) if actor is not None]
    if settings.notifications_url is not None:
        parts.append(actors.start(actors.Notifier, partial(_discreetly, build_notifier, settings), retries=3))
    pings = [actor.ping.remote() for actor in parts]
    try:
        serve.start(proxy_location="HeadOnly", http_options=_http_options(settings), logging_config=QUIET)
        for answer in ray.get(pings):
            actors.answered(answer)  # says why one of them cannot start
        here = {**LIGHT, "resources": {_home(): 0.001}}
        api: Any = Api  # deployments: Serve's decorators are not typed
        applier: Any = Applier
        application = api.options(ray_actor_options=here).bind(
            partial(_discreetly, build_backend, settings),
            applier.options(ray_actor_options=here).bind(partial(_discreetly, apply_forever, settings)),
        )
        serve.run(application, name=APPLICATION, route_prefix="/", logging_config=QUIET)
    except RayError as error:
        raise TrimtabError(f"Ray did not bring the API up, is the machine very busy? Try again: {error}") from error

    def ask_cloud(method: str, *args: Any, **kwargs: Any) -> Any:
        if cloud is None:
            raise InvalidInput("the cloud is a real one, not simulated")
        return actors.ask_now(cloud, "cloud", method, *args, **kwargs)

    return Running(
        _api_url(settings),
        f"http://{dashboard}" if dashboard else "off",
        ask_cloud,
        ray.get_runtime_context().gcs_address,
        parts,
    )


def _falls_free(host: str, port: int, within_s: float) -> bool:
    """Whether nobody listens at this address, now or soon."""
    deadline = time.monotonic() + within_s
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) != 0:
                return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.2)


def ask_store(ray_address: str, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of the store of the Trimtab that runs on this Ray cluster, from a process that is no part of it."""
    stop_ray: Any = ray.shutdown  # untyped
    local_ray.join(ray_address, actors.NAMESPACE)
    try:
        return actors.ask_now(_actor("state"), "store", method, *args, **kwargs)
    except (RayError, ConnectionError) as error:
        raise TrimtabError(f"the running Trimtab did not answer: {error}") from error
    finally:
        stop_ray()


def _home() -> str:
    """The resource that only this node of the cluster has: its replicas stay here, as the actors do."""
    here = ray.get_runtime_context().get_node_id()
    nodes: Any = ray.nodes  # untyped
    (node,) = [node for node in nodes() if node["NodeID"] == here]
    (name,) = {f"node:{node['NodeManagerAddress']}"} & node["Resources"].keys()
    return name


QUIET = {"enable_access_log": False, "log_level": "WARNING"}


def _serving() -> set[str] | None:
    """The applications of Serve on this cluster; None when it does not say."""
    from ray import serve

    try:
        return set(serve.status().applications)
    except Exception as error:  # noqa: BLE001 (Serve raises various things)
        log.warning("what Serve runs is not known: %s: %s", type(error).__name__, error)
        return None


def _stop_serving() -> list[str]:
    """End the application in order, and Serve, which else keeps the port for as long as its Ray goes on.

    Returns:
        Applications of others, for whom Serve goes on, listening where they said.
    """
    from ray import serve

    if (serving := _serving()) is None:
        return []  # who knows for whom it goes on
    if APPLICATION in serving:
        serve.delete(APPLICATION)
    stop: Any = serve.shutdown  # untyped
    if not (others := sorted(serving - {APPLICATION})):
        stop()
    return others


def shutdown() -> None:
    """Stop the application, the actors and (when it is local) Ray."""
    if not ray.is_initialized():
        return
    stop_ray: Any = ray.shutdown  # untyped
    _stop_serving()
    for name in ("notifier", "whatifs", "engine", "model", "cloud", "state"):
        try:
            actor = _actor(name)
        except TrimtabError:
            continue  # it was never started
        if name == "state":
            _fold(actor)
        ray.kill(actor)
    stop_ray()


def _fold(state: Any) -> None:
    """Fold the log of the records' file into it, so that the file alone is all of them; without it nothing is lost."""
    try:
        actors.ask_now(state, "store", "checkpoint", timeout_s=FOLD_S)
    except (RayError, TimeoutError, TrimtabError) as error:
        log.warning("the log beside the records' file stays: %s", error)


def _actor(name: str) -> Any:
    try:
        return ray.get_actor(name, namespace=actors.NAMESPACE)
    except ValueError as error:
        raise TrimtabError(f"the {name} actor is not there (yet)") from error


def install_estate(settings: Settings, folder: Path) -> ClusterModel:
    """Make a model folder the inventory of the cloud that a fresh data folder will simulate.

    Raises:
        Conflict: the data folder has a cloud already. ModelError: the folder is no model.
    """
    model = read_model(folder)
    target = settings.data_dir / ESTATE
    if (settings.data_dir / "cloud.journal").exists():
        raise Conflict(f"{settings.data_dir} has a cloud already: give another --data-dir")
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    write_model(model, target)
    return model
