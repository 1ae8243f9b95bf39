"""Small clouds and scenes for the simulator's tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from trimtab.platform.model import ClusterModel
from trimtab.platform.snapshot import History, Snapshot
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.truth import CloudSpec

DAY_S = 86_400.0
START_S = 20_000 * DAY_S


@pytest.fixture
def spec() -> CloudSpec:
    """A cloud that fits on a page and whose time stands still."""
    return CloudSpec(hosts=12, instances=90, seed=3, start_s=START_S, speed=0.0)


@pytest.fixture(scope="session")
def small_model() -> Callable[..., ClusterModel]:
    """A model of equal hosts; `where` gives the host of every instance, `sizes` its (vcpus, memory MB, disk GB)."""

    def make(
        hosts: int,
        where: list[int],
        sizes: list[tuple[float, float, float]] | None = None,
        host_size: tuple[float, float, float] = (8, 32_768, 500),
        **columns: list[Any],
    ) -> ClusterModel:
        amounts = np.array(sizes or [(2, 4_096, 20)] * len(where), float)
        return ClusterModel.from_arrow(
            pa.table(
                {
                    "uuid": [f"h{n}" for n in range(hosts)],
                    "hostname": [f"host-{n}" for n in range(hosts)],
                    "vcpus": [host_size[0]] * hosts,
                    "memory_mb": [host_size[1]] * hosts,
                    "disk_gb": [host_size[2]] * hosts,
                    **{name[5:]: values for name, values in columns.items() if name.startswith("host_")},
                }
            ),
            pa.table(
                {
                    "uuid": [f"v{n}" for n in range(len(where))],
                    "name": [f"vm-{n}" for n in range(len(where))],
                    "node": [f"h{h}" if h >= 0 else None for h in where],
                    "vcpus": amounts[:, 0],
                    "memory_mb": amounts[:, 1],
                    "disk_gb": amounts[:, 2],
                    **{name: values for name, values in columns.items() if not name.startswith("host_")},
                }
            ),
        )

    return make


@pytest.fixture
def snapshot_of() -> Callable[[SimulatedCloud], Snapshot]:
    """What a collector would know of a cloud: its inventory and the last day of samples."""

    def take(cloud: SimulatedCloud) -> Snapshot:
        inventory = cloud.inventory()
        model = ClusterModel.from_arrow(inventory.hosts, inventory.instances, inventory.groups)
        end = inventory.at // 300 * 300
        table = cloud.samples("instance_cpu_usage", "instance", end - DAY_S, end)
        rows = model.instance_rows(table["resource"].combine_chunks())
        at = ((table["at"].to_numpy() - (end - DAY_S)) // 300).astype(int)
        load = np.full((288, model.instances), np.nan, np.float32)
        load[at, rows] = table["value"].to_numpy()
        return Snapshot(model, inventory.at, history=History(end - DAY_S, 300.0, load))

    return take
