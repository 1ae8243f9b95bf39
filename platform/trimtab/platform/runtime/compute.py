"""Running one pure function over many items as Ray tasks: one batch a core, one shared snapshot without copies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from trimtab.platform.compute import WORTH_SENDING_S, InProcess, run_batch
from trimtab.platform.contracts import Ran


@ray.remote(num_cpus=1, max_retries=2)
def run_remotely(function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any]) -> list[Ran]:
    """One batch on a worker; Ray hands `shared` over as read-only arrays in shared memory."""
    return run_batch(function, shared, items, ray.get_runtime_context().get_node_id()[:12])


class RayCompute:
    """Compute on the cluster, or in this process when that is faster. Results are the same."""

    def __init__(self, deadline_s: float = 600.0) -> None:
        self.deadline_s = deadline_s
        self.here = InProcess()

    async def map(
        self, function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any], estimated_s: float
    ) -> list[Ran]:
        """See `contracts.Compute`; `shared` is an object reference or a plain value."""
        if not items:
            return []
        if estimated_s < WORTH_SENDING_S:
            value = await shared if isinstance(shared, ray.ObjectRef) else shared
            return await self.here.map(function, value, items, estimated_s)
        cores = max(1, int((await asyncio.to_thread(ray.cluster_resources)).get("CPU", 1)))
        lanes = min(len(items), cores)
        reference = shared if isinstance(shared, ray.ObjectRef) else ray.put(shared)
        # Item k goes to lane k mod lanes: neighbours in a parameter grid cost about the same.
        task = run_remotely.options(name=f"{function.__name__} x{-(-len(items) // lanes)}")
        batches = [task.remote(function, reference, list(items[lane::lanes])) for lane in range(lanes)]
        results: list[Ran | None] = [None] * len(items)
        ends = await asyncio.gather(
            *(self._end(batch, -(-(len(items) - n) // lanes)) for n, batch in enumerate(batches))
        )
        for lane, ran in enumerate(ends):
            results[lane::lanes] = ran
        return [result for result in results if result is not None]

    async def _end(self, batch: Any, size: int) -> list[Ran]:
        """What a batch gave; what is too slow or lost its worker for good ends as errors, not as an exception."""
        try:
            async with asyncio.timeout(self.deadline_s):
                return await batch
        except TimeoutError:
            ray.cancel(batch, force=True)
            error = f"it took longer than {self.deadline_s:g} s and was stopped"
        except RayError as problem:
            error = f"its worker was lost: {type(problem).__name__}"
        return [Ran(None, "", "", 0.0, error)] * size
