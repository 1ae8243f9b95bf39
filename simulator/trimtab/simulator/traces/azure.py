"""Reads VM tables as Azure publishes them, with their CPU readings or with series made from their averages."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from trimtab.platform.errors import InvalidInput
from trimtab.simulator.load import SAMPLE_S, Block, keyed_random
from trimtab.simulator.traces import columns
from trimtab.simulator.traces.columns import Floats, Rows
from trimtab.simulator.traces.trace import DAY_S, Trace

CSV = (".csv", ".csv.gz")
VMS: Mapping[str, tuple[str, ...]] = {  # in the order of the tables without a header: names, letters and digits only
    "id": ("vmid",),
    "subscription": ("subscriptionid",),
    "deployment": ("deploymentid",),
    "created": ("timestampvmcreated", "vmcreated"),
    "deleted": ("timestampvmdeleted", "vmdeleted"),
    "max": ("maxcpu",),
    "avg": ("avgcpu",),
    "p95": ("p95maxcpu", "p95cpu"),
    "category": ("vmcategory",),
    "cores": ("vmvirtualcorecountbucket", "vmvirtualcorecount", "vmcorecountbucket", "vmcorecount"),
    "memory": ("vmmemorygbbucket", "vmmemorygbsbucket", "vmmemorybucket", "vmmemorygb", "vmmemory"),
}
READINGS: Mapping[str, tuple[str, ...]] = {
    "at": ("timestamp",),
    "id": ("vmid",),
    "min": ("mincpu",),
    "max": ("maxcpu",),
    "avg": ("avgcpu",),
}
UNUSED = ("subscription", "deployment", "category", "min")
TEXT = ("id", "subscription", "deployment", "category", "cores", "memory")
CHUNK = 256  # columns made at a time

_NUMBER = re.compile(r"(>?)\s*(\d+(?:\.\d+)?)")


def read_azure(vms_path: Path, readings: Sequence[Path] = (), step_s: float = SAMPLE_S, *, seed: int = 0) -> Trace:
    """A VM table of the Azure Public Dataset V1 or V2 (github.com/Azure/AzurePublicDataset), or one like it.

    Columns, named in a header or in this order without one: vm id, subscription id, deployment id, timestamp vm
    created (s), timestamp vm deleted (s), max cpu, avg cpu, p95 max cpu (per cent), vm category, vm virtual core count
    (bucket), vm memory (GB) (bucket). Of a table with a header only those used must be there (not subscription,
    deployment, category). A GB counts 1024 MB. A bucket counts as its number, an open one such as ">24" as the next
    power of two above (32); `notes` tells how many. What sizes a bucket holds is in files of the dataset that were not
    at hand.

    Readings, every 5 minutes: timestamp (s), vm id, min cpu, max cpu, avg cpu (per cent); avg cpu is taken. A VM
    without a reading is a hole from beginning to end, and `notes` counts them.

    Without readings each VM gets a series of its lifetime, made like this: its values are quantiles of a distribution
    that rises from 0 as `p95 * (q / 0.95) ** k` to the 95th percentile and from there in a line to the maximum, with k
    chosen for the mean; they are scaled together so that the mean of the series is avg cpu. They are put in the order
    of a daily cycle with a phase of its own, plus noise. So the average is exact; percentile and maximum are those of
    5-minute maxima and only shape the series, which never exceeds the maximum. The same seed gives the same series.

    Raises:
        InvalidInput: missing columns, wrong types or values, duplicate ids, readings of unknown VMs, no row.
    """
    table = _columns(vms_path, VMS)
    ids = columns.own_ids(table["id"], vms_path)
    number = {
        name: columns.numbers(table[name], f"{vms_path}: {VMS[name][0]}")
        for name in ("created", "deleted", "max", "avg", "p95")
    }
    created, deleted = number["created"], number["deleted"]
    columns.in_range(vms_path, "timestamp vm created", created, np.isfinite(created), "give seconds")
    good = np.isfinite(deleted) & (deleted >= created)
    columns.in_range(vms_path, "timestamp vm deleted", deleted, good, "give seconds, not before it was created")
    notes: list[str] = []
    cores = _sizes(table["cores"], vms_path, "vm virtual core count", notes)
    memory_mb = 1024 * _sizes(table["memory"], vms_path, "vm memory", notes)
    start_s = float(np.floor(created.min() / step_s) * step_s)
    begin = np.floor((created - start_s) / step_s + 1e-9).astype(np.int64)
    end = np.maximum(np.ceil((deleted - start_s) / step_s - 1e-9).astype(np.int64), begin + 1)
    if readings:
        cpu_pct = _read(readings, ids, start_s, step_s, int(end.max()), notes)
    else:
        for name in ("max", "avg", "p95"):
            good = (number[name] >= 0) & (number[name] <= 100)
            columns.in_range(vms_path, f"{name} cpu", number[name], good, "per cent lie in 0..100")
        good = number["avg"] <= number["max"] + 1e-9
        columns.in_range(vms_path, "avg cpu", number["avg"], good, "an average is at most the maximum")
        cpu_pct = made_up(number["avg"], number["p95"], number["max"], begin, end, round(DAY_S / step_s), seed)
        notes.append(f"{vms_path.name}: no readings; the series of {len(ids)} VMs are made from avg, p95 and max cpu")
    return Trace(start_s, step_s, cpu_pct, ids, cores, memory_mb, created, deleted, tuple(notes))


def made_up(avg: Floats, p95: Floats, top: Floats, begin: Rows, end: Rows, per_day: int, seed: int) -> Block:
    """Series [T, N] with the given means that never exceed the given maxima; NaN before `begin` and from `end` on.

    See `read_azure` for how.
    """
    count = int(end.max())
    out = np.full((count, len(avg)), np.nan, np.float32)
    sample = np.arange(count)[:, None]
    for first in range(0, len(avg), CHUNK):
        some = slice(first, min(first + CHUNK, len(avg)))
        random = keyed_random(seed, first)
        mean, high = avg[some], top[some]
        knee = np.minimum(p95[some], high)
        phase = random.uniform(0, 2 * np.pi, len(mean))
        key = np.sin(2 * np.pi * sample / max(per_day, 1) + phase) + random.normal(0, 0.5, (count, len(mean)))
        there = (sample >= begin[some]) & (sample < end[some])
        rank = np.argsort(np.argsort(np.where(there, key, np.inf), axis=0), axis=0)
        lives = end[some] - begin[some]
        q = np.minimum((rank + 0.5) / lives, 1.0)
        body = np.maximum(mean - 0.05 * (knee + high) / 2, 1e-9)
        power = np.clip(0.95 * knee / body - 1, 0, 50)
        value = np.where(q <= 0.95, knee * (q / 0.95) ** power, knee + (high - knee) * (q - 0.95) / 0.05)
        value = np.where(there, value, 0)
        is_mean = value.sum(axis=0) / lives
        down = np.divide(mean, is_mean, out=np.zeros_like(mean), where=is_mean > 0)
        room = high - is_mean
        up = np.divide(mean - is_mean, room, out=np.zeros_like(mean), where=room > 0)
        value = np.where(is_mean >= mean, value * np.minimum(down, 1), value + (high - value) * up)
        out[:, some] = np.where(there, np.clip(value, 0, high), np.nan)
    return out


def is_vm_table(names: Iterable[str]) -> bool:
    """Whether a table with these columns is one of VMs."""
    there = {_plain(name) for name in names}
    return all(there & set(VMS[name]) for name in ("id", "created", "deleted"))


def vm_table(folder: Path) -> Path | None:
    """The VM table of a folder."""
    return next(iter(_files(folder, "vmtable")), None)


def reading_tables(folder: Path) -> list[Path]:
    """The tables of readings of a folder."""
    return _files(folder, "vm_cpu_readings")


def _files(folder: Path, name: str) -> list[Path]:
    return sorted(path for path in folder.glob(f"{name}*") if path.name.endswith((*CSV, ".parquet")))


def _read(paths: Sequence[Path], ids: pa.Array, start_s: float, step_s: float, count: int, notes: list[str]) -> Block:
    parts: list[tuple[Rows, Floats, Floats]] = []
    for path in paths:
        table = _columns(path, READINGS)
        at = columns.numbers(table["at"], f"{path}: timestamp")
        value = columns.numbers(table["avg"], f"{path}: avg cpu")
        found = pc.index_in(columns.texts(table["id"]), value_set=ids)
        if found.null_count:
            row = int(np.flatnonzero(found.is_null().to_numpy(zero_copy_only=False))[0])
            raise InvalidInput(f"{path} row {row}: vm id {table['id'][row]} is not in the VM table; add the VM")
        good = np.isfinite(at) & (at >= start_s)
        columns.in_range(path, "timestamp", at, good, "give seconds, not before the first VM was created")
        good = np.isnan(value) | ((value >= 0) & (value <= 100))
        columns.in_range(path, "avg cpu", value, good, "per cent lie in 0..100")
        column = found.to_numpy(zero_copy_only=False).astype(np.int64)
        columns.once(path, ids, column, at)
        parts.append((column, at, value))
    column, at, value = (np.concatenate([part[n] for part in parts]) for n in range(3))
    order = np.lexsort((at, column))
    if (twice := (np.diff(column[order]) == 0) & (np.diff(at[order]) == 0)).any():
        row = int(order[1:][twice][0])
        raise InvalidInput(
            f"{paths[0].parent}: {ids[int(column[row])]} at {at[row]:.15g} s stands in two files of readings; keep one"
        )
    cell = np.floor((at - start_s) / step_s + 1e-9).astype(np.int64)
    shape = (max(count, int(cell.max()) + 1), len(ids))
    cpu_pct = columns.sampled(column.astype(np.int64), cell, value, shape)
    if silent := int(np.isnan(cpu_pct).all(axis=0).sum()):
        notes.append(f"{silent} of {len(ids)} VMs have no reading: they are holes from beginning to end")
    return cpu_pct


def _columns(path: Path, names: Mapping[str, tuple[str, ...]]) -> dict[str, pa.ChunkedArray]:
    """The columns used, by our names, of a CSV with or without a header or of Parquet."""
    if path.name.endswith(CSV):
        table = _csv(path, names)
    else:
        given = columns.parquet(path)
        table = given.rename_columns([_plain(name) for name in given.column_names])
    used = {ours: theirs for ours, theirs in names.items() if ours not in UNUSED}
    found = columns.needed(path, table, used)
    if not len(table):
        raise InvalidInput(f"{path} holds no row: give at least one")
    return found


def _csv(path: Path, names: Mapping[str, tuple[str, ...]]) -> pa.Table:
    if not path.exists():
        raise InvalidInput(f"{path} is not there: give an existing file or folder")
    try:
        with gzip.open(path, "rt") if path.name.endswith(".gz") else path.open(encoding="utf-8") as file:
            first = file.readline().rstrip("\r\n").split(",")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read as CSV: {error}") from error
    known = {name: ours for ours, theirs in names.items() for name in theirs}
    header = [_plain(cell) for cell in first]
    has_header = bool(set(header) & set(known))
    if not has_header:
        if first == [""]:
            raise InvalidInput(f"{path} holds no row: give at least one")
        if len(first) != len(names):
            raise InvalidInput(
                f"{path}: {len(first)} columns and no header; give {len(names)} ({', '.join(names)}), or name them"
            )
        header = [theirs[0] for theirs in names.values()]
    types = {name: pa.string() if known.get(name, "id") in TEXT else pa.float64() for name in header}
    try:
        return csv.read_csv(
            path,
            csv.ReadOptions(column_names=header, skip_rows=int(has_header)),
            convert_options=csv.ConvertOptions(column_types=types),
        )
    except (OSError, EOFError, pa.ArrowException) as error:
        raise InvalidInput(f"{path} cannot be read as CSV: {error}") from error


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _sizes(column: pa.ChunkedArray, path: Path, what: str, notes: list[str]) -> Floats:
    """Numbers or buckets such as ">24" as numbers."""
    coded = columns.texts(column).dictionary_encode()
    if coded.null_count:
        raise InvalidInput(f"{path}: {what} is null in {coded.null_count} rows: give a number or a bucket such as >24")
    sizes, open_ended = np.empty(len(coded.dictionary)), np.zeros(len(coded.dictionary), bool)
    codes = coded.indices.to_numpy()
    for n, text in enumerate(coded.dictionary.to_pylist()):
        match = _NUMBER.fullmatch(text.strip().strip('"'))
        if match is None or float(match[2]) <= 0:
            row = int(np.argmax(codes == n))
            raise InvalidInput(f"{path} row {row}: {what} is {text!r}; give a number above 0 or a bucket such as >24")
        sizes[n] = float(match[2])
        if match[1]:
            open_ended[n], sizes[n] = True, 2.0 ** (np.floor(np.log2(sizes[n])) + 1)
    notes.extend(
        f"{path.name}: {int((codes == n).sum())} VMs with {what} {coded.dictionary[n]} count as {sizes[n]:g}"
        for n in np.flatnonzero(open_ended).tolist()
    )
    return sizes[codes]
