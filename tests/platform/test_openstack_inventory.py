"""Reading an OpenStack cloud: few calls, few at a time, what changed only; odd rows and dead services spoil nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import openstack
import pytest
from tests.platform.openstack_standin import StandIn, on_loopback, uuid_of

from trimtab.platform.errors import CloudConflict, CloudNotFound, CloudUnavailable
from trimtab.platform.model import BaremetalModel, ClusterModel, StorageModel
from trimtab.platform.openstack.driver import OpenStackDriver
from trimtab.platform.openstack.rest import Rest


def driver_to(cloud: StandIn, deadline_s: float = 5.0) -> OpenStackDriver:
    connection = openstack.connect(
        auth={
            "auth_url": f"{cloud.url}/identity/v3", "username": "trimtab", "password": "secret",
            "project_name": "service", "user_domain_name": "Default", "project_domain_name": "Default",
        },
        region_name="r",
    )  # fmt: skip
    return OpenStackDriver(Rest(connection, deadline_s=deadline_s, pause_s=0.05), time.time)


@pytest.fixture
def cloud() -> Iterator[StandIn]:
    with on_loopback(StandIn(4, 40)) as one:
        yield one


def read(driver: OpenStackDriver) -> Any:
    return asyncio.run(driver.inventory())


def test_a_hundred_hosts_are_read_in_few_calls_and_again_in_fewer() -> None:
    with on_loopback(StandIn(100, 2000, full_hosts=5)) as cloud:
        driver = driver_to(cloud)
        inventory = read(driver)
        assert cloud.calls.total() <= 100 + 30, cloud.calls
        assert 1 < cloud.most_in_flight <= 8
        model = ClusterModel.from_arrow(*inventory[:3])
        assert (model.hosts, model.instances) == (100, 2000)
        assert (model.host_of >= 0).all()
        assert model.traits.all(), "full hosts have theirs too"
        cloud.calls.clear()
        assert read(driver).hosts == inventory.hosts
        assert cloud.calls.total() <= 30, cloud.calls
        cloud.generation[3] = 2
        cloud.calls.clear()
        read(driver)
        asked = [path for path in cloud.calls if "inventories" in path]
        assert asked == [f"/placement/resource_providers/{uuid_of(1, 3)}/inventories"]


def test_rows_are_those_that_nova_accounts_with(cloud: StandIn) -> None:
    cloud.servers[3]["flavor"]["extra_specs"] = {"trait:FAST": "required"}
    inventory = read(driver_to(cloud))
    host = inventory.hosts.to_pylist()[0]
    assert (host["vcpus"], host["vcpu_reserved"], host["vcpu_ratio"]) == (32, 2, 4)
    assert (host["hostname"], host["zone"], host["aggregates"]) == ("cmp-000", "az-0", ["ssd", "7"])
    rows = {row["name"]: row for row in inventory.instances.to_pylist()}
    assert rows["vm-1"]["disk_gb"] == 20 + 5 + 2, "swap counts in whole GB"
    assert rows["vm-5"]["disk_gb"] == 5 + 2, "it boots from a volume"
    assert rows["vm-7"]["locked"]
    assert (rows["vm-3"]["flavor_specs"], rows["vm-4"]["flavor_specs"]) == ('{"trait:FAST": "required"}', "{}")
    assert rows["vm-9"]["pinned_zone"] == "az-1"
    assert rows["vm-0"]["group"] == rows["vm-1"]["group"] == uuid_of(3, 0) != rows["vm-2"]["group"]
    storage = StorageModel.from_arrow(*inventory.storage)
    assert storage.free_gb[0] == float("inf")
    assert storage.volumes == 1
    assert storage.snapshots[0] == 1
    metal = BaremetalModel.from_arrow(inventory.metal)
    assert metal.hostnames.to_pylist() == ["cmp-000"]


def test_odd_rows_are_left_out_and_told(cloud: StandIn) -> None:
    cloud.hypervisors[1]["service"] = None
    cloud.servers[2]["flavor"] = None
    cloud.servers[3]["OS-EXT-STS:vm_state"] = "something new"
    cloud.servers[4]["OS-EXT-SRV-ATTR:host"] = "gone"
    cloud.hypervisors.append({**cloud.hypervisors[0], "id": uuid_of(1, 77), "hypervisor_type": "ironic"})
    inventory = read(driver_to(cloud))
    model = ClusterModel.from_arrow(*inventory[:3])
    assert model.hosts == 3
    assert model.instances == 39
    assert any("cmp-001" in note for note in inventory.notes)
    assert any(uuid_of(2, 2) in note for note in inventory.notes)
    rows = {row["name"]: row for row in inventory.instances.to_pylist()}
    assert rows["vm-3"]["state"] == "error"
    assert rows["vm-4"]["node"] is None


def test_without_placement_the_hypervisors_own_figures_count(cloud: StandIn) -> None:
    cloud.fail["/placement/resource_providers"] = [503] * 1000
    inventory = read(driver_to(cloud, deadline_s=0.3))
    assert inventory.hosts.to_pylist()[0]["vcpu_ratio"] == 1.0
    assert any("Placement" in note for note in inventory.notes)


def test_a_dead_storage_service_leaves_its_last_good_model(cloud: StandIn) -> None:
    driver = driver_to(cloud, deadline_s=0.3)
    first = read(driver)
    cloud.fail["/volume/v3/volumes/detail"] = [500] * 1000
    again = read(driver)
    assert dict(again.faults).keys() == {"storage"}
    assert again.storage == first.storage
    assert again.hosts == first.hosts


def test_without_nova_there_is_no_inventory_and_a_hiccup_is_no_matter(cloud: StandIn) -> None:
    cloud.fail["/compute/v2.1/servers/detail"] = [503, 503]
    assert read(driver_to(cloud)).instances.num_rows == 40
    cloud.fail["/compute/v2.1/servers/detail"] = [503] * 1000
    with pytest.raises(CloudUnavailable, match=r"503.*try later"):
        read(driver_to(cloud, deadline_s=0.3))


def test_an_expired_token_is_replaced_in_the_middle(cloud: StandIn) -> None:
    driver = driver_to(cloud)
    read(driver)
    cloud.tokens = []
    assert read(driver).hosts.num_rows == 4
    assert 2 <= cloud.calls["/identity/v3/auth/tokens"] <= 1 + driver.rest.in_flight


def test_a_token_that_a_service_stumbles_over_is_replaced(cloud: StandIn) -> None:
    """Nova took it for good and handed it to Neutron, which knew that it was revoked: Nova says 500, not 401."""
    driver = driver_to(cloud)
    read(driver)
    cloud.stumbled_over = set(cloud.tokens)
    assert read(driver).instances.num_rows == 40
    assert 2 <= cloud.calls["/identity/v3/auth/tokens"] <= 1 + driver.rest.in_flight


def test_a_service_that_is_broken_is_not_signed_in_to_again_and_again(cloud: StandIn) -> None:
    driver = driver_to(cloud)
    cloud.fail["/compute/v2.1/servers/detail"] = [500] * 4
    asyncio.run(driver.rest.get("compute", "/servers/detail"))
    assert cloud.calls["/compute/v2.1/servers/detail"] == 5
    assert cloud.calls["/identity/v3/auth/tokens"] == 2


def test_a_cloud_that_cannot_be_reached_is_said_to_be(cloud: StandIn) -> None:
    cloud.url = "http://127.0.0.1:9"
    with pytest.raises(CloudUnavailable, match="no answer"):
        read(driver_to(cloud, deadline_s=0.2))


def test_what_changes_the_cloud_is_asked_once_and_refusals_keep_novas_words(cloud: StandIn) -> None:
    async def story() -> None:
        driver, server = driver_to(cloud), uuid_of(2, 0)
        path = f"/compute/v2.1/servers/{server}/action"
        await driver.migrate(server, "cmp-001", live=True)
        assert cloud.actions == [(server, {"os-migrateLive": {"host": "cmp-001", "block_migration": "auto"}})]
        cloud.fail[path] = [409]
        with pytest.raises(CloudConflict, match="it is being moved already"):
            await driver.migrate(server, None, live=False)
        cloud.fail[path] = [500]
        with pytest.raises(CloudUnavailable):
            await driver.stop(server)
        assert cloud.calls[path] == 3
        with pytest.raises(CloudNotFound):
            await driver.rest.get("compute", "/servers/unknown")
        assert await driver.servers([server, uuid_of(2, 999)]) == {server: (await driver.servers([server]))[server]}
        many = [uuid_of(2, number) for number in range(40)]
        cloud.calls.clear()
        assert len(await driver.servers(many)) == 40
        assert cloud.calls.total() == 1

    asyncio.run(story())
