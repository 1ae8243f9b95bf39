"""Prometheus as a datasource: one query a metric for all resources, in PromQL's own aggregation over time.

Queries and units are those of Watcher's Prometheus datasource; `mean` gives the same numbers. `max` and `min` are the
greatest and the least over the window in steps of a minute (Watcher's were over the processors of one moment).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
import pyarrow as pa

from trimtab.platform.datasources.answers import ODD, SAMPLES, STEP_S, aggregated
from trimtab.platform.datasources.asking import Asking
from trimtab.platform.datasources.known import Known
from trimtab.platform.errors import DatasourceError
from trimtab.platform.snapshot import Need

log = logging.getLogger(__name__)

POINTS: Final = 10_000  # Prometheus refuses more than 11,000 points a series
OVER_TIME: Final = {"mean": "avg", "max": "max", "min": "min", "count": "avg"}  # Watcher takes count as mean, too
SUBSTEP_S: Final = 60


class Prometheus:
    """`contracts.Datasource` over Prometheus' HTTP API, of its own or of Aetos, which puts Keystone before it."""

    name: ClassVar[str] = "prometheus"
    # metric -> kind of resource
    metrics: ClassVar[Mapping[str, str]] = {
        "host_cpu_usage": "host",
        "host_ram_usage": "host",
        "instance_cpu_usage": "instance",
        "instance_ram_usage": "instance",
        "instance_ram_allocated": "instance",
        "instance_root_disk_size": "instance",
    }

    def __init__(
        self, asking: Asking, known: Callable[[], Known], fqdn_label: str = "fqdn", instance_label: str = "resource"
    ) -> None:
        """`known` tells who is who at the moment; the labels name host and instance in the metrics."""
        self.asking, self.known = asking, known
        self.fqdn_label, self.instance_label = fqdn_label, instance_label

    def offers(self, metric: str) -> bool:
        """Whether this metric can be asked for at all."""
        return metric in self.metrics

    async def aggregate(self, needs: Sequence[Need], at: float) -> pa.Table:
        """One value a need and resource, at a moment."""
        answers = await asyncio.gather(*(self._one(need, at) for need in needs))
        return aggregated(answers)

    async def samples(self, metric: str, kind: str, start_s: float, end_s: float) -> pa.Table:
        """Means over whole steps of five minutes that begin at `start_s` or later and are over by `end_s`."""
        known = self.known()
        first = math.ceil(start_s / STEP_S) * STEP_S
        last = math.floor(end_s / STEP_S) * STEP_S - STEP_S  # of the step that is not over half the truth would be kept
        resources: list[str] = []
        moments: list[np.ndarray] = []
        values: list[np.ndarray] = []
        if self.metrics.get(metric) == kind and not self._given(metric, known):
            query = self._query(Need(metric, kind, "mean", STEP_S, STEP_S))
            for begin in range(first, last + 1, POINTS * STEP_S):
                end = min(begin + (POINTS - 1) * STEP_S, last)
                # What a step holds is known when it is over.
                for series in await self._range(query, begin + STEP_S, end + STEP_S):
                    try:
                        resource = self._resource(series["metric"], metric, known)
                        points = np.array(series["values"], dtype=float)  # text among the numbers is read as numbers
                        at, measured = points[:, 0] - STEP_S, points[:, 1]
                    except ODD as error:
                        log.warning("a series of %s by %s cannot be understood: %r", metric, self.name, error)
                        continue
                    if resource is None:
                        continue
                    told = _as_asked(measured, metric, resource, known)
                    fine = np.isfinite(told)
                    resources += [resource] * int(fine.sum())
                    moments.append(at[fine])
                    values.append(told[fine])
        none = np.empty(0)
        return pa.table(
            {
                "resource": resources,
                "at": np.concatenate([none, *moments]),
                "value": np.concatenate([none, *values]),
            },
            schema=SAMPLES,
        )

    # -- inside --------------------------------------------------------------------------------------------

    async def _one(self, need: Need, at: float) -> dict[str, float]:
        known = self.known()
        if self.metrics.get(need.metric) != need.kind:
            return {}
        if given := self._given(need.metric, known):
            return given
        found: dict[str, float] = {}
        for series in await self._get("/api/v1/query", query=self._query(need), time=at):
            try:
                resource, value = self._resource(series["metric"], need.metric, known), float(series["value"][1])
            except ODD as error:
                log.warning("a series of %s by %s cannot be understood: %r", need.metric, self.name, error)
                continue
            if resource is None:
                continue
            told = float(_as_asked(np.array([value]), need.metric, resource, known)[0])
            if math.isfinite(told):
                found[resource] = told
        return found

    def _query(self, need: Need) -> str:
        """PromQL for all resources at once.

        Raises:
            KeyError: an aggregate that is none of Watcher's.
        """
        over, window = OVER_TIME[need.aggregate], max(int(need.window_s), 1)
        host, instance = self.fqdn_label, self.instance_label
        if need.metric == "host_ram_usage":
            # What is used is greatest where what is available is least.
            free = {"max": "min", "min": "max"}.get(over, over)
            available = f"{free}_over_time(node_memory_MemAvailable_bytes[{window}s])"
            return f"max by ({host}) ((node_memory_MemTotal_bytes - {available}) / 1024)"
        if need.metric == "instance_ram_usage":
            return f"max by ({instance}) ({over}_over_time(ceilometer_memory_usage[{window}s]))"
        if need.metric == "host_cpu_usage":
            busy = f"100 - (avg by ({host}) (rate(node_cpu_seconds_total{{mode='idle'}}[%ss])) * 100)"
        else:
            busy = f"avg by ({instance}) (rate(ceilometer_cpu[%ss])) / 1e7"  # ns of one core a second, in per cent
        if over == "avg":
            return busy % window
        inner = max(2 * SUBSTEP_S, min(window, STEP_S) // 2)
        return f"{over}_over_time(({busy % inner})[{window}s:{SUBSTEP_S}s])"

    def _given(self, metric: str, known: Known) -> dict[str, float]:
        """What the model itself knows: no query."""
        if metric == "instance_ram_allocated":
            return {uuid: size.memory_mb for uuid, size in known.instances.items()}
        if metric == "instance_root_disk_size":
            return {uuid: size.disk_gb for uuid, size in known.instances.items()}
        return {}

    def _resource(self, labels: Mapping[str, str], metric: str, known: Known) -> str | None:
        if self.metrics[metric] == "host":
            return known.host(labels.get(self.fqdn_label, ""))
        uuid = labels.get(self.instance_label, "")
        return uuid if uuid in known.instances else None

    async def _range(self, query: str, start: int, end: int) -> list[Any]:
        """The series of a query at each step from start to end."""
        return await self._get("/api/v1/query_range", query=query, start=start, end=end, step=STEP_S)

    async def _get(self, path: str, **params: Any) -> list[Any]:
        answer = await self.asking.get(path, **params)
        try:
            found = answer["data"]["result"]
        except ODD as error:
            raise DatasourceError(f"{self.name} answered {path} without a result: {str(answer)[:300]}") from error
        if not isinstance(found, list):
            raise DatasourceError(f"{self.name} answered {path} with something that is no list of series")
        return found


class Aetos(Prometheus):
    """Prometheus' API behind Keystone, as far as Aetos has it: it knows no `query_range`."""

    name: ClassVar[str] = "aetos"

    async def _range(self, query: str, start: int, end: int) -> list[Any]:
        # A subquery is reckoned at whole multiples of its step, at both ends of what it covers: one second less.
        return await self._get("/api/v1/query", query=f"({query})[{end - start + STEP_S - 1}s:{STEP_S}s]", time=end)


def _as_asked(values: np.ndarray, metric: str, resource: str, known: Known) -> np.ndarray:
    """In the unit the port promises: CPU in per cent of the instance's own vCPUs, never beyond them."""
    if metric == "instance_cpu_usage":
        return np.minimum(values / max(known.instances[resource].vcpus, 1.0), 100.0)
    if metric == "host_cpu_usage":
        return np.clip(values, 0.0, 100.0)
    return values
