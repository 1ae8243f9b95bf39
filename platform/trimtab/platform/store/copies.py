"""Copies of a store's file, taken while it is in use, and a look at a file that changes nothing in it."""

from __future__ import annotations

from pathlib import Path

import duckdb

from trimtab.platform.errors import Conflict, InvalidInput, NotFound


def copy_database(con: duckdb.DuckDBPyConnection, target: Path) -> None:
    """Write all that is in a database into a new file; the file is there when it is whole.

    Raises:
        Conflict: there is such a file already. InvalidInput: it cannot be written there.
    """
    if target.exists():
        raise Conflict(f"{target} exists already: name a file that is not there")
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    row = con.execute("SELECT current_database()").fetchone()
    try:
        quoted = str(part).replace("'", "''")
        con.execute(f"ATTACH '{quoted}' AS the_copy")
        try:
            con.execute(f'COPY FROM DATABASE "{row[0] if row else "memory"}" TO the_copy')
        finally:
            con.execute("DETACH the_copy")
    except duckdb.IOException as error:
        part.unlink(missing_ok=True)
        raise InvalidInput(f"{target} cannot be written: {error}") from error
    part.rename(target)


def copy_name(path: Path, version: int) -> Path:
    """Where the copy of a file with this schema version goes before it is migrated: a name that is free."""
    name, number = path.with_name(f"{path.name}.v{version}"), 1
    while name.exists():
        number += 1
        name = path.with_name(f"{path.name}.v{version}.{number}")
    return name


def why_closed(path: Path, error: duckdb.Error) -> Conflict | InvalidInput:
    """Why a file could not be opened, in words that help."""
    if "lock" in str(error):
        return Conflict(f"{path} is open in another program: {error}")
    if "replaying WAL" in str(error):
        return InvalidInput(
            f"{path}.wal has changes of another file than {path}: "
            "where a copy was put in its place, remove what is named .wal and start again"
        )
    return InvalidInput(f"{path} cannot be opened as a store: {error}")


def must_exist(path: Path) -> None:
    """For those who look after a file and make none.

    Raises:
        NotFound: there is no such file.
    """
    if not path.is_file():
        raise NotFound(f"there is no file {path}: `trimtab db upgrade` or `trimtab up` makes it")


def version_of(path: Path) -> int:
    """The schema version of a file that nobody has open; it is only read.

    Raises:
        NotFound: there is no such file. Conflict: somebody has it open. InvalidInput: it is no store.
    """
    must_exist(path)
    try:
        con = duckdb.connect(str(path), read_only=True)
    except duckdb.Error as error:
        raise why_closed(path, error) from error
    try:
        row = con.execute("SELECT max(version) FROM schema_version").fetchone()
    except duckdb.CatalogException as error:
        raise InvalidInput(f"{path} is a DuckDB file of something else") from error
    finally:
        con.close()
    return int(row[0]) if row and row[0] is not None else 0
