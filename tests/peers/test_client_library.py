"""python-watcherclient used as a library: every method of every manager against a running server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from tests.peers.conftest import needed
from tests.peers.server import AUDIT_ENDED, PLAN_ENDED, Trimtab
from tests.peers.workers import Worker

pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]

NOBODY = "c0ffee00-0000-4000-8000-000000000000"


# All that there is, and is called in this file and in that of the command lines: a newer client shows what it adds.
METHODS = {
    **dict.fromkeys(("audit", "audit_template"), "create delete get list update"),
    "action_plan": "cancel delete get list start update",
    "action": "get list update",
    "strategy": "get list state",
    **dict.fromkeys(("goal", "scoring_engine", "service"), "get list"),
    "data_model": "list",
}
COMMANDS = {
    **dict.fromkeys(("audit", "audittemplate"), "create delete list show update"),
    "actionplan": "cancel delete list show start update",
    "action": "list show update",
    "strategy": "list show state",
    **dict.fromkeys(("goal", "scoringengine", "service"), "list show"),
    "datamodel": "list",
}


class RaisedError(Exception):
    """What the library raised: the name of its exception and its text."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name, self.text = name, text


class Library:
    """The library at one microversion (None: what it sends by itself)."""

    def __init__(self, worker: Worker, url: str, version: str | None) -> None:
        self.worker, self.version = worker, version
        self.access = {"watcher_url": url, "os_auth_token": "any", "os_infra_optim_api_version": version}

    @property
    def sent(self) -> str:
        return {None: "1.0", "1.latest": "1.5"}.get(self.version, str(self.version))

    def __call__(self, place: str, **arguments: Any) -> Any:
        manager, method = place.split(".")
        answer = self.worker.ask(access=self.access, manager=manager, method=method, arguments=arguments)
        if "error" in answer:
            raise RaisedError(answer["error"], answer["message"])
        return answer["result"]

    def fails(self, place: str, **arguments: Any) -> RaisedError:
        with pytest.raises(RaisedError) as raised:
            self(place, **arguments)
        return raised.value


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    needed("client")
    made = Worker("client", "library_worker.py")
    yield made
    made.close()


@pytest.fixture(scope="module", params=[None, "1.0", "1.7", "1.latest"], ids=lambda version: version or "default")
def library(request: pytest.FixtureRequest, worker: Worker, trimtab: Trimtab) -> Library:
    return Library(worker, trimtab.url, request.param)


def test_every_function_and_command_is_tried(worker: Worker) -> None:
    told = worker.ask(do="tell")
    assert set(told["methods"]) == {f"{name}.{one}" for name, every in METHODS.items() for one in every.split()}
    assert set(told["commands"]) == {
        f"optimize_{name}_{one}" for name, every in COMMANDS.items() for one in every.split()
    }


@pytest.mark.parametrize(
    ("manager", "path", "argument", "known"),
    [
        ("goal", "goals", "goal", "dummy"),
        ("strategy", "strategies", "strategy", "dummy"),
        ("scoring_engine", "scoring_engines", "scoring_engine_name", "dummy_scorer"),
    ],
)
def test_the_catalogue_is_listed_and_read(
    library: Library, trimtab: Trimtab, manager: str, path: str, argument: str, known: str
) -> None:
    short = trimtab.get(f"/v1/{path}", library.sent)[path]
    assert library(f"{manager}.list") == short
    assert library(f"{manager}.list", detail=True) == trimtab.get(f"/v1/{path}/detail", library.sent)[path]
    assert library(f"{manager}.list", limit=1) == short[:1]
    assert library(f"{manager}.list", limit=0, sort_key="name", sort_dir="desc") == sorted(
        short, key=lambda row: str(row["name"]), reverse=True
    )
    body = trimtab.get(f"/v1/{path}/{known}", library.sent)
    for name in (known, body["uuid"]):
        assert library(f"{manager}.get", **{argument: name}) == body
    assert library.fails(f"{manager}.get", **{argument: "nope"}).name == "NotFound"


def test_strategies_of_a_goal_and_their_state(library: Library, trimtab: Trimtab) -> None:
    of_goal = library("strategy.list", goal="workload_balancing")
    assert {row["name"] for row in of_goal} >= {"workload_balance", "workload_stabilization"}
    state = library("strategy.state", strategy="workload_balance")
    assert state == trimtab.get("/v1/strategies/workload_balance/state", library.sent)
    assert [row["type"] for row in state] == ["Datasource", "Metrics", "CDM", "Name"]


def test_services_are_listed_and_read(library: Library) -> None:
    listed = library("service.list")
    assert {row["name"] for row in listed} == {"watcher-decision-engine", "watcher-applier"}
    assert len(library("service.list", detail=True, limit=1, sort_key="id", sort_dir="desc")) == 1
    for row in listed:
        assert library("service.get", service=row["id"])["host"] == row["host"]
        assert library("service.get", service=row["name"])["last_seen_up"]


def test_the_data_model_is_read(library: Library, trimtab: Trimtab) -> None:
    if library.sent == "1.0":
        assert library.fails("data_model.list").name == "UnsupportedVersion"
        return
    body = library("data_model.list", data_model_type="compute")
    assert body["context"] == trimtab.get("/v1/data_model", library.sent)["context"]
    assert library.fails("data_model.list", data_model_type="baremetal").name == "NotFound"


def test_templates_live_from_creation_to_deletion(library: Library, trimtab: Trimtab) -> None:
    name = f"peer-{uuid4().hex}"
    scope = [{"compute": [{"availability_zones": [{"name": "*"}]}]}]
    made = library("audit_template.create", name=name, goal="dummy", strategy="dummy", description="d", scope=scope)
    assert made == trimtab.get(f"/v1/audit_templates/{name}", library.sent)
    assert ("default_parameters" in made) == (library.sent == "1.7")
    assert library("audit_template.get", audit_template_id=name) == made
    assert name in [row["name"] for row in library("audit_template.list", goal="dummy", strategy="dummy", detail=True)]
    patch = [{"op": "replace", "path": "/description", "value": "e"}, {"op": "remove", "path": "/strategy"}]
    changed = library("audit_template.update", audit_template_id=name, patch=patch)
    assert (changed["description"], changed["strategy_uuid"], changed["goal_name"]) == ("e", None, "dummy")
    taken = library.fails("audit_template.create", name=name, goal="dummy")
    assert (taken.name, taken.text.split(" (HTTP")[0]) == (
        "Conflict",
        f"An audit_template with UUID or name {name} already exists",
    )
    assert library("audit_template.delete", audit_template_id=name) is None
    assert library.fails("audit_template.get", audit_template_id=name).name == "NotFound"
    assert library.fails("audit_template.create", name=name, colour="red").name == "InvalidAttribute"


def test_audits_live_from_creation_to_deletion(library: Library, trimtab: Trimtab) -> None:
    made = library("audit.create", goal="dummy", strategy="dummy", audit_type="ONESHOT", parameters={"para1": 2.0})
    assert made["parameters"] == {"para1": 2.0, "para2": "hello"}
    trimtab.until(f"/v1/audits/{made['uuid']}", lambda body: body["state"] in AUDIT_ENDED)
    ended = library("audit.get", audit=made["uuid"])
    assert ended == trimtab.get(f"/v1/audits/{made['uuid']}", library.sent)
    assert ended["state"] == "SUCCEEDED"
    listed = library("audit.list", goal="dummy", strategy="dummy", limit=0, detail=True)
    assert ended in listed
    assert library("audit.list", marker=listed[0]["uuid"], limit=1) != listed[:1]
    assert library("audit.delete", audit=made["uuid"]) is None
    assert library.fails("audit.get", audit=made["uuid"]).name == "NotFound"


def test_continuous_audits_have_times_since_their_microversion(library: Library, trimtab: Trimtab) -> None:
    what: dict[str, Any] = {"goal": "dummy", "strategy": "dummy", "audit_type": "CONTINUOUS", "interval": "3600"}
    times = {"start_time": "2030-01-01T00:00:00", "end_time": "2030-02-01T00:00:00"}
    if library.sent == "1.0":
        assert library.fails("audit.create", **what, **times).name == "UnsupportedVersion"
        audit = library("audit.create", **what)
        assert "start_time" not in audit
    else:
        audit = library("audit.create", **what, **times)
        assert {name: audit[name] for name in times} == times
    patch = [{"op": "replace", "path": "/state", "value": "CANCELLED"}]
    assert library("audit.update", audit=audit["uuid"], patch=patch)["state"] == "CANCELLED"
    assert trimtab.get(f"/v1/audits/{audit['uuid']}")["state"] == "CANCELLED"


def test_plans_and_actions_are_read_skipped_and_started(library: Library, trimtab: Trimtab) -> None:
    uuid = trimtab.planned(strategy="dummy", parameters={"para1": 1.0})["uuid"]
    plan = library("action_plan.get", action_plan_id=uuid)
    assert plan == trimtab.get(f"/v1/action_plans/{uuid}", library.sent)
    assert [row["uuid"] for row in library("action_plan.list", audit=plan["audit_uuid"], detail=True)] == [uuid]
    actions = library("action.list", action_plan=uuid)
    assert actions == library("action.list", audit=plan["audit_uuid"])
    assert library("action.get", action_id=actions[0]["uuid"])["action_type"] == "nop"
    skip = [{"op": "replace", "path": "/state", "value": "SKIPPED"}]
    skipping = {"action_id": actions[0]["uuid"], "patch": skip}
    if library.sent == "1.0":
        assert "API microversion 1.5 or higher is required" in library.fails("action.update", **skipping).text
    else:
        assert library("action.update", **skipping)["status_message"] == "Action skipped by user."
        assert (
            library.fails(
                "action.update",
                action_id=actions[1]["uuid"],
                patch=[{"op": "replace", "path": "/status_message", "value": "x"}],
            ).name
            == "Conflict"
        )
    assert library("action_plan.start", action_plan_id=uuid)["state"] == "PENDING"
    assert library.fails("action_plan.start", action_plan_id=uuid).name == "BadRequest"
    ended = trimtab.until(f"/v1/action_plans/{uuid}", lambda body: body["state"] in PLAN_ENDED)
    assert ended["state"] == "SUCCEEDED"
    assert library("action_plan.delete", action_plan_id=uuid) is None
    assert library.fails("action_plan.get", action_plan_id=uuid).name == "NotFound"
    assert library.fails("action.get", action_id=actions[0]["uuid"]).name == "NotFound"


def test_plans_are_cancelled(library: Library, trimtab: Trimtab) -> None:
    uuid = trimtab.planned()["uuid"]
    assert library("action_plan.cancel", action_plan_id=uuid)["state"] == "CANCELLED"
    other = trimtab.planned()["uuid"]
    patch = [{"op": "replace", "path": "/state", "value": "CANCELLED"}]
    assert library("action_plan.update", action_plan_id=other, patch=patch)["state"] == "CANCELLED"
    again = library.fails("action_plan.cancel", action_plan_id=uuid)
    assert "State transition not allowed: (CANCELLED -> CANCELLED)" in again.text


def test_pages_are_followed_to_their_end(library: Library, trimtab: Trimtab) -> None:
    every = trimtab.get("/v1/strategies", library.sent)["strategies"]
    assert library("strategy.list", limit=len(every) - 1) == every[:-1]
    assert library("strategy.list", limit=len(every) + 5) == every
    body = trimtab.get("/v1/strategies", library.sent, limit=2)
    assert body["next"].startswith(f"{trimtab.url}/v1/strategies?")


def test_faults_carry_their_text(library: Library) -> None:
    for place, arguments, name, text in [
        ("audit.create", {"audit_type": "NEVER", "goal": "dummy"}, "BadRequest", "Audit type NEVER could not be found"),
        ("audit.list", {"sort_key": "colour"}, "BadRequest", "Invalid sort key: colour"),
        ("audit.list", {"audit_template": "x"}, "BadRequest", 'Unknown argument: "audit_template"'),
        ("action_plan.get", {"action_plan_id": NOBODY}, "NotFound", f"ActionPlan {NOBODY} could not be found"),
        ("action_plan.get", {"action_plan_id": "nope"}, "BadRequest", "Expected a uuid but received nope"),
    ]:
        raised = library.fails(place, **arguments)
        assert (raised.name, text in raised.text) == (name, True), raised
