"""A made-up but plausible estate: mixed hosts, flavors, projects, zones, groups; badly placed, as estates become."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from trimtab.platform.errors import InvalidInput


class HostType(NamedTuple):
    """One model of server that was bought; memory in MB, disk in GB."""

    name: str
    share: float
    vcpus: int
    memory_mb: int
    disk_gb: int
    vcpu_ratio: float
    trait: str


class Flavor(NamedTuple):
    """One size of instance."""

    name: str
    share: float
    vcpus: int
    memory_mb: int
    disk_gb: int


HOST_TYPES = (
    HostType("gen-32", 0.50, 32, 131_072, 2_000, 4.0, "HW_CPU_X86_AVX2"),
    HostType("gen-48", 0.30, 48, 196_608, 3_000, 4.0, "HW_CPU_X86_AVX2"),
    HostType("big-64", 0.20, 64, 393_216, 6_000, 3.0, "HW_CPU_X86_AVX512F"),
)
FLAVORS = (
    Flavor("c1.small", 0.20, 2, 2_048, 20),
    Flavor("c1.large", 0.07, 8, 8_192, 40),
    Flavor("c1.xlarge", 0.02, 16, 16_384, 60),
    Flavor("m1.small", 0.20, 1, 2_048, 20),
    Flavor("m1.medium", 0.20, 2, 4_096, 30),
    Flavor("m1.large", 0.15, 4, 16_384, 60),
    Flavor("m1.xlarge", 0.08, 8, 32_768, 100),
    Flavor("r1.large", 0.06, 4, 32_768, 60),
    Flavor("r1.xlarge", 0.02, 8, 65_536, 120),
)
RESERVED = {"vcpu_reserved": 0.0, "memory_mb_reserved": 4_096.0, "disk_gb_reserved": 50.0}
HOT_SHARE = 0.06  # hosts that somebody once filled with compute-heavy instances
EMPTY_SHARE = 0.025
TRIES = 24


def build_estate(
    hosts: int = 200, instances: int = 2000, seed: int = 1, zones: int = 2
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Hosts, instances and server groups as tables for `ClusterModel.from_arrow`.

    The placement respects capacity, zones and groups, but is fragmented: nearly every host holds something where about
    half would do, and some hosts hold far more virtual CPUs than the others.

    Raises:
        InvalidInput: sizes that make no estate, or more instances than the hosts can hold.
    """
    if hosts < 1 or instances < 0 or not 1 <= zones <= hosts:
        raise InvalidInput(
            f"an estate of {hosts} hosts, {instances} instances, {zones} zones: give 1 <= zones <= hosts"
        )
    random = np.random.default_rng(seed)
    kind = random.choice(len(HOST_TYPES), hosts, p=[t.share for t in HOST_TYPES])
    flavor = random.choice(len(FLAVORS), instances, p=[f.share for f in FLAVORS])
    zone = np.arange(hosts) % zones
    pinned = np.where(random.random(instances) < 0.25, random.integers(0, zones, instances), -1)
    group = _groups(instances, random)
    total = np.array([(t.vcpus, t.memory_mb, t.disk_gb) for t in HOST_TYPES], np.float64)[kind]
    ratio = np.ones((hosts, 3))
    ratio[:, 0] = np.array([t.vcpu_ratio for t in HOST_TYPES])[kind]
    capacity = (total - list(RESERVED.values())) * ratio
    demand = np.array([(f.vcpus, f.memory_mb, f.disk_gb) for f in FLAVORS], np.float64)[flavor]
    wishes = _wishes(kind, flavor, random)
    host_of = _place(demand, capacity, wishes, pinned, zone, group, random.permutation(instances))
    if instances and host_of.min() < 0:
        raise InvalidInput(
            f"{hosts} hosts cannot hold {instances} instances (about {np.median(capacity[:, 1]) / 10_800:.0f} a host "
            "fit): give more hosts"
        )
    host_ids, instance_ids = _uuids(hosts, random), _uuids(instances, random)
    groups = int(group.max(initial=-1)) + 1
    group_ids = _uuids(groups, random)
    state = random.choice(["active", "stopped", "paused"], instances, p=[0.93, 0.05, 0.02])
    born = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    ages = random.integers(0, 500 * 86_400, instances)
    host_table = pa.table(
        {
            "uuid": host_ids,
            "hostname": _names("host", hosts, 3),
            "vcpus": total[:, 0],
            "memory_mb": total[:, 1],
            "disk_gb": total[:, 2],
            **{name: np.full(hosts, amount) for name, amount in RESERVED.items()},
            "vcpu_ratio": ratio[:, 0],
            "memory_ratio": ratio[:, 1],
            "disk_ratio": ratio[:, 2],
            "zone": [f"az-{z + 1}" for z in zone],
            "aggregates": pa.array([[HOST_TYPES[k].name] for k in kind], pa.list_(pa.string())),
            "traits": pa.array([[HOST_TYPES[k].trait] for k in kind], pa.list_(pa.string())),
        }
    )
    instance_table = pa.table(
        {
            "uuid": pa.array(instance_ids, pa.string()),
            "name": pa.array(_names("vm", instances, 4), pa.string()),
            "node": pa.array([host_ids[h] for h in host_of], pa.string()),
            "vcpus": demand[:, 0],
            "memory_mb": demand[:, 1],
            "disk_gb": demand[:, 2],
            "state": pa.array(state, pa.string()),
            "project": pa.array([f"project-{p:02d}" for p in random.integers(1, 26, instances)], pa.string()),
            "flavor": pa.array([FLAVORS[f].name for f in flavor], pa.string()),
            "locked": random.random(instances) < 0.003,
            "pinned_zone": pa.array([f"az-{z + 1}" if z >= 0 else "" for z in pinned], pa.string()),
            "group": pa.array([group_ids[g] if g >= 0 else "" for g in group], pa.string()),
            "created": pa.array([(born + dt.timedelta(seconds=int(s))).isoformat() for s in ages], pa.string()),
        }
    )
    group_table = pa.table(
        {
            "uuid": pa.array(group_ids, pa.string()),
            "name": pa.array(_names("apart", groups, 3), pa.string()),
            "policy": pa.array(["anti-affinity"] * groups, pa.string()),
        }
    )
    return host_table, instance_table, group_table


def _names(word: str, count: int, digits: int) -> list[str]:
    width = max(digits, len(str(count)))
    return [f"{word}-{n:0{width}d}" for n in range(1, count + 1)]


def _uuids(count: int, random: np.random.Generator) -> list[str]:
    raw = random.bytes(16 * count)
    return [str(uuid.UUID(bytes=raw[16 * n : 16 * n + 16], version=4)) for n in range(count)]


def _groups(instances: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Group of every instance, -1 for most: one group of 2..4 per 80 instances."""
    group = np.full(instances, -1)
    members = random.permutation(instances)
    at = 0
    for number, size in enumerate(random.integers(2, 5, instances // 80)):
        group[members[at : at + size]] = number
        at += size
    return group


def _wishes(
    kind: npt.NDArray[np.int64], flavor: npt.NDArray[np.int64], random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Hosts an instance asks in turn, [V, TRIES]: uneven, and compute flavors crowd together on some hosts."""
    hosts = len(kind)
    weight = np.array([t.memory_mb for t in HOST_TYPES], np.float64)[kind] ** 0.5 * random.lognormal(0, 0.45, hosts)
    order = random.permutation(hosts)
    empty, hot = round(EMPTY_SHARE * hosts), max(1, round(HOT_SHARE * hosts))
    weight[order[:empty]] = 0 if empty < hosts else 1
    crowded = weight.copy()
    crowded[order[empty : empty + hot]] = 1.5 * weight.sum() / hot
    shape = (len(flavor), TRIES)
    calm = np.searchsorted(np.cumsum(weight) / weight.sum(), random.random(shape))
    rush = np.searchsorted(np.cumsum(crowded) / crowded.sum(), random.random(shape))
    compute = np.array([f.name.startswith("c1") for f in FLAVORS])[flavor]
    return np.minimum(np.where(compute[:, None], rush, calm), hosts - 1)


@njit(cache=True)
def _place(
    demand: npt.NDArray[np.float64],
    capacity: npt.NDArray[np.float64],
    wishes: npt.NDArray[np.int64],
    pinned: npt.NDArray[np.int64],
    zone: npt.NDArray[np.int64],
    group: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
) -> npt.NDArray[np.int32]:
    """Every instance to the first of its wishes that holds it, else to the first host that does, else -1."""
    hosts = len(capacity)
    free = capacity.copy()
    host_of = np.full(len(demand), -1, np.int32)
    for v in order:
        tries = wishes.shape[1]
        for attempt in range(tries + hosts):
            h = wishes[v, attempt] if attempt < tries else attempt - tries
            if pinned[v] >= 0 and zone[h] != pinned[v]:
                continue
            if free[h, 0] < demand[v, 0] or free[h, 1] < demand[v, 1] or free[h, 2] < demand[v, 2]:
                continue
            if group[v] >= 0 and np.any((host_of == h) & (group == group[v])):
                continue
            host_of[v] = h
            free[h] -= demand[v]
            break
    return host_of
