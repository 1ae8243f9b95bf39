"""Azure's VM tables: every shape of the files, what their sizes mean, series with the average they tell, and faults."""

from __future__ import annotations

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import InvalidInput
from trimtab.simulator.traces.azure import made_up, read_azure
from trimtab.simulator.traces.read import read_trace

HEADER = (
    "vm id,subscription id,deployment id,timestamp vm created,timestamp vm deleted,max cpu,avg cpu,p95 max cpu,"
    "vm category,vm virtual core count bucket,vm memory (GB) bucket"
)
ROWS = (
    "a,s,d,0,86400,90,20,70,Interactive,4,32",
    "b,s,d,600,3600,50,50,50,Delay-insensitive,>24,>64",
    "c,s,d,900,900,10.5,2,9,Unknown,1,1.75",
)


def write(path: Path, rows: tuple[str, ...] = ROWS, *, header: bool = True) -> Path:
    text = "\n".join((HEADER, *rows) if header else rows) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["vms.csv", "vms.csv.gz"])
@pytest.mark.parametrize("header", [True, False])
def test_reads_csv_with_and_without_header_and_compression(tmp_path: Path, name: str, header: bool) -> None:
    trace = read_trace(write(tmp_path / name, header=header))
    assert trace.ids.to_pylist() == ["a", "b", "c"]
    assert trace.vcpus is not None
    assert trace.memory_mb is not None
    assert trace.begins_s is not None
    assert trace.ends_s is not None
    assert trace.vcpus.tolist() == [4, 32, 1]
    assert trace.memory_mb.tolist() == [32 * 1024, 128 * 1024, 1792]
    assert trace.begins_s.tolist() == [0, 600, 900]
    assert trace.ends_s.tolist() == [86400, 3600, 900]
    assert trace.cpu_pct.shape == (288, 3)
    np.testing.assert_allclose(np.nanmean(trace.cpu_pct, axis=0), [20, 50, 2], rtol=1e-5)
    assert (~np.isnan(trace.cpu_pct)).sum(axis=0).tolist() == [288, 10, 1]
    assert trace.require_whole() is trace
    assert any("vm virtual core count >24 count as 32" in note for note in trace.notes)
    assert any("made from avg, p95 and max cpu" in note for note in trace.notes)


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    columns = list(zip(*(row.split(",") for row in ROWS), strict=True))
    names = HEADER.split(",")
    table = pa.table(
        {
            name: pa.array([float(x) for x in column] if n in (3, 4, 5, 6, 7) else list(column))
            for n, (name, column) in enumerate(zip(names, columns, strict=True))
        }
    )
    pq.write_table(table, tmp_path / "vms.parquet")
    one, other = read_trace(tmp_path / "vms.parquet"), read_trace(write(tmp_path / "vms.csv"))
    np.testing.assert_array_equal(one.cpu_pct, other.cpu_pct)
    assert one.vcpus is not None
    assert other.vcpus is not None
    assert one.vcpus.tolist() == other.vcpus.tolist()


@settings(max_examples=40, deadline=None)
@given(
    numbers=st.lists(
        st.tuples(*[st.floats(0, 100)] * 3, st.integers(0, 300), st.integers(1, 400)), min_size=1, max_size=6
    ),
    seed=st.integers(0, 99),
)
def test_made_series_have_the_average_told_and_stay_below_the_maximum(
    numbers: list[tuple[float, float, float, int, int]], seed: int
) -> None:
    given_pct = np.sort(np.array([row[:3] for row in numbers]), axis=1)
    begin = np.array([row[3] for row in numbers])
    end = begin + np.array([row[4] for row in numbers])
    avg, p95, top = given_pct.T
    series = made_up(avg, p95, top, begin, end, 288, seed)
    sample = np.arange(len(series))[:, None]
    there = (sample >= begin) & (sample < end)
    np.testing.assert_array_equal(~np.isnan(series), there)
    np.testing.assert_allclose(np.nansum(series.astype(float), axis=0) / (end - begin), avg, rtol=1e-4, atol=1e-4)
    assert (np.nanmax(series, axis=0) <= top.astype(np.float32)).all()
    np.testing.assert_array_equal(series, made_up(avg, p95, top, begin, end, 288, seed))


def test_made_series_come_near_percentile_and_maximum() -> None:
    one = np.ones(1)
    series = made_up(20 * one, 60 * one, 95 * one, np.zeros(1, int), np.full(1, 2880), 288, 1)[:, 0]
    assert np.percentile(series, 95) == pytest.approx(60, abs=2)
    assert series.max() == pytest.approx(95, abs=2)
    assert not np.array_equal(series, made_up(20 * one, 60 * one, 95 * one, np.zeros(1, int), np.full(1, 2880), 288, 2))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(1, 12), header=st.booleans(), parquet=st.booleans())
def test_readings_written_read_back_equal(seed: int, count: int, header: bool, parquet: bool) -> None:
    values = np.random.default_rng(seed).uniform(0, 100, (count, 2)).astype(np.float32)
    rows = [(300 * t, vm, 0.0, 100.0, float(values[t, n])) for t in range(count) for n, vm in enumerate("ab")]
    names = ["timestamp", "vm id", "min cpu", "max cpu", "avg cpu"]
    vms = tuple(f"{vm},s,d,0,{300 * count},90,20,70,x,4,32" for vm in "abc")
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "vmtable.csv.gz", vms, header=header)
        if parquet:
            columns = zip(names, zip(*rows, strict=True), strict=True)
            pq.write_table(pa.table({key: list(column) for key, column in columns}), folder / "vm_cpu_readings.parquet")
        else:
            for part in range(2):  # as published: many files
                lines = [",".join(names)] * header + [",".join(map(str, row)) for row in rows[part::2]]
                (folder / f"vm_cpu_readings-file-{part}-of-2.csv").write_text("\n".join(lines) + "\n")
        trace = read_trace(folder)
    np.testing.assert_allclose(trace.cpu_pct[:, :2], values, rtol=1e-6)
    assert np.isnan(trace.cpu_pct[:, 2]).all()
    assert trace.notes == ("1 of 3 VMs have no reading: they are holes from beginning to end",)
    with pytest.raises(InvalidInput, match=f"nothing was recorded of c from 0 to {300 * count} s"):
        trace.require_whole()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a,s,d,0,300,90,20,70,x,4,32", r"rows 0 and 3: id a stands twice"),
        ("x,s,d,600,300,90,20,70,x,4,32", r"row 3: timestamp vm deleted is 300; give seconds, not before"),
        ("x,s,d,0,300,120,20,70,x,4,32", r"row 3: max cpu is 120; per cent lie in 0\.\.100"),
        ("x,s,d,0,300,,20,70,x,4,32", r"row 3: max cpu is nan"),
        ("x,s,d,0,300,10,20,70,x,4,32", r"row 3: avg cpu is 20; an average is at most the maximum"),
        (
            "x,s,d,0,300,90,20,70,x,many,32",
            r"row 3: vm virtual core count is 'many'; give a number above 0 or a bucket",
        ),
        ("x,s,d,0,300,90,20,70,x,4,0", r"row 3: vm memory is '0'"),
        ("x,s,d,soon,300,90,20,70,x,4,32", r"cannot be read as CSV: .*'soon'"),
        ("x,s,d,0", r"cannot be read as CSV: .*Expected 11 columns, got 4"),
    ],
)
def test_names_what_is_wrong_with_a_vm_table(tmp_path: Path, row: str, said: str) -> None:
    path = write(tmp_path / "vms.csv", (*ROWS, row))
    with pytest.raises(InvalidInput, match=said) as caught:
        read_trace(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no row"),
        (HEADER + "\n", "holds no row"),
        ("vm id,max cpu\na,1\n", "columns missing: timestampvmcreated or vmcreated"),
        ("a,b,c\n", "3 columns and no header; give 11"),
    ],
)
def test_names_what_is_wrong_with_the_columns(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "vms.csv").write_text(text)
    with pytest.raises(InvalidInput, match=said):
        read_trace(tmp_path / "vms.csv")
    with pytest.raises(InvalidInput, match="is not there"):
        read_trace(tmp_path / "none.csv")
    (tmp_path / "vms.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(InvalidInput, match="cannot be read as CSV"):
        read_trace(tmp_path / "vms.csv.gz")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vm id": ["a", "z"]}, "row 1: vm id z is not in the VM table"),
        ({"avg cpu": [1.0, 101.0]}, "row 1: avg cpu is 101; per cent"),
        ({"timestamp": [300.0, -300.0]}, "row 1: timestamp is -300"),
        ({"timestamp": [300.0, 300.0], "vm id": ["a", "a"]}, r"row 1 \(a\): at 300 s stands twice"),
    ],
)
def test_names_what_is_wrong_with_readings(tmp_path: Path, change: dict[str, list[Any]], said: str) -> None:
    good: dict[str, list[Any]] = {"timestamp": [0.0, 300.0], "vm id": ["a", "b"], "avg cpu": [1.0, 2.0]}
    rest = {"min cpu": [0.0, 0.0], "max cpu": [9.0, 9.0]}
    pq.write_table(pa.table({**good, **rest, **change}), tmp_path / "readings.parquet")
    with pytest.raises(InvalidInput, match=said):
        read_azure(write(tmp_path / "vms.csv"), [tmp_path / "readings.parquet"])


def test_a_reading_must_not_stand_in_two_files(tmp_path: Path) -> None:
    for part in range(2):
        (tmp_path / f"vm_cpu_readings-file-{part}-of-2.csv").write_text("300,a,0,9,5\n")
    write(tmp_path / "vmtable.csv")
    with pytest.raises(InvalidInput, match="a at 300 s stands in two files of readings"):
        read_trace(tmp_path)
