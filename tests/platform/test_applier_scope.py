"""The applier's last look at the scope of a plan's audit: what is outside by then is not touched, and said so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.platform.test_applier import SKIPPED_SOME, Scene, move, nop, uuid_of

from trimtab.platform.contracts import Inventory
from trimtab.platform.records import Action, ActionPlan, Audit


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Three hosts, three instances."""
    return Scene.of(tmp_path, {"h1": 8, "h2": 8, "h3": 8}, {"a0": ("h1", 2), "a1": ("h1", 2), "b0": ("h2", 2)})


def narrow(scene: Scene, *rules: dict[str, Any]) -> None:
    scene.store.update(Audit, uuid_of("audit"), {"scope": [{"compute": list(rules)}]})


def excluding(**what: Any) -> dict[str, Any]:
    return {"exclude": [what]}


def instance(name: str) -> dict[str, Any]:
    return excluding(instances=[{"uuid": uuid_of(name)}])


def host(name: str) -> dict[str, Any]:
    return excluding(compute_nodes=[{"name": name}])


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (instance("a0"), f"instance {uuid_of('a0')} is not in its audit's scope any more: it is excluded"),
        (host("h3"), "host h3 is not in its audit's scope any more"),
        (host("h1"), f"instance {uuid_of('a0')} is on h1, which is not in its audit's scope any more"),
        ({"availability_zones": [{"name": "elsewhere"}]}, f"instance {uuid_of('a0')} is on h1, which is not in"),
    ],
)
async def test_what_is_out_of_scope_by_then_is_skipped_and_the_rest_done(
    rule: dict[str, Any], words: str, scene: Scene
) -> None:
    plan = scene.plan(move("a0", "h1", "h3"), nop("after", "a0"))
    narrow(scene, rule)
    done = await scene.run(plan)
    assert scene.states("a0", "after") == ["SKIPPED", "SUCCEEDED"]
    said = scene.action("a0").status_message or ""
    assert said.startswith(f"Action was skipped automatically: {words}")
    assert (done.state, done.status_message) == ("SUCCEEDED", SKIPPED_SOME)
    assert scene.trips() == []


async def test_what_is_in_scope_is_done(scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3"), move("b0", "h2", None))
    narrow(scene, instance("a1"))
    assert (await scene.run(plan)).state == "SUCCEEDED"
    assert scene.states("a0", "b0") == ["SUCCEEDED", "SUCCEEDED"]


async def test_an_excluded_instance_is_not_stopped_either(scene: Scene) -> None:
    act = replace(nop("act"), action_type="stop", input_parameters={"resource_id": uuid_of("a0")})
    narrow(scene, instance("a0"))
    await scene.run(scene.plan(act))
    assert scene.states("act") == ["SKIPPED"]
    assert "it is excluded" in (scene.action("act").status_message or "")
    assert scene.cloud.servers([uuid_of("a0")])[uuid_of("a0")].status == "ACTIVE"


async def test_the_scope_is_looked_at_when_the_turn_comes_not_at_the_start(scene: Scene) -> None:
    """A host is taken out of its zone while the plan runs."""

    class Moving:
        """The driver, of whose hosts h3 changes its zone after a while."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        async def inventory(self) -> Inventory:
            found: Inventory = await self.inner.inventory()
            names = found.hosts.column("hostname").to_pylist()
            late = scene.clock.now() > 1_700_000_000 + 5
            zones = ["other" if late and name == "h3" else "here" for name in names]
            hosts = found.hosts
            if "zone" in hosts.column_names:
                hosts = hosts.drop_columns(["zone"])
            return found._replace(hosts=hosts.append_column("zone", [zones]))

    plan = scene.plan(move("a0", "h1", "h3"), move("a1", "h1", "h3", "a0"))
    narrow(scene, {"availability_zones": [{"name": "here"}]})
    await scene.run(plan, tools=replace(scene.tools, cloud=Moving(scene.driver)))
    assert scene.states("a0", "a1") == ["SUCCEEDED", "SKIPPED"]
    assert scene.where("a1") == "h1"


async def test_a_rule_of_the_scope_is_obeyed_when_what_it_counted_on_did_not_happen(scene: Scene) -> None:
    plan = scene.plan(move("b0", "h2", "h3"), move("a0", "h1", "h2", "b0", room=["b0"]))
    spread = {"rule": "spread", "instances": {"uuids": [uuid_of("a0"), uuid_of("b0")]}}
    narrow(scene, {"rules": [spread]})
    scene.break_next("b0")
    await scene.run(plan)
    assert scene.states("b0", "a0") == ["FAILED", "SKIPPED"]
    assert "because of a rule of its audit's scope" in (scene.action("a0").status_message or "")


async def test_a_scope_that_cannot_be_understood_lets_nothing_move(scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3"))
    narrow(scene, {"rules": [{"rule": "no such rule"}]})
    assert (await scene.run(plan)).state == "FAILED"
    assert (scene.action("a0").status_message or "").startswith("Action failed in pre_condition: ")
    assert scene.trips() == []


async def test_a_plan_that_undoes_another_goes_back_out_of_the_scope(scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3"))
    scene.store.update(ActionPlan, plan, {"rolls_back": uuid_of("older")})
    narrow(scene, host("h3"))
    assert (await scene.run(plan)).state == "SUCCEEDED"


async def test_whoever_is_gone_is_left_to_the_action_itself(scene: Scene) -> None:
    plan = scene.plan(move("nobody", "h1", "h3"))
    narrow(scene, instance("a0"))
    await scene.run(plan)
    rows = scene.store.list(Action, {"action_plan_id": 1})
    assert [(row.state, row.status_message) for row in rows] == [
        ("SKIPPED", f"Action was skipped automatically: Instance {uuid_of('nobody')} not found")
    ]
