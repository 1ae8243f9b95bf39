"""Storage and metal of a made-up estate: pools that filled unevenly, volumes of all kinds, a metal node a host."""

from __future__ import annotations

import uuid
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trimtab.platform.model import BaremetalModel, ClusterModel, StorageModel
from trimtab.platform.model.storage import POOL_COLUMNS, STORAGE_NODE_COLUMNS, VOLUME_COLUMNS, VOLUME_TYPE_COLUMNS
from trimtab.platform.model.tables import table_of


class Tier(NamedTuple):
    """One kind of storage that was bought."""

    name: str
    share: float  # of the volumes
    sizes_gb: tuple[int, ...]
    mb_s: float  # that a pool gives to moves


TIERS = (
    Tier("fast", 0.35, (10, 20, 40, 80), 600.0),
    Tier("standard", 0.65, (20, 50, 100, 200, 500), 200.0),
)
VOLUMES_PER_INSTANCE = 0.6
BOOTABLE_SHARE, SNAPSHOT_SHARE, UNTYPED_SHARE, LOOSE_SHARE = 0.3, 0.1, 0.05, 0.2
FULLEST, EMPTIEST = 0.92, 0.35  # how full pools are
BACKENDS_PER_TIER, POOLS_PER_BACKEND = 2, 2


def build_storage(model: ClusterModel, seed: int) -> StorageModel:
    """Nodes, pools, types and volumes that go with a compute model; the same for the same model and seed.

    Every tier has two storage nodes with a backend, a type and two pools each; a type asks for its backend by name, and
    types of one tier differ in nothing else. About 0.6 volumes an instance: most attached to one, some loose, some
    without a type, some with snapshots.
    """
    random = np.random.default_rng(seed)
    count = max(8, round(VOLUMES_PER_INSTANCE * model.instances))
    tier = random.choice(len(TIERS), count, p=[t.share for t in TIERS])
    backends = [f"{t.name}-{n}" for t in TIERS for n in range(1, BACKENDS_PER_TIER + 1)]
    nodes = [f"store-{n}@{backend}" for n, backend in enumerate(backends, 1)]
    pools = [f"{node}#pool-{n}" for node in nodes for n in range(1, POOLS_PER_BACKEND + 1)]
    per_tier = BACKENDS_PER_TIER * POOLS_PER_BACKEND
    # The first pools of a tier got more than the last ones.
    crowd = np.linspace(1.6, 0.4, per_tier) / per_tier
    pool = tier * per_tier + random.choice(per_tier, count, p=crowd)
    drawn = random.random(count)
    size = np.choose(tier, [np.array(t.sizes_gb, np.float64)[(drawn * len(t.sizes_gb)).astype(int)] for t in TIERS])
    used = np.bincount(pool, size, len(pools))
    fill = np.tile(np.linspace(FULLEST, EMPTIEST, per_tier), len(TIERS)) * random.uniform(0.95, 1.0, len(pools))
    total = np.ceil(np.maximum(used, 500.0) / fill / 100) * 100
    owner = random.integers(0, max(model.instances, 1), count)
    loose = (random.random(count) < LOOSE_SHARE) | (model.instances == 0)
    bootable = (random.random(count) < BOOTABLE_SHARE) & ~loose
    untyped = random.random(count) < UNTYPED_SHARE
    types = np.array(backends, object)[pool // POOLS_PER_BACKEND]
    ids = np.array([*model.instance_ids.to_pylist(), ""], object)
    attached = [[] if alone else [ids[row]] for alone, row in zip(loose, owner, strict=True)]
    projects = np.array([*model.project.texts().to_pylist(), "project-01"], object)
    days = random.integers(0, 500, count)
    return StorageModel.from_arrow(
        table_of(
            {
                "host": nodes,
                "zone": [_zone(model, n) for n in range(len(nodes))],
                "status": ["enabled"] * len(nodes),
                "state": ["up"] * len(nodes),
            },
            STORAGE_NODE_COLUMNS,
        ),
        table_of(
            {
                "name": pools,
                "node": np.repeat(nodes, POOLS_PER_BACKEND),
                "backend": np.repeat(backends, POOLS_PER_BACKEND),
                "total_gb": total,
                "free_gb": total - used,
                "provisioned_gb": used,
                "allocated_gb": used,
                "over_subscription": np.full(len(pools), 1.5),
            },
            POOL_COLUMNS,
        ),
        table_of(
            {
                "name": backends,
                "backend": backends,
                "extra_specs": [f'{{"tier": "{backend.rpartition("-")[0]}"}}' for backend in backends],
            },
            VOLUME_TYPE_COLUMNS,
        ),
        table_of(
            {
                "uuid": _uuids(count, random),
                "name": [f"volume-{n:05d}" for n in range(1, count + 1)],
                "size_gb": size,
                "pool": np.array(pools, object)[pool],
                "status": np.where(loose, "available", "in-use"),
                "migration_status": [""] * count,
                "type": np.where(untyped, "", types).astype(object),
                "bootable": bootable,
                "multiattach": np.zeros(count, bool),
                "snapshots": np.where(random.random(count) < SNAPSHOT_SHARE, 1.0, 0.0),
                "attached_to": pa.array(attached, pa.list_(pa.string())),
                "project": projects[np.where(loose, -1, owner)],
                "metadata": ["{}"] * count,
                "created": (np.datetime64("2025-01-01T00:00:00") + days.astype("timedelta64[D]")).astype(str),
            },
            VOLUME_COLUMNS,
        ),
    )


def pool_mb_s(model: StorageModel, seed: int) -> npt.NDArray[np.float64]:
    """What the pools give to moves, MB/s: by the tier that their backend is named after, else something between."""
    random = np.random.default_rng(seed)
    of_tier = {t.name: t.mb_s for t in TIERS}
    speeds = [of_tier.get(model.pool_backend[p].rpartition("-")[0], 300.0) for p in range(model.pools)]
    return np.array(speeds, np.float64) * random.uniform(0.7, 1.1, model.pools)


def build_metal(model: ClusterModel, seed: int) -> BaremetalModel:
    """A metal node for every compute host, on where the host is up."""
    random = np.random.default_rng(seed)
    names = model.host_names.to_pylist()
    return BaremetalModel.from_arrow(
        pa.table(
            {
                "uuid": pa.array(_uuids(model.hosts, random), pa.string()),
                "name": pa.array([f"metal-{name}" for name in names], pa.string()),
                "hostname": pa.array(names, pa.string()),
                "power": pa.array(np.where(model.up, "on", "off").tolist(), pa.string()),
            }
        )
    )


def power_times(nodes: int, seed: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """From power on until the compute service is up, and from the request until the power is off, [M] each, s."""
    random = np.random.default_rng(seed)
    return random.uniform(120, 300, nodes), random.uniform(20, 60, nodes)


def _zone(model: ClusterModel, node: int) -> str:
    zones = model.zone.names
    return zones[node % len(zones)] if zones else "nova"


def _uuids(count: int, random: np.random.Generator) -> list[str]:
    raw = random.bytes(16 * count)
    return [str(uuid.UUID(bytes=raw[16 * n : 16 * n + 16], version=4)) for n in range(count)]
