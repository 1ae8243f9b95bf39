"""node_resource_consolidation from an audit to a plan that does not end well: no host that is in use stays disabled."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from trimtab.simulator.faults import Fault
from trimtab.simulator.truth import CloudSpec

AUDIT = {
    "audit_type": "ONESHOT",
    "goal": "server_consolidation",
    "strategy": "node_resource_consolidation",
    "parameters": {"host_choice": "auto"},
}


@pytest.fixture
async def slow(whole_trimtab: Any, tmp_path: Path) -> AsyncIterator[Any]:
    """A cloud in which a migration takes long enough to be stopped in the middle of a plan."""
    async with whole_trimtab(tmp_path, CloudSpec(hosts=14, instances=80, seed=3, speed=60.0)) as running:
        yield running


def disabled(cloud: Any) -> set[str]:
    return {name for name in cloud.inventory().hosts["hostname"].to_pylist() if not cloud.service(name).enabled}


async def planned(trimtab: Any) -> tuple[str, list[dict[str, Any]]]:
    """The plan of an audit and its actions."""
    audit = await trimtab.post("/v1/audits", AUDIT)
    assert (await trimtab.ended(f"/v1/audits/{audit['uuid']}"))["state"] == "SUCCEEDED"
    (plan,) = (await trimtab.get("/v1/action_plans/detail", audit_uuid=audit["uuid"]))["action_plans"]
    return plan["uuid"], await actions_of(trimtab, plan["uuid"])


async def actions_of(trimtab: Any, plan: str) -> list[dict[str, Any]]:
    return list((await trimtab.get("/v1/actions/detail", action_plan_uuid=plan))["actions"])


async def test_a_cancelled_plan_opens_every_host_that_it_closed(slow: Any) -> None:
    before = disabled(slow.cloud)
    plan, actions = await planned(slow)
    closes = {
        a["input_parameters"]["resource_name"] for a in actions if a["input_parameters"].get("state") == "disabled"
    }
    assert closes - before, "there is something to open again"
    assert all("destination_node" not in a["input_parameters"] for a in actions if a["action_type"] == "migrate")
    await slow.post(f"/v1/action_plans/{plan}/start", {})
    async with asyncio.timeout(30):
        while not any(a["action_type"] == "migrate" and a["state"] != "PENDING" for a in actions):
            await asyncio.sleep(0.02)
            actions = await actions_of(slow, plan)
    assert closes <= disabled(slow.cloud), "all are closed before the first instance goes where the cloud likes"
    cancel = [{"op": "replace", "path": "/state", "value": "CANCELLING"}]
    assert (await slow.http.patch(f"/v1/action_plans/{plan}", json=cancel)).status_code == 200
    assert (await slow.ended(f"/v1/action_plans/{plan}"))["state"] == "CANCELLED"
    states = {a["state"] for a in await actions_of(slow, plan) if a["action_type"] == "migrate"}
    assert "CANCELLED" in states, "it was stopped in the middle"
    assert disabled(slow.cloud) == before


async def test_a_host_that_an_instance_could_not_leave_is_enabled_in_the_end(working: Any) -> None:
    before = disabled(working.cloud)
    plan, actions = await planned(working)
    moves = [a["input_parameters"] for a in actions if a["action_type"] == "migrate"]
    stuck = moves[0]["source_node"]
    emptied = {move["source_node"] for move in moves} - {stuck}
    assert emptied
    working.cloud.inject(Fault("migration_fails", moves[0]["resource_id"]))
    await working.post(f"/v1/action_plans/{plan}/start", {})
    await working.ended(f"/v1/action_plans/{plan}")
    left = [server.id for server in working.cloud.residents(stuck)]
    assert left == [moves[0]["resource_id"]]
    assert disabled(working.cloud) == before | emptied
