"""What the simulated cloud's monitoring has measured: samples and aggregates as tables, never anything not yet over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import MEMORY, VCPU, ClusterModel, InstanceState
from trimtab.platform.model.compute import Bools, Floats
from trimtab.platform.snapshot import Need
from trimtab.simulator.load import SAMPLE_S, Load
from trimtab.simulator.power import Power
from trimtab.simulator.score import Blocks, host_cpu
from trimtab.simulator.sensors import SENSORS, Sensors
from trimtab.simulator.timeline import Moment, Timeline
from trimtab.simulator.truth import true_blocks

METRICS = {
    "instance_cpu_usage": "instance",  # per cent of its vCPUs
    "instance_ram_usage": "instance",  # MB
    "host_cpu_usage": "host",  # per cent of its physical CPUs
    "host_ram_usage": "host",  # KiB
}
REPORTS = np.zeros(len(InstanceState), bool)  # states in which an instance is measured
REPORTS[[InstanceState.ACTIVE, InstanceState.RESCUED, InstanceState.RESIZED, InstanceState.PAUSED]] = True


@dataclass(frozen=True, slots=True)
class Measurements:
    """Reads one cloud's past. A sample begins at a whole multiple of 300 s and is visible when it is over."""

    model: ClusterModel
    timeline: Timeline
    load: Load
    used_memory_mb: Floats
    now_s: float
    blocks: Blocks | None = None  # the true load where `load` has holes; None: it has none
    sensors: Sensors | None = None
    # At some times: rows of instances whose state ever changed, and their states then; None: no state ever did.
    states_at: Callable[[Floats], Iterator[tuple[int, npt.NDArray[np.intp]]]] | None = None

    def samples(self, metric: str, kind: str, start_s: float, end_s: float) -> pa.Table:
        """Columns resource, at, value; one row per resource that reported and sample with start <= at < end."""
        first, last = self._visible(int(-(-start_s // SAMPLE_S)), int(-(-end_s // SAMPLE_S)))
        ids = self.model.host_ids if kind == "host" else self.model.instance_ids
        resources, at, value = [], [], []
        if self._kind(metric) == kind and last > first:
            for number, row in enumerate(self.values(metric, first, last)):
                known = np.flatnonzero(~np.isnan(row))
                resources.append(ids.take(pa.array(known)))
                at.append(pa.array(np.full(len(known), (first + number) * SAMPLE_S)))
                value.append(pa.array(row[known].astype(np.float64)))
        return pa.table(
            {
                "resource": pa.chunked_array(resources, pa.string()),
                "at": pa.chunked_array(at, pa.float64()),
                "value": pa.chunked_array(value, pa.float64()),
            }
        )

    def aggregate(self, needs: Sequence[Need], at: float) -> pa.Table:
        """Columns need, resource, value, over the samples that ended in (at - window, at].

        A need whose metric this cloud does not measure gets no rows. Samples are 300 s apart, whatever finer or coarser
        granularity is asked for.

        Raises:
            InvalidInput: an aggregate that does not exist.
        """
        kinds = pa.schema([("need", pa.int32()), ("resource", pa.string()), ("value", pa.float64())])
        parts = [kinds.empty_table()]
        for position, need in enumerate(needs):
            if self._kind(need.metric) != need.kind:
                continue
            first, last = self._visible(*window_of(need, at))
            if last <= first:
                continue
            values = aggregated(need.aggregate, self.values(need.metric, first, last))
            known = np.flatnonzero(~np.isnan(values))
            ids = self.model.host_ids if need.kind == "host" else self.model.instance_ids
            parts.append(
                pa.table(
                    {
                        "need": pa.array(np.full(len(known), position, np.int32)),
                        "resource": ids.take(pa.array(known)),
                        "value": pa.array(values[known].astype(np.float64)),
                    }
                )
            )
        return pa.concat_tables(parts)

    def _kind(self, metric: str) -> str | None:
        return METRICS.get(metric) or (None if self.sensors is None else SENSORS.get(metric))

    def _visible(self, first: int, last: int) -> tuple[int, int]:
        """Only samples that were over by now and began after the cloud did."""
        return max(first, int(-(-self.timeline.began // SAMPLE_S))), min(last, int(self.now_s // SAMPLE_S))

    def values(self, metric: str, first: int, last: int) -> npt.NDArray[np.floating]:
        """One of `METRICS` or of the sensors in samples first .. last - 1, [n, V] or [n, H]; NaN where nothing was."""
        if metric not in METRICS and self.sensors is not None:
            return self.sensors.values(self, metric, first, last)
        reporting = REPORTS[self.model.state]
        ends = np.arange(first + 1, last + 1, dtype=np.float64) * SAMPLE_S
        silent = [] if self.states_at is None else [(row, ~REPORTS[states]) for row, states in self.states_at(ends)]
        if METRICS[metric] == "instance":
            reporting[[row for row, _ in silent]] = True
        if metric == "instance_cpu_usage":
            values: npt.NDArray[np.floating] = self.load.cpu_pct(first, last - first, of_its_time=True)
            for rows, moment in self.timeline.stretches(ends):
                values[rows, ~moment.running] = 0
                values[rows, ~_there(reporting, moment)] = np.nan
        elif metric == "instance_ram_usage":
            values = np.tile(self.used_memory_mb, (last - first, 1))
            for rows, moment in self.timeline.stretches(ends):
                values[rows, ~_there(reporting, moment)] = np.nan
        elif metric == "host_cpu_usage":
            values = self._host_cpu_pct(first, last)
            for rows, moment in self.timeline.stretches(ends):
                values[rows, ~moment.up] = np.nan
        else:
            values = np.empty((last - first, self.model.hosts))
            for rows, moment in self.timeline.stretches(ends):
                there = _there(reporting, moment)
                used = np.bincount(moment.host_of[there], self.used_memory_mb[there], self.model.hosts)
                values[rows] = np.where(moment.up, (self.model.reserved[:, MEMORY] + used) * 1024, np.nan)
        for row, samples in silent if METRICS[metric] == "instance" else ():
            values[samples, row] = np.nan
        return values

    def _host_cpu_pct(self, first: int, last: int) -> Floats:
        vcpus = self.model.total[:, VCPU]
        demand = host_cpu(
            self.model,
            self.timeline,
            self.blocks or (lambda a, b: true_blocks(self.load, a, b)),
            Power.of(vcpus),
            first * SAMPLE_S,
            last * SAMPLE_S,
        )
        return np.minimum(100 * demand / np.maximum(vcpus, 1e-9), 100.0)


def window_of(need: Need, at: float) -> tuple[int, int]:
    """The samples [first, last) that a need is about: at least one, the last one over by then."""
    past = int(at // SAMPLE_S)
    return past - max(int(need.window_s // SAMPLE_S), 1), past


def aggregated(aggregate: str, values: npt.NDArray[np.floating]) -> Floats:
    """One value of every column of [n, ...] without its NaNs; NaN where there is nothing else.

    Raises:
        InvalidInput: an aggregate that does not exist.
    """
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    if aggregate == "mean":
        result = np.where(known, values, 0).sum(axis=0, dtype=np.float64) / np.maximum(count, 1)
    elif aggregate == "min":
        result = np.where(known, values, np.inf).min(axis=0).astype(np.float64)
    elif aggregate == "max":
        result = np.where(known, values, -np.inf).max(axis=0).astype(np.float64)
    elif aggregate == "count":
        result = count.astype(np.float64)
    else:
        raise InvalidInput(f"aggregate {aggregate!r} does not exist: use mean, min, max or count")
    return np.where(count > 0, result, np.nan)


def _there(reporting: Bools, moment: Moment) -> Bools:
    """Instances that report: in a state that does, on a host that is up, [V]."""
    placed = moment.host_of >= 0
    return placed & reporting & moment.up[moment.host_of]
