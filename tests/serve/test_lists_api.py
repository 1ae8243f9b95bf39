"""Lists: paging, sorting, filters and markers of every collection, and pages that lose and repeat nothing."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.platform.records import Action, ActionPlan, Audit, AuditTemplate, Goal, Service, Strategy

UNKNOWN = "0f6d0e1e-5f3a-4b88-8f4c-3a0d3c5b8c11"
COLLECTIONS = (
    "goals", "strategies", "audit_templates", "audits", "action_plans", "actions", "services", "scoring_engines"
)  # fmt: skip
BY_GOAL, BY_STRATEGY = ("goal_uuid", "goal_name"), ("strategy_uuid", "strategy_name")
EXTRA = {
    "goals": (),
    "strategies": BY_GOAL,
    "audit_templates": (*BY_GOAL, *BY_STRATEGY),
    "audits": (*BY_GOAL, *BY_STRATEGY),
    "action_plans": ("audit_uuid", *BY_STRATEGY),
    "actions": ("action_plan_uuid",),
    "services": (),
    "scoring_engines": (),
}
COLUMNS = {
    "goals": ("id", "uuid", "name", "display_name", "efficacy_specification"),
    "strategies": ("id", "uuid", "name", "display_name", "goal_id", "parameters_spec"),
    "audit_templates": ("id", "uuid", "name", "description", "goal_id", "strategy_id", "scope", "default_parameters"),
    "audits": (
        "id", "uuid", "name", "audit_type", "state", "parameters", "interval", "goal_id", "strategy_id", "scope",
        "auto_trigger", "next_run_time", "hostname", "start_time", "end_time", "force", "status_message",
    ),
    "action_plans": (
        "id", "uuid", "audit_id", "strategy_id", "state", "global_efficacy", "hostname", "status_message"
    ),
    "actions": (
        "id", "uuid", "action_plan_id", "action_type", "input_parameters", "state", "parents", "status_message"
    ),
    "services": ("id", "name", "host", "last_seen_up"),
    "scoring_engines": ("id", "uuid", "name", "description", "metainfo"),
}  # fmt: skip
TIMES = ("created_at", "updated_at", "deleted_at")
KEYS = [(coll, key) for coll in COLLECTIONS for key in (*COLUMNS[coll], *TIMES, *EXTRA[coll])]


def fault(answer: Any) -> str:
    return str(json.loads(answer.json()["error_message"])["faultstring"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def full(shared: Any) -> AsyncIterator[Any]:
    """The shared server with templates, audits and services of many kinds."""
    store = shared.store
    goals, strategies = store.list(Goal), store.list(Strategy)
    templates = [
        AuditTemplate(
            uuid=str(uuid4()),
            name=f"template {number % 7}-{number}",
            description=None if number % 3 else "same",
            goal_id=goals[number % 4].id,
            strategy_id=None if number % 2 else strategies[number % 5].id,
        )
        for number in range(11)
    ]
    now = datetime.now(UTC)
    audits = [
        Audit(
            uuid=str(uuid4()),
            name=f"audit {number}",
            audit_type=("ONESHOT", "CONTINUOUS", "EVENT")[number % 3],
            state=("PENDING", "ONGOING", "SUCCEEDED")[number % 3],
            goal_id=goals[number % 3].id,
            strategy_id=None if number % 3 else strategies[number % 5].id,
            next_run_time=now + timedelta(hours=number // 3) if number % 2 else None,
            force=number % 2 == 0,
        )
        for number in range(13)
    ]
    services = [Service(uuid=str(uuid4()), name="watcher-applier", host=f"h{number}") for number in range(5)]
    for records in (templates, audits, services):
        store.create_many(records)
    ran, strategy = store.list(Audit)[0].id, strategies[0].id
    plans = store.create_many(
        [
            ActionPlan(uuid=str(uuid4()), audit_id=ran, strategy_id=strategy, state=state)
            for state in ("RECOMMENDED", "SUCCEEDED", "RECOMMENDED", "FAILED", "CANCELLED")
        ]
    )
    store.create_many(
        [
            Action(uuid=str(uuid4()), action_plan_id=plans[number % 2].id, action_type=("nop", "sleep")[number % 2],
                   state="PENDING")
            for number in range(9)
        ]
    )  # fmt: skip
    yield shared


async def pages(full: Any, url: str) -> list[dict[str, Any]]:
    """All rows of a list, page by page; a page's links must lead on."""
    collection = urlsplit(url).path.split("/")[2]
    rows: list[dict[str, Any]] = []
    while url:
        body = (await full.http.get(url)).json()
        rows += body[collection]
        url = body.get("next", "")
    return rows


@pytest.mark.parametrize(("collection", "key"), KEYS)
@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_pages_by_any_key_have_every_row_once(full: Any, collection: str, key: str, direction: str) -> None:
    whole = await full.get(f"/v1/{collection}")
    idents = [row.get("uuid", row.get("id")) for row in whole[collection]]
    rows = await pages(full, f"/v1/{collection}?limit=4&sort_key={key}&sort_dir={direction}")
    assert sorted(map(str, (row.get("uuid", row.get("id")) for row in rows))) == sorted(map(str, idents))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
async def test_pages_of_any_size_are_cut_from_the_whole_list(full: Any, data: Any) -> None:
    collection = data.draw(st.sampled_from(["goals", "strategies", "audit_templates", "audits", "services"]))
    key = data.draw(st.sampled_from((*COLUMNS[collection], *TIMES)))
    direction = data.draw(st.sampled_from(["asc", "desc"]))
    detail = data.draw(st.sampled_from(["", "/detail"]))
    size = data.draw(st.integers(1, 30))
    url = f"/v1/{collection}{detail}?sort_key={key}&sort_dir={direction}"
    whole = (await full.http.get(url)).json()
    assert "next" not in whole
    assert await pages(full, f"{url}&limit={size}") == whole[collection]


async def test_rows_with_the_same_value_come_by_id_in_the_same_direction(full: Any) -> None:
    async def names(direction: str) -> list[str]:
        rows = (await full.get("/v1/audits", sort_key="state", sort_dir=direction))["audits"]
        return [row["name"] for row in rows]

    upwards = await names("asc")
    state = {f"audit {n}": ("PENDING", "ONGOING", "SUCCEEDED")[n % 3] for n in range(13)}
    by_id = [f"audit {n}" for n in range(13)]
    assert upwards == sorted(by_id, key=lambda name: state[name])  # a stable sort
    assert await names("desc") == upwards[::-1]


@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_keys_of_other_objects_sort_the_page_only(full: Any, direction: str) -> None:
    rows = (await full.get("/v1/audits", sort_key="goal_name", sort_dir=direction, limit=6))["audits"]
    by_id = (await full.get("/v1/audits", sort_key="id", sort_dir=direction, limit=6))["audits"]
    assert rows != by_id
    assert rows == sorted(by_id, key=lambda row: (row["goal_name"], row["uuid"]), reverse=direction == "desc")


async def test_next_repeats_the_paging_and_leaves_out_the_filters(full: Any) -> None:
    body = await full.get("/v1/audits/detail", goal="dummy", limit=1, sort_key="name", sort_dir="desc")
    rows = body["audits"]
    if not rows:
        goal = (await full.get("/v1/audits"))["audits"][0]["goal_name"]
        body = await full.get("/v1/audits/detail", goal=goal, limit=1, sort_key="name", sort_dir="desc")
        rows = body["audits"]
    parts = urlsplit(body["next"])
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == "http://trimtab:9322/v1/audits/detail"
    assert parse_qs(parts.query) == {
        "sort_key": ["name"],
        "sort_dir": ["desc"],
        "limit": ["1"],
        "marker": [rows[0]["uuid"]],
    }


async def test_next_is_there_when_the_page_is_full_and_may_lead_to_an_empty_one(full: Any) -> None:
    whole = await full.get("/v1/goals")
    assert "next" not in whole
    body = await full.get("/v1/goals", limit=len(whole["goals"]))
    assert (await full.http.get(body["next"])).json() == {"goals": []}


async def test_a_limit_beyond_the_highest_is_cut_silently(full: Any) -> None:
    everything = await full.get("/v1/goals")
    assert await full.get("/v1/goals", limit=10**30) == everything


async def test_pages_of_services_are_marked_by_number(full: Any) -> None:
    body = await full.get("/v1/services", limit=2)
    marker = parse_qs(urlsplit(body["next"]).query)["marker"]
    assert marker == [str(body["services"][-1]["id"])]


@pytest.mark.parametrize("collection", COLLECTIONS)
@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"limit": "0"}, "Limit must be positive"),
        ({"limit": "-3"}, "Limit must be positive"),
        (
            {"limit": "ten"},
            "Invalid input for field/attribute limit. Value: 'ten'. unable to convert to int. Error: invalid literal",
        ),
        ({"limit": "1.0"}, "unable to convert to int. Error: invalid literal for int() with base 10: '1.0'"),
        ({"limit": "9" * 5000}, "unable to convert to int."),
        ({"limit": ""}, "Invalid input for field/attribute limit. Value: ''. unable to convert to int."),
        ({"sort_key": "moon"}, "Invalid sort key: moon"),
        ({"sort_key": "goal"}, "Invalid sort key: goal"),
        ({"sort_key": "audit"}, "Invalid sort key: audit"),
        ({"sort_key": "deleted"}, "Invalid sort key: deleted"),
        ({"sort_key": "owner"}, "Invalid sort key: owner"),
        ({"sort_key": ""}, "Invalid sort key: "),
        ({"sort_dir": "up"}, "Invalid sort direction: up. Acceptable values are 'asc' or 'desc'"),
        ({"bogus": "1"}, 'Unknown argument: "bogus"'),
        ({"state": "PENDING"}, 'Unknown argument: "state"'),
        ({"goal_uuid": UNKNOWN}, 'Unknown argument: "goal_uuid"'),
    ],
)
async def test_wrong_arguments_of_lists_are_refused(full: Any, collection: str, query: Any, text: str) -> None:
    for detail in ("", "/detail"):
        answer = await full.http.get(f"/v1/{collection}{detail}", params=query)
        assert (answer.status_code, text in fault(answer)) == (400, True), answer.text


@pytest.mark.parametrize(
    ("collection", "marker", "status", "text"),
    [
        ("goals", UNKNOWN, 404, f"Goal {UNKNOWN} could not be found"),
        ("goals", "dummy", 404, "Goal dummy could not be found"),
        ("strategies", "x", 404, "Strategy x could not be found"),
        ("scoring_engines", "x", 404, "ScoringEngine x could not be found"),
        ("audit_templates", UNKNOWN, 404, f"AuditTemplate {UNKNOWN} could not be found"),
        ("audit_templates", "x", 400, "unable to convert to uuid. Error: Expected a uuid but received x"),
        ("audits", UNKNOWN, 404, f"Audit {UNKNOWN} could not be found"),
        ("audits", "x", 400, "Expected a uuid but received x"),
        ("action_plans", UNKNOWN, 404, f"ActionPlan {UNKNOWN} could not be found"),
        ("action_plans", "x", 400, "Expected a uuid but received x"),
        ("actions", UNKNOWN, 404, f"Action {UNKNOWN} could not be found"),
        ("actions", "x", 400, "Expected a uuid but received x"),
        ("services", "9999", 404, "The service 9999 cannot be found."),
        ("services", "x", 400, "Invalid input for field/attribute marker. Value: 'x'. unable to convert to int."),
    ],
)
async def test_markers_must_be_known(full: Any, collection: str, marker: str, status: int, text: str) -> None:
    answer = await full.http.get(f"/v1/{collection}", params={"marker": marker})
    assert (answer.status_code, text in fault(answer)) == (status, True), answer.text


async def test_nothing_found_is_an_empty_list_without_next(full: Any) -> None:
    for path in (
        "strategies?goal=nope",
        "audit_templates?strategy=nope",
        "audits?goal=nope",
        "audits?goal=nope&limit=1",
    ):
        assert (await full.http.get(f"/v1/{path}")).json() == {path.partition("?")[0]: []}


@pytest.mark.parametrize(
    "path", ["strategies?goal", "audit_templates?goal", "audits?strategy", "action_plans?strategy", "goals?marker"]
)
async def test_an_empty_argument_is_as_good_as_none(full: Any, path: str) -> None:
    collection = path.partition("?")[0]
    assert (await full.http.get(f"/v1/{path}=")).json() == await full.get(f"/v1/{collection}")


@pytest.mark.parametrize("collection", COLLECTIONS)
async def test_lines_are_parts_of_the_objects_and_both_have_links(full: Any, collection: str) -> None:
    short = (await full.get(f"/v1/{collection}"))[collection]
    long = (await full.get(f"/v1/{collection}/detail"))[collection]
    assert len(short) == len(long)
    for line, whole in zip(short, long, strict=True):
        ident = line.get("uuid", line.get("id"))
        assert set(line) < set(whole)
        assert {name: whole[name] for name in line if name != "force"} == {
            name: value for name, value in line.items() if name != "force"
        }
        assert line.get("force", False) is False
        assert whole["links"] == [
            {"href": f"http://trimtab:9322/v1/{collection}/{ident}", "rel": "self"},
            {"href": f"http://trimtab:9322/{collection}/{ident}", "rel": "bookmark"},
        ]
        assert await full.get(f"/v1/{collection}/{ident}") == whole
