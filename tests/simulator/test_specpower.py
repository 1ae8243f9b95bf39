"""SPECpower tables: the points themselves, straight lines between them, and refusal of nonsense."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import InvalidInput
from trimtab.simulator.specpower import SPEC_WATTS, watts, watts_of

TABLES = {name: np.array(points) for name, points in SPEC_WATTS.items()}


@pytest.mark.parametrize("name", sorted(TABLES))
def test_the_points_of_a_table_are_its_values(name: str) -> None:
    shares = np.arange(11) / 10
    np.testing.assert_allclose(watts_of(TABLES[name], shares), TABLES[name], rtol=1e-12)


def test_halfway_between_two_points_is_their_mean() -> None:
    assert watts(TABLES["spec-ml110-g4"], 0.55) == pytest.approx(104.0)
    assert watts(TABLES["spec-ml110-g5"], 0.05) == pytest.approx(95.35)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.sampled_from(sorted(TABLES)))
def test_compiled_and_numpy_interpolation_give_the_same_bits(share: float, name: str) -> None:
    assert watts(TABLES[name], share) == watts_of(TABLES[name], np.array([share]))[0]


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(sorted(TABLES)))
def test_more_work_never_takes_less_power(one: float, other: float, name: str) -> None:
    low, high = sorted((one, other))
    assert watts(TABLES[name], low) <= watts(TABLES[name], high) + 1e-9


def test_a_share_a_little_above_one_is_full_load() -> None:
    assert watts(TABLES["spec-ml110-g4"], 1.005) == watts_of(TABLES["spec-ml110-g4"], np.array(1.005)) == 117.0


def test_every_host_may_have_its_own_table() -> None:
    both = np.stack([TABLES["spec-ml110-g4"], TABLES["spec-ml110-g5"]])
    np.testing.assert_allclose(watts_of(both, np.array([1.0, 0.0])), [117.0, 93.7])


@pytest.mark.parametrize("share", [-0.1, 1.02, float("nan")])
def test_a_share_outside_the_range_is_refused(share: float) -> None:
    with pytest.raises(InvalidInput, match="shares lie in 0"):
        watts_of(TABLES["spec-ml110-g4"], np.array([0.5, share]))


def test_a_table_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(InvalidInput, match="11 of them"):
        watts_of(np.arange(3.0), np.array([0.5]))
