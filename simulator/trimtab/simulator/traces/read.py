"""Reads traces: long metric tables and the store's folders, PlanetLab days, OpenDC's tasks and fragments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numba import njit

from trimtab.platform.errors import InvalidInput
from trimtab.simulator.load import SAMPLE_S, read_planetlab
from trimtab.simulator.traces.trace import Floats, Trace

LONG = ("resource", "at", "value")
TASKS: Mapping[str, tuple[str, ...]] = {  # ours: theirs, the newest name first
    "id": ("id",),
    "submitted": ("submission_time", "submissionTime"),
    "duration": ("duration",),
    "cpus": ("cpu_count", "maxCores"),
    "capacity": ("cpu_capacity",),
    "memory": ("mem_capacity", "requiredMemory"),
}
FRAGMENTS: Mapping[str, tuple[str, ...]] = {
    "id": ("id",),
    "duration": ("duration",),
    "mhz": ("cpu_usage", "cpuUsage"),
}
FOLDERS = (("tasks.parquet", "fragments.parquet"), ("meta.parquet", "trace.parquet"))

Rows = npt.NDArray[np.int64]


def read_trace(path: Path, step_s: float = SAMPLE_S) -> Trace:
    """A trace in whichever known format stands at `path`, in samples of `step_s` seconds (PlanetLab: always 300).

    Args:
        path: an OpenDC folder (tasks.parquet and fragments.parquet, or meta.parquet and trace.parquet), a folder of
            the store (`metric=cpu_util`, or one with Parquet of resource, at and value), or a Parquet file.
        step_s: length of the samples made.

    Raises:
        InvalidInput: nothing there, an unknown format, or a fault of the format read.
    """
    if path.is_dir():
        for tasks, fragments in FOLDERS:
            if (path / tasks).exists() or (path / fragments).exists():
                return read_opendc(path / tasks, path / fragments, step_s)
        return read_long(path, step_s)
    columns = _table(path).column_names
    if {"vm_index", "name", "cpu_pct"} <= set(columns):
        days = np.ascontiguousarray(read_planetlab(path).T)
        return Trace(0.0, SAMPLE_S, days, _table(path).column("vm_index").cast(pa.string()).combine_chunks())
    if set(LONG) & set(columns):
        return read_long(path, step_s)
    raise InvalidInput(
        f"{path}: columns {', '.join(columns) or 'none'} are no known trace; give {', '.join(LONG)} (long table) or "
        "vm_index, name, cpu_pct (PlanetLab)"
    )


def read_long(path: Path, step_s: float = SAMPLE_S) -> Trace:
    """Samples by row: resource (text), at (s since the epoch, or a timestamp), value (per cent, null = hole).

    A sample counts for the `step_s` seconds it falls into; several there are averaged, and none make a hole. A folder
    of the store is read with its days in order; a file it is merging away stays out.

    Raises:
        InvalidInput: missing columns, wrong types or values, two rows of one resource at one time, or no row.
    """
    table = _table(path)
    _need(path, table, {name: (name,) for name in LONG})
    if not len(table):
        raise InvalidInput(f"{path} holds no sample: give a table with at least one row")
    ids, column = _codes(table.column("resource"), f"{path}: resource")
    at = _seconds(table.column("at"), f"{path}: at")
    value = _numbers(table.column("value"), f"{path}: value")
    _in_range(path, "at", at, np.isfinite(at), "give seconds since the epoch")
    _in_range(path, "value", value, np.isnan(value) | ((value >= 0) & (value <= 100)), "per cent lie in 0..100")
    known = value[~np.isnan(value)]
    if len(known) > 1 and 0 < known.max() <= 1 and (known % 1 != 0).any():
        raise InvalidInput(
            f"{path}: value is at most {known.max():g}; these look like fractions: give per cent, 0..100"
        )
    order = np.lexsort((at, column))
    if (twice := (np.diff(column[order]) == 0) & (np.diff(at[order]) == 0)).any():
        row = int(order[1:][twice][0])
        raise InvalidInput(f"{path} row {row} ({ids[int(column[row])]}): at {at[row]:.15g} s stands twice; keep one")
    start_s = float(np.floor(at.min() / step_s) * step_s)
    cell = ((at - start_s) // step_s).astype(np.int64)
    shape = (int(cell.max()) + 1, len(ids))
    flat = cell * shape[1] + column
    seen = ~np.isnan(value)
    size = shape[0] * shape[1]
    count = np.bincount(flat[seen], minlength=size)
    total = np.bincount(flat[seen], value[seen], minlength=size)
    mean = np.divide(total, count, out=np.full(size, np.nan), where=count > 0)
    return Trace(start_s, step_s, mean.reshape(shape).astype(np.float32), ids)


def write_long(trace: Trace, path: Path) -> None:
    """Keep a trace's samples as `read_long` takes them; holes are rows without a value."""
    count, series = trace.cpu_pct.shape
    at = np.repeat(trace.start_s + trace.step_s * np.arange(count), series)
    resource = trace.ids.take(pa.array(np.tile(np.arange(series), count)))
    value = pa.array(trace.cpu_pct.ravel(), from_pandas=True)
    pq.write_table(pa.table({"resource": resource, "at": at, "value": value}), path)


def read_opendc(tasks_path: Path, fragments_path: Path, step_s: float = SAMPLE_S) -> Trace:
    """OpenDC's two tables (github.com/atlarge-research/opendc, opendc-trace: the workload and VM formats).

    tasks: id, submission_time (timestamp or epoch ms), duration (ms), cpu_count, cpu_capacity (MHz of all its cores),
    mem_capacity (MB). fragments: id, duration (ms), cpu_usage (MHz). Also the older names submissionTime, maxCores,
    requiredMemory, cpuUsage. A task's fragments follow one another from its submission on, in the order of the file;
    a fragment's own timestamp is not used. Usage above the capacity counts as 100 per cent.

    Raises:
        InvalidInput: missing columns, wrong types, negative or unknown values, duplicate or unknown ids, no row.
    """
    tasks, fragments = _table(tasks_path), _table(fragments_path)
    task = _need(tasks_path, tasks, TASKS)
    part = _need(fragments_path, fragments, FRAGMENTS)
    for path, table in ((tasks_path, tasks), (fragments_path, fragments)):
        if not len(table):
            raise InvalidInput(f"{path} holds no row: give at least one task with one fragment")
    ids = _texts(task["id"])
    if ids.null_count or len(ids.unique()) != len(ids):
        raise InvalidInput(f"{tasks_path}: id is null or stands twice; each task has its own")
    found = pc.index_in(_texts(part["id"]), value_set=ids)
    if found.null_count:
        row = int(np.flatnonzero(found.is_null().to_numpy(zero_copy_only=False))[0])
        raise InvalidInput(
            f"{fragments_path} row {row}: id {part['id'][row]} is not in {tasks_path.name}; add the task"
        )
    submitted = _seconds(task["submitted"], f"{tasks_path}: submission time", epoch_ms=True)
    amounts = {
        name: _numbers(task[name], f"{tasks_path}: {name}") for name in ("cpus", "capacity", "memory", "duration")
    }
    _in_range(tasks_path, "submission time", submitted, np.isfinite(submitted), "give a time")
    for name in ("cpus", "capacity", "memory"):
        good = np.isfinite(amounts[name]) & (amounts[name] > 0)
        _in_range(tasks_path, TASKS[name][0], amounts[name], good, "give a number above 0")
    _in_range(tasks_path, "duration", amounts["duration"], amounts["duration"] >= 0, "give ms, zero or more")
    seconds = _numbers(part["duration"], f"{fragments_path}: duration") / 1000
    mhz = _numbers(part["mhz"], f"{fragments_path}: cpu_usage")
    _in_range(fragments_path, "duration", seconds, np.isfinite(seconds) & (seconds >= 0), "give ms, zero or more")
    _in_range(fragments_path, "cpu_usage", mhz, np.isfinite(mhz) & (mhz >= 0), "give MHz, zero or more")
    of_task = found.to_numpy(zero_copy_only=False).astype(np.int64)
    pct = np.minimum(100 * mhz / amounts["capacity"][of_task], 100)
    played = np.bincount(of_task, seconds, minlength=len(ids))
    start_s = float(np.floor(submitted.min() / step_s) * step_s)
    count = max(int(np.ceil(((submitted + played).max() - start_s) / step_s - 1e-9)), 1)
    cpu_pct = _spread(of_task, seconds, pct, submitted - start_s, step_s, count)
    ends_s = submitted + amounts["duration"] / 1000
    return Trace(start_s, step_s, cpu_pct, ids, amounts["cpus"], amounts["memory"], submitted, ends_s)


@njit(cache=True)
def _spread(
    of_task: Rows, seconds: Floats, pct: Floats, begins_s: Floats, step_s: float, count: int
) -> npt.NDArray[np.float32]:
    """Fragments, one after another, as time-weighted means of samples; NaN where a task has none."""
    work = np.zeros((count, len(begins_s)))
    time = np.zeros((count, len(begins_s)), np.float32)
    now = begins_s.copy()
    for n in range(len(of_task)):
        task = of_task[n]
        end = now[task] + seconds[n]
        cell = int(now[task] / step_s)
        while cell < count and cell * step_s < end:
            part = min(end, (cell + 1) * step_s) - max(now[task], cell * step_s)
            work[cell, task] += part * pct[n]
            time[cell, task] += part
            cell += 1
        now[task] = end
    out = np.full(work.shape, np.nan, np.float32)
    for cell in range(count):
        for task in range(len(begins_s)):
            if time[cell, task] > 0:
                out[cell, task] = min(work[cell, task] / time[cell, task], 100.0)
    return out


def _table(path: Path) -> pa.Table:
    if not path.exists():
        raise InvalidInput(f"{path} is not there: give an existing file or folder")
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InvalidInput(f"{path} cannot be read as Parquet: {error}") from error


def _need(path: Path, table: pa.Table, names: Mapping[str, tuple[str, ...]]) -> dict[str, pa.ChunkedArray]:
    """Columns by our names; every missing one is named."""
    there = table.column_names
    missing = [" or ".join(theirs) for theirs in names.values() if not set(theirs) & set(there)]
    if missing:
        raise InvalidInput(f"{path}: columns missing: {', '.join(missing)} (there are {', '.join(there) or 'none'})")
    return {ours: table.column(next(n for n in theirs if n in there)) for ours, theirs in names.items()}


def _texts(column: pa.ChunkedArray) -> pa.Array:
    return column.cast(pa.string()).combine_chunks()


def _codes(column: pa.ChunkedArray, what: str) -> tuple[pa.Array, Rows]:
    """Names in the order they appear, and the name of each row."""
    if column.null_count:
        raise InvalidInput(f"{what} is null in {column.null_count} rows: give every sample its resource")
    coded = _texts(column).dictionary_encode()
    return coded.dictionary, coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _numbers(column: pa.ChunkedArray, what: str) -> Floats:
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise InvalidInput(f"{what} is {column.type}; give numbers")
    return np.array(column.cast(pa.float64()).to_numpy(), np.float64)


def _seconds(column: pa.ChunkedArray, what: str, *, epoch_ms: bool = False) -> Floats:
    if pa.types.is_timestamp(column.type):
        whole = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
        return _numbers(whole, what) / 1e6
    return _numbers(column, what) / (1000 if epoch_ms else 1)


def _in_range(path: Path, what: str, values: Floats, good: npt.NDArray[np.bool_], remedy: str) -> None:
    if not good.all():
        row = int(np.argmin(good))
        more = int((~good).sum()) - 1
        others = f" (and {more} rows more)" if more else ""
        raise InvalidInput(f"{path} row {row}: {what} is {values[row]:g}{others}; {remedy}")
