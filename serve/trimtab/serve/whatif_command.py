"""`trimtab whatif`: checks a scenario, runs its cells here or on Ray, resumes, prints a summary, writes the report."""

from __future__ import annotations

import asyncio
import fcntl
import json
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table

from trimtab.platform.compute import in_batches, run_batch
from trimtab.platform.contracts import Ran
from trimtab.platform.errors import Conflict
from trimtab.platform.settings import Settings
from trimtab.platform.store.parts import Results
from trimtab.serve import daemon
from trimtab.simulator.whatif import engine
from trimtab.simulator.whatif.cell_run import Ground, run_cell
from trimtab.simulator.whatif.cells import Cell
from trimtab.simulator.whatif.reading import Sweep, read_sweep
from trimtab.simulator.whatif.summary import AXES, SHOWN, Point, check_column, in_order, points_of


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for; `workers` None takes all CPUs."""

    out: Path | None = None
    series: bool = False
    workers: int | None = None
    local: bool = False
    as_json: bool = False
    again: bool = False
    x: str = "energy_kwh"
    y: str = "overload_min"


class Folder:
    """Results in a folder of this process; `engine.Keeper`."""

    def __init__(self, results: Results, *, again: bool = False) -> None:
        self.results, self.again = results, again
        self.done = self.failed = 0

    async def begin(self, wanted: Collection[str]) -> set[str]:
        """See `Results.begin`."""
        there = self.results.begin(wanted, again=self.again)
        self.done, self.failed = self.results.counts()
        return there

    async def counts(self) -> tuple[int, int]:
        """As `begin` found them, and what was added since."""
        return self.done, self.failed

    async def add(self, rows: pa.Table, series: Mapping[str, pa.Table]) -> tuple[int, int]:
        """See `Results.add`."""
        self.results.add(rows, series)
        self.done += rows.num_rows
        self.failed += sum(bool(error) for error in rows["error"].to_pylist())
        return self.done, self.failed


async def here(ground: Ground, cells: Sequence[Cell]) -> AsyncGenerator[list[tuple[int, Ran]], None]:
    """Run cells in this process, one after the other."""

    async def batch(some: Sequence[Cell]) -> list[Ran]:
        return await asyncio.to_thread(run_batch, run_cell, ground, some, "here")

    async with aclosing(in_batches(batch, cells, lanes=1)) as batches:
        async for ended in batches:
            yield ended


def check(path: Path, settings: Settings, console: Console) -> None:
    """Say what a scenario asks for.

    Raises:
        InvalidScenario: every fault with its path.
    """
    sweep = read_sweep(path, most_cells=settings.whatif_most_cells)
    axes, model = sweep.scenario.axes, sweep.origin.model
    console.print(
        f"[bold]{sweep.scenario.name}[/bold]: {len(sweep.cells):,} cells = {len(axes.topology)} topologies x "
        f"{len(axes.load)} loads x {len(axes.policy)} policies x {len(axes.seeds)} seeds; "
        f"{model.hosts:,} hosts, {model.instances:,} instances, {sweep.scenario.horizon_h:g} h",
        highlight=False,
    )


def run(path: Path, options: Options, settings: Settings, console: Console, errors: Console) -> None:
    """Compute what is missing, print the summary, write the report.

    Raises:
        InvalidScenario: every fault with its path. Conflict: the folder is in use.
    """
    from trimtab.serve.whatif_report import sheet_of, write_report

    check_column(options.x)
    check_column(options.y)
    changes = {"series": True} if options.series else {}
    sweep = read_sweep(path, most_cells=settings.whatif_most_cells, changes=changes)
    out = options.out or _own_folder(Path("out/whatif") / slug(sweep.scenario.name), sweep.scenario.name)
    out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    with alone(out):
        results = Results(out)
        (out / "scenario.json").write_text(json.dumps(sweep.scenario.to_json(), indent=2) + "\n", encoding="utf-8")
        with runner_of(options, settings) as runner:
            resumed = asyncio.run(_follow(sweep, Folder(results, again=options.again), runner, errors))
        seconds = time.perf_counter() - begin
        rows = results.table()
        if rows is None:  # every scenario has cells, and every cell ends as a row
            raise Conflict(f"{out} was emptied by somebody else: run again")
        labels = [(cell.topology.name, cell.load.name, cell.policy.name) for cell in sweep.cells]
        points = in_order(points_of(rows), labels)
        series = _series(results, sweep) if sweep.scenario.series else {}
        write_report(
            sheet_of(sweep.scenario.to_json(), rows, x=options.x, y=options.y, series=series),
            out / "report.html",
        )
    computed = len(sweep.cells) - resumed
    if options.as_json:
        console.print_json(json.dumps(_summary(sweep, points, out, computed, resumed, seconds)))
        return
    console.print(summary_table(points, console.width))
    failed = sum(point.failed for point in points)
    for error, count in Counter(text for text in rows["error"].to_pylist() if text).most_common(3):
        console.print(f"[red]{count:,} x[/red] {escape(error)}", highlight=False)
    console.print(
        f"{computed:,} cells computed in {seconds:.1f} s"
        + (f", {resumed:,} were there" if resumed else "")
        + (f", [red]{failed:,} failed[/red]" if failed else "")
        + f"\nresults {out / 'cells'}  report {out / 'report.html'}",
        highlight=False,
        soft_wrap=True,
    )


def slug(name: str) -> str:
    """A name as a folder's name."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "what-if"


def _own_folder(out: Path, name: str) -> Path:
    """A folder that was chosen by the scenario's name, unless it is that of another one with a name much like it.

    Raises:
        Conflict: it is another's.
    """
    try:
        other = json.loads((out / "scenario.json").read_text(encoding="utf-8"))["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return out  # none there, or one that a crash tore
    if other != name:
        raise Conflict(f"{out} holds the results of {other!r}, not of {name!r}: give --out, or rename the scenario")
    return out


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Keep a second run away from the same folder.

    Raises:
        Conflict: one is at work there.
    """
    with (out / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"{out} is in use by another `trimtab whatif`: wait for it or give another --out") from None
        yield


@contextmanager
def runner_of(options: Options, settings: Settings) -> Iterator[engine.Runner]:
    """Who runs the cells: this process, or a Ray that is started when there are cells and stopped afterwards."""
    if options.local:
        yield here
        return

    def cluster(ground: Ground, cells: Sequence[Cell]) -> AsyncGenerator[list[tuple[int, Ran]], None]:
        daemon.name_cluster(settings)
        from trimtab.serve import local_ray  # isort: skip (sets what Ray reads when it is imported)
        from trimtab.platform.runtime.cells import on_cluster

        changes: dict[str, Any] = {"dashboard": False}
        if options.workers is not None and settings.ray.address is None:
            changes["num_cpus"] = options.workers
        local_ray.start(settings.ray.model_copy(update=changes), "trimtab-whatif")
        return on_cluster(run_cell, ground, cells, lanes=options.workers, deadline_s=settings.whatif_deadline_s)

    try:
        yield cluster
    finally:
        if "ray" in sys.modules:
            import ray

            stop: Any = ray.shutdown  # untyped
            stop()


async def _follow(sweep: Sweep, keeper: Folder, runner: engine.Runner, errors: Console) -> int:
    """Run a sweep under a progress bar; how many cells were there before."""
    resumed = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task(sweep.scenario.name, total=len(sweep.cells), left="")
        async for progress in engine.run_sweep(sweep, keeper, runner, time.monotonic):
            resumed = progress.resumed
            left = "" if progress.seconds_left is None else f"about {duration(progress.seconds_left)} left"
            bad = f", {progress.failed} failed" if progress.failed else ""
            bar.update(task, completed=progress.done, left=left + bad)
    return resumed


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def summary_table(points: Sequence[Point], width: int = 120) -> Table:
    """One line a point: mean and range over seeds, as many figures as there is room for."""
    shown = [name for name in SHOWN if any(p.figures[name].high > 0 for p in points if name in p.figures)]
    table = Table(*(Column(axis, min_width=8) for axis in AXES))
    for name in shown[: max(2, (width - 45) // 13)]:
        table.add_column(name.replace("_", " "), justify="right", min_width=8)
    for point in points:
        cells = [_figure(point, name) for name in shown[: max(2, (width - 45) // 13)]]
        table.add_row(escape(point.topology), escape(point.load), escape(point.policy), *cells)
    return table


def _figure(point: Point, name: str) -> str:
    if name not in point.figures:
        return "failed" if point.failed else "–"
    mean, low, high = point.figures[name]
    return short(mean) if low == high else f"{short(mean)}\n[dim]{short(low)}–{short(high)}[/dim]"


def short(value: float) -> str:
    """A number in three or four figures."""
    if abs(value) >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _series(results: Results, sweep: Sweep) -> dict[str, pa.Table]:
    """The series of the first seed of every point, by the point's name."""
    found: dict[str, pa.Table] = {}
    for cell in sweep.cells:
        name = " · ".join((cell.topology.name, cell.load.name, cell.policy.name))
        if name not in found and (table := results.series(cell.key)) is not None:
            found[name] = table
    return found


def _summary(
    sweep: Sweep, points: Sequence[Point], out: Path, computed: int, resumed: int, seconds: float
) -> dict[str, Any]:
    return {
        "name": sweep.scenario.name,
        "out": str(out),
        "cells_total": len(sweep.cells),
        "cells_computed": computed,
        "cells_resumed": resumed,
        "cells_failed": sum(point.failed for point in points),
        "seconds": round(seconds, 3),
        "points": [point_json(point) for point in points],
    }


def point_json(point: Point) -> dict[str, Any]:
    """A point as JSON."""
    figures = {name: figure._asdict() for name, figure in point.figures.items()}
    labels = {"topology": point.topology, "load": point.load, "policy": point.policy}
    return {**labels, "seeds": point.seeds, "failed": point.failed, "figures": figures}
