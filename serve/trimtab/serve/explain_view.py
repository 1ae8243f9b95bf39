"""An explanation on the terminal: one panel an action, from what it is for to what it costs."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from trimtab.serve.client import Body

# figure, heading, unit
COLUMNS = (
    ("cpu_pct", "CPU", "%"),
    ("ram_pct", "memory used", "%"),
    ("vcpus_pct", "vCPUs given", "%"),
    ("memory_pct", "memory given", "%"),
    ("disk_pct", "disk given", "%"),
    ("instances", "instances", ""),
)
WORDS = {
    "state": "down or disabled",
    "emptied": "emptied by the plan",
    "zone": "in another zone",
    "group": "its server group",
    "rule": "a rule",
    "vcpus": "no vCPUs",
    "memory_mb": "no memory",
    "disk_gb": "no disk",
}
MARKS = {"better": "[green]better[/green]", "equal": "as good", "worse": "[yellow]not better[/yellow]"}


def shown(told: Body, most: int) -> Group:
    """A plan's explanation: why the plan, then its first actions."""
    rows = told["explanation"]
    parts: list[RenderableType] = []
    if told["because"]:
        parts.append(f"[bold]plan {told['uuid']}[/bold]: {escape(told['because'])}")
    if not rows:
        parts.append("There is nothing to explain: the plan has no actions, or was made before plans were explained.")
    parts += [_panel(row) for row in rows[:most]]
    if len(rows) > most:
        parts.append(f"… and {len(rows) - most} more actions: use --most or --action")
    return Group(*parts)


def _panel(row: Body) -> Panel:
    title = f"[bold]{row['action_type']}[/bold] {escape(row['subject'])}"
    return Panel(
        Group(*_lines(row)), title=title, title_align="left", subtitle=row["action_uuid"], subtitle_align="right"
    )


def _lines(row: Body) -> Iterator[RenderableType]:
    yield from (f"[green]+[/green] {escape(text)}" for text in row["why"])
    yield from (f"[red]-[/red] without it: {escape(text)}" for text in row["without"])
    if row["source"]:
        yield _hosts(row)
    if row["elsewhere"]:
        yield from _elsewhere(row["elsewhere"])
    if row["duration_s"]:
        sent = f" and sends {row['gib']:.1f} GiB" if row["gib"] else ""
        yield f"[dim]takes about {row['duration_s']:.0f} s{sent}[/dim]"
    counted = (("waits for room of", row["needs_room_of"]), ("awaited by", row["awaited_by"]))
    waits = [f"{word} {len(others)} other action{'s' if len(others) > 1 else ''}" for word, others in counted if others]
    if waits:
        yield f"[dim]{', '.join(waits)}[/dim]"


def _hosts(row: Body) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("host: before → this move alone → in the end")
    for _, heading, unit in COLUMNS:
        table.add_column(f"{heading}{f', {unit}' if unit else ''}", justify="right")
    for side in (row["source"], row["destination"]):
        if side is not None:
            figures = [
                " → ".join(_number(side[when][name], unit) for when in ("before", "alone", "after"))
                for name, _, unit in COLUMNS
            ]
            table.add_row(escape(side["host"]), *figures)
    return table


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if not unit or value >= 10 else f"{value:.1f}"


def _elsewhere(found: Body) -> Iterator[str]:
    out = ", ".join(f"{count} {WORDS.get(reason, reason)}" for reason, count in found["ruled_out"].items())
    yield f"{found['feasible']} other hosts would do{f'; ruled out: {out}' if out else ''}"
    for one in found["best"]:
        yield f"  {escape(one['host'])}: the chosen one is {MARKS[one['chosen_is']]}: {escape(one['text'])}"
