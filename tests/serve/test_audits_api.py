"""/v1/audits over HTTP: what may be created and patched, in Watcher's words; nothing runs behind it."""

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from trimtab.platform.records import Audit, Goal, Strategy
from trimtab.platform.states import AUDIT, AuditState

VERSION = "OpenStack-API-Version"
together = pytest.mark.asyncio(loop_scope="module")
UNKNOWN = "0f6d0e1e-5f3a-4b88-8f4c-3a0d3c5b8c11"
ONESHOT = {"audit_type": "ONESHOT", "goal": "dummy"}
CONTINUOUS = {"audit_type": "CONTINUOUS", "goal": "dummy", "interval": "3600"}
EVENT = {"audit_type": "EVENT", "goal": "dummy"}


def fault(answer: Any) -> str:
    return str(json.loads(answer.json()["error_message"])["faultstring"])


def replace(path: str, value: Any) -> list[dict[str, Any]]:
    return [{"op": "replace", "path": path, "value": value}]


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server whose local time is not UTC."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


async def in_state(one: Any, state: str, body: dict[str, Any]) -> dict[str, Any]:
    """An audit that has come to a state the way audits come to it."""
    made: dict[str, Any] = await one.post("/v1/audits", body)
    ways: dict[str, tuple[str, ...]] = {
        "PENDING": (),
        "ONGOING": ("run",),
        "SUCCEEDED": ("run", "succeed"),
        "FAILED": ("run", "fail"),
        "SUSPENDED": ("run", "suspend"),
        "CANCELLED": ("cancel",),
    }
    for event in ways[state]:
        one.store.transition(Audit, made["uuid"], event)
    return made


# -- creation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [ONESHOT, CONTINUOUS, EVENT], ids=lambda body: body["audit_type"])
@together
async def test_every_type_of_audit_is_created_waiting(shared: Any, body: dict[str, Any]) -> None:
    answer = await shared.http.post("/v1/audits", json={**body, "name": f"one {body['audit_type']}"})
    made = answer.json()
    assert answer.status_code == 201, made
    assert answer.headers["Location"] == f"http://trimtab:9322/v1/audits/{made['uuid']}"
    assert (made["audit_type"], made["state"], made["interval"]) == (
        body["audit_type"],
        "PENDING",
        body.get("interval"),
    )
    assert set(made) == {
        "uuid", "name", "audit_type", "state", "goal_uuid", "goal_name", "strategy_uuid", "strategy_name", "parameters",
        "links", "interval", "scope", "auto_trigger", "next_run_time", "hostname", "start_time", "end_time", "force",
        "status_message", "created_at", "deleted_at", "updated_at",
    }  # fmt: skip
    assert (made["parameters"], made["scope"], made["strategy_uuid"]) == ({}, [], None)
    assert (made["auto_trigger"], made["force"], made["next_run_time"], made["hostname"]) == (False, False, None, None)
    number = shared.store.get(Audit, made["uuid"]).id
    for ident in (made["uuid"], made["name"], made["name"].upper(), number):
        assert await shared.get(f"/v1/audits/{ident}") == made


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 400, "Invalid input for field/attribute audit_type. Value: 'None'. Mandatory field missing."),
        ({**ONESHOT, "audit_type": "oneshot"}, 400, "Audit type oneshot could not be found"),
        ({**ONESHOT, "audit_type": 5}, 400, "Wrong type. Expected '<class 'str'>', got '<class 'int'>'"),
        ({**ONESHOT, "colour": "red"}, 400, "Unknown attribute for argument audit_p: colour"),
        ({"audit_type": "ONESHOT"}, 400, "A valid goal or audit_template_id must be provided"),
        ({**ONESHOT, "goal": "nope"}, 404, "Goal nope could not be found"),
        ({**ONESHOT, "goal": "99999"}, 404, "Goal 99999 could not be found"),
        ({**ONESHOT, "goal": 1}, 400, "Wrong type."),
        ({**ONESHOT, "strategy": "nope"}, 404, "Strategy nope could not be found"),
        ({"audit_type": "ONESHOT", "audit_template_uuid": "at1"}, 400, "Expected a uuid but received at1"),
        (
            {"audit_type": "ONESHOT", "audit_template_uuid": UNKNOWN},
            400,
            "The audit template UUID or name specified is invalid",
        ),
        (
            {**ONESHOT, "audit_template_uuid": UNKNOWN},
            400,
            "Either audit_template_uuid or goal should be provided.",
        ),
        (
            {**ONESHOT, "audit_template_uuid": UNKNOWN, "interval": "60"},
            400,
            "Either audit_template_uuid or goal should be provided.",
        ),
        ({**ONESHOT, "interval": "60"}, 400, "Interval of audit must not be set for ONESHOT."),
        ({"audit_type": "CONTINUOUS", "goal": "dummy"}, 400, "Interval of audit must be specified for CONTINUOUS."),
        ({**CONTINUOUS, "interval": 60}, 400, "Wrong type. Expected '<class 'str'>', got '<class 'int'>'"),
        ({**CONTINUOUS, "interval": "0"}, 400, "interval"),
        ({**CONTINUOUS, "interval": "-60"}, 400, "interval"),
        ({**CONTINUOUS, "interval": "soon"}, 400, "interval"),
        ({**CONTINUOUS, "interval": "* * * * * * * *"}, 400, "interval"),
        ({**CONTINUOUS, "interval": "99 * * * *"}, 400, "interval"),
        ({**EVENT, "interval": "soon"}, 400, "interval"),
        (
            {**ONESHOT, "start_time": "2030-01-01T00:00:00"},
            400,
            "Start or End time of audit must not be set for ONESHOT.",
        ),
        ({**ONESHOT, "end_time": "2030-01-01T00:00:00"}, 400, "Start or End time of audit must not be set"),
        ({**CONTINUOUS, "start_time": "tomorrow"}, 400, "start_time. Value: 'tomorrow'."),
        ({**CONTINUOUS, "end_time": 5}, 400, "end_time. Value: '5'. Wrong type."),
        ({**CONTINUOUS, "end_time": "0001-01-01T00:00:00+23:00"}, 400, "end_time"),
        ({**ONESHOT, "auto_trigger": "perhaps"}, 400, "Value not an unambiguous boolean: perhaps"),
        ({**ONESHOT, "auto_trigger": None}, 400, "auto_trigger"),
        ({**ONESHOT, "force": None}, 400, "force"),
        ({**ONESHOT, "force": "perhaps"}, 400, "Value not an unambiguous boolean: perhaps"),
        ({**ONESHOT, "scope": []}, 400, "scope. Value: '[]'. Cannot set read only field."),
        ({**ONESHOT, "scope": None}, 400, "Cannot set read only field."),
        ({**ONESHOT, "state": "PENDING"}, 400, "Cannot set read only field."),
        ({**ONESHOT, "hostname": ""}, 400, "Cannot set read only field."),
        ({**ONESHOT, "parameters": []}, 400, "Wrong type. Expected '<class 'dict'>', got '<class 'list'>'"),
        (
            {**ONESHOT, "parameters": {"a": 1}},
            400,
            "Specify parameters but no predefined strategy for audit, or no parameter spec in predefined strategy",
        ),
        (
            {**ONESHOT, "strategy": "dummy", "parameters": {"moon": 1}},
            400,
            "Audit parameter moon are not allowed",
        ),
        (
            {**ONESHOT, "strategy": "dummy", "parameters": {"para1": 11}},
            400,
            "Invalid parameters for strategy:",
        ),
        ([1, 2], 400, "audit_p"),
        ("text", 400, "audit_p"),
    ],
)
@together
async def test_a_bad_audit_is_refused_and_not_stored(shared: Any, body: Any, status: int, text: str) -> None:
    before = shared.store.count(Audit)
    answer = await shared.http.post("/v1/audits", json=body)
    assert (answer.status_code, text in fault(answer)) == (status, True), answer.text
    assert shared.store.count(Audit) == before


async def test_an_audit_needs_a_json_body(idle: Any) -> None:
    answer = await idle.http.post("/v1/audits")
    assert (answer.status_code, fault(answer)) == (400, 'Missing argument: "audit_p"')
    answer = await idle.http.post("/v1/audits", content=b"x", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, fault(answer)) == (415, "Unknown mimetype: text/plain")


async def test_a_name_is_taken_once_in_any_case_and_free_again_after_deletion(idle: Any) -> None:
    await idle.post("/v1/audits", {**ONESHOT, "name": "Nightly"})
    answer = await idle.http.post("/v1/audits", json={**ONESHOT, "name": "Nightly"})
    assert (answer.status_code, fault(answer)) == (409, "An audit with UUID or name Nightly already exists")
    await idle.http.patch("/v1/audits/Nightly", json=replace("/state", "CANCELLED"))
    assert (await idle.http.delete("/v1/audits/Nightly")).status_code == 204
    assert (await idle.http.delete("/v1/audits/Nightly")).status_code == 404
    assert (await idle.http.post("/v1/audits", json={**ONESHOT, "name": "Nightly"})).status_code == 201


async def test_names_are_cut_at_63_characters_and_made_up_when_missing(idle: Any) -> None:
    template = await idle.post("/v1/audit_templates", {"name": "weekly", "goal": "dummy"})
    with_strategy = await idle.post("/v1/audit_templates", {"name": "daily", "goal": "dummy", "strategy": "dummy"})
    stamp = r"-\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}"
    for body, name in (
        ({**ONESHOT, "name": "x" * 80}, "x" * 63),
        (ONESHOT, "dummy" + stamp),
        ({**ONESHOT, "name": ""}, "dummy" + stamp),
        ({**ONESHOT, "name": None}, "dummy" + stamp),
        ({**ONESHOT, "strategy": "dummy"}, "dummy" + stamp),
        ({"audit_type": "ONESHOT", "audit_template_uuid": template["uuid"]}, "weekly" + stamp),
        ({"audit_type": "ONESHOT", "audit_template_uuid": with_strategy["uuid"]}, "dummy" + stamp),
    ):
        made = await idle.post("/v1/audits", body)
        assert re.fullmatch(name, made["name"]), made["name"]


async def test_a_name_of_digits_is_taken_for_an_id(idle: Any) -> None:
    made = await idle.post("/v1/audits", {**ONESHOT, "name": "4711"})
    assert (await idle.http.get("/v1/audits/4711")).status_code == 404
    assert await idle.get(f"/v1/audits/{idle.store.get(Audit, made['uuid']).id}") == made
    zeros = await idle.post("/v1/audits", {**ONESHOT, "name": "007"})
    assert await idle.get("/v1/audits/007") == zeros, "no id is written so"


async def test_an_audit_stays_when_its_template_goes(idle: Any) -> None:
    template = await idle.post("/v1/audit_templates", {"name": "at", "goal": "dummy", "strategy": "dummy"})
    made = await idle.post("/v1/audits", {"audit_type": "ONESHOT", "audit_template_uuid": template["uuid"]})
    assert (await idle.http.delete("/v1/audit_templates/at")).status_code == 204
    assert await idle.get(f"/v1/audits/{made['uuid']}") == made
    answer = await idle.http.post("/v1/audits", json={"audit_type": "ONESHOT", "audit_template_uuid": template["uuid"]})
    assert (answer.status_code, fault(answer)) == (400, "The audit template UUID or name specified is invalid")


async def test_goals_and_strategies_are_named_by_uuid_name_or_number(idle: Any) -> None:
    goal, strategy = await idle.get("/v1/goals/dummy"), await idle.get("/v1/strategies/dummy")
    numbers = {"goal": idle.store.get(Goal, "dummy").id, "strategy": idle.store.get(Strategy, "dummy").id}
    for given in (
        {"goal": goal["uuid"], "strategy": strategy["uuid"]},
        {"goal": "DUMMY", "strategy": "Dummy"},
        {name: str(number) for name, number in numbers.items()},
    ):
        made = await idle.post("/v1/audits", {"audit_type": "ONESHOT", **given})
        assert (made["goal_uuid"], made["strategy_uuid"]) == (goal["uuid"], strategy["uuid"])


async def test_a_strategy_of_another_goal_is_taken_as_it_is(idle: Any) -> None:
    made = await idle.post("/v1/audits", {**ONESHOT, "strategy": "workload_stabilization"})
    assert (made["goal_name"], made["strategy_name"]) == ("dummy", "workload_stabilization")


async def test_parameters_are_the_templates_then_the_audits_then_the_schemas(idle: Any) -> None:
    scope = [{"compute": [{"exclude": [{"compute_nodes": [{"name": "host-001"}]}]}]}]
    body = {"name": "at", "goal": "dummy", "strategy": "dummy", "scope": scope, "default_parameters": {"para1": 4.5}}
    template = await idle.post("/v1/audit_templates", body)
    from_it = {"audit_type": "ONESHOT", "audit_template_uuid": template["uuid"]}
    made = await idle.post("/v1/audits", from_it)
    assert (made["parameters"], made["scope"]) == ({"para1": 4.5, "para2": "hello"}, scope)
    made = await idle.post("/v1/audits", {**from_it, "parameters": {"para1": 2.0}})
    assert made["parameters"] == {"para1": 2.0, "para2": "hello"}
    await idle.http.patch("/v1/audit_templates/at", json=replace("/default_parameters", {"para1": 9.0}))
    assert (await idle.get(f"/v1/audits/{made['uuid']}"))["parameters"]["para1"] == 2.0, "audits keep what they got"
    old = await idle.http.post("/v1/audits", json=from_it, headers={VERSION: "infra-optim 1.0"})
    assert old.json()["parameters"]["para1"] == 9.0, "old clients get the defaults too"
    answer = await idle.http.post("/v1/audits", json={**from_it, "strategy": "workload_stabilization"})
    assert (answer.status_code, fault(answer)) == (400, "Audit parameter para1 are not allowed")


@pytest.mark.parametrize("word", [True, "yes", "true", "on", "1", 1])
@together
async def test_words_for_true_are_true(shared: Any, word: Any) -> None:
    made = await shared.post("/v1/audits", {**ONESHOT, "auto_trigger": word, "force": word})
    assert (made["auto_trigger"], made["force"]) == (True, True)


@pytest.mark.usefixtures("in_berlin")
@together
async def test_times_are_shown_in_utc_and_without_an_offset_meant_locally(shared: Any) -> None:
    for given, shown in (
        ("2030-01-31T22:00:00+00:00", "2030-01-31T22:00:00"),
        ("2030-01-31T22:00:00Z", "2030-01-31T22:00:00"),
        ("2030-02-01T00:00:00+02:00", "2030-01-31T22:00:00"),
        ("2030-02-01 00:00:00", "2030-01-31T23:00:00"),
        ("2030-07-01T00:00:00", "2030-06-30T22:00:00"),
        (None, None),
    ):
        made = await shared.post("/v1/audits", {**CONTINUOUS, "start_time": given, "end_time": given})
        assert (made["start_time"], made["end_time"]) == (shown, shown)
    backwards = {**CONTINUOUS, "start_time": "2031-01-01T00:00:00", "end_time": "2030-01-01T00:00:00"}
    assert (await shared.http.post("/v1/audits", json=backwards)).status_code == 201


async def test_times_need_microversion_1_1_and_nulls_do_not(idle: Any) -> None:
    old = {VERSION: "infra-optim 1.0"}
    for field in ("start_time", "end_time"):
        answer = await idle.http.post("/v1/audits", json={**CONTINUOUS, field: "2030-01-01T00:00:00"}, headers=old)
        assert (answer.status_code, fault(answer)) == (406, "Request not acceptable.")
        answer = await idle.http.post("/v1/audits", json={**ONESHOT, field: "2030-01-01T00:00:00"}, headers=old)
        assert (answer.status_code, "must not be set for ONESHOT" in fault(answer)) == (400, True)
        assert (await idle.http.post("/v1/audits", json={**CONTINUOUS, field: None}, headers=old)).status_code == 201
    answer = await idle.http.post("/v1/audits", json=EVENT, headers=old)
    assert answer.status_code == 201, "EVENT audits are as old as the API"
    forced = await idle.http.post("/v1/audits", json={**ONESHOT, "force": True}, headers=old)
    assert (forced.status_code, forced.json()["force"]) == (201, False), "taken, and not shown"
    uuid = forced.json()["uuid"]
    assert (await idle.get(f"/v1/audits/{uuid}"))["force"] is True
    assert {row["force"] for row in (await idle.get("/v1/audits"))["audits"]} == {False}
    assert True in {row["force"] for row in (await idle.get("/v1/audits/detail"))["audits"]}


@pytest.mark.parametrize("interval", ["60", "3600", "*/5 * * * *", "0 2 * * 1-5", "*/5 * * * * 30"])
@together
async def test_intervals_come_back_as_they_were_sent(shared: Any, interval: str) -> None:
    assert (await shared.post("/v1/audits", {**CONTINUOUS, "interval": interval}))["interval"] == interval
    assert (await shared.post("/v1/audits", {**EVENT, "interval": interval}))["interval"] == interval


# -- lists -----------------------------------------------------------------------------------------------


async def test_lists_are_filtered_by_goal_and_strategy_and_sorted_by_their_names(idle: Any) -> None:
    for goal, strategy in (("workload_balancing", None), ("dummy", "dummy"), ("dummy", None)):
        await idle.post("/v1/audits", {"audit_type": "ONESHOT", "goal": goal, "strategy": strategy})
    uuid = (await idle.get("/v1/goals/dummy"))["uuid"]
    for query, count in (
        ({"goal": "dummy"}, 2),
        ({"goal": uuid}, 2),
        ({"strategy": "dummy"}, 1),
        ({"goal": "workload_balancing", "strategy": "dummy"}, 0),
        ({"goal": "nope"}, 0),
    ):
        for path in ("/v1/audits", "/v1/audits/detail"):
            assert len((await idle.get(path, **query))["audits"]) == count, query
    for key in ("goal_name", "goal_uuid"):
        rows = (await idle.get("/v1/audits", sort_key=key))["audits"]
        assert [row[key] for row in rows] == sorted(row[key] for row in rows)
    page = await idle.get("/v1/audits/detail", limit=2, sort_key="id")
    assert page["next"] == (
        "http://trimtab:9322/v1/audits/detail?sort_key=id&sort_dir=asc&limit=2&marker=" + page["audits"][1]["uuid"]
    )


# -- states by patch and deletion --------------------------------------------------------------------------

ALLOWED = {
    "PENDING": {"ONGOING", "CANCELLED"},
    "ONGOING": {"FAILED", "SUCCEEDED", "CANCELLED", "SUSPENDED"},
    "FAILED": {"DELETED"},
    "SUCCEEDED": {"DELETED"},
    "CANCELLED": {"DELETED"},
    "SUSPENDED": {"ONGOING", "DELETED"},
}


@pytest.mark.parametrize("state", ALLOWED)
@pytest.mark.parametrize("op", ["replace", "add"])
@together
async def test_a_patch_leads_to_the_states_of_watchers_table_and_no_others(shared: Any, state: str, op: str) -> None:
    for target in AuditState:
        made = await in_state(shared, state, CONTINUOUS)
        path = f"/v1/audits/{made['uuid']}"
        answer = await shared.http.patch(path, json=[{"op": op, "path": "/state", "value": target}])
        if target in ALLOWED[state]:
            assert (answer.status_code, answer.json()["state"]) == (200, target)
        else:
            assert answer.status_code == 400
            text = fault(answer)
            assert text.startswith("Couldn't apply patch '[{'path': '/state'")
            assert text.endswith(f"Reason: State transition not allowed: ({state} -> {target})")
            assert (await shared.get(path))["state"] == state


@pytest.mark.parametrize("state", ALLOWED)
@together
async def test_audits_are_deleted_when_they_have_ended_or_are_suspended(shared: Any, state: str) -> None:
    made = await in_state(shared, state, CONTINUOUS)
    path = f"/v1/audits/{made['uuid']}"
    answer = await shared.http.request("DELETE", path, headers={"Content-Type": "application/octet-stream"})
    if state in {"PENDING", "ONGOING"}:
        assert (answer.status_code, fault(answer)) == (400, f"Couldn't delete when state is '{state}'.")
        return
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await shared.http.get(path)).status_code == 404
    shown = await shared.http.get(path, headers={"X-Show-Deleted": "yes"})
    assert (shown.json()["state"], shown.json()["deleted_at"] is not None) == ("DELETED", True)


async def test_every_offered_edge_is_one_of_the_state_machine(idle: Any) -> None:
    from trimtab.serve.audit_fields import OFFERED

    offered = {(source, str(AUDIT.after(source, event))) for source, event in OFFERED}
    assert offered == {(source, target) for source, targets in ALLOWED.items() for target in targets}
    assert len(offered) == len(OFFERED)
    assert (await idle.get("/v1/audits"))["audits"] == []


# -- other fields by patch -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "changed"),
    [
        ({"op": "replace", "path": "/name", "value": "other"}, {"name": "other"}),
        ({"op": "replace", "path": "/interval", "value": "*/5 * * * *"}, {"interval": "*/5 * * * *"}),
        ({"op": "replace", "path": "/interval", "value": "7200"}, {"interval": "7200"}),
        (
            {"op": "replace", "path": "/start_time", "value": "2030-01-01T02:00:00+02:00"},
            {"start_time": "2030-01-01T00:00:00"},
        ),
        (
            {"op": "replace", "path": "/end_time", "value": "2030-01-01 00:00:00Z"},
            {"end_time": "2030-01-01T00:00:00"},
        ),
        ({"op": "remove", "path": "/end_time"}, {"end_time": None}),
        ({"op": "replace", "path": "/audit_type", "value": "EVENT"}, {"audit_type": "EVENT"}),
        ({"op": "replace", "path": "/parameters", "value": {"moon": 1}}, {"parameters": {"moon": 1}}),
        (
            {"op": "replace", "path": "/parameters/para1", "value": 99},
            {"parameters": {"para1": 99, "para2": "hello"}},
        ),
        ({"op": "remove", "path": "/parameters/para1"}, {"parameters": {"para2": "hello"}}),
        ({"op": "remove", "path": "/parameters"}, {"parameters": {}}),
        (
            {"op": "replace", "path": "/scope", "value": [{"compute": [{"availability_zones": [{"name": "a"}]}]}]},
            {"scope": [{"compute": [{"availability_zones": [{"name": "a"}]}]}]},
        ),
        ({"op": "replace", "path": "/auto_trigger", "value": True}, {"auto_trigger": True}),
        ({"op": "replace", "path": "/force", "value": "yes"}, {"force": True}),
        ({"op": "remove", "path": "/force"}, {}),
        ({"op": "replace", "path": "/hostname", "value": "ctl"}, {"hostname": "ctl"}),
        ({"op": "remove", "path": "/strategy_id"}, {"strategy_uuid": None, "strategy_name": None}),
        ({"op": "replace", "path": "/goal", "value": "nope"}, {}),
        ({"op": "replace", "path": "/strategy", "value": "nope"}, {}),
    ],
    ids=lambda given: str(given.get("path", "")) if isinstance(given, dict) else "",
)
@together
async def test_fields_are_patched(shared: Any, operation: dict[str, Any], changed: dict[str, Any]) -> None:
    body = {**CONTINUOUS, "strategy": "dummy", "end_time": "2031-01-01T00:00:00Z"}
    made = await shared.post("/v1/audits", body)
    path = f"/v1/audits/{made['uuid']}"
    for version in ("infra-optim 1.0", "infra-optim latest"):
        answer = await shared.http.patch(path, json=[operation], headers={VERSION: version})
        if operation["op"] == "replace" or version.endswith("1.0"):
            assert answer.status_code == 200, answer.text
    assert {**(await shared.get(path)), "updated_at": None} == {**made, **changed}


@pytest.mark.parametrize(
    ("patch", "text"),
    [
        (replace("/state", None), "Reason: /state can't be updated."),
        ([{"op": "remove", "path": "/state"}], "Reason: /state can't be updated."),
        (replace("/state", "BOGUS"), "State transition not allowed: (PENDING -> BOGUS)"),
        (replace("/interval", "soon"), "interval"),
        (replace("/interval", "-5"), "interval"),
        (replace("/interval", 60), "Wrong type."),
        ([{"op": "remove", "path": "/interval"}], "Interval of audit must be specified for CONTINUOUS."),
        (replace("/start_time", None), "start_time. Value: 'None'."),
        (replace("/start_time", "garbage"), "start_time. Value: 'garbage'."),
        ([{"op": "add", "path": "/start_time", "value": "2030-01-01T00:00:00"}], "/start_time can't be added"),
        ([{"op": "add", "path": "/end_time", "value": "2030-01-01T00:00:00"}], "/end_time can't be added"),
        (replace("/next_run_time", "2030-01-01T00:00:00"), "next_run_time. Value: '2030-01-01T00:00:00'. Wrong type."),
        (replace("/goal_uuid", UNKNOWN), "can't replace a non-existent object 'goal_uuid'"),
        (replace("/goal_name", "dummy"), "can't replace a non-existent object 'goal_name'"),
        (replace("/colour", "red"), "can't replace a non-existent object 'colour'"),
        ([{"op": "add", "path": "/colour", "value": "red"}], "Adding a new attribute (/colour) to the root"),
        (replace("/audit_template_uuid", UNKNOWN), "Reason: /audit_template_uuid can't be updated."),
        (replace("/type", "x"), "Reason: /type can't be updated."),
        *(
            (replace(path, "x"), f"'{path}' is an internal attribute and can not be updated")
            for path in ("/status_message", "/uuid", "/id", "/links", "/created_at", "/updated_at", "/deleted_at")
        ),
        (replace("/name", 5), "Wrong type."),
        (replace("/name", ""), "Use 1 to 63 characters"),
        (replace("/name", "x" * 64), "Use 1 to 63 characters"),
        (replace("/audit_type", "SOMETIMES"), "Audit type SOMETIMES could not be found"),
        (replace("/parameters", [1]), "Wrong type. Expected '<class 'dict'>', got '<class 'list'>'"),
        (replace("/scope", [{"moon": []}]), "scope"),
        (replace("/auto_trigger", "perhaps"), "Value not an unambiguous boolean: perhaps"),
        (replace("/force", None), "Wrong type. Expected '<class 'bool'>'"),
        (replace("/hostname", 5), "Wrong type."),
        (replace("/goal_id", 99999), "Goal 99999 is invalid"),
        (replace("/strategy_id", "nope"), "Strategy nope is invalid"),
        ([{"op": "remove", "path": "/goal_id"}], "Goal None is invalid"),
        ({"op": "replace", "path": "/name", "value": "x"}, "Value not a valid list"),
        ([{"op": "move", "path": "/name", "value": "x"}], "Value should be one of: add, remove, replace"),
    ],
    ids=lambda given: str(given)[:60],
)
@together
async def test_a_bad_patch_is_refused_and_changes_nothing(shared: Any, patch: Any, text: str) -> None:
    made = await shared.post("/v1/audits", CONTINUOUS)
    path = f"/v1/audits/{made['uuid']}"
    answer = await shared.http.patch(path, json=patch)
    assert (answer.status_code, text in fault(answer)) == (400, True), answer.text
    assert await shared.get(path) == made


async def test_a_patch_is_applied_whole_or_not_at_all(idle: Any) -> None:
    await idle.post("/v1/audits", {**CONTINUOUS, "name": "one"})
    both = [*replace("/interval", "60"), *replace("/state", "CANCELLED")]
    changed = (await idle.http.patch("/v1/audits/one", json=both)).json()
    assert (changed["interval"], changed["state"]) == ("60", "CANCELLED")
    answer = await idle.http.patch(
        "/v1/audits/one", json=[*replace("/interval", "7200"), *replace("/state", "ONGOING")]
    )
    assert answer.status_code == 400
    assert (await idle.get("/v1/audits/one"))["interval"] == "60"
    assert (await idle.http.patch("/v1/audits/one", json=[])).json()["interval"] == "60"
    assert (await idle.http.patch("/v1/audits/nope", json=[])).status_code == 404


async def test_a_name_that_is_taken_cannot_be_patched_in(idle: Any) -> None:
    for name in ("one", "two"):
        await idle.post("/v1/audits", {**ONESHOT, "name": name})
    answer = await idle.http.patch("/v1/audits/one", json=replace("/name", "TWO"))
    assert (answer.status_code, "already exists" in fault(answer)) == (409, True)
    assert (await idle.http.patch("/v1/audits/one", json=replace("/name", "One"))).json()["name"] == "One"


async def test_a_oneshot_audit_can_become_continuous_when_it_gets_an_interval(idle: Any) -> None:
    await idle.post("/v1/audits", {**ONESHOT, "name": "one"})
    answer = await idle.http.patch("/v1/audits/one", json=replace("/audit_type", "CONTINUOUS"))
    assert (answer.status_code, fault(answer)) == (400, "Interval of audit must be specified for CONTINUOUS.")
    both = [*replace("/audit_type", "CONTINUOUS"), *replace("/interval", "60")]
    assert (await idle.http.patch("/v1/audits/one", json=both)).json()["audit_type"] == "CONTINUOUS"


# -- webhooks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["PENDING", "SUCCEEDED"])
@pytest.mark.parametrize("body", [{}, {"reason": "alarm"}, [1], "text", 5, False])
@together
async def test_a_webhook_is_accepted_and_kept_for_the_engine(shared: Any, state: str, body: Any) -> None:
    made = await in_state(shared, state, {**EVENT, "name": "on-alarm"})
    before = datetime.now(UTC)
    for ident in ("on-alarm", made["uuid"], shared.store.get(Audit, made["uuid"]).id):
        answer = await shared.http.post(f"/v1/webhooks/{ident}", json=body, headers={VERSION: "infra-optim 1.0"})
        assert (answer.status_code, answer.content) == (202, b"")
    kept = shared.store.get(Audit, made["uuid"])
    assert before <= kept.triggered_at <= datetime.now(UTC)
    assert kept.state == state, "the engine moves it"
    await shared.http.patch("/v1/audits/on-alarm", json=replace("/name", made["uuid"][:8]))


@pytest.mark.parametrize(
    ("state", "body", "text"),
    [
        ("PENDING", ONESHOT, "Audit type ONESHOT is disallowed."),
        ("PENDING", CONTINUOUS, "Audit type CONTINUOUS is disallowed."),
        *(
            (state, EVENT, f"Audit state {state} is disallowed.")
            for state in ("ONGOING", "FAILED", "CANCELLED", "SUSPENDED")
        ),
    ],
)
@together
async def test_webhooks_run_event_audits_that_wait_or_have_run(shared: Any, state: str, body: Any, text: str) -> None:
    made = await in_state(shared, state, body)
    answer = await shared.http.post(f"/v1/webhooks/{made['uuid']}", json={})
    assert (answer.status_code, fault(answer)) == (400, text)
    assert shared.store.get(Audit, made["uuid"]).triggered_at is None


async def test_a_webhook_needs_a_json_body_and_an_audit(idle: Any) -> None:
    await idle.post("/v1/audits", {**EVENT, "name": "e"})
    for content, kind, status, text in (
        (b"", "application/json", 400, 'Missing argument: "body"'),
        (b"a=1", "application/x-www-form-urlencoded", 400, 'Missing argument: "body"'),
        (b"{}", "text/plain", 415, "Unknown mimetype: text/plain"),
        (b"{nonsense", "application/json", 400, "Request is not in valid JSON format"),
    ):
        answer = await idle.http.post("/v1/webhooks/e", content=content, headers={"Content-Type": kind})
        assert (answer.status_code, fault(answer)) == (status, text)
    answer = await idle.http.post("/v1/webhooks/nope", json={})
    assert (answer.status_code, fault(answer)) == (404, "Audit nope could not be found")
    assert (await idle.http.get("/v1/webhooks/e")).status_code == 405
    assert idle.store.get(Audit, "e").triggered_at is None
