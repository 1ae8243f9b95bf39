"""`trimtab backtest`: what would these policies have done with the load of last week?"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trimtab.platform.errors import Conflict, InvalidInput

if TYPE_CHECKING:
    from trimtab.platform.model import ClusterModel
    from trimtab.serve.backtest_load import Recorded
    from trimtab.simulator.backtest import Backtest
    from trimtab.simulator.closed_loop import Case

# figure, title, unit, factor, decimals (None: four digits); figures that nobody has are not shown
FIGURES: tuple[tuple[str, str, str, float, int | None], ...] = (
    ("energy_kwh", "energy", "kWh", 1, 1),
    ("carbon_kg", "carbon", "kg CO2e", 1, 1),
    ("hosts_in_use_mean", "hosts in use, mean", "", 1, 1),
    ("overload_min", "overload", "host-min", 1, 0),
    ("otf", "OTF, mean of hosts", "%", 100, 3),
    ("pdm_mean", "PDM, mean of instances", "%", 100, 4),
    ("slav", "SLAV", "10^-6", 1e6, None),
    ("cpu_sd_mean_pp", "CPU sd over hosts, mean", "pp", 1, 2),
    ("memory_pressure_min", "memory pressure", "host-min", 1, 0),
    ("down_min", "instances down", "min", 1, 0),
    ("migrations", "migrations", "", 1, 0),
    ("failed_migrations", "failed migrations", "", 1, 0),
    ("moved_gib", "moved", "GiB", 1, 0),
    ("migrating_min", "time migrating", "min", 1, 1),
    ("audits", "audits", "", 1, 0),
    ("skipped_audits", "skipped audits", "", 1, 0),
    ("failed_audits", "failed audits", "", 1, 0),
)
ALWAYS = frozenset({"energy_kwh", "hosts_in_use_mean", "overload_min", "otf", "pdm_mean", "slav", "cpu_sd_mean_pp"}) | {
    "migrations",
    "moved_gib",
    "migrating_min",
}

console = Console()
errors = Console(stderr=True)


def backtest(
    snapshot: Annotated[
        Path | None, typer.Option(help="Folder with the model, as `trimtab snapshot export` writes it.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Take the model of the Trimtab that runs at this address instead.")
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="Folder with the load Trimtab recorded: `metrics` in its data folder.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="File or folder with the load instead: any trace format that Trimtab reads.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Begin, such as 2026-11-15 or 2026-11-15T06:00 (UTC).")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="End. Default: the end of the record.")] = None,
    days: Annotated[float | None, typer.Option(min=0.01, help="How many days. Default: 7, or all there are.")] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            "-p",
            help='A policy, repeatable: "STRATEGY name=eager interval=30min first=5min PARAMETER=VALUE", all but the '
            "strategy as you like. Default: workload_stabilization and vm_workload_consolidation, every hour.",
        ),
    ] = None,
    policies: Annotated[Path | None, typer.Option(help="YAML file with policies.")] = None,
    power: Annotated[
        str, typer.Option(help="Power of the hosts: linear, constant, square, cubic, spec-ml110-g4, spec-ml110-g5.")
    ] = "linear",
    carbon: Annotated[
        str | None, typer.Option(help="Carbon intensity, g/kWh: one number, or one for each hour from midnight UTC.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="New folder for Parquet files (policies, series, migrations) and the report.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Where to write the HTML report.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of a table.")] = False,
) -> None:
    """What would these policies have done? Runs them over recorded load, side by side, migrations included.

    Every policy begins with the model's placement and acts on its own: audits, plans, migrations, on the load that was
    recorded. "nobody" is always among them.
    """
    from trimtab.serve import backtest_load as loads
    from trimtab.serve.backtest_policies import policies_of
    from trimtab.simulator.backtest import backtest as run

    if out is not None and out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise Conflict(f"{out} exists already: choose another folder or remove it")
    wanted = policies_of(policy or (), policies)
    times = [loads.time_of(text, what) if text else None for text, what in ((start, "--from"), (end, "--to"))]
    loads.check_span(times[0], times[1], days)
    _one_of(snapshot, url, "give --snapshot (a folder) or --url (a running Trimtab), one of them")
    _one_of(metrics, trace, "give --metrics (a folder) or --trace (a file), one of them")
    settings = _settings(power, carbon, seed)
    model = _model(snapshot, url)
    recorded = _recorded(model, metrics, trace, (times[0], times[1], days), seed)
    with errors.status("reading…") as status:
        done = run(
            model,
            recorded.record,
            wanted,
            recorded.start_s,
            recorded.end_s,
            settings=lambda case: settings(case, recorded),
            notes=recorded.notes,
            progress=lambda name: status.update(f"running {name}…"),
        )
    if out is not None:
        write(done, out)
    if out is not None or report is not None:
        from trimtab.serve.backtest_report import write_report

        for path in filter(None, (out / "report.html" if out is not None else None, report)):
            write_report(done, path, shown(done.rows()))
    if as_json:
        typer.echo(json.dumps(as_body(done), indent=2))
    else:
        show(done, console)
        for place in filter(None, (out, report)):
            console.print(f"written: {place}", highlight=False)


def _one_of(one: object, other: object, otherwise: str) -> None:
    if (one is None) == (other is None):
        raise InvalidInput(otherwise)


def _model(snapshot: Path | None, url: str | None) -> ClusterModel:
    from trimtab.platform.model import read_model

    if snapshot is not None:
        return read_model(snapshot)
    from trimtab.serve.client import Client

    with Client(str(url)) as client, tempfile.TemporaryDirectory() as folder:
        for name in ("nodes", "instances", "server_groups"):
            (Path(folder) / f"{name}.parquet").write_bytes(client.model_table(name))
        return read_model(Path(folder))


def _recorded(
    model: ClusterModel,
    metrics: Path | None,
    trace: Path | None,
    span: tuple[float | None, float | None, float | None],
    seed: int,
) -> Recorded:
    from trimtab.serve import backtest_load as loads

    if metrics is not None:
        return loads.from_metrics(model, metrics, *span)
    assert trace is not None  # noqa: S101 (one of the two is given)
    return loads.from_trace(model, trace, *span, seed=seed)


def _settings(power: str, carbon: str | None, seed: int) -> Callable[[Case, Recorded], Case]:
    """What all runs share beside model and load; wrong options are refused before anything is read."""
    from dataclasses import replace

    import numpy as np

    from trimtab.platform.model import VCPU
    from trimtab.simulator.carbon import Intensity
    from trimtab.simulator.power import Power

    Power.named(power, np.ones(1))  # refuses a curve that is not there
    intensity = None
    if carbon is not None:
        try:
            hourly = [float(number) for number in carbon.split(",")]
        except ValueError:
            raise InvalidInput(f"--carbon {carbon!r}: write one number, or numbers with commas between them") from None
        intensity = Intensity(0.0, 3600.0, np.array(hourly))

    def settings(case: Case, recorded: Recorded) -> Case:
        vcpus = case.model.total[:, VCPU]
        curve = Power.of(vcpus) if power == "linear" else Power.named(power, vcpus)
        return replace(case, power=curve, intensity=intensity, seed=seed, used_memory_mb=recorded.used_memory_mb)

    return settings


# -- what comes out ------------------------------------------------------------------------------


def shown(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """The table of figures: title with unit, then a cell for each policy, with the difference to nobody in per cent."""
    lines = []
    for name, title, unit, factor, decimals in FIGURES:
        values = [row.get(name) for row in rows]
        if name not in ALWAYS and not any(values):
            continue
        cells = []
        for value in values:
            if value is None:
                cells.append("–")
                continue
            text = f"{value * factor:,.{decimals}f}" if decimals is not None else f"{value * factor:.4g}"
            nobody = values[0]
            if nobody and value is not nobody:
                text += f"  {100 * (value - nobody) / nobody:+.1f} %"
            cells.append(text)
        lines.append((f"{title}, {unit}" if unit else title, cells))
    return lines


def show(done: Backtest, to: Console) -> None:
    """Print the table and the notes."""
    from trimtab.simulator.backtest import when

    rows = done.rows()
    size = f"{done.model.hosts} hosts, {done.model.instances} instances"
    to.print(f"{when(done.start_s)} to {when(done.end_s)} (UTC): {size}; differences are to nobody", highlight=False)
    table = Table(box=SIMPLE_HEAD)
    table.add_column("")
    for row in rows:
        every = f"every {row['interval_min']:g} min" if row["interval_min"] else ""
        table.add_column(f"{escape(row['policy'])}\n[dim]{every}[/dim]", justify="right")
    for title, cells in shown(rows):
        table.add_row(title, *cells)
    to.print(table)
    for note in done.notes:
        to.print(f"note: {note}", highlight=False, markup=False)
    for tried in done.tried:
        for reason in tried.outcome.failures[:3]:
            to.print(f"{tried.policy.name}: {reason}", highlight=False, markup=False)


def as_body(done: Backtest) -> dict[str, Any]:
    """Everything but the series, for scripts."""
    return {
        "start_s": done.start_s,
        "end_s": done.end_s,
        "hosts": done.model.hosts,
        "instances": done.model.instances,
        "notes": list(done.notes),
        "policies": done.rows(),
    }


def write(done: Backtest, folder: Path) -> None:
    """`policies.parquet` (one row a policy), `series.parquet` and `migrations/NN-policy.parquet`."""
    import pyarrow.parquet as pq

    (folder / "migrations").mkdir(parents=True)
    pq.write_table(done.table(), folder / "policies.parquet", compression="zstd")
    pq.write_table(done.series(), folder / "series.parquet", compression="zstd")
    for number, tried in enumerate(done.tried):
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", tried.policy.name)
        pq.write_table(done.moves(tried), folder / "migrations" / f"{number:02d}-{name}.parquet", compression="zstd")
