"""`trimtab demo`: one audit through the real HTTP API, from a cloud, simulated or real, to an applied plan."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from trimtab.platform.errors import Conflict, TrimtabError
from trimtab.platform.settings import Settings
from trimtab.serve.client import Client
from trimtab.serve.daemon import free_port, stop_on_signal
from trimtab.serve.report import Story, figure_rows, write_report
from trimtab.serve.show import candidates_table, follow_plan

# What each step takes on two cores, in seconds: only for the progress bars.
USUAL_S = {"Ray, actors and API": 22.0, "the cloud's inventory and its load of the last day": 5.0}
# One second here is half a minute there, so the cloud is collected and watched in short intervals of wall time.
BRISK = {"collect_interval_s": 90.0, "migration_interval_s": 5.0, "migrations_total": 40}
PATIENT = {"collect_interval_s": 20.0, "migration_interval_s": 2.0}  # for a real cloud


@contextmanager
def step(console: Console, what: str) -> Iterator[None]:
    """A bar that moves while one step works, and a line with its seconds when it is over."""
    usual = USUAL_S.get(what, 5.0)
    begin = time.perf_counter()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("of about {task.fields[usual]} s"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=usual, usual=f"{usual:.0f}")
        over = threading.Event()

        def move() -> None:
            while not over.wait(0.2):
                progress.update(task, completed=min(time.perf_counter() - begin, usual * 0.98))

        mover = threading.Thread(target=move, daemon=True)
        mover.start()
        try:
            yield
        finally:
            over.set()
            mover.join()
    console.print(f"[green]✓[/green] {what} [dim]({time.perf_counter() - begin:.1f} s)[/dim]")


def run_demo(
    console: Console, settings_of: Callable[..., Settings], goal: str, report: Path, *, dashboard: bool
) -> Mapping[str, Any]:
    """Run the whole story and clean up after it; returns what it measured: on a real cloud, nothing.

    Raises:
        Conflict: the API's port is taken.
        TrimtabError: the cloud cannot be read, or the audit failed.
    """
    stop_on_signal()
    begin = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="trimtab-demo-"))
    cores = max(2, os.cpu_count() or 2)
    settings = settings_of(data_dir=folder, ray={"dashboard": dashboard, "num_cpus": cores})
    # A Ray of its own, too.
    for name in ("RAY_ADDRESS", "TRIMTAB_RAY__ADDRESS"):
        os.environ.pop(name, None)
    settings = settings.model_copy(update={"ray": settings.ray.model_copy(update={"address": None})})
    settings = settings.model_copy(update=BRISK if settings.driver == "simulated" else PATIENT)
    if not free_port(settings.port):
        shutil.rmtree(folder, ignore_errors=True)
        raise Conflict(f"port {settings.port} is taken: stop what listens there (`trimtab down`?) or give --port")
    if settings.cloud.trace is not None and not settings.cloud.trace.exists():
        shutil.rmtree(folder, ignore_errors=True)
        raise TrimtabError(f"trace {settings.cloud.trace} does not exist: give a PlanetLab-style Parquet file")
    from trimtab.serve import compose

    try:
        with step(console, "Ray, actors and API"):
            running = compose.deploy(settings)
        console.print(f"  API {running.api_url} · Ray dashboard {running.dashboard_url}")
        with Client(running.api_url) as client:
            story = _story(console, client, running.ask_cloud, settings, goal)
        with step(console, "report"):
            write_report(story, report)
        console.print(f"  report [bold]{report}[/bold]")
    finally:
        with step(console, "stopping"):
            compose.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
    console.print(f"[bold]done in {time.perf_counter() - begin:.0f} s[/bold]")
    return {"nothing": story.nothing, "rehearsed": story.rehearsed, "measured": story.measured}


def _story(console: Console, client: Client, ask_cloud: Callable[..., Any], settings: Settings, goal: str) -> Story:
    simulated = settings.driver == "simulated"
    with step(console, "the cloud's inventory and its load of the last day"):
        before = _collected(client, 1)
    load = f"trace {settings.cloud.trace.name}" if settings.cloud.trace else "generated"
    if not simulated:
        load = f"measured by {', '.join(settings.datasources)}"
    console.print(
        f"  {before['hosts']} hosts ({before['hosts_in_use']} in use), {before['instances']} instances, load: {load}; "
        f"mean CPU {before['cpu_mean_pct']:.1f} %, sd {before['cpu_sd_pp']:.1f} pp, {before['power_w'] / 1000:.1f} kW"
    )
    template = client.create("audit_templates", {"name": "demo", "goal": goal})
    with step(console, f"audit: {goal}, every strategy, every candidate rehearsed"):
        audit = client.create("audits", {"audit_type": "ONESHOT", "audit_template_uuid": template["uuid"]})
        audit = client.wait("audits", audit["uuid"], every_s=0.1)
    if audit["state"] != "SUCCEEDED":
        raise TrimtabError(f"the audit is {audit['state']}: {audit['status_message']}")
    candidates = client.candidates(audit["uuid"])
    console.print(candidates_table(candidates, console.width))
    workers = {row["worker"] for row in candidates}
    console.print(f"  {len(candidates)} candidates, rehearsed on {len(workers)} Ray workers")
    nothing: Mapping[str, Any] = next((row["score"] for row in candidates if row["strategy_name"] == "do_nothing"), {})
    plan: Mapping[str, Any] = client.plan_of(audit["uuid"])
    facts = {"goal": goal, "load": load, "rehearsed on": f"{len(workers)} Ray workers"}
    facts |= {"seed": str(settings.cloud.seed)} if simulated else {"cloud": settings.openstack.cloud or "OS_*"}
    if plan["state"] != "RECOMMENDED":
        console.print(f"[yellow]no plan is recommended:[/yellow] {audit['status_message']}")
        return Story(f"Trimtab: {goal}", audit, plan, candidates, before, before, nothing, {}, {}, (), facts)
    pace = " (a second here is half a minute in the cloud)" if simulated else ""
    console.print(f"  starting action plan [bold]{plan['uuid']}[/bold]{pace}")
    client.start(plan["uuid"])
    plan = follow_plan(client, plan["uuid"], console)
    console.print(f"  action plan is [bold]{plan['state']}[/bold] {plan['status_message'] or ''}")
    if simulated:
        with step(console, "the day after, in the simulated cloud"):
            effect = _measured(client, plan["uuid"], ask_cloud, settings.horizon_s, before["version"])
    else:
        with step(console, "the cloud's inventory afterwards"):
            after = _collected(client, client.cluster()["version"] + 1, settings.collect_interval_s + 60.0)
        effect = {**client.effect(plan["uuid"]), "measured": {}, "cluster": after}
    after, timeline = effect["cluster"], client.timeline(plan["uuid"])
    story = Story(
        f"Trimtab: {goal}",
        audit,
        plan,
        candidates,
        before,
        after,
        nothing,
        effect["rehearsed"],
        effect["measured"],
        timeline,
        facts,
    )
    console.print(_before_after(before, after))
    if simulated:
        console.print(_effect(story))
    return story


def _collected(client: Client, at_least: int, timeout_s: float = 60.0) -> Mapping[str, Any]:
    """Figures of the cluster once this many collections have been made."""
    deadline = time.monotonic() + timeout_s
    while True:
        figures = client.cluster()
        if figures["version"] >= at_least:
            return figures
        if time.monotonic() > deadline:
            raise TrimtabError(f"the cloud was not collected within {timeout_s:.0f} s; see the model actor's log")
        time.sleep(0.1)


def _measured(
    client: Client, plan_uuid: str, ask_cloud: Callable[..., Any], horizon_s: float, version: int
) -> dict[str, Any]:
    """Let the horizon pass in the simulated cloud and wait until the engine has measured the plan's effect."""
    deadline = time.monotonic() + 60
    moved_on = False
    after: Mapping[str, Any] = client.cluster()
    while time.monotonic() < deadline:
        effect = client.effect(plan_uuid)
        if "hosts_in_use" in effect["measured"]:
            return {**effect, "cluster": after}
        if not moved_on and effect["measured"].get("started_at_s"):
            # The figures "after" are those of the hour of the plan, not of the day after.
            after = _collected(client, max(version, client.cluster()["version"]) + 1)
            ask_cloud("fast_forward", horizon_s)
            moved_on = True
        time.sleep(0.2)
    raise TrimtabError(f"the effect of plan {plan_uuid} was not measured within a minute; see the engine actor's log")


def _before_after(before: Mapping[str, Any], after: Mapping[str, Any]) -> Table:
    table = Table("the cluster", title="Before and after", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    for name, title, pattern in (
        ("hosts_in_use", "hosts in use", "{:.0f}"),
        ("cpu_mean_pct", "mean CPU of the hosts, %", "{:.1f}"),
        ("cpu_sd_pp", "standard deviation, pp", "{:.1f}"),
        ("overloaded_hosts", "hosts over 90 % CPU", "{:.0f}"),
        ("power_w", "power, W", "{:,.0f}"),
    ):
        table.add_row(title, pattern.format(before[name]), pattern.format(after[name]))
    return table


def _effect(story: Story) -> Table:
    table = Table(title="Rehearsed against measured", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("over the 24 hours from the start of the plan")
    for heading in ("unit", "doing nothing,\nrehearsed", "the plan,\nrehearsed", "the plan,\nmeasured"):
        table.add_column(heading, justify="right")
    for row in figure_rows(story):
        table.add_row(*row)
    return table
