"""Gnocchi as a datasource: one question a metric for some hundred resources, by its dynamic aggregates.

Metrics and units are those of Watcher's Gnocchi datasource. A value is the aggregate over the whole window; Watcher
took the last granule of it, which is the same where the window is one granule, as by default.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import numpy as np
import pyarrow as pa

from trimtab.platform.datasources.answers import SAMPLES, STEP_S, aggregated
from trimtab.platform.datasources.asking import Asking, Refused
from trimtab.platform.datasources.known import Known
from trimtab.platform.snapshot import Need

AT_ONCE: Final = 400  # resources in one question
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


class Gnocchi:
    """`contracts.Datasource` over Gnocchi's HTTP API, version 1."""

    name: ClassVar[str] = "gnocchi"

    def __init__(self, asking: Asking, known: Callable[[], Known]) -> None:
        """`known` tells who is who at the moment."""
        self.asking, self.known = asking, known

    def offers(self, metric: str) -> bool:
        """Whether this metric can be asked for at all."""
        return metric in GNOCCHIS

    async def aggregate(self, needs: Sequence[Need], at: float) -> pa.Table:
        """One value a need and resource, over the window that ends at a moment."""
        answers = await asyncio.gather(*(self._one(need, at) for need in needs))
        return aggregated(answers)

    async def samples(self, metric: str, kind: str, start_s: float, end_s: float) -> pa.Table:
        """Means over granules of five minutes that begin in start <= at < end."""
        columns: dict[str, list[Any]] = {"resource": [], "at": [], "value": []}
        if metric in GNOCCHIS and GNOCCHIS[metric][0] == kind:
            found = await self._series(Need(metric, kind, "mean", STEP_S, STEP_S), start_s, end_s)
            for resource, points in found.items():
                fine = [(at, value) for at, value in points if start_s <= at < end_s]
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
        known = self.known()
        metric, kind = GNOCCHIS[need.metric][1], need.kind
        method = "rate:mean" if metric == "cpu" else {"count": "mean"}.get(need.aggregate, need.aggregate)
        if metric == "cpu" and need.aggregate not in ("mean", "count"):
            method = f"rate:{need.aggregate}"
        if kind == "host":  # Ceilometer names a host's resource by the host, twice
            ids = {f"{name}_{name}": uuid for name, uuid in known.hosts.items() if name != uuid}
            field = "original_resource_id"
        else:
            ids, field = {uuid: uuid for uuid in known.instances}, "id"
        asked = list(ids)
        parts = await asyncio.gather(
            *(
                self._ask(metric, method, field, asked[first : first + AT_ONCE], need.granularity_s, start_s, end_s)
                for first in range(0, len(asked), AT_ONCE)
            )
        )
        found: dict[str, list[tuple[float, float]]] = {}
        for answer in parts:
            of = {one["id"]: one.get(field) or one["id"] for one in answer.get("references") or ()}
            for resource, measured in (answer.get("measures") or {}).items():
                uuid = ids.get(of.get(resource, resource))
                if uuid is None:
                    continue
                points = measured.get(metric, {}).get(method, [])
                found[uuid] = [
                    (datetime.fromisoformat(at).timestamp(), _as_asked(value, need.metric, granularity, uuid, known))
                    for at, granularity, value in points
                    if granularity == need.granularity_s
                ]
        return found

    async def _ask(
        self, metric: str, method: str, field: str, ids: Sequence[str], granularity: int, start_s: float, end_s: float
    ) -> dict[str, Any]:
        body = {
            "resource_type": "generic",
            "search": {"in": {field: list(ids)}},
            "operations": ["metric", metric, method],
        }
        params = {
            "details": "true",
            "granularity": granularity,
            "start": datetime.fromtimestamp(start_s, UTC).isoformat(),
            "stop": datetime.fromtimestamp(end_s, UTC).isoformat(),
        }
        try:
            answer: dict[str, Any] = await self.asking.ask("POST", "/v1/aggregates", params=params, json=body)
        except Refused as error:
            if error.status in (400, 404):  # none of these resources has the metric, or not by this method
                return {}
            raise
        return answer


def _as_asked(value: float, metric: str, granularity: float, resource: str, known: Known) -> float:
    if metric == "instance_cpu_usage":  # ns of all its vCPUs in a granule
        return max(0.0, value * 100 / (granularity * 1e9) / max(known.instances[resource].vcpus, 1.0))
    return value * 10 if metric == "host_airflow" else value  # strategies reckon in tenths of CFM
