"""From a sweep to its results: what is left to do, batches as they end, progress with an estimate."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import NamedTuple, Protocol

import pyarrow as pa

from trimtab.platform.contracts import Ran
from trimtab.simulator.whatif.cell_run import Ground, finished
from trimtab.simulator.whatif.cells import Cell
from trimtab.simulator.whatif.reading import Sweep

# Runs cells somewhere; yields (position, result) of those that have ended.
Runner = Callable[[Ground, Sequence[Cell]], AsyncGenerator[list[tuple[int, Ran]], None]]


class Keeper(Protocol):
    """Where results are kept; what it was given is durable when it returns."""

    async def begin(self, wanted: Collection[str]) -> set[str]:
        """Keys of wanted cells that are there already."""
        ...

    async def counts(self) -> tuple[int, int]:
        """How many cells there are, and how many of them failed; asked after `begin`."""
        ...

    async def add(self, rows: pa.Table, series: Mapping[str, pa.Table]) -> tuple[int, int]:
        """Keep finished cells; how many there are now, and how many of them failed."""
        ...


class Progress(NamedTuple):
    """How far a sweep is; `seconds_left` is None until something was measured."""

    total: int
    done: int
    failed: int
    resumed: int  # cells that were there at the start
    seconds_left: float | None


async def run_sweep(
    sweep: Sweep, keeper: Keeper, runner: Runner, clock: Callable[[], float]
) -> AsyncGenerator[Progress, None]:
    """Compute the cells that are not there yet; yields at the start and after every batch, when it is kept.

    Args:
        sweep: scenario, origin and cells.
        keeper: where results go.
        runner: this process, or the cluster.
        clock: wall seconds, for the estimate.
    """
    keys = {cell.key for cell in sweep.cells}
    there = await keeper.begin(keys)
    todo = [cell for cell in sweep.cells if cell.key not in there]
    done, failed = await keeper.counts()
    yield Progress(len(keys), done, failed, len(there), None if todo else 0.0)
    if not todo:
        return
    begin, computed = clock(), 0
    first: tuple[float, int] | None = None  # when the first batch ended: starting workers is no measure
    async with aclosing(runner(Ground(sweep.scenario, sweep.origin), todo)) as batches:
        async for ended in batches:
            done, failed = await keeper.add(*finished(todo, ended))
            computed += len(ended)
            now = clock()
            since, before = first or (begin, 0)
            first = first or (now, computed)
            left = (len(todo) - computed) * (now - since) / max(computed - before, 1)
            yield Progress(len(keys), done, failed, len(there), left)
