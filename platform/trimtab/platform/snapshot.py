"""Everything a strategy and a rehearsal may know: model, measurements, recorded load; nothing of the future."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab.platform.model import BaremetalModel, ClusterModel, StorageModel
from trimtab.platform.model.compute import Floats


class Need(NamedTuple):
    """One thing a strategy wants measured for all resources of a kind at once."""

    metric: str  # Watcher's name: instance_cpu_usage, host_cpu_usage, ...
    kind: str  # "instance" or "host"
    aggregate: str = "mean"  # mean | min | max | count
    window_s: int = 300
    granularity_s: int = 300


@dataclass(frozen=True, slots=True)
class History:
    """Recorded CPU load of the model's instances.

    `cpu_pct` is [T, V] float32, per cent of the instance's own vCPUs, oldest sample first, NaN where nothing was
    recorded; sample t covers the `step_s` seconds that begin at `start_s + t * step_s` (cloud time).
    """

    start_s: float
    step_s: float
    cpu_pct: npt.NDArray[np.float32]

    @property
    def end_s(self) -> float:
        """Cloud time at which the last sample ends."""
        return self.start_s + self.step_s * len(self.cpu_pct)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One frozen view of the cloud; shared without copying by everything an audit runs.

    `measured` maps a Need to one value per host or instance of the model, NaN where it was not measured. `storage` and
    `baremetal` are the other two models, None where a cloud has none or nobody asked. `failed_before` are instance rows
    whose migration failed in an earlier plan of this audit.
    """

    model: ClusterModel
    taken_at: float
    version: int = 0
    measured: Mapping[Need, Floats] = field(default_factory=dict)
    history: History | None = None
    storage: StorageModel | None = None
    baremetal: BaremetalModel | None = None
    failed_before: tuple[int, ...] = ()
    numa: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def metric(self, need: Need) -> Floats:
        """Values by row of the model; all NaN when nobody measured it."""
        values = self.measured.get(need)
        if values is None:
            rows = self.model.hosts if need.kind == "host" else self.model.instances
            return np.full(rows, np.nan)
        return values
