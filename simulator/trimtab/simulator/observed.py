"""What monitoring knows at a moment of a closed loop: measurements and recorded load up to now, nothing later."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.platform.model import ClusterModel
from trimtab.platform.model.compute import Bools, Floats
from trimtab.platform.snapshot import History, Need, Snapshot
from trimtab.simulator.load import SAMPLE_S, Load
from trimtab.simulator.measurements import METRICS, Measurements, aggregated, window_of
from trimtab.simulator.score import LoadBlock, as_shared
from trimtab.simulator.world import World

RECORDED = "instance_cpu_usage"


class Truth:
    """The true load of samples first .. first + count - 1, read once.

    Where it has a hole (NaN) nothing was recorded, and `typical` [V] is what was used all the same (per cent).
    """

    def __init__(self, load: Load, first: int, count: int, typical: npt.NDArray[np.float32] | None = None) -> None:
        self.load, self.first = load, first
        self.cpu_pct = as_shared(load.cpu_pct(first, count))
        silent = np.isnan(self.cpu_pct).all(axis=1) & (load.instances > 0)
        self.dark: Bools = np.asarray(silent)  # [T]: monitoring itself was down
        self.typical = as_shared(np.zeros(load.instances, np.float32) if typical is None else typical)

    def blocks(self, start_s: float, end_s: float) -> Iterator[LoadBlock]:
        """The load between two times; nothing is copied."""
        begin = max(int(start_s // SAMPLE_S), self.first)
        end = min(int(-(-end_s // SAMPLE_S)), self.first + len(self.cpu_pct))
        rows = np.arange(begin, end) - self.first
        yield LoadBlock(begin * SAMPLE_S, SAMPLE_S, self.cpu_pct, rows, self.typical)


def bytes_of(samples: int, hosts: int, instances: int, needs: Sequence[Need] = ()) -> int:
    """Memory of `Truth` and `Observed` for so many samples, bytes; needs that differ in their window share a record."""
    asked = {need.metric: need.kind for need in needs if METRICS.get(need.metric) == need.kind}
    asked.pop(RECORDED, None)
    records = sum(hosts if kind == "host" else instances for kind in asked.values())
    return samples * (2 * 4 * instances + 8 * records)


class Observed:
    """The record of one world; every sample is written once, when it is over.

    Before the world began everything was where it was then.

    Args:
        world: what is watched.
        truth: its load, from the first recorded sample on.
        needs: what will be asked for.
        past_s: how long a history strategies get.
        used_memory_mb: memory that running instances use, [V].
    """

    def __init__(
        self, world: World, truth: Truth, needs: Sequence[Need], past_s: float, used_memory_mb: Floats
    ) -> None:
        self.world, self.truth, self.used_memory_mb = world, truth, used_memory_mb
        self.needs = [need for need in dict.fromkeys(needs) if METRICS.get(need.metric) == need.kind]
        self.kept = int(past_s // SAMPLE_S)
        samples, model = len(truth.cpu_pct), world.model
        self._cpu_pct = np.empty((samples, model.instances), np.float32)
        self._record: dict[str, npt.NDArray[Any]] = {RECORDED: self._cpu_pct}
        for need in self.needs:
            rows = model.hosts if need.kind == "host" else model.instances
            self._record.setdefault(need.metric, np.empty((samples, rows)))
        self._until = 0  # samples recorded
        self._then = world.timeline()  # the state when the last of them ended, and what has happened since
        self._seen = 0  # changes before that

    def snapshot(self, model: ClusterModel, failed_before: tuple[int, ...] = ()) -> Snapshot:
        """Everything a strategy may know now; `model` is the world's as it is now.

        Raises:
            InvalidInput: an aggregate that does not exist.
        """
        now = self.world.events.now
        self._catch_up(now)
        measured: dict[Need, Floats] = {}
        for need in self.needs:
            first, last = window_of(need, now)
            rows = self._record[need.metric][max(first - self.truth.first, 0) : last - self.truth.first]
            if len(rows):
                measured[need] = aggregated(need.aggregate, rows)
        begin = max(self._until - self.kept, 0)
        recorded = self._cpu_pct[begin : self._until].view()
        recorded.flags.writeable = False
        history = History((self.truth.first + begin) * SAMPLE_S, SAMPLE_S, recorded)
        return Snapshot(model, now, measured=measured, history=history, failed_before=failed_before)

    def _catch_up(self, now: float) -> None:
        """Write the samples that have ended since the last time."""
        until = min(int(now // SAMPLE_S) - self.truth.first, len(self.truth.cpu_pct))
        if until <= self._until:
            return
        timeline = self.world.timeline()
        tail = replace(self._then, changes=timeline.changes[self._seen :], moves=())
        measurements = Measurements(
            self.world.model, tail, self.truth.load, self.used_memory_mb, now, self.truth.blocks
        )
        first = self.truth.first
        for metric, record in self._record.items():
            record[self._until : until] = measurements.values(metric, first + self._until, first + until)
            record[self._until : until][self.truth.dark[self._until : until]] = np.nan
        ended = (first + until) * SAMPLE_S
        then = tail.at(ended)
        self._then = replace(self._then, host_of=then.host_of, running=then.running, up=then.up, enabled=then.enabled)
        self._seen += bisect_right(tail.changes, ended, key=lambda change: change.at)
        self._until = until
