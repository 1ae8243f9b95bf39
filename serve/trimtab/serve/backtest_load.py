"""Recorded load of a backtest, read: from the metrics that a Trimtab kept, or from a trace."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import MEMORY, ClusterModel
from trimtab.platform.model.compute import Floats, Ints
from trimtab.platform.snapshot import Need
from trimtab.platform.store.measurements import Measurements
from trimtab.simulator.backtest import Record, when
from trimtab.simulator.load import SAMPLE_S, Load
from trimtab.simulator.traces.read import read_trace
from trimtab.simulator.traces.trace import Trace, to_days

DAY_S = 86_400.0
MOST_DAYS = 3_660
LATEST_S = 32_503_680_000.0  # the year 3000
CPU, RAM = "instance_cpu_usage", "instance_ram_usage"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A record, the time to be played, the memory in use [V] where it is known, and what was noticed on the way."""

    record: Record
    start_s: float
    end_s: float
    used_memory_mb: Floats | None
    notes: tuple[str, ...]


# -- times -------------------------------------------------------------------------------------


def time_of(text: str, what: str) -> float:
    """A time as people write it (2026-11-15, 2026-11-15T06:00, UTC unless it says otherwise) or seconds since 1970.

    Raises:
        InvalidInput: it is none, or not of the years 1970 to 2999; `what` names the option.
    """
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise InvalidInput(f"{what}: {text!r} is no time: write 2026-11-15 or 2026-11-15T06:00 (UTC)") from None
        seconds = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    if not 0 <= seconds < LATEST_S:  # NaN is not either
        raise InvalidInput(f"{what}: {text!r} is not in the years 1970 to 2999: write a time such as 2026-11-15T06:00")
    return seconds


def check_span(start_s: float | None, end_s: float | None, days: float | None) -> None:
    """What can be said of the time to be played before a record is read.

    Raises:
        InvalidInput: it is said three times, ends before it begins, or its days are no length that can be played.
    """
    if days is not None and not 0 < days <= MOST_DAYS:
        raise InvalidInput(f"--days: {days:g} days cannot be played: give at most {MOST_DAYS:,}")
    if start_s is not None and days is not None and end_s is not None:
        raise InvalidInput("--from, --to and --days together say too much: leave one out")
    if start_s is not None and end_s is not None and end_s <= start_s:
        raise InvalidInput(f"--to: {when(end_s)} is not after --from, {when(start_s)} (UTC): give a later time")


def _span(
    first_s: float, last_s: float, start_s: float | None, end_s: float | None, days: float | None
) -> tuple[float, float]:
    """The time to be played, in whole samples, of a record [first, last)."""
    check_span(start_s, end_s, days)
    if start_s is not None and days is not None:
        end_s = start_s + days * DAY_S
    end = last_s if end_s is None else np.floor(end_s / SAMPLE_S) * SAMPLE_S
    if start_s is not None:
        start = np.ceil(start_s / SAMPLE_S) * SAMPLE_S
    else:
        start = max(end - np.ceil((7.0 if days is None else days) * DAY_S / SAMPLE_S) * SAMPLE_S, first_s)
    if not first_s <= start < end <= last_s:
        raise InvalidInput(
            f"{when(start)} to {when(end)} is not within the record, which goes from {when(first_s)} to "
            f"{when(last_s)} (UTC): choose another time"
        )
    return float(start), float(end)


# -- metrics that a Trimtab kept -----------------------------------------------------------------


def from_metrics(
    model: ClusterModel, folder: Path, start_s: float | None, end_s: float | None, days: float | None
) -> Recorded:
    """The load of a model's instances out of a store's folder of metrics.

    Args:
        model: whose instances.
        folder: as a running Trimtab writes it (`metrics` in its data folder).
        start_s: begin of the time to be played; None: so many days before the end.
        end_s: its end; None: the end of the record.
        days: how long; None: 7 at most.

    Raises:
        InvalidInput: no such folder, nothing recorded, or a time outside the record. DatasourceError: torn files.
    """
    if not (folder / f"metric={CPU}").is_dir():
        raise InvalidInput(
            f"{folder} holds no metric={CPU}: give the folder `metrics` of a Trimtab's data folder (TRIMTAB_DATA_DIR)"
        )
    store = Measurements(folder)
    try:
        kept = store.days(CPU)
        if not kept:
            raise InvalidInput(f"{folder}: nothing is recorded of {CPU}")
        edges = [_samples(store, _midnight(day)) for day in (kept[0], kept[-1])]
        if not all(table.num_rows for table in edges):
            raise InvalidInput(f"{folder}: the first or last day of {CPU} holds no sample of an instance")
        first = np.floor(pc.min(edges[0]["at"]).as_py() / SAMPLE_S) * SAMPLE_S
        last = (np.floor(pc.max(edges[1]["at"]).as_py() / SAMPLE_S) + 1) * SAMPLE_S
        begin, end = _span(first, last, start_s, end_s, days)
        past = max(begin - DAY_S, first)
        cpu_pct, strangers = _matrix(store, model, past, end)
        memory = _memory(store, model, end, end - begin)
    finally:
        store.close()
    notes = tuple(_warnings(strangers, past == begin))
    return Recorded(Record.of(model, past, cpu_pct), begin, end, memory, notes)


def _samples(store: Measurements, midnight: float) -> pa.Table:
    return store.samples(CPU, "instance", midnight, midnight + DAY_S)


def _midnight(day: Any) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _matrix(
    store: Measurements, model: ClusterModel, start_s: float, end_s: float
) -> tuple[npt.NDArray[np.float32], set[str]]:
    """Means of 300 s, [T, V], NaN where nothing was recorded, and ids that the model does not know; day by day."""
    count = round((end_s - start_s) / SAMPLE_S)
    out = np.full((count, model.instances), np.nan, np.float32)
    strangers: set[str] = set()
    midnight = np.floor(start_s / DAY_S) * DAY_S
    while midnight < end_s:
        table = _samples(store, midnight)
        ids = pc.unique(table["resource"])
        strangers |= set(ids.filter(pa.array(model.instance_rows(ids) < 0)).to_pylist())
        columns = model.instance_rows(table["resource"].combine_chunks())
        rows = np.floor((table["at"].to_numpy() - start_s) / SAMPLE_S).astype(np.int64)
        ok = (columns >= 0) & (rows >= 0) & (rows < count)
        if ok.any():
            base = int(rows[ok].min())
            size = (int(rows[ok].max()) + 1 - base, model.instances)
            where = (rows[ok] - base) * model.instances + columns[ok]
            number = np.bincount(where, minlength=size[0] * size[1]).reshape(size)
            total = np.bincount(where, table["value"].to_numpy()[ok], size[0] * size[1]).reshape(size)
            out[base : base + size[0]] = np.where(number > 0, total / np.maximum(number, 1), np.nan)
        midnight += DAY_S
    return np.clip(out, 0, 100, out=out), strangers


def _memory(store: Measurements, model: ClusterModel, at_s: float, window_s: float) -> Floats | None:
    """Mean memory in use where it was recorded, else all that the instance has, [V]; None: recorded of nobody."""
    table = store.aggregate([Need(RAM, "instance", "mean", int(window_s))], at_s)
    rows = model.instance_rows(table["resource"].combine_chunks())
    if not (rows >= 0).any():
        return None
    memory: Floats = model.demand[:, MEMORY].copy()
    memory[rows[rows >= 0]] = table["value"].to_numpy()[rows >= 0]
    return memory


# -- traces --------------------------------------------------------------------------------------


def from_trace(
    model: ClusterModel,
    path: Path,
    start_s: float | None,
    end_s: float | None,
    days: float | None,
    *,
    seed: int,
) -> Recorded:
    """The load of a trace: by uuid or name where it knows the model's instances, else dealt out over them.

    Args:
        model: whose instances.
        path: anything that `traces.read_trace` reads.
        start_s: begin of the time to be played. None: so many days before the trace's end; of a trace that is dealt
            out, a day after its begin, so that strategies have a past.
        end_s: its end; None: the end of the trace.
        days: how long; None: 7 at most; of a trace that is dealt out all of it.
        seed: of the dealing.

    Raises:
        InvalidInput: the trace cannot be read, or holds nothing of the time asked for.
    """
    trace = read_trace(path)
    rows = model.instance_rows(trace.ids)
    if not (rows >= 0).any():
        rows = rows_by_name(model, trace.ids)
    if not (rows >= 0).any():
        return _dealt(model, trace, path, start_s, end_s, days, seed)
    first = np.floor(trace.start_s / SAMPLE_S) * SAMPLE_S
    begin, end = _span(first, first + SAMPLE_S * len(trace.cpu_pct), start_s, end_s, days)
    past = max(begin - DAY_S, first)
    there = slice(round((past - first) / SAMPLE_S), round((end - first) / SAMPLE_S))
    cpu_pct = np.full((there.stop - there.start, model.instances), np.nan, np.float32)
    cpu_pct[:, rows[rows >= 0]] = trace.cpu_pct[there, rows >= 0]
    strangers = trace.ids.filter(pa.array(rows < 0)).to_pylist()
    notes = (*trace.notes, *_warnings(strangers, past == begin))
    return Recorded(Record.of(model, past, cpu_pct), begin, end, None, notes)


def rows_by_name(model: ClusterModel, names: pa.Array) -> Ints:
    """Rows of instances by name, -1 where there is none or two of that name."""
    known = model.instance_names
    counts = pc.value_counts(known)
    once = counts.field("values").filter(pc.equal(counts.field("counts"), 1))
    rows = pc.index_in(names, value_set=known)
    unique = pc.is_in(names, value_set=once)
    found = pc.if_else(unique, pc.fill_null(rows, -1), -1)
    return np.asarray(found.to_numpy(zero_copy_only=False), np.int32)


def _dealt(
    model: ClusterModel,
    trace: Trace,
    path: Path,
    start_s: float | None,
    end_s: float | None,
    days: float | None,
    seed: int,
) -> Recorded:
    whole_days = float(np.ceil((trace.end_s - trace.start_s) / DAY_S))
    begin = np.floor(trace.start_s / DAY_S) * DAY_S + DAY_S if start_s is None else start_s
    until = begin + (whole_days if days is None else days) * DAY_S if end_s is None else end_s
    begin, end = _span(0.0, np.inf, begin, until, None)
    load = Load(to_days(trace, model.instances, seed, variation=0.0), model.instances)
    past = max(begin - DAY_S, 0.0)
    cpu_pct = load.cpu_pct(int(past // SAMPLE_S), round((end - past) / SAMPLE_S))
    note = (
        f"{path.name} knows none of the model's instances: its {len(trace.ids)} series are dealt out over them, "
        f"its {whole_days:g} days again and again"
    )
    return Recorded(Record.of(model, past, cpu_pct), begin, end, None, (*trace.notes, note))


def _warnings(strangers: Collection[str], no_past: bool) -> Iterator[str]:
    if strangers:
        some = ", ".join(sorted(strangers)[:3])
        yield f"{len(strangers)} recorded instances are not in the model and are left out ({some})"
    if no_past:
        yield "nothing is recorded before the start: the first audits see little"
