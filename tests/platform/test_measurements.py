"""Measurements: sums equal a plain Python reference whatever the files look like; crashes neither lose nor double."""

import json
import math
import threading
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import DatasourceError, InvalidInput
from trimtab.platform.snapshot import Need
from trimtab.platform.store import measurements as module
from trimtab.platform.store.measurements import Measurements

DAY = 86400
TODAY = date(2026, 3, 1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
CPU = "instance_cpu_usage"
Sample = tuple[str, float, float]


def table(*samples: Sample) -> pa.Table:
    columns = list(zip(*samples, strict=True)) or [(), (), ()]
    types = (pa.string(), pa.float64(), pa.float64())
    arrays = [pa.array(values, kind) for values, kind in zip(columns, types, strict=True)]
    return pa.table(dict(zip(("resource", "at", "value"), arrays, strict=True)))


def rows(found: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in found.columns), strict=True))


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Measurements]:
    opened = Measurements(tmp_path / "metrics")
    yield opened
    opened.close()


def files(kept: Measurements) -> list[Path]:
    return sorted(kept._folder.rglob("*.parquet"))


# -- results -------------------------------------------------------------------------------------

AGGREGATE: dict[str, Any] = {"mean": lambda v: math.fsum(v) / len(v), "min": min, "max": max, "count": len}
samples = st.lists(
    st.tuples(
        st.sampled_from(["vm-1", "vm-2", "ü\U0001f600", "'"]),
        st.sampled_from(
            [NOON + offset for offset in (-2 * DAY, -DAY, -43_201, -43_200, -300, -299.5, -1, 0, 1, 43_200)]
        ),
        st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf]),
    ),
    max_size=12,
)
needs = st.lists(
    st.builds(Need, st.sampled_from([CPU, "other"]), st.sampled_from(["instance", "host"]),
              st.sampled_from(list(AGGREGATE)), st.sampled_from([1, 300, 43_200, 3 * DAY])),
    max_size=3,
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    batches=st.lists(st.tuples(st.sampled_from(["instance", "host"]), samples), max_size=4),
    needs=needs,
    merge=st.booleans(),
)
def test_aggregates_and_samples_equal_a_plain_reference(
    tmp_path_factory: pytest.TempPathFactory, batches: list[tuple[str, list[Sample]]], needs: list[Need], merge: bool
) -> None:
    kept = Measurements(tmp_path_factory.mktemp("metrics"))
    known = [(kind, *sample) for kind, batch in batches for sample in batch if math.isfinite(sample[2])]
    assert sum(kept.append(CPU, kind, table(*batch)) for kind, batch in batches) == len(known)
    if merge:
        for day in kept.days(CPU):
            kept.compact(day)
    wanted = []
    for position, need in enumerate(needs):
        groups = defaultdict(list)
        for kind, resource, at, value in known:
            if (need.metric, need.kind) == (CPU, kind) and NOON - need.window_s <= at < NOON:
                groups[resource].append(value)
        wanted += [(position, name, AGGREGATE[need.aggregate](groups[name])) for name in sorted(groups)]
    found = rows(kept.aggregate(needs, NOON))
    assert [row[:2] for row in found] == [row[:2] for row in wanted]
    assert [row[2] for row in found] == pytest.approx([row[2] for row in wanted], rel=1e-9, abs=1e-6)
    for start, end in ((NOON - 300, NOON), (0, math.inf), (NOON, NOON), (NOON - DAY, NOON + DAY)):
        plain = [(name, at, value) for kind, name, at, value in known if kind == "instance" and start <= at < end]
        plain.sort(key=lambda sample: (sample[1], sample[0], sample[2]))
        assert rows(kept.samples(CPU, "instance", start, end)) == plain
    kept.close()


def test_the_answers_columns_are_those_of_a_datasource(kept: Measurements) -> None:
    for filled in (False, True):
        if filled:
            kept.append(CPU, "instance", table(("vm", NOON - 1, 5.0)))
        aggregated = kept.aggregate([Need(CPU, "instance", "count")], NOON)
        assert [(f.name, f.type) for f in aggregated.schema] == [
            ("need", pa.int32()), ("resource", pa.string()), ("value", pa.float64())]  # fmt: skip
        recorded = kept.samples(CPU, "instance", 0, NOON)
        assert [(f.name, f.type) for f in recorded.schema] == [
            ("resource", pa.string()), ("at", pa.float64()), ("value", pa.float64())]  # fmt: skip
        assert aggregated.num_rows == recorded.num_rows == int(filled)


def test_days_outside_the_interval_are_not_even_opened(kept: Measurements) -> None:
    kept.append(CPU, "instance", table(("vm", NOON - DAY, 1.0), ("vm", NOON, 2.0)))
    wanted = kept._files(CPU, NOON - 60, NOON + 60)
    assert [path.parent.name for path in wanted] == ["date=2026-03-01"]
    assert kept._files(CPU, NOON - DAY, NOON - 43_200) == [path for path in files(kept) if "02-28" in str(path)]


def test_other_column_types_are_taken(kept: Measurements) -> None:
    odd = pa.table(
        {
            "value": pa.array([1, None, 3], pa.int32()),
            "resource": pa.array(["a", "b", "c"]).dictionary_encode(),
            "at": pa.array([int(NOON)] * 3),
            "more": pa.array([1, 2, 3]),
        }
    )
    assert kept.append(CPU, "instance", odd) == 2
    assert rows(kept.samples(CPU, "instance", 0, NOON + 1)) == [("a", NOON, 1.0), ("c", NOON, 3.0)]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"at": None}, "column at is missing"),
        ({"value": None}, "column value is missing"),
        ({"at": [NOON, math.nan]}, "row 1: nan is no time"),
        ({"at": [-1.0, NOON]}, "row 0: -1.0 is no time"),
        ({"at": [NOON, None]}, "row 1: nan is no time"),
        ({"at": [math.inf, NOON]}, "row 0: inf is no time"),
        ({"at": [NOON * 1000, NOON]}, "row 0: .* is no time: give seconds"),
        ({"at": ["noon", "one"]}, "column at cannot be string"),
        ({"resource": ["vm", None]}, "row 1 has no resource"),
        ({"resource": ["", "vm"]}, "row 0 has no resource"),
        ({"value": ["much", "more"]}, "column value cannot be string"),
    ],
)
def test_a_wrong_table_is_refused_whole(kept: Measurements, change: dict[str, Any], text: str) -> None:
    plain: dict[str, Any] = {"resource": ["a", "b"], "at": [NOON, NOON], "value": [1.0, 2.0], **change}
    with pytest.raises(InvalidInput, match=f"{CPU}: {text}"):
        kept.append(CPU, "instance", pa.table({name: values for name, values in plain.items() if values is not None}))
    assert files(kept) == []


@pytest.mark.parametrize("name", ["../up", "a/b", "", "a b", ".hidden", "metric=x", "x\0"])
def test_names_cannot_leave_the_folder(kept: Measurements, name: str) -> None:
    for ask in (
        lambda: kept.append(name, "instance", table()),
        lambda: kept.append(CPU, name, table()),
        lambda: kept.samples(name, "instance", 0, 1),
        lambda: kept.aggregate([Need(name, "instance")], NOON),
    ):
        with pytest.raises(InvalidInput, match="is no name of a"):
            ask()


def test_an_unknown_aggregate_is_refused(kept: Measurements) -> None:
    with pytest.raises(InvalidInput, match="Unknown aggregate median: use one of mean, min, max, count"):
        kept.aggregate([Need(CPU, "instance", "median")], NOON)


# -- files ---------------------------------------------------------------------------------------


def test_torn_and_temporary_files_are_left_out(kept: Measurements, caplog: pytest.LogCaptureFixture) -> None:
    kept.append(CPU, "instance", table(("vm", NOON, 1.0)))
    (whole,) = files(kept)
    content = whole.read_bytes()
    for position, part in enumerate((b"", content[:3], content[:-1], content[: len(content) // 2], b"PAR1" * 3)):
        whole.with_name(f"torn{position}.parquet").write_bytes(part)
    whole.with_name(".x.part").write_bytes(content)
    whole.with_name(".x.parquet").write_bytes(content)
    assert rows(kept.samples(CPU, "instance", 0, NOON + 1)) == [("vm", NOON, 1.0)]
    assert sum("is torn and left out" in message for message in caplog.messages) == 5
    kept.append(CPU, "instance", table(("vm", NOON, 2.0)))
    assert kept.compact(TODAY) == 2
    assert len(rows(kept.samples(CPU, "instance", 0, NOON + 1))) == 2


def test_a_file_of_something_else_is_an_error_with_a_name(kept: Measurements) -> None:
    kept.append(CPU, "instance", table(("vm", NOON, 1.0)))
    pq.write_table(pa.table({"x": [1]}), files(kept)[0].with_name("foreign.parquet"))
    with pytest.raises(DatasourceError, match=f"Measurements of {CPU} cannot be read"):
        kept.samples(CPU, "instance", 0, NOON + 1)


def test_merging_leaves_one_file_in_time_order(kept: Measurements) -> None:
    for minute in (3, 1, 2):
        kept.append(CPU, "instance", table(("vm", NOON + minute * 60, float(minute))))
    kept.append(CPU, "host", table(("h", NOON, 9.0)))
    kept.append("other", "host", table(("h", NOON, 9.0)))
    before = kept.samples(CPU, "instance", 0, NOON + DAY)
    assert kept.compact(TODAY) == 4
    assert kept.compact(TODAY) == 0
    (merged,) = (path for path in files(kept) if CPU in str(path))
    assert pq.read_table(merged, partitioning=None).column("at").to_pylist() == [
        NOON,
        NOON + 60,
        NOON + 120,
        NOON + 180,
    ]
    assert kept.samples(CPU, "instance", 0, NOON + DAY) == before
    kept.append(CPU, "instance", table(("vm", NOON + 240, 4.0)))
    assert kept.compact(TODAY) == 2
    assert len(rows(kept.samples(CPU, "instance", 0, NOON + DAY))) == 4


class Killed(BaseException):
    """Stands for the process dying at this point."""


@pytest.mark.parametrize(
    "moment", ["before the merged file has its name", "while deleting", "after the first deletion"]
)
@pytest.mark.parametrize("again", [0, 1, 2])
def test_a_crash_while_merging_neither_loses_nor_doubles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, again: int
) -> None:
    kept = Measurements(tmp_path)
    for minute in range(4):
        kept.append(CPU, "instance", table(("vm", NOON + minute, 1.0)))
    deleted = 0
    unlink = Path.unlink

    def rename(self: Path, target: Path) -> Path:
        raise Killed

    def dying_unlink(self: Path, missing_ok: bool = False) -> None:
        nonlocal deleted
        if moment == "while deleting" or deleted:
            raise Killed
        deleted += 1
        unlink(self, missing_ok)

    with monkeypatch.context() as dying:
        if moment.startswith("before"):
            dying.setattr(Path, "rename", rename)
        else:
            dying.setattr(Path, "unlink", dying_unlink)
        with pytest.raises(Killed):
            kept.compact(TODAY)
    kept.close()
    kept = Measurements(tmp_path)  # a new process
    total = 4.0
    for _ in range(again):
        kept.append(CPU, "instance", table(("vm", NOON + 10, 1.0)))
        total += 1
        assert rows(kept.aggregate([Need(CPU, "instance", "count", DAY)], NOON + 60)) == [(0, "vm", total)]
        kept.compact(TODAY)
    assert rows(kept.aggregate([Need(CPU, "instance", "count", DAY)], NOON + 60)) == [(0, "vm", total)]
    kept.compact(TODAY)
    assert len(files(kept)) == 1
    assert rows(kept.aggregate([Need(CPU, "instance", "count", DAY)], NOON + 60)) == [(0, "vm", total)]
    kept.close()


def test_readers_never_miss_or_double_samples_while_files_are_merged(kept: Measurements) -> None:
    kept.append(CPU, "instance", table(*(("vm", NOON + n / 100, 1.0) for n in range(100))))
    stop, counts = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            found = kept.aggregate([Need(CPU, "instance", "count", DAY)], NOON + 1)
            counts.append({name: count for _, name, count in rows(found)}["vm"])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(12):
            kept.append(CPU, "instance", table(("other", NOON, 1.0)))
            kept.compact(TODAY)
    finally:
        stop.set()
        reader.join()
    assert counts
    assert set(counts) == {100.0}


def test_old_days_go_and_late_ones_stay(kept: Measurements) -> None:
    for days in range(4):
        kept.append(CPU, "instance", table(("vm", NOON - days * DAY, float(days))))
    assert kept.retain(2, TODAY) == 2
    assert kept.days(CPU) == [date(2026, 2, 28), TODAY]
    assert [row[2] for row in rows(kept.samples(CPU, "instance", 0, NOON + 1))] == [1.0, 0.0]
    assert kept.retain(2, TODAY) == 0
    assert kept.days("never_measured") == []
    with pytest.raises(InvalidInput, match="keep at least 1"):
        kept.retain(0, TODAY)


def test_a_merged_file_names_what_it_replaces(kept: Measurements) -> None:
    for _ in range(2):
        kept.append(CPU, "instance", table(("vm", NOON, 1.0)))
    names = sorted(path.name for path in files(kept))
    kept.compact(TODAY)
    metadata = pq.read_metadata(files(kept)[0]).metadata
    assert json.loads(metadata[module.REPLACES.encode()]) == names


def test_ten_thousand_resources_are_one_query(kept: Measurements) -> None:
    count, dice = 10_000, np.random.default_rng(1)
    names = pa.array([f"vm-{n:05d}" for n in range(count)])
    values = dice.random((3, count))
    for poll in range(3):
        at = pa.array(np.full(count, NOON - 60 * poll - 1))
        kept.append(CPU, "instance", pa.table({"resource": names, "at": at, "value": pa.array(values[poll])}))
    found = kept.aggregate([Need(CPU, "instance")], NOON)
    assert found.column("resource").to_pylist() == names.to_pylist()
    np.testing.assert_allclose(found.column("value").to_numpy(), values.mean(axis=0), rtol=1e-12)
