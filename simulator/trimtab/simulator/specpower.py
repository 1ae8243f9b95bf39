"""Power of measured servers: SPECpower tables of two machines, straight lines between the points.

Figures: SPECpower_ssj2008 results of the HP ProLiant ML110 G4 (Xeon 3040) and G5 (Xeon 3075), as A. Beloglazov and
R. Buyya use them in "Optimal online deterministic algorithms and adaptive heuristics for energy and performance
efficient dynamic consolidation of virtual machines in cloud data centers", CCPE 24(13), 2012, table II.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from numba import njit

from trimtab.platform.errors import InvalidInput

Floats: TypeAlias = npt.NDArray[np.float64]

POINTS = 11  # 0, 10, .. 100 % of the CPU
ROUNDING = 1.01  # sums of shares may end a little above 1; up to here they mean 1

SPEC_WATTS: dict[str, tuple[float, ...]] = {
    "spec-ml110-g4": (86.0, 89.4, 92.6, 96.0, 99.5, 102.0, 106.0, 108.0, 112.0, 114.0, 117.0),
    "spec-ml110-g5": (93.7, 97.0, 101.0, 105.0, 110.0, 116.0, 121.0, 125.0, 129.0, 133.0, 135.0),
}


@njit(cache=True)
def watts(points: Floats, share: float) -> float:
    """Power at one CPU share, W; for compiled code, which sees to the range itself.

    Args:
        points: W at 0, 10, .. 100 %, [11].
        share: 0..1; a value above 1 counts as 1, one below 0 as 0.
    """
    share = min(max(share, 0.0), 1.0)
    if share % 0.1 == 0:
        return points[int(share * 10)]
    lower, upper = math.floor(share * 10), math.ceil(share * 10)
    slope = (points[upper] - points[lower]) / 10
    return points[lower] + slope * (share - lower / 10) * 100


def watts_of(points: Floats, share: Floats) -> Floats:
    """Power at many shares, W; the same arithmetic as `watts` in numpy.

    Args:
        points: W at 0, 10, .. 100 %: [11] for all, or [..., 11], one row for each share.
        share: [...], 0..1.

    Raises:
        InvalidInput: wrong number of points, or a share outside 0..1.01 or not a number.
    """
    points, share = np.asarray(points, np.float64), np.asarray(share, np.float64)
    if points.shape[-1:] != (POINTS,):
        raise InvalidInput(f"points have shape {points.shape}; give watts at 0, 10, .. 100 % ({POINTS} of them)")
    if not ((share >= 0) & (share <= ROUNDING)).all():
        wrong = share[~((share >= 0) & (share <= ROUNDING))].flat[0]
        raise InvalidInput(f"a CPU share is {wrong:g}; shares lie in 0..1")
    share = np.minimum(share, 1.0)
    lower, upper = np.floor(share * 10).astype(np.int64), np.ceil(share * 10).astype(np.int64)
    rows = np.broadcast_to(points, (*share.shape, POINTS))
    low = np.take_along_axis(rows, lower[..., None], -1)[..., 0]
    high = np.take_along_axis(rows, upper[..., None], -1)[..., 0]
    between = low + (high - low) / 10 * (share - lower / 10) * 100
    exact = np.take_along_axis(rows, (share * 10).astype(np.int64)[..., None], -1)[..., 0]
    return np.where(share % 0.1 == 0, exact, between)
