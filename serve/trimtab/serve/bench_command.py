"""`trimtab bench`: benchmarks with published results; so far PlanetLab."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from trimtab.platform.errors import InvalidInput
from trimtab.simulator.planetlab.rules import MODES, Policy, every_policy
from trimtab.simulator.planetlab.table import Row

bench = typer.Typer(help="Run benchmarks that have published results.", no_args_is_help=True)


@bench.callback()
def benchmarks() -> None:
    """Run benchmarks that have published results."""


@bench.command()
def planetlab(
    day: Annotated[str, typer.Option(help="Day of the traces, as the file is called.")] = "20110303",
    data: Annotated[Path | None, typer.Option(help="Folder with one Parquet file a day.")] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="NPA, DVFS, or for example LR-MMT; give it again for more. All otherwise.")
    ] = None,
    mode: Annotated[str, typer.Option(help="reference, sound or both.")] = "both",
    order: Annotated[str, typer.Option(help="Order of the VMs: bytewise, upper-case or shuffled:SEED.")] = "bytewise",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each policy that selects at random.")] = 20,
    hosts: Annotated[int, typer.Option(min=1, help="Hosts; 800 in everything that was published.")] = 800,
    out: Annotated[Path | None, typer.Option(help="Write the rows to this Parquet file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of the table.")] = False,
) -> None:
    """Consolidate the VMs of a PlanetLab day with the known policies, and compare with the published figures."""
    from trimtab.simulator.planetlab.fleet import build_fleet, read_day
    from trimtab.simulator.planetlab.table import arrow, rows

    if mode not in {*MODES, "both"}:
        raise InvalidInput(f"there is no mode {mode!r}; give {', '.join(MODES)} or both")
    policies = [Policy.named(name) for name in policy] if policy else every_policy()
    fleet = build_fleet(read_day(_folder(data), day, order), hosts)
    modes = list(MODES) if mode == "both" else [mode]
    found: list[Row] = []
    waiting = Console(stderr=True)
    with waiting.status("running…") as status:
        for row in rows(fleet, day, order, policies, modes, seeds):
            found.append(row)
            status.update(f"{row.mode} {row.policy} done, {len(found)} of {len(modes) * len(policies)}")
    if out:
        import pyarrow.parquet as pq

        out.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(arrow(found), out)
    if as_json:
        typer.echo(json.dumps([row.record() for row in found], indent=2, ensure_ascii=False))
        return
    terminal = Console()
    if not terminal.is_terminal:
        terminal = Console(width=220)
    terminal.print(_table(found, f"PlanetLab {day}, {len(fleet.mips)} VMs on {hosts} hosts, order {order}"))


def _folder(data: Path | None) -> Path:
    """The folder given, or that of the environment."""
    if data is not None:
        return data
    if shared := os.environ.get("TRIMTAB_SHARED"):
        return Path(shared) / "data" / "planetlab"
    raise InvalidInput("where are the traces? Give --data FOLDER, or set TRIMTAB_SHARED to the folder above data/")


def _table(found: Iterable[Row], title: str) -> Table:
    table = Table("mode", "policy", title=title, title_justify="left")
    names = ["kWh", "migrations", "SLATAH %", "PDM %", "SLAV 1e-5", "ESV 1e-3", "overall %", "shutdowns", "mean up s"]
    for name in [*names, "CPU s"]:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("published: kWh, migrations, shutdowns", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    last = ""
    for row in found:
        if last and row.mode != last:
            table.add_section()
        label, last = ("" if row.mode == last else row.mode), row.mode
        known = row.known
        beside = f"{known.energy_kwh:.5f} {known.migrations:6d} {known.shutdowns:5d}" if known else ""
        mark = {"=": "[green]=[/green]", "≠": "[red]≠[/red]"}.get(row.verdict, row.verdict)
        table.add_row(label, row.policy, *_cells(row), f"{row.cpu_s:.2f}", beside, mark)
        if row.seeds > 1:
            low, high = row.low, row.high
            spread = [
                f"{low.energy_kwh:.2f}..{high.energy_kwh:.2f}",
                f"{low.migrations:.0f}..{high.migrations:.0f}",
                f"{100 * low.slatah:.3f}..{100 * high.slatah:.3f}",
                f"{100 * low.pdm:.4f}..{100 * high.pdm:.4f}",
            ]
            table.add_row("", f"  {row.seeds} seeds", *spread, style="dim")
    return table


def _cells(row: Row) -> list[str]:
    figures = row.figures
    return [
        f"{figures.energy_kwh:.5f}",
        f"{figures.migrations:.0f}",
        f"{100 * figures.slatah:.5f}",
        f"{100 * figures.pdm:.6f}",
        f"{1e5 * figures.slav:.5f}",
        f"{1e3 * figures.esv:.4f}",
        f"{100 * figures.overall:.6f}",
        f"{figures.shutdowns:.0f}",
        f"{figures.mean_up_s:.2f}",
    ]
