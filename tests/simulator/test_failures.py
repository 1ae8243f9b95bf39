"""Host failures: drawn ones have the right means and never overlap, recorded ones are checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import ClusterModel
from trimtab.simulator.failures import from_trace, overlaid, random_failures, within
from trimtab.simulator.happenings import Happening

YEAR_S = 365 * 86_400.0


def _of_host(happenings: Sequence[Happening], row: int) -> list[tuple[float, str]]:
    return [(h.at, h.kind) for h in happenings if h.row == row]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.7, 1.0, 2.0]))
def test_every_host_goes_down_and_up_in_turn(seed: int, shape: float) -> None:
    happenings = random_failures(20, 1e6, 50, 10, np.random.default_rng(seed), 500.0, shape, evacuate_after_s=600)
    assert [h.at for h in happenings] == sorted(h.at for h in happenings)
    assert all(500.0 <= h.at < 1e6 + 500 for h in happenings)
    for row in range(20):
        states = [kind for _, kind in _of_host(happenings, row) if kind != "evacuate"]
        assert states == ["host_down", "host_up"] * (len(states) // 2) + ["host_down"] * (len(states) % 2)
        for (at, kind), (before, last) in zip(
            _of_host(happenings, row)[1:], _of_host(happenings, row)[:-1], strict=True
        ):
            if kind == "evacuate":
                assert last == "host_down"
                assert at == pytest.approx(before + 600)


@pytest.mark.parametrize("shape", [0.7, 1.0, 1.5])
def test_means_are_those_asked_for(shape: float) -> None:
    happenings = random_failures(2000, YEAR_S, 300, 20, np.random.default_rng(1), 0.0, shape)
    down_s, up_s = list[float](), list[float]()
    times_of: dict[int, list[float]] = {}
    for happening in happenings:
        times_of.setdefault(happening.row, [0.0]).append(happening.at)
    for times in times_of.values():
        gaps = np.diff(times[:11])
        up_s += gaps[0::2].tolist()
        down_s += gaps[1::2].tolist()
    assert np.mean(up_s) / 3600 == pytest.approx(300, rel=0.05)
    assert np.mean(down_s) / 3600 == pytest.approx(20, rel=0.05)
    # The coefficient of variation tells the shape: 1 for the exponential, above it for clustered failures.
    variation = np.std(up_s) / np.mean(up_s)
    assert variation == pytest.approx({0.7: 1.46, 1.0: 1.0, 1.5: 0.68}[shape], rel=0.1)


def test_the_same_seed_fails_the_same_hosts() -> None:
    one, two, other = (random_failures(50, 1e6, 100, 5, np.random.default_rng(seed), 0.0) for seed in (4, 4, 5))
    assert one == two
    assert one != other
    assert random_failures(0, 1e6, 100, 5, np.random.default_rng(1), 0.0) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mtbf_h": 0.0}, "mtbf_h is 0.0: it must be above zero"),
        ({"shape": -1.0}, "shape is -1.0"),
        ({"horizon_s": -5.0}, "horizon_s is -5.0"),
        ({"evacuate_after_s": -1.0}, "evacuate_after_s is -1.0"),
    ],
)
def test_impossible_figures_are_refused(changes: dict[str, float], message: str) -> None:
    arguments = {"horizon_s": 1e6, "mtbf_h": 10.0, "mttr_h": 1.0, "start_s": 0.0} | changes
    with pytest.raises(InvalidInput, match=message):
        random_failures(3, rng=np.random.default_rng(1), **arguments)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=5, max_size=5))
def test_luck_is_cut_to_the_time_in_which_a_host_exists(seed: int, lives: list[tuple[float, float]]) -> None:
    begins, ends = np.array(lives).T
    drawn = random_failures(5, 1e6, 30, 10, np.random.default_rng(seed), 0.0, evacuate_after_s=600)
    kept = within(drawn, begins, ends)
    assert all(begins[h.row] <= h.at < ends[h.row] for h in kept)
    for row in range(5):
        states = [kind for _, kind in _of_host(kept, row) if kind != "evacuate"]
        assert states == ["host_down", "host_up"] * (len(states) // 2) + ["host_down"] * (len(states) % 2)
        begun = [h for h in drawn if h.row == row and h.kind == "host_down" and begins[row] <= h.at < ends[row]]
        assert states.count("host_down") == len(begun)
    assert within(drawn, np.full(5, -np.inf), np.full(5, np.inf)) == drawn


def test_a_host_is_up_when_all_that_brought_it_down_has_ended() -> None:
    both = [
        Happening(1.0, "host_down", 0),
        Happening(2.0, "host_down", 0),
        Happening(3.0, "host_up", 0),
        Happening(4.0, "evacuate", 0),
        Happening(5.0, "host_up", 0),
        Happening(6.0, "host_down", 0),
        Happening(6.0, "host_down", 1),
        Happening(7.0, "host_up", 1),
        Happening(8.0, "host_up", 1),
    ]
    assert [(h.at, h.row) for h in overlaid(np.array([True, False]), both)] == [
        (1.0, 0),
        (4.0, 0),
        (5.0, 0),
        (6.0, 0),
        (8.0, 1),
    ]


def test_a_trace_is_read_by_uuid_or_name(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(3, [0])
    table = pa.table({"host": ["host-2", "h0", "h0"], "down_at": [10, 50, 5], "up_at": pa.array([30, None, 20])})
    assert from_trace(table, model, evacuate_after_s=10) == [
        Happening(5.0, "host_down", 0),
        Happening(10.0, "host_down", 2),
        Happening(15.0, "evacuate", 0),
        Happening(20.0, "host_up", 0),
        Happening(20.0, "evacuate", 2),
        Happening(30.0, "host_up", 2),
        Happening(50.0, "host_down", 0),
        Happening(60.0, "evacuate", 0),
    ]
    assert [h.at for h in from_trace(table, model, end_s=20)] == [5.0, 10.0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"host": ["h0"], "down_at": [1.0]}, "column 'up_at' is missing"),
        ({"host": ["h9"], "down_at": [1.0], "up_at": [2.0]}, r"row 0 \(host h9\): the model has no such host"),
        ({"host": ["h0"], "down_at": [3.0], "up_at": [2.0]}, "down at 3, up at 2"),
        ({"host": ["h0", "h0"], "down_at": [1.0, 4.0], "up_at": [5.0, 9.0]}, "row 1 .* while it is down already"),
        ({"host": ["h0"], "down_at": ["x"], "up_at": ["y"]}, "must be cloud times in seconds"),
    ],
)
def test_a_wrong_trace_names_its_row(
    small_model: Callable[..., ClusterModel], columns: dict[str, list[object]], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        from_trace(pa.table(columns), small_model(2, [0]))
