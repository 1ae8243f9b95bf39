"""The backtest: what a record makes of gaps and strangers, and that policies differ only in what they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import ClusterModel
from trimtab.platform.plugins import load as load_plugins
from trimtab.simulator.backtest import Gap, Record, backtest, when
from trimtab.simulator.closed_loop import Case, Policy, run
from trimtab.simulator.load import Load, generated
from trimtab.simulator.truth import CloudSpec

DAY_S = 86_400.0
START_S = 20_000 * DAY_S
MODEL = CloudSpec(hosts=10, instances=70, seed=4).model()

Samples = npt.NDArray[np.float32]


def recorded(days: float = 2.0) -> Samples:
    load = Load(generated(MODEL.instances, 6), MODEL.instances)
    return load.cpu_pct(int(START_S // 300), round(days * 288))


def levelling(name: str = "level", threshold: float = 0.02) -> Policy:
    strategy = load_plugins().strategy("workload_stabilization")
    parameters = strategy.parameters.model_validate(
        {"thresholds": {"instance_cpu_usage": threshold}, "host_choice": "fullsearch"}
    )
    return Policy(name, strategy, parameters)


def test_a_whole_record_gives_what_the_closed_loop_gives() -> None:
    record = Record.of(MODEL, START_S, recorded())
    policy = levelling()
    done = backtest(MODEL, record, [policy], START_S + DAY_S, START_S + 2 * DAY_S)
    true = Load(generated(MODEL.instances, 6), MODEL.instances)
    expected = run(Case(MODEL, true, policy, START_S + DAY_S))
    assert [tried.policy.name for tried in done.tried] == ["nobody", "level"]
    assert asdict(done.tried[1].outcome.score) == pytest.approx(asdict(expected.score))
    assert done.tried[1].outcome.moves == expected.moves
    assert len(expected.moves) > 3
    assert done.tried[0].outcome.moves == ()
    assert done.notes == ()


def test_rows_series_and_moves_are_tables_about_the_same_runs() -> None:
    record = Record.of(MODEL, START_S, recorded())
    done = backtest(MODEL, record, [levelling(), levelling("calm", 1.0)], START_S + DAY_S, START_S + 1.5 * DAY_S)
    rows = done.table()
    assert rows["policy"].to_pylist() == ["nobody", "level", "calm"]
    assert rows["strategy"].to_pylist() == [None, "workload_stabilization", "workload_stabilization"]
    assert rows["audits"].to_pylist() == [0, 12, 12]
    assert rows["energy_kwh"][0].as_py() == rows["energy_kwh"][2].as_py()  # calm never acts
    series = done.series()
    assert series.num_rows == 3 * 144
    moves = done.moves(done.tried[1])
    assert moves.num_rows == rows["migrations"][1].as_py() > 0
    assert sum(moves["moved_gib"].to_pylist()) == pytest.approx(rows["moved_gib"][1].as_py())
    assert set(moves["source"].to_pylist()) <= set(MODEL.host_names.to_pylist())
    assert done.moves(done.tried[2]).num_rows == 0
    assert done.moves(done.tried[2]).schema == moves.schema


def test_gaps_and_unmeasured_instances_are_named_counted_and_survived() -> None:
    cpu_pct = recorded()
    cpu_pct[300:312] = np.nan
    cpu_pct[400:401] = np.nan
    running = np.flatnonzero((MODEL.state == 0) & (MODEL.host_of >= 0))
    cpu_pct[:, running[:5]] = np.nan
    record = Record.of(MODEL, START_S, cpu_pct)
    assert record.gaps == (
        Gap(START_S + 300 * 300, START_S + 312 * 300),
        Gap(START_S + 400 * 300, START_S + 401 * 300),
    )
    assert record.unmeasured.sum() == 5
    assert record.holes == pytest.approx(13 / 576)
    done = backtest(MODEL, record, [levelling()], START_S + DAY_S, START_S + 2 * DAY_S)
    first, second, third = done.notes
    assert first.startswith("nothing was recorded for 1.08 h in 2 gaps (from 2024-10-05 01:00 for 60 min, ")
    assert second.startswith("2.3 % of the samples are missing")
    assert third.startswith("5 instances have no sample")
    assert MODEL.instance_name(int(running[0])) in third
    assert done.tried[1].outcome.figures["failed_audits"] == 0
    assert done.tried[1].outcome.figures["migrations"] > 0


def test_in_a_gap_instances_run_at_their_own_mean(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(1, [0, 0], [(4, 4_096, 20)] * 2)
    cpu_pct = np.full((288, 2), 50, np.float32)
    cpu_pct[:144, 0] = 30
    cpu_pct[100:200] = np.nan  # 100 samples at 30 and 88 at 50 are left of the first
    record = Record.of(model, START_S, cpu_pct)
    mean = (100 * 30 + 88 * 50) / 188
    assert record.typical_pct.tolist() == pytest.approx([mean, 50])
    series = backtest(model, record, [], START_S, START_S + DAY_S).series()
    demand = series["demand_vcpus"].to_numpy()
    assert demand[:100] == pytest.approx(4 * (0.3 + 0.5))
    assert demand[100:200] == pytest.approx(4 * (mean / 100 + 0.5), rel=1e-6)
    assert demand[200:] == pytest.approx(4 * (0.5 + 0.5))


@given(
    holes=hnp.arrays(bool, (40, 6), elements=st.booleans()),
    offset=st.integers(0, 600),
)
@settings(max_examples=40, deadline=None)
def test_the_load_of_a_record_is_the_record_and_nothing_around_it(holes: npt.NDArray[np.bool_], offset: int) -> None:
    model = CloudSpec(hosts=3, instances=6, seed=1).model()
    cpu_pct = np.arange(240, dtype=np.float32).reshape(40, 6) % 101
    cpu_pct[holes] = np.nan
    if not np.isfinite(cpu_pct).any():
        return
    record = Record.of(model, offset * 300.0, cpu_pct)
    around = record.load().cpu_pct(max(offset - 5, 0), 50)
    before = min(offset, 5)
    assert np.isnan(around[:before]).all()
    np.testing.assert_array_equal(around[before : before + 40], cpu_pct)
    assert np.isnan(around[before + 40 :]).all()
    silent = {t for gap in record.gaps for t in range(round(gap.start_s / 300), round(gap.end_s / 300))}
    assert silent == set((np.flatnonzero(np.isnan(cpu_pct).all(axis=1)) + offset).tolist())


def test_settings_reach_every_run() -> None:
    record = Record.of(MODEL, START_S, recorded(1.0))
    from trimtab.simulator.power import Power

    constant = Power.named("constant", MODEL.total[:, 0])
    done = backtest(
        MODEL, record, [levelling()], START_S, START_S + DAY_S / 4, settings=lambda case: replace(case, power=constant)
    )
    nobody, level = (row["energy_kwh"] for row in done.rows())
    assert nobody == pytest.approx(level)
    assert nobody == pytest.approx(float((constant.idle_w + constant.busy_w).sum()) * 6 / 1000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Record.of(MODEL, START_S, np.full((4, MODEL.instances), np.nan, np.float32)), "holds no sample"),
        (lambda: Record.of(MODEL, START_S, np.ones((4, 3), np.float32)), "one column for each of 70"),
        (lambda: Record.of(MODEL, START_S + 7, recorded(1.0)), "whole multiples of 300 s"),
        (
            lambda: backtest(MODEL, Record.of(MODEL, START_S, recorded(1.0)), [], START_S, START_S + 2 * DAY_S),
            "is not within the record, which goes from 2024-10-04 00:00 to 2024-10-05 00:00",
        ),
        (
            lambda: backtest(
                MODEL, Record.of(MODEL, START_S, recorded(1.0)), [levelling(), levelling()], START_S, START_S + 600
            ),
            "two policies have one name",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()


def test_times_are_told_in_utc() -> None:
    assert when(START_S + 3661) == "2024-10-04 01:01"
