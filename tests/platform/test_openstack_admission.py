"""What Placement and Nova say of moves before they are asked for: over HTTP, one question for each kind of server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tests.platform.openstack_standin import StandIn, on_loopback, uuid_of
from tests.platform.test_openstack_inventory import driver_to, read

from trimtab.platform.contracts import Wanted
from trimtab.platform.errors import CloudUnavailable
from trimtab.platform.openstack.admission import NEVER
from trimtab.platform.openstack.driver import OpenStackDriver


@pytest.fixture
def cloud() -> Iterator[StandIn]:
    with on_loopback(StandIn(6, 60, full_hosts=1)) as one:
        yield one


def refusals(driver: OpenStackDriver, *wanted: Wanted) -> list[str]:
    return asyncio.run(driver.refusals(wanted))


def seen(cloud: StandIn) -> OpenStackDriver:
    driver = driver_to(cloud)
    read(driver)
    cloud.calls.clear()
    cloud.asked_of_placement.clear()
    return driver


def test_only_hosts_that_placement_offers_are_taken(cloud: StandIn) -> None:
    driver = seen(cloud)
    full, free = refusals(driver, Wanted(uuid_of(2, 1), "cmp-000"), Wanted(uuid_of(2, 1), "cmp-002"))
    assert full == "Placement does not offer host cmp-000 for DISK_GB:27,MEMORY_MB:2048,VCPU:1"
    assert free == ""
    (asked,) = cloud.asked_of_placement
    assert asked == {"resources": "DISK_GB:27,MEMORY_MB:2048,VCPU:1", "required": NEVER}


def test_what_waits_for_room_is_not_asked_of_placement(cloud: StandIn) -> None:
    driver = seen(cloud)
    assert refusals(driver, Wanted(uuid_of(2, 1), "cmp-000", now=False)) == [""]
    assert not cloud.asked_of_placement


def test_many_moves_of_few_flavors_take_few_calls(cloud: StandIn) -> None:
    for server in cloud.servers[::2]:
        server["flavor"]["extra_specs"] = {"trait:HW_CPU_X86_AVX2": "required", "hw:cpu_policy": "dedicated"}
    cloud.servers[4]["flavor"]["extra_specs"] = {"resources:VGPU": "1", "resources:DISK_GB": "0"}
    driver = seen(cloud)
    answers = refusals(driver, *(Wanted(server["id"], "cmp-003") for server in cloud.servers if server["image"]))
    assert not any(answers)
    assert {tuple(sorted(one.items())) for one in cloud.asked_of_placement} == {
        (("required", NEVER), ("resources", "DISK_GB:27,MEMORY_MB:2048,VCPU:1")),
        (("required", f"HW_CPU_X86_AVX2,{NEVER}"), ("resources", "DISK_GB:27,MEMORY_MB:2048,PCPU:1")),
        (("required", NEVER), ("resources", "MEMORY_MB:2048,VCPU:1,VGPU:1")),
    }
    assert cloud.calls.total() == 4


def test_a_trait_that_a_flavor_needs_and_no_host_has_is_named(cloud: StandIn) -> None:
    cloud.servers[3]["flavor"]["extra_specs"] = {"trait:CUSTOM_FAST": "required", "trait:CUSTOM_OLD": "forbidden"}
    driver = seen(cloud)
    (answer,) = refusals(driver, Wanted(uuid_of(2, 3), "cmp-002"))
    assert "with !CUSTOM_OLD, CUSTOM_FAST" in answer


@pytest.mark.parametrize(
    ("change", "said"),
    [({"status": "disabled"}, "is disabled"), ({"state": "down"}, "is down"), ({"forced_down": True}, "is down")],
)
@pytest.mark.parametrize("now", [True, False])
def test_hosts_that_are_closed_or_down_are_refused(
    cloud: StandIn, change: dict[str, Any], said: str, now: bool
) -> None:
    driver = seen(cloud)
    cloud.services[2].update(change)
    assert refusals(driver, Wanted(uuid_of(2, 1), "cmp-002", now=now)) == [f"host cmp-002 {said}"]


def test_unknown_hosts_and_servers_are_refused(cloud: StandIn) -> None:
    driver = seen(cloud)
    strange, gone = refusals(driver, Wanted(uuid_of(2, 1), "elsewhere"), Wanted(uuid_of(2, 999), "cmp-002"))
    assert "no compute service on host elsewhere" in strange
    assert "was not there" in gone


def test_nothing_wanted_asks_nothing_and_a_dead_placement_is_told(cloud: StandIn) -> None:
    driver = seen(cloud)
    assert refusals(driver) == []
    assert cloud.calls.total() == 0
    cloud.fail["/placement/allocation_candidates"] = [503] * 1000
    driver.rest.deadline_s = 0.2
    with pytest.raises(CloudUnavailable, match="placement answered 503"):
        refusals(driver, Wanted(uuid_of(2, 1), "cmp-002"))
