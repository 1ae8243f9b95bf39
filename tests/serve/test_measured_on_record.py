"""What a plan brought on a cloud of HTTP services, by the cloud's record and ours, once its horizon is over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pytest
from tests.platform.openstack_standin import StandIn, on_loopback, uuid_of
from tests.platform.recorder import Recorder
from tests.platform.test_openstack_inventory import driver_to

from trimtab.platform.clocks import PacedClock, WallClock
from trimtab.platform.errors import CloudConflict
from trimtab.platform.model import ClusterModel
from trimtab.platform.records import Action, ActionPlan, Audit, Goal, Strategy
from trimtab.platform.store.port import StorePort
from trimtab.platform.store.state import Store
from trimtab.serve.effects import OurRecord, measured_on_record, settle
from trimtab.simulator.power import Power

HORIZON_S = 3600.0


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store(None)
    yield store
    store.close()


@pytest.fixture
def cloud() -> Iterator[StandIn]:
    with on_loopback(StandIn(2, 4)) as one:
        one.groups.clear()
        yield one


def plan_that_ran(store: Store, start: float) -> ActionPlan:
    """Two servers left cmp-000 a minute after each other; then it was closed."""
    goal = store.create(Goal(uuid=str(uuid4()), name="g", display_name="G"))
    strategy = store.create(Strategy(uuid=str(uuid4()), name="s", display_name="S", goal_id=goal.id))
    audit = store.create(
        Audit(uuid=str(uuid4()), name="a", audit_type="ONESHOT", state="SUCCEEDED", goal_id=goal.id, strategy_id=None)
    )
    plan = store.create(
        ActionPlan(uuid=str(uuid4()), audit_id=audit.id, strategy_id=strategy.id, state="SUCCEEDED", rehearsed={})
    )
    for nth, (kind, wanted) in enumerate(
        [
            ("migrate", {"resource_id": uuid_of(2, 0), "destination_node": "cmp-001"}),
            ("migrate", {"resource_id": uuid_of(2, 2), "destination_node": "cmp-001"}),
            ("change_nova_service_state", {"resource_name": "cmp-000", "state": "disabled"}),
        ]
    ):
        begin, end = (datetime.fromtimestamp(start + 60 * n, UTC) for n in (nth, nth + 1))
        store.create(
            Action(
                uuid=str(uuid4()), action_plan_id=plan.id, action_type=kind, input_parameters=wanted,
                state="SUCCEEDED", started_at=begin, finished_at=end,
            )
        )  # fmt: skip
    return plan


def happened(cloud: StandIn, start: float) -> None:
    """What Nova knows of it."""
    for nth, server in enumerate((0, 2)):
        cloud.servers[server]["OS-EXT-SRV-ATTR:host"] = "cmp-001"
        begin, end = (datetime.fromtimestamp(start + 60 * n, UTC).isoformat() for n in (nth, nth + 1))
        cloud.migrations.append(
            {
                "id": nth + 1, "uuid": uuid_of(8, nth), "instance_uuid": uuid_of(2, server),
                "source_compute": "cmp-000", "dest_compute": "cmp-001", "migration_type": "live-migration",
                "status": "completed",
                "created_at": begin, "updated_at": end,
            }
        )  # fmt: skip
    cloud.services[0]["status"] = "disabled"
    cloud.hypervisors[0]["status"] = "disabled"


async def measured(store: Store, cloud: StandIn, folder: Path, start: float, load: float | None) -> dict[str, Any]:
    """The plan's effect, after two looks at the plans that ended."""
    driver, recorder = driver_to(cloud), Recorder(folder)
    servers = [uuid_of(2, number) for number in range(4)]
    for at in range(int(start // 300 * 300), int(start + HORIZON_S), 300) if load is not None else ():
        samples = {"resource": servers, "at": [float(at)] * 4, "value": [load] * 4}
        await recorder.append("instance_cpu_usage", "instance", pa.table(samples))

    async def model() -> ClusterModel:
        inventory = await driver.inventory()
        return ClusterModel.from_arrow(inventory.hosts, inventory.instances, inventory.groups)

    async def clock() -> WallClock:
        return WallClock()

    measure = partial(measured_on_record, OurRecord(StorePort.direct(store), model, recorder), driver.moves)
    for _ in range(3):
        await settle(StorePort.direct(store), clock, measure, HORIZON_S, lambda *_, **__: None)
    (plan,) = store.list(ActionPlan)
    assert plan.settled
    return dict(plan.measured)


async def test_a_plan_is_measured_by_the_clouds_record_and_ours(store: Store, cloud: StandIn, tmp_path: Path) -> None:
    start = time.time() - HORIZON_S - 60
    plan_that_ran(store, start)
    happened(cloud, start)
    found = await measured(store, cloud, tmp_path, start, load=50.0)
    assert (found["moves"], found["hosts_in_use"], found["rules_broken"]) == (2, 1, 0)
    assert found["duration_s"] == pytest.approx(180.0, abs=1e-3)
    assert found["moved_gib"] == pytest.approx(2 * 2.0)
    # 1 vCPU each at half load, 10 % of it lost for a minute, twice, of four instances in an hour
    assert found["pdm"] == pytest.approx(0.1 * 2 * 60 / (4 * HORIZON_S), rel=1e-3)
    # two hosts of the stand-in's 32 vCPUs: both idle for three minutes, then one of them stands by; 2 vCPUs in use
    power = Power.of(np.array([32.0]))
    (idle,), (busy,), (standby,) = power.idle_w, power.busy_w, power.standby_w
    joules = idle * (HORIZON_S + 180) + standby * (HORIZON_S - 180) + busy * HORIZON_S * 2 / 32
    assert found["energy_kwh"] == pytest.approx(joules / 3.6e6, rel=1e-3)


async def test_a_time_that_nobody_measured_is_told_as_such_once(store: Store, cloud: StandIn, tmp_path: Path) -> None:
    start = time.time() - HORIZON_S - 60
    plan_that_ran(store, start)
    found = await measured(store, cloud, tmp_path, start, load=None)
    assert found["error"] == "nothing was measured in that time"


async def test_a_cloud_that_does_not_tell_is_asked_again_now_and_then_and_not_for_ever(store: Store) -> None:
    begin = time.time() - HORIZON_S - 60
    plan_that_ran(store, begin)
    at, asked = [begin + HORIZON_S + 60], list[float]()

    async def clock() -> PacedClock:
        return PacedClock(at[0], time.time(), 1.0)

    async def measure(start: float, *_: float) -> Any:
        asked.append(start)
        raise CloudConflict("compute answered 403 to GET /os-migrations: not for you")

    async def look() -> ActionPlan:
        await settle(StorePort.direct(store), clock, measure, HORIZON_S, lambda *_, **__: None)
        (plan,) = store.list(ActionPlan)
        return plan

    for _ in range(4):
        assert not (await look()).settled
    assert len(asked) == 1
    at[0] += 400
    assert not (await look()).settled
    assert len(asked) == 2
    at[0] += HORIZON_S
    plan = await look()
    assert plan.settled
    assert "not for you" in plan.measured["error"]
    assert "asked_at_s" not in plan.measured


async def test_nobody_measures_before_the_last_sample_is_known(store: Store) -> None:
    start = time.time() - HORIZON_S - 60
    plan_that_ran(store, start)

    async def clock() -> WallClock:
        return WallClock()

    async def measure(*_: float) -> Any:
        raise AssertionError("the last sample is not there yet")

    for _ in range(3):
        await settle(StorePort.direct(store), clock, measure, HORIZON_S, lambda *_, **__: None, late_s=600.0)
    (plan,) = store.list(ActionPlan)
    assert not plan.settled


async def test_the_clouds_migrations_are_read_in_pages(cloud: StandIn) -> None:
    for nth in range(2500):
        when = datetime.fromtimestamp(1e9 + nth, UTC).isoformat()
        cloud.migrations.append(
            {
                "id": nth + 1, "uuid": uuid_of(8, nth), "instance_uuid": uuid_of(2, 0), "source_compute": "a",
                "dest_compute": "b", "migration_type": "migration", "status": "confirmed",
                "created_at": when, "updated_at": when,
            }
        )  # fmt: skip
    found = await driver_to(cloud).moves(1e9 + 300)
    assert len(found) == 2200
    assert {one.live for one in found} == {False}
