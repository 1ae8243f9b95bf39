"""Tidying the Parquet files as the collector's process does it, through the recorder: merged days, expired days."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from trimtab.platform.errors import InvalidInput
from trimtab.platform.store.measurements import Measurements
from trimtab.serve.compose import RemoteRecorder

DAY_S = 86_400.0
TODAY = date(2026, 3, 10)
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC).timestamp()
METRICS = ("instance_cpu_usage", "host_ram_usage")


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Measurements]:
    opened = Measurements(tmp_path / "metrics")
    yield opened
    opened.close()


@pytest.fixture
def recorder(kept: Measurements) -> RemoteRecorder:
    async def call(method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return getattr(kept, method)(*arguments, **named)

    return RemoteRecorder(call)


def sample(at: float, resource: str = "vm-1") -> pa.Table:
    return pa.table({"resource": [resource], "at": [at], "value": [at % 97]})


def files(kept: Measurements, metric: str, days_ago: int) -> int:
    folder = kept._folder / f"metric={metric}" / f"date={TODAY - timedelta(days=days_ago)}"
    return len(list(folder.glob("*.parquet")))


async def test_finished_days_become_one_file_and_today_stays(recorder: RemoteRecorder, kept: Measurements) -> None:
    for metric in METRICS:
        for days_ago in (0, 1, 2):
            for minute in range(4):
                await recorder.append(metric, "instance", sample(NOON - days_ago * DAY_S + 60 * minute))
    before = {metric: await recorder.samples(metric, "instance", 0, NOON + DAY_S) for metric in METRICS}
    await recorder.tidy(NOON, 30)
    for metric in METRICS:
        assert [files(kept, metric, days_ago) for days_ago in (0, 1, 2)] == [4, 1, 1]
        assert (await recorder.samples(metric, "instance", 0, NOON + DAY_S)).equals(before[metric])
        assert before[metric].num_rows == 12


async def test_what_comes_late_for_a_merged_day_is_merged_the_next_time(
    recorder: RemoteRecorder, kept: Measurements
) -> None:
    yesterday = NOON - DAY_S
    for minute in range(3):
        await recorder.append(METRICS[0], "instance", sample(yesterday + 60 * minute))
    await recorder.tidy(NOON, 30)
    await recorder.append(METRICS[0], "instance", sample(yesterday + 600))
    assert files(kept, METRICS[0], 1) == 2
    await recorder.tidy(NOON, 30)
    assert files(kept, METRICS[0], 1) == 1
    found = await recorder.samples(METRICS[0], "instance", 0, NOON)
    assert found["at"].to_pylist() == [yesterday + s for s in (0, 60, 120, 600)]


async def test_days_that_are_too_old_go_and_nothing_else(recorder: RemoteRecorder, kept: Measurements) -> None:
    for days_ago in range(6):
        await recorder.append(METRICS[0], "instance", sample(NOON - days_ago * DAY_S))
    await recorder.tidy(NOON, 3)
    assert kept.days(METRICS[0]) == [TODAY - timedelta(days=n) for n in (2, 1, 0)]


def test_tidying_an_empty_folder_or_twice_does_nothing(kept: Measurements) -> None:
    assert kept.tidy(NOON, 30) == 0
    for minute in range(3):
        kept.append(METRICS[0], "instance", sample(NOON - DAY_S + minute))
    assert kept.tidy(NOON, 30) == 3
    assert kept.tidy(NOON, 30) == 0


def test_keeping_less_than_a_day_is_refused(kept: Measurements) -> None:
    with pytest.raises(InvalidInput, match="keep at least 1"):
        kept.tidy(NOON, 0)
