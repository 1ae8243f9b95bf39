"""What planning left out stays with the plan as notes, while its message is about what became of it."""

import asyncio
import json
from dataclasses import replace
from typing import Any

from typer.testing import CliRunner

from trimtab.platform.model import ClusterModel
from trimtab.platform.planner import PLANNERS
from trimtab.platform.proposal import Candidate, Limits, Migrate, Plan
from trimtab.platform.records import ActionPlan
from trimtab.serve.main import app


async def test_notes_of_a_plan_are_no_message_and_are_shown_beside_it(listening_at_work: Any) -> None:
    working, url = listening_at_work
    actions = [{"action_type": "nop", "input_parameters": {"message": "hello", "fail_execute": True}}]
    body = {"goal": "unclassified", "strategy": "actuator", "parameters": {"actions": actions}}
    made = await working.post("/v1/audits", {"audit_type": "ONESHOT", **body})
    await working.ended(f"/v1/audits/{made['uuid']}")
    (plan,) = (await working.get("/v1/action_plans/detail", audit_uuid=made["uuid"]))["action_plans"]
    assert (plan["state"], plan["status_message"]) == ("RECOMMENDED", None)
    working.store.update(ActionPlan, plan["uuid"], {"notes": ["host h9 [full] is left out"]})
    await working.post(f"/v1/action_plans/{plan['uuid']}/start", {})
    ended = await working.ended(f"/v1/action_plans/{plan['uuid']}")
    (action,) = (await working.get("/v1/actions/detail", action_plan_uuid=plan["uuid"]))["actions"]
    assert ended["state"] == "FAILED"
    assert ended["status_message"] == f"action {action['uuid']} (nop): {action['status_message']}"
    told = await working.get(f"/v1/action_plans/{plan['uuid']}/explanation")
    assert told["notes"] == ["host h9 [full] is left out"]

    async def shown(*more: str) -> str:
        command = ["plan", "show", plan["uuid"], "--url", url, *more]
        result = await asyncio.to_thread(CliRunner().invoke, app, command, env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        return str(result.output)

    body = json.loads(await shown("--json"))
    assert (body["notes"], body["status_message"]) == (told["notes"], ended["status_message"])
    text = await shown()
    assert "host h9 [full] is left out" in text
    assert "Action failed in execute" in text


async def test_indicators_and_headline_are_those_of_the_stored_plan_and_a_note_says_what_is_not(working: Any) -> None:
    def half(model: ClusterModel, candidate: Candidate, limits: Limits) -> Plan:
        moves = [step for step in candidate.steps if isinstance(step, Migrate)]
        return PLANNERS["capacity"](model, replace(candidate, steps=tuple(moves[: len(moves) // 2])), limits)

    object.__setattr__(working.parts, "planners", {"capacity": half})
    given = {"threshold": 20.0, "max_migrations": 8}
    body = {"goal": "workload_balancing", "strategy": "workload_balance", "parameters": given}
    made = await working.post("/v1/audits", {"audit_type": "ONESHOT", **body})
    assert (await working.ended(f"/v1/audits/{made['uuid']}"))["state"] == "SUCCEEDED"
    (plan,) = (await working.get("/v1/action_plans/detail", audit_uuid=made["uuid"]))["action_plans"]
    actions = (await working.get("/v1/actions", action_plan_uuid=plan["uuid"]))["actions"]
    figures = {row["name"]: row["value"] for row in plan["efficacy_indicators"]}
    assert 0 < len(actions) < 8
    assert figures["instance_migrations_count"] == len(actions)
    (headline,) = plan["global_efficacy"]
    assert headline["value"] == len(actions) / figures["instances_count"] * 100
    assert 0 < figures["standard_deviation_after_audit"] < figures["standard_deviation_before_audit"]
    told = await working.get(f"/v1/action_plans/{plan['uuid']}/explanation")
    (note,) = (text for text in told["notes"] if text.startswith("the plan is not all that was proposed"))
    assert f"instance_migrations_count is {len(actions)} instead of " in note
    chosen = (await working.get(f"/v1/audits/{made['uuid']}/candidates"))["candidates"][0]
    assert chosen["indicators"]["instance_migrations_count"] == len(actions)
