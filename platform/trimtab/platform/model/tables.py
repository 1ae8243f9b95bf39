"""Tables at the model's edge: their columns, the checks that name the row and the remedy, and text as codes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trimtab.platform.errors import ModelError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

HOST_COLUMNS: Mapping[str, tuple[pa.DataType, Any]] = {
    # name: (type, default; None = required)
    "uuid": (pa.string(), None),
    "hostname": (pa.string(), None),
    "vcpus": (pa.float64(), None),
    "memory_mb": (pa.float64(), None),
    "disk_gb": (pa.float64(), None),
    "vcpu_reserved": (pa.float64(), 0.0),
    "memory_mb_reserved": (pa.float64(), 0.0),
    "disk_gb_reserved": (pa.float64(), 0.0),
    "vcpu_ratio": (pa.float64(), 1.0),
    "memory_ratio": (pa.float64(), 1.0),
    "disk_ratio": (pa.float64(), 1.0),
    "state": (pa.string(), "up"),
    "status": (pa.string(), "enabled"),
    "disabled_reason": (pa.string(), ""),
    "zone": (pa.string(), "nova"),
    "aggregates": (pa.list_(pa.string()), []),  # names, and numbers as text where the cloud has them: scopes use both
    "traits": (pa.list_(pa.string()), []),
}
INSTANCE_COLUMNS: Mapping[str, tuple[pa.DataType, Any]] = {
    "uuid": (pa.string(), None),
    "name": (pa.string(), ""),
    "node": (pa.string(), None),  # uuid of the host; null = not placed
    "vcpus": (pa.float64(), None),
    "memory_mb": (pa.float64(), None),
    "disk_gb": (pa.float64(), None),
    "state": (pa.string(), "active"),
    "project": (pa.string(), ""),
    "flavor": (pa.string(), ""),
    "flavor_specs": (pa.string(), "{}"),  # JSON object: the flavor's extra specs
    "metadata": (pa.string(), "{}"),  # JSON object
    "locked": (pa.bool_(), False),
    "pinned_zone": (pa.string(), ""),  # the zone asked for at boot; "" = any
    "group": (pa.string(), ""),  # uuid of the server group; "" = none
    "created": (pa.string(), ""),  # ISO 8601
}
GROUP_COLUMNS: Mapping[str, tuple[pa.DataType, Any]] = {
    "uuid": (pa.string(), None),
    "name": (pa.string(), ""),
    "policy": (pa.string(), None),
}


@dataclass(frozen=True, slots=True)
class Codes:
    """A dictionary-encoded text column: `names[codes[row]]`; -1 stands for the empty text."""

    codes: Ints
    names: tuple[str, ...]

    def __getitem__(self, row: int) -> str:
        code = int(self.codes[row])
        return self.names[code] if code >= 0 else ""

    def rows(self, name: str) -> Bools:
        """Rows that carry this text, as a mask."""
        return self.codes == (self.names.index(name) if name in self.names else -2)

    def take(self, rows: npt.NDArray[np.intp]) -> Codes:
        """The column of some rows."""
        return Codes(self.codes[rows], self.names)

    def texts(self) -> pa.Array:
        """The column as plain Arrow text."""
        return pa.array(np.array([*self.names, ""], dtype=object)[self.codes], pa.string())


class InputTable:
    """One input table while it is being checked; every complaint names table, row, value and remedy."""

    def __init__(
        self,
        name: str,
        table: pa.Table,
        columns: Mapping[str, tuple[pa.DataType, Any]],
        label: str = "uuid",
        nullable: Sequence[str] = ("node",),
    ) -> None:
        self.name, self.label, self.nullable = name, label, nullable
        self.rows = table.num_rows
        self.columns: dict[str, pa.Array] = {}
        missing = [c for c, (_, default) in columns.items() if default is None and c not in table.column_names]
        if missing:
            raise ModelError(f"{name}: column {missing[0]!r} is missing; it needs {', '.join(columns)}")
        for column, (kind, default) in columns.items():
            if column in table.column_names:
                self.columns[column] = self._cast(column, table.column(column), kind, default)
            elif pa.types.is_list(kind):
                self.columns[column] = pa.array([[]] * self.rows, kind)
            else:
                self.columns[column] = pa.repeat(pa.scalar(default, kind), self.rows)

    def __len__(self) -> int:
        return int(self.rows)

    def __getitem__(self, column: str) -> pa.Array:
        return self.columns[column]

    def fault(self, row: int, column: str, problem: str, remedy: str) -> ModelError:
        """The error that names table, row, column, problem and remedy."""
        label = self.columns[self.label][row].as_py() if self.label in self.columns else "?"
        return ModelError(f"{self.name} row {row} ({label}): {column} {problem}; {remedy}")

    def _cast(self, column: str, values: pa.ChunkedArray, kind: pa.DataType, default: Any) -> pa.Array:
        flat = values.combine_chunks()
        if isinstance(flat, pa.ChunkedArray):  # zero chunks
            flat = pa.array([], kind)
        if pa.types.is_dictionary(flat.type):
            flat = flat.dictionary_decode()
        if pa.types.is_map(flat.type) or pa.types.is_struct(flat.type):
            flat = pa.array([json.dumps(dict(item or {}), sort_keys=True) for item in flat.to_pylist()], pa.string())
        if flat.type != kind:
            try:
                flat = flat.cast(kind)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise ModelError(f"{self.name}: column {column!r} is {flat.type}, not {kind}: {error}") from error
        if flat.null_count and column not in self.nullable:
            if default is None:
                row = int(np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False))[0])
                raise self.fault(row, column, "is null", "give it a value")
            if pa.types.is_list(kind):
                flat = pa.array([item or [] for item in flat.to_pylist()], kind)
            else:
                flat = pc.fill_null(flat, pa.scalar(default, kind))
        return flat

    def check_unique(self, column: str) -> None:
        """Raise when two rows have the same value."""
        values = self.columns[column]
        if pc.count_distinct(values, mode="all").as_py() == len(values):
            return
        encoded = values.dictionary_encode().indices.to_numpy(zero_copy_only=False)
        _, first = np.unique(encoded, return_index=True)
        row = int(np.setdiff1d(np.arange(len(encoded)), first)[0])
        earlier = int(np.flatnonzero(encoded == encoded[row])[0])
        raise self.fault(row, column, f"{values[row].as_py()!r} stands in row {earlier} too", "keep one of them")

    def amounts(self, *columns: str) -> Floats:
        """Columns of finite numbers, zero or more, side by side."""
        out = np.empty((self.rows, len(columns)), np.float64)
        for position, column in enumerate(columns):
            values = self.columns[column].to_numpy(zero_copy_only=False)
            bad = ~(np.isfinite(values) & (values >= 0))
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise self.fault(row, column, f"is {values[row]:g}", "it must be a finite number, zero or more")
            out[:, position] = values
        return out

    def amounts_or_unknown(self, column: str) -> Floats:
        """A column of numbers, zero or more; NaN where the cloud does not know, inf where there is no limit."""
        values = np.array(self.columns[column].to_numpy(zero_copy_only=False), np.float64)
        if (bad := values < 0).any():
            row = int(np.flatnonzero(bad)[0])
            raise self.fault(row, column, f"is {values[row]:g}", "it must be zero or more; NaN where it is not known")
        return values

    def flags(self, column: str) -> Bools:
        """A column of booleans."""
        return np.array(self.columns[column].to_numpy(zero_copy_only=False), bool)

    def codes(self, column: str) -> Codes:
        """A text column as codes."""
        encoded = self.columns[column].dictionary_encode()
        names = [str(name) for name in encoded.dictionary.to_pylist()]
        order = sorted(name for name in names if name)
        position = {name: code for code, name in enumerate(order)}
        lookup = np.array([*(position.get(name, -1) for name in names), -1], np.int32)
        return Codes(lookup[encoded.indices.to_numpy(zero_copy_only=False)], tuple(order))

    def one_of(self, column: str, words: Sequence[str]) -> Ints:
        """A column of known words, as their positions."""
        found = pc.index_in(self.columns[column], value_set=pa.array(words, pa.string()))
        if found.null_count:
            row = int(np.flatnonzero(found.is_null().to_numpy(zero_copy_only=False))[0])
            value = self.columns[column][row].as_py()
            raise self.fault(row, column, f"is {value!r}", f"use one of {', '.join(words)}")
        return np.asarray(found.to_numpy(zero_copy_only=False), np.int32)

    def references(self, column: str, ids: pa.Array, where: str, *, empty: str | None = None) -> Ints:
        """Row numbers of what a column names; -1 where it names nothing."""
        values = self.columns[column]
        found = pc.index_in(values, value_set=ids)
        unset = values.is_null() if empty is None else pc.equal(values, empty)
        unknown = pc.and_(found.is_null(), pc.invert(unset))
        if pc.any(unknown).as_py():
            row = int(np.flatnonzero(unknown.to_numpy(zero_copy_only=False))[0])
            raise self.fault(
                row, column, f"{values[row].as_py()!r} is not in {where.partition(':')[0]}", where.partition(": ")[2]
            )
        return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), np.int32)

    def memberships(self, column: str) -> tuple[Bools, tuple[str, ...]]:
        """A column of lists as a matrix, and the names of its columns."""
        lists = self.columns[column]
        flat = lists.flatten()
        names = sorted(str(name) for name in pc.unique(flat).drop_null().to_pylist())
        matrix = np.zeros((self.rows, len(names)), bool)
        if names:
            parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
            found = pc.fill_null(pc.index_in(flat, value_set=pa.array(names, pa.string())), -1)
            codes = found.to_numpy(zero_copy_only=False)
            matrix[parents[codes >= 0], codes[codes >= 0]] = True  # a null names nothing
        return matrix, tuple(names)

    def json_objects(self, column: str) -> Codes:
        """A column of JSON objects, as text codes."""
        codes = self.codes(column)
        for code, text in enumerate(codes.names):
            try:
                ok = isinstance(json.loads(text), dict)
            except ValueError:
                ok = False
            if not ok:
                row = int(np.flatnonzero(codes.codes == code)[0])
                raise self.fault(row, column, f"is {text[:60]!r}", "it must be a JSON object such as {}")
        return codes


def lists_of(matrix: Bools, names: tuple[str, ...]) -> pa.Array:
    """A membership matrix as lists of names."""
    rows, columns = np.nonzero(matrix)
    offsets = np.zeros(matrix.shape[0] + 1, np.int32)
    np.cumsum(np.bincount(rows, minlength=matrix.shape[0]), out=offsets[1:])
    values = pa.array(np.array([*names, ""], dtype=object)[columns], pa.string())
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def table_of(columns: Mapping[str, Any], kinds: Mapping[str, tuple[pa.DataType, Any]]) -> pa.Table:
    """Columns as a table with the types of `kinds`."""
    return pa.table({name: pa.array(columns[name]).cast(kind) for name, (kind, _) in kinds.items()})


def table_of_rows(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, tuple[pa.DataType, Any]]) -> pa.Table:
    """Rows as a table with the types of `kinds`; what a row lacks gets the column's default, null where it has none."""
    return pa.table(
        {name: pa.array([row.get(name, default) for row in rows], kind) for name, (kind, default) in kinds.items()}
    )


def empty_table(kinds: Mapping[str, tuple[pa.DataType, Any]]) -> pa.Table:
    """A table with these columns and no rows."""
    return pa.table({name: pa.array([], kind) for name, (kind, _) in kinds.items()})
