"""The HTML report of one audit: self-contained, with plots as inline SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape

Body = Mapping[str, Any]
GREEN, GREY, ORANGE, BLUE = "#1a7f5a", "#9aa5b1", "#d9822b", "#2b6cb0"

# field, title, unit, divisor
FIGURES = (
    ("hosts_in_use", "Hosts in use", "", 1),
    ("cpu_sd_pp", "CPU standard deviation over hosts", "pp", 1),
    ("energy_kwh", "Energy over the horizon", "kWh", 1),
    ("overload_min_after", "Overload after the plan", "host-min", 1),
    ("overload_min_during", "Overload while it ran", "host-min", 1),
    ("slatah", "SLATAH, over all host time", "", 1),
    ("moves", "Migrations", "", 1),
    ("moved_gib", "Moved", "GiB", 1),
    ("duration_s", "Duration of the plan", "min", 60),
)


@dataclass(frozen=True, slots=True)
class Story:
    """Everything the report shows."""

    title: str
    audit: Body
    plan: Body | None
    candidates: Sequence[Body]
    before: Body
    after: Body
    nothing: Body  # score of doing nothing, rehearsed
    rehearsed: Body
    measured: Body
    timeline: Sequence[Body] = field(default_factory=tuple)
    facts: Mapping[str, str] = field(default_factory=dict)


def write_report(story: Story, path: Path) -> None:
    """Render the story into one HTML file without any outside reference."""
    mpl.use("svg")
    environment = Environment(loader=PackageLoader("trimtab.serve", "templates"), autoescape=select_autoescape())
    html = environment.get_template("report.html").render(
        story=story,
        figures=figure_rows(story),
        hosts_plot=_hosts(story.before, story.after),
        candidates_plot=_candidates(story.candidates),
        timeline_plot=_timeline(story.timeline) if story.timeline else "",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def figure_rows(story: Story) -> list[tuple[str, str, str, str, str]]:
    """Rows (what, unit, doing nothing, plan rehearsed, plan measured)."""
    return [
        (
            title,
            unit,
            _cell(story.nothing, name, divisor),
            _cell(story.rehearsed, name, divisor),
            _cell(story.measured, name, divisor),
        )
        for name, title, unit, divisor in FIGURES
    ]


def _cell(score: Body, name: str, divisor: float) -> str:
    if name not in score:
        return "–"
    value = score[name] / divisor
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:.4g}"


def _svg(figure: Any) -> str:
    import matplotlib.pyplot as plt

    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight")
    plt.close(figure)
    return "<svg" + out.getvalue().partition("<svg")[2]


def _axes(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height))
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _hosts(before: Body, after: Body) -> str:
    """CPU of every host, sorted, before and after."""
    figure, axes = _axes(9, 3)
    for body, colour, label in ((before, GREY, "before"), (after, GREEN, "after")):
        values = np.sort(np.array(body["cpu_pct_by_host"], float))[::-1]
        axes.fill_between(np.arange(len(values)), values, step="mid", alpha=0.35, color=colour)
        axes.step(np.arange(len(values)), values, where="mid", color=colour, label=label)
    axes.set(xlabel="hosts, busiest first", ylabel="CPU demand, % of the host")
    axes.axhline(90, color=ORANGE, linewidth=0.8, linestyle="--")
    axes.legend(frameon=False)
    return _svg(figure)


def _candidates(rows: Sequence[Body]) -> str:
    """What each candidate costs and brings: moved memory against hosts in use, sized by duration."""
    scored = [row for row in rows if row["score"]]
    figure, axes = _axes(9, 3.4)
    for row in scored:
        score = row["score"]
        colour = GREEN if row["verdict"] == "chosen" else ORANGE if row["verdict"] == "rejected" else BLUE
        axes.scatter(
            score["moved_gib"], score["hosts_in_use"], s=40 + score["duration_s"] / 20, color=colour, alpha=0.7
        )
        axes.annotate(
            "do nothing" if row["strategy_name"] == "do_nothing" else f"#{row['number']}",
            (score["moved_gib"], score["hosts_in_use"]),
            textcoords="offset points",
            xytext=(6, 4),
            fontsize=7,
        )
    axes.set(xlabel="moved memory, GiB", ylabel="hosts in use at the end")
    return _svg(figure)


def _timeline(rows: Sequence[Body]) -> str:
    """When each action ran, in seconds of wall time since the first began."""
    ran = [row for row in rows if row["started_at"] and row["finished_at"]]
    figure, axes = _axes(9, 3.4)
    if ran:
        starts = [datetime.fromisoformat(row["started_at"]).timestamp() for row in ran]
        ends = [datetime.fromisoformat(row["finished_at"]).timestamp() for row in ran]
        origin = min(starts)
        order = np.argsort(starts)
        colours = [GREEN if ran[k]["state"] == "SUCCEEDED" else ORANGE for k in order]
        left = np.array(starts)[order] - origin
        axes.barh(
            np.arange(len(ran)), np.array(ends)[order] - np.array(starts)[order], left=left, color=colours, height=1.0
        )
    axes.set(xlabel="seconds of wall time since the plan began", ylabel="actions, in order of their start")
    return _svg(figure)
