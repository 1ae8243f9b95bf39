"""HTTP from the outside: Watcher's shapes, status codes and error bodies; nothing runs behind it."""

import json
from typing import Any

import pytest

VERSION = "OpenStack-API-Version"


def fault(answer: Any) -> str:
    """The text inside Watcher's doubly encoded error."""
    inner = json.loads(answer.json()["error_message"])
    assert set(inner) == {"faultcode", "faultstring", "debuginfo"}
    assert inner["faultcode"] == ("Client" if answer.status_code < 500 else "Server")
    return str(inner["faultstring"])


async def test_goals_have_watchers_fields_in_list_and_show(idle: Any) -> None:
    goals = (await idle.get("/v1/goals"))["goals"]
    names = [goal["name"] for goal in goals]
    assert names == sorted(names)
    assert {"dummy", "server_consolidation", "thermal_optimization", "workload_balancing"} <= set(names)
    assert set(goals[0]) == {"uuid", "name", "display_name", "efficacy_specification", "links"}
    one = await idle.get("/v1/goals/server_consolidation")
    assert set(one) - set(goals[0]) == {"created_at", "updated_at", "deleted_at"}
    assert one["efficacy_specification"][0] == {
        "name": "compute_nodes_count",
        "description": "The total number of enabled compute nodes.",
        "unit": None,
        "schema": '{"type": "integer", "minimum": 0}',
    }
    assert one["links"] == [
        {"href": f"http://trimtab:9322/v1/goals/{one['uuid']}", "rel": "self"},
        {"href": f"http://trimtab:9322/goals/{one['uuid']}", "rel": "bookmark"},
    ]
    assert one["created_at"].endswith("+00:00")


async def test_strategies_are_filtered_by_goal_and_show_their_parameters(idle: Any) -> None:
    rows = (await idle.get("/v1/strategies", goal="workload_balancing"))["strategies"]
    names = [row["name"] for row in rows]
    assert names == ["storage_capacity_balance", "workload_balance", "workload_stabilization"]
    assert set(rows[0]) == {"uuid", "name", "display_name", "goal_uuid", "goal_name", "links"}
    one = await idle.get("/v1/strategies/workload_stabilization")
    assert one["parameters_spec"]["properties"]["thresholds"]["default"] == {
        "instance_cpu_usage": 0.1,
        "instance_ram_usage": 0.1,
    }
    assert (await idle.get("/v1/strategies", goal="no such goal"))["strategies"] == []


async def test_an_audit_template_is_created_shown_listed_and_deleted(idle: Any) -> None:
    answer = await idle.http.post(
        "/v1/audit_templates",
        json={
            "name": "at1",
            "goal": "dummy",
            "strategy": "dummy",
            "scope": [{"availability_zones": [{"name": "AZ1"}]}],
            "default_parameters": {"para1": 4.5},
        },
    )
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["Location"] == f"http://trimtab:9322/v1/audit_templates/{made['uuid']}"
    assert made["scope"] == [{"compute": [{"availability_zones": [{"name": "AZ1"}]}]}]
    assert made["default_parameters"] == {"para1": 4.5}
    assert (made["goal_name"], made["strategy_name"], made["description"]) == ("dummy", "dummy", None)
    assert await idle.get("/v1/audit_templates/at1") == made
    short = (await idle.get("/v1/audit_templates"))["audit_templates"][0]
    assert set(short) == {"uuid", "name", "goal_uuid", "goal_name", "strategy_uuid", "strategy_name", "scope", "links"}
    assert (await idle.http.delete("/v1/audit_templates/at1")).status_code == 204
    assert (await idle.http.get("/v1/audit_templates/at1")).status_code == 404
    again = await idle.http.post("/v1/audit_templates", json={"name": "at1", "goal": "dummy"})
    assert again.status_code == 201, "a deleted name can be used again"


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"goal": "dummy"}, 400, "Invalid input for field/attribute name. Value: 'None'. Mandatory field missing."),
        ({"name": "x", "goal": "nope"}, 400, "Goal nope is invalid"),
        ({"name": "x", "goal": "dummy", "strategy": "nope"}, 400, "Strategy nope is invalid"),
        (
            {"name": "x", "goal": "dummy", "strategy": "workload_stabilization"},
            400,
            "'workload_stabilization' strategy does relate to the 'dummy' goal. Possible choices:",
        ),
        (
            {"name": "x", "goal": "dummy", "colour": "red"},
            400,
            "Unknown attribute for argument audit_template_postdata: colour",
        ),
        ({"name": 5, "goal": "dummy"}, 400, "Invalid input for field/attribute name. Value: '5'."),
        ({"name": "x", "goal": "dummy", "scope": [{"moon": []}]}, 400, "scope"),
        ({"name": "x", "goal": "dummy", "default_parameters": {"a": 1}}, 400, "requires a strategy"),
        (
            {"name": "x", "goal": "dummy", "strategy": "dummy", "default_parameters": {"moon": 1}},
            400,
            "Audit parameter moon are not allowed",
        ),
    ],
)
async def test_a_bad_template_is_refused_with_the_field_named(idle: Any, body: Any, status: int, text: str) -> None:
    answer = await idle.http.post("/v1/audit_templates", json=body)
    assert (answer.status_code, text in fault(answer)) == (status, True), answer.text
    assert (await idle.get("/v1/audit_templates"))["audit_templates"] == []


async def test_a_name_is_taken_only_once(idle: Any) -> None:
    await idle.post("/v1/audit_templates", {"name": "one", "goal": "dummy"})
    answer = await idle.http.post("/v1/audit_templates", json={"name": "one", "goal": "dummy"})
    assert answer.status_code == 409
    assert fault(answer) == "An audit_template with UUID or name one already exists"


async def test_an_audit_gets_defaults_filled_in_and_its_scope_from_the_template(idle: Any) -> None:
    scope = [{"compute": [{"exclude": [{"compute_nodes": [{"name": "host-001"}]}]}]}]
    template = await idle.post(
        "/v1/audit_templates",
        {"name": "at", "goal": "dummy", "strategy": "dummy", "scope": scope, "default_parameters": {"para2": "Hi"}},
    )
    made = await idle.post(
        "/v1/audits",
        {"audit_type": "ONESHOT", "audit_template_uuid": template["uuid"], "parameters": {"para1": 2.0}, "name": "a1"},
    )
    assert made["parameters"] == {"para1": 2.0, "para2": "Hi"}
    assert (made["scope"], made["state"], made["goal_name"], made["strategy_name"]) == (
        scope,
        "PENDING",
        "dummy",
        "dummy",
    )
    assert (made["interval"], made["next_run_time"], made["hostname"], made["force"]) == (None, None, None, False)
    listed = (await idle.get("/v1/audits"))["audits"][0]
    assert set(listed) == {
        "uuid", "name", "audit_type", "state", "goal_uuid", "goal_name", "strategy_uuid", "strategy_name",
        "interval", "scope", "auto_trigger", "next_run_time", "force", "links",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"audit_type": "SOMETIMES", "goal": "dummy"}, 400, "Audit type SOMETIMES could not be found"),
        ({"audit_type": "ONESHOT"}, 400, "A valid goal or audit_template_id must be provided"),
        ({"audit_type": "ONESHOT", "goal": "nope"}, 404, "Goal nope could not be found"),
        ({"audit_type": "ONESHOT", "goal": "dummy", "strategy": "nope"}, 404, "Strategy nope could not be found"),
        ({"audit_type": "ONESHOT", "goal": "dummy", "interval": "60"}, 400, "must not be set for ONESHOT."),
        ({"audit_type": "ONESHOT", "audit_template_uuid": "INVALID"}, 400, "Expected a uuid but received INVALID"),
        ({"audit_type": "ONESHOT", "goal": "dummy", "state": "SUCCEEDED"}, 400, "state"),
        (
            {"audit_type": "ONESHOT", "goal": "dummy", "parameters": {"a": 1}},
            400,
            "Specify parameters but no predefined",
        ),
        (
            {"audit_type": "ONESHOT", "goal": "dummy", "strategy": "dummy", "parameters": {"para1": 11}},
            400,
            "para1",
        ),
        (
            {"audit_type": "ONESHOT", "goal": "dummy", "strategy": "dummy", "parameters": {"para9": 1}},
            400,
            "Audit parameter para9 are not allowed",
        ),
    ],
)
async def test_a_bad_audit_is_refused_and_not_stored(idle: Any, body: Any, status: int, text: str) -> None:
    answer = await idle.http.post("/v1/audits", json=body)
    assert (answer.status_code, text in fault(answer)) == (status, True), answer.text
    assert (await idle.get("/v1/audits"))["audits"] == []


async def test_malformed_requests_are_the_clients_fault(idle: Any) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await idle.http.post("/v1/audits", content=b"{nonsense", headers=headers)
    assert (answer.status_code, fault(answer)) == (400, "Request is not in valid JSON format")
    answer = await idle.http.post("/v1/audits", json=[1, 2])
    assert answer.status_code == 400
    answer = await idle.http.get("/v1/audits", params={"bogus": "1"})
    assert (answer.status_code, fault(answer)) == (400, 'Unknown argument: "bogus"')
    answer = await idle.http.get("/v1/moons")
    assert answer.status_code == 404
    assert answer.json()["error_message"].startswith("404 Not Found")
    answer = await idle.http.post("/v1/goals", json={})
    assert answer.status_code == 405
    assert "The method POST is not allowed" in answer.json()["error_message"]


async def test_lists_have_pages_with_a_next_link_that_leads_to_the_end(idle: Any) -> None:
    for number in range(5):
        await idle.post("/v1/audits", {"audit_type": "ONESHOT", "goal": "dummy", "name": f"a{number}"})
    seen: list[str] = []
    url = "/v1/audits?limit=2&sort_key=name&sort_dir=desc"
    while url:
        page = (await idle.http.get(url)).json()
        seen += [audit["name"] for audit in page["audits"]]
        url = page.get("next", "")
    assert seen == ["a4", "a3", "a2", "a1", "a0"]
    for query, status, text in (
        ({"limit": "0"}, 400, "Limit must be positive"),
        ({"sort_key": "moon"}, 400, "Invalid sort key: moon"),
        ({"sort_dir": "up"}, 400, "Invalid sort direction: up. Acceptable values are 'asc' or 'desc'"),
        ({"marker": "0f6d0e1e-5f3a-4b88-8f4c-3a0d3c5b8c11"}, 404, "0f6d0e1e"),
    ):
        answer = await idle.http.get("/v1/audits", params=query)
        assert answer.status_code == status, answer.text
        assert text in fault(answer)


async def test_an_idempotency_key_creates_once(idle: Any) -> None:
    body = {"audit_type": "ONESHOT", "goal": "dummy"}
    first = await idle.http.post("/v1/audits", json=body, headers={"Idempotency-Key": "k1"})
    again = await idle.http.post("/v1/audits", json=body, headers={"Idempotency-Key": "k1"})
    assert first.json()["uuid"] == again.json()["uuid"]
    assert len((await idle.get("/v1/audits"))["audits"]) == 1


async def test_an_audit_can_be_cancelled_and_then_deleted(idle: Any) -> None:
    audit = await idle.post("/v1/audits", {"audit_type": "ONESHOT", "goal": "dummy", "name": "a"})
    path = f"/v1/audits/{audit['uuid']}"
    answer = await idle.http.delete(path)
    assert (answer.status_code, fault(answer)) == (400, "Couldn't delete when state is 'PENDING'.")
    answer = await idle.http.patch(path, json=[{"op": "replace", "path": "/state", "value": "SUCCEEDED"}])
    assert (answer.status_code, "State transition not allowed: (PENDING -> SUCCEEDED)" in fault(answer)) == (400, True)
    answer = await idle.http.patch(path, json=[{"op": "replace", "path": "/state", "value": "CANCELLED"}])
    assert answer.json()["state"] == "CANCELLED"
    assert (await idle.http.delete(path)).status_code == 204
    assert (await idle.http.get(path)).status_code == 404


async def test_plans_and_actions_are_known_by_uuid_only(idle: Any) -> None:
    for collection in ("action_plans", "actions"):
        answer = await idle.http.get(f"/v1/{collection}/5")
        assert (answer.status_code, "Expected a uuid but received 5" in fault(answer)) == (400, True)
        assert (await idle.http.get(f"/v1/{collection}/0f6d0e1e-5f3a-4b88-8f4c-3a0d3c5b8c11")).status_code == 404
        assert (await idle.http.delete(f"/v1/{collection}")).status_code == 405


@pytest.mark.parametrize(
    ("header", "status", "used"),
    [
        (None, 200, "infra-optim 1.0"),
        ("infra-optim 1.4", 200, "infra-optim 1.4"),
        ("compute 2.1, infra-optim 1.5", 200, "infra-optim 1.5"),
        ("infra-optim latest", 200, "infra-optim 1.7"),
        ("infra-optim 1", 200, "infra-optim 1.0"),
        ("infra-optim 1.999", 406, None),
        ("infra-optim 2.0", 406, None),
        ("infra-optim 1.2.3", 406, None),
    ],
)
async def test_the_microversion_is_negotiated(idle: Any, header: str | None, status: int, used: str | None) -> None:
    idle.http.headers.pop(VERSION)
    answer = await idle.http.get("/v1/goals", headers={VERSION: header} if header else {})
    assert answer.status_code == status
    assert answer.headers.get(VERSION) == used
    if status == 406:
        assert "406 Not Acceptable" in answer.json()["error_message"]


async def test_old_clients_do_not_see_newer_fields(idle: Any) -> None:
    await idle.post("/v1/audits", {"audit_type": "ONESHOT", "goal": "dummy", "name": "a", "force": True})
    old = (await idle.http.get("/v1/audits/a", headers={VERSION: "infra-optim 1.0"})).json()
    new = (await idle.http.get("/v1/audits/a")).json()
    assert set(new) - set(old) == {"start_time", "end_time", "status_message"}
    assert (old["force"], new["force"]) == (False, True)


async def test_metrics_and_openapi_are_there(idle: Any) -> None:
    await idle.post("/v1/audits", {"audit_type": "ONESHOT", "goal": "dummy"})
    text = (await idle.http.get("/metrics")).text
    assert 'trimtab_audits{state="PENDING"} 1.0' in text
    paths = (await idle.get("/openapi.json"))["paths"]
    assert {"/v1/audits", "/v1/audits/{ident}/candidates", "/v1/action_plans/{ident}/start"} <= set(paths)
    assert (await idle.get("/"))["default_version"]["id"] == "v1"
    assert {"audit_templates", "whatifs"} <= set(await idle.get("/v1/"))


async def test_double_slashes_and_trailing_slashes_are_forgiven(idle: Any) -> None:
    assert (await idle.http.get("/v1//goals/")).status_code == 200


async def test_bookmark_links_and_json_suffixes_lead_to_the_object(idle: Any) -> None:
    goal = (await idle.get("/v1/goals"))["goals"][0]
    for link in goal["links"]:
        assert (await idle.get(link["href"]))["uuid"] == goal["uuid"]
    assert (await idle.get("/v1/goals.json"))["goals"][0]["uuid"] == goal["uuid"]
    assert (await idle.http.get("/docs")).status_code == 200


async def test_uuid_arguments_that_are_none_are_refused(idle: Any) -> None:
    for path in ("/v1/audits?marker=nope", "/v1/action_plans?audit_uuid=nope", "/v1/actions?action_plan_uuid=nope"):
        answer = await idle.http.get(path)
        assert (answer.status_code, "Expected a uuid but received nope" in fault(answer)) == (400, True)


async def test_fields_too_new_for_the_microversion_are_not_acceptable(idle: Any) -> None:
    body = {"name": "t", "goal": "dummy", "strategy": "dummy", "default_parameters": {"para1": 2.0}}
    answer = await idle.http.post("/v1/audit_templates", json=body, headers={VERSION: "infra-optim 1.6"})
    assert (answer.status_code, fault(answer)) == (406, "Request not acceptable.")


async def test_a_used_idempotency_key_of_another_kind_says_so(idle: Any) -> None:
    headers = {"Idempotency-Key": "k"}
    await idle.http.post("/v1/audit_templates", json={"name": "t", "goal": "dummy"}, headers=headers)
    answer = await idle.http.post("/v1/audits", json={"audit_type": "ONESHOT", "goal": "dummy"}, headers=headers)
    assert answer.status_code == 409
    assert "UUID or name" not in fault(answer)


async def test_flags_may_be_words(idle: Any) -> None:
    made = await idle.post("/v1/audits", {"audit_type": "ONESHOT", "goal": "dummy", "auto_trigger": "yes"})
    assert made["auto_trigger"] is True
