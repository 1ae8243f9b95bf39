"""Cells of a sweep as Ray tasks: batches that report a lost worker instead of being retried behind one's back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import ray
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayTaskError,
    WorkerCrashedError,
)

from trimtab.platform.compute import RunBatch, WorkerLost, in_batches, run_batch
from trimtab.platform.contracts import Ran

# What says that a worker, or the machine it ran on, is gone; its cells may do well elsewhere.
LOST = (WorkerCrashedError, OutOfMemoryError, NodeDiedError, LocalRayletDiedError, ObjectLostError)


@ray.remote(num_cpus=1, max_retries=0, num_returns="streaming")
def run_cells(function: Callable[[Any, Any], Any], shared: Any, cells: Sequence[Any]) -> Iterator[list[Ran]]:
    """One batch on a worker; `shared` comes from the object store, its arrays without a copy.

    The first answer, with nothing in it, says that the batch has begun.
    """
    yield []
    yield run_batch(function, shared, cells, ray.get_runtime_context().get_node_id()[:12])


class RayCells:
    """Runs batches on the cluster. The caller's process owns `shared`; a worker fetches it once a batch."""

    def __init__(self, function: Callable[[Any, Any], Any], shared: Any, deadline_s: float = 600.0) -> None:
        self.shared = ray.put(shared)
        self.function, self.deadline_s = function, deadline_s

    async def __call__(self, cells: Sequence[Any]) -> list[Ran]:
        """One batch; waiting for a worker does not count.

        Cells that Ray itself cannot bring back, such as results that cannot be pickled, end with that error.

        Raises:
            WorkerLost: its worker died, or it took longer than `deadline_s` a cell.
        """
        task = run_cells.options(name=f"cells x{len(cells)}")
        answers: Any = task.remote(self.function, self.shared, list(cells))
        try:
            await (await anext(answers))
            async with asyncio.timeout(self.deadline_s * len(cells)):
                ran: list[Ran] = await (await anext(answers))
        except RayTaskError as problem:  # first: it is of the cause's class too
            if isinstance(problem.cause, LOST):
                raise WorkerLost(type(problem.cause).__name__) from problem
            if len(cells) == 1:
                return [Ran(None, "", "", 0.0, f"{type(problem.cause).__name__}: {problem.cause}")]
        except TimeoutError:
            ray.cancel(answers, force=True)
            raise WorkerLost(f"it took longer than {self.deadline_s * len(cells):g} s") from None
        except LOST as problem:
            raise WorkerLost(type(problem).__name__) from problem
        except asyncio.CancelledError:
            ray.cancel(answers, force=True)
            raise
        else:
            return ran
        return [(await self([cell]))[0] for cell in cells]  # so that only the guilty fail


def cluster_cpus() -> int:
    """CPUs that tasks may use."""
    resources: Any = ray.cluster_resources  # untyped
    return max(1, int(resources().get("CPU", 1)))


async def on_cluster(
    function: Callable[[Any, Any], Any],
    shared: Any,
    cells: Sequence[Any],
    *,
    lanes: int | None = None,
    deadline_s: float = 600.0,
) -> AsyncGenerator[list[tuple[int, Ran]], None]:
    """`function(shared, cell)` for all cells, as `compute.in_batches` does it, on as many CPUs as the cluster has."""
    cpus = await asyncio.to_thread(cluster_cpus)
    run: RunBatch = RayCells(function, shared, deadline_s)
    async with aclosing(in_batches(run, cells, min(lanes or cpus, cpus))) as batches:
        async for ended in batches:
            yield ended
