"""Electric power of hosts: linear between idle and full load, standby where a host is empty and disabled.

The linear model is that of Fan, Weber and Barroso, "Power provisioning for a warehouse-sized computer", ISCA 2007.
Load is piecewise constant, so energy is the sum of power times the length of each piece: no update interval matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from trimtab.platform.model.compute import Bools, Floats

IDLE_BASE_W, IDLE_PER_VCPU_W = 60.0, 1.5
BUSY_PER_VCPU_W = 4.0  # on top of idle
STANDBY_W = 8.0  # management controller only


@dataclass(frozen=True, slots=True)
class Power:
    """Watts of every host, [H] each: at 0 % CPU, added at 100 %, and in standby; `vcpus` are physical."""

    vcpus: Floats
    idle_w: Floats
    busy_w: Floats
    standby_w: Floats

    @classmethod
    def of(cls, vcpus: Floats) -> Self:
        """Power of hosts of which only the size is known."""
        return cls(
            np.array(vcpus, np.float64),
            IDLE_BASE_W + IDLE_PER_VCPU_W * vcpus,
            BUSY_PER_VCPU_W * vcpus,
            np.full(len(vcpus), STANDBY_W),
        )

    def watts(self, demand: Floats, residents: npt.NDArray[np.int64], up: Bools, enabled: Bools) -> Floats:
        """Power now, [H]; `demand` in physical vCPUs. A host that is down takes nothing."""
        share = np.clip(demand / np.maximum(self.vcpus, 1e-9), 0, 1)
        running = self.idle_w + self.busy_w * share
        return np.where(up, np.where((residents == 0) & ~enabled, self.standby_w, running), 0.0)
