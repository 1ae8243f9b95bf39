"""Runs in Watcher's environment: its own code makes a database and fills it as its services do over some weeks.

Arguments: the database's file, a folder for the configuration. Prints one JSON document: uuids by what they stand for.
"""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from oslo_config import cfg
from watcher import conf  # noqa: F401 (declares the options)
from watcher.db import api, migration

SCOPE = [{"compute": [{"availability_zones": [{"name": "AZ1"}]}]}]
EFFICACY = [{"name": "released_nodes_ratio", "description": "Ratio of released nodes", "unit": "%", "value": 50.0}]


def days_ago(days: float) -> datetime:
    """As Watcher keeps moments: UTC that does not say so."""
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0) - timedelta(days=days)


def fill(db: Any) -> dict[str, str]:
    """Goals, strategies, templates, audits of every type and state, plans with actions and indicators, deleted rows."""
    made: dict[str, str] = {}

    def keep(name: str, row: Any) -> Any:
        made[name] = row.uuid
        return row

    def goal(name: str, display: str) -> Any:
        values = {"name": name, "display_name": display, "efficacy_specification": [{"name": "x", "unit": None}]}
        return keep(f"goal {name}", db.create_goal(values))

    def strategy(name: str, of: Any) -> Any:
        values = {"name": name, "display_name": name.title(), "goal_id": of.id, "parameters_spec": {"properties": {}}}
        return keep(f"strategy {name}", db.create_strategy(values))

    dummy, site = goal("dummy", "Dummy goal"), goal("of_our_site", "Only our site has it")
    consolidation = goal("server_consolidation", "Server Consolidation")
    plain, ours = strategy("dummy", dummy), strategy("ours", site)
    packing = strategy("vm_workload_consolidation", consolidation)

    def template(name: str, **more: Any) -> Any:
        return keep(f"template {name}", db.create_audit_template({"name": name, "goal_id": dummy.id, **more}))

    template("nightly", strategy_id=plain.id, description="Every night", scope=SCOPE, default_parameters={"para1": 4.5})
    template("bare")
    template("of our site", goal_id=site.id, strategy_id=ours.id, scope=[])
    thrown_away = template("thrown away")

    def audit(name: str, kind: str, state: str, **more: Any) -> Any:
        values = {"name": name, "audit_type": kind, "state": state, "goal_id": dummy.id, "strategy_id": plain.id}
        values |= {
            "parameters": {"para1": 3.2, "para2": "hello"},
            "scope": SCOPE,
            "auto_trigger": False,
            "force": False,
        }
        return keep(f"audit {name}", db.create_audit({**values, **more}))

    for state in ("PENDING", "ONGOING", "SUCCEEDED", "FAILED", "CANCELLED", "SUSPENDED"):
        audit(f"oneshot {state}", "ONESHOT", state, status_message=f"as {state} as can be", hostname="ctl1")
    times = {"start_time": days_ago(20), "end_time": days_ago(-20), "next_run_time": days_ago(-0.02)}
    hourly = audit("hourly", "CONTINUOUS", "ONGOING", interval="3600", hostname="ctl1", auto_trigger=True, **times)
    audit("cron", "CONTINUOUS", "PENDING", interval="*/5 * * * *", force=True)
    audit("alarm", "EVENT", "SUCCEEDED", goal_id=site.id, strategy_id=ours.id, scope=[], parameters={})
    packed = audit("packed", "ONESHOT", "SUCCEEDED", goal_id=consolidation.id, strategy_id=packing.id, parameters={})
    undecided = audit("undecided", "ONESHOT", "SUCCEEDED", strategy_id=None)
    thrown = audit("thrown away", "ONESHOT", "SUCCEEDED")

    def plan(name: str, of: Any, state: str, by: Any = plain, **more: Any) -> Any:
        values = {"audit_id": of.id, "strategy_id": by.id, "state": state, "global_efficacy": EFFICACY, **more}
        return keep(f"plan {name}", db.create_action_plan(values))

    def action(name: str, of: Any, kind: str, state: str, *parents: Any, **values: Any) -> Any:
        values = {"action_plan_id": of.id, "action_type": kind, "state": state, "input_parameters": values}
        values["parents"] = [parent.uuid for parent in parents]
        return keep(f"action {name}", db.create_action(values))

    ran = plan(
        "packed", packed, "SUCCEEDED", packing, hostname="ctl1", status_message="One or more actions were skipped."
    )
    instance = "1bf91464-9b41-428d-a11e-af691e5563bb"
    moved = action("migrate", ran, "migrate", "SUCCEEDED", resource_id=instance, migration_type="live",
                   source_node="cmp1", destination_node="cmp2")  # fmt: skip
    off = action("resized", ran, "resize", "SUCCEEDED", moved, resource_id=instance, flavor="m1.tiny")
    skipped = action("skipped", ran, "nop", "PENDING", off, message="not today")
    db.update_action(skipped.id, {"state": "SKIPPED", "status_message": "Action skipped by user. Reason: no need"})
    for name, unit, value in (("compute_nodes_count", None, 4.0), ("released_nodes_ratio", "%", 37.5)):
        values = {"name": name, "description": name, "unit": unit, "value": value, "data": value}
        db.create_efficacy_indicator({**values, "action_plan_id": ran.id})
    cut = plan("cut", hourly, "ONGOING")
    first = action("done", cut, "nop", "SUCCEEDED", message="a")
    second = action("running", cut, "sleep", "ONGOING", first, duration=3.2)
    action("waiting", cut, "nop", "PENDING", second, message="b")
    waiting = plan("waiting", undecided, "RECOMMENDED", global_efficacy=[])
    action("recommended", waiting, "nop", "PENDING", message="c")
    old = plan("superseded", hourly, "SUPERSEDED")
    gone = plan("thrown away", thrown, "SUCCEEDED")
    lost = action("thrown away", gone, "nop", "SUCCEEDED", message="d")

    db.create_scoring_engine({"name": "dummy_scorer", "description": "Dummy", "metainfo": "{}"})
    db.create_service({"name": "watcher-applier", "host": "ctl1", "last_seen_up": days_ago(0)})
    db.create_action_description({"action_type": "nop", "description": "Logging a NOP message"})
    db.update_audit_template(made["template bare"], {"description": "changed"})
    db.soft_delete_action(lost.uuid)
    db.soft_delete_action_plan(gone.uuid)
    db.soft_delete_audit(thrown.uuid)
    db.soft_delete_audit_template(thrown_away.uuid)
    db.update_action_plan(old.uuid, {"status_message": "a newer one came"})
    return made


def main(file: Path, folder: Path) -> None:
    """Configure Watcher as its manual says, make the schema, fill it."""
    config = folder / "watcher.conf"
    config.write_text(f"[database]\nconnection = sqlite:///{file}\n[oslo_messaging_notifications]\ndriver = noop\n")
    cfg.CONF(["--config-file", str(config)], project="watcher")
    migration.create_schema()
    print(json.dumps({"schema": migration.version(), "uuids": fill(api.get_instance())}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
