"""Gnocchi as a datasource: one question a metric for some hundred resources, by its dynamic aggregates.

Metrics and units are those of Watcher's Gnocchi datasource. A value is the aggregate over all granules that the window
touches; Watcher took the last of them.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
import pyarrow as pa

from trimtab.platform.datasources.answers import ODD, SAMPLES, STEP_S, aggregated
from trimtab.platform.datasources.asking import Asking, Refused
from trimtab.platform.datasources.known import Known
from trimtab.platform.datasources.policies import keeps
from trimtab.platform.errors import DatasourceError
from trimtab.platform.snapshot import Need

log = logging.getLogger(__name__)

AT_ONCE: Final = 400  # resources in one question
PAGE: Final = 1000  # metrics in one list
UNFIT_S: Final = 3600.0  # for so long a resource that cannot be asked for a metric is not asked for it
GNOCCHIS: Final = {
    "host_cpu_usage": ("host", "compute.node.cpu.percent"),
    "host_ram_usage": ("host", "hardware.memory.used"),
    "host_outlet_temp": ("host", "hardware.ipmi.node.outlet_temperature"),
    "host_inlet_temp": ("host", "hardware.ipmi.node.temperature"),
    "host_airflow": ("host", "hardware.ipmi.node.airflow"),
    "host_power": ("host", "hardware.ipmi.node.power"),
    "instance_cpu_usage": ("instance", "cpu"),
    "instance_ram_usage": ("instance", "memory.resident"),
    "instance_ram_allocated": ("instance", "memory"),
    "instance_l3_cache_usage": ("instance", "cpu_l3_cache"),
    "instance_root_disk_size": ("instance", "disk.root.size"),
}
OVER_WINDOW: Final[Mapping[str, Callable[[np.ndarray], np.floating[Any]]]] = {
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "count": np.mean,  # Watcher takes count as mean, too
}


class _Question(NamedTuple):
    """What is asked of Gnocchi in its own words, but for the resources and the time."""

    metric: str
    method: str
    granularity: int

    @classmethod
    def of(cls, need: Need) -> _Question:
        metric = GNOCCHIS[need.metric][1]
        method = "mean" if need.aggregate == "count" else need.aggregate
        return cls(metric, f"rate:{method}" if metric == "cpu" else method, need.granularity_s)


class Gnocchi:
    """`contracts.Datasource` over Gnocchi's HTTP API, version 1."""

    name: ClassVar[str] = "gnocchi"

    def __init__(self, asking: Asking, known: Callable[[], Known]) -> None:
        """`known` tells who is who at the moment."""
        self.asking, self.known = asking, known
        self._unfit: dict[_Question, tuple[float, frozenset[str]]] = {}  # until when; ids of Gnocchi's resources
        self._listing = asyncio.Lock()

    def offers(self, metric: str) -> bool:
        """Whether this metric can be asked for at all."""
        return metric in GNOCCHIS

    async def aggregate(self, needs: Sequence[Need], at: float) -> pa.Table:
        """One value a need and resource, over the window that ends at a moment."""
        answers = await asyncio.gather(*(self._one(need, at) for need in needs))
        return aggregated(answers)

    async def samples(self, metric: str, kind: str, start_s: float, end_s: float) -> pa.Table:
        """Means over granules of five minutes that begin at `start_s` or later.

        Left for the next time: those that are not over by `end_s`, and the one before, whose measures still come in.
        """
        columns: dict[str, list[Any]] = {"resource": [], "at": [], "value": []}
        last = math.floor(end_s / STEP_S) * STEP_S - 2 * STEP_S
        if last >= start_s and metric in GNOCCHIS and GNOCCHIS[metric][0] == kind:
            found = await self._series(Need(metric, kind, "mean", STEP_S, STEP_S), start_s, last + STEP_S)
            for resource, points in found.items():
                fine = [(at, value) for at, value in points if start_s <= at <= last]
                columns["resource"] += [resource] * len(fine)
                columns["at"] += [at for at, _ in fine]
                columns["value"] += [value for _, value in fine]
        return pa.table(columns, schema=SAMPLES)

    # -- inside --------------------------------------------------------------------------------------------

    async def _one(self, need: Need, at: float) -> dict[str, float]:
        if GNOCCHIS.get(need.metric, ("", ""))[0] != need.kind:
            return {}
        series = await self._series(need, at - need.window_s, at)
        over = OVER_WINDOW[need.aggregate]
        return {
            resource: float(over(np.array([value for _, value in points])))
            for resource, points in series.items()
            if points
        }

    async def _series(self, need: Need, start_s: float, end_s: float) -> dict[str, list[tuple[float, float]]]:
        """By resource: begins of granules, and values as the port promises them."""
        known, question = self.known(), _Question.of(need)
        field = "original_resource_id" if need.kind == "host" else "id"
        names = _hosts(known) if need.kind == "host" else {uuid: (uuid,) for uuid in known.instances}
        resources = list(names)
        parts = await asyncio.gather(
            *(
                self._ask(question, field, [name for uuid in some for name in names[uuid]], start_s, end_s)
                for some in (resources[first : first + AT_ONCE] for first in range(0, len(resources), AT_ONCE))
            )
        )
        uuid_of = {name: uuid for uuid, mine in names.items() for name in mine}
        found: dict[str, list[tuple[float, float]]] = {}
        for answer in parts:
            try:
                of = {str(one["id"]): str(one.get(field) or one["id"]) for one in answer.get("references") or ()}
                measures = dict(answer.get("measures") or {})
            except ODD as error:
                raise DatasourceError(
                    f"gnocchi answered with something that cannot be understood: {error!r}"
                ) from error
            for resource, measured in measures.items():
                uuid = uuid_of.get(of.get(str(resource), str(resource)))
                if uuid is None or found.get(uuid):  # a stranger, or a host's second resource
                    continue
                try:
                    points = _points(measured.get(question.metric, {}).get(question.method, ()), question.granularity)
                except ODD as error:
                    log.warning("gnocchi's %s of %s cannot be understood: %r", question.metric, resource, error)
                    continue
                found[uuid] = [(at, _as_asked(value, need, uuid, known)) for at, value in points]
        return found

    async def _ask(
        self, question: _Question, field: str, names: Sequence[str], start_s: float, end_s: float
    ) -> dict[str, Any]:
        """The answer for those resources that can be asked.

        Gnocchi refuses a question as a whole where one of many resources keeps the metric in other steps, or has not
        the aggregate. Then it is asked once which they are, and again without them.
        """
        unfit = self._known_unfit(question)
        for again in (False, True):
            search: dict[str, Any] = {"in": {field: [name for name in names if name not in unfit]}}
            if not search["in"][field]:
                return {}
            if unfit and field != "id":
                search = {"and": [search, {"not": {"in": {"id": sorted(unfit)}}}]}
            body = {
                "resource_type": "generic",
                "search": search,
                "operations": ["metric", question.metric, question.method],
            }
            params = {
                "details": "true",
                "granularity": question.granularity,
                "start": datetime.fromtimestamp(start_s, UTC).isoformat(),
                "stop": datetime.fromtimestamp(end_s, UTC).isoformat(),
            }
            try:
                answer: dict[str, Any] = await self.asking.ask("POST", "/v1/aggregates", params=params, json=body)
            except Refused as error:
                if error.status == 404 and "does not exist" in str(error):
                    return {}  # none of these resources has the metric
                if again or error.status not in (400, 404):
                    raise
                async with self._listing:  # others may have been refused the same at the same time
                    known = self._known_unfit(question)
                    fresh = known if known - unfit else await self._those_unfit(question)
                if not fresh - unfit:
                    raise
                unfit = fresh
            else:
                return answer
        raise AssertionError("answered or refused")

    def _known_unfit(self, question: _Question) -> frozenset[str]:
        until, found = self._unfit.get(question, (0.0, frozenset()))
        return found if self.asking.now() < until else frozenset()

    async def _those_unfit(self, question: _Question) -> frozenset[str]:
        """The resources that have the metric, but not in these steps or not this aggregate; remembered for an hour."""
        found: set[str] = set()
        marker: dict[str, str] = {}
        while rows := await self.asking.get("/v1/metric", name=question.metric, limit=PAGE, **marker):
            try:
                for row in rows:
                    if row.get("resource_id") and not keeps(row, question.method, question.granularity):
                        found.add(row["resource_id"])
                marker = {"marker": rows[-1]["id"]}
            except ODD as error:
                raise DatasourceError(f"gnocchi's list of metrics cannot be understood: {error!r}") from error
        if found:
            log.warning(
                "%d resources of gnocchi keep no %s of %s in steps of %d s, and count as not measured",
                len(found), question.method, question.metric, question.granularity,
            )  # fmt: skip
            self._unfit[question] = (self.asking.now() + UNFIT_S, frozenset(found))
        return frozenset(found)


def _hosts(known: Known) -> dict[str, tuple[str, ...]]:
    """By uuid: the ids that Ceilometer may have given a host's resources, which it makes of the host's names."""
    names: dict[str, list[str]] = {}
    for name, uuid in known.hosts.items():
        if name != uuid:
            names.setdefault(uuid, []).append(name)
    return {
        uuid: (*(f"{host}_{node}" for host in mine for node in mine), *mine)  # its service's and its hypervisor's name
        for uuid, mine in names.items()
    }


def _points(measured: Any, granularity: int) -> list[tuple[float, float]]:
    """Begins of granules, and what was measured in them; what is no number was not measured."""
    return [
        (datetime.fromisoformat(at).timestamp(), float(value))
        for at, step, value in measured
        if step == granularity and value is not None and math.isfinite(float(value))
    ]


def _as_asked(value: float, need: Need, resource: str, known: Known) -> float:
    if need.metric == "instance_cpu_usage":  # ns of all its vCPUs in a granule
        return max(0.0, value * 100 / (need.granularity_s * 1e9) / max(known.instances[resource].vcpus, 1.0))
    return value * 10 if need.metric == "host_airflow" else value  # strategies reckon in tenths of CFM
