"""How fast the simulator is: rehearsals and the simulated cloud, small and large."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.platform.model import ClusterModel
from trimtab.platform.proposal import Limits, Plan, PlannedAction
from trimtab.platform.rules import destinations
from trimtab.platform.snapshot import History, Need, Snapshot
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.estate import build_estate
from trimtab.simulator.load import Load, generated
from trimtab.simulator.rehearse import rehearse
from trimtab.simulator.truth import CloudSpec

AT = 20_000 * 86_400.0
LIMITS = Limits(2, 20)


def measure() -> list[tuple[str, float, str, str]]:
    """Rows (what, value, unit, target)."""
    small, large = _snapshot(200, 2_000), _snapshot(10_000, 100_000)
    rehearse(small, Plan(()), LIMITS, 1)  # compiles
    plan, big_plan = _plan(small.model, 700), _plan(large.model, 5_000)
    rows = [
        ("rehearse 200/2,000, nothing", _best(lambda: rehearse(small, Plan(()), LIMITS, 1)), "s", "-"),
        ("rehearse 200/2,000, 700 moves", _best(lambda: rehearse(small, plan, LIMITS, 1)), "s", "well under 1 s"),
        ("rehearse 10,000/100,000, nothing", _best(lambda: rehearse(large, Plan(()), LIMITS, 1)), "s", "a few s"),
        ("rehearse 10,000/100,000, 5,000 moves", _best(lambda: rehearse(large, big_plan, LIMITS, 1)), "s", "a few s"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        spec = CloudSpec(start_s=AT, speed=0.0)
        cloud, seconds = _timed(lambda: SimulatedCloud(spec, journal))
        rows.append(("cloud 200/2,000: start", seconds, "s", "-"))
        rows.append(("cloud 200/2,000: inventory", _best(cloud.inventory), "s", "-"))
        needs = [Need("instance_cpu_usage", "instance"), Need("host_cpu_usage", "host")]
        rows.append(("cloud 200/2,000: 2 aggregates", _best(lambda: cloud.aggregate(needs, cloud.now())), "s", "-"))
        day = _best(lambda: cloud.samples("instance_cpu_usage", "instance", AT - 86_400, AT))
        rows.append(("cloud 200/2,000: a day of samples", day, "s", "-"))
        _, seconds = _timed(lambda: _migrate(cloud, 500))
        rows.append(("cloud 200/2,000: 1,000 commands, each on disk", seconds, "s", "-"))
        _, seconds = _timed(lambda: SimulatedCloud(spec, journal))
        rows.append(("cloud 200/2,000: start again, replay 1,000 commands", seconds, "s", "-"))
        cloud.fast_forward(86_400)
        rows.append(("cloud 200/2,000: measure a day", _best(lambda: cloud.measure(AT, AT + 86_400)), "s", "-"))
    return rows


def _snapshot(hosts: int, instances: int) -> Snapshot:
    model = ClusterModel.from_arrow(*build_estate(hosts, instances))
    day = Load(generated(instances, 7), instances).cpu_pct(int(AT // 300) - 288, 288)
    return Snapshot(model, AT, history=History(AT - 86_400, 300.0, day))


def _plan(model: ClusterModel, moves: int) -> Plan:
    """Moves that fit whatever the order: room at a destination is never what another move leaves."""
    place, rng, actions = model.placement(), np.random.default_rng(1), list[PlannedAction]()
    for instance in rng.permutation(np.flatnonzero(model.movable & (model.state == 0))):
        options = np.flatnonzero(destinations(place, int(instance)))
        if len(options):
            source, destination = int(model.host_of[instance]), int(rng.choice(options))
            place.used[:, destination] += model.demand[instance]
            actions.append(PlannedAction("migrate", {}, instance=int(instance), source=source, destination=destination))
        if len(actions) == moves:
            break
    return Plan(tuple(actions))


def _migrate(cloud: SimulatedCloud, count: int) -> None:
    rows = cloud.inventory().instances.to_pylist()
    for row in [row for row in rows if row["state"] == "active"][:count]:
        cloud.migrate(row["uuid"], None, live=True)
        cloud.fast_forward(1.0)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    result = work()
    return result, time.perf_counter() - begin


def _best(work: Callable[[], Any], tries: int = 3) -> float:
    return min(_timed(work)[1] for _ in range(tries))


if __name__ == "__main__":
    for what, value, unit, target in measure():
        print(f"{what:55} {value:10.4f} {unit:3} {target}")
