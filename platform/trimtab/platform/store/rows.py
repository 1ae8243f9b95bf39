"""Records to rows and back: column types taken from the dataclasses, values checked by name, one by one or as Arrow."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import numpy as np
import pyarrow as pa

from trimtab.platform.errors import InvalidInput
from trimtab.platform.records import Record, made

R = TypeVar("R", bound=Record)

SQL = {"int": "BIGINT", "text": "VARCHAR", "bool": "BOOLEAN", "float": "DOUBLE", "time": "TIMESTAMP", "json": "VARCHAR"}
ARROW = {
    "int": pa.int64(),
    "text": pa.string(),
    "bool": pa.bool_(),
    "float": pa.float64(),
    "time": pa.timestamp("us"),
    "json": pa.string(),
}
PLAIN: Mapping[Any, str] = {int: "int", str: "text", bool: "bool", float: "float", datetime: "time"}


class Column(NamedTuple):
    """One column: `type` is a key of SQL and ARROW; `fallback` makes the value of a row written before it existed."""

    name: str
    type: str
    optional: bool
    fallback: Callable[[], Any]

    @property
    def sql(self) -> str:
        """Name (quoted) and type, as in CREATE TABLE."""
        return f'"{self.name}" {SQL[self.type]}'


def columns(kind: type[Record]) -> Mapping[str, Column]:
    """The columns of a kind's table by name, in the order of the dataclass's fields."""
    if kind not in _KNOWN:
        _KNOWN[kind] = _columns(kind)
    return _KNOWN[kind]


_KNOWN: dict[type[Record], Mapping[str, Column]] = {}


def _columns(kind: type[Record]) -> Mapping[str, Column]:
    hints = typing.get_type_hints(kind)
    found: dict[str, Column] = {}
    for field in fields(kind):
        hint, optional = hints[field.name], False
        if typing.get_origin(hint) in {types.UnionType, typing.Union}:
            (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
            optional = True
        default = None if field.default is MISSING else field.default
        fallback = partial(_same, default) if field.default_factory is MISSING else field.default_factory
        found[field.name] = Column(field.name, PLAIN.get(hint, "json"), optional, fallback)
    return found


def _same(value: Any) -> Any:
    return value


CANONICAL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def canonical(text: str) -> str:
    """A uuid in its one spelling (lower case, dashes); any other text as it is."""
    if CANONICAL.fullmatch(text):
        return text
    try:
        return str(UUID(text))
    except ValueError:
        return text


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8 (half a surrogate pair cannot)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def to_cell(kind: type[Record], column: Column, value: Any) -> Any:
    """A field's value as DuckDB and Arrow take it: naive UTC for times, text for JSON.

    Raises:
        InvalidInput: the value does not fit the column.
    """
    if value is None:
        if column.optional:
            return None
        raise _wrong(kind, column, value, "a value is needed")
    match column.type:
        case "json":
            return _json(kind, column, value)
        case "text" if isinstance(value, str):
            return _text(kind, column, value)
        case "bool" if isinstance(value, bool | np.bool_):
            return bool(value)
        case "int" if isinstance(value, int | np.integer) and not isinstance(value, bool):
            if -(2**63) <= value < 2**63:
                return int(value)
            raise _wrong(kind, column, value, "it needs more than 64 bits")
        case "float" if isinstance(value, int | float | np.number) and not isinstance(value, bool):
            return float(value)
        case "time" if isinstance(value, datetime):
            return _time(kind, column, value)
    raise _wrong(kind, column, value, f"expected {column.type}, got {type(value).__name__}")


def from_cell(column: Column, cell: Any) -> Any:
    """The field's value for what DuckDB gave."""
    if cell is None:
        return None if column.optional else column.fallback()
    if column.type == "json":
        return [] if cell == "[]" else {} if cell == "{}" else json.loads(cell)  # most are empty
    return cell.replace(tzinfo=UTC) if column.type == "time" else cell


def to_row(record: Record) -> tuple[Any, ...]:
    """A record as one row, in the order of `columns`.

    Raises:
        InvalidInput: a value does not fit its column.
    """
    kind = type(record)
    return tuple(to_cell(kind, column, getattr(record, name)) for name, column in columns(kind).items())


def from_row(kind: type[R], row: Sequence[Any]) -> R:
    """The record of one row, given in the order of `columns`."""
    return made(kind, [from_cell(column, cell) for column, cell in zip(columns(kind).values(), row, strict=True)])


def to_arrow(kind: type[Record], rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Rows as one Arrow table with the columns of the kind."""
    cells = list(zip(*rows, strict=True)) or [()] * len(columns(kind))
    arrays = {
        column.name: pa.array(values, ARROW[column.type])
        for column, values in zip(columns(kind).values(), cells, strict=True)
    }
    return pa.table(arrays)


def _text(kind: type[Record], column: Column, value: str) -> str:
    text = str.__str__(value)  # an enum's member becomes its plain text
    if not is_text(text):
        raise _wrong(kind, column, value, "it has half a surrogate pair, which is no text")
    return text


def _plain(odd: Any) -> Any:
    if isinstance(odd, np.generic | np.ndarray):
        return odd.tolist()
    if isinstance(odd, Mapping):
        return dict(odd)
    raise TypeError(f"{type(odd).__name__} is not JSON")


_ENCODER = json.JSONEncoder(default=_plain, separators=(",", ":"))  # json.dumps would make one for every value


def _json(kind: type[Record], column: Column, value: Any) -> str:
    wanted = Mapping if column.fallback() == {} else list | tuple
    if not isinstance(value, wanted):
        raise _wrong(kind, column, value, f"expected JSON {'object' if wanted is Mapping else 'list'}")
    if not value:
        return "{}" if wanted is Mapping else "[]"
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise _wrong(kind, column, value, str(error)) from error


def _time(kind: type[Record], column: Column, value: datetime) -> datetime:
    if value.tzinfo is None:
        raise _wrong(kind, column, value, "it has no time zone; give an aware datetime")
    try:
        return value.astimezone(UTC).replace(tzinfo=None)
    except OverflowError as error:
        raise _wrong(kind, column, value, "it is outside the years 1 to 9999 in UTC") from error


def _wrong(kind: type[Record], column: Column, value: Any, why: str) -> InvalidInput:
    return InvalidInput(f"{kind.__name__}.{column.name} cannot be {str(value)[:80]!r}: {why}")
