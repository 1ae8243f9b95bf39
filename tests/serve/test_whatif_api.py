"""/v1/whatifs over HTTP: sweeps on the running cloud, their cells, series and report; every fault at once."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from trimtab.platform.records import WhatIf
from trimtab.serve import whatif_engine
from trimtab.serve.whatif_command import here
from trimtab.simulator.truth import CloudSpec


class Killed(BaseException):
    """What nobody catches: the end of a process."""


NOBODY = {"name": "nobody"}
OFTEN = {"name": "often", "strategy": "workload_stabilization", "interval_min": 120}
SMALL: dict[str, Any] = {
    "name": "small",
    "horizon_h": 6,
    "past_h": 6,
    "axes": {"policy": [NOBODY, OFTEN], "seeds": {"first": 1, "count": 3}},
}


def fault(answer: Any) -> str:
    return str(json.loads(answer.json()["error_message"])["faultstring"])


async def test_a_sweep_of_the_running_cloud_is_computed_and_can_be_read(working: Any) -> None:
    await working.collector.collect()
    answer = await working.http.post("/v1/whatifs", json={**SMALL, "series": True})
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert answer.headers["location"].endswith(f"/v1/whatifs/{body['uuid']}")
    assert (body["name"], body["cells_total"]) == ("small", 6)
    path = f"/v1/whatifs/{body['uuid']}"
    ended = await working.ended(path)
    assert (ended["state"], ended["cells_done"], ended["cells_failed"]) == ("SUCCEEDED", 6, 0), ended
    assert ended["scenario"]["base"] == {"kind": "cloud"}
    assert [load["source"] for load in ended["scenario"]["axes"]["load"]] == ["history"], "the recorded load"
    assert ended["started_at"] <= ended["finished_at"]

    rows = (await working.get(f"{path}/cells"))["cells"]
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    assert {(row["policy"], row["seed"]) for row in rows} == {(p, s) for p in ("nobody", "often") for s in (1, 2, 3)}
    assert all(row["energy_kwh"] > 0 and row["error"] == "" and row["hosts"] == 20 for row in rows)
    assert all(row["audits"] == 3 for row in rows if row["policy"] == "often")

    series = await working.get(f"{path}/cells/{rows[0]['key']}/series")
    assert len(series["columns"]["power_w"]) == 72
    assert set(series["columns"]["policy"]) == {rows[0]["policy"]}
    report = await working.http.get(f"{path}/report", params={"x": "migrations"})
    assert report.headers["content-type"].startswith("text/html")
    assert "What if: small" in report.text
    listed = (await working.get("/v1/whatifs", name="small", state="SUCCEEDED"))["whatifs"]
    assert [one["uuid"] for one in listed] == [body["uuid"]]
    assert (await working.get("/v1/whatifs", state="FAILED"))["whatifs"] == []


async def test_cells_come_in_pages_sorted_and_filtered(working: Any) -> None:
    scenario = {**SMALL, "base": {"kind": "simulated", "hosts": 6, "instances": 20}}
    body = await working.post("/v1/whatifs", scenario)
    path = f"/v1/whatifs/{body['uuid']}"
    assert (await working.ended(path))["state"] == "SUCCEEDED"
    seen: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 4, "sort_key": "energy_kwh", "sort_dir": "desc"}
    while True:
        page = await working.get(f"{path}/cells", **query)
        seen += page["cells"]
        if "next" not in page:
            break
        assert f"marker={seen[-1]['key']}" in page["next"]
        query["marker"] = seen[-1]["key"]
    energies = [row["energy_kwh"] for row in seen]
    assert len(seen) == 6
    assert energies == sorted(energies, reverse=True)
    one = await working.get(f"{path}/cells", policy="often", seed=2)
    assert [(row["policy"], row["seed"]) for row in one["cells"]] == [("often", 2)]
    assert (await working.get(f"{path}/cells", topology="elsewhere"))["cells"] == []
    for wrong, status, text in (
        ({"sort_key": "colour"}, 400, "colour"),
        ({"sort_dir": "up"}, 400, "sort direction"),
        ({"limit": 0}, 400, "Limit"),
        ({"marker": "f" * 32}, 404, "Cell"),
    ):
        answer = await working.http.get(f"{path}/cells", params=wrong)
        assert answer.status_code == status, answer.text
        assert text in fault(answer)
    key = seen[0]["key"]
    assert (await working.http.get(f"{path}/cells/{key}/series")).status_code == 404, "nobody asked for series"
    assert (await working.http.get(f"{path}/report", params={"y": "colour"})).status_code == 400


async def test_all_faults_of_a_scenario_are_told_at_once_and_nothing_is_stored(idle: Any) -> None:
    wrong = {
        "colour": "red",
        "axes": {
            "topology": [{"name": "t", "changes": [{"action": "fail", "hosts": "nowhere", "at_h": 1}]}],
            "load": [{"name": "mine", "source": "trace", "trace": "trace.parquet"}],
            "policy": [NOBODY, {**OFTEN, "interval_min": 0}, {"name": "x", "strategy": "wishful"}],
        },
    }
    answer = await idle.http.post("/v1/whatifs", json=wrong)
    assert answer.status_code == 400
    told = fault(answer)
    for path in (
        "colour:",
        "axes.topology[0].changes[0].hosts.names[0]:",
        "axes.load[0].trace:",
        "axes.policy[1].interval_min:",
        "axes.policy[2].strategy:",
    ):
        assert path in told
    assert "only read by the command line" in told
    assert (await idle.get("/v1/whatifs"))["whatifs"] == []


async def test_a_waiting_sweep_is_cancelled_and_then_removed(idle: Any) -> None:
    body = await idle.post("/v1/whatifs", SMALL)
    path = f"/v1/whatifs/{body['uuid']}"
    assert body["state"] == "PENDING"
    assert (await idle.http.get(f"{path}/report")).status_code == 404, "there is nothing to show yet"
    assert (await idle.http.delete(path)).status_code == 204
    assert (await idle.get(path))["state"] == "CANCELLED"
    assert (await idle.http.delete(path)).status_code == 204
    assert (await idle.http.get(path)).status_code == 404


async def test_a_running_sweep_stops_when_it_is_cancelled_and_keeps_what_is_finished(working: Any) -> None:
    many = {**SMALL, "base": {"hosts": 6, "instances": 20}, "axes": {"policy": [OFTEN], "seeds": {"count": 5000}}}
    body = await working.post("/v1/whatifs", many)
    path = f"/v1/whatifs/{body['uuid']}"
    async with asyncio.timeout(60):
        while not (await working.get(path))["cells_done"]:
            await working.get("/v1/whatifs")
    assert (await working.http.delete(path)).status_code == 204
    stopped = await working.ended(path)
    assert stopped["state"] == "CANCELLED"
    assert len((await working.get(f"{path}/cells", limit=1))["cells"]) == 1
    async with asyncio.timeout(60):  # the loop is free for the next one
        assert (await working.ended(f"/v1/whatifs/{(await working.post('/v1/whatifs', SMALL))['uuid']}"))["state"]


async def test_asking_again_with_the_same_key_makes_one_sweep(idle: Any) -> None:
    headers = {"Idempotency-Key": "once"}
    first = (await idle.http.post("/v1/whatifs", json=SMALL, headers=headers)).json()
    again = (await idle.http.post("/v1/whatifs", json=SMALL, headers=headers)).json()
    assert first["uuid"] == again["uuid"]
    assert len((await idle.get("/v1/whatifs"))["whatifs"]) == 1


async def test_an_interrupted_sweep_goes_on_from_its_parts_with_the_same_model(
    whole_trimtab: Callable[..., Any], tmp_path: Any
) -> None:
    spec = CloudSpec(hosts=6, instances=20, seed=3, speed=600.0)
    ran: list[int] = []

    async def mortal(ground: Any, cells: Any) -> Any:
        """Dies after its second batch."""
        async for number, batch in _numbered(here(ground, cells)):
            ran.append(len(batch))
            yield batch
            if number == 1:
                raise Killed

    async with whole_trimtab(tmp_path, spec, working=False) as trimtab:
        body = await trimtab.post("/v1/whatifs", SMALL)
        parts = whatif_engine.Parts(trimtab.parts.store, trimtab.files, mortal, lease_s=0.01)
        with pytest.raises(Killed):
            await whatif_engine.run_whatif(parts, body["uuid"])
        before = {row["key"] for row in (await trimtab.get(f"/v1/whatifs/{body['uuid']}/cells"))["cells"]}
        assert len(before) == sum(ran) < 6
    async with whole_trimtab(tmp_path, spec) as trimtab:
        ended = await trimtab.ended(f"/v1/whatifs/{body['uuid']}")
        assert (ended["state"], ended["cells_done"]) == ("SUCCEEDED", 6)
        after = (await trimtab.get(f"/v1/whatifs/{body['uuid']}/cells"))["cells"]
        assert before < {row["key"] for row in after}
        assert len(after) == len({row["key"] for row in after}) == 6
        assert trimtab.store.get(WhatIf, body["uuid"]).epoch >= 2, "somebody else took it over"


async def _numbered(batches: Any) -> Any:
    number = 0
    async for batch in batches:
        yield number, batch
        number += 1
