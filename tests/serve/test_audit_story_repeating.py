"""Audits that run again and again, through HTTP: intervals, webhooks, rests, restarts, and what clients see of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trimtab.platform.records import ActionPlan
from trimtab.simulator.truth import CloudSpec


async def until(said: Callable[[], Awaitable[Any]], within_s: float = 60.0) -> Any:
    async with asyncio.timeout(within_s):
        while True:
            if value := await said():
                return value
            await asyncio.sleep(0.02)


async def plans_of(running: Any, audit: str) -> list[str]:
    """States of an audit's plans, oldest first."""
    plans = (await running.get("/v1/action_plans", audit_uuid=audit))["action_plans"]
    return [plan["state"] for plan in plans]


async def patched(running: Any, audit: str, path: str, value: Any) -> dict[str, Any]:
    answer = await running.http.patch(f"/v1/audits/{audit}", json=[{"op": "replace", "path": path, "value": value}])
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def moment(running: Any, audit: str) -> datetime:
    text = (await running.get(f"/v1/audits/{audit}"))["next_run_time"]
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def test_a_continuous_audit_repeats_until_it_is_cancelled_and_can_be_deleted(working: Any) -> None:
    made = await working.post("/v1/audits", {"audit_type": "CONTINUOUS", "interval": "1", "goal": "dummy"})
    uuid = made["uuid"]
    assert (made["state"], made["next_run_time"], made["interval"]) == ("PENDING", None, "1")
    states = await until(lambda: _at_least(working, uuid, 3))
    assert states == ["CANCELLED"] * (len(states) - 1) + ["RECOMMENDED"], "only the newest is recommended"
    shown = await working.get(f"/v1/audits/{uuid}")
    assert (shown["state"], shown["hostname"]) == ("ONGOING", "trimtab")
    assert abs(await moment(working, uuid) - datetime.now(UTC)) < timedelta(seconds=5)
    answer = await working.http.delete(f"/v1/audits/{uuid}")
    assert answer.status_code == 400, "it is not over"
    assert (await patched(working, uuid, "/state", "CANCELLED"))["state"] == "CANCELLED"
    many = len(await plans_of(working, uuid))
    candidates = (await working.get(f"/v1/audits/{uuid}/candidates"))["candidates"]
    assert [one["number"] for one in candidates] == list(range(many))[::-1], "the newest winner first"
    await asyncio.sleep(1.5)
    assert (await working.get(f"/v1/audits/{uuid}"))["state"] == "CANCELLED"
    assert len(await plans_of(working, uuid)) == many
    assert (await working.http.delete(f"/v1/audits/{uuid}")).status_code == 204


async def _at_least(running: Any, audit: str, count: int) -> list[str] | None:
    states = await plans_of(running, audit)
    return states if len(states) >= count else None


async def test_a_suspended_audit_rests_and_goes_on_when_it_is_resumed(working: Any) -> None:
    uuid = (await working.post("/v1/audits", {"audit_type": "CONTINUOUS", "interval": "1", "goal": "dummy"}))["uuid"]
    await until(lambda: _at_least(working, uuid, 1))
    assert (await patched(working, uuid, "/state", "SUSPENDED"))["state"] == "SUSPENDED"
    await asyncio.sleep(0.3)  # a run that was under way keeps its plan
    many = len(await plans_of(working, uuid))
    await asyncio.sleep(1.5)
    assert len(await plans_of(working, uuid)) == many
    assert (await patched(working, uuid, "/state", "ONGOING"))["state"] == "ONGOING"
    await until(lambda: _at_least(working, uuid, many + 1))


async def test_a_new_interval_counts_at_once(working: Any) -> None:
    body = {"audit_type": "CONTINUOUS", "interval": "3600", "goal": "dummy"}
    uuid = (await working.post("/v1/audits", body))["uuid"]
    await until(lambda: _at_least(working, uuid, 1))
    assert await moment(working, uuid) > datetime.now(UTC) + timedelta(minutes=59)
    await patched(working, uuid, "/interval", "1")
    await until(lambda: _at_least(working, uuid, 2))
    await patched(working, uuid, "/interval", "0 0 1 1 *")

    async def next_year() -> bool:
        at = await moment(working, uuid)
        return (at.month, at.day, at.hour) == (1, 1, 0)

    assert await until(next_year)


async def test_a_continuous_audit_waits_for_its_start_and_has_succeeded_at_its_end(working: Any) -> None:
    now = datetime.now(UTC)
    times = {"start_time": (now + timedelta(seconds=1)).isoformat(), "end_time": (now + timedelta(days=1)).isoformat()}
    body = {"audit_type": "CONTINUOUS", "interval": "60", "goal": "dummy", **times}
    uuid = (await working.post("/v1/audits", body))["uuid"]
    await until(lambda: _at_least(working, uuid, 1))
    assert working.store.list(ActionPlan)[0].created_at >= now + timedelta(seconds=1)
    ended = await patched(working, uuid, "/end_time", (datetime.now(UTC)).isoformat())
    assert ended["state"] == "ONGOING"
    assert (await working.ended(f"/v1/audits/{uuid}"))["state"] == "SUCCEEDED"


async def test_every_call_of_a_webhook_is_a_run(working: Any) -> None:
    uuid = (await working.post("/v1/audits", {"audit_type": "EVENT", "goal": "dummy"}))["uuid"]
    for count in (1, 2):
        answer = await working.http.post(f"/v1/webhooks/{uuid}", json={"alarm": "hot"})
        assert answer.status_code == 202
        await until(lambda: _at_least(working, uuid, count))  # noqa: B023 (awaited in the same turn)
        assert (await working.ended(f"/v1/audits/{uuid}"))["state"] == "SUCCEEDED"
    assert await plans_of(working, uuid) == ["RECOMMENDED", "RECOMMENDED"]


async def test_what_was_waiting_when_trimtab_stopped_runs_when_it_starts_again(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole = request.getfixturevalue("whole_trimtab")
    spec = CloudSpec(hosts=4, instances=12, seed=3)
    async with whole(tmp_path, spec, working=False) as stopped:
        oneshot = await stopped.post("/v1/audits", {"audit_type": "ONESHOT", "goal": "dummy"})
        event = await stopped.post("/v1/audits", {"audit_type": "EVENT", "goal": "dummy"})
        assert (await stopped.http.post(f"/v1/webhooks/{event['uuid']}", json={})).status_code == 202
        body = {"audit_type": "CONTINUOUS", "interval": "3600", "goal": "dummy"}
        continuous = await stopped.post("/v1/audits", body)
    async with whole(tmp_path, spec) as started:
        for audit in (oneshot, event):
            await until(lambda: _at_least(started, audit["uuid"], 1))  # noqa: B023
            assert (await started.get(f"/v1/audits/{audit['uuid']}"))["state"] == "SUCCEEDED"
        await until(lambda: _at_least(started, continuous["uuid"], 1))
        assert (await started.get(f"/v1/audits/{continuous['uuid']}"))["state"] == "ONGOING"
