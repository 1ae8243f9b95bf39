"""Audit templates over HTTP: golden shape, every rule of POST and PATCH, conflicts, deletion."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.platform.records import AuditTemplate

VERSION = "OpenStack-API-Version"
BELOW = {VERSION: "infra-optim 1.6"}
PATH = "/v1/audit_templates"
UNKNOWN = "0f6d0e1e-5f3a-4b88-8f4c-3a0d3c5b8c11"
ZONES = [{"availability_zones": [{"name": "AZ1"}]}]


def fault(answer: Any) -> str:
    return str(json.loads(answer.json()["error_message"])["faultstring"])


def op(verb: str, path: str, value: Any = None) -> dict[str, Any]:
    return {"op": verb, "path": path} | ({} if verb == "remove" else {"value": value})


@pytest.fixture
async def api(shared: Any) -> AsyncIterator[Any]:
    """The shared server, with no templates afterwards."""
    yield shared
    for one in (await shared.get(PATH))["audit_templates"]:
        await shared.http.delete(f"{PATH}/{one['uuid']}")


async def made(api: Any, **fields: Any) -> dict[str, Any]:
    return dict(await api.post(PATH, {"name": "at", "goal": "dummy", **fields}))


async def patch(api: Any, *operations: dict[str, Any], ident: str = "at", headers: Any = None, body: Any = ...) -> Any:
    whole = list(operations) if body is ... else body
    return await api.http.patch(f"{PATH}/{ident}", json=whole, headers=headers)


async def test_a_template_has_watchers_shape(api: Any) -> None:
    goal, strategy = await api.get("/v1/goals/dummy"), await api.get("/v1/strategies/dummy")
    body = {
        "name": "at1",
        "goal": goal["uuid"],
        "strategy": strategy["uuid"],
        "scope": ZONES,
        "default_parameters": {"para1": 4.5},
    }
    answer = await api.http.post(PATH, json=body)
    got = answer.json()
    uuid, created = got["uuid"], got["created_at"]
    golden = {
        "uuid": uuid,
        "name": "at1",
        "description": None,
        "goal_uuid": goal["uuid"],
        "goal_name": "dummy",
        "strategy_uuid": strategy["uuid"],
        "strategy_name": "dummy",
        "links": [
            {"href": f"http://trimtab:9322/v1/audit_templates/{uuid}", "rel": "self"},
            {"href": f"http://trimtab:9322/audit_templates/{uuid}", "rel": "bookmark"},
        ],
        "scope": [{"compute": ZONES}],
        "default_parameters": {"para1": 4.5},
        "created_at": created,
        "deleted_at": None,
        "updated_at": None,
    }
    assert (answer.status_code, got) == (201, golden)
    assert answer.headers["Location"] == f"http://trimtab:9322/v1/audit_templates/{uuid}"
    for ident in (uuid, uuid.upper(), uuid.replace("-", ""), "at1", "AT1"):
        assert await api.get(f"{PATH}/{ident}") == golden
    assert (await api.get(f"{PATH}/detail"))["audit_templates"] == [golden]
    brief = {"uuid", "name", "goal_uuid", "goal_name", "strategy_uuid", "strategy_name", "scope", "links"}
    listed = (await api.get(PATH))["audit_templates"]
    assert listed == [{name: value for name, value in golden.items() if name in brief}]
    old = (await api.http.get(f"{PATH}/at1", headers=BELOW)).json()
    assert old == {name: value for name, value in golden.items() if name != "default_parameters"}


async def test_a_template_needs_only_name_and_goal(api: Any) -> None:
    body = {"description": None, "strategy": None, "scope": None, "default_parameters": None}
    one = await made(api, **body)
    assert (one["scope"], one["default_parameters"]) == ([], {})
    assert (one["strategy_uuid"], one["strategy_name"], one["description"]) == (None, None, None)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": None}, "Invalid input for field/attribute name. Value: 'None'. Wrong type."),
        ({"name": 5}, "field/attribute name. Value: '5'. Wrong type. Expected '<class 'str'>', got '<class 'int'>'"),
        ({"name": "x" * 64}, "Use 1 to 63 characters"),
        ({"name": ""}, "Use 1 to 63 characters"),
        ({"description": "x" * 256}, "Use 1 to 255 characters"),
        ({"description": ["x"]}, "Invalid input for field/attribute description. Value: '['x']'. Wrong type."),
        ({"goal": "nope"}, "Goal nope is invalid"),
        ({"goal": UNKNOWN}, f"Goal {UNKNOWN} is invalid"),
        ({"goal": 1}, "Invalid input for field/attribute goal. Value: '1'. Wrong type."),
        ({"strategy": "nope"}, "Strategy nope is invalid"),
        ({"strategy": "basic"}, "'basic' strategy does relate to the 'dummy' goal. Possible choices: '"),
        ({"scope": {}}, "Invalid input for field/attribute scope. Value: '{}'. Wrong type."),
        ({"scope": "x"}, "Wrong type. Expected '<class 'list'>', got '<class 'str'>'"),
        ({"scope": [{"compute": [{"moon": []}]}]}, "scope"),
        ({"scope": [{"moon": []}]}, "scope"),
        ({"scope": [5]}, "scope"),
        (
            {"scope": [{"host_aggregates": [{"id": 1}]}, {"exclude": [{"host_aggregates": [{"id": 2}]}]}]},
            "host_aggregates",
        ),
        ({"default_parameters": {"para1": 2.0}}, "default_parameters requires a strategy to be specified"),
        ({"strategy": "dummy", "default_parameters": {"moon": 1}}, "Audit parameter moon are not allowed"),
        (
            {"strategy": "dummy", "default_parameters": {"para1": "x"}},
            "Invalid default_parameters for strategy: ",
        ),
        ({"strategy": "dummy", "default_parameters": []}, "Wrong type. Expected '<class 'dict'>'"),
        ({"colour": "red"}, "Unknown attribute for argument audit_template_postdata: colour"),
        ({"colour": "red", "name": 5}, "Unknown attribute for argument audit_template_postdata: colour"),
        ({"uuid": UNKNOWN}, "Unknown attribute for argument audit_template_postdata: uuid"),
        ({"goal_uuid": UNKNOWN}, "Unknown attribute for argument audit_template_postdata: goal_uuid"),
    ],
)
async def test_a_bad_template_is_refused_in_watchers_words(api: Any, fields: Any, text: str) -> None:
    answer = await api.http.post(PATH, json={"name": "at", "goal": "dummy", **fields})
    assert (answer.status_code, text in fault(answer)) == (400, True), answer.text
    assert (await api.get(PATH)) == {"audit_templates": []}


@pytest.mark.parametrize("name", ["name", "goal"])
async def test_a_missing_field_is_named(api: Any, name: str) -> None:
    body = {"name": "at", "goal": "dummy"}
    del body[name]
    answer = await api.http.post(PATH, json=body)
    text = f"Invalid input for field/attribute {name}. Value: 'None'. Mandatory field missing."
    assert (answer.status_code, fault(answer)) == (400, text)


async def test_default_parameters_are_stored_as_given_and_need_their_version(api: Any) -> None:
    fields = {"name": "at", "goal": "dummy", "strategy": "dummy"}
    answer = await api.http.post(PATH, json={**fields, "default_parameters": {"para1": 2.0}}, headers=BELOW)
    assert (answer.status_code, fault(answer)) == (406, "Request not acceptable.")
    answer = await api.http.post(PATH, json={**fields, "default_parameters": {}}, headers=BELOW)
    assert (answer.status_code, "default_parameters" in answer.json()) == (201, False)
    answer = await patch(api, op("replace", "/default_parameters", {"para1": 2.0}), headers=BELOW)
    assert (answer.status_code, fault(answer)) == (406, "Request not acceptable.")
    answer = await patch(api, op("add", "/default_parameters/para1", 2.0))
    assert answer.json()["default_parameters"] == {"para1": 2.0}, "no defaults of the strategy are filled in"


async def test_a_storage_scope_stays_as_it_is(api: Any) -> None:
    scope = [{"storage": [{"availability_zones": [{"name": "AZ1"}]}]}]
    assert (await made(api, scope=scope))["scope"] == scope


async def test_a_live_name_is_taken_and_a_deleted_one_is_free(api: Any) -> None:
    await made(api)
    for name in ("at", "AT"):
        answer = await api.http.post(PATH, json={"name": name, "goal": "dummy"})
        assert answer.status_code == 409
        assert fault(answer) == f"An audit_template with UUID or name {name} already exists"
    assert (await api.http.delete(f"{PATH}/at")).status_code == 204
    answer = await api.http.delete(f"{PATH}/at")
    assert (answer.status_code, fault(answer)) == (404, "AuditTemplate at could not be found")
    assert (await api.http.get(f"{PATH}/at")).status_code == 404
    await made(api)


# -- patches ----------------------------------------------------------------------------------------


async def test_every_patchable_attribute_can_be_patched(api: Any) -> None:
    basic, consolidation = await api.get("/v1/strategies/basic"), await api.get("/v1/goals/server_consolidation")
    before = await made(api)
    answer = await patch(
        api,
        op("replace", "/name", "new"),
        op("add", "/description", "words"),
        op("replace", "/goal", "server_consolidation"),
        op("add", "/strategy", basic["uuid"]),
        op("replace", "/scope", ZONES),
    )
    assert answer.status_code == 200, answer.text
    after = answer.json()
    assert (after["name"], after["description"], after["scope"]) == ("new", "words", [{"compute": ZONES}])
    assert (after["goal_uuid"], after["goal_name"]) == (consolidation["uuid"], "server_consolidation")
    assert (after["strategy_uuid"], after["strategy_name"]) == (basic["uuid"], "basic")
    assert (after["uuid"], after["created_at"]) == (before["uuid"], before["created_at"])
    assert after["updated_at"] is not None
    assert await api.get(f"{PATH}/new") == after
    gone = (await patch(api, op("remove", "/strategy"), op("remove", "/description"), ident=before["uuid"])).json()
    assert (gone["strategy_uuid"], gone["description"]) == (None, None)
    back = (await patch(api, op("replace", "/strategy", "basic"), ident=before["uuid"])).json()
    assert back["strategy_name"] == "basic"
    none = (await patch(api, op("replace", "/strategy", None), ident=before["uuid"])).json()
    assert none["strategy_name"] is None


async def test_goal_and_strategy_of_a_patch_need_not_belong_together(api: Any) -> None:
    await made(api)
    assert (await patch(api, op("add", "/strategy", "basic"))).json()["strategy_name"] == "basic"


async def test_an_empty_patch_changes_nothing(api: Any) -> None:
    before = await made(api)
    answer = await patch(api)
    assert (answer.status_code, answer.json()) == (200, before)
    assert (await patch(api, op("replace", "/name", "at"))).json() == before


@pytest.mark.parametrize(
    ("operation", "status", "text"),
    [
        (op("remove", "/goal"), 400, "Cannot remove 'goal' attribute from an audit template"),
        (op("replace", "/goal", "nope"), 400, "Goal nope is invalid"),
        (op("replace", "/goal", None), 400, "Goal None is invalid"),
        (op("replace", "/goal", 1), 400, "Goal 1 is invalid"),
        (op("replace", "/goal_id", 9999), 400, "Goal 9999 is invalid"),
        (op("replace", "/goal_id", {}), 400, "Goal {} is invalid"),
        (op("remove", "/goal_id"), 400, "Goal None is invalid"),
        (op("replace", "/strategy", "nope"), 400, "Strategy nope is invalid"),
        (op("replace", "/strategy_id", 9999), 400, "Strategy 9999 is invalid"),
        (op("replace", "/strategy", ["basic"]), 400, "Strategy ['basic'] is invalid"),
        (op("remove", "/name"), 400, "Invalid input for field/attribute name. Value: 'None'."),
        (op("replace", "/name", None), 400, "Invalid input for field/attribute name. Value: 'None'."),
        (op("replace", "/name", 5), 400, "Expected '<class 'str'>', got '<class 'int'>'"),
        (op("replace", "/name", "taken"), 409, "An audit_template with UUID or name taken already exists"),
        (op("replace", "/description", 5), 400, "Invalid input for field/attribute description. Value: '5'."),
        (op("replace", "/scope", [{"compute": [{"moon": []}]}]), 400, "scope"),
        (op("replace", "/scope", "x"), 400, "scope"),
        (op("replace", "/scope/0", {}), 400, "Couldn't apply patch '"),
        (op("replace", "/default_parameters", {"para1": 2.0}), 400, "requires a strategy to be specified"),
        (op("replace", "/default_parameters", [1]), 400, "Expected '<class 'dict'>', got '<class 'list'>'"),
        (op("replace", "/default_parameters", 5), 400, "Expected '<class 'dict'>', got '<class 'int'>'"),
        (op("replace", "/uuid", UNKNOWN), 400, "'/uuid' is an internal attribute and can not be updated"),
        (op("remove", "/id"), 400, "'/id' is an internal attribute and can not be updated"),
        (op("add", "/links", []), 400, "'/links' is an internal attribute and can not be updated"),
        (op("replace", "/created_at", "x"), 400, "'/created_at' is an internal attribute and can not be updated"),
        (op("replace", "/updated_at", "x"), 400, "'/updated_at' is an internal attribute and can not be updated"),
        (op("replace", "/deleted_at", "x"), 400, "'/deleted_at' is an internal attribute and can not be updated"),
        (op("add", "/moon", 1), 400, "Adding a new attribute (/moon) to the root of  the resource is not allowed"),
        (op("replace", "/goal_uuid", UNKNOWN), 400, "Reason: can't replace a non-existent object 'goal_uuid'"),
        (op("replace", "/goal_name", "x"), 400, "Reason: can't replace a non-existent object 'goal_name'"),
        (op("remove", "/deleted"), 400, "Reason: can't remove a non-existent object 'deleted'"),
        (op("move", "/name", "x"), 400, "Value should be one of: add, remove, replace"),
        ({"op": "replace", "path": "/name"}, 400, "'add' and 'replace' operations needs value"),
        ({"op": "replace", "path": "name", "value": "x"}, 400, "field/attribute path. Value: 'name'."),
    ],
)
async def test_what_cannot_be_patched(api: Any, operation: Any, status: int, text: str) -> None:
    before = await made(api)
    await made(api, name="taken")
    answer = await patch(api, operation)
    assert (answer.status_code, text in fault(answer)) == (status, True), answer.text
    assert await api.get(f"{PATH}/at") == before


async def test_default_parameters_must_be_given_anew_with_another_goal_or_strategy(api: Any) -> None:
    await made(api, strategy="dummy", default_parameters={"para1": 2.0})
    text = (
        "Updating goal or strategy on a template that has default_parameters requires providing updated "
        "default_parameters in the same request"
    )
    for operation in (
        op("replace", "/goal", "server_consolidation"),
        op("replace", "/strategy", "basic"),
        op("remove", "/strategy"),
    ):
        answer = await patch(api, operation)
        assert (answer.status_code, fault(answer)) == (409, text)
    answer = await patch(api, op("replace", "/strategy", "basic"), op("replace", "/default_parameters", {"para1": 1.0}))
    assert (answer.status_code, fault(answer)) == (400, "Audit parameter para1 are not allowed")
    answer = await patch(api, op("replace", "/strategy", "basic"), op("remove", "/default_parameters"))
    assert (answer.json()["strategy_name"], answer.json()["default_parameters"]) == ("basic", {})
    assert (await patch(api, op("replace", "/goal", "server_consolidation"))).status_code == 200


async def test_patches_find_templates_by_uuid_and_name_but_not_by_id(api: Any) -> None:
    one = await made(api)
    assert (await patch(api, op("replace", "/description", "a"), ident=one["uuid"])).status_code == 200
    assert (await patch(api, op("replace", "/description", "b"), ident="AT")).status_code == 200
    number = api.store.get(AuditTemplate, "at").id
    assert (await api.get(f"{PATH}/{number}"))["name"] == "at"
    answer = await patch(api, op("replace", "/description", "c"), ident=str(number))
    assert (answer.status_code, fault(answer)) == (404, f"AuditTemplate {number} could not be found")
    answer = await patch(api, op("replace", "/description", "c"), ident="nope")
    assert (answer.status_code, fault(answer)) == (404, "AuditTemplate nope could not be found")


async def test_a_patch_that_is_no_list_is_told_before_an_unknown_template(api: Any) -> None:
    answer = await api.http.patch(f"{PATH}/nope", json=op("replace", "/name", "x"))
    assert (answer.status_code, "Value not a valid list" in fault(answer)) == (400, True)
    answer = await api.http.patch(f"{PATH}/nope", content=b"", headers={"Content-Type": "application/json"})
    assert (answer.status_code, fault(answer)) == (400, 'Missing argument: "patch"')
    answer = await api.http.patch(
        f"{PATH}/nope", content=b"[]", headers={"Content-Type": "application/json-patch+json"}
    )
    assert (answer.status_code, fault(answer)) == (415, "Unknown mimetype: application/json-patch+json")


async def test_deleted_templates_are_shown_on_request(api: Any) -> None:
    one = await made(api)
    await api.http.delete(f"{PATH}/at")
    for flag in ("1", "False"):
        headers = {"X-Show-Deleted": flag}
        gone = (await api.http.get(f"{PATH}/{one['uuid']}", headers=headers)).json()
        assert gone["deleted_at"] is not None
        listed = (await api.http.get(PATH, headers=headers)).json()["audit_templates"]
        assert one["uuid"] in [row["uuid"] for row in listed]
    assert (await api.http.get(f"{PATH}/{one['uuid']}", headers={"X-Show-Deleted": ""})).status_code == 404


async def test_templates_are_filtered_by_goal_and_strategy(api: Any) -> None:
    goal = await api.get("/v1/goals/dummy")
    await made(api, name="a", strategy="dummy")
    await made(api, name="b")
    await made(api, name="c", goal="server_consolidation", strategy="basic")

    async def names(**query: Any) -> list[str]:
        return [row["name"] for row in (await api.get(PATH, **query))["audit_templates"]]

    assert await names(goal="dummy") == await names(goal=goal["uuid"]) == ["a", "b"]
    assert await names(strategy="basic") == ["c"]
    assert await names(goal="dummy", strategy="dummy") == ["a"]
    assert await names(goal="dummy", strategy="basic") == await names(goal="nope") == await names(goal=UNKNOWN) == []


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8) | st.sampled_from(["dummy", "basic", "compute", "para1", UNKNOWN]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["compute", "name", "exclude", "para1", "x"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
FIELDS = st.sampled_from(["name", "description", "goal", "strategy", "scope", "default_parameters", "uuid"])
PATHS = st.sampled_from(
    ["/name", "/description", "/goal", "/goal_id", "/strategy", "/strategy_id", "/scope", "/scope/0", "/scope/-",
     "/default_parameters", "/default_parameters/para1", "/uuid", "/goal/x", "x"]
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(FIELDS, ANYTHING, max_size=4) | ANYTHING, st.booleans())
async def test_nothing_posted_breaks_the_server(api: Any, body: Any, whole: bool) -> None:
    if whole and isinstance(body, dict):
        body = {"name": str(uuid4()), "goal": "dummy", **body}
    answer = await api.http.post(PATH, json=body)
    assert answer.status_code in {201, 400, 409}, answer.text
    if answer.status_code == 201:
        assert await api.get(f"{PATH}/{answer.json()['uuid']}") == answer.json()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["add", "replace", "remove", 5]), PATHS, ANYTHING), max_size=3) | ANYTHING)
async def test_no_patch_breaks_the_server(api: Any, operations: Any) -> None:
    body = operations
    if isinstance(operations, list) and all(isinstance(one, tuple) for one in operations):
        body = [op(*one) for one in operations]
    one = await made(api, name=str(uuid4()), strategy="dummy")
    answer = await patch(api, ident=one["uuid"], body=body)
    assert answer.status_code in {200, 400, 409}, answer.text
    if answer.status_code == 200:
        assert await api.get(f"{PATH}/{one['uuid']}") == answer.json()
    await api.http.delete(f"{PATH}/{one['uuid']}")
