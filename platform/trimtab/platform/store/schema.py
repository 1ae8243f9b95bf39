"""The tables of the store: one a kind of record, made from the dataclasses, carried forward by numbered migrations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from duckdb import DuckDBPyConnection

from trimtab.platform.errors import InvalidInput
from trimtab.platform.records import RECORDS, Explanation, Feed, Record, WhatIf
from trimtab.platform.store.rows import columns


class Migration(NamedTuple):
    """One step from version - 1 to version, for files written before it; new files get the latest tables at once."""

    version: int
    why: str
    apply: Callable[[DuckDBPyConnection], object]


def create_everything(con: DuckDBPyConnection, records: Mapping[str, type[Record]]) -> None:
    """Create all tables. No foreign keys and no unique indexes: the one owner checks inside its transactions."""
    for kind in records.values():
        create_table(con, kind)
    con.execute("CREATE TABLE idempotency_key (key VARCHAR, kind VARCHAR, uuid VARCHAR, created_at TIMESTAMP)")


def create_table(con: DuckDBPyConnection, kind: type[Record]) -> None:
    """The table of one kind of record."""
    con.execute(f'CREATE TABLE "{kind.kind}" ({", ".join(column.sql for column in columns(kind).values())})')


GONE = "DELETE FROM explanation WHERE action_plan_id IN (SELECT id FROM action_plan WHERE deleted <> 0)"

# Version 1 is `create_everything`. A field added to a record needs a migration here, for example
#   Migration(2, "audits have a colour", lambda con: con.execute('ALTER TABLE audit ADD COLUMN colour VARCHAR'))
MIGRATIONS: tuple[Migration, ...] = (
    Migration(2, "there are what-ifs", lambda con: create_table(con, WhatIf)),
    Migration(3, "plans explain themselves", lambda con: create_table(con, Explanation)),
    Migration(4, "plans have notes", lambda con: con.execute("ALTER TABLE action_plan ADD COLUMN notes VARCHAR")),
    Migration(5, "explanations go with their plans", lambda con: con.execute(GONE)),
    Migration(6, "events are read by feeds", lambda con: create_table(con, Feed)),
    Migration(
        7, "webhooks are remembered", lambda con: con.execute("ALTER TABLE audit ADD COLUMN triggered_at TIMESTAMP")
    ),
    Migration(8, "plans undo others", lambda con: con.execute("ALTER TABLE action_plan ADD COLUMN rolls_back VARCHAR")),
    Migration(
        9,
        "candidates name their planner",
        lambda con: con.execute("ALTER TABLE candidate ADD COLUMN planner VARCHAR DEFAULT 'capacity'"),
    ),
    Migration(
        10,
        "plans know that they are measured",
        lambda con: con.execute("ALTER TABLE action_plan ADD COLUMN settled BOOLEAN DEFAULT false"),
    ),
)
LATEST = MIGRATIONS[-1].version


def prepare(
    con: DuckDBPyConnection,
    name: str,
    records: Mapping[str, type[Record]] = RECORDS,
    migrations: Sequence[Migration] = MIGRATIONS,
    before: Callable[[int], object] | None = None,
) -> int:
    """Bring a database to the present version, each step in its own transaction; returns the version.

    `before` is called with the version of an older one, before anything is changed.

    Raises:
        InvalidInput: `name` was written by a newer version, is somebody else's database, or lacks a migration.
    """
    latest = max((step.version for step in migrations), default=1)
    tables = {row[0] for row in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if not tables:
        _step(con, latest, "created", lambda con: create_everything(con, records))
        return latest
    if "schema_version" not in tables:
        raise InvalidInput(f"{name} is a DuckDB file of something else: choose another file for the store")
    row = con.execute("SELECT max(version) FROM schema_version").fetchone()
    version = int(row[0]) if row and row[0] is not None else 0
    if version > latest:
        raise InvalidInput(
            f"{name} has schema version {version}, this Trimtab knows up to {latest}: "
            "upgrade Trimtab, or restore a copy of the file made before the upgrade"
        )
    if version < latest and before is not None:
        before(version)
    for step in sorted(migrations, key=lambda step: step.version):
        if step.version > version:
            _step(con, step.version, step.why, step.apply)
    _verify(con, name, records)
    return latest


def _step(con: DuckDBPyConnection, version: int, why: str, apply: Callable[[DuckDBPyConnection], object]) -> None:
    con.execute("BEGIN TRANSACTION")
    try:
        con.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT, why VARCHAR)")
        apply(con)
        con.execute("INSERT INTO schema_version VALUES (?, ?)", [version, why])
    except BaseException:
        con.execute("ROLLBACK")
        raise
    con.execute("COMMIT")


def _verify(con: DuckDBPyConnection, name: str, records: Mapping[str, type[Record]]) -> None:
    rows = con.execute("SELECT table_name, column_name, data_type FROM duckdb_columns()").fetchall()
    there = {(table, column): kind for table, column, kind in rows}
    for kind in records.values():
        for column in columns(kind).values():
            if not column.sql.endswith(f" {there.get((kind.kind, column.name))}"):
                raise InvalidInput(
                    f"{name} has no column {kind.kind}.{column.sql}: the program has a field without a migration; "
                    "use a released Trimtab"
                )
