"""Every trace format is taken by what-if scenarios, backtests and simulated clouds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trimtab.serve.backtest_load import from_trace
from trimtab.simulator.traces.opendc import write_opendc
from trimtab.simulator.traces.read import read_trace, write_long
from trimtab.simulator.traces.trace import Trace
from trimtab.simulator.truth import CloudSpec
from trimtab.simulator.whatif.loads import trace_of
from trimtab.simulator.whatif.scenario import LoadPoint

DAY_S = 86_400.0


def long_table(folder: Path) -> Path:
    cpu_pct = np.random.default_rng(1).uniform(2, 98, (576, 3)).astype(np.float32)
    write_long(Trace(0.0, 300.0, cpu_pct, pa.array(["a", "b", "c"])), folder / "long.parquet")
    return folder / "long.parquet"


def planetlab(folder: Path) -> Path:
    days = np.random.default_rng(2).integers(0, 101, (3, 288)).tolist()
    table = pa.table({"vm_index": range(3), "name": ["a", "b", "c"], "cpu_pct": days})
    pq.write_table(table, folder / "day.parquet")
    return folder / "day.parquet"


def opendc(folder: Path) -> Path:
    write_opendc(read_trace(long_table(folder)), folder / "tasks.parquet", folder / "fragments.parquet")
    return folder


def azure_table(folder: Path) -> Path:
    (folder / "vms.csv").write_text("a,s,d,0,172800,90,20,70,x,>24,8\n")
    return folder / "vms.csv"


def azure_folder(folder: Path) -> Path:
    azure_table(folder).rename(folder / "vmtable.csv")
    readings = [f"{300 * n},a,0,100,{n % 90}" for n in range(576)]
    (folder / "vm_cpu_readings-file-1-of-1.csv").write_text("\n".join(readings) + "\n")
    return folder


@pytest.mark.parametrize("make", [long_table, planetlab, opendc, azure_table, azure_folder])
def test_every_format_is_taken_everywhere(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    trace = read_trace(path)
    recorded = {tuple(column) for column in trace.cpu_pct[:288].T.tolist()}
    point = LoadPoint.model_validate({"name": "l", "source": "trace", "trace": str(path)})
    np.testing.assert_array_equal(trace_of(point).cpu_pct, trace.cpu_pct)
    spec = CloudSpec(hosts=4, instances=9, seed=3, traces=str(path), variation=0.0)
    assert {tuple(column) for column in spec.days(9)(0).T.tolist()} == recorded
    found = from_trace(spec.model(), path, 0.0, DAY_S, None, seed=0)
    assert {tuple(column) for column in found.record.cpu_pct[:288].T.tolist()} == recorded
    assert found.notes[: len(trace.notes)] == trace.notes
