"""Compile every kernel once, so that numba's cache on disk is ready before workers start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from trimtab.platform.contracts import Context, Strategy
from trimtab.platform.model import VCPU, ClusterModel
from trimtab.platform.rules import Preserve, Spread, with_rules
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.strategies.library.basic import Basic
from trimtab.strategies.library.outlet_temperature import OutletTemperature
from trimtab.strategies.library.repair import Repair
from trimtab.strategies.library.vm_workload_consolidation import VmWorkloadConsolidation
from trimtab.strategies.library.workload_balance import WorkloadBalance
from trimtab.strategies.library.workload_stabilization import WorkloadStabilization


def warm() -> None:
    """Run a strategy of every kernel on a cluster of three hosts, through the same doors as in earnest."""
    runs: list[tuple[Strategy, Mapping[str, Any]]] = [
        (VmWorkloadConsolidation(), {"max_cpu_pct": 50.0}),
        (WorkloadStabilization(), {"metrics": ["instance_cpu_usage", "instance_ram_usage"]}),
        (Basic(), {}),
        (WorkloadBalance(), {}),
        (OutletTemperature(), {}),
    ]
    for strategy, given in runs:
        parameters = read_parameters(strategy, given)
        strategy.propose(_snapshot(strategy.needs(parameters)), parameters, Context())
    repair = Repair()
    parameters = read_parameters(repair, {})
    repair.propose(_ruled(_snapshot(repair.needs(parameters))), parameters, Context())


def _ruled(snapshot: Snapshot) -> Snapshot:
    """Something of everything to repair: two that must part, one on no host, one too large for every host."""
    model = snapshot.model.with_changes(host_of=np.array([0, 0, -1, 1], np.int32))
    pair, large = np.array([0, 1], np.int32), np.array([3], np.int32)
    rules = (Spread(members=pair), Preserve(members=large, resource=VCPU, least=9.0))
    return replace(snapshot, model=with_rules(model, rules))


def _snapshot(needs: Sequence[Need]) -> Snapshot:
    hosts = pa.table(
        {
            "uuid": ["a", "b", "c"],
            "hostname": ["a", "b", "c"],
            "vcpus": [8.0, 8.0, 8.0],
            "memory_mb": [8192.0, 8192.0, 8192.0],
            "disk_gb": [100.0, 100.0, 100.0],
        }
    )
    instances = pa.table(
        {
            "uuid": ["1", "2", "3", "4"],
            "node": ["a", "a", "a", "b"],
            "vcpus": [2.0, 2.0, 2.0, 1.0],
            "memory_mb": [2048.0, 2048.0, 2048.0, 1024.0],
            "disk_gb": [10.0, 10.0, 10.0, 10.0],
        }
    )
    values = {
        "instance_cpu_usage": np.array([90.0, 90.0, 90.0, 5.0]),
        "instance_ram_usage": np.array([1500.0, 1500.0, 1500.0, 500.0]),
        "host_cpu_usage": np.array([70.0, 5.0, 1.0]),
        "host_ram_usage": np.array([4e6, 1e6, 1e5]),
        "host_outlet_temp": np.array([50.0, 20.0, 20.0]),
    }
    model = ClusterModel.from_arrow(hosts, instances)
    return Snapshot(model, 0.0, measured={need: values[need.metric] for need in needs})
