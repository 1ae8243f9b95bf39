"""Dry runs: what the cloud refuses is not recommended; a plan gone stale says so, and only its stale steps change."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.serve.conftest import whole
from tests.serve.test_plans_afterwards import PLANS, actions_of, balanced, places_named, refusal, run

from trimtab.platform import engine
from trimtab.platform.contracts import Wanted
from trimtab.platform.errors import CloudUnavailable
from trimtab.platform.records import Audit
from trimtab.simulator.truth import CloudSpec


async def check(working: Any, plan: Any) -> dict[str, Any]:
    answer = await working.http.post(f"{PLANS}/{plan['uuid']}/check", json={})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def moves(actions: Sequence[Any]) -> dict[str, str]:
    return {
        a["input_parameters"]["resource_id"]: a["input_parameters"]["destination_node"]
        for a in actions
        if a["action_type"] == "migrate"
    }


async def moved(working: Any, instance: str, to: str) -> None:
    """Somebody else moves an instance."""
    working.cloud.migrate(instance, to, live=True)
    for _ in range(1000):
        if places_named(working)[instance] == to:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{instance} did not arrive on {to}")


async def test_a_fresh_plan_holds_and_is_not_planned_again(working: Any) -> None:
    plan = await balanced(working)
    checked = await check(working, plan)
    assert (checked["stale"], checked["notes"]) == (0, [])
    assert [a["uuid"] for a in checked["actions"]] == [a["uuid"] for a in await actions_of(working, plan)]
    assert all(a["holds"] and a["reason"] is None for a in checked["actions"])
    assert "holds as it is" in await refusal(working, f"{PLANS}/{plan['uuid']}/replan", 409)


async def test_only_what_does_not_hold_is_planned_again(working: Any) -> None:
    plan = await balanced(working)
    planned = moves(await actions_of(working, plan))
    assert len(planned) >= 3
    (first, there), (second, closed) = next(
        (a, b) for a in planned.items() for b in planned.items() if a[1] != b[1] and a[0] != b[0]
    )
    await moved(working, first, there)
    working.cloud.set_service(closed, enabled=False, reason="maintenance")
    checked = await check(working, plan)
    stale = {a["uuid"]: a["reason"] for a in checked["actions"] if not a["holds"]}
    assert checked["stale"] == len(stale) >= 2
    assert any(f"instance {first} is on {there} already" in why for why in stale.values())
    assert any(closed in why and "disabled" in why for why in stale.values())
    assert (await working.get(f"{PLANS}/{plan['uuid']}"))["state"] == "RECOMMENDED", "a look changes nothing"
    answer = await working.http.post(f"{PLANS}/{plan['uuid']}/replan", json={})
    assert answer.status_code == 201, answer.text
    fresh = answer.json()
    assert (fresh["state"], fresh["audit_uuid"]) == ("RECOMMENDED", plan["audit_uuid"])
    assert (await working.get(f"{PLANS}/{plan['uuid']}"))["state"] == "SUPERSEDED"
    again = moves(await actions_of(working, fresh))
    held = {i: to for i, to in planned.items() if i != first and to != closed}
    assert {i: to for i, to in again.items() if i in held} == held
    assert first not in again
    assert closed not in again.values()
    assert second in again
    notes = (await working.get(f"{PLANS}/{fresh['uuid']}/explanation"))["notes"]
    assert any(f"migrate of {first} is left out" in note for note in notes)
    assert any(f"instance {second} goes to {again[second]}" in note for note in notes)
    assert (await check(working, fresh))["stale"] == 0
    assert (await run(working, fresh))["state"] == "SUCCEEDED"
    now = places_named(working)
    assert {i: now[i] for i in again} == again


async def test_an_instance_that_was_moved_by_somebody_else_still_goes_where_it_was_to_go(working: Any) -> None:
    plan = await balanced(working)
    planned = moves(await actions_of(working, plan))
    instance, to = next(iter(planned.items()))
    here = places_named(working)[instance]
    hosts = {row["hostname"] for row in working.cloud.inventory()[0].to_pylist()} - {here, to, *planned.values()}
    (other,) = [h for h in sorted(hosts) if not working.cloud.refusals([Wanted(instance, h)])[0]][:1]
    await moved(working, instance, other)
    checked = await check(working, plan)
    (reason,) = [a["reason"] for a in checked["actions"] if not a["holds"]]
    assert reason == f"instance {instance} has moved from {here} to {other}"
    fresh = (await working.http.post(f"{PLANS}/{plan['uuid']}/replan", json={})).json()
    again = [a for a in await actions_of(working, fresh) if a["input_parameters"]["resource_id"] == instance]
    assert [(a["input_parameters"]["source_node"], a["input_parameters"]["destination_node"]) for a in again] == [
        (other, to)
    ]


async def test_a_plan_of_which_nothing_is_left_is_not_planned_again(working: Any) -> None:
    plan = await balanced(working)
    for instance, to in moves(await actions_of(working, plan)).items():
        await moved(working, instance, to)
    assert "is left to do" in await refusal(working, f"{PLANS}/{plan['uuid']}/replan", 409)
    assert (await working.get(f"{PLANS}/{plan['uuid']}"))["state"] == "RECOMMENDED"


async def test_only_plans_that_wait_can_be_checked(working: Any) -> None:
    plan = await balanced(working)
    await run(working, plan)
    assert "only a plan that waits" in await refusal(working, f"{PLANS}/{plan['uuid']}/check", 409)
    assert "only a plan that waits" in await refusal(working, f"{PLANS}/{plan['uuid']}/replan", 409)
    missing = await working.http.post(f"{PLANS}/7a1a3bd8-7f0c-4f0c-9a33-2f4a7b6ce9ff/check", json={})
    assert missing.status_code == 404


# -- before a plan is recommended ----------------------------------------------------------------------------


BALANCE = {
    "goal": "workload_balancing",
    "strategy": "workload_stabilization",
    "parameters": {"thresholds": {"instance_cpu_usage": 0.01}},
}
EMPTY = {"goal": "server_consolidation", "strategy": "vm_workload_consolidation"}


async def audited(
    idle: Any, refusals: Any, body: Mapping[str, Any] = BALANCE
) -> tuple[Any, list[dict[str, Any]], list[str]]:
    """The audit, the moves of its plan and the plan's notes, where the cloud answers so."""
    made = await idle.post("/v1/audits", {"audit_type": "ONESHOT", **body})
    await engine.run_audit(replace(idle.parts, refusals=refusals), made["uuid"])
    (plan,) = (await idle.get(f"{PLANS}/detail", audit_uuid=made["uuid"]))["action_plans"]
    notes = (await idle.get(f"{PLANS}/{plan['uuid']}/explanation"))["notes"]
    return idle.store.get(Audit, made["uuid"]), await actions_of(idle, plan), notes


@pytest.fixture
async def waiting(tmp_path: Path) -> Any:
    async with whole(tmp_path, CloudSpec(hosts=20, instances=120, seed=3), working=False) as running:
        yield running


async def test_what_the_cloud_refuses_is_not_recommended(waiting: Any) -> None:
    asked: list[Wanted] = []

    async def against(wanted: Sequence[Wanted]) -> list[str]:
        asked.extend(wanted)
        return [
            f"host {one.destination} is full of ghosts" if one.server_id == asked[0].server_id else "" for one in wanted
        ]

    _, actions, notes = await audited(waiting, against)
    refused = asked[0].server_id
    assert moves(actions)
    assert refused not in moves(actions)
    assert any(f"instance {refused} stays: host" in note and "ghosts" in note for note in notes)
    hosts = {row["hostname"] for row in waiting.cloud.inventory()[0].to_pylist()}
    assert {one.destination for one in asked} <= hosts


async def test_no_host_is_closed_that_a_refused_instance_stays_on(waiting: Any) -> None:
    refused: list[str] = []

    async def against(wanted: Sequence[Wanted]) -> list[str]:
        refused[:] = refused or [wanted[0].server_id]
        return ["not this one" if one.server_id in refused else "" for one in wanted]

    _, actions, notes = await audited(waiting, against, EMPTY)
    closed = {
        a["input_parameters"]["resource_name"]
        for a in actions
        if a["action_type"] == "change_nova_service_state" and a["input_parameters"]["state"] == "disabled"
    }
    home = places_named(waiting)[refused[0]]
    assert closed, "others are emptied and closed"
    assert home not in closed
    assert f"{home} stays enabled: not all who should leave it can" in notes


async def test_a_candidate_of_which_everything_is_refused_is_rejected_with_the_clouds_words(waiting: Any) -> None:
    async def against(wanted: Sequence[Wanted]) -> list[str]:
        return ["no more visitors"] * len(wanted)

    audit, actions, _ = await audited(waiting, against)
    assert not actions
    assert audit.state == "SUCCEEDED"
    candidates = (await waiting.get(f"/v1/audits/{audit.uuid}/candidates"))["candidates"]
    assert [c["reason"] for c in candidates if c["verdict"] == "rejected"] != []
    assert all("no more visitors" in c["reason"] for c in candidates if c["verdict"] == "rejected")


async def test_a_cloud_that_does_not_answer_fails_no_audit_and_is_told(waiting: Any) -> None:
    async def dead(_: Sequence[Wanted]) -> list[str]:
        raise CloudUnavailable("Placement is away")

    audit, actions, notes = await audited(waiting, dead)
    assert audit.state == "SUCCEEDED"
    assert moves(actions)
    assert any("was not asked whether it takes the moves" in note for note in notes)


async def test_the_command_line_checks_and_plans_again(listening_at_work: Any) -> None:
    working, url = listening_at_work
    plan = await balanced(working)

    async def trimtab(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "trimtab.serve.main", "plan", "check", plan["uuid"], *words, "--url", url]
        process = await create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT)
        said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()

    total = len(await actions_of(working, plan))
    code, said = await trimtab()
    assert (code, f"{total} of {total} steps hold" in said) == (0, True), said
    await moved(working, *next(iter(moves(await actions_of(working, plan)).items())))
    code, said = await trimtab()
    assert code == 1
    assert f"{total - 1} of {total} steps hold" in said
    code, said = await trimtab("--json")
    assert (code, json.loads(said)["stale"]) == (1, 1)
    code, said = await trimtab("--replan", "--json")
    assert code == 0, said
    assert json.loads(said)["state"] == "RECOMMENDED"
