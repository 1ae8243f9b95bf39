"""The order of datasources: the first that has all, else each metric from the first with it; the dead are passed."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest

from trimtab.platform.datasources.answers import SAMPLES, aggregated
from trimtab.platform.datasources.ordered import Ordered
from trimtab.platform.errors import DatasourceError
from trimtab.platform.snapshot import Need


class Source:
    """One that has some metrics, whose values tell who it is; `dead` while it does not answer."""

    def __init__(self, name: str, value: float, *metrics: str) -> None:
        self.name, self.value, self.metrics = name, value, metrics
        self.dead = False
        self.silent = False
        self.asked: list[list[str]] = []

    def offers(self, metric: str) -> bool:
        return metric in self.metrics

    async def aggregate(self, needs: Sequence[Need], at: float) -> pa.Table:
        self.asked.append([need.metric for need in needs])
        if self.dead:
            raise DatasourceError(f"{self.name} is dead")
        return aggregated([{} if self.silent else {"a": self.value + at} for _ in needs])

    async def samples(self, metric: str, kind: str, start_s: float, end_s: float) -> pa.Table:
        self.asked.append([metric])
        if self.dead:
            raise DatasourceError(f"{self.name} is dead")
        rows = [] if self.silent else [{"resource": kind, "at": start_s, "value": self.value}]
        return pa.Table.from_pylist(rows, schema=SAMPLES)


CPU, RAM, HEAT = (Need(name, "host") for name in ("cpu", "ram", "heat"))


async def values(order: Ordered, *needs: Need) -> dict[str, float]:
    return {needs[row["need"]].metric: row["value"] for row in (await order.aggregate(needs, 0.5)).to_pylist()}


async def test_the_first_that_has_everything_answers_alone() -> None:
    some, whole, other = Source("some", 1, "cpu"), Source("whole", 2, "cpu", "ram"), Source("other", 3, "cpu", "ram")
    order = Ordered([some, whole, other])
    assert await values(order, CPU, RAM) == {"cpu": 2.5, "ram": 2.5}, "not one metric from here and one from there"
    assert (some.asked, whole.asked, other.asked) == ([], [["cpu", "ram"]], [])
    assert await values(order, CPU) == {"cpu": 1.5}
    assert order.name == "some, whole, other"
    assert Ordered([]).name == "none"


async def test_where_none_has_everything_each_metric_comes_from_the_first_that_has_it() -> None:
    first, second = Source("first", 1, "cpu"), Source("second", 2, "cpu", "ram")
    assert await values(Ordered([first, second]), RAM, HEAT, CPU) == {"ram": 2.5, "cpu": 1.5}, (
        "what nobody has is missing"
    )
    assert (first.asked, second.asked) == ([["cpu"]], [["ram"]])


async def test_who_is_dead_is_passed_and_named_when_nobody_is_left(caplog: pytest.LogCaptureFixture) -> None:
    first, second, third = (
        Source("first", 1, "cpu", "ram"),
        Source("second", 2, "cpu", "ram"),
        Source("third", 3, "heat"),
    )
    order = Ordered([first, second, third])
    first.dead = True
    assert await values(order, CPU, RAM) == {"cpu": 2.5, "ram": 2.5}
    assert await values(order, CPU, HEAT) == {"cpu": 2.5, "heat": 3.5}
    assert "first is dead" in caplog.text
    third.dead = True
    assert await values(order, CPU, HEAT) == {"cpu": 2.5}
    second.dead = True
    with pytest.raises(DatasourceError, match="first is dead; second is dead"):
        await values(order, CPU, RAM)
    with pytest.raises(DatasourceError, match="first is dead; second is dead; third is dead"):
        await values(order, CPU, HEAT)
    assert await values(order) == {}


async def test_what_one_has_and_did_not_measure_is_not_taken_from_another() -> None:
    first, second = Source("first", 1, "cpu"), Source("second", 2, "cpu")
    first.silent = True
    assert await values(Ordered([first, second]), CPU) == {}
    assert second.asked == []


async def test_samples_come_from_the_first_that_has_some() -> None:
    first, second, third = Source("first", 1, "cpu"), Source("second", 2, "ram"), Source("third", 3, "cpu")
    order = Ordered([first, second, third])

    async def who(metric: str, until: float = 9000.0) -> list[float]:
        found: list[float] = (await order.samples(metric, "host", 0.0, until)).column("value").to_pylist()
        return found

    assert await who("cpu") == [1]
    first.silent = True
    assert await who("cpu", 600.0) == [], "it may only be late"
    assert await who("cpu") == [3]
    first.dead = True
    assert await who("cpu") == [3]
    third.silent = True
    assert await who("cpu") == [], "one of them answered that there is nothing new"
    third.dead = True
    with pytest.raises(DatasourceError, match="first is dead; third is dead"):
        await who("cpu")
    assert await who("heat") == []
