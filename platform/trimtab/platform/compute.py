"""Running one pure function over many items in this process; the Ray form of the same interface is in `runtime`."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from trimtab.platform.contracts import Ran

# Below this much work in total, sending it elsewhere costs more than it saves (measured: a task costs 0.3 to 1 ms,
# and a worker that has not run this code yet a second for its imports).
WORTH_SENDING_S = 0.1


def run_batch(function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any], node: str) -> list[Ran]:
    """Run the function over some items, here; an item that raises becomes a `Ran` with an error."""
    results = []
    for item in items:
        begin = time.perf_counter()
        value, error = None, None
        try:
            value = function(shared, item)
        except Exception as problem:  # noqa: BLE001 (one bad strategy must not take the others with it; reported)
            error = f"{type(problem).__name__}: {problem}"
        results.append(Ran(value, node, f"pid-{os.getpid()}", time.perf_counter() - begin, error))
    return results


class InProcess:
    """Compute in a thread of this process."""

    def __init__(self) -> None:
        self.node = socket.gethostname()

    async def map(
        self, function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any], estimated_s: float
    ) -> list[Ran]:
        """See `contracts.Compute`."""
        del estimated_s
        return await asyncio.to_thread(run_batch, function, shared, items, self.node)
