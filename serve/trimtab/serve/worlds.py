"""The cloud that is optimised, simulated or real: its driver, its measurements, its clock and what became of plans."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from trimtab.platform.clocks import PacedClock, WallClock
from trimtab.platform.collector import STEP_S, Collector
from trimtab.platform.contracts import Datasource, Driver, Score
from trimtab.platform.errors import TrimtabError
from trimtab.platform.runtime import actors
from trimtab.platform.settings import OpenStackSettings, Settings
from trimtab.serve.effects import Measure, OurRecord, measured_on_record
from trimtab.simulator.driver import SimulatedDatasource, SimulatedDriver

if TYPE_CHECKING:
    from trimtab.platform.openstack.driver import OpenStackDriver

log = logging.getLogger(__name__)
CloudClock = PacedClock | WallClock


@dataclass(frozen=True, slots=True)
class World:
    """One cloud, as seen by one process.

    `clock` gives the cloud's clock as it is now; `wall_interval_s` is the time between two collections. `measuring`
    gives, with our own record, what tells what plans brought; about a moment everything is known `late_s` after it.
    """

    driver: Driver
    datasource: Datasource
    clock: Callable[[], Awaitable[CloudClock]]
    wall_interval_s: float
    measuring: Callable[[OurRecord], Measure]
    late_s: float = 0.0
    follow: Callable[[Collector], Coroutine[Any, Any, None]] | None = None


def simulated(settings: Settings, ask: actors.Call) -> World:
    """The embedded cloud, behind its actor."""

    async def clock() -> PacedClock:
        return PacedClock(*(await ask("pace", (), {})))

    async def measure(start_s: float, end_s: float, horizon_s: float) -> Score:
        return await ask("measure", (start_s, start_s + horizon_s, start_s, end_s), {})

    interval = max(2.0, settings.collect_interval_s / settings.cloud.speed)
    return World(SimulatedDriver(ask), SimulatedDatasource(ask), clock, interval, lambda _: measure)


def real(settings: Settings) -> World:
    """The OpenStack of the settings. Nothing is asked of it yet.

    Raises:
        InvalidInput: clouds.yaml has no such cloud, or a datasource is not configured.
    """
    # Imported here: openstacksdk takes a while, and simulated clouds do without.
    from trimtab.platform.openstack.cloud import driver_of, rest_of
    from trimtab.serve.sources import sources_of

    there = settings.openstack
    rest = rest_of(there.cloud, there.region, in_flight=there.in_flight, deadline_s=there.deadline_s)
    driver = driver_of(rest)

    async def clock() -> WallClock:
        return WallClock()

    sources = sources_of(settings, rest, driver.known)
    follow = None if there.notifications_url is None else partial(_follow, there, driver)

    def measuring(ours: OurRecord) -> Measure:
        return partial(measured_on_record, ours, driver.moves)

    every = settings.collect_interval_s
    # The last sample of a time has to be over, settled (see Gnocchi), and collected.
    return World(driver, sources, clock, every, measuring, late_s=2 * STEP_S + every, follow=follow)


async def _follow(there: OpenStackSettings, driver: OpenStackDriver, collector: Collector) -> None:
    """Let the model change with what Nova tells on its bus, a few seconds of it at a time."""
    from trimtab.platform.openstack.listener import Listener

    assert there.notifications_url is not None  # noqa: S101 (only then does anybody follow)
    url = there.notifications_url.get_secret_value()
    listener = Listener(url, there.notification_topics, there.notification_pool)
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(listener.start, loop, driver.hear)
    try:
        while True:
            await driver.changed.wait()
            await asyncio.sleep(there.settle_s)
            try:
                await collector.take(driver.news)
            except TrimtabError as error:
                log.warning("what Nova told cannot be understood, the next collection repairs: %s", error)
    finally:
        await asyncio.to_thread(listener.stop)


async def keep_pace(clock: CloudClock, now: Callable[[], Awaitable[CloudClock]]) -> None:
    """Follow a simulated cloud's clock when somebody moves it on; a real cloud's needs no care."""
    while isinstance(clock, PacedClock):
        await asyncio.sleep(1.0)
        try:
            fresh = await now()
        except TrimtabError as error:
            log.warning("the cloud's time is not to be had: %s", error)
            continue
        if isinstance(fresh, PacedClock):
            clock.cloud_origin_s, clock.wall_origin_s, clock.speed = (
                fresh.cloud_origin_s,
                fresh.wall_origin_s,
                fresh.speed,
            )
