"""Plans with stops, resizes, volume moves and changes of power: interrupted, rolled back, brought to an honest end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import pytest

from trimtab.platform.applier import run_plan
from trimtab.platform.clocks import VirtualClock
from trimtab.platform.contracts import Tools
from trimtab.platform.model import StorageModel
from trimtab.platform.plugins import load
from trimtab.platform.proposal import Limits
from trimtab.platform.records import Action, ActionPlan, Audit, Goal, Strategy
from trimtab.platform.store.port import StorePort
from trimtab.platform.store.state import Store
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.driver import SimulatedDriver, local_call
from trimtab.simulator.truth import CloudSpec

START = 20_000 * 86_400.0
SPEC = CloudSpec(hosts=8, instances=24, seed=11, start_s=START, history_s=0.0)
COMMANDS = {"stop", "start", "resize", "confirm_resize", "migrate_volume", "retype_volume", "set_power", "migrate"}


def uuid_of(name: str) -> str:
    return str(uuid5(NAMESPACE_OID, name))


class Scene:
    """A made-up cloud with its journal, a store in memory and one virtual clock; `asked` are requests taken on."""

    def __init__(self, folder: Path) -> None:
        self.clock = VirtualClock(START)
        self.journal = folder / "journal"
        self.cloud = SimulatedCloud(SPEC, self.journal, now=self.clock.now)
        self.asked: list[str] = []
        self.store = Store(None, now=lambda: datetime.fromtimestamp(self.clock.now(), UTC))
        self.store.create(Goal(uuid=uuid_of("goal"), name="goal", display_name="goal"))
        self.store.create(Strategy(uuid=uuid_of("strategy"), name="strategy", display_name="strategy", goal_id=1))
        self.store.create(
            Audit(uuid=uuid_of("audit"), name="audit", audit_type="ONESHOT", state="SUCCEEDED", goal_id=1)
        )

    async def call(self, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        answer = await local_call(self.cloud)(method, arguments, named)
        if method in COMMANDS:
            self.asked.append(method)
        return answer

    def plan(self, *actions: tuple[str, str, dict[str, Any], tuple[str, ...]]) -> str:
        stored = self.store.create(
            ActionPlan(uuid=uuid_of("plan"), audit_id=1, strategy_id=1, state="PENDING"),
        )
        self.store.create_many(
            [
                Action(
                    uuid=uuid_of(name),
                    action_plan_id=int(stored.id or 0),
                    action_type=kind,
                    input_parameters=wanted,
                    state="PENDING",
                    parents=[uuid_of(parent) for parent in parents],
                )
                for name, kind, wanted, parents in actions
            ]
        )
        return stored.uuid

    async def run(self, plan: str, **how: Any) -> ActionPlan:
        tools = Tools(SimulatedDriver(self.call), self.clock, self.clock)
        options = {"owner": "me", "handlers": load().actions, "tools": tools, "limits": Limits(2, 20), **how}
        return await run_plan(StorePort.direct(self.store), plan, **options)

    async def stop_after(self, plan: str, seconds: float, **how: Any) -> None:
        """Kill the applier, and the cloud with it: another one replays the journal."""
        task = asyncio.create_task(self.run(plan, owner=f"until {self.clock.now()}", **how))
        await self.clock.sleep(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self.cloud = SimulatedCloud(SPEC, self.journal, now=self.clock.now)

    def states(self, *names: str) -> list[str]:
        return [self.store.get(Action, uuid_of(name)).state for name in names]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


class Targets:
    """A host to be emptied and turned off, a server to stop, one to grow, a volume and where it may go."""

    def __init__(self, cloud: SimulatedCloud) -> None:
        inventory = cloud.inventory()
        assert inventory.storage is not None
        assert inventory.metal is not None
        names = inventory.hosts["hostname"].to_pylist()
        self.host = min((n for n in names if cloud.residents(n)), key=lambda n: (len(cloud.residents(n)), n))
        self.leaving = [(server.id, server.status) for server in cloud.residents(self.host)]
        rows = [row for row in inventory.instances.to_pylist() if row["state"] == "active"]
        others = [row for row in rows if row["uuid"] not in dict(self.leaving)]
        self.grown = next(row["uuid"] for row in others if row["flavor"] == "m1.small")
        self.stopped = next(row["uuid"] for row in others if row["uuid"] != self.grown)
        self.metal = next(row["uuid"] for row in inventory.metal.to_pylist() if row["hostname"] == self.host)
        storage = StorageModel.from_arrow(*inventory.storage)
        volume = next(
            v
            for v in range(storage.volumes)
            if not storage.attached[v] and not storage.snapshots[v] and storage.type_of[v] >= 0
        )
        own = int(storage.pool_of[volume])
        self.volume, self.home = storage.volume_id(volume), storage.pool_name(own)
        self.pool = next(
            storage.pool_name(p)
            for p in range(storage.pools)
            if p != own and storage.pool_backend[p] == storage.pool_backend[own]
        )

    def actions(self) -> list[tuple[str, str, dict[str, Any], tuple[str, ...]]]:
        volume = {"resource_id": self.volume, "migration_type": "migrate", "destination_node": self.pool}
        power = {"resource_id": self.metal, "state": "off", "resource_name": self.host}
        moves: list[tuple[str, str, dict[str, Any], tuple[str, ...]]] = []
        for server, status in self.leaving:
            kind = "live" if status in {"ACTIVE", "PAUSED"} else "cold"
            wanted = {"resource_id": server, "migration_type": kind, "source_node": self.host}
            moves.append((f"move {server}", "migrate", wanted, ()))
        return [
            *moves,
            ("volume", "volume_migrate", volume, ()),
            ("stop", "stop", {"resource_id": self.stopped}, ()),
            ("power", "change_node_power_state", power, tuple(name for name, *_ in moves)),
        ]


@pytest.mark.parametrize("interruptions", [[0], [3], [8], [30], [90], [3] * 8, [20, 20, 200]])
async def test_a_plan_and_a_cloud_that_die_again_and_again_end_as_if_they_had_not(
    interruptions: list[float], scene: Scene
) -> None:
    targets = Targets(scene.cloud)
    actions = [*targets.actions(), ("grow", "resize", {"resource_id": targets.grown, "flavor": "m1.large"}, ("stop",))]
    plan = scene.plan(*actions)
    for seconds in interruptions:
        await scene.stop_after(plan, seconds)
    done = await scene.run(plan)
    assert (done.state, done.status_message) == ("SUCCEEDED", None)
    assert set(scene.states(*(name for name, *_ in actions))) == {"SUCCEEDED"}
    assert sorted(scene.asked) == sorted(
        ["stop", "resize", "confirm_resize", "migrate_volume", "set_power", *["migrate"] * len(targets.leaving)]
    )
    cloud = scene.cloud
    assert cloud.servers([targets.stopped])[targets.stopped].status == "SHUTOFF"
    grown = cloud.servers([targets.grown])[targets.grown]
    assert (grown.flavor, grown.status) == ("m1.large", "ACTIVE")
    assert cloud.volumes([targets.volume])[targets.volume].pool == targets.pool
    node = cloud.metal_node(targets.metal)
    assert node is not None
    assert node.power == "off"
    assert cloud.residents(targets.host) == []


async def test_rollback_brings_everything_back(scene: Scene) -> None:
    targets = Targets(scene.cloud)
    bad = ("bad", "nop", {"message": "no", "fail_execute": True}, ("power", "volume", "stop"))
    done = await scene.run(scene.plan(*targets.actions(), bad), rollback=True)
    assert done.state == "FAILED"
    names = [name for name, *_ in targets.actions()]
    assert set(scene.states(*names)) == {"CANCELLED"}
    cloud = scene.cloud
    assert cloud.volumes([targets.volume])[targets.volume].pool == targets.home
    assert cloud.servers([targets.stopped])[targets.stopped].status == "ACTIVE"
    assert {server.id for server in cloud.residents(targets.host)} == set(dict(targets.leaving))
    node = cloud.metal_node(targets.metal)
    assert node is not None
    assert node.power == "on"


async def test_a_host_that_was_not_emptied_is_not_turned_off(scene: Scene) -> None:
    targets = Targets(scene.cloud)
    (first, *_), power = targets.actions(), targets.actions()[-1]
    wrong = {**first[2], "destination_node": "nowhere"}
    plan = scene.plan((first[0], "migrate", wrong, ()), (*power[:3], (first[0],)))
    done = await scene.run(plan)
    assert done.state == "FAILED"
    assert scene.states(first[0], "power") == ["FAILED", "FAILED"]
    words = scene.store.get(Action, uuid_of("power")).status_message or ""
    assert f"host {targets.host} holds {len(targets.leaving)} servers" in words
    node = scene.cloud.metal_node(targets.metal)
    assert node is not None
    assert node.power == "on"
