"""The API module of Horizon's plug-in, from its package: every function against a running server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from tests.peers.conftest import needed
from tests.peers.server import AUDIT_ENDED, PLAN_ENDED, Trimtab
from tests.peers.workers import Worker

pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]

NOBODY = "c0ffee00-0000-4000-8000-000000000000"
# These two call methods that python-watcherclient does not have: they work against no server.
BROKEN: dict[str, dict[str, Any]] = {
    "AuditTemplate.patch": {"audit_template_id": NOBODY, "parameters": {}},
    "Action.delete": {"action_id": NOBODY},
}
TRIED = {
    *("Audit.create", "Audit.list", "Audit.get", "Audit.delete", "Audit.cancel"),
    *("AuditTemplate.create", "AuditTemplate.list", "AuditTemplate.get", "AuditTemplate.delete"),
    *("ActionPlan.list", "ActionPlan.get", "ActionPlan.delete", "ActionPlan.start"),
    *("Action.list", "Action.get", "Action.update", "Goal.list", "Goal.get", "Strategy.list", "Strategy.get"),
    *("watcherclient", "insert_watcher_policy_file", "get_strategy_display_name"),
}


class Dashboard:
    """The plug-in, for somebody who is logged in."""

    def __init__(self, worker: Worker, url: str) -> None:
        self.worker, self.url = worker, url

    def answer(self, function: str, **arguments: Any) -> dict[str, Any]:
        return self.worker.ask(url=self.url, token="any", function=function, arguments=arguments)

    def __call__(self, function: str, **arguments: Any) -> Any:
        answer = self.answer(function, **arguments)
        assert "result" in answer, (function, arguments, answer)
        return answer["result"]

    def fails(self, function: str, **arguments: Any) -> tuple[str, str]:
        answer = self.answer(function, **arguments)
        assert "error" in answer, (function, arguments, answer)
        return answer["error"], answer["message"]


@pytest.fixture(scope="module")
def dashboard(trimtab: Trimtab) -> Iterator[Dashboard]:
    needed("horizon")
    worker = Worker("horizon", "dashboard_worker.py")
    yield Dashboard(worker, trimtab.url)
    worker.close()


def test_every_function_of_the_module_is_tried_here(dashboard: Dashboard) -> None:
    assert set(dashboard("page.functions")) == TRIED | set(BROKEN)
    for function, arguments in BROKEN.items():
        assert dashboard.fails(f"watcher.{function}", **arguments)[0] == "AttributeError"


def test_the_plugin_learns_which_microversions_there_are(dashboard: Dashboard) -> None:
    assert dashboard("client.get_max_version") == "1.7"
    assert dashboard("page.policies")["infra-optim"] == "watcher_policy.yaml"


def test_goals_and_strategies(dashboard: Dashboard, trimtab: Trimtab) -> None:
    assert dashboard("watcher.Goal.list") == trimtab.get("/v1/goals/detail", "1.0")["goals"]
    goal = dashboard("watcher.Goal.get", goal="server_consolidation")
    assert goal == trimtab.get("/v1/goals/server_consolidation", "1.0")
    assert {spec["name"] for spec in goal["efficacy_specification"]} >= {"compute_nodes_count"}
    assert dashboard("watcher.Strategy.list") == trimtab.get("/v1/strategies/detail", "1.0")["strategies"]
    of_goal = dashboard("watcher.Strategy.list", goal=goal["uuid"])
    assert {row["goal_uuid"] for row in of_goal} == {goal["uuid"]}
    strategy = dashboard("watcher.Strategy.get", strategy=of_goal[0]["uuid"])
    assert strategy == trimtab.get(f"/v1/strategies/{of_goal[0]['uuid']}", "1.0")
    assert dashboard("page.strategy_name", strategy="dummy") == "Dummy strategy"
    error, text = dashboard.fails("watcher.Goal.get", goal="nope")
    assert error == "NotFound"
    assert "Goal nope could not be found" in text


def test_templates(dashboard: Dashboard, trimtab: Trimtab) -> None:
    name = f"peer-{uuid4().hex}"
    goal, strategy = (trimtab.get(f"/v1/{path}/dummy")["uuid"] for path in ("goals", "strategies"))
    scope = [{"availability_zones": [{"name": "*"}]}]
    what = {"name": name, "goal": goal, "strategy": strategy, "description": "d", "scope": scope}
    made = dashboard("watcher.AuditTemplate.create", **what)
    assert made["scope"] == [{"compute": scope}]
    assert dashboard("watcher.AuditTemplate.get", audit_template_id=made["uuid"]) == made
    assert made in dashboard("watcher.AuditTemplate.list", goal=goal, strategy=strategy)
    assert dashboard.fails("watcher.AuditTemplate.create", **what)[0] == "Conflict"
    launched = dashboard("watcher.Audit.create", audit_template_uuid=made["uuid"], audit_type="ONESHOT")
    trimtab.until(f"/v1/audits/{launched['uuid']}", lambda body: body["state"] in AUDIT_ENDED)
    dashboard("watcher.AuditTemplate.delete", audit_template_id=made["uuid"])
    assert not trimtab.exists(f"/v1/audit_templates/{name}")


def test_audits(dashboard: Dashboard, trimtab: Trimtab) -> None:
    template = trimtab.post(
        "/v1/audit_templates", {"name": f"peer-{uuid4().hex}", "goal": "dummy", "strategy": "dummy"}
    )
    what = {"audit_template_uuid": template["uuid"], "audit_type": "CONTINUOUS", "interval": "3600"}
    name = f"peer-{uuid4().hex}"
    made = dashboard(
        "watcher.Audit.create",
        **what,
        name=name,
        parameters={"para1": 2.0},
        auto_trigger=False,
        start_time="2030-01-01T00:00:00",
        end_time="2030-02-01T00:00:00",
        api_version="1.1",
    )
    assert (made["name"], made["start_time"], made["end_time"]) == (name, "2030-01-01T00:00:00", "2030-02-01T00:00:00")
    trimtab.until(f"/v1/audits/{made['uuid']}", lambda body: body["hostname"] is not None)  # the engine has it
    for version in ("1.0", "1.1"):
        shown = trimtab.get(f"/v1/audits/{made['uuid']}", version)
        assert dashboard("watcher.Audit.get", audit_id=made["uuid"], api_version=version) == shown
        assert shown in dashboard("watcher.Audit.list", goal="dummy", strategy="dummy", api_version=version)
    assert {name: shown[name] for name in made if name not in {"hostname", "updated_at"}} == {
        name: value for name, value in made.items() if name not in {"hostname", "updated_at"}
    }
    assert dashboard("watcher.Audit.get", audit_id=made["uuid"]) == trimtab.get(f"/v1/audits/{made['uuid']}", "1.0")
    assert dashboard.fails("watcher.Audit.create", **what, name=name)[0] == "Conflict"
    assert dashboard("watcher.Audit.cancel", audit_id=made["uuid"])["state"] == "CANCELLED"
    dashboard("watcher.Audit.delete", audit_id=made["uuid"])
    assert dashboard.fails("watcher.Audit.get", audit_id=made["uuid"])[0] == "NotFound"


def test_plans_and_actions(dashboard: Dashboard, trimtab: Trimtab) -> None:
    plan = trimtab.planned(strategy="dummy", parameters={"para1": 1.0})
    (listed,) = dashboard("watcher.ActionPlan.list", audit=plan["audit_uuid"])
    assert listed == trimtab.get(f"/v1/action_plans/{plan['uuid']}", "1.0")
    shown = dashboard("watcher.ActionPlan.get", action_plan_id=plan["uuid"], api_version="1.5")
    assert shown == trimtab.get(f"/v1/action_plans/{plan['uuid']}", "1.5")
    actions = dashboard("watcher.Action.list", action_plan=plan["uuid"])
    assert [row["action_type"] for row in actions] == ["nop", "nop", "sleep"]
    first = actions[0]["uuid"]
    assert dashboard("watcher.Action.get", action_id=first) == actions[0]
    skipped = dashboard("watcher.Action.update", action_id=first, state="SKIPPED", reason="no need", api_version="1.5")
    assert (skipped["state"], skipped["status_message"]) == ("SKIPPED", "Action skipped by user. Reason: no need")
    assert dashboard("watcher.Action.get", action_id=first, api_version="1.5") == skipped
    assert dashboard.fails("watcher.Action.update", action_id=first, state="SKIPPED")[0] == "BadRequest"
    assert dashboard("watcher.ActionPlan.start", action_plan_id=plan["uuid"]) is None
    ended = trimtab.until(f"/v1/action_plans/{plan['uuid']}", lambda body: body["state"] in PLAN_ENDED)
    assert (ended["state"], ended["status_message"]) == ("SUCCEEDED", "One or more actions were skipped.")
    dashboard("watcher.ActionPlan.delete", action_plan_id=plan["uuid"])
    assert dashboard.fails("watcher.ActionPlan.get", action_plan_id=plan["uuid"])[0] == "NotFound"


def test_the_efficacy_of_a_plan_is_a_table(dashboard: Dashboard, trimtab: Trimtab) -> None:
    plan = trimtab.planned(goal="server_consolidation", strategy="vm_workload_consolidation")
    rows = dashboard("page.indicators", plan=plan["uuid"])
    assert {name for name, *_ in rows} >= {"compute_nodes_count", "released_compute_nodes_count"}
    assert all(isinstance(value, float) for *_, value in rows)
