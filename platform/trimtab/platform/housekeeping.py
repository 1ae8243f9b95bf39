"""What is done again and again besides audits and plans: signs of life, a look at the others, putting old rows away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from trimtab.platform import liveness
from trimtab.platform.contracts import Clock
from trimtab.platform.records import Service
from trimtab.platform.store.port import StorePort

log = logging.getLogger(__name__)

TIDY_EVERY_S = 3600.0


async def stay_alive(
    store: StorePort, wall: Clock, name: str, host: str, *, every_s: float = 60.0, down_after_s: float = 90.0
) -> None:
    """Give signs of life of a service, and tell what has become of the others of its name, until cancelled.

    The work of one that failed needs no help from here: its claims run out and others take it up.

    Args:
        store: where services are.
        wall: the clock that `every_s` is of.
        name: of the service, such as "watcher-applier".
        host: where it runs.
        every_s: seconds between two signs.
        down_after_s: seconds without a sign until a service is FAILED.
    """

    async def look() -> None:
        for change in await store.roll_call(name, host, down_after_s):
            log.warning("%s on %s is %s, it was %s", name, change.service.host, change.new, change.old)

    await regularly(wall, every_s, f"signs of life of {name}", look)


async def put_away(
    store: StorePort,
    wall: Clock,
    host: str,
    *,
    expiry_h: float = 24.0,
    expire_every_s: float = 1800.0,
    keep_days: float = 30.0,
    down_after_s: float = 90.0,
) -> None:
    """Supersede plans that nobody started, and remove old events, until cancelled; of several engines one does it.

    Args:
        store: where they are.
        wall: the clock that the intervals are of.
        host: where this engine runs: it works while it is the first by name of the engines that are alive.
        expiry_h: hours until a RECOMMENDED plan becomes SUPERSEDED; 0: never.
        expire_every_s: seconds between two looks for such plans.
        keep_days: days for which events and idempotency keys are kept.
        down_after_s: seconds without a sign of life until another engine counts as gone.
    """

    async def ours() -> bool:
        engines = await store.list(Service, {"name": liveness.ENGINE})
        now = datetime.fromtimestamp(wall.now(), UTC)
        states = liveness.statuses(engines, now, timedelta(seconds=down_after_s))
        return liveness.leader(engines, states) in {host, None}

    async def expire() -> None:
        if await ours() and (count := await store.supersede_plans(expiry_h)):
            log.info("%d action plans were superseded: nobody started them within %g hours", count, expiry_h)

    async def tidy() -> None:
        if await ours():
            await store.tidy(keep_days)

    jobs = [regularly(wall, TIDY_EVERY_S, "removal of old events", tidy)]
    if expiry_h > 0:
        jobs.append(regularly(wall, expire_every_s, "expiry of plans", expire))
    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(job)


async def regularly(wall: Clock, every_s: float, what: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do something at once and then again and again, until cancelled; what goes wrong is told and tried again."""
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 (the next time may be better, whatever it was)
            log.warning("%s: %s: %s; tried again in %g seconds", what, type(error).__name__, error, every_s)
        await wall.sleep(every_s)
