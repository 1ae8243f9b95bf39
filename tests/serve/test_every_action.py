"""Every action type and every strategy, from an audit to the changed cloud, in this process."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.platform.model import ClusterModel, StorageModel
from trimtab.platform.plugins import load
from trimtab.platform.snapshot import Need
from trimtab.simulator.truth import CloudSpec


@pytest.fixture
async def hurried(whole_trimtab: Any, tmp_path: Path) -> AsyncIterator[Any]:
    """A small cloud of which an hour passes in a second."""
    async with whole_trimtab(tmp_path, CloudSpec(hosts=14, instances=80, seed=3, speed=3600.0)) as running:
        yield running


async def applied(hurried: Any, **audit: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An audit's plan after it has been carried out, and its actions."""
    made = await hurried.post("/v1/audits", {"audit_type": "ONESHOT", **audit})
    ended = await hurried.ended(f"/v1/audits/{made['uuid']}")
    assert ended["state"] == "SUCCEEDED", ended["status_message"]
    plans = (await hurried.get("/v1/action_plans/detail", audit_uuid=made["uuid"]))["action_plans"]
    if not plans:
        return {}, []
    (plan,) = plans
    if plan["state"] == "RECOMMENDED":
        await hurried.post(f"/v1/action_plans/{plan['uuid']}/start", {})
    plan = await hurried.ended(f"/v1/action_plans/{plan['uuid']}")
    return plan, (await hurried.get("/v1/actions/detail", action_plan_uuid=plan["uuid"]))["actions"]


def model_of(cloud: Any) -> ClusterModel:
    inventory = cloud.inventory()
    return ClusterModel.from_arrow(inventory.hosts, inventory.instances, inventory.groups)


def storage_of(cloud: Any) -> StorageModel:
    return StorageModel.from_arrow(*cloud.inventory().storage)


async def test_a_plan_with_every_action_type_is_carried_out(hurried: Any) -> None:
    """One host is emptied, disabled and turned off; elsewhere a server is stopped, one resized, a volume moved."""
    cloud = hurried.cloud
    rows = cloud.inventory().instances.to_pylist()
    names = dict(
        zip(cloud.inventory().hosts["uuid"].to_pylist(), cloud.inventory().hosts["hostname"].to_pylist(), strict=True)
    )
    held = {name: [row for row in rows if names[row["node"]] == name] for name in names.values()}
    leaves = min((h for h in held if held[h]), key=lambda h: (len(held[h]), h))
    others = [row for row in rows if names[row["node"]] != leaves and row["state"] == "active"]
    stopped, grown = others[0], next(row for row in others[1:] if row["flavor"] == "m1.small")
    storage = storage_of(cloud)
    volume = next(
        v
        for v in range(storage.volumes)
        if not storage.attached[v] and not storage.snapshots[v] and storage.type_of[v] >= 0
    )
    own = int(storage.pool_of[volume])
    pool = next(p for p in range(storage.pools) if p != own and storage.pool_backend[p] == storage.pool_backend[own])
    metal = next(row for row in cloud.inventory().metal.to_pylist() if row["hostname"] == leaves)

    def act(kind: str, target: str | None = None, **parameters: Any) -> dict[str, Any]:
        return {"action_type": kind, "input_parameters": parameters} | ({"resource_id": target} if target else {})

    moves = [
        act(
            "migrate",
            row["uuid"],
            migration_type="live" if row["state"] in {"active", "paused"} else "cold",
            source_node=leaves,
        )
        for row in held[leaves]
    ]
    wanted = [
        act("nop", message="hello"),
        act("sleep", duration=0.0),
        act("change_nova_service_state", "x", resource_name=leaves, state="disabled"),
        *moves,
        act("stop", stopped["uuid"]),
        act("resize", grown["uuid"], flavor="m1.medium"),
        act(
            "volume_migrate",
            storage.volume_id(volume),
            migration_type="migrate",
            destination_node=storage.pool_name(pool),
        ),
        act("change_node_power_state", metal["uuid"], state="off", resource_name=leaves),
    ]
    assert {action["action_type"] for action in wanted} == set(load().actions)
    plan, actions = await applied(hurried, goal="unclassified", strategy="actuator", parameters={"actions": wanted})
    assert plan["state"] == "SUCCEEDED", [a["status_message"] for a in actions]
    assert {a["state"] for a in actions} == {"SUCCEEDED"}
    assert len(actions) == len(wanted)
    assert cloud.residents(leaves) == []
    assert not cloud.service(leaves).enabled
    assert not cloud.service(leaves).up
    assert cloud.metal_node(metal["uuid"]).power == "off"
    servers = cloud.servers([stopped["uuid"], grown["uuid"]])
    assert servers[stopped["uuid"]].status == "SHUTOFF"
    assert (servers[grown["uuid"]].flavor, servers[grown["uuid"]].status) == ("m1.medium", "ACTIVE")
    assert storage_of(cloud).pool_of[volume] == pool
    model = model_of(cloud)
    assert (model.used() <= model.capacity).all()


def parameters_of(strategy: str, cloud: Any) -> Mapping[str, Any]:
    """What makes a strategy find something to do on a made-up cloud."""
    model, storage = model_of(cloud), storage_of(cloud)
    busiest = max(range(model.hosts), key=lambda h: int((model.host_of == h).sum()))
    pools = [storage.pool_name(p) for p in (0, 1)]
    hot = cloud.aggregate([Need("host_outlet_temp", "host")], cloud.now())["value"].to_numpy()
    given: Mapping[str, Mapping[str, Any]] = {
        "outlet_temperature": {"threshold": float(np.median(hot))},
        "uniform_airflow": {"threshold_airflow": 220.0, "threshold_inlet_t": 10.0, "threshold_power": 10.0},
        "host_maintenance": {"maintenance_node": model.host_name(busiest)},
        "zone_migration": {
            "compute_nodes": [{"src_node": model.host_name(busiest)}],
            "storage_pools": [{"src_pool": pools[0], "dst_pool": pools[1]}],
        },
        "storage_capacity_balance": {"volume_threshold": 70.0},
        "workload_balance": {"threshold": 15.0},
        "workload_stabilization": {"thresholds": {"instance_cpu_usage": 0.01, "instance_ram_usage": 0.01}},
        "saving_energy": {"free_used_percent": 0.0, "min_free_hosts_num": 0},
        "actuator": {"actions": [{"action_type": "nop", "input_parameters": {"message": "hi"}}]},
        "noisy_neighbor": {"cache_threshold": 1.0},
    }
    return given.get(strategy, {})


QUIET = {"noisy_neighbor"}  # nobody pushes anybody out of the cache of a cloud as calm as this one


WATCHERS = (
    "actuator",
    "basic",
    "host_maintenance",
    "node_resource_consolidation",
    "noisy_neighbor",
    "outlet_temperature",
    "saving_energy",
    "storage_capacity_balance",
    "uniform_airflow",
    "vm_workload_consolidation",
    "workload_balance",
    "workload_stabilization",
    "zone_migration",
)  # the dummies sleep for seconds of the wall's time; they have tests of their own


def empty_one_host(cloud: Any) -> None:
    names = cloud.inventory().hosts["hostname"].to_pylist()
    name = min((name for name in names if cloud.residents(name)), key=lambda name: len(cloud.residents(name)))
    for server in cloud.residents(name):
        cloud.migrate(server.id, None, live=False)
        cloud.fast_forward(600)
    assert not cloud.residents(name)


@pytest.mark.parametrize("name", WATCHERS)
async def test_every_strategy_goes_from_an_audit_to_an_applied_plan(hurried: Any, name: str) -> None:
    strategy = load().strategy(name)
    hurried.cloud.fast_forward(1800)
    if name == "saving_energy":
        empty_one_host(hurried.cloud)
    plan, actions = await applied(
        hurried, goal=strategy.goal, strategy=name, parameters=parameters_of(name, hurried.cloud)
    )
    if not actions:
        assert name in QUIET, f"{name} had nothing to do"
        return
    assert plan["state"] == "SUCCEEDED", [a["status_message"] for a in actions]
    model, storage = model_of(hurried.cloud), storage_of(hurried.cloud)
    assert (model.used() <= model.capacity).all()
    assert (storage.free_gb >= 0).all()
