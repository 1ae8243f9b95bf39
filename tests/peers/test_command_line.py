"""Every command of `openstack optimize` and of `watcher`, at the microversions that operators use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.peers import columns
from tests.peers.columns import action_full, audit_full, audit_shown, plan_full, shown, state_shown, strategy_shown
from tests.peers.server import AUDIT_ENDED, PLAN_ENDED, Trimtab
from tests.peers.shells import Access, Shell
from tests.peers.workers import Worker

pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]

VERSIONS = [None, "1.0", "1.7", "1.latest"]
NOBODY = "c0ffee00-0000-4000-8000-000000000000"
SLEEP, NOP = {"duration": 4}, {"message": "before or after"}
SLEEP_AND_NOP = {
    "actions": [
        {"action_type": "sleep", "input_parameters": SLEEP},
        {"action_type": "nop", "input_parameters": NOP},
    ]
}


@pytest.fixture(
    scope="session",
    params=[(program, version) for version in VERSIONS for program in ("watcher", "openstack")],
    ids=lambda pair: f"{pair[0]}-{pair[1] or 'default'}",
)
def shell(request: pytest.FixtureRequest, nursery: Worker, open_access: Access) -> Shell:
    """One program at one microversion."""
    program, version = request.param
    return Shell(nursery, open_access, program, version)


@pytest.fixture(scope="session", params=["watcher", "openstack"])
def usual_shell(request: pytest.FixtureRequest, nursery: Worker, open_access: Access) -> Shell:
    """One program as it is without options: for what does not depend on the microversion."""
    return Shell(nursery, open_access, request.param, None)


def some_name() -> str:
    """A name that nothing else has."""
    return f"peer-{uuid4().hex[:12]}"


def dummy_plan(trimtab: Trimtab) -> dict[str, Any]:
    """A plan of three actions that takes a second."""
    return trimtab.planned(strategy="dummy", parameters={"para1": 1.0})


def test_goals(shell: Shell, trimtab: Trimtab) -> None:
    listed = trimtab.get("/v1/goals", shell.sent)["goals"]
    assert shell.json("goal", "list") == [shown(goal, columns.GOAL) for goal in listed]
    detailed = trimtab.get("/v1/goals/detail", shell.sent)["goals"]
    assert shell.json("goal", "list", "--detail") == [shown(goal, columns.GOAL_FULL) for goal in detailed]
    goal = trimtab.get("/v1/goals/server_consolidation", shell.sent)
    for name in ("server_consolidation", goal["uuid"]):
        assert shell.json("goal", "show", name) == shown(goal, columns.GOAL_FULL)


def test_pages_and_orders_of_lists(usual_shell: Shell) -> None:
    every = usual_shell.json("goal", "list")
    assert usual_shell.json("goal", "list", "--limit", "3") == every[:3]
    assert usual_shell.json("goal", "list", "--limit", "0") == every
    assert usual_shell.json("goal", "list", "--limit", "2", "--marker", every[2]["UUID"]) == every[3:5]
    names = sorted(row["Name"] for row in every)
    for key in ("name", "Name"):
        assert [row["Name"] for row in usual_shell.json("goal", "list", "--sort-key", key)] == names
    backwards = usual_shell.json("goal", "list", "--sort-key", "name", "--sort-dir", "desc", "--limit", "4")
    assert [row["Name"] for row in backwards] == names[::-1][:4]
    strategies = usual_shell.json("strategy", "list", "--sort-key", "Goal")
    assert [row["Goal"] for row in strategies] == sorted(row["Goal"] for row in strategies)


def test_strategies(shell: Shell, trimtab: Trimtab) -> None:
    listed = trimtab.get("/v1/strategies", shell.sent)["strategies"]
    assert shell.json("strategy", "list") == [shown(row, columns.STRATEGY) for row in listed]
    of_goal = trimtab.get("/v1/strategies", shell.sent, goal="server_consolidation")["strategies"]
    assert shell.json("strategy", "list", "--goal", "server_consolidation") == [
        shown(row, columns.STRATEGY) for row in of_goal
    ]
    assert {row["goal_name"] for row in of_goal} == {"server_consolidation"}
    detailed = trimtab.get("/v1/strategies/detail", shell.sent)["strategies"]
    assert shell.json("strategy", "list", "--detail") == [shown(row, columns.STRATEGY_FULL) for row in detailed]
    dummy = trimtab.get("/v1/strategies/dummy", shell.sent)
    for name in ("dummy", dummy["uuid"]):
        assert shell.json("strategy", "show", name) == strategy_shown(dummy)


def test_state_of_a_strategy(usual_shell: Shell, trimtab: Trimtab) -> None:
    for name in ("dummy", "workload_balance"):
        requirements = trimtab.get(f"/v1/strategies/{name}/state", usual_shell.sent)
        assert usual_shell.json("strategy", "state", name) == [state_shown(row) for row in requirements]
        assert [row["type"] for row in requirements] == ["Datasource", "Metrics", "CDM", "Name"]
        assert requirements[3]["state"] == name


def test_scoring_engines(usual_shell: Shell, trimtab: Trimtab) -> None:
    listed = trimtab.get("/v1/scoring_engines", usual_shell.sent)["scoring_engines"]
    assert listed
    assert usual_shell.json("scoringengine", "list") == [shown(row, columns.SCORING) for row in listed]
    assert usual_shell.json("scoringengine", "list", "--limit", "1") == [shown(listed[0], columns.SCORING)]
    detailed = trimtab.get("/v1/scoring_engines/detail", usual_shell.sent)["scoring_engines"]
    assert usual_shell.json("scoringengine", "list", "--detail") == [
        shown(row, columns.SCORING_FULL) for row in detailed
    ]
    scorer = trimtab.get("/v1/scoring_engines/dummy_scorer", usual_shell.sent)
    for name in ("dummy_scorer", scorer["uuid"]):
        assert usual_shell.json("scoringengine", "show", name) == shown(scorer, columns.SCORING_FULL)


def test_services(usual_shell: Shell, trimtab: Trimtab) -> None:
    listed = trimtab.get("/v1/services", usual_shell.sent)["services"]
    assert {row["name"] for row in listed} == {"watcher-decision-engine", "watcher-applier"}
    assert {row["status"] for row in listed} == {"ACTIVE"}
    assert usual_shell.json("service", "list") == [shown(row, columns.SERVICE) for row in listed]
    for row in usual_shell.json("service", "list", "--detail"):
        assert row.pop("Last seen up")
        assert row in [shown(each, columns.SERVICE) for each in listed]
    for service in listed:
        for name in (str(service["id"]), service["name"]):
            row = usual_shell.json("service", "show", name)
            assert row.pop("Last seen up")
            assert row == shown(service, columns.SERVICE)


def test_data_model(shell: Shell, trimtab: Trimtab) -> None:
    if shell.minor < 3:
        assert "1.0 is not supported" in shell.fails("datamodel", "list").replace("\n", " ")
        return
    rows = trimtab.get("/v1/data_model", shell.sent)["context"]
    assert len({row["node_uuid"] for row in rows}) == 20
    assert len([row for row in rows if row.get("server_uuid")]) == 100

    def printed(columns_: columns.Columns) -> list[dict[str, Any]]:
        return [{label: row.get(field) for label, field in columns_.items()} for row in rows]

    assert shell.json("datamodel", "list") == printed(columns.MODEL)
    assert shell.json("datamodel", "list", "--type", "compute", "--detail") == printed(columns.MODEL_FULL)
    audit = trimtab.audited(strategy="dummy")
    assert shell.json("datamodel", "list", "--audit", audit["uuid"]) == printed(columns.MODEL)
    assert "The storage data model could not be found" in shell.fails("datamodel", "list", "--type", "storage")


def test_audit_templates(shell: Shell, trimtab: Trimtab, tmp_path: Path) -> None:
    names = [some_name() for _ in range(3)]
    scope = [{"compute": [{"availability_zones": [{"name": "*"}]}]}]
    (tmp_path / "scope.json").write_text(json.dumps(scope))
    (tmp_path / "scope.yaml").write_text("- compute:\n  - availability_zones:\n    - name: '*'\n")
    made = shell.json("audittemplate", "create", names[0], "dummy")
    assert made == shown(trimtab.get(f"/v1/audit_templates/{names[0]}", shell.sent), columns.TEMPLATE_FULL)
    for name, file in zip(names[1:], ("scope.json", "scope.yaml"), strict=True):
        options = ["-s", "dummy", "-d", "as written", "--scope", str(tmp_path / file)]
        made = shell.json("audittemplate", "create", name, "dummy", *options)
        assert made == shown(trimtab.get(f"/v1/audit_templates/{name}", shell.sent), columns.TEMPLATE_FULL)
        assert (made["Strategy"], made["Description"], made["Audit Scope"]) == ("dummy", "as written", scope)
        assert shell.json("audittemplate", "show", name) == made
        assert shell.json("audittemplate", "show", made["UUID"]) == made

    listed = trimtab.get("/v1/audit_templates", shell.sent)["audit_templates"]
    assert shell.json("audittemplate", "list") == [shown(row, columns.TEMPLATE) for row in listed]
    of_strategy = shell.json("audittemplate", "list", "--goal", "dummy", "--strategy", "dummy")
    assert [row["Name"] for row in of_strategy if row["Name"] in names] == names[1:]
    detailed = trimtab.get("/v1/audit_templates/detail", shell.sent)["audit_templates"]
    newest = shell.json("audittemplate", "list", "--detail", "--sort-key", "created_at", "--sort-dir", "desc")
    assert sorted(newest, key=lambda row: str(row["UUID"])) == sorted(
        (shown(row, columns.TEMPLATE_FULL) for row in detailed), key=lambda row: str(row["UUID"])
    )
    shell.json("audittemplate", "list", "--sort-key", "goal_name", "--limit", "2", "--marker", listed[0]["uuid"])

    updated = shell.json("audittemplate", "update", names[1], "replace", "description=again", f"name={names[1]}-b")
    assert (updated["Description"], updated["Name"]) == ("again", f"{names[1]}-b")
    assert shell.json("audittemplate", "update", updated["UUID"], "remove", "strategy")["Strategy"] is None
    assert shell.json("audittemplate", "update", updated["UUID"], "add", "strategy=dummy")["Strategy"] == "dummy"
    assert updated["Updated At"]

    assert shell.ok("audittemplate", "delete", names[0], updated["UUID"], names[2]) == ""
    assert not any(trimtab.exists(f"/v1/audit_templates/{name}") for name in (names[0], updated["UUID"], names[2]))


def test_default_parameters_of_a_template(shell: Shell, trimtab: Trimtab) -> None:
    name = some_name()
    words = ("audittemplate", "create", name, "dummy", "-s", "dummy", "-p", "para1=4.5", "-p", "para2=hi")
    if shell.minor < 7:
        server_refuses = "not supported by the requested version"
        told = "Minimum required version is 1.7" if shell.believed_minor < 7 else server_refuses
        assert told in shell.fails(*words).replace("\n", " ")
        return
    assert shell.json(*words)["Default Parameters"] == {"para1": 4.5, "para2": "hi"}
    audit = shell.json("audit", "create", "-a", name, "-p", "para2=own")
    assert audit["Parameters"] == {"para1": 4.5, "para2": "own"}
    assert "dunno" in shell.fails("audittemplate", "create", some_name(), "dummy", "-s", "dummy", "-p", "dunno=1")
    trimtab.until(f"/v1/audits/{audit['UUID']}", lambda body: body["state"] in AUDIT_ENDED)


def test_oneshot_audits(shell: Shell, trimtab: Trimtab) -> None:
    name = some_name()
    made = shell.json("audit", "create", "-g", "dummy", "-s", "dummy", "-p", "para1=2.5", "--name", name)
    assert (made["Name"], made["Audit Type"], made["Goal"], made["Strategy"]) == (name, "ONESHOT", "dummy", "dummy")
    assert made["Parameters"] == {"para1": 2.5, "para2": "hello"}
    audit = trimtab.until(f"/v1/audits/{name}", lambda body: body["state"] in AUDIT_ENDED)
    audit = trimtab.get(f"/v1/audits/{name}", shell.sent)
    for ident in (name, audit["uuid"]):
        assert shell.json("audit", "show", ident) == audit_shown(audit, audit_full(shell.minor))
    assert audit["state"] == "SUCCEEDED"

    listed = trimtab.get("/v1/audits", shell.sent)["audits"]
    by_uuid = {row["uuid"]: audit_shown(row, columns.AUDIT) for row in listed}
    assert {row["UUID"]: row for row in shell.json("audit", "list")} == by_uuid
    some = shell.json("audit", "list", "--goal", "dummy", "--strategy", "dummy", "--sort-key", "Name")
    assert name in [row["Name"] for row in some]
    assert {(row["Goal"], row["Strategy"]) for row in some} == {("dummy", "dummy")}
    assert shell.json("audit", "list", "--goal", "saving_energy", "--strategy", "dummy") == []
    detailed = shell.json("audit", "list", "--detail", "--sort-key", "created_at", "--sort-dir", "desc", "--limit", "1")
    assert detailed == [audit_shown(audit, audit_full(shell.minor))]

    assert shell.ok("audit", "delete", name) == ""
    assert not trimtab.exists(f"/v1/audits/{audit['uuid']}")


def test_an_audit_from_a_template_that_starts_its_plan(shell: Shell, trimtab: Trimtab) -> None:
    template = trimtab.post("/v1/audit_templates", {"name": some_name(), "goal": "dummy"})
    made = shell.json("audit", "create", "-a", template["name"], "--auto-trigger", "--force")
    assert (made["Goal"], made["Strategy"], made["Auto Trigger"]) == ("dummy", "auto", True)
    if shell.minor >= 2:
        assert made["Force"] is True
    trimtab.until(f"/v1/audits/{made['UUID']}", lambda body: body["state"] == "SUCCEEDED")
    (plan,) = shell.json("actionplan", "list", "--audit", made["UUID"])
    assert trimtab.until(f"/v1/action_plans/{plan['UUID']}", lambda body: body["state"] in PLAN_ENDED)["state"] in {
        "SUCCEEDED",
        "FAILED",
    }


def test_continuous_audits(shell: Shell, trimtab: Trimtab) -> None:
    words = ["audit", "create", "-g", "dummy", "-s", "dummy", "-t", "CONTINUOUS", "-p", "para1=1.0", "-i"]
    timed = shell.json(*words, "7200", "--start-time", "2030-01-01 00:00:00", "--end-time", "2030-01-31 22:00:00")
    assert (timed["Interval"], timed["State"]) == ("7200", "PENDING")
    if shell.minor >= 1:
        assert (timed["Start Time"], timed["End Time"]) == ("2030-01-01T00:00:00", "2030-01-31T22:00:00")
    changed = shell.json("audit", "update", timed["UUID"], "replace", "interval=3600")
    assert changed["Interval"] == "3600"
    changed = shell.json("audit", "update", timed["UUID"], "replace", "name=" + some_name(), "auto_trigger=false")
    assert changed["Auto Trigger"] is False
    cron = shell.json(*words, "*/5 * * * *")
    assert cron["Interval"] == "*/5 * * * *"
    for audit in (timed, cron):
        assert shell.json("audit", "update", audit["UUID"], "replace", "state=CANCELLED")["State"] == "CANCELLED"
    assert shell.ok("audit", "delete", timed["UUID"], cron["UUID"]) == ""


def test_event_audits_wait_for_their_webhook(usual_shell: Shell, trimtab: Trimtab) -> None:
    made = usual_shell.json("audit", "create", "-g", "dummy", "-t", "EVENT")
    assert (made["Audit Type"], made["State"]) == ("EVENT", "PENDING")
    assert trimtab.ask("POST", f"/v1/webhooks/{made['UUID']}", {}).status_code == 202
    trimtab.until(f"/v1/audits/{made['UUID']}", lambda body: body["state"] == "SUCCEEDED")
    assert usual_shell.json("audit", "show", made["UUID"])["State"] == "SUCCEEDED"
    assert len(usual_shell.json("actionplan", "list", "--audit", made["UUID"])) == 1


def test_action_plans_are_shown_and_started(shell: Shell, trimtab: Trimtab) -> None:
    uuid = dummy_plan(trimtab)["uuid"]
    plan = trimtab.get(f"/v1/action_plans/{uuid}", shell.sent)
    assert shell.json("actionplan", "show", uuid) == shown(plan, plan_full(shell.minor))
    short = shell.json("actionplan", "list", "--audit", plan["audit_uuid"])
    assert short == [shown(plan, columns.PLAN)]
    newest = ("actionplan", "list", "--detail", "--limit", "1", "--sort-key", "created_at", "--sort-dir", "desc")
    assert shell.json(*newest) == [shown(plan, plan_full(shell.minor))]
    by_audit = [row["Audit"] for row in shell.json("actionplan", "list", "--sort-key", "Audit", "--limit", "0")]
    assert plan["audit_uuid"] in by_audit

    assert shell.json("actionplan", "start", uuid)["State"] == "PENDING"
    assert "Couldn't start when state is" in shell.fails("actionplan", "start", uuid)
    ended = trimtab.until(f"/v1/action_plans/{uuid}", lambda body: body["state"] in PLAN_ENDED)
    assert ended["state"] == "SUCCEEDED"
    assert [row["State"] for row in shell.json("action", "list", "--action-plan", uuid)] == ["SUCCEEDED"] * 3
    assert shell.ok("actionplan", "delete", uuid) == ""
    assert not trimtab.exists(f"/v1/action_plans/{uuid}")


def test_action_plans_are_updated_cancelled_and_deleted(shell: Shell, trimtab: Trimtab) -> None:
    updated, cancelled = (dummy_plan(trimtab)["uuid"] for _ in range(2))
    assert shell.json("actionplan", "update", updated, "replace", "state=CANCELLED")["State"] == "CANCELLED"
    assert shell.json("actionplan", "cancel", cancelled)["State"] == "CANCELLED"
    assert {row["State"] for row in shell.json("action", "list", "--action-plan", cancelled)} == {"CANCELLED"}
    assert "State transition not allowed" in shell.fails("actionplan", "cancel", cancelled)
    assert shell.ok("actionplan", "delete", updated, cancelled) == ""
    assert shell.fails("actionplan", "show", updated)


def test_a_running_action_plan_is_cancelled(usual_shell: Shell, trimtab: Trimtab) -> None:
    plan = trimtab.planned(goal="unclassified", strategy="actuator", parameters=SLEEP_AND_NOP)
    usual_shell.json("actionplan", "start", plan["uuid"])
    (sleep,) = (one for one in trimtab.actions(plan["uuid"]) if one["action_type"] == "sleep")
    trimtab.until(f"/v1/actions/{sleep['uuid']}", lambda body: body["state"] == "ONGOING")
    assert usual_shell.json("actionplan", "cancel", plan["uuid"])["State"] == "CANCELLING"
    ended = trimtab.until(f"/v1/action_plans/{plan['uuid']}", lambda body: body["state"] in PLAN_ENDED)
    assert ended["state"] == "CANCELLED"


def test_actions(shell: Shell, trimtab: Trimtab) -> None:
    plan = dummy_plan(trimtab)
    actions = trimtab.get("/v1/actions/detail", shell.sent, action_plan_uuid=plan["uuid"])["actions"]
    assert [row["action_type"] for row in actions] == ["nop", "nop", "sleep"]
    short = [shown(row, columns.ACTION) for row in actions]
    assert shell.json("action", "list", "--action-plan", plan["uuid"]) == short
    assert shell.json("action", "list", "--audit", plan["audit_uuid"]) == short
    full = [shown(row, action_full(shell.minor)) for row in actions]
    assert shell.json("action", "list", "--audit", plan["audit_uuid"], "--detail") == full
    assert shell.json("action", "show", actions[0]["uuid"]) == full[0]
    assert (
        shell.json("action", "list", "--sort-key", "uuid", "--limit", "2", "--marker", actions[0]["uuid"]) is not None
    )
    both = shell.fails("action", "list", "--audit", plan["audit_uuid"], "--action-plan", plan["uuid"])
    assert "Filtering actions on both audit and action-plan is prohibited" in both
    assert "could not be found" in shell.fails("action", "show", NOBODY)


def test_an_action_is_skipped(shell: Shell, trimtab: Trimtab) -> None:
    plan = dummy_plan(trimtab)
    first, second, _ = trimtab.actions(plan["uuid"])
    words = ("action", "update", first["uuid"], "--state", "SKIPPED", "--reason", "not today")
    if shell.minor < 5:
        assert "Minimum required version is 1.5" in shell.fails(*words)
        return
    skipped = shell.json(*words)
    assert skipped["State"] == "SKIPPED"
    assert skipped["Status Message"] == "Action skipped by user. Reason: not today"
    again = shell.json("action", "update", first["uuid"], "--reason", "still not")
    assert again["Status Message"] == "Action skipped by user. Reason: still not"
    refused = shell.fails("action", "update", second["uuid"], "--reason", "why")
    assert "status_message update only allowed when action state is SKIPPED" in refused
    shell.json("actionplan", "start", plan["uuid"])
    ended = trimtab.until(f"/v1/action_plans/{plan['uuid']}", lambda body: body["state"] in PLAN_ENDED)
    assert (ended["state"], ended["status_message"]) == ("SUCCEEDED", "One or more actions were skipped.")
    states = [row["State"] for row in shell.json("action", "list", "--action-plan", plan["uuid"])]
    assert states == ["SKIPPED", "SUCCEEDED", "SUCCEEDED"]


def test_what_is_not_there_is_named(usual_shell: Shell) -> None:
    for words, told in [
        (("goal", "show", "nope"), "Goal nope could not be found"),
        (("strategy", "show", "nope"), "Strategy nope could not be found"),
        (("strategy", "state", "nope"), "Strategy nope could not be found"),
        (("audittemplate", "show", "nope"), "AuditTemplate nope could not be found"),
        (("audittemplate", "delete", "nope"), "AuditTemplate nope could not be found"),
        (("audit", "show", "nope"), "Audit nope could not be found"),
        (("audit", "delete", NOBODY), f"Audit {NOBODY} could not be found"),
        (("audit", "create", "-g", "nope"), "Goal nope could not be found"),
        (("actionplan", "show", NOBODY), f"ActionPlan {NOBODY} could not be found"),
        (("actionplan", "start", NOBODY), f"ActionPlan {NOBODY} could not be found"),
        (("scoringengine", "show", "nope"), "ScoringEngine nope could not be found"),
        (("service", "show", "nope"), "The service nope cannot be found"),
        (("goal", "list", "--marker", NOBODY), f"Goal {NOBODY} could not be found"),
    ]:
        assert told in usual_shell.fails(*words), words


def test_what_is_wrong_is_told(usual_shell: Shell, trimtab: Trimtab, tmp_path: Path) -> None:
    name = some_name()
    trimtab.post("/v1/audit_templates", {"name": name, "goal": "dummy"})
    trimtab.post("/v1/audits", {"name": name, "goal": "dummy", "audit_type": "EVENT"})
    (tmp_path / "scope.yaml").write_text("- compute:\n  - availability_zones: [1]\n")
    create = ("audit", "create", "-g", "dummy")
    for words, told in [
        (("audittemplate", "create", name, "dummy"), f"An audit_template with UUID or name {name} already exists"),
        (("audit", "create", "-g", "dummy", "--name", name), f"An audit with UUID or name {name} already exists"),
        (("audittemplate", "create", some_name(), "dummy", "-s", "basic"), "strategy does relate to the"),
        (("audittemplate", "create", some_name(), "dummy", "--scope", str(tmp_path / "scope.yaml")), "scope"),
        (("audittemplate", "update", name, "remove", "goal"), "Cannot remove 'goal' attribute from an audit template"),
        ((*create, "-i", "60"), "Interval of audit must not be set for ONESHOT."),
        ((*create, "-t", "CONTINUOUS"), "Interval of audit must be specified for CONTINUOUS."),
        ((*create, "-a", name), "Either audit_template_uuid or goal should be provided."),
        (("audit", "create"), "A valid goal or audit_template_id must be provided"),
        ((*create, "-s", "dummy", "-p", "dunno=1"), "Audit parameter dunno are not allowed"),
        ((*create, "-s", "dummy", "-p", "para1=99"), "Invalid parameters for strategy"),
        (("audit", "update", name, "replace", "state=SUSPENDED"), "State transition not allowed"),
        (("audit", "update", name, "replace", "uuid=1"), "is an internal attribute and can not be updated"),
        (("audit", "delete", name), "Couldn't delete when state is 'PENDING'."),
    ]:
        assert told in usual_shell.fails(*words), words


def test_every_formatter_prints(usual_shell: Shell) -> None:
    for formatter in ("table", "csv", "value", "yaml"):
        assert "server_consolidation" in usual_shell.ok("goal", "list", "-f", formatter)
    for formatter in ("table", "shell", "value", "yaml"):
        assert "server_consolidation" in usual_shell.ok("goal", "show", "server_consolidation", "-f", formatter)


def test_tables_of_plans_have_their_efficacy(usual_shell: Shell, trimtab: Trimtab) -> None:
    plan = trimtab.planned(goal="server_consolidation", strategy="vm_workload_consolidation")
    assert "released_compute_nodes_count" in usual_shell.ok("actionplan", "show", plan["uuid"])
    assert "Released_nodes_ratio: " in usual_shell.ok(
        "actionplan", "list", "--audit", plan["audit_uuid"], "-c", "Global efficacy"
    )


@pytest.mark.parametrize("program", ["watcher", "openstack"])
def test_versions_that_the_server_lacks_are_refused(program: str, nursery: Worker, open_access: Access) -> None:
    told = Shell(nursery, open_access, program, "1.99").fails("goal", "list").replace("\n", " ")
    assert "1.99 is not supported" in told
    assert "Supported version range is 1.0 to 1.7" in told
