"""Takes started and abandoned plans, oldest first, and has them run; several appliers share the work by claims."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from trimtab.platform.applier.ledger import UNFINISHED
from trimtab.platform.applier.room import Room
from trimtab.platform.applier.story import run_plan
from trimtab.platform.applier.walk import Slots
from trimtab.platform.contracts import ActionHandler, Tools
from trimtab.platform.errors import Conflict
from trimtab.platform.lease import cancelled
from trimtab.platform.proposal import Limits
from trimtab.platform.records import ActionPlan
from trimtab.platform.store.port import StorePort

log = logging.getLogger(__name__)


async def serve_plans(
    store: StorePort,
    owner: str,
    *,
    handlers: Mapping[str, type[ActionHandler]],
    tools: Tools,
    limits: Limits,
    wake: asyncio.Event,
    rollback: bool = False,
    lease_s: float = 30.0,
    workers: int = 1,
    idle_s: float = 1.0,
    room: Room | None = None,
    abort: bool = False,
    timeouts_s: Mapping[str, float] | None = None,
) -> None:
    """Run PENDING and abandoned plans, oldest first, until cancelled; several appliers share the work by claims.

    Args:
        store: see `run_plan`.
        owner: see `run_plan`; plans that bear this name already are resumed at once.
        handlers: see `run_plan`.
        tools: see `run_plan`.
        limits: migrations in flight, of all plans together.
        wake: set when there may be something to do; otherwise the store is asked every `idle_s` wall seconds.
        rollback: see `run_plan`.
        lease_s: see `run_plan`.
        workers: plans at once.
        idle_s: see `wake`.
        room: see `run_plan`.
        abort: see `run_plan`.
        timeouts_s: see `run_plan`.
    """
    slots = Slots(limits)
    running: dict[str, asyncio.Task[ActionPlan]] = {}
    not_before: dict[str, float] = {}
    try:
        while True:
            wake.clear()
            now = tools.wall.now()
            not_before = {uuid: at for uuid, at in not_before.items() if at > now}
            for plan in await _claimable(store, owner) if len(running) < workers else ():
                if plan.uuid in running or plan.uuid in not_before or len(running) >= workers:
                    continue
                running[plan.uuid] = asyncio.create_task(
                    run_plan(
                        store,
                        plan.uuid,
                        owner=owner,
                        handlers=handlers,
                        tools=tools,
                        limits=limits,
                        rollback=rollback,
                        lease_s=lease_s,
                        room=room,
                        slots=slots,
                        abort=abort,
                        timeouts_s=timeouts_s,
                    )
                )
            signals = {asyncio.ensure_future(wake.wait()), asyncio.ensure_future(tools.wall.sleep(idle_s))}
            try:
                await asyncio.wait({*running.values(), *signals}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancelled(signals)
            for uuid in [uuid for uuid, task in running.items() if task.done()]:
                if not _ended_well(uuid, running.pop(uuid)):
                    not_before[uuid] = tools.wall.now() + lease_s
    finally:
        await cancelled(running.values())


async def _claimable(store: StorePort, owner: str) -> Sequence[ActionPlan]:
    """What nobody holds, and what we held before we died."""
    try:
        free = await store.claimable(ActionPlan, UNFINISHED)
        ours = await store.list(ActionPlan, {"owner": owner, "state": UNFINISHED})
        return sorted({plan.uuid: plan for plan in (*free, *ours)}.values(), key=lambda plan: plan.id)
    except Exception:
        log.exception("plans could not be read; asking again")
        return ()


def _ended_well(uuid: str, task: asyncio.Task[ActionPlan]) -> bool:
    error = task.exception()
    if isinstance(error, Conflict):
        log.info("action plan %s is somebody else's: %s", uuid, error)
    elif error is not None:
        log.error("action plan %s could not be run to its end; it will be taken up again", uuid, exc_info=error)
    return error is None
