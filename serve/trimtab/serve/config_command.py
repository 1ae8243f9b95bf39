"""`trimtab config`: which options are in force and who set them, and everything that is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic_core import PydanticUndefined
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trimtab.platform.settings import Settings
from trimtab.serve.configuration import (
    FLAGS,
    Configuration,
    Misconfigured,
    Option,
    check_files,
    options,
    read,
    values_of,
)
from trimtab.serve.watcher_options import COUNTERPARTS, NOT_USED, NOT_USED_SECTIONS

configs = typer.Typer(help="See where options come from, and check them.", no_args_is_help=True)
console = Console()
errors = Console(stderr=True)

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Options: a TOML file, or Watcher's watcher.conf; else TRIMTAB_CONFIG, ./trimtab.toml or "
        "/etc/trimtab/trimtab.toml.",
    ),
]


def settings_or_exit(config: Path | None = None, **overrides: Any) -> Settings:
    """The settings, with those of the command line that were given; tells everything that is wrong and exits with 2."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        configuration = read(given, config=config)
    except Misconfigured as error:
        _tell(error)
        raise typer.Exit(2) from None
    for hint in configuration.hints:
        errors.print(f"[yellow]warning:[/yellow] {escape(hint)}", highlight=False)
    return configuration.settings


def _tell(error: Misconfigured) -> None:
    for fault in error.faults:
        errors.print(f"[red]error:[/red] option {escape(fault.text)}", highlight=False)


@configs.command()
def show(
    config: ConfigFile = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not the default.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of a table.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables of docs/configuration.md.")] = False,
) -> None:
    """All options, their values, and where each value comes from; secrets are masked."""
    if markdown:
        typer.echo(tables())
        return
    try:
        configuration = read(config=config)
    except Misconfigured as error:
        _tell(error)
        raise typer.Exit(2) from None
    rows = {
        path: {"value": _shown(value), "origin": configuration.origins.get(path, "default")}
        for path, value in values_of(configuration.settings).items()
        if not changed or path in configuration.origins
    }
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("option", "value", "from")
    for path, row in rows.items():
        table.add_row(path, escape(_text(row["value"])), escape(str(row["origin"])))
    console.print(table)
    _print_notes(configuration)


@configs.command()
def check(config: ConfigFile = None) -> None:
    """Tell everything that is wrong with the options, and with the files they name; exit code 1 when something is."""
    try:
        configuration = read(config=config)
    except Misconfigured as error:
        _tell(error)
        raise typer.Exit(1) from None
    faults = check_files(configuration.settings)
    if faults:
        _tell(Misconfigured(faults))
    for hint in configuration.hints:
        errors.print(f"[red]error:[/red] {escape(hint)}", highlight=False)
    _print_notes(configuration)
    if faults or configuration.hints:
        raise typer.Exit(1)
    where = f"{configuration.file}, " if configuration.file else ""
    console.print(f"{where}{len(configuration.origins)} options set, nothing wrong", highlight=False, soft_wrap=True)


def _print_notes(configuration: Configuration) -> None:
    for note in configuration.notes:
        console.print(f"[dim]note: {escape(note)}[/dim]", highlight=False, soft_wrap=True)


def _shown(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


# -- the tables of docs/configuration.md -----------------------------------------------------------


def tables() -> str:
    """All options and Watcher's counterparts, as Markdown."""
    counterparts: dict[str, list[str]] = {}
    for name, one in COUNTERPARTS.items():
        counterparts.setdefault(one.path, []).append(_watchers(name))
    known = options()
    for path in known:
        if path.startswith(("keystone_authtoken.", "cors.", "ssl.")):
            counterparts.setdefault(path, []).insert(0, _watchers(path))
    lines = ["| Option | Default | What it is | Watcher's name |", "|---|---|---|---|"]
    lines += [
        f"| `{path}` | {_default(option)} | {_meaning(path, option)} | {', '.join(counterparts.get(path, ()))} |"
        for path, option in known.items()
    ]
    lines += ["", "| Watcher's option | Not used, because |", "|---|---|"]
    lines += [f"| {names} | {why} |" for names, why in _unused()]
    return "\n".join(lines)


def _watchers(name: str) -> str:
    section, _, option = name.rpartition(".")
    return f"`[{section}] {option}`"


def _default(option: Option) -> str:
    value = option.field.default
    if value is None or value is PydanticUndefined or value == "":
        return ""
    return f"`{_text(_shown(value))}`"


def _meaning(path: str, option: Option) -> str:
    words = (option.field.description or "").replace("|", "\\|")
    return f"{words} (only as `{FLAGS[path]}`)" if path in FLAGS else words


def _unused() -> Iterator[tuple[str, str]]:
    by_reason: dict[str, list[str]] = {}
    for name, why in NOT_USED.items():
        by_reason.setdefault(why, []).append(_watchers(name))
    for section, why in NOT_USED_SECTIONS.items():
        by_reason.setdefault(why, []).append(f"`[{section}]`")
    for why, names in by_reason.items():
        yield ", ".join(names), why
