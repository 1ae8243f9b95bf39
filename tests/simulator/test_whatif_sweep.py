"""Sweeps as a whole: batches, lost workers, parts on disk that pandas, polars and DuckDB read, and going on."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.compute import WorkerLost, in_batches, run_batch
from trimtab.platform.contracts import Ran
from trimtab.platform.errors import InvalidInput, NotFound
from trimtab.platform.store.parts import Parts, Results
from trimtab.platform.store.port import SweepsPort
from trimtab.platform.store.sweeps import Sweeps
from trimtab.serve import whatif_command, whatif_engine
from trimtab.simulator.whatif import engine, rows, summary
from trimtab.simulator.whatif.cell_run import finished
from trimtab.simulator.whatif.reading import read_sweep

UUID = "12345678-1234-1234-1234-123456789abc"


# -- batches -----------------------------------------------------------------------------------


async def gathered(run: Any, items: Sequence[Any], lanes: int = 2, batch_s: float = 1.0) -> dict[int, Ran]:
    found: dict[int, Ran] = {}
    async for ended in in_batches(run, items, lanes, batch_s):
        for position, result in ended:
            assert position not in found, "nothing ends twice"
            found[position] = result
    return found


def worker(seconds: float = 0.01, deadly: frozenset[int] = frozenset()) -> tuple[Any, list[list[int]]]:
    """Something that doubles numbers, and dies of some; and what it was given."""
    batches: list[list[int]] = []

    async def run(items: Sequence[int]) -> list[Ran]:
        batches.append(list(items))
        await asyncio.sleep(0)
        if deadly & set(items):
            raise WorkerLost("killed")
        return [Ran(2 * item, "n", "w", seconds) for item in items]

    return run, batches


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 60),
    lanes=st.integers(1, 5),
    seconds=st.floats(1e-4, 3),
    deadly=st.frozensets(st.integers(0, 59), max_size=4),
)
def test_everything_ends_once_and_what_kills_twice_is_given_up(
    count: int, lanes: int, seconds: float, deadly: frozenset[int]
) -> None:
    run, batches = worker(seconds, deadly)
    found = asyncio.run(gathered(run, list(range(count)), lanes))
    assert sorted(found) == list(range(count))
    for position, result in found.items():
        if position in deadly:
            assert result.error is not None
            assert "given up after 2 lost workers: killed" in result.error
        else:
            assert (result.value, result.error) == (2 * position, None), "neighbours of the deadly survive"
    asked = Counter(item for batch in batches for item in batch)
    assert all(times <= 2 for times in asked.values())


async def test_batches_grow_to_what_a_second_holds_and_shrink_at_the_end() -> None:
    run, batches = worker(seconds=0.05)
    await gathered(run, list(range(200)), lanes=2)
    sizes = [len(batch) for batch in batches]
    assert sizes[0] == 1
    assert max(sizes) == 20
    assert sizes[-1] < 5


async def test_no_more_batches_are_under_way_than_there_are_lanes() -> None:
    now, most = 0, 0

    async def run(items: Sequence[int]) -> list[Ran]:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        return [Ran(item, "n", "w", 0.5) for item in items]

    await gathered(run, list(range(30)), lanes=3)
    assert most == 3


async def test_who_stops_listening_stops_the_work() -> None:
    cancelled: list[int] = []

    async def run(items: Sequence[int]) -> list[Ran]:
        try:
            await asyncio.sleep(0 if items[0] == 0 else 60)
        except asyncio.CancelledError:
            cancelled.extend(items)
            raise
        return [Ran(item, "n", "w", 0.1) for item in items]

    batches = in_batches(run, [0, 1, 2], lanes=2)
    assert [position for position, _ in await anext(batches)] == [0]
    await batches.aclose()
    assert cancelled == [1]


async def test_a_fault_of_the_runner_itself_is_not_swallowed() -> None:
    async def run(_: Sequence[int]) -> list[Ran]:
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        await gathered(run, [1, 2])


# -- parts -------------------------------------------------------------------------------------


def sweep_rows(keys: Sequence[str], error: str = "") -> pa.Table:
    base = {"topology": "t", "load": "l", "policy": "p", "strategy": "", "seed": 1, "notes": "", "cpu_s": 0.1}
    return rows.table_of([{**base, "key": key, "energy_kwh": float(len(key)), "error": error} for key in keys])


def test_parts_are_one_table_for_pandas_polars_and_duckdb(tmp_path: Path) -> None:
    results = Results(tmp_path / "out")
    results.add(sweep_rows(["a", "bb"]), {})
    results.add(sweep_rows(["ccc"], error="broken"), {})
    folder = tmp_path / "out" / "cells"
    with_pandas = pd.read_parquet(folder)
    with_polars = pl.read_parquet(folder)
    with_duckdb = duckdb.sql(f"SELECT * FROM read_parquet('{folder}/*.parquet') ORDER BY key").to_arrow_table()
    assert (
        sorted(with_pandas["key"]) == sorted(with_polars["key"]) == with_duckdb["key"].to_pylist() == ["a", "bb", "ccc"]
    )
    assert with_pandas["energy_kwh"].sum() == with_polars["energy_kwh"].sum() == 6.0
    assert with_duckdb.column_names == list(with_pandas.columns) == with_polars.columns == rows.SCHEMA.names
    assert {path.suffix for path in folder.iterdir()} == {".parquet"}, "no draft is left behind or ever seen"
    assert results.counts() == (3, 1)


@settings(max_examples=40, deadline=None)
@given(scenarios=st.lists(st.frozensets(st.sampled_from("abcdef"), min_size=1), min_size=1, max_size=5))
def test_whatever_scenarios_follow_each_other_no_cell_is_computed_twice(
    scenarios: list[frozenset[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("out")
    computed: list[str] = []
    for wanted in scenarios:
        results = Results(folder)
        there = results.begin(wanted)
        todo = sorted(wanted - there)
        computed += todo
        for key in todo:
            results.add(sweep_rows([key]), {})
        assert results.cells.keys() == wanted, "the folder says what the present scenario says"
    assert sorted(computed) == sorted(frozenset().union(*scenarios))


def test_cells_that_failed_are_computed_again_only_when_asked(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.add(sweep_rows(["a"]), {})
    results.add(sweep_rows(["b"], error="broken"), {})
    assert results.begin({"a", "b", "c"}) == {"a", "b"}
    assert results.begin({"a", "b", "c"}, again=True) == {"a"}
    assert results.cells.keys() == {"a"}


def test_drafts_of_a_killed_process_are_removed_by_the_next(tmp_path: Path) -> None:
    results = Results(tmp_path / "deep" / "out")
    results.add(sweep_rows(["a"]), {"a": pa.table({"at_s": [1.0]})})
    for name in (".cells-1.draft", ".series-2.draft"):
        (results.folder / name).write_bytes(b"half")
    assert results.begin({"a"}) == {"a"}
    assert {path.name for path in results.folder.iterdir()} == {"cells", "series"}


def test_a_row_that_is_there_twice_after_a_crash_counts_once(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.append(sweep_rows(["a", "b"]))
    parts.append(sweep_rows(["b", "c"]))
    table = parts.table()
    assert table is not None
    assert sorted(table["key"].to_pylist()) == ["a", "b", "c"]


def test_the_state_keeps_sweeps_apart_and_takes_a_cell_once(tmp_path: Path) -> None:
    sweeps = Sweeps(tmp_path)
    series = pa.table({"at_s": [1.0]})
    key = "a" * 32
    with pytest.raises(NotFound):
        sweeps.add(UUID, sweep_rows([key]), {})
    assert sweeps.begin(UUID, {key}) == set()
    assert sweeps.add(UUID, sweep_rows([key]), {key: series}) == (1, 0)
    assert sweeps.add(UUID, sweep_rows([key]), {key: series}) == (1, 0), "asked again after a crash"
    assert sweeps.series(UUID, key) == series
    assert sweeps.series(UUID, "../cells") is None
    sweeps.keep_origin(UUID, {"nodes": series})
    assert Sweeps(tmp_path).origin(UUID) == {"nodes": series}
    assert Sweeps(tmp_path).counts(UUID) == (1, 0)
    assert sweeps.page(UUID, {"policy": "p"}, limit=5)[0]["key"] == key
    assert sweeps.page(UUID, {"policy": "q"}, limit=5) == []
    sweeps.remove(UUID)
    assert sweeps.table(UUID) is None
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidInput, match="no uuid"):
        sweeps.begin("..", set())


async def test_failures_of_before_count_when_a_sweep_goes_on(tmp_path: Path) -> None:
    sweep = read_sweep({"base": {"hosts": 4, "instances": 8}, "axes": {"seeds": [1, 2, 3]}, "horizon_h": 1})
    sweeps = Sweeps(tmp_path)
    there = [rows.failed(cell, "broken") for cell in sweep.cells[:2]]
    sweeps.begin(UUID, {cell.key for cell in sweep.cells})
    sweeps.add(UUID, rows.table_of(there), {})
    folder = Results(tmp_path / UUID)
    for keeper in (whatif_engine.Kept(SweepsPort.direct(sweeps), UUID), whatif_command.Folder(folder)):
        steps = engine.run_sweep(sweep, keeper, whatif_command.here, time.monotonic)
        first = await anext(steps)
        await steps.aclose()
        assert (first.done, first.failed, first.resumed) == (2, 2, 2)


# -- rows and summaries ------------------------------------------------------------------------


def test_a_cell_that_fails_is_a_row_with_its_error_and_the_rest_goes_on() -> None:
    sweep = read_sweep({"base": {"hosts": 4, "instances": 8}, "axes": {"seeds": [1, 2]}, "horizon_h": 1})
    from trimtab.simulator.whatif.cell_run import Ground, run_cell

    def half(ground: Ground, cell: Any) -> Any:
        if cell.seed == 1:
            raise ArithmeticError("no such luck")
        return run_cell(ground, cell)

    ended = run_batch(half, Ground(sweep.scenario, sweep.origin), sweep.cells, "here")
    table, series = finished(sweep.cells, list(enumerate(ended)))
    assert table["error"].to_pylist() == ["ArithmeticError: no such luck", ""]
    assert series == {}
    (point,) = summary.points_of(table)
    assert (point.seeds, point.failed) == (2, 1)
    assert point.figures["energy_kwh"].low == point.figures["energy_kwh"].high > 0


@given(points=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_the_front_holds_exactly_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    best = summary.front([x for x, _ in points], [y for _, y in points])
    beaten = {n for n, (x, y) in enumerate(points) if any(a <= x and b <= y and (a, b) != (x, y) for a, b in points)}
    assert {points[n] for n in best} == {point for n, point in enumerate(points) if n not in beaten}
    assert not beaten & set(best)


def test_what_was_not_computed_is_never_best() -> None:
    nan = float("nan")
    assert summary.front([1.0, nan, 0.0], [1.0, 0.0, nan]) == [0]
    with pytest.raises(InvalidInput, match="there is no figure 'colour'"):
        summary.check_column("colour")


# -- a driver that is killed -------------------------------------------------------------------

DRIVER = """
import os, sys
from pathlib import Path
from rich.console import Console
from trimtab.platform.settings import Settings
from trimtab.serve import whatif_command
from trimtab.simulator.whatif.cell_run import run_cell

log = os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def counted(ground, cell):
    ended = run_cell(ground, cell)
    os.write(log, (cell.key + "\\n").encode())
    return ended

whatif_command.run_cell = counted
options = whatif_command.Options(out=Path(sys.argv[2]), local=True, as_json=True)
whatif_command.run(Path(sys.argv[1]), options, Settings(), Console(), Console(stderr=True))
"""


def driver(scenario: Path, out: Path, log: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", DRIVER, str(scenario), str(out), str(log)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def lines(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def until(said: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    import time

    deadline = time.monotonic() + 120
    while not said():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def test_a_killed_driver_goes_on_and_computes_no_finished_cell_again(tmp_path: Path) -> None:
    scenario, out, log = tmp_path / "scenario.json", tmp_path / "out", tmp_path / "log"
    policies = [{"name": "nobody"}, {"name": "spread", "strategy": "workload_stabilization"}]
    axes = {"policy": policies, "seeds": {"count": 60}}
    scenario.write_text(json.dumps({"base": {"hosts": 20, "instances": 200}, "axes": axes}))
    first = driver(scenario, out, log)
    until(lambda: len(lines(log)) >= 20 and bool(Results(out).cells.files()), first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    finished_before = Results(out).cells.keys()
    began = Counter(lines(log))
    assert set(began.values()) == {1}
    assert 0 < len(finished_before) < 120, "it was killed in the middle"
    second = driver(scenario, out, log)
    told = json.loads(second.communicate(timeout=200)[0])
    assert (told["cells_resumed"], told["cells_computed"]) == (len(finished_before), 120 - len(finished_before))
    total = Counter(lines(log))
    assert len(total) == 120
    again = {key for key, times in total.items() if times > 1}
    assert not again & finished_before, "what was finished was not computed again"
    assert again == set(began) - finished_before, "only what was under way was"
    assert max(total.values()) <= 2
    third = json.loads(driver(scenario, out, log).communicate(timeout=100)[0])
    assert (third["cells_resumed"], third["cells_computed"]) == (120, 0)
    assert Counter(lines(log)) == total
    axes["seeds"] = {"count": 61}
    scenario.write_text(json.dumps({"base": {"hosts": 20, "instances": 200}, "axes": axes}))
    wider = json.loads(driver(scenario, out, log).communicate(timeout=100)[0])
    assert (wider["cells_resumed"], wider["cells_computed"]) == (120, 2), "a longer axis computes only what is new"
