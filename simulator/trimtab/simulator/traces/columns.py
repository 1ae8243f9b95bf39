"""Columns of foreign tables: files read, names matched, and the checks that name file, row and remedy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from trimtab.platform.errors import InvalidInput

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def parquet(path: Path) -> pa.Table:
    """A Parquet file, or all of a folder; of a folder of the store what a merged file replaces is left out."""
    if not path.exists():
        raise InvalidInput(f"{path} is not there: give an existing file or folder")
    try:
        if not path.is_dir():
            return pq.read_table(path)
        files = _current(path)
        return pq.read_table(files) if files else pa.table({})
    except (OSError, pa.ArrowException) as error:
        raise InvalidInput(f"{path} cannot be read as Parquet: {error}") from error


def _current(folder: Path) -> list[Path]:
    """Files below a folder, except hidden ones and those that a merged one beside them lists as replaced.

    A merged file of the store names what it stands for in its own metadata (`replaces`, a JSON list): until the others
    are deleted their samples are there twice.
    """
    files = sorted(path for path in folder.rglob("*.parquet") if not _hidden(path.relative_to(folder)))
    replaced = set()
    for path in files:
        if path.name.startswith("merged-"):
            listed = (pq.read_metadata(path).metadata or {}).get(b"replaces", b"[]")
            replaced |= {path.with_name(name) for name in json.loads(listed)}
    return [path for path in files if path not in replaced]


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def needed(path: Path, table: pa.Table, names: Mapping[str, tuple[str, ...]]) -> dict[str, pa.ChunkedArray]:
    """Columns by our names; every missing one is named."""
    there = table.column_names
    missing = [" or ".join(theirs) for theirs in names.values() if not set(theirs) & set(there)]
    if missing:
        raise InvalidInput(f"{path}: columns missing: {', '.join(missing)} (there are {', '.join(there) or 'none'})")
    return {ours: table.column(next(n for n in theirs if n in there)) for ours, theirs in names.items()}


def texts(column: pa.ChunkedArray) -> pa.Array:
    """As text."""
    return column.cast(pa.string()).combine_chunks()


def own_ids(column: pa.ChunkedArray, path: Path) -> pa.Array:
    """As text that stands once in each row."""
    ids = texts(column)
    if ids.null_count:
        raise InvalidInput(f"{path} row {ids.is_null().index(True).as_py()}: id is null; each row has its own")
    coded = ids.dictionary_encode()
    if len(coded.dictionary) < len(ids):
        counts = np.bincount(coded.indices.to_numpy())
        twice = int(np.argmax(counts > 1))
        rows = np.flatnonzero(coded.indices.to_numpy() == twice)
        raise InvalidInput(
            f"{path} rows {rows[0]} and {rows[1]}: id {coded.dictionary[twice]} stands twice; each row has its own"
        )
    return ids


def codes(column: pa.ChunkedArray, what: str) -> tuple[pa.Array, Rows]:
    """Names in the order they appear, and the name of each row."""
    if column.null_count:
        raise InvalidInput(f"{what} is null in {column.null_count} rows: give every sample its resource")
    coded = texts(column).dictionary_encode()
    return coded.dictionary, coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def numbers(column: pa.ChunkedArray, what: str) -> Floats:
    """As floats, NaN where null."""
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise InvalidInput(f"{what} is {column.type}; give numbers")
    return np.array(column.cast(pa.float64()).to_numpy(), np.float64)


def seconds(column: pa.ChunkedArray, what: str, *, epoch_ms: bool = False) -> Floats:
    """Timestamps, or numbers of seconds (or milliseconds), as seconds since the epoch."""
    if pa.types.is_timestamp(column.type):
        whole = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
        return numbers(whole, what) / 1e6
    return numbers(column, what) / (1000 if epoch_ms else 1)


def in_range(path: Path, what: str, values: Floats, good: npt.NDArray[np.bool_], remedy: str) -> None:
    """InvalidInput with the first row that is not good."""
    if not good.all():
        row = int(np.argmin(good))
        more = int((~good).sum()) - 1
        others = f" (and {more} rows more)" if more else ""
        raise InvalidInput(f"{path} row {row}: {what} is {values[row]:g}{others}; {remedy}")


def sampled(column: Rows, cell: Rows, value: Floats, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Means of the values of each cell and column, [T, N]; NaN where there is none."""
    flat = cell * shape[1] + column
    seen = ~np.isnan(value)
    size = shape[0] * shape[1]
    count = np.bincount(flat[seen], minlength=size)
    total = np.bincount(flat[seen], value[seen], minlength=size)
    mean = np.divide(total, count, out=np.full(size, np.nan), where=count > 0)
    return mean.reshape(shape).astype(np.float32)


def once(path: Path, ids: pa.Array, column: Rows, at: Floats) -> None:
    """Refuse two samples of one resource at one time."""
    order = np.lexsort((at, column))
    if (twice := (np.diff(column[order]) == 0) & (np.diff(at[order]) == 0)).any():
        row = int(order[1:][twice][0])
        raise InvalidInput(f"{path} row {row} ({ids[int(column[row])]}): at {at[row]:.15g} s stands twice; keep one")
