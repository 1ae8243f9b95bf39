"""/v1/action_plans and /v1/actions over HTTP: started, cancelled, skipped, deleted, in Watcher's words."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest

from trimtab.platform.records import Action, ActionPlan, Audit, EfficacyIndicator, Goal, Strategy
from trimtab.platform.states import ActionState, PlanState

VERSION = "OpenStack-API-Version"
UNKNOWN = "0f6d0e1e-5f3a-4b88-8f4c-3a0d3c5b8c11"
together = pytest.mark.asyncio(loop_scope="module")

PLAN_WAYS: dict[str, tuple[str, ...]] = {
    "RECOMMENDED": (),
    "PENDING": ("start",),
    "ONGOING": ("start", "run"),
    "SUCCEEDED": ("start", "run", "succeed"),
    "FAILED": ("start", "run", "fail"),
    "CANCELLING": ("start", "run", "cancel"),
    "CANCELLED": ("start", "run", "cancel", "stopped"),
    "SUPERSEDED": ("supersede",),
}
ACTION_WAYS: dict[str, tuple[str, ...]] = {
    "PENDING": (),
    "ONGOING": ("begin",),
    "SUCCEEDED": ("begin", "succeed"),
    "FAILED": ("begin", "fail"),
    "CANCELLING": ("begin", "cancel"),
    "CANCELLED": ("cancel",),
    "SKIPPED": ("skip",),
}


def fault(answer: Any) -> str:
    return str(json.loads(answer.json()["error_message"])["faultstring"])


def patch(**values: Any) -> list[dict[str, Any]]:
    return [{"op": "replace", "path": f"/{name}", "value": value} for name, value in values.items()]


def plan_of(
    one: Any, state: str = "RECOMMENDED", actions: Sequence[str] = ("PENDING", "PENDING", "PENDING")
) -> tuple[Audit, ActionPlan, list[Action]]:
    """An audit with a plan whose records have come to these states the way records do."""
    store = one.store
    goal, strategy = store.get(Goal, "dummy"), store.get(Strategy, "dummy")
    audit = store.create(
        Audit(uuid=str(uuid4()), name=str(uuid4()), audit_type="ONESHOT", state="PENDING", goal_id=goal.id)
    )
    plan = store.create(
        ActionPlan(
            uuid=str(uuid4()),
            audit_id=audit.id,
            strategy_id=strategy.id,
            state="RECOMMENDED",
            global_efficacy=[{"name": "released_nodes_ratio", "description": "d", "unit": "%", "value": 50.0}],
        )
    )
    store.create(
        EfficacyIndicator(
            uuid=str(uuid4()), action_plan_id=plan.id, name="compute_nodes_count", description="The total.", data=3
        )
    )
    made: list[Action] = []
    for wanted in actions:
        parents = [made[-1].uuid] if made else []
        action = store.create(
            Action(
                uuid=str(uuid4()),
                action_plan_id=plan.id,
                action_type="nop",
                input_parameters={"message": "hi"},
                state="PENDING",
                parents=parents,
            )
        )
        for event in ACTION_WAYS[wanted]:
            action = store.transition(Action, action.uuid, event)
        made.append(action)
    for event in PLAN_WAYS[state]:
        plan = store.transition(ActionPlan, plan.uuid, event)
    return audit, plan, made


# -- plans: reading --------------------------------------------------------------------------------------


async def test_a_plan_has_watchers_fields_whole_and_in_short(idle: Any) -> None:
    audit, plan, _ = plan_of(idle)
    whole = await idle.get(f"/v1/action_plans/{plan.uuid}")
    assert whole == {
        "uuid": plan.uuid,
        "audit_uuid": audit.uuid,
        "strategy_uuid": idle.store.get(Strategy, "dummy").uuid,
        "strategy_name": "dummy",
        "state": "RECOMMENDED",
        "efficacy_indicators": [
            {"name": "compute_nodes_count", "description": "The total.", "unit": None, "value": 3.0}
        ],
        "global_efficacy": [{"name": "released_nodes_ratio", "description": "d", "unit": "%", "value": 50.0}],
        "links": [
            {"href": f"http://trimtab:9322/v1/action_plans/{plan.uuid}", "rel": "self"},
            {"href": f"http://trimtab:9322/action_plans/{plan.uuid}", "rel": "bookmark"},
        ],
        "hostname": None,
        "status_message": None,
        "created_at": whole["created_at"],
        "updated_at": None,
        "deleted_at": None,
    }
    assert isinstance(whole["efficacy_indicators"][0]["value"], float)
    (line,) = (await idle.get("/v1/action_plans"))["action_plans"]
    short = {
        "uuid", "state", "audit_uuid", "strategy_uuid", "strategy_name", "efficacy_indicators", "global_efficacy",
        "updated_at", "links",
    }  # fmt: skip
    assert line == {name: whole[name] for name in short}
    assert (await idle.get("/v1/action_plans/detail"))["action_plans"] == [whole]
    old = await idle.http.get(f"/v1/action_plans/{plan.uuid}", headers={VERSION: "infra-optim 1.4"})
    assert set(whole) - set(old.json()) == {"status_message"}


async def test_plans_are_filtered_by_audit_and_strategy_and_sorted_by_them(idle: Any) -> None:
    first, plan, _ = plan_of(idle)
    second, other, _ = plan_of(idle)
    for query, found in (
        ({"audit_uuid": first.uuid}, [plan.uuid]),
        ({"audit_uuid": UNKNOWN}, []),
        ({"strategy": "dummy"}, [plan.uuid, other.uuid]),
        ({"strategy": "dummy", "audit_uuid": second.uuid}, [other.uuid]),
        ({"strategy": "basic"}, []),
        ({"strategy": "nope"}, []),
    ):
        for path in ("/v1/action_plans", "/v1/action_plans/detail"):
            assert [row["uuid"] for row in (await idle.get(path, **query))["action_plans"]] == found, query
    for key in ("audit_uuid", "strategy_name", "strategy_uuid", "state", "id"):
        rows = (await idle.get("/v1/action_plans", sort_key=key, sort_dir="desc"))["action_plans"]
        assert len(rows) == 2
    rows = (await idle.get("/v1/action_plans", sort_key="audit_uuid"))["action_plans"]
    assert [row["audit_uuid"] for row in rows] == sorted([first.uuid, second.uuid])
    idle.store.transition(Audit, first.uuid, "cancel")
    idle.store.delete(Audit, first.uuid)
    assert (await idle.get(f"/v1/action_plans/{plan.uuid}"))["audit_uuid"] is None


@together
@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/v1/action_plans/5", 400, "Expected a uuid but received 5"),
        ("GET", "/v1/action_plans/name", 400, "Expected a uuid but received name"),
        ("GET", f"/v1/action_plans/{UNKNOWN}", 404, f"ActionPlan {UNKNOWN} could not be found"),
        ("GET", "/v1/action_plans?audit_uuid=nope", 400, "Expected a uuid but received nope"),
        ("GET", "/v1/action_plans?bogus=1", 400, 'Unknown argument: "bogus"'),
        ("DELETE", f"/v1/action_plans/{UNKNOWN}", 404, f"ActionPlan {UNKNOWN} could not be found"),
        ("POST", f"/v1/action_plans/{UNKNOWN}/start", 404, f"ActionPlan {UNKNOWN} could not be found"),
        ("POST", "/v1/action_plans/5/start", 400, "Expected a uuid but received 5"),
        ("GET", "/v1/actions/5", 400, "Expected a uuid but received 5"),
        ("GET", f"/v1/actions/{UNKNOWN}", 404, f"Action {UNKNOWN} could not be found"),
        ("GET", "/v1/actions?action_plan_uuid=nope", 400, "Expected a uuid but received nope"),
        ("GET", "/v1/actions?audit_uuid=nope", 400, "Expected a uuid but received nope"),
        (
            "GET",
            f"/v1/actions?audit_uuid={UNKNOWN}&action_plan_uuid={UNKNOWN}",
            400,
            "Filtering actions on both audit and action-plan is prohibited",
        ),
    ],
)
async def test_what_is_not_there_or_no_uuid_is_said(
    shared: Any, method: str, path: str, status: int, text: str
) -> None:
    answer = await shared.http.request(method, path)
    assert (answer.status_code, text in fault(answer)) == (status, True), answer.text


@together
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/action_plans"),
        ("POST", "/v1/actions"),
        ("DELETE", f"/v1/actions/{UNKNOWN}"),
        ("DELETE", "/v1/actions"),
        ("PUT", f"/v1/action_plans/{UNKNOWN}"),
    ],
)
async def test_plans_and_actions_are_made_by_audits_alone(shared: Any, method: str, path: str) -> None:
    assert (await shared.http.request(method, path, json={})).status_code == 405


# -- plans: start ------------------------------------------------------------------------------------------


@together
@pytest.mark.parametrize("state", PLAN_WAYS)
async def test_only_a_recommended_plan_is_started(shared: Any, state: str) -> None:
    _, plan, _ = plan_of(shared, state)
    answer = await shared.http.post(f"/v1/action_plans/{plan.uuid}/start")
    if state == "RECOMMENDED":
        assert (answer.status_code, answer.json()["state"]) == (200, "PENDING")
    else:
        assert (answer.status_code, fault(answer)) == (400, f"Couldn't start when state is '{state}'.")


@together
async def test_a_plan_is_started_with_an_empty_body_or_object_and_nothing_else(shared: Any) -> None:
    for content, status in ((b"", 200), (b"{}", 200), (b'{"a": 1}', 400), (b"[1]", 400), (b"{nonsense", 400)):
        _, plan, _ = plan_of(shared)
        answer = await shared.http.post(
            f"/v1/action_plans/{plan.uuid}/start", content=content, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == status, content
        assert shared.store.get(ActionPlan, plan.uuid).state == ("PENDING" if status == 200 else "RECOMMENDED")


# -- plans: patches ----------------------------------------------------------------------------------------

ALLOWED = {
    ("RECOMMENDED", "PENDING"),
    ("RECOMMENDED", "CANCELLED"),
    ("PENDING", "CANCELLED"),
    ("ONGOING", "CANCELLING"),
}


@together
@pytest.mark.parametrize("state", PLAN_WAYS)
async def test_a_patch_starts_or_cancels_a_plan_and_does_nothing_else(shared: Any, state: str) -> None:
    for target in PlanState:
        _, plan, _ = plan_of(shared, state)
        answer = await shared.http.patch(f"/v1/action_plans/{plan.uuid}", json=patch(state=target))
        if (state, target) in ALLOWED:
            assert (answer.status_code, answer.json()["state"]) == (200, target)
        else:
            assert answer.status_code == 400
            assert fault(answer).endswith(f"Reason: State transition not allowed: ({state} -> {target})")
            assert shared.store.get(ActionPlan, plan.uuid).state == state


@together
@pytest.mark.parametrize(
    ("operations", "text"),
    [
        ([], "State transition not allowed: (RECOMMENDED -> RECOMMENDED)"),
        (patch(state="BOGUS"), "Invalid state: BOGUS"),
        (patch(state=5), "Invalid state: 5"),
        (patch(state=["PENDING"]), "Invalid state: ['PENDING']"),
        (patch(state=None), "State transition not allowed: (RECOMMENDED -> None)"),
        ([{"op": "remove", "path": "/state"}], "State transition not allowed: (RECOMMENDED -> None)"),
        (patch(hostname="ctl"), "State transition not allowed: (RECOMMENDED -> RECOMMENDED)"),
        (patch(global_efficacy=[]), "State transition not allowed: (RECOMMENDED -> RECOMMENDED)"),
        *(
            (patch(**{name: "x", "state": "PENDING"}), f"'/{name}' is an internal attribute and can not be updated")
            for name in ("status_message", "uuid", "id", "links", "created_at", "updated_at", "deleted_at")
        ),
        (patch(colour="red", state="PENDING"), "can't replace a non-existent object 'colour'"),
        (patch(hostname=5, state="PENDING"), "hostname. Value: '5'. Wrong type."),
        (patch(global_efficacy=5, state="PENDING"), "global_efficacy. Value: '5'. Wrong type."),
        (patch(audit_id=99999, state="PENDING"), "Audit 99999 is invalid"),
        (patch(strategy_id=None, state="PENDING"), "Strategy None is invalid"),
        ({"op": "replace", "path": "/state", "value": "PENDING"}, "Value not a valid list"),
    ],
    ids=lambda given: str(given)[:50],
)
async def test_a_bad_patch_of_a_plan_is_refused(shared: Any, operations: Any, text: str) -> None:
    _, plan, _ = plan_of(shared)
    answer = await shared.http.patch(f"/v1/action_plans/{plan.uuid}", json=operations)
    assert (answer.status_code, text in fault(answer)) == (400, True), answer.text
    assert shared.store.get(ActionPlan, plan.uuid) == plan


@together
async def test_other_fields_are_patched_alongside_the_state(shared: Any) -> None:
    _, plan, _ = plan_of(shared)
    efficacy = [{"name": "n", "value": 1.0}]
    operations = patch(hostname="ctl", global_efficacy=efficacy, audit="x", state="PENDING")
    changed = (await shared.http.patch(f"/v1/action_plans/{plan.uuid}", json=operations)).json()
    assert (changed["state"], changed["hostname"], changed["global_efficacy"]) == ("PENDING", "ctl", efficacy)


@together
@pytest.mark.parametrize("state", ["RECOMMENDED", "PENDING"])
async def test_cancelling_a_plan_cancels_its_actions_skipped_ones_too(shared: Any, state: str) -> None:
    _, plan, actions = plan_of(shared, state, ("PENDING", "SKIPPED", "PENDING"))
    assert (await shared.http.patch(f"/v1/action_plans/{plan.uuid}", json=patch(state="CANCELLED"))).status_code == 200
    assert {shared.store.get(Action, action.uuid).state for action in actions} == {"CANCELLED"}


@together
async def test_a_plan_at_work_is_left_to_stop_its_own_actions(shared: Any) -> None:
    _, plan, actions = plan_of(shared, "ONGOING", ("ONGOING", "PENDING"))
    changed = await shared.http.patch(f"/v1/action_plans/{plan.uuid}", json=patch(state="CANCELLING"))
    assert changed.json()["state"] == "CANCELLING"
    assert [shared.store.get(Action, action.uuid).state for action in actions] == ["ONGOING", "PENDING"]


@together
@pytest.mark.parametrize("state", PLAN_WAYS)
async def test_a_plan_that_is_not_at_work_is_deleted_with_its_parts(shared: Any, state: str) -> None:
    _, plan, actions = plan_of(shared, state)
    path = f"/v1/action_plans/{plan.uuid}"
    answer = await shared.http.request("DELETE", path, headers={"Content-Type": "application/octet-stream"})
    if state in {"PENDING", "ONGOING", "CANCELLING"}:
        assert (answer.status_code, fault(answer)) == (400, f"Couldn't delete when state is '{state}'.")
        return
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await shared.http.get(path)).status_code == 404
    assert (await shared.http.delete(path)).status_code == 404
    assert (await shared.http.get(f"/v1/actions/{actions[0].uuid}")).status_code == 404
    assert shared.store.list(EfficacyIndicator, {"action_plan_id": plan.id}) == []
    gone = (await shared.http.get(path, headers={"X-Show-Deleted": "1"})).json()
    assert (gone["state"], gone["deleted_at"] is not None) == ("DELETED", True)


# -- actions: reading ----------------------------------------------------------------------------------------


async def test_an_action_has_watchers_fields_whole_and_in_short(idle: Any) -> None:
    _, plan, (first, second, _) = plan_of(idle)
    whole = await idle.get(f"/v1/actions/{second.uuid}")
    assert whole == {
        "uuid": second.uuid,
        "action_plan_uuid": plan.uuid,
        "state": "PENDING",
        "action_type": "nop",
        "description": whole["description"],
        "input_parameters": {"message": "hi"},
        "parents": [first.uuid],
        "links": [
            {"href": f"http://trimtab:9322/v1/actions/{second.uuid}", "rel": "self"},
            {"href": f"http://trimtab:9322/actions/{second.uuid}", "rel": "bookmark"},
        ],
        "status_message": None,
        "created_at": whole["created_at"],
        "updated_at": None,
        "deleted_at": None,
    }
    assert whole["description"], "every installed type has a description"
    line = (await idle.get("/v1/actions"))["actions"][1]
    short = {"uuid", "action_plan_uuid", "state", "action_type", "parents", "links"}
    assert line == {name: whole[name] for name in short}
    assert (await idle.get("/v1/actions/detail"))["actions"][1] == whole
    old = await idle.http.get(f"/v1/actions/{second.uuid}", headers={VERSION: "infra-optim 1.4"})
    assert set(whole) - set(old.json()) == {"status_message"}


async def test_an_action_of_a_type_that_is_gone_is_shown_without_description(idle: Any) -> None:
    _, plan, _ = plan_of(idle)
    action = idle.store.create(Action(uuid=str(uuid4()), action_plan_id=plan.id, action_type="gone", state="PENDING"))
    assert (await idle.get(f"/v1/actions/{action.uuid}"))["description"] == ""


async def test_actions_are_filtered_by_plan_or_audit_and_come_in_the_order_they_were_made(idle: Any) -> None:
    audit, plan, actions = plan_of(idle)
    _, other, others = plan_of(idle)
    for query, found in (
        ({}, [*actions, *others]),
        ({"action_plan_uuid": plan.uuid}, actions),
        ({"action_plan_uuid": UNKNOWN}, []),
        ({"audit_uuid": audit.uuid}, actions),
        ({"audit_uuid": UNKNOWN}, []),
    ):
        for path in ("/v1/actions", "/v1/actions/detail"):
            rows = (await idle.get(path, **query))["actions"]
            assert [row["uuid"] for row in rows] == [action.uuid for action in found], query
    rows = (await idle.get("/v1/actions", sort_key="action_plan_uuid"))["actions"]
    assert [row["action_plan_uuid"] for row in rows] == sorted([plan.uuid] * 3 + [other.uuid] * 3)
    page = await idle.get("/v1/actions", limit=2, action_plan_uuid=plan.uuid)
    assert page["next"] == f"http://trimtab:9322/v1/actions?sort_key=id&sort_dir=asc&limit=2&marker={actions[1].uuid}"


# -- actions: skipping -----------------------------------------------------------------------------------------

SKIP = patch(state="SKIPPED")
ALONE = "Action skipped by user."


@together
@pytest.mark.parametrize("plan_state", PLAN_WAYS)
@pytest.mark.parametrize("reason", [None, "my reason"])
async def test_a_waiting_action_is_skipped_before_its_plan_starts(
    shared: Any, plan_state: str, reason: str | None
) -> None:
    _, _, (action, *_) = plan_of(shared, plan_state)
    operations = patch(state="SKIPPED", **({"status_message": reason} if reason else {}))
    answer = await shared.http.patch(f"/v1/actions/{action.uuid}", json=operations)
    if plan_state in {"RECOMMENDED", "PENDING"}:
        assert answer.status_code == 200, answer.text
        message = f"{ALONE} Reason: {reason}" if reason else ALONE
        assert (answer.json()["state"], answer.json()["status_message"]) == ("SKIPPED", message)
        assert await shared.get(f"/v1/actions/{action.uuid}") == answer.json()
    else:
        text = f"State update not allowed for actionplan state: {plan_state}"
        assert (answer.status_code, fault(answer)) == (409, text)
        assert shared.store.get(Action, action.uuid).state == "PENDING"


@together
@pytest.mark.parametrize("state", ACTION_WAYS)
async def test_no_other_state_of_an_action_can_be_asked_for(shared: Any, state: str) -> None:
    _, _, (action, *_) = plan_of(shared, "RECOMMENDED", (state,))
    for target in ActionState:
        if target == state or (state, target) == ("PENDING", "SKIPPED"):
            continue
        answer = await shared.http.patch(f"/v1/actions/{action.uuid}", json=patch(state=target))
        assert (answer.status_code, fault(answer)) == (409, f"State transition not allowed: ({state} -> {target})")
    assert shared.store.get(Action, action.uuid) == action


@together
@pytest.mark.parametrize("plan_state", ["RECOMMENDED", "PENDING", "ONGOING", "SUCCEEDED"])
async def test_the_reason_of_a_skipped_action_can_be_given_later_in_any_state_of_its_plan(
    shared: Any, plan_state: str
) -> None:
    _, _, (action, *_) = plan_of(shared, plan_state, ("SKIPPED",))
    path = f"/v1/actions/{action.uuid}"
    answer = await shared.http.patch(path, json=patch(status_message="later"))
    assert (answer.status_code, answer.json()["status_message"]) == (200, f"{ALONE} Reason: later")
    answer = await shared.http.patch(path, json=patch(state="SKIPPED", status_message="again"))
    assert answer.json()["status_message"] == f"{ALONE} Reason: again"
    answer = await shared.http.patch(path, json=patch(state="SKIPPED"))
    assert answer.json()["status_message"] == ALONE, "a patch without a reason resets the text"


@together
@pytest.mark.parametrize("state", ["PENDING", "ONGOING", "SUCCEEDED", "FAILED", "CANCELLED"])
async def test_the_message_of_what_is_not_skipped_belongs_to_the_applier(shared: Any, state: str) -> None:
    _, _, (action, *_) = plan_of(shared, "RECOMMENDED", (state,))
    answer = await shared.http.patch(f"/v1/actions/{action.uuid}", json=patch(status_message="mine"))
    text = "status_message update only allowed when action state is SKIPPED"
    assert (answer.status_code, fault(answer)) == (409, text)
    answer = await shared.http.patch(f"/v1/actions/{action.uuid}", json=[])
    assert answer.status_code == 200
    assert answer.json()["status_message"] == (ALONE if state == "PENDING" else None), "Watcher resets it while waiting"


@together
async def test_a_patch_that_asks_for_nothing_resets_the_text_of_a_waiting_action(shared: Any) -> None:
    for operations in (patch(state="PENDING"), []):
        _, _, (action, *_) = plan_of(shared)
        changed = (await shared.http.patch(f"/v1/actions/{action.uuid}", json=operations)).json()
        assert (changed["state"], changed["status_message"]) == ("PENDING", ALONE)


@together
@pytest.mark.parametrize(
    ("operations", "text"),
    [
        (patch(action_type="nop"), "'/action_type' is not an allowed attribute and can not be updated"),
        (patch(input_parameters={}), "'/input_parameters' is not an allowed attribute and can not be updated"),
        (patch(uuid=UNKNOWN), "'/uuid' is not an allowed attribute and can not be updated"),
        (patch(colour="red"), "'/colour' is not an allowed attribute and can not be updated"),
        ([{"op": "remove", "path": "/state"}], "'/state' is a mandatory attribute and can not be removed"),
        (
            [{"op": "remove", "path": "/status_message"}],
            "'/status_message' is a mandatory attribute and can not be removed",
        ),
        (patch(state="BOGUS"), "Invalid state: BOGUS"),
        (patch(state="SKIPPED", status_message=5), "status_message. Value: '5'. Wrong type."),
        ({"op": "replace", "path": "/state", "value": "SKIPPED"}, "Value not a valid list"),
    ],
    ids=lambda given: str(given)[:50],
)
async def test_a_bad_patch_of_an_action_is_refused(shared: Any, operations: Any, text: str) -> None:
    _, _, (action, *_) = plan_of(shared)
    answer = await shared.http.patch(f"/v1/actions/{action.uuid}", json=operations)
    assert (answer.status_code, text in fault(answer)) == (400, True), answer.text
    assert shared.store.get(Action, action.uuid) == action


@together
async def test_skipping_needs_microversion_1_5(shared: Any) -> None:
    _, _, (action, *_) = plan_of(shared)
    for version in ("1.0", "1.4"):
        for uuid in (action.uuid, UNKNOWN):
            answer = await shared.http.patch(
                f"/v1/actions/{uuid}", json=SKIP, headers={VERSION: f"infra-optim {version}"}
            )
            assert (answer.status_code, fault(answer)) == (400, "API microversion 1.5 or higher is required.")
    for version, uuid, status in (("1.5", action.uuid, 200), ("1.5", UNKNOWN, 404)):
        answer = await shared.http.patch(f"/v1/actions/{uuid}", json=SKIP, headers={VERSION: f"infra-optim {version}"})
        assert answer.status_code == status
