"""Reads OpenDC's traces: tasks and the fragments of their load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numba import njit

from trimtab.platform.errors import InvalidInput
from trimtab.simulator.load import SAMPLE_S
from trimtab.simulator.traces import columns
from trimtab.simulator.traces.columns import Floats, Rows
from trimtab.simulator.traces.trace import Trace

TASKS: Mapping[str, tuple[str, ...]] = {  # ours: theirs, the newest name first
    "id": ("id",),
    "submitted": ("submission_time", "submissionTime", "start_time"),
    "end": ("duration", "stop_time"),
    "cpus": ("cpu_count", "maxCores"),
    "capacity": ("cpu_capacity",),
    "memory": ("mem_capacity", "requiredMemory"),
}
FRAGMENTS: Mapping[str, tuple[str, ...]] = {
    "id": ("id",),
    "duration": ("duration",),
    "mhz": ("cpu_usage", "cpuUsage"),
}
STAMPS = ("timestamp", "time")
FILES = (("tasks.parquet", "fragments.parquet"), ("meta.parquet", "trace.parquet"))

Unit = Literal["KB", "MB"]


def read_opendc(tasks_path: Path, fragments_path: Path, step_s: float = SAMPLE_S, *, memory_unit: Unit = "KB") -> Trace:
    """OpenDC's two tables, read as its own loaders do (github.com/atlarge-research/opendc, Apache Parquet).

    tasks: id, submission_time (timestamp or epoch ms), duration (ms), cpu_count, cpu_capacity (MHz), mem_capacity.
    fragments: id, duration (ms), cpu_usage (MHz). Older names: submissionTime, maxCores, requiredMemory, cpuUsage;
    start_time and stop_time in place of submission time and duration.

    What OpenDC's sources say, and this follows:

    - `cpu_capacity` is that of all cores together: `VCpuCapacityFilter` divides it by the number of cores.
    - `mem_capacity` is KB: `ComputeWorkloadLoader` divides it by 1000 "from KB to MB". OpenDC's documentation
      (Input/Workload) says MB; `memory_unit="MB"` takes it so.
    - Fragments without a timestamp follow one another from the submission of their task, in the order of the file.
    - A fragment's timestamp (`timestamp`, `time`; the older tables) is its end: the loader of that time calls it
      deadline and subtracts the duration. It played no load in the gaps between fragments, and today's ignores the
      timestamps. Here each fragment is where its timestamp says, and a gap is a hole, which `notes` counts and
      `Trace.require_whole` names; fragments out of order or overlapping are refused.

    Not verified against a published trace: which of the two units of memory its files have, and whether usage ever
    exceeds capacity. Usage above the capacity counts as 100 per cent; `notes` tells how often.

    Raises:
        InvalidInput: missing columns, wrong types, negative or unknown values, duplicate or unknown ids, fragments
            out of order or overlapping, no row.
    """
    tasks, fragments = columns.parquet(tasks_path), columns.parquet(fragments_path)
    task = columns.needed(tasks_path, tasks, TASKS)
    part = columns.needed(fragments_path, fragments, FRAGMENTS)
    for path, table in ((tasks_path, tasks), (fragments_path, fragments)):
        if not len(table):
            raise InvalidInput(f"{path} holds no row: give at least one task with one fragment")
    if memory_unit not in ("KB", "MB"):
        raise InvalidInput(f"memory_unit is {memory_unit!r}: use KB or MB")
    ids = columns.own_ids(task["id"], tasks_path)
    found = pc.index_in(columns.texts(part["id"]), value_set=ids)
    if found.null_count:
        row = int(np.flatnonzero(found.is_null().to_numpy(zero_copy_only=False))[0])
        raise InvalidInput(
            f"{fragments_path} row {row}: id {part['id'][row]} is not in {tasks_path.name}; add the task"
        )
    submitted, ends_s = _life(tasks_path, tasks, task)
    amounts = {name: columns.numbers(task[name], f"{tasks_path}: {name}") for name in ("cpus", "capacity", "memory")}
    for name, values in amounts.items():
        good = np.isfinite(values) & (values > 0)
        columns.in_range(tasks_path, TASKS[name][0], values, good, "give a number above 0")
    seconds = columns.numbers(part["duration"], f"{fragments_path}: duration") / 1000
    mhz = columns.numbers(part["mhz"], f"{fragments_path}: cpu_usage")
    good = np.isfinite(seconds) & (seconds >= 0)
    columns.in_range(fragments_path, "duration", seconds, good, "give ms, zero or more")
    columns.in_range(fragments_path, "cpu_usage", mhz, np.isfinite(mhz) & (mhz >= 0), "give MHz, zero or more")
    of_task = found.to_numpy(zero_copy_only=False).astype(np.int64)
    notes = []
    stamped = next((name for name in STAMPS if name in fragments.column_names), None)
    if stamped is None:
        begins = _one_after_another(of_task, seconds, submitted)
    else:
        stamps = columns.seconds(fragments.column(stamped), f"{fragments_path}: {stamped}", epoch_ms=True)
        columns.in_range(fragments_path, stamped, stamps, np.isfinite(stamps), "give the time of its end")
        begins = stamps - seconds
        notes += _order(fragments_path, ids, of_task, begins, stamps)
    pct = 100 * mhz / amounts["capacity"][of_task]
    if (over := pct > 100 + 1e-9).any():
        notes.append(
            f"{fragments_path.name}: {int(over.sum())} of {len(pct)} fragments use more than their task's capacity "
            f"(up to {pct.max():.4g} %); they count as 100 %"
        )
    start_s = float(np.floor(min(submitted.min(), begins.min()) / step_s) * step_s)
    count = max(int(np.ceil(((begins + seconds).max() - start_s) / step_s - 1e-9)), 1)
    cpu_pct = _spread(of_task, seconds, np.minimum(pct, 100), begins - start_s, step_s, count, len(ids))
    memory_mb = amounts["memory"] / (1000 if memory_unit == "KB" else 1)
    return Trace(start_s, step_s, cpu_pct, ids, amounts["cpus"], memory_mb, submitted, ends_s, tuple(notes))


def write_opendc(trace: Trace, tasks_path: Path, fragments_path: Path, *, core_mhz: float = 1000.0) -> None:
    """A trace as today's OpenDC tables: a fragment a sample, from an instance's first sample to its last one.

    Cores count `core_mhz`. What the tables cannot say is filled in: one core, 1000 MB; holes use nothing. The time of
    submission is that of the first sample.
    """
    known = ~np.isnan(trace.cpu_pct)
    rows = np.flatnonzero(known.any(axis=0))
    first = np.argmax(known, axis=0)[rows]
    stop = len(known) - np.argmax(known[::-1], axis=0)[rows]
    step_ms = round(trace.step_s * 1000)
    cpus = np.ones(len(trace.ids)) if trace.vcpus is None else np.nan_to_num(trace.vcpus, nan=1.0)
    memory = np.full(len(trace.ids), 1000.0) if trace.memory_mb is None else np.nan_to_num(trace.memory_mb, nan=1000.0)
    tasks = {
        "id": trace.ids.take(pa.array(rows)),
        "submission_time": np.rint((trace.start_s + trace.step_s * first) * 1000).astype(np.int64),
        "duration": (stop - first) * step_ms,
        "cpu_count": cpus[rows].astype(np.int32),
        "cpu_capacity": cpus[rows] * core_mhz,
        "mem_capacity": np.rint(memory[rows] * 1000).astype(np.int64),
    }
    sample = np.arange(len(known))[:, None]
    at, column = np.nonzero((sample >= first) & (sample < stop))
    fragments = {
        "id": trace.ids.take(pa.array(rows[column])),
        "duration": np.full(len(at), step_ms),
        "cpu_count": cpus[rows[column]].astype(np.int32),
        "cpu_usage": np.nan_to_num(trace.cpu_pct[at, rows[column]].astype(np.float64))
        / 100
        * cpus[rows[column]]
        * core_mhz,
    }
    pq.write_table(pa.table(tasks), tasks_path)
    pq.write_table(pa.table(fragments), fragments_path)


def _life(path: Path, tasks: pa.Table, task: Mapping[str, pa.ChunkedArray]) -> tuple[Floats, Floats]:
    """When tasks begin and end."""
    submitted = columns.seconds(task["submitted"], f"{path}: submission time", epoch_ms=True)
    columns.in_range(path, "submission time", submitted, np.isfinite(submitted), "give a time")
    if "duration" in tasks.column_names:
        duration = columns.numbers(task["end"], f"{path}: duration") / 1000
        columns.in_range(path, "duration", duration, duration >= 0, "give ms, zero or more")
        return submitted, submitted + duration
    stopped = columns.seconds(task["end"], f"{path}: stop_time", epoch_ms=True)
    columns.in_range(path, "stop_time", stopped, stopped >= submitted, "give a time not before start_time")
    return submitted, stopped


def _one_after_another(of_task: Rows, seconds: Floats, submitted: Floats) -> Floats:
    """When fragments begin that follow one another from the submission of their task on."""
    order = np.argsort(of_task, kind="stable")
    before = np.cumsum(seconds[order]) - seconds[order]
    owner = of_task[order]
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    since = before - np.repeat(before[first], np.diff(first, append=len(owner)))
    begins = np.empty_like(seconds)
    begins[order] = submitted[owner] + since
    return begins


def _order(path: Path, ids: pa.Array, of_task: Rows, begins: Floats, ends: Floats) -> list[str]:
    """Refuse fragments out of order or overlapping; a note of the gaps between them."""
    order = np.argsort(of_task, kind="stable")
    same = np.diff(of_task[order]) == 0
    before, after = order[:-1][same], order[1:][same]
    apart = begins[after] - ends[before]
    for wrong, what in ((ends[after] < ends[before], "before"), (apart < -1e-3, "inside")):
        if wrong.any():
            n = int(np.argmax(wrong))
            raise InvalidInput(
                f"{path} row {after[n]} ({ids[int(of_task[after[n]])]}): its fragment ({begins[after[n]]:.15g} to "
                f"{ends[after[n]]:.15g} s) lies {what} that of row {before[n]} ({begins[before[n]]:.15g} to "
                f"{ends[before[n]]:.15g} s); sort each task's fragments by time, with no overlap"
            )
    gaps = np.flatnonzero(apart > 1e-3)
    if not gaps.size:
        return []
    n = gaps[0]
    first = f"{ids[int(of_task[after[n]])]} from {ends[before[n]]:.15g} to {begins[after[n]]:.15g} s"
    total = apart[gaps].sum()
    return [f"{path.name}: {gaps.size} gaps between fragments, {total:.6g} s in all (first: {first})"]


@njit(cache=True)
def _spread(
    of_task: Rows, seconds: Floats, pct: Floats, begins_s: Floats, step_s: float, count: int, tasks: int
) -> npt.NDArray[np.float32]:
    """Fragments as time-weighted means of samples; NaN where a task has none."""
    work = np.zeros((count, tasks))
    time = np.zeros((count, tasks))
    for n in range(len(of_task)):
        task = of_task[n]
        end = begins_s[n] + seconds[n]
        cell = int(begins_s[n] / step_s)
        while cell < count and cell * step_s < end:
            part = min(end, (cell + 1) * step_s) - max(begins_s[n], cell * step_s)
            if part > 0:
                work[cell, task] += part * pct[n]
                time[cell, task] += part
            cell += 1
    out = np.full(work.shape, np.nan, np.float32)
    for cell in range(count):
        for task in range(tasks):
            if time[cell, task] > 1e-6:  # rounding of long sums makes slivers
                out[cell, task] = min(work[cell, task] / time[cell, task], 100.0)
    return out
