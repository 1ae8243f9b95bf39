"""Several datasources in an operator's order: the first that has everything a strategy needs answers, as in Watcher."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from trimtab.platform.datasources.answers import AGGREGATED, SAMPLES, STEP_S
from trimtab.platform.errors import DatasourceError
from trimtab.platform.snapshot import Need

log = logging.getLogger(__name__)
LATE_S = 3 * STEP_S  # what any of them may lack


class Source(Protocol):
    """A datasource that says what it has."""

    @property
    def name(self) -> str:
        """As the settings call it."""
        ...

    def offers(self, metric: str) -> bool:
        """Whether this metric can be asked for at all."""
        ...

    async def aggregate(self, needs: Sequence[Need], at: float) -> pa.Table:
        """See `contracts.Datasource`."""
        ...

    async def samples(self, metric: str, kind: str, start_s: float, end_s: float) -> pa.Table:
        """See `contracts.Datasource`."""
        ...


class Ordered:
    """`contracts.Datasource` over others.

    All that one snapshot needs comes from the first source that offers all of it and answers; where none offers all,
    each metric comes from the first that offers it. What nobody offers is missing.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)
        self._gave: dict[tuple[str, str], Source] = {}  # whose samples of a metric and kind were the last

    @property
    def name(self) -> str:
        """Of all of them, in order."""
        return ", ".join(source.name for source in self.sources) or "none"

    async def aggregate(self, needs: Sequence[Need], at: float) -> pa.Table:
        """One value a need and resource.

        Raises:
            DatasourceError: none of those that could answer did; the message has what each said.
        """
        faults: list[str] = []
        whole = [one for one in self.sources if needs and all(one.offers(need.metric) for need in needs)]
        for source in whole:
            try:
                return await source.aggregate(needs, at)
            except DatasourceError as error:
                faults.append(str(error))
        if whole:
            raise DatasourceError("; ".join(faults))
        parts: list[pa.Table] = []
        for position, need in enumerate(needs):
            for source in self.sources:
                if not source.offers(need.metric):
                    continue
                try:
                    part = await source.aggregate([need], at)
                except DatasourceError as error:
                    faults.append(str(error))
                    continue
                which = pa.array([position] * part.num_rows, pa.int32())
                parts.append(part.set_column(0, "need", which))
                break
        if faults and not parts:
            raise DatasourceError("; ".join(dict.fromkeys(faults)))
        for fault in dict.fromkeys(faults):
            log.warning("%s", fault)
        return pa.concat_tables([AGGREGATED.empty_table(), *parts])

    async def samples(self, metric: str, kind: str, start_s: float, end_s: float) -> pa.Table:
        """The raw samples, from the first source that offers the metric and has some.

        Sources are not equally late: that the one that gave the last ones has nothing new yet is no reason to change.
        """
        faults: list[str] = []
        answered = False
        for source in self.sources:
            if not source.offers(metric):
                continue
            try:
                found = await source.samples(metric, kind, start_s, end_s)
            except DatasourceError as error:
                faults.append(str(error))
                continue
            if found.num_rows:
                self._gave[metric, kind] = source
                return found
            if self._gave.get((metric, kind)) is source and end_s - start_s <= LATE_S:
                return found
            answered = True
        if faults and not answered:
            raise DatasourceError("; ".join(faults))
        return SAMPLES.empty_table()
