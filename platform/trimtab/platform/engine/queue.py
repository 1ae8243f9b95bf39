"""Takes audits when they are due, oldest first, and has them run; several engines share the work by claims."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from trimtab.platform import liveness, schedule
from trimtab.platform.engine.parts import Parts
from trimtab.platform.engine.story import run_audit
from trimtab.platform.errors import Conflict, InvalidInput, NotFound
from trimtab.platform.lease import cancelled
from trimtab.platform.records import Audit, Service
from trimtab.platform.store.port import StorePort

log = logging.getLogger(__name__)


class Running(NamedTuple):
    """An audit in our hands."""

    continuous: bool
    task: asyncio.Task[Any]


async def serve_audits(
    parts: Parts,
    wake: asyncio.Event,
    *,
    workers: int = 2,
    continuous_workers: int = 10,
    idle_s: float = 1.0,
    look_s: float = 10.0,
) -> None:
    """Run audits that are due, and those that others left undone, until cancelled.

    Args:
        parts: what the engine works with.
        wake: set when an audit was made, changed or triggered; otherwise the store is asked every `idle_s`.
        workers: ONESHOT and EVENT audits at once.
        continuous_workers: CONTINUOUS audits at once.
        idle_s: see `wake`; wall seconds.
        look_s: wall seconds between two looks at continuous audits that are over, or run at other times than before.
    """
    running: dict[str, Running] = {}
    not_before: dict[str, float] = {}
    caught_up, looked = False, 0.0
    try:
        while True:
            now = parts.wall.now()
            not_before = {uuid: at for uuid, at in not_before.items() if at > now}
            whole = wake.is_set() or now >= looked + look_s
            wake.clear()
            try:
                if not caught_up:
                    await skip_missed(parts)
                    caught_up = True
                waiting = await parts.store.runnable_audits(idle_s, _moment(looked - look_s) if whole else None)
                if whole:
                    waiting = await look_ahead(parts, waiting)
                    looked = now
            except Exception as error:  # noqa: BLE001 (the queue outlives whatever the store's process goes through)
                log.warning("the queue of audits could not be read: %s: %s", type(error).__name__, error)
                waiting = []
            todo = [a for a in waiting if a.uuid not in running and a.uuid not in not_before and _due(parts, a)]
            parts.tell("audit_queue_length", float(len(todo)))
            for audit in todo:
                continuous = audit.audit_type == "CONTINUOUS"
                busy = sum(one.continuous == continuous for one in running.values())
                if busy < (continuous_workers if continuous else workers):
                    task = asyncio.create_task(run_audit(parts, audit.uuid), name=f"audit {audit.name}")
                    running[audit.uuid] = Running(continuous, task)
            rest_s = min(idle_s, _until_next(parts, [audit for audit in waiting if audit.uuid not in running]))
            signals = {asyncio.ensure_future(wake.wait()), asyncio.ensure_future(parts.wall.sleep(rest_s))}
            tasks = {one.task for one in running.values()}
            try:
                await asyncio.wait({*tasks, *signals}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancelled(signals)
            for uuid in [uuid for uuid, one in running.items() if one.task.done()]:
                if not _ended_well(running.pop(uuid).task):
                    not_before[uuid] = parts.wall.now() + parts.lease_s
    finally:
        await cancelled(one.task for one in running.values())


def _moment(wall_s: float) -> datetime:
    return datetime.fromtimestamp(wall_s, UTC)


def _until_next(parts: Parts, audits: Sequence[Audit]) -> float:
    """Wall seconds until the first of these begins or has its next run."""
    now = parts.now()
    moments = [at for audit in audits for at in (audit.next_run_time, audit.start_time) if at is not None and at > now]
    return (min(moments) - now).total_seconds() if moments else math.inf


async def skip_missed(parts: Parts) -> None:
    """When an engine starts and no other was there: no run makes up for a tick that was missed, the next one is next.

    Runs that were broken off are none of these: somebody's claim is still on them, and they run again at once.
    """
    now = parts.now()
    down_after = timedelta(seconds=parts.down_after_s)
    engines = await parts.store.list(Service, {"name": liveness.ENGINE})
    if any(one.host != parts.hostname and liveness.status(one, now, down_after) == liveness.ACTIVE for one in engines):
        return
    for audit in await parts.store.runnable_audits():
        if audit.audit_type == "CONTINUOUS" and audit.owner is None:
            with suppress(InvalidInput):  # told when it is run
                changes = {"next_run_time": schedule.after_pause(audit, now)}
                if changes["next_run_time"] != audit.next_run_time:
                    await _change(parts.store, audit, changes)


async def look_ahead(parts: Parts, audits: Sequence[Audit]) -> list[Audit]:
    """Bring continuous audits up to date: end those whose time is over, and write down when the others run next."""
    now = parts.now()
    current: list[Audit] = []
    for audit in audits:
        if schedule.expired(audit, now):
            with suppress(Conflict, NotFound):
                await parts.store.transition(Audit, audit.uuid, "expire", epoch=audit.epoch)
            continue
        if audit.audit_type == "CONTINUOUS":
            with suppress(InvalidInput):  # told when it is run
                wanted = {"next_run_time": schedule.planned(audit, now), "hostname": audit.hostname or parts.hostname}
                changes = {name: value for name, value in wanted.items() if getattr(audit, name) != value}
                if changes:
                    current += await _change(parts.store, audit, changes)
                    continue
        current.append(audit)
    return current


async def _change(store: StorePort, audit: Audit, changes: dict[str, Any]) -> list[Audit]:
    """The changed audit, unless another engine has taken it since."""
    with suppress(Conflict, NotFound):
        return [await store.update(Audit, audit.uuid, changes, epoch=audit.epoch)]
    return []


def _due(parts: Parts, audit: Audit) -> bool:
    try:
        return schedule.due(audit, parts.now())
    except InvalidInput:
        return True  # it is run to say what is wrong with it


def _ended_well(task: asyncio.Task[Any]) -> bool:
    error = task.exception()
    if isinstance(error, Conflict):
        log.info("%s is somebody else's: %s", task.get_name(), error)
    elif error is not None:
        log.error("%s could not be run to its end; it will be taken up again", task.get_name(), exc_info=error)
    return error is None
