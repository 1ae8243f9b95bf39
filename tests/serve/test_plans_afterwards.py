"""Plans on request: of a candidate that was not chosen, and one that undoes a plan that ran; through HTTP, for real."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Mapping
from typing import Any

import pytest

from trimtab.simulator.faults import Fault

PLANS = "/v1/action_plans"


async def consolidated(working: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A server consolidation's audit and its recommended plan."""
    made = await working.post("/v1/audits", {"audit_type": "ONESHOT", "goal": "server_consolidation"})
    audit = dict(await working.ended(f"/v1/audits/{made['uuid']}"))
    (plan,) = (await working.get(f"{PLANS}/detail", audit_uuid=audit["uuid"]))["action_plans"]
    return audit, dict(plan)


async def balanced(working: Any) -> dict[str, Any]:
    """A plan that moves instances and nothing else."""
    body = {"audit_type": "ONESHOT", "goal": "workload_balancing", "strategy": "workload_stabilization"}
    made = await working.post("/v1/audits", {**body, "parameters": {"thresholds": {"instance_cpu_usage": 0.01}}})
    await working.ended(f"/v1/audits/{made['uuid']}")
    (plan,) = (await working.get(f"{PLANS}/detail", audit_uuid=made["uuid"]))["action_plans"]
    return dict(plan)


async def actions_of(working: Any, plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list((await working.get("/v1/actions/detail", action_plan_uuid=plan["uuid"], limit=1000))["actions"])


async def run(working: Any, plan: Mapping[str, Any]) -> dict[str, Any]:
    await working.post(f"{PLANS}/{plan['uuid']}/start", {})
    return dict(await working.ended(f"{PLANS}/{plan['uuid']}"))


def places(working: Any) -> dict[str, str]:
    inventory = working.cloud.inventory()
    return {row["uuid"]: row["node"] for row in inventory[1].to_pylist()}


def services(working: Any) -> dict[str, str]:
    return {row["hostname"]: row["status"] for row in working.cloud.inventory()[0].to_pylist()}


async def refusal(working: Any, path: str, status: int) -> str:
    answer = await working.http.post(path, json={})
    assert answer.status_code == status, answer.text
    return str(answer.text)


async def test_a_candidate_that_lost_is_planned_and_the_plan_nobody_started_superseded(working: Any) -> None:
    audit, recommended = await consolidated(working)
    path = f"/v1/audits/{audit['uuid']}/candidates"
    candidates = (await working.get(path))["candidates"]
    loser = next(c for c in candidates if c["verdict"] == "ranked" and c["strategy_name"] != "do_nothing")
    answer = await working.http.post(f"{path}/{loser['number']}/plan", json={})
    assert answer.status_code == 201, answer.text
    plan = answer.json()
    assert (plan["state"], plan["strategy_name"]) == ("RECOMMENDED", loser["strategy_name"])
    assert plan["audit_uuid"] == audit["uuid"]
    old = await working.get(f"{PLANS}/{recommended['uuid']}")
    assert old["state"] == "SUPERSEDED"
    actions = await actions_of(working, plan)
    steps = (await working.get(f"{path}/{loser['number']}"))["steps"]
    moved = {step["instance"]: step["to"] for step in steps if "instance" in step}
    planned = {a["input_parameters"]["resource_id"]: a for a in actions if a["action_type"] == "migrate"}
    assert planned.keys() == moved.keys()
    explained = (await working.get(f"{PLANS}/{plan['uuid']}/explanation"))["explanation"]
    assert {one["action_uuid"] for one in explained} <= {a["uuid"] for a in actions}
    assert explained
    ended = await run(working, plan)
    assert ended["state"] == "SUCCEEDED"
    words = await refusal(working, f"{path}/{loser['number']}/plan", 409)
    assert "does not hold any more" in words
    assert "already" in words


async def test_a_candidate_is_ordered_by_the_planner_it_asked_for(working: Any) -> None:
    body = {"audit_type": "ONESHOT", "goal": "server_consolidation", "strategy": "node_resource_consolidation"}
    made = await working.post("/v1/audits", body)
    await working.ended(f"/v1/audits/{made['uuid']}")
    (first,) = (await working.get(f"{PLANS}/detail", audit_uuid=made["uuid"]))["action_plans"]
    candidates = (await working.get(f"/v1/audits/{made['uuid']}/candidates"))["candidates"]
    chosen = next(c for c in candidates if c["verdict"] == "chosen")
    answer = await working.http.post(f"/v1/audits/{made['uuid']}/candidates/{chosen['number']}/plan", json={})
    assert answer.status_code == 201, answer.text

    async def graph(plan: Mapping[str, Any]) -> list[Any]:
        actions = await actions_of(working, plan)
        position = {action["uuid"]: number for number, action in enumerate(actions)}
        return [(a["action_type"], sorted(position[parent] for parent in a["parents"])) for a in actions]

    assert await graph(answer.json()) == await graph(first)


async def test_candidates_with_nothing_to_do_and_unknown_ones_are_refused(working: Any) -> None:
    audit, _ = await consolidated(working)
    path = f"/v1/audits/{audit['uuid']}/candidates"
    nothing = next(c for c in (await working.get(path))["candidates"] if c["strategy_name"] == "do_nothing")
    assert "nothing to do" in await refusal(working, f"{path}/{nothing['number']}/plan", 409)
    assert "no candidate 999" in await refusal(working, f"{path}/999/plan", 404)


async def test_a_plan_that_ran_is_undone_on_request(working: Any) -> None:
    before, enabled = places(working), services(working)
    _, plan = await consolidated(working)
    assert "only a plan that is over" in await refusal(working, f"{PLANS}/{plan['uuid']}/rollback", 409)
    await run(working, plan)
    assert places(working) != before
    answer = await working.http.post(f"{PLANS}/{plan['uuid']}/rollback", json={})
    assert answer.status_code == 201, answer.text
    back = answer.json()
    assert back["state"] == "RECOMMENDED"
    assert "already" in await refusal(working, f"{PLANS}/{plan['uuid']}/rollback", 409)
    ended = await run(working, back)
    assert ended["state"] == "SUCCEEDED", [a["status_message"] for a in await actions_of(working, back)]
    assert places(working) == before
    assert services(working) == enabled
    assert "left to undo" in await refusal(working, f"{PLANS}/{plan['uuid']}/rollback", 409)
    # What undid it can itself be undone.
    again = (await working.http.post(f"{PLANS}/{back['uuid']}/rollback", json={})).json()
    assert len(await actions_of(working, again)) > 0


async def test_instances_that_moved_on_stay_where_they_are(working: Any) -> None:
    plan = await balanced(working)
    await run(working, plan)
    moves = [a["input_parameters"] for a in await actions_of(working, plan) if a["action_type"] == "migrate"]
    first = moves[0]
    working.cloud.migrate(first["resource_id"], first["source_node"], live=True)
    while places_named(working)[first["resource_id"]] != first["source_node"]:  # noqa: ASYNC110 (the cloud has no bell)
        await asyncio.sleep(0.05)
    back = (await working.http.post(f"{PLANS}/{plan['uuid']}/rollback", json={})).json()
    undone = [a["input_parameters"]["resource_id"] for a in await actions_of(working, back)]
    assert first["resource_id"] not in undone
    notes = (await working.get(f"{PLANS}/{back['uuid']}/explanation"))["notes"]
    assert any(first["resource_id"] in note and "already" in note for note in notes)


async def test_what_cannot_go_back_holds_nothing_else_up(working: Any) -> None:
    plan = await balanced(working)
    await run(working, plan)
    moves = [a["input_parameters"] for a in await actions_of(working, plan) if a["action_type"] == "migrate"]
    sources = [move["source_node"] for move in moves]
    lost = sources[0]
    assert set(sources) != {lost}, "somebody came from elsewhere"
    working.cloud.inject(Fault("host_dies", lost))
    back = (await working.http.post(f"{PLANS}/{plan['uuid']}/rollback", json={})).json()
    undone = {a["input_parameters"]["resource_id"] for a in await actions_of(working, back)}
    stays = {move["resource_id"] for move in moves if move["source_node"] == lost}
    assert undone
    assert not undone & stays
    notes = (await working.get(f"{PLANS}/{back['uuid']}/explanation"))["notes"]
    assert all(any(instance in note and f"host {lost} is down" in note for note in notes) for instance in stays)


def places_named(working: Any) -> dict[str, str]:
    hosts = {row["uuid"]: row["hostname"] for row in working.cloud.inventory()[0].to_pylist()}
    return {instance: hosts.get(host, "") for instance, host in places(working).items()}


@pytest.mark.parametrize("path", ["/v1/action_plans/{}/rollback", "/v1/audits/{}/candidates/0/plan"])
async def test_what_is_not_there_is_not_found(idle: Any, path: str) -> None:
    answer = await idle.http.post(path.format("7a1a3bd8-7f0c-4f0c-9a33-2f4a7b6ce9ff"), json={})
    assert answer.status_code == 404


async def test_the_command_line_does_both(listening_at_work: Any) -> None:
    working, url = listening_at_work
    audit, _ = await consolidated(working)
    candidates = (await working.get(f"/v1/audits/{audit['uuid']}/candidates"))["candidates"]
    loser = next(c for c in candidates if c["verdict"] == "ranked" and c["strategy_name"] != "do_nothing")

    async def trimtab(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "trimtab.serve.main", *words, "--url", url]
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT)
        said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()

    code, said = await trimtab("audit", "plan", audit["uuid"], "--candidate", str(loser["number"]), "--json")
    assert code == 0, said
    plan = json.loads(said)
    await run(working, plan)
    code, said = await trimtab("plan", "rollback", plan["uuid"])
    assert code == 0, said
    assert "trimtab plan start" in said
    code, said = await trimtab("plan", "rollback", plan["uuid"])
    assert code == 1
    assert "already" in said
