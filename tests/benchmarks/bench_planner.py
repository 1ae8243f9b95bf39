"""How fast the planners are: shuffles of instances among hosts with room, and among hosts that are nearly full."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from trimtab.platform.model import ClusterModel
from trimtab.platform.planner import plan_capacity, plan_weight
from trimtab.platform.proposal import Candidate, Limits, Migrate

PER_HOST = 10


def measure() -> list[tuple[str, float, str, str]]:
    """Rows (what, value, unit, target)."""
    rows: list[tuple[str, float, str, str]] = []
    for hosts, moves, target in ((200, 1_000, "< 0.3"), (2_000, 10_000, "< 2")):
        for room, spare in (("with room", 8), ("nearly full", 2), ("too full", 1)):
            model, candidate = shuffle(hosts, moves, spare)
            plan = plan_capacity(model, candidate, Limits())
            what = f"capacity plan, {moves:,} moves on {hosts:,} hosts {room}"
            rows.append((what, _best(partial(plan_capacity, model, candidate, Limits())), "s", target))
            rows.append((f"{what}: detours", float(sum("by way of" in note for note in plan.notes)), "moves", "-"))
            rows.append((f"{what}: left out", float(sum("stays on" in note for note in plan.notes)), "moves", "-"))
        model, candidate = shuffle(hosts, moves, 8)
        what = f"weight plan, {moves:,} moves on {hosts:,} hosts"
        rows.append((what, _best(partial(plan_weight, model, candidate, Limits())), "s", target))
    return rows


def shuffle(hosts: int, moves: int, spare: int) -> tuple[ClusterModel, Candidate]:
    """Hosts with up to `spare` free vCPUs each, and a wish in which instances of one size change places at random."""
    rng = np.random.default_rng(hosts + moves + spare)
    count = hosts * PER_HOST
    size = rng.choice([1.0, 2.0, 4.0], count)
    home = np.repeat(np.arange(hosts), PER_HOST)
    capacity = np.bincount(home, size, hosts) + rng.integers(0, spare + 1, hosts)
    ids = pa.array([f"h{n}" for n in range(hosts)], pa.string())
    amounts = ("vcpus", 1.0), ("memory_mb", 1024.0), ("disk_gb", 10.0)
    model = ClusterModel.from_arrow(
        pa.table({"uuid": ids, "hostname": ids, **{name: capacity * unit for name, unit in amounts}}),
        pa.table(
            {
                "uuid": pa.array([f"v{n}" for n in range(count)], pa.string()),
                "node": ids.take(pa.array(home)),
                **{name: size * unit for name, unit in amounts},
            }
        ),
    )
    chosen = rng.choice(count, moves, replace=False)
    target = home.copy()
    for one in (1.0, 2.0, 4.0):
        rows = chosen[size[chosen] == one]
        target[rows] = home[rng.permutation(rows)]
    steps = tuple(Migrate(int(n), int(target[n])) for n in chosen if target[n] != home[n])
    return model, Candidate(steps)


def _best(run: Callable[[], Any], times: int = 3) -> float:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    for what, value, unit, target in measure():
        print(f"{what:60} {value:10.4f} {unit:6} target {target}")
