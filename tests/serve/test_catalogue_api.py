"""Goals, strategies, scoring engines and services: golden shapes, lookups by id, uuid and name, heartbeats."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from trimtab.platform.records import Goal, ScoringEngine, Service, Strategy
from trimtab.serve.services import status

UNKNOWN = "0f6d0e1e-5f3a-4b88-8f4c-3a0d3c5b8c11"
INDICATOR = {
    "name": "compute_nodes_count",
    "description": "The total number of enabled compute nodes.",
    "unit": None,
    "schema": '{"type": "integer", "minimum": 0}',
}


def fault(answer: Any) -> str:
    return str(json.loads(answer.json()["error_message"])["faultstring"])


def links(collection: str, ident: Any) -> list[dict[str, str]]:
    return [
        {"href": f"http://trimtab:9322/v1/{collection}/{ident}", "rel": "self"},
        {"href": f"http://trimtab:9322/{collection}/{ident}", "rel": "bookmark"},
    ]


async def test_a_goal_has_watchers_shape(shared: Any) -> None:
    goal = await shared.get("/v1/goals/server_consolidation")
    assert goal == {
        "uuid": goal["uuid"],
        "name": "server_consolidation",
        "display_name": "Server Consolidation",
        "efficacy_specification": [INDICATOR, *goal["efficacy_specification"][1:]],
        "links": links("goals", goal["uuid"]),
        "created_at": goal["created_at"],
        "updated_at": None,
        "deleted_at": None,
    }
    made = datetime.fromisoformat(goal["created_at"])
    assert (made.utcoffset(), made.microsecond) == (timedelta(0), 0)
    line = next(row for row in (await shared.get("/v1/goals"))["goals"] if row["uuid"] == goal["uuid"])
    assert line == {name: value for name, value in goal.items() if not name.endswith("_at")}


async def test_watchers_goals_are_there(shared: Any) -> None:
    names = {row["name"] for row in (await shared.get("/v1/goals"))["goals"]}
    assert names >= {
        "unclassified", "dummy", "server_consolidation", "thermal_optimization", "workload_balancing",
        "airflow_optimization", "noisy_neighbor", "saving_energy", "hardware_maintenance", "cluster_maintaining",
    }  # fmt: skip


async def test_a_strategy_has_watchers_shape(shared: Any) -> None:
    goal = await shared.get("/v1/goals/dummy")
    strategy = await shared.get("/v1/strategies/dummy")
    assert strategy == {
        "uuid": strategy["uuid"],
        "name": "dummy",
        "display_name": "Dummy strategy",
        "links": links("strategies", strategy["uuid"]),
        "goal_uuid": goal["uuid"],
        "goal_name": "dummy",
        "parameters_spec": strategy["parameters_spec"],
    }
    number = strategy["parameters_spec"]["properties"]["para1"]
    assert {name: number[name] for name in ("type", "default", "minimum", "maximum")} == {
        "type": "number",
        "default": 3.2,
        "minimum": 1.0,
        "maximum": 10.2,
    }
    rows = (await shared.get("/v1/strategies"))["strategies"]
    line = next(row for row in rows if row["uuid"] == strategy["uuid"])
    assert line == {name: value for name, value in strategy.items() if name != "parameters_spec"}


async def test_strategies_are_narrowed_by_the_goals_uuid_or_name(shared: Any) -> None:
    goal = await shared.get("/v1/goals/dummy")
    by_name = (await shared.get("/v1/strategies", goal="dummy"))["strategies"]
    assert by_name
    assert {row["goal_uuid"] for row in by_name} == {goal["uuid"]}
    assert (await shared.get("/v1/strategies", goal=goal["uuid"]))["strategies"] == by_name
    assert (await shared.get("/v1/strategies", goal="DUMMY"))["strategies"] == by_name
    detailed = (await shared.get("/v1/strategies/detail", goal="dummy"))["strategies"]
    assert all("parameters_spec" in row for row in detailed)


async def test_a_scoring_engine_has_watchers_shape(shared: Any) -> None:
    engine = await shared.get("/v1/scoring_engines/dummy_scorer")
    assert set(engine) == {"uuid", "name", "description", "metainfo", "links"}
    assert isinstance(engine["metainfo"], str)
    rows = (await shared.get("/v1/scoring_engines"))["scoring_engines"]
    line = next(row for row in rows if row["uuid"] == engine["uuid"])
    assert line == {name: value for name, value in engine.items() if name != "metainfo"}


@pytest.mark.parametrize(
    ("collection", "kind", "name", "title"),
    [
        ("goals", Goal, "dummy", "Goal"),
        ("strategies", Strategy, "dummy", "Strategy"),
        ("scoring_engines", ScoringEngine, "dummy_scorer", "ScoringEngine"),
    ],
)
async def test_the_catalogue_is_known_by_id_uuid_and_name(
    shared: Any, collection: str, kind: Any, name: str, title: str
) -> None:
    row = shared.store.get(kind, name)
    found = await shared.get(f"/v1/{collection}/{name}")
    for ident in (row.id, row.uuid, row.uuid.upper(), name.upper()):
        assert await shared.get(f"/v1/{collection}/{ident}") == found
    for ident in ("nope", UNKNOWN, "987654"):
        answer = await shared.http.get(f"/v1/{collection}/{ident}")
        assert (answer.status_code, fault(answer)) == (404, f"{title} {ident} could not be found")


async def test_a_deleted_goal_is_null_in_its_strategies_and_shown_on_request(idle: Any) -> None:
    goal = idle.store.get(Goal, "dummy")
    idle.store.delete(Goal, goal.uuid)
    assert (await idle.http.get("/v1/goals/dummy")).status_code == 404
    assert all(row["name"] != "dummy" for row in (await idle.get("/v1/goals"))["goals"])
    strategy = await idle.get("/v1/strategies/dummy")
    assert (strategy["goal_uuid"], strategy["goal_name"]) == (None, None)
    rows = (await idle.get("/v1/strategies", goal="dummy"))["strategies"]
    assert "dummy" in [row["name"] for row in rows], "a filter by name finds what a deleted goal had"
    headers = {"X-Show-Deleted": "yes"}
    shown = (await idle.http.get("/v1/goals/dummy", headers=headers)).json()
    assert (shown["uuid"], shown["deleted_at"] is None) == (goal.uuid, False)
    listed = (await idle.http.get("/v1/goals", headers=headers)).json()["goals"]
    assert "dummy" in [row["name"] for row in listed]
    assert (await idle.http.get("/v1/strategies/dummy", headers=headers)).json()["goal_name"] == "dummy"


# -- services ---------------------------------------------------------------------------------------


@pytest.fixture
async def beating(shared: Any) -> AsyncIterator[Any]:
    """Three services: one alive, one silent, one that shares its name with the first."""
    now = datetime.now(UTC).replace(microsecond=0)
    rows = shared.store.create_many(
        [
            Service(uuid=str(uuid4()), name="watcher-decision-engine", host="ctl1", last_seen_up=now),
            Service(uuid=str(uuid4()), name="watcher-applier", host="ctl1", last_seen_up=now - timedelta(seconds=600)),
            Service(uuid=str(uuid4()), name="watcher-decision-engine", host="ctl2", last_seen_up=None),
        ]
    )
    yield shared, rows
    for row in rows:
        shared.store.delete(Service, row.uuid)


async def test_a_service_has_watchers_shape(beating: Any) -> None:
    api, (row, silent, young) = beating
    service = await api.get(f"/v1/services/{row.id}")
    assert service == {
        "id": row.id,
        "name": "watcher-decision-engine",
        "host": "ctl1",
        "status": "ACTIVE",
        "last_seen_up": row.last_seen_up.replace(tzinfo=None).isoformat(),
        "links": links("services", row.id),
        "created_at": service["created_at"],
        "updated_at": None,
        "deleted_at": None,
    }
    rows = (await api.get("/v1/services"))["services"]
    brief = {"id", "name", "host", "status", "links"}
    assert rows[0] == {name: value for name, value in service.items() if name in brief}
    assert [(one["id"], one["status"]) for one in rows] == [
        (row.id, "ACTIVE"),
        (silent.id, "FAILED"),
        (young.id, "ACTIVE"),
    ]


async def test_services_are_known_by_id_and_by_a_name_that_one_host_has(beating: Any) -> None:
    api, (row, silent, young) = beating
    assert (await api.get("/v1/services/watcher-applier"))["id"] == silent.id
    assert (await api.get("/v1/services/WATCHER-APPLIER"))["id"] == silent.id
    answer = await api.http.get("/v1/services/watcher-decision-engine")
    assert answer.status_code == 409
    assert f"{row.id} (on ctl1) or {young.id} (on ctl2)" in fault(answer)
    for ident in ("nope", "987654", row.uuid):
        answer = await api.http.get(f"/v1/services/{ident}")
        assert (answer.status_code, fault(answer)) == (404, f"The service {ident} cannot be found.")


def test_a_service_is_active_as_long_as_its_last_sign_of_life_is_fresh() -> None:
    now, limit = datetime(2026, 11, 22, tzinfo=UTC), timedelta(seconds=90)
    fresh, old = now - limit, now - limit - timedelta(seconds=1)
    row = Service(uuid=UNKNOWN, name="n", host="h", created_at=fresh)
    assert status(row, now, limit) == "ACTIVE"
    for seen, updated, created, wanted in (
        (fresh, old, old, "ACTIVE"),
        (old, fresh, fresh, "FAILED"),
        (None, fresh, old, "ACTIVE"),
        (None, old, fresh, "FAILED"),
        (None, None, old, "FAILED"),
        (None, None, None, "FAILED"),
        (now + limit, None, None, "ACTIVE"),
        (now + limit + timedelta(seconds=1), None, None, "FAILED"),
    ):
        row = Service(uuid=UNKNOWN, name="n", host="h", last_seen_up=seen, updated_at=updated, created_at=created)
        assert status(row, now, limit) == wanted
