"""How the command line shows candidates, actions and scores: tables and live progress."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from trimtab.serve.client import ENDED, Client

Body = Mapping[str, Any]

# field, heading, format, also in a narrow terminal
SCORE_COLUMNS = (
    ("hosts_in_use", "hosts\nin use", "{:.0f}", True),
    ("cpu_sd_pp", "CPU sd\npp", "{:.1f}", True),
    ("energy_kwh", "energy\nkWh", "{:.0f}", True),
    ("overload_min_after", "overload\nafter, min", "{:.0f}", False),
    ("overload_min_during", "overload\nduring, min", "{:.0f}", False),
    ("slatah", "SLATAH\n%", "{:.2f}", True),
    ("moves", "moves", "{:.0f}", True),
    ("moved_gib", "moved\nGiB", "{:.0f}", False),
    ("duration_s", "takes\nmin", "{:.1f}", True),
)
DIVISORS = {"duration_s": 60, "slatah": 0.01}


def score_cell(score: Body, field: str, pattern: str) -> str:
    """One figure of a score; durations in minutes, SLATAH in per cent."""
    return pattern.format(score[field] / DIVISORS.get(field, 1)) if field in score else "–"


def candidates_table(rows: Sequence[Body], width: int = 120) -> Table:
    """Candidates with their rehearsed scores, winner first; narrow terminals get fewer columns."""
    columns = [column for column in SCORE_COLUMNS if width >= 110 or column[3]]
    table = Table(title="Candidates, as rehearsed", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("rank", justify="right")
    table.add_column("candidate", overflow="fold", min_width=26)
    for _, heading, _, _ in columns:
        table.add_column(heading, justify="right")
    for row in rows:
        parameters = ", ".join(f"{name}={value}" for name, value in row["parameters"].items())
        label = f"{row['strategy_name']} [dim]#{row['number']}[/dim]" + (
            f"\n[dim]{parameters}[/dim]" if parameters else ""
        )
        if row["verdict"] in {"rejected", "failed"}:
            label += f"\n[red]{row['verdict']}: {str(row['reason'])[:120]}[/red]"
        rank = "★ 1" if row["verdict"] == "chosen" else str(row["rank"] or "–")
        style = "bold green" if row["verdict"] == "chosen" else None
        cells = [score_cell(row["score"], field, pattern) for field, _, pattern, _ in columns]
        table.add_row(rank, label, *cells, style=style)
    return table


def actions_table(actions: Sequence[Body], most: int = 20) -> Table:
    """The first actions of a plan."""
    table = Table("action", "state", "what", "message", title=f"{len(actions)} actions", title_justify="left")
    for action in actions[:most]:
        given = action["input_parameters"]
        what = given.get("resource_name") or given.get("message") or given.get("duration") or ""
        if action["action_type"] == "migrate":
            what = f"{what}: {given['source_node']} → {given.get('destination_node') or 'any'}"
        elif "state" in given:
            what = f"{what}: {given['state']}"
        table.add_row(action["action_type"], action["state"], str(what), action["status_message"] or "")
    if len(actions) > most:
        table.add_row("…", "", f"and {len(actions) - most} more", "")
    return table


def follow_plan(client: Client, uuid: str, console: Console, timeout_s: float = 3600.0) -> dict[str, Any]:
    """Show a plan's actions as they run, until it has ended."""
    total = sum(client.progress(uuid)["actions"].values())
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[states]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("applying", total=total, states="")
        deadline = time.monotonic() + timeout_s
        while True:
            plan = client.progress(uuid)
            states = plan["actions"]
            done = sum(count for state, count in states.items() if state not in {"PENDING", "ONGOING", "CANCELLING"})
            text = " ".join(f"{state.lower()} {count}" for state, count in sorted(states.items()))
            progress.update(task, completed=done, states=text)
            if plan["state"] in ENDED or time.monotonic() > deadline:
                return client.show("action_plans", uuid)
            time.sleep(0.3)
