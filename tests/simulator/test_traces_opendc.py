"""OpenDC's tables: what is written reads back equal, units, timestamps, gaps and faults as its loaders see them."""

from __future__ import annotations

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
from trimtab.simulator.traces.opendc import read_opendc, write_opendc
from trimtab.simulator.traces.read import read_trace
from trimtab.simulator.traces.trace import Trace

TASK: dict[str, list[Any]] = {
    "id": ["a"],
    "submission_time": [600_000],
    "duration": [900_000],
    "cpu_count": [2],
    "cpu_capacity": [2000.0],
    "mem_capacity": [181_352],
}
MINUTES = 60_000


def write(folder: Path, fragments: dict[str, Any], **changes: Any) -> Path:
    pq.write_table(pa.table({**TASK, **changes}), folder / "tasks.parquet")
    pq.write_table(pa.table(fragments), folder / "fragments.parquet")
    return folder


def stamped(ends: list[int], durations: list[int], usage: float = 1000.0) -> dict[str, Any]:
    """Fragments of task a; minutes."""
    return {
        "id": ["a"] * len(ends),
        "timestamp": pa.array([end * MINUTES for end in ends], pa.timestamp("ms")),
        "duration": [duration * MINUTES for duration in durations],
        "cpu_usage": [usage] * len(ends),
    }


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(1, 12), step_s=st.sampled_from([60.0, 300.0, 900.0]))
def test_what_is_written_reads_back_equal(seed: int, count: int, step_s: float) -> None:
    random = np.random.default_rng(seed)
    cpu_pct = random.uniform(0, 100, (count, 3)).astype(np.float32)
    late = int(random.integers(0, count))
    cpu_pct[:late, 1] = np.nan
    vcpus, memory_mb = random.integers(1, 9, 3).astype(float), 512 * random.integers(1, 9, 3).astype(float)
    made = Trace(step_s * 5, step_s, cpu_pct, pa.array(["a", "b", "c"]), vcpus, memory_mb)
    with TemporaryDirectory() as name:
        write_opendc(made, Path(name) / "tasks.parquet", Path(name) / "fragments.parquet")
        again = read_trace(Path(name), step_s)
    np.testing.assert_allclose(again.cpu_pct, made.cpu_pct, rtol=1e-5)
    assert (again.start_s, again.ids) == (made.start_s, made.ids)
    np.testing.assert_array_equal([again.vcpus, again.memory_mb], [vcpus, memory_mb])
    assert again.begins_s is not None
    assert again.begins_s.tolist() == [step_s * 5, step_s * (5 + late), step_s * 5]
    assert again.notes == ()
    assert again.require_whole() is again


def test_capacity_is_of_all_cores_and_memory_in_kb_unless_said(tmp_path: Path) -> None:
    write(tmp_path, {"id": ["a"], "duration": [900_000], "cpu_usage": [1000.0]})
    trace = read_trace(tmp_path)
    np.testing.assert_array_equal(trace.cpu_pct, np.full((3, 1), 50, np.float32))
    assert trace.memory_mb is not None
    assert trace.memory_mb.tolist() == [181.352]
    in_mb = read_trace(tmp_path, memory_unit="MB")
    assert in_mb.memory_mb is not None
    assert in_mb.memory_mb.tolist() == [181_352]
    with pytest.raises(InvalidInput, match="memory_unit is 'GB'"):
        read_trace(tmp_path, memory_unit="GB")  # type: ignore[arg-type]


def test_usage_above_the_capacity_is_counted_and_cut(tmp_path: Path) -> None:
    write(tmp_path, {"id": ["a"] * 3, "duration": [300_000] * 3, "cpu_usage": [2500.0, 2000.0, 3000.0]})
    trace = read_trace(tmp_path)
    np.testing.assert_array_equal(trace.cpu_pct, np.full((3, 1), 100, np.float32))
    assert trace.notes == (
        "fragments.parquet: 2 of 3 fragments use more than their task's capacity (up to 150 %); they count as 100 %",
    )


def test_start_and_stop_times_of_the_oldest_tables(tmp_path: Path) -> None:
    task = {key: value for key, value in TASK.items() if key not in ("submission_time", "duration")}
    times = {
        "start_time": pa.array([600_000], pa.timestamp("ms", "UTC")),
        "stop_time": pa.array([1_500_000], pa.timestamp("ms", "UTC")),
    }
    pq.write_table(pa.table({**task, **times}), tmp_path / "meta.parquet")
    pq.write_table(pa.table(stamped([15, 20, 25], [5, 5, 5])), tmp_path / "trace.parquet")
    trace = read_trace(tmp_path)
    assert (trace.start_s, trace.begins_s, trace.ends_s) == (600, np.array([600.0]), np.array([1500.0]))
    np.testing.assert_array_equal(trace.cpu_pct, np.full((3, 1), 50, np.float32))
    swapped = {"start_time": times["stop_time"], "stop_time": times["start_time"]}
    pq.write_table(pa.table({**task, **swapped}), tmp_path / "meta.parquet")
    with pytest.raises(InvalidInput, match="stop_time is 600; give a time not before start_time"):
        read_trace(tmp_path)


def test_a_timestamp_is_the_end_of_its_fragment_and_a_gap_is_a_hole_that_is_named(tmp_path: Path) -> None:
    whole = read_trace(write(tmp_path, stamped([15, 20, 25], [5, 5, 5])))
    assert whole.notes == ()
    assert whole.start_s == 600
    holed = read_trace(write(tmp_path, stamped([15, 25], [5, 5])))
    assert np.isnan(holed.cpu_pct[:, 0]).tolist() == [False, True, False]
    assert holed.notes == ("fragments.parquet: 1 gaps between fragments, 300 s in all (first: a from 900 to 1200 s)",)
    with pytest.raises(InvalidInput, match="nothing was recorded of a from 900 to 1200 s"):
        holed.require_whole()


@pytest.mark.parametrize(
    ("ends", "durations", "said"),
    [
        ([15, 25, 20], [5, 5, 5], r"row 2 \(a\): its fragment \(900 to 1200 s\) lies before that of row 1"),
        ([15, 20, 23], [5, 5, 5], r"row 2 \(a\): its fragment \(1080 to 1380 s\) lies inside that of row 1"),
        ([15, 15], [5, 5], r"row 1 \(a\): its fragment \(600 to 900 s\) lies inside that of row 0"),
    ],
)
def test_refuses_fragments_out_of_order_or_overlapping(
    tmp_path: Path, ends: list[int], durations: list[int], said: str
) -> None:
    write(tmp_path, stamped(ends, durations))
    with pytest.raises(InvalidInput, match=said):
        read_trace(tmp_path)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999))
def test_fragments_of_any_length_keep_their_work(seed: int) -> None:
    random = np.random.default_rng(seed)
    durations = random.integers(1, 900, 20)
    owner = random.integers(0, 2, 20)
    owner[:2] = [0, 1]
    usage = random.uniform(0, 2000, 20)
    two = {key: value * 2 for key, value in TASK.items()} | {"id": ["t0", "t1"], "submission_time": [1234, 5678]}
    with TemporaryDirectory() as name:
        write(Path(name), {"id": [f"t{n}" for n in owner], "duration": durations * 1000, "cpu_usage": usage}, **two)
        trace = read_opendc(Path(name) / "tasks.parquet", Path(name) / "fragments.parquet", 1e6)
    work = np.bincount(owner, usage * durations) / np.bincount(owner, durations) / 20
    np.testing.assert_allclose(trace.cpu_pct[0], work, rtol=1e-5)


GOOD = {"id": ["a"], "duration": [900_000], "cpu_usage": [1000.0]}


@pytest.mark.parametrize(
    ("fragments", "changes", "said"),
    [
        ({**GOOD, "id": ["z"]}, {}, r"fragments\.parquet row 0: id z is not in tasks\.parquet"),
        ({**GOOD, "duration": [-1]}, {}, r"fragments\.parquet row 0: duration is -0\.001"),
        ({**GOOD, "cpu_usage": [None]}, {}, "cpu_usage is null; give numbers"),
        ({**GOOD, "cpu_usage": [-1.0]}, {}, "row 0: cpu_usage is -1; give MHz"),
        ({**GOOD, "timestamp": pa.array([None], pa.int64())}, {}, "row 0: timestamp is nan; give the time of its end"),
        ({"id": ["a"]}, {}, "columns missing: duration, cpu_usage or cpuUsage"),
        ({key: pa.array([], pa.string()) for key in GOOD}, {}, r"fragments\.parquet holds no row"),
        (GOOD, {"cpu_capacity": [0.0]}, r"tasks\.parquet row 0: cpu_capacity is 0; give a number above 0"),
        (GOOD, {"mem_capacity": ["x"]}, "memory is string; give numbers"),
        (GOOD, {"duration": [-5]}, "row 0: duration is -0.005; give ms"),
        (GOOD, {"id": pa.array([None], pa.string())}, r"tasks\.parquet row 0: id is null"),
        (GOOD, {key: value * 2 for key, value in TASK.items()}, r"tasks\.parquet rows 0 and 1: id a stands twice"),
    ],
)
def test_names_what_is_wrong(tmp_path: Path, fragments: dict[str, Any], changes: dict[str, Any], said: str) -> None:
    write(tmp_path, fragments, **changes)
    with pytest.raises(InvalidInput, match=said):
        read_trace(tmp_path)
