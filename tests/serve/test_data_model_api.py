"""/v1/data_model and /v1/strategies/{strategy}/state: what Trimtab sees of the cloud, in Watcher's words."""

import json
from typing import Any

import pytest

from trimtab.platform.collector import Availability
from trimtab.platform.model import ClusterModel
from trimtab.platform.model.flat import Flat
from trimtab.platform.snapshot import Need
from trimtab.serve.data_model import as_json
from trimtab.serve.microversions import HIGHEST
from trimtab.serve.strategy_state import needs, state

VERSION = "OpenStack-API-Version"
NEWER = {"server_pinned_az", "server_flavor_extra_specs"}


def fault(answer: Any) -> str:
    return str(json.loads(answer.json()["error_message"])["faultstring"])


async def test_the_data_model_lists_every_server_with_its_node_and_every_empty_node(idle: Any) -> None:
    rows = (await idle.get("/v1/data_model"))["context"]
    model: ClusterModel = idle.collector.model
    servers = [row for row in rows if "server_uuid" in row]
    assert {row["server_uuid"] for row in servers} == set(model.instance_ids.to_pylist())
    assert {row["node_uuid"] for row in rows} == set(model.host_ids.to_pylist())
    assert rows == sorted(rows, key=lambda row: (row["node_uuid"], row.get("server_uuid", "")))
    assert all(len(row) == (26 if "server_uuid" in row else 14) for row in rows)
    assert rows == (await idle.get("/v1/data_model/", data_model_type="compute"))["context"]


def test_an_empty_model_has_no_rows() -> None:
    assert json.loads(as_json(Flat({"node_uuid": []}, {"server_uuid": []}, []), HIGHEST)) == {"context": []}


async def test_rows_are_for_one_audit_what_its_scope_leaves(idle: Any) -> None:
    model = await idle.collector.newest()
    kept, gone = model.host_name(0), [model.host_name(host) for host in range(1, model.hosts)]
    scope = [{"compute": [{"exclude": [{"compute_nodes": [{"name": name}]} for name in gone]}]}]
    template = await idle.post("/v1/audit_templates", {"name": "narrow", "goal": "dummy", "scope": scope})
    audit = await idle.post("/v1/audits", {"audit_type": "ONESHOT", "audit_template_uuid": template["uuid"]})
    rows = (await idle.get("/v1/data_model", audit_uuid=audit["uuid"]))["context"]
    assert {row["node_hostname"] for row in rows} == {kept}


@pytest.mark.parametrize(
    ("query", "version", "status", "text"),
    [
        ({}, "1.2", 406, "Request not acceptable."),
        ({}, None, 406, "Request not acceptable."),
        ({"data_model_type": "storage"}, "1.3", 404, "The storage data model could not be found"),
        ({"data_model_type": "baremetal"}, "1.7", 404, "The baremetal data model could not be found"),
        ({"data_model_type": "storage"}, "1.2", 406, "Request not acceptable."),
        ({"audit_uuid": "nope"}, "1.2", 400, "Expected a uuid but received nope"),
        ({"audit_uuid": "nope"}, "1.3", 400, "Expected a uuid but received nope"),
        ({"audit_uuid": "0f6d0e1e-5f3a-4b88-8f4c-3a0d3c5b8c11"}, "1.3", 404, "could not be found"),
        ({"bogus": "1"}, "1.3", 400, 'Unknown argument: "bogus"'),
    ],
)
async def test_a_bad_question_about_the_model_is_refused(
    idle: Any, query: dict[str, str], version: str | None, status: int, text: str
) -> None:
    idle.http.headers.pop(VERSION)
    headers = {VERSION: f"infra-optim {version}"} if version else {}
    answer = await idle.http.get("/v1/data_model", params=query, headers=headers)
    assert (answer.status_code, text in fault(answer)) == (status, True), answer.text


@pytest.mark.parametrize(("version", "gone"), [("1.3", NEWER), ("1.5", NEWER), ("1.6", set()), ("1.7", set())])
async def test_extended_fields_came_with_a_later_version(idle: Any, version: str, gone: set[str]) -> None:
    whole = (await idle.get("/v1/data_model"))["context"]
    answer = await idle.http.get("/v1/data_model", headers={VERSION: f"infra-optim {version}"})
    assert answer.json()["context"] == [{key: row[key] for key in row if key not in gone} for row in whole]
    assert answer.headers["content-type"] == "application/json"


# -- what a strategy would find ----------------------------------------------------------------------------


async def test_a_strategy_without_needs_has_no_datasource(idle: Any) -> None:
    await idle.collector.newest()
    assert (await idle.http.get("/v1/strategies/dummy/state")).json() == [
        {
            "type": "Datasource",
            "state": "Datasource is not presented for this strategy",
            "mandatory": True,
            "comment": "",
        },
        {"type": "Metrics", "state": [], "mandatory": False, "comment": ""},
        {
            "type": "CDM",
            "state": [
                {"compute_model": "available"},
                {"storage_model": "available" if idle.collector.storage else "not available"},
                {"baremetal_model": "available" if idle.collector.baremetal else "not available"},
            ],
            "mandatory": True,
            "comment": "",
        },
        {"type": "Name", "state": "dummy", "mandatory": "", "comment": ""},
    ]


async def test_a_strategys_metrics_are_asked_for(idle: Any) -> None:
    uuid = (await idle.get("/v1/strategies/workload_stabilization"))["uuid"]
    before = (await idle.http.get(f"/v1/strategies/{uuid}/state")).json()
    assert before[2]["state"][0] == {"compute_model": "not available"}, "nothing was collected yet"
    await idle.collector.newest()
    datasource, metrics, models, name = (await idle.http.get(f"/v1/strategies/{uuid}/state")).json()
    assert datasource["state"] == "simulated: available"
    assert {"instance_cpu_usage": "available"} in metrics["state"]
    assert {"host_cpu_usage": "available"} in metrics["state"]
    assert models["state"][0] == {"compute_model": "available"}
    assert name["state"] == "workload_stabilization"


def test_what_is_not_measured_is_not_available() -> None:
    wanted = [Need("instance_cpu_usage", "instance"), Need("host_outlet_temp", "host")]
    found = Availability("prometheus", "", (True, False), {"compute": True, "storage": False, "baremetal": False})
    datasource, metrics, models, _ = state("x", wanted, found)
    assert datasource["state"] == "prometheus: available"
    assert metrics["state"] == [{"instance_cpu_usage": "available"}, {"host_outlet_temp": "not available"}]
    assert models["state"][1:] == [{"storage_model": "not available"}, {"baremetal_model": "not available"}]
    assert state("x", wanted, found._replace(fault="no route"))[0]["state"] == "prometheus: not available"


async def test_every_strategy_has_a_state(idle: Any) -> None:
    for strategy in (await idle.get("/v1/strategies"))["strategies"]:
        entries = (await idle.http.get(f"/v1/strategies/{strategy['uuid']}/state")).json()
        assert [entry["type"] for entry in entries] == ["Datasource", "Metrics", "CDM", "Name"]
        assert entries[-1]["state"] == strategy["name"]
        assert len(entries[1]["state"]) == len({need.metric for need in needs(strategy["name"])})
    assert (await idle.http.get("/v1/strategies/nope/state")).status_code == 404
