"""The load forecast of a rehearsal: the same time of the last recorded day, or what is typical where none was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from trimtab.platform.errors import InvalidInput
from trimtab.platform.snapshot import History, Snapshot
from trimtab.simulator.score import LoadBlock, as_shared

DAY_S = 86_400.0
UNKNOWN_PCT = 100.0  # an instance nobody measured is taken to use all its vCPUs


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the load will be, from a snapshot alone.

    Where the record does not reach back to the same time of day, or has a hole (NaN), an instance is taken to run at
    `typical` [V]: the mean of its own samples, else its measured usage, else all its vCPUs.
    """

    history: History | None
    typical: npt.NDArray[np.float32]

    @classmethod
    def of(cls, snapshot: Snapshot) -> Forecast:
        """The forecast that a snapshot allows.

        Raises:
            InvalidInput: the history is not about the model's instances.
        """
        instances, history = snapshot.model.instances, snapshot.history
        typical = np.full(instances, np.nan, np.float32)
        if history is not None and len(history.cpu_pct):
            if history.cpu_pct.shape[1] != instances:
                raise InvalidInput(
                    f"the snapshot's history has {history.cpu_pct.shape[1]} columns and its model {instances} "
                    "instances: record the history again for this model"
                )
            typical = column_means(as_shared(history.cpu_pct))
        else:
            history = None
        for need in sorted(snapshot.measured, key=lambda need: need.aggregate != "mean"):
            if (need.metric, need.kind) == ("instance_cpu_usage", "instance"):
                typical = np.where(np.isnan(typical), snapshot.measured[need], typical).astype(np.float32)
        return cls(history, np.where(np.isnan(typical), np.float32(UNKNOWN_PCT), typical))

    def blocks(self, start_s: float, end_s: float) -> Iterator[LoadBlock]:
        """One block for the whole time; it looks into the record and copies nothing."""
        if self.history is None:
            nothing = np.empty((0, len(self.typical)), np.float32)
            yield LoadBlock(start_s, end_s - start_s, nothing, np.array([-1]), self.typical)
            return
        step, recorded = self.history.step_s, len(self.history.cpu_pct)
        first = int((start_s - self.history.start_s) // step)
        last = int(-(-(end_s - self.history.start_s) // step))
        samples = np.arange(first, max(last, first + 1))
        per_day = max(round(DAY_S / step), 1)
        days_back = np.maximum(-(-(samples - recorded + 1) // per_day), 0)
        rows = np.maximum(samples - days_back * per_day, -1)
        yield LoadBlock(self.history.start_s + first * step, step, self.history.cpu_pct, rows, self.typical)


@njit(cache=True)
def column_means(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Mean of each column without its NaNs, [V]; NaN where there is nothing else. `values` is [T, V]."""
    total, count = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for t in range(values.shape[0]):
        for v in range(values.shape[1]):
            if not np.isnan(values[t, v]):
                total[v] += values[t, v]
                count[v] += 1
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
