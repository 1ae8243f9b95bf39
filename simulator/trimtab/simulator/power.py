"""Electric power of hosts: curves between idle and full load, measured tables, standby, boot and shutdown.

The linear model is that of Fan, Weber and Barroso, "Power provisioning for a warehouse-sized computer", ISCA 2007;
constant, square and cubic are the curves of CloudSim (Calheiros et al., Software: Practice and Experience 41(1), 2011)
and OpenDC. Tables: see `specpower`. Load is piecewise constant, so energy is the sum of power times the length of each
piece: no update interval matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model.compute import Bools, Floats
from trimtab.simulator.specpower import POINTS, SPEC_WATTS, watts_of

IDLE_BASE_W, IDLE_PER_VCPU_W = 60.0, 1.5
BUSY_PER_VCPU_W = 4.0  # on top of idle
STANDBY_W = 8.0  # management controller only

LINEAR, CONSTANT, SQUARE, CUBIC, TABLE = range(5)
CURVES = {"constant": CONSTANT, "linear": LINEAR, "square": SQUARE, "cubic": CUBIC, **dict.fromkeys(SPEC_WATTS, TABLE)}


@dataclass(frozen=True, slots=True)
class Power:
    """Watts of every host, [H] each: at 0 % CPU, added at 100 %, and in standby; `vcpus` are physical.

    `curve` [H] (LINEAR, CONSTANT, ..): the way from idle to busy. `points` [H, 11]: W at 0, 10, .. 100 % where the
    curve is TABLE; no rows when no host's is. `boot_s`: what a boot takes, to be given to the `World`; `boot_w` [H]:
    power in that time. `shutdown_j` [H]: energy of going to standby, booked at once.
    """

    vcpus: Floats
    idle_w: Floats
    busy_w: Floats
    standby_w: Floats
    curve: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    points: Floats = field(default_factory=lambda: np.empty((0, POINTS)))
    boot_s: float = 0.0
    boot_w: Floats = field(default_factory=lambda: np.empty(0))
    shutdown_j: Floats = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        hosts = len(self.vcpus)
        if not len(self.curve):
            object.__setattr__(self, "curve", np.full(hosts, LINEAR, np.int64))
        if not len(self.boot_w):
            object.__setattr__(self, "boot_w", self.idle_w + self.busy_w)
        if not len(self.shutdown_j):
            object.__setattr__(self, "shutdown_j", np.zeros(hosts))
        for name in ("idle_w", "busy_w", "standby_w", "curve", "boot_w", "shutdown_j"):
            values = getattr(self, name)
            if values.shape != (hosts,) or not (values >= 0).all():
                raise InvalidInput(f"power: {name} must have one number, zero or more, for each of the {hosts} hosts")
        if (self.curve == TABLE).any() and self.points.shape != (hosts, POINTS):
            raise InvalidInput(
                f"power: points have shape {self.points.shape}; hosts with a table need ({hosts}, {POINTS})"
            )

    @classmethod
    def of(cls, vcpus: Floats) -> Self:
        """Power of hosts of which only the size is known."""
        return cls(
            np.array(vcpus, np.float64),
            IDLE_BASE_W + IDLE_PER_VCPU_W * vcpus,
            BUSY_PER_VCPU_W * vcpus,
            np.full(len(vcpus), STANDBY_W),
        )

    @classmethod
    def named(cls, name: str | Sequence[str], vcpus: Floats) -> Self:
        """Power by a curve of `CURVES`, for all hosts or one name for each.

        Idle and full power are those of `of`, or the ends of the table.

        Raises:
            InvalidInput: no such curve, or not one for each host.
        """
        names = [name] * len(vcpus) if isinstance(name, str) else list(name)
        if len(names) != len(vcpus):
            raise InvalidInput(f"power: {len(names)} curves for {len(vcpus)} hosts; give one, or one for each")
        for one in names:
            if one not in CURVES:
                raise InvalidInput(f"power model {one!r} does not exist: use one of {', '.join(CURVES)}")
        plain = cls.of(vcpus)
        curve = np.array([CURVES[one] for one in names], np.int64)
        if not (curve == TABLE).any():
            return replace(plain, curve=curve)
        points = np.array([SPEC_WATTS.get(one, (0.0,) * POINTS) for one in names], np.float64)
        idle = np.where(curve == TABLE, points[:, 0], plain.idle_w)
        busy = np.where(curve == TABLE, points[:, -1] - points[:, 0], plain.busy_w)
        return replace(plain, curve=curve, points=points, idle_w=idle, busy_w=busy, boot_w=idle + busy)

    def with_boot(self, boot_s: float, boot_w: Floats | None = None, shutdown_j: Floats | None = None) -> Self:
        """The same with a boot of so many seconds, at full power unless `boot_w` says otherwise."""
        if not 0 <= boot_s < float("inf"):
            raise InvalidInput(f"boot_s is {boot_s}: give seconds, zero or more")
        return replace(
            self,
            boot_s=boot_s,
            boot_w=self.boot_w if boot_w is None else boot_w,
            shutdown_j=self.shutdown_j if shutdown_j is None else shutdown_j,
        )

    def watts(
        self,
        demand: Floats,
        residents: npt.NDArray[np.int64],
        up: Bools,
        enabled: Bools,
        booting: Bools | None = None,
    ) -> Floats:
        """Power now, [H]; `demand` in physical vCPUs. A host that is down takes nothing unless it is booting."""
        share = np.clip(demand / np.maximum(self.vcpus, 1e-9), 0, 1)
        running = self.idle_w + self.busy_w * share
        for curve, shape in ((CONSTANT, np.ones_like(share)), (SQUARE, share * share), (CUBIC, share * share * share)):
            running = np.where(self.curve == curve, self.idle_w + self.busy_w * shape, running)
        if len(tables := np.flatnonzero(self.curve == TABLE)):
            running[tables] = watts_of(self.points[tables], share[tables])
        watts = np.where(up, np.where((residents == 0) & ~enabled, self.standby_w, running), 0.0)
        return watts if booting is None else np.where(booting, self.boot_w, watts)
