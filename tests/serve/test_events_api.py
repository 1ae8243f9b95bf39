"""/v1/events: a stream that can be followed, left and taken up again."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from trimtab.serve import events


def read(text: str) -> list[dict[str, Any]]:
    """The messages of a stream, comments left out."""
    found = []
    for block in text.split("\n\n"):
        lines = [line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":")]
        if any(key == "data" for key, _ in lines):
            message: dict[str, Any] = dict(lines)
            message["data"] = json.loads(message["data"])
            found.append(message)
    return found


async def create(whole: Any, name: str) -> str:
    audit = await whole.post("/v1/audits", {"audit_type": "ONESHOT", "goal": "dummy", "name": name})
    return str(audit["uuid"])


async def test_everything_kept_is_told_from_the_start(idle: Any) -> None:
    uuid = await create(idle, "one")
    await idle.http.patch(f"/v1/audits/{uuid}", json=[{"op": "replace", "path": "/state", "value": "CANCELLED"}])
    answer = await idle.http.get("/v1/events", params={"after": 0, "follow": False})
    assert answer.headers["content-type"].startswith("text/event-stream")
    create_, update = [one for one in read(answer.text) if one["event"].startswith("audit.")]
    assert create_["event"] == create_["data"]["event_type"] == "audit.create"
    assert create_["data"]["payload"]["watcher_object.data"]["uuid"] == uuid
    assert create_["data"]["priority"] == "INFO"
    assert update["data"]["payload"]["watcher_object.data"]["state"] == "CANCELLED"
    assert int(update["id"]) > int(create_["id"])


async def test_a_client_that_comes_back_misses_nothing_and_hears_nothing_twice(idle: Any) -> None:
    for name in ("one", "two", "three"):
        await create(idle, name)
    everything = read((await idle.http.get("/v1/events", params={"after": 0, "follow": False})).text)
    seen = everything[0]["id"]
    headers = {"Last-Event-ID": seen}
    rest = read((await idle.http.get("/v1/events", params={"after": 0, "follow": False}, headers=headers)).text)
    assert rest == everything[1:]


async def test_without_a_place_only_what_happens_from_now_on_is_told(idle: Any) -> None:
    await create(idle, "before")
    assert read((await idle.http.get("/v1/events", params={"follow": False})).text) == []


async def test_event_types_can_be_chosen(idle: Any) -> None:
    await create(idle, "one")
    query = {"after": 0, "follow": False, "event_type": "action_plan."}
    assert read((await idle.http.get("/v1/events", params=query)).text) == []


async def test_bad_places_are_refused(idle: Any) -> None:
    assert (await idle.http.get("/v1/events", params={"after": -1})).status_code == 400
    assert (await idle.http.get("/v1/events", headers={"Last-Event-ID": "soon"})).status_code == 400


async def test_what_happens_is_told_while_somebody_listens(idle: Any, listening: str) -> None:
    async def first(client: httpx.AsyncClient) -> dict[str, Any]:
        text = ""
        async with client.stream("GET", f"{listening}/v1/events") as stream:
            async for chunk in stream.aiter_text():
                text += chunk
                if "retry" in text and not listens.is_set():
                    listens.set()
                if found := read(text):
                    return found[0]
        raise AssertionError("the stream ended")

    listens = asyncio.Event()
    async with httpx.AsyncClient(timeout=20) as client:
        listening_task = asyncio.create_task(first(client))
        await asyncio.wait_for(listens.wait(), 10)
        uuid = await create(idle, "live")
        message = await asyncio.wait_for(listening_task, 10)
    assert message["data"]["payload"]["watcher_object.data"]["uuid"] == uuid


async def test_only_so_many_may_listen(idle: Any, listening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_STREAMS", 1)
    async with httpx.AsyncClient(timeout=20) as client, client.stream("GET", f"{listening}/v1/events") as stream:
        await anext(stream.aiter_text())
        refused = await client.get(f"{listening}/v1/events")
        assert refused.status_code == 503
        assert "close one" in refused.text
    for _ in range(100):  # who has gone makes room
        async with httpx.AsyncClient(timeout=20) as client:
            if (await client.get(f"{listening}/v1/events", params={"follow": False})).status_code == 200:
                return
        await asyncio.sleep(0.1)
    raise AssertionError("the closed stream still counts")
