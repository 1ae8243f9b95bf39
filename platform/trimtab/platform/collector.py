"""The collector: reads the cloud in bulk, records its load, and freezes snapshots for audits."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trimtab.platform import scope as scopes
from trimtab.platform.contracts import Datasource, Driver, Inventory
from trimtab.platform.errors import CloudError, CloudUnavailable, DatasourceError, ModelError, TrimtabError
from trimtab.platform.model import BaremetalModel, ClusterModel, StorageModel
from trimtab.platform.rules import AnyRule, ruled
from trimtab.platform.snapshot import History, Need, Snapshot
from trimtab.platform.storage_scope import narrow_baremetal, narrow_storage

log = logging.getLogger(__name__)

# (metric, kind) recorded at every collection; instance_cpu_usage also feeds the forecasts of rehearsals.
RECORDED = (
    ("instance_cpu_usage", "instance"),
    ("instance_ram_usage", "instance"),
    ("host_cpu_usage", "host"),
    ("host_ram_usage", "host"),
)
STEP_S = 300.0
DAY_S = 86_400.0


class Recorder(Protocol):
    """Where samples are kept, so that rehearsals work on the cloud's past even when the backend forgets."""

    async def append(self, metric: str, kind: str, table: pa.Table) -> None:
        """Keep samples: columns resource, at, value."""
        ...

    async def samples(self, metric: str, kind: str, start_s: float, end_s: float) -> pa.Table:
        """Samples kept before, as `Datasource.samples` gives them."""
        ...

    async def tidy(self, now_s: float, keep_days: int) -> None:
        """Merge the small files of finished days, forget days older than so many."""
        ...


class Availability(NamedTuple):
    """What there is to work with: `fault` says why the datasource does not answer, "" when it does or was not asked.

    `measured`: for each need whether any resource was measured; `models`: by name, whether the model is there.
    """

    datasource: str
    fault: str
    measured: tuple[bool, ...]
    models: Mapping[str, bool]


class Collector:
    """Holds the newest model and the recorded load; the only mutable thing about a cloud in this process."""

    def __init__(
        self,
        driver: Driver,
        datasource: Datasource,
        recorder: Recorder,
        history_s: float,
        keep_days: int = 30,
        rules: Sequence[AnyRule] = (),
    ) -> None:
        """`rules` are the operator's; those in the instances' metadata are found in every inventory."""
        self.driver, self.datasource, self.recorder, self.history_s = driver, datasource, recorder, history_s
        self.keep_days = max(keep_days, math.ceil(history_s / DAY_S) + 1)  # what forecasts look back on stays
        self.rules = rules
        self.doubts: list[str] = []  # rules that bind nobody or cannot be understood
        self.model: ClusterModel | None = None
        self.storage: StorageModel | None = None
        self.baremetal: BaremetalModel | None = None
        self.missing: dict[str, str] = {}  # "storage" or "baremetal": why its model is not of the last collection
        self.version = 0
        self.collected_at = 0.0
        self.fault: str | None = None
        self.gaps: dict[str, str] = {}  # by metric: why nothing new of it could be recorded
        self.history: History | None = None
        self._recorded_until: dict[str, float] = {}
        self._tidied: float | None = None
        self._turn = asyncio.Lock()

    async def collect(self) -> int:
        """Read inventory and new samples; returns the new version. A failure keeps the last good model.

        Measurements that cannot be read are no failure: they are noted in `gaps` and asked for again next time. Nor is
        a storage or metal service that cannot be read or understood: noted in `missing`, the last good model is kept.

        Raises:
            CloudError, ModelError, TrimtabError (of the recorder): also noted in `fault`, which snapshots then carry.
        """
        async with self._turn:
            try:
                inventory = await self.driver.inventory()
                doubts: list[str] = []
                bare = ClusterModel.from_arrow(inventory.hosts, inventory.instances, inventory.groups)
                model = ruled(bare, self.rules, doubts)
                asked = {metric: await self._record(metric, kind, inventory.at) for metric, kind in RECORDED}
                history = await self._history(model, inventory.at, asked["instance_cpu_usage"])
            except Exception as error:
                self.fault = f"{type(error).__name__}: {error}"
                raise
            self._take_others(inventory)
            self.model, self.history, self.collected_at, self.fault = model, history, inventory.at, None
            self.doubts = [*inventory.notes, *doubts]
            self.version += 1
            version = self.version
        await self._tidy(inventory.at)
        return version

    async def take(self, news: Callable[[], Inventory]) -> int:
        """Take over what the cloud told between two collections, without new measurements; returns the new version.

        Nothing happens before the first collection, or when the last one failed: there is no whole to change a part of.
        `news` is asked when no collection is under way, else what was true before one would replace what it found.

        Raises:
            ModelError: the last good model stays, and the next collection repairs.
        """
        async with self._turn:
            if self.model is None or self.history is None or self.fault is not None:
                return self.version
            doubts: list[str] = []
            inventory = news()
            bare = ClusterModel.from_arrow(inventory.hosts, inventory.instances, inventory.groups)
            model = ruled(bare, self.rules, doubts)
            old = self.history
            cpu_pct = np.full((len(old.cpu_pct), model.instances), np.nan, np.float32)
            _take(old.cpu_pct, self.model.instance_rows(model.instance_ids), cpu_pct)
            cpu_pct.flags.writeable = False
            self.model, self.history = model, History(old.start_s, old.step_s, cpu_pct)
            self.doubts = [*inventory.notes, *doubts]
            self.version += 1
            return self.version

    async def newest(self) -> ClusterModel:
        """The newest model.

        Raises:
            CloudUnavailable: there is none yet and the cloud cannot be read.
        """
        if self.model is None:
            try:
                await self.collect()
            except (CloudError, DatasourceError) as error:
                raise CloudUnavailable(f"there is no model of the cloud yet: {error}") from error
        assert self.model is not None  # noqa: S101 (collect sets it or raises)
        return self.model

    async def availability(self, needs: Sequence[Need]) -> Availability:
        """Which of these things can be measured at the moment, and which models there are."""
        models = {
            "compute": self.model is not None,
            "storage": self.storage is not None,
            "baremetal": self.baremetal is not None,
        }
        measured, fault = np.zeros(len(needs), bool), ""
        if needs:
            try:
                table = await self.datasource.aggregate(needs, self.collected_at)
            except (DatasourceError, CloudError) as error:
                fault = str(error)
            else:
                known = np.isfinite(table.column("value").to_numpy())
                measured[np.unique(table.column("need").to_numpy()[known])] = True
        return Availability(self.datasource.name, fault, tuple(measured.tolist()), models)

    async def freeze(
        self,
        scope: Sequence[Mapping[str, Any]],
        needs: Sequence[Need],
        failed_before: Sequence[str] = (),
        models: Sequence[str] = ("compute",),
    ) -> Snapshot:
        """One frozen snapshot: the newest model narrowed to a scope, what was asked to be measured, the recorded load.

        `models` names what the strategies work on: "storage" and "baremetal" beside "compute", which is always there.

        Raises:
            CloudUnavailable: there is no model yet and the cloud cannot be read.
        """
        whole = await self.newest()
        # All of one collection: another one may end while the datasource answers.
        history, at, version = self.history, self.collected_at, self.version
        storage, baremetal, missing = self.storage, self.baremetal, dict(self.missing)
        model, notes = scopes.narrow(whole, scope)
        notes += self.doubts
        if self.fault:
            notes.append(f"the model is stale, the last collection failed: {self.fault}")
        if self.gaps:
            notes.append(f"the load is not recorded at the moment: {'; '.join(dict.fromkeys(self.gaps.values()))}")
        if history is not None and model is not whole and model.instances != whole.instances:
            columns = whole.instance_rows(model.instance_ids)
            history = History(history.start_s, history.step_s, history.cpu_pct[:, columns])
        storage, baremetal = storage if "storage" in models else None, baremetal if "baremetal" in models else None
        if storage is not None:
            storage, found = narrow_storage(storage, scope)
            notes += found
        if baremetal is not None:
            baremetal, found = narrow_baremetal(baremetal, scope)
            notes += found
        notes += [
            f"the {name} model is {_staleness(one)}: {missing[name]}"
            for name, one in (("storage", storage), ("baremetal", baremetal))
            if name in models and name in missing
        ]
        unique = list(dict.fromkeys(needs))
        measured: dict[Need, npt.NDArray[np.float64]] = {}
        if unique:
            try:
                measured = by_row(model, unique, await self.datasource.aggregate(unique, at))
            except (DatasourceError, CloudError) as error:  # strategies treat what is missing as missing
                notes.append(f"measurements are missing: {error}")
        failed = model.instance_rows(list(failed_before))
        return Snapshot(
            model=model,
            taken_at=at,
            version=version,
            measured=measured,
            history=history,
            storage=storage,
            baremetal=baremetal,
            failed_before=tuple(int(row) for row in failed[failed >= 0]),
            notes=tuple(notes),
        )

    def _take_others(self, inventory: Inventory) -> None:
        """The storage and the baremetal model of an inventory; what is not in it, or wrong, leaves the last good one.

        A cloud that has no such service, and says nothing of a fault, has no such model.
        """
        faults = dict(inventory.faults)
        try:
            if "storage" not in faults:
                self.storage = None if inventory.storage is None else StorageModel.from_arrow(*inventory.storage)
        except ModelError as error:
            faults["storage"] = str(error)
        try:
            if "baremetal" not in faults:
                self.baremetal = None if inventory.metal is None else BaremetalModel.from_arrow(inventory.metal)
        except ModelError as error:
            faults["baremetal"] = str(error)
        if self.storage is None and inventory.storage is None:
            faults.setdefault("storage", "the cloud has no block storage service")
        if self.baremetal is None and inventory.metal is None:
            faults.setdefault("baremetal", "the cloud has no metal service")
        for name in faults.keys() - self.missing.keys():
            log.warning("there is no new %s model: %s", name, faults[name])
        self.missing = faults

    async def _record(self, metric: str, kind: str, now: float) -> float:
        """Fetch what is new of one metric and keep it; returns the time from which on it was asked for."""
        since = self._recorded_until.get(metric)
        if since is None:
            kept = await self.recorder.samples(metric, kind, now - self.history_s, now + STEP_S)
            since = np.floor((now - self.history_s) / STEP_S) * STEP_S  # whole samples
            if kept.num_rows:
                since = _behind(kept)
        try:
            fresh = await self.datasource.samples(metric, kind, since, now)
        except (DatasourceError, CloudError) as error:
            self.gaps[metric] = str(error)
            log.warning("%s was not recorded: %s", metric, error)
            return since
        self.gaps.pop(metric, None)
        if fresh.num_rows:
            # When keeping them fails nobody knows whether they were kept: the next time asks the recorder.
            self._recorded_until.pop(metric, None)
            await self.recorder.append(metric, kind, fresh)
            self._recorded_until[metric] = _behind(fresh)
        return since

    async def _history(self, model: ClusterModel, now: float, asked_since: float) -> History:
        """The recorded CPU of the model's instances over the last `history_s` seconds."""
        end = math.floor(now / STEP_S) * STEP_S
        start = end - self.history_s
        cpu_pct = np.full((round(self.history_s / STEP_S), model.instances), np.nan, np.float32)
        since, old = start, self.history
        if old is not None and self.model is not None and start >= old.start_s:
            shift = round((start - old.start_s) / STEP_S)
            _take(old.cpu_pct[shift:], self.model.instance_rows(model.instance_ids), cpu_pct)
            since = min(old.end_s, asked_since)  # earlier than its end where a gap was closed
        fresh = await self.recorder.samples("instance_cpu_usage", "instance", since, end)
        fill(cpu_pct, fresh, model, start)
        cpu_pct.flags.writeable = False
        return History(start, STEP_S, cpu_pct)

    async def _tidy(self, now: float) -> None:
        """Once a day of the cloud's time let the recorder put its files in order."""
        today = now // DAY_S
        if today == self._tidied:
            return
        try:
            await self.recorder.tidy(now, self.keep_days)
        except (TrimtabError, OSError) as error:  # disorder is no reason to have no model; tried again next time
            log.warning("the measurements could not be tidied: %s", error)
        else:
            self._tidied = today


def _staleness(model: object | None) -> str:
    return "not to be had" if model is None else "stale"


def _behind(samples: pa.Table) -> float:
    """A time just after the last sample."""
    return float(np.max(samples.column("at").to_numpy())) + 1e-3


def _take(old: npt.NDArray[np.float32], columns: npt.NDArray[np.int32], into: npt.NDArray[np.float32]) -> None:
    """Copy some columns of old rows to the first rows of a matrix of NaN, without a third matrix; -1 stays NaN."""
    if not len(old) or not old.shape[1]:
        return
    rows = into[: len(old)]
    np.take(old, columns, axis=1, out=rows, mode="clip")
    rows[:, columns < 0] = np.nan


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
    found: list[tuple[bool, pa.Array, npt.NDArray[np.int32]]] = []
    for position, need in enumerate(needs):
        of_host = need.kind == "host"
        mine = np.flatnonzero(which == position)
        ids = resources.take(pa.array(mine))
        # Metrics are mostly reported by the same resources in the same order; comparing is far cheaper than looking up.
        rows = next((known for kind, asked, known in found if kind == of_host and asked.equals(ids)), None)
        if rows is None:
            rows = (model.host_rows if of_host else model.instance_rows)(ids)
            found.append((of_host, ids, rows))
        column = np.full(model.hosts if of_host else model.instances, np.nan)
        column[rows[rows >= 0]] = values[mine][rows >= 0]
        result[need] = column
    return result


def _text(column: pa.ChunkedArray) -> pa.Array:
    flat = column.combine_chunks()
    if isinstance(flat, pa.ChunkedArray):
        flat = pa.array([], pa.string())
    return flat.dictionary_decode() if pa.types.is_dictionary(flat.type) else flat
