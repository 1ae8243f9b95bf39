"""A run as a table, one row a sample: power, demand, hosts in use, overload, balance, migrations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from trimtab.platform.model import VCPU, ClusterModel
from trimtab.simulator.playback import NEARLY, OVERLOADED
from trimtab.simulator.power import Power
from trimtab.simulator.score import Series
from trimtab.simulator.timeline import INSTANCE, Move, Timeline


def series_of(model: ClusterModel, timeline: Timeline, power: Power, played: Series, start_s: float) -> pa.Table:
    """What happened, one row a sample of 300 s.

    Columns: `at_s` (begin of the sample, cloud time), `power_w` and `demand_vcpus` (means, all hosts), `hosts_in_use`
    (at the sample's end), `overloaded_hosts` (mean demand above 90 %), `migrating` (migrations under way at some time
    of the sample), `cpu_sd_pp` (standard deviation over the hosts of their mean CPU, per cent points),
    `migrations_started`.

    Args:
        model: hosts and instances; its placement is not looked at.
        timeline: what happened.
        power: of the hosts.
        played: `score.play_series` of the same.
        start_s: from when on that was asked for.
    """
    begins = np.maximum(played.at_s, start_s)
    ends = begins + played.seconds
    demand = played.demand_vcpus
    counted = np.empty(demand.shape, bool)
    in_use = np.empty(len(ends), np.int64)
    for rows, moment in timeline.stretches(ends):
        placed = moment.host_of >= 0
        residents = np.bincount(moment.host_of[placed], minlength=model.hosts)
        in_use[rows] = (residents > 0).sum()
        counted[rows] = (moment.up & moment.enabled) | (residents > 0)
    busy_pct = 100 * demand / np.maximum(model.total[:, VCPU], NEARLY)
    count = np.maximum(counted.sum(axis=1), 1)
    mean = np.where(counted, busy_pct, 0).sum(axis=1) / count
    deviation = np.sqrt(np.where(counted, (busy_pct - mean[:, None]) ** 2, 0).sum(axis=1) / count)
    started = np.sort([move.start for move in timeline.moves])
    ended = np.sort([move.end for move in timeline.moves])
    return pa.table(
        {
            "at_s": begins,
            "power_w": played.kwh * 3.6e6 / played.seconds,
            "demand_vcpus": demand.sum(axis=1),
            "hosts_in_use": in_use,
            "overloaded_hosts": (demand > OVERLOADED * power.vcpus * (1 + NEARLY)).sum(axis=1),
            "migrating": np.searchsorted(started, ends) - np.searchsorted(ended, begins, side="right"),
            "cpu_sd_pp": deviation,
            "migrations_started": np.searchsorted(started, ends) - np.searchsorted(started, begins),
        }
    )


def migrating_s(moves: Sequence[Move], end_s: float) -> float:
    """Seconds until the end in which at least one migration was under way."""
    total, covered = 0.0, -np.inf
    for move in sorted(moves, key=lambda move: move.start):
        end = min(move.end, end_s)
        total += max(end - max(move.start, covered), 0.0)
        covered = max(covered, end)
    return total


def mean_hosts_in_use(timeline: Timeline, start_s: float, end_s: float) -> float:
    """Hosts that hold an instance, mean over the time between two times."""
    host_of = timeline.at(start_s).host_of
    residents = np.bincount(host_of[host_of >= 0], minlength=len(timeline.up))
    in_use, since, area = int((residents > 0).sum()), start_s, 0.0
    for change in timeline.changes:
        if change.kind != INSTANCE or not start_s < change.at < end_s or change.to == host_of[change.row]:
            continue
        area, since = area + in_use * (change.at - since), change.at
        if (source := host_of[change.row]) >= 0:
            residents[source] -= 1
            in_use -= residents[source] == 0
        if change.to >= 0:
            in_use += residents[change.to] == 0
            residents[change.to] += 1
        host_of[change.row] = change.to
    return float(area + in_use * (end_s - since)) / (end_s - start_s)
