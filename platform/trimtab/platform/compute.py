"""Running one pure function over many items: in this process, or in batches elsewhere; Ray's part is in `runtime`."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
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


class WorkerLost(Exception):
    """The process that worked on a batch died, or was stopped because it took too long; says which."""


MOST_DEATHS = 2  # an item that took so many workers with it is given up
RunBatch = Callable[[Sequence[Any]], Awaitable[list[Ran]]]


async def in_batches(
    run: RunBatch, items: Sequence[Any], lanes: int, batch_s: float = 1.0
) -> AsyncGenerator[list[tuple[int, Ran]], None]:
    """Run many items in batches of about `batch_s` seconds, `lanes` at a time; yields what ends, as it ends.

    The size of a batch follows what the last ones took. When a worker is lost its items are tried again one by one;
    one that loses `MOST_DEATHS` workers ends with an error, so nothing is tried for ever.

    Args:
        run: one batch somewhere, in order.
        items: what to run.
        lanes: batches under way at once.
        batch_s: seconds of work a batch should hold.

    Yields:
        (position, result) of the items of one batch.
    """
    waiting, alone = deque(range(len(items))), deque[int]()
    deaths: dict[int, int] = {}
    under_way: dict[asyncio.Future[list[Ran]], list[int]] = {}
    size = 1
    try:
        while waiting or alone or under_way:
            while (waiting or alone) and len(under_way) < lanes:
                if alone:
                    batch = [alone.popleft()]
                else:
                    fair = max(1, -(-len(waiting) // lanes))  # so that the last batches end together
                    batch = [waiting.popleft() for _ in range(min(size, fair))]
                under_way[asyncio.ensure_future(run([items[n] for n in batch]))] = batch
            done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                batch = under_way.pop(future)
                lost = future.exception()
                if lost is None:
                    ran = future.result()
                    seconds = max(sum(one.seconds for one in ran) / len(ran), 1e-6)
                    size = max(1, min(round(batch_s / seconds), 4 * max(size, len(batch))))
                    yield list(zip(batch, ran, strict=True))
                elif isinstance(lost, WorkerLost):
                    for n in batch:
                        deaths[n] = deaths.get(n, 0) + 1
                    given_up = [n for n in batch if deaths[n] >= MOST_DEATHS]
                    alone.extend(n for n in batch if deaths[n] < MOST_DEATHS)
                    if given_up:
                        error = f"given up after {MOST_DEATHS} lost workers: {lost}"
                        yield [(n, Ran(None, "", "", 0.0, error)) for n in given_up]
                else:
                    raise lost
    finally:
        for future in under_way:
            future.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
