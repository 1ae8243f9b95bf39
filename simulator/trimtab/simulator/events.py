"""The event kernel: a heap of (time, counter, action) and one short loop.

Ties run in the order in which they were asked for, so the same requests give the same history, however the caller
slices `run_until`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

Action = Callable[[], None]


class Event:
    """One action that waits for its time; `cancel` it through `Events`."""

    __slots__ = ("action", "order", "time")

    def __init__(self, time: float, order: int, action: Action) -> None:
        self.time, self.order = time, order
        self.action: Action | None = action

    def __lt__(self, other: Event) -> bool:
        return (self.time, self.order) < (other.time, other.order)


class Events:
    """Simulated time, seconds. `now` never runs backward."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._heap: list[Event] = []
        self._orders = count()

    def at(self, time: float, action: Action) -> Event:
        """Run an action when that time has come.

        Raises:
            ValueError: the time has passed already, or is not a number.
        """
        if not time >= self.now:
            raise ValueError(f"an event at {time} is before now ({self.now}): time does not run backward")
        event = Event(time, next(self._orders), action)
        heapq.heappush(self._heap, event)
        return event

    def cancel(self, event: Event | None) -> None:
        """Make sure that an event does not happen any more; None and past events are fine."""
        if event is not None:
            event.action = None

    def run_until(self, time: float) -> None:
        """Run everything due up to and including that time, then stand there; a time in the past changes nothing."""
        while self._heap and self._heap[0].time <= time:
            event = heapq.heappop(self._heap)
            if event.action is not None:
                self.now = event.time
                action, event.action = event.action, None
                action()
        self.now = max(self.now, time)
