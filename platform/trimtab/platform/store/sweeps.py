"""Files of what-if sweeps, a folder each: where it begins, its results as Parquet parts, pages of them by DuckDB."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from trimtab.platform.errors import InvalidInput, NotFound
from trimtab.platform.store.parts import Results, write_whole

UUID = re.compile(r"[0-9a-f-]{32,36}")
KEY = re.compile(r"[0-9a-f]{32}")


class Sweeps:
    """Held by the state actor, the only one that touches these files; its threads take turns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._cells: dict[str, dict[str, bool]] = {}  # by sweep: which cells are there, and whether they failed
        folder.mkdir(parents=True, exist_ok=True)

    def keep_origin(self, uuid: str, tables: Mapping[str, pa.Table]) -> None:
        """Keep the tables a sweep begins with; durable when this returns."""
        with self._lock:
            for name, table in tables.items():
                write_whole(table, self._of(uuid) / "origin" / f"{name}.parquet")

    def origin(self, uuid: str) -> dict[str, pa.Table]:
        """What `keep_origin` was given; empty when it was given nothing."""
        with self._lock:
            return {file.stem: pq.read_table(file) for file in sorted((self._of(uuid) / "origin").glob("*.parquet"))}

    def begin(self, uuid: str, wanted: Collection[str]) -> set[str]:
        """See `Results.begin`."""
        with self._lock:
            self._cells.pop(uuid, None)
            self._of(uuid).mkdir(exist_ok=True)
            return Results(self._of(uuid)).begin(wanted)

    def add(self, uuid: str, rows: pa.Table, series: Mapping[str, pa.Table]) -> tuple[int, int]:
        """Keep finished cells; how many there are now, and how many of them failed.

        Cells that are there already are left out, so that asking twice does no harm.

        Raises:
            NotFound: the sweep was removed.
        """
        with self._lock:
            folder, there = self._of(uuid), self._known(uuid)
            if not folder.exists():
                raise NotFound(f"What-if {uuid} could not be found")
            fresh = rows.filter(pa.array([key not in there for key in rows["key"].to_pylist()], pa.bool_()))
            Results(folder).add(fresh, series)
            there |= _outcomes(fresh)
            return self.counts(uuid)

    def counts(self, uuid: str) -> tuple[int, int]:
        """How many cells are finished, and how many of them failed."""
        with self._lock:
            there = self._known(uuid)
            return len(there), sum(there.values())

    def _known(self, uuid: str) -> dict[str, bool]:
        if uuid not in self._cells:
            rows = Results(self._of(uuid)).table()
            self._cells[uuid] = {} if rows is None else _outcomes(rows)
        return self._cells[uuid]

    def table(self, uuid: str) -> pa.Table | None:
        """All rows."""
        with self._lock:
            return Results(self._of(uuid)).table()

    def series(self, uuid: str, key: str) -> pa.Table | None:
        """The series of one cell."""
        with self._lock:
            return Results(self._of(uuid)).series(key) if KEY.fullmatch(key) else None

    def page(
        self,
        uuid: str,
        where: Mapping[str, Any],
        *,
        limit: int,
        marker: str | None = None,
        sort_key: str = "key",
        sort_dir: str = "asc",
    ) -> list[dict[str, Any]]:
        """Rows in the order (sort_key, key), from behind the one whose key is `marker`; nulls come last.

        Raises:
            InvalidInput: unknown column or direction. NotFound: unknown marker.
        """
        if sort_dir not in {"asc", "desc"}:
            raise InvalidInput(f"Invalid sort direction: {sort_dir}. Acceptable values are 'asc' or 'desc'")
        with self._lock:
            files = [str(file) for file in Results(self._of(uuid)).cells.files()]
            if not files:
                if marker is not None:
                    raise NotFound(f"Cell {marker} could not be found")
                return []
            with duckdb.connect(":memory:", config={"threads": 1}) as con:
                con.read_parquet(files).create_view("cells")
                known = [row[0] for row in con.execute("DESCRIBE cells").fetchall()]
                for column in (sort_key, *where):
                    if column not in known:
                        raise InvalidInput(f"Invalid sort key or filter: {column}; there are {', '.join(known)}")
                order = f'"{sort_key}" {sort_dir} NULLS LAST, "key"'
                placed = f"SELECT *, row_number() OVER (ORDER BY {order}) AS place_ FROM cells"  # noqa: S608 (known)
                con.sql(placed).create_view("placed")
                behind = 0
                if marker is not None:
                    seen = con.execute("SELECT place_ FROM placed WHERE key = ?", [marker]).fetchone()
                    if seen is None:
                        raise NotFound(f"Cell {marker} could not be found")
                    behind = int(seen[0])
                conditions = " AND ".join(["place_ > ?", *(f'"{column}" = ?' for column in where)])
                rows = con.execute(
                    f"SELECT * EXCLUDE (place_) FROM placed WHERE {conditions} ORDER BY place_ LIMIT ?",  # noqa: S608 (known)
                    [behind, *where.values(), limit],
                )
                found: list[dict[str, Any]] = rows.to_arrow_table().to_pylist()
        return found

    def remove(self, uuid: str) -> None:
        """Delete a sweep's files."""
        with self._lock:
            self._cells.pop(uuid, None)
            Results(self._of(uuid)).remove()

    def remove_orphans(self, known: Collection[str], before_s: float) -> int:
        """Delete folders that a crash left: half removed ones, and those of no known sweep; how many.

        Args:
            known: uuids of sweeps.
            before_s: seconds since 1970; what was touched later may be a sweep that is just being created.
        """
        gone = 0
        with self._lock:
            for folder in self._folder.iterdir():
                half = folder.name.startswith(".removed-")
                nobodys = UUID.fullmatch(folder.name) is not None and folder.name not in known
                if folder.is_dir() and (half or (nobodys and folder.stat().st_mtime < before_s)):
                    self._cells.pop(folder.name, None)
                    Results(folder).remove()
                    gone += 1
        return gone

    def _of(self, uuid: str) -> Path:
        if not UUID.fullmatch(uuid):
            raise InvalidInput(f"{uuid} is no uuid of a what-if")
        return self._folder / uuid


def _outcomes(rows: pa.Table) -> dict[str, bool]:
    return dict(zip(rows["key"].to_pylist(), [bool(error) for error in rows["error"].to_pylist()], strict=True))
