"""The named actors: state, cloud, model, engine. Thin: each holds one object of the functional core and calls it."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import pickle
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError
from ray.util import metrics
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trimtab.platform import engine
from trimtab.platform import scope as scopes
from trimtab.platform.collector import Collector
from trimtab.platform.contracts import Wanted
from trimtab.platform.errors import CloudUnavailable, Conflict, TrimtabError
from trimtab.platform.model.flat import flat
from trimtab.platform.publishing import Sent
from trimtab.platform.records import ActionPlan
from trimtab.platform.snapshot import Need

log = logging.getLogger(__name__)

T = TypeVar("T")
NAMESPACE = "trimtab"
# Questions that may be asked again when the actor died while it was answering; everything else is reported.
REPEATABLE = frozenset(
    {"get", "find", "list", "count", "claimable", "events", "claim", "renew", "sync_catalogue", "samples", "aggregate"}
    | {"view", "view_one", "related", "runnable_audits", "beat", "roll_call", "supersede_plans", "tidy"}
    | {"newest_event", "feed", "feed_to", "keep_origin", "origin", "begin", "add", "counts", "table", "series", "page"}
)
PATIENCE_S = 60.0
SUCCESSION_S = 20.0  # how long the actors of a program that has ended may still be there

Call = Callable[[str, tuple[Any, ...], dict[str, Any]], Awaitable[Any]]


class Answer(NamedTuple):
    """What an actor sends back: a value, or one of our errors (Ray would wrap it in its own)."""

    value: Any = None
    error: TrimtabError | None = None


def answered(answer: Answer) -> Any:
    """The value, or the error raised."""
    if answer.error is not None:
        raise answer.error
    return answer.value


class Holder:
    """An actor around plain objects, by name; built again, from their files, whenever Ray restarts it."""

    def __init__(self, build: Callable[[], Mapping[str, Any]]) -> None:
        self._build = build
        self._held: Mapping[str, Any] = {}
        self._building = threading.Lock()

    def call(self, held: str, method: str, asked: bytes) -> bytes:
        """Call a method of one of the held objects with pickled (args, kwargs); the pickled Answer.

        Ray pickles bytes as they are, and objects with a pickler made for code, which is several times slower.
        """
        args, kwargs = pickle.loads(asked)
        try:
            answer = Answer(getattr(self._open()[held], method)(*args, **kwargs))
        except TrimtabError as error:
            answer = Answer(error=error)
        return pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)

    def ping(self) -> Answer:
        """The process id, when the objects could be built; if not, why."""
        try:
            self._open()
        except TrimtabError as error:
            return Answer(error=error)
        return Answer(os.getpid())

    def _open(self) -> Mapping[str, Any]:
        """The objects; built at the first call, and tried again at the next one when that failed."""
        with self._building:
            if not self._held:
                try:
                    self._held = self._build()
                except TrimtabError:
                    raise
                except Exception as error:
                    raise TrimtabError(
                        f"{type(self).__name__} cannot start: {type(error).__name__}: {error}"
                    ) from error
            return self._held


class State(Holder):
    """Sole owner of the DuckDB file and of the Parquet folder."""

    concurrency = 4


class Cloud(Holder):
    """The simulated cloud, replayed from its journal."""


def start(cls: type[Any], build: Callable[..., Any], *, retries: int = 0) -> Any:
    """A new actor of this class, by its name; Ray restarts it whenever it dies, for as long as somebody here holds it.

    It stays on this node, where the files are and the clients of its clouds: of other nodes only tasks are asked, which
    run again elsewhere when a node is lost. It is not detached: a program that is killed takes its actors with it, so
    that the next one finds nothing of older settings and older code.

    Raises:
        Conflict: another program on this cluster has an actor of this name, and goes on.
    """
    remote: Any = ray.remote(cls)
    made = remote.options(
        name=cls.__name__.lower(),
        namespace=NAMESPACE,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=retries,
        max_concurrency=getattr(cls, "concurrency", 1),
        scheduling_strategy=NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False),
    )
    deadline = time.monotonic() + SUCCESSION_S
    while True:
        try:
            return made.remote(build)
        except ValueError as error:  # the name is taken
            if time.monotonic() > deadline:
                raise Conflict(
                    f"another Trimtab runs on this Ray cluster ({error}): stop it there with `trimtab down`"
                ) from error
            time.sleep(0.5)


def call_of(actor: Any, held: str, unavailable: type[TrimtabError] = TrimtabError) -> Call:
    """How ports ask an actor. While Ray restarts it, repeatable questions wait; others raise `unavailable`."""
    named: dict[str, Any] = {}  # methods as Ray's dashboard calls them
    same = lru_cache(256)(pickle.loads)  # who gets the same bytes again has the same view again

    async def call(method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        ask = named.get(method)
        if ask is None:
            ask = named[method] = actor.call.options(name=f"{held}.{method}")
        asked = pickle.dumps((args, kwargs), pickle.HIGHEST_PROTOCOL)
        while True:
            try:
                told = await ask.remote(held, method, asked)
                return answered(same(told) if method == "view" else pickle.loads(told))
            except (ActorUnavailableError, ActorDiedError) as error:
                if method not in REPEATABLE or time.monotonic() > deadline:
                    raise unavailable(f"{held} is restarting and did not answer {method}: ask again") from error
                await asyncio.sleep(0.2)

    return call


def ask_now(actor: Any, held: str, method: str, *args: Any, timeout_s: float | None = None, **kwargs: Any) -> Any:
    """Ask one of the objects an actor holds, and wait.

    Raises:
        TrimtabError: what the method raises. RayError: the actor is not there.
    """
    asked = pickle.dumps((args, kwargs), pickle.HIGHEST_PROTOCOL)
    return answered(pickle.loads(ray.get(actor.call.remote(held, method, asked), timeout=timeout_s)))


class Looping:
    """An actor with an event loop of its own in a thread, so that work goes on between calls."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name=type(self).__name__).start()

    def ping(self) -> Answer:
        """The process id."""
        return Answer(os.getpid())

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        def ended(future: Any) -> None:
            if not future.cancelled() and future.exception() is not None:
                log.error("%s stopped, and is started again", type(self).__name__, exc_info=future.exception())
                os._exit(1)  # Ray restarts the actor; a loop that has ended would be missed by nobody else

        asyncio.run_coroutine_threadsafe(coroutine, self._loop).add_done_callback(ended)


class ModelParts(NamedTuple):
    """What the model actor works with; `follow` keeps the model up to date between two collections."""

    collector: Collector
    wall_interval_s: float
    figures: Callable[[Collector], dict[str, Any]]
    follow: Callable[[Collector], Coroutine[Any, Any, None]] | None = None


class Model(Looping):
    """Holds the cluster model, collects on an interval, publishes snapshots in the object store."""

    concurrency = 8

    def __init__(self, build: Callable[[], ModelParts]) -> None:
        super().__init__()
        self._parts = build()
        self._start(self._collect_forever())
        if self._parts.follow is not None:
            self._start(self._parts.follow(self._parts.collector))

    async def _collect_forever(self) -> None:
        while True:
            try:
                await self._parts.collector.collect()
            except Exception as error:  # noqa: BLE001 (the last good model stays, marked stale; the next try repairs)
                log.warning("collection failed: %s: %s", type(error).__name__, error)
                await asyncio.sleep(1.0)
                continue
            await asyncio.sleep(self._parts.wall_interval_s)

    def collect(self) -> Answer:
        """Collect now; the new version."""
        try:
            return Answer(self._run(self._parts.collector.collect()))
        except TrimtabError as error:
            return Answer(error=error)

    def freeze(
        self, scope: Sequence[Mapping[str, Any]], needs: Sequence[Need], failed: Sequence[str], models: Sequence[str]
    ) -> Answer:
        """One snapshot, as a reference in a list (so that Ray does not fetch it on the way)."""
        try:
            snapshot = self._run(self._parts.collector.freeze(scope, needs, failed, models))
        except TrimtabError as error:
            return Answer(error=error)
        # This actor lives long, so the reference it owns does too.
        return Answer([ray.put(snapshot)])

    def flat(self, scope: Sequence[Mapping[str, Any]]) -> Answer:
        """The newest model, narrowed to a scope, as `model.flat.Flat`."""
        try:
            model = self._run(self._parts.collector.newest())
            return Answer(flat(scopes.narrow(model, scope)[0]))
        except TrimtabError as error:
            return Answer(error=error)

    def availability(self, needs: Sequence[Need]) -> Answer:
        """What can be measured at the moment, and which models there are."""
        return Answer(self._run(self._parts.collector.availability(needs)))

    def refusals(self, wanted: Sequence[Wanted]) -> Answer:
        """See `contracts.Driver`."""
        try:
            return Answer(self._run(self._parts.collector.driver.refusals(wanted)))
        except TrimtabError as error:
            return Answer(error=error)

    def figures(self) -> Answer:
        """Figures of the cluster as last collected."""

        async def in_turn() -> dict[str, Any]:  # model and history change together, between two turns of the loop
            return self._parts.figures(self._parts.collector)

        return Answer(self._run(in_turn()))

    def table(self, name: str) -> Answer:
        """One table of the newest model (nodes, instances, server_groups) as Parquet; None before the first."""
        model = self._parts.collector.model
        if model is None:
            return Answer(None)
        tables = dict(zip(("nodes", "instances", "server_groups"), model.to_arrow(), strict=True))
        sink = pa.BufferOutputStream()
        pq.write_table(tables[name], sink, compression="zstd")
        return Answer(sink.getvalue().to_pybytes())


class EngineParts(NamedTuple):
    """What the engine actor works with.

    `settle` is called now and then to compare rehearsed with measured; `warm` once in every worker before it is needed;
    `chores` run for as long as the engine does.
    """

    parts: engine.Parts
    serve: Callable[[engine.Parts, asyncio.Event], Coroutine[Any, Any, None]]
    settle: Callable[[], Awaitable[None]]
    warm: Callable[[Any, Any], Any]
    chores: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()


class Engine(Looping):
    """Takes audits and brings them to an end; proposals and rehearsals run as tasks on the cluster."""

    concurrency = 4

    def __init__(self, build: Callable[[Any], EngineParts]) -> None:
        super().__init__()
        self._parts = build(Gauges())
        self._wake = asyncio.Event()
        self._start(self._warm_workers())
        self._start(self._audit_forever())
        self._start(self._settle_forever())
        for chore in self._parts.chores:
            self._start(chore())

    async def _warm_workers(self) -> None:
        cores = int((await asyncio.to_thread(ray.cluster_resources)).get("CPU", 1))
        await self._parts.parts.compute.map(self._parts.warm, None, list(range(cores)), math.inf)

    async def _audit_forever(self) -> None:
        await self._parts.serve(self._parts.parts, self._wake)

    async def _settle_forever(self) -> None:
        while True:
            try:
                await self._parts.settle()
            except Exception as error:  # noqa: BLE001 (tried again in a second, whatever it was)
                log.warning("effects could not be measured: %s: %s", type(error).__name__, error)
            await asyncio.sleep(1.0)

    def plan_candidate(self, audit_uuid: str, number: int) -> Answer:
        """See `engine.plan_candidate`."""
        return self._made(engine.plan_candidate(self._parts.parts, audit_uuid, number))

    def plan_rollback(self, plan_uuid: str) -> Answer:
        """See `engine.plan_rollback`."""
        return self._made(engine.plan_rollback(self._parts.parts, plan_uuid))

    def check_plan(self, plan_uuid: str, replan: bool) -> Answer:
        """See `engine.check_plan`."""
        return self._made(engine.check_plan(self._parts.parts, plan_uuid, replan=replan))

    def _made(self, making: Coroutine[Any, Any, ActionPlan | engine.Checked]) -> Answer:
        try:
            return Answer(self._run(making))
        except TrimtabError as error:
            return Answer(error=error)

    def wake(self) -> None:
        """There is a new audit."""
        self._loop.call_soon_threadsafe(self._wake.set)


class WhatIfs(Looping):
    """Runs what-if sweeps; their cells are tasks on the cluster. Started again, it goes on where it was."""

    concurrency = 4

    def __init__(self, build: Callable[[], Callable[[asyncio.Event], Coroutine[Any, Any, None]]]) -> None:
        super().__init__()
        self._wake = asyncio.Event()
        self._start(build()(self._wake))

    def wake(self) -> None:
        """There is a new sweep, or one was cancelled."""
        self._loop.call_soon_threadsafe(self._wake.set)


class Notifier(Looping):
    """Sends notifications to a bus; the store says where it was, so a new one goes on there."""

    def __init__(self, build: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        super().__init__()
        sent = {
            name: metrics.Gauge(f"trimtab_notifications_{name}", f"Notifications: {what}")
            for name, what in (
                ("notifications", "handed to the bus"),
                ("lost", "events dropped because too many waited"),
                ("failures", "times the bus did not take them"),
            )
        }
        self._last: Sent | None = None

        def tell(now: Sent) -> None:
            self._last = now
            for name, gauge in sent.items():
                gauge.set(float(getattr(now, name)))

        self._start(build(tell))

    def sent(self) -> Sent | None:
        """What it has done so far; None before the first event."""
        return self._last


class Gauges:
    """Ray metrics of audits and plans: candidates, rehearsal seconds, queue lengths, moves."""

    def __init__(self) -> None:
        self._counters = {
            "candidates": metrics.Counter(
                "trimtab_candidates", "Candidates by strategy and verdict", tag_keys=("strategy", "verdict")
            ),
            "moves": metrics.Counter("trimtab_moves", "Migrations that ended, by state", tag_keys=("state",)),
        }
        self._histograms = {
            "rehearsal_seconds": metrics.Histogram(
                "trimtab_rehearsal_seconds",
                "Seconds a rehearsal took",
                boundaries=[0.01, 0.03, 0.1, 0.3, 1, 3, 10],
                tag_keys=("strategy",),
            )
        }
        self._gauges = {
            "audit_queue_length": metrics.Gauge("trimtab_audit_queue_length", "Audits waiting for an engine"),
            "plan_queue_length": metrics.Gauge("trimtab_plan_queue_length", "Plans waiting for an applier"),
        }

    def __call__(self, what: str, value: float, **labels: str) -> None:
        """Count or observe one thing."""
        if what in self._counters:
            self._counters[what].inc(value, tags=labels)
        elif what in self._histograms:
            self._histograms[what].observe(value, tags=labels)
        else:
            self._gauges[what].set(value, tags=labels)


async def freeze_through(
    model: Any,
    scope: Sequence[Mapping[str, Any]],
    needs: Sequence[Need],
    failed: Sequence[str],
    models: Sequence[str] = ("compute",),
) -> engine.Frozen:
    """Ask the model actor for a snapshot (how the engine actor freezes).

    Raises:
        CloudUnavailable: the actor is being restarted again and again.
    """
    for last in (False, True):
        try:
            (reference,) = answered(await model.freeze.remote(scope, needs, failed, models))
            return engine.Frozen(await reference, reference)
        except RayError as error:  # the actor died, and what it owned with it: its successor collects again
            if last:
                raise CloudUnavailable(f"the model is not to be had at the moment: {type(error).__name__}") from error
    raise AssertionError("unreachable")


async def refusals_through(model: Any, wanted: Sequence[Wanted]) -> Sequence[str]:
    """Ask the model actor what the cloud has against migrations; see `contracts.Driver`.

    Raises:
        CloudUnavailable: the actor is being restarted.
        TrimtabError: the cloud cannot be asked.
    """
    try:
        answers: Sequence[str] = answered(await model.refusals.remote(wanted))
    except RayError as error:
        raise CloudUnavailable(f"the model is restarting: ask again ({type(error).__name__})") from error
    return answers


async def collect_through(model: Any) -> int:
    """Have the model actor collect now; the new version.

    Raises:
        CloudUnavailable: the actor is being restarted.
        TrimtabError: the cloud cannot be read.
    """
    try:
        version: int = answered(await model.collect.remote())
    except RayError as error:
        raise CloudUnavailable(f"the model is restarting: ask again ({type(error).__name__})") from error
    return version
