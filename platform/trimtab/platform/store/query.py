"""What may be asked of a table, as SQL with parameters: filters, order, pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from trimtab.platform.errors import InvalidInput
from trimtab.platform.records import Record
from trimtab.platform.store.rows import SQL, Column, columns, to_cell


class Clause(NamedTuple):
    """A piece of SQL and the parameters it needs."""

    sql: str
    parameters: list[Any]


def column_of(kind: type[Record], name: str, text: str) -> Column:
    """A column by name; else InvalidInput with the given text."""
    try:
        return columns(kind)[name]
    except KeyError:
        raise InvalidInput(text) from None


# The statements below are put together from names of our own dataclasses; values always travel as parameters.


def select(kind: type[Record], rest: str, what: Sequence[str] = ()) -> str:
    """SELECT some columns; by default all, in the order `from_row` expects."""
    names = ", ".join(f'"{name}"' for name in what or columns(kind))
    return f'SELECT {names} FROM "{kind.kind}" {rest}'  # noqa: S608


def aggregate(kind: type[Record], what: str, condition: str = "true") -> str:
    """SELECT one expression over all rows that match."""
    return f'SELECT {what} FROM "{kind.kind}" WHERE {condition}'  # noqa: S608


def insert(kind: type[Record]) -> str:
    """INSERT one row, all columns."""
    names = ", ".join(f'"{name}"' for name in columns(kind))
    return f'INSERT INTO "{kind.kind}" ({names}) VALUES ({", ".join("?" * len(columns(kind)))})'  # noqa: S608


def insert_from(kind: type[Record], view: str) -> str:
    """INSERT all rows of a view with the same columns."""
    return f'INSERT INTO "{kind.kind}" BY NAME SELECT * FROM {view}'  # noqa: S608


def update(kind: type[Record], names: Iterable[str], condition: str, more: Sequence[str] = ()) -> str:
    """UPDATE columns by name (one parameter each), and by whole expressions."""
    sets = ", ".join([*(f'"{name}" = ?' for name in names), *more])
    return f'UPDATE "{kind.kind}" SET {sets} WHERE {condition}'  # noqa: S608


def remove(kind: type[Record], condition: str) -> str:
    """DELETE the rows themselves, for what is not kept once it is deleted."""
    return f'DELETE FROM "{kind.kind}" WHERE {condition}'  # noqa: S608


def update_from(kind: type[Record], names: Iterable[str], view: str) -> str:
    """UPDATE columns of the rows that a view has, by id."""
    sets = ", ".join(f'"{name}" = {view}."{name}"' for name in names)
    return f'UPDATE "{kind.kind}" SET {sets} FROM {view} WHERE "{kind.kind}".id = {view}.id'  # noqa: S608


def conditions(kind: type[Record], where: Mapping[str, Any], *, deleted: bool = False) -> Clause:
    """A condition over columns: a scalar must be equal, None must be null, of a collection any one must be equal.

    Raises:
        InvalidInput: no such column, a JSON column, or a value of the wrong type.
    """
    parts, parameters = ["true" if deleted else "deleted = 0"], []
    for name, value in where.items():
        column = column_of(kind, name, f'Unknown argument: "{name}"')
        if column.type == "json":
            raise InvalidInput(f"{kind.__name__}.{name} holds JSON and cannot be searched")
        if value is None:
            parts.append(f'"{name}" IS NULL')
        elif isinstance(value, list | tuple | set | frozenset):
            cells = [to_cell(kind, column, one) for one in value if one is not None]
            null = f' OR "{name}" IS NULL' if len(cells) < len(value) else ""
            parts.append(f'("{name}" IN (SELECT unnest(?::{SQL[column.type]}[])){null})')
            parameters.append(cells)
        else:
            parts.append(f'"{name}" = ?')
            parameters.append(to_cell(kind, column, value))
    return Clause(" AND ".join(parts), parameters)


def order(kind: type[Record], sort_key: str, sort_dir: str) -> str:
    """ORDER BY (sort_key, id), both in the direction asked for; nulls are the smallest values.

    Raises:
        InvalidInput: no such column or direction.
    """
    column_of(kind, sort_key, f"Invalid sort key: {sort_key}")
    if sort_dir == "asc":
        return f'ORDER BY "{sort_key}" ASC NULLS FIRST, id ASC'
    if sort_dir == "desc":
        return f'ORDER BY "{sort_key}" DESC NULLS LAST, id DESC'
    raise InvalidInput(f"Invalid sort direction: {sort_dir}. Acceptable values are 'asc' or 'desc'")


def after(sort_key: str, sort_dir: str, cell: Any, row_id: int) -> Clause:
    """The condition for rows behind the one with this sort value and id, in the order of `order`."""
    key, up = f'"{sort_key}"', sort_dir == "asc"
    if cell is None:
        sql = f"({key} IS NOT NULL OR id > ?)" if up else f"({key} IS NULL AND id < ?)"
        return Clause(sql, [row_id])
    if up:
        return Clause(f"({key} > ? OR ({key} = ? AND id > ?))", [cell, cell, row_id])
    return Clause(f"({key} < ? OR {key} IS NULL OR ({key} = ? AND id < ?))", [cell, cell, row_id])


def page_size(limit: int | None) -> str:
    """LIMIT, or nothing.

    Raises:
        InvalidInput: the limit is not positive.
    """
    if limit is None:
        return ""
    if limit <= 0:
        raise InvalidInput("Limit must be positive")
    return f"LIMIT {int(limit)}"
