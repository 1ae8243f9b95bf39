"""The event kernel from the outside."""

import math
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.simulator.events import Events


def test_runs_in_order_of_time_and_ties_in_order_of_asking() -> None:
    events = Events()
    seen: list[tuple[float, str]] = []

    def note(name: str) -> None:
        seen.append((events.now, name))

    for time, name in ((2, "c"), (1, "a"), (2, "d"), (1, "b"), (3, "e")):
        events.at(time, partial(note, name))
    events.run_until(2)
    assert seen == [(1, "a"), (1, "b"), (2, "c"), (2, "d")]
    assert events.now == 2
    events.run_until(10)
    assert seen[-1] == (3, "e")
    assert events.now == 10


def test_a_cancelled_event_does_not_happen() -> None:
    events, seen = Events(), []
    keep, drop = events.at(1, lambda: seen.append("keep")), events.at(1, lambda: seen.append("drop"))
    events.cancel(drop)
    events.cancel(None)
    events.run_until(1)
    events.cancel(keep)
    assert seen == ["keep"]


def test_refuses_events_in_the_past_and_times_that_are_no_numbers() -> None:
    events = Events(5)
    with pytest.raises(ValueError, match="before now"):
        events.at(4.9, lambda: None)
    with pytest.raises(ValueError, match="before now"):
        events.at(math.nan, lambda: None)
    events.run_until(1)
    assert events.now == 5


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10)), max_size=30),
    st.lists(st.floats(0, 120), max_size=8),
)
def test_time_never_runs_backward_and_slicing_changes_nothing(
    asked: list[tuple[float, float]], stops: list[float]
) -> None:
    def play(until: list[float]) -> list[tuple[float, int]]:
        events = Events()
        seen: list[tuple[float, int]] = []

        def happen(number: int, again: float) -> None:
            seen.append((events.now, number))
            if again and len(seen) < 200:
                events.at(events.now + again, lambda: seen.append((events.now, -number)))

        for number, (time, again) in enumerate(asked):
            events.at(time, partial(happen, number, again))
        for stop in until:
            events.run_until(stop)
        return seen

    whole = play([200.0])
    assert [time for time, _ in whole] == sorted(time for time, _ in whole)
    assert play([*sorted(stops), 200.0]) == whole
