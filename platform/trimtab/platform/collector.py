"""The collector: reads the cloud in bulk, records its load, and freezes snapshots for audits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trimtab.platform import scope as scopes
from trimtab.platform.contracts import Datasource, Driver
from trimtab.platform.errors import CloudError, CloudUnavailable, DatasourceError
from trimtab.platform.model import ClusterModel
from trimtab.platform.snapshot import History, Need, Snapshot

log = logging.getLogger(__name__)

# (metric, kind) recorded at every collection; instance_cpu_usage also feeds the forecasts of rehearsals.
RECORDED = (
    ("instance_cpu_usage", "instance"),
    ("instance_ram_usage", "instance"),
    ("host_cpu_usage", "host"),
    ("host_ram_usage", "host"),
)
STEP_S = 300.0


class Recorder(Protocol):
    """Where samples are kept, so that rehearsals work on the cloud's past even when the backend forgets."""

    async def append(self, metric: str, kind: str, table: pa.Table) -> None:
        """Keep samples: columns resource, at, value."""
        ...

    async def samples(self, metric: str, kind: str, start_s: float, end_s: float) -> pa.Table:
        """Samples kept before, as `Datasource.samples` gives them."""
        ...


class Collector:
    """Holds the newest model and the recorded load; the only mutable thing about a cloud in this process."""

    def __init__(self, driver: Driver, datasource: Datasource, recorder: Recorder, history_s: float) -> None:
        self.driver, self.datasource, self.recorder, self.history_s = driver, datasource, recorder, history_s
        self.model: ClusterModel | None = None
        self.version = 0
        self.collected_at = 0.0
        self.fault: str | None = None
        self.history: History | None = None
        self._recorded_until: dict[str, float] = {}
        self._turn = asyncio.Lock()

    async def collect(self) -> int:
        """Read inventory and new samples; returns the new version. A failure keeps the last good model.

        Raises:
            CloudError, DatasourceError, ModelError: also noted in `fault`, which snapshots then carry.
        """
        async with self._turn:
            try:
                inventory = await self.driver.inventory()
                model = ClusterModel.from_arrow(inventory.hosts, inventory.instances, inventory.groups)
                for metric, kind in RECORDED:
                    await self._record(metric, kind, inventory.at)
                self.history = await self._history(model, inventory.at)
            except Exception as error:
                self.fault = f"{type(error).__name__}: {error}"
                raise
            self.model, self.collected_at, self.fault = model, inventory.at, None
            self.version += 1
            return self.version

    async def freeze(
        self, scope: Sequence[Mapping[str, Any]], needs: Sequence[Need], failed_before: Sequence[str] = ()
    ) -> Snapshot:
        """One frozen snapshot: the newest model narrowed to a scope, what was asked to be measured, the recorded load.

        Raises:
            CloudUnavailable: there is no model yet and the cloud cannot be read.
        """
        if self.model is None:
            try:
                await self.collect()
            except (CloudError, DatasourceError) as error:
                raise CloudUnavailable(f"there is no model of the cloud yet: {error}") from error
        whole, history = self.model, self.history
        assert whole is not None  # noqa: S101 (collect sets it or raises)
        model, notes = scopes.narrow(whole, scope)
        if self.fault:
            notes.append(f"the model is stale, the last collection failed: {self.fault}")
        if history is not None and model is not whole and model.instances != whole.instances:
            columns = whole.instance_rows(model.instance_ids)
            history = History(history.start_s, history.step_s, history.cpu_pct[:, columns])
        unique = list(dict.fromkeys(needs))
        measured: dict[Need, npt.NDArray[np.float64]] = {}
        if unique:
            try:
                measured = by_row(model, unique, await self.datasource.aggregate(unique, self.collected_at))
            except DatasourceError as error:  # strategies treat what is missing as missing
                notes.append(f"measurements are missing: {error}")
        failed = model.instance_rows(list(failed_before))
        return Snapshot(
            model=model,
            taken_at=self.collected_at,
            version=self.version,
            measured=measured,
            history=history,
            failed_before=tuple(int(row) for row in failed[failed >= 0]),
            notes=tuple(notes),
        )

    async def _record(self, metric: str, kind: str, now: float) -> None:
        """Fetch what is new of one metric and keep it."""
        since = self._recorded_until.get(metric)
        if since is None:
            kept = await self.recorder.samples(metric, kind, now - self.history_s, now + STEP_S)
            since = now - self.history_s
            if kept.num_rows:
                since = float(np.max(kept.column("at").to_numpy())) + 1e-3
        fresh = await self.datasource.samples(metric, kind, since, now)
        if fresh.num_rows:
            await self.recorder.append(metric, kind, fresh)
            self._recorded_until[metric] = float(np.max(fresh.column("at").to_numpy())) + 1e-3

    async def _history(self, model: ClusterModel, now: float) -> History:
        """The recorded CPU of the model's instances over the last `history_s` seconds."""
        end = np.floor(now / STEP_S) * STEP_S
        start = end - self.history_s
        old = self.history
        if old is not None and self.model is not None and start >= old.start_s:
            shift = round((start - old.start_s) / STEP_S)
            columns = self.model.instance_rows(model.instance_ids)
            kept = np.full((round(self.history_s / STEP_S), model.instances), np.nan, np.float32)
            rows = max(0, len(old.cpu_pct) - shift)
            if rows:
                kept[:rows] = np.where(columns >= 0, old.cpu_pct[shift:, columns], np.nan)
            since = old.end_s
        else:
            kept = np.full((round(self.history_s / STEP_S), model.instances), np.nan, np.float32)
            since = start
        fresh = await self.recorder.samples("instance_cpu_usage", "instance", since, end)
        fill(kept, fresh, model, start)
        return History(float(start), STEP_S, kept)


def fill(cpu_pct: npt.NDArray[np.float32], samples: pa.Table, model: ClusterModel, start_s: float) -> None:
    """Write samples (resource, at, value) into a [T, V] matrix; unknown resources and times are left out."""
    if not samples.num_rows:
        return
    columns = model.instance_rows(_text(samples.column("resource")))
    rows = np.floor((samples.column("at").to_numpy() - start_s) / STEP_S).astype(np.int64)
    ok = (columns >= 0) & (rows >= 0) & (rows < len(cpu_pct))
    cpu_pct[rows[ok], columns[ok]] = samples.column("value").to_numpy()[ok]


def by_row(model: ClusterModel, needs: Sequence[Need], table: pa.Table) -> dict[Need, npt.NDArray[np.float64]]:
    """A datasource's answer as one array by row of the model for each need, NaN where nothing was measured."""
    which = table.column("need").to_numpy()
    resources = _text(table.column("resource"))
    values = table.column("value").to_numpy()
    result = {}
    for position, need in enumerate(needs):
        of_host = need.kind == "host"
        mine = np.flatnonzero(which == position)
        rows = (model.host_rows if of_host else model.instance_rows)(resources.take(pa.array(mine)))
        column = np.full(model.hosts if of_host else model.instances, np.nan)
        column[rows[rows >= 0]] = values[mine][rows >= 0]
        result[need] = column
    return result


def _text(column: pa.ChunkedArray) -> pa.Array:
    flat = column.combine_chunks()
    if isinstance(flat, pa.ChunkedArray):
        flat = pa.array([], pa.string())
    return flat.dictionary_decode() if pa.types.is_dictionary(flat.type) else flat
