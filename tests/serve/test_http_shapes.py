"""HTTP from the outside: Watcher's shapes, status codes and error bodies; nothing runs behind it."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from trimtab.platform.records import Audit, AuditTemplate

VERSION = "OpenStack-API-Version"


@pytest.fixture
async def idle(shared: Any) -> AsyncIterator[Any]:
    """The shared server, without audits and templates afterwards."""
    yield shared
    for audit in shared.store.list(Audit):
        if audit.state == "PENDING":
            shared.store.transition(Audit, audit.uuid, "cancel")
        shared.store.delete(Audit, audit.uuid)
    for template in shared.store.list(AuditTemplate):
        shared.store.delete(AuditTemplate, template.uuid)


def fault(answer: Any) -> str:
    """The text inside Watcher's doubly encoded error."""
    inner = json.loads(answer.json()["error_message"])
    assert set(inner) == {"faultcode", "faultstring", "debuginfo"}
    assert inner["faultcode"] == ("Client" if answer.status_code < 500 else "Server")
    return str(inner["faultstring"])


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


async def test_a_used_idempotency_key_of_another_kind_says_so(idle: Any) -> None:
    headers = {"Idempotency-Key": "k"}
    await idle.http.post("/v1/audit_templates", json={"name": "t", "goal": "dummy"}, headers=headers)
    answer = await idle.http.post("/v1/audits", json={"audit_type": "ONESHOT", "goal": "dummy"}, headers=headers)
    assert answer.status_code == 409
    assert "UUID or name" not in fault(answer)


async def test_flags_may_be_words(idle: Any) -> None:
    made = await idle.post("/v1/audits", {"audit_type": "ONESHOT", "goal": "dummy", "auto_trigger": "yes"})
    assert made["auto_trigger"] is True
