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

    All of a name watch each other; only the leader tells (an event of the service's row, from ACTIVE to FAILED or
    back), so that everybody hears it once. The work of one that failed needs no help from here: its claims run out and
    others take it up.

    Args:
        store: where services are.
        wall: the clock that `every_s` is of.
        name: of the service, such as "watcher-applier".
        host: where it runs.
        every_s: seconds between two signs.
        down_after_s: seconds without a sign until a service is FAILED.
    """
    seen: dict[str, str] = {}

    async def look() -> None:
        nonlocal seen
        await store.beat(name, host)
        services = await store.list(Service, {"name": name})
        now = datetime.fromtimestamp(wall.now(), UTC)
        states = liveness.statuses(services, now, timedelta(seconds=down_after_s))
        if liveness.leader(services, states) == host:
            for change in liveness.changes(services, seen, states):
                log.warning("%s on %s is %s, it was %s", name, change.service.host, change.new, change.old)
                await store.report_service(change.service.uuid, change.old, change.new)
        seen = states

    await regularly(wall, every_s, f"signs of life of {name}", look)


async def put_away(
    store: StorePort,
    wall: Clock,
    *,
    expiry_h: float = 24.0,
    expire_every_s: float = 1800.0,
    keep_days: float = 30.0,
) -> None:
    """Supersede plans that nobody started, and remove old events, until cancelled.

    Args:
        store: where they are.
        wall: the clock that the intervals are of.
        expiry_h: hours until a RECOMMENDED plan becomes SUPERSEDED; 0: never.
        expire_every_s: seconds between two looks for such plans.
        keep_days: days for which events and idempotency keys are kept.
    """

    async def expire() -> None:
        if count := await store.supersede_plans(expiry_h):
            log.info("%d action plans were superseded: nobody started them within %g hours", count, expiry_h)

    async def tidy() -> None:
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
