"""Traces: what is checked, what resampling, scaling and filling keep, and the load made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import InvalidInput
from trimtab.platform.snapshot import History
from trimtab.simulator.load import from_planetlab, read_planetlab
from trimtab.simulator.traces.trace import Trace, from_history, to_days


def trace(
    values: npt.NDArray[np.float64] | npt.NDArray[np.float32] | Sequence[Sequence[float]],
    step_s: float = 300.0,
    start_s: float = 0.0,
) -> Trace:
    cpu_pct = np.array(values, np.float32)
    return Trace(start_s, step_s, cpu_pct, pa.array([f"vm-{n}" for n in range(cpu_pct.shape[1])]))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), parts=st.integers(1, 6), blocks=st.integers(1, 6), other=st.integers(1, 6))
def test_resampling_keeps_the_integral(seed: int, parts: int, blocks: int, other: int) -> None:
    whole = trace(np.random.default_rng(seed).uniform(0, 100, (parts * blocks * other, 3)))
    step_s = 300.0 * parts / other
    again = whole.resampled(step_s)
    np.testing.assert_allclose(again.cpu_pct.sum(0) * step_s, whole.cpu_pct.sum(0) * 300, rtol=1e-5)


def test_resampling_down_is_the_mean_of_what_is_known_and_up_holds() -> None:
    holes = trace([[10, np.nan], [20, np.nan], [np.nan, 5], [40, 7]])
    np.testing.assert_array_equal(holes.resampled(600).cpu_pct, np.array([[15, np.nan], [40, 6]], np.float32))
    np.testing.assert_array_equal(holes.resampled(150).cpu_pct, np.repeat(holes.cpu_pct, 2, axis=0))


def test_scaling_stops_at_100_and_tells_what_is_lost() -> None:
    given_trace = trace([[80.0, 20.0]])
    np.testing.assert_array_equal(given_trace.scaled(2).cpu_pct, [[100, 40]])
    assert given_trace.clipped_pct(2) == pytest.approx(30.0)


def test_fills_holes_as_asked() -> None:
    holes = trace([[np.nan], [10], [np.nan], [30]])
    np.testing.assert_array_equal(holes.filled("hold").cpu_pct[:, 0], [10, 10, 10, 30])
    np.testing.assert_array_equal(holes.filled("zero").cpu_pct[:, 0], [0, 10, 0, 30])
    np.testing.assert_array_equal(holes.filled("typical").cpu_pct[:, 0], [20, 10, 20, 30])
    half_days = trace([[10], [20], [np.nan], [60]], step_s=43200)
    np.testing.assert_array_equal(half_days.filled("typical").cpu_pct[:, 0], [10, 20, 10, 60])
    with pytest.raises(InvalidInput, match="vm-0 has no sample"):
        trace([[np.nan]]).filled("hold")


def test_names_the_sample_that_is_out_of_range() -> None:
    with pytest.raises(InvalidInput, match="sample 1 of vm-0 is 101"):
        trace([[1], [101]])
    with pytest.raises(InvalidInput, match="stands twice"):
        Trace(0, 300, np.zeros((1, 2), np.float32), pa.array(["a", "a"]))
    with pytest.raises(InvalidInput, match="vcpus has shape"):
        Trace(0, 300, np.zeros((1, 2), np.float32), pa.array(["a", "b"]), vcpus=np.ones(3))


def test_days_keep_their_order_their_time_of_day_and_wrap_around() -> None:
    values = np.arange(3 * 288)[:, None] / 10
    days = to_days(trace(values, start_s=5 * 86400.0), 1, seed=1, variation=0, own_rows=True)
    for number, which in ((5, 0), (6, 1), (7, 2), (8, 0), (4, 2)):
        np.testing.assert_array_equal(days(number), values[which * 288 : (which + 1) * 288].astype(np.float32))
    late = to_days(trace(values[:288], start_s=3600.0), 1, variation=0)
    np.testing.assert_array_equal(late(0)[12:], values[:276].astype(np.float32))


def test_deals_a_day_as_planetlab_is_dealt(tmp_path: Path) -> None:
    rows = np.random.default_rng(3).integers(0, 101, (4, 288))
    table = pa.table({"vm_index": range(4), "name": list("abcd"), "cpu_pct": rows.tolist()})
    pq.write_table(table, tmp_path / "day.parquet")
    one = to_days(trace(read_planetlab(tmp_path / "day.parquet").T), 9, seed=7, variation=0.5)
    other = from_planetlab(tmp_path / "day.parquet", 9, seed=7, variation=0.5)
    for number in (0, 3):
        np.testing.assert_array_equal(one(number), other(number))


def test_a_history_keeps_its_rows_and_holes() -> None:
    cpu_pct = np.array([[1, np.nan], [2, 3]], np.float32)
    made = from_history(History(600.0, 300.0, cpu_pct), ["x", "y"])
    np.testing.assert_array_equal(made.cpu_pct, cpu_pct)
    assert made.ids.to_pylist() == ["x", "y"]
    assert made.end_s == 1200


def test_gaps_are_named_by_instance_and_time_and_only_while_it_lives() -> None:
    nan = np.nan
    holes = trace([[1, nan], [nan, nan], [nan, 4], [1, nan]], start_s=600)
    assert holes.gaps() == [("vm-0", 900, 1500), ("vm-1", 600, 1200), ("vm-1", 1500, 1800)]
    with pytest.raises(InvalidInput, match="nothing was recorded of vm-0 from 900 to 1500 s, vm-1 from 600 to 1200 s"):
        holes.require_whole()
    living = replace(holes, begins_s=np.array([1500.0, 1200.0]), ends_s=np.array([np.inf, 1500.0]))
    assert living.require_whole() is living
    later = replace(living, ends_s=np.array([np.inf, 1501.0]))
    assert later.gaps() == [("vm-1", 1500, 1800)]
    assert holes.filled("zero").require_whole().gaps() == []
    many = trace([[nan] * 7])
    with pytest.raises(InvalidInput, match="vm-4 from 0 to 300 s and 2 more: fill"):
        many.require_whole()
