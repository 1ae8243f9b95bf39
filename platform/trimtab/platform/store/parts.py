"""Results of a long computation as a folder of Parquet parts, each written whole or not at all, so that it resumes."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

KEY = "key"


class Parts:
    """Rows in `<folder>/part-*.parquet`; rows are told apart by their column `key`. One process at a time writes.

    Every part has the same columns, so pandas, polars and DuckDB read the folder as one table.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> list[Path]:
        """Finished parts, oldest first."""
        return sorted(self.folder.glob("part-*.parquet"))

    def append(self, rows: pa.Table) -> Path:
        """Keep rows; they are on disk when this returns, and there is no moment at which some of them are."""
        last = self.files()
        number = int(last[-1].name.split("-")[1]) + 1 if last else 1
        path = self.folder / f"part-{number:06d}-{uuid.uuid4().hex[:8]}.parquet"
        write_whole(rows, path)
        return path

    def table(self) -> pa.Table | None:
        """All rows, each key once; None when there are none."""
        files = self.files()
        if not files:
            return None
        rows = pa.concat_tables([pq.read_table(file) for file in files], promote_options="default")
        keys = rows[KEY].to_pylist()
        if len(set(keys)) == len(keys):
            return rows
        seen = {key: position for position, key in enumerate(keys)}
        return rows.take(pa.array(sorted(seen.values())))

    def keys(self) -> set[str]:
        """Keys of all rows."""
        return {key for file in self.files() for key in pq.read_table(file, columns=[KEY])[KEY].to_pylist()}

    def replace(self, rows: pa.Table) -> None:
        """Hold exactly these rows. A crash in between leaves some of them twice, never none of them."""
        old = self.files()
        if rows.num_rows:
            self.append(rows)
        for file in old:
            file.unlink()


class Results:
    """The folder of one sweep: `cells/` (rows of the present scenario), `kept/` (rows of earlier ones), `series/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cells = Parts(folder / "cells")
        self.kept = Parts(folder / "kept")
        self.series_folder = folder / "series"

    def begin(self, wanted: Collection[str], *, again: bool = False) -> set[str]:
        """Make `cells` hold only rows of wanted keys, from whatever was ever computed here; returns which are there.

        `again` leaves out rows that ended with an error, so that they are tried once more.
        """
        for draft in self.folder.glob(".*.draft"):
            draft.unlink(missing_ok=True)  # a killed process left it; whoever begins is the only writer
        parts = [table for table in (self.kept.table(), self.cells.table()) if table is not None]
        if not parts:
            return set()
        rows = pa.concat_tables(parts, promote_options="default")
        position = {key: n for n, key in enumerate(rows[KEY].to_pylist())}  # the newest of each
        good = {key: n for key, n in position.items() if not (again and rows["error"][n].as_py())}
        mine = sorted(n for key, n in good.items() if key in wanted)
        rest = sorted(n for key, n in position.items() if key not in wanted)
        done = {key for key in good if key in wanted}
        if self.cells.keys() != done:
            chosen = rows.take(pa.array(mine, pa.int64()))
            # In this order, so that at no moment a row is in neither folder.
            there = self.kept.keys()
            leaving = [n for n in rest if rows[KEY][n].as_py() not in there]
            if leaving:
                self.kept.append(rows.take(pa.array(leaving, pa.int64())))
            self.cells.replace(chosen)
            self.kept.replace(rows.take(pa.array(rest, pa.int64())))
        return done

    def add(self, rows: pa.Table, series: Mapping[str, pa.Table]) -> None:
        """Keep finished cells: first their series, then the rows that say so."""
        for key, table in series.items():
            write_whole(table, self.series_folder / f"{key}.parquet")
        if rows.num_rows:
            self.cells.append(rows)

    def table(self) -> pa.Table | None:
        """Rows of all finished cells."""
        return self.cells.table()

    def counts(self) -> tuple[int, int]:
        """How many cells are finished, and how many of them failed."""
        rows = self.table()
        if rows is None:
            return 0, 0
        return rows.num_rows, int(pc.sum(pc.cast(pc.not_equal(rows["error"], ""), pa.int64())).as_py() or 0)

    def series(self, key: str) -> pa.Table | None:
        """The series of one cell, if they were asked for."""
        path = self.series_folder / f"{key}.parquet"
        return pq.read_table(path) if path.is_file() else None

    def remove(self) -> None:
        """Delete everything; a crash leaves a folder that nobody looks at."""
        if self.folder.exists():
            gone = self.folder.with_name(f".removed-{uuid.uuid4().hex}")
            self.folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def write_whole(table: pa.Table, path: Path) -> None:
    """Write a Parquet file so that it is there whole, and on disk, or not at all."""
    _make(path.parent)
    # Beside the folder: who reads the folder never meets half a file.
    draft = path.parent.with_name(f".{path.parent.name}-{uuid.uuid4().hex}.draft")
    try:
        with draft.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    sync(path.parent)


def _make(folder: Path) -> None:
    """Make a folder and those above it; they are on disk when this returns."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def sync(folder: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
