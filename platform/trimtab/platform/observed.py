"""What instances use now, as far as a snapshot knows: measured, else recorded, else all they were given."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trimtab.platform.model import MEMORY, VCPU, InstanceState
from trimtab.platform.model.compute import Bools, Floats
from trimtab.platform.snapshot import Snapshot

RECENT_S = 3600.0  # how far back the record counts as now
RUNNING = np.zeros(len(InstanceState), bool)
RUNNING[[InstanceState.ACTIVE, InstanceState.RESCUED, InstanceState.RESIZED]] = True


class Observed(NamedTuple):
    """CPU in cores and memory in MB that every instance uses, [V] each; `guessed` where CPU is not known."""

    cores: Floats
    memory_mb: Floats
    guessed: Bools


def observed(snapshot: Snapshot) -> Observed:
    """Use of CPU and memory now.

    CPU: `instance_cpu_usage` as measured for the strategies; else the mean of what was recorded in the last hour; else
    all vCPUs. Memory: `instance_ram_usage`; else all of it. What does not run uses no CPU.
    """
    model = snapshot.model
    pct = _measured(snapshot, "instance_cpu_usage")
    if np.isnan(pct).any() and snapshot.history is not None and len(snapshot.history.cpu_pct):
        steps = max(1, round(RECENT_S / snapshot.history.step_s))
        recent = snapshot.history.cpu_pct[-steps:]
        known = np.isfinite(recent)
        count = known.sum(axis=0)
        mean = np.where(known, recent, 0.0).sum(axis=0) / np.maximum(count, 1)
        pct = np.where(np.isnan(pct) & (count > 0), mean, pct)
    running = RUNNING[model.state]
    guessed = np.isnan(pct) & running
    share = np.where(np.isnan(pct), 100.0, np.clip(pct, 0.0, 100.0)) / 100.0
    ram = _measured(snapshot, "instance_ram_usage")
    memory = np.where(np.isfinite(ram), np.maximum(ram, 0.0), model.demand[:, MEMORY])
    return Observed(np.where(running, share * model.demand[:, VCPU], 0.0), np.where(running, memory, 0.0), guessed)


def _measured(snapshot: Snapshot, metric: str) -> Floats:
    found = np.full(snapshot.model.instances, np.nan)
    for need, values in snapshot.measured.items():
        if need.metric == metric and need.kind == "instance" and need.aggregate == "mean":
            found = np.where(np.isnan(found), values, found)
    return found
