"""Clocks tell the time they promise, and virtual time jumps only when everybody waits."""

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.clocks import PacedClock, VirtualClock, WallClock, cloud_time
from trimtab.platform.contracts import Clock, Tools


def test_virtual_sleepers_wake_in_the_order_of_their_time() -> None:
    async def story() -> list[tuple[str, float]]:
        clock, woken = VirtualClock(100.0), []

        async def sleeper(name: str, seconds: float) -> None:
            await clock.sleep(seconds)
            woken.append((name, clock.now()))

        await asyncio.gather(sleeper("late", 1e6), sleeper("early", 1), sleeper("also early", 1), sleeper("middle", 60))
        return woken

    assert asyncio.run(story()) == [("early", 101), ("also early", 101), ("middle", 160), ("late", 1_000_100)]


def test_virtual_time_stands_still_while_somebody_works() -> None:
    async def story() -> float:
        clock = VirtualClock()
        asleep = asyncio.create_task(clock.sleep(5))
        for _ in range(40):  # many turns of the event loop, all in a row
            await asyncio.sleep(0)
        before = clock.now()
        await asleep
        return before

    assert asyncio.run(story()) == 0


def test_virtual_time_waits_for_a_thread_it_was_told_of() -> None:
    async def story() -> tuple[float, float]:
        clock = VirtualClock()
        asleep = asyncio.create_task(clock.sleep(5))
        with clock.working():
            await asyncio.to_thread(time.sleep, 0.02)
            seen = clock.now()
        await asleep
        return seen, clock.now()

    assert asyncio.run(story()) == (0, 5)


def test_a_cancelled_sleeper_holds_nobody_up() -> None:
    async def story() -> float:
        clock = VirtualClock()
        given_up = asyncio.create_task(clock.sleep(1))
        await asyncio.sleep(0)
        given_up.cancel()
        await clock.sleep(10)
        return clock.now()

    assert asyncio.run(story()) == 10


@given(st.lists(st.lists(st.floats(0.001, 1e4), min_size=1, max_size=5), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_virtual_time_never_runs_backwards_and_nobody_wakes_early(naps: list[list[float]]) -> None:
    async def story() -> tuple[list[float], float]:
        clock, moments = VirtualClock(), []

        async def sleeper(own: list[float]) -> None:
            for nap in own:
                until = clock.now() + nap
                await clock.sleep(nap)
                moments.append(clock.now())
                assert clock.now() == until

        await asyncio.gather(*(sleeper(own) for own in naps))
        return moments, clock.now()

    moments, end = asyncio.run(story())
    assert moments == sorted(moments)
    assert end == pytest.approx(max(sum(own) for own in naps))


@pytest.mark.parametrize(
    ("seconds", "at_most", "ticks"), [(5, 15, [0, 5, 10, 15]), (5, 12, [0, 5, 10, 12]), (5, 0, [0]), (5, 3, [0, 3])]
)
def test_ticks_come_at_once_and_at_the_end(seconds: float, at_most: float, ticks: list[float]) -> None:
    async def story() -> list[float]:
        clock = VirtualClock(1.7e9)
        return [passed async for passed in clock.every(seconds, at_most)]

    assert asyncio.run(story()) == pytest.approx(ticks)


def test_ticks_do_not_pile_up_behind_a_slow_consumer() -> None:
    async def story() -> list[float]:
        clock, seen = VirtualClock(), []
        async for passed in clock.every(5, 30):
            seen.append(passed)
            await clock.sleep(12 if passed == 5 else 0)
        return seen

    assert asyncio.run(story()) == pytest.approx([0, 5, 17, 22, 27, 30])


def test_a_paced_clock_runs_at_its_speed() -> None:
    origin = time.time()
    clock = PacedClock(1_000.0, origin, 60.0)
    assert clock.of_wall(origin) == 1_000
    assert clock.of_wall(origin + 2) == 1_120
    assert 1_000 <= clock.now() <= 1_000 + (time.time() - origin) * 60


async def test_a_paced_sleep_is_as_long_as_promised_in_cloud_time() -> None:
    clock = PacedClock(0.0, time.time(), 1_000.0)
    before = clock.now()
    await clock.sleep(20)
    assert clock.now() - before >= 19.9  # the event loop's timers may be a fraction of a millisecond early


async def test_a_paced_sleep_has_a_floor_of_wall_time() -> None:
    clock, wall = PacedClock(0.0, time.time(), 1e6, least_wall_s=0.01), time.monotonic()
    await clock.sleep(1e-3)
    assert time.monotonic() - wall >= 0.009


@pytest.mark.parametrize("speed", [0.0, -1.0, float("inf"), float("nan")])
def test_a_paced_clock_refuses_a_speed_that_stops_time(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        PacedClock(0.0, 0.0, speed)


async def test_the_wall_clock_tells_the_time_of_day() -> None:
    clock, before = WallClock(), time.time()
    await clock.sleep(0.001)
    assert before <= clock.now() <= time.time()
    assert [passed async for passed in clock.every(1, 0)] == pytest.approx([0], abs=0.5)


def test_a_moment_of_wall_time_is_found_again_on_the_clouds_clock() -> None:
    origin = time.time() - 100
    paced, wall = PacedClock(5_000.0, origin, 10.0), WallClock()

    def tools(clock: Clock) -> Tools:
        cloud: Any = None
        return Tools(cloud, clock, wall)

    assert cloud_time(tools(paced), origin + 50) == 5_500
    assert cloud_time(tools(wall), origin) == origin


def test_a_foreign_clock_is_taken_to_run_as_fast_as_the_wall() -> None:
    class Ahead(WallClock):
        of_wall = None  # type: ignore[assignment]

        def now(self) -> float:
            return time.time() + 3_600

    cloud: Any = None
    moment = cloud_time(Tools(cloud, Ahead(), WallClock()), 1_000.0)
    assert moment == pytest.approx(4_600, abs=1)
