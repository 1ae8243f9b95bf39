"""The action `migrate` through the openstack driver: live, cold with its confirmation, and what is somebody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tests.platform.openstack_standin import StandIn, on_loopback, uuid_of
from tests.platform.test_openstack_inventory import driver_to

from trimtab.platform.actions.migrate import Migrate, Parameters
from trimtab.platform.clocks import WallClock
from trimtab.platform.contracts import Tools
from trimtab.platform.errors import ActionFailed


@pytest.fixture
def cloud() -> Iterator[StandIn]:
    with on_loopback(StandIn(3, 6)) as one:
        yield one


def wanted(kind: str) -> Parameters:
    return Parameters.model_validate(
        {
            "resource_id": uuid_of(2, 0),
            "migration_type": kind,
            "source_node": "cmp-000",
            "destination_node": "cmp-001",
        }
    )


def migrated(cloud: StandIn, kind: str) -> None:
    async def story() -> None:
        clock = WallClock()
        handler = Migrate(Tools(driver_to(cloud), clock, clock, poll_s=0.05, deadline_s=5.0))
        await handler.pre_condition(wanted(kind))
        await handler.execute(wanted(kind), asked_at=None)
        await handler.post_condition(wanted(kind))

    asyncio.run(story())


def asked(cloud: StandIn) -> list[Any]:
    return [next(iter(body)) for _, body in cloud.actions]


def test_a_live_migration_is_asked_for_once(cloud: StandIn) -> None:
    migrated(cloud, "live")
    assert asked(cloud) == ["os-migrateLive"]
    assert cloud.servers[0]["OS-EXT-SRV-ATTR:host"] == "cmp-001"


def test_a_cold_migration_that_arrived_is_confirmed(cloud: StandIn) -> None:
    migrated(cloud, "cold")
    assert asked(cloud) == ["migrate", "confirmResize"]
    assert cloud.servers[0]["status"] == "ACTIVE"


def test_a_confirmation_that_takes_its_time_may_be_asked_for_again(cloud: StandIn) -> None:
    cloud.confirming = set()
    migrated(cloud, "cold")
    assert asked(cloud) == ["migrate", "confirmResize", "confirmResize"]
    assert cloud.servers[0]["status"] == "ACTIVE"


def test_somebody_elses_resize_is_not_confirmed(cloud: StandIn) -> None:
    cloud.servers[0]["status"] = "VERIFY_RESIZE"
    with pytest.raises(ActionFailed, match="waits on cmp-000 for its resize to be confirmed or reverted"):
        migrated(cloud, "cold")
    assert asked(cloud) == []


@pytest.mark.parametrize("kind", ["live", "cold"])
def test_a_migration_that_nova_gave_up_before_it_had_a_host_has_failed(cloud: StandIn, kind: str) -> None:
    cloud.no_valid_host = True
    with pytest.raises(ActionFailed, match="to cmp-001 failed: No valid host was found"):
        migrated(cloud, kind)
    assert cloud.servers[0]["OS-EXT-SRV-ATTR:host"] == "cmp-000"
