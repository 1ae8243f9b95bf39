"""`trimtab config`: which options are in force and who set them, and everything that is wrong with them."""

from __future__ import annotations

import json
import os
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
    secrets_for_all,
    values_of,
)
from trimtab.serve.watcher_options import NOT_USED, NOT_USED_SECTIONS, names_at_watcher

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
        errors.print(f"[yellow]warning:[/yellow] {escape(hint)}", highlight=False, soft_wrap=True)
    return configuration.settings


def _tell(error: Misconfigured) -> None:
    for fault in error.faults:
        errors.print(f"[red]error:[/red] option {escape(fault.text)}", highlight=False, soft_wrap=True)


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
def check(
    file: Annotated[Path | None, typer.Argument(help="The file; else the one that would be read.")] = None,
    config: ConfigFile = None,
) -> None:
    """Tell everything that is wrong with the options, and with the files they name; exit code 1 when something is."""
    try:
        configuration = read(config=file or config)
    except Misconfigured as error:
        _tell(error)
        raise typer.Exit(1) from None
    faults = check_files(configuration.settings) + secrets_for_all(configuration)
    if faults:
        _tell(Misconfigured(faults))
    for hint in configuration.hints:
        errors.print(f"[red]error:[/red] {escape(hint)}", highlight=False, soft_wrap=True)
    _print_notes(configuration)
    if faults or configuration.hints:
        raise typer.Exit(1)
    where = f"{configuration.file}, " if configuration.file else ""
    console.print(f"{where}{len(configuration.origins)} options set, nothing wrong", highlight=False, soft_wrap=True)


@configs.command("from-watcher")
def from_watcher(
    file: Annotated[Path, typer.Argument(help="Watcher's watcher.conf.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write it there, with secrets, readable by you alone.")
    ] = None,
) -> None:
    """Write what Watcher's file says as a file of Trimtab's: what has no counterpart is told in comments."""
    try:
        configuration = read(config=file, environ={})
    except Misconfigured as error:
        _tell(error)
        raise typer.Exit(1) from None
    text = as_toml(configuration, secrets=out is not None)
    if out is None:
        typer.echo(text)
        return
    try:
        with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as sink:
            sink.write(text)
    except OSError as error:
        errors.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    console.print(f"{out}: {len(configuration.origins)} options", highlight=False, soft_wrap=True)


def as_toml(configuration: Configuration, *, secrets: bool) -> str:
    """What is set, as a file that says the same; without `secrets` their lines are comments."""
    known, shown = options(), values_of(configuration.settings, secrets=secrets)
    lines = [f"# From {configuration.file}."] + [f"# {note}" for note in configuration.notes]
    section = ""
    for path in sorted(configuration.origins, key=lambda one: ("." in one, list(known).index(one))):
        inside, _, name = path.rpartition(".")
        if inside != section:
            section = inside
            lines += ["", f"[{section}]"]
        hidden = "# " if known[path].is_secret and not secrets else ""
        lines.append(f"{hidden}{name} = {_toml(_shown(shown[path]))}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False) if value is not None else '""'


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
    known = options()
    lines = ["| Option | Default | What it is | Watcher's name |", "|---|---|---|---|"]
    for path, option in known.items():
        there = ", ".join(_watchers(name) for name in names_at_watcher(path))
        lines.append(f"| `{path}` | {_default(option)} | {_meaning(path, option)} | {there} |")
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
