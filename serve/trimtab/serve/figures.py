"""Figures of the cluster as it was last collected: what GET /v1/cluster shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.platform.collector import Collector
from trimtab.platform.model import VCPU
from trimtab.platform.model.compute import Floats
from trimtab.platform.observed import RECENT_S, RUNNING
from trimtab.simulator.power import Power

OVERLOADED = 0.9  # share of a host's physical vCPUs


def cluster_figures(collector: Collector) -> dict[str, Any]:
    """Hosts in use, balance, overload and power by the newest recorded CPU of the last hour; `at` is cloud time, s.

    `cpu_pct_by_host` is in the model's order. Before the first collection only `version` 0 is known.
    """
    model, history = collector.model, collector.history
    if model is None or history is None:
        return {"version": 0}
    newest = newest_of_each(history.cpu_pct[-max(1, round(RECENT_S / history.step_s)) :])
    asks = np.where(RUNNING[model.state], np.nan_to_num(newest), 0.0) / 100 * model.demand[:, VCPU]
    placed = model.host_of >= 0
    demand = np.bincount(model.host_of[placed], asks[placed], model.hosts).astype(np.float64)
    residents = np.bincount(model.host_of[placed], minlength=model.hosts)
    vcpus = np.maximum(model.total[:, VCPU], 1e-9)
    counted = model.usable | (residents > 0)
    share = demand / vcpus
    watts = Power.of(model.total[:, VCPU]).watts(demand, residents, model.up, model.enabled)
    return {
        "version": collector.version,
        "at": collector.collected_at,
        "hosts": model.hosts,
        "hosts_in_use": int((residents > 0).sum()),
        "hosts_usable": int(model.usable.sum()),
        "instances": int(placed.sum()),
        "cpu_mean_pct": float(100 * share[counted].mean()) if counted.any() else 0.0,
        "cpu_sd_pp": float(100 * share[counted].std()) if counted.any() else 0.0,
        "overloaded_hosts": int((share > OVERLOADED).sum()),
        "power_w": float(watts.sum()),
        "stale": collector.fault,
        "cpu_pct_by_host": [round(float(pct), 2) for pct in 100 * share],
    }


def newest_of_each(cpu_pct: npt.NDArray[np.float32]) -> Floats:
    """The last value of each column, [V], of [T, V], as the last sample may have holes; NaN where there is none."""
    if not len(cpu_pct):
        return np.full(cpu_pct.shape[1], np.nan)
    last = len(cpu_pct) - 1 - np.argmax(np.isfinite(cpu_pct[::-1]), axis=0)  # of a column of NaN: its last
    return cpu_pct[last, np.arange(cpu_pct.shape[1])].astype(np.float64)
