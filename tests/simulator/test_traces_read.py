"""Readers of traces: what is written reads back equal, and faults are named."""

from __future__ import annotations

from datetime import date
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
from trimtab.simulator.truth import CloudSpec


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(1, 20))
def test_what_is_written_as_a_long_table_reads_back_equal(seed: int, count: int) -> None:
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


def test_values_of_at_most_1_per_cent_can_be_meant(tmp_path: Path) -> None:
    table = pa.table({"resource": ["a", "a"], "at": [0.0, 300.0], "value": [0.5, 0.7]})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InvalidInput, match="at_most_1_pct=True"):
        read_trace(tmp_path / "t.parquet")
    trace = read_trace(tmp_path / "t.parquet", at_most_1_pct=True)
    np.testing.assert_array_equal(trace.cpu_pct[:, 0], np.array([0.5, 0.7], np.float32))


def test_what_a_merged_file_replaces_stays_out(tmp_path: Path) -> None:
    store = Measurements(tmp_path)
    for at in (600.0, 300.0):
        store.append("cpu_util", "instance", pa.table({"resource": ["x"], "at": [at], "value": [at / 10]}))
    (folder,) = (tmp_path / "metric=cpu_util").glob("date=*")
    before = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    assert store.compact(date(1970, 1, 1)) == 2
    store.close()
    merged = read_trace(tmp_path / "metric=cpu_util")
    for name, content in before.items():  # a crash before they were deleted
        (folder / name).write_bytes(content)
    again = read_trace(tmp_path / "metric=cpu_util")
    np.testing.assert_array_equal(again.cpu_pct[:, 0], [30, 60])
    np.testing.assert_array_equal(merged.cpu_pct, again.cpu_pct)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(1, 5))
def test_planetlab_days_written_read_back_equal(seed: int, count: int) -> None:
    days = np.random.default_rng(seed).integers(0, 101, (count, 288))
    with TemporaryDirectory() as name:
        path = Path(name) / "day.parquet"
        rows = [str(n) for n in range(count)]
        pq.write_table(pa.table({"vm_index": range(count), "name": rows, "cpu_pct": days.tolist()}), path)
        trace = read_trace(path)
    np.testing.assert_array_equal(trace.cpu_pct, days.T)
    assert trace.ids.to_pylist() == rows


def test_a_planetlab_vm_that_stands_twice_is_named_with_its_file(tmp_path: Path) -> None:
    table = pa.table({"vm_index": [3, 4, 3], "name": ["a", "b", "c"], "cpu_pct": [[1] * 288] * 3})
    pq.write_table(table, tmp_path / "day.parquet")
    with pytest.raises(InvalidInput, match=r"day\.parquet rows 0 and 2: id 3 stands twice"):
        read_trace(tmp_path / "day.parquet")


def test_names_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none\.parquet is not there"):
        read_trace(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"none")
    with pytest.raises(InvalidInput, match=r"bad\.parquet cannot be read as Parquet"):
        read_trace(tmp_path / "bad.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="columns missing: resource, at, value"):
        read_trace(tmp_path / "empty")
    with pytest.raises(InvalidInput, match="step_s is 0: give seconds above 0"):
        read_trace(tmp_path / "empty", 0)


def test_a_simulated_cloud_takes_every_format(tmp_path: Path) -> None:
    write_long(Trace(0.0, 300.0, np.full((288, 2), 42, np.float32), pa.array(["a", "b"])), tmp_path / "long.parquet")
    (tmp_path / "vms.csv").write_text("a,s,d,0,86400,42,42,42,x,4,8\n")
    for name in ("long.parquet", "vms.csv"):
        days = CloudSpec(traces=str(tmp_path / name), variation=0.0).days(5)
        np.testing.assert_allclose(days(20_000), np.full((288, 5), 42), rtol=1e-5)
