"""What the simulated cloud's sensors show beside CPU and memory: power, air and its temperature, cache, allocations.

Power is that of the power model at the measured load. Fans blow with power and inlet temperature, and the air takes the
heat with it: outlet = inlet + P / (rho c V), with 1206 J/(m3 K) for rho c of air at 20 C and sea level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from trimtab.platform.model import DISK, MEMORY, VCPU, ClusterModel
from trimtab.platform.model.compute import Floats
from trimtab.simulator.load import PER_DAY, SAMPLE_S
from trimtab.simulator.power import Power

if TYPE_CHECKING:
    from trimtab.simulator.measurements import Measurements

SENSORS = {
    "host_power": "host",  # W
    "host_inlet_temp": "host",  # C
    "host_outlet_temp": "host",  # C
    "host_airflow": "host",  # 0.1 CFM
    "instance_l3_cache_usage": "instance",  # bytes of last-level cache
    "instance_ram_allocated": "instance",  # MB
    "instance_root_disk_size": "instance",  # GB
}
HEAT_J_M3K = 1206.0
CFM_M3_S = 0.000471947
IDLE_FLOW, FLOW_PER_W, FLOW_PER_K = 120.0, 0.9, 6.0  # 0.1 CFM: fans at rest; per watt; per degree of inlet above 22 C
NOISE_K, NOISE_FLOW = 0.2, 0.01
L3_BYTES_PER_VCPU = 1.5 * 2**20


@dataclass(frozen=True, slots=True)
class Sensors:
    """What differs from host to host and instance to instance; noise is a function of seed, sensor and sample.

    `inlet_c` [H]: mean temperature of the air that a host gets. `airy` [H]: how freely air flows through it, 1 = as
    built. `appetite` [V]: cache that a guest would fill at full load, in shares of a vCPU for each of its own.
    """

    seed: int
    inlet_c: Floats
    airy: Floats
    appetite: Floats

    @classmethod
    def of(cls, model: ClusterModel, seed: int) -> Self:
        """Sensors of an estate: some hosts stand in warm corners, some have dust in their filters."""
        random = np.random.default_rng(seed)
        inlet = random.normal(22.0, 1.2, model.hosts) + np.where(random.random(model.hosts) < 0.08, 6.0, 0.0)
        airy = np.where(random.random(model.hosts) < 0.05, 0.6, random.uniform(0.92, 1.05, model.hosts))
        return cls(seed, inlet, airy, random.lognormal(np.log(1.2), 0.9, model.instances))

    def values(self, of: Measurements, metric: str, first: int, last: int) -> npt.NDArray[np.floating]:
        """One of `SENSORS` in samples first .. last - 1, [n, H] or [n, V]; NaN where nothing was reported."""
        if metric == "instance_l3_cache_usage":
            return self._cache(of, first, last)
        if SENSORS[metric] == "instance":
            return self._allocated(of, metric, first, last)
        watts = self._watts(of, first, last)
        if metric == "host_power":
            return watts
        hours = np.arange(first, last)[:, None] / PER_DAY
        inlet = self.inlet_c + 0.8 * np.cos(2 * np.pi * (hours - 0.6)) + NOISE_K * self._noise(1, first, last)
        flow = self.airy * (IDLE_FLOW + FLOW_PER_W * watts + FLOW_PER_K * np.maximum(inlet - 22.0, 0))
        flow *= 1 + NOISE_FLOW * self._noise(2, first, last)
        known = np.where(np.isnan(watts), np.nan, 0.0)  # a host that is off shows nothing
        if metric == "host_inlet_temp":
            return inlet + known
        if metric == "host_airflow":
            return flow
        return inlet + watts / (HEAT_J_M3K * CFM_M3_S * flow / 10) + NOISE_K * self._noise(3, first, last)

    def _watts(self, of: Measurements, first: int, last: int) -> Floats:
        """Mean power of every sample, by the state at its end."""
        vcpus = of.model.total[:, VCPU]
        demand = of.values("host_cpu_usage", first, last) / 100 * vcpus
        power = Power.of(vcpus)
        watts = np.full(demand.shape, np.nan)
        for rows, moment in of.timeline.stretches(_ends(first, last)):
            residents = np.bincount(moment.host_of[moment.host_of >= 0], minlength=of.model.hosts)
            now = power.watts(np.nan_to_num(demand[rows]), residents, moment.up, moment.enabled)
            watts[rows] = np.where(moment.up, now, np.nan)
        return watts

    def _cache(self, of: Measurements, first: int, last: int) -> Floats:
        """Guests fill a host's cache by load and appetite until it is full, then they push each other out."""
        model = of.model
        wanted = of.values("instance_cpu_usage", first, last) / 100 * self.appetite * model.demand[:, VCPU]
        wanted = wanted * L3_BYTES_PER_VCPU
        size = model.total[:, VCPU] * L3_BYTES_PER_VCPU
        for rows, moment in of.timeline.stretches(_ends(first, last)):
            placed = np.flatnonzero(moment.host_of >= 0)
            at = moment.host_of[placed]
            for sample in wanted[rows]:
                total = np.bincount(at, np.nan_to_num(sample[placed]), model.hosts)
                sample[placed] *= np.minimum(1.0, size / np.maximum(total, 1.0))[at]
        return wanted

    @staticmethod
    def _allocated(of: Measurements, metric: str, first: int, last: int) -> Floats:
        """What instances have now, where they report at all."""
        amount = of.model.demand[:, MEMORY if metric == "instance_ram_allocated" else DISK]
        return np.where(np.isnan(of.values("instance_ram_usage", first, last)), np.nan, amount)

    def _noise(self, sensor: int, first: int, last: int) -> Floats:
        keys = [((sensor << 56 | self.seed & (1 << 56) - 1) << 64) | sample for sample in range(first, last)]
        draws = [np.random.Generator(np.random.Philox(key=key)).standard_normal(len(self.inlet_c)) for key in keys]
        return np.array(draws).reshape(last - first, len(self.inlet_c))


def _ends(first: int, last: int) -> Floats:
    return np.arange(first + 1, last + 1, dtype=np.float64) * SAMPLE_S
