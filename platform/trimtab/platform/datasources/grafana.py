"""InfluxDB behind Grafana's proxy as a datasource; what is asked for each metric is the operator's to say.

An operator's query names one resource. InfluxDB takes many of them in one question, so that there are few questions.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final
from urllib.parse import quote

import pyarrow as pa

from trimtab.platform.datasources.answers import ODD, SAMPLES, aggregated
from trimtab.platform.datasources.asking import Asking, Refused
from trimtab.platform.datasources.known import Known
from trimtab.platform.errors import DatasourceError
from trimtab.platform.snapshot import Need

log = logging.getLogger(__name__)

LONGEST: Final = 6000  # of all queries in one question as they are sent; web servers take 8 KiB


@dataclass(frozen=True, slots=True)
class Asked:
    """How one metric is asked for.

    `query` has the places {0} aggregate, {1} the resource's attribute, {2} period, {3} granularity, {4} retention
    period; `attribute` is `uuid`, `hostname` or `name` of the host or instance. What is put into a query cannot end a
    text in it.
    """

    project: str
    database: str
    attribute: str
    query: str


class Grafana:
    """`contracts.Datasource` over Grafana's proxy."""

    name: ClassVar[str] = "grafana"

    def __init__(
        self,
        asking: Asking,
        known: Callable[[], Known],
        metrics: Mapping[str, Asked],
        retention_s: Mapping[str, int],
    ) -> None:
        """`metrics` by Watcher's names; `retention_s` the names of InfluxDB's retention periods and their seconds."""
        self.asking, self.known, self.metrics, self.retention_s = asking, known, metrics, retention_s

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
        retention = self._retention(need.window_s)
        queries = [_query(need, asked, name, retention) for name in resources.values()]
        parts = await asyncio.gather(*(self._values(need, asked, some) for some in _together(queries)))
        values = [value for part in parts for value in part]
        return {uuid: value for uuid, value in zip(resources, values, strict=True) if value is not None}

    def _resources(self, kind: str, attribute: str) -> dict[str, str]:
        """What to ask for, by uuid."""
        known = self.known()
        if kind == "instance":
            if attribute == "uuid":
                return {uuid: uuid for uuid in known.instances}
            return {uuid: known.names[uuid] for uuid in known.instances if known.names.get(uuid)}
        named: dict[str, str] = {}
        for name, uuid in known.hosts.items():
            if attribute == "uuid":
                named[uuid] = uuid
            elif name != uuid and len(name) > len(named.get(uuid, "")):  # the whole name, not its short form
                named[uuid] = name
        return named

    async def _values(
        self, need: Need, asked: Asked, queries: Sequence[str], *, halved: bool = False
    ) -> list[float | None]:
        """What each query found; None where nothing was measured.

        InfluxDB carries out nothing of a question with an error in it, or only what is before, and does not say which
        query it was. Then halves are asked, so that only the odd one is missing.

        Raises:
            DatasourceError: no answer, or queries that are all wrong.
        """
        fault, values = await self._ask(need, asked, queries)
        if not fault:
            return values
        if len(queries) == 1:
            log.warning("InfluxDB behind grafana cannot answer %s: %s", queries[0], fault)
            return [None]
        if not halved:
            ends = [await self._ask(need, asked, [one]) for one in (queries[0], queries[-1])]
            if all(why for why, _ in ends):
                raise DatasourceError(f"InfluxDB behind grafana cannot answer {queries[0]}: {ends[0][0]}")
        middle = len(queries) // 2
        halves = (queries[:middle], queries[middle:])
        return [one for half in halves for one in await self._values(need, asked, half, halved=True)]

    async def _ask(self, need: Need, asked: Asked, queries: Sequence[str]) -> tuple[str, list[float | None]]:
        """What is wrong with one of them, or "" and their values."""
        path = f"{asked.project}/query"
        try:
            answer = await self.asking.get(path, db=asked.database, epoch="ms", q="; ".join(queries))
            results = list(answer["results"])
            fault = next((str(one["error"]) for one in results if "error" in one), "")
        except Refused as error:
            if error.status != 400:
                raise
            return str(error), []
        except ODD as error:
            raise DatasourceError(f"grafana answered {path} without results: {error!r}") from error
        if len(queries) > 1 and len(results) != len(queries):
            fault = fault or f"{len(queries)} queries have {len(results)} results"
        return fault, [_value(one, need.aggregate) for one in results[: len(queries)]] or [None]

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


def _query(need: Need, asked: Asked, name: str, retention: str) -> str:
    """The operator's query for one resource.

    Raises:
        DatasourceError: it has places that nothing is known for.
    """
    try:
        query = asked.query.format(need.aggregate, _quoted(name), need.window_s, need.granularity_s or 1, retention)
    except ODD as error:
        why = "places are {0} to {4}"
        raise DatasourceError(f"grafana_client.query_map: {need.metric}: {asked.query}: {why}: {error!r}") from error
    return query.strip().rstrip(";")


def _quoted(name: str) -> str:
    """A name inside quotes of InfluxQL, which it cannot end: instances are called whatever their owners like."""
    for what, instead in (("\\", "\\\\"), ("'", "\\'"), ('"', '\\"'), ("\n", "\\n")):
        name = name.replace(what, instead)
    return name


def _together(queries: Sequence[str]) -> list[list[str]]:
    """As many in one question as a web server's longest address may have."""
    found: list[list[str]] = []
    room = 0
    for query in queries:
        length = len(quote(query)) + len(quote("; "))
        if not found or length > room:
            found.append([])
            room = LONGEST
        found[-1].append(query)
        room -= length
    return found


def _value(result: Any, aggregate: str) -> float | None:
    try:
        series = result["series"][0]
        value = float(series["values"][0][series["columns"].index(aggregate)])
    except ODD:
        return None  # nothing was measured
    return value if math.isfinite(value) else None
