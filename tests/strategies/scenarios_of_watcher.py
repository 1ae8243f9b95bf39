"""The clusters of Watcher's own unit tests, and snapshots of them with given measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from trimtab.platform.model import ClusterModel
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Snapshot


def cluster(
    hosts: Sequence[tuple[float, float, float]],
    instances: Sequence[tuple[int, float, float, float]],
    *,
    host_columns: Mapping[str, Sequence[Any]] | None = None,
    instance_columns: Mapping[str, Sequence[Any]] | None = None,
    groups: Mapping[str, str] | None = None,
) -> ClusterModel:
    """Hosts are (vcpus, disk GB, memory MB), instances (host row, vcpus, disk GB, memory MB), as in Watcher's files."""
    table_of_hosts = {
        "uuid": [f"Node_{n}" for n in range(len(hosts))],
        "hostname": [f"hostname_{n}" for n in range(len(hosts))],
        "vcpus": [float(host[0]) for host in hosts],
        "disk_gb": [float(host[1]) for host in hosts],
        "memory_mb": [float(host[2]) for host in hosts],
        **(host_columns or {}),
    }
    table_of_instances = {
        "uuid": [f"INSTANCE_{n}" for n in range(len(instances))],
        "name": [f"vm_{n}" for n in range(len(instances))],
        "node": pa.array([f"Node_{one[0]}" if one[0] >= 0 else None for one in instances], pa.string()),
        "vcpus": pa.array([float(one[1]) for one in instances], pa.float64()),
        "disk_gb": pa.array([float(one[2]) for one in instances], pa.float64()),
        "memory_mb": pa.array([float(one[3]) for one in instances], pa.float64()),
        **(instance_columns or {}),
    }
    names = groups or {}
    table_of_groups = pa.table(
        {"uuid": pa.array(list(names), pa.string()), "policy": pa.array(list(names.values()), pa.string())}
    )
    return ClusterModel.from_arrow(pa.table(table_of_hosts), pa.table(table_of_instances), table_of_groups)


def snapshot(strategy: Any, model: ClusterModel, given: Mapping[str, Any], **values: Sequence[float]) -> Snapshot:
    """A snapshot in which the metrics named have these values by row; a metric not named was not measured."""
    parameters = read_parameters(strategy, given)
    measured = {
        need: np.array(values[need.metric], np.float64) for need in strategy.needs(parameters) if need.metric in values
    }
    return Snapshot(model, taken_at=0.0, measured=measured)


def host_cpu(model: ClusterModel, cpu_pct: Sequence[float]) -> list[float]:
    """Host CPU % that follows from the instances, as in Watcher's fake."""
    placed = model.host_of >= 0
    cores = np.bincount(
        model.host_of[placed], (model.demand[:, 0] * np.array(cpu_pct) / 100)[placed], minlength=model.hosts
    )
    return [float(value) for value in cores / model.total[:, 0] * 100]


def scenario_1() -> ClusterModel:
    """Five hosts, eight placed instances and two of the 27 unplaced ones."""
    usual = (10, 20, 2)
    placed = [
        (0, *usual),
        (0, 11, 18, 3),
        (1, 12, 19, 1),
        (2, *usual),
        (2, *usual),
        (2, *usual),
        (3, *usual),
        (4, *usual),
    ]
    unplaced = [(-1, *usual), (-1, *usual)]
    states = ["active"] * 6 + ["stopped"] + ["active"] * 3
    return cluster([(40, 250, 132)] * 5, placed + unplaced, instance_columns={"state": states})


def scenario_1_with_metrics() -> ClusterModel:
    """Two hosts with one instance each."""
    return cluster([(40, 250, 64)] * 2, [(0, 10, 20, 2), (1, 10, 20, 2)])


def scenario_2_with_metrics(status: Sequence[str] = ("enabled",) * 4, reason: str = "") -> ClusterModel:
    """Four hosts of 16 vCPUs, six instances of 10 vCPUs all on the first one."""
    columns = {"status": list(status), "disabled_reason": [reason if word == "disabled" else "" for word in status]}
    return cluster([(16, 250, 64000)] * 4, [(0, 10, 20, 2048)] * 6, host_columns=columns)


def scenario_3_with_metrics() -> ClusterModel:
    """Two hosts of 10 vCPUs, the first with 1 + 2 + 4 + 8 vCPUs."""
    return cluster([(10, 250, 64000)] * 2, [(0, n, 20, 2048) for n in (1, 2, 4, 8)])


def scenario_8_with_4_nodes(status: Sequence[str] = ("enabled",) * 4) -> ClusterModel:
    """Four hosts with 3, 1, 1 and 1 small instances."""
    return cluster(
        [(16, 250, 64)] * 4, [(host, 2, 20, 2) for host in (0, 0, 0, 1, 2, 3)], host_columns={"status": list(status)}
    )


def scenario_3_with_2_nodes() -> ClusterModel:
    """Two hosts with one instance each."""
    return cluster([(40, 250, 132)] * 2, [(0, 10, 20, 2), (1, 10, 20, 2)])


def scenario_6_with_2_nodes() -> ClusterModel:
    """Two hosts with two instances each."""
    return cluster([(40, 250, 132)] * 2, [(host, 10, 20, 32) for host in (0, 0, 1, 1)])


def scenario_7_with_2_nodes() -> ClusterModel:
    """Two hosts with two instances each, all with a priority."""
    priorities = [f'{{"watcher-priority": "{number}"}}' for number in (8, 4, 1, 9)]
    guests = [(0, 10, 20, 2), (0, 15, 20, 2), (1, 10, 20, 2), (1, 10, 20, 2)]
    return cluster([(50, 250, 132)] * 2, guests, instance_columns={"metadata": priorities})


def scenario_10() -> ClusterModel:
    """Eight hosts, two of them without instances, the last two disabled."""
    guests = [(0, 10), (0, 15), (1, 14), (2, 10), (2, 10), (2, 10), (3, 8), (4, 10), (7, 12)]
    return cluster(
        [(40, 250, 132)] * 8,
        [(host, vcpus, 20, 20) for host, vcpus in guests],
        host_columns={"status": ["enabled"] * 6 + ["disabled"] * 2},
    )


def scenario_11_with_2_nodes_2_instances() -> ClusterModel:
    """Two hosts with an instance each that is far too large for either."""
    return cluster([(1, 1, 1)] * 2, [(0, 10, 20, 2), (1, 10, 20, 2)])


# Table C1: what Watcher's fake gnocchi says of scenario 1.
GNOCCHI = {
    "instance_cpu_usage": [7.0, 7, 10, 5, 5, 10, 8, 4, 0, 0],
    "instance_ram_usage": [2.0, 5, 5, 8, 5, 16, 8, 4, 0, 0],
    "host_cpu_usage": [7.0, 7, 80, 5, 5],
    "host_ram_usage": [7.0 * 1024, 5 * 1024, 29 * 1024, 8 * 1024, 4 * 1024],
}

# Table C3: CPU %, memory MB of instances 0 to 9.
CPU = [10.0, 30, 60, 20, 40, 50, 100, 100, 100, 100]
RAM = [1.0, 2, 4, 8, 3, 2, 1, 2, 4, 8]
