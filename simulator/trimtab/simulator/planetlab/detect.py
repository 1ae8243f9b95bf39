"""Compiled: is a host overloaded? Thresholds fixed or adapted to the history, or a prediction one step ahead.

Sources: Beloglazov and Buyya, CCPE 24(13), 2012, section 5; W. S. Cleveland, "Robust locally weighted regression and
smoothing scatterplots", JASA 74, 1979, for the weights of LR and LRR. A history is what the VMs now on the host used
before, wherever they were: `tail` holds the newest `length` samples, oldest first, as shares of the host.
"""

from __future__ import annotations

import math

from numba import njit

from trimtab.simulator.planetlab.fleet import Floats
from trimtab.simulator.planetlab.rules import IQR, LR, LRR, MAD

FALLBACK = 0.7  # threshold while the history is too short
ENOUGH = 12  # samples for IQR and MAD
REGRESSED = 10  # samples for LR and LRR


@njit(cache=True, error_model="numpy")
def overloaded(
    detection: int, parameter: float, plain_line: bool, share: float, tail: Floats, length: int, work: Floats
) -> bool:
    """The verdict.

    Args:
        detection: row of `rules.DETECTIONS`.
        parameter: threshold of THR, safety of the others.
        plain_line: no weights in LR and LRR.
        share: demand of the host's VMs as a share of the host, not capped.
        tail: [window], newest last.
        length: how many of the newest samples count.
        work: scratch, [window].
    """
    if IQR <= detection <= MAD:
        if length < ENOUGH:
            return share > FALLBACK
        spread = spread_of(detection, tail, length, work)
        return share > 1 - parameter * spread
    if LR <= detection <= LRR:
        if length < REGRESSED:
            return share > FALLBACK
        return ahead(tail, detection == LRR, plain_line, work) * parameter >= 1
    return share > parameter


@njit(cache=True, error_model="numpy")
def spread_of(detection: int, tail: Floats, length: int, work: Floats) -> float:
    """Interquartile range, or median absolute deviation, of the newest samples."""
    first = len(tail) - length
    for n in range(length):
        work[n] = tail[first + n]
    sort(work, length)
    if detection == IQR:
        low = math.floor(0.25 * (length + 1) + 0.5) - 1
        high = math.floor(0.75 * (length + 1) + 0.5) - 1
        return work[high] - work[low]
    middle = median(work, length)
    for n in range(length):
        work[n] = abs(middle - tail[first + n])
    sort(work, length)
    return median(work, length)


@njit(cache=True, error_model="numpy")
def sort(values: Floats, length: int) -> None:
    """Insertion sort of the first `length` values: there are at most thirty."""
    for n in range(1, length):
        value, at = values[n], n
        while at > 0 and values[at - 1] > value:
            values[at] = values[at - 1]
            at -= 1
        values[at] = value


@njit(cache=True, error_model="numpy")
def median(values: Floats, length: int) -> float:
    """Of sorted values; between the middle two where their number is even."""
    half = length // 2
    if length % 2:
        return values[half]
    return values[half - 1] + 0.5 * (values[half] - values[half - 1])


@njit(cache=True, error_model="numpy")
def ahead(tail: Floats, robust: bool, plain_line: bool, work: Floats) -> float:
    """What a line through the newest ten samples says for the next one."""
    first = len(tail) - REGRESSED
    if plain_line:
        return plain_ahead(tail, first)
    for n in range(REGRESSED):
        far = (REGRESSED - 1 - n) / (REGRESSED - 1)
        near = 1 - far * far * far
        work[n] = near * near * near
    start, slope = weighted_line(tail, first, work)
    if robust:
        rest = work[REGRESSED : 2 * REGRESSED]
        for n in range(REGRESSED):
            rest[n] = abs(tail[first + n] - (start + slope * (n + 1)))
        ordered = work[2 * REGRESSED : 3 * REGRESSED]
        ordered[:] = rest
        sort(ordered, REGRESSED)
        scale = 6 * median(ordered, REGRESSED)
        if scale > 0:
            for n in range(REGRESSED):
                part = rest[n] / scale
                keep = 1 - part * part
                work[n] *= keep * keep if part < 1 else 0.0
            start, slope = weighted_line(tail, first, work)
    return start + slope * (REGRESSED + 1)


@njit(cache=True, error_model="numpy")
def plain_ahead(tail: Floats, first: int) -> float:
    """Ordinary least squares with running means, in the order of arithmetic the reference has."""
    mean_x = mean_y = sum_x = sum_y = sum_xx = sum_xy = 0.0
    for n in range(REGRESSED):
        x, y = n + 1.0, tail[first + n]
        if n == 0:
            mean_x, mean_y = x, y
        else:
            off_x, off_y, part = x - mean_x, y - mean_y, n / (1.0 + n)
            sum_xx += off_x * off_x * part
            sum_xy += off_x * off_y * part
            mean_x += off_x / (1.0 + n)
            mean_y += off_y / (1.0 + n)
        sum_x += x
        sum_y += y
    slope = sum_xy / sum_xx
    return (sum_y - slope * sum_x) / REGRESSED + slope * (REGRESSED + 1.0)


@njit(cache=True, error_model="numpy")
def weighted_line(tail: Floats, first: int, weights: Floats) -> tuple[float, float]:
    """Weighted least squares over x = 1..10: value at x = 0 and slope; flat where less than two weights count."""
    total = mean_x = mean_y = 0.0
    for n in range(REGRESSED):
        total += weights[n]
        mean_x += weights[n] * (n + 1.0)
        mean_y += weights[n] * tail[first + n]
    mean_x /= total
    mean_y /= total
    spread = shared = 0.0
    for n in range(REGRESSED):
        off = n + 1.0 - mean_x
        spread += weights[n] * off * off
        shared += weights[n] * off * (tail[first + n] - mean_y)
    slope = shared / spread if spread > 1e-12 else 0.0
    return mean_y - slope * mean_x, slope
