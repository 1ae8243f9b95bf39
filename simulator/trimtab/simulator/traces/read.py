"""Reads traces of every known format: recognises them, and reads long metric tables, the store's folders, PlanetLab."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trimtab.platform.errors import InvalidInput
from trimtab.simulator.load import PER_DAY, SAMPLE_S, read_planetlab
from trimtab.simulator.traces import azure, columns, opendc
from trimtab.simulator.traces.trace import Trace

LONG = {"resource": ("resource",), "at": ("at",), "value": ("value",)}
PLANETLAB = ("vm_index", "name", "cpu_pct")


def read_trace(
    path: Path,
    step_s: float = SAMPLE_S,
    *,
    at_most_1_pct: bool = False,
    memory_unit: opendc.Unit = "KB",
    seed: int = 0,
) -> Trace:
    """A trace in whichever known format stands at `path`, in samples of `step_s` seconds (PlanetLab: always 300).

    Args:
        path: a folder of OpenDC (tasks.parquet and fragments.parquet, or meta.parquet and trace.parquet), of Azure (a
            file vmtable*, perhaps with vm_cpu_readings*) or of the store (`metric=cpu_util`, or any with Parquet of
            resource, at and value); a CSV or gzipped CSV of Azure VMs; or a Parquet file.
        step_s: length of the samples made.
        at_most_1_pct: long tables: values of at most 1 are meant as per cent, not as fractions.
        memory_unit: OpenDC: see `opendc.read_opendc`.
        seed: Azure: of the series made where there are no readings.

    Raises:
        InvalidInput: nothing there, an unknown format, or a fault of the format read.
    """
    if not (np.isfinite(step_s) and step_s > 0):
        raise InvalidInput(f"step_s is {step_s:g}: give seconds above 0")
    if path.is_dir():
        for tasks, fragments in opendc.FILES:
            if (path / tasks).exists() or (path / fragments).exists():
                return opendc.read_opendc(path / tasks, path / fragments, step_s, memory_unit=memory_unit)
        if (vms := azure.vm_table(path)) is not None:
            return azure.read_azure(vms, azure.reading_tables(path), step_s, seed=seed)
        return read_long(path, step_s, at_most_1_pct=at_most_1_pct)
    if path.name.endswith(azure.CSV):
        return azure.read_azure(path, (), step_s, seed=seed)
    there = columns.parquet(path).column_names
    if set(PLANETLAB) <= set(there):
        return _planetlab(path)
    if azure.is_vm_table(there):
        return azure.read_azure(path, (), step_s, seed=seed)
    if set(LONG) & set(there):
        return read_long(path, step_s, at_most_1_pct=at_most_1_pct)
    raise InvalidInput(
        f"{path}: columns {', '.join(there) or 'none'} are no known trace; give {', '.join(LONG)} (long table), "
        f"{', '.join(PLANETLAB)} (PlanetLab) or an Azure VM table; OpenDC's two tables are read by their folder"
    )


def read_long(path: Path, step_s: float = SAMPLE_S, *, at_most_1_pct: bool = False) -> Trace:
    """Samples by row: resource (text), at (s since the epoch, or a timestamp), value (per cent, null = hole).

    A sample counts for the `step_s` seconds it falls into; several there are averaged, and none make a hole. A folder
    of the store is read with its days in order; files that a merged one replaces stay out.

    Args:
        path: a Parquet file or a folder with such files.
        step_s: length of the samples made.
        at_most_1_pct: values of at most 1 throughout are meant; without it they are refused as fractions.

    Raises:
        InvalidInput: missing columns, wrong types or values, two rows of one resource at one time, or no row.
    """
    table = columns.parquet(path)
    columns.needed(path, table, LONG)
    if not len(table):
        raise InvalidInput(f"{path} holds no sample: give a table with at least one row")
    ids, column = columns.codes(table.column("resource"), f"{path}: resource")
    at = columns.seconds(table.column("at"), f"{path}: at")
    value = columns.numbers(table.column("value"), f"{path}: value")
    columns.in_range(path, "at", at, np.isfinite(at), "give seconds since the epoch")
    columns.in_range(path, "value", value, np.isnan(value) | ((value >= 0) & (value <= 100)), "per cent lie in 0..100")
    known = value[~np.isnan(value)]
    if not at_most_1_pct and len(known) > 1 and 0 < known.max() <= 1 and (known % 1 != 0).any():
        raise InvalidInput(
            f"{path}: value is at most {known.max():g}; these look like fractions: give per cent, 0..100, or say that "
            "they are meant with at_most_1_pct=True"
        )
    columns.once(path, ids, column, at)
    start_s = float(np.floor(at.min() / step_s) * step_s)
    cell = ((at - start_s) // step_s).astype(np.int64)
    return Trace(start_s, step_s, columns.sampled(column, cell, value, (int(cell.max()) + 1, len(ids))), ids)


def write_long(trace: Trace, path: Path) -> None:
    """Keep a trace's samples as `read_long` takes them; holes are rows without a value."""
    count, series = trace.cpu_pct.shape
    at = np.repeat(trace.start_s + trace.step_s * np.arange(count), series)
    resource = trace.ids.take(pa.array(np.tile(np.arange(series), count)))
    value = pa.array(trace.cpu_pct.ravel(), from_pandas=True)
    pq.write_table(pa.table({"resource": resource, "at": at, "value": value}), path)


def _planetlab(path: Path) -> Trace:
    days = np.ascontiguousarray(read_planetlab(path).T)
    ids = columns.own_ids(columns.parquet(path).column("vm_index"), path)
    return Trace(0.0, SAMPLE_S, days.reshape(PER_DAY, -1), ids)
