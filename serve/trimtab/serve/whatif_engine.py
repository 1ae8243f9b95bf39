"""Bringing what-if sweeps to an end: claim, run the cells that are not there yet, tell how far it is; restartable."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from trimtab.platform.clocks import WallClock
from trimtab.platform.errors import Conflict, InvalidInput, NotFound, TrimtabError
from trimtab.platform.lease import cancelled, while_held
from trimtab.platform.records import WhatIf
from trimtab.platform.states import WhatIfState
from trimtab.platform.store.port import StorePort, SweepsPort
from trimtab.simulator.whatif import engine
from trimtab.simulator.whatif.cells import cells_of
from trimtab.simulator.whatif.origin import Origin, origin_of
from trimtab.simulator.whatif.reading import Sweep
from trimtab.simulator.whatif.scenario import CloudBase, Scenario

log = logging.getLogger(__name__)

LONGEST_MESSAGE = 255
ORPHAN_S = 3600.0  # files without a record that are younger may be a sweep that is being created


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop works with; wired in the composition root."""

    store: StorePort
    files: SweepsPort
    runner: engine.Runner
    hostname: str = "trimtab"
    owner: str = "whatifs"  # who claims sweeps; another name for every process
    lease_s: float = 30.0
    look_s: float = 0.5  # how often it is looked whether the sweep was cancelled


@dataclass(frozen=True, slots=True)
class Kept:
    """The files of one sweep; `engine.Keeper`."""

    files: SweepsPort
    uuid: str

    async def begin(self, wanted: Collection[str]) -> set[str]:
        """See `Sweeps.begin`."""
        return await self.files.begin(self.uuid, wanted)

    async def counts(self) -> tuple[int, int]:
        """See `Sweeps.counts`."""
        return await self.files.counts(self.uuid)

    async def add(self, rows: pa.Table, series: Mapping[str, pa.Table]) -> tuple[int, int]:
        """See `Sweeps.add`."""
        return await self.files.add(self.uuid, rows, series)


async def run_whatif(parts: Parts, uuid: str) -> None:
    """Take one sweep and bring it to an end, or go on with one that was interrupted.

    Whatever goes wrong ends in a FAILED sweep that says why; cells that fail are rows with an error.

    Raises:
        Conflict: somebody else has it.
    """
    record = await parts.store.claim(WhatIf, uuid, parts.owner, parts.lease_s)
    epoch = record.epoch
    try:
        if record.state == WhatIfState.PENDING:
            changes = {"hostname": parts.hostname, "started_at": datetime.now(UTC)}
            record = await parts.store.transition(WhatIf, uuid, "run", changes, epoch=epoch)
        if record.state == WhatIfState.ONGOING:
            work = _unless_cancelled(parts, record, epoch)
            await while_held(parts.store, record, parts.owner, parts.lease_s, WallClock(), work)
    except (Conflict, NotFound) as gone:
        log.warning("what-if %s: left alone: %s", uuid, gone)
    except Exception as problem:  # noqa: BLE001 (a sweep never dies silently: it ends FAILED and says why)
        message = str(problem) if isinstance(problem, TrimtabError) else f"{type(problem).__name__}: {problem}"
        log.warning("what-if %s failed: %s", uuid, message)
        with contextlib.suppress(Conflict, NotFound):  # cancelled meanwhile: it stays so
            await _end(parts, uuid, epoch, "fail", message[:LONGEST_MESSAGE])
    finally:
        with contextlib.suppress(Conflict, NotFound):
            await parts.store.release(WhatIf, uuid, parts.owner, epoch)


async def _unless_cancelled(parts: Parts, record: WhatIf, epoch: int) -> None:
    """Do the work until it is done or the sweep is cancelled; then what runs is stopped at once."""
    work = asyncio.create_task(_work(parts, record, epoch))
    watch = asyncio.create_task(_cancelled(parts, record.uuid))
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if work.done() and not isinstance(work.exception(), Conflict):
            work.result()
            return
    finally:
        await cancelled([work, watch])
    if (await parts.store.get(WhatIf, record.uuid)).state != WhatIfState.CANCELLED:
        if not work.cancelled():
            work.result()
        return
    # A batch may have been on its way into the files: the record says what is kept.
    done, failed = await parts.files.counts(record.uuid)
    changes = {"cells_done": done, "cells_failed": failed}
    await parts.store.update(WhatIf, record.uuid, changes, epoch=epoch)


async def _cancelled(parts: Parts, uuid: str) -> None:
    """Returns when a sweep was cancelled.

    Raises:
        NotFound: it was removed.
    """
    while True:
        try:
            if (await parts.store.get(WhatIf, uuid)).state == WhatIfState.CANCELLED:
                return
        except NotFound:
            raise
        except Exception as error:  # noqa: BLE001 (the state may be starting again; the lease decides how long)
            log.warning("what-if %s: whether it is cancelled is not known now: %s", uuid, error)
        await asyncio.sleep(parts.look_s)


async def _work(parts: Parts, record: WhatIf, epoch: int) -> None:
    sweep = await asyncio.to_thread(_sweep, record, await parts.files.origin(record.uuid))
    progress: engine.Progress | None = None
    async with aclosing(engine.run_sweep(sweep, Kept(parts.files, record.uuid), parts.runner, time.monotonic)) as steps:
        async for progress in steps:
            done, failed = progress.done, progress.failed
            changes = {"cells_done": done, "cells_failed": failed, "seconds_left": progress.seconds_left}
            await parts.store.update(WhatIf, record.uuid, changes, epoch=epoch, state=WhatIfState.ONGOING)
    if progress is not None and progress.failed == progress.total:
        rows = await parts.files.table(record.uuid)
        why = rows["error"][0].as_py() if rows is not None else ""
        await _end(parts, record.uuid, epoch, "fail", f"All cells failed, the first one: {why}"[:LONGEST_MESSAGE])
        return
    await _end(parts, record.uuid, epoch, "succeed", None)


async def _end(parts: Parts, uuid: str, epoch: int, event: str, message: str | None) -> None:
    changes = {"finished_at": datetime.now(UTC), "seconds_left": None}
    await parts.store.transition(WhatIf, uuid, event, changes, message=message, epoch=epoch)


def _sweep(record: WhatIf, tables: Mapping[str, pa.Table]) -> Sweep:
    """The sweep of a record, made again from what was stored when it was accepted."""
    scenario = Scenario.model_validate(record.scenario)
    if isinstance(scenario.base, CloudBase):
        if not tables:
            raise InvalidInput(f"the model that what-if {record.uuid} begins with is gone: create it again")
        origin = Origin.from_tables(tables)
    else:
        origin = origin_of(scenario.base)
    return Sweep(scenario, origin, cells_of(scenario, origin.fingerprint))


async def serve_whatifs(parts: Parts, wake: asyncio.Event, *, idle_s: float = 1.0) -> None:
    """Take PENDING and abandoned sweeps, oldest first, one at a time, until cancelled.

    First it removes files that belong to no sweep: a crash between files and record leaves them.
    """
    tidied = False
    while True:
        wake.clear()
        try:
            if not tidied:
                known = {record.uuid for record in await parts.store.list(WhatIf)}
                await parts.files.remove_orphans(known, time.time() - ORPHAN_S)
                tidied = True
            waiting = await parts.store.claimable(WhatIf, [WhatIfState.PENDING, WhatIfState.ONGOING])
            for record in waiting:
                await run_whatif(parts, record.uuid)
        except Exception as error:  # noqa: BLE001 (the queue must outlive whatever the store's process is going through)
            log.warning("the queue of what-ifs could not be worked on: %s: %s", type(error).__name__, error)
            waiting = []
        if not waiting:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), idle_s)
