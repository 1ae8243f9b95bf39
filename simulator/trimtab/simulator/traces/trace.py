"""A trace: CPU series of instances in one matrix, how it is resampled, scaled and filled, and load made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trimtab.platform.errors import InvalidInput
from trimtab.platform.snapshot import History
from trimtab.simulator.load import PARAMETERS, PER_DAY, SAMPLE_S, Block, Days, keyed_random

Floats = npt.NDArray[np.float64]
Filling = Literal["hold", "zero", "typical"]

DAY_S = PER_DAY * SAMPLE_S
NAMED = 5  # how many gaps an error names


class Gap(NamedTuple):
    """Time, [start, end) in seconds, in which nothing was recorded of an instance that was there."""

    id: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Trace:
    """CPU load of N instances over T samples.

    `cpu_pct` [T, N] float32: per cent of the instance's own vCPUs, 0..100, NaN where nothing was recorded; sample t
    covers `step_s` seconds from `start_s + t * step_s` on (seconds since the epoch, or since the trace's own start).
    `ids` [N] text, each once. `vcpus`, `memory_mb` [N], NaN where unknown. `begins_s`, `ends_s` [N]: when instances
    came and went; infinite where that lies outside the record. None: the format does not tell. `notes`: what reading
    changed or guessed, a sentence each.
    """

    start_s: float
    step_s: float
    cpu_pct: Block
    ids: pa.Array
    vcpus: Floats | None = None
    memory_mb: Floats | None = None
    begins_s: Floats | None = None
    ends_s: Floats | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check shapes and ranges; InvalidInput names every fault found."""
        faults = []
        if not (np.isfinite(self.start_s) and np.isfinite(self.step_s) and self.step_s > 0):
            faults.append(
                f"start_s {self.start_s:g} and step_s {self.step_s:g}: give finite seconds and a step above 0"
            )
        if self.cpu_pct.ndim != 2 or self.cpu_pct.dtype != np.float32:
            raise InvalidInput(
                f"cpu_pct is {self.cpu_pct.dtype} of shape {self.cpu_pct.shape}; give float32 [samples, instances]"
            )
        if len(self.ids) != self.cpu_pct.shape[1]:
            raise InvalidInput(f"{len(self.ids)} ids for {self.cpu_pct.shape[1]} columns of cpu_pct: give one each")
        if self.ids.null_count or len(self.ids.unique()) != len(self.ids):
            faults.append("ids: one is null or stands twice; each instance has its own")
        if (bad := (self.cpu_pct < 0) | (self.cpu_pct > 100)).any():
            sample, row = (int(n) for n in np.argwhere(bad)[0])
            value = self.cpu_pct[sample, row]
            faults.append(f"cpu_pct sample {sample} of {self.ids[row]} is {value:g}; per cent lie in 0..100")
        for name in ("vcpus", "memory_mb", "begins_s", "ends_s"):
            values = getattr(self, name)
            if values is None:
                continue
            if values.shape != (len(self.ids),):
                faults.append(f"{name} has shape {values.shape}; give one value for each of {len(self.ids)} ids")
            elif name in ("vcpus", "memory_mb") and ((values <= 0) | np.isinf(values)).any():
                row = int(np.flatnonzero((values <= 0) | np.isinf(values))[0])
                faults.append(f"{name} of {self.ids[row]} is {values[row]:g}; give a number above 0, or NaN: unknown")
        if faults:
            raise InvalidInput("; ".join(faults))

    @property
    def end_s(self) -> float:
        """When the last sample ends."""
        return self.start_s + self.step_s * len(self.cpu_pct)

    def resampled(self, step_s: float) -> Trace:
        """The same load in samples of another length: their time-weighted mean, which holds values in shorter ones.

        Time without a record does not count; a sample that has none at all is NaN. The integral over time is the same
        wherever nothing is missing and the record is a whole number of new samples long.

        Raises:
            InvalidInput: the step is not above 0.
        """
        if not (np.isfinite(step_s) and step_s > 0):
            raise InvalidInput(f"step_s is {step_s:g}: give seconds above 0")
        if step_s == self.step_s or not len(self.cpu_pct):
            return replace(self, step_s=step_s)
        whole = self.step_s * len(self.cpu_pct)
        count = int(np.ceil(whole / step_s - 1e-9))
        edges = np.union1d(np.arange(len(self.cpu_pct)) * self.step_s, np.arange(count) * step_s)
        seconds = np.diff(edges, append=whole)[:, None]
        middle = edges[:, None] + seconds / 2
        given = self.cpu_pct[np.minimum(middle[:, 0] // self.step_s, len(self.cpu_pct) - 1).astype(np.intp)]
        known = ~np.isnan(given)
        first = np.searchsorted(edges, np.arange(count) * step_s)
        work = np.add.reduceat(np.where(known, given, 0) * seconds, first)
        time = np.add.reduceat(known * seconds, first)
        mean = np.divide(work, time, out=np.full_like(work, np.nan), where=time > 0)
        return replace(self, step_s=step_s, cpu_pct=np.clip(mean, 0, 100).astype(np.float32))

    def gaps(self) -> list[Gap]:
        """Stretches without a sample while an instance was there, by instance and time.

        Where `begins_s` and `ends_s` are known, samples that touch neither are no gap.
        """
        hole: npt.NDArray[np.bool_] = np.isnan(self.cpu_pct)
        begin = self.start_s + self.step_s * np.arange(len(hole))[:, None]
        if self.begins_s is not None:
            hole = hole & (begin + self.step_s > self.begins_s)
        if self.ends_s is not None:
            hole = hole & (begin < self.ends_s)
        edges = np.diff(np.pad(hole, ((1, 1), (0, 0))).astype(np.int8), axis=0).T
        rows, first = np.nonzero(edges == 1)
        last = np.nonzero(edges == -1)[1]
        return [
            Gap(self.ids[row].as_py(), self.start_s + self.step_s * a, self.start_s + self.step_s * b)
            for row, a, b in zip(rows.tolist(), first.tolist(), last.tolist(), strict=True)
        ]

    def require_whole(self) -> Trace:
        """This trace, if nothing is missing in it.

        Raises:
            InvalidInput: naming the instances and times of the first gaps.
        """
        if gaps := self.gaps():
            named = ", ".join(f"{gap.id} from {gap.start_s:.15g} to {gap.end_s:.15g} s" for gap in gaps[:NAMED])
            more = f" and {len(gaps) - NAMED} more" if len(gaps) > NAMED else ""
            raise InvalidInput(f"nothing was recorded of {named}{more}: fill the trace, or leave these instances out")
        return self

    def scaled(self, factor: float) -> Trace:
        """`factor` times the load, at most 100 per cent; `clipped_pct` tells how much of it is lost.

        Raises:
            InvalidInput: the factor is negative or not finite.
        """
        _check_factor(factor)
        return replace(self, cpu_pct=np.minimum(self.cpu_pct * np.float32(factor), np.float32(100)))

    def clipped_pct(self, factor: float) -> float:
        """How many per cent of the scaled load lie above 100 per cent of their instance and are lost by `scaled`."""
        _check_factor(factor)
        wanted = self.cpu_pct.astype(np.float64) * factor
        total = float(np.nansum(wanted))
        return 100 * float(np.nansum(np.maximum(wanted - 100, 0))) / total if total else 0.0

    def filled(self, how: Filling) -> Trace:
        """The trace without holes.

        Args:
            how: `hold`: the value before, at the beginning the first one after; `zero`; `typical`: the mean of the
                instance at that time of day, else its mean, else the mean of all.

        Raises:
            InvalidInput: another word, or nothing was recorded to fill with (of an instance for `hold`, at all for
                `typical`).
        """
        hole: npt.NDArray[np.bool_] = np.isnan(self.cpu_pct)
        if how == "zero":
            return replace(self, cpu_pct=np.where(hole, np.float32(0), self.cpu_pct))
        if how not in ("hold", "typical"):
            raise InvalidInput(f"holes cannot be filled by {how!r}: use hold, zero or typical")
        if not hole.any():
            return self
        empty: npt.NDArray[np.bool_] = np.asarray(hole.all(axis=0))
        if empty.any() and (how == "hold" or empty.all()):
            row = int(np.flatnonzero(empty)[0])
            raise InvalidInput(
                f"{self.ids[row]} has no sample at all to fill its holes with: use zero, or leave it out"
            )
        return replace(self, cpu_pct=_held(self.cpu_pct, hole) if how == "hold" else self._typical(hole, empty))

    def _typical(self, hole: npt.NDArray[np.bool_], empty: npt.NDArray[np.bool_]) -> Block:
        given = np.where(hole, 0, self.cpu_pct).astype(np.float64)
        counts = np.maximum((~hole).sum(axis=0), 1)
        mean = np.where(empty, given.sum() / (~hole).sum(), given.sum(axis=0) / counts)
        out = self.cpu_pct.copy()
        per_day = max(round(DAY_S / self.step_s), 1)
        for slot in range(min(per_day, len(out))):
            own = ~hole[slot::per_day]
            seen = own.sum(axis=0)
            here = np.where(seen > 0, given[slot::per_day].sum(axis=0) / np.maximum(seen, 1), mean)
            out[slot::per_day] = np.where(own, out[slot::per_day], here.astype(np.float32))
        return out


def from_history(history: History, ids: Sequence[str] | pa.Array | None = None) -> Trace:
    """Recorded load of a model's instances as a trace.

    Args:
        history: what was recorded; values outside 0..100 are clipped.
        ids: names of its columns; None numbers them.

    Raises:
        InvalidInput: another number of names than columns.
    """
    names = pa.array([str(row) for row in range(history.cpu_pct.shape[1])] if ids is None else ids, pa.string())
    return Trace(history.start_s, history.step_s, np.clip(history.cpu_pct, 0, 100).astype(np.float32), names)


def to_days(trace: Trace, instances: int, seed: int = 0, variation: float = 1.0, *, own_rows: bool = False) -> Days:
    """Load made of a trace, as `Load` takes it: its days in order at their own time of day, again and again.

    Series are dealt out in a shuffled order, again and again where there are more instances than series, with the same
    daily differences as `load.from_planetlab` makes. What was not recorded is filled by `typical`.

    Args:
        trace: any step; resampled to 300 s. Its beginning is rounded to whole samples.
        instances: how many instances want load.
        seed: of the dealing and of the daily differences.
        variation: scales the daily differences; 0 repeats the record exactly.
        own_rows: instance n gets series n, nothing is dealt.

    Raises:
        InvalidInput: nothing was recorded, or `own_rows` and another number of instances than of series.
    """
    series = len(trace.ids)
    if not series or not len(trace.cpu_pct):
        raise InvalidInput("the trace holds no sample: give one with at least one series")
    if own_rows and series != instances:
        raise InvalidInput(f"{series} series for {instances} instances: own_rows needs as many; else let them be dealt")
    given = trace.resampled(SAMPLE_S)
    first_day, before = divmod(round(trace.start_s / SAMPLE_S), PER_DAY)
    whole = -(-(before + len(given.cpu_pct)) // PER_DAY) * PER_DAY
    padded = np.full((whole, series), np.nan, np.float32)
    padded[before : before + len(given.cpu_pct)] = given.cpu_pct
    record = Trace(0.0, SAMPLE_S, padded, trace.ids).filled("typical").cpu_pct
    dealt = np.arange(instances)
    if not own_rows:
        random = keyed_random(seed, PARAMETERS)
        dealt = np.concatenate([random.permutation(series) for _ in range(-(-instances // series))])[:instances]

    def day(number: int) -> Block:
        first = (number - first_day) * PER_DAY % whole
        if not variation:
            return record[first : first + PER_DAY, dealt]
        own = keyed_random(seed, number)
        shift = np.rint(own.normal(0, 2 * variation, instances)).astype(np.int64)
        factor = np.exp(0.08 * variation * own.standard_normal(instances, np.float32))
        rows = (first + np.arange(PER_DAY)[:, None] + shift) % whole
        return np.clip(record[rows, dealt] * factor, 0, 100).astype(np.float32)

    return day


def _check_factor(factor: float) -> None:
    if not (np.isfinite(factor) and factor >= 0):
        raise InvalidInput(f"a load cannot be scaled by {factor:g}: give a finite factor, zero or more")


def _held(values: Block, hole: npt.NDArray[np.bool_]) -> Block:
    """The last value known, before the first one that one."""
    rows = np.where(hole, -1, np.arange(len(values))[:, None])
    last = np.maximum.accumulate(rows, axis=0)
    last = np.where(last < 0, np.argmin(hole, axis=0), last)
    return np.take_along_axis(values, last, axis=0)
