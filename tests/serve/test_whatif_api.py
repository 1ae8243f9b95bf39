"""/v1/whatifs over HTTP: sweeps on the running cloud, their cells, series and report; every fault at once."""

import asyncio
import json
import os
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from trimtab.platform.records import WhatIf
from trimtab.serve import whatif_engine
from trimtab.serve.client import Client
from trimtab.serve.whatif_command import here
from trimtab.simulator.truth import CloudSpec
from trimtab.simulator.whatif import rows
from trimtab.simulator.whatif.reading import read_sweep


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
            await asyncio.sleep(0.01)  # requests in this process need not wait for anything: let others run
    assert (await working.http.delete(path)).status_code == 204
    stopped = await working.ended(path)
    assert stopped["state"] == "CANCELLED"
    assert (stopped["seconds_left"], stopped["finished_at"] is None) == (None, False)
    assert len((await working.get(f"{path}/cells", limit=1))["cells"]) == 1
    async with asyncio.timeout(60):  # the loop is free for the next one
        assert (await working.ended(f"/v1/whatifs/{(await working.post('/v1/whatifs', SMALL))['uuid']}"))["state"]


async def test_a_cancel_stops_the_cells_that_run_and_the_record_says_what_is_kept(
    whole_trimtab: Callable[..., Any], tmp_path: Any
) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def slow(ground: Any, cells: Any) -> Any:
        """One batch, and then one that nobody lives to see the end of."""
        async with aclosing(here(ground, cells)) as batches:
            yield await anext(batches)
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with whole_trimtab(tmp_path, CloudSpec(hosts=6, instances=20, seed=3), working=False) as trimtab:
        path = f"/v1/whatifs/{(await trimtab.post('/v1/whatifs', SMALL))['uuid']}"
        parts = whatif_engine.Parts(trimtab.parts.store, trimtab.files, slow, look_s=0.01)
        task = asyncio.create_task(whatif_engine.run_whatif(parts, path.rpartition("/")[2]))
        async with asyncio.timeout(60):
            await begun.wait()
            assert (await trimtab.http.delete(path)).status_code == 204
            await task
        assert stopped.is_set()
        body = await trimtab.get(path)
        kept = (await trimtab.get(f"{path}/cells"))["cells"]
        assert (body["state"], body["cells_done"], body["seconds_left"]) == ("CANCELLED", len(kept), None)
        assert len(kept) > 0
        assert body["finished_at"] is not None


async def test_a_resumed_sweep_remembers_the_cells_that_failed(
    whole_trimtab: Callable[..., Any], tmp_path: Any
) -> None:
    async with whole_trimtab(tmp_path, CloudSpec(hosts=6, instances=20, seed=3), working=False) as trimtab:
        uuid = (await trimtab.post("/v1/whatifs", {**SMALL, "base": {"hosts": 6, "instances": 20}}))["uuid"]
        cells = read_sweep({**SMALL, "base": {"hosts": 6, "instances": 20}}).cells
        await trimtab.files.begin(uuid, {cell.key for cell in cells})
        await trimtab.files.add(uuid, rows.table_of([rows.failed(cell, "its worker was lost") for cell in cells]), {})
        await whatif_engine.run_whatif(whatif_engine.Parts(trimtab.parts.store, trimtab.files, here), uuid)
        ended = await trimtab.get(f"/v1/whatifs/{uuid}")
        assert (ended["state"], ended["cells_done"], ended["cells_failed"]) == ("FAILED", 6, 6)
        assert "its worker was lost" in ended["status_message"]


async def test_a_state_that_there_is_not_is_refused(idle: Any) -> None:
    answer = await idle.http.get("/v1/whatifs", params={"state": "FOO"})
    assert answer.status_code == 400
    assert "state is 'FOO': use one of PENDING, ONGOING, SUCCEEDED, FAILED, CANCELLED" in fault(answer)


async def test_a_sweep_that_is_refused_leaves_no_files_and_lost_ones_are_tidied_up(idle: Any, tmp_path: Path) -> None:
    headers = {"Idempotency-Key": "of a template"}
    template = {"name": "t", "goal": "dummy"}
    assert (await idle.http.post("/v1/audit_templates", json=template, headers=headers)).status_code == 201
    assert (await idle.http.post("/v1/whatifs", json=SMALL, headers=headers)).status_code == 409
    assert list((tmp_path / "whatifs").iterdir()) == []
    kept = (await idle.post("/v1/whatifs", SMALL))["uuid"]
    old, young = str(uuid4()), str(uuid4())
    for name in (old, young, kept, f".removed-{uuid4().hex}"):
        (tmp_path / "whatifs" / name).mkdir(exist_ok=True)
    for name in (old, kept):
        os.utime(tmp_path / "whatifs" / name, (1.0, 1.0))
    parts = whatif_engine.Parts(idle.parts.store, idle.files, here)
    loop = asyncio.create_task(whatif_engine.serve_whatifs(parts, asyncio.Event(), idle_s=0.01))
    try:
        ended = await idle.ended(f"/v1/whatifs/{kept}")
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
    assert ended["state"] == "SUCCEEDED"
    assert {folder.name for folder in (tmp_path / "whatifs").iterdir()} == {kept, young}


async def test_asking_again_with_the_same_key_makes_one_sweep(idle: Any) -> None:
    headers = {"Idempotency-Key": "once"}
    first = (await idle.http.post("/v1/whatifs", json=SMALL, headers=headers)).json()
    again = (await idle.http.post("/v1/whatifs", json=SMALL, headers=headers)).json()
    assert first["uuid"] == again["uuid"]
    assert len((await idle.get("/v1/whatifs"))["whatifs"]) == 1


async def test_the_client_asks_again_with_a_key_without_making_two(listening_at_work: Any) -> None:
    working, url = listening_at_work
    with Client(url) as client:
        made = [await asyncio.to_thread(client.create_whatif, SMALL, key="mine") for _ in range(2)]
        other = await asyncio.to_thread(client.create, "whatifs", SMALL)
    assert made[0]["uuid"] == made[1]["uuid"] != other["uuid"]
    assert len((await working.get("/v1/whatifs"))["whatifs"]) == 2


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
