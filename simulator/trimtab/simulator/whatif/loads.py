"""The true load of a cell: made up, from a trace or from the record; scaled and growing; the same for all policies."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from trimtab.platform.errors import InvalidInput
from trimtab.platform.snapshot import History
from trimtab.simulator.forecast import column_means
from trimtab.simulator.load import PER_DAY, SAMPLE_S, Block, Days, Load, generated
from trimtab.simulator.score import as_shared
from trimtab.simulator.traces.read import read_trace
from trimtab.simulator.traces.trace import Trace, from_history, to_days
from trimtab.simulator.whatif.cells import LOAD, stream
from trimtab.simulator.whatif.origin import DAY_S, Origin
from trimtab.simulator.whatif.scenario import LoadPoint


def load_of(point: LoadPoint, origin: Origin, seed: int) -> Load:
    """The load of one point of the axis with one seed.

    Raises:
        InvalidInput: the trace cannot be read, or there is no record.
    """
    own = stream(seed, LOAD, point.seed)
    instances = origin.model.instances
    days: Days
    if point.source == "generated":
        days = generated(instances, own, point.variation)
    elif point.source == "trace":
        days = to_days(trace_of(point), instances, own, point.variation)
    elif origin.history is None:
        raise InvalidInput(f"load {point.name!r}: the base has no recorded load: use generated or trace")
    else:
        days = recorded(origin.history, own, point.variation)
    return Load(grown(days, point.scale, point.growth_pct_per_day, int(origin.start_s // DAY_S)), instances)


def trace_of(point: LoadPoint) -> Trace:
    """The trace that a point names; read once as long as the file does not change.

    Raises:
        InvalidInput: it cannot be read.
    """
    if point.trace is None:
        raise InvalidInput(f"load {point.name!r} names no trace")
    files = [point.trace, *point.trace.rglob("*")]  # a folder itself does not change when a file in it does
    return _trace(point.trace, max(file.stat().st_mtime_ns for file in files))


@lru_cache(maxsize=4)
def _trace(path: Path, _changed: int) -> Trace:
    return read_trace(path)


def grown(days: Days, scale: float, growth_pct_per_day: float, first_day: int) -> Days:
    """A load times `scale`, and from `first_day` on growing by so many per cent a day, cut at 100 % of the vCPUs."""
    if scale == 1.0 and growth_pct_per_day == 0.0:
        return days

    def day(number: int) -> Block:
        factor = scale * (1.0 + growth_pct_per_day / 100.0) ** max(number - first_day, 0)
        return np.clip(days(number) * np.float32(factor), 0, 100).astype(np.float32, copy=False)

    return day


def recorded(history: History, seed: int, variation: float = 1.0) -> Days:
    """The record as a load: what was recorded stays as it was, other days repeat the last one with small differences.

    Every instance keeps its own column. The differences are a factor a day and instance, as in `load.from_planetlab`.
    A record of another step is resampled: a finer one to its means, of a coarser one each value holds for its time.
    A hole (NaN) becomes the instance's mean, and where nothing was recorded of it, 0.
    """
    values = as_shared(from_history(history).resampled(SAMPLE_S).cpu_pct)
    typical = np.nan_to_num(column_means(values))
    first, count = int(history.start_s // SAMPLE_S), len(values)

    def day(number: int) -> Block:
        samples = number * PER_DAY + np.arange(PER_DAY) - first
        rows = np.where(samples >= count, samples - -(-(samples - count + 1) // PER_DAY) * PER_DAY, samples)
        rows = np.where(rows < 0, rows + -(rows // PER_DAY) * PER_DAY, rows)
        known = rows < count  # a record shorter than a day knows only some hours
        block = np.where(known[:, None], values[np.where(known, rows, 0)], np.nan)
        block = np.where(np.isnan(block), typical, block).astype(np.float32)
        random = np.random.default_rng([seed, number])
        factor = np.exp(0.08 * variation * random.standard_normal(values.shape[1], np.float32))
        true = ((samples >= 0) & (samples < count))[:, None]
        return np.clip(np.where(true, block, block * factor), 0, 100).astype(np.float32)

    return day
