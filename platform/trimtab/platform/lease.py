"""Holding a claimed record: its lease is renewed while work goes on, and the work stops when the lease is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from trimtab.platform.contracts import Clock
from trimtab.platform.errors import Conflict
from trimtab.platform.records import Claimable
from trimtab.platform.store.port import StorePort

log = logging.getLogger(__name__)

T = TypeVar("T")


async def while_held(
    store: StorePort, record: Claimable, owner: str, lease_s: float, wall: Clock, work: Coroutine[Any, Any, T]
) -> T:
    """Do the work as long as the record is ours; its result.

    Args:
        store: where the record is.
        record: as `claim` returned it.
        owner: who claimed it.
        lease_s: wall seconds a lease lasts; it is renewed three times as often.
        wall: the wall clock.
        work: cancelled when the lease is lost.

    Raises:
        Conflict: the lease is lost; and whatever the work raises.
    """
    main, guard = asyncio.create_task(work), asyncio.create_task(_keep(store, record, owner, lease_s, wall))
    try:
        await asyncio.wait({main, guard}, return_when=asyncio.FIRST_COMPLETED)
        if not main.done():
            await cancelled([main])
            guard.result()
        return main.result()
    finally:
        await cancelled([main, guard])


async def _keep(store: StorePort, record: Claimable, owner: str, lease_s: float, wall: Clock) -> None:
    renewed = wall.now()
    while True:
        await wall.sleep(lease_s / 3)
        try:
            await store.renew(type(record), record.uuid, owner, record.epoch, lease_s)
            renewed = wall.now()
        except Conflict:
            raise
        except Exception as error:
            log.warning("the lease of %s %s could not be renewed: %s", record.kind, record.uuid, error)
            if wall.now() - renewed > lease_s:
                raise Conflict(f"the lease of {record.kind} {record.uuid} ran out") from error


async def cancelled(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait until they are over."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
