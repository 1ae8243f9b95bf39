"""The HTML report of a what-if sweep: trade-off front, spread over seeds, series; self-contained, inline SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
from jinja2 import Environment, PackageLoader, select_autoescape

from trimtab.simulator.whatif.summary import AXES, SHOWN, Point, best_of, front, in_order, points_of

COLOURS = ("#1a7f5a", "#2b6cb0", "#d9822b", "#8e44ad", "#c0392b", "#16808a", "#7f6b1a", "#b0457b", "#4a5568", "#6b8e23")
GREY = "#9aa5b1"
MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
TITLES = {
    "energy_kwh": "energy, kWh",
    "overload_min": "overload, host-minutes",
    "slav": "SLAV",
    "slatah": "SLATAH",
    "migrations": "migrations",
    "hosts_in_use": "hosts in use at the end",
    "hosts_in_use_mean": "hosts in use, mean",
    "cpu_sd_pp": "CPU standard deviation over hosts, pp",
    "down_min": "instances down, minutes",
    "carbon_kg": "carbon, kg",
    "moved_gib": "moved memory, GiB",
}
MOST_SERIES = 12
SERIES = (("power_w", "power, W"), ("overloaded_hosts", "overloaded hosts"), ("hosts_in_use", "hosts in use"))


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a report shows. `series` are the series of one cell each, by the label of its point."""

    name: str
    description: str
    facts: Mapping[str, str]
    points: Sequence[Point]
    rows: pa.Table
    x: str = "energy_kwh"
    y: str = "overload_min"
    series: Mapping[str, pa.Table] = field(default_factory=dict)


def sheet_of(
    scenario: Mapping[str, Any],
    rows: pa.Table,
    *,
    x: str = "energy_kwh",
    y: str = "overload_min",
    series: Mapping[str, pa.Table] | None = None,
) -> Sheet:
    """The report of a scenario (as JSON) with its rows."""
    axes = scenario["axes"]
    base = scenario["base"]
    kind = {"simulated": "{hosts} simulated hosts, {instances} instances", "snapshot": "snapshot {folder}"}.get(
        base["kind"], "the running cloud"
    )
    failed = sum(bool(error) for error in rows["error"].to_pylist())
    facts = {
        "base": kind.format(**base),
        "horizon": f"{scenario['horizon_h']:g} h",
        "cells": f"{rows.num_rows:,} ({len(axes['topology'])} topologies, {len(axes['load'])} loads, "
        f"{len(axes['policy'])} policies, {len(axes['seeds'])} seeds)",
        **({"failed": str(failed)} if failed else {}),
        "CPU time": f"{float(np.nansum(rows['cpu_s'].to_numpy())):,.1f} s",
    }
    names = [[point["name"] for point in axes[axis]] for axis in AXES]
    points = in_order(points_of(rows), list(product(*names)))
    return Sheet(scenario["name"], scenario["description"], facts, points, rows, x, y, series or {})


def write_report(sheet: Sheet, path: Path) -> None:
    """Render into one HTML file without any outside reference."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(sheet), encoding="utf-8")


def render(sheet: Sheet) -> str:
    """The report as text."""
    mpl.use("svg")
    shown = [name for name in SHOWN if _varies(sheet.points, name)]
    best = _fronts(sheet)
    environment = Environment(loader=PackageLoader("trimtab.serve", "templates"), autoescape=select_autoescape())
    environment.filters["figure"] = figure_text
    return environment.get_template("whatif.html").render(
        sheet=sheet,
        titles={name: title(name) for name in (*shown, sheet.x, sheet.y)},
        shown=shown,
        best={point.name for line in best for point in line},
        front_plot=_front(sheet, best),
        spread_plots=[_spread(sheet, name) for name in dict.fromkeys((sheet.x, sheet.y, *shown[:3]))],
        series_plots=[_series(sheet, *one) for one in SERIES] if sheet.series else [],
        winners=best_of(sheet.points, shown),
        errors=_errors(sheet.rows),
    )


def _fronts(sheet: Sheet) -> list[list[Point]]:
    """For every load the points that no other beats: policy and topology are a choice, the load is not."""
    lines = []
    for load in dict.fromkeys(point.load for point in sheet.points):
        mine = [point for point in sheet.points if point.load == load]
        rows = front([point.mean(sheet.x) for point in mine], [point.mean(sheet.y) for point in mine])
        lines.append([mine[n] for n in rows])
    return lines


def title(column: str) -> str:
    """A column in words."""
    return TITLES.get(column, column.replace("_", " "))


def figure_text(value: float) -> str:
    """A number as people read it."""
    if not np.isfinite(value):
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:.3g}"


def _varies(points: Sequence[Point], column: str) -> bool:
    found = [p.figures[column] for p in points if column in p.figures]
    return bool(found) and max(f.high for f in found) > 0


def _errors(rows: pa.Table) -> list[dict[str, Any]]:
    bad = [row for row in rows.to_pylist() if row["error"]]
    return [{name: row[name] for name in ("topology", "load", "policy", "seed", "error")} for row in bad[:20]]


def _axes(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#e4e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any) -> str:
    import matplotlib.pyplot as plt

    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight")
    plt.close(figure)
    return "<svg" + out.getvalue().partition("<svg")[2]


def _looks(points: Sequence[Point]) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """Colour of every policy, mark of every (topology, load)."""
    policies = list(dict.fromkeys(p.policy for p in points))
    others = list(dict.fromkeys((p.topology, p.load) for p in points))
    return (
        {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(policies)},
        {pair: MARKS[n % len(MARKS)] for n, pair in enumerate(others)},
    )


def _front(sheet: Sheet, best: Sequence[Sequence[Point]]) -> str:
    """Every point with its range over seeds; those that nothing beats in both are ringed and joined."""
    figure, axes = _axes(9, 5)
    colours, marks = _looks(sheet.points)
    for point in sheet.points:
        if sheet.x not in point.figures or sheet.y not in point.figures:
            continue
        x, y = point.figures[sheet.x], point.figures[sheet.y]
        colour = colours[point.policy]
        axes.errorbar(
            x.mean,
            y.mean,
            xerr=[[x.mean - x.low], [x.high - x.mean]],
            yerr=[[y.mean - y.low], [y.high - y.mean]],
            fmt="none",
            ecolor=colour,
            alpha=0.3,
            linewidth=1,
        )
        axes.scatter(x.mean, y.mean, color=colour, marker=marks[point.topology, point.load], s=48, zorder=3)
    for line in best:
        xs, ys = [point.mean(sheet.x) for point in line], [point.mean(sheet.y) for point in line]
        axes.plot(xs, ys, color="#1f2933", linewidth=1.2, zorder=2)
        axes.scatter(xs, ys, s=170, facecolors="none", edgecolors="#1f2933", linewidth=1.2, zorder=4)
    for name, colour in colours.items():
        axes.scatter([], [], color=colour, label=_plain(name))
    if len(marks) > 1:
        for (topology, load), mark in marks.items():
            axes.scatter([], [], color=GREY, marker=mark, label=_plain(f"{topology} · {load}"))
    axes.scatter([], [], s=170, facecolors="none", edgecolors="#1f2933", label="best of its load")
    axes.set(xlabel=title(sheet.x), ylabel=title(sheet.y))
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return _svg(figure)


def _spread(sheet: Sheet, column: str) -> str:
    """One column over the seeds of every point: each cell a dot, quartiles as a box."""
    points = [p for p in sheet.points if column in p.figures]
    rows = [row for row in sheet.rows.to_pylist() if not row["error"] and row[column] is not None]
    colours, _ = _looks(sheet.points)
    figure, axes = _axes(9, 0.7 + 0.3 * len(points))
    for place, point in enumerate(reversed(points)):
        values = np.array(
            [
                row[column]
                for row in rows
                if (row["topology"], row["load"], row["policy"]) == (point.topology, point.load, point.policy)
            ],
            float,
        )
        colour = colours[point.policy]
        low, middle, high = np.percentile(values, [25, 50, 75])
        axes.barh(place, high - low, left=low, height=0.55, color=colour, alpha=0.22)
        axes.plot([middle, middle], [place - 0.28, place + 0.28], color=colour, linewidth=2)
        shaken = place + 0.18 * np.sin(np.arange(len(values)) * 2.4)  # so that equal values stay visible
        axes.scatter(values, shaken, color=colour, s=12, alpha=0.8, linewidth=0)
    names = [_plain(point.name) for point in reversed(points)]
    axes.set_yticks(range(len(points)), names, fontsize=8)
    axes.set(xlabel=title(column))
    return _svg(figure)


def _series(sheet: Sheet, column: str, label: str) -> str:
    figure, axes = _axes(9, 2.8)
    for number, (name, table) in enumerate(list(sheet.series.items())[:MOST_SERIES]):
        at = table["at_s"].to_numpy()
        axes.plot(
            (at - at[0]) / 3600,
            table[column].to_numpy(),
            linewidth=1,
            color=COLOURS[number % len(COLOURS)],
            label=_plain(name),
        )
    axes.set(xlabel="hours since the start", ylabel=label)
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return _svg(figure)


def _plain(text: str) -> str:
    """Text without matplotlib's formulas; a leading underscore would hide a legend."""
    return text.replace("$", r"\$").lstrip("_")
