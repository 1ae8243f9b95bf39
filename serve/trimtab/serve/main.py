"""The command line: demo, up, down, audit, plan, snapshot."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from trimtab.platform.errors import TrimtabError
from trimtab.serve.backtest_command import backtest
from trimtab.serve.bench_command import bench
from trimtab.serve.client import Client
from trimtab.serve.config_command import ConfigFile, configs, settings_or_exit
from trimtab.serve.db_command import db, sync
from trimtab.serve.import_command import imports
from trimtab.serve.show import actions_table, candidates_table

app = typer.Typer(
    help=(
        "Simulate and optimise OpenStack clouds.\n\n"
        "Try [bold]trimtab demo[/bold] first: one audit, from a simulated cloud to an applied plan. "
        "[bold]trimtab up[/bold] keeps Trimtab running; "
        "[bold]trimtab audit[/bold] and [bold]trimtab plan[/bold] talk to it."
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
audits = typer.Typer(help="Ask Trimtab to look at the cloud with a goal in mind.", no_args_is_help=True)
plans = typer.Typer(help="See, start and cancel what audits recommend.", no_args_is_help=True)
scoring = typer.Typer(help="See which scoring engines are installed.", no_args_is_help=True)
snapshots = typer.Typer(help="Export and import a cluster model as Parquet.", no_args_is_help=True)


class RunFirst(TyperGroup):
    """A group that takes what is no command of its own for the first argument of `run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `run` in front where it was left out."""
        if args and args[0] not in {"--help", *self.commands}:
            args = ["run", *args]
        return super().parse_args(ctx, args)


whatifs = typer.Typer(
    cls=RunFirst,
    help="Sweep a scenario: topologies x loads x policies x seeds. `trimtab whatif FILE` runs it.",
    no_args_is_help=True,
)
app.command()(backtest)
app.add_typer(audits, name="audit")
app.add_typer(plans, name="plan")
app.add_typer(snapshots, name="snapshot")
app.add_typer(scoring, name="scoringengine")
app.add_typer(bench, name="bench")
app.add_typer(configs, name="config")
app.add_typer(db, name="db")
app.add_typer(imports, name="import")
app.add_typer(whatifs, name="whatif")

console = Console()
errors = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of tables.")]
Url = Annotated[str, typer.Option(envvar="TRIMTAB_URL", help="Address of the API.")]
HERE = "http://127.0.0.1:9322"


def run() -> None:
    """The console script: our own errors become one line and exit code 1."""
    try:
        app()
    except TrimtabError as error:
        errors.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None


@app.command()
def demo(
    hosts: Annotated[int, typer.Option(help="Hosts of the simulated cloud.")] = 200,
    instances: Annotated[int, typer.Option(help="Instances of the simulated cloud.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the simulated cloud: the same seed gives the same cloud.")] = 1,
    goal: Annotated[str, typer.Option(help="Goal of the audit.")] = "server_consolidation",
    trace: Annotated[Path | None, typer.Option(help="PlanetLab-style Parquet file to use as the load.")] = None,
    report: Annotated[Path, typer.Option(help="Where to write the HTML report.")] = Path("out/demo.html"),
    port: Annotated[int, typer.Option(help="Port of the API.")] = 9322,
    dashboard: Annotated[bool, typer.Option(help="Start the Ray dashboard (http://127.0.0.1:8265).")] = True,
    real: Annotated[
        str | None, typer.Option("--cloud", help="A cloud of clouds.yaml instead: its instances are REALLY moved.")
    ] = None,
) -> None:
    """Run one audit end to end: simulated cloud, local Ray, HTTP API, rehearsals, an applied plan, a report."""
    from trimtab.serve.demo import run_demo

    if real is not None:
        run_demo(
            console,
            lambda **more: settings_or_exit(
                port=port, driver="openstack", openstack={"cloud": real}, auth="none", host="127.0.0.1", **more
            ),
            goal,
            report,
            dashboard=dashboard,
        )
        return
    cloud = {"hosts": hosts, "instances": instances, "seed": seed, "trace": trace, "speed": 30.0}
    run_demo(
        console,
        # Whatever is configured here: the demo is a world of its own, for this machine alone.
        lambda **more: settings_or_exit(
            port=port, cloud=cloud, driver="simulated", auth="none", host="127.0.0.1", **more
        ),
        goal,
        report,
        dashboard=dashboard,
    )


@app.command()
def up(
    data_dir: Annotated[Path | None, typer.Option(help="Where records and metrics are kept.")] = None,
    host: Annotated[str | None, typer.Option(help="Address of the API; others than loopback need auth.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API.")] = None,
    config: ConfigFile = None,
    insecure_no_auth: Annotated[
        bool, typer.Option("--insecure-no-auth", help="Let everybody who reaches another --host change the cloud.")
    ] = False,
    foreground: Annotated[bool, typer.Option(help="Stay in the foreground (for systemd and containers).")] = False,
) -> None:
    """Start Trimtab and keep it running; prints the addresses of the API and of the Ray dashboard.

    Every option of Trimtab can be set in trimtab.toml or through the environment, for example TRIMTAB_CLOUD__HOSTS=50;
    `trimtab config show` lists them.
    """
    from trimtab.serve import daemon

    given = {"data_dir": data_dir, "host": host, "port": port, "insecure_no_auth": insecure_no_auth or None}
    settings = settings_or_exit(config, **given)
    if foreground:
        daemon.serve_until_told(settings, console)
    else:
        daemon.up(settings, console, arguments={"config": config, **given})


@app.command()
def down(
    data_dir: Annotated[Path | None, typer.Option(help="The folder given to `up`.")] = None, config: ConfigFile = None
) -> None:
    """Stop what `trimtab up` started; leaves no process behind. Records and metrics stay."""
    from trimtab.serve import daemon

    daemon.down(settings_or_exit(config, data_dir=data_dir), console)


# -- audits ------------------------------------------------------------------------------------


app.command()(sync)


def _parameters(pairs: Iterable[str]) -> dict[str, Any]:
    """`name=value` pairs; values are JSON where they can be."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r}: write name=value")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


@audits.command("create")
def create_audit(
    goal: Annotated[str | None, typer.Option("--goal", "-g", help="Goal, by name or uuid.")] = None,
    strategy: Annotated[str | None, typer.Option("--strategy", "-s", help="Only this strategy.")] = None,
    template: Annotated[str | None, typer.Option("--audit-template", "-a", help="Template, by name or uuid.")] = None,
    parameter: Annotated[list[str] | None, typer.Option("--parameter", "-p", help="name=value, repeatable.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the audit.")] = None,
    auto_trigger: Annotated[bool, typer.Option(help="Start the recommended plan at once.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the result and show the candidates.")] = True,
    as_json: AsJson = False,
    url: Url = HERE,
) -> None:
    """Create a ONESHOT audit and show what it weighed."""
    body: dict[str, Any] = {"audit_type": "ONESHOT", "auto_trigger": auto_trigger}
    body |= {key: value for key, value in (("goal", goal), ("strategy", strategy), ("name", name)) if value}
    if parameter:
        body["parameters"] = _parameters(parameter)
    with Client(url) as client:
        if template:
            body["audit_template_uuid"] = client.show("audit_templates", template)["uuid"]
        audit = client.create("audits", body)
        if wait:
            with errors.status("auditing…"):
                audit = client.wait("audits", audit["uuid"])
        if as_json:
            _print_json(audit)
            return
        _print_one(audit)
        if wait:
            console.print(candidates_table(client.candidates(audit["uuid"]), console.width))
            for plan in client.all("action_plans", audit_uuid=audit["uuid"]):
                console.print(f"action plan [bold]{plan['uuid']}[/bold] is {plan['state']}")


@audits.command("list")
def list_audits(as_json: AsJson = False, url: Url = HERE) -> None:
    """Audits, oldest first."""
    with Client(url) as client:
        _print_rows(client.all("audits"), ("uuid", "name", "state", "goal_name", "strategy_name"), as_json=as_json)


@audits.command("show")
def show_audit(
    ident: Annotated[str, typer.Argument(help="Name or uuid.")], as_json: AsJson = False, url: Url = HERE
) -> None:
    """One audit."""
    with Client(url) as client:
        body = client.show("audits", ident)
    _print_json(body) if as_json else _print_one(body)


@audits.command("candidates")
def candidates(
    ident: Annotated[str, typer.Argument(help="Name or uuid.")], as_json: AsJson = False, url: Url = HERE
) -> None:
    """Everything an audit weighed, with rehearsed scores: the winner first."""
    with Client(url) as client:
        rows = client.candidates(ident)
    _print_json(rows) if as_json else console.print(candidates_table(rows, console.width))


@audits.command("plan")
def plan_candidate(
    ident: Annotated[str, typer.Argument(help="Name or uuid.")],
    candidate: Annotated[int, typer.Option(help="Its number, as `audit candidates --json` tells.")],
    as_json: AsJson = False,
    url: Url = HERE,
) -> None:
    """Make a plan of a candidate that was not chosen; the audit's plan that nobody started is SUPERSEDED."""
    with Client(url) as client:
        plan = client.plan_candidate(ident, candidate)
        actions, notes = client.all("actions", detail=True, action_plan_uuid=plan["uuid"]), client.notes(plan["uuid"])
    _print_json({**plan, "notes": notes}) if as_json else _print_made(plan, actions, notes)


@audits.command("cancel")
def cancel_audit(ident: Annotated[str, typer.Argument(help="Name or uuid.")], url: Url = HERE) -> None:
    """Cancel an audit that has not ended."""
    with Client(url) as client:
        console.print(f"audit is {client.cancel_audit(ident)['state']}")


# -- plans -------------------------------------------------------------------------------------


def _print_made(plan: dict[str, Any], actions: list[dict[str, Any]], notes: list[str]) -> None:
    console.print(actions_table(actions))
    for note in notes:
        console.print(f"left out: {note}")
    line = f"action plan [bold]{plan['uuid']}[/bold] is {plan['state']}: trimtab plan start {plan['uuid']}"
    console.print(line, soft_wrap=True)


@plans.command("list")
def list_plans(
    audit: Annotated[str | None, typer.Option(help="Only of this audit (uuid).")] = None,
    as_json: AsJson = False,
    url: Url = HERE,
) -> None:
    """Action plans, oldest first."""
    with Client(url) as client:
        rows = client.all("action_plans", audit_uuid=audit)
    _print_rows(rows, ("uuid", "audit_uuid", "state", "strategy_name", "updated_at"), as_json=as_json)


@plans.command("show")
def show_plan(uuid: str, as_json: AsJson = False, url: Url = HERE) -> None:
    """One action plan with its actions, its effect, and what planning left out."""
    with Client(url) as client:
        plan, actions = client.show("action_plans", uuid), client.all("actions", detail=True, action_plan_uuid=uuid)
        effect, notes = client.effect(uuid), client.notes(uuid)
    more = {"rehearsed": effect["rehearsed"], "measured": effect["measured"], "notes": notes}
    if as_json:
        _print_json({**plan, "actions": actions, **more})
        return
    _print_one({**plan, **more, "notes": "\n".join(notes) or "–"})
    console.print(actions_table(actions))


@plans.command("explain")
def explain_plan(
    uuid: str,
    action: Annotated[str | None, typer.Option(help="Only this action (uuid).")] = None,
    most: Annotated[int, typer.Option(min=1, help="Actions to show; --json shows all.")] = 20,
    as_json: AsJson = False,
    url: Url = HERE,
) -> None:
    """Why each action is in a plan: what it improves, what else was possible, what would be lost without it."""
    from trimtab.serve.explain_view import shown

    with Client(url) as client:
        told = client.because(uuid, action)
    _print_json(told) if as_json else console.print(shown(told, most))


@plans.command("start")
def start_plan(
    uuid: str, follow: Annotated[bool, typer.Option(help="Wait until it has ended.")] = True, url: Url = HERE
) -> None:
    """Start a recommended plan."""
    from trimtab.serve.show import follow_plan

    with Client(url) as client:
        plan = client.start(uuid)
        if follow:
            plan = follow_plan(client, uuid, console)
        console.print(
            f"action plan is {plan['state']}" + (f": {plan['status_message']}" if plan["status_message"] else "")
        )


@plans.command("check")
def check_plan(
    uuid: str,
    replan: Annotated[bool, typer.Option(help="Plan again what does not hold.")] = False,
    as_json: AsJson = False,
    url: Url = HERE,
) -> None:
    """Look at a plan that waits to be started: which of its steps still hold. Exit code 1 when some do not."""
    with Client(url) as client:
        checked = client.check_plan(uuid)
        if replan and checked["stale"]:
            plan = client.replan(uuid)
            actions = client.all("actions", detail=True, action_plan_uuid=plan["uuid"])
            notes = client.notes(plan["uuid"])
            _print_json({**plan, "notes": notes}) if as_json else _print_made(plan, actions, notes)
            return
    stale = [action for action in checked["actions"] if not action["holds"]]
    if as_json:
        _print_json(checked)
    else:
        for note in checked["notes"]:
            console.print(note)
        _print_rows(stale, ("uuid", "action_type", "reason"), as_json=False) if stale else None
        console.print(f"{len(checked['actions']) - len(stale)} of {len(checked['actions'])} steps hold")
    if stale:
        raise typer.Exit(1)


@plans.command("rollback")
def roll_back_plan(uuid: str, as_json: AsJson = False, url: Url = HERE) -> None:
    """Make a plan that undoes what a plan did; start it with `trimtab plan start`."""
    with Client(url) as client:
        plan = client.roll_back(uuid)
        actions, notes = client.all("actions", detail=True, action_plan_uuid=plan["uuid"]), client.notes(plan["uuid"])
    _print_json({**plan, "notes": notes}) if as_json else _print_made(plan, actions, notes)


@plans.command("cancel")
def cancel_plan(uuid: str, url: Url = HERE) -> None:
    """Cancel a plan; live migrations under way are aborted, what else runs already ends first."""
    with Client(url) as client:
        console.print(f"action plan is {client.cancel_plan(uuid)['state']}")


# -- scoring engines ---------------------------------------------------------------------------


@scoring.command("list")
def list_scoring_engines(as_json: AsJson = False, url: Url = HERE) -> None:
    """Scoring engines, in the order they were installed."""
    with Client(url) as client:
        rows = client.all("scoring_engines")
    _print_rows(rows, ("uuid", "name", "description"), as_json=as_json)


@scoring.command("show")
def show_scoring_engine(
    ident: Annotated[str, typer.Argument(help="Name or uuid.")], as_json: AsJson = False, url: Url = HERE
) -> None:
    """One scoring engine, with what to give it and what it answers."""
    with Client(url) as client:
        body = client.show("scoring_engines", ident)
    _print_json(body) if as_json else _print_one(body)


# -- what-ifs ----------------------------------------------------------------------------------


@whatifs.command("run")
def run_whatif(
    scenario: Annotated[Path, typer.Argument(help="The scenario, YAML or JSON.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the results; default out/whatif/<name>.")] = None,
    series: Annotated[bool, typer.Option("--series", help="Keep a series of every cell too.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="CPUs to use; default all.")] = None,
    local: Annotated[bool, typer.Option("--local", help="In this process, without Ray: for tiny sweeps.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Compute cells that failed again.")] = False,
    x: Annotated[str, typer.Option(help="Figure on the horizontal axis of the trade-off.")] = "energy_kwh",
    y: Annotated[str, typer.Option(help="Figure on the vertical axis of the trade-off.")] = "overload_min",
    as_json: AsJson = False,
) -> None:
    """Run a scenario; cells that were finished before are not computed again."""
    from trimtab.serve import whatif_command

    options = whatif_command.Options(out, series, workers, local, as_json, retry_failed, x, y)
    whatif_command.run(scenario, options, settings_or_exit(), console, errors)


@whatifs.command("check")
def check_whatif(scenario: Annotated[Path, typer.Argument(help="The scenario, YAML or JSON.")]) -> None:
    """Say how many cells a scenario has, or everything that is wrong with it."""
    from trimtab.serve import whatif_command

    whatif_command.check(scenario, settings_or_exit(), console)


# -- snapshots ---------------------------------------------------------------------------------


@snapshots.command("export")
def export_snapshot(folder: Annotated[Path, typer.Argument(help="A new folder.")], url: Url = HERE) -> None:
    """Write the cluster model of a running Trimtab into a folder of Parquet files."""
    from trimtab.platform.model import read_model

    if folder.exists():
        raise TrimtabError(f"{folder} exists already: choose another folder or remove it")
    with Client(url) as client:
        tables = {name: client.model_table(name) for name in ("nodes", "instances", "server_groups")}
    folder.mkdir(parents=True)
    for name, content in tables.items():
        (folder / f"{name}.parquet").write_bytes(content)
    model = read_model(folder)
    console.print(f"{folder}: {model.hosts} hosts, {model.instances} instances")


@snapshots.command("import")
def import_snapshot(
    folder: Annotated[Path, typer.Argument(help="A folder with nodes.parquet and instances.parquet.")],
    data_dir: Annotated[Path | None, typer.Option(help="The folder that `trimtab up` is given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a model and make it the cloud that the next `trimtab up` simulates (in a data folder without one)."""
    from trimtab.serve.compose import install_estate

    model = install_estate(settings_or_exit(data_dir=data_dir), folder)
    summary = {
        "hosts": model.hosts,
        "instances": model.instances,
        "zones": len(model.zone.names),
        "server_groups": len(model.group_ids),
        "hosts_in_use": len(set(model.host_of[model.host_of >= 0].tolist())),
    }
    _print_json(summary) if as_json else _print_one(summary)


def _print_json(body: Any) -> None:
    typer.echo(json.dumps(body, indent=2))


def _print_one(body: dict[str, Any]) -> None:
    table = Table("Field", "Value", show_header=False)
    for name, value in body.items():
        if name != "links":
            table.add_row(name, escape(json.dumps(value) if isinstance(value, dict | list) else str(value)))
    console.print(table)


def _print_rows(rows: list[dict[str, Any]], columns: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        _print_json(rows)
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(str(row[column]) for column in columns))
    console.print(table)


if __name__ == "__main__":
    run()
