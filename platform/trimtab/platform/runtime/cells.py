"""Cells of a sweep as Ray tasks: batches that report a lost worker instead of being retried behind one's back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import ray
from ray.exceptions import RayError

from trimtab.platform.compute import RunBatch, WorkerLost, in_batches, run_batch
from trimtab.platform.contracts import Ran


@ray.remote(num_cpus=1, max_retries=0)
def run_cells(function: Callable[[Any, Any], Any], shared: Any, cells: Sequence[Any]) -> list[Ran]:
    """One batch on a worker; `shared` comes from the object store, its arrays without a copy."""
    return run_batch(function, shared, cells, ray.get_runtime_context().get_node_id()[:12])


class RayCells:
    """Runs batches on the cluster. The caller's process owns `shared`; a worker fetches it once a batch."""

    def __init__(self, function: Callable[[Any, Any], Any], shared: Any, deadline_s: float = 600.0) -> None:
        self.shared = ray.put(shared)
        self.function, self.deadline_s = function, deadline_s

    async def __call__(self, cells: Sequence[Any]) -> list[Ran]:
        """One batch.

        Raises:
            WorkerLost: its worker died, or it took longer than `deadline_s` a cell.
        """
        task = run_cells.options(name=f"cells x{len(cells)}")
        reference: Any = task.remote(self.function, self.shared, list(cells))
        try:
            async with asyncio.timeout(self.deadline_s * len(cells)):
                return await reference
        except TimeoutError:
            ray.cancel(reference, force=True)
            raise WorkerLost(f"it took longer than {self.deadline_s:g} s") from None
        except RayError as problem:
            raise WorkerLost(type(problem).__name__) from problem
        except asyncio.CancelledError:
            ray.cancel(reference, force=True)
            raise


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
