"""Nova's notifications change the model between two readings; told twice or late they do no harm."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.platform.openstack_standin import StandIn, on_loopback, uuid_of
from tests.platform.test_openstack_inventory import driver_to

from trimtab.platform.model import ClusterModel
from trimtab.platform.openstack.inventory import Book, Host
from trimtab.platform.openstack.updates import apply


def book() -> Book:
    made = Book()
    for number in range(2):
        host = Host(uuid_of(1, number), f"cmp-{number}", f"cmp-{number}.example")
        made.names[host.uuid] = host
        made.hosts[host.uuid] = {
            "uuid": host.uuid, "hostname": host.service, "vcpus": 8.0, "memory_mb": 8192.0, "disk_gb": 100.0,
            "state": "up", "status": "enabled", "disabled_reason": "",
        }  # fmt: skip
    return made


def instance(number: int, at: int, **more: Any) -> dict[str, Any]:
    flavor = {"name": "m1", "vcpus": 2, "memory_mb": 1024, "root_gb": 10, "ephemeral_gb": 1, "swap": 512}
    data = {
        "uuid": uuid_of(2, number), "display_name": f"vm-{number}",
        "host": f"cmp-{at}", "node": f"cmp-{at}.example",
        "state": "active", "tenant_id": "p", "image_uuid": "i", "metadata": {"a": "b"}, "locked": False,
        "created_at": "2026-11-01T00:00:00Z",
        "flavor": {"nova_object.name": "FlavorPayload", "nova_object.data": flavor},
    }  # fmt: skip
    return {"nova_object.name": "InstanceActionPayload", "nova_object.data": {**data, **more}}


def service(host: int, **more: Any) -> dict[str, Any]:
    data = {"host": f"cmp-{host}", "binary": "nova-compute", "disabled": False, "forced_down": False}
    return {"nova_object.name": "ServiceStatusPayload", "nova_object.data": {**data, **more}}


def where(made: Book) -> dict[str, str | None]:
    return {row["name"]: row["node"] for row in made.instances.values()}


def test_an_instance_comes_moves_and_goes() -> None:
    made = book()
    assert apply(made, "instance.create.end", instance(0, 0))
    row = made.instances[uuid_of(2, 0)]
    assert (row["vcpus"], row["disk_gb"], row["metadata"]) == (2, 10 + 1 + 1, '{"a": "b"}')
    assert apply(made, "instance.live_migration_post_dest.end", instance(0, 1))
    assert where(made) == {"vm-0": uuid_of(1, 1)}
    assert row["node"] == uuid_of(1, 0), "an inventory given out before stays as it was"
    assert not apply(made, "instance.update", instance(0, 1)), "told twice"
    assert apply(made, "instance.delete.end", instance(0, 1))
    assert not made.instances
    assert not apply(made, "instance.delete.end", instance(0, 1))


def test_a_resize_that_is_taken_back_and_a_lock_are_seen() -> None:
    made = book()
    apply(made, "instance.create.end", instance(0, 0))
    bigger = {"nova_object.data": {"name": "m2", "vcpus": 4, "memory_mb": 2048, "root_gb": 10}}
    apply(made, "instance.resize_finish.end", instance(0, 1, flavor=bigger))
    assert made.instances[uuid_of(2, 0)]["vcpus"] == 4
    fast = {"nova_object.data": {**bigger["nova_object.data"], "extra_specs": {"trait:FAST": "required"}}}
    apply(made, "instance.resize_finish.end", instance(0, 1, flavor=fast))
    assert made.instances[uuid_of(2, 0)]["flavor_specs"] == '{"trait:FAST": "required"}'
    apply(made, "instance.resize_revert.end", instance(0, 0))
    assert made.instances[uuid_of(2, 0)]["vcpus"] == 2
    apply(made, "instance.lock", instance(0, 0, locked=True))
    assert made.instances[uuid_of(2, 0)]["locked"]


def test_what_is_being_built_or_cannot_be_understood_changes_nothing() -> None:
    made = book()
    assert not apply(made, "instance.update", instance(0, 0, state="building"))
    assert not apply(made, "instance.update", {"nova_object.data": {"uuid": "x"}})
    assert not apply(made, "instance.update", {})
    assert not apply(made, "keypair.create.end", instance(0, 0))
    apply(made, "instance.create.end", instance(1, 7))
    assert where(made) == {"vm-1": None}, "its host is not known yet"


def test_services_go_down_are_disabled_and_vanish() -> None:
    made = book()
    apply(made, "instance.create.end", instance(0, 0))
    assert apply(made, "service.update", service(0, disabled=True, disabled_reason="maintenance"))
    host = made.hosts[uuid_of(1, 0)]
    assert (host["status"], host["disabled_reason"], host["state"]) == ("disabled", "maintenance", "up")
    assert apply(made, "service.update", service(0, forced_down=True))
    assert made.hosts[uuid_of(1, 0)]["state"] == "down"
    assert not apply(made, "service.update", service(0, binary="nova-scheduler", disabled=True))
    assert apply(made, "service.delete", service(0))
    assert where(made) == {"vm-0": None}
    ClusterModel.from_arrow(*made.inventory(0.0)[:3])


def test_what_happens_while_the_cloud_is_read_is_not_lost() -> None:
    with on_loopback(StandIn(2, 4)) as cloud:
        driver = driver_to(cloud)
        moved = instance(0, 1, host="cmp-001", node="cmp-001.example", display_name="vm-0")

        async def story() -> None:
            reading = asyncio.create_task(driver.inventory())
            await asyncio.sleep(0)  # it has begun, and has no answer yet
            driver.hear("instance.live_migration_post_dest.end", moved)
            inventory = await reading
            rows = {row["name"]: row["node"] for row in inventory.instances.to_pylist()}
            assert rows["vm-0"] == uuid_of(1, 1)
            assert not driver.changed.is_set()
            driver.hear("instance.delete.end", moved)
            assert driver.changed.is_set()
            assert driver.news().instances.num_rows == 3

        asyncio.run(story())


def test_what_was_told_before_the_cloud_was_read_changes_nothing() -> None:
    """A queue that nobody emptied while Trimtab was away is not what happens now."""
    with on_loopback(StandIn(2, 4)) as cloud:
        driver = driver_to(cloud)
        moved = instance(0, 1, host="cmp-001", node="cmp-001.example", display_name="vm-0")
        event = "instance.live_migration_post_dest.end"

        async def story() -> None:
            began = time.time()
            driver.hear(event, moved, began)
            assert not driver.changed.is_set(), "nothing was read yet that could have changed"
            reading = asyncio.create_task(driver.inventory())
            await asyncio.sleep(0)
            driver.hear(event, moved, began - 3600)
            inventory = await reading
            driver.hear(event, moved, began - 60)
            assert not driver.changed.is_set()
            assert {row["node"] for row in inventory.instances.to_pylist() if row["name"] == "vm-0"} == {uuid_of(1, 0)}
            driver.hear(event, moved, time.time())
            assert driver.changed.is_set()
            assert {row["node"] for row in driver.news().instances.to_pylist() if row["name"] == "vm-0"} == {
                uuid_of(1, 1)
            }

        asyncio.run(story())
