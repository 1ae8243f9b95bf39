"""Carbon intensity of electricity over time, and what energy means in kg CO2 equivalents.

Operational emissions as in the GHG Protocol's scope 2 guidance (location-based) and the Green Software Foundation's SCI
specification (O = E x I): energy times the grid's intensity when it was used. Intensity series in g/kWh are published
by grid operators and by electricityMaps and WattTime, mostly hourly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model.compute import Floats


@dataclass(frozen=True, slots=True)
class Intensity:
    """Grams CO2e per kWh: value k holds for `step_s` seconds from `start_s + k * step_s`; before and after it repeats.

    Raises:
        InvalidInput: no values, one below zero or missing, or a step that is not above zero.
    """

    start_s: float
    step_s: float
    g_per_kwh: Floats

    def __post_init__(self) -> None:
        values = np.array(self.g_per_kwh, np.float64)
        if values.ndim != 1 or not len(values):
            raise InvalidInput(f"carbon intensity has shape {values.shape}: give a list of at least one g/kWh")
        if not 0 < self.step_s < float("inf") or not np.isfinite(self.start_s):
            raise InvalidInput(
                f"carbon intensity from {self.start_s} every {self.step_s} s: give a time and a step above zero"
            )
        if (wrong := ~((values >= 0) & np.isfinite(values))).any():
            row = int(np.flatnonzero(wrong)[0])
            raise InvalidInput(f"carbon intensity[{row}] is {values[row]}: g/kWh are numbers, zero or more")
        values.flags.writeable = False
        object.__setattr__(self, "g_per_kwh", values)

    def mean(self, start_s: Floats, end_s: Floats) -> Floats:
        """Mean intensity of some times [start, end), g/kWh; exact, whatever the steps."""
        period = self.step_s * len(self.g_per_kwh)
        # Differences of large integrals lose digits: count from the round in which the first time lies.
        origin = self.start_s + np.floor((np.min(start_s) - self.start_s) / period) * period
        return (self._integral(end_s - origin) - self._integral(start_s - origin)) / (end_s - start_s)

    def _integral(self, seconds: Floats) -> Floats:
        """From the begin of a round for some seconds, g/kWh x s."""
        steps = seconds / self.step_s
        whole = np.concatenate([[0.0], np.cumsum(self.g_per_kwh)])
        rounds, within = np.divmod(steps, len(self.g_per_kwh))
        at = np.minimum(within.astype(np.int64), len(self.g_per_kwh) - 1)
        return (rounds * whole[-1] + whole[at] + (within - at) * self.g_per_kwh[at]) * self.step_s


def carbon_kg(intensity: Intensity, start_s: float, step_s: float, kwh_per_sample: Floats) -> float:
    """Emissions of energy that was used evenly within each of some consecutive samples, kg CO2e.

    Args:
        intensity: of the electricity.
        start_s: when the first sample begins.
        step_s: length of a sample.
        kwh_per_sample: energy, [T].

    Raises:
        InvalidInput: a step that is not above zero, or energy that is not a number.
    """
    kwh = np.asarray(kwh_per_sample, np.float64)
    if not len(kwh):
        return 0.0
    if not step_s > 0:
        raise InvalidInput(f"samples of {step_s} s: give a step above zero")
    if not np.isfinite(kwh).all():
        raise InvalidInput(f"energy of sample {int(np.flatnonzero(~np.isfinite(kwh))[0])} is not a number of kWh")
    begins = start_s + step_s * np.arange(len(kwh), dtype=np.float64)
    return float((intensity.mean(begins, begins + step_s) * kwh).sum() / 1000)
