"""`trimtab db` and `trimtab sync`: what watcher-db-manage and watcher-sync did, for the file where records are kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from trimtab.platform.errors import Conflict
from trimtab.platform.settings import Settings
from trimtab.serve import daemon
from trimtab.serve.config_command import ConfigFile, settings_or_exit

if TYPE_CHECKING:
    from trimtab.platform.store.purging import Purged

db = typer.Typer(help="Look after the file where records are kept.", no_args_is_help=True)
console = Console()

DataDir = Annotated[Path | None, typer.Option(help="Trimtab's data folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of a table.")]
ORDER = ("goal", "strategy", "audit_template", "audit", "action_plan", "action", "whatif")


def file_of(settings: Settings) -> Path:
    """Where the records are."""
    return settings.data_dir / "trimtab.duckdb"


def only_when_stopped(settings: Settings, why: str) -> None:
    """Refuse what cannot be done while Trimtab runs.

    Raises:
        Conflict: it does.
    """
    if (pid := daemon.running(settings)) is not None:
        raise Conflict(f"Trimtab runs on {settings.data_dir} (pid {pid}): {why}")


def ask_store(settings: Settings, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of the store: through the Trimtab that runs on the data folder, else on the file itself."""
    if daemon.running(settings) is not None:
        return daemon.ask(settings, method, *args, **kwargs)
    from trimtab.platform.store.copies import must_exist
    from trimtab.platform.store.state import Store

    must_exist(file_of(settings))
    store = Store(file_of(settings))
    try:
        return getattr(store, method)(*args, **kwargs)
    finally:
        store.close()


@db.command()
def upgrade(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Carry the file forward to what this version of Trimtab needs; a copy of it is kept beside it first.

    `trimtab up` does the same when it starts. Where there is no file yet, an empty one is made.
    """
    from trimtab.platform.store.state import Store

    settings = settings_or_exit(config, data_dir=data_dir)
    only_when_stopped(settings, "it carried its file forward when it started; `trimtab down` stops it")
    file = file_of(settings)
    new = not file.exists()
    store = Store(file)
    store.close()
    if store.older is not None:
        console.print(f"{file}: from schema version {store.older.version} to {store.version()}", soft_wrap=True)
        console.print(f"as it was: {store.older.copy}", soft_wrap=True)
    else:
        done = "made with" if new else "nothing to do, it has"
        console.print(f"{file}: {done} schema version {store.version()}", soft_wrap=True)


@db.command()
def version(data_dir: DataDir = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Tell the schema version of the file, and the one this Trimtab needs."""
    from trimtab.platform.store.copies import version_of
    from trimtab.platform.store.schema import LATEST

    settings = settings_or_exit(config, data_dir=data_dir)
    runs = daemon.running(settings) is not None
    there = daemon.ask(settings, "version") if runs else version_of(file_of(settings))
    if as_json:
        typer.echo(json.dumps({"file": there, "program": LATEST}))
        return
    if there == LATEST:
        what = "which this Trimtab needs"
    elif there < LATEST:
        what = f"this Trimtab needs {LATEST}: `trimtab db upgrade` carries it forward"
    else:
        what = f"this Trimtab knows up to {LATEST}: use the newer one"
    console.print(f"{file_of(settings)}: schema version {there}, {what}", soft_wrap=True)


@db.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The copy; it must not be there yet.")],
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Copy all records into another file, also while Trimtab runs.

    To go back to it: `trimtab down`, put it in the place of trimtab.duckdb in the data folder and remove
    trimtab.duckdb.wal there, `trimtab up`.
    """
    settings = settings_or_exit(config, data_dir=data_dir)
    ask_store(settings, "backup", file.absolute())
    console.print(f"{file} has all records of {file_of(settings)}", soft_wrap=True)


@db.command()
def purge(
    age_in_days: Annotated[
        int | None, typer.Option("--age-in-days", "-d", min=0, help="Only what was deleted longer ago than this.")
    ] = None,
    max_number: Annotated[
        int | None, typer.Option("--max-number", "-n", min=0, help="At most so many rows, in whole groups.")
    ] = None,
    goal: Annotated[
        str | None, typer.Option("--goal", "-t", help="Only this deleted goal (uuid or name) and what hangs on it.")
    ] = None,
    exclude_orphans: Annotated[
        bool, typer.Option("--exclude-orphans", "-e", help="Keep live rows that hang on something that is gone.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Remove deleted rows for good, with all that hangs on them, and live rows that hang on something that is gone."""
    settings = settings_or_exit(config, data_dir=data_dir)
    what = {"age_days": age_in_days, "most": max_number, "goal": goal, "orphans": not exclude_orphans}
    weighed = ask_store(settings, "purge", **what, dry_run=True)
    found, going = sum(weighed.found.values()), sum(weighed.removed.values())
    if not found:
        console.print("nothing to remove")
        return
    console.print(_table(weighed, "would be removed"))
    if dry_run:
        return
    if not going:
        console.print(f"no whole group has at most {max_number} rows: give a larger --max-number")
        return
    question = f"Remove {going} rows for good?"
    if going < found:
        question = f"There are {found} rows, more than --max-number. Remove {going} of them for good?"
    if not yes and not typer.confirm(question):
        raise typer.Exit(1)
    done = ask_store(settings, "purge", **what, dry_run=False)
    console.print(_table(done, "removed"))


def _table(purged: Purged, what: str) -> Table:
    others = sorted((purged.found.keys() | purged.removed.keys()) - set(ORDER))
    table = Table("", "found", what)
    for kind in (*ORDER, *others):
        if purged.found[kind] or purged.removed[kind]:
            found = str(purged.found[kind]) if kind in ORDER else "–"
            table.add_row(kind.replace("_", " "), found, str(purged.removed[kind]))
    return table


def sync(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Make the stored goals, strategies, actions and scoring engines equal to the installed plug-ins.

    `trimtab up` does the same when it starts.
    """
    from trimtab.platform.store.state import Store
    from trimtab.serve.compose import sync_catalogue

    settings = settings_or_exit(config, data_dir=data_dir)
    only_when_stopped(
        settings, "it took in the installed plug-ins when it started; `trimtab down`, `trimtab up` takes in new ones"
    )
    store = Store(file_of(settings))
    try:
        done = sync_catalogue(store)
    finally:
        store.close()
    news = {"new": done.created, "reworded": done.reworded, "replaced": done.replaced, "removed": done.removed}
    if not any(news.values()):
        console.print("nothing to do: the catalogue has what is installed")
        return
    table = Table("", "", "")
    for what, texts in news.items():
        for kind, names in _by_kind(texts).items():
            table.add_row(what, kind, ", ".join(names))
    console.print(table)


def _by_kind(texts: Sequence[str]) -> dict[str, list[str]]:
    """Texts like "goal dummy", by kind."""
    found: dict[str, list[str]] = {}
    for text in texts:
        kind, _, name = text.rpartition(" ")
        found.setdefault(kind.replace("_", " "), []).append(name)
    return found
