"""GET /v1/action_plans/{uuid}/explanation from the outside, and `trimtab plan explain`."""

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from trimtab.platform.outcome import NO_PROPOSAL
from trimtab.serve.client import Client
from trimtab.serve.main import app


async def plan_of(working: Any, **body: Any) -> dict[str, Any]:
    made = await working.post("/v1/audits", {"audit_type": "ONESHOT", **body})
    audit = await working.ended(f"/v1/audits/{made['uuid']}")
    assert audit["state"] == "SUCCEEDED", audit["status_message"]
    return dict((await working.get("/v1/action_plans/detail", audit_uuid=made["uuid"]))["action_plans"][0])


async def test_every_action_of_a_consolidation_says_why_it_is_there(working: Any) -> None:
    plan = await plan_of(working, goal="server_consolidation")
    path = f"/v1/action_plans/{plan['uuid']}/explanation"
    told = await working.get(path)
    rows = told["explanation"]
    actions = (await working.get("/v1/actions/detail", action_plan_uuid=plan["uuid"]))["actions"]
    assert [row["action_uuid"] for row in rows] == [action["uuid"] for action in actions]
    assert "hosts in use are emptied" in told["because"]
    by_uuid = {row["action_uuid"]: row for row in rows}
    for action, row in zip(actions, rows, strict=True):
        assert row["action_type"] == action["action_type"]
        assert row["why"], row
        waiting = [other["uuid"] for other in actions if action["uuid"] in other["parents"]]
        assert sorted(row["awaited_by"]) == sorted(waiting)
        assert row["blocks"] >= len(waiting)
        assert set(row["needs_room_of"]) <= set(action["parents"])
    moves = [action for action in actions if action["action_type"] == "migrate"]
    assert moves
    hosts = 20
    for action in moves:
        row, given = by_uuid[action["uuid"]], action["input_parameters"]
        assert (row["source"]["host"], row["destination"]["host"]) == (given["source_node"], given["destination_node"])
        assert row["source"]["alone"]["instances"] == row["source"]["before"]["instances"] - 1
        assert row["destination"]["alone"]["instances"] == row["destination"]["before"]["instances"] + 1
        assert row["empties_source"] == (row["source"]["after"]["instances"] == 0)
        assert row["elsewhere"]["feasible"] + sum(row["elsewhere"]["ruled_out"].values()) == hosts - 2
        assert len(row["elsewhere"]["best"]) == min(2, row["elsewhere"]["feasible"])
        assert row["duration_s"] > 0
        assert row["gib"] > 0
        assert row["without"]
    assert any(by_uuid[action["uuid"]]["empties_source"] for action in moves)
    closed = [row for row in rows if row["action_type"] == "change_nova_service_state"]
    assert closed
    assert all("holds nothing" in row["why"][0] for row in closed)


async def test_an_explanation_comes_in_pages_or_for_one_action(working: Any) -> None:
    plan = await plan_of(working, goal="server_consolidation")
    path = f"/v1/action_plans/{plan['uuid']}/explanation"
    whole = (await working.get(path))["explanation"]
    found, address, pages = [], f"{path}?limit=3", 0
    while address:
        page = (await working.http.get(address)).json()
        found += page["explanation"]
        address, pages = page.get("next"), pages + 1
    assert found == whole
    assert pages == len(whole) // 3 + 1
    one = await working.get(path, action=whole[-1]["action_uuid"])
    assert one["explanation"] == whole[-1:]
    other = await plan_of(working, goal="dummy")
    strange = await working.get(f"/v1/action_plans/{other['uuid']}/explanation", action=whole[0]["action_uuid"])
    assert strange["explanation"] == [], "an action of another plan"


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ({"limit": 0}, 400, "Limit must be positive"),
        ({"action": "no-uuid"}, 400, "Expected a uuid"),
        ({"action": "11111111-2222-3333-4444-555555555555"}, 404, "could not be found"),
        ({"marker": "11111111-2222-3333-4444-555555555555"}, 404, "could not be found"),
        ({"sort_key": "id"}, 400, "Unknown argument"),
    ],
)
async def test_what_cannot_be_explained_is_said(working: Any, query: dict[str, Any], status: int, text: str) -> None:
    plan = await plan_of(working, goal="dummy")
    answer = await working.http.get(f"/v1/action_plans/{plan['uuid']}/explanation", params=query)
    assert (answer.status_code, text in answer.text) == (status, True), answer.text


async def test_plans_of_every_kind_are_explained(working: Any) -> None:
    plan = await plan_of(working, goal="dummy")
    told = await working.get(f"/v1/action_plans/{plan['uuid']}/explanation")
    assert [row["action_type"] for row in told["explanation"]] == ["nop", "nop", "sleep"]
    assert all(row["source"] is None and row["elsewhere"] is None for row in told["explanation"])
    missing = await working.http.get("/v1/action_plans/11111111-2222-3333-4444-555555555555/explanation")
    assert missing.status_code == 404
    nothing = await plan_of(working, goal="unclassified", strategy="actuator", parameters={"actions": []})
    empty = await working.get(f"/v1/action_plans/{nothing['uuid']}/explanation")
    assert empty["explanation"] == []
    assert nothing["status_message"] in {None, NO_PROPOSAL}


async def test_the_command_and_the_client_tell_the_same(listening_at_work: Any) -> None:
    working, url = listening_at_work
    plan = await plan_of(working, goal="server_consolidation")
    path = f"/v1/action_plans/{plan['uuid']}/explanation"
    whole = await working.get(path)

    async def told(*arguments: str) -> str:
        command = ["plan", "explain", plan["uuid"], "--url", url, *arguments]
        result = await asyncio.to_thread(CliRunner().invoke, app, command, env={"COLUMNS": "160"})
        assert result.exit_code == 0, result.output
        return str(result.output)

    assert json.loads(await told("--json")) == whole
    first = next(row for row in whole["explanation"] if row["action_type"] == "migrate")
    text = await told("--action", first["action_uuid"])
    assert first["action_uuid"] in text
    for word in ("without it:", "other hosts would do", "takes about", first["source"]["host"]):
        assert word in text, text
    assert "and 1 more" not in await told("--most", str(len(whole["explanation"])))
    with Client(url) as client:
        assert await asyncio.to_thread(client.explanation, plan["uuid"]) == whole["explanation"]
        weighed = await asyncio.to_thread(client.candidates, plan["audit_uuid"])
        best = await asyncio.to_thread(client.candidate, plan["audit_uuid"], weighed[0]["number"])
        assert len(best["steps"]) == weighed[0]["steps"]
        assert "trimtab_" in await asyncio.to_thread(client.metrics)
