"""How fast the cluster model is: from Arrow tables to columns, copies of a placement, and looking for room."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from trimtab.platform import rules
from trimtab.platform.model import ClusterModel, Placement, read_model, write_model
from trimtab.platform.proposal import Candidate, Migrate

HOSTS, INSTANCES = 10_000, 100_000


def measure() -> list[tuple[str, float, str, str]]:
    """Rows (what, value, unit, target)."""
    tables = cloud_tables(HOSTS, INSTANCES)
    model = ClusterModel.from_arrow(*tables)
    place = model.placement()
    rng = np.random.default_rng(1)
    moves = [
        Migrate(int(v), int(h))
        for v, h in zip(rng.choice(INSTANCES, 1_000, replace=False), rng.integers(0, HOSTS, 1_000), strict=True)
    ]
    size = f"{HOSTS:,} hosts, {INSTANCES:,} instances"
    rows = [
        (f"Arrow tables to a model, {size}", _best(lambda: ClusterModel.from_arrow(*tables), 3), "s", "< 1"),
        (f"a model to Arrow tables, {size}", _best(model.to_arrow, 3), "s", "-"),
        ("placement of a model", 1e3 * _best(model.placement, 20), "ms", "-"),
        ("copy of a placement", 1e3 * _best(place.copy, 50), "ms", "< 1"),
        (f"fits over {HOSTS:,} hosts", 1e3 * _best(lambda: place.fits(7), 200), "ms", "< 0.2"),
        (f"destinations over {HOSTS:,} hosts", 1e3 * _best(lambda: rules.destinations(place, 7), 200), "ms", "-"),
        ("move and undo", 1e3 * _best(lambda: _there_and_back(place), 200), "ms", "-"),
        ("judge 1,000 moves", 1e3 * _best(lambda: rules.judge(model, Candidate(tuple(moves))), 5), "ms", "-"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_model(model, Path(folder) / "cloud")
        rows.append((f"write Parquet, {size}", time.perf_counter() - start, "s", "-"))
        rows.append((f"read Parquet, {size}", _best(lambda: read_model(Path(folder) / "cloud"), 3), "s", "-"))
    return rows


def cloud_tables(hosts: int, instances: int) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Tables with every column filled: zones, aggregates, traits, projects, flavors, metadata, anti-affinity pairs."""
    rng = np.random.default_rng(hosts)

    def words(stem: str, numbers: np.ndarray) -> pa.Array:
        return pa.array([f"{stem}{n}" for n in numbers.tolist()], pa.string())

    def some(stem: str, count: int, size: int) -> pa.Array:
        return words(stem, rng.integers(0, count, size))

    def lists(stem: str, count: int) -> pa.Array:
        offsets = 2 * np.arange(hosts + 1, dtype=np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), some(stem, count, 2 * hosts))

    size = rng.choice([1.0, 2.0, 4.0, 8.0], instances)
    nodes = {
        "uuid": words("host-id-", np.arange(hosts)),
        "hostname": words("compute-", np.arange(hosts)),
        "vcpus": np.full(hosts, 32.0),
        "memory_mb": np.full(hosts, 262_144.0),
        "disk_gb": np.full(hosts, 4_000.0),
        "vcpu_ratio": np.full(hosts, 2.0),
        "zone": some("zone", 3, hosts),
        "aggregates": lists("aggregate", 20),
        "traits": lists("TRAIT_", 10),
    }
    guests = {
        "uuid": words("instance-id-", np.arange(instances)),
        "name": words("vm-", np.arange(instances)),
        "node": nodes["uuid"].take(pa.array(rng.integers(0, hosts, instances))),
        "vcpus": size,
        "memory_mb": size * 2_048,
        "disk_gb": size * 10,
        "state": pa.array(rng.choice(["active", "paused", "stopped"], instances, p=[0.9, 0.05, 0.05])),
        "project": some("project", 200, instances),
        "flavor": some("flavor", 12, instances),
        "metadata": pa.array(rng.choice(['{"optimize": true}', "{}"], instances)),
    }
    paired = np.arange(instances) % 10 < 2
    guests["group"] = pa.array(
        [f"group-id-{n // 10}" if pair else "" for n, pair in enumerate(paired.tolist())], pa.string()
    )
    groups = {
        "uuid": words("group-id-", np.arange(instances // 10)),
        "policy": pa.array(["anti-affinity"] * (instances // 10), pa.string()),
    }
    return pa.table(nodes), pa.table(guests), pa.table(groups)


def _there_and_back(place: Placement) -> None:
    place.move(7, 3)
    place.undo()


def _best(run: Callable[[], Any], times: int) -> float:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    for what, value, unit, target in measure():
        print(f"{what:60} {value:10.4f} {unit:6} target {target}")
