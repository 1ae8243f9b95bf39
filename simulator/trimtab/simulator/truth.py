"""What is true of a simulated cloud and nobody outside knows: its estate, load, rates, used memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from trimtab.platform.contracts import Flavor
from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import (
    DISK,
    MEMORY,
    BaremetalModel,
    ClusterModel,
    StorageModel,
    read_baremetal,
    read_model,
    read_storage,
)
from trimtab.platform.model.compute import Floats
from trimtab.simulator.annex import build_metal, build_storage, pool_mb_s, power_times
from trimtab.simulator.estate import FLAVORS, build_estate
from trimtab.simulator.load import PER_DAY, SAMPLE_S, Days, Load, generated
from trimtab.simulator.migration import GIB_MB, Physics
from trimtab.simulator.rehearse import ASSUMPTIONS
from trimtab.simulator.score import LoadBlock
from trimtab.simulator.sensors import Sensors
from trimtab.simulator.traces.read import read_trace
from trimtab.simulator.traces.trace import to_days

_LOAD, _RATES, _MEMORY, _STORAGE, _POOLS, _METAL, _POWER, _SENSORS = range(1, 9)


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudSpec:
    """A simulated cloud as data; two clouds with the same spec and commands are the same.

    Args:
        hosts: number of hosts of the made-up estate.
        instances: number of its instances.
        zones: number of its zones.
        seed: of the estate, the load and the true rates.
        start_s: cloud time at which the cloud is started; None takes the wall clock at that moment.
        speed: seconds of cloud time a second of the wall clock; 0 stands still except for `fast_forward`.
        history_s: how much past there is at the start.
        estate: folder with a model (`write_model`) to take instead of the made-up one, and its storage and metal.
        traces: anything `traces.read_trace` reads, to take the load from instead of making it up.
        variation: scales how much days differ; 0 makes every day the same.
        as_assumed: true rates are what rehearsals assume; otherwise they are drawn, host by host.
    """

    hosts: int = 200
    instances: int = 2000
    zones: int = 2
    seed: int = 1
    start_s: float | None = None
    speed: float = 1.0
    history_s: float = 86_400.0
    estate: str | None = None
    traces: str | None = None
    variation: float = 1.0
    as_assumed: bool = False

    def to_json(self) -> dict[str, Any]:
        """As the journal keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `to_json` gave.

        Raises:
            InvalidInput: other fields than this version knows.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise InvalidInput(f"a cloud's spec: {error}; it was written by another version") from error

    def model(self) -> ClusterModel:
        """The estate at the start."""
        if self.estate is not None:
            return read_model(Path(self.estate))
        return ClusterModel.from_arrow(*build_estate(self.hosts, self.instances, self.seed, self.zones))

    def storage(self, model: ClusterModel) -> tuple[StorageModel, Floats] | None:
        """The volumes and their pools at the start, and what the pools give to moves, MB/s; None: there are none."""
        if self.estate is not None:
            storage = read_storage(Path(self.estate))
        else:
            storage = build_storage(model, _derived(self.seed, _STORAGE))
        return None if storage is None else (storage, pool_mb_s(storage, _derived(self.seed, _POOLS)))

    def metal(self, model: ClusterModel) -> tuple[BaremetalModel, Floats, Floats] | None:
        """The metal nodes at the start, and what booting and shutting down takes, s; None: nobody manages them."""
        if self.estate is not None:
            metal = read_baremetal(Path(self.estate))
        else:
            metal = build_metal(model, _derived(self.seed, _METAL))
        return None if metal is None else (metal, *power_times(metal.nodes, _derived(self.seed, _POWER)))

    def sensors(self, model: ClusterModel) -> Sensors:
        """What the estate's sensors show."""
        return Sensors.of(model, _derived(self.seed, _SENSORS))

    @staticmethod
    def flavors() -> list[Flavor]:
        """What the cloud offers beside the flavors of its instances."""
        return [Flavor(f.name, f.name, f.vcpus, f.memory_mb, f.disk_gb) for f in FLAVORS]

    def days(self, instances: int, seed: int | None = None) -> Days:
        """The load; `seed` makes another one of the same kind."""
        seed = _derived(self.seed, _LOAD) if seed is None else seed
        if self.traces is not None:
            return to_days(read_trace(Path(self.traces)), instances, seed, self.variation)
        return generated(instances, seed, self.variation)

    def physics(self, model: ClusterModel) -> Physics:
        """True rates of migrations: 10 Gbit/s cards that give 60 to 95 %, guests that dirty memory very unequally."""
        if self.as_assumed:
            return ASSUMPTIONS.physics(model)
        random = np.random.default_rng(_derived(self.seed, _RATES))
        return Physics(
            random.uniform(750, 1190, model.hosts),
            random.lognormal(np.log(30), 0.8, model.instances),
            model.demand[:, MEMORY] * random.uniform(0.6, 1.0, model.instances),
            model.demand[:, DISK] * GIB_MB * random.uniform(0.1, 0.5, model.instances),
            setup_s=4.0,
            downtime_s=0.5,
        )

    def used_memory_mb(self, model: ClusterModel) -> Floats:
        """Memory that running instances use, [V]."""
        random = np.random.default_rng(_derived(self.seed, _MEMORY))
        return np.floor(model.demand[:, MEMORY] * random.uniform(0.3, 0.95, model.instances))


def true_blocks(load: Load, start_s: float, end_s: float) -> Iterator[LoadBlock]:
    """The true load between two times, a day at most at once."""
    sample, last = int(start_s // SAMPLE_S), int(-(-end_s // SAMPLE_S))
    nothing = np.zeros(load.instances, np.float32)
    while sample < last:
        count = min(PER_DAY - sample % PER_DAY, last - sample)
        yield LoadBlock(sample * SAMPLE_S, SAMPLE_S, load.cpu_pct(sample, count), np.arange(count), nothing)
        sample += count


def _derived(seed: int, purpose: int) -> int:
    return int(np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64)[0])
