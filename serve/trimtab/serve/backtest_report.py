"""The HTML report of a backtest: figures side by side, series of all policies on one time axis; self-contained."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape

from trimtab.simulator.backtest import Backtest, when

COLOURS = ("#9aa5b1", "#1a7f5a", "#2b6cb0", "#d9822b", "#8e44ad", "#c0392b", "#16808a", "#7f6b1a", "#b0457b")
MOST_MOVES = 200  # in the list of a policy's migrations
PANELS = (
    ("power_w", "power, kW", 1000),
    ("hosts_in_use", "hosts in use", 1),
    ("overloaded_hosts", "hosts over 90 %", 1),
    ("cpu_sd_pp", "CPU sd over hosts, pp", 1),
)


def write_report(done: Backtest, path: Path, figures: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Render a backtest into one HTML file without any outside reference.

    Args:
        done: the backtest.
        path: where to; its folder is made.
        figures: rows of the table: title, then a cell for each policy.
    """
    mpl.use("svg")
    environment = Environment(loader=PackageLoader("trimtab.serve", "templates"), autoescape=select_autoescape())
    policies = [
        {
            "name": tried.policy.name,
            "colour": COLOURS[number % len(COLOURS)],
            "failures": tried.outcome.failures,
            "moves": [
                {**row, "at": when(row["started_s"])} for row in done.moves(tried).slice(0, MOST_MOVES).to_pylist()
            ],
            "count": len(tried.outcome.moves),
        }
        for number, tried in enumerate(done.tried)
    ]
    html = environment.get_template("backtest.html").render(
        title="What these policies would have done",
        start=when(done.start_s),
        end=when(done.end_s),
        model=done.model,
        notes=done.notes,
        figures=figures,
        policies=policies,
        plot=_plot(done),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def _plot(done: Backtest) -> str:
    """All series on one time axis, migrations below."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(PANELS) + 1, 1, figsize=(10, 11), sharex=True)
    hours = np.arange(done.start_s, done.end_s, 3600.0)
    acting = max(len(done.tried) - 1, 1)
    for number, tried in enumerate(done.tried):
        series, colour = tried.outcome.series, COLOURS[number % len(COLOURS)]
        if series is None:
            continue
        at = _dates(series["at_s"].to_numpy())
        label = " " + tried.policy.name.replace("$", r"\$")  # no formula; what begins with _ would not be shown
        for panel, (name, _, divisor) in zip(axes, PANELS, strict=False):
            values = series[name].to_numpy() / divisor
            panel.step(at, values, where="post", color=colour, linewidth=1.0, label=label)
        if number:
            starts = np.array([move.start for move in tried.outcome.moves])
            count = np.histogram(starts, np.append(hours, hours[-1] + 3600.0))[0]
            width = 3600.0 / acting
            axes[-1].bar(_dates(hours + (number - 0.5) * width), count, width=width / 86_400, color=colour)
    for panel, (_, label, _) in zip(axes, PANELS, strict=False):
        panel.set_ylabel(label)
    axes[0].legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    axes[-1].set_ylabel("migrations an hour")
    axes[-1].set_xlabel("UTC")
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_ylim(bottom=0)
    figure.align_ylabels()
    figure.autofmt_xdate(rotation=0, ha="center")
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight")
    plt.close(figure)
    return "<svg" + out.getvalue().partition("<svg")[2]


def _dates(at_s: Any) -> Any:
    return np.round(np.asarray(at_s)).astype("datetime64[s]")
