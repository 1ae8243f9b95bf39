"""Clocks: wall time, cloud time at another pace, and virtual time that jumps as soon as everybody waits."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import AsyncIterator

from trimtab.platform.contracts import Clock, Tools

LEAST_WAIT_S = 0.001  # a rest shorter than this is over: floats near 1e9 s cannot tell the difference


async def ticks(clock: Clock, seconds: float, at_most: float) -> AsyncIterator[float]:
    """Tick at once, every so many seconds of a clock, and a last time when `at_most` seconds are over.

    A consumer that takes longer than one period gets its next tick at once; missed ticks are not made up for.

    Yields:
        The time passed since the first tick, in seconds of this clock.
    """
    start = clock.now()
    due = 0.0
    while True:
        passed = clock.now() - start
        yield passed
        passed = clock.now() - start
        if at_most - passed < LEAST_WAIT_S:
            return
        due = max(due + seconds, passed)
        await clock.sleep(min(due, at_most) - passed)


class WallClock:
    """The machine's own time."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(max(seconds, 0.0))

    def every(self, seconds: float, at_most: float) -> AsyncIterator[float]:
        """See `ticks`."""
        return ticks(self, seconds, at_most)

    def of_wall(self, wall_s: float) -> float:
        """This clock's time at a moment of wall time: the same."""
        return wall_s


class PacedClock:
    """The cloud's time, which runs at another pace than the wall's: `speed` seconds for each of ours.

    Two processes given the same three numbers agree on the cloud's time.

    Args:
        cloud_origin_s: cloud time at the origin, seconds since the epoch.
        wall_origin_s: wall time at the origin.
        speed: cloud seconds per wall second, > 0.
        least_wall_s: the shortest sleep in wall time, so that a fast clock does not turn waiting into spinning.
    """

    def __init__(self, cloud_origin_s: float, wall_origin_s: float, speed: float, least_wall_s: float = 0.003) -> None:
        if not (speed > 0 and math.isfinite(speed)):
            raise ValueError(f"speed is {speed}; give a finite number above 0")
        self.cloud_origin_s = cloud_origin_s
        self.wall_origin_s = wall_origin_s
        self.speed = speed
        self.least_wall_s = least_wall_s

    def of_wall(self, wall_s: float) -> float:
        """The cloud's time at a moment of wall time."""
        return self.cloud_origin_s + (wall_s - self.wall_origin_s) * self.speed

    def now(self) -> float:
        """Cloud time, seconds since the epoch."""
        return self.of_wall(time.time())

    async def sleep(self, seconds: float) -> None:
        """Wait so many seconds of cloud time, but at least `least_wall_s` of wall time."""
        await asyncio.sleep(max(seconds / self.speed, self.least_wall_s))

    def every(self, seconds: float, at_most: float) -> AsyncIterator[float]:
        """See `ticks`."""
        return ticks(self, seconds, at_most)


class VirtualClock:
    """Time that stands still while anybody works and jumps to the next sleeper when everybody waits.

    Deterministic: sleepers wake in the order of their time, those of the same moment together and in the order in which
    they fell asleep. "Waits" means that `settle_turns` turns of the event loop passed in which nobody fell asleep; work
    in threads is not seen, so wrap it in `working()`.

    Args:
        start_s: the first moment.
        settle_turns: how many turns of the event loop a woken task may use before time goes on.
    """

    def __init__(self, start_s: float = 0.0, settle_turns: int = 50) -> None:
        self._now = start_s
        self._settle_turns = settle_turns
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._quiet = 0
        self._pumping = False
        self._working = 0

    def now(self) -> float:
        """Virtual seconds."""
        return self._now

    def of_wall(self, wall_s: float) -> float:
        """In virtual time there is one time for all."""
        return wall_s

    async def sleep(self, seconds: float) -> None:
        """Wait until everybody waits and no other sleeper is due earlier."""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        heapq.heappush(self._sleepers, (self._now + max(seconds, 0.0), next(self._order), woken))
        self._quiet = 0
        if not self._pumping:
            self._pumping = True
            loop.call_soon(self._pump, loop)
        await woken

    def every(self, seconds: float, at_most: float) -> AsyncIterator[float]:
        """See `ticks`."""
        return ticks(self, seconds, at_most)

    def working(self) -> _Working:
        """A context in which time stands still: for work the event loop does not see, such as a thread's."""
        return _Working(self)

    def _pump(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._sleepers and self._sleepers[0][2].done():  # cancelled meanwhile
            heapq.heappop(self._sleepers)
        if not self._sleepers:
            self._pumping = False
            return
        self._quiet = 0 if self._working else self._quiet + 1
        if self._quiet > self._settle_turns:
            self._now = max(self._now, self._sleepers[0][0])
            self._quiet = 0
            while self._sleepers and self._sleepers[0][0] <= self._now:
                woken = heapq.heappop(self._sleepers)[2]
                if not woken.done():
                    woken.set_result(None)
        loop.call_soon(self._pump, loop)


class _Working:
    """Holds a virtual clock."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock

    def __enter__(self) -> None:
        self.clock._working += 1  # noqa: SLF001 - one thing in two classes

    def __exit__(self, *_: object) -> None:
        self.clock._working -= 1  # noqa: SLF001


def cloud_time(tools: Tools, wall_s: float) -> float:
    """The cloud's time at a past moment of wall time; exact for our clocks, the same pace assumed for others."""
    convert = getattr(tools.clock, "of_wall", None)
    if convert is not None:
        return float(convert(wall_s))
    return tools.clock.now() - (tools.wall.now() - wall_s)
