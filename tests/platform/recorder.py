"""Where a collector keeps measurements, without an actor between: the Parquet store in this process."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from trimtab.platform.store.measurements import Measurements


class Recorder:
    """`collector.Recorder` over a folder."""

    def __init__(self, folder: Path) -> None:
        self.kept = Measurements(folder)

    async def append(self, metric: str, kind: str, table: pa.Table) -> None:
        self.kept.append(metric, kind, table)

    async def samples(self, metric: str, kind: str, start_s: float, end_s: float) -> pa.Table:
        return self.kept.samples(metric, kind, start_s, end_s)

    async def tidy(self, now_s: float, keep_days: int) -> None:
        self.kept.tidy(now_s, keep_days)
