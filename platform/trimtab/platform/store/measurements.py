"""Measurements in Parquet, one folder a metric and day; written whole or not at all, read through DuckDB."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import threading
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trimtab.platform.errors import DatasourceError, InvalidInput
from trimtab.platform.snapshot import Need

log = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
AGGREGATES = {"mean": "avg(value)", "min": "min(value)", "max": "max(value)", "count": "count(value)::DOUBLE"}
DAY_S = 86400
LAST_S = 253402300800.0  # the year 10000
MAGIC = b"PAR1"
REPLACES = "replaces"  # a merged file's own list of the files it stands for
STORED = pa.schema([("kind", pa.string()), ("resource", pa.string()), ("at", pa.float64()), ("value", pa.float64())])
AGGREGATED = pa.schema([("need", pa.int32()), ("resource", pa.string()), ("value", pa.float64())])
SAMPLES = pa.schema([("resource", pa.string()), ("at", pa.float64()), ("value", pa.float64())])


class _File(NamedTuple):
    """What was learnt of a finished file once; it never changes."""

    sound: bool
    replaces: frozenset[str] = frozenset()


class Measurements:
    """The samples of one cloud, below one folder: `metric=<name>/date=<UTC day>/<unique>.parquet`.

    Times are cloud time in seconds since the epoch. One process owns the folder; its threads may read, append and
    compact at once. Intervals include their start and exclude their end: nothing of `at` itself or later is seen.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._seen = folder, dict[Path, _File]()
        self._lock, self._compacting = threading.RLock(), threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._con = duckdb.connect(
            ":memory:",
            config={
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "temp_directory": str(folder / ".spill"),
                "threads": 2,
            },
        )

    # -- writing ---------------------------------------------------------------------------------

    def append(self, metric: str, kind: str, table: pa.Table) -> int:
        """Keep samples: columns resource (text), at (s), value; returns how many.

        Values that are not finite are left out: what was not measured has no row. Each day's part is all there or not
        at all.

        Raises:
            InvalidInput: a missing column, a resource without a name, a time that is none, or an odd metric name.
        """
        _check_name("metric", metric)
        _check_name("kind", kind)
        resource, at, value = (_column(metric, table, name) for name in ("resource", "at", "value"))
        times = at.to_numpy(zero_copy_only=False).astype(float)
        bad = ~((times >= 0) & (times < LAST_S))  # NaN is neither
        if bad.any():
            row = int(np.argmax(bad))
            raise InvalidInput(f"{metric}: row {row}: {times[row]} is no time: give seconds since the epoch")
        if resource.null_count or pc.any(pc.equal(resource, "")).as_py():
            row = next(row for row, name in enumerate(resource.to_pylist()) if not name)
            raise InvalidInput(f"{metric}: row {row} has no resource: give its uuid")
        known = np.isfinite(value.to_numpy(zero_copy_only=False).astype(float))
        days = np.floor_divide(times, DAY_S).astype(np.int64)
        rows = pa.table([pa.array([kind] * len(times), pa.string()), resource, at, value], schema=STORED)
        for day in np.unique(days[known]):
            part = rows.filter(pa.array(known & (days == day)))
            self._write(self._day_folder(metric, day), part)
        return int(known.sum())

    def compact(self, day: date) -> int:
        """Merge each metric's files of one day into one, in time order; returns how many files went away.

        The merged file names those it replaces and appears by one rename: from then on readers leave those out, even
        if they are not deleted yet. So a crash at any point neither loses nor doubles a sample.
        """
        folders = sorted(self._folder.glob(f"metric=*/date={day.isoformat()}"))
        with self._compacting:
            return sum(self._compact(folder) for folder in folders)

    def retain(self, days: int, today: date) -> int:
        """Delete all measurements older than so many days, today included; returns how many day folders went away.

        Raises:
            InvalidInput: less than one day.
        """
        if days < 1:
            raise InvalidInput(f"Measurements cannot be kept for {days} days: keep at least 1")
        with self._lock:
            for folder in list(self._folder.glob("metric=*/date=*")):
                day = _day(folder)
                if day is not None and (today - day).days >= days:
                    folder.rename(folder.with_name(f".expired-{uuid4().hex}"))  # readers lose all of the day at once
            self._seen.clear()
        expired = list(self._folder.glob("metric=*/.expired-*"))
        for folder in expired:
            shutil.rmtree(folder)
        return len(expired)

    def tidy(self, now_s: float, keep_days: int) -> int:
        """Merge the files of every finished day and delete days older than so many; returns how much went away.

        Today's files stay small, because more of them are written; what comes late for a finished day is merged into
        it the next time.

        Raises:
            InvalidInput: less than one day is to be kept.
        """
        today = datetime.fromtimestamp(now_s, UTC).date()
        expired = self.retain(keep_days, today)
        days = {day for folder in self._folder.glob("metric=*/date=*") if (day := _day(folder)) is not None}
        return expired + sum(self.compact(day) for day in sorted(days) if day < today)

    # -- reading ---------------------------------------------------------------------------------

    def aggregate(self, needs: Sequence[Need], at: float) -> pa.Table:
        """Each need over its own window [at - window_s, at), of the raw samples: granularity plays no part.

        Returns:
            Columns need (int32 position in `needs`), resource, value (float), in this order; one row per resource that
            was measured.

        Raises:
            InvalidInput: an unknown aggregate or an odd name. DatasourceError: files that cannot be read.
        """
        parts = [AGGREGATED.empty_table()]
        for position, need in enumerate(needs):
            if need.aggregate not in AGGREGATES:
                raise InvalidInput(f"Unknown aggregate {need.aggregate}: use one of {', '.join(AGGREGATES)}")
            what = f"{position}::INTEGER AS need, resource, {AGGREGATES[need.aggregate]} AS value"
            rest = "GROUP BY resource ORDER BY resource"
            parts.append(self._query(need.metric, need.kind, at - need.window_s, at, what, rest, AGGREGATED))
        return pa.concat_tables(parts)

    def samples(self, metric: str, kind: str, start_s: float, end_s: float) -> pa.Table:
        """Columns resource, at, value: all samples with start_s <= at < end_s, in the order of at and resource.

        Raises:
            InvalidInput: an odd name. DatasourceError: files that cannot be read.
        """
        rest = 'ORDER BY "at", resource, value'
        return self._query(metric, kind, start_s, end_s, 'resource, "at", value', rest, SAMPLES)

    def days(self, metric: str) -> list[date]:
        """The days on which something was measured, oldest first."""
        _check_name("metric", metric)
        found = (_day(folder) for folder in (self._folder / f"metric={metric}").glob("date=*"))
        return sorted(day for day in found if day is not None)

    def close(self) -> None:
        """Let go of the query engine."""
        self._con.close()

    # -- inside ----------------------------------------------------------------------------------

    def _query(
        self, metric: str, kind: str, start_s: float, end_s: float, what: str, rest: str, schema: pa.Schema
    ) -> pa.Table:
        _check_name("metric", metric)
        _check_name("kind", kind)
        sql = (
            f"SELECT {what} FROM read_parquet(?, hive_partitioning = false) "  # noqa: S608 - values are parameters
            f'WHERE kind = ? AND "at" >= ? AND "at" < ? {rest}'
        )
        files = self._files(metric, start_s, end_s)
        while files:
            try:
                with self._con.cursor() as cursor:
                    found = cursor.execute(sql, [[str(path) for path in files], kind, start_s, end_s])
                    return found.to_arrow_table().cast(schema)
            except duckdb.Error as error:
                now = self._files(metric, start_s, end_s)
                if now == files:
                    raise DatasourceError(f"Measurements of {metric} cannot be read: {error}") from error
                files = now  # one was merged away or expired between listing and reading
        return schema.empty_table()

    def _files(self, metric: str, start_s: float, end_s: float) -> list[Path]:
        """The files that hold this interval's days: finished, whole, and not replaced by a merged one."""
        wanted = [day for day in self.days(metric) if start_s < _start(day) + DAY_S and end_s > _start(day)]
        folder = self._folder / f"metric={metric}"
        return [path for day in wanted for path in self._current(folder / f"date={day.isoformat()}")]

    def _current(self, folder: Path) -> list[Path]:
        with self._lock:  # or a scan could miss a merged file and those it replaced
            names = {path.name for path in folder.glob("[!.]*.parquet")}
            known = {name: self._look(folder / name) for name in names}
        replaced = {name for file in known.values() for name in file.replaces}
        return [folder / name for name in sorted(names - replaced) if known[name].sound]

    def _look(self, path: Path) -> _File:
        if path not in self._seen:
            found = _File(_whole(path))
            if found.sound and path.name.startswith("merged-"):
                metadata = pq.read_metadata(path).metadata or {}
                found = _File(True, frozenset(json.loads(metadata.get(REPLACES.encode(), b"[]"))))
            if not found.sound:
                log.warning("%s is torn and left out: remove it", path)
            self._seen[path] = found
        return self._seen[path]

    def _day_folder(self, metric: str, day: int) -> Path:
        return self._folder / f"metric={metric}" / f"date={datetime.fromtimestamp(int(day) * DAY_S, UTC).date()}"

    def _write(self, folder: Path, rows: pa.Table) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{uuid4().hex}.part"
        pq.write_table(rows, part, compression="zstd")
        _publish(part, folder / f"{uuid4().hex}.parquet")

    def _compact(self, folder: Path) -> int:
        files = self._current(folder)
        stale = {name for path in files for name in self._look(path).replaces}
        part = None
        if len(files) > 1:
            stale |= {path.name for path in files}
            part = folder / f".{uuid4().hex}.part"
            with self._con.cursor() as cursor:
                cursor.execute(
                    f'COPY (SELECT kind, resource, "at", value FROM read_parquet(?, hive_partitioning = false) '  # noqa: S608
                    f'ORDER BY kind, "at", resource) TO {_literal(str(part))} (FORMAT parquet, COMPRESSION zstd, '
                    f"KV_METADATA {{{REPLACES}: {_literal(json.dumps(sorted(stale)))}}})",
                    [[str(path) for path in files]],
                )
        with self._lock:
            if part is not None:
                _publish(part, folder / f"merged-{uuid4().hex}.parquet")
            gone = [path for path in folder.glob("[!.]*.parquet") if path.name in stale]
            for path in gone:
                path.unlink()
                self._seen.pop(path, None)
        return len(gone)


def _check_name(what: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise InvalidInput(f"{name[:80]!r} is no name of a {what}: use letters, digits and _ . : -")


def _column(metric: str, table: pa.Table, name: str) -> pa.Array:
    """One column in the type it is stored in; nulls in numbers become NaN."""
    if name not in table.column_names:
        raise InvalidInput(f"{metric}: column {name} is missing: give resource, at (seconds) and value")
    wanted = STORED.field(name).type
    try:
        column = table.column(name).cast(wanted).combine_chunks()
    except pa.ArrowException as error:
        raise InvalidInput(f"{metric}: column {name} cannot be {table.column(name).type}: {error}") from error
    return column if pa.types.is_string(wanted) else pc.fill_null(column, math.nan)


def _day(folder: Path) -> date | None:
    try:
        return date.fromisoformat(folder.name.removeprefix("date="))
    except ValueError:
        return None


def _start(day: date) -> int:
    return (day - date(1970, 1, 1)).days * DAY_S


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _whole(path: Path) -> bool:
    """Whether a Parquet file has its beginning, its end, and a footer of the length it claims."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 12 or file.read(4) != MAGIC:
            return False
        file.seek(-8, os.SEEK_END)
        footer = int.from_bytes(file.read(4), "little")
        return file.read(4) == MAGIC and footer + 12 <= size


def _publish(part: Path, path: Path) -> None:
    """Make a finished file visible under its name: on disk before, and its name on disk after."""
    _sync(part)
    part.rename(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
