"""Measurements as strategies use them: what is missing is replaced by a stated rule and named in one line."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from trimtab.platform.model import MEMORY, VCPU, ClusterModel, InstanceState
from trimtab.platform.model.compute import Bools, Floats, Ints

NAMED = 3  # how many names a note gives

# States in which a guest runs or can go on at once; in all others it uses nothing.
RUNNING = np.zeros(len(InstanceState), bool)
RUNNING[[InstanceState.ACTIVE, InstanceState.BUILDING, InstanceState.PAUSED, InstanceState.RESCUED]] = True

MIGRATES_LIVE = np.zeros(len(InstanceState), bool)
MIGRATES_LIVE[[InstanceState.ACTIVE, InstanceState.PAUSED]] = True

MIGRATES_COLD = np.zeros(len(InstanceState), bool)
MIGRATES_COLD[InstanceState.STOPPED] = True


class Usage(NamedTuple):
    """CPU (cores) and memory (MB) that instances use, [V, 2]; `guessed` where CPU was not measured, [V]."""

    used: Floats
    guessed: Bools


def usage_of(model: ClusterModel, cpu_pct: Floats, ram_mb: Floats) -> Usage:
    """What every instance uses; an idle one uses nothing.

    Without a measurement a running or paused instance counts with all its vCPUs and all its memory, and one that does
    not run with nothing. CPU is at most the instance's vCPUs.
    """
    running = RUNNING[model.state]
    vcpus, memory = model.demand[:, VCPU], model.demand[:, MEMORY]
    cores = vcpus * np.clip(cpu_pct, 0.0, 100.0) / 100.0
    guessed = ~np.isfinite(cores)
    cores = np.where(guessed, np.where(running, vcpus, 0.0), cores)
    ram = np.where(np.isfinite(ram_mb), np.maximum(ram_mb, 0.0), np.where(running, memory, 0.0))
    return Usage(np.stack([cores, ram], axis=1), guessed & running & (model.host_of >= 0))


def own_load(model: ClusterModel, usage: Usage, cpu_pct: Floats, ram_kib: Floats) -> Floats:
    """What hosts use beyond their instances (hypervisor, agents): cores and MB, [H, 2], never below zero.

    Watcher takes the larger of the sum of the instances and the host's own measurement; the difference stays with the
    host when instances move. A host without measurement counts with its instances only; no host uses more than it has.
    """
    cores, memory = model.total[:, VCPU], model.total[:, MEMORY]
    measured = (np.clip(cpu_pct, 0, 100) / 100 * cores, np.clip(ram_kib / 1024, 0, memory))
    placed = model.host_of >= 0
    own = np.zeros((model.hosts, 2))
    for r, seen in enumerate(measured):
        inside = np.bincount(model.host_of[placed], usage.used[placed, r], model.hosts)
        own[:, r] = np.maximum(np.nan_to_num(seen, nan=0.0) - inside, 0.0)
    return own


def where_it_is(flags: Bools, host_of: Ints) -> Bools:
    """A property of hosts, [H], as one of the instances on them, [V]; False for those on no host."""
    return np.append(flags, False)[host_of]  # -1 is the last one


def note(rows: Bools, names: pa.Array, what: str) -> list[str]:
    """One line such as `3 hosts without ...: a, b, c`; nothing when no row is meant. `what` contains {count}."""
    found = np.flatnonzero(rows)
    if not len(found):
        return []
    first = ", ".join(str(names[int(row)].as_py()) for row in found[:NAMED])
    return [f"{what.format(count=len(found))}: {first}{', ...' if len(found) > NAMED else ''}"]


def note_instances(model: ClusterModel, rows: Bools, what: str) -> list[str]:
    """The same for instances: their names, the uuid where one has none."""
    found = np.flatnonzero(rows)
    if not len(found):
        return []
    first = [model.instance_name(int(row)) or model.instance_id(int(row)) for row in found[:NAMED]]
    return [f"{what.format(count=len(found))}: {', '.join(first)}{', ...' if len(found) > NAMED else ''}"]


def labels(model: ClusterModel) -> pa.Array:
    """Names of the instances for notes, the uuid where an instance has none."""
    names = model.instance_names
    return pa.array(
        [name or uuid for name, uuid in zip(names.to_pylist(), model.instance_ids.to_pylist(), strict=True)],
        pa.string(),
    )
