"""Compute in this process: results in order, one bad item beside the others, and the loop stays free."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

from trimtab.platform.compute import InProcess, run_batch
from trimtab.platform.errors import StrategyError


def divide(shared: float, item: int) -> float:
    if item == 13:
        raise StrategyError("13 brings bad luck")
    return shared / item


async def test_results_come_in_the_order_of_the_items() -> None:
    ran = await InProcess().map(divide, 12.0, [1, 2, 3, 4], 0.0)
    assert [one.value for one in ran] == [12.0, 6.0, 4.0, 3.0]
    assert all(one.error is None and one.seconds >= 0 for one in ran)
    assert {one.worker for one in ran} == {f"pid-{os.getpid()}"}
    assert all(one.node for one in ran)


async def test_an_item_that_raises_becomes_an_error_beside_the_others() -> None:
    ran = await InProcess().map(divide, 12.0, [13, 0, 6], 0.0)
    assert [one.error for one in ran] == [
        "StrategyError: 13 brings bad luck",
        "ZeroDivisionError: float division by zero",
        None,
    ]
    assert [one.value for one in ran] == [None, None, 2.0]


async def test_nothing_to_do_gives_nothing() -> None:
    assert await InProcess().map(divide, 1.0, [], 0.0) == []


async def test_the_event_loop_goes_on_while_it_computes() -> None:
    goes_on = threading.Event()

    def wait(_: Any, __: int) -> bool:
        return goes_on.wait(30)

    work = asyncio.create_task(InProcess().map(wait, None, [1], 0.0))
    await asyncio.sleep(0)
    goes_on.set()  # would never be reached if the work blocked the loop
    assert [one.value for one in await work] == [True]


def test_a_batch_says_where_it_ran() -> None:
    (one,) = run_batch(divide, 1.0, [1], "node-7")
    assert (one.value, one.node, one.error) == (1.0, "node-7", None)
