"""True load: reproducible, readable anywhere, spliced futures, recorded traces."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trimtab.platform.errors import InvalidInput
from trimtab.simulator.load import PER_DAY, Load, from_planetlab, generated, read_planetlab

FIRST = 20_000 * PER_DAY


def test_the_same_seed_gives_the_same_values_wherever_one_begins_to_read() -> None:
    whole = Load(generated(50, 1), 50).cpu_pct(FIRST, 3 * PER_DAY)
    load = Load(generated(50, 1), 50)
    for first, count in ((700, 20), (0, 1), (280, 20), (863, 1), (100, 600)):
        assert np.array_equal(load.cpu_pct(FIRST + first, count), whole[first : first + count])
    assert not np.array_equal(Load(generated(50, 2), 50).cpu_pct(FIRST, PER_DAY), whole[:PER_DAY])


def test_load_is_per_cent_and_has_idle_busy_and_changing_machines() -> None:
    day = Load(generated(2000, 5), 2000).cpu_pct(FIRST, PER_DAY)
    assert day.dtype == np.float32
    assert day.min() >= 0
    assert day.max() <= 100
    mean, spread = day.mean(axis=0), day.max(axis=0) - day.min(axis=0)
    assert (mean < 5).mean() > 0.15
    assert (mean > 50).mean() > 0.05
    assert (spread > 40).mean() > 0.3
    peaks = np.argmax(day, axis=0)
    assert len(np.unique(peaks // 12)) == 24  # phases differ


def test_days_differ_unless_variation_is_off() -> None:
    varied, fixed = Load(generated(40, 1), 40), Load(generated(40, 1, 0.0), 40)
    assert not np.array_equal(varied.cpu_pct(FIRST, PER_DAY), varied.cpu_pct(FIRST + PER_DAY, PER_DAY))
    assert np.array_equal(fixed.cpu_pct(FIRST, PER_DAY), fixed.cpu_pct(FIRST + PER_DAY, PER_DAY))


def test_a_rewritten_future_leaves_the_past_alone() -> None:
    load, cut = Load(generated(30, 1), 30), FIRST + 100
    before = load.cpu_pct(FIRST, 2 * PER_DAY)
    load.rewritten(cut, generated(30, 9))
    after = load.cpu_pct(FIRST, 2 * PER_DAY)
    assert np.array_equal(after[:100], before[:100])
    assert np.array_equal(after[100:], Load(generated(30, 9), 30).cpu_pct(cut, 2 * PER_DAY - 100))
    load.rewritten(cut - 50, generated(30, 10))  # again, from earlier on
    again = load.cpu_pct(FIRST, PER_DAY)
    assert np.array_equal(again[:50], before[:50])
    assert not np.array_equal(again[50:100], before[50:100])


def _write(path: Path, values: list[list[int]], kind: pa.DataType | None = None, **renamed: str) -> Path:
    column = pa.array(values, kind or pa.list_(pa.uint8(), PER_DAY))
    names = [renamed.get(name, name) for name in ("vm_index", "name", "cpu_pct")]
    indices = pa.array(range(len(values)), pa.uint16())
    pq.write_table(pa.table([indices, pa.array([f"vm{n}" for n in range(len(values))]), column], names=names), path)
    return path


def test_traces_are_dealt_out_to_more_and_to_fewer_instances(tmp_path: Path) -> None:
    traces = [[(n * 7 + s) % 100 for s in range(PER_DAY)] for n in range(10)]
    path = _write(tmp_path / "t.parquet", traces)
    assert np.array_equal(read_planetlab(path), np.array(traces, np.float32))
    for instances in (4, 25):
        day = Load(from_planetlab(path, instances, 1, variation=0.0), instances).cpu_pct(FIRST, PER_DAY)
        which = [traces.index(column.astype(int).tolist()) for column in day.T]
        counts = np.bincount(which, minlength=10)
        assert counts.max() - counts.min() <= 1
    assert which != sorted(which)


def test_tomorrow_is_like_yesterday_but_not_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    path = _write(tmp_path / "t.parquet", rng.integers(0, 60, (30, PER_DAY)).cumsum(axis=1).__mod__(90).tolist())
    load = Load(from_planetlab(path, 60, 1), 60)
    days = load.cpu_pct(FIRST, 2 * PER_DAY).reshape(2, PER_DAY, 60)
    assert not np.array_equal(days[0], days[1])
    assert abs(days[0].mean() - days[1].mean()) < 0.05 * days[0].mean()
    assert days.min() >= 0
    assert days.max() <= 100
    assert np.array_equal(Load(from_planetlab(path, 60, 1), 60).cpu_pct(FIRST + 300, 5), load.cpu_pct(FIRST + 300, 5))


def test_wrong_trace_files_are_refused_with_row_and_remedy(tmp_path: Path) -> None:
    good = [[1] * PER_DAY, [2] * PER_DAY]
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_planetlab(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_planetlab(tmp_path / "text.parquet")
    with pytest.raises(InvalidInput, match="column 'cpu_pct' is missing"):
        read_planetlab(_write(tmp_path / "a.parquet", good, cpu_pct="cpu"))
    with pytest.raises(InvalidInput, match=r"row 1 \(vm1\): cpu_pct has 5 values; it must have 288"):
        read_planetlab(_write(tmp_path / "b.parquet", [good[0], [3] * 5], pa.list_(pa.uint8())))
    bad = [*good, [4] * 287 + [101]]
    with pytest.raises(InvalidInput, match=r"row 2 \(vm2\): cpu_pct\[287\] is 101"):
        read_planetlab(_write(tmp_path / "c.parquet", bad))
    with pytest.raises(InvalidInput, match=r"row 0 .*is -3"):
        read_planetlab(_write(tmp_path / "d.parquet", [[-3] * PER_DAY], pa.list_(pa.int16(), PER_DAY)))
    values = pa.array([[1.0] * 287 + [None]], pa.list_(pa.float32(), PER_DAY))
    pq.write_table(pa.table({"vm_index": [0], "name": ["vm0"], "cpu_pct": values}), tmp_path / "n.parquet")
    with pytest.raises(InvalidInput, match=r"row 0 .*is nan"):
        read_planetlab(tmp_path / "n.parquet")
    pq.write_table(pa.table({"vm_index": [0], "name": ["vm0"], "cpu_pct": [1]}), tmp_path / "e.parquet")
    with pytest.raises(InvalidInput, match="cpu_pct is int64; it must be a list"):
        read_planetlab(tmp_path / "e.parquet")
    with pytest.raises(InvalidInput, match="holds no trace"):
        read_planetlab(_write(tmp_path / "f.parquet", []))


@pytest.mark.shared
def test_recorded_days_have_the_published_means() -> None:
    shared = Path(os.environ.get("TRIMTAB_SHARED", Path(__file__).parents[2] / ".." / "shared"))
    folder = shared / "data" / "planetlab"
    if not folder.exists():
        pytest.skip(f"{folder} is absent: the recorded days are not part of the repository")
    for name, machines, mean in (("20110303", 1052, 12.3144), ("20110325", 1078, 10.5613), ("20110412", 1054, 11.5360)):
        traces = read_planetlab(folder / f"{name}.parquet")
        assert traces.shape == (machines, PER_DAY)
        assert traces.mean(dtype=np.float64) == pytest.approx(mean, abs=5e-5)
