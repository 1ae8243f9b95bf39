"""Readers of traces: what is written reads back equal, and faults are named."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import InvalidInput
from trimtab.platform.store.measurements import Measurements
from trimtab.simulator.traces.read import read_trace, write_long
from trimtab.simulator.traces.trace import Trace


def opendc(folder: Path, cpu_pct: np.ndarray[tuple[int, int], np.dtype[np.float64]], *, old: bool = False) -> None:
    """Every column a task of two cores, 2000 MHz together, submitted at 600 s."""
    count, tasks = cpu_pct.shape
    names = (
        ("submissionTime", "maxCores", "requiredMemory") if old else ("submission_time", "cpu_count", "mem_capacity")
    )
    at = pa.array([600_000] * tasks, pa.int64())
    table = {
        "id": [f"t{n}" for n in range(tasks)],
        names[0]: at.cast(pa.timestamp("ms")) if old else at,
        "duration": [300_000 * count] * tasks,
        names[1]: [2] * tasks,
        "cpu_capacity": [2000.0] * tasks,
        names[2]: [4096] * tasks,
    }
    pieces = {
        "id": [f"t{n}" for n in range(tasks)] * count,
        "duration": [300_000] * (count * tasks),
        "cpuUsage" if old else "cpu_usage": cpu_pct.ravel() * 20,
    }
    pq.write_table(pa.table(table), folder / ("meta.parquet" if old else "tasks.parquet"))
    pq.write_table(pa.table(pieces), folder / ("trace.parquet" if old else "fragments.parquet"))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(1, 20), old=st.booleans())
def test_what_is_written_reads_back_equal(seed: int, count: int, old: bool) -> None:
    values = np.random.default_rng(seed).uniform(2, 100, (count, 3))
    holes = values.astype(np.float32)
    holes[1:-1:2, 1] = np.nan
    made = Trace(900.0, 300.0, holes, pa.array(["a", "b", "c"]))
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_long(made, folder / "long.parquet")
        again = read_trace(folder / "long.parquet")
        assert (again.start_s, again.step_s, again.ids) == (made.start_s, made.step_s, made.ids)
        np.testing.assert_array_equal(again.cpu_pct, made.cpu_pct)
        opendc(folder, values, old=old)
        tasks = read_trace(folder)
        assert tasks.start_s == 600
        assert tasks.vcpus is not None
        assert tasks.vcpus.tolist() == [2, 2, 2]
        np.testing.assert_allclose(tasks.cpu_pct, values, rtol=1e-5)


def test_reads_the_stores_own_folder(tmp_path: Path) -> None:
    table = pa.table({"resource": ["x", "y", "x"], "at": [86100.0, 86100.0, 86400.0], "value": [10.0, 20.0, 30.0]})
    Measurements(tmp_path).append("cpu_util", "instance", table)
    made = read_trace(tmp_path / "metric=cpu_util")
    assert made.start_s == 86100
    by_name = dict(zip(made.ids.to_pylist(), made.cpu_pct.T.tolist(), strict=True))
    assert by_name["x"] == [10, 30]
    assert by_name["y"][0] == 20
    assert np.isnan(by_name["y"][1])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"resource": ["a"], "at": [0.0]}, "columns missing: value"),
        ({"resource": ["a"], "at": [0.0], "value": [120.0]}, "row 0: value is 120; per cent lie"),
        ({"resource": ["a", "a"], "at": [0.0, 300.0], "value": [0.5, 0.7]}, "fractions"),
        ({"resource": ["a", "a"], "at": [0.0, 0.0], "value": [5.0, 7.0]}, "stands twice"),
        ({"resource": ["a"], "at": [0.0], "value": ["5"]}, "value is string; give numbers"),
        ({"some": ["a"]}, "no known trace"),
    ],
)
def test_names_what_is_wrong_with_a_long_table(tmp_path: Path, columns: dict[str, list[object]], said: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(InvalidInput, match=said):
        read_trace(tmp_path / "t.parquet")


def test_names_negative_fragments_and_unknown_tasks(tmp_path: Path) -> None:
    opendc(tmp_path, np.full((2, 1), -5.0))
    with pytest.raises(InvalidInput, match=r"fragments\.parquet row 0: cpu_usage is -100 \(and 1 rows more\)"):
        read_trace(tmp_path)
    pieces = pa.table({"id": ["other"], "duration": [1], "cpu_usage": [1.0]})
    pq.write_table(pieces, tmp_path / "fragments.parquet")
    with pytest.raises(InvalidInput, match="id other is not in tasks"):
        read_trace(tmp_path)
    (tmp_path / "fragments.parquet").write_bytes(b"none")
    with pytest.raises(InvalidInput, match="cannot be read as Parquet"):
        read_trace(tmp_path)
