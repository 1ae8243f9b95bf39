"""`trimtab import watcher`: what a Watcher has collected comes over into Trimtab's store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from trimtab.platform.errors import InvalidInput
from trimtab.serve import watcher_database
from trimtab.serve.config_command import ConfigFile, settings_or_exit
from trimtab.serve.db_command import file_of, only_when_stopped

imports = typer.Typer(help="Bring over what another optimiser has collected.", no_args_is_help=True)
console = Console()


@imports.callback()
def _group() -> None:
    """Keep `watcher` a sub-command though it is the only one."""


@imports.command("watcher")
def import_watcher(
    db: Annotated[
        str | None,
        typer.Option(envvar="TRIMTAB_WATCHER_DB", help="Watcher's database: mysql://user:password@host/watcher."),
    ] = None,
    watchers: Annotated[
        Path | None, typer.Option("--from", help="Watcher's watcher.conf, whose [database]connection is taken.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Trimtab's data folder.")] = None,
    config: ConfigFile = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Let CONTINUOUS audits go on; otherwise they come over SUSPENDED.")
    ] = False,
    deleted: Annotated[bool, typer.Option("--deleted", help="Bring soft-deleted rows too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would come over.")] = False,
) -> None:
    """Read a Watcher database and bring templates, audits, plans, actions and indicators over.

    Trimtab must not run on the data folder meanwhile. Asked again, it brings only what is new. The Watcher database is
    only read.
    """
    settings = settings_or_exit(config, data_dir=data_dir)
    if not dry_run:
        only_when_stopped(settings, "stop it with `trimtab down` for as long as the import takes")
    if db is None:
        if watchers is None and config is not None and config.suffix == ".conf":
            watchers = config
        if watchers is None:
            raise InvalidInput("where is Watcher's database? Say --db URL, or --from /etc/watcher/watcher.conf")
        db = watcher_database.connection_in(watchers)
    found = watcher_database.translate(watcher_database.read(db), resume=resume, deleted=deleted)
    table = Table("", "in Watcher", "left out: deleted", *([] if dry_run else ["brought", "here already"]))
    notes = list(found.notes)
    if dry_run:
        for name, rows in found.heritage._asdict().items():
            table.add_row(name.replace("_", " "), str(len(rows)), str(found.left_out[name]))
    else:
        from trimtab.platform.store.state import Store
        from trimtab.serve.compose import sync_catalogue

        store = Store(file_of(settings))
        try:
            sync_catalogue(store)
            done = store.restore(found.heritage)
        finally:
            store.close()
        for name, rows in found.heritage._asdict().items():
            kind = watcher_database.KINDS[name]
            counts = (len(rows), found.left_out[name], done.brought[kind], done.here_already[kind])
            table.add_row(name.replace("_", " "), *map(str, counts))
        notes += done.notes
    console.print(table)
    for note in notes:
        console.print(f"- {note}", highlight=False, soft_wrap=True)
