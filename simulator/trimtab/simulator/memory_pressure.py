"""Memory pressure: how long hosts hold more used memory than they physically have, and how much more.

Allocation above the physical size (Nova's `ram_allocation_ratio` above 1: "Overcommitting CPU and RAM" in Nova's
administrator guide) is harmless until guests use it; then the host swaps. What swapping costs is not modelled.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trimtab.platform.model import MEMORY, ClusterModel, InstanceState
from trimtab.platform.model.compute import Bools, Floats
from trimtab.platform.model.placement import ROUNDING
from trimtab.simulator.migration import GIB_MB
from trimtab.simulator.timeline import INSTANCE, Timeline
from trimtab.simulator.world import BURNS_CPU

HOLDS = (*BURNS_CPU, InstanceState.PAUSED)


class Pressure(NamedTuple):
    """`minutes`: host-minutes in which used memory exceeded the physical; `excess_gib_h`: by how much, GiB-hours."""

    minutes: float
    excess_gib_h: float


def memory_pressure(
    model: ClusterModel, timeline: Timeline, start_s: float, end_s: float, memory_mb: Floats | None = None
) -> Pressure:
    """Pressure in [start, end). Used are the host's own reserve and what running and paused instances use.

    Args:
        model: hosts and instances; its placement is not looked at.
        timeline: what happened; must have begun by `start_s`.
        start_s: begin of the time.
        end_s: its end.
        memory_mb: memory that each instance uses, [V]; what it asked for if not given.
    """
    used_by = model.demand[:, MEMORY] if memory_mb is None else memory_mb
    state = timeline.at(start_s)
    holds, burns = np.isin(model.state, HOLDS), np.isin(model.state, BURNS_CPU)
    present = _present(state.host_of >= 0, state.running, holds, burns)
    used = model.reserved[:, MEMORY] + np.bincount(state.host_of[present], used_by[present], model.hosts)
    physical = model.total[:, MEMORY] + ROUNDING
    since = np.full(model.hosts, start_s)
    over_s, excess_mb_s = np.zeros(model.hosts), np.zeros(model.hosts)

    def until(host: int, time: float) -> None:
        if state.up[host] and used[host] > physical[host]:
            over_s[host] += time - since[host]
            excess_mb_s[host] += (used[host] - physical[host]) * (time - since[host])
        since[host] = time

    for change in timeline.changes:
        if change.at <= start_s:
            continue
        if change.at >= end_s:
            break
        row = change.row
        if change.kind != INSTANCE:
            until(row, change.at)
            state.up[row] = change.to == 1
            continue
        for host, sign, running in ((int(state.host_of[row]), -1, state.running[row]), (change.to, 1, change.flag)):
            if host >= 0 and holds[row] and (running or not burns[row]):
                until(host, change.at)
                used[host] += sign * used_by[row]
        state.host_of[row], state.running[row] = change.to, change.flag
    for host in range(model.hosts):
        until(host, end_s)
    return Pressure(float(over_s.sum() / 60), float(excess_mb_s.sum() / GIB_MB / 3600))


def _present(placed: Bools, running: Bools, holds: Bools, burns: Bools) -> Bools:
    """Instances that hold memory: paused ones, and of those that would run the ones that do."""
    return np.asarray(placed & holds & (running | ~burns))
