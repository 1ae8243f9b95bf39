"""Parameters that a strategy would refuse when it runs are refused when the audit or the template is made."""

from typing import Any

import pytest

from trimtab.platform.records import Strategy
from trimtab.serve.parameters import checked

BOTH = {"maintenance_node": "compute-1", "backup_node": "compute-1"}
WRONG = [
    ("host_maintenance", BOTH, "backup_node"),
    ("host_maintenance", {"maintenance_node": "a", "more_backup_nodes": ["b", "a"]}, "a is to be maintained"),
    ("workload_stabilization", {"host_choice": "dice"}, "host_choice: "),
    ("workload_balance", {"metrics": "noise"}, "metrics: load cannot be balanced by 'noise'"),
]
GOAL = {"host_maintenance": "cluster_maintaining"}


@pytest.mark.parametrize(("strategy", "given", "text"), WRONG)
async def test_parameters_that_do_not_go_together_make_no_audit_and_no_template(
    idle: Any, strategy: str, given: dict[str, Any], text: str
) -> None:
    goal = GOAL.get(strategy, "workload_balancing")
    audit = {"audit_type": "ONESHOT", "goal": goal, "strategy": strategy, "parameters": given}
    answer = await idle.http.post("/v1/audits", json=audit)
    assert answer.status_code == 400, answer.text
    assert "Invalid parameters for strategy: " in answer.text
    assert text in answer.text
    assert "Value error" not in answer.text
    template = {"name": "t", "goal": goal, "strategy": strategy, "default_parameters": given}
    answer = await idle.http.post("/v1/audit_templates", json=template)
    assert answer.status_code == 400, answer.text
    assert "Invalid default_parameters for strategy: " in answer.text
    assert text in answer.text
    assert (await idle.get("/v1/audits"))["audits"] == []
    assert (await idle.get("/v1/audit_templates"))["audit_templates"] == []


async def test_defaults_that_are_fine_alone_are_judged_with_what_an_audit_adds(idle: Any) -> None:
    body = {"goal": "cluster_maintaining", "strategy": "host_maintenance"}
    fine = {"maintenance_node": "compute-2", "backup_node": "compute-1"}
    made = await idle.post("/v1/audit_templates", {"name": "t", **body, "default_parameters": fine})
    audit = {"audit_type": "ONESHOT", "audit_template_uuid": made["uuid"]}
    answer = await idle.http.post("/v1/audits", json={**audit, "parameters": {"maintenance_node": "compute-1"}})
    assert (answer.status_code, "backup_node" in answer.text) == (400, True), answer.text
    assert (await idle.post("/v1/audits", audit))["parameters"]["backup_node"] == "compute-1"


def test_of_a_strategy_that_is_not_installed_the_schema_is_all_there_is() -> None:
    spec = {"properties": {"size": {"type": "integer", "default": 3}}}
    gone = Strategy(uuid="u", name="gone", display_name="Gone", goal_id=1, parameters_spec=spec)
    assert checked(gone, {}) == {"size": 3}
    assert checked(gone, {"size": 4}) == {"size": 4}
