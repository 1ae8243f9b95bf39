"""What planning left out stays with the plan as notes, while its message is about what became of it."""

import asyncio
import json
from typing import Any

from typer.testing import CliRunner

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
