"""True CPU load of instances, one sample per 5 minutes, reproducible and readable at any time without the time before.

A day of load is one block, made by a counter-based generator (Philox, Salmon et al., "Parallel random numbers: as easy
as 1, 2, 3", SC 2011) whose key is (seed, day): the same seed gives the same values in any order of asking.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from numba import njit

from trimtab.platform.errors import InvalidInput

SAMPLE_S = 300.0
PER_DAY = 288

Block = npt.NDArray[np.float32]
Days = Callable[[int], Block]

PARAMETERS = 2**64 - 1  # a key no day has
_KINDS = (0.25, 0.50, 0.17, 0.08)  # idle, office, batch, busy


class Load:
    """CPU per cent of the instances' own vCPUs; sample k covers [k * 300 s, (k + 1) * 300 s) of cloud time.

    `days` makes the block [288, V] of one day (days since the epoch). `rewritten` splices another future in.
    """

    def __init__(self, days: Days, instances: int) -> None:
        self.instances = instances
        self._segments: list[tuple[int, Days]] = [(0, days)]  # (first sample, who makes it)
        self._blocks: dict[tuple[int, int], Block] = {}
        self._sizes: dict[int, list[tuple[int, float]]] = {}  # row -> (first sample, vCPUs), of those that were resized

    def cpu_pct(self, first: int, count: int, *, of_its_time: bool = False) -> Block:
        """Samples first .. first + count - 1, [count, V] float32.

        Per cent of the vCPUs that instances have now (above 100 where they had more), or had at the time.
        """
        out = self._given(first, count)
        samples = np.arange(first, first + count)
        for row, sizes in self._sizes.items():
            then = np.array([vcpus for _, vcpus in sizes])[
                np.searchsorted([begins for begins, _ in sizes], samples, side="right") - 1
            ]
            work = np.minimum(out[:, row] * sizes[0][1], 100 * then)
            out[:, row] = work / (then if of_its_time else sizes[-1][1])
        return out

    def resize(self, first: int, instance: int, before: float, after: float) -> None:
        """From sample `first` on an instance has another number of vCPUs for the same work."""
        self._sizes.setdefault(instance, [(0, before)]).append((first, after))

    def _given(self, first: int, count: int) -> Block:
        out = np.empty((count, self.instances), np.float32)
        sample = first
        while sample < first + count:
            segment = max(n for n, (begins, _) in enumerate(self._segments) if begins <= sample)
            ends = [begins for begins, _ in self._segments[segment + 1 :]]
            day, within = divmod(sample, PER_DAY)
            stop = min([first + count, (day + 1) * PER_DAY, *ends])
            out[sample - first : stop - first] = self._block(segment, day)[within : within + stop - sample]
            sample = stop
        return out

    def rewritten(self, first: int, days: Days) -> None:
        """From sample `first` on the load is another one; what was before stays."""
        self._segments = [kept for kept in self._segments if kept[0] < first] + [(first, days)]
        self._blocks.clear()

    def _block(self, segment: int, day: int) -> Block:
        key = (segment, day)
        if key not in self._blocks:
            while len(self._blocks) >= 3:
                self._blocks.pop(next(iter(self._blocks)))
            self._blocks[key] = self._segments[segment][1](day)
        return self._blocks[key]


def generated(instances: int, seed: int, variation: float = 1.0) -> Days:
    """Load made up of daily cycles with different phases, bursts, idle machines and noise; no day of the week matters.

    `variation` scales what differs from day to day; with 0 every day is the same.
    """
    random = keyed_random(seed, PARAMETERS)
    kind = random.choice(4, instances, p=_KINDS)
    level = _of_kind(kind, random.uniform([1, 8, 5, 55], [5, 26, 15, 85], (instances, 4)))
    swing = _of_kind(kind, random.uniform([0, 20, 30, 0], [2, 50, 65, 8], (instances, 4)))
    peak = _of_kind(kind, random.normal([0.5, 0.58, 0.1, 0.5], [0.3, 0.08, 0.06, 0.3], (instances, 4)))
    noise = _of_kind(kind, random.uniform([0.2, 1, 1, 2], [0.8, 4, 4, 5], (instances, 4)))
    bursts = _of_kind(kind, np.broadcast_to([0.1, 1.5, 1.0, 0.5], (instances, 4)))
    width = np.where(kind == 2, 4.0, 1.5).astype(np.float32)
    hour = (np.arange(PER_DAY, dtype=np.float32) / PER_DAY)[:, None]
    cycle = level + swing * np.maximum(np.cos(2 * np.pi * (hour - peak)), 0) ** width

    def day(number: int) -> Block:
        own = keyed_random(seed, number if variation else 0)
        mood = np.exp(0.12 * variation * own.standard_normal(instances, np.float32))
        out = own.standard_normal((PER_DAY, instances), np.float32)
        out *= noise
        out += cycle * mood
        who = np.repeat(np.arange(instances), own.poisson(bursts))
        start = own.integers(0, PER_DAY, len(who))
        _add_bursts(out, who, start, own.integers(2, 18, len(who)), own.uniform(15, 60, len(who)).astype(np.float32))
        return np.clip(out, 0, 100, out=out)

    return day


def from_planetlab(path: Path, instances: int, seed: int, variation: float = 1.0) -> Days:
    """Recorded load, PlanetLab style, spread over any number of instances.

    Traces are dealt out in a shuffled order, again and again where there are more instances than traces. Every day is
    the recorded one with a small seeded difference (a few samples early or late, up to some per cent more or less), so
    that tomorrow is not exactly yesterday; `variation` 0 repeats the recorded day exactly.

    Args:
        path: Parquet file with columns vm_index, name, cpu_pct (fixed-size list of 288 whole numbers 0..100).
        instances: how many instances want load.
        seed: of the dealing and of the daily differences.
        variation: scales the daily differences.

    Raises:
        InvalidInput: the file is missing, or a column, length or value is wrong.
    """
    traces = read_planetlab(path)
    random = keyed_random(seed, PARAMETERS)
    rounds = -(-instances // len(traces))
    dealt = np.concatenate([random.permutation(len(traces)) for _ in range(rounds)])[:instances]
    of_instance = np.ascontiguousarray(traces[dealt].T)
    columns = np.arange(instances)

    def day(number: int) -> Block:
        if not variation:
            return of_instance
        own = keyed_random(seed, number)
        shift = np.rint(own.normal(0, 2 * variation, instances)).astype(np.int64)
        factor = np.exp(0.08 * variation * own.standard_normal(instances, np.float32))
        rows = (np.arange(PER_DAY)[:, None] + shift) % PER_DAY
        return np.clip(of_instance[rows, columns] * factor, 0, 100).astype(np.float32)

    return day


def read_planetlab(path: Path) -> Block:
    """The traces of a file as [N, 288] float32, in the order of the file.

    Raises:
        InvalidInput: see `from_planetlab`.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InvalidInput(f"{path} cannot be read as Parquet: {error}") from error
    missing = [name for name in ("vm_index", "name", "cpu_pct") if name not in table.column_names]
    if missing:
        raise InvalidInput(
            f"{path}: column {missing[0]!r} is missing (there are {', '.join(table.column_names) or 'none'}); "
            "a trace file has vm_index, name and cpu_pct"
        )
    if not len(table):
        raise InvalidInput(f"{path} holds no trace: give a file with at least one row")
    column = table.column("cpu_pct").combine_chunks()
    if not pa.types.is_list(column.type) and not pa.types.is_fixed_size_list(column.type):
        raise InvalidInput(f"{path}: cpu_pct is {column.type}; it must be a list of {PER_DAY} numbers a row")
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    names = table.column("name")
    if (wrong := np.flatnonzero(lengths != PER_DAY)).size:
        row = int(wrong[0])
        raise InvalidInput(
            f"{path} row {row} ({names[row].as_py()}): cpu_pct has {lengths[row]} values; "
            f"it must have {PER_DAY}, one per 5 minutes of a day"
        )
    try:
        values = column.flatten().cast(pa.float32()).to_numpy(zero_copy_only=False).reshape(-1, PER_DAY)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidInput(f"{path}: cpu_pct holds {column.type.value_type}, not numbers: {error}") from error
    if (bad := ~((values >= 0) & (values <= 100))).any():
        row, sample = divmod(int(np.flatnonzero(bad)[0]), PER_DAY)
        raise InvalidInput(
            f"{path} row {row} ({names[row].as_py()}): cpu_pct[{sample}] is {values[row, sample]:g}; "
            "per cent lie in 0..100"
        )
    return np.array(values, np.float32)


def keyed_random(seed: int, block: int) -> np.random.Generator:
    """The generator of one block (a day, or `PARAMETERS`) of a seed: the same whatever was drawn before."""
    return np.random.Generator(np.random.Philox(key=(block << 64) | (seed & PARAMETERS)))


def _of_kind(kind: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return values[np.arange(len(kind)), kind].astype(np.float32)


@njit(cache=True)
def _add_bursts(
    out: Block,
    who: npt.NDArray[np.int64],
    start: npt.NDArray[np.int64],
    length: npt.NDArray[np.int64],
    height: Block,
) -> None:
    for n in range(len(who)):
        for sample in range(start[n], min(start[n] + length[n], out.shape[0])):
            out[sample, who[n]] += height[n]
