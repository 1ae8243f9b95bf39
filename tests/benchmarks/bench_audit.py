"""What an audit of 10,000 hosts and 100,000 instances costs beside strategies and rehearsals: time and memory."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import pickle
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psutil
import pyarrow as pa

from trimtab.platform import rules
from trimtab.platform.collector import Collector
from trimtab.platform.contracts import Goal, Inventory, Score
from trimtab.platform.model import ClusterModel
from trimtab.platform.outcome import Entry, action_rows, candidate_rows
from trimtab.platform.planner import PLANNERS
from trimtab.platform.proposal import Candidate, Limits, Migrate, Plan
from trimtab.platform.records import ActionPlan, Audit
from trimtab.platform.snapshot import History, Need, Snapshot
from trimtab.platform.store.state import Store
from trimtab.platform.trial import ProposeJob, Tried

HOSTS, INSTANCES, MOVES, SAMPLES, TIMES = 10_000, 100_000, 1_000, 288, 9
CPU = Need("instance_cpu_usage", "instance")
RAM = Need("instance_ram_usage", "instance")
GOAL = Goal("bench", "Bench", ordering=("hosts_in_use", "moved_gib"))
Row = tuple[str, float, str, str]


class Answers:
    """A datasource whose answer is here already, so that only our side of the question is measured."""

    name: ClassVar[str] = "answers"

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    async def aggregate(self, needs: Sequence[Need], at: float) -> pa.Table:
        """The same for every question."""
        return self.table

    async def samples(self, metric: str, kind: str, start_s: float, end_s: float) -> pa.Table:
        """Nothing new."""
        return self.table.slice(0, 0)


class NoCloud:
    """The collector holds its model already: nobody asks."""

    async def inventory(self) -> Inventory:
        """Never asked."""
        raise AssertionError("the model was collected before")


def measure() -> list[Row]:
    """What, value, unit, target."""
    model = ClusterModel.from_arrow(*_bench_model().cloud_tables(HOSTS, INSTANCES))
    collector = _collected(model)
    candidate = _candidate(model)
    parts: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store.duckdb")
        loop = asyncio.new_event_loop()
        peak = _peak_mib(lambda: _one_audit({}, loop, collector, candidate, store))  # which also warms everything up
        for _ in range(TIMES):
            _one_audit(parts, loop, collector, candidate, store)
        loop.close()
        store.close()
    rows: list[Row] = []
    total = np.zeros(2)
    for name, taken in parts.items():
        best = np.array(taken).min(axis=0)
        total += best
        rows.append((name, float(best[0]), "CPU s", "-"))
    rows += [
        ("all of an audit but strategies and rehearsals", float(total[0]), "CPU s", "<= 0.2"),
        ("the same by the clock on the wall", float(total[1]), "s", "-"),
        ("additional memory at its peak", peak, "MiB", "<= 300"),
    ]
    return rows


def _one_audit(
    parts: dict[str, list[tuple[float, float]]],
    loop: asyncio.AbstractEventLoop,
    collector: Collector,
    candidate: Candidate,
    store: Store,
) -> None:
    def timed(name: str, work: Callable[[], Any]) -> Any:
        cpu, wall = time.process_time(), time.perf_counter()
        result = work()
        parts.setdefault(name, []).append((time.process_time() - cpu, time.perf_counter() - wall))
        return result

    audit = store.create(Audit(uuid=_uuid(), name=_uuid(), audit_type="ONESHOT", state="ONGOING", goal_id=1))
    snapshot: Snapshot = timed(
        f"freeze: {INSTANCES:,} instances, 2 needs, {SAMPLES} samples",
        lambda: loop.run_until_complete(collector.freeze([], [CPU, RAM])),
    )
    timed("publish the snapshot: written and copied once, as to shared memory", lambda: _published(snapshot))
    model = snapshot.model
    reasons = timed(f"judge {MOVES:,} moves", lambda: rules.judge(model, candidate))
    if reasons:
        raise AssertionError(f"the candidate is not sound: {reasons[:3]}")
    plan: Plan = timed(f"plan {MOVES:,} moves", lambda: PLANNERS["capacity"](model, candidate, Limits()))
    job = ProposeJob("bench", {}, 0)
    entries = [
        Entry(ProposeJob("do_nothing", {}, 0), Candidate(()), Tried(Plan(()), Score(hosts_in_use=HOSTS))),
        Entry(job, candidate, Tried(plan, Score(hosts_in_use=9_000, moves=MOVES))),
    ]
    rows = timed("records of candidates", lambda: candidate_rows(snapshot, GOAL, entries, 1))
    actions = timed("records of actions", lambda: action_rows(plan))
    row = ActionPlan(uuid=_uuid(), audit_id=0, strategy_id=1, state="RECOMMENDED", rehearsed=asdict(Score()))
    timed(
        f"store the outcome, {MOVES:,} actions, durable",
        lambda: store.save_outcome(audit.uuid, event="succeed", epoch=None, candidates=rows, plan=row, actions=actions),
    )


def _published(snapshot: Snapshot) -> int:
    """Pickle with buffers out of band and copy those into one new block, as an object store does; returns bytes."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(snapshot, protocol=5, buffer_callback=buffers.append)
    parts = [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]
    return len(head) + np.concatenate(parts).nbytes


def _collected(model: ClusterModel) -> Collector:
    """A collector that has just collected this model and a day of its load."""
    rng = np.random.default_rng(1)
    report = rng.permutation(model.instances)[: int(0.95 * model.instances)]  # in the backend's order; some are silent
    ids = model.instance_ids.take(pa.array(report))
    answer = {
        "need": pa.array(np.repeat(np.arange(2, dtype=np.int32), len(report))),
        "resource": pa.chunked_array([ids, ids]),
        "value": pa.array(rng.uniform(0, 100, 2 * len(report))),
    }
    collector = Collector(NoCloud(), Answers(pa.table(answer)), None, 86_400.0)  # type: ignore[arg-type]
    collector.model, collector.version, collector.collected_at = model, 1, 86_400.0
    load = rng.uniform(0, 100, (SAMPLES, model.instances)).astype(np.float32)
    collector.history = History(0.0, 300.0, load)
    return collector


def _candidate(model: ClusterModel) -> Candidate:
    """Moves to hosts that have room whatever the order."""
    place, rng = model.placement(), np.random.default_rng(2)
    steps: list[Migrate] = []
    for instance in rng.permutation(np.flatnonzero(model.movable)):
        options = np.flatnonzero(rules.destinations(place, int(instance)))
        if len(options):
            host = int(rng.choice(options))
            place.used[:, host] += model.demand[instance]  # and its old host keeps it
            place.host_of[instance] = host
            steps.append(Migrate(int(instance), host))
        if len(steps) == MOVES:
            break
    return Candidate(tuple(steps), because="a thousand moves")


def _peak_mib(work: Callable[[], None]) -> float:
    """How much more memory this process held at most while it worked, looked at every millisecond."""
    gc.collect()
    pa.default_memory_pool().release_unused()  # or what setting up has left behind would be used, and not seen
    me, done, most = psutil.Process(), threading.Event(), 0
    before = me.memory_info().rss

    def watch() -> None:
        nonlocal most
        while not done.wait(0.001):
            most = max(most, me.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return max(0, most - before) / 2**20


def _bench_model() -> Any:
    """The neighbour that makes large clouds."""
    path = Path(__file__).with_name("bench_model.py")
    spec = importlib.util.spec_from_file_location("trimtab_bench_model", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _uuid() -> str:
    return str(uuid.uuid4())


if __name__ == "__main__":
    for what, value, unit, target in measure():
        print(f"{what:60} {value:10.4f} {unit:6} {target}")
