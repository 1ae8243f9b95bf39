"""The record of what happened: where every instance was and when, which hosts worked, which migrations ran."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from trimtab.platform.model.compute import Bools, Floats, Ints

INSTANCE, HOST = 0, 1
DOWN, UP, BOOTING = 0, 1, 2
LIVE_LOSS = 0.1  # share of CPU work lost while a live migration runs: Beloglazov and Buyya 2012, section 4.2


class Change(NamedTuple):
    """One change of state. INSTANCE: `row` is now on host `to`, and `flag` says whether it burns CPU.

    `wanted`: whether it should run; one that was stopped on purpose should not.

    HOST: `to` says whether host `row` is down, up or booting, and `flag` whether it is enabled.
    """

    at: float
    kind: int
    row: int
    to: int
    flag: bool
    wanted: bool = True


class Move(NamedTuple):
    """One migration. The guest ran until `stop` and was down until `end`; both are inf while that has not come.

    Post-copy: the guest was down from `stop` until `resumed`, and ran at the destination from then on; None otherwise.
    `slowdown` is the share of CPU work that the guest loses while it runs and is copied.
    """

    instance: int
    source: int
    destination: int
    live: bool
    start: float
    stop: float
    end: float
    gib: float
    arrived: bool
    running: bool  # the instance burned CPU, so there was something to lose
    slowdown: float = LIVE_LOSS
    resumed: float | None = None

    def losses(self) -> tuple[tuple[float, float, float], ...]:
        """When the guest lost what share of its CPU work: (from, until, share)."""
        if self.resumed is not None:
            return ((self.stop, self.resumed, 1.0), (self.resumed, self.end, self.slowdown))
        return ((self.start, self.stop, self.slowdown if self.live else 0.0), (self.stop, self.end, 1.0))


class Moment(NamedTuple):
    """State at one time: `host_of` [V] (-1 nowhere), `running` [V], `up`, `enabled`, `booting` [H]; own copies."""

    host_of: Ints
    running: Bools
    up: Bools
    enabled: Bools
    booting: Bools


@dataclass(frozen=True, slots=True)
class Timeline:
    """State when it began (no host is booting then), and every change since, oldest first."""

    began: float
    host_of: Ints
    running: Bools
    up: Bools
    enabled: Bools
    changes: tuple[Change, ...] = ()
    moves: tuple[Move, ...] = ()

    def at(self, time: float) -> Moment:
        """State when everything up to and including `time` has happened."""
        return next(self.through([time]))

    def through(self, times: Iterable[float]) -> Iterator[Moment]:
        """State at each of some ascending times; always the same arrays, changed from one time to the next."""
        moment = Moment(
            self.host_of.copy(), self.running.copy(), self.up.copy(), self.enabled.copy(), np.zeros(len(self.up), bool)
        )
        position = 0
        for time in times:
            while position < len(self.changes) and self.changes[position].at <= time:
                change = self.changes[position]
                position += 1
                if change.kind == INSTANCE:
                    moment.host_of[change.row], moment.running[change.row] = change.to, change.flag
                else:
                    moment.up[change.row], moment.enabled[change.row] = change.to == UP, change.flag
                    moment.booting[change.row] = change.to == BOOTING
            yield moment

    def stretches(self, times: Floats) -> Iterator[tuple[slice, Moment]]:
        """State at each of some ascending times, [N]: runs of times with nothing between them, and what they share."""
        happened = np.searchsorted([change.at for change in self.changes], times, side="right")
        begins = np.flatnonzero(np.diff(happened, prepend=-1))
        ends = [*begins[1:].tolist(), len(times)]
        for begin, end, moment in zip(begins.tolist(), ends, self.through(times[begins].tolist()), strict=True):
            yield slice(begin, end), moment
