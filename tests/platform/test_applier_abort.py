"""Aborts and time-outs: a cancelled plan stops what can be stopped, and what hangs is given up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tests.platform.test_applier import HANDLERS, Scene, cancel_after, move, nop, uuid_of

from trimtab.platform.records import Action, ActionPlan


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene.of(tmp_path, {"h1": 8, "h2": 8, "h3": 8}, {"a0": ("h1", 2), "a1": ("h1", 2), "b0": ("h2", 2)})


def messages(scene: Scene, *names: str) -> list[str]:
    return [scene.action(name).status_message or "" for name in names]


async def run(scene: Scene, plan: str, *others: Any, **how: Any) -> Any:
    return (await asyncio.gather(scene.run(plan, **{"abort": True, **how}), *others))[0]


async def test_a_cancelled_plan_aborts_its_live_migrations(scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3"), move("a1", "h1", "h2", "a0"), nop("last", "a1"))
    done = await run(scene, plan, cancel_after(scene, plan, 3))
    assert done.state == "CANCELLED"
    assert scene.states("a0", "a1", "last") == ["CANCELLED", "CANCELLED", "CANCELLED"]
    assert messages(scene, "a0") == ["Aborted because its plan was cancelled"]
    assert [m.status for m in scene.cloud.all_migrations()] == ["aborted"]


async def test_what_cannot_be_stopped_comes_to_its_end(scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3", kind="cold"), nop("last", "a0"))
    done = await run(scene, plan, cancel_after(scene, plan, 3))
    assert done.state == "CANCELLED"
    assert scene.states("a0", "last") == ["SUCCEEDED", "CANCELLED"]


async def test_a_sleeper_is_woken(scene: Scene) -> None:
    sleeper = Action(
        uuid=nop("z").uuid, action_plan_id=0, action_type="sleep", input_parameters={"duration": 5000}, state="PENDING"
    )
    plan = scene.plan(sleeper)
    done = await run(scene, plan, cancel_after(scene, plan, 10))
    assert (done.state, *scene.states("z")) == ("CANCELLED", "CANCELLED")
    assert scene.clock.now() < 1_700_000_000 + 100


async def test_an_abort_that_was_broken_off_is_brought_to_its_end(scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3"))
    first = asyncio.create_task(scene.run(plan, owner="first"))
    await scene.clock.sleep(3)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    scene.store.transition(ActionPlan, plan, "cancel")
    scene.store.transition(Action, uuid_of("a0"), "cancel")
    await scene.clock.sleep(40)
    done = await run(scene, plan)
    assert (done.state, *scene.states("a0")) in [("CANCELLED", "CANCELLED"), ("SUCCEEDED", "SUCCEEDED")]
    assert all(m.status != "running" for m in scene.cloud.all_migrations())


class Message(BaseModel):
    """What the handler is given."""

    message: str


class Hangs:
    """A handler that never ends."""

    action_type = "hangs"
    description = "Hanging"

    schema = Message
    stops = True

    def __init__(self, tools: Any) -> None:
        self.tools = tools

    async def pre_condition(self, wanted: Any) -> None: ...

    async def execute(self, wanted: Any, *, asked_at: float | None) -> None:
        await self.tools.clock.sleep(1e6)

    async def post_condition(self, wanted: Any) -> None: ...

    async def revert(self, wanted: Any) -> None: ...

    async def abort(self, wanted: Any) -> bool:
        return self.stops


@pytest.mark.parametrize("stops", [True, False])
async def test_what_hangs_is_given_up_and_said_so(stops: bool, scene: Scene) -> None:
    handler = type("Hanging", (Hangs,), {"stops": stops})
    hangs = Action(
        uuid=nop("z").uuid, action_plan_id=0, action_type="hangs", input_parameters={"message": "z"}, state="PENDING"
    )
    plan = scene.plan(hangs, nop("last", "z"))
    done = await run(scene, plan, handlers={**HANDLERS, "hangs": handler}, timeouts_s={"hangs": 30.0})
    assert done.state == "FAILED"
    assert scene.states("z", "last") == ["FAILED", "SUCCEEDED"]
    said = messages(scene, "z")[0]
    assert said.startswith("Action failed in execute: it was given up after 30 s")
    assert ("still be under way" in said) is not stops


async def test_a_migration_has_the_patience_of_its_type(scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3"))
    done = await run(scene, plan, timeouts_s={"migrate": 2.0})
    assert done.state == "FAILED"
    assert "has not arrived after" in messages(scene, "a0")[0]
    assert [m.status for m in scene.cloud.all_migrations()] == ["aborted"], "nothing is left under way"
