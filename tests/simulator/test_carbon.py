"""Carbon: intensity that repeats, exact means, clear errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import InvalidInput
from trimtab.simulator.carbon import Intensity, carbon_kg

NOW = 20_000 * 86_400.0


def test_kilograms_are_energy_times_the_intensity_of_its_hour() -> None:
    intensity = Intensity(NOW, 3600.0, np.array([100.0, 400.0]))
    kwh = np.concatenate([np.full(12, 2.0), np.full(12, 5.0)])  # 24 kWh in the first hour, 60 in the second
    assert carbon_kg(intensity, NOW, 300.0, kwh) == pytest.approx((24 * 100 + 60 * 400) / 1000)
    assert carbon_kg(intensity, NOW, 300.0, np.empty(0)) == 0.0


def test_a_series_shorter_than_the_time_wraps_around() -> None:
    intensity = Intensity(NOW, 3600.0, np.array([100.0, 400.0]))
    kwh = np.ones(24)
    plain = carbon_kg(intensity, NOW, 300.0, kwh)
    assert carbon_kg(intensity, NOW + 7200 * 1000, 300.0, kwh) == pytest.approx(plain)
    assert carbon_kg(intensity, NOW - 7200 * 3, 300.0, kwh) == pytest.approx(plain)
    assert carbon_kg(intensity, NOW, 300.0, np.tile(kwh, 5)) == pytest.approx(5 * plain)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0, 1000), min_size=1, max_size=8),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(-200, 200),
    st.integers(1, 12),
)
def test_means_are_exact_whatever_the_steps(
    values: list[float], step: int, sample: int, offset: int, count: int
) -> None:
    """Against one value a second."""
    intensity = Intensity(NOW, float(step), np.array(values))
    kwh = np.arange(1, count + 1, dtype=float)
    expected = 0.0
    for n in range(count):
        seconds = [values[((offset + n * sample + s) // step) % len(values)] for s in range(sample)]
        expected += kwh[n] * sum(seconds) / sample / 1000
    assert carbon_kg(intensity, NOW + offset, float(sample), kwh) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("start", "step", "values", "message"),
    [
        (0.0, 3600.0, [], "at least one g/kWh"),
        (0.0, 0.0, [1.0], "a step above zero"),
        (0.0, 3600.0, [1.0, -2.0], r"intensity\[1\] is -2.0"),
        (0.0, 3600.0, [np.nan], r"intensity\[0\] is nan"),
        (np.nan, 3600.0, [1.0], "give a time"),
    ],
)
def test_an_impossible_series_is_refused(start: float, step: float, values: list[float], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Intensity(start, step, np.array(values))


def test_impossible_samples_are_refused() -> None:
    intensity = Intensity(0.0, 1.0, np.ones(3))
    with pytest.raises(InvalidInput, match="a step above zero"):
        carbon_kg(intensity, 0.0, 0.0, np.ones(2))
    with pytest.raises(InvalidInput, match="sample 1 is not a number"):
        carbon_kg(intensity, 0.0, 300.0, np.array([1.0, np.nan]))
