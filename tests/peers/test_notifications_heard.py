"""Nova's notifications on a real RabbitMQ change the model; through a broker that dies, and after one that waited."""

from __future__ import annotations

import asyncio
import importlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.peers.broker import Broker, missing
from tests.platform.openstack_standin import StandIn, on_loopback, uuid_of
from tests.platform.test_openstack_inventory import driver_to
from tests.platform.test_openstack_updates import instance

from trimtab.platform.openstack.driver import OpenStackDriver
from trimtab.platform.openstack.listener import Listener

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # oslo.messaging still imports eventlet, which warns of itself
    messaging: Any = importlib.import_module("oslo_messaging")  # untyped
cfg: Any = importlib.import_module("oslo_config.cfg")
pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]

TOPIC = "nova.versioned_notifications"
MOVED, GONE = "instance.live_migration_post_dest.end", "instance.delete.end"
PATIENCE_S = 60.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker that runs."""
    if (why := missing()) is not None:
        pytest.skip(why)
    made = Broker(tmp_path / "rabbitmq")
    made.start()
    yield made
    made.stop()


class Nova:
    """Says what Nova's compute services say, the way they do."""

    def __init__(self, url: str) -> None:
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[], default_config_dirs=[], project="nova")
        messaging.set_transport_defaults("nova")
        transport = messaging.get_notification_transport(conf, url=url)
        self.notifier = messaging.Notifier(
            transport, "nova-compute:cmp-000", driver="messagingv2", topics=["versioned_notifications"], retry=-1
        )

    async def say(self, event_type: str, payload: Mapping[str, Any]) -> None:
        """Tell everybody; waits for a broker that is away."""
        await asyncio.to_thread(self.notifier.info, {}, event_type, payload)


def at(server: int, host: int) -> dict[str, Any]:
    """What is said of a server on a host."""
    name = f"cmp-{host:03d}"
    return instance(server, host, host=name, node=f"{name}.example", display_name=f"vm-{server}")


async def changed(driver: OpenStackDriver) -> dict[str, str | None]:
    """The host of every server, by name, after the next news."""
    await asyncio.wait_for(driver.changed.wait(), PATIENCE_S)
    return {row["name"]: row["node"] for row in driver.news().instances.to_pylist()}


async def test_what_nova_says_is_in_the_model_also_after_the_broker_died(broker: Broker) -> None:
    nova = Nova(broker.url)
    with on_loopback(StandIn(2, 4)) as cloud:
        drivers = [driver_to(cloud), driver_to(cloud)]
        # two that listen to the same topic: each in a pool of its own, so that each hears everything
        listeners = [Listener(broker.url, [TOPIC], f"pool-{n}") for n in range(2)]
        for driver, listener in zip(drivers, listeners, strict=True):
            await driver.inventory()
            await asyncio.to_thread(listener.start, asyncio.get_running_loop(), driver.hear)
        try:
            await nova.say("keypair.create.end", {"nova_object.data": {"name": "not for us"}})
            await nova.say(MOVED, {"nova_object.data": "not as it should be"})
            await nova.say(MOVED, at(0, 1))
            for driver in drivers:
                assert (await changed(driver))["vm-0"] == uuid_of(1, 1)
            broker.kill()
            broker.start()
            for _ in range(60):  # what is said before they are back is lost with their queues: collections repair that
                await nova.say(GONE, at(0, 1))
                await asyncio.sleep(1.0)
                if all(driver.changed.is_set() for driver in drivers):
                    break
            for driver in drivers:
                assert "vm-0" not in await changed(driver)
        finally:
            for listener in listeners:
                await asyncio.to_thread(listener.stop)


async def test_what_waited_in_the_queue_is_older_than_what_was_read(broker: Broker) -> None:
    nova = Nova(broker.url)
    with on_loopback(StandIn(2, 4)) as cloud:
        away = Listener(broker.url, [TOPIC], "ours")
        await asyncio.to_thread(away.start, asyncio.get_running_loop(), lambda *_: None)
        await asyncio.to_thread(away.stop)  # its queue stays
        await nova.say(MOVED, at(0, 1))
        await asyncio.sleep(6.0)  # longer than clocks may differ
        driver = driver_to(cloud)
        await driver.inventory()
        heard: list[float] = []

        def hear(event_type: str, payload: Mapping[str, Any], told_at: float) -> None:
            heard.append(told_at)
            driver.hear(event_type, payload, told_at)

        listener = Listener(broker.url, [TOPIC], "ours")
        await asyncio.to_thread(listener.start, asyncio.get_running_loop(), hear)
        try:
            await nova.say(MOVED, at(2, 1))
            assert await changed(driver) == {
                "vm-0": uuid_of(1, 0), "vm-1": uuid_of(1, 1), "vm-2": uuid_of(1, 1), "vm-3": uuid_of(1, 1),
            }  # fmt: skip
            assert len(heard) == 2
            assert 6.0 <= heard[1] - heard[0] < PATIENCE_S
        finally:
            await asyncio.to_thread(listener.stop)
