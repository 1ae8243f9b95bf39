"""InfluxDB behind Grafana's proxy as a datasource; what is asked for each metric is the operator's to say."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from trimtab.platform.datasources.answers import SAMPLES, aggregated
from trimtab.platform.datasources.asking import Asking
from trimtab.platform.datasources.known import Known
from trimtab.platform.errors import DatasourceError
from trimtab.platform.snapshot import Need

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """How one metric is asked for.

    `query` has the places {0} aggregate, {1} the resource's attribute, {2} period, {3} granularity, {4} retention
    period; `attribute` is `uuid`, `hostname` or `name`.
    """

    project: str
    database: str
    attribute: str
    query: str


class Grafana:
    """`contracts.Datasource` over Grafana's proxy. Its queries name one resource each, so they are many."""

    name: ClassVar[str] = "grafana"

    def __init__(
        self,
        asking: Asking,
        known: Callable[[], Known],
        metrics: Mapping[str, Asked],
        retention_s: Mapping[str, int],
        at_most: int = 8,
    ) -> None:
        """`metrics` by Watcher's names; `retention_s` the names of InfluxDB's retention periods and their seconds."""
        self.asking, self.known, self.metrics, self.retention_s = asking, known, metrics, retention_s
        self._turns = asyncio.Semaphore(at_most)

    def offers(self, metric: str) -> bool:
        """Whether all that is needed to ask for this metric is configured."""
        return metric in self.metrics

    async def aggregate(self, needs: Sequence[Need], at: float) -> pa.Table:  # noqa: ARG002 (queries count back from now)
        """One value a need and resource."""
        answers = await asyncio.gather(*(self._one(need) for need in needs))
        return aggregated(answers)

    async def samples(self, metric: str, kind: str, start_s: float, end_s: float) -> pa.Table:  # noqa: ARG002
        """Nothing: an operator's queries give one value, not a series."""
        return SAMPLES.empty_table()

    async def _one(self, need: Need) -> dict[str, float]:
        asked = self.metrics.get(need.metric)
        if asked is None:
            return {}
        resources = self._resources(need.kind, asked.attribute)
        values = await asyncio.gather(*(self._value(need, asked, name) for name in resources.values()))
        return {uuid: value for uuid, value in zip(resources, values, strict=True) if value is not None}

    def _resources(self, kind: str, attribute: str) -> dict[str, str]:
        """What to ask for, by uuid."""
        known = self.known()
        if kind == "instance":
            return {uuid: uuid for uuid in known.instances}
        named: dict[str, str] = {}
        for name, uuid in known.hosts.items():
            if attribute == "uuid":
                named[uuid] = uuid
            elif name != uuid and len(name) > len(named.get(uuid, "")):  # the whole name, not its short form
                named[uuid] = name
        return named

    async def _value(self, need: Need, asked: Asked, name: str) -> float | None:
        query = asked.query.format(
            need.aggregate, name, need.window_s, need.granularity_s or 1, self._retention(need.window_s)
        )
        async with self._turns:
            answer = await self.asking.get(f"{asked.project}/query", db=asked.database, epoch="ms", q=query)
        try:
            series = answer["results"][0]["series"][0]
            value = float(series["values"][0][series["columns"].index(need.aggregate)])
        except (KeyError, IndexError, ValueError, TypeError):
            return None  # nothing was measured
        return value if math.isfinite(value) else None

    def _retention(self, period_s: int) -> str:
        """The name of the shortest retention period that is longer than this."""
        longer = [(seconds, name) for name, seconds in self.retention_s.items() if seconds > period_s]
        if longer:
            return min(longer)[1]
        if not self.retention_s:
            raise DatasourceError("grafana_client.retention_periods is empty: name those of InfluxDB")
        name = max(self.retention_s.items(), key=lambda item: item[1])[0]
        log.warning("no retention period of InfluxDB is longer than %s s; %s is asked", period_s, name)
        return name
