"""Cells as Ray tasks: whose fault an error is, when the clock of a batch begins, and what a cancel stops."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from trimtab.platform.compute import WorkerLost
from trimtab.platform.runtime.cells import RayCells, on_cluster
from trimtab.platform.settings import RaySettings
from trimtab.serve import local_ray

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", autouse=True)
def one_worker() -> Iterator[None]:
    """A Ray with one CPU, so that a second batch has to wait."""
    local_ray.start(RaySettings(num_cpus=1, dashboard=False), "trimtab-cells")
    yield
    stop: Any = ray.shutdown  # untyped
    stop()


def unpicklable(_: Any, item: int) -> Any:
    """Doubles numbers; what it makes of 3 cannot travel."""
    return threading.Lock() if item == 3 else 2 * item


def naps(log: str, seconds: float) -> float:
    """Sleeps, and writes down that it was awake at the beginning and at the end."""
    with Path(log).open("a") as file:
        file.write(f"begun {os.getpid()}\n")
    time.sleep(seconds)
    with Path(log).open("a") as file:
        file.write("ended\n")
    return seconds


def until_written(log: Path) -> None:
    deadline = time.monotonic() + 100
    while not log.exists() or not log.read_text():
        assert time.monotonic() < deadline, "it never began"
        time.sleep(0.02)


async def test_an_error_that_is_no_lost_worker_is_that_of_its_cell_alone() -> None:
    found: dict[int, Any] = {}
    async for ended in on_cluster(unpicklable, None, list(range(20))):
        found.update(ended)
    assert sorted(found) == list(range(20))
    assert "TypeError" in found[3].error
    assert "pickle" in found[3].error
    assert {n: ran.value for n, ran in found.items() if n != 3} == {n: 2 * n for n in range(20) if n != 3}
    ran = await RayCells(unpicklable, None)([2, 3, 4])
    assert [one.error is None for one in ran] == [True, False, True]


async def test_waiting_for_a_worker_is_no_work(tmp_path: Path) -> None:
    cells = RayCells(naps, str(tmp_path / "log"), deadline_s=2.0)
    both = await asyncio.gather(cells([1.4]), cells([1.4]), cells([1.4]))
    assert [ran[0].value for ran in both] == [1.4, 1.4, 1.4]
    with pytest.raises(WorkerLost, match="it took longer than 2 s"):
        await cells([60.0])


async def test_a_cancelled_batch_dies_at_once_and_its_worker_is_free(tmp_path: Path) -> None:
    log = tmp_path / "log"
    cells = RayCells(naps, str(log))
    task = asyncio.create_task(cells([300.0]))
    async with asyncio.timeout(100):
        await asyncio.to_thread(until_written, log)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await cells([0.0]))[0].value == 0.0
    assert log.read_text().count("ended") == 1
